"""What goes wrong between a store and its server, whichever: nothing is lost, or done twice."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from tests.servers import postgres as postgres_server
from tests.servers import redis as redis_server
from tests.servers.postgres import postgres, told
from tests.servers.redis import redis

from stepwell.errors import LeaseLost, StoreError
from stepwell.stores.base import Snapshot, Store
from stepwell.stores.conformance import PATIENCE, begin, journal, message, new, turn, worker
from stepwell.stores.digests import digest_of
from stepwell.stores.postgres import PostgresStore
from stepwell.stores.redis import RedisStore
from stepwell.values import RunStatus

__all__ = ["postgres", "redis"]


@dataclass
class Line:
    """A store, the proxy that stands between it and its server, and a way past it.

    `quiet` returns when the store says nothing by itself, so that what is lost next is the next
    call's.
    """

    store: Store
    proxy: postgres_server.Proxy | redis_server.Proxy
    quiet: Callable[[], Awaitable[None]]
    direct: Callable[[], Store]

    async def lose(self, what: str) -> None:
        """Lose the next write's request or answer."""
        await self.quiet()
        self.proxy.lose = what


async def at_once() -> None:
    """Notifications go with the next group."""


@pytest.fixture(params=["postgres", "redis"])
async def line(request: pytest.FixtureRequest) -> AsyncIterator[Line]:
    """A store behind a proxy, on each server."""
    server = request.getfixturevalue(request.param)
    place = f"t{uuid.uuid4().hex[:20]}"
    async with AsyncExitStack() as stack:
        if request.param == "postgres":
            proxy = postgres_server.Proxy(server)
            stack.callback(proxy.close)
            store = PostgresStore(proxy.url(place))
            line = Line(store, proxy, lambda: told(store), lambda: PostgresStore(server.url(place)))
        else:
            around = await stack.enter_async_context(redis_server.Proxy(server))
            behind = RedisStore(around.url(place))
            line = Line(behind, around, at_once, lambda: RedisStore(server.url(place)))
        await line.store.open()
        yield line
        assert await line.store.verify() == []
        await line.store.close()


@pytest.fixture
async def other(line: Line) -> AsyncIterator[Store]:
    """Another store in the same place, as of another process."""
    store = line.direct()
    await store.open()
    yield store
    await store.close()


# A connection that breaks in the midst of a call -------------------------------------------------


@pytest.mark.parametrize("what", ["answer", "request"])
async def test_a_commit_whose_answer_is_lost_is_kept_once(line: Line, what: str) -> None:
    await begin(line.store, "a", b"1")
    for n in range(2, 6):
        await line.lose(what)
        assert await line.store.commit(turn("a", str(n).encode())) == "a"
        assert line.proxy.lose is None
    assert line.proxy.lost == 4
    assert await journal(line.store, "a") == [(n, str(n).encode()) for n in range(1, 6)]


@pytest.mark.parametrize("what", ["answer", "request"])
async def test_every_write_is_answered_as_it_was_done(line: Line, what: str) -> None:
    store = line.store
    await line.lose(what)
    assert await store.create(new("a", key="k")) == "a"
    await line.lose(what)
    assert await store.create(new("b", key="k")) == "a"
    await line.lose(what)
    assert await store.send([message("a", b"1"), message("none")]) == [True, False]
    assert [m.data for m in await store.messages("a")] == [b"1"]
    await line.lose(what)
    (row,) = await store.claim("w", ["wf"], 100.0, 10)
    assert (row.id, row.fence, row.owner) == ("a", 1, "w")
    await line.lose(what)
    await store.register(worker("w", 1000.0))
    await line.lose(what)
    with pytest.raises(LeaseLost):
        await store.commit(turn("a", fence=7))
    await line.lose(what)
    taken = await store.claim_one("w2", "a", 100.0, ["w"])
    assert taken is not None
    assert (taken.fence, taken.owner) == (2, "w2")
    await line.lose(what)
    with pytest.raises(LeaseLost):
        await store.commit(turn("a", fence=1))
    await line.lose(what)
    over = turn("a", b"1", fence=2, worker="w2", status=RunStatus.FAILED, due=None, release=True)
    await store.commit(over)
    await line.lose(what)
    again = await store.claim_one("w", "a", 100.0)
    assert again is not None
    assert again.fence == 3
    await line.lose(what)
    assert await store.delete(["a", "none"]) == 1
    assert line.proxy.lost == 11
    assert await store.get("a") is None


