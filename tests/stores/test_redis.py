"""The Redis store keeps the contract, shares its server, and says what goes wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.servers.redis import RedisServer, redis

from stepwell.errors import StoreUnavailable
from stepwell.stores.base import Store
from stepwell.stores.conformance import StoreConformance
from stepwell.stores.redis import RedisStore

__all__ = ["redis"]


async def test_a_writer_that_was_stopped_from_outside_refuses_instead_of_being_silent(
    redis: RedisServer, tmp_path: Path
) -> None:
    """As at the end of `asyncio.run`, which cancels every task that is left."""
    store = RedisStore(redis.url_for(tmp_path))
    await store.open()
    (writer,) = (t for t in asyncio.all_tasks() if t.get_name() == "stepwell-redis-writer")
    writer.cancel()
    late = asyncio.ensure_future(store.unregister("w"))
    with pytest.raises(StoreUnavailable, match="is closed"):
        await late
    with pytest.raises(StoreUnavailable, match="is closed"):
        await store.unregister("w")
    await store.close()


class TestRedisStore(StoreConformance):
    @pytest.fixture(autouse=True)
    def _server(self, redis: RedisServer) -> None:
        self.server = redis

    def make_store(self, place: Path) -> Store:
        return RedisStore(self.server.url_for(place))
