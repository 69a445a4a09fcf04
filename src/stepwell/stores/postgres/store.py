"""The async face of the PostgreSQL store: sends every verb to the thread it belongs to.

Verbs that write become jobs of the one `Writer`; verbs that read run in a small pool of threads,
each with a connection of its own. The event loop never waits for the server.
"""

from __future__ import annotations

import asyncio
import builtins
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, LifoQueue
from typing import TypeVar, cast

import psycopg

from stepwell.errors import StoreError
from stepwell.stores.base import Feature
from stepwell.stores.postgres import jobs, reads, upkeep
from stepwell.stores.postgres.errors import is_lost, translate
from stepwell.stores.postgres.listener import Listener
from stepwell.stores.postgres.place import Connection, Durability, parse
from stepwell.stores.postgres.writer import OnWrite, Writer
from stepwell.stores.verbs import Job, ReadingVerbs, WritingVerbs, forked, not_open

T = TypeVar("T")


class PostgresStore(WritingVerbs, ReadingVerbs[Connection]):
    """Keeps runs in a schema of a PostgreSQL database (13 or later), shared by any number of
    processes on any number of machines.

    Args:
        url: `postgresql://user:password@host:port/database?option=value` with libpq's options and
            two more: `schema` (default "stepwell"; it is created when it is not there, the database
            is not) and `durability`. Also several hosts, or a socket's directory: `?host=/run/pg`.
        durability: what an acknowledged commit survives: "power" (every commit is on the server's
            disk) or "process" (a crash of this process, but a crash of the server may take the last
            commits). Goes before the one of the URL.
        lock_timeout: seconds to wait for rows that another transaction holds, before `StoreLocked`.
            All writes of this process wait so long, so it should be well below a worker's lease.
        read_connections: how many reads may go on at the same time.
        on_write: for crash tests: called in the writer's thread as `on_write("before", n)` just
            before group n of this store is sent, and `on_write("after", n)` just after it was kept,
            before anyone hears of it.

    Raises `ValueError` for arguments that make no sense.

    >>> store = PostgresStore("postgresql://me:secret@db.example.com/app?schema=flows")
    >>> store.url
    'postgresql://me@db.example.com/app?schema=flows'
    """

    _jobs = jobs
    _queries = reads

    def __init__(
        self,
        url: str,
        *,
        durability: Durability | None = None,
        lock_timeout: float = 2.0,
        read_connections: int = 2,
        on_write: OnWrite | None = None,
    ) -> None:
        if lock_timeout <= 0:
            raise ValueError(f"lock_timeout is in seconds, more than 0, not {lock_timeout!r}")
        if read_connections < 1:
            raise ValueError(f"read_connections is 1 or more, not {read_connections!r}")
        self._place, kept = parse(url, durability, lock_timeout)
        self._where = self._place.url
        self._durability: Durability = kept
        self._read_connections = read_connections
        self._on_write = on_write
        self._writer: Writer | None = None
        self._listener: Listener | None = None
        self._idle: LifoQueue[Connection] = LifoQueue()
        self._pid = 0
        self._switching = asyncio.Lock()

    @property
    def url(self) -> str:
        """Which database and schema, without the password."""
        return self._place.url

    @property
    def durability(self) -> str:
        """As asked for; "process" when the server turned out to run with `fsync = off`."""
        if self._writer is not None and not self._writer.survives_power:
            return "process"
        return self._durability

    def supports(self, feature: Feature) -> bool:
        """Persistent, multiprocess and verify; copies are made with pg_dump."""
        return feature in ("persistent", "multiprocess", "verify")

    async def open(self) -> None:
        """See `Store.open`."""
        async with self._switching:
            if self._writer is not None:
                self._check_process()
                return
            writer = Writer(self._place, self._durability, self._on_write)
            try:
                await writer.start()
            except BaseException:
                await writer.stop()
                raise
            self._pid = os.getpid()
            self._begin_reading(
                ThreadPoolExecutor(self._read_connections, "stepwell-postgres-read")
            )
            self._writer = writer

    async def close(self) -> None:
        """See `Store.close`."""
        async with self._switching:
            if self._writer is None:
                return
            self._check_process()
            writer, self._writer = self._writer, None
            listener, self._listener = self._listener, None
            pool, self._pool = self._pool, None
            await asyncio.shield(asyncio.ensure_future(self._end(writer, listener, pool)))

    async def _end(
        self, writer: Writer, listener: Listener | None, pool: ThreadPoolExecutor | None
    ) -> None:
        try:
            await writer.stop()
        finally:
            if listener is not None:
                await asyncio.to_thread(listener.stop)
            if pool is not None:
                await asyncio.to_thread(pool.shutdown)
            while not self._idle.empty():
                self._idle.get_nowait().close()

    # Writing --------------------------------------------------------------------------------------

    def _submit(self, job: Job[T]) -> asyncio.Future[T]:
        return self._write().submit(cast("jobs.Job[T]", job))  # `_jobs` makes no others

    async def delete(self, runs: Sequence[str]) -> int:
        """See `Store.delete`."""
        return await self._in_time(jobs.delete(runs))

    async def changed(self, timeout: float) -> None:
        """See `Store.changed`. The first call opens the listening connection."""
        writer = self._write()
        if self._listener is None:
            self._listener = Listener(self._place, writer.bump, lambda: writer.pid)
        ready = self._listener.ready
        if not ready.done():
            await asyncio.shield(asyncio.wrap_future(ready))
        await writer.changed(timeout)

    # Reading --------------------------------------------------------------------------------------

    async def next_due(self, workflows: Sequence[str], now: float) -> float | None:
        """See `Store.next_due`."""
        return await self._read(reads.next_due, workflows, now)

    async def verify(self) -> builtins.list[str]:
        """See `Store.verify`."""
        return await self._read(upkeep.verify, self._where)

    async def backup(self, path: str) -> None:
        """Not here: raises `StoreError`, which names pg_dump."""
        schema = self._place.schema
        raise StoreError(
            f"{self.url} is copied with PostgreSQL's own tools, not to {path}",
            hint=f"pg_dump --schema={schema} takes a consistent copy while runs go on;"
            " pg_restore brings it back.",
        )

    # Threads --------------------------------------------------------------------------------------

    def _write(self) -> Writer:
        if self._writer is None:
            raise not_open(self.url)
        self._check_process()
        return self._writer

    def _check_open(self) -> None:
        self._write()

    def _with_reader(self, work: Callable[[Connection], T]) -> T:
        """A connection that broke since it was used last, as when the server was started again, is
        made anew, and the read is done once more: reading twice does no harm."""
        fresh = False
        while True:
            try:
                reader = self._idle.get_nowait()
            except Empty:
                reader, fresh = self._place.connect_reader(), True
            try:
                result = work(reader)
            except psycopg.Error as error:
                if is_lost(error, reader):
                    reader.close()
                    if not fresh:
                        continue
                else:
                    self._idle.put(reader)
                raise translate(error, self.url) from error
            except BaseException:
                self._idle.put(reader)
                raise
            self._idle.put(reader)
            return result

    def _check_process(self) -> None:
        """A connection used by two processes would mix up their answers."""
        if os.getpid() != self._pid:
            raise forked(self.url, self._pid)
