"""`@step` and `@catch_error`: mark a function as a step, with the options it was given.

The theory: a decorator changes nothing about the function. It reads the signature once, when the
function is written, so that mistakes are reported at the line that has them; it leaves the
result on the function as `_step_config` (a `StepConfig`) and returns the very same object. So
steps can be called in tests as the plain functions they are, and type checkers see their types
untouched.

This module refuses to know how steps are run or validated together.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from types import FrameType
from typing import Any, Literal, TypeVar, cast, overload

from stepwell.authoring.events.annotations import names_around
from stepwell.authoring.events.model import StepFailedEvent
from stepwell.authoring.events.shape import GraphCheck, parse_graph_checks
from stepwell.authoring.events.signature import Execution, StepConfig, StepFunction, inspect_step
from stepwell.authoring.events.workflow import WorkflowBase
from stepwell.errors import WorkflowValidationError
from stepwell.policy import SeedlessRetryPolicy

__all__ = ["catch_error", "step"]

F = TypeVar("F", bound=Callable[..., object])


@overload
def step(func: F, /) -> F: ...


@overload
def step(
    func: None = None,
    *,
    workflow: type[WorkflowBase[Any, Any, Any]] | None = None,
    num_workers: int = 4,
    retry_policy: SeedlessRetryPolicy | None = None,
    skip_graph_checks: Iterable[GraphCheck] | None = None,
    accept_event_subclasses: bool = False,
    timeout: float | timedelta | None = None,
    execution: Literal["auto", "async", "thread", "process"] = "auto",
) -> Callable[[F], F]: ...


def step(
    func: F | None = None,
    *,
    workflow: type[WorkflowBase[Any, Any, Any]] | None = None,
    num_workers: int = 4,
    retry_policy: SeedlessRetryPolicy | None = None,
    skip_graph_checks: Iterable[GraphCheck] | None = None,
    accept_event_subclasses: bool = False,
    timeout: float | timedelta | None = None,
    execution: Literal["auto", "async", "thread", "process"] = "auto",
) -> F | Callable[[F], F]:
    """Make a function a step of a workflow; its annotations say what it receives and emits.

    Args:
        func: the function, when the decorator is used without parentheses.
        workflow: the class a free function is added to; methods need none.
        num_workers: how many attempts of this step may run at once in one run.
        retry_policy: when and how often a failed attempt is tried again; None means never.
        skip_graph_checks: graph checks that this step is exempt from: "reachability",
            "terminal_event", "dead_end".
        accept_event_subclasses: receive subclasses of the annotated events too; otherwise an
            event is routed by its exact class.
        timeout: how long one attempt may take, in seconds or as a timedelta; None is no limit.
        execution: where the function runs. "auto" runs coroutine functions on the event loop
            and plain functions in a thread; "process" runs a plain function in another process.

    Returns:
        The function itself, or a decorator that returns it.

    Raises:
        WorkflowValidationError: the signature cannot be that of a step, an option has an
            impossible value, or a free function names no workflow.

    Example:
        >>> from stepwell.authoring.events.model import StartEvent, StopEvent
        >>> class Greeting(WorkflowBase):
        ...     @step(timeout=5)
        ...     async def greet(self, ev: StartEvent) -> StopEvent:
        ...         return StopEvent(result=f"Hello {ev.name}")
    """
    if not _is_positive_int(num_workers):
        raise WorkflowValidationError("num_workers must be an integer greater than 0")
    if retry_policy is not None and not callable(getattr(retry_policy, "next", None)):
        raise WorkflowValidationError(
            f"retry_policy must have a next() method that says when to try again, got "
            f"{retry_policy!r}"
        )
    seconds = _timeout_seconds(timeout)
    exempt = parse_graph_checks(skip_graph_checks)

    def decorate(target: F, frame: FrameType) -> F:
        function = _function_of(target)
        if workflow is None and _is_free(function):
            raise WorkflowValidationError(
                f"To decorate {function.__name__} please pass a workflow class to the @step "
                "decorator."
            )
        config = inspect_step(function, scopes=names_around(function, frame))
        config = replace(
            config,
            num_workers=num_workers,
            retry_policy=retry_policy,
            timeout=seconds,
            execution=_execution(config, execution),
            accept_event_subclasses=accept_event_subclasses,
            skip_graph_checks=exempt,
        )
        _attach(function, config)
        if workflow is not None:
            workflow.add_step(function)
        return target

    return _apply(func, decorate)


@overload
def catch_error(func: F, /) -> F: ...


@overload
def catch_error(
    func: None = None,
    *,
    for_steps: Sequence[str] | None = None,
    max_recoveries: int = 1,
) -> Callable[[F], F]: ...


def catch_error(
    func: F | None = None,
    *,
    for_steps: Sequence[str] | None = None,
    max_recoveries: int = 1,
) -> F | Callable[[F], F]:
    """Make a function the handler of steps that have failed for good.

    It is called with a `StepFailedEvent` when a step has used up its retries. What it returns
    goes on as if the step had returned it: a stop event recovers to a result, another event
    recovers into the flow, None recovers to nothing. When it raises, the run fails. It is not
    called for the timeout or the cancellation of a run.

    Args:
        func: the function, when the decorator is used without parentheses.
        for_steps: names of the steps it covers; None covers every step that no other handler
            names, and there can be one such handler.
        max_recoveries: how often it may recover the same line of events; an event emitted
            because of a recovery belongs to the same line.

    Returns:
        The function itself, or a decorator that returns it. A free function becomes part of a
        workflow through `Workflow.add_step`.

    Raises:
        WorkflowValidationError: the function does not take a StepFailedEvent, or an option has
            an impossible value.

    Example:
        >>> from stepwell.authoring.events.model import StartEvent, StepFailedEvent, StopEvent
        >>> class Careful(WorkflowBase):
        ...     @step
        ...     async def work(self, ev: StartEvent) -> StopEvent:
        ...         raise ValueError("no")
        ...     @catch_error(for_steps=["work"])
        ...     async def give_up(self, ev: StepFailedEvent) -> StopEvent:
        ...         return StopEvent(result=f"{ev.step_name}: {ev.exception}")
    """
    if not _is_positive_int(max_recoveries):
        raise WorkflowValidationError("@catch_error max_recoveries must be an integer >= 1")
    covered = _step_names(for_steps)

    def decorate(target: F, frame: FrameType) -> F:
        function = _function_of(target)
        config = inspect_step(function, scopes=names_around(function, frame))
        params = config.event_params
        if [(p.kind, p.types) for p in params] not in (
            [("event", (StepFailedEvent,))],
            [("wrapped", (StepFailedEvent,))],
        ):
            raise WorkflowValidationError(
                f"@catch_error handler '{config.name}' must accept StepFailedEvent as its event "
                "parameter."
            )
        config = replace(
            config,
            num_workers=1,
            is_error_handler=True,
            for_steps=covered,
            max_recoveries=max_recoveries,
        )
        _attach(function, config)
        return target

    return _apply(func, decorate)


# --- shared by both -------------------------------------------------------------------------------


def _apply(func: F | None, decorate: Callable[[F, FrameType], F]) -> F | Callable[[F], F]:
    """Decorate now or later; the frame of the decorated definition is found from here."""
    if func is not None:
        return decorate(func, sys._getframe(2))  # pyright: ignore[reportPrivateUsage] # the documented way to see the scopes around a definition

    def decorator(target: F) -> F:
        return decorate(target, sys._getframe(1))  # pyright: ignore[reportPrivateUsage] # as above

    return decorator


def _function_of(target: object) -> StepFunction:
    """The function that carries the mark: inside of a staticmethod, else the target itself."""
    function = target
    if isinstance(target, staticmethod):
        function = cast("staticmethod[..., object]", target).__func__
    if isinstance(function, classmethod) or not inspect.isroutine(function):
        raise WorkflowValidationError(f"A step must be a function or a method, got {target!r}")
    return cast(StepFunction, function)


def _attach(function: StepFunction, config: StepConfig) -> None:
    function._step_config = config  # type: ignore[attr-defined] # functions take attributes


def _is_free(function: StepFunction) -> bool:
    """Say whether the function stands outside of any class body, by its qualified name."""
    scope, _, _ = function.__qualname__.rpartition(".")
    return scope == "" or scope.endswith("<locals>")


def _is_positive_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _timeout_seconds(timeout: float | timedelta | None) -> float | None:
    if timeout is None:
        return None
    value = cast(object, timeout.total_seconds() if isinstance(timeout, timedelta) else timeout)
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not (math.isfinite(value) and value > 0)
    ):
        raise WorkflowValidationError(
            f"timeout must be a number of seconds greater than 0, a timedelta or None, got "
            f"{timeout!r}"
        )
    return float(value)


def _execution(config: StepConfig, wanted: str) -> Execution:
    is_async = config.execution == "async"
    match wanted:
        case "auto":
            return config.execution
        case "async" if is_async:
            return "async"
        case "thread" | "process" if not is_async:
            return wanted
        case "async":
            reason = "is not a coroutine function; write it with async def"
        case "thread" | "process":
            reason = "is a coroutine function, which runs on the event loop; write it with def"
        case _:
            raise WorkflowValidationError(
                f"execution must be one of auto, async, thread, process, got {wanted!r}"
            )
    raise WorkflowValidationError(
        f"Step '{config.name}' has execution='{wanted}' but {reason}, or leave execution out."
    )


def _step_names(for_steps: Sequence[str] | None) -> tuple[str, ...] | None:
    if for_steps is None:
        return None
    given = cast("Sequence[object]", for_steps)
    if not isinstance(given, (list, tuple)) or not all(isinstance(name, str) for name in given):
        raise WorkflowValidationError(
            "@catch_error for_steps must be None or a list of step name strings"
        )
    return tuple(for_steps)
