"""The run's state: what a step changes is kept with its result, whatever dies in between."""

from __future__ import annotations

import asyncio

import pytest
from tests.durable.flows import Middle

from stepwell import Context, Event, StartEvent, StopEvent, Workflow, step
from stepwell.stores.memory import MemoryStore
from stepwell.testing import VirtualClock

pytestmark = pytest.mark.timeout(30)


class Part(Event):
    n: int


class Alone(Workflow):
    """Counts, and then waits."""

    @step
    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        async with ctx.store.edit_state() as state:
            state["count"] = state.get("count", 0) + 1
        await ctx.sleep(100)
        return StopEvent(result=await ctx.store.get("count"))


class Beside(Workflow):
    """Two steps count at once: the first of them waits before it ends, the second does not."""

    @step
    async def split(self, ctx: Context, ev: StartEvent) -> list[Part]:
        await ctx.store.set("count", 0)
        return [Part(n=0), Part(n=1)]

    @step
    async def work(self, ctx: Context, ev: Part) -> Middle:
        async with ctx.store.edit_state() as state:
            state["count"] = state["count"] + 1
            state[f"seen{ev.n}"] = True
        if ev.n == 0:
            await ctx.sleep(100)
        return Middle()

    @step
    async def join(self, ctx: Context, evs: list[Middle]) -> StopEvent:
        return StopEvent(result=await ctx.store.get("count"))


async def killed_once(clock: VirtualClock, flow: Workflow) -> object:
    store = MemoryStore()
    first = clock.engine(store, [flow])
    run_id = (await first.start(flow)).run_id
    await clock.advance(50)
    await first.stop(grace=0)
    second = clock.engine(store, [flow])
    return await second.result(run_id)


async def test_a_body_that_changed_the_state_and_died_waiting_changes_it_once(
    virtual_clock: VirtualClock,
) -> None:
    assert await killed_once(virtual_clock, Alone(timeout=None)) == 1


@pytest.mark.xfail(
    strict=True,
    reason="open, see RELIABILITY.md: steps that run at once and change the same field",
)
async def test_a_change_that_another_step_built_upon_is_not_made_again(
    virtual_clock: VirtualClock,
) -> None:
    assert await killed_once(virtual_clock, Beside(timeout=None)) == 2


async def test_a_failed_attempt_takes_its_changes_back(virtual_clock: VirtualClock) -> None:
    class Fails(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.store.set("left", "behind")
            await asyncio.sleep(1)
            raise LookupError

    engine = virtual_clock.engine()
    handler = await engine.start(Fails())
    with pytest.raises(LookupError):
        await handler
    assert "behind" not in repr(await engine.journal(handler.run_id))
