"""How an attempt fails and how a run ends: the retry, the error handler, the scopes of clean-up.

A failure goes outward: to the next attempt, to the handler of the step, to the error scope of the
workflow, and then it is the end of the run; every end of a run passes through the exit scope. This
module refuses to know what a retry policy says (it rides on the failure) and what is cleaned up.
"""

from __future__ import annotations

from stepwell.kernel.definition import Definition
from stepwell.kernel.journal import AttemptFailed, RunEnded, ScopeEntered, WorkDone
from stepwell.kernel.outcomes import Fail, Failure, Message
from stepwell.kernel.run import Run, Work
from stepwell.kernel.slots import Entries, add_work, begin_again
from stepwell.values import ErrorInfo, RunStatus

FAILURE = "StepFailedEvent"
"""The tag of messages to error handlers."""


def end_run(
    d: Definition,
    run: Run,
    at: float,
    status: RunStatus,
    result: Message | None = None,
    error: ErrorInfo | None = None,
    failed: Failure | None = None,
) -> Entries:
    """The run is to end like this; first through the exit scope, if there is one."""
    cancel = run.children()
    step = None if failed is None else failed.step or None
    tries = 0 if failed is None else failed.attempts
    elapsed = 0.0 if failed is None else failed.elapsed
    settled = run.ending
    if settled is not None and (
        # Clean-up that went well changes nothing; clean-up that failed can spoil a success only.
        status is RunStatus.COMPLETED or (run.scope == "exit" and settled.error is not None)
    ):
        status, result, error, step = settled.status, settled.result, settled.error, settled.step
        tries, elapsed = settled.attempts, settled.elapsed
    if run.scope != "exit" and run.begun and d.on_exit is not None:
        yield ScopeEntered("exit", status, result, error, step, cancel, tries, elapsed)
        yield from add_work(d, run, d.by_name[d.on_exit], Message("Exit", None), at)
    else:
        yield RunEnded(status, at, result, error, step, cancel, tries, elapsed)


def fail_attempt(d: Definition, run: Run, work: Work, fail: Fail, at: float) -> Entries:
    """The attempt failed: again later, or to the error handler, or the run fails."""
    retry_at = None if fail.retry_after is None or fail.final else at + fail.retry_after
    yield AttemptFailed(work.id, fail.error, at, retry_at)
    if retry_at is not None:
        if retry_at <= at:
            yield from begin_again(d, run, work, at)
        return
    yield WorkDone(work.id)
    failure = fail.passed
    if failure is None:
        elapsed = at - work.first_at
        failure = Failure(work.step, work.message, fail.error, work.attempt, elapsed, at)
    step = d.by_name[work.step]
    handler = None if fail.final or step.on_error is None else d.by_name[step.on_error]
    if handler is not None:
        used = dict(work.recoveries or {})
        used[handler.name] = used.get(handler.name, 0) + 1
        if used[handler.name] <= handler.recoveries:
            message = Message(FAILURE, failure)
            yield from add_work(d, run, handler, message, at, work.stream, work.index, used)
            return
    if run.scope == "normal" and d.on_error is not None:
        yield from enter_error_scope(d, run, failure, at)
    else:
        yield from end_run(d, run, at, RunStatus.FAILED, None, fail.error, failure)


def enter_error_scope(d: Definition, run: Run, f: Failure, at: float) -> Entries:
    """The run has failed; its error step cleans up."""
    step = f.step or None
    yield ScopeEntered(
        "error", RunStatus.FAILED, None, f.error, step, run.children(), f.attempts, f.elapsed
    )
    yield from add_work(d, run, d.by_name[str(d.on_error)], Message(FAILURE, f), at)
