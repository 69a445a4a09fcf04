"""What is to be done about an input: the one place where policy is consulted.

`decide(definition, run, input)` yields entries. It changes nothing itself: whoever drives it
evolves the run by each entry before asking for the next one, so a decision sees the effect of the
one before it (a worker slot that just got free) and no decision is ever made twice.

    for entry in decide(definition, run, input):
        evolve(run, entry)

It refuses to know: the time (it rides on the input), what is in a message, what a step does, where
the journal is kept, and which style the workflow was written in. Every tick costs the same however
large the run is; opening a stream of n costs n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

from stepwell.kernel.definition import Definition, Join, Route, StepDef
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
    AnswerKept,
    AttemptExpired,
    AttemptFailed,
    BufferGathered,
    ChildStarted,
    Digested,
    Entry,
    InboxTaken,
    Joined,
    JoinReleased,
    Published,
    RunEnded,
    RunParked,
    RunResumed,
    RunStarted,
    ScopeEntered,
    StateEdited,
    StreamClosed,
    StreamOpened,
    Unhandled,
    WaitDropped,
    WaitEnded,
    WaitOpened,
    WorkAdded,
    WorkBegun,
    WorkDone,
    WorkQueued,
)
from stepwell.kernel.outcomes import (
    Complete,
    Emit,
    Fail,
    Failure,
    Goto,
    Message,
    Outcome,
    Sleep,
    Spawn,
    WaitFor,
)
from stepwell.kernel.rest import held_up
from stepwell.kernel.run import EVOLVE, RUNNING, Run, Stream, Wait, Work, due_timer
from stepwell.values import ErrorInfo, Json, RunStatus, derived_id

MAX_RESTARTS = 25
"""How often a process may die under one attempt before the run is parked for a person."""

FAILURE = "StepFailedEvent"
"""The tag of messages to error handlers."""

JOINED = "\x00joined"
"""The tag of a message whose payload is the messages that a join had brought together."""

CHILD = "ChildResult"
"""The tag of answers that say how a child run ended."""

Entries = Iterator[Entry]


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
    if type(input) is Attempted and not input.edits:
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
        yield from _add(d, run, d.by_name[d.entry], message, i.at)
    elif run.parked is None and (plain := _plain(d, run, message, i.at, 0, 0, None)) is not None:
        yield plain
    else:
        yield from _route(d, run, message, i.at)
    if not run.inbox:
        return
    # What came before the run began has waited for this.
    early = [q for slot, q in (run.inbox or {}).items() if q and slot == q[0].tag]
    for message in [m for queue in early for m in queue]:
        if run.ended is not None or run.scope != "normal":
            return
        yield InboxTaken(message.tag)
        yield from _route(d, run, message, i.at, external=True)


def _end(
    d: Definition,
    run: Run,
    at: float,
    status: RunStatus,
    result: Message | None = None,
    error: ErrorInfo | None = None,
    failed: Work | None = None,
) -> Entries:
    """The run is to end like this; first through the exit scope, if there is one."""
    cancel = run.children()
    step = None if failed is None else failed.step
    tries = 0 if failed is None else failed.attempt
    elapsed = 0.0 if failed is None else at - failed.first_at
    settled = run.ending
    if settled is not None and (
        # Clean-up that went well changes nothing; clean-up that failed can spoil a success only.
        status is RunStatus.COMPLETED or (run.scope == "exit" and settled.error is not None)
    ):
        status, result, error, step = settled.status, settled.result, settled.error, settled.step
        tries, elapsed = settled.attempts, settled.elapsed
    if run.scope != "exit" and run.begun and d.on_exit is not None:
        yield ScopeEntered("exit", status, result, error, step, cancel, tries, elapsed)
        yield from _add(d, run, d.by_name[d.on_exit], Message("Exit", None), at)
    else:
        yield RunEnded(status, at, result, error, step, cancel, tries, elapsed)


def _cancel(d: Definition, run: Run, i: CancelAsked) -> Entries:
    if run.scope == "exit":
        return  # It is ending already, and clean-up is not cut short.
    if run.parked is not None and run.begun and d.on_exit is not None:
        yield RunResumed(i.at, "", _moved_deadline(run, i.at))  # clean-up can't be parked
    error = ErrorInfo("stepwell.errors.WorkflowCancelledByUser", i.reason or "cancelled")
    yield from _end(d, run, i.at, RunStatus.CANCELLED, error=error)


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
    yield RunResumed(i.at, i.worker, _moved_deadline(run, i.at))
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
            yield from _next(d, run, name, at)


def _moved_deadline(run: Run, at: float) -> float | None:
    """Time that the run was not alive does not count: the deadline moves by it."""
    since = run.at if run.parked is None else run.parked_at
    return None if run.deadline is None else run.deadline + max(0.0, at - since)


# --- messages find their steps -------------------------------------------------------------------


def _route(
    d: Definition,
    run: Run,
    m: Message,
    at: float,
    stream: int = 0,
    index: int = 0,
    recoveries: Mapping[str, int] | None = None,
    external: bool = False,
) -> Entries:
    """`m` goes to whoever waits for it, then to every step that accepts it.

    Once clean-up has begun, what comes from outside can answer it and can start nothing.
    """
    closed = external and run.scope != "normal"
    marked = not closed and (
        m.tag in d.marked or (bool(m.kinds) and not d.marked.isdisjoint(m.kinds))
    )
    if marked:
        if m.tag in d.ends or (m.kinds and not set(d.ends).isdisjoint(m.kinds)):
            yield from _end(d, run, at, RunStatus.COMPLETED, m)
            return
        yield Published((m,))
    if m.to is not None and m.to in d.by_name and not closed:
        # For this step and no other; whether it takes such messages was the sender's business.
        given = cast("tuple[Message, ...]", m.payload) if m.tag == JOINED else m
        step = d.by_name[m.to]
        if step.join is None or m.tag == JOINED:
            yield from _add(d, run, step, given, at, stream, index, recoveries)
            return
    taken = False
    answered = ""
    if run.by_tag is not None and m.to is None and m.tag in run.by_tag:
        for id in run.by_tag[m.tag]:
            wait = cast("dict[str, Wait]", run.waits)[id]
            if matches(m, wait.where):
                if wait.work:
                    answered = run.work[wait.work].step
                taken = True
                scope = run.scope
                yield from _answer(d, run, wait, m, at)
                if run.ended is not None or run.scope != scope:
                    return
                break
    for route in () if closed else _routes(d, m):
        step = route.step
        if step.name == answered or (m.to is not None and step.name != m.to):
            continue
        if route.slot < 0:
            taken = True
            yield from _add(d, run, step, m, at, stream, index, recoveries)
        elif step.join is not None and (stream or step.join.kind == "all_of"):
            taken = True
            yield from _join(d, run, route, m, at, stream, index, recoveries)
    if not taken and (external or not marked):
        yield Unhandled(m, kept=external)


def _plain(
    d: Definition,
    run: Run,
    m: Message,
    at: float,
    stream: int,
    index: int,
    recoveries: Mapping[str, int] | None,
) -> Entry | None:
    """The one entry that `_route` would yield for a message that a single step takes, or that
    just waits for the end of its stream; None for all others. Most messages are such."""
    tag = m.tag
    if m.to is not None or m.kinds or tag in d.marked or (run.by_tag and tag in run.by_tag):
        return None
    routes = d.routes.get(tag)
    if routes is None or len(routes) != 1:
        return None
    route = routes[0]
    step = route.step
    if route.slot < 0:
        state = run.steps.get(step.name)
        if state is None or not step.workers or (state.running < step.workers and not state.queue):
            deadline = None if step.timeout is None else at + step.timeout
            return WorkAdded(
                run.counter + 1, step.name, m, True, at, deadline, stream, index, recoveries
            )
        return WorkAdded(run.counter + 1, step.name, m, False, at, None, stream, index, recoveries)
    join = step.join
    if stream and join is not None and join.kind == "collect" and join.take is None:
        return Joined(step.name, stream, 0, index, m, recoveries)
    return None


def _routes(d: Definition, m: Message) -> Iterator[Route]:
    yield from d.routes.get(m.tag, ())
    if m.kinds:
        seen: set[str] = {route.step.name for route in d.routes.get(m.tag, ())}
        for kind in m.kinds:
            for route in d.by_kind.get(kind, ()):
                if route.step.name not in seen:
                    seen.add(route.step.name)
                    yield route


def _add(
    d: Definition,
    run: Run,
    step: StepDef,
    m: Message | tuple[Message, ...] | None,
    at: float,
    stream: int = 0,
    index: int = 0,
    recoveries: Mapping[str, int] | None = None,
) -> Entries:
    """`step` owes one run with this input; it begins at once when a worker slot is free."""
    state = run.steps.get(step.name)
    if run.parked is None and (
        state is None or not step.workers or (state.running < step.workers and not state.queue)
    ):
        deadline = None if step.timeout is None else at + step.timeout
        yield WorkAdded(
            run.counter + 1, step.name, m, True, at, deadline, stream, index, recoveries
        )
    else:
        yield WorkAdded(run.counter + 1, step.name, m, False, at, None, stream, index, recoveries)


def _join(
    d: Definition,
    run: Run,
    route: Route,
    m: Message,
    at: float,
    stream: int,
    index: int,
    recoveries: Mapping[str, int] | None,
) -> Entries:
    step = route.step
    join = cast(Join, step.join)
    state = (run.joins or {}).get((step.name, stream))
    if state is not None and state.released:
        return
    yield Joined(step.name, stream, route.slot, index, m, recoveries)
    state = (run.joins or {})[(step.name, stream)]
    if join.kind == "all_of":
        if len(state.slots) == len(join.slots) and all(state.slots.values()):
            heads = [state.slots[slot][0] for slot in range(len(join.slots))]
            merged = _merged(used for _, _, used in heads)
            yield JoinReleased(step.name, stream)
            yield from _add(d, run, step, None, at, stream, index, merged)
    elif join.take is not None and len(state.slots[0]) >= join.take:
        yield from _release(d, run, step, stream, at)


def _release(d: Definition, run: Run, step: StepDef, stream: int, at: float) -> Entries:
    """A collection is complete: `step` runs once with it, one level up."""
    opened = cast("dict[int, Stream]", run.streams)[stream]
    state = (run.joins or {}).get((step.name, stream))
    members = state.slots.get(0, ()) if state is not None else ()
    by_index = step.join is not None and step.join.order == "input"
    merged = _merged((opened.recoveries, *(used for _, _, used in members)))
    yield JoinReleased(step.name, stream, True, by_index)
    yield from _add(d, run, step, None, at, opened.parent, opened.index, merged)


def _merged(parts: Iterable[Mapping[str, int] | None]) -> Mapping[str, int] | None:
    """The recoveries that lineages have used when they come together: of each the most."""
    merged: dict[str, int] | None = None
    for used in parts:
        if used:
            if merged is None:
                merged = dict(used)
            else:
                for name, count in used.items():
                    merged[name] = max(count, merged.get(name, 0))
    return merged


def _open_stream(d: Definition, run: Run, work: Work, e: Emit, at: float) -> Entries:
    id = run.counter + 1
    collectors = d.by_name[work.step].collectors
    yield StreamOpened(id, work.stream, work.index, collectors, work.recoveries)
    # The stream counts as live while its members are being routed: one that is taken at once
    # by a join must not close it.
    for position, message in enumerate(e.messages):
        plain = _plain(d, run, message, at, id, position, work.recoveries)
        if plain is not None:
            yield plain
            continue
        yield from _route(d, run, message, at, id, position, work.recoveries)
        if run.ended is not None or not run.streams or id not in run.streams:
            return
    yield from _close_streams(d, run, id, at)


def _close_streams(d: Definition, run: Run, id: int, at: float) -> Entries:
    """Close stream `id` if nothing can come from it any more, and then its parents likewise."""
    while id and run.streams:
        stream = run.streams.get(id)
        if stream is None or stream.live:
            return
        for name in stream.collectors:
            state = (run.joins or {}).get((name, id))
            if state is None or not state.released:
                yield from _release(d, run, d.by_name[name], id, at)
        yield StreamClosed(id)
        id = stream.parent


# --- attempts end --------------------------------------------------------------------------------


def _attempted(d: Definition, run: Run, i: Attempted) -> Entries:
    work = run.work.get(i.work)
    if work is None or work.over:
        return  # It was given up, or taken over, while the attempt went on.
    if i.edits:
        yield StateEdited(i.edits)
    outcome = i.outcome
    at = i.at
    if isinstance(outcome, Emit):
        yield WorkDone(work.id)
        if outcome.stream:
            yield from _open_stream(d, run, work, outcome, at)
        else:
            stream, index, recoveries = work.stream, work.index, work.recoveries
            for message in outcome.messages:
                plain = _plain(d, run, message, at, stream, index, recoveries)
                if plain is not None:
                    yield plain
                    continue
                scope = run.scope
                yield from _route(d, run, message, at, stream, index, recoveries)
                if run.ended is not None or run.scope != scope:
                    return
    elif isinstance(outcome, Fail):
        yield from _failed(d, run, work, outcome, at)
    elif (unknown := _unknown_step(d, outcome)) is not None:
        error = ErrorInfo(
            "stepwell.errors.WorkflowStepDoesNotExistError",
            f"step {work.step!r} wants to go on at {unknown!r}, which does not exist",
        )
        yield from _failed(d, run, work, Fail(error, final=True), at)
    else:
        yield WorkDone(work.id)
        yield from _moved(d, run, work, outcome, at)
    if run.ended is not None:
        return
    if run.ending is not None and not run.work and not run.waits:
        # Clean-up owes nothing any more, so it is over, whether or not a step has said so.
        yield from _end(d, run, at, RunStatus.COMPLETED)
        return
    if work.stream and run.streams:
        stream = run.streams.get(work.stream)
        if stream is not None and not stream.live:
            yield from _close_streams(d, run, work.stream, at)
    state = run.steps.get(work.step)
    if state is not None and state.queue:
        yield from _next(d, run, work.step, at)


def straight_on(d: Definition, run: Run, work: Work, outcome: Outcome, at: float) -> Entry | None:
    """What `decide` says, after `WorkDone`, about the plainest ends of an attempt: one message that
    one step takes one by one, that waits for the end of a stream that goes on, or that ends the
    run. None for all others. Most are such, so whoever keeps no entries may ask here first."""
    if type(outcome) is not Emit or outcome.stream or work.over or work.phase != RUNNING:
        return None
    messages = outcome.messages
    if len(messages) != 1 or run.ending is not None or run.by_tag:
        return None
    message = messages[0]
    tag = message.tag
    if message.to is not None or message.kinds:
        return None
    if tag in d.marked:
        if tag not in d.ends or d.on_exit is not None or run.waits or run.orphans:
            return None
        return RunEnded(RunStatus.COMPLETED, at, message)
    routes = d.routes.get(tag)
    if routes is None or len(routes) != 1 or run.steps[work.step].queue:
        return None
    route = routes[0]
    step = route.step
    name = step.name
    stream = work.stream
    if route.slot >= 0:
        join = step.join
        if (
            not stream
            or join is None
            or join.kind != "collect"
            or join.take is not None
            or run.streams is None
            or run.streams[stream].live == 1
        ):
            return None
        return Joined(name, stream, 0, work.index, message, work.recoveries)
    state = run.steps.get(name)
    begun = (
        state is None
        or not step.workers
        or (state.running - (name == work.step) < step.workers and not state.queue)
    )
    deadline = at + step.timeout if begun and step.timeout is not None else None
    return WorkAdded(
        run.counter + 1, name, message, begun, at, deadline, stream, work.index, work.recoveries
    )


def _unknown_step(d: Definition, outcome: object) -> str | None:
    for field in ("step", "then", "on_timeout"):
        name: str | None = getattr(outcome, field, None)
        if name is not None and name not in d.by_name:
            return name
    return None


def _moved(d: Definition, run: Run, work: Work, outcome: object, at: float) -> Entries:
    match outcome:
        case Goto(step, message):
            yield from _add(
                d, run, d.by_name[step], message, at, work.stream, work.index, work.recoveries
            )
        case Sleep(seconds, step, message):
            yield WorkAdded(
                run.counter + 1,
                step,
                message,
                False,
                at,
                None,
                work.stream,
                work.index,
                work.recoveries,
                at + seconds,
            )
        case WaitFor(tag, message, then, where, timeout, on_timeout):
            id = derived_id(run.id, "wait", run.counter + 1)[:12]
            due = None if timeout is None else at + timeout
            wait = WaitOpened(id, at, 0, "", tag, where, due, None, then, on_timeout, message)
            wait.stream, wait.index, wait.recoveries = work.stream, work.index, work.recoveries
            yield wait
            yield from _from_inbox(d, run, id, at)
        case Spawn(workflow, message, then, id, held):
            id = id or derived_id(run.id, "child", run.counter + 1)[:16]
            wait = WaitOpened(id, at, then=then, message=held)
            wait.stream, wait.index, wait.recoveries = work.stream, work.index, work.recoveries
            yield wait
            yield ChildStarted(id, workflow, message)
        case Complete(result):
            yield from _end(d, run, at, RunStatus.COMPLETED, result)
        case _:
            raise AssertionError(f"unknown outcome {outcome!r}")


def _next(d: Definition, run: Run, name: str, at: float) -> Entries:
    """Give the step's free worker slots to what is queued."""
    if run.parked is not None:
        return
    step = d.by_name[name]
    while True:
        state = run.steps.get(name)
        if state is None or not state.queue or (step.workers and state.running >= step.workers):
            return
        deadline = None if step.timeout is None else at + step.timeout
        yield WorkBegun(state.queue[0], at, deadline)


