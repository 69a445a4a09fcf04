"""The one thread that writes: group commit.

Jobs queue up while a transaction is on its way to the disk; the thread then takes all that wait
and runs them in one transaction, so that 64 committers share one fsync. It knows neither what a
job does nor what a run is. What it promises:

* a job's future completes after the transaction that holds its work is on the disk, and not before;
* a job that fails takes nothing else with it. Failing is either *refusing* (`LeaseLost`,
  `RunAlreadyExists`), which a job may do only before its first write, so that the others simply go
  on; or anything else, after which the transaction is rolled back and every job of the group runs
  again in a transaction of its own. Jobs must bear being run again after a rollback. This way the
  usual group needs no savepoints;
* futures complete with one call into the event loop per group, not one per job.

The thread also looks for what other processes committed, while someone waits for it: on this very
connection SQLite's `data_version` changes with other connections' commits and not with our own.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import NamedTuple, TypeVar, TypeVarTuple

from stepwell.errors import LeaseLost, RunAlreadyExists, StoreUnavailable
from stepwell.stores.deliveries import Deliveries, Done
from stepwell.stores.sqlite.connection import retrying
from stepwell.stores.sqlite.errors import translate

OnWrite = Callable[[str, int], None]
T = TypeVar("T")
Args = TypeVarTuple("Args")

# How many jobs share a transaction at most: bounds the time the first of them waits.
_GROUP = 512
# How often other processes' commits are looked for while someone waits.
_POLL_SECONDS = 0.025
# Errors that a job raises before it has written anything.
_REFUSALS = (LeaseLost, RunAlreadyExists)


class _Job(NamedTuple):
    work: Callable[..., object]
    args: tuple[object, ...]
    future: asyncio.Future[object]
    loop: asyncio.AbstractEventLoop
    loud: bool  # whether those who wait for changes shall hear of it


class _Stop(NamedTuple):
    """The last item of the queue; `stopped` completes when all is released."""

    stopped: Future[None]


class Writer:
    """Owns the writing connection and its thread.

    Args:
        connect: opens the connection; called in the thread.
        disconnect: called in the thread after the last job, with the connection still open.
        path: the database, for messages.
        busy_timeout: seconds to wait for another process's write lock.
        on_rollback: called when work that jobs saw succeed was undone.
        on_write: called in the thread just before ("before") and just after ("after") each
            transaction that wrote something is committed, with its number: 1, 2, 3, ...
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        disconnect: Callable[[sqlite3.Connection], None],
        *,
        path: str,
        busy_timeout: float,
        on_rollback: Callable[[], None],
        on_write: OnWrite | None = None,
    ) -> None:
        self._connect = connect
        self._disconnect = disconnect
        self._path = path
        self._busy_timeout = busy_timeout
        self._on_rollback = on_rollback
        self._on_write = on_write
        self.transactions = 0  # committed ones that wrote something
        self._queue: SimpleQueue[_Job | _Stop | None] = SimpleQueue()
        self._deliveries = Deliveries()
        self._waiting: set[object] = set()
        self._seen_version = 0
        self._closed = False
        self._opened: Future[None] = Future()
        self._opened.set_running_or_notify_cancel()
        # A daemon: an open store that was forgotten must not keep the process from ending.
        self._thread = threading.Thread(target=self._main, name="stepwell-sqlite", daemon=True)

    # In the event loop ----------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the connection; raises what `connect` raised."""
        self._thread.start()
        await asyncio.wrap_future(self._opened)

    async def stop(self) -> None:
        """Finish the jobs that were submitted, then disconnect."""
        if self._closed:
            return
        self._closed = True
        stop = _Stop(Future())
        stop.stopped.set_running_or_notify_cancel()
        self._queue.put(stop)
        await asyncio.shield(asyncio.wrap_future(stop.stopped))
        self._thread.join()

    def submit(
        self,
        loud: bool,
        work: Callable[[sqlite3.Connection, *Args], T],
        *args: *Args,
    ) -> asyncio.Future[T]:
        """Have `work(connection, *args)` done in the next transaction. The future completes when it
        is on the disk. `loud`: let go of those who wait in `changed`."""
        if self._closed:
            raise StoreUnavailable(f"the store {self._path} is closed", hint="Open it again.")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put(_Job(work, args, future, loop, loud))  # pyright: ignore[reportArgumentType] # Future is invariant
        return future

    async def changed(self, timeout: float) -> None:
        """Wait for a loud job or for another connection's commit, up to `timeout` seconds."""
        token = object()
        self._waiting.add(token)
        self._queue.put(None)  # the thread looks now, and then every _POLL_SECONDS
        try:
            await self._deliveries.changed(timeout)
        finally:
            self._waiting.discard(token)

    # In the thread --------------------------------------------------------------------------------

    def _main(self) -> None:
        try:
            db = self._connect()
        except BaseException as error:
            self._closed = True
            self._opened.set_exception(error)
            self._refuse_rest()
            return
        self._seen_version = _data_version(db)
        self._opened.set_result(None)
        stop: _Stop | None = None
        while stop is None:
            group, stop = self._take()
            if group:
                self._transact(db, group)
            if self._waiting:
                self._look_for_others(db)
        try:
            self._disconnect(db)
        except Exception as error:
            stop.stopped.set_exception(self._say(error))
        else:
            stop.stopped.set_result(None)
        finally:
            db.close()
            self._refuse_rest()

    def _take(self) -> tuple[list[_Job], _Stop | None]:
        """All jobs that wait, at least one item; none after a nudge or a poll's time."""
        group: list[_Job] = []
        try:
            item = self._queue.get(timeout=_POLL_SECONDS if self._waiting else None)
            while True:
                if isinstance(item, _Job):
                    group.append(item)
                    if len(group) == _GROUP:
                        break
                elif item is not None:
                    return group, item
                item = self._queue.get_nowait()
        except Empty:
            pass
        return group, None

    def _transact(self, db: sqlite3.Connection, group: Sequence[_Job]) -> None:
        done: list[Done] = []
        try:
            retrying(lambda: db.execute("BEGIN IMMEDIATE"), self._busy_timeout)
            before = db.total_changes
        except Exception as error:
            self._fail(group, error)
            return
        for job in group:
            try:
                result = job.work(db, *job.args)
            except _REFUSALS as error:
                done.append(Done(job.future, job.loop, None, error))
            except Exception as error:
                self._roll_back(db)
                if len(group) == 1:
                    self._fail(group, error)
                    return
                for each in group:
                    self._transact(db, (each,))
                return
            else:
                done.append(Done(job.future, job.loop, result, None))
        try:
            wrote = db.total_changes != before
            self._commit(db, wrote)
        except Exception as error:
            self._roll_back(db)
            self._fail(group, error)
        else:
            self._deliveries.complete(done, wrote and any(job.loud for job in group))

    def _commit(self, db: sqlite3.Connection, wrote: bool) -> None:
        if not wrote:
            db.execute("COMMIT")
            return
        number = self.transactions + 1
        if self._on_write is not None:
            self._on_write("before", number)
        db.execute("COMMIT")
        self.transactions = number
        if self._on_write is not None:
            self._on_write("after", number)

    def _roll_back(self, db: sqlite3.Connection) -> None:
        self._on_rollback()
        if db.in_transaction:  # SQLite may have done it by itself, as when the disk is full
            db.execute("ROLLBACK")

    def _look_for_others(self, db: sqlite3.Connection) -> None:
        try:
            version = _data_version(db)
        except sqlite3.Error:
            version = -1  # whoever wakes meets the same error, in a verb that can say so
        if version != self._seen_version:
            self._seen_version = version
            self._deliveries.complete((), loud=True)

    def _fail(self, group: Sequence[_Job], error: Exception) -> None:
        done = [Done(job.future, job.loop, None, self._say(error)) for job in group]
        self._deliveries.complete(done, loud=False)

    def _say(self, error: Exception) -> Exception:
        if not isinstance(error, sqlite3.Error):
            return error
        said = translate(error, self._path)
        said.__cause__ = error
        return said

    def _refuse_rest(self) -> None:
        """What was submitted while the thread was ending."""
        rest: list[_Job] = []
        while not self._queue.empty():
            item = self._queue.get_nowait()
            if isinstance(item, _Job):
                rest.append(item)
            elif item is not None:
                item.stopped.set_result(None)
        self._fail(rest, StoreUnavailable(f"the store {self._path} is closed"))


def _data_version(db: sqlite3.Connection) -> int:
    return db.execute("PRAGMA data_version").fetchone()[0]
