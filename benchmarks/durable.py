"""Durable on SQLite at `synchronous=FULL`: what a committed step costs over a bare commit.

The floor is the cheapest thing that could be called durable: one connection, one row, one commit
for each step, by stdlib `sqlite3` in WAL mode on the same disk, in turns with what is measured.

Run as a script it is the victim of the recovery bench: it starts runs that wait for a person and
says so on stdout, and is then killed.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from harness import DATA, Bench, Target
from memory import us_each
from peers.common import PAYLOAD, Job, Scenario, database_bytes, perf_counter
from peers.event_workflows import EventStyle
from setup import HERE
from stepwell import Context, Engine, Workflow, events, step
from stepwell.events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent
from stepwell.stores.base import Commit, NewRun, Snapshot, Store
from stepwell.stores.digests import digest_of
from stepwell.stores.sqlite import SQLiteStore
from stepwell.values import RunStatus

STYLE = EventStyle(workflow=Workflow, step=step, context=Context, events=events)


Open = Callable[[Job, Workflow], Engine]


def chain_flow(n: int, payload: str = "") -> Workflow:
    return STYLE.chain_class(n, payload)(timeout=None)


def open_engine(job: Job, flow: Workflow) -> Engine:
    return Engine(store=f"sqlite:///{job.db}", workflows=[flow])


# -- a step that is committed ------------------------------------------------------------------


def floor_of_commits(job: Job) -> float:
    with sqlite3.connect(job.db, isolation_level=None) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")
        started = perf_counter()
        for i in range(job.n * job.repeat):
            db.execute("INSERT INTO t (v) VALUES (?)", (f"{i:064}",))
        took = perf_counter() - started
    db.close()
    return took


def chain_on(open_engine: Open) -> Scenario:
    """One run after the other."""

    async def chain(job: Job) -> float:
        flow = chain_flow(job.n)
        async with open_engine(job, flow) as engine:
            await flow.run(engine=engine)
            started = perf_counter()
            for _ in range(job.repeat):
                await flow.run(engine=engine)
            return perf_counter() - started

    return chain


def many_on(open_engine: Open) -> Scenario:
    """All runs at once."""

    async def many(job: Job) -> float:
        flow = chain_flow(job.n)
        async with open_engine(job, flow) as engine:
            await flow.run(engine=engine)
            started = perf_counter()
            for handler in [flow.run(engine=engine) for _ in range(job.repeat)]:
                await handler
            return perf_counter() - started

    return many


async def durable_growth(job: Job) -> float:
    flow = chain_flow(job.n, PAYLOAD)
    async with open_engine(job, flow):
        pass
    before = database_bytes(job.db)
    async with open_engine(job, flow) as engine:
        for _ in range(job.repeat):
            await flow.run(engine=engine)
    return (database_bytes(job.db) - before) / (job.n * job.repeat)


def over_payload(raw: float, job: Job) -> float:
    return raw - len(PAYLOAD)


# -- the event loop stays free -----------------------------------------------------------------

PAUSE = 0.05
"""Seconds each step of the lag bench sleeps, so that the loop is busy a fifth of the time and a
late heartbeat means that somebody held it, not that a hundred steps were ready at once."""


BIG = 16 * 1024 * 1024
"""Bytes of the biggest payload there may be."""


class Turn(Event):
    left: int


class Paused(Workflow):
    @step
    async def begin(self, ev: StartEvent) -> Turn:
        return Turn(left=ev.n)

    @step
    async def work(self, ev: Turn) -> Turn | StopEvent:
        await asyncio.sleep(PAUSE)
        return Turn(left=ev.left - 1) if ev.left > 1 else StopEvent()


async def worst_lag(starts: Sequence[Awaitable[object]]) -> float:
    """Start these runs a moment apart; seconds by which the latest 1 ms heartbeat was late."""
    worst, beat = 0.0, 0.001

    async def heart() -> None:
        nonlocal worst
        while True:
            before = perf_counter()
            await asyncio.sleep(beat)
            worst = max(worst, perf_counter() - before - beat)

    beating = asyncio.create_task(heart())
    await asyncio.sleep(0.01)
    await asyncio.gather(*starts)
    beating.cancel()
    return worst


async def later(i: int, job: Job, flow: Workflow, engine: Engine | None) -> object:
    await asyncio.sleep(PAUSE * i / job.repeat)
    if engine is None:
        return await flow.run(n=job.n)
    return await flow.run(n=job.n, engine=engine)


async def durable_lag(job: Job) -> float:
    flow = Paused(timeout=None)
    async with open_engine(job, flow) as engine:
        return await worst_lag([later(i, job, flow, engine) for i in range(job.repeat)])


async def floor_of_lag(job: Job) -> float:
    """The same runs in memory: what the interpreter and the machine do to a heartbeat anyway."""
    flow = Paused(timeout=None)
    return await worst_lag([later(i, job, flow, None) for i in range(job.repeat)])


async def hold_of(store: Store) -> float:
    """Write and read payloads of `BIG` bytes."""
    data, text = os.urandom(BIG), b'"' + b"x" * (BIG // 2) + b'"'
    digest = digest_of(data)

    async def live() -> None:
        new = NewRun("big", "w", 0.0)
        turn = Commit("big", 1, 0.0, RunStatus.COMPLETED, None, "w", (text,), create=new)
        await store.commit(replace(turn, snapshot=Snapshot(1, text), blobs={digest: data}))
        found = await store.blob(digest), (await store.read("big"))[0].data
        assert [*map(len, found)] == [BIG, len(text)]
        assert await store.load("big") is not None

    await store.open()
    try:
        return await worst_lag([live()])
    finally:
        await store.close()


async def durable_hold(job: Job) -> float:
    return await hold_of(SQLiteStore(job.db))


async def hold_of_nothing(job: Job) -> float:
    """What the machine does to a heartbeat anyway."""
    return await worst_lag([asyncio.sleep(0.3)])


class Letter(Event):
    text: str


class Post(Workflow):
    @step
    async def write(self, ev: StartEvent) -> Letter:
        return Letter(text=ev.text)

    @step
    async def read(self, ev: Letter) -> StopEvent:
        return StopEvent(result=len(ev.text))


async def big_event(job: Job) -> float:
    """A run whose start and whose one event are nearly as big as may be."""
    flow, text = Post(timeout=None), "x" * (BIG - 1000)
    async with open_engine(job, flow) as engine:
        return await worst_lag([flow.run(engine=engine, text=text)])


def ms(raw: float, job: Job) -> float:
    return raw * 1e3


# -- runs that wait for a person, and a machine that goes away ----------------------------------


class Approval(Workflow):
    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        answer = await ctx.wait_for_event(
            HumanResponseEvent, waiter_event=InputRequiredEvent(prefix="go on?")
        )
        return StopEvent(result=answer.response)


def approval() -> Workflow:
    """Named by hand: in the victim this module is `__main__`, and in its heir it is not."""
    return Approval(timeout=None, workflow_name="approval")


def run_id(i: int) -> str:
    return f"approval-{i}"


async def start_waiting(job: Job) -> None:
    """Start `n` runs, return when every one has asked its question."""
    flow = approval()
    async with open_engine(job, flow) as engine:

        async def ask(i: int) -> None:
            async for event in flow.run(engine=engine, run_id=run_id(i)).stream_events():
                if isinstance(event, InputRequiredEvent):
                    return

        for first in range(0, job.n, 500):
            await asyncio.gather(*(ask(i) for i in range(first, min(first + 500, job.n))))
        print("ready", flush=True)
        await asyncio.sleep(3600)


async def answer(engine: Engine, i: int) -> None:
    """Answer run `i`'s question and see its result."""
    await engine.signal(run_id(i), HumanResponseEvent(response=i))
    assert await engine.result(run_id(i)) == i


