"""The Redis store keeps the contract, shares its server, and says what goes wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.servers.redis import RedisServer, redis

from stepwell.stores.base import Store
from stepwell.stores.conformance import StoreConformance
from stepwell.stores.redis import RedisStore

__all__ = ["redis"]


class TestRedisStore(StoreConformance):
    @pytest.fixture(autouse=True)
    def _server(self, redis: RedisServer) -> None:
        self.server = redis

    def make_store(self, place: Path) -> Store:
        return RedisStore(self.server.url_for(place))
