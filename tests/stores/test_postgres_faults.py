"""What goes wrong with a server is said in the store's own errors; nothing is lost, or done twice.

Loops that sleep wait for other threads and for the server, which tell no event.
"""
# ruff: noqa: ASYNC110

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from psycopg.errors import lookup
from psycopg.sql import SQL, Identifier
from tests.servers.postgres import PostgresServer, Proxy, postgres, told
from tests.servers.postgres import begin as begin_server

from stepwell import Engine, StartEvent, StopEvent, Workflow, step
from stepwell.errors import (
    LeaseLost,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    StoreUnavailable,
)
from stepwell.stores import verbs
from stepwell.stores.base import Commit, RunFilter
from stepwell.stores.conformance import (
    PATIENCE,
    begin,
    claimed,
    journal,
    message,
    new,
    turn,
    worker,
)
from stepwell.stores.digests import digest_of
from stepwell.stores.postgres import PostgresStore
from stepwell.stores.postgres.errors import translate
from stepwell.values import RunStatus

__all__ = ["postgres"]

MIB = 1024 * 1024


@pytest.fixture
def schema() -> str:
    return f"t{uuid.uuid4().hex[:20]}"


@pytest.fixture
def url(postgres: PostgresServer, schema: str) -> str:
    return postgres.url(schema)


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url, lock_timeout=0.2)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[Proxy]:
    proxy = Proxy(postgres)
    yield proxy
    proxy.close()


@pytest.fixture
async def behind(proxy: Proxy, schema: str) -> AsyncIterator[PostgresStore]:
    """A store behind the proxy."""
    store = PostgresStore(proxy.url(schema))
    await store.open()
    yield store
    assert await store.verify() == []
    await store.close()


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A server that these tests may stop."""
    server = begin_server()
    yield server
    server.remove()


async def lose(proxy: Proxy, store: PostgresStore, what: str) -> None:
    """Lose the next write's request or answer, and not those of a notification before it."""
    await told(store)
    proxy.lose = what


# A connection that breaks in the midst of a write ------------------------------------------------


@pytest.mark.parametrize("what", ["answer", "request"])
@pytest.mark.parametrize("after", [0, 2, 7])
async def test_a_big_commit_that_breaks_off_is_kept_once(
    behind: PostgresStore, proxy: Proxy, what: str, after: int
) -> None:
    """It is sent in pieces; the line breaks at the first of them, later on, or at the end."""
    await begin(behind, "a", b"1")
    data, text = os.urandom(2 * MIB), b'"' + "\u00e9".encode() * MIB + b'"'
    digest = digest_of(data)
    await told(behind)
    proxy.skip, proxy.lose = after, what
    await behind.commit(turn("a", text, b"3", blobs={digest: data, digest_of(b"x"): b"x"}))
    assert proxy.lose is None
    assert await journal(behind, "a") == [(1, b"1"), (2, text), (3, b"3")]
    assert await behind.blob(digest) == data
    assert await behind.blob(digest_of(b"x")) == b"x"


