"""The pytest plugin: fixtures for virtual time and engines.

An async test that uses `virtual_clock`, `stepwell_engine` or `sqlite_engine` (itself or through
another fixture) runs in virtual time; other async tests are none of this plugin's business. The
engines are ready to use and are stopped when the test ends.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from stepwell.testing.clock import VirtualClock
    from stepwell.testing.engines import HookedEngine

# The module is loaded in every pytest session of whoever has stepwell installed; what it needs of
# stepwell is imported when a test asks for it.


@pytest.fixture
def virtual_clock(request: pytest.FixtureRequest) -> VirtualClock:
    """A `VirtualClock`; the async test that uses it runs in its time."""
    from stepwell.testing.clock import VirtualClock

    clock = VirtualClock()
    request.node.stash[_CLOCK] = clock
    return clock


@pytest.fixture
def stepwell_engine(virtual_clock: VirtualClock) -> HookedEngine:
    """An engine in memory and in virtual time."""
    return virtual_clock.engine("memory://")


@pytest.fixture
def sqlite_engine(virtual_clock: VirtualClock, tmp_path: Path) -> HookedEngine:
    """An engine on a SQLite file of the test's own (`tmp_path / "runs.db"`), in virtual time."""
    return virtual_clock.engine(f"sqlite:///{tmp_path / 'runs.db'}?durability=process")


_CLOCK = pytest.StashKey["VirtualClock"]()


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_pycollect_makeitem() -> Generator[None, object, object]:
    """Make async tests in virtual time plain functions, before plugins for async tests see them."""
    found: object = yield
    items = cast("list[object]", found) if isinstance(found, list) else [found]
    for item in items:
        if (
            isinstance(item, pytest.Function)
            and "virtual_clock" in item.fixturenames
            and inspect.iscoroutinefunction(item.obj)
        ):
            item.obj = _in_virtual_time(item, item.obj)
    return cast(object, found)


def _in_virtual_time(item: pytest.Function, test: Any) -> Any:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        item.stash[_CLOCK].run(lambda: test(*args, **kwargs))

    return run
