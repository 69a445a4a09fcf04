"""The socket and the store of `stepwell serve`."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from stepwell.errors import StoreUnavailable
from stepwell.server import serving
from stepwell.server.serving import listen_on, open_engine
from stepwell.server.settings import Settings, load
from stepwell.stores.memory import MemoryStore


async def test_what_is_sent_in_two_parts_is_not_held_back_for_the_other_sides_word() -> None:
    """A head and a body: with Nagle's algorithm the body waits 40 ms for the head's receipt."""
    made: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    class Accepted(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            found = transport.get_extra_info("socket")
            made.set_result(bool(found.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
            transport.close()

    with contextlib.closing(listen_on(load({"port": 0}))) as listening:
        server = await asyncio.get_running_loop().create_server(Accepted, sock=listening)
        async with server:
            _, writer = await asyncio.open_connection(*listening.getsockname()[:2])
            assert await made
            writer.close()
            await writer.wait_closed()


@pytest.mark.parametrize("absent, degraded", [(1, None), (2, "redis unreachable")])
async def test_a_redis_that_starts_with_the_service_has_a_second_chance(
    absent: int, degraded: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is decided here lasts as long as the service does."""
    tries = 0

    class Starting(MemoryStore):
        async def open(self) -> None:
            nonlocal tries
            tries += 1
            if tries <= absent:
                raise StoreUnavailable("redis://here:6379/0 can't be reached")
            await super().open()

    store = Starting()
    monkeypatch.setattr(serving, "_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(serving, "without_password", str)
    monkeypatch.setattr(Settings, "url", property(lambda self: store))
    monkeypatch.setattr(Settings, "wants_redis", property(lambda self: True))
    opened = await open_engine(load({}), [])
    assert (opened.degraded, tries) == (degraded, 2)
    assert (opened.engine.store is store) == (degraded is None)
    await opened.engine.stop()
