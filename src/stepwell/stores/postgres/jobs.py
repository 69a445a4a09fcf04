"""The verbs that write, as data: what the functions in the database are told, and their answers.

A job is a JSON object (see `do_job` in `migrations/0002_writing.sql`). Payloads travel beside it,
as they are, in two arrays that the job points into: they may be big, and their bytes are nobody's
business on the way. What is decided about a commit is decided in the database, under its locks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from psycopg.adapt import Buffer, Dumper, PyFormat
from psycopg.pq import Format

from stepwell.errors import LeaseLost, RunAlreadyExists, StoreError
from stepwell.stores.base import Commit, NewMessage, NewRun, RunRow, WorkerRow
from stepwell.stores.rows import row_of
from stepwell.values import RunStatus

T = TypeVar("T")

_TEXT_OID, _BYTEA_OID = 25, 17
_TERMINAL = frozenset(status for status in RunStatus if status.terminal)


@dataclass(frozen=True, slots=True)
class Utf8:
    """Bytes to be kept as text. The server checks that they are UTF-8."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes to be kept as they are."""

    data: bytes


class _AsItIs(Dumper):
    """Hands the very bytes on: psycopg's own dumpers would copy them, once more for each, and keep
    every other thread of the process waiting meanwhile."""

    format = Format.BINARY

    def dump(self, obj: Any) -> Buffer:
        """The bytes."""
        return obj.data

    def get_key(self, obj: Any, format: PyFormat) -> type[Any]:
        """One dumper for all of them."""
        return self.cls


class Utf8Dumper(_AsItIs):
    """Sends `Utf8`."""

    oid = _TEXT_OID


class RawDumper(_AsItIs):
    """Sends `Raw`."""

    oid = _BYTEA_OID


@dataclass(slots=True)
class Payloads:
    """The payloads of a group; a place is counted from 1, as in SQL."""

    texts: list[Utf8] = field(default_factory=list[Utf8])
    blobs: list[Raw] = field(default_factory=list[Raw])

    def text(self, data: bytes) -> int:
        """The place of a text."""
        self.texts.append(Utf8(data))
        return len(self.texts)

    def blob(self, data: bytes) -> int:
        """The place of a big payload."""
        self.blobs.append(Raw(data))
        return len(self.blobs)

    def in_pieces(self, size: int) -> list[tuple[bool, int, bytes]]:
        """Take out the payloads of more than `size` bytes: whether it is a text, its place, and
        itself. What stays in their places is empty."""
        taken: list[tuple[bool, int, bytes]] = []
        for n, text in enumerate(self.texts):
            if len(text.data) > size:
                taken.append((True, n + 1, text.data))
                self.texts[n] = Utf8(b"")
        for n, blob in enumerate(self.blobs):
            if len(blob.data) > size:
                taken.append((False, n + 1, blob.data))
                self.blobs[n] = Raw(b"")
        return taken


@dataclass(frozen=True, slots=True)
class Job(Generic[T]):
    """One verb.

    Args:
        encode: makes the JSON object, putting payloads where they belong.
        decode: what the answer means; raises what it says was refused.
        loud: whether those who wait for changes shall hear of it.
        size: bytes of payload, about.
        runs: the runs whose rows it changes, as far as the sender knows.
        worker: the worker that it is about; what is taken back when the server has lost something.
    """

    encode: Callable[[Payloads], dict[str, Any]]
    decode: Callable[[Any], T]
    loud: bool = True
    size: int = 0
    runs: Sequence[str] = ()
    worker: str | None = None


def _number(value: float | None) -> float | str | None:
    """JSON knows no infinity; PostgreSQL reads one from text."""
    return value if value is None or math.isfinite(value) else str(value)


def _run(new: NewRun, payloads: Payloads) -> dict[str, Any]:
    made: dict[str, Any] = {
        "id": new.id,
        "workflow": new.workflow,
        "version": new.version,
        "at": _number(new.at),
        "status": new.status,
        "due": _number(new.due),
        "priority": new.priority,
        "correlation": new.correlation,
        "parent": new.parent,
    }
    if new.key is not None:
        made["key"] = new.key
    if new.start is not None:
        made["start"] = payloads.text(new.start)
    return made


def _message(message: NewMessage, payloads: Payloads) -> dict[str, Any]:
    made: dict[str, Any] = {
        "run": message.run,
        "kind": message.kind,
        "data": payloads.text(message.data),
        "at": _number(message.at),
    }
    if message.dedupe is not None:
        made["dedupe"] = message.dedupe
    return made


