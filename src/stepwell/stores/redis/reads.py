"""The verbs that read, each on a connection of its own from a small pool.

What belongs to one run is read by one script, so it is of one moment. A listing looks at a bounded
number of runs in each call, so that a filter that fits few of many never holds the server up.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from io import BytesIO
from typing import Any, cast

from redis.exceptions import ResponseError

from stepwell.errors import StoreCorrupt
from stepwell.stores import cursor
from stepwell.stores.base import (
    JournalRow,
    Loaded,
    MessageRow,
    Page,
    RunFilter,
    RunRow,
    Snapshot,
    WorkerRow,
)
from stepwell.stores.digests import digest_of
from stepwell.stores.redis.errors import BROKEN, translate
from stepwell.stores.redis.jobs import (
    items,
    maybe,
    maybe_text,
    maybe_time,
    message_of,
    row_of,
    texts,
    time,
)
from stepwell.stores.redis.line import Command, Line, Reply
from stepwell.stores.redis.place import Place
from stepwell.stores.redis.scripts import SCRIPTS
from stepwell.values import RunStatus

_LOADED_AT_ONCE = 50
_LOOKED_AT = 2000
_VERIFIED_AT_ONCE = 200
_PIECE = 512 * 1024


class Reads:
    """Reads for one store.

    Args:
        place: where to connect.
        connections: how many reads may go on at the same time.
    """

    def __init__(self, place: Place, connections: int) -> None:
        self._place = place
        self._room = asyncio.Semaphore(connections)
        self._idle: list[Line] = []
        self._closed = False

    async def close(self) -> None:
        """Disconnect; reads that go on disconnect when they end."""
        self._closed = True
        while self._idle:
            await self._idle.pop().close()

    # Verbs ----------------------------------------------------------------------------------------

    async def workers(self) -> list[WorkerRow]:
        """See `Store.workers`."""
        found = await self._ask("HGETALL", self._key("workers"))
        workers: list[WorkerRow] = []
        for id, row in _pairs(found):
            said = json.loads(row)
            workers.append(
                WorkerRow(
                    id.decode(), said["host"], said["pid"], float(said["until"]), said["workflows"]
                )
            )
        return workers

    async def next_due(self, workflows: Sequence[str], now: float) -> float | None:
        """See `Store.next_due`."""
        found = await self._run("next_due", time(now), *texts(workflows))
        return float(found) if isinstance(found, bytes) else None

    async def load_many(self, runs: Sequence[str]) -> list[Loaded]:
        """See `Store.load_many`."""
        loaded: list[Loaded] = []
        for n in range(0, len(runs), _LOADED_AT_ONCE):
            found = await self._run("load", *texts(runs[n : n + _LOADED_AT_ONCE]))
            loaded.extend(_loaded(each) for each in cast(list[list[Any]], found))
        return loaded

    async def inbox(self, worker: str) -> list[str]:
        """See `Store.inbox`."""
        return [id.decode() for id in await self._bytes("SMEMBERS", self._key("mail", worker))]

    async def messages(self, run: str, after: int) -> list[MessageRow]:
        """See `Store.messages`."""
        inbox = self._key("inbox", run)
        found = await self._bytes("ZRANGEBYSCORE", inbox, f"({after}", "+inf")
        return [message_of(member) for member in found]

    async def get(self, run: str) -> RunRow | None:
        """See `Store.get`."""
        names = ("workflow", "version", "status", "seq", "fence", "owner", "due", "created")
        more = ("updated", "ended", "key", "correlation", "parent", "priority", "detail")
        found = await self._ask("HMGET", self._key("run", run), *names, *more)
        values = cast(list[bytes | None], found)
        return None if values[0] is None else _row([run.encode(), *values])

    async def find(self, workflow: str, key: str) -> str | None:
        """See `Store.find`."""
        field = f"{len(workflow.encode())}:{workflow}:{key}"
        found = await self._ask("HGET", self._key("keys"), field)
        return found.decode() if isinstance(found, bytes) else None

    async def page(self, where: RunFilter) -> Page:
        """See `Store.list`."""
        below = None if where.after is None else cursor.decode(where.after)
        rows: list[RunRow] = []
        while len(rows) <= where.limit:
            arguments = _filter(where, where.limit + 1 - len(rows), below)
            found, *stop = cast(list[Any], await self._run("list", *arguments))
            rows.extend(_row(row) for row in found)
            if stop[0] is None:
                break
            below = float(stop[0]), stop[1].decode()
        page, more = rows[: where.limit], len(rows) > where.limit
        return Page(page, cursor.encode(page[-1].created, page[-1].id) if more and page else None)

    async def counts(self) -> dict[tuple[str, RunStatus], int]:
        """See `Store.counts`."""
        found = await self._ask("HGETALL", self._key("counts"))
        counts: dict[tuple[str, RunStatus], int] = {}
        for field, n in _pairs(found):
            status, _, workflow = field.decode().partition(" ")
            counts[workflow, RunStatus(status)] = int(n)
        return counts

    async def read(self, run: str, after: int, limit: int) -> list[JournalRow]:
        """See `Store.read`."""
        start = max(after, 0)
        if limit < 1:
            return []
        last = str(start + limit - 1)
        found = await self._bytes("LRANGE", self._key("journal", run), str(start), last)
        return [_journal_row(start + n, row) for n, row in enumerate(found, 1)]

    async def blob(self, digest: str) -> bytes:
        """See `Store.blob`."""
        # In pieces: the event loop copies what comes, and a payload may be of many megabytes.
        key = self._key("blob", digest)
        size = cast(int, await self._ask("STRLEN", key))
        whole = BytesIO()  # gives what was written into it without copying it once more
        for start in range(0, size, _PIECE):
            piece = await self._ask("GETRANGE", key, str(start), str(start + _PIECE - 1))
            whole.write(cast(bytes, piece))
        found = whole.getvalue()
        if len(found) != size or not (size or await self._ask("EXISTS", key)):
            raise StoreCorrupt(f"the payload {digest} is not in {self._place.url}")
        return found

    async def expired(self, ended_before: float, limit: int) -> list[str]:
        """See `Store.expired`."""
        before = f"({float(ended_before)!r}"
        found = await self._bytes(
            "ZRANGEBYSCORE", self._key("ended"), "-inf", before, "LIMIT", "0", str(limit)
        )
        return [id.decode() for id in found]

    async def verify(self) -> list[str]:
        """See `Store.verify`."""
        faults: list[str] = []
        position = "0"
        while True:
            found = cast(
                list[Any],
                await self._ask(
                    "ZSCAN", self._key("runs"), position, "COUNT", str(_VERIFIED_AT_ONCE)
                ),
            )
            ids = [id for id, _ in _pairs(found[1])]
            said = cast(list[bytes], await self._run("verify", *items(ids)))
            faults.extend(fault.decode() for fault in said)
            position = found[0].decode()
            if position == "0":
                break
        return faults + await self._blob_faults()

    async def _blob_faults(self) -> list[str]:
        faults: list[str] = []
        for name, n in _pairs(await self._ask("HGETALL", self._key("refs"))):
            digest = name.decode()
            if int(n) < 1:
                faults.append(f"nobody refers to the payload {digest}")
            data = await self._ask("GET", self._key("blob", digest))
            # One that is gone went with its last run since; if it did not, the run says so.
            if isinstance(data, bytes) and digest_of(data) != digest:
                faults.append(f"the payload {digest} is not what was written")
        return faults

    # Connections ----------------------------------------------------------------------------------

    def _key(self, *parts: str) -> str:
        return self._place.key(*parts)

    async def _bytes(self, *command: str) -> list[bytes]:
        return cast(list[bytes], await self._ask(*command))

    async def _run(self, script: str, *arguments: bytes) -> Reply:
        return await self._ask("EVALSHA", SCRIPTS[script].sha, "1", self._key(), *arguments)

    async def _ask(self, *command: str | bytes) -> Reply:
        """The reply to one command. A connection that broke since it was used last, as when the
        server was started again, is made anew, and the read is done once more."""
        async with self._room:
            while True:
                fresh = not self._idle
                try:
                    reply = await self._ask_on(command)
                except BROKEN as error:
                    if not fresh:
                        continue
                    raise translate(error, self._place.url) from error
                if not isinstance(reply, ResponseError):
                    return reply
                # The scripts were flushed: a new connection makes them known again.
                if "No matching script" in str(reply) and not fresh:
                    continue
                raise translate(reply, self._place.url) from reply

    async def _ask_on(self, command: Command) -> Reply:
        if self._idle:
            line = self._idle.pop()
        else:
            line = Line(self._place)
            await line.connect()
        (reply,) = await line.call(command)
        if self._closed or isinstance(reply, ResponseError):
            await line.close()
        else:
            self._idle.append(line)
        return reply


def _filter(where: RunFilter, limit: int, below: tuple[float, str] | None) -> list[bytes]:
    return [
        b"%d" % limit,
        b"%d" % _LOOKED_AT,
        maybe(None if below is None else time(below[0])),
        b"" if below is None else below[1].encode(),
        maybe_time(where.since),
        maybe_text(where.workflow),
        maybe_text(where.parent),
        maybe_text(where.correlation),
        maybe_text(where.waiting),
        b"0" if where.status is None else b"1",
        *texts(() if where.status is None else where.status),
    ]


def _pairs(reply: Reply) -> list[tuple[bytes, bytes]]:
    """What came as name, value, name, value, ..."""
    values = cast(list[bytes], reply)
    return list(zip(values[::2], values[1::2], strict=True))


def _row(values: Sequence[bytes | None]) -> RunRow:
    return row_of([None if value is None else value.decode() for value in values])


def _journal_row(seq: int, row: bytes) -> JournalRow:
    at, _, data = row.partition(b" ")
    return JournalRow(seq, float(at), data)


def _loaded(found: Sequence[Any]) -> Loaded:
    row, seq, data, journal, inbox = found
    after = 0 if seq is None else int(seq)
    return Loaded(
        _row(row),
        None if seq is None else Snapshot(after, data),
        [_journal_row(after + n, each) for n, each in enumerate(journal, 1)],
        [message_of(member) for member in inbox],
    )
