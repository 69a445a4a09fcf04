"""What a run does, as a stream that any number may read: one look at the journal for all of them.

Each item has a cursor, `row.number`, by the journal's row that it is from: the same for every
reader and after every restart, so that whoever comes back with it goes on behind it. Nobody's code
is needed. A run that is deleted while it is read ends its stream, too; a store in trouble does
not: the stream is silent until it is back.

However long a run is, only so many items of it are held. The journal is not read far ahead of the
reader who is furthest; one who is so far behind that its next item is not held any more has its
stream ended, and comes back with its cursor.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stepwell.authoring.document_run import Documents
from stepwell.errors import RunNotFound, StoreError
from stepwell.kernel.journal import (
    AttemptFailed,
    Entry,
    Published,
    RunEnded,
    RunParked,
    RunResumed,
    RunStarted,
    WaitEnded,
    WaitOpened,
    WorkAdded,
    WorkBegun,
    WorkDone,
)
from stepwell.kernel.outcomes import Message
from stepwell.runtime.engine import Engine
from stepwell.runtime.history import Work, decoded, plain
from stepwell.server.problems import Problem
from stepwell.server.shown import Reader, error_json
from stepwell.values import Json, iso

logger = logging.getLogger("stepwell")

_SOON, _LATE, _AGAIN = 0.05, 10.0, 1.0
"""Seconds between two looks at a run: at first; when nothing was heard of it for long (a net: what
happens is heard of); and when the store was in trouble."""

KEPT = 5_000
"""How many items of a run are held for readers that are behind the furthest one, at least (twice as
many at most), and how many that nobody has read yet, at most."""

_ROWS = 100
"""How many rows of a journal are read at once."""

_TOGETHER, _LONG_TOGETHER = 0.01, 0.5
"""Seconds that news of a run are gathered for: at first, and when they were of other runs for long:
of what other processes do one hears that it was something."""

Cursor = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Item:
    """One item: its cursor, what kind it is, and itself as JSON text."""

    cursor: Cursor
    kind: str
    data: str

    @property
    def id(self) -> str:
        """The cursor as it is sent."""
        return f"{self.cursor[0]}.{self.cursor[1]}"

    def event(self) -> bytes:
        """As a server-sent event."""
        return f"id: {self.id}\nevent: {self.kind}\ndata: {self.data}\n\n".encode()

    def line(self) -> bytes:
        """As a line of JSON."""
        return f"{self.data}\n".encode()


def cursor_of(text: str | None) -> Cursor:
    """A cursor that was sent back. Raises `Problem` for what is none."""
    if not text:
        return (0, 0)
    found = re.fullmatch(r"(\d{1,15})\.(\d{1,15})", text, re.ASCII)
    if found is None:
        raise Problem(422, "bad_cursor", f"{text!r:.60} is no cursor of a stream")
    return (int(found[1]), int(found[2]))


class Feeds:
    """The streams that are being read, by run.

    Args:
        engine: where the runs are.
        documents: what documents are compiled by.
    """

    def __init__(self, engine: Engine, documents: Documents) -> None:
        self._engine = engine
        self._documents = documents
        self._feeds: dict[str, list[Feed]] = {}
        self.readers = 0
        self._closing = False

    def hear(self, name: str, fields: Mapping[str, Any]) -> None:
        """Something was decided about a run: its readers want to know."""
        for feed in self._feeds.get(str(fields.get("run")), ()):
            feed.news.set()
            if name == "run.ended":
                feed.over.set()

    def close(self) -> None:
        """End all streams: the service stops. Readers may come back with their cursors."""
        self._closing = True
        for feeds in self._feeds.values():
            for feed in feeds:
                feed.wake()

    async def read(
        self, run_id: str, after: Cursor, heartbeat: float
    ) -> AsyncGenerator[Item | None]:
        """The items of a run behind a cursor, until it has ended; None every `heartbeat` seconds
        in which there is none."""
        feeds = self._feeds.setdefault(run_id, [])
        feed = next((each for each in feeds if each.forgotten <= after), None)
        if feed is None:
            feed = Feed(self._engine, self._documents, run_id)
            feeds.append(feed)
        feed.readers += 1
        self.readers += 1
        position = feed.dropped
        try:
            while not self._closing:
                while feed.dropped <= position < feed.dropped + len(feed.items):
                    item = feed.items[position - feed.dropped]
                    position += 1
                    feed.has_come(position)
                    if item.cursor > after:
                        yield item
                if position < feed.dropped:
                    return
                if feed.closed:
                    return
                try:
                    async with asyncio.timeout(heartbeat):
                        await feed.more.wait()
                except TimeoutError:
                    yield None
        finally:
            self.readers -= 1
            feed.readers -= 1
            if not feed.readers:
                feed.task.cancel()
                feeds.remove(feed)
                if not feeds and self._feeds.get(run_id) is feeds:
                    del self._feeds[run_id]


class Feed:
    """Follows one run for as long as someone reads.

    Attributes:
        items: what is held, in order.
        dropped: how many items there were before those.
        forgotten: the cursor of the last of them.
    """

    def __init__(self, engine: Engine, documents: Documents, run_id: str) -> None:
        self.items: list[Item] = []
        self.dropped = 0
        self.forgotten: Cursor = (0, 0)
        self._furthest = 0
        self._room = asyncio.Event()
        self.closed = False
        self.more = asyncio.Event()
        self.news = asyncio.Event()
        self.over = asyncio.Event()  # nothing will come that could be gathered with the end
        self.readers = 0
        self._engine = engine
        self._documents = documents
        self._run_id = run_id
        self._row = 0
        self.task = asyncio.get_running_loop().create_task(self._follow())

    def has_come(self, position: int) -> None:
        """A reader has come so far."""
        if position > self._furthest:
            self._furthest = position
            self._room.set()
            if position - self.dropped >= 2 * KEPT:  # seldom, and many: it costs little for each
                self.forgotten = self.items[KEPT - 1].cursor
                self.dropped += KEPT
                del self.items[:KEPT]

    async def _until_there_is_room(self) -> None:
        while self.dropped + len(self.items) - self._furthest >= KEPT:
            self._room.clear()
            await self._room.wait()

    def wake(self) -> None:
        """Have the readers look."""
        more, self.more = self.more, asyncio.Event()
        more.set()

    async def _listen(self) -> None:
        """Other processes may advance the run."""
        while True:
            await self._engine.news(self._run_id)
            self.news.set()

    async def _follow(self) -> None:
        listening = asyncio.get_running_loop().create_task(self._listen())
        try:
            await self._until_its_end()
        except RunNotFound:
            self._last("run.deleted", {"detail": "the run was deleted"})
        except Exception:
            logger.exception("run %s can't be followed", self._run_id)
            self._last("stream.failed", {"detail": "what is stored of the run can't be read"})
        finally:
            listening.cancel()
            self.closed = True
            self.wake()

    def _last(self, kind: str, fields: Mapping[str, Json]) -> None:
        shown = {"type": kind, "workflow_id": self._run_id, **fields}
        self.items.append(Item((self._row + 1, 0), kind, _dumps(shown)))

    async def _until_its_end(self) -> None:
        reader: Reader | None = None
        pause, gather = _SOON, _TOGETHER
        while True:
            self.news.clear()
            try:
                if reader is None:
                    reader = Reader(await self._engine.get(self._run_id), self._documents)
                rows = await self._engine.journal(self._run_id, self._row, _ROWS)
            except StoreError as error:
                logger.warning("run %s can't be followed just now: %s", self._run_id, error)
                await asyncio.sleep(_AGAIN)
                continue
            for seq, at, entries in rows:
                self._take(reader, seq, at, decoded(entries, at))
                await self._until_there_is_room()
            if reader.history.ended is not None:
                return
            if len(rows) == _ROWS:
                continue
            if rows:
                pause, gather = _SOON, _TOGETHER
            else:
                pause, gather = min(_LATE, pause * 1.5), min(_LONG_TOGETHER, gather * 2)
            if await self._news(pause, gather):
                pause = _SOON

    async def _news(self, pause: float, gather: float) -> bool:
        try:
            async with asyncio.timeout(pause):
                await self.news.wait()
        except TimeoutError:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(gather):
                await self.over.wait()
        return True

    def _take(self, reader: Reader, seq: int, at: float, entries: list[Entry]) -> None:
        number = 0
        for entry in entries:
            reader.learn(entry)  # what a task gave may stand behind its end, in the same row
        for entry in entries:
            work = reader.read(entry, at)
            for kind, fields in told(entry, work, reader):
                number += 1
                shown = {
                    "id": f"{seq}.{number}",
                    "type": kind,
                    "workflow_id": self._run_id,
                    "at": iso(at),
                    **fields,
                }
                self.items.append(Item((seq, number), kind, _dumps(shown)))
            if work is not None and work.ended is not None:
                reader.forget(work)
        self._row = seq
        self.wake()


def _dumps(value: Mapping[str, Any]) -> str:
    return json.dumps(plain(value), ensure_ascii=False, default=str)


Told = tuple[str, dict[str, Any]]


def told(entry: Entry, work: Work | None, reader: Reader) -> Iterator[Told]:
    """What readers are told of an entry: its kind, and its fields."""
    match entry:
        case RunStarted():
            yield "run.started", {}
        case Published(messages=messages):
            for message in messages:
                yield "event", _event(message)
        case WaitOpened(question=question, id=wait) if question is not None:
            yield "question", {"question": wait, "wants": entry.tag, **_event(question)}
        case WaitOpened() if entry.tag is not None or entry.due is not None:
            yield "wait.opened", {"wait": entry.id, "wants": entry.tag, "due": iso(entry.due)}
        case WaitEnded(id=wait, timed_out=late):
            yield "wait.ended", {"wait": wait, "timed_out": late}
        case RunParked():
            yield "run.parked", {"reason": entry.reason}
        case RunResumed():
            yield "run.resumed", {}
        case RunEnded():
            result = None if entry.result is None else reader.result_shown(entry.result)
            error = None if entry.error is None else error_json(entry.error)
            yield "run.ended", {"status": entry.status.value, "result": result, "error": error}
        case _ if work is not None:
            yield from _task(entry, work, reader)
        case _:
            pass


def _event(message: Message) -> dict[str, Any]:
    return {"event": message.tag, "data": plain(message.payload)}


def _task(entry: Entry, work: Work, reader: Reader) -> Iterator[Told]:
    of: dict[str, Any] = reader.task_of(work)
    tries = len(work.attempts)
    match entry:
        case WorkAdded(begun=True) | WorkBegun():
            yield "task.started", {**of, "attempt": max(1, tries)}
        case AttemptFailed(error=error, retry_at=at):
            kind = "task.failed" if at is None else "task.retrying"
            fields = {"attempt": tries, "error": error_json(error), "retry_at": iso(at)}
            yield kind, {**of, **fields}
        case WorkDone() if work.status == "done":
            kind = f"task.{reader.status_of(work)}"
            found = reader.results.get(str(of["place"]), {})
            yield kind, {**of, "seconds": work.took, "result": found.get("result")}
        case _:
            pass
