"""What a scenario is, shared by stepwell's side and every peer's side. Standard library only.

A scenario takes a `Job` and returns one raw cost, smaller is better: seconds for the whole job,
or bytes for one unit of it. Nothing here turns costs into µs or ratios; that is `harness.py`.

    scenario       raw cost
    chain          s: `repeat` runs, one after another, of `n` distinct no-op steps
    loop           s: `repeat` runs, one after another, of `n` turns of one no-op step
    loop_memory    B kept per turn while such a run is still alive
    fan_out        s: `repeat` runs, each `n` parallel no-op branches and one join
    sleeps         s: `n` runs at once, each one step that sleeps `NAP` seconds
    sleeps_memory  B held by each of `n` such runs while it sleeps
    stream         s: one run hands `n` ready-made events to a reader
    durable_chain  s: like `chain`, each step's result committed to SQLite before the next starts
    durable_many   s: `repeat` runs at once, of `n` such steps each
    durable_growth B the database grew per step, over `repeat` runs of `n` steps that each emit
                   `PAYLOAD`

A peer runs in its own interpreter as ``python -m peers.<name>`` from ``benchmarks/`` (never as a
file: ``peers/`` on the path would shadow the very packages measured), reads one job per line and
answers one line: ``{"raw": 0.12}``, ``{"unsupported": "why"}`` or ``{"error": "what"}``.
Building a graph is not measured, running it is: graphs are cached for the life of the process, and
its first answer to a job is thrown away by the harness. Every request gets a fresh event loop.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import os
import sqlite3
import sys
import traceback
import tracemalloc
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

NAP = 0.1
"""Seconds a run of `sleeps` sleeps: long enough that all of them are in flight at once."""

PAYLOAD = "x" * 200
"""What each step of `durable_growth` emits."""


@dataclass(frozen=True, slots=True)
class Job:
    """One request: the scenario, its sizes, and a fresh path for whoever needs a database."""

    bench: str
    n: int
    repeat: int = 1
    db: str = ""

    def dumps(self) -> str:
        return json.dumps(asdict(self))


Scenario = Callable[[Job], "float | Awaitable[float]"]


def run_scenario(scenario: Scenario, job: Job) -> float:
    """Run `scenario` once, on a fresh event loop if it is async, and return its raw cost."""
    gc.collect()
    if inspect.iscoroutinefunction(scenario):
        return asyncio.run(scenario(job))
    result = scenario(job)
    assert isinstance(result, float)
    return result


async def timed(repeat: int, once: Callable[[], Awaitable[object]]) -> float:
    """Seconds for `repeat` calls of `once`, one after another.

    It does not warm up: whoever asks throws the first answer of a process away.
    """
    started = perf_counter()
    for _ in range(repeat):
        await once()
    return perf_counter() - started


class KeptPerTurn:
    """Samples traced memory at an early and at the last turn of one run.

    `tick(i)` is called from inside the step, so what is counted is what the living run keeps, and
    not what a finished one has already let go.
    """

    def __init__(self, n: int) -> None:
        self.first, self.last = n // 10, n - 1
        self.seen: dict[int, int] = {}

    def __enter__(self) -> KeptPerTurn:
        tracemalloc.start()
        return self

    def __exit__(self, *_: object) -> None:
        tracemalloc.stop()

    def tick(self, i: int) -> None:
        if i == self.first or i == self.last:
            gc.collect()
            self.seen[i] = tracemalloc.get_traced_memory()[0]

    @property
    def per_turn(self) -> float:
        return (self.seen[self.last] - self.seen[self.first]) / (self.last - self.first)


class HeldWhileAsleep:
    """Puts `n` runs to sleep, samples traced memory when the last has lain down, wakes them all."""

    def __init__(self, n: int) -> None:
        self.n, self.asleep, self.held = n, 0, 0.0
        self.morning = asyncio.Event()

    def __enter__(self) -> HeldWhileAsleep:
        gc.collect()
        tracemalloc.start()
        return self

    def __exit__(self, *_: object) -> None:
        tracemalloc.stop()

    async def nap(self) -> None:
        self.asleep += 1
        if self.asleep == self.n:
            asyncio.get_running_loop().call_later(0.05, self._sample)
        await self.morning.wait()

    def _sample(self) -> None:
        gc.collect()
        self.held = tracemalloc.get_traced_memory()[0] / self.n
        self.morning.set()


def database_bytes(path: str) -> int:
    """Bytes in use by the database at `path` after a full checkpoint, free pages not counted."""
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        free = db.execute("PRAGMA freelist_count").fetchone()[0]
        size = db.execute("PRAGMA page_size").fetchone()[0]
    db.close()
    return (pages - free) * size


def make_wal(path: str) -> None:
    """Create the database at `path` in WAL mode, which is a property of the file and stays."""
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode=WAL")
    db.close()


def serve(package: str, scenarios: dict[str, Scenario], unsupported: dict[str, str]) -> None:
    """Say the version of `package`, then answer jobs from stdin until it closes.

    Whatever the peer itself prints goes to stderr.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    print(json.dumps({"version": version(package)}), file=answers)
    for line in sys.stdin:
        job = Job(**json.loads(line))
        if job.db:
            Path(job.db).parent.mkdir(parents=True, exist_ok=True)
        answer: dict[str, float | str]
        if job.bench in unsupported:
            answer = {"unsupported": unsupported[job.bench]}
        elif job.bench not in scenarios:
            answer = {"unsupported": "no such scenario here"}
        else:
            try:
                answer = {"raw": run_scenario(scenarios[job.bench], job)}
            except Exception as error:  # the harness reports it; the next job must still run
                traceback.print_exc()
                answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps({"bench": job.bench, "n": job.n, **answer}), file=answers)
