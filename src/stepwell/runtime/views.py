"""What a run looks like from outside: waits, errors, why it does not go on. Plain data."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from stepwell.authoring.machine.body import MOVED
from stepwell.authoring.machine.words import step_said, wanted
from stepwell.kernel.definition import Definition
from stepwell.kernel.journal import Entry, Joined, Published, Unhandled, WorkAdded, WorkDone
from stepwell.kernel.outcomes import Message
from stepwell.kernel.rest import held_up, in_vain
from stepwell.kernel.run import DELAYED, QUEUED, RUNNING, Run, next_due, pending
from stepwell.stores.base import MessageRow, RunRow
from stepwell.values import Json, RunStatus, iso, utc

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
        reason: why it is parked, or how it ended, in a sentence.
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


def run_detail(run: Run) -> Json:
    """What is kept with the row of a run that is not running."""
    if run.parked is not None:
        return {"reason": run.parked}
    if run.ended is not None:
        if run.error is None:
            return {}
        return {
            "reason": run.error.message,
            "error": {
                "type": run.error.type,
                "message": run.error.message,
                "step": run.failed_step,
            },
        }
    return {"waits": [_wait_json(w) for w in waits_of(run)[:SHOWN]]}


def in_short(error: BaseException) -> str:
    """An error's text, as a person reads it: without pydantic's addresses of its manual."""
    lines = str(error).splitlines()
    return "\n".join(line for line in lines if "https://errors.pydantic.dev/" not in line)


def let_go_detail(run: Run) -> Json:
    """What is kept with the row of a run that its worker let go of on purpose."""
    return {**cast("dict[str, Json]", run_detail(run)), "let_go": True}


def was_let_go(row: RunRow) -> bool:
    """Whether the worker that had the run last let go of it on purpose."""
    return row.detail is not None and b'"let_go"' in row.detail and _let_go(row.detail)


def _let_go(detail: bytes) -> bool:
    found = json.loads(detail)
    return isinstance(found, dict) and cast("dict[str, Any]", found).get("let_go") is True


def waits_of(run: Run) -> list[WaitInfo]:
    """All that `run` waits for."""
    found: list[WaitInfo] = []
    for wait in pending(run).waits:
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


def run_info(
    row: RunRow, detail: Mapping[str, Any], messages: Sequence[MessageRow] = ()
) -> RunInfo:
    """The public face of a store's row, and of the messages that wait for the run."""
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
        reason=detail.get("reason"),
        waits=waits if row.status is RunStatus.WAITING and live else (),
        seq=row.seq,
        error=detail.get("error"),
        unread=() if row.status.terminal else unread_of(messages),
    )


def why_of(
    info: RunInfo,
    run: Run | None,
    definition: Definition | None,
    now: float,
    *,
    held: bool = True,
    known: bool = True,
    last: str = "",
) -> Why:
    """What the run waits for, since when, and what would move it. `held`: its owner is alive;
    `known`: some live worker knows its workflow; `last`: what its last step did, as a clause."""
    why = _by_status(info, run, definition, now, held=held, known=known, last=last)
    if not info.unread:
        return why
    count = len(info.unread)
    what = f"{count} message{'s' if count > 1 else ''} waiting"
    kinds = ", ".join(dict.fromkeys(info.unread))
    if info.status is RunStatus.PARKED:
        whom = "the resumed run"
    elif held and info.owner is not None:
        whom = f"worker {info.owner} to take in"
    else:
        whom = "a worker that knows it"
    return replace(why, sentence=f"{why.sentence} It has {what} ({kinds}) for {whom}.")


def _by_status(
    info: RunInfo,
    run: Run | None,
    definition: Definition | None,
    now: float,
    *,
    held: bool,
    known: bool,
    last: str,
) -> Why:
    nobody = (
        f"no live worker knows workflow {info.workflow!r}: start one that has it "
        "(`stepwell worker module:Workflow`)"
    )
    match info.status:
        case RunStatus.PARKED:
            return Why(
                info.status,
                f"parked: {info.reason}. A person has to put this right and then resume the run "
                f"(`stepwell resume {info.id}`).",
            )
        case status if status.terminal:
            ended = "" if info.ended is None else f" at {utc(info.ended):%Y-%m-%d %H:%M:%S} UTC"
            reason = f": {info.reason}" if info.reason else ""
            return Why(info.status, f"{status.value}{ended}{reason}. Nothing will move it again.")
        case RunStatus.QUEUED if not known:
            return Why(info.status, f"queued for {_span(now, info.created)}, but {nobody}.")
        case RunStatus.QUEUED:
            return Why(
                info.status,
                f"queued for {_span(now, info.created)}; it starts when a worker that knows "
                f"workflow {info.workflow!r} has room for it.",
            )
        case _:
            pass
    waits = info.waits if run is None else tuple(waits_of(run))
    steps = _steps(run, now)
    if info.status is RunStatus.RUNNING:
        busy = ", ".join(steps)
        if held:
            return Why(
                info.status, f"running on worker {info.owner}: {busy or 'its steps'}.", waits, steps
            )
        was = f"its worker {info.owner} is gone" if info.owner else "held by no worker"
        then = "the next worker that knows its workflow takes it over" if known else nobody
        at = f" It was at: {busy}." if busy else ""
        return Why(info.status, f"running, but {was}; {then}.{at}", waits, steps)
    told = [_told(w, now, info.id) for w in waits] + [s for s in steps if "again" in s]
    told += _sleeping(run)
    if not told:
        told = [_rest(info, run, definition, last)]
    after = "" if known else f" What comes is kept, but {nobody}."
    return Why(info.status, f"waiting {'; '.join(told)}.{after}", waits, steps)


