"""Watchers: what a run does, told as internal events or as lines for a person."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from stepwell.authoring.events.model import (
    CollectionReleaseEvent,
    StepFailedEvent,
    StepState,
    StepStateChanged,
    UnhandledEvent,
    WorkflowIdleEvent,
)
from stepwell.kernel.journal import (
    AttemptFailed,
    Entry,
    Published,
    RunEnded,
    Unhandled,
    WaitEnded,
    WaitOpened,
    WorkAdded,
)
from stepwell.kernel.outcomes import Complete, Emit, Fail, Failure, Message, Outcome
from stepwell.kernel.run import DELAYED
from stepwell.values import RunStatus

if TYPE_CHECKING:
    from stepwell.runtime.attempt import Attempt
    from stepwell.runtime.turn import ActiveRun

verbose_log = logging.getLogger("stepwell.verbose")

_PREPARING, _RUNNING, _NOT_RUNNING = StepState


class Workers:
    """Gives every running attempt of a step the lowest free worker number."""

    def __init__(self) -> None:
        self._taken: dict[str, dict[int, int]] = {}

    def of(self, attempt: Attempt) -> str:
        """The number of the attempt's worker."""
        taken = self._taken.setdefault(attempt.step, {})
        for number, id in taken.items():
            if id == attempt.id:
                return str(number)
        number = next(n for n in range(len(taken) + 1) if n not in taken)
        taken[number] = attempt.id
        return str(number)

    def free(self, attempt: Attempt) -> None:
        """The attempt has ended."""
        taken = self._taken.get(attempt.step, {})
        for number, id in tuple(taken.items()):
            if id == attempt.id:
                del taken[number]


def _input_type(message: Message | tuple[Message, ...] | None) -> type:
    if not isinstance(message, Message):
        return CollectionReleaseEvent
    kind = type(message.payload)
    return StepFailedEvent if kind is Failure else kind


def _output(outcome: Outcome) -> object:
    """The event that a body returned (the first, of a list), None when it returned none."""
    if isinstance(outcome, Emit) and outcome.messages:
        return outcome.messages[0].payload
    if isinstance(outcome, Complete):
        return outcome.result.payload
    return None


def expose(run: ActiveRun) -> None:
    """Have the readers of the run's stream shown what happens inside it, from now on."""
    if not any(isinstance(watcher, InternalEvents) for watcher in run.watchers or ()):
        run.watch(InternalEvents())


class InternalEvents:
    """Shows the readers of a run's stream what happens inside it."""

    def __init__(self) -> None:
        self._workers = Workers()
        self._idle = False

    def begun(self, run: ActiveRun, attempt: Attempt) -> None:
        self._idle = False
        name = _input_type(attempt.work.message).__name__
        self._state(run, attempt.step, _RUNNING, self._workers.of(attempt), name)

    def finished(self, run: ActiveRun, attempt: Attempt, outcome: Outcome) -> None:
        worker = self._workers.of(attempt)
        self._workers.free(attempt)
        output = _output(outcome)
        name = None if isinstance(outcome, Fail) else str(type(output))
        given = str(_input_type(attempt.work.message))
        self._state(run, attempt.step, _NOT_RUNNING, worker, given, name)

    def decided(self, run: ActiveRun, entry: Entry) -> None:
        if isinstance(entry, WorkAdded):
            self._idle = False
            if not entry.begun:
                given = _input_type(entry.message).__name__
                self._state(run, entry.step, _PREPARING, "<enqueued>", given)
        elif isinstance(entry, WaitOpened):
            attempt = run.attempts.get(entry.work)
            if attempt is not None and attempt.work.waits and len(attempt.work.waits) == 1:
                worker = self._workers.of(attempt)
                self._workers.free(attempt)
                given = str(_input_type(attempt.work.message))
                self._state(run, attempt.step, _NOT_RUNNING, worker, given)
        elif isinstance(entry, Unhandled):
            payload = entry.message.payload
            kind = type(payload)
            run.publish(
                UnhandledEvent(
                    event_type=entry.message.tag,
                    qualified_name=f"{kind.__module__}.{kind.__qualname__}",
                    step_name=entry.message.to,
                    idle=not run.run.busy,
                )
            )

    def idle(self, run: ActiveRun) -> None:
        delayed = any(work.phase == DELAYED for work in run.run.work.values())
        if not self._idle and not delayed:
            self._idle = True
            run.publish(WorkflowIdleEvent())

    @staticmethod
    def _state(
        run: ActiveRun,
        step: str,
        state: StepState,
        worker: str,
        given: str,
        output: str | None = None,
    ) -> None:
        run.publish(
            StepStateChanged(
                name=step,
                step_state=state,
                worker_id=worker,
                input_event_name=given,
                output_event_name=output,
            )
        )


class Verbose:
    """Says what happens, line by line: to the logger `stepwell.verbose` when it wants to hear it,
    else to standard output."""

    def __init__(self) -> None:
        self._workers = Workers()
        self._say = verbose_log.info if verbose_log.isEnabledFor(logging.INFO) else print

    def begun(self, run: ActiveRun, attempt: Attempt) -> None:
        given = _input_type(attempt.work.message).__name__
        self._say(f"[{attempt.step}:{self._workers.of(attempt)}] started from {given}")

    def finished(self, run: ActiveRun, attempt: Attempt, outcome: Outcome) -> None:
        place = f"[{attempt.step}:{self._workers.of(attempt)}]"
        self._workers.free(attempt)
        if isinstance(outcome, Fail):
            self._say(f"{place} failed with {outcome.error.type}: {outcome.error.message}")
            return
        output = _output(outcome)
        if output is None:
            self._say(f"{place} complete with no result")
        else:
            self._say(f"{place} complete with {type(output).__name__}")

    def decided(self, run: ActiveRun, entry: Entry) -> None:
        match entry:
            case WorkAdded(begun=False, step=step):
                self._say(f"[{step}] enqueued (waiting for capacity)")
            case WorkAdded(step=step, message=message):
                self._say(f"[tick] add: {_input_type(message).__name__} -> {step}")
            case Published(messages=messages):
                for message in messages:
                    self._say(f"[tick] publish: {message.tag}")
            case AttemptFailed(retry_at=at) if at is not None:
                self._say(f"[result] retry in {max(0.0, at - entry.at):.3g} s")
            case WaitEnded(timed_out=True):
                self._say("[tick] waiter timeout")
            case RunEnded(status=RunStatus.TIMED_OUT):
                self._say("[tick] timeout")
            case RunEnded(status=RunStatus.CANCELLED):
                self._say("[tick] cancelled")
            case _:
                return

    def idle(self, run: ActiveRun) -> None:
        """Nothing to say."""
