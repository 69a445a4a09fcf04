"""Three workers, two thousand runs, and all that may happen to them: none is lost, none is stuck,
and no result is committed twice.

One worker is killed and another one takes its place, one stands still for longer than its lease,
and the server is shut down once and crashes once.
"""
# ruff: noqa: ASYNC110 - what is waited for happens in other processes

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
from tests.crash.conftest import ROOT, SOURCE
from tests.servers.postgres import PostgresServer, Proxy
from tests.servers.postgres import begin as begin_server
from tests.stores import postgres_worker
from tests.stores.postgres_worker import SECONDS, STEPS, Chain

from stepwell import Engine
from stepwell.errors import StoreError
from stepwell.stores.base import RunFilter, RunRow
from stepwell.stores.postgres import PostgresStore
from stepwell.values import RunStatus

RUNS, LATE = 700, 50
LEASE = 2.0


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    server = begin_server()
    yield server
    server.remove()


async def begin(url: str, name: str, runs: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.stores.postgres_worker", url, name, str(LEASE), str(runs)),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{SOURCE}{os.pathsep}{ROOT}"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )


async def started(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    assert await process.stdout.readline() == b"started\n"


async def completed(store: PostgresStore) -> int:
    """How many runs are completed; the server may be away for a moment."""
    while True:
        try:
            counts = await store.counts()
        except StoreError:
            await asyncio.sleep(0.1)
        else:
            return sum(n for (_, status), n in counts.items() if status is RunStatus.COMPLETED)


async def until(store: PostgresStore, number: int) -> None:
    while await completed(store) < number:
        await asyncio.sleep(0.1)


async def every_run(store: PostgresStore) -> list[RunRow]:
    rows: list[RunRow] = []
    after: str | None = None
    while True:
        page = await store.list(RunFilter(limit=1000, after=after))
        rows += page.rows
        after = page.cursor
        if after is None:
            return rows


async def test_runs_survive_all_that_happens_to_workers_and_server(server: PostgresServer) -> None:
    url = server.url("workers")
    store = PostgresStore(url)
    await store.open()
    processes = [await begin(url, f"w{n}", RUNS) for n in range(3)]
    try:
        await asyncio.gather(*map(started, processes))
        await asyncio.sleep(2 * SECONDS)
        processes[0].kill()
        processes.append(await begin(url, "w3", 0))
        processes[1].send_signal(signal.SIGSTOP)
        await asyncio.sleep(LEASE * 0.5)
        await asyncio.to_thread(server.stop, signal.SIGINT)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(server.start)
        await asyncio.sleep(LEASE * 1.5)
        processes[1].send_signal(signal.SIGCONT)
        processes.append(await begin(url, "w4", LATE))  # so that some are under way in any case
        await started(processes[-1])
        await asyncio.to_thread(server.stop, signal.SIGQUIT)
        await asyncio.to_thread(server.start)
        await until(store, RUNS * 3 + LATE)
    finally:
        for process in processes:
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)
                assert process.stdin is not None
                process.stdin.close()
                await process.communicate()
            process._transport.close()  # type: ignore[attr-defined] # of one that was killed
    rows = await every_run(store)
    assert Counter(row.status for row in rows) == {RunStatus.COMPLETED: RUNS * 3 + LATE}
    assert {row.owner for row in rows} == {None}
    for row in rows:
        entries = [e for kept in await store.read(row.id) for e in json.loads(kept.data)]
        done = [entry[1] for entry in entries if entry[0] == "done"]
        assert len(done) == len(set(done)) == STEPS + 2, row.id
        assert sum(entry[0] == "set" for entry in entries) == STEPS + 1, row.id
    assert max(row.fence for row in rows) > 1  # some changed hands
    assert await store.verify() == []
    await store.close()


async def test_an_engine_behind_a_bad_line_commits_every_result_once(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_worker, "SECONDS", 0.8)
    proxy = Proxy(server)
    flow = Chain(timeout=None)
    going = True

    async def go_bad() -> None:
        for n in itertools.count():
            await asyncio.sleep(0.15)
            if not going:
                break
            if n % 3 == 2:
                proxy.cut()
            else:
                proxy.lose = ("answer", "request")[n % 3]

    async with Engine(PostgresStore(proxy.url("line")), [flow], poll=0.05) as engine:
        losing = asyncio.create_task(go_bad())
        handlers = [await engine.start(flow, run_id=f"run{n}") for n in range(40)]
        results = [await handler for handler in handlers]
        going = False
        await losing
        proxy.lose = None
        assert results == [STEPS + 1] * 40
    assert proxy.lost > 5
    store = PostgresStore(server.url("line"))
    await store.open()
    for n in range(40):
        entries = [e for kept in await store.read(f"run{n}") for e in json.loads(kept.data)]
        done = [entry[1] for entry in entries if entry[0] == "done"]
        assert len(done) == len(set(done)) == STEPS + 2
    assert await store.verify() == []
    await store.close()
    proxy.close()
