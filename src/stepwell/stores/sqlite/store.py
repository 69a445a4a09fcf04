"""The async face of the SQLite store: sends every verb to the thread it belongs to.

Verbs that write become jobs of the one `Writer`; verbs that read run in a small pool of threads,
each with a read-only connection of its own. The event loop never waits for the disk.
"""

from __future__ import annotations

import asyncio
import builtins
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from stepwell.stores.base import Commit, Feature, NewMessage, NewRun, RunRow, WorkerRow
from stepwell.stores.sqlite import claims, reads, upkeep
from stepwell.stores.sqlite.commits import Commits
from stepwell.stores.sqlite.connection import Durability, connect_reader, connect_writer
from stepwell.stores.sqlite.errors import translate
from stepwell.stores.sqlite.writer import OnWrite, Writer
from stepwell.stores.verbs import ReadingVerbs, forked, not_open

T = TypeVar("T")

# Which files are open in which process. SQLite keeps such a list of its own, and a forked process
# inherits both: it would believe that it holds its parent's locks.
_open_files: Counter[tuple[Path, int]] = Counter()


class SQLiteStore(ReadingVerbs[sqlite3.Connection]):
    """Keeps runs in one SQLite file, shared by any number of processes of this machine.

    Args:
        path: the file. It is created when it is not there; its directory is not.
        durability: what an acknowledged commit survives: "power" (every commit is on the disk) or
            "process" (a crash of the process, but the last commits may be lost with the power).
        busy_timeout: seconds to wait while another process is writing, before `StoreLocked`.
        read_connections: how many reads may go on at the same time.
        on_write: for crash tests: called in the writer's thread as `on_write("before", n)` just
            before transaction n of this store is committed, and `on_write("after", n)` just after,
            before anyone hears of it.

    Raises `ValueError` for arguments that make no sense.

    >>> import asyncio, tempfile
    >>> async def main(path: str) -> str:
    ...     store = SQLiteStore(path)
    ...     await store.open()
    ...     try:
    ...         return await store.create(NewRun(id="r1", workflow="greet", at=0.0))
    ...     finally:
    ...         await store.close()
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     asyncio.run(main(f"{directory}/runs.db"))
    'r1'
    """

    _queries = reads

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "power",
        busy_timeout: float = 5.0,
        read_connections: int = 2,
        on_write: OnWrite | None = None,
    ) -> None:
        name = os.fspath(path)
        if not name or name == ":memory:":
            raise ValueError("a SQLiteStore needs a file; use MemoryStore to keep runs in memory")
        if durability not in ("power", "process"):
            raise ValueError(f"durability is 'power' or 'process', not {durability!r}")
        if busy_timeout < 0:
            raise ValueError(f"busy_timeout is in seconds, 0 or more, not {busy_timeout!r}")
        if read_connections < 1:
            raise ValueError(f"read_connections is 1 or more, not {read_connections!r}")
        self._name = name
        self._path = Path(name).absolute()
        self._where = str(self._path)
        self._durability: Durability = durability
        self._busy_timeout = busy_timeout
        self._read_connections = read_connections
        self._on_write = on_write
        self._commits = Commits()
        self._writer: Writer | None = None
        self._idle: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        self._pid = 0
        self._switching = asyncio.Lock()

    @property
    def url(self) -> str:
        """`sqlite:///` and the path as it was given."""
        return f"sqlite:///{self._name}"

    @property
    def durability(self) -> str:
        """As given: "power" or "process"."""
        return self._durability

    def supports(self, feature: Feature) -> bool:
        """All of them: persistent, multiprocess, backup and verify."""
        return feature in ("persistent", "multiprocess", "backup", "verify")

    async def open(self) -> None:
        """See `Store.open`."""
        async with self._switching:
            if self._writer is not None:
                self._check_process()
                return
            self._check_inherited()
            pool = ThreadPoolExecutor(self._read_connections, "stepwell-sqlite-read")
            writer = Writer(
                partial(connect_writer, self._path, self._durability, self._busy_timeout),
                partial(self._disconnect, pool),
                path=str(self._path),
                busy_timeout=self._busy_timeout,
                on_rollback=self._commits.forget,
                on_write=self._on_write,
            )
            try:
                await writer.start()
                loop = asyncio.get_running_loop()
                for _ in range(self._read_connections):
                    reader = await loop.run_in_executor(
                        pool, connect_reader, self._path, self._busy_timeout
                    )
                    self._idle.put(reader)
            except BaseException:
                await writer.stop()
                raise
            self._pid = os.getpid()
            _open_files[self._path, self._pid] += 1
            self._writer = writer
            self._begin_reading(pool)

    async def close(self) -> None:
        """See `Store.close`. What was accepted is finished, and the log goes into the file."""
        async with self._switching:
            if self._writer is None:
                return
            self._check_process()
            writer, self._writer, self._pool = self._writer, None, None
            try:
                await writer.stop()
            finally:
                _open_files[self._path, self._pid] -= 1

    def _disconnect(self, pool: ThreadPoolExecutor, db: sqlite3.Connection) -> None:
        """In the writer's thread, so that nothing cuts it short: end the readers, and leave one
        file behind, without a log, if nobody else uses it."""
        self._commits.forget()
        pool.shutdown()
        while not self._idle.empty():
            self._idle.get_nowait().close()
        # If it can't be done nothing is lost: what is not in the file is in the log beside it.
        with suppress(sqlite3.Error):
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    # Writing --------------------------------------------------------------------------------------

    async def commit(self, commit: Commit) -> str:
        """See `Store.commit`."""
        return await self._write().submit(True, self._commits.commit, commit)

    async def create(self, run: NewRun) -> str:
        """See `Store.create`."""
        return await self._write().submit(True, self._commits.create, run)

    async def send(self, messages: Sequence[NewMessage]) -> builtins.list[bool]:
        """See `Store.send`."""
        return await self._write().submit(True, self._commits.send, messages)

    async def register(self, worker: WorkerRow) -> None:
        """See `Store.register`."""
        await self._write().submit(False, claims.register, worker)

    async def unregister(self, worker: str) -> None:
        """See `Store.unregister`."""
        await self._write().submit(True, claims.unregister, worker)

    async def claim(
        self,
        worker: str,
        workflows: Sequence[str],
        now: float,
        limit: int,
        dead: Sequence[str] = (),
    ) -> builtins.list[RunRow]:
        """See `Store.claim`."""
        return await self._write().submit(False, claims.claim, worker, workflows, now, limit, dead)

    async def claim_one(
        self, worker: str, run: str, now: float, dead: Sequence[str] = ()
    ) -> RunRow | None:
        """See `Store.claim_one`."""
        return await self._write().submit(False, claims.claim_one, worker, run, now, dead)

    async def delete(self, runs: Sequence[str]) -> int:
        """See `Store.delete`."""
        return await self._write().submit(True, upkeep.delete, runs)

    async def changed(self, timeout: float) -> None:
        """See `Store.changed`."""
        await self._write().changed(timeout)

    # Reading --------------------------------------------------------------------------------------

    async def next_due(self, workflows: Sequence[str], now: float) -> float | None:
        """See `Store.next_due`."""
        return await self._read(claims.next_due, workflows, now)

    async def verify(self) -> builtins.list[str]:
        """See `Store.verify`."""
        return await self._read(upkeep.verify, self._where)

    async def backup(self, path: str) -> None:
        """See `Store.backup`. Raises `StoreError` when the file is there already."""
        await self._read(upkeep.backup, self._path, path)

    # Threads --------------------------------------------------------------------------------------

    def _write(self) -> Writer:
        if self._writer is None:
            raise not_open(self.url)
        self._check_process()
        return self._writer

    def _check_open(self) -> None:
        self._write()

    def _with_reader(self, work: Callable[[sqlite3.Connection], T]) -> T:
        reader = self._idle.get_nowait()  # there are as many connections as threads
        try:
            return work(reader)
        except sqlite3.Error as error:
            raise translate(error, str(self._path)) from error
        finally:
            self._idle.put(reader)

    def _check_process(self) -> None:
        """SQLite connections and threads do not survive a fork; using them would harm the file."""
        if os.getpid() != self._pid:
            raise forked(self.url, self._pid)

    def _check_inherited(self) -> None:
        """Nor may a forked process open a file anew that was open when it was forked."""
        for (path, pid), opened in _open_files.items():
            if path == self._path and pid != os.getpid() and opened:
                raise forked(self.url, pid)
