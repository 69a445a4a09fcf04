"""What is told about runs: one catalogue of events, for logs, traces and whoever listens.

    run.started  run.ended  run.parked  run.resumed
    step.queued  step.started  step.finished  step.failed  step.retrying  step.expired
    wait.opened  wait.ended  child.started  event.unhandled

Every event carries `run`, `workflow`, `at` (seconds since the epoch, UTC) and, where it applies,
`step`, `work` (the number of this piece of work in its run), `attempt` and `error`; what begins or
ends later by itself says when (`until`). A wait without `work` is the run's own. The logger
`stepwell` gets each as one record, with the same fields as attributes. Nothing is made when nobody
listens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeAlias

from stepwell.authoring.program import Program
from stepwell.kernel.journal import (
    AttemptExpired,
    AttemptFailed,
    ChildStarted,
    Entry,
    RunEnded,
    RunParked,
    RunResumed,
    RunStarted,
    Unhandled,
    WaitEnded,
    WaitOpened,
    WorkAdded,
)
from stepwell.kernel.outcomes import Fail, Outcome
from stepwell.runtime.attempt import Attempt
from stepwell.runtime.turn import ActiveRun, Watcher
from stepwell.runtime.views import waiting_step

logger = logging.getLogger("stepwell")

Listener: TypeAlias = Callable[[str, dict[str, Any]], None]
"""Called with the name of an event and its fields."""

_WARNINGS = frozenset({"run.parked", "step.failed", "step.expired", "event.unhandled"})

_listeners: list[Listener] = []


def listen(listener: Listener) -> Callable[[], None]:
    """Have `listener` told of everything that runs of this process do from now on.

    Args:
        listener: called in the event loop with an event's name and fields; it must not raise and
            must not block.

    Returns:
        A function that ends it.

    Example:
        >>> heard = []
        >>> stop = listen(lambda name, fields: heard.append(name))
        >>> stop()
    """
    _listeners.append(listener)

    def stop() -> None:
        if listener in _listeners:
            _listeners.remove(listener)

    return stop


def watchers_for(_program: Program) -> list[Watcher]:
    """Who is to watch a new run: nobody, when nobody listens."""
    if _listeners or logger.isEnabledFor(logging.INFO):
        return [Telemetry()]
    return []


class Telemetry:
    """Tells listeners and the log what a run does."""

    __slots__ = ("_failing",)

    def __init__(self) -> None:
        # When it is told the run counts the next attempt already, or has forgotten the work.
        self._failing: dict[str, Any] = {}

    def begun(self, run: ActiveRun, attempt: Attempt) -> None:
        self._tell(run, "step.started", **_of(attempt))

    def finished(self, run: ActiveRun, attempt: Attempt, outcome: Outcome) -> None:
        if isinstance(outcome, Fail):
            self._failing = _of(attempt)
        else:
            self._tell(run, "step.finished", **_of(attempt))

    def decided(self, run: ActiveRun, entry: Entry) -> None:
        match entry:
            case WorkAdded(begun=False):
                until = entry.not_before
                self._tell(run, "step.queued", step=entry.step, work=entry.id, until=until)
            case AttemptFailed():
                self._tell(
                    run,
                    "step.failed" if entry.retry_at is None else "step.retrying",
                    **self._of_failed(run, entry.id),
                    error=f"{entry.error.type}: {entry.error.message}",
                    retry_at=entry.retry_at,
                    cause=entry.error.live,
                )
            case AttemptExpired():
                work = run.run.work.get(entry.id)
                step = work.step if work is not None else None
                self._tell(run, "step.expired", work=entry.id, step=step)
            case WaitOpened():
                self._tell(
                    run,
                    "wait.opened",
                    wait=entry.id,
                    event=entry.tag,
                    work=entry.work,
                    step=waiting_step(entry.message) or None,
                    until=entry.due,
                )
            case WaitEnded():
                self._tell(
                    run, "wait.ended", wait=entry.id, work=entry.work, timed_out=entry.timed_out
                )
            case ChildStarted():
                self._tell(run, "child.started", child=entry.id, child_workflow=entry.workflow)
            case Unhandled():
                self._tell(run, "event.unhandled", event=entry.message.tag, kept=entry.kept)
            case RunStarted():
                self._tell(run, "run.started")
            case RunEnded():
                error = (
                    None if entry.error is None else f"{entry.error.type}: {entry.error.message}"
                )
                self._tell(
                    run, "run.ended", status=entry.status.value, step=entry.step, error=error
                )
            case RunParked():
                self._tell(run, "run.parked", reason=entry.reason)
            case RunResumed():
                self._tell(run, "run.resumed", worker=entry.worker)
            case _:
                return

    def _of_failed(self, run: ActiveRun, id: int) -> dict[str, Any]:
        """Which attempt it was, as far as that is known."""
        failing, self._failing = self._failing, {}
        if failing.get("work") == id:
            return failing
        work = run.run.work.get(id)
        return {"work": id} if work is None else {"step": work.step, "work": id}

    def idle(self, run: ActiveRun) -> None:
        """Waiting is told by the waits."""

    @staticmethod
    def _tell(run: ActiveRun, name: str, cause: BaseException | None = None, **fields: Any) -> None:
        told: dict[str, Any] = {
            "run": run.run.id,
            "workflow": run.definition.name,
            "at": run.clock.now(),
            **{k: v for k, v in fields.items() if v is not None},
        }
        for listener in tuple(_listeners):
            listener(name, told)
        # An event that is kept came early, as events may.
        warns = name in _WARNINGS and not told.get("kept")
        level = logging.WARNING if warns else logging.INFO
        if logger.isEnabledFor(level):
            shown = " ".join(f"{k}={v}" for k, v in told.items() if k != "at")
            extra = {"stepwell_event": name, "stepwell": told, "stepwell_cause": cause}
            logger.log(level, "%s %s", name, shown, extra=extra)


def _of(attempt: Attempt) -> dict[str, Any]:
    return {"step": attempt.step, "work": attempt.id, "attempt": attempt.work.attempt}
