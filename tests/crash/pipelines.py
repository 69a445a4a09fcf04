"""The reference pipeline that is killed at each of its writes, and what the world outside does.

The world outside does everything again in every life, as whoever was not answered does; what it
does carries a key, so once is enough.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Any

from tests.crash import flows

from stepwell.pipeline import Pipeline, PipelineContext, Scope, Step
from stepwell.runtime.engine import Engine
from stepwell.testing import VirtualClock

RUN = "crash"


def says(name: str, result: object = None, fails: bool = False) -> Step:
    """A step that does something to the world, and may fail each time."""

    async def body(ctx: PipelineContext) -> object:
        os.write(flows.LOG, f"{name} {ctx.idempotency_key}\n".encode())
        ctx["log"] = [*ctx.get("log", []), name]
        await asyncio.sleep(1)
        if fails:
            raise ValueError(name)
        return result

    return Step(body, name, retries=1 if fails else 0)


def member(name: str) -> Step:
    """A step that runs beside others."""

    async def body(ctx: PipelineContext) -> str:
        os.write(flows.LOG, f"{name} {ctx.idempotency_key}\n".encode())
        ctx[f"{name} was here"] = True
        await asyncio.sleep(len(name))
        return name

    return Step(body, name)


async def ask(ctx: PipelineContext) -> object:
    """Waits for a signal."""
    return await ctx.wait_for_signal("paid")


def succeeds() -> Pipeline:
    """Steps, a group of four, a wait, a group among the exit steps."""
    pipeline = Pipeline(ctx={"start": 1}, name="crash-good").add_step(says("first", {"a": [1]}))
    pipeline.add_parallel_steps([member(name) for name in ("a", "bb", "ccc", "dddd")], name="four")
    pipeline.add_step(ask).add_step(says("last", "done")).add_exit_step(says("clean"))
    return pipeline.add_parallel_steps([member("x"), member("yy")], "both", scope=Scope.EXIT)


def fails() -> Pipeline:
    """A failure with an error step of its own that goes on, and one that error steps handle."""
    pipeline = Pipeline(ctx={"start": 1}, name="crash-bad").add_step(says("first"))
    may = says("may", fails=True)
    pipeline.add_step(may.func, name="may", retries=1, cont_on_err=True, err_step=says("own"))
    pipeline.add_step(ask).add_step(says("boom", fails=True)).add_step(says("never"))
    pipeline.add_error_step(says("error")).add_error_step(says("more"))
    return pipeline.add_exit_step(says("clean")).add_exit_step(says("last"))


PIPELINES: Mapping[str, Callable[[], Pipeline]] = {"Good": succeeds, "Bad": fails}


async def lived(engine: Engine, clock: VirtualClock, name: str) -> dict[str, Any]:
    """Have a pipeline live to its end; how it is then."""
    pipeline = PIPELINES[name]()
    await engine.start_up()
    engine.register(pipeline)
    handler = await engine.start(pipeline, run_id=RUN, key="crash", given=2)
    await engine.signal(RUN, "paid", {"amount": 3}, dedupe="paid")
    await handler.wait()
    info = await engine.get(RUN)
    state = await engine.state(RUN)
    for failure in state.get("(pipeline)", {}).get("failures", []):
        del failure["elapsed"]  # time has passed between two lives
    return {
        "status": str(info.status),
        "error": None if info.error is None else str(info.error),
        "state": state,
    }
