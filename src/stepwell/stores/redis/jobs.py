"""The verbs that write, as data: which script, with which arguments, and what its answer means.

Nothing here connects to anything. Times are sent as `repr` writes them, which is exact; what may
be missing is sent as "" or as "=" and the value.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from stepwell.errors import LeaseLost, RunAlreadyExists, StoreError
from stepwell.stores.base import Commit, MessageRow, NewMessage, NewRun, RunRow, WorkerRow
from stepwell.values import RunStatus

T = TypeVar("T")
Answer = Any  # JSON that a script of this package wrote; each decoder knows its own


@dataclass(frozen=True, slots=True)
class Job(Generic[T]):
    """One call of a script.

    Args:
        script: its name.
        arguments: what it takes, after those that every call has.
        decode: makes the verb's result of the script's answer, or raises what was refused.
        loud: whether others should look.
        frees: whether a server without memory should do it all the same.
    """

    script: str
    arguments: Sequence[bytes]
    decode: Callable[[Answer], T]
    loud: bool = False
    frees: bool = False

    @property
    def size(self) -> int:
        """How many bytes are sent, roughly."""
        return sum(map(len, self.arguments))


def commit(commit: Commit) -> Job[str]:
    """See `Store.commit`."""
    snapshot = commit.snapshot
    arguments = [
        commit.run.encode(),
        b"%d" % commit.fence,
        time(commit.at),
        commit.status.encode(),
        maybe_time(commit.due),
        commit.worker.encode(),
        b"1" if commit.release else b"0",
        maybe(commit.detail),
        maybe(None if commit.waits is None else _tags(commit.waits)),
        maybe(None if snapshot is None else b"%d" % snapshot.seq),
        b"" if snapshot is None else snapshot.data,
        *items(commit.rows),
        *items([b"%d" % number for number in commit.consumed]),
        b"0" if commit.create is None else b"1",
    ]
    if commit.create is not None:
        arguments += _run(commit.create)
    arguments.append(b"%d" % len(commit.children))
    for child in commit.children:
        arguments += _run(child)
    arguments += _messages(commit.messages)
    arguments.append(b"%d" % len(commit.blobs))
    for digest, data in commit.blobs.items():
        arguments += (digest.encode(), data)
    return Job("commit", arguments, lambda answer: _kept(commit.run, answer), True)


def create(run: NewRun) -> Job[str]:
    """See `Store.create`."""
    return Job("create", _run(run), lambda answer: _kept(run.id, answer), True)


def send(messages: Sequence[NewMessage]) -> Job[list[bool]]:
    """See `Store.send`."""
    return Job("send", _messages(messages), lambda answer: list(answer or ()), True)


def register(worker: WorkerRow) -> Job[None]:
    """See `Store.register`."""
    row = {
        "host": worker.host,
        "pid": worker.pid,
        "until": repr(float(worker.until)),
        "workflows": list(worker.workflows),
    }
    arguments = [worker.id.encode(), time(worker.until), json.dumps(row).encode()]
    return Job("register", arguments, _nothing)


def unregister(worker: str) -> Job[None]:
    """See `Store.unregister`."""
    return Job("unregister", [worker.encode()], _nothing, loud=True, frees=True)


def claim(
    worker: str, workflows: Sequence[str], now: float, limit: int, dead: Sequence[str]
) -> Job[list[RunRow]]:
    """See `Store.claim`."""
    arguments = [worker.encode(), time(now), b"%d" % limit, *texts(workflows), *texts(dead)]
    return Job("claim", arguments, _rows)


def claim_one(worker: str, run: str, now: float, dead: Sequence[str]) -> Job[RunRow | None]:
    """See `Store.claim_one`."""
    arguments = [worker.encode(), run.encode(), time(now), *texts(dead)]
    return Job("claim_one", arguments, _maybe_row)


def delete(runs: Sequence[str]) -> Job[int]:
    """See `Store.delete`."""
    return Job("delete", texts(runs), int, loud=True, frees=True)


# What is sent -------------------------------------------------------------------------------------


def time(seconds: float) -> bytes:
    """A time, exactly."""
    return repr(float(seconds)).encode()


def maybe(value: bytes | None) -> bytes:
    """What may be missing."""
    return b"" if value is None else b"=" + value


def maybe_time(seconds: float | None) -> bytes:
    """A time that may be missing."""
    return maybe(None if seconds is None else time(seconds))


def maybe_text(text: str | None) -> bytes:
    """A text that may be missing."""
    return maybe(None if text is None else text.encode())


def items(values: Sequence[bytes]) -> list[bytes]:
    """How many, then each."""
    return [b"%d" % len(values), *values]


def texts(values: Sequence[str]) -> list[bytes]:
    """How many, then each."""
    return items([value.encode() for value in values])


def _run(new: NewRun) -> list[bytes]:
    start = None if new.start is None else _payload("start", new.at, new.start)
    return [
        new.id.encode(),
        new.workflow.encode(),
        time(new.at),
        new.version.encode(),
        new.status.encode(),
        maybe_time(new.due),
        maybe(start),
        maybe_text(new.key),
        maybe_text(new.correlation),
        maybe_text(new.parent),
        b"%d" % new.priority,
    ]


def _messages(messages: Sequence[NewMessage]) -> list[bytes]:
    arguments = [b"%d" % len(messages)]
    for message in messages:
        arguments += (
            message.run.encode(),
            time(message.at),
            _payload(message.kind, message.at, message.data),
            maybe_text(message.dedupe),
        )
    return arguments


def _payload(kind: str, at: float, data: bytes) -> bytes:
    name = kind.encode()
    return b"%b %d %b%b" % (time(at), len(name), name, data)


def _tags(tags: Sequence[str]) -> bytes:
    return json.dumps(sorted({*tags}), ensure_ascii=False).encode()


# What comes back ----------------------------------------------------------------------------------


def message_of(member: bytes) -> MessageRow:
    """A message as it lies in an inbox."""
    id, at, length, rest = member.split(b" ", 3)
    size = int(length)
    return MessageRow(int(id), rest[:size].decode(), rest[size:], float(at))


def row_of(answer: Sequence[Any]) -> RunRow:
    """A run's row as scripts give it: texts, and None or False for what is missing."""
    (id, workflow, version, status, seq, fence, owner, due, created, updated, ended, key,
     correlation, parent, priority, detail) = answer  # fmt: skip
    return RunRow(
        id=id,
        workflow=workflow,
        version=version,
        status=RunStatus(status),
        seq=int(seq),
        fence=int(fence),
        owner=_text(owner),
        due=_float(due),
        created=float(created),
        updated=float(updated),
        ended=_float(ended),
        key=_text(key),
        correlation=_text(correlation),
        parent=_text(parent),
        priority=int(priority),
        detail=None if detail is False or detail is None else detail.encode(),
    )


def _text(value: str | bool | None) -> str | None:
    return value if isinstance(value, str) else None


def _float(value: str | bool | None) -> float | None:
    return float(value) if isinstance(value, str) else None


def _rows(answer: Answer) -> list[RunRow]:
    return [row_of(each) for each in answer or ()]  # Lua's empty table is {} in JSON


def _maybe_row(answer: Answer) -> RunRow | None:
    return row_of(answer) if answer else None


def _nothing(answer: Answer) -> None:
    """Verbs that return nothing."""


def _kept(run: str, answer: Answer) -> str:
    match answer:
        case ["kept", str(id)]:
            return id
        case ["lost"]:
            raise LeaseLost(run)
        case ["exists", str(id)]:
            raise RunAlreadyExists(id)
        case ["ended", str(status)]:
            raise StoreError(f"run {run} has ended as {status} and stays so")
        case ["consumed", str(message)]:
            raise StoreError(
                f"run {run}: message {message} is not in its inbox;"
                " it was consumed by an earlier commit"
            )
        case _:
            raise StoreError(f"run {run}: the script answered {answer!r}")
