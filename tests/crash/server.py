"""Forks one process for every life of a run, from a process that has everything loaded.

One line of JSON comes in: a workflow, a directory, and where to kill. For every place a child is
forked that runs the workflow on a file of its own and kills itself there, then another one that
goes on with what is in the file. One line of JSON goes out: what each of them found.

    python -m tests.crash.server
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.crash import flows, machines, pipelines

from stepwell.errors import StoreError
from stepwell.runtime.engine import Engine
from stepwell.runtime.machine.emitting import Occurrence
from stepwell.runtime.views import WaitInfo
from stepwell.stores.base import RunFilter, Store
from stepwell.stores.sqlite import SQLiteStore, connection
from stepwell.testing import Bodies, VirtualClock
from stepwell.testing.crash import RUN, Life, Play
from stepwell.values import derived_id

SIDE_BY_SIDE = 3
SECONDS = 200
"""That a life may take in real time."""


class Acts(Play):
    """Answers questions, or cancels the run instead."""

    async def _answered(
        self,
        engine: Engine,
        open_ones: Sequence[tuple[str, WaitInfo]],
        answered: set[tuple[str, str]],
    ) -> bool:
        for run, wait in open_ones:
            answer = self.answers.get(wait.id)
            if isinstance(answer, dict) and answer.get("response") == flows.CANCEL:
                answered.add((run, wait.id))
                return await engine.cancel(RUN, "changed my mind")
        return await super()._answered(engine, open_ones, answered)


async def _done(store: Store) -> set[str]:
    """The idempotency keys of all work whose results are committed."""
    found: set[str] = set()
    for row in (await store.list(RunFilter(limit=1000))).rows:
        steps: dict[int, str] = {}
        ended: list[int] = []
        for kept in await store.read(row.id):
            for entry in json.loads(kept.data):
                if entry[0] == "add":
                    steps[entry[1]] = entry[2]
                elif entry[0] == "done" and not steps[entry[1]].startswith("("):
                    ended.append(entry[1])  # hidden steps go as often as there is news for them
        if len(ended) != len(set(ended)):
            raise AssertionError(f"run {row.id}: work was committed twice: {ended}")
        found |= {derived_id(row.id, steps[id], id) for id in ended}
    return found


async def _open(path: Path, look: Any) -> Any:
    store = SQLiteStore(path, durability="process")
    await store.open()
    try:
        return await look(store)
    finally:
        await store.close()


async def _left(store: Store) -> list[str]:
    """What is not as it should be when all is over."""
    faults = list(await store.verify())
    for row in (await store.list(RunFilter(limit=1000))).rows:
        if not row.status.terminal or row.owner is not None or row.due is not None:
            faults.append(
                f"run {row.id} of {row.workflow} is {row.status}, owner {row.owner}, due {row.due}"
            )
        unread = await store.messages(row.id)
        if unread and not row.status.terminal:
            faults.append(f"run {row.id} has unread messages {unread}")
    if workers := await store.workers():
        faults.append(f"workers are still announced: {workers}")
    return faults


async def _found(store: Store) -> dict[str, Any]:
    """What there is to say of the store when all is over."""
    return {"left": await _left(store), "done": len(await _done(store))}


def life(name: str, directory: Path, number: int, kill: tuple[int, str] | None, out: Path) -> None:
    """One life, in this process; its report goes to `out`."""
    path = directory / "runs.db"
    flows.LOG = os.open(directory / f"effects-{number}", os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    last = 0
    ended_at = 0

    def on_write(when: str, n: int) -> None:
        nonlocal last
        last = n
        if kill == (n, when):
            os.kill(os.getpid(), signal.SIGKILL)

    committed = sorted(asyncio.run(_open(path, _done))) if number else []
    if name in machines.MACHINES:
        store = SQLiteStore(path, durability="process", on_write=on_write)
        seen = _machine_life(name, number, store)
        report = {
            "runs": seen,
            "committed": committed,
            "writes": last,
            **asyncio.run(_open(path, _found)),
        }
        out.write_text(json.dumps(report))
        return
    if name in pipelines.PIPELINES:
        store = SQLiteStore(path, durability="process", on_write=on_write)
        report = {
            "run": _pipeline_life(name, number, store),
            "committed": committed,
            "writes": last,
            **asyncio.run(_open(path, _found)),
        }
        out.write_text(json.dumps(report))
        return
    flow = flows.FLOWS[name](timeout=None)
    clock = VirtualClock(1_767_225_600.0 + 1000.0 * number)
    store = SQLiteStore(path, durability="process", on_write=on_write)
    again: list[str] = []

    class Reads(Acts):
        async def _followed(self, engine: Engine, news: asyncio.Event) -> Life:
            nonlocal ended_at
            lived = await super()._followed(engine, news)
            await clock.settle()  # what its end means for others
            ended_at = last
            again.extend([repr(item.event) async for item in engine.stream(RUN)])
            return lived

    known = [kind(timeout=None) for kind in flows.KNOWN.get(name, ())]
    play = Reads(flow, None, flows.ANSWERS.get(name, {}), {}, known)
    lived = play.life(clock, store, Bodies())
    report = {
        "status": lived.status,
        "result": lived.result,
        "error": lived.error,
        "stream": lived.stream,
        "again": again,
        "committed": committed,
        "writes": ended_at,
        **asyncio.run(_open(path, _found)),
    }
    out.write_text(json.dumps(report))


def _machine_life(name: str, number: int, store: Store) -> list[dict[str, Any]]:
    """One life of a state machine and of the world outside; how all runs are in the end."""
    clock = VirtualClock(machines.BEGIN + machines.APART * number)

    async def live() -> list[dict[str, Any]]:
        core = clock.engine(store)
        engine = machines.inside(core)
        await core.start_up()
        for kind in (*(kind for kind, _ in machines.MACHINES.values()), machines.Part, Occurrence):
            core.register(kind)
        await machines.lived(engine, core, clock, name)
        return await machines.told(engine)

    return clock.run(live)


def _pipeline_life(name: str, number: int, store: Store) -> dict[str, Any]:
    """One life of a pipeline; how it is in the end."""
    clock = VirtualClock(machines.BEGIN + machines.APART * number)

    async def live() -> dict[str, Any]:
        return await pipelines.lived(clock.engine(store), clock, name)

    return clock.run(live)


def fork(name: str, directory: Path, number: int, kill: tuple[int, str] | None) -> int:
    """Start a life in a child; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.alarm(SECONDS)
        os.dup2(os.open(directory / f"errors-{number}", os.O_CREAT | os.O_WRONLY), 2)
        os.dup2(2, 1)
        life(name, directory, number, kill, directory / f"report-{number}")
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


