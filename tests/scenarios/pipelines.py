"""The flows of the scenarios as pipelines."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from tests.scenarios.world import DAY, HOUR, Style, broken, said

from stepwell.pipeline import Pipeline, PipelineContext, Step
from stepwell.retry import retry_policy, stop_after_attempt, wait_fixed


def straight() -> Pipeline:
    async def one(n: int) -> int:
        said.append("one")
        return n + 1

    async def two(one: int) -> int:
        said.append("two")
        return one + 1

    return Pipeline(name="straight").add_step(one).add_step(two)


def flaky() -> Pipeline:
    async def one() -> str:
        said.append("try")
        if said.count("try") < 3:
            raise OSError("not yet")
        return "at last"

    again = retry_policy(wait=wait_fixed(10), stop=stop_after_attempt(3))
    return Pipeline(name="flaky").add_step(one, retry_policy=again)


def caught() -> Pipeline:
    async def one() -> None:
        said.append("breaks")
        raise OSError("boom")

    async def deal(ctx: PipelineContext) -> None:
        said.append(f"handles {ctx['error_message']}")

    return Pipeline(name="caught").add_step(one).add_error_step(deal)


def slow_step() -> Pipeline:
    async def one() -> None:
        said.append("begins")
        await asyncio.sleep(HOUR)
        said.append("never")

    return Pipeline(name="slow step").add_step(one, timeout=60)


def slow_run() -> Pipeline:
    async def one() -> None:
        said.append("begins")
        await asyncio.sleep(HOUR)

    return Pipeline(name="slow run", timeout=60).add_step(one).add_exit_step(cleans_up)


async def cleans_up() -> None:
    said.append("cleans up")


def sleeps() -> Pipeline:
    async def one() -> None:
        said.append("before")

    async def two(ctx: PipelineContext) -> str:
        await asyncio.sleep(DAY)
        said.append("after")
        return "rested"

    return Pipeline(name="sleeps").add_step(one).add_step(two)


async def approval(ctx: PipelineContext) -> str:
    return (await ctx.wait_for_signal("Approved"))["by"]


def asks() -> Pipeline:
    return Pipeline(name="asks").add_step(approval)


def asks_later() -> Pipeline:
    async def one() -> None:
        await asyncio.sleep(HOUR)

    return Pipeline(name="asks later").add_step(one).add_step(approval)


def asks_for_an_hour() -> Pipeline:
    async def one(ctx: PipelineContext) -> str:
        try:
            return (await ctx.wait_for_signal("Approved", timeout=HOUR))["by"]
        except TimeoutError:
            return "nobody"

    return Pipeline(name="asks for an hour").add_step(one)


def long() -> Pipeline:
    async def one() -> None:
        said.append("one")

    async def two() -> str:
        said.append("begins")
        await asyncio.sleep(HOUR)
        said.append("ends")
        return "done"

    async def leaves(ctx: PipelineContext) -> None:
        if "two" not in ctx:
            said.append("cleans up")

    return Pipeline(name="long").add_step(one).add_step(two).add_exit_step(leaves)


def fans_out() -> Pipeline:
    def part(n: int) -> Step:
        async def body() -> int:
            await asyncio.sleep((3 - n) * HOUR)
            said.append(f"part {n}")
            return n

        return Step(body, f"part {n}")

    async def join(parts: list[int]) -> list[int]:
        said.append("joined")
        return parts

    pipeline = Pipeline(name="fans out")
    return pipeline.add_parallel_steps([part(n) for n in range(3)], "parts").add_step(join)


def parent() -> Pipeline:
    async def one(ctx: PipelineContext) -> int:
        result = await ctx.run_child(straight(), n=ctx["n"])
        said.append("joined")
        return result["two"]

    return Pipeline(name="parent").add_step(one)


def guardian() -> Pipeline:
    async def one(ctx: PipelineContext) -> str:
        return (await ctx.run_child(asks()))["approval"]

    return Pipeline(name="guardian").add_step(one)


def fragile() -> Pipeline:
    async def one() -> None:
        said.append("one")

    async def two() -> str:
        said.append("two")
        if "disk" in broken:
            raise OSError("the disk is broken")
        return "written"

    return Pipeline(name="fragile").add_step(one).add_step(two)


def flows() -> Mapping[str, Any]:
    makers = (
        *(straight, flaky, caught, slow_step, slow_run, sleeps, asks, asks_later),
        *(asks_for_an_hour, long, fans_out, parent, guardian, fragile),
    )
    return {make().name: make() for make in makers}


STYLE = Style(
    flows,
    value=lambda result: list(result.values())[-1],  # that of the last step
    without={"publishes": "its readers see how it ends"},
)
