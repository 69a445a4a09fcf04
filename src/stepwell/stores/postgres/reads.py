"""The verbs that only read, as functions of a connection."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Any, LiteralString, cast

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
from stepwell.stores.postgres.place import Connection
from stepwell.stores.postgres.statements import SQL
from stepwell.stores.rows import STATUS, SqlRow, loaded_of, newest_first, page_of, row_of
from stepwell.values import RunStatus

_PIECE = 512 * 1024


def ask(db: Connection, name: str, *values: object) -> list[tuple[Any, ...]]:
    """All rows that the statement called `name` gives, in binary: text stays bytes."""
    return _rows(db, SQL[name], values)


def _rows(db: Connection, statement: str, values: Any) -> list[tuple[Any, ...]]:
    with db.cursor(binary=True) as rows:
        # Our own files, and no text of a caller's is ever put into them.
        return rows.execute(cast(LiteralString, statement), values).fetchall()


def load_many(db: Connection, runs: Sequence[str]) -> list[Loaded]:
    """See `Store.load_many`. Four statements for any number of runs, of one moment."""
    with db.transaction():
        rows = {row[0]: row for row in ask(db, "load_runs", [*runs])}
        numbers = [row[16] for row in rows.values()]
        cached = {n: Snapshot(seq, data) for n, seq, data in ask(db, "load_snapshots", numbers)}
        after = [cached[n].seq if n in cached else 0 for n in numbers]
        journals = ask(db, "load_journals", numbers, after)
        messages = ask(db, "load_messages", numbers)
    return loaded_of(runs, rows, cached, journals, messages)


def read(db: Connection, run: str, after: int, limit: int) -> list[JournalRow]:
    """See `Store.read`."""
    return [JournalRow(*row) for row in ask(db, "journal_after", run, after, max(limit, 0))]


def messages(db: Connection, run: str, after: int) -> list[MessageRow]:
    """See `Store.messages`."""
    return [MessageRow(*row) for row in ask(db, "messages_after", run, after)]


def inbox(db: Connection, worker: str) -> list[str]:
    """See `Store.inbox`."""
    return [id for (id,) in ask(db, "owned_with_messages", worker)]


def get(db: Connection, run: str) -> RunRow | None:
    """See `Store.get`."""
    found = ask(db, "get_run", run)
    return row_of(found[0]) if found else None


def find(db: Connection, workflow: str, key: str) -> str | None:
    """See `Store.find`."""
    found = ask(db, "find_key", workflow, key)
    return found[0][0] if found else None


def workers(db: Connection) -> list[WorkerRow]:
    """See `Store.workers`."""
    return [
        WorkerRow(id, host, pid, until, json.loads(names))
        for id, host, pid, until, names in ask(db, "all_workers")
    ]


def next_due(db: Connection, workflows: Sequence[str], now: float) -> float | None:
    """See `Store.next_due`."""
    return ask(db, "next_due", [*workflows], now)[0][0]


def page(db: Connection, where: RunFilter) -> Page:
    """See `Store.list`."""
    limit = max(where.limit, 0)
    return page_of(_listed(db, where, limit + 1), limit)


def _listed(db: Connection, where: RunFilter, limit: int) -> Iterable[SqlRow]:
    """The newest rows that `where` wants. Of several statuses each is asked for by itself, since
    each is a range of an index and all of them together are not."""
    created, id = (math.inf, "") if where.after is None else cursor.decode(where.after)
    names: dict[str, Any] = {
        "created": created,
        "id": id,
        "since": -math.inf if where.since is None else where.since,
        "limit": limit,
    }
    statement = SQL["list_runs"] if where.waiting is None else SQL["list_waiting"]
    clauses: list[str] = []
    if where.waiting is not None:
        names["waiting"] = where.waiting
    else:
        clauses += ["(created, id) < (%(created)s, %(id)s)", "created >= %(since)s"]
    for column in ("workflow", "parent", "correlation"):
        value = getattr(where, column)
        if value is not None:
            names[column] = value
            clauses.append(f"{column} = %({column})s")
    wanted = None if where.status is None else [str(one) for one in dict.fromkeys(where.status)]
    narrow = where.waiting is not None or where.parent is not None or where.correlation is not None
    if wanted is None or narrow:
        if wanted is not None:
            names["statuses"] = wanted
            clauses.append("status = ANY (%(statuses)s)")
        return _rows(db, statement.format(where=" AND ".join(clauses) or "true"), names)
    each = statement.format(where=" AND ".join(["status = %(status)s", *clauses]))
    return newest_first([_rows(db, each, {**names, "status": status}) for status in wanted])


def counts(db: Connection) -> dict[tuple[str, RunStatus], int]:
    """See `Store.counts`."""
    return {(workflow, STATUS[status]): n for workflow, status, n in ask(db, "counts")}


def blob(db: Connection, digest: str, url: str) -> bytes:
    """See `Store.blob`. It comes in pieces: a thread that copies megabytes at once holds up all
    others, and between two answers of the server it does not."""
    found = ask(db, "find_blob", digest)
    if not found:
        raise StoreCorrupt(f"the payload {digest} is not in {url}")
    whole = BytesIO()  # gives what was written into it without copying it once more
    for start in range(1, found[0][0] + 1, _PIECE):
        piece = ask(db, "get_blob", start, _PIECE, digest)
        if not piece:
            raise StoreCorrupt(f"the payload {digest} was deleted from {url} while it was read")
        whole.write(piece[0][0])
    return whole.getvalue()


def expired(db: Connection, ended_before: float, limit: int) -> list[str]:
    """See `Store.expired`."""
    return [id for (id,) in ask(db, "expired", ended_before, limit)]
