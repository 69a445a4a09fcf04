"""A load of HTTP requests over keep-alive connections, each with one request under way at a time.

As little as can be called a client, so that the server is what is measured: sockets and a selector,
requests that are bytes already, answers that are looked at only for their status and their length.
`service_tool` in `service.py` says how many requests a second it can make at all.
"""

from __future__ import annotations

import selectors
import socket
from dataclasses import dataclass
from time import perf_counter

LIMIT = 60.0
"""Seconds that nothing may come for."""


def request(method: str, path: str, body: bytes = b"", headers: str = "") -> bytes:
    """A request as bytes."""
    kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{kind}{headers}\r\n".encode() + body


@dataclass(slots=True)
class Line:
    """One connection, and the answer that is coming in."""

    socket: socket.socket
    got: bytes = b""
    whole: int | None = None
    asked: float = 0.0

    def ask(self, data: bytes) -> None:
        self.got, self.whole = b"", None
        self.asked = perf_counter()
        self.socket.sendall(data)

    def read(self) -> bool:
        """Take in what has come; whether the answer is whole."""
        part = self.socket.recv(65536)
        if not part:
            raise ConnectionError(f"the server hung up after {self.got[:200]!r}")
        self.got += part
        if self.whole is None:
            head = self.got.find(b"\r\n\r\n")
            if head < 0:
                return False
            self.whole = head + 4 + _length(self.got[: head + 2])
        return len(self.got) >= self.whole

    @property
    def body(self) -> bytes:
        return self.got.partition(b"\r\n\r\n")[2]


def _length(head: bytes) -> int:
    at = head.lower().index(b"content-length:") + 15
    return int(head[at : head.index(b"\r", at)])


def connect(port: int) -> Line:
    line = Line(socket.create_connection(("127.0.0.1", port), timeout=LIMIT))
    line.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return line


def ask(line: Line, data: bytes, status: bytes = b"200") -> bytes:
    """One request, waited for; its body. Raises `RuntimeError` for any other status."""
    line.ask(data)
    while not line.read():
        pass
    _check(line, status)
    return line.body


def _check(line: Line, status: bytes) -> None:
    if line.got[9:12] != status:
        raise RuntimeError(f"wanted {status!r}: {line.got[:500]!r}")


def load(
    port: int, data: bytes, count: int, connections: int, status: bytes = b"200"
) -> tuple[float, list[float]]:
    """`count` times the same request, over so many connections at once.

    Returns:
        The seconds it took, and the seconds of each request.
    """
    lines = [connect(port) for _ in range(connections)]
    with selectors.DefaultSelector() as waiting:
        for line in lines:
            waiting.register(line.socket, selectors.EVENT_READ, line)
        seconds: list[float] = []
        asked = 0
        began = perf_counter()
        for line in lines[:count]:
            line.ask(data)
            asked += 1
        while len(seconds) < count:
            ready = waiting.select(LIMIT)
            if not ready:
                raise TimeoutError(f"no answer for {LIMIT:g} s, after {len(seconds)} of {count}")
            for key, _ in ready:
                line: Line = key.data
                if not line.read():
                    continue
                seconds.append(perf_counter() - line.asked)
                _check(line, status)
                if asked < count:
                    asked += 1
                    line.ask(data)
        took = perf_counter() - began
    for line in lines:
        line.socket.close()
    return took, seconds
