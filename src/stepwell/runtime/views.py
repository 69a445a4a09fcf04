"""What a run looks like from outside: waits, errors, why it does not go on. Plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, cast

from stepwell.authoring.words import step_said
from stepwell.kernel.outcomes import Message
from stepwell.kernel.run import Run
from stepwell.stores.base import MessageRow, RunRow
from stepwell.values import Json, RunStatus, iso

SHOWN = 20
"""How many waits of a run are kept with its row; the journal has them all."""


@dataclass(frozen=True, slots=True)
class WaitInfo:
    """Something a run waits for. Times are seconds since the epoch, UTC.

    Attributes:
        id: the name under which it can be answered.
        event: the tag of the message wanted; None waits for time or for a child run.
        step: the step that waits; empty when the run itself does.
        since: when it began to wait.
        due: when the wait ends by itself; None: never.
        child: the child run whose end is waited for.
        question: the fields of the question shown to people.
        where: the fields that the message must have, with just these values; None: any will do.
        then: the step that the run goes on at; None: a step waits in its body, and goes on there.
        on_timeout: the step that the run goes on at when the wait has ended by itself.
    """

    id: str
    event: str | None
    step: str
    since: float
    due: float | None
    child: str | None = None
    question: Json = None
    where: Mapping[str, Json] | None = None
    then: str | None = None
    on_timeout: str | None = None

    def to_json(self) -> dict[str, Json]:
        """The wait as JSON values; times as ISO 8601 in UTC."""
        return {
            "id": self.id,
            "event": self.event,
            "step": self.step,
            "since": iso(self.since),
            "due": iso(self.due),
            "child": self.child,
            "question": self.question,
            "where": None if self.where is None else dict(self.where),
            "then": None if self.then is None else step_said(self.then),
            "on_timeout": None if self.on_timeout is None else step_said(self.on_timeout),
        }


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A run as the engine shows it. Times are seconds since the epoch, UTC.

    Attributes:
        id, workflow, version: which run, of what.
        status: where it is.
        created, updated, ended: when.
        owner: the worker that holds it.
        due: when it must be advanced next, if it is not running.
        parent: the run it is a part of.
        key, correlation, priority: as given at its start.
        reason: why it is parked, was left to other workers, or how it ended, in a sentence.
        waits: what it waits for (at most 20).
        seq: how many journal rows it has.
        unread: what came for it and was not taken in yet, a word each: "signal", "answer",
            "cancel", "child" (one has ended), ... Only `get` says it, for a live run.
    """

    id: str
    workflow: str
    version: str
    status: RunStatus
    created: float
    updated: float
    ended: float | None
    owner: str | None
    due: float | None
    parent: str | None
    key: str | None
    correlation: str | None
    priority: int
    reason: str | None
    waits: tuple[WaitInfo, ...] = ()
    seq: int = 0
    error: Mapping[str, Json] | None = None
    unread: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """The run as JSON values; times as ISO 8601 in UTC."""
        return {
            "id": self.id,
            "workflow": self.workflow,
            "version": self.version,
            "status": self.status.value,
            "created": iso(self.created),
            "updated": iso(self.updated),
            "ended": iso(self.ended),
            "owner": self.owner,
            "due": iso(self.due) if self.status is RunStatus.WAITING else None,
            "parent": self.parent,
            "key": self.key,
            "correlation": self.correlation,
            "priority": self.priority,
            "reason": self.reason,
            "error": self.error,
            "journal_rows": self.seq,
            "unread": list(self.unread),
            "waits": [wait.to_json() for wait in self.waits],
        }


@dataclass(frozen=True, slots=True)
class Why:
    """Why a run is where it is.

    Attributes:
        status: where it is.
        sentence: what it waits for, since when, and what would move it.
        waits: what it waits for, one by one.
        steps: the steps that are queued, running or delayed, with a word on each.
    """

    status: RunStatus
    sentence: str
    waits: tuple[WaitInfo, ...] = ()
    steps: tuple[str, ...] = field(default=())


REASON = 1000
"""Characters of an error that are said as the reason why a run has ended."""


def run_detail(run: Run) -> Json:
    """What is kept with the row of a run that is not running."""
    if run.parked is not None:
        return {"reason": run.parked}
    if run.ended is not None:
        if run.error is None:
            return {}
        return {
            "reason": short(run.error.message),
            "error": {**run.error.to_json(), "step": run.failed_step},
        }
    return {"waits": [_wait_json(w) for w in waits_of(run, SHOWN)]}