@cache
def abandoned(n: int) -> tempfile.TemporaryDirectory[str]:
    """A directory with the database of `n` waiting runs whose process was killed."""
    directory = tempfile.TemporaryDirectory(dir=DATA)
    victim = subprocess.Popen(
        [sys.executable, str(HERE / "durable.py"), f"{directory.name}/bench.db", str(n)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert victim.stdout is not None
    ready = victim.stdout.readline().strip() == "ready"
    victim.kill()
    victim.communicate()
    if not ready:
        raise RuntimeError("the runs to abandon did not start")
    return directory


def take_over(job: Job) -> None:
    for file in Path(abandoned(job.n).name).iterdir():
        shutil.copy(file, Path(job.db).parent / file.name)


async def recover(job: Job) -> float:
    """Open an engine on what was left; any run can be answered once first, middle and last are."""
    take_over(job)
    started = perf_counter()
    async with open_engine(job, approval()) as engine:
        for i in (job.n - 1, job.n // 2, 0):
            await answer(engine, i)
        return perf_counter() - started


async def recover_answered(job: Job) -> float:
    """The same, and every one of them answered and finished."""
    take_over(job)
    started = perf_counter()
    async with open_engine(job, approval()) as engine:
        for first in range(0, job.n, 500):
            await asyncio.gather(*(answer(engine, i) for i in range(first, first + 500)))
        return perf_counter() - started


def seconds(raw: float, job: Job) -> float:
    return raw


BENCHES = [
    Bench(
        name="durable_chain_100",
        metric="durable step, one run of 100",
        unit="µs/step",
        job=Job("durable_chain", 100, 3),
        subject=chain_on(open_engine),
        floor=floor_of_commits,
        unit_of=us_each,
        target=Target("ratio", 2),
    ),
    Bench(
        name="durable_100x10",
        metric="durable step, 100 runs of 10 at once",
        unit="µs/step",
        job=Job("durable_many", 10, 100),
        subject=many_on(open_engine),
        floor=floor_of_commits,
        unit_of=us_each,
        target=Target("median", 100),
    ),
    Bench(
        name="durable_growth",
        metric="database growth per step, over its payload",
        unit="B/step",
        job=Job("durable_growth", 20, 50),
        subject=durable_growth,
        unit_of=over_payload,
        target=Target("median", 300),
    ),
    Bench(
        name="durable_loop_lag",
        metric="longest hold of the event loop, 100 durable runs",
        unit="ms",
        job=Job("durable_lag", 10, 100),
        subject=durable_lag,
        floor=floor_of_lag,
        unit_of=ms,
        target=Target("median", 5),
        peers=False,
    ),
    Bench(
        name="durable_hold_16_mib",
        metric="longest hold of the event loop, 16 MiB written to and read from SQLite",
        unit="ms",
        job=Job("durable_hold", 1),
        subject=durable_hold,
        floor=hold_of_nothing,
        unit_of=ms,
        peers=False,
    ),
    Bench(
        name="durable_event_16_mib",
        metric="longest hold of the event loop, a run whose events take 16 MiB",
        unit="ms",
        job=Job("durable_event", 1),
        subject=big_event,
        floor=hold_of_nothing,
        unit_of=ms,
        peers=False,
    ),
    Bench(
        name="recover_10000",
        metric="10,000 waiting runs answerable after a kill",
        unit="s",
        job=Job("recover", 10_000),
        subject=recover,
        unit_of=seconds,
        target=Target("median", 5),
        peers=False,
    ),
    Bench(
        name="recover_10000_answered",
        metric="10,000 waiting runs answered and finished after a kill",
        unit="s",
        job=Job("recover", 10_000),
        subject=recover_answered,
        unit_of=seconds,
        peers=False,
    ),
]

if __name__ == "__main__":
    asyncio.run(start_waiting(Job("recover", int(sys.argv[2]), db=sys.argv[1])))
