"""Opens SQLite files: pragmas, schema version, migrations.

Two kinds of connection. The writer may write and is the only one that checkpoints: SQLite before
3.51.3 can damage a write-ahead log when two connections checkpoint at once. Readers are opened
read-only. A connection is used by one thread at a time, though not always by the same one.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

from stepwell.errors import StoreError, StoreReadOnly, StoreUnavailable
from stepwell.stores.migrate import Migration, load_migrations, pending
from stepwell.stores.sqlite.errors import code_of, is_locked, translate

Durability = Literal["power", "process"]

MIGRATIONS = load_migrations("stepwell.stores.sqlite")
OLDEST = (3, 37, 0)  # STRICT tables

# A lock is tried for this often. SQLite's own waiting grows to 100 ms a try, which starves when the
# other process writes without pause; a short step finds the gap between two of its transactions.
_RETRY_SECONDS = 0.001
# A try that took longer was not waiting: the machine stood still, and whoever holds the lock, too.
_STOOD_STILL_SECONDS = 0.25
# What the write-ahead log is cut back to after a burst, once it has been checkpointed.
_LOG_LIMIT_BYTES = 64 * 1024 * 1024
# In pages of 4096 bytes, SQLite's own choice, rows of two or three kilobytes would leave half of
# each page empty. Commits took no longer with 8192.
_PAGE_BYTES = 8192
_SYNCHRONOUS = {"power": "FULL", "process": "NORMAL"}

T = TypeVar("T")


def retrying(action: Callable[[], T], seconds: float) -> T:
    """Do `action`; while the database is locked, do it again, for up to `seconds`."""
    waited, last = 0.0, time.monotonic()
    pause = threading.Event()
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if not is_locked(error) or waited >= seconds:
                raise
        pause.wait(_RETRY_SECONDS)
        now = time.monotonic()
        waited += min(now - last, _STOOD_STILL_SECONDS)
        last = now


def connect_writer(path: Path, durability: Durability, busy_timeout: float) -> sqlite3.Connection:
    """The one connection that writes: creates the file if need be and migrates it."""
    if sqlite3.sqlite_version_info < OLDEST:
        raise StoreUnavailable(
            f"SQLite {sqlite3.sqlite_version} is too old for {path}",
            hint=f"Use a Python built with SQLite {'.'.join(map(str, OLDEST))} or later.",
        )
    if not path.parent.is_dir():
        raise StoreUnavailable(
            f"the directory {path.parent} of the store {path.name} does not exist",
            hint="Create it first; a store creates its file, never a directory.",
        )
    # Python's own timeout stays 0: `retrying` waits instead.
    return _connect(
        path, "rwc", 0.0, lambda db: _prepare_writer(db, path, durability, busy_timeout)
    )


def connect_reader(path: Path, busy_timeout: float) -> sqlite3.Connection:
    """A connection that only reads."""
    return _connect(path, "ro", busy_timeout, _prepare_reader)


def _connect(
    path: Path, mode: str, timeout: float, prepare: Callable[[sqlite3.Connection], None]
) -> sqlite3.Connection:
    try:
        db = sqlite3.connect(
            f"{path.as_uri()}?mode={mode}",
            uri=True,
            timeout=timeout,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=128,
        )
        try:
            prepare(db)
        except BaseException:
            db.close()
            raise
    except sqlite3.Error as error:
        if code_of(error) == sqlite3.SQLITE_CANTOPEN and _not_writable(path):
            raise StoreReadOnly(f"the database {path} cannot be written: {error}") from error
        raise translate(error, str(path)) from error
    return db


def _not_writable(path: Path) -> bool:
    return path.is_file() and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))


def _prepare_reader(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA query_only = 1")
    db.execute("PRAGMA wal_autocheckpoint = 0")


def _prepare_writer(
    db: sqlite3.Connection, path: Path, durability: Durability, busy_timeout: float
) -> None:
    # Before anything that writes: a newer release's file is left as it is.
    missing = pending(retrying(lambda: schema_version(db, path), busy_timeout), MIGRATIONS)
    db.execute(f"PRAGMA page_size = {_PAGE_BYTES}")  # of a new file; others keep theirs
    mode = retrying(lambda: db.execute("PRAGMA journal_mode = WAL").fetchone()[0], busy_timeout)
    if mode != "wal":
        raise StoreUnavailable(
            f"the database {path} cannot keep a write-ahead log (its journal mode is {mode})",
            hint="Put it on a local disk; network file systems cannot share a log.",
        )
    db.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[durability]}")
    # macOS: without these, fsync leaves data in the drive's cache. Elsewhere they do nothing.
    db.execute(f"PRAGMA fullfsync = {int(durability == 'power')}")
    db.execute(f"PRAGMA checkpoint_fullfsync = {int(durability == 'power')}")
    db.execute(f"PRAGMA journal_size_limit = {_LOG_LIMIT_BYTES}")
    for migration in missing:
        _migrate(db, path, migration, busy_timeout)


def schema_version(db: sqlite3.Connection, path: Path) -> int:
    """The number of the last migration; 0 for an empty database."""
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    if not tables:
        return 0
    if not {"meta", "runs"} <= tables:
        raise StoreError(
            f"{path} is a SQLite database of something else",
            hint="Give the store a file of its own.",
        )
    found = db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
    return int(found[0]) if found else 0


def _migrate(db: sqlite3.Connection, path: Path, migration: Migration, busy_timeout: float) -> None:
    """One migration in one transaction, unless another process has done it meanwhile."""
    retrying(lambda: db.execute("BEGIN IMMEDIATE"), busy_timeout)
    try:
        if schema_version(db, path) < migration.number:
            for statement in _split(migration.script):
                db.execute(statement)
            db.execute(
                "INSERT INTO meta (key, value) VALUES ('schema', ?)"
                " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (str(migration.number),),
            )
            db.execute(
                "INSERT INTO meta (key, value) VALUES ('created_by', 'stepwell')"
                " ON CONFLICT (key) DO NOTHING"
            )
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _split(script: str) -> list[str]:
    """The statements of a script. (`executescript` would commit the transaction first.)"""
    found: list[str] = []
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            found.append(statement)
            statement = ""
    return found
