"""What is to be done about an input: the one place where policy is consulted.

`decide(definition, run, input)` yields entries. It changes nothing itself: whoever drives it
evolves the run by each entry before asking for the next one, so a decision sees the effect of the
one before it (a worker slot that just got free) and no decision is ever made twice.

    for entry in decide(definition, run, input):
        evolve(run, entry)

Its parts stand in modules of their own, from the inside out: `slots`, `ending`, `routing`,
`attempts`, `asking`. Nobody but this module and its tests calls them.

It refuses to know: the time (it rides on the input), what is in a message, what a step does, where
the journal is kept, and which style the workflow was written in. Every tick costs the same however
large the run is; opening a stream of n costs n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from stepwell.kernel.asking import (
    CHILD,
    arrived,
    asked,
    child_asked,
    child_ended,
    edited,
    gathered,
    given_up,
    noted,
    sent,
    wrote,
)
from stepwell.kernel.attempts import attempt_ended, straight_on
from stepwell.kernel.definition import Definition
from stepwell.kernel.ending import FAILURE, end_run, enter_error_scope
from stepwell.kernel.inputs import (
    Arrived,
    Asked,
    Attempted,
    CancelAsked,
    ChildAsked,
    ChildEnded,
    Due,
    Edited,
    Gathered,
    GivenUp,
    Input,
    Loaded,
    Noted,
    ParkAsked,
    ResumeAsked,
    Sent,
    Start,
    Wrote,
)
from stepwell.kernel.journal import (
    AttemptExpired,
    Entry,
    InboxTaken,
    RunParked,
    RunResumed,
    RunStarted,
    WaitEnded,
    WorkBegun,
    WorkDone,
)
from stepwell.kernel.outcomes import Failure, Message
from stepwell.kernel.rest import held_up
from stepwell.kernel.routing import JOINED, matches, plain_way, route_message
from stepwell.kernel.run import EVOLVE, RUNNING, Run, Wait, due_timer
from stepwell.kernel.slots import Entries, add_work, begin_again, begin_next
from stepwell.values import ErrorInfo, RunStatus

__all__ = [
    "CHILD",
    "FAILURE",
    "JOINED",
    "MAX_RESTARTS",
    "advance",
    "decide",
    "matches",
    "straight_on",
]

MAX_RESTARTS = 25
"""How often a process may die under one attempt before the run is parked for a person."""


def advance(definition: Definition, run: Run, input: Input) -> list[Entry]:
    """Decide about `input` and evolve `run` by what was decided; returns the entries."""
    entries: list[Entry] = []
    for entry in decide(definition, run, input):
        EVOLVE[type(entry)](run, entry)
        entries.append(entry)
    return entries


def decide(definition: Definition, run: Run, input: Input) -> Iterable[Entry]:
    """The entries that follow from `input`. Evolve the run by each before taking the next.

    A run that has ended decides nothing any more; a parked one only about what a person, the
    outside or its children tell it, and then it starts nothing.
    """
    kind = type(input)
    if run.ended is not None or (run.parked is not None and kind not in _WHILE_PARKED):
        return ()
    if type(input) is Attempted and not (input.edits or input.upon):
        work = run.work.get(input.work)
        if work is not None:
            then = straight_on(definition, run, work, input.outcome, input.at)
            if then is not None:
                return WorkDone(work.id), then
    return _DECIDE[kind](definition, run, input)


# --- the life of a run ---------------------------------------------------------------------------


def _start(d: Definition, run: Run, i: Start) -> Entries:
    if run.begun:
        return
    yield RunStarted(i.at, None if d.timeout is None else i.at + d.timeout)
    message = i.message
    if d.entry is not None:
        yield from add_work(d, run, d.by_name[d.entry], message, i.at)
    elif run.parked is None and (plain := plain_way(d, run, message, i.at, 0, 0, None)) is not None:
        yield plain
    else:
        yield from route_message(d, run, message, i.at)
    if not run.inbox:
        return
    # What came before the run began has waited for this.
    early = [q for slot, q in (run.inbox or {}).items() if q and slot == q[0].tag]
    for message in [m for queue in early for m in queue]:
        if run.ended is not None or run.scope != "normal":
            return
        yield InboxTaken(message.tag)
        yield from route_message(d, run, message, i.at, external=True)


def _cancel(d: Definition, run: Run, i: CancelAsked) -> Entries:
    if run.scope == "exit":
        return  # It is ending already, and clean-up is not cut short.
    if run.parked is not None and run.begun and d.on_exit is not None:
        yield RunResumed(i.at, "", _moved_deadline(run, i.at))  # clean-up can't be parked
    error = ErrorInfo("stepwell.errors.WorkflowCancelledByUser", i.reason or "cancelled")
    yield from end_run(d, run, i.at, RunStatus.CANCELLED, error=error)


def _park(_d: Definition, run: Run, i: ParkAsked) -> Entries:
    if run.parked is None:
        yield RunParked(i.reason, i.at)


def _resume(d: Definition, run: Run, i: ResumeAsked) -> Entries:
    if run.parked is not None:
        yield RunResumed(i.at, "", _moved_deadline(run, i.at))
        yield from _go_on(d, run, i.at)


def _loaded(d: Definition, run: Run, i: Loaded) -> Entries:
    if run.parked is not None or not run.begun:
        return
    yield RunResumed(i.at, i.worker, _moved_deadline(run, i.at), i.died)
    yield from _go_on(d, run, i.at)


def _go_on(d: Definition, run: Run, at: float) -> Entries:
    """What was running starts again from its top, with all of its time; queues move on."""
    for work in run.work.values():
        if work.step not in d.by_name:
            yield RunParked(f"the run owes step {work.step!r}, which its workflow has not", at)
            return
        if work.restarts > MAX_RESTARTS:
            reason = f"the worker died {work.restarts} times while step {work.step!r} was running"
            yield RunParked(reason, at)
            return
    for work in run.work.values():
        timeout = d.by_name[work.step].timeout
        if work.phase == RUNNING and (timeout is not None or work.timer):
            yield WorkBegun(work.id, at, None if timeout is None else at + timeout)
    for name in tuple(run.steps):
        if name in d.by_name:
            yield from begin_next(d, run, name, at)


def _moved_deadline(run: Run, at: float) -> float | None:
    """Time that the run was not alive does not count: the deadline moves by it."""
    since = run.at if run.parked is None else run.parked_at
    return None if run.deadline is None else run.deadline + max(0.0, at - since)


# --- time ----------------------------------------------------------------------------------------


def _due(d: Definition, run: Run, i: Due) -> Entries:
    if run.parked is not None:
        return
    while run.ended is None:
        timer = due_timer(run, i.at)
        if timer is None:
            return
        _, _, kind, ref = timer
        if kind == "work":
            work = run.work[cast(int, ref)]
            if work.phase == RUNNING:
                # That its time is over is all there is to say: the shell stops the attempt, and
                # what to do about the failure is for the step's retry policy, as always.
                yield AttemptExpired(work.id, i.at)
            else:
                yield from begin_again(d, run, work, i.at)
        elif kind == "wait":
            yield from _wait_timed_out(d, run, cast("dict[str, Wait]", run.waits)[str(ref)], i.at)
        else:
            # Bodies that wait, and work that has not begun, are not at work.
            busy = {w.step for w in run.work.values() if w.phase == RUNNING or w.partial}
            active = ", ".join(sorted(busy))
            seconds = d.timeout or 0.0
            text = f"Operation timed out after {seconds} seconds. " + (
                f"Currently active steps: {active}" if active else "No steps active"
            )
            held = held_up(d, run)
            text += f"; {'; '.join(held)}" if held else ""
            error = ErrorInfo("stepwell.errors.WorkflowTimeoutError", text, active)
            yield from end_run(d, run, i.at, RunStatus.TIMED_OUT, None, error)


def _wait_timed_out(d: Definition, run: Run, wait: Wait, at: float) -> Entries:
    yield WaitEnded(wait.id, wait.work, None, wait.tag is not None)
    if wait.work:
        yield from begin_next(d, run, run.work[wait.work].step, at)
    elif wait.on_timeout is not None:
        message = wait.message or Message("Timeout", None)
        yield from add_work(
            d,
            run,
            d.by_name[wait.on_timeout],
            message,
            at,
            wait.stream,
            wait.index,
            wait.recoveries,
        )
    else:
        seconds = at - wait.at
        error = ErrorInfo(
            "builtins.TimeoutError", f"no {wait.tag!r} arrived within {seconds:g} seconds"
        )
        if run.scope == "normal" and d.on_error is not None:
            given = wait.message or Message("Timeout", None)
            yield from enter_error_scope(d, run, Failure("", given, error, 0, seconds, at), at)
        else:
            yield from end_run(d, run, at, RunStatus.FAILED, None, error)


_DECIDE: dict[type, Callable[[Definition, Run, Any], Entries]] = {
    Start: _start,
    Attempted: attempt_ended,
    Arrived: arrived,
    Asked: asked,
    GivenUp: given_up,
    Noted: noted,
    Gathered: gathered,
    Sent: sent,
    Wrote: wrote,
    Edited: edited,
    ChildAsked: child_asked,
    ChildEnded: child_ended,
    Due: _due,
    CancelAsked: _cancel,
    ParkAsked: _park,
    ResumeAsked: _resume,
    Loaded: _loaded,
}

_WHILE_PARKED = frozenset({Start, Arrived, ChildEnded, CancelAsked, ResumeAsked, Edited, Wrote})
