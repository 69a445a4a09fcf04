"""Bodies: started when work has begun, followed to their end, and told to the turn as inputs.

A body runs in a task, but not every body in a task of its own: bodies that are ready are started
one after the other by one runner task, and the first that pauses keeps it; the others get another.
So a chain of steps that do not pause costs one task, and so does a fan-out of them. Now and then a
runner lets the event loop have a look around, so steps that never pause do not hold it.

However a body ends, the run hears of it once, as an outcome: with what it changed in the run's
state when it came through, and without when it did not. What a step raises never leaves here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from stepwell.authoring.program import MAX_PAYLOAD
from stepwell.errors import StepTimeoutError, ValueTooLarge
from stepwell.kernel.inputs import Attempted
from stepwell.kernel.outcomes import Emit, Fail, Message, Outcome
from stepwell.kernel.rest import held_up, returned, stalled
from stepwell.kernel.run import Work, next_due
from stepwell.runtime.attempt import Attempt, make_current, rest
from stepwell.runtime.codec import rough_size
from stepwell.runtime.state import patch_of
from stepwell.values import ErrorInfo, Json, derived_id

if TYPE_CHECKING:
    from stepwell.runtime.turn import ActiveRun

logger = logging.getLogger("stepwell")

_BURST = 64
"""Bodies that a runner starts before it lets the event loop look around."""


def launch(active: ActiveRun, work: Work) -> None:
    """Have the body of this work started, if the run goes on here."""
    run = active.run
    if active.held or run.ended is not None or run.parked is not None:
        return  # it stays owed, and is started where the run goes on, or the run is over
    attempt = Attempt(active, work, active.program.handlers[work.step])
    active.attempts[work.id] = attempt
    if active.last is None:
        active.first = attempt
    else:
        active.last.next = attempt
    active.last = attempt
    if not active.has_runner:
        _hand_over(active)


async def _run_ready(active: ActiveRun) -> None:
    """Start what is ready, one body after the other; keep to the first that pauses."""
    task = cast("asyncio.Task[None]", asyncio.current_task())
    burst = 0
    while (attempt := active.first) is not None:
        active.first = attempt.next
        if attempt.next is None:
            active.last = None
        else:
            attempt.next = None
        if attempt.dead:
            continue
        if burst == _BURST:
            burst = 0
            await asyncio.sleep(0)
            if attempt.dead:
                continue
        burst += 1
        attempt.task = task
        handler = attempt.handler
        edits: Sequence[Json] = ()
        if active.watchers:
            for watcher in active.watchers:
                watcher.begun(active, attempt)
        try:
            context = active.base.copy()
            body = handler.begin(active.owner, attempt.work.message, attempt)
            context.run(make_current, attempt)
            try:
                waiting = context.run(body.send, None)
            except StopIteration as stop:
                result = stop.value
            else:
                active.has_runner = False
                if active.first is not None:
                    _hand_over(active)
                result = await rest(body, context, waiting)
            outcome = handler.outcome(result)
            if attempt.expired:  # and its body would not stop for it
                outcome = _failed(active, attempt, _timeout_of(active, attempt))
            elif active.durable:
                _prepare_outcome(active, outcome)
                edits = _edited(active, attempt)
        except asyncio.CancelledError as error:
            if attempt.dead:
                if task.cancelling():
                    return
                continue  # its own doing: what it did ended it before it ever paused
            edits = ()
            if attempt.expired:
                outcome = _failed(active, attempt, _timeout_of(active, attempt))
            elif task.cancelling():
                attempt.dead = True
                raise  # the loop shuts down, or someone wants this very task gone
            else:
                reason = RuntimeError(f"the step was cancelled: {error}")
                outcome = _failed(active, attempt, reason)
        except Exception as error:
            edits = ()
            outcome = _failed(active, attempt, error)
        except (GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            # A user's own, or `sys.exit()`, which would end a loop that serves other runs: none
            # of ours to let the run hang for.
            edits = ()
            attempt.drop_unsent()
            _undo(active, attempt)
            outcome = Fail(ErrorInfo.of(error), None, final=True)
        # What this makes begin is for this runner, unless it was told to stop: a task that was
        # cancelled once is not fit for other bodies, even if its own would not stop for it.
        active.has_runner = True
        try:
            _finished(active, attempt, outcome, edits)
        except Exception as bug:
            active.broken(bug)
        if task.cancelling():
            break
    if active.first is not None:
        _hand_over(active)
    else:
        active.has_runner = False


def _hand_over(active: ActiveRun) -> None:
    """Have a (further) runner for what is ready."""
    active.has_runner = True
    # The loop holds the task while it is ready to run, its attempt while it waits. Made by
    # hand, because an eager task factory would run bodies in the middle of a turn.
    asyncio.Task(_run_ready(active), loop=active.loop, name=active.run.id, context=active.base)


def _finished(active: ActiveRun, attempt: Attempt, outcome: Outcome, edits: Sequence[Json]) -> None:
    """A body ended."""
    if attempt.dead:
        return
    del active.attempts[attempt.id]
    if active.watchers:
        for watcher in active.watchers:
            watcher.finished(active, attempt, outcome)
    if attempt.outbox:
        attempt.flush()
    if active.go_straight_on(attempt, outcome):
        return
    active.feed(Attempted(active.clock.now(), attempt.id, outcome, edits, attempt.upon))
    run = active.run
    if not run.work and run.ended is None and stalled(active.definition, run):
        _warn_of_silence(active, attempt, outcome)


def _warn_of_silence(active: ActiveRun, attempt: Attempt, outcome: Outcome) -> None:
    """Nothing can move the run now but the end of its time: say who let go of it."""
    run = active.run
    due = next_due(run)
    until = "for ever; cancel it"
    if due is not None:
        until = f"until its timeout in {round(max(0.0, due - active.clock.now()), 2):g} s"
    what = f"step {attempt.step!r} {returned(outcome)}"
    why = "; ".join((what, *held_up(active.definition, run)))
    text = "run %s of %s has nothing left to do and has not ended: %s. It stays silent %s."
    logger.warning(text, run.id, active.definition.name, why, until)


def _edited(active: ActiveRun, attempt: Attempt) -> list[Json]:
    """What the attempt changed in the run's state, as a JSON patch."""
    store = active.store
    if store is None or not attempt.edits:
        return []
    for edit in attempt.edits:
        for key, value in edit.after.items():
            size = rough_size(value, MAX_PAYLOAD)
            if size > MAX_PAYLOAD:
                raise ValueTooLarge(f"state.{key}", size, MAX_PAYLOAD)
    patch, attempt.upon = patch_of(active, attempt.edits)
    return patch


