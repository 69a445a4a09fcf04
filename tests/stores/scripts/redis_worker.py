"""A worker process on a Redis server that is killed meanwhile.

    python tests/stores/scripts/redis_worker.py URL NAME RUNS

It starts RUNS runs, goes on until its input ends, and says what was acknowledged to it: "started
RUN" when a run was started, "done RUN" when its result was given; and "lost NAME" when it noticed
that the server lost what it had acknowledged. On SIGUSR1 it says on stderr what it is at.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from stepwell import Engine, Event, StartEvent, StopEvent, Workflow, step
from stepwell.errors import RunAlreadyExists, RunNotFound, StoreError
from stepwell.stores.redis import RedisStore

AT_ONCE = 40
AGAIN_SECONDS = 0.05


class Middle(Event):
    n: int


class Three(Workflow):
    @step
    async def begin(self, ev: StartEvent) -> Middle:
        return Middle(n=1)

    @step
    async def end(self, ev: Middle) -> StopEvent:
        return StopEvent(result=ev.n)


class Losses(logging.Handler):
    """Says that a loss was noticed."""

    def __init__(self, name: str) -> None:
        super().__init__(logging.CRITICAL)
        self._name = name

    def emit(self, record: logging.LogRecord) -> None:
        if "has lost writes" in record.getMessage():
            say("lost", self._name)


def say(word: str, run: str) -> None:
    os.write(1, f"{word} {run}\n".encode())


def dump() -> None:
    for task in asyncio.all_tasks():
        task.print_stack(file=sys.stderr)
    sys.stderr.flush()


async def live(engine: Engine, flow: Three, run: str) -> None:
    """Start a run, again while the server is away or if it lost the run, and wait for its end."""
    started = False
    while True:
        try:
            if not started:
                await engine.start(flow, run_id=run)
                started = True
                say("started", run)
            await engine.result(run)
        except RunAlreadyExists:
            started = True  # the time before, its answer was given up
            say("started", run)
        except RunNotFound:
            started = False
        except StoreError:
            await asyncio.sleep(AGAIN_SECONDS)
        else:
            say("done", run)
            return


async def main(url: str, name: str, runs: int) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, dump)
    logging.getLogger("stepwell").addHandler(Losses(name))
    flow = Three(timeout=None)
    room = asyncio.Semaphore(AT_ONCE)
    engine = Engine(RedisStore(url), [flow], name=name, lease=3.0, poll=0.1)

    async def one(run: str) -> None:
        async with room:
            await live(engine, flow, run)

    while True:
        try:
            await engine.start_up()
        except StoreError:  # the server is killed while it is asked, too
            await asyncio.sleep(AGAIN_SECONDS)
        else:
            break
    async with engine:
        async with asyncio.TaskGroup() as all:
            for n in range(runs):
                all.create_task(one(f"{name}-{n}"))
        say("all", name)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
