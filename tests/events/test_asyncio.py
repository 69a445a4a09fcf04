"""Steps are ordinary coroutines: what asyncio offers works in them, and none holds up the loop."""

from __future__ import annotations

import asyncio

import pytest

from stepwell import Context, Event, StartEvent, StopEvent, Workflow, step
from stepwell.errors import WorkflowTimeoutError


class Turn(Event):
    n: int = 0


async def run_step(body) -> object:
    class One(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await body(ctx))

    return await One(timeout=30).run()


async def test_timeout() -> None:
    async def body(ctx: Context) -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            await asyncio.sleep(0)
            return "timed out"
        return "no"

    assert await run_step(body) == "timed out"


async def test_task_groups_and_their_failures() -> None:
    async def fail() -> None:
        raise ValueError("child")

    async def body(ctx: Context) -> object:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(asyncio.sleep(0, 1))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.Event().wait())
                group.create_task(fail())
        except* ValueError as errors:
            told = [str(error) for error in errors.exceptions]
        await asyncio.sleep(0)
        return task.result(), told

    assert await run_step(body) == (1, ["child"])


async def test_gather_wait_for_and_tasks_of_ones_own() -> None:
    async def body(ctx: Context) -> object:
        first, second = await asyncio.gather(asyncio.sleep(0, "a"), asyncio.sleep(0, "b"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 0.005)
        inner = asyncio.create_task(ctx.memo("m", lambda: "c"))
        return first + second + await inner

    assert await run_step(body) == "abc"


async def test_shield_locks_and_queues() -> None:
    async def body(ctx: Context) -> object:
        queue: asyncio.Queue[int] = asyncio.Queue()
        async with asyncio.Lock():
            await queue.put(1)
        return await asyncio.shield(queue.get())

    assert await run_step(body) == 1


async def test_async_generators_in_a_step_are_closed() -> None:
    closed = []

    async def numbers():
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    async def body(ctx: Context) -> object:
        source = numbers()
        async for number in source:
            await source.aclose()
            return number
        return None

    assert await run_step(body) == 1
    assert closed == [True]


async def test_steps_that_never_pause_let_the_timeout_of_the_run_fire() -> None:
    class Spin(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Turn:
            return Turn()

        @step
        async def spin(self, ev: Turn) -> Turn | StopEvent:
            return StopEvent() if ev.n < 0 else Turn(n=ev.n + 1)

    with pytest.raises(WorkflowTimeoutError):
        await Spin(timeout=0.05).run()


async def test_steps_that_never_pause_let_others_run() -> None:
    beats = 0

    class Spin(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Turn:
            return Turn()

        @step
        async def spin(self, ev: Turn) -> Turn | StopEvent:
            return StopEvent() if ev.n == 2000 else Turn(n=ev.n + 1)

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0)

    heart = asyncio.create_task(beat())
    await Spin().run()
    heart.cancel()
    assert beats > 10


async def test_no_more_workers_than_allowed_run_at_once() -> None:
    active = most = 0

    class Many(Workflow):
        @step
        async def fork(self, ev: StartEvent) -> list[Turn]:
            return [Turn(n=n) for n in range(12)]

        @step(num_workers=3)
        async def work(self, ev: Turn) -> None:
            nonlocal active, most
            active += 1
            most = max(most, active)
            await asyncio.sleep(0)
            active -= 1

        @step
        async def join(self, evs: list[Turn]) -> StopEvent:
            await asyncio.sleep(0.01)
            return StopEvent()

    await Many().run()
    assert most == 3


async def test_a_thousand_runs_at_once() -> None:
    class One(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            await asyncio.sleep(0)
            return StopEvent(result=ev.n)

    flow = One()
    handlers = [flow.run(n=n) for n in range(1000)]
    assert [await handler for handler in handlers] == list(range(1000))


@pytest.mark.skipif(
    not hasattr(asyncio, "eager_task_factory"), reason="this Python has no eager tasks"
)
async def test_eager_tasks_do_not_start_steps_in_the_middle_of_a_turn() -> None:
    order: list[object] = []

    class Fan(Workflow):
        @step
        async def fork(self, ev: StartEvent) -> list[Turn]:
            order.append("fork")
            return [Turn(n=n) for n in range(3)]

        @step
        async def work(self, ctx: Context, ev: Turn) -> None:
            ctx.write_event_to_stream(ev)

        @step
        async def join(self, evs: list[Turn]) -> StopEvent:
            return StopEvent(result=len(evs))

    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
    handler = Fan(timeout=30).run()
    order.append("run() returned")
    assert await handler == 3
    assert order == ["run() returned", "fork"]
