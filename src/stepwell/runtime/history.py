"""A run's history, read from its journal without the workflow's code.

Entries are plain data; payloads stay the JSON that they are. What the journal says of one piece of
work (added, begun, failed, tried again, waiting, done) is put together here into a line for people.
This module decides nothing about a run: it only tells what was decided.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic_core import to_jsonable_python

from stepwell.authoring.program import TypeRegistry
from stepwell.kernel.journal import (
    AttemptExpired,
    AttemptFailed,
    ChildStarted,
    Entry,
    Joined,
    JoinReleased,
    RunEnded,
    ScopeEntered,
    WaitEnded,
    WaitOpened,
    WorkAdded,
    WorkBegun,
    WorkDone,
    WorkQueued,
)
from stepwell.kernel.outcomes import Message
from stepwell.runtime import codec
from stepwell.runtime.engine import Engine
from stepwell.values import ErrorInfo, Json

_NO_TYPES = TypeRegistry(())

Batch = tuple[int, float, list[Entry]]
"""A journal row: its number, its time, its entries."""


async def batches_of(engine: Engine, run_id: str, after: int = 0) -> list[Batch]:
    """The run's journal behind a row."""
    return [
        (seq, at, decoded(entries, at)) for seq, at, entries in await engine.journal(run_id, after)
    ]


def decoded(entries: Sequence[Json], at: float) -> list[Entry]:
    """The entries of a journal row."""
    return [codec.decode_entry(cast("list[Any]", row), _NO_TYPES, at) for row in entries]


@dataclass(slots=True)
class Attempt:
    """One try of a step. `retry_at`: when the next one was to begin."""

    began: float
    ended: float | None = None
    error: ErrorInfo | None = None
    retry_at: float | None = None


@dataclass(slots=True)
class Work:
    """One piece of work: what a step did with one input.

    Attributes:
        id: its number in the run.
        step: whose work it is.
        given: tags of its input.
        added: when it was owed first.
        status: queued, running, waiting, retrying, done, failed or stopped.
        attempts: its tries.
        ended: when it was done or given up.
        waited: what it waits for.
    """

    id: int
    step: str
    given: tuple[str, ...]
    added: float
    status: str = "queued"
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    ended: float | None = None
    waited: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def began(self) -> float | None:
        """When its first attempt began."""
        return self.attempts[0].began if self.attempts else None

    @property
    def took(self) -> float | None:
        """From the first attempt's beginning to the end, in seconds."""
        return None if self.ended is None or self.began is None else self.ended - self.began

    @property
    def error(self) -> ErrorInfo | None:
        """The last error."""
        return next((a.error for a in reversed(self.attempts) if a.error is not None), None)


