"""The scenarios of durable runs, on servers: the same tests, with the store changed under them.

Wherever these tests ask for a store, in memory or in a file, they get one on PostgreSQL, and one on
Redis, of its own. Not here are those of `test_orders`, which shuffle what the event loop does next:
the loop also drives the connections of the store on Redis.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from tests.durable import test_broadcast, test_living
from tests.servers.postgres import postgres, postgres_url_for
from tests.servers.redis import redis, redis_url_for

from stepwell import Engine
from stepwell.stores import registry
from stepwell.stores.base import Store
from stepwell.stores.postgres import PostgresStore
from stepwell.stores.redis import RedisStore
from stepwell.testing import VirtualClock, clock, hooked
from stepwell.testing.clock import Outstanding, no_pause

__all__ = ["postgres", "postgres_url_for", "redis", "redis_url_for"]


_NAMES = (
    "broadcast children keeping living moments persons refusals signals silence starting state"
    " trouble worker"
)
_MODULES = [import_module(f"tests.durable.test_{name}") for name in _NAMES.split()]
_STORES: dict[str, Callable[[str], Store]] = {"postgres": PostgresStore, "redis": RedisStore}


@pytest.fixture(autouse=True, params=[*_STORES])
def on_a_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every store that is asked for is one of this server."""
    kind_of, url_for = _STORES[request.param], request.getfixturevalue(f"{request.param}_url_for")

    def make(url: str) -> Store:
        # A test may ask the store itself, past the engine: time stands still then, too, or the
        # store would take the server for lost.
        return hooked(kind_of(url), Outstanding(no_pause))

    def in_memory(*_: object, **__: object) -> Store:
        return make(url_for(object()))

    def in_file(path: str | Path, **_: object) -> Store:
        return make(url_for(Path(path).absolute()))

    for module in _MODULES:
        for name, kind in (("MemoryStore", in_memory), ("SQLiteStore", in_file)):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, kind)
    kinds: dict[str, Any] = {
        "memory": in_memory,
        "sqlite": lambda url, location, options: in_file(location[1:]),
    }
    monkeypatch.setattr(registry, "_KINDS", kinds)
    monkeypatch.setattr(test_living, "MANY", 1_000)  # more are made in a file
    if request.param == "redis":
        # Verbs of the store are waited for anyway; the connections that are open say nothing else.
        monkeypatch.setattr(clock, "_NETWORK", 0.0)


@pytest.fixture
def engine(virtual_clock: VirtualClock) -> Engine:
    """What `test_broadcast` runs on."""
    kinds = (
        test_broadcast.Waits,
        test_broadcast.Retries,
        test_broadcast.Picky,
        test_broadcast.Many,
    )
    flows = [kind(timeout=None) for kind in kinds]
    return virtual_clock.engine("memory://", [*flows, test_broadcast.asks()])


# What these say is about files, or looks into a store in memory.
_ELSEWHERE = {
    "test_a_file_that_cannot_be_opened_is_said_with_a_way_out",
    "test_a_file_of_a_newer_release_is_left_alone",
    "test_why_data_does_not_fit_is_said_without_addresses",
    "test_another_process_that_holds_the_file_only_makes_it_slow",
}

for _module in _MODULES:
    for _name, _test in vars(_module).items():
        if _name.startswith("test_") and callable(_test) and _name not in _ELSEWHERE:
            globals()[f"{_name}_of_{_module.__name__.rpartition('.')[2][5:]}"] = _test
