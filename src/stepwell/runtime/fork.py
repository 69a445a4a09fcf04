"""Copies of runs: a new run whose journal begins with a part of another's.

What is copied stays as it is. Where to cut is said by rows or by a step, and the fields of what the
copy goes on with may be replaced; all before the cut is the copy's past, as if it had done it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from stepwell.authoring.program import Program
from stepwell.authoring.words import is_hidden
from stepwell.errors import WorkflowRuntimeError
from stepwell.kernel.journal import Entry, RunEnded, RunStarted, WorkAdded
from stepwell.kernel.outcomes import Message
from stepwell.runtime import codec
from stepwell.runtime.clock import new_run_id
from stepwell.runtime.looking import batches, row_of
from stepwell.runtime.stored import StoredRun
from stepwell.stores.base import Commit, NewRun, RunRow
from stepwell.values import Json, RunStatus

if TYPE_CHECKING:
    from stepwell.runtime.worker import Worker

Batches = list[tuple[float, list[Entry]]]


async def fork(
    worker: Worker,
    run_id: str,
    *,
    seq: int | None,
    step: str | None,
    input: Mapping[str, Json] | None,
    new_id: str | None,
) -> StoredRun:
    """See `Engine.fork`."""
    row = await row_of(worker, run_id)
    name = row.workflow
    program = worker.program(name)[0] if input else worker.program_or_bare(name)
    past = _cut(await batches(worker, run_id), run_id, seq=seq, step=step)
    if input:
        _replace(past, program, input)
    return await _copy(worker, row, program, past, new_id)


async def retry(worker: Worker, run_id: str, new_id: str | None) -> StoredRun:
    """See `Engine.retry`."""
    row = await row_of(worker, run_id)
    rows = await batches(worker, run_id)
    failed = next((e.step for _, es in reversed(rows) for e in es if isinstance(e, RunEnded)), None)
    if failed is None:
        raise WorkflowRuntimeError(
            f"run {run_id} is {row.status.value} and was not ended by a failed step; fork it "
            "to go on from a point of your choice"
        )
    past = _cut(rows, run_id, step=failed)
    return await _copy(worker, row, worker.program_or_bare(row.workflow), past, new_id)


async def _copy(
    worker: Worker, of: RunRow, program: Program, past: Batches, new_id: str | None
) -> StoredRun:
    id = new_id or new_run_id()
    now = worker.clock.now()
    await worker.store.commit(
        Commit(
            run=id,
            fence=1,
            at=now,
            status=RunStatus.RUNNING,
            due=0.0,
            worker=worker.id,
            rows=[codec.encode(entries, program.types, now) for _, entries in past],
            release=True,
            create=NewRun(id, of.workflow, now, version=of.version, correlation=of.correlation),
        )
    )
    worker.wake()
    return StoredRun(worker, program, id)


def _cut(
    rows: Sequence[tuple[float, list[Entry]]],
    run_id: str,
    *,
    seq: int | None = None,
    step: str | None = None,
) -> Batches:
    """The journal up to a point: `seq` rows of it, or up to where `step` last began, or, with
    neither, up to where the run began. Raises `WorkflowRuntimeError` when there is no such point.
    """
    if rows and not any(isinstance(e, RunStarted) for _, entries in rows for e in entries):
        raise WorkflowRuntimeError(
            f"run {run_id} goes on from a saved context (or has not begun), so its journal is not "
            "all of it and can't be cut"
        )
    if seq is not None:
        if not 0 < seq <= len(rows):
            raise WorkflowRuntimeError(
                f"run {run_id} has {len(rows)} journal rows; it can't be cut behind row {seq}"
            )
        return [(at, list(entries)) for at, entries in rows[:seq]]
    found: tuple[int, int] | None = None
    for number, (_, entries) in enumerate(rows):
        for place, entry in enumerate(entries):
            if isinstance(entry, WorkAdded) and (step is None or _is(entry.step, step)):
                found = (number, _with_siblings(entries, place))
                if step is None:
                    break
        if found is not None and step is None:
            break
    if found is None:
        wanted = "a step" if step is None else f"step {step!r}"
        begun = {e.step for _, es in rows for e in es if isinstance(e, WorkAdded)}
        steps = sorted(each for each in begun if not is_hidden(each))
        raise WorkflowRuntimeError(
            f"run {run_id} never came to {wanted}; it was at {', '.join(steps) or 'none'}"
        )
    number, place = found
    at, entries = rows[number]
    return [(t, list(es)) for t, es in rows[:number]] + [(at, list(entries[: place + 1]))]


def _is(step: str, named: str) -> bool:
    """Whether a step is called so; a member of a group is called by its own name, too."""
    return step == named or step.endswith(f" ({named})")


def _with_siblings(entries: Sequence[Entry], place: int) -> int:
    """The place of the last piece of work that was added together with this one, as members of one
    stream: without them what gathers the stream would wait for ever."""
    first = entries[place]
    stream = first.stream if isinstance(first, WorkAdded) else 0
    if not stream:
        return place
    for later in range(place + 1, len(entries)):
        entry = entries[later]
        if isinstance(entry, WorkAdded) and entry.stream == stream:
            place = later
    return place


def _replace(past: Batches, program: Program, input: Mapping[str, Json]) -> None:
    """Replace fields of the message that the copy goes on with, in place.

    Raises `WorkflowRuntimeError` when the copy goes on with several messages at once, and
    ValueError when the fields do not fit the message's type.
    """
    for _, entries in reversed(past):
        for place in range(len(entries) - 1, -1, -1):
            entry = entries[place]
            if not isinstance(entry, WorkAdded):
                continue
            message = entry.message
            if not isinstance(message, Message):
                raise WorkflowRuntimeError(
                    f"step {entry.step!r} goes on with several events; its input can't be edited"
                )
            types = program.types
            data = json.loads(message.data or types.dumps(message.payload))
            payload = types.load(message.tag, program.edit(message.tag, data, input))
            entry.message = Message(message.tag, payload, message.to, message.kinds)
            return
    raise WorkflowRuntimeError("the copy has no step whose input could be edited")
