"""What goes wrong with a server is said in the store's own errors; nothing is lost or repeated."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import cast

import pytest
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from tests.servers.redis import Proxy, RedisServer, redis
from tests.servers.redis import begin as begin_server

from stepwell.errors import (
    LeaseLost,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    StoreUnavailable,
    StoreVersionError,
)
from stepwell.stores.base import RunFilter
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
from stepwell.stores.redis import RedisStore, jobs
from stepwell.stores.redis.errors import translate
from stepwell.stores.redis.line import Line
from stepwell.stores.redis.place import Survival, parse, survival
from stepwell.values import RunStatus

__all__ = ["redis"]


@pytest.fixture
def prefix() -> str:
    return f"t{uuid.uuid4().hex[:20]}"


@pytest.fixture
async def store(redis: RedisServer, prefix: str) -> AsyncIterator[RedisStore]:
    store = RedisStore(redis.url(prefix))
    await store.open()
    yield store
    assert await store.verify() == []
    await store.close()


@pytest.fixture
async def proxy(redis: RedisServer) -> AsyncIterator[Proxy]:
    async with Proxy(redis) as proxy:
        yield proxy


@pytest.fixture
async def behind(proxy: Proxy, prefix: str) -> AsyncIterator[RedisStore]:
    """A store behind the proxy."""
    store = RedisStore(proxy.url(prefix))
    await store.open()
    yield store
    assert await store.verify() == []
    await store.close()


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server that a test may break."""
    server = begin_server(appendfsync="always")
    yield server
    server.remove()


# A connection that breaks in the midst of a call -------------------------------------------------


async def test_a_call_of_long_ago_does_nothing(store: RedisStore, redis: RedisServer) -> None:
    """Bytes of a broken connection may reach the server after their repetition was answered."""
    await begin(store, "a", b"1")
    writer = store._write()
    late = writer._call(jobs.commit(turn("a", b"late")), writer.number - 1, 0)
    line = await writer._connected()
    (said,) = await line.call(late)
    assert isinstance(said, ResponseError)
    assert str(said).startswith("STEPWELLLATE")
    assert await journal(store, "a") == [(1, b"1")]


async def test_scripts_that_were_flushed_are_loaded_again(
    store: RedisStore, redis: RedisServer
) -> None:
    await begin(store, "a", b"1")
    await store.load("a")
    assert redis.say("SCRIPT FLUSH") == b"+OK\r\n"
    await store.commit(turn("a", b"2"))
    redis.say("SCRIPT FLUSH")
    loaded = await store.load("a")
    assert loaded is not None
    assert len(loaded.rows) == 2


# A server that is away, or lost something --------------------------------------------------------


async def test_a_store_lives_through_a_crash_of_its_server(own_server: RedisServer) -> None:
    store = RedisStore(own_server.url("p"))
    await store.open()
    await begin(store, "a", b"1")
    own_server.kill()
    with pytest.raises(StoreUnavailable):
        await store.get("a")
    waiting = asyncio.create_task(store.commit(turn("a", b"2")))
    await asyncio.wait((waiting,), timeout=0.1)
    await asyncio.to_thread(own_server.start)
    async with asyncio.timeout(PATIENCE):
        # It was on its way when the server died: sent again, or refused since it was never sent.
        try:
            await waiting
        except StoreUnavailable:
            await store.commit(turn("a", b"2"))
    assert await journal(store, "a") == [(1, b"1"), (2, b"2")]
    await store.close()


async def test_closing_while_the_server_is_away_ends(own_server: RedisServer) -> None:
    store = RedisStore(own_server.url("p"))
    await store.open()
    await begin(store, "a", b"1")
    own_server.kill()
    waiting = asyncio.create_task(store.commit(turn("a", b"2")))
    await asyncio.wait((waiting,), timeout=0.05)
    async with asyncio.timeout(PATIENCE):
        await store.close()
        with pytest.raises(StoreUnavailable):
            await waiting
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.get("a")


