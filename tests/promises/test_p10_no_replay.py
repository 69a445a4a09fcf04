"""P10: no determinism tax: user code is never replayed to rebuild state. Steps may use the clock,
random numbers and `asyncio.gather`, and may be edited between deploys.

Catches: an engine that runs finished bodies again to find out where it was, that compares what a
body asks for with what an older one asked for, or that ties a run to the code it was started with;
memos that are called again, handed out before they are kept, or told apart by their order; and a
run that goes on without a step that it needs.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.promises.processes import Kill, Process, deaths, live

from stepwell import (
    Context,
    Engine,
    Event,
    HumanResponseEvent,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from stepwell.testing import HookedEngine, VirtualClock
from stepwell.values import RunStatus

RUN = "run"


class Drawn(Event):
    at: float
    number: float
    note: str = "none"


class Added(Event):
    pass


def unsteady(bodies: list[str], say=lambda word: None) -> Workflow:
    class Unsteady(Workflow):
        @step
        async def draw(self, ctx: Context, ev: StartEvent) -> Drawn:
            bodies.append("draw")

            async def part() -> float:
                await asyncio.sleep(random.random() / 1000)
                return random.random()

            number = sum(await asyncio.gather(*[part() for _ in range(3)]))
            return Drawn(at=time.time(), number=number)

        @step
        async def wait(self, ctx: Context, ev: Drawn) -> StopEvent:
            bodies.append("wait")
            say([ev.at, ev.number])
            if random.random() < 0.5:
                await asyncio.sleep(0)
            answer = await ctx.wait_for_event(HumanResponseEvent, timeout=None)
            return StopEvent(result=[ev.at, ev.number, answer.response])

    return Unsteady(timeout=None, workflow_name="unsteady")


def test_unsteady_code_goes_on_after_a_kill_with_what_the_journal_has(tmp_path: Path) -> None:
    def body(path: Path):
        async def run(me: Process) -> None:
            drawn = asyncio.Event()

            def say(word: object) -> None:
                me.say(word)
                drawn.set()

            async with Engine(me.store(path), [unsteady([], say)], poll=0.01) as engine:
                await engine.start("unsteady", run_id=RUN)
                await drawn.wait()
                await asyncio.sleep(0.02)
            me.say(me.writes)

        return run

    writes = live(body(tmp_path / "calm.db")).said[-1]
    for when, number in deaths(writes):
        path = tmp_path / f"{when}{number}.db"
        told = live(body(path), kill=(when, number)).said
        bodies: list[str] = []

        async def finish(path: Path = path, bodies: list[str] = bodies) -> object:
            async with Engine(f"sqlite:////{path}", [unsteady(bodies)]) as engine:
                rows, _ = await engine.list()
                if not rows:
                    return None  # killed before the run was kept
                await engine.signal(RUN, HumanResponseEvent(response="go on"))
                async with asyncio.timeout(60):
                    return await engine.result(RUN)

        result = asyncio.run(finish())
        if told and isinstance(told[0], list):
            # The number had been acted on, so it is the one that stays; nobody drew again.
            assert isinstance(result, list)
            assert result[:2] == told[0]
            assert "draw" not in bodies


async def test_code_may_be_edited_while_runs_are_live(tmp_path: Path) -> None:
    class Old(Workflow):
        @step
        async def first(self, ev: StartEvent) -> Drawn:
            return Drawn(at=1.0, number=2.0)

        @step
        async def ask(self, ctx: Context, ev: Drawn) -> StopEvent:
            await ctx.wait_for_event(HumanResponseEvent, timeout=None)
            return StopEvent(result="old")

    class New(Workflow):
        """A body is another one, a step is new, one that is not needed any more is gone."""

        @step
        async def begin(self, ev: StartEvent) -> Drawn:
            raise AssertionError("what is finished is not run again")

        @step
        async def ask(self, ctx: Context, ev: Drawn) -> Added:
            await ctx.memo("something new", lambda: 1)
            await ctx.wait_for_event(HumanResponseEvent, timeout=None)
            return Added()

        @step
        async def added(self, ev: Added) -> StopEvent:
            return StopEvent(result="new")

    url = f"sqlite:////{tmp_path}/runs.db"
    async with Engine(url, [Old(timeout=None, workflow_name="edited")]) as engine:
        await engine.start("edited", run_id=RUN)
        async with asyncio.timeout(60):
            while not await engine.waits(RUN):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    async with Engine(url, [New(timeout=None, workflow_name="edited")]) as engine:
        assert await engine.check() == [(await engine.get(RUN), None)]
        await engine.signal(RUN, HumanResponseEvent())
        async with asyncio.timeout(60):
            assert await engine.result(RUN) == "new"


def drawing(say: Callable[[object], None]) -> Workflow:
    class Drawing(Workflow):
        @step
        async def draw(self, ctx: Context, ev: StartEvent) -> StopEvent:
            async def one(name: str) -> str:
                await asyncio.sleep(random.random() / 1000)  # they come in any order
                return await ctx.memo(name, lambda: f"{name} {uuid.uuid4()} {time.time()}")

            drawn = await asyncio.gather(*[one(name) for name in "abc"])
            say(drawn)
            answer = await ctx.wait_for_event(HumanResponseEvent, timeout=None)
            return StopEvent(result=[*drawn, answer.response])

    return Drawing(timeout=None, workflow_name="drawing")


@pytest.mark.parametrize("kill", [*deaths(6)][3:])
def test_what_a_body_was_given_before_a_kill_it_is_given_again(tmp_path: Path, kill: Kill) -> None:
    """Ids and times of a body that asks for them side by side, in another order each time."""
    path = tmp_path / "runs.db"

    async def dies(me: Process) -> None:
        told = asyncio.Event()

        def say(word: object) -> None:
            me.say(word)
            told.set()

        async with Engine(me.store(path), [drawing(say)], poll=60.0) as engine:
            await engine.start("drawing", run_id=RUN)
            await told.wait()
            await asyncio.sleep(0.02)
            me.die()

    told = live(dies, kill).said
    again: list[object] = []
    clock = VirtualClock(time.time())

    async def finish() -> list[str]:
        engine = clock.engine(f"sqlite:///{path}", [drawing(again.append)])
        kept = str(await engine.journal(RUN))
        await engine.signal(RUN, HumanResponseEvent(response="go on"))
        result: list[str] = await engine.result(RUN)
        for drawn in told[:1]:
            assert all(value in kept for value in drawn)
            assert result[:3] == drawn
        assert again == [result[:3]]
        return result

    assert clock.run(finish)[3] == "go on"


def before() -> Workflow:
    class Kept(Event):
        n: int

    class Fields(Workflow):
        @step
        async def first(self, ev: StartEvent) -> Kept:
            return Kept(n=7)

        @step
        async def ask(self, ctx: Context, ev: Kept) -> StopEvent:
            await ctx.wait_for_event(HumanResponseEvent, timeout=None)
            return StopEvent(result=ev.n)

    return Fields(timeout=None, workflow_name="fields")


def after() -> Workflow:
    class Kept(Event):
        n: int
        unit: str | None = None
        count: int = 1

    class Fields(Workflow):
        @step
        async def first(self, ev: StartEvent) -> Kept:
            return Kept(n=7)

        @step
        async def ask(self, ctx: Context, ev: Kept) -> StopEvent:
            await ctx.wait_for_event(HumanResponseEvent, timeout=None)
            return StopEvent(result=[ev.n, ev.unit, ev.count])

    return Fields(timeout=None, workflow_name="fields")


def test_a_run_goes_on_with_events_that_have_a_new_optional_field(tmp_path: Path) -> None:
    clock = VirtualClock()

    async def main() -> None:
        first = clock.engine(f"sqlite:///{tmp_path}/runs.db", [before()])
        await first.start("fields", run_id=RUN)
        await clock.settle()
        await first.stop()
        second = clock.engine(f"sqlite:///{tmp_path}/runs.db", [after()])
        await second.signal(RUN, HumanResponseEvent())
        assert await second.result(RUN) == [7, None, 1]

    clock.run(main)


def test_a_step_that_is_needed_and_gone_parks_the_run_until_it_is_back(tmp_path: Path) -> None:
    bodies: list[str] = []

    class Whole(Workflow):
        @step
        async def first(self, ev: StartEvent) -> Drawn:
            bodies.append("first")
            return Drawn(at=1.0, number=2.0)

        @step
        async def approve(self, ctx: Context, ev: Drawn) -> StopEvent:
            bodies.append("approve")
            await ctx.wait_for_event(HumanResponseEvent, timeout=None)
            return StopEvent(result=ev.number)

    class Without(Workflow):
        @step
        async def first(self, ev: StartEvent) -> Drawn:
            raise AssertionError("what is finished is not run again")

        @step
        async def other(self, ev: Drawn) -> StopEvent:
            raise AssertionError("it is not at this step")

    clock = VirtualClock()

    def deploy(code: type[Workflow]) -> HookedEngine:
        flow = code(timeout=None, workflow_name="gone")
        return clock.engine(f"sqlite:///{tmp_path}/runs.db", [flow])

    async def main() -> None:
        whole = deploy(Whole)
        await whole.start("gone", run_id=RUN)
        await clock.settle()
        await whole.stop()
        without = deploy(Without)
        ((_, misfit),) = await without.check()  # a deploy can be looked at before it is made
        assert misfit is not None
        assert "'approve'" in misfit
        await without.signal(RUN, HumanResponseEvent())
        await clock.settle()
        info = await without.get(RUN)
        assert info.status is RunStatus.PARKED
        assert info.reason == misfit
        assert "resume" in (await without.why(RUN)).sentence
        await without.stop()
        back = deploy(Whole)
        await back.start_up()
        await clock.advance(60.0)
        assert (await back.get(RUN)).status is RunStatus.PARKED
        await back.resume(RUN)
        assert await back.result(RUN) == 2.0
        assert bodies == ["first", "approve", "approve"]

    clock.run(main)
