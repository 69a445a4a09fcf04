"""What SQLite's errors mean to whoever runs the store.

SQLite speaks in result codes; an operator needs to know which file, what happened and what to do.
Nothing raw leaves the store: `translate` has an answer for every `sqlite3.Error`.
"""

from __future__ import annotations

import sqlite3

from stepwell.errors import (
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    StoreUnavailable,
)

_BY_CODE: dict[int, type[StoreError]] = {
    sqlite3.SQLITE_BUSY: StoreLocked,
    sqlite3.SQLITE_LOCKED: StoreLocked,
    sqlite3.SQLITE_PROTOCOL: StoreLocked,
    sqlite3.SQLITE_FULL: StoreFull,
    sqlite3.SQLITE_READONLY: StoreReadOnly,
    sqlite3.SQLITE_CORRUPT: StoreCorrupt,
    sqlite3.SQLITE_NOTADB: StoreCorrupt,
    sqlite3.SQLITE_CANTOPEN: StoreUnavailable,
    sqlite3.SQLITE_IOERR: StoreUnavailable,
    sqlite3.SQLITE_PERM: StoreUnavailable,
    sqlite3.SQLITE_AUTH: StoreUnavailable,
}
_WORDS: dict[type[StoreError], str] = {
    StoreLocked: "another connection keeps the database {path} locked",
    StoreFull: "the database {path} has no room left",
    StoreReadOnly: "the database {path} cannot be written",
    StoreCorrupt: "the file {path} is damaged or not a SQLite database",
    StoreUnavailable: "the database {path} cannot be opened or read",
    StoreError: "the database {path} refused what was asked",
}
_HINTS: dict[type[StoreError], str] = {
    StoreUnavailable: "Check that the folder exists, is on a local disk and may be written to.",
    StoreError: "This is not about the file; please report it with the text above.",
}


def code_of(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 for errors of the Python module itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def translate(error: sqlite3.Error, path: str) -> StoreError:
    """The store error that says what `error` means for the database at `path`."""
    kind = _BY_CODE.get(code_of(error), StoreError)
    return kind(f"{_WORDS[kind].format(path=path)}: {error}", hint=_HINTS.get(kind))


def is_locked(error: sqlite3.Error) -> bool:
    """Whether trying again a moment later may help."""
    return code_of(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
