"""A PostgreSQL server of the tests' own: private directory, a socket there, gone afterwards.

One is started for each process of pytest that needs it, the first time it does. `fsync` is off:
what these tests kill is a process, never the machine. Where PostgreSQL is not installed the tests
that need it are skipped, and fail when CI=1 (or true) says that nothing may be left out.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import pwd
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import LiteralString, cast

import psycopg
import pytest
from psycopg import sql
from tests.servers.needed import missing

from stepwell.stores.postgres import PostgresStore

PATIENCE = 100.0
"""Seconds that a server may take to start, and to let somebody in."""


def programs() -> Path | None:
    """The directory of the server's programs; None where there is none."""
    for name in ("initdb", "postgres"):
        found = shutil.which(name)
        if found:
            real = Path(found).resolve().parent
            if (real / "initdb").exists() and (real / "postgres").exists():
                return real
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return installed[-1].parent if installed else None


class PostgresServer:
    """A server that can be stopped, killed and started again on the same data.

    Args:
        bin: the directory of its programs.
        fsync: whether it waits for the disk.
        data: an empty directory for its data, when they shall not lie under /tmp.
    """

    def __init__(self, bin: Path, *, fsync: bool = False, data: Path | None = None) -> None:
        self.bin = bin
        # Short, since the path of a socket may be 107 bytes long at most.
        self.directory = Path(tempfile.mkdtemp(prefix="stepwell-pg-", dir="/tmp"))
        self.data = data or self.directory / "data"
        self.settings = {
            "fsync": "on" if fsync else "off",
            "full_page_writes": "on" if fsync else "off",
            "listen_addresses": "",
            "unix_socket_directories": str(self.directory),
            "max_connections": "200",
            "shared_buffers": "64MB",
            "log_min_messages": "fatal",
            "autovacuum": "off",  # what is in it does not live long enough
        }
        self._schemas = 0
        self._empty: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None
        # The server refuses to run as root.
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        self.user = ("postgres" if _has_user("postgres") else "nobody") if root else None
        self.own(self.directory)
        if data is not None:
            self.own(data)
        self._run("initdb", "-D", str(self.data), "-U", "tests", "-A", "trust", "-N", "-E", "UTF8")
        self.start()

    def own(self, path: Path) -> None:
        """Give a file to the user as whom the server runs."""
        if self.user is not None:
            shutil.chown(path, self.user)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.bin / program), *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, user=self.user, cwd="/", check=False
        )
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Start it and wait until it can be used."""
        deadline = time.monotonic() + PATIENCE
        while not self._come_up(deadline):
            pass

    def _come_up(self, deadline: float) -> bool:
        """Start it; False when it was killed before, and what it began has not ended yet."""
        options = [f"--{name}={value}" for name, value in self.settings.items()]
        log = (self.directory / "log").open("ab")
        self.process = subprocess.Popen(
            [str(self.bin / "postgres"), "-D", str(self.data), *options],
            stdout=log,
            stderr=log,
            user=self.user,
            cwd="/",
        )
        log.close()
        # When the tests are killed the pipe closes, and the server goes with them.
        script = f"cat >/dev/null; kill -QUIT {self.process.pid}; rm -rf {self.directory}"
        self._watch = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, cwd="/")
        while True:
            try:
                psycopg.connect(self.url()).close()
                return True
            except psycopg.OperationalError:
                said = (self.directory / "log").read_text()
                assert time.monotonic() < deadline, said
                if self.process.poll() is not None:
                    assert "shared memory block" in said, said
                    self.stop()
                    return False

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT breaks connections and shuts down in order, SIGQUIT is a crash, and after
        SIGKILL not even the processes that it began are told."""
        if self._watch is not None:
            self._watch.kill()
            self._watch.communicate()
            self._watch = None
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait()
            self.process = None

    def remove(self) -> None:
        """End it and remove its files."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.directory)

    def sql(self, schema: str, statement: LiteralString) -> list[tuple[object, ...]]:
        """What an administrator does meanwhile."""
        path = f"options=-csearch_path%3D{schema}"
        with psycopg.connect(f"{self.url()}&{path}", autocommit=True) as db:
            done = db.execute(statement)
            return done.fetchall() if done.description else []

    def url(self, schema: str | None = None, **options: str) -> str:
        """The URL of a store in a schema of its own (or what libpq needs, without one)."""
        port = {"port": self.settings["port"]} if "port" in self.settings else {}
        patience = {"connect_timeout": f"{PATIENCE:.0f}"}
        more = {"host": str(self.directory), **port, **patience, **options}
        if schema is not None:
            more["schema"] = schema
        return "postgresql://tests@/postgres?" + "&".join(f"{k}={v}" for k, v in more.items())

    def url_for(self, place: Path) -> str:
        """The URL of the store that belongs to a directory: the same for the same one."""
        return self.url("t" + hashlib.sha256(str(place).encode()).hexdigest()[:20])

    def lend(self) -> str:
        """A schema for a store: an empty one, or one that is yet to be made, which takes ten times
        as long."""
        if self._empty:
            return self._empty.pop()
        self._schemas += 1
        return f"lent{os.getpid()}_{self._schemas}"

    def take_back(self, schemas: Collection[str]) -> None:
        """Empty schemas that were lent and that nobody uses any more; those that somebody may still
        use are not lent again."""
        with psycopg.connect(self.url(), autocommit=True) as db:
            deadline = time.monotonic() + 0.2
            while db.execute(_OTHERS).fetchone():
                if time.monotonic() > deadline:
                    return
                threading.Event().wait(0.002)
            tables = db.execute(_TABLES, [list(schemas)]).fetchall()
            with db.transaction():
                db.execute("SET LOCAL session_replication_role = replica")  # in whatever order
                for place in tables:
                    db.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(*place)))
        self._empty += schemas


_OTHERS = """SELECT pid FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"""

# What is in `meta` is there from the beginning.
_TABLES = """SELECT schemaname, tablename FROM pg_tables
    WHERE schemaname = ANY (%s) AND tablename <> 'meta'"""


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def begin(*, fsync: bool = False) -> PostgresServer:
    """A running server; skips, or fails when CI=1 (or true), where PostgreSQL is not installed."""
    bin = programs()
    if bin is None:
        missing("postgresql")
    return PostgresServer(bin, fsync=fsync)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The server that the tests of this process share."""
    server = begin()
    yield server
    server.remove()


