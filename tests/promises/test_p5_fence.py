"""P5: who lost its lease cannot commit: a fencing token is checked in the committing transaction.

Catches: a commit that does not check the fence (the result of the process that was away would be
kept, or kept beside the other one), and a worker that goes on with runs which others took over.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from tests.promises.processes import Process, begin

from stepwell import Engine, Event, StartEvent, StopEvent, Workflow, step
from stepwell.errors import LeaseLost
from stepwell.stores.base import Commit
from stepwell.stores.sqlite import SQLiteStore
from stepwell.values import RunStatus

RUN = "run"
LEASE = 0.4


class Seen(Event):
    by: str


def flow(by: str, seconds: float) -> Workflow:
    class Slow(Workflow):
        @step
        async def first(self, ev: StartEvent) -> Seen:
            await asyncio.sleep(seconds)
            return Seen(by=by)

        @step
        async def second(self, ev: Seen) -> StopEvent:
            return StopEvent(result=f"{ev.by}, then {by}")

    return Slow(timeout=None, workflow_name="slow")


async def test_a_commit_under_an_older_claim_is_refused_whole(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with Engine(SQLiteStore(str(path)), [flow("a", 3600)]) as engine:
        handler = await engine.start("slow", run_id=RUN)
        old = await engine.store.get(RUN)
        assert old is not None
        thief = SQLiteStore(str(path))
        await thief.open()
        taken = await thief.claim_one("thief", RUN, time.time(), dead=[engine.worker_id])
        assert taken is not None
        assert taken.fence == old.fence + 1
        stale = Commit(
            run=RUN,
            fence=old.fence,
            at=time.time(),
            status=RunStatus.COMPLETED,
            due=None,
            worker=engine.worker_id,
            rows=[b'[["end","completed"]]'],
            detail=b"{}",
            blobs={"0" * 64: b"{}"},
        )
        with pytest.raises(LeaseLost):
            await engine.store.commit(stale)
        after = await thief.load(RUN)
        assert after is not None
        assert (after.row.status, after.row.seq) == (old.status, old.seq)
        assert len(after.rows) == old.seq
        await thief.close()
        assert not handler.is_done()


def test_a_process_that_was_away_beyond_its_lease_commits_nothing(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"

    async def old(me: Process) -> None:
        engine = Engine(me.store(path), [flow("old", 0.3)], lease=LEASE, poll=0.02)
        async with engine:
            handler = await engine.start("slow", run_id=RUN)
            me.say("started")
            me.say(await handler)
            me.say(engine.worker_id)

    async def take_over() -> object:
        async with Engine(
            SQLiteStore(str(path)), [flow("new", 0)], lease=LEASE, poll=0.02
        ) as engine:
            async with asyncio.timeout(15):
                return await engine.result(RUN)

    with begin(old) as process:
        assert process.hear() == "started"
        process.stop()
        # The stopped process is alive, so nothing but its lease, running out, frees the run.
        assert asyncio.run(take_over()) == "new, then new"
        process.go_on()
        assert process.hear() == "new, then new"  # what it did itself meanwhile is not kept
        process.hear()
        process.wait()

    async def journal() -> list[object]:
        async with Engine(SQLiteStore(str(path)), worker=False) as engine:
            return [entry for _, _, row in await engine.journal(RUN) for entry in row]

    tags = [entry[0] for entry in asyncio.run(journal())]  # type: ignore[index]
    assert tags.count("done") == 2
    assert tags.count("end") == 1
