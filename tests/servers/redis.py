"""A Redis server of the tests' own: private directory, a socket there, gone afterwards.

One is started for each process of pytest that needs it, the first time it does. Where Redis is not
installed the tests that need it are skipped, and fail when CI=1 says that nothing may be left out.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.servers.needed import program

from stepwell.stores.redis import line

PATIENCE = 100.0
"""Seconds that a server may take to start, and to let somebody in."""

# A machine that halts for some seconds makes no server one that says nothing.
line.CONNECT_SECONDS = PATIENCE


class RedisServer:
    """A server that can be killed and started again on the same data.

    Args:
        program: the server's program.
        settings: its settings, as in redis.conf.
    """

    def __init__(self, program: str, **settings: str) -> None:
        self.program = program
        # Short, since the path of a socket may be 107 bytes long at most.
        self.directory = Path(tempfile.mkdtemp(prefix="stepwell-redis-", dir="/tmp"))
        self.socket = self.directory / "s"
        self.settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "dir": str(self.directory),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            **settings,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it and wait until it can be used."""
        options = [each for name, value in self.settings.items() for each in (f"--{name}", value)]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen([self.program, *options], stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while self.say("PING") != b"+PONG\r\n":
            said = (self.directory / "log").read_text()
            assert self.process.poll() is None, said
            assert time.monotonic() < deadline, said
            threading.Event().wait(0.01)

    def say(self, command: str) -> bytes:
        """What the server answers to one short command; nothing while it is away."""
        try:
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(PATIENCE)
                line.connect(str(self.socket))
                line.sendall(command.encode() + b"\r\n")
                return line.recv(65536)
        except OSError:
            return b""

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def remove(self) -> None:
        """End it and remove its files."""
        self.kill()
        while self.directory.exists():  # a child of the server may be writing there to its end
            shutil.rmtree(self.directory, ignore_errors=True)

    def url(self, prefix: str) -> str:
        """The URL of a store with keys of its own."""
        return f"redis:///0?socket={self.socket}&prefix={prefix}"

    def url_for(self, place: Path) -> str:
        """The URL of the store that belongs to a directory: the same for the same one."""
        return self.url("t" + hashlib.sha256(str(place).encode()).hexdigest()[:20])


def begin(**settings: str) -> RedisServer:
    """A running server; skips, or fails when CI=1, where Redis is not installed."""
    return RedisServer(program("redis-server"), **settings)


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """The server that the tests of this process share."""
    server = begin()
    yield server
    server.remove()


@pytest.fixture
def redis_url_for(redis: RedisServer) -> Callable[[object], str]:
    """The URL of an empty store for a place, which may be anything: in one test, the same one for
    the same place."""
    known: dict[object, str] = {}

    def url_for(place: object) -> str:
        if place not in known:
            known[place] = redis.url(f"p{next(_places)}")
        return known[place]

    return url_for


_places = itertools.count()


class Proxy:
    """Stands between a store and a server, in the test's own event loop, and loses what a test
    wants lost.

    `lose = "answer"`: the next thing the server says is thrown away and the connection is cut: what
    was asked for has been done. `lose = "request"`: the next thing that is asked never arrives.
    `said`: what is answered instead of the next answer.
    """

    def __init__(self, server: RedisServer) -> None:
        self._behind: str | None = str(server.socket)
        self.directory = Path(tempfile.mkdtemp(prefix="stepwell-proxy-", dir="/tmp"))
        self.lose: str | None = None
        self.lost = 0
        self.has_lost = asyncio.Event()
        self.said: bytes | None = None
        self._server: asyncio.Server | None = None
        self._pairs: set[asyncio.Task[None]] = set()

    def url(self, prefix: str) -> str:
        """The URL of a store behind the proxy."""
        return f"redis:///0?socket={self.directory}/s&prefix={prefix}"

    def turn_to(self, server: RedisServer | None) -> None:
        """Connections that are made from now on are to this server, or refused."""
        self._behind = None if server is None else str(server.socket)

    def cut(self) -> None:
        """Break all connections."""
        for pair in self._pairs:
            pair.cancel()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_unix_server(self._serve, f"{self.directory}/s")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for pair in self._pairs:
            pair.cancel()
        await asyncio.gather(*self._pairs, return_exceptions=True)
        shutil.rmtree(self.directory)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pairs.add(task)
        task.add_done_callback(self._pairs.discard)
        if self._behind is None:
            writer.close()
            return
        back_reader, back_writer = await asyncio.open_unix_connection(self._behind)
        pumps = [
            asyncio.create_task(self._pump(reader, back_writer, "request")),
            asyncio.create_task(self._pump(back_reader, writer, "answer")),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for each in (writer, back_writer):
                each.close()

    async def _pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, what: str
    ) -> None:
        while data := await source.read(65536):
            if self.lose == what:
                self.lose = None
                self.lost += 1
                self.has_lost.set()
                return
            if what == "answer" and self.said is not None:
                data, self.said = self.said, None
            target.write(data)
            await target.drain()
