"""Two hundred orders in which bodies may start and stores may answer, each made by a number.

Whatever the order, the run ends alike and what is promised of it holds. A number that fails here
fails always: `run_virtual(main, seed=...)` plays it again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from random import Random

import pytest
from tests.durable.flows import Answer, Middle

from stepwell import (
    Context,
    Event,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    Workflow,
    catch_error,
    step,
)
from stepwell.errors import WorkflowCancelledByUser
from stepwell.events import StepFailedEvent
from stepwell.kernel.journal import RunEnded, WorkAdded, WorkDone
from stepwell.retry_policy import retry_policy, stop_after_attempt, wait_fixed
from stepwell.stores.memory import MemoryStore
from stepwell.testing import Bodies, Dying, HookedEngine, VirtualClock, hooked
from stepwell.values import RunStatus

SEEDS = range(200)


class Part(Event):
    n: int


class Done(Event):
    n: int


class Helper(Workflow):
    @step
    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        await ctx.sleep(ev.n)
        return StopEvent(result=ev.n * 100)


class Everything(Workflow):
    """Fan-out, state, retries, waits, memos, children, timers, an error handler."""

    @step
    async def split(self, ctx: Context, ev: StartEvent) -> list[Part]:
        await ctx.store.set("n", 0)
        return [Part(n=n) for n in range(6)]

    @step(num_workers=3, retry_policy=retry_policy(wait=wait_fixed(2), stop=stop_after_attempt(2)))
    async def work(self, ctx: Context, ev: Part) -> Done:
        kept = await ctx.memo("kept", lambda: ev.n)
        async with ctx.store.edit_state() as state:
            state[f"n{ev.n}"] = ev.n
        if ev.n == 1 and ctx.retry_info().retry_number == 0:
            raise OSError("once")
        if ev.n == 2:
            await ctx.wait_for_event(
                Answer, waiter_event=InputRequiredEvent(q=2), waiter_id="q2", timeout=None
            )
        if ev.n == 3:
            kept = await ctx.run_child(Helper(), n=3) // 100
        if ev.n == 4:
            await ctx.sleep(timedelta(hours=1))
        ctx.write_event_to_stream(Event(shown=ev.n))
        return Done(n=kept)

    @step
    async def join(self, ctx: Context, evs: list[Done]) -> Middle:
        assert sorted(e.n for e in evs) == list(range(6))
        raise LookupError("to be handled")

    @catch_error(for_steps=["join"])
    async def mend(self, ctx: Context, ev: StepFailedEvent) -> Middle:
        return Middle(n=sum([await ctx.store.get(f"n{n}") for n in range(6)]))

    @step
    async def end(self, ctx: Context, ev: Middle) -> StopEvent:
        return StopEvent(result=ev.n)


async def check(engine: HookedEngine, run_id: str) -> None:
    """What holds of every run that has ended, and of its journal."""
    done: list[int] = []
    added: dict[int, str] = {}
    entries = await engine.entries(run_id)
    for entry in entries:
        match entry:
            case WorkAdded(id=id, step=name):
                assert id not in added
                added[id] = name
            case WorkDone(id=id):
                done.append(id)
            case _:
                pass
    assert len(done) == len(set(done))
    assert sum(isinstance(e, RunEnded) for e in entries) == 1
    assert isinstance(entries[-1], RunEnded)
    info = await engine.get(run_id)
    assert info.status.terminal
    assert (info.owner, info.due) == (None, None)


async def answering(engine: HookedEngine, clock: VirtualClock, run_id: str, wait: float) -> None:
    await asyncio.sleep(wait)
    await engine.signal(run_id, Answer(text="x"), question="q2", dedupe="only once")
    await engine.signal(run_id, Answer(text="y"), question="q2", dedupe="only once")


@pytest.mark.parametrize("seed", SEEDS)
def test_every_order_ends_alike(seed: int) -> None:
    async def main(clock: VirtualClock) -> None:
        engine = clock.engine()
        flow = Everything(timeout=None)
        handler = await engine.start(flow)
        wait = Random(seed).choice([0.0, 0.001, 0.004, 5.0])
        answer = asyncio.create_task(answering(engine, clock, handler.run_id, wait))
        assert await handler == sum(range(6))
        await answer
        await check(engine, handler.run_id)
        shown = [
            i.event["shown"] async for i in engine.stream(handler.run_id) if "shown" in i.event
        ]
        assert sorted(shown) == list(range(6))

    VirtualClock(seed=seed).run(main)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_order_of_death_and_return_ends_alike(seed: int) -> None:
    """A life that ends at a write that the number chooses; and then another, in another order."""
    random = Random(seed)
    store, bodies = MemoryStore(), Bodies()
    flow = Everything(timeout=None)
    dying = Dying(random.randrange(3, 40), random.choice(["before", "after"]))
    clock = VirtualClock(seed=seed)

    async def first(clock: VirtualClock) -> None:
        engine = clock.engine(hooked(store, dying), hooks=bodies)
        run = asyncio.ensure_future(engine.start(flow, run_id="r"))
        died = asyncio.ensure_future(dying.died())
        await asyncio.wait({run, died}, return_when=asyncio.FIRST_COMPLETED)
        if run.done():
            await asyncio.wait({died}, timeout=random.random() * 10)
        run.cancel()
        died.cancel()
        assert dying.dead is not None
        dying.dead.set()  # if it was not reached yet
        engine.abandon()

    async def second(clock: VirtualClock) -> None:
        engine = clock.engine(store, [flow], hooks=bodies)
        await engine.start_up()
        if await store.get("r") is None:
            await engine.start(flow, run_id="r")
        answer = asyncio.create_task(answering(engine, clock, "r", random.random()))
        assert await engine.result("r") == sum(range(6))
        await answer
        await check(engine, "r")
        for info in (await engine.list())[0]:
            assert info.status is RunStatus.COMPLETED
        keys = Counter(step for _, step, _ in set(bodies.begun))
        assert keys["split"] == keys["join"] == keys["mend"] == keys["end"] == 1
        assert keys["work"] == 7  # six of the run, one of its child

    clock.run(first)
    clock.skip(2 * 86400)  # the dead worker's lease is over
    clock.run(second)


@pytest.mark.parametrize("seed", SEEDS)
def test_cancelling_at_any_time_ends_everything_and_starts_nothing(seed: int) -> None:
    async def main(clock: VirtualClock) -> None:
        bodies = Bodies()
        engine = clock.engine(hooks=bodies)
        handler = await engine.start(Everything(timeout=None))
        random = Random(seed)
        await asyncio.sleep(random.random() * random.choice([0.005, 0.05, 5]))
        accepted = await engine.cancel(handler.run_id)
        assert accepted
        with pytest.raises(WorkflowCancelledByUser):
            await handler
        begun = len(bodies.begun)
        await clock.settle()
        await clock.advance(7200)
        assert (await engine.get(handler.run_id)).status is RunStatus.CANCELLED
        assert all(info.status.terminal for info in (await engine.list())[0])
        assert len([b for b in bodies.begun[begun:] if b[0] == handler.run_id]) == 0
        await check(engine, handler.run_id)

    VirtualClock(seed=seed).run(main)
