"""Which database a store is in, and how a connection to it begins: settings, schema, migrations.

A URL is libpq's, `postgresql://user:password@host:port/database?option=value`, with two options of
our own, `schema` and `durability`. What is not in it libpq takes from where it always does
(PGHOST, PGPASSWORD, ~/.pgpass, ...). The password goes to libpq and nowhere else: `Place.url` is
put together anew from what may be shown.

Several processes may open a new database at once: migrations hold an advisory lock.

A connection is a session: its settings, its prepared statements and LISTEN stay with it. A pooler
that hands each transaction another session (PgBouncer's `pool_mode = transaction`) would take them
away without a word, so it is looked for, and refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeGuard
from urllib.parse import parse_qsl, quote, urlencode

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from stepwell.errors import StoreError, StoreUnavailable
from stepwell.stores.migrate import Migration, load_migrations, pending
from stepwell.stores.postgres.errors import translate

Durability = Literal["power", "process"]
Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]  # rows are untyped by nature

MIGRATIONS = load_migrations("stepwell.stores.postgres")
OLDEST = 130000  # PostgreSQL 13

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,47}")
_SCHEMES = ("postgresql://", "postgres://")
# A peer that is gone without a word is noticed within half a minute, unless the URL says otherwise.
_DEFAULTS = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",
    "application_name": "stepwell",
}
# Settings of the server or of the role that would change what statements mean are overruled.
_SETTINGS = """
SET client_encoding = 'UTF8';
SET default_transaction_isolation = 'read committed';
SET statement_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET jit = off;
SET search_path = {schema};
SET lock_timeout = {lock_timeout};
SELECT pg_backend_pid();
"""
# A pooler may have lent the session to a third one just now.
_LOOKS_FOR_A_SHARED_SESSION = 3


@dataclass(frozen=True, slots=True)
class Place:
    """A schema of a database.

    `url` is what may be printed; `conninfo` is libpq's, and secret; `lock_timeout` is in seconds.
    """

    url: str
    conninfo: str = field(repr=False)
    schema: str
    lock_timeout: float

    @property
    def channel(self) -> str:
        """Where changes are announced."""
        return f"stepwell_{self.schema}"

    def connect(self) -> Connection:
        """A connection in autocommit mode whose search path is the schema.

        Raises `StoreUnavailable` and other `StoreError`s.
        """
        try:
            db = psycopg.connect(self.conninfo, autocommit=True)
            try:
                if db.info.server_version < OLDEST:
                    raise StoreUnavailable(
                        f"{self.url} is PostgreSQL {db.info.server_version // 10000}",
                        hint=f"Use PostgreSQL {OLDEST // 10000} or later.",
                    )
                schema = sql.Identifier(self.schema)
                timeout = sql.Literal(round(self.lock_timeout * 1000))
                said = db.execute(sql.SQL(_SETTINGS).format(schema=schema, lock_timeout=timeout))
                while said.nextset():
                    pass
                # A pooler tells its clients a number of its own.
                if said.fetchall()[0][0] != db.info.backend_pid:
                    self._check_pooler(db)
            except BaseException:
                db.close()
                raise
        except psycopg.Error as error:
            raise translate(error, self.url) from error
        return db

    def _check_pooler(self, db: Connection) -> None:
        """Raise `StoreUnavailable` when two connections are given one session in turns."""
        for _ in range(_LOOKS_FOR_A_SHARED_SESSION):
            mine = db.execute("SELECT pg_backend_pid()").fetchall()
            try:
                # A transaction, so that it would be kept from us while we look.
                with psycopg.connect(self.conninfo) as other:
                    shared = other.execute("SELECT pg_backend_pid()").fetchall() == mine
            except psycopg.OperationalError as error:
                shared = "pooling mode" in str(error)  # of statements: not even transactions
            if shared:
                raise StoreUnavailable(
                    f"{self.url} is reached through a pooler that shares sessions among"
                    " connections, and loses what they set",
                    hint="Use session mode (PgBouncer: pool_mode = session), or go past the"
                    " pooler.",
                )

    def connect_reader(self) -> Connection:
        """A connection that only reads; what it reads in one transaction is of one moment."""
        db = self.connect()
        db.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        db.read_only = True
        return db

    def migrate(self, db: Connection) -> None:
        """Create the schema or bring it up to date; leaves a newer release's as it is.

        Raises `StoreVersionError`; `StoreError` when the schema holds something else.
        """
        try:
            if not pending(self._version(db), MIGRATIONS):
                return
            with db.transaction():
                # Who makes it is waited for longer than a row is.
                db.execute("SET LOCAL lock_timeout = '60s'")
                db.execute(
                    "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))",
                    (f"{self.channel} migrations",),
                )
                missing = pending(self._version(db), MIGRATIONS)  # others may have been faster
                if not self._exists(db):
                    db.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self.schema)))
                for migration in missing:
                    _apply(db, migration)
        except psycopg.Error as error:
            raise translate(error, self.url) from error

    def _exists(self, db: Connection) -> bool:
        found = db.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (self.schema,))
        return found.fetchone() is not None

    def _version(self, db: Connection) -> int:
        """The number of the last migration; 0 for an empty schema, or none."""
        tables = {
            name
            for (name,) in db.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = %s", (self.schema,)
            )
        }
        if not tables:
            return 0
        if not {"meta", "runs", "journal"} <= tables:
            raise StoreError(
                f"the schema {self.schema} of {self.url} is one of something else",
                hint="Give the store a schema of its own: postgresql://...?schema=name.",
            )
        found = db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
        return int(found[0]) if found else 0


def _apply(db: Connection, migration: Migration) -> None:
    db.execute(migration.script.encode())
    db.execute(
        "INSERT INTO meta (key, value) VALUES ('schema', %s), ('created_by', 'stepwell')"
        " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (str(migration.number),),
    )


def parse(url: str, durability: Durability | None, lock_timeout: float) -> tuple[Place, Durability]:
    """The place that a URL names, and the durability asked for there or beside it.

    Raises `ValueError`, whose text holds no password.
    """
    if not url.startswith(_SCHEMES):
        raise ValueError("a PostgresStore needs a URL: postgresql://user@host:5432/database")
    location, _, query = url.partition("?")
    ours: dict[str, str] = {"schema": "stepwell", "durability": durability or "power"}
    theirs: list[tuple[str, str]] = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in ours:
            theirs.append((name, value))
        elif name == "schema" or durability is None:
            ours[name] = value
    if theirs:
        location += "?" + urlencode(theirs, quote_via=quote)
    try:
        options = conninfo_to_dict(location)
    except psycopg.Error:
        # Without the cause: libpq's text quotes what it could not read, and that may be a password.
        raise ValueError(
            "this is no PostgreSQL URL (not shown: it may hold a password); write"
            " postgresql://user:password@host:5432/database, with %40 for @ in a password"
        ) from None
    for port in filter(None, str(options.get("port") or "").split(",")):
        if not port.isdecimal():
            raise ValueError("the port of a PostgreSQL URL is a number (the URL is not shown)")
    schema = ours["schema"]
    if not _SCHEMA.fullmatch(schema):
        raise ValueError(f"a schema is named in a-z, 0-9 and _, up to 48 of them, not {schema!r}")
    kept: str = ours["durability"]
    if not _is_durability(kept):
        raise ValueError(f"durability is 'power' or 'process', not {kept!r}")
    conninfo = make_conninfo("", **{**_DEFAULTS, **options})
    return Place(_shown(options, schema), conninfo, schema, lock_timeout), kept


def _is_durability(word: str) -> TypeGuard[Durability]:
    return word in ("power", "process")


def _shown(options: dict[str, Any], schema: str) -> str:
    """The URL without what is secret."""
    user, database = options.get("user"), options.get("dbname", "")
    hosts = str(options.get("host") or options.get("hostaddr") or "").split(",")
    ports = str(options.get("port") or "").split(",")
    query = {} if schema == "stepwell" else {"schema": schema}
    if hosts[0].startswith("/"):  # the directory of a socket
        query["host"] = ",".join(hosts)
        hosts = [""]
    if len(ports) < len(hosts):
        ports = [ports[0]] * len(hosts)  # one for all of them
    named = ",".join(
        f"{host}:{port}" if port else host for host, port in zip(hosts, ports, strict=False)
    )
    where = f"{quote(str(user))}@" if user else ""
    ending = f"?{urlencode(query, safe='/,')}" if query else ""
    return f"postgresql://{where}{named}/{quote(str(database))}{ending}"
