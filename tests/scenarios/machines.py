"""The flows of the scenarios as state machines."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from tests.scenarios.world import DAY, HOUR, Style, broken, said

from stepwell.machine import (
    Retry,
    SubflowResult,
    complete,
    goto,
    on_fail,
    run_subflow,
    sleep,
    step,
    wait,
    workflow,
)


class Noted(BaseModel):
    n: int = 0
    by: str = ""


@workflow("straight")
class Straight:
    Context = Noted
    context: Noted

    @step(start=True)
    async def one(self) -> object:
        said.append("one")
        self.context.n += 1
        return goto(self.two)

    @step()
    async def two(self) -> object:
        said.append("two")
        return complete(value=self.context.n + 1)


@workflow("flaky")
class Flaky:
    Context = Noted

    @step(start=True, retry=Retry(max_attempts=3, base_delay=10, backoff_factor=1))
    async def one(self) -> object:
        said.append("try")
        if said.count("try") < 3:
            raise OSError("not yet")
        return complete(value="at last")


@workflow("caught")
class Caught:
    Context = Noted

    @step(start=True)
    async def one(self) -> object:
        said.append("breaks")
        raise OSError("boom")

    @on_fail
    async def deal(self, error: Exception) -> None:
        said.append(f"handles {error}")


@workflow("slow step")
class SlowStep:
    Context = Noted

    @step(start=True, timeout=60)
    async def one(self) -> object:
        said.append("begins")
        await asyncio.sleep(HOUR)
        said.append("never")
        return complete()


@workflow("sleeps")
class Sleeps:
    Context = Noted

    @step(start=True)
    async def one(self) -> object:
        said.append("before")
        return sleep(DAY, then=self.two)

    @step()
    async def two(self) -> object:
        said.append("after")
        return complete(value="rested")


@workflow("asks")
class Asks:
    Context = Noted
    context: Noted

    @step(start=True)
    async def one(self) -> object:
        return wait.for_signal("Approved", then=self.two)

    @step()
    async def two(self) -> object:
        return complete(value=self.context.by)


@workflow("asks later")
class AsksLater:
    Context = Noted
    context: Noted

    @step(start=True)
    async def one(self) -> object:
        return sleep(HOUR, then=self.two)

    @step()
    async def two(self) -> object:
        return wait.for_signal("Approved", then=self.three)

    @step()
    async def three(self) -> object:
        return complete(value=self.context.by)


@workflow("asks for an hour")
class AsksForAnHour:
    Context = Noted
    context: Noted

    @step(start=True)
    async def one(self) -> object:
        return wait.for_signal("Approved", timeout=HOUR, on_timeout=self.late, then=self.two)

    @step()
    async def two(self) -> object:
        return complete(value=self.context.by)

    @step()
    async def late(self) -> object:
        return complete(value="nobody")


@workflow("long")
class Long:
    Context = Noted

    @step(start=True)
    async def one(self) -> object:
        said.append("one")
        return goto(self.two)

    @step()
    async def two(self) -> object:
        said.append("begins")
        try:
            await asyncio.sleep(HOUR)
        except asyncio.CancelledError:
            said.append("cleans up")
            raise
        said.append("ends")
        return complete(value="done")


@workflow("parent")
class Parent:
    Context = Noted
    context: Noted

    @step(start=True)
    async def one(self) -> object:
        return run_subflow(Straight, on_complete=self.two, n=self.context.n)

    @step()
    async def two(self, result: SubflowResult) -> object:
        said.append("joined")
        return complete(value=result.context.n + 1)


@workflow("guardian")
class Guardian:
    Context = Noted

    @step(start=True)
    async def one(self) -> object:
        return run_subflow(Asks, on_complete=self.two)

    @step()
    async def two(self, result: SubflowResult) -> object:
        return complete(value=result.context.by)


@workflow("fragile")
class Fragile:
    Context = Noted

    @step(start=True)
    async def one(self) -> object:
        said.append("one")
        return goto(self.two)

    @step()
    async def two(self) -> object:
        said.append("two")
        if "disk" in broken:
            raise OSError("the disk is broken")
        return complete(value="written")


def flows() -> Mapping[str, Any]:
    return {
        "straight": Straight,
        "flaky": Flaky,
        "caught": Caught,
        "slow step": SlowStep,
        "sleeps": Sleeps,
        "asks": Asks,
        "asks later": AsksLater,
        "asks for an hour": AsksForAnHour,
        "long": Long,
        "parent": Parent,
        "guardian": Guardian,
        "fragile": Fragile,
    }


STYLE = Style(
    flows,
    value=lambda result: result["value"],
    without={
        "slow run": "its steps and waits have timeouts; a process of months has none",
        "fans out": "it is in one state at a time",
        "publishes": "its readers see how it ends",
    },
)
