"""Which database a store is in, and what is said when it can't be used as one."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.errors import lookup
from psycopg.sql import SQL, Identifier
from tests.servers.needed import missing, program
from tests.servers.ports import free_port
from tests.servers.postgres import PATIENCE, PostgresServer, postgres, programs

from stepwell.errors import (
    StoreError,
    StoreReadOnly,
    StoreUnavailable,
    StoreVersionError,
)
from stepwell.stores.base import RunFilter
from stepwell.stores.conformance import begin, journal, new
from stepwell.stores.postgres import PostgresStore, place
from stepwell.stores.postgres.errors import translate
from stepwell.stores.postgres.place import MIGRATIONS

__all__ = ["postgres"]


@pytest.fixture
def schema() -> str:
    return f"t{uuid.uuid4().hex[:20]}"


@pytest.fixture
def url(postgres: PostgresServer, schema: str) -> str:
    return postgres.url(schema)


async def refuses_to_open(url: str, error: type[StoreError]) -> StoreError:
    store = PostgresStore(url, lock_timeout=0.2)
    with pytest.raises(error) as raised:
        await store.open()
    assert type(raised.value) is error
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.get("a")
    await store.close()
    assert raised.value.hint
    return raised.value


# Opening ------------------------------------------------------------------------------------------


async def test_a_database_that_is_not_there_is_said(postgres: PostgresServer) -> None:
    error = await refuses_to_open(
        f"postgresql://tests:hush@/nowhere?host={postgres.directory}", StoreUnavailable
    )
    assert "nowhere" in str(error)
    assert "createdb" in str(error)
    assert "hush" not in str(error)


async def test_a_server_that_is_not_there_is_said() -> None:
    error = await refuses_to_open("postgresql://me:hush@127.0.0.1:1/runs", StoreUnavailable)
    assert "127.0.0.1" in str(error)
    assert "hush" not in f"{error} {error!r} {error.__cause__}"


async def test_a_schema_of_a_newer_release_is_left_alone(
    url: str, postgres: PostgresServer, schema: str
) -> None:
    store = PostgresStore(url)
    await store.open()
    await store.close()
    postgres.sql(schema, "UPDATE meta SET value = '9999' WHERE key = 'schema'")
    error = await refuses_to_open(url, StoreVersionError)
    assert "9999" in str(error)
    assert postgres.sql(schema, "SELECT value FROM meta WHERE key = 'schema'") == [("9999",)]


async def test_a_schema_of_something_else_is_left_alone(
    url: str, postgres: PostgresServer, schema: str
) -> None:
    with psycopg.connect(postgres.url(), autocommit=True) as db:
        name = Identifier(schema)
        db.execute(SQL("CREATE SCHEMA {}").format(name))
        db.execute(SQL("CREATE TABLE {}.runs (km int)").format(name))
    error = await refuses_to_open(url, StoreError)
    assert "?schema=" in str(error)


async def test_a_migration_that_fails_leaves_nothing(
    url: str, postgres: PostgresServer, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stepwell.stores.migrate import Migration
    from stepwell.stores.postgres import place

    broken = (*MIGRATIONS, Migration(len(MIGRATIONS) + 1, "broken", "CREATE TABLE x (y nothing)"))
    monkeypatch.setattr(place, "MIGRATIONS", broken)
    await refuses_to_open(url, StoreError)
    monkeypatch.undo()
    assert (schema,) not in postgres.sql(schema, "SELECT nspname FROM pg_namespace")
    store = PostgresStore(url)
    await store.open()
    await store.create(new("a"))
    await store.close()


# Migrating ----------------------------------------------------------------------------------------


async def test_a_schema_of_an_older_release_may_be_opened_by_many_at_once(
    url: str, postgres: PostgresServer, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(place, "MIGRATIONS", MIGRATIONS[:1])
        with psycopg.connect(postgres.url(), autocommit=True) as db:
            db.execute(SQL("SET search_path = {}").format(Identifier(schema)))
            place.parse(url, None, 2.0)[0].migrate(db)
    assert postgres.sql(schema, "SELECT value FROM meta WHERE key = 'schema'") == [("1",)]
    stores = [PostgresStore(url) for _ in range(6)]
    await asyncio.gather(*(store.open() for store in stores))
    last = str(len(MIGRATIONS))
    assert postgres.sql(schema, "SELECT value FROM meta WHERE key = 'schema'") == [(last,)]
    await asyncio.gather(*(store.create(new(f"run{n}")) for n, store in enumerate(stores)))
    assert len((await stores[0].list(RunFilter())).rows) == 6
    await asyncio.gather(*(store.close() for store in stores))


# Roles --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "before, error",
    [
        ((), StoreReadOnly),
        (("CREATE SCHEMA {schema}",), StoreUnavailable),
        (("CREATE SCHEMA {schema}", "GRANT USAGE ON SCHEMA {schema} TO {role}"), StoreReadOnly),
        (("CREATE SCHEMA {schema} AUTHORIZATION {role}",), None),
        (("GRANT CREATE ON DATABASE postgres TO {role}",), None),
    ],
)
async def test_a_role_that_may_not_is_told_what_it_needs(
    url: str,
    postgres: PostgresServer,
    schema: str,
    before: tuple[str, ...],
    error: type[StoreError] | None,
) -> None:
    role = f"r{uuid.uuid4().hex[:20]}"
    with psycopg.connect(postgres.url(), autocommit=True) as db:
        for statement in (f"CREATE ROLE {role} LOGIN", *before):
            db.execute(statement.format(schema=schema, role=role).encode())
    url = url.replace("tests@", f"{role}@")
    if error is not None:
        assert "CREATE SCHEMA name AUTHORIZATION role" in (await refuses_to_open(url, error)).hint
        return
    store = PostgresStore(url)
    await store.open()
    await begin(store, "a", b"1")
    await store.close()


async def test_a_schema_that_another_role_made_is_refused_with_what_to_do(
    url: str, postgres: PostgresServer
) -> None:
    store = PostgresStore(url)
    await store.open()
    await store.close()
    role = f"r{uuid.uuid4().hex[:20]}"
    with psycopg.connect(postgres.url(), autocommit=True) as db:
        db.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(role)))
    error = await refuses_to_open(url.replace("tests@", f"{role}@"), StoreError)
    assert "CREATE SCHEMA name AUTHORIZATION role" in error.hint


async def test_a_server_that_is_too_old_is_refused(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "OLDEST", 990000)
    error = await refuses_to_open(url, StoreUnavailable)
    assert "is PostgreSQL" in str(error)
    assert "Use PostgreSQL 99 or later" in error.hint


# TLS ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate() -> Iterator[Path]:
    """A directory with a server's key and certificate, for localhost."""
    openssl = program("openssl")
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        subprocess.run(
            [
                *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj"),
                *("/CN=localhost", "-keyout", f"{name}/key", "-out", f"{name}/cert"),
            ],
            capture_output=True,
            check=True,
        )
        yield Path(name)


