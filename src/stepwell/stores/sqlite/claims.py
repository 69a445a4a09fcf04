"""The verbs of workers: who may advance which run, and when the next one is due.

What is claimable is asked for one owner (nobody, or a worker that is gone) and one priority at a
time: each such question is one range of the index `runs_due`, already in the order wanted, so a
claim costs what it returns and not what waits. Owners and priorities are found by hopping through
the same indexes, from one distinct value to the next.
"""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections.abc import Iterator, Sequence

from stepwell.stores.base import RunRow, WorkerRow
from stepwell.stores.rows import row_of
from stepwell.stores.sqlite.statements import SQL

_NEXT_OWNER = SQL["next_owner"]
_LIVE_WORKERS = SQL["live_workers"]
_NEXT_PRIORITY = SQL["next_priority"]
_DUE_RUNS = SQL["due_runs"]
_FIRST_DUE = SQL["first_due"]
_TAKE = SQL["take"]
_FIND_OWNER = SQL["find_owner"]
_FIND_WORKER = SQL["find_worker"]
_REGISTER = SQL["register"]
_UNREGISTER = SQL["unregister"]
_RELEASE_ALL = SQL["release_all"]

# Above every priority, so that the first hop finds the highest.
_TOP = 2**63 - 1


def claim(
    db: sqlite3.Connection,
    worker: str,
    workflows: Sequence[str],
    now: float,
    limit: int,
    dead: Sequence[str],
) -> list[RunRow]:
    """See `Store.claim`."""
    names = json.dumps([*workflows])
    found: list[tuple[int, float, int]] = []
    for owner in _nobody_and_gone(db, now, dead, but=worker):
        left = limit
        for priority in _priorities(db, owner):
            if left <= 0:
                break
            due_runs = db.execute(_DUE_RUNS, (owner, priority, now, names, left)).fetchall()
            left -= len(due_runs)
            found.extend((-priority, due, n) for due, n in due_runs)
    return [_take(db, worker, n) for _, _, n in heapq.nsmallest(limit, found)]


def claim_one(
    db: sqlite3.Connection, worker: str, run: str, now: float, dead: Sequence[str]
) -> RunRow | None:
    """See `Store.claim_one`."""
    found = db.execute(_FIND_OWNER, (run,)).fetchone()
    if found is None:
        return None
    n, owner = found
    if owner == worker:
        return None
    live = db.execute(_FIND_WORKER, (owner, now)).fetchone() is not None
    if owner is not None and live and owner not in dead:
        return None
    return _take(db, worker, n)


def next_due(db: sqlite3.Connection, workflows: Sequence[str], now: float) -> float | None:
    """See `Store.next_due`."""
    names = json.dumps([*workflows])
    dues: list[float] = []
    for owner in _nobody_and_gone(db, now, (), but=None):
        for priority in _priorities(db, owner):
            dues.extend(due for (due,) in db.execute(_FIRST_DUE, (owner, priority, names)))
    return min(dues, default=None)


def register(db: sqlite3.Connection, worker: WorkerRow) -> None:
    """See `Store.register`."""
    names = json.dumps([*worker.workflows])
    db.execute(_REGISTER, (worker.id, worker.host, worker.pid, worker.until, names))


def unregister(db: sqlite3.Connection, worker: str) -> None:
    """See `Store.unregister`."""
    db.execute(_UNREGISTER, (worker,))
    db.execute(_RELEASE_ALL, (worker,))


def _take(db: sqlite3.Connection, worker: str, n: int) -> RunRow:
    # All rows are fetched: only then is the UPDATE done.
    (row,) = db.execute(_TAKE, (worker, n)).fetchall()
    return row_of(row)


def _nobody_and_gone(
    db: sqlite3.Connection, now: float, dead: Sequence[str], but: str | None
) -> list[str | None]:
    """None, for runs nobody owns, and the owners without a lease."""
    live = {id for (id,) in db.execute(_LIVE_WORKERS, (now,))} - {*dead}
    gone: list[str | None] = [None]
    owner = ""
    while True:
        (owner,) = db.execute(_NEXT_OWNER, (owner,)).fetchone()
        if owner is None:
            return gone
        if owner != but and owner not in live:
            gone.append(owner)


def _priorities(db: sqlite3.Connection, owner: str | None) -> Iterator[int]:
    """The distinct priorities of what this owner has to be advanced, highest first."""
    priority = _TOP
    while True:
        (priority,) = db.execute(_NEXT_PRIORITY, (owner, priority)).fetchone()
        if priority is None:
            return
        yield priority