def commit(turn: Commit) -> Job[str]:
    """See `Store.commit`."""

    def encode(payloads: Payloads) -> dict[str, Any]:
        made: dict[str, Any] = {
            "do": "commit",
            "run": turn.run,
            "fence": turn.fence,
            "at": _number(turn.at),
            "status": turn.status,
            "due": _number(turn.due),
            "rows": len(turn.rows),
        }
        if turn.rows:
            made["first"] = len(payloads.texts) + 1
            payloads.texts += map(Utf8, turn.rows)
        if turn.status in _TERMINAL:
            made["over"] = True
        elif turn.waits is not None:
            made["waits"] = [*turn.waits]
        if turn.release:
            made["release"] = True
        if turn.detail is not None:
            made["detail"] = payloads.text(turn.detail)
        if turn.consumed:
            made["consumed"] = [*{*turn.consumed}]
        if turn.snapshot is not None:
            made["snapshot"] = [turn.snapshot.seq, payloads.text(turn.snapshot.data)]
        if turn.create is not None:
            made["create"] = _run(turn.create, payloads)
            made["worker"] = turn.worker
        if turn.children:
            made["children"] = [_run(child, payloads) for child in turn.children]
        if turn.messages:
            made["messages"] = [_message(message, payloads) for message in turn.messages]
        if turn.blobs:
            # In one order for everyone: nobody waits for who waits for him.
            made["blobs"] = [[key, payloads.blob(turn.blobs[key])] for key in sorted(turn.blobs)]
            others = {child.id for child in turn.children} | {one.run for one in turn.messages}
            made["others"] = sorted(others)
        return made

    def decode(answer: Any) -> str:
        own = turn.run if turn.create is None else turn.create.id
        if answer is None:
            return own
        if "id" in answer:
            return answer["id"]
        match answer["error"]:
            case "lost":
                raise LeaseLost(turn.run)
            case "exists":
                raise RunAlreadyExists(own)
            case "ended":
                raise StoreError(f"run {turn.run} has ended as {answer['status']} and stays so")
            case _:
                raise StoreError(
                    f"run {turn.run}: {answer['missing']} of the messages {sorted(turn.consumed)}"
                    " to be consumed are not in its inbox; an earlier commit consumed them",
                    hint="Load the run again; what it has not taken in yet is there.",
                )

    size = sum(map(len, turn.rows)) + sum(map(len, turn.blobs.values()))
    size += len(turn.snapshot.data) if turn.snapshot is not None else 0
    runs = (turn.run, *(one.run for one in turn.messages))
    return Job(encode, decode, size=size, runs=runs, worker=turn.worker)


def create(new: NewRun) -> Job[str]:
    """See `Store.create`."""

    def encode(payloads: Payloads) -> dict[str, Any]:
        return {"do": "create", **_run(new, payloads)}

    def decode(answer: Any) -> str:
        if answer is None:
            return new.id
        if "id" in answer:
            return answer["id"]
        raise RunAlreadyExists(new.id)

    return Job(encode, decode, size=len(new.start or b""))


def send(messages: Sequence[NewMessage]) -> Job[list[bool]]:
    """See `Store.send`."""

    def encode(payloads: Payloads) -> dict[str, Any]:
        return {"do": "send", "messages": [_message(one, payloads) for one in messages]}

    size = sum(len(one.data) for one in messages)
    return Job(encode, list, size=size, runs=[one.run for one in messages])


def register(worker: WorkerRow) -> Job[None]:
    """See `Store.register`."""
    job = {
        "do": "register",
        "worker": worker.id,
        "host": worker.host,
        "pid": worker.pid,
        "until": _number(worker.until),
        "workflows": json.dumps([*worker.workflows]),
    }
    return Job(lambda _: job, _nothing, loud=False, worker=worker.id)


def unregister(worker: str) -> Job[None]:
    """See `Store.unregister`."""
    return Job(lambda _: {"do": "unregister", "worker": worker}, _nothing)


def claim(
    worker: str, workflows: Sequence[str], now: float, limit: int, dead: Sequence[str]
) -> Job[list[RunRow]]:
    """See `Store.claim`."""
    job = {
        "do": "claim",
        "worker": worker,
        "workflows": [*workflows],
        "now": _number(now),
        "limit": limit,
        "dead": [*dead],
    }
    return Job(lambda _: job, lambda rows: [row_of(row) for row in rows], False, worker=worker)


def claim_one(worker: str, run: str, now: float, dead: Sequence[str]) -> Job[RunRow | None]:
    """See `Store.claim_one`."""
    job = {
        "do": "claim_one",
        "worker": worker,
        "run": run,
        "now": _number(now),
        "dead": [*dead],
    }
    return Job(
        lambda _: job,
        lambda rows: row_of(rows[0]) if rows else None,
        loud=False,
        runs=(run,),
        worker=worker,
    )


def delete(runs: Sequence[str]) -> Job[int]:
    """See `Store.delete`."""
    return Job(lambda _: {"do": "delete", "runs": [*runs]}, lambda answer: answer[0])


def _nothing(answer: Any) -> None:
    """There is nothing to say but that it is done."""
