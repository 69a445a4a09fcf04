"""The in-memory store keeps the contract, and says what it does not do."""

from __future__ import annotations

from pathlib import Path

from stepwell.stores.base import Store
from stepwell.stores.conformance import VolatileStoreConformance, new
from stepwell.stores.memory import MemoryStore


class TestMemoryStore(VolatileStoreConformance):
    def make_store(self, place: Path) -> Store:
        return MemoryStore()


async def test_what_it_keeps_is_there_after_closing_and_opening() -> None:
    store = MemoryStore()
    await store.open()
    await store.create(new("a"))
    await store.close()
    await store.open()
    assert await store.get("a") is not None


def test_it_says_that_nothing_survives() -> None:
    store = MemoryStore()
    assert (store.url, store.durability) == ("memory://", "none")
    assert not store.supports("persistent")
    assert not store.supports("multiprocess")
