"""A worker process on a Redis server that is killed meanwhile.

    python tests/stores/scripts/redis_worker.py URL NAME RUNS

It starts RUNS runs, goes on until its input ends, and says what was acknowledged to it: "started
RUN" when a run was started, "done RUN" when its result was given.
"""

from __future__ import annotations

import asyncio
import os
import sys

from stepwell import Engine, Event, StartEvent, StopEvent, Workflow, step
from stepwell.errors import RunAlreadyExists, StoreError
from stepwell.stores.redis import RedisStore

AT_ONCE = 40


class Middle(Event):
    n: int


class Three(Workflow):
    @step
    async def begin(self, ev: StartEvent) -> Middle:
        return Middle(n=1)

    @step
    async def end(self, ev: Middle) -> StopEvent:
        return StopEvent(result=ev.n)


def say(word: str, run: str) -> None:
    os.write(1, f"{word} {run}\n".encode())


async def live(engine: Engine, flow: Three, run: str) -> None:
    """Start a run, again while the server is away, and wait for its end."""
    while True:
        try:
            await engine.start(flow, run_id=run)
        except RunAlreadyExists:
            pass  # the time before, its answer was given up
        except StoreError:
            await asyncio.sleep(0.05)
            continue
        break
    say("started", run)
    while True:
        try:
            await engine.result(run)
        except StoreError:
            await asyncio.sleep(0.05)
            continue
        break
    say("done", run)


async def main(url: str, name: str, runs: int) -> None:
    flow = Three(timeout=None)
    room = asyncio.Semaphore(AT_ONCE)

    async def one(engine: Engine, run: str) -> None:
        async with room:
            await live(engine, flow, run)

    async with Engine(RedisStore(url), [flow], name=name, lease=3.0, poll=0.1) as engine:
        async with asyncio.TaskGroup() as all:
            for n in range(runs):
                all.create_task(one(engine, f"{name}-{n}"))
        say("all", name)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
