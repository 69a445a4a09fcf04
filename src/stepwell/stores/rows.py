"""From rows of a SQL database to what the protocol calls them: the same for every one that has
columns in this order. What a statement is, and who runs it, is not known here.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from stepwell.stores import cursor
from stepwell.stores.base import JournalRow, Loaded, MessageRow, Page, RunRow, Snapshot
from stepwell.values import RunStatus

SqlRow = Sequence[Any]  # what a database's driver gives: untyped by nature

STATUS = {str(status): status for status in RunStatus}
"""Statuses by their text."""


def row_of(values: SqlRow) -> RunRow:
    """The run of a row whose first columns are those of `RunRow`, in its order. Times that came
    through JSON may be whole numbers."""
    id, workflow, version, status, seq, fence, owner, due, created, updated, ended = values[:11]
    key, correlation, parent, priority, detail = values[11:16]
    return RunRow(
        id=id,
        workflow=workflow,
        version=version,
        status=STATUS[status],
        seq=seq,
        fence=fence,
        owner=owner,
        due=None if due is None else float(due),
        created=float(created),
        updated=float(updated),
        ended=None if ended is None else float(ended),
        key=key,
        correlation=correlation,
        parent=parent,
        priority=priority,
        detail=None if detail is None else detail.encode(),
    )


def loaded_of(
    runs: Sequence[str],
    rows: Mapping[str, SqlRow],
    snapshots: Mapping[int, Snapshot],
    journals: Iterable[SqlRow],
    messages: Iterable[SqlRow],
) -> list[Loaded]:
    """Runs with all that belongs to them.

    Args:
        runs: the ids of those wanted, in the order wanted; those not in `rows` are left out.
        rows: the rows of runs by id; behind the columns of `RunRow` comes the run's number.
        snapshots: snapshots by the number of their run.
        journals: number, seq, time, data; those of a run in order.
        messages: number, id, kind, data, time; those of a run in order.
    """
    kept: dict[int, list[JournalRow]] = {row[16]: [] for row in rows.values()}
    unread: dict[int, list[MessageRow]] = {n: [] for n in kept}
    for n, seq, at, data in journals:
        kept[n].append(JournalRow(seq, at, data))
    for n, id, kind, data, at in messages:
        unread[n].append(MessageRow(id, kind, data, at))
    return [
        Loaded(row_of(row), snapshots.get(row[16]), kept[row[16]], unread[row[16]])
        for row in (rows[run] for run in runs if run in rows)
    ]


def page_of(listed: Iterable[SqlRow], limit: int) -> Page:
    """A page of up to `limit` rows of `listed`, of which one more is looked at."""
    rows = [row_of(values) for values in itertools.islice(listed, limit + 1)]
    if len(rows) <= limit or not limit:
        return Page(rows[:limit], None)
    last = rows[limit - 1]
    return Page(rows[:limit], cursor.encode(last.created, last.id))


def newest_first(found: Sequence[Iterable[SqlRow]]) -> Iterable[SqlRow]:
    """Several listings, each newest first, as one."""
    return heapq.merge(*found, key=_age, reverse=True)


def _age(values: SqlRow) -> tuple[float, str]:
    return values[8], values[0]


def faults_of(ask: Callable[[str], Iterable[SqlRow]]) -> list[str]:
    """A sentence per fault that the statements of `statements/faults.sql` find.

    Args:
        ask: gives the rows of the statement with this name.
    """
    faults: list[str] = []
    for run, seq, n, last in ask("journal_faults"):
        faults.append(f"run {run}: it should have {seq} journal rows; it has {n}, up to {last}")
    for run, seq, of in ask("snapshot_faults"):
        faults.append(f"run {run}: its snapshot is of journal row {of}, after its last, {seq}")
    for run, status in ask("end_faults"):
        faults.append(f"run {run}: it is {status}, which does not fit the end it has or lacks")
    for run, tag in ask("wait_faults"):
        faults.append(f"run {run}: it is listed as waiting for {tag!r}, which does not fit it")
    faults += [f"nobody refers to the payload {digest}" for (digest,) in ask("unused_blobs")]
    return faults