def _failed(d: Definition, run: Run, work: Work, fail: Fail, at: float) -> Entries:
    """The attempt failed: again later, or to the error handler, or the run fails."""
    retry_at = None if fail.retry_after is None or fail.final else at + fail.retry_after
    yield AttemptFailed(work.id, fail.error, at, retry_at)
    if retry_at is not None:
        if retry_at <= at:
            yield from _again(d, run, work, at)
        return
    yield WorkDone(work.id)
    step = d.by_name[work.step]
    handler = None if fail.final or step.on_error is None else d.by_name[step.on_error]
    if handler is not None:
        used = dict(work.recoveries or {})
        used[handler.name] = used.get(handler.name, 0) + 1
        if used[handler.name] <= handler.recoveries:
            elapsed = at - work.first_at
            failure = Failure(work.step, work.message, fail.error, work.attempt, elapsed, at)
            message = Message(FAILURE, failure)
            yield from _add(d, run, handler, message, at, work.stream, work.index, used)
            return
    if run.scope == "normal" and d.on_error is not None:
        tries, elapsed = work.attempt, at - work.first_at
        failure = Failure(work.step, work.message, fail.error, tries, elapsed, at)
        yield from _enter_error_scope(d, run, failure, at)
    else:
        yield from _end(d, run, at, RunStatus.FAILED, None, fail.error, work)


