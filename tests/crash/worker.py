"""A worker process on a shared file: advances runs of `Chain` until it is told to stop.

    python -m tests.crash.worker FILE LOG NAME LEASE RUNS

It starts RUNS runs, says "started", and goes on until its input ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

from stepwell import Context, Engine, Event, StartEvent, StopEvent, Workflow, step
from stepwell.stores.sqlite import SQLiteStore

STEPS = 12
SECONDS = 0.08
LOG = -1
NAME = ""


class Turn(Event):
    n: int


class Chain(Workflow):
    """One step after the other; each says when it begins, and who begins it."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Turn:
        return Turn(n=0)

    @step
    async def turn(self, ctx: Context, ev: Turn) -> Turn | StopEvent:
        line = f"{time.monotonic()} {NAME} {ctx.run_id} {ev.n} {ctx.idempotency_key}\n"
        os.write(LOG, line.encode())
        await asyncio.sleep(SECONDS)
        return StopEvent(result=NAME) if ev.n == STEPS else Turn(n=ev.n + 1)


async def main(path: str, lease: float, runs: int) -> None:
    """Work until the input ends."""
    store = SQLiteStore(path, durability="process")
    flow = Chain(timeout=None)
    async with Engine(store, [flow], name=NAME, lease=lease, poll=0.02) as engine:
        for n in range(runs):
            await engine.start(flow, run_id=f"run{n}")
        print("started", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    path, log, NAME, lease, runs = sys.argv[1:]
    LOG = os.open(log, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    asyncio.run(main(path, float(lease), int(runs)))