@dataclass(slots=True)
class History:
    """What a run did so far."""

    works: dict[int, Work] = field(default_factory=dict[int, Work])
    children: list[ChildStarted] = field(default_factory=list[ChildStarted])
    ended: RunEnded | None = None
    _waits: dict[str, int] = field(default_factory=dict[str, int])
    _joins: dict[tuple[str, int], dict[int, deque[str]]] = field(
        default_factory=dict[tuple[str, int], dict[int, deque[str]]]
    )
    _released: tuple[str, ...] = ()

    def read(self, entry: Entry, at: float) -> Work | None:
        """Take in what happened at `at`; returns the work that it happened to."""
        match entry:
            case WorkAdded():
                return self._added(entry)
            case WorkBegun(id=id):
                work = self.works[id]
                if not work.attempts or work.attempts[-1].ended is not None:
                    work.attempts.append(Attempt(entry.at))
                work.status = "running"
                return work
            case WorkQueued(id=id):
                self.works[id].status = "queued"
                return self.works[id]
            case AttemptFailed(id=id):
                return self._failed(self.works[id], entry)
            case AttemptExpired(id=id):
                return self.works[id]
            case WorkDone(id=id):
                work = self.works[id]
                if work.status != "failed":
                    work.status = "done"
                    work.ended = at
                    if work.attempts:
                        work.attempts[-1].ended = at
                return work
            case WaitOpened(work=work_id) if work_id:
                self._waits[entry.id] = work_id
                work = self.works[work_id]
                work.waited[entry.id] = entry.tag or "time"
                work.status = "waiting"
                return work
            case WaitEnded(id=id):
                owner = self.works.get(self._waits.pop(id, 0))
                if owner is not None:
                    owner.waited.pop(id, None)
                    if owner.status == "waiting" and not owner.waited:
                        owner.status = "queued"
                return owner
            case Joined(step=step, stream=stream, slot=slot):
                slots = self._joins.setdefault((step, stream), {})
                slots.setdefault(slot, deque()).append(entry.message.tag)
            case JoinReleased():
                self._release(entry)
            case ChildStarted():
                self.children.append(entry)
            case ScopeEntered():
                self._stop(at)
            case RunEnded():
                self.ended = entry
                self._stop(entry.at)
            case _:
                pass
        return None

    def _release(self, entry: JoinReleased) -> None:
        """What the join gives to the work that is added next: tags only."""
        slots = self._joins.get((entry.step, entry.stream), {})
        if entry.over:
            self._released = tuple(slots.get(0, ()))
            self._joins.pop((entry.step, entry.stream), None)
        else:
            self._released = tuple(slots[slot].popleft() for slot in sorted(slots) if slots[slot])

    def _added(self, entry: WorkAdded) -> Work:
        given = entry.message
        if isinstance(given, Message):
            tags: tuple[str, ...] = (given.tag,)
        else:
            tags = self._released if given is None else tuple(m.tag for m in given)
        work = Work(entry.id, entry.step, tags, entry.at)
        if entry.begun:
            work.status = "running"
            work.attempts.append(Attempt(entry.at))
        self.works[entry.id] = work
        return work

    def _failed(self, work: Work, entry: AttemptFailed) -> Work:
        if not work.attempts or work.attempts[-1].ended is not None:
            work.attempts.append(Attempt(entry.at))
        attempt = work.attempts[-1]
        attempt.ended = entry.at
        attempt.error = entry.error
        attempt.retry_at = entry.retry_at
        work.waited.clear()
        if entry.retry_at is None:
            work.status = "failed"
            work.ended = entry.at
        else:
            work.status = "retrying"
        return work

    def _stop(self, at: float) -> None:
        """The run went on without what was still at work."""
        for work in self.works.values():
            if work.ended is None:
                work.status = "stopped"
                work.ended = at
                if work.attempts and work.attempts[-1].ended is None:
                    work.attempts[-1].ended = at


def history_of(batches: Iterable[Batch]) -> History:
    """What these journal rows tell, from the run's first row on."""
    history = History()
    for _, at, entries in batches:
        for entry in entries:
            history.read(entry, at)
    return history


def by_step(history: History) -> Iterator[tuple[str, list[Work]]]:
    """The work of each step, steps in the order in which they first had some."""
    found: dict[str, list[Work]] = {}
    for work in history.works.values():
        found.setdefault(work.step, []).append(work)
    yield from found.items()


def result_of(message: Message) -> Json:
    """What a run gave, without its code: the result of a plain stop event, else its fields."""
    fields = cast("Json", plain(message.payload))
    if message.tag == "StopEvent" and isinstance(fields, Mapping) and set(fields) <= {"result"}:
        return fields.get("result")
    return fields


def plain(value: object) -> Any:
    """`value` as JSON values: events as their fields, what can't be written as its text."""
    return _flat(to_jsonable_python(value, fallback=str, inf_nan_mode="strings"))


def _flat(value: Any) -> Any:
    """Events keep fields that their class does not declare under `_data`; people do not care."""
    if isinstance(value, dict):
        rows = cast("dict[str, Any]", value)
        extra = rows.get("_data")
        if isinstance(extra, dict):
            rows = {k: v for k, v in rows.items() if k != "_data"}
            rows.update(cast("dict[str, Any]", extra))
        return {key: _flat(item) for key, item in rows.items()}
    if isinstance(value, list):
        return [_flat(item) for item in cast("list[Any]", value)]
    return value
