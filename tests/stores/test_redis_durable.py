"""The scenarios of durable runs, on Redis: the same tests, with the store changed under them.

Wherever these tests ask for a store, in memory or in a file, they get keys of its own. Not here are
those of `test_orders`, which shuffle what the event loop does next: the loop also drives the
connections of this store.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
from tests.durable import (
    test_broadcast,
    test_children,
    test_keeping,
    test_living,
    test_moments,
    test_persons,
    test_refusals,
    test_signals,
    test_silence,
    test_starting,
    test_state,
    test_trouble,
    test_worker,
)
from tests.durable.test_broadcast import engine
from tests.servers.redis import RedisServer, redis

from stepwell.stores import registry
from stepwell.stores.redis import RedisStore
from stepwell.testing import clock

__all__ = ["engine", "redis"]

pytestmark = pytest.mark.timeout(60)

_MODULES = (
    test_broadcast,
    test_children,
    test_keeping,
    test_living,
    test_moments,
    test_persons,
    test_refusals,
    test_signals,
    test_silence,
    test_starting,
    test_state,
    test_trouble,
    test_worker,
)
# About files, or about the inside of another store.
_ELSEWHERE = {
    "test_a_file_that_cannot_be_opened_is_said_with_a_way_out",
    "test_a_file_of_a_newer_release_is_left_alone",
    "test_another_process_that_holds_the_file_only_makes_it_slow",
    "test_why_data_does_not_fit_is_said_without_addresses",
}
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def on_redis(redis: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every store that is asked for is one of Redis."""

    def in_memory(*_: object, **__: object) -> RedisStore:
        return RedisStore(redis.url(f"d{os.getpid()}_{next(_numbers)}"))

    def in_file(path: str | Path, **_: object) -> RedisStore:
        return RedisStore(redis.url_for(Path(path).absolute()))

    for module in _MODULES:
        for name, make in (("MemoryStore", in_memory), ("SQLiteStore", in_file)):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, make)
    kinds: dict[str, Any] = {
        "memory": in_memory,
        "sqlite": lambda url, location, options: in_file(location[1:]),
    }
    monkeypatch.setattr(registry, "_KINDS", kinds)
    # Verbs of the store are waited for anyway; the connections that are open say nothing else.
    monkeypatch.setattr(clock, "_NETWORK", 0.0)


for _module in _MODULES:
    for _name, _test in vars(_module).items():
        if _name.startswith("test_") and callable(_test) and _name not in _ELSEWHERE:
            globals()[f"{_name}_of_{_module.__name__.rpartition('.')[2][5:]}"] = _test
