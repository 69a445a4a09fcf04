"""P5: who lost its lease cannot commit.

A claim has a number, the fence, and a commit is refused when its number is not the run's any more.
That is looked at in the very transaction that commits: a worker that was stopped (a laptop that
slept, a machine under a debugger) does not know that its lease is over, and asks nobody before.

Caught breaks: an UPDATE of the run's row that asks for its number and seq, but not for the fence; a
fence that does not grow when a run is taken over; a refusal that takes the rest of its group of
commits with it; an UPDATE that does not ask whether the run was let go of.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.promises.processes import Child, Process, begin

from stepwell import (
    Context,
    Engine,
    Event,
    HumanResponseEvent,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from stepwell.errors import LeaseLost
from stepwell.stores.base import Commit, NewMessage, NewRun, Snapshot, WorkerRow
from stepwell.stores.digests import digest_of
from stepwell.stores.sqlite import SQLiteStore
from stepwell.values import RunStatus

RUN = "run"


class Signed(Event):
    by: str


class Go(HumanResponseEvent):
    pass


class Flow(Workflow):
    """A step that says who did it everywhere it can; then a wait, so that the run stays alive."""

    def __init__(self, me: str, freezes: bool) -> None:
        super().__init__(timeout=None)
        self.me = me
        self.freezes = freezes

    @step
    async def sign(self, ctx: Context, ev: StartEvent) -> Signed:
        await ctx.store.set("signed", self.me)
        if self.freezes:
            os.kill(os.getpid(), signal.SIGSTOP)  # and on from here, when someone says SIGCONT
        await ctx.store.set("signed", f"{self.me}, twice")
        ctx.write_event_to_stream(Signed(by=self.me))
        ctx.send_event(Signed(by=f"{self.me}, sent"), step="count")
        return Signed(by=self.me)

    @step
    async def count(self, ctx: Context, ev: Signed) -> StopEvent | None:
        if ev.by.endswith("sent"):
            return None
        await ctx.wait_for_event(Go, timeout=None)
        return StopEvent(result=[ev.by, await ctx.store.get("signed")])


async def old_owner(path: Path, lease: float, me: Process) -> None:
    """Start the run, be frozen in its step, and go on as if nothing had been."""
    flow = Flow("old", freezes=True)
    telling = logging.Handler(logging.WARNING)
    telling.emit = lambda record: me.say(record.getMessage())
    logging.getLogger("stepwell").addHandler(telling)
    async with Engine(me.store(path), [flow], lease=lease) as engine:
        handler = await engine.start(flow, run_id=RUN)
        me.say(await handler)


def everything(path: Path) -> list[str]:
    """The whole database, but for the workers' rows."""
    db = sqlite3.connect(path)
    try:
        return [line for line in db.iterdump() if '"workers"' not in line]
    finally:
        db.close()


async def new_owner(path: Path, child: Child) -> list[Any]:
    """Take the run over, wake the old owner while the new one holds it, and bring it to its end."""
    flow = Flow("new", freezes=False)
    store = SQLiteStore(path, durability="process")
    async with Engine(store, [flow], lease=60.0, poll=0.02) as engine:
        stream = engine.stream(RUN)
        first = await anext(stream)
        assert first.event.by == "new"
        while (await engine.get(RUN)).status is not RunStatus.WAITING:
            await store.changed(0.05)
        before = everything(path)
        child.go_on()
        assert "another worker has taken it over" in child.hear()  # its commit was refused
        assert everything(path) == before, "the old owner has written something"
        assert (await engine.get(RUN)).owner == engine.worker_id
        await engine.signal(RUN, Go())
        rest = [item.event async for item in stream]
        assert [type(event).__name__ for event in rest] == ["StopEvent"]
        assert child.wait().said[-1] == ["new", "new, twice"]
        return await engine.result(RUN)


