"""The socket of `stepwell serve`."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from stepwell.server.serving import listen_on
from stepwell.server.settings import load


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
