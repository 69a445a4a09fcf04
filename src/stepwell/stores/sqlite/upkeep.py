"""Keeping house: deleting runs, copying the database, checking it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from stepwell.errors import StoreCorrupt, StoreError, StoreUnavailable
from stepwell.stores.digests import digest_of
from stepwell.stores.rows import faults_of
from stepwell.stores.sqlite.errors import translate
from stepwell.stores.sqlite.reads import at_one_moment
from stepwell.stores.sqlite.statements import SQL

_FIND_TERMINAL = SQL["find_terminal"]
_BLOBS_OF = SQL["blobs_of"]
_DELETE_BLOB = SQL["delete_blob"]
_BLOB_ROWS = SQL["blob_rows"]

# All that a run is, the run itself last: nothing ever refers to a row that is not there.
_DELETE_PARTS = [
    SQL["delete_journal"],
    SQL["delete_messages"],
    SQL["delete_dedupe"],
    SQL["delete_snapshot"],
    SQL["delete_blob_refs"],
    SQL["delete_waits"],
    SQL["delete_run"],
]


def delete(db: sqlite3.Connection, runs: Sequence[str]) -> int:
    """See `Store.delete`."""
    deleted = 0
    digests: set[str] = set()
    for run in runs:
        found = db.execute(_FIND_TERMINAL, (run,)).fetchone()
        if found is None:
            continue
        digests.update(digest for (digest,) in db.execute(_BLOBS_OF, found))
        for statement in _DELETE_PARTS:
            db.execute(statement, found)
        deleted += 1
    db.executemany(_DELETE_BLOB, [(digest,) for digest in digests])
    return deleted


def backup(db: sqlite3.Connection, source: Path, name: str) -> None:
    """See `Store.backup`. The copy appears under its name only when it is whole."""
    target = Path(name).absolute()
    if not target.parent.is_dir():
        raise StoreUnavailable(
            f"the directory {target.parent} of the backup {target.name} does not exist",
            hint="Create it first.",
        )
    if target.exists():
        raise StoreError(
            f"{target} is there already; a backup of {source} does not overwrite it",
            hint="Choose another name, or remove the file.",
        )
    unfinished = target.with_name(f"{target.name}.unfinished-{os.getpid()}")
    try:
        with closing(sqlite3.connect(unfinished, isolation_level=None)) as copy:
            # An ordinary journal, so that the copy is one file and syncs before it is renamed.
            db.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE").fetchone()
        unfinished.rename(target)
    except sqlite3.Error as error:
        raise translate(error, str(target)) from error
    finally:
        unfinished.unlink(missing_ok=True)


def verify(db: sqlite3.Connection, path: str) -> list[str]:
    """See `Store.verify`. Damage that stops the check is a fault like the others."""
    try:
        return at_one_moment(db, lambda: _faults(db))
    except sqlite3.DatabaseError as error:
        said = translate(error, path)
        if isinstance(said, StoreCorrupt):
            return [said.message]
        raise


def _faults(db: sqlite3.Connection) -> list[str]:
    faults = [
        f"integrity: {text}" for (text,) in db.execute("PRAGMA integrity_check") if text != "ok"
    ]
    orphans: dict[tuple[str, str], int] = {}
    for table, _, parent, _ in db.execute("PRAGMA foreign_key_check"):
        orphans[table, parent] = orphans.get((table, parent), 0) + 1
    for (table, parent), n in orphans.items():
        faults.append(f"{table}: {n} row(s) refer to {parent} that are not there")
    faults += faults_of(lambda name: db.execute(SQL[name]))
    for digest, size, data in db.execute(_BLOB_ROWS):
        if len(data) != size or digest_of(data) != digest:
            faults.append(f"the payload {digest} is not what was written")
    return faults