def short(text: str, most: int = REASON) -> str:
    """Text of at most so many characters; by default, what stands with each run of a list."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def in_short(error: BaseException) -> str:
    """An error's text, as a person reads it: without pydantic's addresses of its manual."""
    lines = str(error).splitlines()
    return "\n".join(line for line in lines if "https://errors.pydantic.dev/" not in line)


def let_go_detail(run: Run) -> Json:
    """What is kept with the row of a run that its worker let go of on purpose."""
    return {**cast("dict[str, Json]", run_detail(run)), "let_go": True}


def was_let_go(row: RunRow) -> bool:
    """Whether the worker that had the run last let go of it on purpose."""
    return _says(row, b'"let_go"') and detail_of(row).get("let_go") is True


def left_by(row: RunRow) -> Sequence[str]:
    """The workers whose code can't go on with the run, and who left it to others."""
    left = detail_of(row).get("left") if _says(row, b'"left"') else None
    return cast("Sequence[str]", left["by"]) if isinstance(left, dict) else ()


def detail_of(row: RunRow) -> dict[str, Any]:
    """What is kept with the row of a run."""
    found: object = json.loads(row.detail) if row.detail else {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _says(row: RunRow, word: bytes) -> bool:
    """Whether it is worth while to read the detail."""
    return row.detail is not None and word in row.detail


def waits_of(run: Run, most: int | None = None) -> list[WaitInfo]:
    """All that `run` waits for, or the first of it."""
    found: list[WaitInfo] = []
    waits = (run.waits or {}).values() if run.ended is None else ()
    for wait in islice(waits, most):
        work = run.work.get(wait.work)
        question = None if wait.question is None else _fields(wait.question.payload)
        step = waiting_step(wait.message) if work is None else work.step
        info = WaitInfo(
            wait.id,
            wait.tag,
            step,
            wait.at,
            wait.due,
            wait.child,
            question,
            wait.where,
            wait.then,
            wait.on_timeout,
        )
        found.append(info)
    return found


def waiting_step(message: Message | None) -> str:
    """The step that ended in a wait of the run, if that is kept with the wait."""
    held = None if message is None else message.payload
    name = cast("Mapping[str, object]", held).get("from") if isinstance(held, Mapping) else None
    return name if isinstance(name, str) else ""


def _fields(payload: object) -> Json:
    dump = getattr(payload, "model_dump", None)
    plain: Any = dump(mode="json") if callable(dump) else payload
    if isinstance(plain, dict):
        rows: dict[str, Any] = dict(cast("dict[str, Any]", plain))
        extra = rows.pop("_data", None)
        if isinstance(extra, dict):
            rows.update(cast("dict[str, Any]", extra))
        return rows
    return str(plain)


def _wait_json(w: WaitInfo) -> Json:
    row: dict[str, Json] = {
        "id": w.id,
        "event": w.event,
        "step": w.step,
        "since": w.since,
        "due": w.due,
        "child": w.child,
        "question": w.question,
    }
    if w.where is not None:
        row["where"] = dict(w.where)
    if w.then is not None:
        row["then"] = w.then
    if w.on_timeout is not None:
        row["on_timeout"] = w.on_timeout
    return row


def unread_of(messages: Sequence[MessageRow]) -> tuple[str, ...]:
    """A word for each message that a run has not taken in; its start is none that came for it."""
    return tuple(_word_for(message) for message in messages if message.kind != "start")


def _word_for(message: MessageRow) -> str:
    if message.kind != "event":
        return message.kind
    return "signal" if answered_by(message) is None else "answer"


def answered_by(message: MessageRow) -> str | None:
    """The question that a kept message answers, if it answers one."""
    if message.kind != "event":
        return None
    try:
        row = json.loads(message.data)
    except ValueError:
        return None  # who takes it in will say so
    wait = cast("dict[str, Any]", row).get("w") if isinstance(row, dict) else None
    return wait if isinstance(wait, str) else None


def run_info(row: RunRow, messages: Sequence[MessageRow] = ()) -> RunInfo:
    """The public face of a store's row, and of the messages that wait for the run."""
    detail = detail_of(row)
    waits = tuple(WaitInfo(**wait) for wait in detail.get("waits", ()))
    live = not row.status.terminal and row.status is not RunStatus.PARKED
    return RunInfo(
        id=row.id,
        workflow=row.workflow,
        version=row.version,
        status=row.status,
        created=row.created,
        updated=row.updated,
        ended=row.ended,
        owner=row.owner,
        due=row.due,
        parent=row.parent,
        key=row.key,
        correlation=row.correlation,
        priority=row.priority,
        reason=detail.get("reason") or cast("dict[str, Any]", detail.get("left", {})).get("reason"),
        waits=waits if row.status is RunStatus.WAITING and live else (),
        seq=row.seq,
        error=detail.get("error"),
        unread=() if row.status.terminal else unread_of(messages),
    )
