"""P10: no determinism tax: user code is never replayed to rebuild state. Steps may use the clock,
random numbers and `asyncio.gather`, and may be edited between deploys.

Catches: an engine that runs finished bodies again to find out where it was, that compares what a
body asks for with what an older one asked for, or that ties a run to the code it was started with.
"""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest
from tests.promises.processes import Process, deaths, live

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


@pytest.mark.timeout(60)
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
                async with asyncio.timeout(10):
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
        async with asyncio.timeout(5):
            while not await engine.waits(RUN):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    async with Engine(url, [New(timeout=None, workflow_name="edited")]) as engine:
        assert await engine.check() == [(await engine.get(RUN), None)]
        await engine.signal(RUN, HumanResponseEvent())
        async with asyncio.timeout(5):
            assert await engine.result(RUN) == "new"
