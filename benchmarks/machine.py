"""State machines: what a committed `goto` costs, how soon a signal is heard, and what it takes to
have a hundred thousand runs wait.

Everything durable runs on SQLite at `synchronous=FULL`, beside bare commits of one row each, as in
`durable.py`. A run that waits or sleeps is rows and nothing else; so what the process holds for it
is measured as resident memory, before and after.
"""

from __future__ import annotations

import asyncio
import gc
import shutil
import tempfile
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from pydantic import BaseModel

from durable import floor_of_commits
from harness import DATA, Bench, Target
from memory import as_is, per_second
from peers.common import Job, Scenario, database_bytes, perf_counter
from stepwell import Engine
from stepwell.machine import complete, goto, sleep, step, wait, workflow
from stepwell.testing import VirtualClock


@workflow("bench-goto")
class Going:
    """One step that goes to itself, as an `async def`."""

    class Context(BaseModel):
        left: int
        note: str = ""

    context: Context

    @step(start=True)
    async def turn(self) -> object:
        self.context.left -= 1
        return goto(self.turn) if self.context.left else complete()


@workflow("bench-goto-plain")
class GoingPlain:
    """The same as a plain function, which runs in a thread."""

    class Context(BaseModel):
        left: int
        note: str = ""

    context: Context

    @step(start=True)
    def turn(self) -> object:
        self.context.left -= 1
        return goto(self.turn) if self.context.left else complete()


@workflow("bench-waiting")
class Waiting:
    """Waits for a signal, and says when it heard it."""

    class Context(BaseModel):
        number: int = 0

    context: Context

    @step(start=True)
    async def ask(self) -> object:
        return wait.for_signal("heard", then=self.end)

    @step()
    async def end(self) -> object:
        HEARD[-1].put_nowait(perf_counter())
        return complete()


@workflow("bench-warm")
class Warm(Waiting):
    """The same, to warm up with."""


@workflow("bench-sleeping")
class Sleeping:
    """Sleeps, and says when it woke."""

    class Context(BaseModel):
        seconds: float

    context: Context

    @step(start=True)
    async def rest(self) -> object:
        return sleep(self.context.seconds, then=self.end)

    @step()
    async def end(self) -> object:
        HEARD[-1].put_nowait(perf_counter())
        return complete()


HEARD: list[asyncio.Queue[float]] = []
"""The last one is told when a step that was waited for began."""

MACHINES: tuple[Any, ...] = (Going, GoingPlain, Waiting, Warm, Sleeping)


def open_engine(job: Job, **settings: Any) -> Engine:
    return Engine(f"sqlite:///{job.db}", MACHINES, **settings)


# -- a step that is committed ---------------------------------------------------------------------


async def goto_steps(job: Job, kind: type) -> float:
    """`repeat` runs at once, of `n` steps each."""
    async with open_engine(job) as engine:
        await (await engine.start(kind, left=3))
        started = perf_counter()
        handlers = await asyncio.gather(
            *(engine.start(kind, left=job.n) for _ in range(job.repeat))
        )
        await asyncio.gather(*handlers)
        return perf_counter() - started


async def goto_async(job: Job) -> float:
    return await goto_steps(job, Going)


async def goto_plain(job: Job) -> float:
    return await goto_steps(job, GoingPlain)


# -- many runs that wait --------------------------------------------------------------------------