def _enter_error_scope(d: Definition, run: Run, f: Failure, at: float) -> Entries:
    """The run has failed; its error step cleans up."""
    step = f.step or None
    yield ScopeEntered(
        "error", RunStatus.FAILED, None, f.error, step, run.children(), f.attempts, f.elapsed
    )
    yield from _add(d, run, d.by_name[str(d.on_error)], Message(FAILURE, f), at)


def _again(d: Definition, run: Run, work: Work, at: float) -> Entries:
    """Delayed work is due: it takes a worker slot or gets in the queue for one."""
    step = d.by_name[work.step]
    state = run.steps.get(work.step)
    if state is None or not step.workers or (state.running < step.workers and not state.queue):
        yield WorkBegun(work.id, at, None if step.timeout is None else at + step.timeout)
    else:
        yield WorkQueued(work.id, at)


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
                yield from _again(d, run, work, i.at)
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
            yield from _end(d, run, i.at, RunStatus.TIMED_OUT, None, error)


def _wait_timed_out(d: Definition, run: Run, wait: Wait, at: float) -> Entries:
    yield WaitEnded(wait.id, wait.work, None, wait.tag is not None)
    if wait.work:
        yield from _next(d, run, run.work[wait.work].step, at)
    elif wait.on_timeout is not None:
        message = wait.message or Message("Timeout", None)
        yield from _add(
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
            yield from _enter_error_scope(d, run, Failure("", given, error, 0, seconds, at), at)
        else:
            yield from _end(d, run, at, RunStatus.FAILED, None, error)


# --- the outside, and what a live attempt asks for -----------------------------------------------


def _arrived(d: Definition, run: Run, i: Arrived) -> Entries:
    if not run.begun:
        if i.keep:
            yield Unhandled(i.message, kept=True, wait=i.wait)
        return
    if i.wait is None:
        yield from _route(d, run, i.message, i.at, external=True)
        return
    wait = (run.waits or {}).get(i.wait)
    # Waits for time or for a child have no tag: nobody outside can answer those.
    if wait is not None and wait.tag == i.message.tag and (i.keep or _is_meant(wait, i)):
        yield from _answer(d, run, wait, i.message, i.at)
    elif i.keep:
        yield Unhandled(i.message, kept=True, wait=i.wait)


def _is_meant(wait: Wait, i: Arrived) -> bool:
    """Whether `wait` is the one that was seen by whoever sent `i`, and wants it."""
    return (i.since is None or i.since == wait.at) and matches(i.message, wait.where)


def _answer(d: Definition, run: Run, wait: Wait, m: Message, at: float) -> Entries:
    yield WaitEnded(wait.id, wait.work, m)
    if wait.work:
        yield from _next(d, run, run.work[wait.work].step, at)
    elif wait.then is not None:
        yield from _add(
            d, run, d.by_name[wait.then], m, at, wait.stream, wait.index, wait.recoveries
        )
    elif wait.message is not None:
        yield from _end(d, run, at, RunStatus.COMPLETED, wait.message)


def _asked(d: Definition, run: Run, i: Asked) -> Entries:
    work = run.work.get(i.work)
    if work is None or work.over or (work.waits and i.key in work.waits):
        return
    due = None if i.timeout is None else i.at + i.timeout
    id = i.wait
    if run.waits and id in run.waits:
        id = derived_id(run.id, id, i.work, i.key)[:12]  # another piece of work has taken it
    yield WaitOpened(id, i.at, i.work, i.key, i.tag, i.where, due, i.question)
    yield from _from_inbox(d, run, id, i.at)
    if run.waits and id in run.waits:
        yield from _next(d, run, work.step, i.at)


def _given_up(d: Definition, run: Run, i: GivenUp) -> Entries:
    work = run.work.get(i.work)
    id = None if work is None or work.over or not work.waits else work.waits.get(i.key)
    if work is None or id is None:
        return  # it was answered, or has gone with its attempt
    child = cast("dict[str, Wait]", run.waits)[id].child
    timeout = d.by_name[work.step].timeout
    deadline = None if timeout is None else i.at + timeout
    yield WaitDropped(id, work.id, i.at, deadline, () if child is None else (child,))


def _from_inbox(d: Definition, run: Run, id: str, at: float) -> Entries:
    """A message that came before anyone waited answers the wait at once."""
    if run.inbox is None:
        return
    wait = cast("dict[str, Wait]", run.waits)[id]
    for slot in (f"wait:{id}", wait.tag):
        for position, message in enumerate(run.inbox.get(slot, ()) if slot else ()):
            if message.tag == wait.tag and (slot != wait.tag or matches(message, wait.where)):
                yield InboxTaken(str(slot), position)
                yield from _answer(d, run, wait, message, at)
                return


def matches(m: Message, where: Mapping[str, Json] | None) -> bool:
    """Whether the message's payload has each of the fields of `where` with just that value."""
    if not where:
        return True
    payload = m.payload
    if isinstance(payload, Mapping):
        fields = cast("Mapping[str, object]", payload)
        return all(fields.get(k) == v for k, v in where.items())
    return all(getattr(payload, k, None) == v for k, v in where.items())


def _noted(_d: Definition, run: Run, i: Noted) -> Entries:
    work = run.work.get(i.work)
    if work is not None and not work.over and i.key not in (work.answers or {}):
        yield AnswerKept(i.work, i.key, i.value)


def _gathered(_d: Definition, run: Run, i: Gathered) -> Entries:
    work = run.work.get(i.work)
    if work is None or work.over or (work.answers is not None and i.key in work.answers):
        return
    buffer = (run.buffers or {}).get((work.step, i.buffer))
    wanted: dict[str, int] = {}
    for tag in i.expected:
        wanted[tag] = wanted.get(tag, 0) + 1
    if i.message.tag not in wanted:
        yield AnswerKept(i.work, i.key, None)
        return
    number = 1 if buffer is None else buffer.last + 1
    have = {tag: buffer.by_tag.get(tag, ()) if buffer else () for tag in wanted}
    full = all(len(have[t]) + (t == i.message.tag) >= n for t, n in wanted.items())
    taken: tuple[int, ...] | None = None
    if full:
        # Of each tag what came first; the message itself comes last.
        queues = {tag: iter(members) for tag, members in have.items()}
        taken = tuple(next(queues[tag], number) for tag in i.expected)
    yield BufferGathered(i.work, i.key, work.step, i.buffer, i.message, taken)


def _sent(d: Definition, run: Run, i: Sent) -> Entries:
    work = run.work.get(i.work)
    if work is None or work.over:
        return
    if i.digests:
        yield Digested(i.work, i.digests)
    scope = run.scope
    for message in i.messages:
        yield from _route(d, run, message, i.at, recoveries=work.recoveries)
        if run.ended is not None or run.scope != scope:
            return


def _wrote(_d: Definition, run: Run, i: Wrote) -> Entries:
    if i.work is not None and i.digests and i.work in run.work:
        yield Digested(i.work, i.digests)
    yield Published(i.messages, i.work)


def _edited(_d: Definition, run: Run, i: Edited) -> Entries:
    yield StateEdited(i.edits)


def _child_asked(d: Definition, run: Run, i: ChildAsked) -> Entries:
    work = run.work.get(i.work)
    if work is None or work.over or (work.waits and i.key in work.waits):
        return
    if run.waits and i.child in run.waits:
        return
    orphan = run.orphans is not None and i.child in run.orphans
    yield WaitOpened(i.child, i.at, i.work, i.key)
    if not orphan:  # or else it is still at work for an attempt that failed
        yield ChildStarted(i.child, i.workflow, i.message)
    yield from _next(d, run, work.step, i.at)


def _child_ended(d: Definition, run: Run, i: ChildEnded) -> Entries:
    id = i.result.run
    wait = (run.waits or {}).get(id)
    if wait is not None and wait.child is not None:
        yield from _answer(d, run, wait, Message(CHILD, i.result), i.at)
    elif run.orphans and id in run.orphans:
        yield WaitEnded(id, run.orphans[id][0], Message(CHILD, i.result))


_DECIDE: dict[type, Callable[[Definition, Run, Any], Entries]] = {
    Start: _start,
    Attempted: _attempted,
    Arrived: _arrived,
    Asked: _asked,
    GivenUp: _given_up,
    Noted: _noted,
    Gathered: _gathered,
    Sent: _sent,
    Wrote: _wrote,
    Edited: _edited,
    ChildAsked: _child_asked,
    ChildEnded: _child_ended,
    Due: _due,
    CancelAsked: _cancel,
    ParkAsked: _park,
    ResumeAsked: _resume,
    Loaded: _loaded,
}

_WHILE_PARKED = frozenset(
    {Start, Arrived, ChildEnded, CancelAsked, ResumeAsked, Edited, Wrote},
)
