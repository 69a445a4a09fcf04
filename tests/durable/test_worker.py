"""What a worker does when there is nothing to do: next to nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from stepwell import Context, StartEvent, StopEvent, Workflow, step
from stepwell.errors import StoreFull
from stepwell.stores.memory import MemoryStore
from stepwell.testing import Failing, Hook, VirtualClock, hooked

T = TypeVar("T")


class Verbs(Hook):
    """Counts verbs."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()

    async def around(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
        self.count[verb] += 1
        return await call()


class Busy(Workflow):
    @step
    async def work(self, ev: StartEvent) -> StopEvent:
        await asyncio.sleep(60)
        return StopEvent()


async def test_runs_that_wait_for_room_are_not_looked_for_all_the_time(
    virtual_clock: VirtualClock,
) -> None:
    verbs = Verbs()
    flow = Busy(num_concurrent_runs=1, timeout=None)
    engine = virtual_clock.engine(hooked(MemoryStore(), verbs), [flow])
    handlers = [await engine.start(flow) for _ in range(3)]
    await virtual_clock.advance(1)
    verbs.count.clear()
    await virtual_clock.advance(30)
    assert verbs.count.total() < 10
    for handler in handlers:
        await handler
    assert virtual_clock.elapsed < 181


async def test_runs_that_wait_for_memory_are_not_looked_for_all_the_time(
    virtual_clock: VirtualClock,
) -> None:
    verbs = Verbs()
    flow = Busy(timeout=None)
    engine = virtual_clock.engine(hooked(MemoryStore(), verbs), [flow], max_active=2)
    handlers = [await engine.start(flow) for _ in range(5)]
    await virtual_clock.advance(1)
    verbs.count.clear()
    await virtual_clock.advance(30)
    assert verbs.count.total() < 10
    for handler in handlers:
        await handler
    assert virtual_clock.elapsed < 181


async def test_looking_for_work_leaves_no_timers_behind(virtual_clock: VirtualClock) -> None:
    class Month(Workflow):
        @step
        async def wait(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.sleep(timedelta(days=30))
            return StopEvent()

    store = MemoryStore()
    flow = Month(timeout=None)
    first = virtual_clock.engine(store, [flow])
    await first.start(flow)
    await virtual_clock.settle()
    await first.stop()
    second = virtual_clock.engine(store, [flow])  # leaves it in the store: nothing is due
    await second.start_up()
    timers = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    before = len(timers)
    for _ in range(200):
        second._worker.wake()  # pyright: ignore[reportPrivateUsage]
        await virtual_clock.settle()
    assert len(timers) <= before + 1


async def test_a_lease_that_cannot_be_renewed_makes_no_haste(virtual_clock: VirtualClock) -> None:
    """What the worker holds itself seems to be there for the taking, and can't be claimed."""
    verbs, trouble = Verbs(), Failing()
    flow = Busy(timeout=None)
    store = hooked(hooked(MemoryStore(), verbs), trouble)
    engine = virtual_clock.engine(store, [flow], lease=15)
    handler = await engine.start(flow)
    trouble.verbs, trouble.error = frozenset({"register"}), StoreFull("no room left")
    await virtual_clock.advance(20)
    verbs.count.clear()
    engine._worker.wake()  # pyright: ignore[reportPrivateUsage]
    await virtual_clock.advance(10)
    assert verbs.count["next_due"] < 200
    trouble.error = None
    await handler
