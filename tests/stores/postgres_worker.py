"""A worker process on a shared schema: starts runs of `Chain` and advances whatever is due.

    python -m tests.stores.postgres_worker URL NAME LEASE RUNS

It starts RUNS runs, says "started", and goes on until its input ends.
"""

from __future__ import annotations

import asyncio
import sys

from stepwell import Context, Engine, Event, StartEvent, StopEvent, Workflow, step
from stepwell.stores.postgres import PostgresStore

STEPS = 4
SECONDS = 1.5


class Turn(Event):
    n: int


class Chain(Workflow):
    """One step after the other; a value in its state grows with each."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Turn:
        return Turn(n=0)

    @step
    async def turn(self, ctx: Context, ev: Turn) -> Turn | StopEvent:
        seen = await ctx.store.get("seen", default=0)
        await ctx.store.set("seen", seen + 1)
        await asyncio.sleep(SECONDS)
        return StopEvent(result=seen + 1) if ev.n == STEPS else Turn(n=ev.n + 1)


async def main(url: str, name: str, lease: float, runs: int) -> None:
    """Work until the input ends."""
    flow = Chain(timeout=None)
    async with Engine(PostgresStore(url), [flow], name=name, lease=lease, poll=0.1) as engine:
        for first in range(0, runs, 100):
            await asyncio.gather(
                *(
                    engine.start(flow, run_id=f"{name}-{n}")
                    for n in range(first, min(first + 100, runs))
                )
            )
        print("started", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    url, name, lease, runs = sys.argv[1:]
    asyncio.run(main(url, name, float(lease), int(runs)))
