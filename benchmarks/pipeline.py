"""Pipelines in memory: what a step costs over bare asyncio and beside the chains of peers, and
whether large parallel groups cost no more for each of their steps than small ones."""

from __future__ import annotations

from functools import cache
from typing import Any

from harness import Bench, Target
from memory import floor_of_fan_out, floor_of_steps, ms_per_run, us_each
from peers.common import Job, timed
from stepwell.pipeline import Pipeline, Step


async def noop(ctx: Any) -> None:
    return None


@cache
def chain_of(n: int) -> Pipeline:
    pipeline = Pipeline(name=f"chain-{n}")
    for i in range(n):
        pipeline.add_step(noop, name=f"s{i}")
    pipeline.compiled()
    return pipeline


@cache
def group_of(n: int) -> Pipeline:
    steps = [Step(noop, f"s{i}") for i in range(n)]
    pipeline = Pipeline(name=f"group-{n}").add_parallel_steps(steps, name="group")
    pipeline.compiled()
    return pipeline


async def chain(job: Job) -> float:
    return await timed(job.repeat, chain_of(job.n).run)


async def group(job: Job) -> float:
    return await timed(job.repeat, group_of(job.n).run)


BENCHES = [
    Bench(
        name="pipeline_chain_1000",
        metric="no-op step of a pipeline of 1,000",
        unit="µs/step",
        job=Job("chain", 1000),
        subject=chain,
        floor=floor_of_steps,
        unit_of=us_each,
        target=Target("ratio", 2),
    ),
    Bench(
        name="pipeline_group_1000",
        metric="parallel group of 1,000 steps",
        unit="ms",
        job=Job("fan_out", 1000),
        subject=group,
        floor=floor_of_fan_out,
        unit_of=ms_per_run,
    ),
    Bench(
        name="pipeline_group_linear",
        metric="parallel group of 10,000 steps, against ten of 1,000",
        unit="ms",
        job=Job("fan_out", 10_000),
        subject=group,
        unit_of=ms_per_run,
        target=Target("ratio", 1.5),
        versus_tenth=True,
        peers=False,
    ),
]
