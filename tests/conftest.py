"""What holds for every test: nothing a test starts outlives it, and CI draws the same examples.

A leaked task or thread shows up as a flaky failure of some later test. Here it fails the test
that leaked it, by name.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from stepwell.runtime import telemetry
from stepwell.stores.sqlite import connection

# `make test` passes --hypothesis-profile=ci: the same examples each time, on machines of any speed.
# A developer's plain `pytest` searches on, and keeps what it found in .hypothesis.
# Neither takes a machine that halts for a slow test: the check `too_slow` looks at a clock.
_TIMELESS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", _TIMELESS, derandomize=True, print_blob=True)
settings.register_profile("dev", _TIMELESS)
settings.load_profile("dev")

# A shell starts what is to run in the background with Ctrl-C switched off, and all that this starts
# would have it off, too; tests press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How often the loop may turn before what a test left behind counts as left behind: a task that
# was cancelled needs a turn or two to end, one that waits for something does not end in any number.
SETTLING_TURNS = 5

# Only a leak waits this long; a thread that is just returning is joined at once.
THREAD_GRACE_SECONDS = 30.0


_SYNCED = dict(connection._SYNCHRONOUS)


@pytest.fixture(autouse=True, scope="session")
def _stores_do_not_wait_for_the_disk() -> Iterator[None]:
    """Nothing here cuts the power, and what a process has written outlives it without a sync. So a
    slow disk makes no test slow, but for the processes that tests start by a command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "_SYNCHRONOUS", dict.fromkeys(_SYNCED, "OFF"))
        yield


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that look for what a store would wait."""
    monkeypatch.setattr(connection, "_SYNCHRONOUS", _SYNCED)


@pytest.fixture(autouse=True)
def _nobody_listens_for_longer() -> Iterator[None]:
    """Who listens and does not stop would have the runs of later tests logged, and so would who
    sets a level. A service does both for as long as its process lives."""
    before, level = list(telemetry._listeners), telemetry.logger.level
    yield
    telemetry._listeners[:] = before
    telemetry.logger.setLevel(level)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the task check outermost around every coroutine test, and around no other."""
    for item in items:
        marker = item.get_closest_marker("asyncio")
        if marker is None or not isinstance(item, pytest.Function):
            continue
        if marker.kwargs.get("loop_scope", "function") != "function":
            # The check would watch another loop and see nothing.
            raise pytest.UsageError(f"{item.nodeid}: every coroutine test has a loop of its own")
        item.fixturenames.insert(0, "leaves_no_task_running")


@pytest.fixture
async def leaves_no_task_running() -> AsyncIterator[None]:
    """Fail a coroutine test that ends while tasks it started still run on its loop."""
    before = asyncio.all_tasks()
    yield
    leaked: set[asyncio.Task[object]] = set()
    for _ in range(SETTLING_TURNS):
        await asyncio.sleep(0)
        leaked = asyncio.all_tasks() - before - {asyncio.current_task()}
        if not leaked:
            return
    names = "\n".join(f"  {task!r}" for task in leaked)
    pytest.fail(f"the test left {len(leaked)} asyncio task(s) running:\n{names}", pytrace=False)


@pytest.fixture(autouse=True)
def _leaves_no_thread_running() -> Iterator[None]:
    """Fail a test that leaves a thread behind which would keep the process from ending."""
    before = set(threading.enumerate())
    yield
    leaked: list[threading.Thread] = []
    for thread in set(threading.enumerate()) - before:
        # The loop's own executor ends with its loop, which may be shared by a module of tests.
        if thread.daemon or thread.name.startswith("asyncio_"):
            continue
        thread.join(THREAD_GRACE_SECONDS)
        if thread.is_alive():
            leaked.append(thread)
    if leaked:
        names = "\n".join(f"  {thread!r}" for thread in leaked)
        pytest.fail(f"the test left {len(leaked)} thread(s) running:\n{names}", pytrace=False)
