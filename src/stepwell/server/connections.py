"""Connections of `stepwell serve` that take their time: what uvicorn leaves without a limit.

uvicorn waits for ever for a head that does not end, and for a reader that does not read. Here both
have `patience` seconds: the head of a request to come whole, and a reader to take some of what was
sent. A head is held to 64 KiB whatever parses it. Bodies are the app's business (`bodies`); streams
without news send signs of life, which fill no buffer.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from stepwell.server.problems import MEDIA_TYPE, Problem

if TYPE_CHECKING:  # which one uvicorn takes depends on what is installed; both have these parts
    from uvicorn.protocols.http.h11_impl import H11Protocol as Base
else:
    from uvicorn.protocols.http.auto import AutoHTTPProtocol as Base

MAX_HEAD = 64 * 1024
"""Bytes that the head of a request may have."""

SLOWEST = 64 * 1024
"""Bytes that a reader has to take of what was sent, in the time that it is given."""


def guarded(patience: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol, with limits.

    Args:
        patience: seconds that are waited for the other side.
    """

    class Guarded(Base):
        """A connection that is not waited for for ever."""

        def connection_made(self, transport: asyncio.Transport) -> None:
            """Someone connected: their first head has to come."""
            super().connection_made(transport)
            self._head = 0
            self._unread = 0
            self._late: asyncio.TimerHandle | None = None
            self._stalled: asyncio.TimerHandle | None = None
            self._expect_head()

        def connection_lost(self, exc: Exception | None) -> None:
            """They are gone."""
            self._stop_waiting()
            if self._stalled is not None:
                self._stalled.cancel()
            super().connection_lost(exc)

        # --- heads -------------------------------------------------------------------------------

        def data_received(self, data: bytes) -> None:
            """Something came: part of a head, or of a body."""
            super().data_received(data)
            if self.cycle and not self.cycle.response_complete:
                self._stop_waiting()
                return
            self._head += len(data)
            if self._late is None:
                self._expect_head()
            if self._head > MAX_HEAD and not self.transport.is_closing():
                self._refuse(
                    431,
                    "head_too_large",
                    f"the head of a request has at most {MAX_HEAD // 1024} KiB",
                )

        def _expect_head(self) -> None:
            self._late = self.loop.call_later(patience, self._head_is_late)

        def _stop_waiting(self) -> None:
            self._head = 0
            if self._late is not None:
                self._late.cancel()
                self._late = None

        def _head_is_late(self) -> None:
            if not self.cycle and self._head:
                self._refuse(
                    408, "head_too_slow", f"a head has to come whole within {patience:g} s"
                )
            else:  # nothing was asked, so there is nothing to answer
                self.transport.close()

        def send_400_response(self, msg: str) -> None:
            """What came is no HTTP, as far as the parser can tell."""
            self._refuse(
                400,
                "bad_request",
                "this is no HTTP request, its length is none, or its head is over "
                f"{MAX_HEAD // 1024} KiB",
            )

        def _refuse(self, status: int, code: str, detail: str) -> None:
            """Answer without the app, and hang up."""
            self._stop_waiting()
            if self.transport.is_closing():
                return
            body = json.dumps(Problem(status, code, detail).shown()).encode()
            lines = (
                f"HTTP/1.1 {status} Refused",
                f"content-type: {MEDIA_TYPE}",
                f"content-length: {len(body)}",
                "connection: close",
            )
            self.transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
            self.transport.close()

        # --- readers -----------------------------------------------------------------------------

        def pause_writing(self) -> None:
            """More was sent than they read."""
            super().pause_writing()
            self._unread = self.transport.get_write_buffer_size()
            self._stalled = self.loop.call_later(patience, self._look_at_reader)

        def resume_writing(self) -> None:
            """They read."""
            if self._stalled is not None:
                self._stalled.cancel()
                self._stalled = None
            super().resume_writing()

        def _look_at_reader(self) -> None:
            unread = self.transport.get_write_buffer_size()
            if unread > self._unread - SLOWEST:
                self.transport.abort()  # what is unread goes, too: a close would wait for it
                return
            self._unread = unread
            self._stalled = self.loop.call_later(patience, self._look_at_reader)

    return Guarded
