"""Journal entries in words."""

from __future__ import annotations

from dataclasses import fields

from stepwell.authoring.words import GO, step_said, tag_said
from stepwell.cli import output
from stepwell.kernel.journal import (
    AttemptFailed,
    ChildStarted,
    Entry,
    Joined,
    Published,
    RunEnded,
    ScopeEntered,
    StateEdited,
    Unhandled,
    WaitEnded,
    WaitOpened,
    WorkAdded,
)
from stepwell.kernel.outcomes import ChildResult, Failure, Message
from stepwell.values import ErrorInfo

_MOST = 400


def told(entry: Entry) -> str:
    """What an entry says, in one line."""
    match entry:
        case WorkAdded(id=id, step=step, message=given):
            begun = "" if entry.begun else ", queued"
            if isinstance(given, Message):
                return f"#{id} {step_said(step)} gets {message(given) or 'nothing'}{begun}"
            if given is None:
                return f"#{id} {step} gets what was brought together{begun}"
            tags = ", ".join(dict.fromkeys(m.tag for m in given))
            return f"#{id} {step} gets {len(given)} events ({tags}){begun}"
        case AttemptFailed(id=id, error=failure, retry_at=at):
            then = "no retry" if at is None else f"again at {output.clock(at)}"
            return f"#{id} {error(failure)}; {then}"
        case WaitOpened():
            return _wait(entry)
        case WaitEnded(id=id, answer=answer, timed_out=late):
            return f"{id} {'timed out' if late else '' if answer is None else message(answer)}"
        case ChildStarted(id=id, workflow=workflow, message=given):
            return f"{id} of {workflow} gets {message(given) or 'nothing'}"
        case Published(messages=messages):
            return "; ".join(message(m) for m in messages)
        case Unhandled(message=given, kept=kept):
            return f"{message(given)}, {'kept until someone waits for it' if kept else 'dropped'}"
        case StateEdited(edits=edits):
            return output.brief(edits, _MOST)
        case Joined(step=step, slot=slot, message=given):
            return f"{step}[{slot}] {message(given)}"
        case RunEnded() | ScopeEntered():
            parts = [entry.status.value]
            if entry.error is not None:
                parts.append(error(entry.error))
            if entry.result is not None:
                parts.append(message(entry.result))
            return " ".join(parts)
        case _:
            return _plainly(entry)


def _wait(entry: WaitOpened) -> str:
    what = "time" if entry.tag is None else tag_said(entry.tag)
    until = "" if entry.due is None else f" until {output.local(entry.due)}"
    asks = "" if entry.question is None else f", asks {message(entry.question)}"
    by = f"#{entry.work} " if entry.work else ""
    return f"{by}{entry.id} for {what}{until}{asks}"


def message(given: Message) -> str:
    """A message: its type and the beginning of its fields."""
    tag = tag_said(given.tag)
    match given.payload:
        case ChildResult(run=run, status=status, error=failure):
            why = "" if failure is None else f" {error(failure)}"
            return f"{tag} {run}: {status.value}{why}"
        case Failure(step=step, error=failure):
            return f"{tag} of {step_said(step)}: {error(failure)}"
        case _ if given.tag == GO:
            return ""
        case _:
            pass
    return f"{tag} {output.brief(given.payload, _MOST)}".strip()


def error(info: ErrorInfo) -> str:
    """An error: its type and text."""
    return output.error_text(info.to_json(), place=True)


def _plainly(entry: Entry) -> str:
    parts: list[str] = []
    for item in fields(entry):
        value = getattr(entry, item.name)
        if value in (None, "", (), 0, False) or value == item.default or item.name == "at":
            continue
        if item.name == "id":
            parts.append(f"#{value}" if isinstance(value, int) else str(value))
        elif item.name == "deadline":
            parts.append(f"until {output.clock(value)}")
        else:
            parts.append(f"{item.name}={output.brief(value, 60)}")
    return " ".join(parts)
