"""The flows of the scenarios as event workflows."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from tests.scenarios.world import DAY, HOUR, Style, broken, said

from stepwell import Context, Workflow, catch_error, step
from stepwell.events import Event, StartEvent, StepFailedEvent, StopEvent
from stepwell.retry_policy import retry_policy, stop_after_attempt, wait_fixed


class Next(Event):
    n: int = 0


class Approved(Event):
    by: str


class Straight(Workflow):
    @step
    async def one(self, ev: StartEvent) -> Next:
        said.append("one")
        return Next(n=ev.n + 1)

    @step
    async def two(self, ev: Next) -> StopEvent:
        said.append("two")
        return StopEvent(result=ev.n + 1)


class Flaky(Workflow):
    @step(retry_policy=retry_policy(wait=wait_fixed(10), stop=stop_after_attempt(3)))
    async def one(self, ev: StartEvent) -> StopEvent:
        said.append("try")
        if said.count("try") < 3:
            raise OSError("not yet")
        return StopEvent(result="at last")


class Caught(Workflow):
    @step
    async def one(self, ev: StartEvent) -> StopEvent:
        said.append("breaks")
        raise OSError("boom")

    @catch_error
    async def deal(self, ev: StepFailedEvent) -> StopEvent:
        said.append(f"handles {ev.exception}")
        return StopEvent()


class SlowStep(Workflow):
    @step(timeout=60)
    async def one(self, ev: StartEvent) -> StopEvent:
        said.append("begins")
        await asyncio.sleep(HOUR)
        said.append("never")
        return StopEvent()


class SlowRun(Workflow):
    @step
    async def one(self, ev: StartEvent) -> StopEvent:
        said.append("begins")
        try:
            await asyncio.sleep(HOUR)
        finally:
            said.append("cleans up")
        return StopEvent()


class Sleeps(Workflow):
    @step
    async def one(self, ev: StartEvent) -> Next:
        said.append("before")
        return Next()

    @step
    async def two(self, ctx: Context, ev: Next) -> StopEvent:
        await ctx.sleep(DAY)
        said.append("after")
        return StopEvent(result="rested")


class Asks(Workflow):
    @step
    async def one(self, ctx: Context, ev: StartEvent) -> StopEvent:
        return StopEvent(result=(await ctx.wait_for_event(Approved, timeout=None)).by)


class AsksLater(Workflow):
    @step
    async def one(self, ev: StartEvent) -> Next:
        await asyncio.sleep(HOUR)
        return Next()

    @step
    async def two(self, ctx: Context, ev: Next) -> StopEvent:
        return StopEvent(result=(await ctx.wait_for_event(Approved, timeout=None)).by)


class AsksForAnHour(Workflow):
    @step
    async def one(self, ctx: Context, ev: StartEvent) -> StopEvent:
        try:
            return StopEvent(result=(await ctx.wait_for_event(Approved, timeout=HOUR)).by)
        except TimeoutError:
            return StopEvent(result="nobody")


class Long(Workflow):
    @step
    async def one(self, ev: StartEvent) -> Next:
        said.append("one")
        return Next()

    @step
    async def two(self, ev: Next) -> StopEvent:
        said.append("begins")
        try:
            await asyncio.sleep(HOUR)
        except asyncio.CancelledError:
            said.append("cleans up")
            raise
        said.append("ends")
        return StopEvent(result="done")


class Part(Event):
    n: int


class FansOut(Workflow):
    @step
    async def one(self, ev: StartEvent) -> list[Part]:
        return [Part(n=n) for n in range(3)]

    @step
    async def part(self, ev: Part) -> Next:
        await asyncio.sleep((3 - ev.n) * HOUR)
        said.append(f"part {ev.n}")
        return Next(n=ev.n)

    @step
    async def join(self, evs: list[Next]) -> StopEvent:
        said.append("joined")
        return StopEvent(result=sorted(ev.n for ev in evs))


class Parent(Workflow):
    @step
    async def one(self, ctx: Context, ev: StartEvent) -> StopEvent:
        result = await ctx.run_child(Straight(timeout=None), n=ev.n)
        said.append("joined")
        return StopEvent(result=result)


class Guardian(Workflow):
    @step
    async def one(self, ctx: Context, ev: StartEvent) -> StopEvent:
        return StopEvent(result=await ctx.run_child(Asks(timeout=None)))


class Fragile(Workflow):
    @step
    async def one(self, ev: StartEvent) -> Next:
        said.append("one")
        return Next()

    @step
    async def two(self, ev: Next) -> StopEvent:
        said.append("two")
        if "disk" in broken:
            raise OSError("the disk is broken")
        return StopEvent(result="written")


class Progress(Event):
    n: int


class Publishes(Workflow):
    @step
    async def one(self, ctx: Context, ev: StartEvent) -> Next:
        for n in range(3):
            ctx.write_event_to_stream(Progress(n=n))
            await asyncio.sleep(HOUR)
        return Next()

    @step
    async def two(self, ctx: Context, ev: Next) -> StopEvent:
        ctx.write_event_to_stream(Progress(n=3))
        return StopEvent()


def flows() -> Mapping[str, Any]:
    return {
        "straight": Straight(timeout=None),
        "flaky": Flaky(timeout=None),
        "caught": Caught(timeout=None),
        "slow step": SlowStep(timeout=None),
        "slow run": SlowRun(timeout=60),
        "sleeps": Sleeps(timeout=None),
        "asks": Asks(timeout=None),
        "asks later": AsksLater(timeout=None),
        "asks for an hour": AsksForAnHour(timeout=None),
        "long": Long(timeout=None),
        "fans out": FansOut(timeout=None),
        "parent": Parent(timeout=None),
        "guardian": Guardian(timeout=None),
        "fragile": Fragile(timeout=None),
        "publishes": Publishes(timeout=None),
    }


STYLE = Style(flows, value=lambda result: result, handled="completed")
