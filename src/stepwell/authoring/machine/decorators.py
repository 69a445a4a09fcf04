"""The decorators of state machines, and everything that is checked when a class is decorated.

A class is checked once, whole, when `@workflow` sees it: its Context, its one start step, every
target that can be read from its code. What can't be known then (a target that is computed) is
checked when the step returns it.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar, cast, overload

from pydantic import BaseModel

from stepwell.authoring.machine.compile import compile_machine
from stepwell.authoring.machine.context import declared, unkept
from stepwell.authoring.machine.cron import Schedule
from stepwell.authoring.machine.define import (
    Machine,
    StepInfo,
    StepOptions,
    Trigger,
    duration_of,
    file,
    machine_of,
)
from stepwell.authoring.machine.scan import Reach, scan
from stepwell.errors import WorkflowConfigurationError
from stepwell.policy import SeedlessRetryPolicy

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])

_STEP = "__stepwell_step__"
_ON_FAIL = "__stepwell_on_fail__"


@overload
def step(func: F, /) -> F: ...


@overload
def step(
    *,
    retry: SeedlessRetryPolicy | None = None,
    start: bool = False,
    timeout: timedelta | float | None = None,
    title: str | None = None,
    visible: bool = True,
) -> Callable[[F], F]: ...


def step(
    func: F | None = None,
    /,
    *,
    retry: SeedlessRetryPolicy | None = None,
    start: bool = False,
    timeout: timedelta | float | None = None,
    title: str | None = None,
    visible: bool = True,
) -> F | Callable[[F], F]:
    """Mark a method as a step. Plain functions run in a thread, `async def` in the event loop.

    Args:
        retry: when to try again after it raised; without it, the workflow's `default_retry`.
        start: the run begins here; exactly one step does.
        timeout: how long one attempt may take, as a timedelta or in seconds.
        title: what to call it when shown to people.
        visible: False leaves it out of what is shown to people (drawings show it dashed).

    Raises:
        TypeError: `retry` is no retry policy, or `timeout` no duration.
        ValueError: `timeout` is not above 0.
    """
    if retry is not None and not callable(getattr(retry, "next", None)):
        raise TypeError(f"retry takes a Retry(...), not {retry!r:.80}")
    seconds = None if timeout is None else duration_of(timeout, "timeout")
    if seconds is not None and seconds <= 0:
        raise ValueError(f"timeout must be above 0, got {timeout!r}")
    options = StepOptions(retry, start, seconds, title or "", visible)

    def mark(function: F) -> F:
        if not inspect.isfunction(cast(object, function)):
            raise TypeError(f"@step goes on a method, not on {function!r:.80}")
        setattr(function, _STEP, options)
        return function

    return mark if func is None else mark(func)


def on_fail(func: F) -> F:
    """Mark the method that runs when a run fails: after a step's last attempt, after `fail()`, and
    after a wait without `on_timeout` ran out. It may take the error as its argument, returns
    nothing, and what it changes in the context is kept. The run has failed all the same."""
    if not inspect.isfunction(cast(object, func)):
        raise TypeError(f"@on_fail goes on a method, not on {func!r:.80}")
    setattr(func, _ON_FAIL, True)
    return func


def workflow(
    name: str,
    version: str = "1",
    default_retry: SeedlessRetryPolicy | None = None,
    *,
    schedule: str | None = None,
    timezone: str = "UTC",
    misfire: str = "once",
    max_age: timedelta | float | None = None,
) -> Callable[[C], C]:
    """Make a class a durable state machine.

    The class has an inner `Context(BaseModel)`, the run's data, and methods marked with `@step`,
    one of them with `@step(start=True)`. `create_context(**fields)` makes the Context of a new run
    and is `Context(**fields)` unless the class defines it.

    Args:
        name: what runs are filed under.
        version: of the class; runs go on with the version that they were started with, as long as
            a class of it is loaded.
        default_retry: for steps that have no `retry` of their own.
        schedule: start a run by itself at these times, as a cron expression: "0 9 * * MON-FRI".
        timezone: whose clocks `schedule` means, as an IANA name.
        misfire: what to do about times that passed while no worker ran: "skip", "once" or "all".
        max_age: times that passed longer ago than this are skipped in any case.

    Raises:
        WorkflowConfigurationError: the class does not hold together; the text says what and where.
        ValueError: `schedule`, `timezone` or `misfire` can't be understood.

    Example:
        >>> from pydantic import BaseModel
        >>> @workflow("doc-order")
        ... class Order:
        ...     class Context(BaseModel):
        ...         paid: bool = False
        ...     @step(start=True)
        ...     def pay(self): ...
        >>> Order.__stepwell__.start
        'pay'
    """
    if not isinstance(cast(object, name), str) or not name:
        raise TypeError('@workflow takes the name of the workflow first: @workflow("orders")')
    planned = None
    if schedule is not None:
        planned = Schedule(
            schedule,
            timezone,
            misfire,
            None if max_age is None else duration_of(max_age, "max_age"),
        )

    def decorate(cls: C) -> C:
        _define(cls, name, version, default_retry, None, planned)
        return cls

    return decorate


def event_workflow(
    event_name: str,
    offset_minutes: float = 0,
    offset: timedelta | float | None = None,
    version: str = "1",
    default_retry: SeedlessRetryPolicy | None = None,
    *,
    name: str | None = None,
) -> Callable[[C], C]:
    """Make a class a durable state machine whose runs are started by an event.

    `engine.emit(event_name, ...)` starts a run of every class that names the event. The class may
    define `create_context(event)` and `should_run_for_event(event) -> bool`; without the former the
    Context is made of the event's payload. Without a `Context` it has an empty one.

    Args:
        event_name: the event.
        offset_minutes: start that long after the event's time; before it when negative.
        offset: the same as a timedelta (or seconds); give one of the two.
        version, default_retry: as of `@workflow`.
        name: what runs are filed under; the class's name by default.

    Raises:
        WorkflowConfigurationError: the class does not hold together; the text says what and where.
        ValueError: both offsets are given.
    """
    if not isinstance(cast(object, event_name), str) or not event_name:
        raise TypeError('@event_workflow takes the name of the event: @event_workflow("paid")')
    if offset is not None and offset_minutes:
        raise ValueError("give offset or offset_minutes, not both")
    seconds = offset_minutes * 60.0 if offset is None else duration_of(offset, "offset")

    def decorate(cls: C) -> C:
        trigger = Trigger(event_name, float(seconds))
        _define(cls, name or cls.__name__, version, default_retry, trigger, None)
        return cls

    return decorate


class NoContext(BaseModel):
    """The Context of event workflows that declare none."""


def _define(
    cls: type,
    name: str,
    version: str,
    default_retry: SeedlessRetryPolicy | None,
    trigger: Trigger | None,
    schedule: Schedule | None,
) -> None:
    if not inspect.isclass(cls):
        raise TypeError(f"@workflow goes on a class, not on {cls!r:.80}")
    if "__stepwell__" in cls.__dict__:
        raise WorkflowConfigurationError(
            f"{cls.__name__} is the workflow {machine_of(cls).name!r} already; a class is one "
            "workflow, make a subclass for another"
        )
    if default_retry is not None and not callable(getattr(default_retry, "next", None)):
        raise TypeError(f"default_retry takes a Retry(...), not {default_retry!r:.80}")
    context = _context_of(cls, trigger)
    steps, failing = _steps_of(cls)
    starts = [info.name for info in steps.values() if info.options.start]
    if len(starts) > 1:
        raise WorkflowConfigurationError(
            f"Workflow {cls.__name__} has multiple start steps: {', '.join(starts)}"
        )
    if not starts:
        raise WorkflowConfigurationError(
            f"Workflow {cls.__name__} must have exactly one step marked with start=True"
        )
    reach = {info.name: scan(info.func, cls) for info in steps.values()}
    _check_targets(cls, steps, reach)
    if not callable(getattr(cls, "create_context", None)):
        if schedule is not None:
            _check_fillable(cls, context)
        default = _from_event if trigger is not None else _from_fields
        setattr(cls, "create_context", classmethod(default))  # noqa: B010 - not declared on `type`
    if "context" in cls.__dict__:
        raise WorkflowConfigurationError(
            f"Workflow {cls.__name__} has an attribute `context`: that is where steps find the "
            "run's Context; call it something else"
        )
    machine = Machine(
        cls,
        name,
        str(version),
        context,
        steps,
        starts[0],
        reach,
        compile_machine,
        failing,
        default_retry,
        trigger,
        schedule,
    )
    file(machine)
    cls.__stepwell__ = machine  # pyright: ignore[reportAttributeAccessIssue] - what marks the class


def _check_fillable(cls: type, context: type[BaseModel]) -> None:
    """Nobody is there to fill the Context of a run that a schedule starts."""
    needed = [
        name
        for name, field in context.model_fields.items()
        if field.is_required() and name != "scheduled_at"
    ]
    if needed:
        raise WorkflowConfigurationError(
            f"Workflow {cls.__name__} has a schedule, and its Context needs {', '.join(needed)}: "
            "give such fields defaults, or make the Context in a class method "
            "create_context(cls, **fields)"
        )


def _from_fields(cls: Any, **fields: Any) -> BaseModel:
    return cls.Context(**fields)


def _from_event(cls: Any, event: Any = None, **fields: Any) -> BaseModel:
    context = machine_of(cls).context
    given: dict[str, Any] = dict(fields) if event is None else {**event.fields(), **fields}
    if context.model_config.get("extra") in ("allow", "forbid"):
        return context(**given)
    known = declared(context)
    return context(**{key: value for key, value in given.items() if key in known})


def _context_of(cls: type, trigger: Trigger | None) -> type[BaseModel]:
    context: object = getattr(cls, "Context", None)
    if context is None and trigger is not None:
        return NoContext
    if not (isinstance(context, type) and issubclass(context, BaseModel)):
        raise WorkflowConfigurationError(
            f"Workflow {cls.__name__} must define a Context class: an inner class "
            "`Context(BaseModel)` with the run's data"
        )
    secret = unkept(context)
    if secret is not None:
        raise WorkflowConfigurationError(
            f"Workflow {cls.__name__}: the Context's field {secret} is a secret, whose value would "
            "be kept as stars; keep the name of the secret, or give the field a serializer"
        )
    return context


def _steps_of(cls: type) -> tuple[dict[str, StepInfo], StepInfo | None]:
    """The steps of a class, those of its bases first, each where it was first defined."""
    steps: dict[str, StepInfo] = {}
    failing: StepInfo | None = None
    for base in reversed(cls.__mro__):
        for name, member in base.__dict__.items():
            func: Any = member
            options = getattr(func, _STEP, None)
            if isinstance(options, StepOptions):
                steps[name] = StepInfo(name, func, options, _parameter(cls, func))
            elif name in steps:
                del steps[name]  # overridden by something that is no step
            if getattr(func, _ON_FAIL, False):
                if failing is not None and failing.name != name:
                    raise WorkflowConfigurationError(
                        f"Workflow {cls.__name__} has two @on_fail methods: {failing.name} and "
                        f"{name}"
                    )
                failing = StepInfo(name, func, StepOptions(), _parameter(cls, func))
    if failing is not None and failing.name in steps:
        raise WorkflowConfigurationError(
            f"Workflow {cls.__name__}: {failing.name} is marked with both @step and @on_fail"
        )
    return steps, failing


def _parameter(cls: type, func: Callable[..., Any]) -> str | None:
    """The one parameter that a step may have besides self."""
    names = [
        p
        for p in list(inspect.signature(func).parameters.values())[1:]
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    needed = [p for p in names if p.default is p.empty]
    if len(needed) > 1 or (needed and needed[0] is not names[0]):
        raise WorkflowConfigurationError(
            f"Workflow {cls.__name__}: step {func.__name__} takes {len(needed)} arguments; a step "
            "takes none, or one: the SubflowResult of the subflow that it comes after"
        )
    return names[0].name if names else None


def _check_targets(cls: type, steps: Mapping[str, StepInfo], reach: Mapping[str, Reach]) -> None:
    """Every target that can be read from the code is a step; implicit next steps are told of when
    they are the target of something else, too."""
    targeted: dict[str, str] = {}
    for name, found in reach.items():
        for target in found.targets:
            if target not in steps and callable(getattr(cls, target, None)):
                raise WorkflowConfigurationError(
                    f"Workflow {cls.__name__}: {target}, which {name} goes to, is not marked with "
                    "@step"
                )
            if target not in steps:
                raise WorkflowConfigurationError(
                    f"Workflow {cls.__name__}: step {name} names the step {target!r}, which the "
                    f"class has not; it has {', '.join(steps)}"
                )
            targeted.setdefault(target, name)
    names = list(steps)
    for name, found in reach.items():
        if not found.implicit:
            continue
        place = names.index(name) + 1
        following = names[place] if place < len(names) else None
        if following is not None and targeted.get(following, name) != name:
            warnings.warn(
                f"Workflow {cls.__name__}: step {name} waits and then goes on at {following}, the "
                f"step defined next, which {targeted[following]} goes to as well; say "
                f"then=self.{following} if that is meant",
                UserWarning,
                stacklevel=4,
            )