@pytest.mark.parametrize("what", ["answer", "request"])
async def test_a_group_that_was_broken_off_is_finished(line: Line, what: str) -> None:
    await asyncio.gather(*(begin(line.store, f"r{n}", b"1") for n in range(50)))
    await line.lose(what)
    await asyncio.gather(*(line.store.commit(turn(f"r{n}", b"2")) for n in range(50)))
    assert line.proxy.lost == 1
    for n in range(50):
        assert await journal(line.store, f"r{n}") == [(1, b"1"), (2, b"2")]


@pytest.mark.parametrize("what", ["answer", "request"])
async def test_a_read_is_read_again(line: Line, what: str) -> None:
    await begin(line.store, "a", b"1")
    assert await journal(line.store, "a") == [(1, b"1")]
    await line.lose(what)
    assert await journal(line.store, "a") == [(1, b"1")]
    assert line.proxy.lost == 1


# Others -------------------------------------------------------------------------------------------


async def test_another_store_hears_of_changes(line: Line, other: Store) -> None:
    await other.changed(0)
    for change in (
        lambda: begin(line.store, "a", b"1"),
        lambda: line.store.send([message("a")]),
        lambda: line.store.create(new("b")),
        lambda: line.store.create(new("c")),
    ):
        await other.changed(0)
        waiting = asyncio.create_task(other.changed(PATIENCE * 10))
        await asyncio.sleep(0)
        await change()
        async with asyncio.timeout(PATIENCE):
            await waiting
    for run in ("a", "b", "c"):
        assert await other.get(run) is not None


async def test_a_store_is_not_shared_with_a_fork(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        for call in (line.store.get("a"), line.store.create(new("a")), line.store.changed(0)):
            with pytest.raises(StoreError, match="its fork"):
                await call
    assert await line.store.get("a") is None


def time_of_copying(data: bytes) -> float:
    """Seconds, those of the thread."""
    before = time.thread_time()
    assert len(bytearray(data)) == len(data)
    return time.thread_time() - before


async def worst_hold(work: Coroutine[None, None, None], clock: Callable[[], float]) -> float:
    """Seconds of `clock` between two heartbeats, at the most, while the work was done."""
    worst = 0.0
    working = asyncio.create_task(work)
    while not working.done():
        before = clock()
        await asyncio.sleep(0.0005)
        worst = max(worst, clock() - before)
    await working
    return worst


async def test_big_payloads_do_not_hold_the_loop(other: Store) -> None:
    """The best of a few tries: what a busy machine does to a heartbeat is not meant. What threads
    do to the loop is seen by the time of the process; what the loop does itself, by its own."""
    in_threads = isinstance(other, PostgresStore)
    clock, limit = (time.process_time, 0.015) if in_threads else (time.thread_time, 0.012)
    data = os.urandom(16 * 1024 * 1024)
    limit = max(limit, 8 * min(time_of_copying(data) for _ in range(5)))  # on a slow machine
    text = b'"' + b"x" * 8 * 1024 * 1024 + b'"'
    digest = digest_of(data)

    async def write() -> None:
        await begin(other, "a", text, blobs={digest: data}, snapshot=Snapshot(1, text))
        await other.commit(turn("a", status=RunStatus.FAILED, due=None))

    async def read() -> None:
        assert await other.blob(digest) == data

    async def load() -> None:
        loaded = await other.load("a")
        assert loaded is not None
        assert loaded.snapshot == Snapshot(1, text)

    best = {"write": 1.0, "read": 1.0, "load": 1.0}
    for _ in range(20):
        best["write"] = min(best["write"], await worst_hold(write(), clock))
        best["read"] = min(best["read"], await worst_hold(read(), clock))
        best["load"] = min(best["load"], await worst_hold(load(), clock))
        assert await other.delete(["a"]) == 1
        # With nothing else to do: 1 ms to write, 6 to read. On the loop itself: 50 and more.
        if max(best.values()) < limit:
            return
    pytest.fail(f"the loop was held: {best}")
