"""The run's state: what a step changes is kept with its result, whatever dies in between."""

from __future__ import annotations

import asyncio

import pytest
from tests.durable.flows import Middle

from stepwell import Context, Event, StartEvent, StopEvent, Workflow, step
from stepwell.retry_policy import retry_policy, stop_after_attempt, wait_fixed
from stepwell.stores.memory import MemoryStore
from stepwell.testing import VirtualClock


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


async def test_a_change_that_another_step_built_upon_is_not_made_again(
    virtual_clock: VirtualClock,
) -> None:
    assert await killed_once(virtual_clock, Beside(timeout=None)) == 2


async def test_a_change_that_was_built_upon_is_not_made_again_however_often_the_process_dies(
    virtual_clock: VirtualClock,
) -> None:
    store, flow = MemoryStore(), Beside(timeout=None)
    run_id = ""
    for number in range(4):
        # Now and then the journal is read back from a snapshot that was taken in between.
        engine = virtual_clock.engine(store, [flow], snapshot_every=(1000, 1)[number % 2])
        if not run_id:
            run_id = (await engine.start(flow)).run_id
        await virtual_clock.advance(20)
        await engine.stop(grace=0)
    last = virtual_clock.engine(store, [flow])
    assert await last.result(run_id) == 2
    assert (await last.state(run_id))["seen0"] is True


async def test_what_outsiders_build_upon_is_not_made_again_either(
    virtual_clock: VirtualClock,
) -> None:
    store, flow = MemoryStore(), Alone(timeout=None)
    first = virtual_clock.engine(store, [flow])
    handler = await first.start(flow)
    await virtual_clock.advance(1)
    state = handler.ctx.store
    await state.set("count", await state.get("count") + 10)
    await virtual_clock.advance(1)
    await first.stop(grace=0)
    second = virtual_clock.engine(store, [flow])
    assert await second.result(handler.run_id) == 11


class Again(Workflow):
    """A step counts, and fails when another has counted after it; then it is tried again."""

    split = Beside.split

    @step(retry_policy=retry_policy(wait=wait_fixed(1), stop=stop_after_attempt(2)))
    async def work(self, ctx: Context, ev: Part) -> Middle:
        async with ctx.store.edit_state() as state:
            state["count"] = state["count"] + 1
        if ev.n == 0:
            await ctx.sleep(100)
            if not ctx.retry_info().retry_number:
                raise LookupError
        return Middle()

    join = Beside.join


async def test_an_attempt_that_failed_keeps_what_others_have_built_upon(
    virtual_clock: VirtualClock,
) -> None:
    engine = virtual_clock.engine()
    assert await engine.result((await engine.start(Again(timeout=None))).run_id) == 2


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
