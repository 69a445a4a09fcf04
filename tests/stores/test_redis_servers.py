"""Kinds of servers that a Redis store may meet: changed settings, TLS, clusters, failovers."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers.needed import program
from tests.servers.ports import free_port
from tests.servers.redis import Proxy, RedisServer, begin, redis

from stepwell import Engine, StartEvent, StopEvent, Workflow, step
from stepwell.errors import LeaseLost, StoreError, StoreUnavailable
from stepwell.runtime import letting_go
from stepwell.stores import verbs as stores
from stepwell.stores.conformance import PATIENCE, claimed, journal, message, new, turn, worker
from stepwell.stores.conformance import begin as begin_run
from stepwell.stores.redis import RedisStore, line, writer

__all__ = ["redis"]


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server that a test may break."""
    server = begin(appendfsync="always")
    yield server
    server.remove()


# What its settings make of a write ---------------------------------------------------------------


@pytest.mark.parametrize(
    "change, durability, level",
    [
        ("appendfsync everysec", "process", "WARNING"),
        ("appendfsync no", "process", "WARNING"),
        ("no-appendfsync-on-rewrite yes", "process", "WARNING"),
        ("appendonly no", "none", "WARNING"),
        ("maxmemory-policy allkeys-lru", "none", "WARNING"),
        ("maxmemory-policy volatile-lru", "power", None),  # no key of ours ever expires
    ],
)
async def test_a_setting_that_is_changed_is_noticed(
    own_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    change: str,
    durability: str,
    level: str | None,
) -> None:
    """While the server runs, by the next look; at once by whoever connects."""
    store = RedisStore(own_server.url("p"))
    await store.open()
    assert store.durability == "power"
    caplog.set_level(logging.INFO, "stepwell")
    caplog.clear()
    assert own_server.say(f"CONFIG SET {change}") == b"+OK\r\n"
    await store.register(worker("w", 1000.0))
    assert (store.durability, caplog.records) == ("power", [])  # it is not asked all the time
    monkeypatch.setattr(writer, "_SURVEY_SECONDS", 0.0)
    await store.register(worker("w", 1000.0))
    said = [each for each in caplog.records if f"survives: {durability}" in each.message]
    assert [each.levelname for each in said] == ([] if level is None else [level])
    assert store.durability == durability
    assert store.supports("persistent") == (durability != "none")
    own_server.say("CONFIG SET appendonly yes")
    own_server.say("CONFIG SET appendfsync always")
    own_server.say("CONFIG SET no-appendfsync-on-rewrite no")
    own_server.say("CONFIG SET maxmemory-policy noeviction")
    await store.register(worker("w", 1000.0))
    assert store.durability == "power"
    await store.close()


async def test_an_engine_says_what_its_server_does_now(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that comes back with other settings is asked again."""
    async with Engine(RedisStore(own_server.url("p")), lease=60.0) as engine:
        assert engine.durability == "power"
        own_server.kill()
        own_server.settings["appendonly"] = "no"
        await asyncio.to_thread(own_server.start)
        with caplog.at_level(logging.WARNING, "stepwell"):
            assert await engine.store.send([]) == []
        assert "survives: none" in caplog.text
        assert engine.durability == "none"


async def test_a_broken_connection_is_not_taken_for_a_server_that_is_away(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_SURVEY_SECONDS", 0.0)
    async with Proxy(own_server) as proxy:
        store = RedisStore(proxy.url("p"))
        await store.open()
        for what in ("answer", "request"):
            proxy.lose = what
            assert await store.create(new(f"by {what}")) == f"by {what}"
        assert proxy.lost == 2
        await store.close()


# A replica that took its place -------------------------------------------------------------------


def offset(server: RedisServer) -> str:
    """Up to where a server has what there is."""
    said = server.say("INFO replication").decode()
    (line,) = [line for line in said.splitlines() if line.startswith("master_repl_offset")]
    return line


def until_in_step(primary: RedisServer, replica: RedisServer) -> None:
    deadline = time.monotonic() + PATIENCE
    while offset(primary) != offset(replica):
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


async def test_a_failover_that_lost_acknowledged_writes_is_noticed(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The replica got no more of the last writes than the network let through."""
    port = str(free_port())
    own_server.say(f"CONFIG SET port {port}")
    own_server.say("CONFIG SET repl-diskless-sync-delay 0")
    replica = begin(appendfsync="always", replicaof=f"127.0.0.1 {port}")
    try:
        async with Proxy(own_server) as proxy:
            store = RedisStore(proxy.url("p"))
            await store.open()
            await store.register(worker("w", 1000.0))
            await begin_run(store, "a", b"1")
            await asyncio.to_thread(until_in_step, own_server, replica)
            replica.say("REPLICAOF NO ONE")  # and the primary does not know it yet
            await store.commit(turn("a", b"2"))
            own_server.kill()
            proxy.turn_to(replica)
            proxy.cut()
            with caplog.at_level(logging.CRITICAL), pytest.raises(LeaseLost):
                await store.commit(turn("a", b"3"))
            assert "has lost writes that it had acknowledged" in caplog.text
            assert await claimed(store, "w") == ["a"]
            assert await journal(store, "a") == [(1, b"1")]
            assert await store.verify() == []
            await store.close()
    finally:
        replica.remove()


# Kinds of servers --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a certificate for "localhost" that nobody but itself has signed."""
    openssl = program("openssl")
    place = tmp_path_factory.mktemp("tls")
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(place / "key.pem"), "-out", str(place / "cert.pem")]
    subprocess.run([openssl, *command.split(), *names, *files], check=True, capture_output=True)
    return place


