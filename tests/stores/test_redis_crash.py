"""The server and a worker are killed again and again; what was acknowledged is there, and all ends.

Real processes and real time: what is waited for is what they say, and what the store says of them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from tests.servers.redis import begin

import stepwell
from stepwell.stores.redis import RedisStore
from stepwell.values import RunStatus

SCRIPT = Path(__file__).parent / "scripts" / "redis_worker.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(stepwell.__file__).parent.parent)}
RUNS = 700
KILLS = 4


class Said:
    """What the workers said was acknowledged to them."""

    def __init__(self) -> None:
        self.started: set[str] = set()
        self.done: set[str] = set()
        self.all: set[str] = set()
        self._grown = asyncio.Event()

    async def listen(self, process: asyncio.subprocess.Process) -> None:
        """Until the process ends."""
        assert process.stdout is not None
        while line := await process.stdout.readline():
            word, run = line.decode().split()
            {"started": self.started, "done": self.done, "all": self.all}[word].add(run)
            self._grown.set()

    async def until(self, done: int = 0, all: int = 0) -> None:
        """Wait until that many runs are done, and that many workers have done all of theirs."""
        while len(self.done) < done or len(self.all) < all:
            self._grown.clear()
            await self._grown.wait()


async def work(url: str, name: str, runs: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), url, name, str(runs),
        env=ENVIRONMENT, stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def check(url: str, said: Said, *, ended: bool = False) -> None:
    """Everything that was acknowledged so far is there."""
    started, done = {*said.started}, {*said.done}
    store = RedisStore(url)
    await store.open()
    try:
        rows = await asyncio.gather(*(store.get(run) for run in started))
        there = {row.id: row for row in rows if row is not None}
        assert started - there.keys() == set()
        assert {run for run in done if there[run].status is not RunStatus.COMPLETED} == set()
        assert await store.verify() == []
        if ended:
            assert await store.counts() == {(next(iter(there.values())).workflow,
                                             RunStatus.COMPLETED): 3 * RUNS}  # fmt: skip
    finally:
        await store.close()


@pytest.mark.timeout(150)
@pytest.mark.parametrize("fsync, durability", [("always", "power"), ("everysec", "process")])
async def test_nothing_acknowledged_is_lost_and_nothing_is_stuck(
    fsync: str, durability: str
) -> None:
    server = begin(appendfsync=fsync)
    url, said = server.url("crash"), Said()
    workers = {name: await work(url, name, RUNS) for name in ("a", "b", "c")}
    listening = [asyncio.create_task(said.listen(each)) for each in workers.values()]
    try:
        for n in range(1, KILLS + 1):
            await said.until(done=n * 3 * RUNS // (KILLS + 2))
            if n == 2:  # a worker dies with the server; another takes its name and its runs
                workers["a"].send_signal(signal.SIGKILL)
                await workers["a"].wait()
            server.kill()
            await asyncio.to_thread(server.start)
            await check(url, said)
            if n == 2:
                workers["a"] = await work(url, "a", RUNS)
                listening.append(asyncio.create_task(said.listen(workers["a"])))
        await said.until(all=3)
        await check(url, said, ended=True)
        store = RedisStore(url)
        await store.open()
        assert store.durability == durability
        await store.close()
        for each in workers.values():
            assert each.stdin is not None
            each.stdin.close()
        assert [await each.wait() for each in workers.values()] == [0, 0, 0]
    finally:
        for each in workers.values():
            if each.returncode is None:
                each.kill()
                await each.wait()
        await asyncio.gather(*listening)
        server.remove()
