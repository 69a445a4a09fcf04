"""Why a run is where it is, said to a person: what it waits for, since when, what would move it.

Every sentence ends in something that can be done, or says that nothing need be: a command to copy,
a time, or who goes on by itself. It is made of the run's row, of its fold and of the definition, as
far as they are there; it asks nobody and changes nothing.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import replace

from stepwell.authoring.words import MOVED, step_said, tag_said, wanted
from stepwell.kernel.definition import Definition
from stepwell.kernel.journal import Entry, Joined, Published, Unhandled, WorkAdded, WorkDone
from stepwell.kernel.rest import held_up, in_vain
from stepwell.kernel.run import DELAYED, QUEUED, RUNNING, Run, next_due
from stepwell.runtime.views import SHOWN, RunInfo, WaitInfo, Why, waits_of
from stepwell.values import RunStatus, utc


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
                f"parked: {_said(info.reason)}. A person has to put this right and then resume "
                f"the run (`stepwell resume {info.id}`).",
            )
        case status if status.terminal:
            ended = "" if info.ended is None else f" at {utc(info.ended):%Y-%m-%d %H:%M:%S} UTC"
            reason = f": {info.reason}" if info.reason else ""
            return Why(info.status, f"{status.value}{ended}{reason}. Nothing will move it again.")
        case RunStatus.QUEUED if not known:
            return Why(info.status, f"queued for {_span(now, info.created)}, but {nobody}.")
        case RunStatus.QUEUED:
            left = ""
            if info.reason:
                left = f" One that has other code left it to the others: {_said(info.reason)}."
            return Why(
                info.status,
                f"queued for {_span(now, info.created)}; it starts when a worker that knows "
                f"workflow {info.workflow!r} has room for it.{left}",
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
    ends = _ends(info, run, waits) if told and held else ""
    early = _early(run) if told else ""
    if not told:
        told = [_rest(info, run, definition, last)]
    after = "" if known else f" What comes is kept, but {nobody}."
    return Why(info.status, f"waiting {'; '.join(told)}.{ends}{early}{after}", waits, steps)


def _said(reason: str | None) -> str:
    """A reason as a clause: it may be an error of several lines."""
    return " ".join(str(reason).split()).rstrip(".")


def _ends(info: RunInfo, run: Run | None, waits: Iterable[WaitInfo]) -> str:
    """When the run ends however long its waits would be: its time counts while a worker has it."""
    if run is None or run.deadline is None or info.owner is None:
        return ""
    if any(w.due is not None and w.due <= run.deadline for w in waits):
        return ""
    return f" The run times out at {_at(run.deadline)}."


def _early(run: Run | None) -> str:
    """What has come that nothing waits for: perhaps too early, perhaps by a wrong name."""
    slots = () if run is None else (run.inbox or ())
    names = [tag_said(slot) or slot for slot in slots if not slot.startswith("wait:")]
    if not names:
        return ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f" Nothing waits for what it was sent and keeps: {', '.join(names[:SHOWN])}{more}."


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
