"""The one task that writes: it takes all jobs that wait, sends them together, and waits for all.

Why in groups: a server that syncs its file before each answer syncs once for all calls that it
reads at once. Each job is a call of its own, and atomic by itself.

Why nothing is done twice: a lost connection leaves open what became of a group. Groups are
numbered, calls in a group too, and the server keeps the answers of a caller's last group; so the
group is sent again until its answers are known, and what was done is only answered (`once.lua`).
A commit that the engine makes again after an error is therefore one that was not kept.

Why a loss is noticed: a server that crashed without syncing, or a replica that took its place, may
lack what it had acknowledged. It then knows an older number than the next group expects; it refuses
the group, and every run is taken away from whoever has it before anything is written on top of what
is missing; whoever claims it next goes on from what is there.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from redis.exceptions import ResponseError

from stepwell.errors import StoreError, StoreReadOnly, StoreUnavailable, StoreVersionError
from stepwell.stores.changes import Changes
from stepwell.stores.redis.errors import BROKEN, LOST, is_passing, translate, word_of
from stepwell.stores.redis.jobs import Job
from stepwell.stores.redis.line import Command, Line, Reply
from stepwell.stores.redis.place import Place, Survival
from stepwell.stores.redis.scripts import SCRIPTS

logger = logging.getLogger("stepwell")

T = TypeVar("T")
OnWrite = Callable[[str, int], None]

SCHEMA = 1
_GROUP = 128
_GROUP_BYTES = 4 << 20
_AGAIN_SECONDS = (0.05, 2.0)
_TOLD_SECONDS = 0.02
"""Between two announcements of changes to other processes."""
_REMEMBERED_SECONDS = 30 * 86400.0
"""After which a caller that never said goodbye is forgotten; those alive say so once a day."""
_ALIVE_SECONDS = 86400.0
_SYNC_SECONDS = 2.0
_SURVEY_SECONDS = 30.0
"""Between two looks at the server's settings."""


@dataclass(frozen=True, slots=True)
class _Item:
    job: Job[Any]
    future: asyncio.Future[Any]


