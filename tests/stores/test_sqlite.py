"""The SQLite store keeps the contract."""

from __future__ import annotations

from pathlib import Path

from stepwell.stores.base import Store
from stepwell.stores.conformance import StoreConformance
from stepwell.stores.sqlite import SQLiteStore


class TestSQLiteStore(StoreConformance):
    def make_store(self, place: Path) -> Store:
        return SQLiteStore(place / "runs.db")
