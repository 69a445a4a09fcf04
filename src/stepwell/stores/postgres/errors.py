"""What PostgreSQL's errors mean to whoever runs the store.

PostgreSQL speaks in SQLSTATEs; an operator needs to know which database, what happened and what to
do. Nothing raw leaves the store: `translate` has an answer for every `psycopg.Error`. An error of
the connection has no SQLSTATE; it is told by its class.
"""

from __future__ import annotations

import psycopg

from stepwell.errors import (
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    StoreUnavailable,
)

# By SQLSTATE, or by its class (the first two characters) where that says enough.
_BY_STATE: dict[str, type[StoreError]] = {
    "08": StoreUnavailable,  # connection lost or refused
    "0A": StoreError,
    "25006": StoreReadOnly,  # a standby, or default_transaction_read_only
    "28": StoreUnavailable,  # wrong user or password, pg_hba.conf
    "3D": StoreUnavailable,  # no such database
    "3F": StoreUnavailable,  # no such schema
    "40": StoreLocked,  # deadlock or serialization failure, after having been tried again
    "42501": StoreReadOnly,  # insufficient privilege
    "53100": StoreFull,  # disk full
    "53": StoreUnavailable,  # too many connections, out of memory
    "55P03": StoreLocked,  # lock_timeout
    "57014": StoreLocked,  # statement_timeout
    "57": StoreUnavailable,  # shutting down, crashed, starting up
    "58P01": StoreCorrupt,  # a file of the database is missing
    "58": StoreUnavailable,  # input or output error
    "XX001": StoreCorrupt,  # damaged page
    "XX002": StoreCorrupt,  # damaged index
}
_WORDS: dict[type[StoreError], str] = {
    StoreLocked: "someone else keeps rows of {url} locked",
    StoreFull: "the server of {url} has no room left",
    StoreReadOnly: "{url} cannot be written",
    StoreCorrupt: "the database of {url} is damaged",
    StoreUnavailable: "{url} cannot be reached or used",
    StoreError: "{url} refused what was asked",
}
_HINTS: dict[type[StoreError], str] = {
    StoreReadOnly: "Check that the server is no standby, and default_transaction_read_only.",
    StoreError: "This is not about the server's health; please report it with the text above.",
}
_ROLE = (
    "The role needs CREATE on the database, once, or a schema that it owns: CREATE SCHEMA name"
    " AUTHORIZATION role."
)
_HIDDEN = (
    "What the store made is gone, or hidden: by a pooler that shares sessions (PgBouncer must be in"
    f" session mode), or from the role. {_ROLE}"
)
_HINTS_BY_STATE: dict[str, str] = {
    "28": "Check the user, the password (also PGPASSWORD and ~/.pgpass) and pg_hba.conf.",
    "3D": "Create the database first (createdb); a store creates its schema, never a database.",
    "3F": _ROLE,
    "42501": _ROLE,
    "42P01": _HIDDEN,  # no such table
    "42883": _HIDDEN,  # no such function
    "26000": _HIDDEN,  # no such prepared statement
    "53300": "Raise max_connections, or lower read_connections of the stores.",
}
# libpq does not pass on the SQLSTATE of what a server says to a new connection.
_CONNECTING = (
    "Check that the server runs and can be reached, the user and the password (also PGPASSWORD and"
    " ~/.pgpass), and that the database exists (createdb); work goes on when it is back."
)
_AGAIN = frozenset({"40001", "40P01"})


def translate(error: psycopg.Error, url: str) -> StoreError:
    """The store error that says what `error` means for the store at `url`."""
    state = error.sqlstate or ""
    if not state and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return StoreUnavailable(
            f"{_WORDS[StoreUnavailable].format(url=url)}: {_text(error)}", hint=_CONNECTING
        )
    kind = _BY_STATE.get(state) or _BY_STATE.get(state[:2]) or StoreError
    hint = _HINTS_BY_STATE.get(state) or _HINTS_BY_STATE.get(state[:2]) or _HINTS.get(kind)
    return kind(f"{_WORDS[kind].format(url=url)}: {_text(error)}", hint=hint)


def _text(error: psycopg.Error) -> str:
    """What the server said, in one line, without the statement and its values."""
    said = error.diag.message_primary or str(error) or type(error).__name__
    return " ".join(said.split())


def may_go_better(error: psycopg.Error) -> bool:
    """Whether the same transaction may well succeed if it is tried again at once."""
    return error.sqlstate in _AGAIN


def is_lost(error: psycopg.Error, connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    """Whether the connection is of no use any more, so that nobody knows what came of a write."""
    state = error.sqlstate or ""
    return connection.closed or connection.broken or state.startswith(("08", "57P"))