async def test_options_of_tls_are_passed_on(certificate: Path, schema: str) -> None:
    bin = programs()
    if bin is None:
        missing("postgresql")
    server = PostgresServer(bin)
    try:
        server.stop()
        for name in ("key", "cert"):
            server.own(Path(shutil.copy(certificate / name, server.directory / name)))
        (server.directory / "key").chmod(0o600)
        server.settings |= {
            "listen_addresses": "localhost",
            "port": str(port := free_port()),
            "ssl": "on",
            "ssl_key_file": str(server.directory / "key"),
            "ssl_cert_file": str(server.directory / "cert"),
        }
        server.start()
        options = f"schema={schema}&connect_timeout=100&sslmode=verify-full"
        url = f"postgresql://tests@localhost:{port}/postgres?{options}"
        store = PostgresStore(f"{url}&sslrootcert={certificate}/cert")
        await store.open()
        assert await store._read(lambda db: db.info.get_parameters()["sslmode"]) == "verify-full"
        assert await store._read(lambda db: db.pgconn.ssl_in_use)
        await begin(store, "a", b"1")
        assert await journal(store, "a") == [(1, b"1")]
        await store.close()
        # A certificate that nobody vouches for is not taken.
        error = await refuses_to_open(f"{url}&sslrootcert=/dev/null", StoreUnavailable)
        assert "certificate" in str(error)
    finally:
        server.remove()


# Poolers ------------------------------------------------------------------------------------------


@contextmanager
def pooler(server: PostgresServer, mode: str) -> Iterator[str]:
    """PgBouncer before a server: the URL of a database behind it."""
    pgbouncer = program("pgbouncer")
    directory = Path(tempfile.mkdtemp(prefix="stepwell-pool-", dir="/tmp"))
    server.own(directory)
    settings = directory / "ini"
    settings.write_text(
        f"[databases]\n* = host={server.directory} user=tests\n"
        f"[pgbouncer]\nunix_socket_dir = {directory}\nlisten_port = 5432\nlisten_addr =\n"
        f"auth_type = any\npool_mode = {mode}\n"
    )
    process = subprocess.Popen(
        [pgbouncer, "-q", str(settings)], user=server.user, stderr=subprocess.DEVNULL
    )
    try:
        while not (directory / ".s.PGSQL.5432").exists():
            assert process.poll() is None
        yield f"postgresql://tests@/postgres?host={directory}&connect_timeout=100"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(directory)


async def test_a_pooler_of_sessions_is_as_good_as_none(
    postgres: PostgresServer, schema: str
) -> None:
    with pooler(postgres, "session") as where:
        store, other = (PostgresStore(f"{where}&schema={schema}") for _ in range(2))
        await store.open()
        await other.open()
        await other.changed(0)
        await begin(store, "a", b"1")
        async with asyncio.timeout(PATIENCE):
            await other.changed(1000.0)  # heard of through the pooler
        assert await journal(other, "a") == [(1, b"1")]
        # Its own notifications are known although the pooler gives connections other numbers.
        assert store._write().pid in {
            pid for (pid,) in postgres.sql(schema, "SELECT pid FROM pg_stat_activity")
        }
        await store.close()
        await other.close()


@pytest.mark.parametrize("state", ["42P01", "42883", "26000"])
def test_a_pooler_that_hid_that_it_shares_sessions_is_named_later(state: str) -> None:
    """When it is busy, two connections are hardly ever given one session while they look: then a
    table, a function or a prepared statement is missing."""
    assert "session mode" in translate(lookup(state)("not there"), "postgresql://db").hint


@pytest.mark.parametrize("mode", ["transaction", "statement"])
async def test_a_pooler_that_shares_sessions_is_refused(
    postgres: PostgresServer, schema: str, mode: str
) -> None:
    with pooler(postgres, mode) as where:
        error = await refuses_to_open(f"{where}&schema={schema}", StoreUnavailable)
    assert "shares sessions among connections" in str(error)
    assert "pool_mode = session" in error.hint