async def test_acknowledged_writes_that_are_gone_are_noticed(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """An older file takes the place of the server's, as after a crash that lost the last second."""
    store = RedisStore(own_server.url("p"))
    await store.open()
    await store.register(worker("w", 1000.0))
    await begin(store, "a", b"1")
    files = own_server.directory / "appendonlydir"
    shutil.copytree(files, own_server.directory / "older")
    await store.commit(turn("a", b"2"))
    await store.commit(turn("a", b"3"))
    own_server.kill()
    shutil.rmtree(files)
    shutil.move(own_server.directory / "older", files)
    await asyncio.to_thread(own_server.start)
    # "w" believes that row 3 is there: row 4 must not come after row 1.
    with caplog.at_level(logging.CRITICAL), pytest.raises(LeaseLost):
        await store.commit(turn("a", b"4"))
    assert "has lost writes that it had acknowledged" in caplog.text
    assert await journal(store, "a") == [(1, b"1")]
    assert await claimed(store, "w") == ["a"]
    assert await store.verify() == []
    await store.close()


async def test_a_claim_that_was_lost_is_worth_nothing_when_another_got_the_same(
    own_server: RedisServer,
) -> None:
    """Whoever detects the loss last must not commit with the fence that another has got since."""
    first, second = (RedisStore(own_server.url("p")) for _ in range(2))
    await first.open()
    await second.open()
    await first.create(new("a"))
    files = own_server.directory / "appendonlydir"
    shutil.copytree(files, own_server.directory / "older")
    assert await claimed(first, "w1") == ["a"]
    await first.commit(turn("a", b"lost", worker="w1"))
    own_server.kill()
    shutil.rmtree(files)
    shutil.move(own_server.directory / "older", files)
    await asyncio.to_thread(own_server.start)
    (row,) = await second.claim("w2", ["wf"], 100.0, 1)
    assert row.fence == 1  # as "w1" believes its own to be
    with pytest.raises(LeaseLost):
        await first.commit(turn("a", b"on top of what is missing", worker="w1"))
    with pytest.raises(LeaseLost):  # it has to claim anew, too
        await second.commit(turn("a", b"1", worker="w2"))
    (row,) = await second.claim("w2", ["wf"], 100.0, 1)
    await second.commit(turn("a", b"1", fence=row.fence, worker="w2"))
    assert await journal(second, "a") == [(1, b"1")]
    assert await second.verify() == []
    await first.close()
    await second.close()


async def test_fences_leap_past_those_that_were_lost(own_server: RedisServer) -> None:
    first, second = (RedisStore(own_server.url("p")) for _ in range(2))
    await first.open()
    await second.open()
    await first.create(new("a"))
    files = own_server.directory / "appendonlydir"
    shutil.copytree(files, own_server.directory / "older")
    for fence in (1, 2):
        assert await claimed(first, "w1") == ["a"]
        await first.commit(turn("a", fence=fence, worker="w1", release=True))
    assert await claimed(first, "w1") == ["a"]  # with fence 3
    own_server.kill()
    shutil.rmtree(files)
    shutil.move(own_server.directory / "older", files)
    await asyncio.to_thread(own_server.start)
    await first.create(new("b", workflow="other"))
    for _ in range(3):
        (row,) = await second.claim("w2", ["wf"], 100.0, 1)
        with pytest.raises(LeaseLost):
            await first.commit(turn("a", b"lost", fence=3, worker="w1"))
        await second.commit(turn("a", fence=row.fence, worker="w2", release=True))
    await first.close()
    await second.close()


async def test_a_loss_that_was_seen_to_is_not_seen_to_again(own_server: RedisServer) -> None:
    stores = [RedisStore(own_server.url("p")) for _ in range(3)]
    for store in stores:
        await store.open()
        await store.create(new(f"{id(store)}"))
    own_server.say("FLUSHALL")
    await stores[0].create(new("a"))
    (row,) = await stores[0].claim("w", ["wf"], 100.0, 1)
    for store in stores[1:]:
        await store.create(new(f"{id(store)}"))
    await stores[0].commit(turn("a", b"1", fence=row.fence))
    for store in stores:
        await store.close()


async def test_data_that_was_removed_under_a_store_is_noticed(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    store = RedisStore(own_server.url("p"))
    await store.open()
    await begin(store, "a", b"1")
    own_server.say("FLUSHALL")
    with caplog.at_level(logging.CRITICAL), pytest.raises(LeaseLost):
        await store.commit(turn("a", b"2"))
    assert "has lost writes" in caplog.text
    assert await store.create(new("b")) == "b"
    await store.close()


async def test_a_server_without_memory_refuses_whole_commits_and_deletes_runs(
    own_server: RedisServer,
) -> None:
    store = RedisStore(own_server.url("p"))
    await store.open()
    await begin(store, "a", b"1")
    await begin(store, "b", b"1", status=RunStatus.FAILED, due=None, release=True)
    assert own_server.say("CONFIG SET maxmemory 1") == b"+OK\r\n"
    with pytest.raises(StoreFull):
        await store.commit(turn("a", b"2", consumed=(), children=[new("child")]))
    assert await journal(store, "a") == [(1, b"1")]
    assert await store.get("child") is None
    assert await store.delete(["b"]) == 1
    again = RedisStore(own_server.url("p"))
    await again.open()
    await again.close()
    own_server.say("CONFIG SET maxmemory 0")
    await store.commit(turn("a", b"2"))
    assert await journal(store, "a") == [(1, b"1"), (2, b"2")]
    assert await store.verify() == []
    await store.close()


async def test_a_replica_is_read_only(own_server: RedisServer) -> None:
    store = RedisStore(own_server.url("p"))
    await store.open()
    await begin(store, "a", b"1")
    own_server.say("CONFIG SET replica-serve-stale-data yes")
    own_server.say("REPLICAOF 127.0.0.1 1")
    with pytest.raises(StoreReadOnly):
        await store.commit(turn("a", b"2"))
    assert await journal(store, "a") == [(1, b"1")]
    own_server.say("REPLICAOF NO ONE")
    await store.commit(turn("a", b"2"))
    assert await journal(store, "a") == [(1, b"1"), (2, b"2")]
    await store.close()


# Opening -----------------------------------------------------------------------------------------


async def test_a_password_is_needed_and_never_shown(own_server: RedisServer) -> None:
    own_server.say("CONFIG SET requirepass s3cr3t")
    for user in ("", "default:wr0ng@"):
        store = RedisStore(own_server.url("p").replace("redis://", f"redis://{user}"))
        with pytest.raises(StoreUnavailable) as raised:
            await store.open()
        assert "wr0ng" not in f"{raised.value}{store.url}{store!r}{raised.value.__cause__}"
        assert raised.value.hint
    url = own_server.url("p").replace("redis://", "redis://default:s3cr3t@")
    store = RedisStore(url)
    await store.open()
    assert "s3cr3t" not in f"{store.url}{store._place!r}"
    assert store.url.startswith("redis://default@/")
    await store.close()


async def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    store = RedisStore(f"redis:///0?socket={tmp_path}/none")
    with pytest.raises(StoreUnavailable):
        await store.open()
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.create(new("a"))
    await store.close()


async def test_a_newer_release_left_its_data_alone(redis: RedisServer, prefix: str) -> None:
    redis.say(f"SET {{{prefix}}}:schema 2")
    with pytest.raises(StoreVersionError):
        await RedisStore(redis.url(prefix)).open()
    assert redis.say(f"GET {{{prefix}}}:schema") == b"$1\r\n2\r\n"


async def test_keys_of_something_else_are_not_written_over(
    store: RedisStore, redis: RedisServer, prefix: str
) -> None:
    redis.say(f"SET {{{prefix}}}:run:a theirs")
    with pytest.raises(StoreCorrupt, match="WRONGTYPE"):
        await store.get("a")
    with pytest.raises(StoreError):
        await store.commit(turn("a", b"1"))


async def test_waitaof_needs_a_server_that_has_it(redis: RedisServer, prefix: str) -> None:
    store = RedisStore(redis.url(prefix) + "&waitaof=1")
    version = redis.say("INFO server").decode().partition("redis_version:")[2].split(".")
    if (int(version[0]), int(version[1])) < (7, 2):
        with pytest.raises(StoreError, match="no WAITAOF"):
            await store.open()
        return
    await store.open()
    assert store.durability == "power"
    await begin(store, "a", b"1")
    assert await journal(store, "a") == [(1, b"1")]
    await store.close()


class WaitsForDisk:
    """A line whose server is 7.2: says what it was asked to say, and keeps what it was asked."""

    def __init__(self, *replies: object, fsync: str = "everysec") -> None:
        self.asked: list[tuple[str, ...]] = []
        self._replies = iter(replies)
        self._fsync = fsync

    async def survey(self) -> Survival:
        if self._fsync == "no":
            raise StoreError("WAITAOF would wait for ever")
        return survival({"appendonly": "yes", "appendfsync": self._fsync}, None, True)

    async def call(self, *commands: tuple[str, ...]) -> list[object]:
        self.asked += commands
        return [1, next(self._replies)]


async def test_each_group_waits_until_it_is_on_the_disk(store: RedisStore) -> None:
    writer = store._write()
    line = WaitsForDisk([0, 0], [0, 1], [1, 0])
    await writer._sync(cast(Line, line))
    # A write comes first each time: WAITAOF waits for what this very connection has written.
    assert [command[0] for command in line.asked] == ["HSET", "WAITAOF"] * 3
    assert {command[1:3] for command in line.asked[1::2]} == {("1", "0")}
    refused = WaitsForDisk(ResponseError("ERR WAITAOF cannot be used when appendonly is disabled"))
    with pytest.raises(StoreError, match="appendonly is disabled"):
        await writer._sync(cast(Line, refused))


async def test_a_server_that_never_syncs_is_not_waited_for(
    redis: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing would ever be acknowledged, without a word (seen with Valkey 8.0)."""
    monkeypatch.setattr("stepwell.stores.redis.line.WAITAOF_SINCE", (7, 0))
    redis.say("CONFIG SET appendfsync no")
    try:
        store = RedisStore(redis.url(prefix) + "&waitaof=1")
        with pytest.raises(StoreError, match=r"appendfsync no.*WAITAOF would wait for ever"):
            await store.open()
    finally:
        redis.say("CONFIG SET appendfsync everysec")


async def test_a_server_that_syncs_no_more_is_noticed_by_who_waits(
    store: RedisStore, caplog: pytest.LogCaptureFixture
) -> None:
    writer = store._write()
    line = WaitsForDisk([0, 0], fsync="no")
    with pytest.raises(StoreError, match="WAITAOF would wait for ever"):
        await writer._sync(cast(Line, line))
    caplog.clear()
    slow = WaitsForDisk(*[[0, 0]] * 5, [1, 0])
    await writer._sync(cast(Line, slow))
    said = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert said == [f"{store.url} has not synced its file for 2 s; its writers wait for it"]


async def test_what_was_kept_and_not_synced_is_kept_once(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that failed would be made again by its engine: it was kept, so it must not fail."""
    writer = store._write()
    refusals = 2

    async def sync(line: Line) -> None:
        nonlocal refusals
        refusals -= 1
        if refusals >= 0:
            raise StoreError("WAITAOF cannot be used when appendonly is disabled")

    await begin(store, "a", b"1")
    monkeypatch.setattr(writer, "_place", dataclasses.replace(writer._place, waitaof=True))
    monkeypatch.setattr(writer, "_sync", sync)
    await store.commit(turn("a", b"2"))
    assert refusals == -1
    assert await journal(store, "a") == [(1, b"1"), (2, b"2")]


@pytest.mark.parametrize(
    "settings, durability, level",
    [
        ({"appendfsync": "always"}, "power", "INFO"),
        ({"appendfsync": "everysec"}, "process", "INFO"),
        ({"appendonly": "no", "save": "60 1"}, "none", "WARNING"),
        ({"appendfsync": "always", "maxmemory-policy": "allkeys-lru"}, "none", "WARNING"),
    ],
)
async def test_what_a_server_survives_is_said(
    settings: dict[str, str], durability: str, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = begin_server(**settings)
    try:
        store = RedisStore(server.url("p"))
        with caplog.at_level(logging.INFO, "stepwell"):
            await store.open()
        assert store.durability == durability
        assert store.supports("persistent") == (durability != "none")
        (record,) = [each for each in caplog.records if "survives" in each.message]
        assert (record.levelname, f"survives: {durability}" in record.message) == (level, True)
        await store.close()
        assert store.durability == durability
    finally:
        server.remove()


async def test_a_managed_server_that_forbids_config_is_used_all_the_same(
    own_server: RedisServer,
) -> None:
    own_server.say("ACL SETUSER app on >pw ~* &* +@all -config")
    store = RedisStore(own_server.url("p").replace("redis://", "redis://app:pw@"))
    await store.open()
    assert store.durability == "process"  # it has a file; how it is synced is not known
    await begin(store, "a", b"1")
    await store.close()


@pytest.mark.parametrize(
    "config, aof, waitaof, durability",
    [
        ({}, None, False, "none"),
        ({}, False, True, "none"),
        ({}, True, True, "power"),
        ({"appendonly": "yes", "appendfsync": "no"}, None, False, "process"),
        ({"appendonly": "no", "appendfsync": "always"}, True, False, "none"),
    ],
)
def test_nothing_is_promised_that_was_not_said(
    config: dict[str, str], aof: bool | None, waitaof: bool, durability: str
) -> None:
    assert survival(config, aof, waitaof).durability == durability


# Errors and URLs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error, kind",
    [
        (RedisConnectionError("gone"), StoreUnavailable),
        (ConnectionRefusedError(111, "refused"), StoreUnavailable),
        (TimeoutError(), StoreUnavailable),
        (OutOfMemoryError("command not allowed"), StoreFull),
        (ResponseError("OOM command not allowed when used memory > 'maxmemory'."), StoreFull),
        (ResponseError("MISCONF Errors writing to the AOF file: No space left"), StoreFull),
        (ResponseError("MISCONF Redis is configured to save RDB snapshots"), StoreUnavailable),
        (ReadOnlyError("You can't write against a read only replica."), StoreReadOnly),
        (NoPermissionError("no permissions"), StoreReadOnly),
        (ResponseError("LOADING Redis is loading the dataset in memory"), StoreUnavailable),
        (ResponseError("MOVED 1234 10.0.0.7:6379"), StoreUnavailable),
        (ResponseError("BUSY Redis is busy running a script."), StoreLocked),
        (ResponseError("WRONGTYPE Operation against a key"), StoreCorrupt),
        (ResponseError("ERR something new"), StoreError),
    ],
)
def test_every_error_of_redis_is_one_of_the_store(error: Exception, kind: type) -> None:
    said = translate(error, "redis://host")
    assert type(said) is kind
    assert "redis://host" in said.message
    assert said.hint


@pytest.mark.parametrize(
    "url, says",
    [
        ("http://host", "needs a URL"),
        ("redis://host/name", "number"),
        ("redis://me:s3cr3t@host:port/0", "no valid port"),
        ("redis://me:s3/cr3t@host", "no valid port"),
        ("redis://host?prefix=a{b}", "braces"),
        ("redis://host?speed=high", "speed is no option"),
        ("redis://host?ssl_ca_certs=x", "ssl_ca_certs is no option"),
        ("redis://host?waitaof=perhaps", "0 or 1"),
        ("redis://host?socket=/run/s", "stands for host"),
    ],
)
def test_a_wrong_url_is_told_what_is_right(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as raised:
        RedisStore(url)
    assert "cr3t" not in str(raised.value)


def test_a_url_may_ask_for_tls() -> None:
    place = parse("rediss://db:6380/3?ssl_ca_certs=/ca.pem&ssl_check_hostname=1")
    assert place.tls
    assert place.arguments["ssl_ca_certs"] == "/ca.pem"
    assert place.arguments["ssl_check_hostname"] is True
    assert (place.arguments["host"], place.arguments["port"], place.arguments["db"]) == (
        "db",
        6380,
        3,
    )


def test_read_connections_are_one_or_more() -> None:
    with pytest.raises(ValueError, match="1 or more"):
        RedisStore("redis://host", read_connections=0)


# Sharing -----------------------------------------------------------------------------------------


async def test_prefixes_do_not_see_each_other(store: RedisStore, redis: RedisServer) -> None:
    await begin(store, "a", b"1", key="k")
    other = RedisStore(redis.url(f"t{uuid.uuid4().hex[:20]}"))
    await other.open()
    assert await other.get("a") is None
    assert (await other.list(RunFilter())).rows == []
    assert await other.counts() == {}
    await other.close()


async def test_every_key_has_the_same_hash_tag(own_server: RedisServer) -> None:
    store = RedisStore(own_server.url("p"))
    await store.open()
    await store.register(worker("w", 1000.0))
    await begin(store, "a", b"1", key="k", waits=("x",), parent="p", blobs={"d": b"1"})
    await store.send([message("a", dedupe="x")])
    keys = own_server.say("KEYS *").decode().split("\r\n")[2::2]
    assert len(keys) > 15
    assert [key for key in keys if not key.startswith("{p}")] == []
    await store.commit(turn("a", status=RunStatus.FAILED, due=None, release=True))
    await store.unregister("w")
    await store.delete(["a"])
    await store.close()
    left = own_server.say("KEYS *").decode().split("\r\n")[2::2]
    assert sorted(left) == ["{p}:number", "{p}:schema"]


async def test_a_long_listing_is_looked_at_in_pieces(store: RedisStore) -> None:
    for n in range(0, 4500, 500):
        runs = (
            new(f"r{i}", at=float(i // 3), parent="p" if i % 1000 == 0 else "q", correlation="c")
            for i in range(n, n + 500)
        )
        await asyncio.gather(*(store.create(run) for run in runs))
    page = await store.list(RunFilter(parent="q", correlation="c", since=0.0, limit=4000))
    assert len(page.rows) == 4000
    rest = await store.list(RunFilter(parent="q", correlation="c", limit=4000, after=page.cursor))
    found = [row.id for row in (*page.rows, *rest.rows)]
    wanted = sorted(((i // 3, f"r{i}") for i in range(4500) if i % 1000 != 0), reverse=True)
    assert found == [id for _, id in wanted]
    assert rest.cursor is None
    few = await store.list(RunFilter(parent="p", correlation="c"))
    assert [row.id for row in few.rows] == ["r4000", "r3000", "r2000", "r1000", "r0"]


async def test_a_cursor_outlives_its_run(store: RedisStore) -> None:
    for n in range(6):
        await begin(store, f"r{n}", status=RunStatus.FAILED, due=None)
    page = await store.list(RunFilter(limit=3))
    await store.delete(["r3"])
    rest = await store.list(RunFilter(limit=3, after=page.cursor))
    assert [row.id for row in rest.rows] == ["r2", "r1", "r0"]


async def test_verify_finds_what_is_wrong(redis: RedisServer, prefix: str) -> None:
    store = RedisStore(redis.url(prefix))
    await store.open()
    await begin(store, "a", b"1", release=True, waits=("x",))
    tag = f"{{{prefix}}}"
    for harm, says in (
        (f"RPUSH {tag}:journal:a x", "it has 2"),
        (f"ZREM {tag}:status:running a", "runs that are running"),
        (f"ZREM {tag}:waiting:x a", "wait for x"),
        (f"DEL {tag}:lane:0::wf:0", "nobody can claim it"),
        (f"HSET {tag}:run:a ended 1", "does not fit the end"),
    ):
        before = await store.verify()
        assert redis.say(harm) != b""
        (fault,) = [each for each in await store.verify() if each not in before]
        assert says in fault
    redis.say(f"DEL {tag}:run:a")
    assert await store.verify() == ["run a: it is listed and not there"]
    await store.close()


async def test_another_loop_is_refused(store: RedisStore) -> None:
    def elsewhere() -> None:
        with pytest.raises(StoreError, match="another event loop"):
            asyncio.run(store.get("a"))  # type: ignore[arg-type]

    await asyncio.to_thread(elsewhere)