class Writer:
    """Writes for one store. Everything here belongs to the event loop that started it.

    Args:
        place: where to connect.
        changes: told of loud jobs.
        on_write: called as `on_write("before", n)` just before group n is sent and as
            `on_write("after", n)` when its answers are there, before anyone hears of them.
    """

    def __init__(self, place: Place, changes: Changes, on_write: OnWrite | None = None) -> None:
        self.id = uuid.uuid4().hex
        self.number = 0
        self.survival = Survival("none", "not asked yet")
        self._place = place
        self._changes = changes
        self._on_write = on_write
        self._kept = 0
        self._epoch = 0
        self._queue: deque[_Item] = deque()
        self._line: Line | None = None
        self._closing = asyncio.Event()
        self._wakeup = asyncio.Event()
        self._announced = 0.0
        self._surveyed = 0.0
        self._owed = False
        self._told = 0.0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect and announce; raises `StoreError`s."""
        await self._connected()
        self._task = asyncio.create_task(self._main(), name="stepwell-redis-writer")
        self._task.add_done_callback(self._has_ended)

    async def stop(self) -> None:
        """Finish the jobs that were submitted, then disconnect. A group whose end can't be learned,
        because the server is away, is given up."""
        self._closing.set()
        self._wakeup.set()
        if self._task is not None:
            await asyncio.wait({self._task})  # whoever cancelled it, the rest has to be done
        await self._sign_off()

    def submit(self, job: Job[T]) -> asyncio.Future[T]:
        """Have `job` done in the next group. The future completes when it is kept."""
        if self._closing.is_set():
            raise self._closed()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.append(_Item(job, future))
        self._wakeup.set()
        return future

    # The task -------------------------------------------------------------------------------------

    async def _main(self) -> None:
        while True:
            if group := self._take():
                try:
                    await self._write(group)
                except BaseException as bug:
                    self._fail(group, bug)
                    await self._hang_up()
                    if not isinstance(bug, Exception):
                        raise
                    logger.critical("%s: a group was given up", self._place.url, exc_info=bug)
            elif self._closing.is_set():
                return
            else:
                await self._idle()

    def _take(self) -> list[_Item]:
        group: list[_Item] = []
        size = 0
        while self._queue and len(group) < _GROUP and size < _GROUP_BYTES:
            item = self._queue.popleft()
            group.append(item)
            size += item.job.size
        return group

    async def _idle(self) -> None:
        """Wait for a job; tell the others meanwhile what they have not been told."""
        self._wakeup.clear()
        wait = max(0.0, self._told + _TOLD_SECONDS - time.monotonic()) if self._owed else None
        try:
            async with asyncio.timeout(wait):
                await self._wakeup.wait()
        except TimeoutError:
            await self._tell()

    async def _tell(self) -> None:
        """Whatever goes wrong with it: those who wait look by themselves now and then."""
        line, command = self._line, self._telling()
        if line is not None:
            try:
                await line.call(command)
            except BROKEN as error:
                logger.debug("%s: could not tell of changes: %s", self._place.url, error)
                await self._hang_up()

    def _telling(self) -> Command:
        self._owed, self._told = False, time.monotonic()
        return "PUBLISH", self._place.key("changes"), self.id

    async def _write(self, group: Sequence[_Item]) -> None:
        """Send a group until it is known what became of it."""
        sent = False
        pause, longest = _AGAIN_SECONDS
        while True:
            try:
                line = await self._connected()
                sent_before, sent = sent, True
                replies = await self._send(line, group)
            except BROKEN as error:
                await self._hang_up()
                trouble = translate(error, self._place.url)
            except StoreError as error:
                if not sent:
                    self._fail(group, error)
                    return
                trouble = error
            else:
                again = await self._again(replies, sent_before)
                if again is None:
                    self._answer(group, replies)
                    if any(_is_elsewhere(reply) for reply in replies):
                        await self._hang_up()
                    return
                trouble = again
            if self._closing.is_set():
                self._fail(group, self._unknown(trouble))
                return
            self._refuse_waiting(trouble)
            await self._pause(pause)
            pause = min(pause * 2, longest)

    async def _send(self, line: Line, group: Sequence[_Item]) -> list[Reply]:
        number = self.number + 1
        commands = [self._call(item.job, number, n) for n, item in enumerate(group)]
        if any(item.job.loud for item in group):
            self._owed = True
        if self._owed and time.monotonic() >= self._told + _TOLD_SECONDS:
            commands.append(self._telling())
        if self._on_write is not None:
            self._on_write("before", number)
        replies = (await line.call(*commands))[: len(group)]
        if self._place.waitaof:
            await self._sync(line)
        if self._on_write is not None:
            self._on_write("after", number)
        return replies

    async def _sync(self, line: Line) -> None:
        """Wait until what this connection has written is on the server's disk. It writes first,
        since a group that was sent again may have done nothing on this connection."""
        mark: Command = ("HSET", self._place.key("caller", self.id), "synced", "1")
        waited = 0.0
        while True:
            _, synced = await line.call(mark, ("WAITAOF", "1", "0", f"{_SYNC_SECONDS * 1000:.0f}"))
            if isinstance(synced, ResponseError):
                raise translate(synced, self._place.url)
            if isinstance(synced, list) and synced[0] == 1:
                return
            if waited % _SURVEY_SECONDS == 0:
                await self._survey(line)  # it may have been told never to sync
                logger.warning(
                    "%s has not synced its file for %g s; its writers wait for it",
                    *(self._place.url, waited + _SYNC_SECONDS),
                )
            waited += _SYNC_SECONDS

    async def _again(self, replies: Sequence[Reply], sent_before: bool) -> StoreError | None:
        """Why a group must be sent again; None when its replies are its answers."""
        for reply in replies:
            if not isinstance(reply, ResponseError):
                continue
            said = translate(reply, self._place.url)
            if word_of(reply) == LOST or "No matching script" in str(reply):
                await self._hang_up()  # whoever connects announces itself and loads the scripts
                return said
            if sent_before and is_passing(said):
                # It refuses now; what it did the last time is not known.
                await self._hang_up()
                return said
        return None

    def _call(self, job: Job[Any], group: int, number: int) -> Command:
        key = self._place.key
        return (
            "EVALSHA",
            SCRIPTS[job.script].sha,
            "3",
            key(),
            key("caller", self.id),
            key("answers", self.id),
            str(group),
            str(number),
            str(self._kept),
            "1" if job.frees else "0",
            *job.arguments,
        )

    def _answer(self, group: Sequence[_Item], replies: Sequence[Reply]) -> None:
        kept = 0
        loud = False
        for item, reply in zip(group, replies, strict=True):
            if not isinstance(reply, bytes):
                self._refuse(item, reply)
                continue
            kept += 1
            loud = loud or item.job.loud
            if item.future.done():  # whoever awaited it was cancelled
                continue
            try:
                item.future.set_result(item.job.decode(json.loads(reply)))
            except Exception as error:  # mostly what was refused
                item.future.set_exception(error)
        if kept:
            self.number += 1
            self._kept = kept
        if loud:
            self._changes.bump()

    def _refuse(self, item: _Item, reply: Reply) -> None:
        if not item.future.done():
            error = reply if isinstance(reply, ResponseError) else ResponseError(f"said {reply!r}")
            said = translate(error, self._place.url)
            said.__cause__ = error
            item.future.set_exception(said)

    # The connection -------------------------------------------------------------------------------

    async def _connected(self) -> Line:
        """The writing connection, made anew if need be. Raises `StoreError`."""
        if self._line is not None:
            try:
                await self._look_after(self._line)
            except StoreError as error:  # which a new connection says again, if it still holds
                logger.debug("%s: connecting anew: %s", self._place.url, error)
                await self._hang_up()
        if self._line is None:
            line = Line(self._place)
            await line.connect()
            try:
                await self._survey(line)
                await self._announce(line)
            except BaseException:
                await line.close()
                raise
            self._line = line
        return self._line

    async def _look_after(self, line: Line) -> None:
        if time.monotonic() > self._surveyed + _SURVEY_SECONDS:
            await self._survey(line)
        if time.time() > self._announced + _ALIVE_SECONDS:
            await self._announce(line)

    async def _survey(self, line: Line) -> None:
        """Ask what the server's settings make of a write; they may change while it runs."""
        survival = await line.survey()
        if survival != self.survival:
            loud = survival.durability == "none" or survival.is_less_than(self.survival)
            logger.log(
                logging.WARNING if loud else logging.INFO,
                "%s survives: %s (%s)",
                *(self._place.url, survival.durability, survival.text),
            )
        self.survival = survival
        self._surveyed = time.monotonic()

    async def _announce(self, line: Line) -> None:
        now = time.time()
        key = self._place.key
        numbers = (self.number, self._kept, self._epoch, now, now - _REMEMBERED_SECONDS)
        try:
            (reply,) = await line.call(
                (
                    "EVALSHA",
                    SCRIPTS["announce"].sha,
                    "3",
                    key(),
                    key("caller", self.id),
                    key("answers", self.id),
                    self.id,
                    *map(repr, numbers),
                )
            )
        except BROKEN as error:
            raise translate(error, self._place.url) from error
        if isinstance(reply, ResponseError):
            raise translate(reply, self._place.url) from reply
        schema, lost, self._epoch = cast(list[int], reply)
        if schema > SCHEMA:
            raise StoreVersionError(schema, SCHEMA)
        self._announced = now
        if lost:
            self._kept = 0
            logger.critical(
                "%s has lost writes that it had acknowledged: it crashed without syncing, a replica"
                " took its place, or its data was removed; runs are taken up again from what is"
                " there",
                self._place.url,
            )

    async def _hang_up(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            await line.close()

    async def _sign_off(self) -> None:
        line, key = self._line, self._place.key
        if line is None:
            return
        try:
            await line.call(
                ("UNLINK", key("caller", self.id), key("answers", self.id)),
                ("ZREM", key("callers"), self.id),
            )
        except BROKEN as error:  # its place is cleaned up by whoever opens in a month
            logger.debug("%s: could not sign off: %s", self._place.url, error)
        finally:
            await self._hang_up()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return

    # Refusals -------------------------------------------------------------------------------------

    def _unknown(self, error: StoreError) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self._place.url} was closed while it could not be reached; whether the last writes"
            f" were kept is not known: {error.message}"
        )

    def _has_ended(self, _task: asyncio.Task[None]) -> None:
        """Also when the loop is ending, and nobody closed the store: nobody waits for ever."""
        self._closing.set()
        self._refuse_waiting(self._closed())

    def _closed(self) -> StoreUnavailable:
        return StoreUnavailable(f"{self._place.url} is closed", hint="Open it again.")

    def _refuse_waiting(self, error: StoreError) -> None:
        """Jobs that were not sent are known not to be kept."""
        waiting, self._queue = [*self._queue], deque()
        self._fail(waiting, error)

    @staticmethod
    def _fail(group: Sequence[_Item], error: BaseException) -> None:
        for item in group:
            if item.future.done():
                continue
            if isinstance(error, Exception):
                item.future.set_exception(error)
            else:
                item.future.cancel()


def _is_elsewhere(reply: Reply) -> bool:
    """Whether the server became a replica: the next connection may find the new primary."""
    return isinstance(reply, ResponseError) and isinstance(translate(reply, ""), StoreReadOnly)
