"""Two processes on one file, one of which is killed, or stopped and let go on.

The other takes over what the first had, at once when it is dead, within the lease when it only
stands still; and what the first does after it lost a run is neither kept nor begun.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, Self

import pytest
from tests.crash.conftest import ROOT, SOURCE
from tests.crash.worker import STEPS

from stepwell.stores.base import RunFilter
from stepwell.stores.sqlite import SQLiteStore

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP"),
]
RUNS = 8


class Line(NamedTuple):
    """A body that began."""

    at: float
    worker: str
    run: str
    n: int
    key: str


class Workers:
    """The processes of one test."""

    def __init__(self, directory: Path, lease: float) -> None:
        self.file = directory / "runs.db"
        self.log = directory / "log"
        self.lease = lease
        self.processes: list[asyncio.subprocess.Process] = []
        self.store = SQLiteStore(self.file, durability="process")

    async def __aenter__(self) -> Self:
        await self.store.open()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.store.close()
        for process in self.processes:
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)
                assert process.stdin is not None
                process.stdin.close()
                await process.communicate()

    async def begin(self, name: str, runs: int = 0) -> asyncio.subprocess.Process:
        """A worker that has started its runs."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.crash.worker"),
            *(str(self.file), str(self.log), name, str(self.lease), str(runs)),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{SOURCE}{os.pathsep}{ROOT}"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self.processes.append(process)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"started\n"
        return process

    def lines(self) -> list[Line]:
        """The bodies that began so far, in order."""
        rows = [line.split() for line in self.log.read_text().splitlines()]
        return [Line(float(at), who, run, int(n), key) for at, who, run, n, key in rows]

    def end_lease(self, pid: int) -> None:
        """As if the process had not renewed its lease for long; in real time that would be a lease
        so short that a busy machine is late for it as well."""
        with closing(sqlite3.connect(self.file, timeout=60.0)) as file, file:
            file.execute("UPDATE workers SET until = 0 WHERE pid = ?", (pid,))

    async def stop(self, process: asyncio.subprocess.Process) -> None:
        """Freeze it, though not in a transaction: then nobody could write before it goes on."""
        with closing(sqlite3.connect(self.file, timeout=1.0, isolation_level=None)) as file:
            while True:
                process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(0.1)
                try:
                    file.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError:
                    process.send_signal(signal.SIGCONT)
                    await asyncio.sleep(0.01)
                else:
                    file.execute("ROLLBACK")
                    return

    async def until(self, begun: int) -> None:
        """Return when so many bodies have begun."""
        while not self.log.exists() or len(self.lines()) < begun:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def until_all_ended(self) -> None:
        """Return when every run has ended."""
        while any(not row.status.terminal for row in (await self.store.list(RunFilter())).rows):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def check(workers: Workers) -> None:
    """Every run went through all its steps, each result was committed once, by its holder."""
    store = workers.store
    for n in range(RUNS):
        done: list[int] = []
        for row in await store.read(f"run{n}"):
            done += [entry[1] for entry in json.loads(row.data) if entry[0] == "done"]
        assert len(done) == len(set(done)) == STEPS + 2
        row = await store.get(f"run{n}")
        assert row is not None
        assert (row.status, row.owner) == ("completed", None)
    assert await store.verify() == []
    first: dict[str, float] = {}
    for line in workers.lines():
        if line.worker == "b":
            first.setdefault(line.run, line.at)
    for line in workers.lines():  # the first begins nothing of a run that the second has begun
        if line.worker == "a":
            assert line.at <= first.get(line.run, line.at)
    keys: dict[tuple[str, int], set[str]] = {}
    for line in workers.lines():
        keys.setdefault((line.run, line.n), set()).add(line.key)
    assert all(len(several) == 1 for several in keys.values())
    for n in range(RUNS):  # at most the one body that was at work when the run changed hands
        begun = [line.n for line in workers.lines() if line.run == f"run{n}"]
        assert len(begun) - len(set(begun)) <= 1


async def test_the_runs_of_a_killed_worker_go_on_at_once(tmp_path: Path) -> None:
    async with Workers(tmp_path, lease=3600.0) as workers:
        a = await workers.begin("a", RUNS)
        await workers.until(RUNS * 2)
        a.kill()
        await a.wait()
        await workers.begin("b")
        await workers.until_all_ended()  # far from the end of the lease
        await check(workers)


async def test_a_worker_that_is_there_already_takes_over_from_a_killed_one(tmp_path: Path) -> None:
    async with Workers(tmp_path, lease=3600.0) as workers:
        await workers.begin("b")  # it is there before there is anything to do
        a = await workers.begin("a", RUNS)
        await workers.until(RUNS * 2)
        a.kill()
        await a.wait()
        workers.end_lease(a.pid)
        await workers.until_all_ended()
        await check(workers)


async def test_a_worker_that_stood_still_commits_nothing_of_what_it_lost(tmp_path: Path) -> None:
    async with Workers(tmp_path, lease=3600.0) as workers:
        await workers.begin("b")  # it is there before there is anything to do
        a = await workers.begin("a", RUNS)
        await workers.until(RUNS * 2)
        await workers.stop(a)
        begun = len(workers.lines())
        assert {line.worker for line in workers.lines()} == {"a"}
        workers.end_lease(a.pid)
        await workers.until(begun + RUNS * 3)  # the other has taken over and is in the midst of it
        a.send_signal(signal.SIGCONT)
        await workers.until_all_ended()
        await check(workers)


async def test_a_worker_that_stands_still_for_less_than_its_lease_keeps_its_runs(
    tmp_path: Path,
) -> None:
    async with Workers(tmp_path, lease=3600.0) as workers:
        await workers.begin("b")  # it is there before there is anything to do
        a = await workers.begin("a", RUNS)
        await workers.until(RUNS * 2)
        a.send_signal(signal.SIGSTOP)
        await asyncio.sleep(0.1)
        a.send_signal(signal.SIGCONT)
        await workers.until_all_ended()
        await check(workers)
        assert {line.worker for line in workers.lines()} == {"a"}
