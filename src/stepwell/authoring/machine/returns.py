"""What a step of a state machine returns: a closed set of small frozen values.

They say what is to happen next and do nothing: a step that only builds one and returns another has
done nothing. Targets are methods of the class (`self.other`) or their names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeAlias, cast

from stepwell.authoring.words import EVENT
from stepwell.policy import seconds_of

Target: TypeAlias = "str | Callable[..., object]"
"""A step: its method, or its name."""

MAY_RETURN = (
    "goto(...), sleep(...), wait.for_signal(...), wait_for_event(...), run_subflow(...), "
    "complete(...) or fail(...)"
)
"""What a step may return, in words."""


@dataclass(frozen=True, slots=True)
class Goto:
    """Go on at `step`."""

    step: str
    progress: float | None = None


@dataclass(frozen=True, slots=True)
class Sleep:
    """Go on at `then` (None: at the same step) in `seconds`."""

    seconds: float
    then: str | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Go on at `then` (None: at the next step) when a signal or event called `name` arrives."""

    kind: Literal["signal", "event"]
    name: str
    timeout: float | None = None
    on_timeout: str | None = None
    then: str | None = None
    where: Mapping[str, Any] | None = None

    @property
    def tag(self) -> str:
        """The tag of the messages that end this wait."""
        return self.name if self.kind == "signal" else EVENT + self.name


@dataclass(frozen=True, slots=True)
class Subflow:
    """Start a run of `workflow` and go on at `on_complete` when it has ended."""

    workflow: object
    on_complete: str
    on_create: str | None
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Done:
    """The run is complete."""

    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Failed:
    """The run has failed."""

    reason: str


Return: TypeAlias = Goto | Sleep | Wait | Subflow | Done | Failed
"""What a step may return."""


def name_of(target: object, what: str) -> str:
    """The name of the step that `target` is. Raises TypeError when it is none."""
    if isinstance(target, str):
        return target
    name = getattr(target, "__name__", None)
    if not callable(target) or not isinstance(name, str):
        raise TypeError(
            f"{what} takes a step, as self.next_step or 'next_step', not {target!r:.80}"
        )
    return name


def _optional(target: Target | None, what: str) -> str | None:
    return None if target is None else name_of(target, what)


def _seconds(duration: timedelta | float, what: str) -> float:
    try:
        seconds = seconds_of(duration)
    except TypeError as error:
        raise TypeError(f"{what} takes a timedelta (or seconds): {error}") from None
    if not 0 <= seconds < 1e11:
        raise ValueError(f"{what} takes a duration of 0 s to about 3,000 years, got {duration}")
    return seconds


def goto(step: Target, progress: float | None = None) -> Goto:
    """Go on at another step, at once.

    Args:
        step: a step of the same class: `self.other`, or its name.
        progress: how much of the work is done, from 0 to 1; shown as `WorkflowRun.progress`.

    Raises:
        TypeError: `step` is neither a method nor a name.
        ValueError: `progress` is not between 0 and 1.

    Example:
        >>> goto("ship", progress=0.5)
        Goto(step='ship', progress=0.5)
    """
    if progress is not None:
        progress = float(progress)
        if not 0 <= progress <= 1:
            raise ValueError(f"progress goes from 0 to 1, got {progress:g}")
    return Goto(name_of(step, "goto()"), progress)


def sleep(duration: timedelta | float, then: Target | None = None) -> Sleep:
    """Do nothing for a while; the run is kept in the store meanwhile, and in no memory.

    Args:
        duration: how long, as a timedelta or in seconds.
        then: the step to go on at; without it the same step runs again.

    Raises:
        TypeError, ValueError: `duration` is no duration.

    Example:
        >>> sleep(timedelta(days=30), then="remind")
        Sleep(seconds=2592000.0, then='remind')
    """
    return Sleep(_seconds(duration, "sleep()"), _optional(then, "then="))


