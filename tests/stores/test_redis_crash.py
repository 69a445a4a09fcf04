"""The server and a worker are killed again and again; what was acknowledged is there, and all ends.

Real processes and real time: what is waited for is what they say, and what the store says of them.
When nobody says anything for long, or a worker ends by itself, the test says where the runs stand.
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
from stepwell import Engine
from stepwell.stores.redis import RedisStore
from stepwell.values import RunStatus

SCRIPT = Path(__file__).parent / "scripts" / "redis_worker.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(stepwell.__file__).parent.parent)}
RUNS = 700
KILLS = 4
SILENCE = 150.0
"""Seconds after which workers that say nothing new are taken to stand still."""


class Workers:
    """Worker processes by name, and what they said was acknowledged to them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.started: set[str] = set()
        self.done: set[str] = set()
        self.all: set[str] = set()
        self.lost: set[str] = set()
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._listening: list[asyncio.Task[None]] = []
        self._grown = asyncio.Event()

    async def begin(self, name: str) -> None:
        """Start one, or its next life."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(SCRIPT), self.url, name, str(RUNS),
            env=ENVIRONMENT, stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self._processes[name] = process
        self._listening.append(asyncio.create_task(self._listen(process)))

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Until the process ends."""
        assert process.stdout is not None
        while line := await process.stdout.readline():
            word, run = line.decode().split()
            getattr(self, word).add(run)
            self._grown.set()
        await process.wait()
        self._grown.set()

    async def until(self, *, done: int = 0, all: int = 0, lost: int = 0) -> None:
        """Wait until so many runs are done, workers have done all of theirs, or noticed a loss."""
        while len(self.done) < done or len(self.all) < all or len(self.lost) < lost:
            codes = {name: each.returncode for name, each in self._processes.items()}
            if any(code is not None for code in codes.values()):
                raise AssertionError(f"workers ended by themselves, with {codes}")
            self._grown.clear()
            try:
                async with asyncio.timeout(SILENCE):
                    await self._grown.wait()
            except TimeoutError:
                raise AssertionError(await self._standing()) from None

    async def _standing(self) -> str:
        """Where the runs that are not done stand; the workers say on stderr what they are at."""
        for each in self._processes.values():
            each.send_signal(signal.SIGUSR1)
        text = [f"silence: {len(self.started)} started, {len(self.done)} done, all: {self.all}"]
        async with Engine(RedisStore(self.url), worker=False) as engine:
            text += [f"{key}: {n}" for key, n in (await engine.counts()).items()]
            text += [str(row) for row in await engine.store.workers()]
            live = [status for status in RunStatus if not status.terminal]
            for info in (await engine.list(status=live, limit=20))[0]:
                row = await engine.store.get(info.id)
                text += [str(row), (await engine.why(info.id)).sentence]
            text.append(f"started, and nobody said done: {sorted(self.started - self.done)}")
        return "\n".join(text)

    async def kill(self, name: str) -> None:
        process = self._processes[name]
        process.kill()
        await process.wait()

    async def let_end(self) -> None:
        """Let them end in order."""
        for each in self._processes.values():
            assert each.stdin is not None
            each.stdin.close()
        codes = [await each.wait() for each in self._processes.values()]
        assert codes == [0] * len(codes)

    async def remove(self) -> None:
        for name, each in self._processes.items():
            if each.returncode is None:
                await self.kill(name)
        await asyncio.gather(*self._listening)


async def check(workers: Workers, *, strict: bool) -> int:
    """Everything that was acknowledged so far is there, or workers said that it was lost; returns
    how many runs were lost."""
    started, done = {*workers.started}, {*workers.done}
    store = RedisStore(workers.url)
    await store.open()
    try:
        rows = await asyncio.gather(*(store.get(run) for run in started))
        there = {row.id: row.status for row in rows if row is not None}
        missing = started - there.keys()
        undone = {run for run in done if there.get(run) is not RunStatus.COMPLETED}
        if strict:
            assert (missing, undone) == (set(), set())
        elif missing or undone:
            await workers.until(lost=1)
        assert await store.verify() == []
        return len(missing)
    finally:
        await store.close()


@pytest.mark.parametrize("fsync, durability", [("always", "power"), ("everysec", "process")])
async def test_nothing_acknowledged_is_lost_and_nothing_is_stuck(
    fsync: str, durability: str
) -> None:
    """With `everysec` the server answers before it has written while a sync of its file goes on;
    what is lost then is said, and done again."""
    server = begin(appendfsync=fsync)
    workers = Workers(server.url("crash"))
    strict = durability == "power"
    try:
        for name in ("a", "b", "c"):
            await workers.begin(name)
        for n in range(1, KILLS + 1):
            await workers.until(done=n * 3 * RUNS // (KILLS + 2))
            if n == 2:  # a worker dies with the server; another takes its name and its runs
                await workers.kill("a")
            server.kill()
            await asyncio.to_thread(server.start)
            await check(workers, strict=strict)
            if n == 2:
                await workers.begin("a")
        await workers.until(all=3)
        lost = await check(workers, strict=strict)
        store = RedisStore(workers.url)
        await store.open()
        ((status, count),) = [(each[1], n) for each, n in (await store.counts()).items()]
        assert (status, count) == (RunStatus.COMPLETED, 3 * RUNS - lost)
        assert store.durability == durability
        await store.close()
        await workers.let_end()
    finally:
        await workers.remove()
        server.remove()