def _undo(active: ActiveRun, attempt: Attempt) -> None:
    """Take back what a failed attempt changed, where nobody built on it since."""
    store = active.store
    if store is not None and attempt.edits:
        for edit in reversed(attempt.edits):
            store.revert(edit)


def _timeout_of(active: ActiveRun, attempt: Attempt) -> StepTimeoutError:
    timeout = active.definition.by_name[attempt.step].timeout
    return StepTimeoutError(attempt.step, timeout or 0.0, abandoned=attempt.in_thread)


def _failed(active: ActiveRun, attempt: Attempt, error: Exception) -> Fail:
    """The attempt failed with `error`: ask the step's retry policy what now."""
    attempt.drop_unsent()
    _undo(active, attempt)
    work = attempt.work
    elapsed = active.clock.now() - work.first_at
    seed = int(derived_id(active.run.id, work.step, work.id, work.attempt)[:8], 16)
    try:
        delay = attempt.handler.retry_after(error, work.attempt, elapsed, seed)
    except Exception as broken:  # the user's policy: the run fails with what it raised
        broken.__context__ = error
        return Fail(ErrorInfo.of(broken), None, final=True)
    return Fail(ErrorInfo.of(error), delay)


def _prepare_outcome(active: ActiveRun, outcome: Outcome) -> None:
    if type(outcome) is Emit:
        for message in outcome.messages:
            active.prepare(message)
    else:
        message = getattr(outcome, "message", None) or getattr(outcome, "result", None)
        if isinstance(message, Message):
            active.prepare(message)


def stop(active: ActiveRun, attempt: Attempt) -> None:
    """Stop a body without waiting for it; nothing that it does counts any more."""
    attempt.dead = True
    active.attempts.pop(attempt.id, None)
    if attempt.task is not None:
        attempt.task.cancel()
