"""An attempt has ended with an outcome: what follows.

Most outcomes are one message that one step takes, so `straight_on` decides about those at once;
`attempt_ended` decides about all. A test holds the two to the same decisions. This module refuses
to know how the body came to its outcome.
"""

from __future__ import annotations

from stepwell.kernel.definition import Definition, StepDef
from stepwell.kernel.ending import end_run, fail_attempt
from stepwell.kernel.inputs import Attempted, Edited
from stepwell.kernel.journal import (
    ChildStarted,
    Entry,
    Joined,
    RunEnded,
    StateEdited,
    StateKept,
    WaitOpened,
    WorkAdded,
    WorkDone,
)
from stepwell.kernel.outcomes import (
    Complete,
    Emit,
    Fail,
    Goto,
    Message,
    Outcome,
    Sleep,
    Spawn,
    WaitFor,
)
from stepwell.kernel.routing import (
    answer_from_inbox,
    close_streams,
    open_stream,
    plain_way,
    route_message,
)
from stepwell.kernel.run import RUNNING, Run, Work
from stepwell.kernel.slots import Entries, add_work, begin_next
from stepwell.values import ErrorInfo, RunStatus, derived_id


def attempt_ended(d: Definition, run: Run, i: Attempted) -> Entries:
    """An attempt ended with an outcome."""
    work = run.work.get(i.work)
    if work is None or work.over:
        return  # It was given up, or taken over, while the attempt went on.
    if i.edits or i.upon:
        yield from state_edited(run, i)
    outcome = i.outcome
    at = i.at
    if isinstance(outcome, Emit):
        yield WorkDone(work.id)
        if outcome.stream:
            yield from open_stream(d, run, work, outcome, at)
        else:
            stream, index, recoveries = work.stream, work.index, work.recoveries
            for message in outcome.messages:
                plain = plain_way(d, run, message, at, stream, index, recoveries)
                if plain is not None:
                    yield plain
                    continue
                scope = run.scope
                yield from route_message(d, run, message, at, stream, index, recoveries)
                if run.ended is not None or run.scope != scope:
                    return
    elif isinstance(outcome, Fail):
        yield from fail_attempt(d, run, work, outcome, at)
    elif (unknown := _unknown_step(d, outcome)) is not None:
        error = ErrorInfo(
            "stepwell.errors.WorkflowStepDoesNotExistError",
            f"step {work.step!r} wants to go on at {unknown!r}, which does not exist",
        )
        yield from fail_attempt(d, run, work, Fail(error, final=True), at)
    else:
        yield WorkDone(work.id)
        yield from _moved(d, run, work, outcome, at)
    if run.ended is not None:
        return
    if work.stream and run.streams:
        stream = run.streams.get(work.stream)
        if stream is not None and not stream.live:
            yield from close_streams(d, run, work.stream, at)
    if run.ending is not None and not run.work and not run.waits:
        # Clean-up owes nothing any more, so it is over, whether or not a step has said so.
        yield from end_run(d, run, at, RunStatus.COMPLETED)
        return
    state = run.steps.get(work.step)
    if state is not None and state.queue:
        yield from begin_next(d, run, work.step, at)


def state_edited(run: Run, i: Attempted | Edited) -> Entries:
    """The user's state was changed, and with it what live attempts have written is kept."""
    if i.edits:
        yield StateEdited(i.edits)
    for work, writes in (i.upon or {}).items():
        if work in run.work:
            yield StateKept(work, writes)


def straight_on(d: Definition, run: Run, work: Work, outcome: Outcome, at: float) -> Entry | None:
    """What `decide` says, after `WorkDone`, about the plainest ends of an attempt: one step to go
    to, or one message that one step takes one by one, that waits for the end of a stream that goes
    on, or that ends the run. None for all others. Most are such, so whoever keeps no entries may
    ask here first."""
    if type(outcome) is Goto:
        target = d.by_name.get(outcome.step)
        if target is None or work.over or work.phase != RUNNING or run.steps[work.step].queue:
            return None
        return _added(run, work, target, outcome.message, at)
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
    if route.slot >= 0:
        stream = work.stream
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
        return Joined(step.name, stream, 0, work.index, message, work.recoveries)
    return _added(run, work, step, message, at)


def _added(run: Run, work: Work, step: StepDef, message: Message, at: float) -> WorkAdded:
    """The work that `step` owes when `work`, which has its slot still, is done."""
    name = step.name
    state = run.steps.get(name)
    begun = (
        state is None
        or not step.workers
        or (state.running - (name == work.step) < step.workers and not state.queue)
    )
    deadline = at + step.timeout if begun and step.timeout is not None else None
    return WorkAdded(
        run.counter + 1,
        name,
        message,
        begun,
        at,
        deadline,
        work.stream,
        work.index,
        work.recoveries,
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
            yield from add_work(
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
            yield from answer_from_inbox(d, run, id, at)
        case Spawn(workflow, message, then, id, held):
            id = id or derived_id(run.id, "child", run.counter + 1)[:16]
            wait = WaitOpened(id, at, then=then, message=held)
            wait.stream, wait.index, wait.recoveries = work.stream, work.index, work.recoveries
            yield wait
            yield ChildStarted(id, workflow, message)
        case Complete(result):
            yield from end_run(d, run, at, RunStatus.COMPLETED, result)
        case _:
            raise AssertionError(f"unknown outcome {outcome!r}")
