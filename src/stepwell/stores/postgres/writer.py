"""The one thread that writes: group commit, and never twice.

Jobs queue up while a group is on its way; the thread then takes all that wait and sends them as one
call of `write_group`: one round trip, one transaction, one wait for the disk, however many turns
are in it. It knows neither what a job does nor what a run is. What it promises:

* a job's future completes after the transaction that holds its work was acknowledged, not before;
* a job that fails takes nothing else with it. What is refused is an answer, and the others go on;
  after any other error the group is sent again, each job by itself;
* **a group is kept once.** When the connection breaks while a group is under way, nobody here knows
  whether it was kept. So groups are numbered, the database keeps the last number and its answer in
  the group's own transaction, and the group is sent again, under its number, until the server says
  what became of it. Its jobs wait for that; failing them would make their callers write it twice.
  Every job that was not sent yet is told at once that the store can't be reached;
* a server that comes back without what it had acknowledged (it crashed and was not told to wait for
  its disk, or an old copy took its place) is noticed: then the runs of this process are let go of,
  and are taken up again from what is there.

Other processes are told to look by a NOTIFY of its own, after the group: a NOTIFY inside it would
make all writing processes wait for each other's disks. Many groups in a row share one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, LiteralString, NamedTuple, TypeAlias, TypeVar, cast

import psycopg

from stepwell.errors import StoreError, StoreUnavailable
from stepwell.stores.deliveries import Deliveries, Done
from stepwell.stores.postgres.errors import is_lost, may_go_better, translate
from stepwell.stores.postgres.jobs import Job, Payloads, Raw, RawDumper, Utf8, Utf8Dumper
from stepwell.stores.postgres.place import Connection, Durability, Place
from stepwell.stores.postgres.statements import SQL

OnWrite = Callable[[str, int], None]
T = TypeVar("T")

logger = logging.getLogger("stepwell")

_WRITE_GROUP = cast(LiteralString, SQL["write_group"])
_WRITE_GROUP_IN_PIECES = cast(LiteralString, SQL["write_group_in_pieces"])
_HOLD_PIECES = cast(LiteralString, SQL["hold_pieces"])
_HOLD_AS_THEY_ARE = cast(LiteralString, SQL["hold_as_they_are"])
_ADD_PIECE = cast(LiteralString, SQL["add_piece"])
_ANNOUNCE = cast(LiteralString, SQL["announce"])
_SIGN_OFF = cast(LiteralString, SQL["sign_off"])
_NOTIFY = cast(LiteralString, SQL["notify"])

# How many jobs, and how many bytes, share a transaction at most: bounds the time that the first of
# them waits.
_GROUP = 256
_GROUP_BYTES = 4 * 1024 * 1024
_PIECE = 512 * 1024
# Between two notifications to other processes.
_NOTIFY_SECONDS = 0.01
# Between two tries to reach the server again; grows up to the second.
_AGAIN_SECONDS = (0.05, 2.0)
# After these a new connection is made: the server became a standby, and another may be the primary
# now; or it does not know this store (its place was cleaned up after a month of silence).
_ANEW = ("25006", "SW001")
# How often a group that met a deadlock is sent again as it is.
_DEADLOCKS = 3


_Head: TypeAlias = tuple[str, int, list[str], str]  # writer, number, runs to lock, jobs


class _Item(NamedTuple):
    job: Job[Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class Writer:
    """Owns the writing connection and its thread.

    Args:
        place: where to connect.
        durability: whether commits wait for the disk.
        on_write: called in the thread just before ("before") each group is sent and just after
            ("after") it was kept, with its number: 1, 2, 3, ...
    """

    def __init__(self, place: Place, durability: Durability, on_write: OnWrite | None) -> None:
        self.id = uuid.uuid4().hex
        self.number = 0  # of the last group that was kept
        self.pid = 0  # of the server's process, by which our own notifications are told
        self.survives_power = durability == "power"
        self._place = place
        self._durability: Durability = durability
        self._on_write = on_write
        self._db: Connection | None = None
        self._workers: set[str] = set()
        self._queue: SimpleQueue[_Item | None] = SimpleQueue()
        self._deliveries = Deliveries()
        self._closing = threading.Event()
        self._gathering: Connection | None = None  # which has a place for pieces
        self._in_pieces = True
        self._notify_owed = False
        self._notified = 0.0
        self._opened: Future[None] = Future()
        self._opened.set_running_or_notify_cancel()
        self._stopped: Future[None] = Future()
        self._stopped.set_running_or_notify_cancel()
        # A daemon: an open store that was forgotten must not keep the process from ending.
        self._thread = threading.Thread(target=self._main, name="stepwell-postgres", daemon=True)

    # In the event loop ----------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect and migrate; raises what that raised."""
        self._thread.start()
        await asyncio.wrap_future(self._opened)

    async def stop(self) -> None:
        """Finish the jobs that were submitted, then disconnect. A group whose end can't be learned,
        because the server is away, is given up."""
        if not self._closing.is_set():
            self._closing.set()
            self._queue.put(None)
        await asyncio.shield(asyncio.wrap_future(self._stopped))
        self._thread.join()

    def submit(self, job: Job[T]) -> asyncio.Future[T]:
        """Have `job` done in the next group. The future completes when it is kept."""
        if self._closing.is_set():
            raise self._closed()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put(_Item(job, future, loop))
        return future

    async def changed(self, timeout: float) -> None:
        """Wait for a loud job here, or for `bump`, up to `timeout` seconds."""
        await self._deliveries.changed(timeout)

    # In any thread --------------------------------------------------------------------------------

    def bump(self) -> None:
        """Let go of those who wait for changes."""
        self._deliveries.complete((), loud=True)

    # In the thread --------------------------------------------------------------------------------

    def _main(self) -> None:
        try:
            self._begin()
        except BaseException as error:
            self._closing.set()
            self._opened.set_exception(error)
            self._refuse_waiting(self._closed())
            self._stopped.set_result(None)
            return
        self._opened.set_result(None)
        try:
            going = True
            while going:
                group, going = self._take()
                if group:
                    self._write(group)
                self._notify()
            self._notify(last=True)
        finally:
            self._closing.set()
            self._disconnect()
            self._refuse_waiting(self._closed())
            self._stopped.set_result(None)

    def _begin(self) -> None:
        db = self._place.connect()
        try:
            self._place.migrate(db)
        finally:
            db.close()
        self._connection()

    def _connection(self) -> Connection:
        """The writing connection, made anew if need be. Raises `StoreError`."""
        if self._db is not None and not self._db.closed:
            return self._db
        self._db = None
        db = self._place.connect()
        try:
            db.adapters.register_dumper(Utf8, Utf8Dumper)
            db.adapters.register_dumper(Raw, RawDumper)
            self._settle_durability(db)
            # Plans are kept; made while tables are empty they would read whole tables for good.
            db.execute("SET enable_seqscan = off")
            announced = db.execute(_ANNOUNCE, (self.id, self.number, [*self._workers]))
            known, pid = announced.fetchall()[0]
        except psycopg.Error as error:
            db.close()
            raise translate(error, self._place.url) from error
        except BaseException:
            db.close()
            raise
        if known < self.number:
            logger.critical(
                "%s has lost writes that it had acknowledged (group %d of %d is its last): it"
                " crashed without syncing, or an old copy took its place; the runs of this process"
                " are taken up again from what is there",
                *(self._place.url, known, self.number),
            )
        self._db = db
        self.pid = pid
        return db

    def _settle_durability(self, db: Connection) -> None:
        """What the server does may be stricter than what was asked for, and never silently less."""
        if self._durability == "process":
            db.execute("SET synchronous_commit = off")
            return
        shown = db.execute(
            "SELECT current_setting('synchronous_commit'), current_setting('fsync')"
        ).fetchall()
        commits, fsync = shown[0]
        if commits == "off":
            db.execute("SET synchronous_commit = on")
        if fsync == "off" and self.survives_power:
            logger.warning(
                "%s runs with fsync = off: what it acknowledges may be lost with the power",
                self._place.url,
            )
        self.survives_power = fsync != "off"

    def _disconnect(self) -> None:
        db, self._db = self._db, None
        if db is None or db.closed:
            return
        try:
            db.execute(_SIGN_OFF, (self.id,))
        except psycopg.Error as error:  # its place is cleaned up by whoever closes in a month
            logger.debug("%s: could not sign off: %s", self._place.url, error)
        finally:
            db.close()

    def _take(self) -> tuple[list[_Item], bool]:
        """All jobs that wait, at least one unless a notification is due; and whether to go on."""
        group: list[_Item] = []
        size = 0
        wait = None
        if self._notify_owed:
            wait = max(0.0, self._notified + _NOTIFY_SECONDS - time.monotonic())
        try:
            item = self._queue.get(timeout=wait)
            while item is not None:
                group.append(item)
                size += item.job.size
                if len(group) == _GROUP or size >= _GROUP_BYTES:
                    return group, True
                item = self._queue.get_nowait()
        except Empty:
            return group, True
        return group, False

    def _write(self, group: Sequence[_Item]) -> None:
        """Send a group until it is known what became of it."""
        sent = False
        losses = deadlocks = 0
        pause, longest = _AGAIN_SECONDS
        while True:
            try:
                db = self._connection()
            except StoreError as error:
                if not sent:
                    self._fail(group, error)
                    return
                if self._closing.is_set():
                    self._fail(group, self._unknown(error))
                    return
                if pause == _AGAIN_SECONDS[0]:
                    logger.error(
                        "%d write(s) wait to learn whether they were kept: %s", len(group), error
                    )
                self._refuse_waiting(error)
                self._closing.wait(pause)
                pause = min(pause * 2, longest)
                continue
            try:
                answers = self._call(db, group)
            except psycopg.Error as error:
                if is_lost(error, db):
                    db.close()
                    sent = True
                    losses += 1
                    if losses > 1:  # something that keeps breaking is not to be hammered at
                        self._closing.wait(min(_AGAIN_SECONDS[0] * losses, longest))
                    if losses > 1 and self._closing.is_set():
                        self._fail(group, self._unknown(self._said(error)))
                        return
                    continue
                if may_go_better(error) and deadlocks < _DEADLOCKS:
                    deadlocks += 1
                    continue
                if len(group) > 1:
                    for each in group:
                        self._write((each,))
                    return
                if error.sqlstate in _ANEW:
                    db.close()
                self._fail(group, self._said(error))
                return
            except Exception as error:  # a value that can't be sent
                if len(group) > 1:
                    for each in group:
                        self._write((each,))
                    return
                self._fail(group, error)
                return
            self._answer(group, answers)
            return

    def _call(self, db: Connection, group: Sequence[_Item]) -> list[Any]:
        """One group, one call. The number grows when something was kept."""
        payloads = Payloads()
        jobs = json.dumps([item.job.encode(payloads) for item in group])
        touched = {run for item in group for run in item.job.runs}
        lock = sorted(touched) if len(touched) > 1 else []
        self._workers.update(item.job.worker for item in group if item.job.worker is not None)
        number = self.number + 1
        if self._on_write is not None:
            self._on_write("before", number)
        head = (self.id, number, lock, jobs)
        big = max(item.job.size for item in group) > _PIECE
        if big and self._gathers(db):
            said = json.loads(_send_in_pieces(db, head, payloads))
        else:
            said = json.loads(_send(db, _WRITE_GROUP, head, payloads))
        if said["kept"]:
            self.number = number
            if self._on_write is not None:
                self._on_write("after", number)
        return said["answers"]

    def _gathers(self, db: Connection) -> bool:
        """Whether there is a place for pieces, made once for a connection. A role that may not make
        one sends all of it whole."""
        if self._in_pieces and self._gathering is not db:
            try:
                db.execute(_HOLD_PIECES)
            except psycopg.errors.InsufficientPrivilege:
                self._in_pieces = False
                return False
            db.execute(_HOLD_AS_THEY_ARE)
            self._gathering = db
        return self._in_pieces

    def _answer(self, group: Sequence[_Item], answers: Sequence[Any]) -> None:
        done: list[Done] = []
        loud = False
        for item, answer in zip(group, answers, strict=True):
            try:
                done.append(Done(item.future, item.loop, item.job.decode(answer), None))
                loud = loud or item.job.loud
            except Exception as error:  # mostly what was refused
                done.append(Done(item.future, item.loop, None, error))
        self._notify_owed = self._notify_owed or loud
        self._deliveries.complete(done, loud)

    def _notify(self, last: bool = False) -> None:
        """Tell other processes, if there is something to tell and the last time is long enough
        ago. Whatever goes wrong with it: they look by themselves now and then."""
        early = time.monotonic() < self._notified + _NOTIFY_SECONDS
        if not self._notify_owed or (early and not last):
            return
        self._notify_owed = False
        self._notified = time.monotonic()
        db = self._db
        if db is None or db.closed:
            return
        try:
            db.execute(_NOTIFY, (self._place.channel,))
        except psycopg.Error as error:
            logger.debug("%s: could not notify: %s", self._place.url, error)

    def _said(self, error: psycopg.Error) -> StoreError:
        said = translate(error, self._place.url)
        said.__cause__ = error
        return said

    def _unknown(self, error: StoreError) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self._place.url} was closed while it could not be reached; whether the last writes"
            f" were kept is not known: {error.message}"
        )

    def _closed(self) -> StoreUnavailable:
        return StoreUnavailable(f"{self._place.url} is closed", hint="Open it again.")

    def _fail(self, group: Sequence[_Item], error: Exception) -> None:
        self._deliveries.complete(
            [Done(item.future, item.loop, None, error) for item in group], loud=False
        )

    def _refuse_waiting(self, error: StoreError) -> None:
        """Jobs that were not sent are known not to be kept."""
        waiting: list[_Item] = []
        while not self._queue.empty():
            item = self._queue.get_nowait()
            if item is not None:
                waiting.append(item)
        self._fail(waiting, error)
        if self._closing.is_set():
            self._queue.put(None)


def _send(db: Connection, statement: LiteralString, head: _Head, payloads: Payloads) -> str:
    """What the database answers to a group."""
    values = (*head, payloads.texts, payloads.blobs)
    return db.execute(statement, values, prepare=True).fetchall()[0][0]


def _send_in_pieces(db: Connection, head: _Head, payloads: Payloads) -> str:
    """`_send`, with big payloads sent before, in pieces: a thread that copies megabytes at once
    holds up all others, and between two pieces it does not."""
    with db.transaction():
        for is_text, place, data in payloads.in_pieces(_PIECE):
            for n, start in enumerate(range(0, len(data), _PIECE)):
                piece = Raw(data[start : start + _PIECE])
                db.execute(_ADD_PIECE, (is_text, place, n, piece), prepare=True)
        return _send(db, _WRITE_GROUP_IN_PIECES, head, payloads)
