"""The scenarios of durable runs, on PostgreSQL: the same tests, with the store changed under them.

Wherever these tests ask for a store, in memory or in a file, they get a schema of its own.
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
from tests.servers.postgres import PostgresServer, postgres

from stepwell import Engine
from stepwell.stores import registry
from stepwell.stores.postgres import PostgresStore
from stepwell.testing import VirtualClock

__all__ = ["postgres"]

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
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def on_postgres(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every store that is asked for is one of PostgreSQL."""

    def in_memory(*_: object, **__: object) -> PostgresStore:
        return PostgresStore(postgres.url(f"d{os.getpid()}_{next(_numbers)}"))

    def in_file(path: str | Path, **_: object) -> PostgresStore:
        return PostgresStore(postgres.url_for(Path(path).absolute()))

    for module in _MODULES:
        for name, make in (("MemoryStore", in_memory), ("SQLiteStore", in_file)):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, make)
    kinds: dict[str, Any] = {
        "memory": in_memory,
        "sqlite": lambda url, location, options: in_file(location[1:]),
    }
    monkeypatch.setattr(registry, "_KINDS", kinds)


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
_OTHERS = frozenset(
    {
        "test_a_file_that_cannot_be_opened_is_said_with_a_way_out",
        "test_a_file_of_a_newer_release_is_left_alone",
        "test_why_data_does_not_fit_is_said_without_addresses",
        "test_another_process_that_holds_the_file_only_makes_it_slow",
    }
)

for _module in _MODULES:
    for _name, _test in vars(_module).items():
        if _name.startswith("test_") and callable(_test) and _name not in _OTHERS:
            globals()[f"{_name}_of_{_module.__name__.rpartition('.')[2][5:]}"] = _test
