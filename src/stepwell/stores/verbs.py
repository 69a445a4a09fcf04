"""What the async faces of the stores have in common: a verb is handed on, and nothing else.

Two mixins, flat and independent, for stores that hand their verbs on in the same way: those that
write as jobs to one writer (`WritingVerbs`), those that read as functions of a connection to a pool
of threads (`ReadingVerbs`). What a job or a question is, who does it, and what may go wrong with
it is each store's own; nothing here knows a database.
"""

from __future__ import annotations

import asyncio
import builtins
import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Generic, Protocol, TypeVar, TypeVarTuple

from stepwell.errors import StoreError, StoreUnavailable
from stepwell.stores.base import (
    Commit,
    JournalRow,
    Loaded,
    MessageRow,
    NewMessage,
    NewRun,
    Page,
    RunFilter,
    RunRow,
    WorkerRow,
)
from stepwell.stores.loads import Loads
from stepwell.values import RunStatus

PATIENCE = 15.0
"""Seconds after which whoever writes is told that nobody knows what became of it."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Db = TypeVar("Db")
Db_contra = TypeVar("Db_contra", contravariant=True)
Args = TypeVarTuple("Args")


def not_open(url: str) -> StoreUnavailable:
    """What is raised by a store that is not open."""
    return StoreUnavailable(
        f"{url} is not open",
        hint="Use it inside of `async with Engine(...)`; await open() of a store alone.",
    )


def forked(url: str, pid: int) -> StoreError:
    """What is raised by a store that process `pid` opened, in one that was forked from it."""
    return StoreError(
        f"{url} was opened in process {pid} and is used in {os.getpid()}, its fork",
        hint="Open stores after forking, or start processes by spawning them.",
    )


# Writing ------------------------------------------------------------------------------------------


class Job(Protocol[T_co]):
    """A verb that writes, as data; `decode` makes its result of what is answered."""

    @property
    def decode(self) -> Callable[[Any], T_co]: ...


class Jobs(Protocol):
    """Makes jobs of verbs: each store has a module of such functions."""

    def commit(self, commit: Commit, /) -> Job[str]: ...
    def create(self, new: NewRun, /) -> Job[str]: ...
    def send(self, messages: Sequence[NewMessage], /) -> Job[list[bool]]: ...
    def register(self, worker: WorkerRow, /) -> Job[None]: ...
    def unregister(self, worker: str, /) -> Job[None]: ...
    def claim(
        self, worker: str, workflows: Sequence[str], now: float, limit: int, dead: Sequence[str], /
    ) -> Job[list[RunRow]]: ...
    def claim_one(
        self, worker: str, run: str, now: float, dead: Sequence[str], /
    ) -> Job[RunRow | None]: ...


class WritingVerbs(ABC):
    """The verbs that write, of a store that does them as jobs. (`delete` is each store's own.)

    What became of a job may not be known while the server is away. Who asks for a commit or a claim
    waits until it is: a turn is not to be kept twice, and a claim that nobody knows of would hold
    its run still. All others are told after `PATIENCE` seconds.
    """

    _jobs: Jobs

    @property
    @abstractmethod
    def url(self) -> str:
        """See `Store.url`."""

    @abstractmethod
    def _submit(self, job: Job[T]) -> Awaitable[T]:
        """Have one of `_jobs`'s jobs done."""

    async def _in_time(self, job: Job[T]) -> T:
        """`_submit`, for those who may be told that nobody knows what became of it."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._submit(job)
        except TimeoutError:
            raise StoreUnavailable(
                f"{self.url} did not say within {PATIENCE:g} s whether it kept what was sent",
                hint="It may have, or may do so when it is back. Look before you do it again.",
            ) from None

    async def commit(self, commit: Commit) -> str:
        """See `Store.commit`."""
        return await self._submit(self._jobs.commit(commit))

    async def create(self, run: NewRun) -> str:
        """See `Store.create`."""
        return await self._in_time(self._jobs.create(run))

    async def send(self, messages: Sequence[NewMessage]) -> builtins.list[bool]:
        """See `Store.send`."""
        return await self._in_time(self._jobs.send(messages))

    async def register(self, worker: WorkerRow) -> None:
        """See `Store.register`."""
        await self._in_time(self._jobs.register(worker))

    async def unregister(self, worker: str) -> None:
        """See `Store.unregister`."""
        await self._in_time(self._jobs.unregister(worker))

    async def claim(
        self,
        worker: str,
        workflows: Sequence[str],
        now: float,
        limit: int,
        dead: Sequence[str] = (),
    ) -> builtins.list[RunRow]:
        """See `Store.claim`."""
        return await self._submit(self._jobs.claim(worker, workflows, now, limit, dead))

    async def claim_one(
        self, worker: str, run: str, now: float, dead: Sequence[str] = ()
    ) -> RunRow | None:
        """See `Store.claim_one`."""
        return await self._submit(self._jobs.claim_one(worker, run, now, dead))


# Reading ------------------------------------------------------------------------------------------


class Queries(Protocol[Db_contra]):
    """The verbs that read, as functions of a connection: each store has a module of them."""

    def workers(self, db: Db_contra, /) -> list[WorkerRow]: ...
    def load_many(self, db: Db_contra, runs: Sequence[str], /) -> list[Loaded]: ...
    def inbox(self, db: Db_contra, worker: str, /) -> list[str]: ...
    def messages(self, db: Db_contra, run: str, after: int, /) -> list[MessageRow]: ...
    def get(self, db: Db_contra, run: str, /) -> RunRow | None: ...
    def find(self, db: Db_contra, workflow: str, key: str, /) -> str | None: ...
    def page(self, db: Db_contra, where: RunFilter, /) -> Page: ...
    def counts(self, db: Db_contra, /) -> dict[tuple[str, RunStatus], int]: ...
    def read(self, db: Db_contra, run: str, after: int, limit: int, /) -> list[JournalRow]: ...
    def blob(self, db: Db_contra, digest: str, where: str, /) -> bytes: ...
    def expired(self, db: Db_contra, ended_before: float, limit: int, /) -> list[str]: ...


class ReadingVerbs(ABC, Generic[Db]):
    """The verbs that read, of a store that does them in threads, on connections. (`next_due` and
    `verify` are each store's own.)"""

    _queries: Queries[Db]
    _where: str
    """What messages call the database."""
    _pool: ThreadPoolExecutor | None = None
    _loads: Loads

    @abstractmethod
    def _check_open(self) -> None:
        """Raise `StoreError` unless the store is open, in this process."""

    @abstractmethod
    def _with_reader(self, work: Callable[[Db], T]) -> T:
        """In a thread of the pool: `work` on a connection."""

    def _begin_reading(self, pool: ThreadPoolExecutor) -> None:
        """From now on, read in the threads of this pool."""
        self._pool = pool
        self._loads = Loads(
            pool, lambda runs: self._with_reader(lambda db: self._queries.load_many(db, runs))
        )

    async def _read(self, work: Callable[[Db, *Args], T], *args: *Args) -> T:
        """`work(connection, *args)` in a thread of the pool."""
        self._check_open()
        job = partial(self._with_reader, lambda db: work(db, *args))
        return await asyncio.get_running_loop().run_in_executor(self._pool, job)

    async def workers(self) -> builtins.list[WorkerRow]:
        """See `Store.workers`."""
        return await self._read(self._queries.workers)

    async def load(self, run: str) -> Loaded | None:
        """See `Store.load`."""
        self._check_open()
        return await self._loads.load(run)

    async def load_many(self, runs: Sequence[str]) -> builtins.list[Loaded]:
        """See `Store.load_many`."""
        return await self._read(self._queries.load_many, runs)

    async def inbox(self, worker: str) -> builtins.list[str]:
        """See `Store.inbox`."""
        return await self._read(self._queries.inbox, worker)

    async def messages(self, run: str, after: int = 0) -> builtins.list[MessageRow]:
        """See `Store.messages`."""
        return await self._read(self._queries.messages, run, after)

    async def get(self, run: str) -> RunRow | None:
        """See `Store.get`."""
        return await self._read(self._queries.get, run)

    async def find(self, workflow: str, key: str) -> str | None:
        """See `Store.find`."""
        return await self._read(self._queries.find, workflow, key)

    async def list(self, where: RunFilter) -> Page:
        """See `Store.list`."""
        return await self._read(self._queries.page, where)

    async def counts(self) -> dict[tuple[str, RunStatus], int]:
        """See `Store.counts`."""
        return await self._read(self._queries.counts)

    async def read(self, run: str, after: int = 0, limit: int = 1000) -> builtins.list[JournalRow]:
        """See `Store.read`."""
        return await self._read(self._queries.read, run, after, limit)

    async def blob(self, digest: str) -> bytes:
        """See `Store.blob`."""
        return await self._read(self._queries.blob, digest, self._where)

    async def expired(self, ended_before: float, limit: int) -> builtins.list[str]:
        """See `Store.expired`."""
        return await self._read(self._queries.expired, ended_before, limit)