class Chain:
    """The lives of one run, one after the other."""

    def __init__(self, name: str, directory: Path, kills: Sequence[tuple[int, str]]) -> None:
        self.name = name
        self.directory = directory
        self.kills: list[tuple[int, str] | None] = [*kills, None]
        self.statuses: list[int] = []
        directory.mkdir()

    def go_on(self) -> int:
        """Start the next life."""
        number = len(self.statuses)
        return fork(self.name, self.directory, number, self.kills[number])

    def report(self) -> dict[str, Any]:
        """What the lives found."""
        lives = len(self.statuses)
        last = self.directory / f"report-{lives - 1}"
        errors = [self.directory / f"errors-{n}" for n in range(lives)]
        effects = [self.directory / f"effects-{n}" for n in range(lives)]
        return {
            "kills": [kill for kill in self.kills if kill is not None],
            "statuses": self.statuses,
            "report": json.loads(last.read_text()) if last.exists() else None,
            "effects": [p.read_text().splitlines() if p.exists() else [] for p in effects],
            "errors": [p.read_text() if p.exists() else "" for p in errors],
        }


def serve(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Let all chains of a job live."""
    directory = Path(job["directory"])
    chains = [
        Chain(job["flow"], directory / str(n), [(k[0], k[1]) for k in kills])
        for n, kills in enumerate(job["kills"])
    ]
    waiting = list(reversed(chains))
    running: dict[int, Chain] = {}
    while waiting or running:
        while waiting and len(running) < SIDE_BY_SIDE:
            chain = waiting.pop()
            running[chain.go_on()] = chain
        pid, status = os.wait()
        chain = running.pop(pid)
        chain.statuses.append(os.waitstatus_to_exitcode(status))
        if chain.statuses[-1] == -signal.SIGKILL and len(chain.statuses) < len(chain.kills):
            running[chain.go_on()] = chain
    return [chain.report() for chain in chains]


def main() -> None:
    """Serve jobs until there is no more input."""
    # What a killed process has written is there without a sync; only the power is another matter.
    connection._SYNCHRONOUS = {"power": "OFF", "process": "OFF"}
    _warm()
    for line in sys.stdin:
        print(json.dumps(serve(json.loads(line))), flush=True)


def _warm() -> None:
    """Do all once, so that children find it done; nothing may be left open, no thread alive."""
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        try:
            life("Linear", Path(directory), 0, None, Path(directory) / "report")
        except StoreError as error:
            sys.exit(f"can't even run one workflow: {error}")


if __name__ == "__main__":
    main()