@pytest.fixture
def tls_server(certificate: Path) -> Iterator[str]:
    """Where a server speaks TLS, and nothing else."""
    port = str(free_port())
    settings = {
        "tls-port": port,
        "tls-cert-file": str(certificate / "cert.pem"),
        "tls-key-file": str(certificate / "key.pem"),
        "tls-auth-clients": "no",
    }
    server = begin(**settings)
    yield port
    server.remove()


async def test_tls_is_spoken_with_a_server_that_is_who_it_says(
    tls_server: str, certificate: Path
) -> None:
    ca = f"ssl_ca_certs={certificate / 'cert.pem'}"
    store = RedisStore(f"rediss://localhost:{tls_server}/0?{ca}")
    await store.open()
    await begin_run(store, "a", b"1")
    assert await journal(store, "a") == [(1, b"1")]
    assert store.url.startswith("rediss://localhost")
    await store.close()
    for host, options in (("localhost", ""), ("127.0.0.1", ca)):
        with pytest.raises(StoreUnavailable, match="CERTIFICATE_VERIFY_FAILED") as raised:
            await RedisStore(f"rediss://{host}:{tls_server}/0?{options}").open()
        assert "ssl_ca_certs" in str(raised.value.hint)


async def test_tls_on_one_side_only_is_an_error_with_a_way_out(
    tls_server: str, own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "CONNECT_SECONDS", 0.5)
    with pytest.raises(StoreUnavailable):
        await RedisStore(f"redis://localhost:{tls_server}").open()
    port = str(free_port())
    own_server.say(f"CONFIG SET port {port}")
    with pytest.raises(StoreUnavailable, match="said no TLS there"):
        await RedisStore(f"rediss://127.0.0.1:{port}").open()


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[str]:
    """Where a Sentinel listens that watches nothing."""
    redis_server = program("redis-server")
    port = str(free_port())
    file = tmp_path / "sentinel.conf"
    file.write_text(f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\n")
    command = [redis_server, str(file), "--sentinel"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + PATIENCE
        while not can_connect(int(port)):
            assert time.monotonic() < deadline
            threading.Event().wait(0.01)
        yield port
        process.kill()


def can_connect(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


async def test_a_sentinel_is_refused_with_a_way_out(sentinel: str) -> None:
    with pytest.raises(StoreError, match="unknown command") as raised:
        await RedisStore(f"redis://127.0.0.1:{sentinel}").open()
    assert "name the primary" in str(raised.value.hint)


async def test_a_cluster_that_does_not_serve_the_slot_says_so() -> None:
    settings = {
        "cluster-enabled": "yes",
        "port": str(free_port()),
        "cluster-port": str(free_port()),
    }
    server = begin(**settings)
    try:
        with pytest.raises(StoreUnavailable, match="not served") as raised:
            await RedisStore(server.url("p")).open()
        assert "served by no node" in str(raised.value.hint)
    finally:
        server.remove()


async def test_a_slot_that_moved_away_is_said_with_its_place(redis: RedisServer) -> None:
    async with Proxy(redis) as proxy:
        store = RedisStore(proxy.url("moved"))
        await store.open()
        await store.get("a")  # over a connection that is there from now on
        for call in (lambda: store.get("a"), lambda: store.register(worker("w", 1.0))):
            proxy.said = b"-MOVED 1234 10.0.0.7:6379\r\n"
            with pytest.raises(StoreUnavailable, match=r"10\.0\.0\.7:6379") as raised:
                await call()
            assert "Name the node" in str(raised.value.hint)
        await store.register(worker("w", 1.0))
        await store.close()


# The connection that listens ----------------------------------------------------------------------


async def test_who_listens_goes_on_whatever_is_heard(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    heard = line.Line.heard
    broken = 2

    async def hear(self: line.Line) -> line.Reply:
        nonlocal broken
        if broken:
            broken -= 1
            raise ValueError("what is that?")
        return await heard(self)

    monkeypatch.setattr(line.Line, "heard", hear)
    one, other = (RedisStore(redis.url("heard")) for _ in range(2))
    await one.open()
    await other.open()
    async with asyncio.timeout(PATIENCE):
        while broken:
            await one.changed(PATIENCE)
        assert "what is that?" in caplog.text
        await one.changed(0.5)
        waiting = asyncio.ensure_future(one.changed(PATIENCE * 10))
        await asyncio.sleep(0)
        await other.create(new("a"))
        await waiting
    await one.close()
    await other.close()


# Bounds ------------------------------------------------------------------------------------------


async def test_a_server_that_says_nothing_is_given_up(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes connections and is silent, as one that is stopped: reads fail, and so do writes that
    were not sent."""
    monkeypatch.setattr(line, "CONNECT_SECONDS", 0.1)
    silent = Path(redis.directory) / "silent"

    async def say_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _reader.read()
        writer.close()

    server = await asyncio.start_unix_server(say_nothing, silent)
    try:
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(StoreUnavailable):
                await RedisStore(f"redis:///0?socket={silent}").open()
    finally:
        server.close()


async def test_reads_and_new_writes_fail_while_the_server_is_away(
    redis: RedisServer,
) -> None:
    async with Proxy(redis) as proxy:
        store = RedisStore(proxy.url("away"))
        await store.open()
        await store.get("a")
        proxy.turn_to(None)
        proxy.lose = "answer"
        first = asyncio.ensure_future(store.create(new("a")))
        await proxy.has_lost.wait()
        proxy.cut()
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(StoreUnavailable):
                await store.get("a")
            with pytest.raises(StoreUnavailable):
                await store.create(new("b"))
            assert not first.done()  # it was sent: only the server knows
            proxy.turn_to(redis)
            assert await first == "a"
            assert await store.get("b") is None
        await store.close()


async def test_who_writes_is_told_when_nobody_knows_what_became_of_it(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But turns and claims wait: they are not to be done twice, or to be forgotten."""
    monkeypatch.setattr(stores, "PATIENCE", 0.05)
    async with Proxy(redis) as proxy:
        store = RedisStore(proxy.url("unknown"))
        await store.open()
        await store.create(new("b"))
        await begin_run(store, "a", b"1")
        proxy.turn_to(None)
        proxy.lose = "answer"
        commit = asyncio.ensure_future(store.commit(turn("a", b"2")))
        claim = asyncio.ensure_future(store.claim("w2", ["wf"], 100.0, 1))
        verbs = (store.send([message("a")]), store.create(new("c")), store.delete(["b"]))
        lost = (store.register(worker("w", 1.0)), store.unregister("w"))
        for said in await asyncio.gather(*verbs, *lost, return_exceptions=True):
            assert isinstance(said, StoreUnavailable)
            assert "did not say within 0.05 s whether it kept" in said.message
        proxy.turn_to(redis)
        async with asyncio.timeout(PATIENCE):
            assert await commit == "a"
            assert len(await claim) == 1
        assert await journal(store, "a") == [(1, b"1"), (2, b"2")]
        assert len(await store.messages("a")) == 1
        await store.close()


class Only(Workflow):
    @step
    async def only(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=ev.n)


async def test_a_start_whose_server_vanishes_is_answered_and_an_engine_can_stop(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letting_go, "PATIENCE", 0.05)
    going = False

    def vanish(when: str, _group: int) -> None:
        if going and when == "before":
            proxy.turn_to(None)
            proxy.cut()

    flow = Only(timeout=None)
    async with Proxy(redis) as proxy:
        for back in (True, False):
            store = RedisStore(proxy.url("vanish"), on_write=vanish)
            engine = Engine(store, [flow], lease=0.2, poll=0.02)
            await engine.start_up()
            going = True
            key = f"back: {back}"
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(StoreUnavailable):
                    await engine.start(flow, n=7, key=key)
                going = False
                if back:
                    proxy.turn_to(redis)
                    assert await result_of(engine, flow, key) == 7
                await engine.stop(grace=0.0)
            proxy.turn_to(redis)
        # What nobody could wait for is kept, or it is not; it is never there twice.
        async with Engine(RedisStore(proxy.url("vanish")), [flow]) as engine:
            for key in ("back: True", "back: False"):
                async with asyncio.timeout(PATIENCE):
                    assert await result_of(engine, flow, key) == 7
            assert list((await engine.counts()).values()) == [2]


async def result_of(engine: Engine, flow: Only, key: str) -> int:
    """Start it again with its key, until the store is well."""
    while True:
        try:
            return await (await engine.start(flow, n=7, key=key))
        except StoreUnavailable:
            await asyncio.sleep(0.01)
