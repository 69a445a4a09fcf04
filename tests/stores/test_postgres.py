"""The PostgreSQL store keeps the contract, shares its schema, and says what goes wrong."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from tests.servers.postgres import PostgresServer, postgres, postgres_url_for

from stepwell.stores.base import Store
from stepwell.stores.conformance import StoreConformance, begin, journal, message, turn
from stepwell.stores.digests import digest_of
from stepwell.stores.postgres import PostgresStore

__all__ = ["postgres", "postgres_url_for"]


class TestPostgresStore(StoreConformance):
    @pytest.fixture(autouse=True)
    def _server(self, postgres_url_for: Callable[[object], str]) -> None:
        self.url_for = postgres_url_for

    def make_store(self, place: Path) -> Store:
        return PostgresStore(self.url_for(place))


class TestPostgresStoreForProcessCrashes(StoreConformance):
    @pytest.fixture(autouse=True)
    def _server(self, postgres_url_for: Callable[[object], str]) -> None:
        self.url_for = postgres_url_for

    def make_store(self, place: Path) -> Store:
        return PostgresStore(self.url_for(place), durability="process", read_connections=1)


def run(*command: object, given: bytes | None = None) -> bytes:
    """What one of PostgreSQL's own tools says."""
    said = subprocess.run([*map(str, command)], input=given, capture_output=True, check=True)
    return said.stdout


async def test_a_dump_can_be_brought_back(postgres: PostgresServer) -> None:
    store = PostgresStore(postgres.url("dumped"))
    await store.open()
    await begin(store, "a", b"1", key="k", waits=("approval",), blobs={digest_of(b"x"): b"x"})
    await store.send([message("a", b"2", dedupe="d")])
    dump = run(postgres.bin / "pg_dump", "--schema=dumped", postgres.url())
    await store.commit(turn("a", b"2"))
    await store.close()
    with psycopg.connect(postgres.url(), autocommit=True) as db:
        db.execute("CREATE DATABASE elsewhere")
    elsewhere = postgres.url().replace("/postgres?", "/elsewhere?")
    run(postgres.bin / "psql", "--quiet", "--set=ON_ERROR_STOP=1", elsewhere, given=dump)
    copy = PostgresStore(f"{elsewhere}&schema=dumped")
    await copy.open()
    assert await copy.verify() == []
    assert await journal(copy, "a") == [(1, b"1")]
    assert await copy.send([message("a", dedupe="d")]) == [False]
    await copy.commit(turn("a", b"3"))
    assert [row.id for row in await copy.claim("w2", ["wf"], 100.0, 10)] == ["a"]
    assert await copy.next_due(["wf"], 100.0) is not None
    await copy.close()