async def test_a_role_without_temporary_tables_sends_big_payloads_whole(
    postgres: PostgresServer, schema: str
) -> None:
    role = f"r{uuid.uuid4().hex[:20]}"
    with psycopg.connect(postgres.url(), autocommit=True) as db:
        db.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(role)))
        name = Identifier(schema)
        db.execute(SQL("CREATE DATABASE {} OWNER {}").format(name, Identifier(role)))
        db.execute(SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC").format(name))
        db.execute(SQL("REVOKE TEMPORARY ON DATABASE {} FROM {}").format(name, Identifier(role)))
    url = postgres.url(schema).replace("tests@/postgres", f"{role}@/{schema}")
    store = PostgresStore(url)
    await store.open()
    data = os.urandom(2 * MIB)
    for run in ("a", "b"):
        await begin(store, run, b"1", blobs={digest_of(data): data})
    assert await store.blob(digest_of(data)) == data
    assert store._write()._in_pieces is False
    await store.close()


async def test_a_hundred_commits_through_a_bad_line_are_kept_once(
    behind: PostgresStore, proxy: Proxy
) -> None:
    async def live(run: str) -> None:
        await begin(behind, run, b"1")
        for n in range(2, 6):
            await behind.commit(turn(run, str(n).encode()))

    async def go_bad() -> None:
        for n in range(6):
            proxy.lose = ("answer", "request")[n % 2]
            while proxy.lose is not None:
                await asyncio.sleep(0.002)
            # A line that is lost while it is made anew is a server that is away, and said to be.
            assert await behind.claim("nobody", [], 0.0, 0) == []

    losing = asyncio.create_task(go_bad())
    await asyncio.gather(*(live(f"run{n}") for n in range(25)))
    losing.cancel()
    proxy.lose = None
    assert proxy.lost > 2
    for n in range(25):
        assert await journal(behind, f"run{n}") == [(i, str(i).encode()) for i in range(1, 6)]


async def test_a_group_that_is_still_at_work_is_not_done_again(
    behind: PostgresStore, proxy: Proxy, postgres: PostgresServer, schema: str
) -> None:
    await begin(behind, "a", b"1")
    with psycopg.connect(f"{postgres.url()}&options=-csearch_path%3D{schema}") as other:
        other.execute("SELECT 1 FROM runs WHERE id = 'a' FOR UPDATE")
        committing = asyncio.create_task(behind.commit(turn("a", b"2")))
        waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'write_'"
        while not postgres.sql(schema, waits):
            await asyncio.sleep(0.01)
        proxy.cut()
        await asyncio.sleep(0.1)  # it has come back and asks again, while the first still waits
        assert not committing.done()
        other.rollback()
    assert await committing == "a"
    assert await journal(behind, "a") == [(1, b"1"), (2, b"2")]


async def test_who_waits_for_an_answer_waits_for_the_server_and_others_are_told(
    behind: PostgresStore, proxy: Proxy
) -> None:
    await begin(behind, "a", b"1")
    proxy.refusing = True
    await lose(proxy, behind, "answer")
    committing = asyncio.create_task(behind.commit(turn("a", b"2")))
    async with asyncio.timeout(PATIENCE):
        while proxy.lose is not None:
            await asyncio.sleep(0.01)
        with pytest.raises(StoreUnavailable):
            await behind.create(new("b"))
    assert not committing.done()
    proxy.refusing = False
    async with asyncio.timeout(PATIENCE):
        assert await committing == "a"
    assert await journal(behind, "a") == [(1, b"1"), (2, b"2")]
    assert await behind.get("b") is None


async def test_who_sends_is_told_in_time_that_nobody_knows(
    behind: PostgresStore, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(behind, "a", b"1")
    monkeypatch.setattr(verbs, "PATIENCE", 0.1)
    await told(behind)
    proxy.refusing = True
    proxy.lose = "answer"
    with pytest.raises(StoreUnavailable, match=r"did not say within 0\.1 s"):
        await behind.send([message("a", b"2")])
    monkeypatch.undo()
    proxy.refusing = False
    async with asyncio.timeout(PATIENCE):
        while not (found := await behind.messages("a")):
            await asyncio.sleep(0.01)
    assert [one.data for one in found] == [b"2"]


class Greet(Workflow):
    @step
    async def greet(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result="hello")


async def test_a_start_that_is_never_answered_ends_in_time_and_is_not_repeated(
    proxy: Proxy, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = Greet(timeout=None)
    store = PostgresStore(proxy.url(schema))
    commit = store.commit

    async def commit_and_hear_nothing(turn: Commit) -> str:
        if turn.run == first.run_id:  # it may have something to say behind its end
            return await commit(turn)
        await told(store)
        proxy.refusing = True
        proxy.lose = "answer"
        return await commit(turn)

    async with Engine(store, [flow], lease=0.5, poll=1000.0) as engine, asyncio.timeout(PATIENCE):
        first = await engine.start(flow)
        assert await first == "hello"
        (name,) = engine.workflows
        monkeypatch.setattr(store, "commit", commit_and_hear_nothing)
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match=r"not said within 1 s whether run"):
            await engine.start(flow, key="k")
        assert time.monotonic() - began > 0.9
        monkeypatch.undo()
        proxy.refusing = False
        while (found := await store.find(name, "k")) is None:
            await asyncio.sleep(0.01)
        again = await engine.start(flow, key="k")
        assert again.run_id == found
        assert await again == "hello"
        assert len((await engine.list())[0]) == 2


async def test_closing_gives_up_what_can_not_be_learned(proxy: Proxy, schema: str) -> None:
    store = PostgresStore(proxy.url(schema))
    await store.open()
    await begin(store, "a", b"1")
    proxy.refusing = True
    await lose(proxy, store, "request")
    committing = asyncio.create_task(store.commit(turn("a", b"2")))
    while proxy.lose is not None:
        await asyncio.sleep(0.01)
    async with asyncio.timeout(PATIENCE):
        await store.close()
        with pytest.raises(StoreUnavailable, match="not known"):
            await committing


async def test_a_server_that_lost_what_it_acknowledged_is_noticed(
    store: PostgresStore, postgres: PostgresServer, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    await store.register(worker("w", 1000.0))
    await begin(store, "a", b"1")
    await begin(store, "b", b"1")
    await store.commit(turn("a", b"2"))
    # As after a crash with synchronous_commit = off: the last transaction is not there.
    postgres.sql(schema, "DELETE FROM journal WHERE seq = 2")
    postgres.sql(schema, "UPDATE runs SET seq = 1 WHERE id = 'a'")
    postgres.sql(schema, "UPDATE writers SET number = number - 1")
    await break_connections(store, postgres)
    for run in ("a", "b"):
        with pytest.raises(LeaseLost):
            await store.commit(turn(run, b"3"))
    assert "lost writes that it had acknowledged" in caplog.text
    assert sorted(await claimed(store, "w")) == ["a", "b"]
    await store.commit(turn("a", b"2 again", fence=2))
    assert await journal(store, "a") == [(1, b"1"), (2, b"2 again")]


async def break_connections(store: PostgresStore, server: PostgresServer) -> None:
    """What pg_terminate_backend does to the writing connection."""
    pid = store._write().pid
    with psycopg.connect(server.url(), autocommit=True) as db:
        db.execute("SELECT pg_terminate_backend(%s)", (pid,))
        while db.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchall():
            await asyncio.sleep(0.01)


async def test_a_store_whose_place_was_cleaned_up_takes_a_new_one(
    store: PostgresStore, postgres: PostgresServer, schema: str
) -> None:
    await store.create(new("a"))
    postgres.sql(schema, "DELETE FROM writers")
    with pytest.raises(StoreError, match="does not follow"):
        await store.create(new("b"))
    assert await store.create(new("c")) == "c"
    assert await store.get("b") is None


async def test_a_terminated_connection_is_not_noticed_by_anyone(
    store: PostgresStore, postgres: PostgresServer
) -> None:
    await begin(store, "a", b"1")
    for n in range(2, 5):
        await break_connections(store, postgres)
        await store.commit(turn("a", str(n).encode()))
    assert await journal(store, "a") == [(n, str(n).encode()) for n in range(1, 5)]


# A server that goes away and comes back ---------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
async def test_a_server_that_is_started_again_is_used_again(
    own_server: PostgresServer, how: signal.Signals
) -> None:
    url = own_server.url(f"t{uuid.uuid4().hex[:20]}")
    store, other = PostgresStore(url), PostgresStore(url)
    await store.open()
    await other.open()
    await begin(store, "a", b"1")
    assert await store.get("a") is not None
    await store.changed(0)
    own_server.stop(how)
    with pytest.raises(StoreUnavailable) as raised:
        await store.get("a")
    assert raised.value.hint
    own_server.start()
    await store.commit(turn("a", b"2"))
    assert len(await journal(store, "a")) == 2
    assert await store.get("a") is not None
    await store.changed(0)
    async with asyncio.timeout(PATIENCE):
        for n in range(5):  # it listens again
            await other.create(new(f"news{n}"))
            await store.changed(1000.0)
    await store.close()
    await other.close()


async def test_a_call_while_the_server_is_away_says_so(own_server: PostgresServer) -> None:
    store = PostgresStore(own_server.url(f"t{uuid.uuid4().hex[:20]}"))
    await store.open()
    await begin(store, "a", b"1")
    await told(store)
    own_server.stop()
    try:
        # The first finds out; whether it was kept can't be known before the server is back.
        first = asyncio.create_task(store.commit(turn("a", b"2")))
        await asyncio.sleep(0.05)
        for call in (store.create(new("b")), store.get("a"), store.list(RunFilter())):
            with pytest.raises(StoreUnavailable):
                async with asyncio.timeout(PATIENCE):
                    await call
        again = PostgresStore(own_server.url("never"))
        with pytest.raises(StoreUnavailable):
            await again.open()
        await again.close()
    finally:
        own_server.start()
    async with asyncio.timeout(PATIENCE):
        await first
    assert await journal(store, "a") == [(1, b"1"), (2, b"2")]
    await store.close()


# Other processes ----------------------------------------------------------------------------------


async def test_the_last_word_of_a_store_that_is_closed_is_heard(
    store: PostgresStore, url: str
) -> None:
    await store.changed(0)
    for n in range(10):
        other = PostgresStore(url)
        await other.open()
        await other.create(new(f"first{n}"))
        await store.changed(PATIENCE)
        await other.create(new(f"second{n}"))
        await other.close()
        async with asyncio.timeout(PATIENCE):
            await store.changed(PATIENCE * 10)


async def test_our_own_notifications_wake_nobody(store: PostgresStore) -> None:
    await store.changed(0)
    await begin(store, "a", b"1")
    await store.changed(0)
    began = time.monotonic()
    await store.changed(0.2)
    assert time.monotonic() - began >= 0.19


async def test_a_new_schema_may_be_opened_by_many_at_once(url: str) -> None:
    stores = [PostgresStore(url) for _ in range(6)]
    await asyncio.gather(*(store.open() for store in stores))
    await asyncio.gather(*(store.create(new(f"run{n}")) for n, store in enumerate(stores)))
    assert len((await stores[0].list(RunFilter())).rows) == 6
    await asyncio.gather(*(store.close() for store in stores))


async def test_two_stores_that_write_to_each_others_runs_do_not_hold_each_other_up(
    store: PostgresStore, url: str
) -> None:
    other = PostgresStore(url)
    await other.open()
    runs = [f"run{n}" for n in range(8)]
    for run in runs:
        await begin(store, run)

    async def write(one: PostgresStore, order: list[str]) -> None:
        for n in range(20):
            await asyncio.gather(*(one.send([message(run, str(n).encode())]) for run in order))

    await asyncio.gather(write(store, runs), write(other, runs[::-1]))
    for run in runs:
        found = await store.messages(run)
        assert len(found) == 40
        assert [m.id for m in found] == sorted(m.id for m in found)
    await other.close()


async def test_many_claim_at_once_and_each_run_is_had_by_one(
    store: PostgresStore, url: str
) -> None:
    stores = [PostgresStore(url) for _ in range(4)]
    await asyncio.gather(*(one.open() for one in stores))
    for n in range(200):
        await store.create(new(f"run{n}", priority=n % 3))
    for n in range(4):
        await store.register(worker(f"w{n}", 1000.0))

    async def work(n: int) -> list[str]:
        got: list[str] = []
        while mine := await claimed(stores[n], f"w{n}", limit=7):
            got += mine
        return got

    shares = await asyncio.gather(*map(work, range(4)))
    assert sorted(run for share in shares for run in share) == sorted(f"run{n}" for n in range(200))
    await asyncio.gather(*(one.close() for one in stores))


async def test_a_payload_shared_while_it_is_deleted_is_never_lost(
    store: PostgresStore, url: str
) -> None:
    other = PostgresStore(url)
    await other.open()
    data = b"shared" * 1000
    digest = digest_of(data)
    over = {"status": RunStatus.FAILED, "due": None}
    for n in range(30):
        await begin(store, f"old{n}", blobs={digest: data}, **over)
        await asyncio.gather(
            store.delete([f"old{n}"]), begin(other, f"new{n}", blobs={digest: data}, **over)
        )
        assert await store.blob(digest) == data
        await store.delete([f"new{n}"])
    assert await store.verify() == []
    await other.close()


# In use -------------------------------------------------------------------------------------------


async def test_a_locked_row_is_waited_for_and_then_refused(
    store: PostgresStore, postgres: PostgresServer, schema: str
) -> None:
    await begin(store, "a", b"1")
    with psycopg.connect(f"{postgres.url()}&options=-csearch_path%3D{schema}") as other:
        other.execute("SELECT 1 FROM runs WHERE id = 'a' FOR UPDATE")
        with pytest.raises(StoreLocked) as raised:
            await store.commit(turn("a", b"2"))
        assert raised.value.hint
        both = await asyncio.gather(
            store.commit(turn("a", b"2")), store.create(new("b")), return_exceptions=True
        )
        assert isinstance(both[0], StoreLocked)
        assert both[1] == "b"  # nobody suffers for another
        assert await journal(store, "a") == [(1, b"1")]
    await store.commit(turn("a", b"2"))
    assert await journal(store, "a") == [(1, b"1"), (2, b"2")]


async def test_a_server_that_became_read_only_is_said(
    own_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    store = PostgresStore(own_server.url(f"t{uuid.uuid4().hex[:20]}"))
    await store.open()
    await begin(store, "a", b"1")
    own_server.sql("public", "ALTER SYSTEM SET default_transaction_read_only = on")
    own_server.sql("public", "SELECT pg_reload_conf()")
    try:
        async with asyncio.timeout(PATIENCE):
            while True:  # until the settings have reached it
                try:
                    await store.register(worker("w", 1.0))
                except StoreReadOnly:
                    break
                await asyncio.sleep(0.02)
            assert await store.get("a") is not None
    finally:
        with psycopg.connect(own_server.url(), autocommit=True) as db:
            db.execute("SET default_transaction_read_only = off")
            db.execute("ALTER SYSTEM RESET default_transaction_read_only")
            db.execute("SELECT pg_reload_conf()")
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await store.commit(turn("a", b"2"))
            except StoreReadOnly:
                await asyncio.sleep(0.02)
            else:
                break
    assert len(await journal(store, "a")) == 2
    await store.close()


async def test_one_value_that_can_not_be_kept_harms_nobody_else(store: PostgresStore) -> None:
    bad = [b"\xff not text", b"nul \x00"]
    made = await asyncio.gather(
        *(begin(store, f"bad{n}", data) for n, data in enumerate(bad)),
        *(begin(store, f"good{n}", b"1") for n in range(3)),
        store.create(new("nul \x00 in its id")),
        return_exceptions=True,
    )
    assert [type(each) for each in made] == [StoreError] * 2 + [type(None)] * 3 + [StoreError]
    assert sorted(row.id for row in (await store.list(RunFilter())).rows) == [
        "good0",
        "good1",
        "good2",
    ]


@pytest.mark.parametrize(
    "state, kind",
    [
        ("08006", StoreUnavailable),
        ("25006", StoreReadOnly),
        ("28P01", StoreUnavailable),
        ("3D000", StoreUnavailable),
        ("40001", StoreLocked),
        ("40P01", StoreLocked),
        ("42501", StoreReadOnly),
        ("53100", StoreFull),
        ("53200", StoreUnavailable),
        ("53300", StoreUnavailable),
        ("55P03", StoreLocked),
        ("57014", StoreLocked),
        ("57P01", StoreUnavailable),
        ("57P02", StoreUnavailable),
        ("57P03", StoreUnavailable),
        ("58030", StoreUnavailable),
        ("58P01", StoreCorrupt),
        ("XX001", StoreCorrupt),
        ("XX002", StoreCorrupt),
        ("22021", StoreError),
        ("XX000", StoreError),
    ],
)
def test_every_state_has_its_meaning(state: str, kind: type[StoreError]) -> None:
    said = translate(lookup(state)("no luck"), "postgresql://db/runs")
    assert type(said) is kind
    assert "postgresql://db/runs" in said.message
    assert "no luck" in said.message
    assert said.hint


async def test_faults_are_found(
    store: PostgresStore, postgres: PostgresServer, schema: str
) -> None:
    digest = digest_of(b"big")
    await begin(store, "a", b"1", b"2", b"3", blobs={digest: b"big"}, waits=("approval",))
    await begin(store, "b", status=RunStatus.FAILED, due=None, release=True)
    assert await store.verify() == []
    for harm in (
        "DELETE FROM journal WHERE seq = 2",
        "INSERT INTO snapshots (run, seq, data) SELECT n, 99, '' FROM runs WHERE id = 'a'",
        "UPDATE runs SET ended = NULL WHERE id = 'b'",
        "UPDATE waits SET created = 5.0",
        "UPDATE blobs SET data = 'bog'",
        "INSERT INTO messages (run, kind, data, at) VALUES (999, 'signal', '', 0)",
        "INSERT INTO blobs (digest, size, data) VALUES ('lone', 0, '')",
        "INSERT INTO blob_refs (run, digest) SELECT n, 'lost' FROM runs WHERE id = 'a'",
    ):
        postgres.sql(schema, harm)
    faults = "\n".join(await store.verify())
    for word in (
        "run a: it should have 3 journal rows",
        "run a: its snapshot is of journal row 99",
        "run b: it is failed",
        "waiting for 'approval'",
        f"{digest} is not what was written",
        "messages: 1 row(s)",
        "refers to the payload lone",
        "payload lost is not there",
    ):
        assert word in faults, faults
    with pytest.raises(StoreCorrupt):
        await store.blob("lost")


async def test_a_server_without_fsync_is_said_to_survive_less(
    store: PostgresStore, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    assert store.durability == "process"
    with caplog.at_level(logging.WARNING):
        again = PostgresStore(url)
        await again.open()
        await again.close()
    assert "fsync = off" in caplog.text
