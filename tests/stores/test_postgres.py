"""The PostgreSQL store keeps the contract, shares its schema, and says what goes wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.servers.postgres import PostgresServer, postgres

from stepwell.stores.base import Store
from stepwell.stores.conformance import StoreConformance
from stepwell.stores.postgres import PostgresStore

__all__ = ["postgres"]


class TestPostgresStore(StoreConformance):
    @pytest.fixture(autouse=True)
    def _server(self, postgres: PostgresServer) -> None:
        self.server = postgres

    def make_store(self, place: Path) -> Store:
        return PostgresStore(self.server.url_for(place))


class TestPostgresStoreForProcessCrashes(StoreConformance):
    @pytest.fixture(autouse=True)
    def _server(self, postgres: PostgresServer) -> None:
        self.server = postgres

    def make_store(self, place: Path) -> Store:
        url = self.server.url_for(place)
        return PostgresStore(url, durability="process", read_connections=1)
