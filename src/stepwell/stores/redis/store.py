"""The async face of the Redis store: verbs that write go to the one writer, the others to readers.

Connections belong to the event loop that opened the store; no thread is needed, since nothing here
waits for a disk of this machine.
"""

from __future__ import annotations

import asyncio
import builtins
import os
from collections.abc import Sequence
from typing import TypeVar, cast

from stepwell.errors import StoreError
from stepwell.stores.base import (
    Feature,
    JournalRow,
    Loaded,
    MessageRow,
    Page,
    RunFilter,
    RunRow,
    WorkerRow,
)
from stepwell.stores.changes import Changes
from stepwell.stores.redis import jobs
from stepwell.stores.redis.listener import Listener
from stepwell.stores.redis.place import Survival, parse
from stepwell.stores.redis.reads import Reads
from stepwell.stores.redis.writer import OnWrite, Writer
from stepwell.stores.verbs import Job, WritingVerbs, forked, not_open
from stepwell.values import RunStatus

T = TypeVar("T")

# A script holds the server up while it runs, so that long work is done in pieces.
_DELETED_AT_ONCE = 100


class RedisStore(WritingVerbs):
    """Keeps runs on a Redis server (7 or later), shared by any number of processes on any number
    of machines.

    Args:
        url: `redis://user:password@host:port/database`, `rediss://` for TLS, or
            `redis:///0?socket=/run/redis.sock`. Options: `prefix` (default "stepwell": what all
            keys begin with, in braces), `waitaof=1` (each group of writes waits until it is on the
            server's disk; Redis 7.2 or later), and for TLS `ssl_ca_certs`, `ssl_certfile`,
            `ssl_keyfile`, `ssl_cert_reqs`, `ssl_check_hostname`.
        read_connections: how many reads may go on at the same time.
        on_write: for crash tests: called as `on_write("before", n)` just before group n of this
            store is sent, and `on_write("after", n)` just after it was answered, before anyone
            hears of it.

    What a commit survives is the server's to say: see `durability`.

    Raises `ValueError` for arguments that make no sense.

    >>> store = RedisStore("redis://me:secret@db.example.com?prefix=flows")
    >>> store.url
    'redis://me@db.example.com?prefix=flows'
    """

    _jobs = jobs

    def __init__(
        self, url: str, *, read_connections: int = 4, on_write: OnWrite | None = None
    ) -> None:
        if read_connections < 1:
            raise ValueError(f"read_connections is 1 or more, not {read_connections!r}")
        self._place = parse(url)
        self._read_connections = read_connections
        self._on_write = on_write
        self._survival = Survival("none", "not asked yet")
        self._writer: Writer | None = None
        self._reads: Reads | None = None
        self._listener: Listener | None = None
        self._changes = Changes()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    @property
    def url(self) -> str:
        """Which server, database and prefix, without the password."""
        return self._place.url

    @property
    def durability(self) -> str:
        """What the server's settings make of a commit, half a minute ago at the earliest: "power"
        with `appendfsync always` (or `waitaof=1`), "process" with another append-only file, "none"
        without one, and before the store was opened."""
        return (self._survival if self._writer is None else self._writer.survival).durability

    def supports(self, feature: Feature) -> bool:
        """Multiprocess and verify; persistent when the server keeps a file. Copies are made with
        BGSAVE."""
        if feature == "persistent":
            return self.durability != "none"
        return feature in ("multiprocess", "verify")

    async def open(self) -> None:
        """See `Store.open`."""
        if self._writer is not None:
            self._check_place()
            return
        writer = Writer(self._place, self._changes, self._on_write)
        await writer.start()
        if self._writer is not None:  # opened twice at once: the first one stays
            await writer.stop()
            return
        self._writer = writer
        self._reads = Reads(self._place, self._read_connections)
        self._loop, self._pid = asyncio.get_running_loop(), os.getpid()

    async def close(self) -> None:
        """See `Store.close`."""
        if self._writer is None or self._reads is None:
            return
        self._check_place()
        self._survival = self._writer.survival
        writer, self._writer = self._writer, None
        reads, self._reads = self._reads, None
        listener, self._listener = self._listener, None
        try:
            await writer.stop()
        finally:
            await reads.close()
            if listener is not None:
                await listener.stop()
            self._changes.bump()

    # Writing --------------------------------------------------------------------------------------

    def _submit(self, job: Job[T]) -> asyncio.Future[T]:
        return self._write().submit(cast("jobs.Job[T]", job))  # `_jobs` makes no others

    async def delete(self, runs: Sequence[str]) -> int:
        """See `Store.delete`. Each hundred runs go at once, so that the server is never held up."""
        deleted = 0
        for n in range(0, len(runs), _DELETED_AT_ONCE):
            deleted += await self._in_time(jobs.delete(runs[n : n + _DELETED_AT_ONCE]))
        return deleted

    async def changed(self, timeout: float) -> None:
        """See `Store.changed`. The first call waits until the listening connection is open."""
        writer = self._write()
        if self._listener is None:
            self._listener = Listener(self._place, writer.id, self._changes)
        await self._listener.begun.wait()
        await self._changes.wait(timeout)

    # Reading --------------------------------------------------------------------------------------

    async def workers(self) -> builtins.list[WorkerRow]:
        """See `Store.workers`."""
        return await self._read().workers()

    async def next_due(self, workflows: Sequence[str], now: float) -> float | None:
        """See `Store.next_due`."""
        return await self._read().next_due(workflows, now)

    async def load(self, run: str) -> Loaded | None:
        """See `Store.load`."""
        found = await self._read().load_many((run,))
        return found[0] if found else None

    async def load_many(self, runs: Sequence[str]) -> builtins.list[Loaded]:
        """See `Store.load_many`."""
        return await self._read().load_many(runs)

    async def inbox(self, worker: str) -> builtins.list[str]:
        """See `Store.inbox`."""
        return await self._read().inbox(worker)

    async def messages(self, run: str, after: int = 0) -> builtins.list[MessageRow]:
        """See `Store.messages`."""
        return await self._read().messages(run, after)

    async def get(self, run: str) -> RunRow | None:
        """See `Store.get`."""
        return await self._read().get(run)

    async def find(self, workflow: str, key: str) -> str | None:
        """See `Store.find`."""
        return await self._read().find(workflow, key)

    async def list(self, where: RunFilter) -> Page:
        """See `Store.list`."""
        return await self._read().page(where)

    async def counts(self) -> dict[tuple[str, RunStatus], int]:
        """See `Store.counts`."""
        return await self._read().counts()

    async def read(self, run: str, after: int = 0, limit: int = 1000) -> builtins.list[JournalRow]:
        """See `Store.read`."""
        return await self._read().read(run, after, limit)

    async def blob(self, digest: str) -> bytes:
        """See `Store.blob`."""
        return await self._read().blob(digest)

    async def expired(self, ended_before: float, limit: int) -> builtins.list[str]:
        """See `Store.expired`."""
        return await self._read().expired(ended_before, limit)

    async def backup(self, path: str) -> None:
        """Not here: raises `StoreError`, which names BGSAVE."""
        raise StoreError(
            f"{self.url} is copied with Redis's own tools, not to {path}",
            hint="redis-cli --rdb FILE takes a consistent copy while runs go on.",
        )

    async def verify(self) -> builtins.list[str]:
        """See `Store.verify`. Runs are looked at a few hundred at a time, while others go on."""
        return await self._read().verify()

    # What is open ---------------------------------------------------------------------------------

    def _write(self) -> Writer:
        if self._writer is None:
            raise not_open(self.url)
        self._check_place()
        return self._writer

    def _read(self) -> Reads:
        if self._reads is None:
            raise not_open(self.url)
        self._check_place()
        return self._reads

    def _check_place(self) -> None:
        """A connection used by two processes or two loops would mix up their answers."""
        if os.getpid() != self._pid:
            raise forked(self.url, self._pid)
        if asyncio.get_running_loop() is not self._loop:
            raise StoreError(
                f"{self.url} was opened in another event loop",
                hint="Use one RedisStore for each event loop.",
            )