class _Waits:
    """Waiting for something from outside; `wait.for_signal(...)`, `wait.for_event(...)`."""

    __slots__ = ()

    def for_signal(
        self,
        name: str,
        timeout: timedelta | float | None = None,
        on_timeout: Target | None = None,
        then: Target | None = None,
    ) -> Wait:
        """Wait until `engine.signal(name, ...)` is called for this run, for days if need be.

        The signal's payload is merged into the context before the next step runs.

        Args:
            name: the signal's name.
            timeout: how long at most, as a timedelta or in seconds; None waits for ever.
            on_timeout: the step to go on at when the time is over; without one the run fails.
            then: the step to go on at when the signal comes; without it, the step that is defined
                next in the class; when there is none, the run is complete.

        Raises:
            TypeError, ValueError: an argument is of the wrong kind.

        Example:
            >>> wait.for_signal("approved", timeout=timedelta(days=7), on_timeout="expire").timeout
            604800.0
        """
        return _wait("signal", name, timeout, on_timeout, then, None)

    def for_event(
        self,
        name: str,
        timeout: timedelta | float | None = None,
        on_timeout: Target | None = None,
        then: Target | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> Wait:
        """Wait until `engine.emit(name, ...)` tells that the event has happened.

        The event's payload is merged into the context before the next step runs, and so are
        `event_id`, `event_name` and `entity_id` where the Context declares them.

        Args:
            name: the event's name.
            timeout, on_timeout, then: as of `wait.for_signal`.
            where: only an event whose payload has these values (`entity_id` is one of them) will
                do; without it, any event of that name.

        Raises:
            TypeError, ValueError: an argument is of the wrong kind.

        Example:
            >>> wait.for_event("payment_received", where={"order_id": 7}).tag
            'event:payment_received'
        """
        return _wait("event", name, timeout, on_timeout, then, where)


wait = _Waits()
"""`wait.for_signal(...)` and `wait.for_event(...)`."""


def wait_for_event(
    name: str,
    timeout: timedelta | float | None = None,
    on_timeout: Target | None = None,
    then: Target | None = None,
    where: Mapping[str, Any] | None = None,
) -> Wait:
    """The same as `wait.for_event`.

    Example:
        >>> wait_for_event("payment_received") == wait.for_event("payment_received")
        True
    """
    return wait.for_event(name, timeout, on_timeout, then, where)


def check_name(name: object, kind: str, what: str) -> None:
    """Raise TypeError or ValueError when `name` can't be the name of a signal or an event."""
    if not isinstance(name, str) or not name:
        raise TypeError(f"{what} takes the name of the {kind}, not {name!r:.80}")
    if len(name) > 200 or not name.isprintable():
        raise ValueError(f"{what}: a name has at most 200 letters, all printable: {name!r:.80}")
    if name.startswith(("(", EVENT)):
        raise ValueError(f"{what}: names that begin with '(' or {EVENT!r} are the engine's own")


def _wait(
    kind: Literal["signal", "event"],
    name: str,
    timeout: timedelta | float | None,
    on_timeout: Target | None,
    then: Target | None,
    where: Mapping[str, Any] | None,
) -> Wait:
    what = f"wait.for_{kind}()"
    check_name(name, kind, what)
    if on_timeout is not None and timeout is None:
        raise ValueError(f"{what} has on_timeout but no timeout: say after how long")
    if where is not None and not isinstance(cast(object, where), Mapping):
        raise TypeError(f"where= takes a mapping of fields to values, not {where!r:.80}")
    return Wait(
        kind,
        name,
        None if timeout is None else _seconds(timeout, "timeout="),
        _optional(on_timeout, "on_timeout="),
        _optional(then, "then="),
        None if where is None else dict(where),
    )


def run_subflow(
    workflow: object,
    on_complete: Target,
    on_create: Target | None = None,
    **fields: Any,
) -> Subflow:
    """Start a run of another workflow, and go on when it has ended, however it ended.

    Args:
        workflow: the class of the other workflow; a pipeline, or an event workflow, will do, too.
        on_complete: the step to go on at; it may take one argument, a `SubflowResult`.
        on_create: a method that is called with the id of the new run just before it starts.
        **fields: for the other workflow's `create_context`, or its start.

    Raises:
        TypeError: `workflow` is no workflow class, or a target is no step.

    Example:
        >>> run_subflow(type("Child", (), {}), on_complete="done")
        Traceback (most recent call last):
        TypeError: run_subflow() takes a class decorated with @workflow, not <class ...Child'>
    """
    if not (hasattr(workflow, "__stepwell__") or hasattr(workflow, "compiled")):
        raise TypeError(f"run_subflow() takes a class decorated with @workflow, not {workflow!r}")
    return Subflow(
        workflow, name_of(on_complete, "on_complete="), _optional(on_create, "on_create="), fields
    )


def complete(**result: Any) -> Done:
    """The run is complete.

    Args:
        **result: the run's result. Fields that the Context declares are set in it, too.

    Example:
        >>> complete(status="approved").result
        {'status': 'approved'}
    """
    return Done(result)


def fail(reason: str) -> Failed:
    """The run has failed, for good: nothing is tried again. `@on_fail` runs.

    Args:
        reason: why, for people.

    Example:
        >>> fail("no such customer").reason
        'no such customer'
    """
    return Failed(str(reason))
