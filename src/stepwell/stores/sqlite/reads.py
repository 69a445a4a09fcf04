"""The verbs that only read, as functions of a connection."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from typing import TypeVar

from stepwell.errors import StoreCorrupt
from stepwell.stores import cursor
from stepwell.stores.base import (
    JournalRow,
    Loaded,
    MessageRow,
    Page,
    RunFilter,
    RunRow,
    Snapshot,
    WorkerRow,
)
from stepwell.stores.rows import STATUS, SqlRow, loaded_of, newest_first, page_of, row_of
from stepwell.stores.sqlite.statements import SQL
from stepwell.values import RunStatus

T = TypeVar("T")

_GET_RUN = SQL["get_run"]
_LOAD_RUNS = SQL["load_runs"]
_LOAD_SNAPSHOTS = SQL["load_snapshots"]
_LOAD_JOURNALS = SQL["load_journals"]
_LOAD_MESSAGES = SQL["load_messages"]
_JOURNAL_AFTER = SQL["journal_after"]
_MESSAGES_AFTER = SQL["messages_after"]
_FIND_NUMBER = SQL["find_number"]
_FIND_KEY = SQL["find_key"]
_OWNED_WITH_MESSAGES = SQL["owned_with_messages"]
_LIST_BY_CREATED = SQL["list_by_created"]
_LIST_BY_STATUS = SQL["list_by_status"]
_LIST_BY_PARENT = SQL["list_by_parent"]
_LIST_BY_CORRELATION = SQL["list_by_correlation"]
_LIST_BY_WAITING = SQL["list_by_waiting"]
_COUNTS = SQL["counts"]
_ALL_WORKERS = SQL["all_workers"]
_FIND_BLOB = SQL["find_blob"]
_EXPIRED = SQL["expired"]

_PIECE = 512 * 1024


def at_one_moment(db: sqlite3.Connection, read: Callable[[], T]) -> T:
    """Do several reads of which none sees a later commit than another."""
    db.execute("BEGIN")
    try:
        return read()
    finally:
        if db.in_transaction:  # an error may have ended it
            db.execute("COMMIT")


def load_many(db: sqlite3.Connection, runs: Sequence[str]) -> list[Loaded]:
    """See `Store.load_many`. Four statements for any number of runs."""
    return at_one_moment(db, lambda: _load_many(db, runs))


def _load_many(db: sqlite3.Connection, runs: Sequence[str]) -> list[Loaded]:
    rows = {row[0]: row for row in db.execute(_LOAD_RUNS, (json.dumps([*runs]),)).fetchall()}
    numbers = [row[-1] for row in rows.values()]
    listed = json.dumps(numbers)
    cached = {
        n: Snapshot(seq, data.encode()) for n, seq, data in db.execute(_LOAD_SNAPSHOTS, (listed,))
    }
    after = json.dumps([(n, cached[n].seq if n in cached else 0) for n in numbers])
    journals = [
        (n, seq, at, data.encode()) for n, seq, at, data in db.execute(_LOAD_JOURNALS, (after,))
    ]
    messages = [
        (n, id, kind, data.encode(), at)
        for n, id, kind, data, at in db.execute(_LOAD_MESSAGES, (listed,))
    ]
    return loaded_of(runs, rows, cached, journals, messages)


def _journal(db: sqlite3.Connection, n: int, after: int, limit: int) -> list[JournalRow]:
    return [
        JournalRow(seq, at, data.encode())
        for seq, at, data in db.execute(_JOURNAL_AFTER, (n, after, limit))
    ]


def _messages(db: sqlite3.Connection, n: int, after: int) -> list[MessageRow]:
    return [
        MessageRow(id, kind, data.encode(), at)
        for id, kind, data, at in db.execute(_MESSAGES_AFTER, (n, after))
    ]


def read(db: sqlite3.Connection, run: str, after: int, limit: int) -> list[JournalRow]:
    """See `Store.read`."""
    found = db.execute(_FIND_NUMBER, (run,)).fetchone()
    return [] if found is None else _journal(db, found[0], after, max(limit, 0))


def messages(db: sqlite3.Connection, run: str, after: int) -> list[MessageRow]:
    """See `Store.messages`."""
    found = db.execute(_FIND_NUMBER, (run,)).fetchone()
    return [] if found is None else _messages(db, found[0], after)


def inbox(db: sqlite3.Connection, worker: str) -> list[str]:
    """See `Store.inbox`."""
    return [id for (id,) in db.execute(_OWNED_WITH_MESSAGES, (worker,))]


def get(db: sqlite3.Connection, run: str) -> RunRow | None:
    """See `Store.get`."""
    found = db.execute(_GET_RUN, (run,)).fetchone()
    return None if found is None else row_of(found)


def find(db: sqlite3.Connection, workflow: str, key: str) -> str | None:
    """See `Store.find`."""
    found = db.execute(_FIND_KEY, (workflow, key)).fetchone()
    return None if found is None else found[0]


def page(db: sqlite3.Connection, where: RunFilter) -> Page:
    """See `Store.list`."""
    limit = max(where.limit, 0)
    return page_of(_listed(db, where, limit + 1), limit)


def _listed(db: sqlite3.Connection, where: RunFilter, limit: int) -> Iterable[SqlRow]:
    """The newest rows that `where` wants, through the narrowest index it names."""
    created, id = (math.inf, "") if where.after is None else cursor.decode(where.after)
    wanted = None if where.status is None else list(dict.fromkeys(where.status))
    names: dict[str, object] = {
        "workflow": where.workflow,
        "parent": where.parent,
        "correlation": where.correlation,
        "waiting": where.waiting,
        "statuses": None if wanted is None else json.dumps(wanted),
        "since": -math.inf if where.since is None else where.since,
        "created": created,
        "id": id,
        "limit": limit,
    }
    if where.waiting is not None:
        return db.execute(_LIST_BY_WAITING, names)
    if where.parent is not None:
        return db.execute(_LIST_BY_PARENT, names)
    if where.correlation is not None:
        return db.execute(_LIST_BY_CORRELATION, names)
    if wanted is None:
        return db.execute(_LIST_BY_CREATED, names)
    return newest_first(
        [db.execute(_LIST_BY_STATUS, {**names, "status": status}) for status in wanted]
    )


def workers(db: sqlite3.Connection) -> list[WorkerRow]:
    """See `Store.workers`."""
    return [
        WorkerRow(id, host, pid, until, json.loads(names))
        for id, host, pid, until, names in db.execute(_ALL_WORKERS)
    ]


def counts(db: sqlite3.Connection) -> dict[tuple[str, RunStatus], int]:
    """See `Store.counts`."""
    return {(workflow, STATUS[status]): n for workflow, status, n in db.execute(_COUNTS)}


def blob(db: sqlite3.Connection, digest: str, path: str) -> bytes:
    """See `Store.blob`. It comes in pieces: a thread that copies megabytes at once holds up all
    others."""
    whole = at_one_moment(db, lambda: _blob(db, digest))
    if whole is None:
        raise StoreCorrupt(f"the payload {digest} is not in {path}")
    return whole


def _blob(db: sqlite3.Connection, digest: str) -> bytes | None:
    found = db.execute(_FIND_BLOB, (digest,)).fetchone()
    if found is None:
        return None
    whole = BytesIO()  # gives what was written into it without copying it once more
    with db.blobopen("blobs", "data", found[0], readonly=True) as data:
        while piece := data.read(_PIECE):
            whole.write(piece)
    return whole.getvalue()


def expired(db: sqlite3.Connection, ended_before: float, limit: int) -> list[str]:
    """See `Store.expired`."""
    return [id for (id,) in db.execute(_EXPIRED, (ended_before, limit))]
