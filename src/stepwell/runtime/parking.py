"""Parked runs: held still until a person says what becomes of them, with their code or without.

A parked run is nobody's. Whoever moves it claims it first, so two who do so at once do not both;
and looks again at what was claimed, because it may have been moved meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepwell.authoring.program import TypeRegistry
from stepwell.errors import WorkflowRuntimeError
from stepwell.kernel.journal import Entry, RunEnded, RunResumed
from stepwell.runtime import codec
from stepwell.runtime.loading import fold_bare, load
from stepwell.runtime.looking import every, row_of
from stepwell.stores.base import Commit, NewMessage, RunFilter, RunRow
from stepwell.values import ErrorInfo, Json, RunStatus

if TYPE_CHECKING:
    from stepwell.runtime.worker import Worker


async def cancel(worker: Worker, run_id: str, reason: str) -> bool:
    """End a parked run without its code, and ask for its children to be cancelled. False when it
    is not parked any more, or someone else moves it."""
    return await worker.letting_go.whole(_cancel(worker, run_id, reason))


async def _cancel(worker: Worker, run_id: str, reason: str) -> bool:
    row = await _claimed(worker, run_id)
    if row is None:
        return False
    with worker.letting_go.unless_moved(row):
        now = worker.clock.now()
        live = RunFilter(parent=run_id, status=[s for s in RunStatus if not s.terminal])
        messages = [
            NewMessage(child.id, "cancel", b'"its parent ended"', now)
            async for child in every(worker, live)
        ]
        error = ErrorInfo("stepwell.errors.WorkflowCancelledByUser", reason)
        ended = RunEnded(RunStatus.CANCELLED, now, None, error)
        await _move(worker, row, RunStatus.CANCELLED, ended, {"reason": reason}, messages)
    worker.wake()
    return True


async def resume(worker: Worker, run_id: str) -> None:
    """See `Engine.resume`."""
    info = await row_of(worker, run_id)
    if info.status is not RunStatus.PARKED:
        raise WorkflowRuntimeError(f"run {run_id} is {info.status.value}, not parked")
    if not worker.claims:
        await worker.letting_go.whole(_unpark(worker, run_id))
        return
    worker.program(info.workflow)
    active = await worker.letting_go.whole(worker.search.resume(run_id))
    if active is not None:
        await active.settled()
        return
    row = await worker.store.get(run_id)
    if row is None or row.status is not RunStatus.PARKED:
        return
    if await worker.letting_go.has_others(row):  # whose code may be able to go on with it
        worker.search.hold_back(row.workflow)
        await worker.letting_go.whole(_unpark(worker, run_id))


async def _unpark(worker: Worker, run_id: str) -> None:
    """Lift the parking and leave the run to the workers that know its workflow."""
    row = await _claimed(worker, run_id)
    if row is None:
        raise WorkflowRuntimeError(f"run {run_id} is held by another worker")
    with worker.letting_go.unless_moved(row):
        now = worker.clock.now()
        run = await fold_bare(worker.store, await load(worker.store, run_id))
        deadline = run.deadline
        if deadline is not None:  # the time it was parked does not count
            deadline += max(0.0, now - run.parked_at)
        await _move(worker, row, RunStatus.RUNNING, RunResumed(now, "", deadline), {})


async def _claimed(worker: Worker, run_id: str) -> RunRow | None:
    """The row of a parked run, claimed by us; None when it can't be had, or is parked no more."""
    row = await worker.store.claim_one(worker.id, run_id, worker.clock.now())
    if row is None or row.status is RunStatus.PARKED:
        return row
    worker.letting_go.untouched(row)  # someone else moved it, and did not claim it for long
    return None


async def _move(
    worker: Worker,
    row: RunRow,
    status: RunStatus,
    entry: Entry,
    detail: Json,
    messages: list[NewMessage] | None = None,
) -> None:
    """Write down what becomes of a run that was claimed, and let go of it."""
    now = worker.clock.now()
    await worker.store.commit(
        Commit(
            run=row.id,
            fence=row.fence,
            at=now,
            status=status,
            due=None if status.terminal else 0.0,
            worker=worker.id,
            rows=[codec.encode([entry], TypeRegistry(()), now)],
            release=True,
            detail=codec.dump_json(detail),
            messages=messages or [],
        )
    )