def last_word(entries: Iterable[Entry]) -> str:
    """Which step of a run ended last, and what it returned, as a clause; "" when none did."""
    steps: dict[int, str] = {}
    last, tags = "", list[str]()
    for entry in entries:
        match entry:
            case WorkAdded(id=id, step=step):
                steps[id] = step
            case WorkDone(id=id):
                last, tags = steps.pop(id, last), []
            case Unhandled(message=message, kept=False) | Joined(message=message):
                tags.append(message.tag)
            case Published(messages=messages):
                tags += [message.tag for message in messages]
            case _:
                pass
    return f"step {last!r} returned {', '.join(tags[:SHOWN]) or 'None'}" if last else ""


def _rest(info: RunInfo, run: Run | None, definition: Definition | None, last: str) -> str:
    """Nothing is owed: what it came from, and what would move it."""
    held = ()
    if run is not None:
        held = in_vain(run) if definition is None else held_up(definition, run)
    came = "; ".join((*((last,) if last else ()), *held))
    came = f" ({came})" if came else ""
    outside = () if definition is None else sorted(definition.outside)
    if outside:
        example = f"`stepwell signal {info.id} {outside[0]} '{{...}}'`"
        return f"for {' or '.join(outside)} from outside{came}; {example} moves it"
    due = None if run is None else next_due(run)
    stays = "nothing else will move it: cancel it"
    if due is not None:
        stays = f"nothing else will move it before its timeout at {utc(due):%Y-%m-%d %H:%M:%S} UTC"
    return f"for an event from outside, since nothing is left to do{came}; {stays}"


def _steps(run: Run | None, now: float) -> tuple[str, ...]:
    found: list[str] = []
    for work in () if run is None else tuple(run.work.values()):
        if work.phase == RUNNING:
            name = step_said(work.step)
            found.append(f"{name} (attempt {work.attempt}, for {_span(now, work.first_at)})")
        elif work.phase == QUEUED:
            found.append(f"{work.step} (queued for a free worker of the step)")
        elif work.phase == DELAYED:
            if work.error is None and not work.attempt:
                continue  # it has not begun: the run sleeps until then
            error = "" if work.error is None else f" after {work.error.type}: {work.error.message}"
            found.append(f"{work.step} is tried again soon (attempt {work.attempt + 1}){error}")
    return tuple(found[:SHOWN])


def _sleeping(run: Run | None) -> list[str]:
    """What is to begin later, and when."""
    if run is None:
        return []
    due = {number: at for at, number, _, _ in run.timers or ()}
    return [
        f"for time to pass until {_at(due[work.timer])}, then goes to {step_said(work.step)!r}"
        for work in run.work.values()
        if work.phase == DELAYED and work.error is None and not work.attempt
    ][:SHOWN]


def _at(time: float) -> str:
    return f"{utc(time):%Y-%m-%d %H:%M:%S} UTC"


def _of_run(w: WaitInfo, now: float, run: str) -> str:
    """A wait of the run itself, which is at no step meanwhile."""
    if w.event == MOVED:
        paused = "its schedule is paused; it begins when that goes on again"
        return paused if w.due is None else f"to begin at {_at(w.due)}"
    then, late = step_said(w.then or ""), step_said(w.on_timeout or "")
    at = f", at step {w.step!r}," if w.step else ""
    since = f"since {_at(w.since)} ({_span(now, w.since)})"
    if w.event is None:
        return f"for child run {w.child} to end{at} {since}, then goes to {then!r}"
    only = "" if w.where is None else f" with {json.dumps(w.where, ensure_ascii=False)}"
    until = ""
    if w.due is not None:
        until = f", until {_at(w.due)}, then " + (f"goes to {late!r}" if late else "fails")
    command = f"`stepwell signal {run} {shlex.quote(w.event)} '{{...}}'`"
    return f"for {wanted(w.event)}{only}{at} {since}{until}; {command} takes it to {then!r}"


def _told(w: WaitInfo, now: float, run: str) -> str:
    if w.then is not None:
        return _of_run(w, now, run)
    until = "" if w.due is None else f", until {utc(w.due):%Y-%m-%d %H:%M:%S} UTC"
    since = f" for {_span(now, w.since)}"
    where = f" in step {w.step!r}" if w.step else ""
    if w.child is not None:
        return f"for child run {w.child} to end{where}{since}"
    if w.event is None:
        return f"for time to pass{where}{since}{until}"
    return f"for {w.event} (question {w.id!r}){where}{since}{until}; answer it to move the run"


def _span(now: float, at: float) -> str:
    seconds = max(0.0, now - at)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
