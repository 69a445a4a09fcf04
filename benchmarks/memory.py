"""In memory: what the event engine costs over bare asyncio, and whether that cost is linear."""

from __future__ import annotations

import asyncio

from harness import Bench, Target
from peers.common import NAP, HeldWhileAsleep, Job, perf_counter, timed
from peers.event_workflows import EventStyle, event_scenarios
from stepwell import Context, Workflow, events, step

STYLE = EventStyle(workflow=Workflow, step=step, context=Context, events=events)
STEPWELL = event_scenarios(STYLE)


async def noop() -> None:
    return None


async def floor_of_steps(job: Job) -> float:
    """One bare task per step, awaited before the next."""

    async def once() -> None:
        for _ in range(job.n):
            await asyncio.create_task(noop())

    return await timed(job.repeat, once)


async def floor_of_fan_out(job: Job) -> float:
    async def once() -> None:
        await asyncio.gather(*(asyncio.create_task(noop()) for _ in range(job.n)))

    return await timed(job.repeat, once)


async def floor_of_sleeps(job: Job) -> float:
    started = perf_counter()
    await asyncio.gather(*(asyncio.create_task(asyncio.sleep(NAP)) for _ in range(job.n)))
    return perf_counter() - started


async def floor_of_sleeps_memory(job: Job) -> float:
    with HeldWhileAsleep(job.n) as held:
        await asyncio.gather(*(asyncio.create_task(held.nap()) for _ in range(job.n)))
    return held.held


async def floor_of_stream(job: Job) -> float:
    """The same ready-made events through one `asyncio.Queue`."""
    items = [STYLE.item(i=i) for i in range(job.n)]

    async def once() -> None:
        queue: asyncio.Queue[object] = asyncio.Queue()

        async def talk() -> None:
            for item in items:
                queue.put_nowait(item)
            queue.put_nowait(None)

        talker = asyncio.create_task(talk())
        while await queue.get() is not None:
            pass
        await talker

    return await timed(job.repeat, once)


def us_each(raw: float, job: Job) -> float:
    return raw / (job.n * job.repeat) * 1e6


def us_per_run(raw: float, job: Job) -> float:
    return raw / job.repeat * 1e6


def ms_per_run(raw: float, job: Job) -> float:
    return raw / job.repeat * 1e3


def per_second(raw: float, job: Job) -> float:
    return job.n * job.repeat / raw


def as_is(raw: float, job: Job) -> float:
    return raw


def chain(n: int, repeat: int) -> Bench:
    return Bench(
        name=f"chain_{n}",
        metric=f"no-op step in a chain of {n:,}",
        unit="µs/step",
        job=Job("chain", n, repeat),
        subject=STEPWELL["chain"],
        floor=floor_of_steps,
        unit_of=us_each,
        target=Target("ratio", 1.5),
    )


BENCHES = [
    chain(10, 100),
    chain(100, 10),
    chain(1000, 1),
    Bench(
        name="one_step",
        metric="one-step run, run() to result",
        unit="µs",
        job=Job("chain", 1, 500),
        subject=STEPWELL["chain"],
        floor=floor_of_steps,
        unit_of=us_per_run,
        target=Target("median", 60),
    ),
    Bench(
        name="loop_10000",
        metric="turn of a loop of 10,000",
        unit="µs/turn",
        job=Job("loop", 10_000),
        subject=STEPWELL["loop"],
        floor=floor_of_steps,
        unit_of=us_each,
    ),
    Bench(
        name="loop_linear",
        metric="turn of a loop of 10,000, against 1,000",
        unit="µs/turn",
        job=Job("loop", 10_000),
        subject=STEPWELL["loop"],
        unit_of=us_each,
        target=Target("ratio", 1.2),
        versus_tenth=True,
    ),
    Bench(
        name="loop_memory",
        metric="memory kept per turn of a loop of 10,000",
        unit="B/turn",
        job=Job("loop_memory", 10_000),
        subject=STEPWELL["loop_memory"],
        unit_of=as_is,
        target=Target("median", 16),
    ),
    Bench(
        name="fan_out_1000",
        metric="fan-out of 1,000 and join",
        unit="ms",
        job=Job("fan_out", 1000),
        subject=STEPWELL["fan_out"],
        floor=floor_of_fan_out,
        unit_of=ms_per_run,
        target=Target("ratio", 2),
    ),
    Bench(
        name="fan_out_linear",
        metric="fan-out of 10,000, against ten of 1,000",
        unit="ms",
        job=Job("fan_out", 10_000),
        subject=STEPWELL["fan_out"],
        unit_of=ms_per_run,
        target=Target("ratio", 1.5),
        versus_tenth=True,
        peers=False,
    ),
    Bench(
        name="sleeps_5000",
        metric=f"5,000 runs at once, each sleeping {NAP:g} s",
        unit="ms",
        job=Job("sleeps", 5000),
        subject=STEPWELL["sleeps"],
        floor=floor_of_sleeps,
        unit_of=ms_per_run,
        target=Target("ratio", 2),
    ),
    Bench(
        name="sleeps_memory",
        metric="memory per waiting run, 5,000 at once",
        unit="B/run",
        job=Job("sleeps_memory", 5000),
        subject=STEPWELL["sleeps_memory"],
        floor=floor_of_sleeps_memory,
        unit_of=as_is,
        target=Target("median", 8192),
    ),
    Bench(
        name="stream_10000",
        metric="10,000 events streamed to a reader",
        unit="events/s",
        job=Job("stream", 10_000),
        subject=STEPWELL["stream"],
        floor=floor_of_stream,
        unit_of=per_second,
        target=Target("median", 300_000, at_least=True),
    ),
]