def resident() -> int:
    """Bytes of memory that this process has now."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


async def start_many(engine: Engine, n: int, kind: type, **fields: Any) -> None:
    """Start `n` runs and return when every run there is waits."""
    for first in range(0, n, 500):
        ids = (f"{kind.__name__}{i}" for i in range(first, min(first + 500, n)))
        await asyncio.gather(*(engine.start(kind, run_id=id, **fields) for id in ids))
    while any(status != "waiting" for _, status in await engine.counts()):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def held(job: Job) -> float:
    """Bytes of resident memory that are there more when `n` more runs wait or sleep, half of them
    each; what comes before warms the heap and SQLite's caches up."""
    async with open_engine(job) as engine:
        await start_many(engine, job.n // 10, Warm)
        before = resident()
        await start_many(engine, job.n // 2, Waiting)
        await start_many(engine, job.n // 2, Sleeping, seconds=86_400.0)
        return max(0.0, resident() - before) / job.n


async def started_waiting(job: Job) -> float:
    async with open_engine(job) as engine:
        started = perf_counter()
        await start_many(engine, job.n, Waiting)
        return perf_counter() - started


async def bytes_waiting(job: Job) -> float:
    async with open_engine(job):
        pass
    before = database_bytes(job.db)
    async with open_engine(job) as engine:
        await start_many(engine, job.n, Waiting)
    return (database_bytes(job.db) - before) / job.n


@cache
def crowd(n: int) -> tempfile.TemporaryDirectory[str]:
    """A directory with the database of `n` waiting runs."""
    directory = tempfile.TemporaryDirectory(dir=DATA)

    job = Job("crowd", n, 1, f"{directory.name}/bench.db")

    async def fill() -> None:
        async with open_engine(job) as engine:
            await start_many(engine, n, Waiting)

    asyncio.run(fill())
    return directory


def resumed(job: Job) -> list[float]:
    """Seconds from `engine.signal` to the first line of the step, for 100 of `n` waiting runs."""
    for file in Path(crowd(job.n).name).iterdir():
        shutil.copy(file, Path(job.db).parent / file.name)

    async def signal() -> list[float]:
        HEARD[:] = [asyncio.Queue()]
        took: list[float] = []
        async with open_engine(job) as engine:
            for i in range(0, job.n, job.n // 100):
                began = perf_counter()
                await engine.signal(f"{Waiting.__name__}{i}", "heard", {"number": i})
                took.append(await HEARD[-1].get() - began)
        return took

    return asyncio.run(signal())


def resume_median(job: Job) -> float:
    return median(resumed(job))


def resume_p99(job: Job) -> float:
    return quantiles(resumed(job), n=100)[98]


# -- time -----------------------------------------------------------------------------------------


async def lateness(job: Job) -> list[float]:
    """How much later than they should `n` sleepers woke, whose times lie 10 ms apart."""
    HEARD[:] = [asyncio.Queue()]
    async with open_engine(job) as engine:
        due: list[float] = []
        for i in range(job.n):
            due.append(perf_counter() + 0.5 + 0.01 * i)
            await engine.start(Sleeping, seconds=0.5 + 0.01 * i)
        woke = [await HEARD[-1].get() for _ in range(job.n)]
    return [late - at for late, at in zip(sorted(woke), sorted(due), strict=True)]


async def late_median(job: Job) -> float:
    return median(await lateness(job))


async def late_p99(job: Job) -> float:
    return quantiles(await lateness(job), n=100)[98]


def month(job: Job) -> float:
    """Seconds for a run that sleeps `n` days in virtual time, on SQLite."""
    clock = VirtualClock()

    async def live() -> None:
        engine = clock.engine(f"sqlite:///{job.db}", MACHINES)
        seconds = timedelta(days=job.n).total_seconds()
        await (await engine.start(Sleeping, seconds=seconds))

    started = perf_counter()
    HEARD[:] = [asyncio.Queue()]
    clock.run(live)
    return perf_counter() - started


def ms(raw: float, job: Job) -> float:
    return raw * 1e3


def bench(
    name: str,
    metric: str,
    unit: str,
    job: Job,
    subject: Scenario,
    unit_of: Callable[[float, Job], float],
    target: Target | None = None,
    floor: Scenario | None = None,
) -> Bench:
    """A measurement that no peer has a word for."""
    name = f"machine_{name}"
    return Bench(name, metric, unit, job, subject, unit_of, floor, target, peers=False)


GOTO, RESUME, LATE = Job("goto", 50, 100), Job("resume", 100_000), Job("late", 300)
AT_ONCE = "goto steps, 100 runs at once"
OF_MANY = "signal to its step, one of 100,000 waiting runs"
TIMERS = "lateness of 300 timers 10 ms apart"
FAST = Target("median", 3000, at_least=True)
SOON = Target("median", 50)

BENCHES = [
    bench(
        "goto",
        f"{AT_ONCE}, async def",
        "steps/s",
        GOTO,
        goto_async,
        per_second,
        FAST,
        floor_of_commits,
    ),
    bench(
        "goto_plain",
        f"{AT_ONCE}, plain def in threads",
        "steps/s",
        GOTO,
        goto_plain,
        per_second,
        FAST,
        floor_of_commits,
    ),
    bench("resume_p50", f"{OF_MANY}, median", "ms", RESUME, resume_median, ms, SOON),
    bench("resume_p99", f"{OF_MANY}, 99 %", "ms", RESUME, resume_p99, ms),
    bench("late_p50", f"{TIMERS}, median", "ms", LATE, late_median, ms, SOON),
    bench("late_p99", f"{TIMERS}, 99 %", "ms", LATE, late_p99, ms),
    bench(
        "held_memory",
        "resident memory per run, 100,000 that wait or sleep",
        "B/run",
        Job("held", 100_000),
        held,
        as_is,
        Target("median", 50),
    ),
    bench(
        "start_waiting",
        "runs started, up to their wait",
        "runs/s",
        Job("start", 10_000),
        started_waiting,
        per_second,
    ),
    bench(
        "waiting_bytes",
        "database bytes per waiting run",
        "B/run",
        Job("bytes", 10_000),
        bytes_waiting,
        as_is,
    ),
    bench(
        "sleep_30_days",
        "a run that sleeps 30 days, in virtual time",
        "ms",
        Job("month", 30),
        month,
        ms,
    ),
]