@pytest.fixture
def postgres_url_for(postgres: PostgresServer) -> Iterator[Callable[[object], str]]:
    """The URL of an empty store for a place, which may be anything: in one test, the same one for
    the same place. All of a test's stores are closed before it ends."""
    lent: dict[object, str] = {}

    def url_for(place: object) -> str:
        if place not in lent:
            lent[place] = postgres.lend()
        return postgres.url(lent[place])

    yield url_for
    if lent:
        postgres.take_back(lent.values())


async def told(store: PostgresStore) -> None:
    """Return when the others have been notified of what was written so far."""
    while store._write()._notify_owed:  # noqa: ASYNC110
        await asyncio.sleep(0.002)  # the thread tells no event
    # The thread takes this up when the server has answered it; and nobody is told of it.
    assert await store.claim("nobody", [], 0.0, 0) == []


class Proxy:
    """Stands between a store and a server, and loses what a test wants lost.

    `lose = "answer"`: the next thing the server says is thrown away and the connection is cut: what
    was asked for has been done. `lose = "request"`: the next thing that is asked never arrives.
    `skip`: how many of these are let through before. `refusing`: new connections are closed at
    once, as when the server is away.
    """

    def __init__(self, server: PostgresServer) -> None:
        self._behind = f"{server.directory}/.s.PGSQL.5432"
        self.directory = Path(tempfile.mkdtemp(prefix="stepwell-proxy-", dir="/tmp"))
        self.lose: str | None = None
        self.skip = 0
        self.lost = 0
        self.refusing = False
        self._open: list[socket.socket] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(f"{self.directory}/.s.PGSQL.5432")
        self._listening.listen()
        self._pumps = [threading.Thread(target=self._accept, daemon=True)]
        self._pumps[0].start()

    def url(self, schema: str) -> str:
        """The URL of a store behind the proxy."""
        patience = f"connect_timeout={PATIENCE:.0f}"
        return f"postgresql://tests@/postgres?host={self.directory}&{patience}&schema={schema}"

    def cut(self) -> None:
        """Break every connection."""
        for each in self._open:
            _shut(each)
        self._open.clear()

    def close(self) -> None:
        """Break every connection and take no more."""
        _shut(self._listening)
        self.cut()
        for each in self._pumps:
            each.join()
        self._listening.close()
        shutil.rmtree(self.directory)

    def _accept(self) -> None:
        while True:
            try:
                front, _ = self._listening.accept()
            except OSError:
                return
            if self.refusing:
                front.close()
                continue
            back = socket.socket(socket.AF_UNIX)
            try:
                back.connect(self._behind)
            except OSError:
                front.close()
                back.close()
                continue
            pair = threading.Thread(target=self._pump, args=(front, back), daemon=True)
            self._pumps.append(pair)
            pair.start()

    def _pump(self, front: socket.socket, back: socket.socket) -> None:
        """Pass on what is said, in both directions, until one end is gone or something is lost."""
        self._open += [front, back]
        with front, back, suppress(OSError), selectors.DefaultSelector() as both:
            both.register(front, selectors.EVENT_READ, ("request", back))
            both.register(back, selectors.EVENT_READ, ("answer", front))
            while True:
                for ready, _ in both.select():
                    what, target = ready.data
                    data = cast(socket.socket, ready.fileobj).recv(65536)
                    if not data:
                        return
                    if self.lose == what and self.skip:
                        self.skip -= 1
                    elif self.lose == what:
                        self.lost += 1
                        self.lose = None
                        return
                    target.sendall(data)


def _shut(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