def test_a_process_that_was_stopped_beyond_its_lease_keeps_nothing(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    # A lease of milliseconds would be renewed all the time, and who is stopped in the midst of that
    # holds the file; so it is a long one that is over when it has been stopped.
    with begin(partial(old_owner, path, 3600.0)) as child:
        child.stopped()
        with closing(sqlite3.connect(path)) as file, file:
            file.execute("UPDATE workers SET until = 0")
        assert asyncio.run(new_owner(path, child)) == ["new", "new, twice"]


# --- the transaction -----------------------------------------------------------------------------


async def held(store: SQLiteStore) -> None:
    """Two workers without a lease, and a run that the first of them holds and has advanced."""
    for worker in ("old", "new"):
        await store.register(WorkerRow(worker, "host", 1, 0.0, ["flow"]))
    new = NewRun(RUN, "flow", 0.0)
    await store.commit(turn(1, create=new))
    await store.commit(turn(1))  # what the store remembers of the row is in use from here on
    await store.create(NewRun("other", "flow", 0.0))


def turn(fence: int, **changes: Any) -> Commit:
    given: dict[str, Any] = {"rows": [b"[]"], **changes}
    return Commit(
        run=RUN, fence=fence, at=1.0, status=RunStatus.RUNNING, due=0.0, worker="old", **given
    )


BIG = b"big"
CHANGES: dict[str, dict[str, Any]] = {
    "a row": {},
    "rows": {"rows": [b"[1]", b"[2]"]},
    "a word, and no row": {"rows": [], "detail": b"{}"},
    "an end": {"release": True, "detail": b'{"reason": "late"}'},
    "a message": {"messages": [NewMessage("other", "cancel", b'"late"', 1.0)]},
    "a child": {"children": [NewRun("child", "flow", 1.0, parent=RUN)]},
    "a blob": {"blobs": {digest_of(BIG): BIG}},
    "a snapshot": {"snapshot": Snapshot(2, b"{}")},
}


@pytest.mark.parametrize("what", CHANGES)
async def test_nothing_of_a_commit_under_an_older_claim_is_kept(tmp_path: Path, what: str) -> None:
    path = tmp_path / "runs.db"
    old, new = (SQLiteStore(path, durability="process") for _ in range(2))
    await old.open()
    await new.open()
    try:
        await held(old)
        row = await new.claim_one("new", RUN, 1.0)
        assert row is not None
        assert (row.fence, row.owner) == (2, "new")
        before = everything(path)
        for store in (old, new):
            with pytest.raises(LeaseLost):
                await store.commit(turn(1, **CHANGES[what]))
        assert everything(path) == before
        assert await new.commit(turn(2, **CHANGES[what])) == RUN
        assert everything(path) != before
    finally:
        await old.close()
        await new.close()


@pytest.mark.parametrize("how", ["it let go of the run", "it signed off"])
@pytest.mark.parametrize("what", CHANGES)
async def test_nothing_of_who_gave_its_claim_up_is_kept(
    tmp_path: Path, what: str, how: str
) -> None:
    """Nobody has taken the run over yet, so its fence is still the one of the claim."""
    path = tmp_path / "runs.db"
    store = SQLiteStore(path, durability="process")
    await store.open()
    try:
        await held(store)
        if how == "it signed off":
            await store.unregister("old")
        else:
            await store.commit(turn(1, release=True))
        before = everything(path)
        with pytest.raises(LeaseLost):
            await store.commit(turn(1, **CHANGES[what]))
        assert everything(path) == before
        row = await store.get(RUN)
        assert row is not None
        assert (row.owner, row.fence) == (None, 1)
    finally:
        await store.close()


async def test_a_refused_commit_takes_nobody_elses_with_it(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "runs.db", durability="process")
    await store.open()
    try:
        await held(store)
        other = await store.claim_one("old", "other", 1.0)
        assert other is not None
        assert await store.claim_one("new", RUN, 1.0) is not None
        fine = Commit("other", other.fence, 1.0, RunStatus.RUNNING, 0.0, "old", [b"[7]"])
        late, kept, later = await asyncio.gather(
            store.commit(turn(1)), store.commit(fine), store.commit(turn(1)), return_exceptions=True
        )
        assert isinstance(late, LeaseLost)
        assert isinstance(later, LeaseLost)
        assert kept == "other"
        assert [row.data for row in await store.read("other")] == [b"[7]"]
        assert len(await store.read(RUN)) == 2
    finally:
        await store.close()


async def test_the_fence_is_looked_at_in_the_transaction_that_commits(tmp_path: Path) -> None:
    """The claim changes hands after the commit was asked for, and before its transaction begins."""
    path = tmp_path / "runs.db"
    store = SQLiteStore(path, durability="process")
    await store.open()
    other = sqlite3.connect(path, isolation_level=None)
    try:
        await held(store)
        other.execute("BEGIN IMMEDIATE")  # nobody else can write now
        late = asyncio.ensure_future(store.commit(turn(1, rows=[b"[9]"])))
        await store.get(RUN)  # a thread's turn: the writer has the job by now
        assert not late.done()
        other.execute("UPDATE runs SET owner = 'new', fence = fence + 1 WHERE id = ?", (RUN,))
        other.execute("COMMIT")
        with pytest.raises(LeaseLost):
            await late
        assert b"[9]" not in [row.data for row in await store.read(RUN)]
    finally:
        other.close()
        await store.close()


async def test_every_claim_has_a_higher_number_than_the_one_before(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "runs.db", durability="process")
    await store.open()
    try:
        await held(store)
        fences = [1]
        for worker in ("new", "old", "new", "old"):
            (row,) = await store.claim(worker, ["flow"], 1.0, 1)
            if row.id != RUN:
                row = await store.claim_one(worker, RUN, 1.0)
                assert row is not None
            fences.append(row.fence)
            for stale in fences[:-1]:
                with pytest.raises(LeaseLost):
                    await store.commit(turn(stale))
        assert fences == [1, 2, 3, 4, 5]
    finally:
        await store.close()
