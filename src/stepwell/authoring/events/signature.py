"""Reads a step function and says, as plain data, what it takes and what it gives.

The theory: in the event style the annotations of a function *are* its wiring. A parameter says
which events start the function, and in what shape they are handed over; the return annotation
says which events it may emit. Everything else (routing, validation, drawing, running) works on
the `StepConfig` made here and never looks at the function again.

How a parameter asks for events:

    ev: A                   each A                                   kind "event"
    ev: A | B               each A and each B                        kind "event"
    a: A, b: B              one of each, as two arguments            kind "slot" (twice)
    evs: list[A]            a closed collection                      kind "list"
    events: tuple[A]        each A, handed over as `(a,)`            kind "wrapped"
    events: tuple[A, B]     one of each, handed over as `(a, b)`     kind "slots"
    events: tuple[A, ...]   as list[A], and handed over as a list    kind "batch"

What may be an event: subclasses of `Event` everywhere. In the tuple style, which has no base
class for its events (a parameter called `events`, or annotated as a tuple), pydantic models and
dataclasses too. The start type declared by `Workflow[Ctx, Start, End]` may be any class, but a
step is decorated before its class exists: so a lone pydantic or dataclass parameter is accepted
as `provisional`, and the workflow class refuses it later unless it is the declared start type.

This module refuses to know about workflow classes, other steps and running. It never imports a
name: annotations are resolved in the module of the function and in the scopes around it.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from types import NoneType
from typing import Any, Literal, TypeAlias, TypeGuard, cast

from pydantic import BaseModel

from stepwell.authoring.events.annotations import (
    names_around,
    plain,
    present_members,
    resolve,
)
from stepwell.authoring.events.collect import All, Collect, Take
from stepwell.authoring.events.model import Event, WorkflowErrorEvent
from stepwell.authoring.events.resources import ResourceDefinition, ResourceDescriptor
from stepwell.authoring.events.returns import NO_ASYNC_ITERATORS, read_returns
from stepwell.errors import WorkflowValidationError
from stepwell.policy import SeedlessRetryPolicy

__all__ = [
    "EventKind",
    "EventParam",
    "Execution",
    "ResourceParam",
    "StepConfig",
    "StepFunction",
    "context_state",
    "inspect_step",
    "is_event_type",
    "is_message_type",
]

StepFunction: TypeAlias = Callable[..., object]
"""Any function that may be a step; its `_step_config` holds what was read from it."""

Execution: TypeAlias = Literal["async", "thread", "process"]
"""Where a step runs: on the event loop, in a thread, or in another process."""

EventKind: TypeAlias = Literal["event", "wrapped", "slots", "slot", "list", "batch"]
"""The shape in which events are handed to a parameter; the table is in the module's text."""


@dataclass(frozen=True, slots=True)
class EventParam:
    """One parameter that receives events.

    Attributes:
        name: the parameter's name; events are passed by keyword.
        kind: the shape in which they are handed over.
        types: the event types; for `slots` one for each place, in order (a type may stand in
            several places), otherwise the types of which any one fits.
        collect: when the collection is complete; set for `list` and `batch` only.
    """

    name: str
    kind: EventKind
    types: tuple[type[Any], ...]
    collect: Collect | None = None


@dataclass(frozen=True, slots=True)
class ResourceParam:
    """One parameter that is filled with a resource.

    Attributes:
        name: the parameter's name.
        descriptor: how to make the resource, as found in the `Annotated` metadata.
        type_annotation: the annotated type, without the metadata.
    """

    name: str
    descriptor: ResourceDescriptor
    type_annotation: object


@dataclass(frozen=True, slots=True, eq=False)
class StepConfig:
    """All that is known of a step without running it.

    Attributes:
        name: the step's name, unique in its workflow.
        func: the function as written, not bound to an instance.
        event_params: the parameters that receive events; several only when all are `slot`.
        context_param: the parameter that receives the context, if there is one.
        state_type: `State` of a context parameter annotated `Context[State]`.
        resources: the parameters filled with resources.
        return_types: every type the step may emit, from lists and tuples too, in the order
            written; `NoneType` is among them when the step may return None.
        list_returns: members of the returned `list[...]`, which opens a stream of them.
        bare_returns: the types that may be returned as a single value.
        returns_none: None may be returned.
        tuple_return: a tuple may be returned; each member is emitted.
        tuple_returns: members of the returned tuples.
        num_workers: how many attempts of this step may run at once in one run.
        retry_policy: when and how often to try again; None means never.
        timeout: seconds an attempt may take; None means no limit.
        execution: where the function runs.
        accept_event_subclasses: subclasses of the accepted types are routed here too.
        skip_graph_checks: names of the graph checks this step is exempt from.
        is_error_handler: made by `@catch_error`.
        for_steps: the steps an error handler covers; None means all that no other covers.
        max_recoveries: how often the handler may recover one lineage of events.
        is_entry: the undecorated `start` method of the tuple style.
        provisional: accepted types that are legal only as the workflow's declared start type.
    """

    name: str
    func: StepFunction
    event_params: tuple[EventParam, ...]
    context_param: str | None
    state_type: type[Any] | None
    resources: tuple[ResourceParam, ...]
    return_types: tuple[type[Any], ...]
    list_returns: tuple[type[Any], ...]
    bare_returns: tuple[type[Any], ...]
    returns_none: bool
    tuple_return: bool
    tuple_returns: tuple[type[Any], ...] = ()
    num_workers: int = 4
    retry_policy: SeedlessRetryPolicy | None = None
    timeout: float | None = None
    execution: Execution = "async"
    accept_event_subclasses: bool = False
    skip_graph_checks: frozenset[str] = frozenset()
    is_error_handler: bool = False
    for_steps: tuple[str, ...] | None = None
    max_recoveries: int = 1
    is_entry: bool = False
    provisional: tuple[type[Any], ...] = ()

    @property
    def accepted_events(self) -> tuple[type[Any], ...]:
        """Every event type that any parameter takes, in the order written."""
        return tuple(t for param in self.event_params for t in param.types)

    @property
    def produced_events(self) -> tuple[type[Any], ...]:
        """`return_types` without None and without `WorkflowErrorEvent`, which is not routed."""
        return tuple(
            t
            for t in self.return_types
            if t is not NoneType and not issubclass(t, WorkflowErrorEvent)
        )


# --- what may be an event ----------------------------------------------------------------------


def is_event_type(value: object) -> TypeGuard[type[Event]]:
    """Say whether `value` is `Event` or a subclass of it."""
    return isinstance(value, type) and issubclass(value, Event)


def is_message_type(value: object) -> TypeGuard[type[Any]]:
    """Say whether `value` can be an event of the tuple style: an Event, a model or a dataclass."""
    return isinstance(value, type) and (
        issubclass(value, BaseModel) or is_dataclass(cast("type[Any]", value))
    )


# --- parameters ----------------------------------------------------------------------------------


def _check_marker(name: str, marker: Collect, collects: bool) -> None:
    if not collects:
        raise WorkflowValidationError(
            f"Parameter '{name}' carries a Collect marker but is not annotated as list[E] of an "
            "Event subclass. Collect markers apply only to collection fan-in (list[Event]) "
            "parameters."
        )
    if not isinstance(cast(object, marker.cardinality), (All, Take)):
        raise WorkflowValidationError(
            f"Collect cardinality on '{name}' must be All() or Take(n). "
            "Other cardinalities are not supported."
        )


def _tuple_param(name: str, args: tuple[object, ...]) -> EventParam | None:
    """Read `tuple[A]`, `tuple[A, B]` or `tuple[A, ...]`; None when it holds other things."""
    open_ended = len(args) == 2 and args[1] is Ellipsis
    places = [present_members(arg) for arg in (args[:1] if open_ended else args)]
    if not places or not all(is_message_type(t) for place in places for t in place):
        return None
    if len(places) == 1:
        types = cast("tuple[type[Any], ...]", places[0])
        return EventParam(name, "batch" if open_ended else "wrapped", types)
    if any(len(place) != 1 for place in places):
        raise WorkflowValidationError(
            f"Parameter '{name}' joins events as a tuple, so each place of the tuple must be a "
            "single event type; a union in a place is not supported."
        )
    return EventParam(name, "slots", tuple(cast("type[Any]", place[0]) for place in places))


def _event_param(name: str, annotation: object, declared: tuple[object, ...]) -> EventParam | None:
    """Read one annotation as a request for events; None when it is not one."""
    annotation, metadata = plain(annotation)
    members = present_members(annotation)
    marker = next((m for m in metadata if isinstance(m, Collect)), None)
    param: EventParam | None = None

    def fits(t: object) -> bool:
        return is_event_type(t) or t in declared or (name == "events" and is_message_type(t))

    if len(members) == 1 and typing.get_origin(members[0]) is tuple:
        param = _tuple_param(name, typing.get_args(members[0]))
    elif len(members) == 1 and typing.get_origin(members[0]) is list:
        inner = present_members(typing.get_args(members[0])[0])
        if all(fits(t) for t in inner):
            param = EventParam(name, "list", cast("tuple[type[Any], ...]", inner))
    elif members and all(fits(t) for t in members):
        param = EventParam(name, "event", cast("tuple[type[Any], ...]", members))

    collects = param is not None and param.kind in ("list", "batch")
    if marker is not None:
        _check_marker(name, marker, collects)
    if param is not None and collects:
        return replace(param, collect=marker or Collect())
    return param


def _combine(params: list[EventParam]) -> tuple[EventParam, ...]:
    """Check that several event parameters make sense together; they then form one join."""
    if len(params) == 1:
        return tuple(params)
    lists = [p.name for p in params if p.collect is not None]
    if len(lists) > 1:
        raise WorkflowValidationError(
            "A step may declare at most one list[E] collection parameter, but found both "
            f"'{lists[0]}' and '{lists[1]}'. Multi-slot collects are not supported."
        )
    if lists:
        raise WorkflowValidationError(
            "A list[E] collection parameter cannot be combined with other event parameters. Use "
            "a single list[E] parameter, or multiple single-event parameters for a multi-slot "
            "join."
        )
    for param in params:
        if param.kind != "event":
            raise WorkflowValidationError(
                f"The tuple parameter '{param.name}' cannot be combined with other event "
                "parameters. Name all joined events in one tuple, or give each its own parameter."
            )
        if len(param.types) != 1:
            raise WorkflowValidationError(
                "Collect-mode steps (more than one event parameter) require each event parameter "
                f"to declare a single event type, but parameter '{param.name}' declares "
                f"{len(param.types)}. Union-typed collect parameters are not supported."
            )
    return tuple(replace(p, kind="slot") for p in params)


def context_state(annotation: object) -> tuple[bool, type[Any] | None]:
    """Say whether an annotation is `Context` or `Context[State]`, and which state it names.

    It goes by name because the class belongs to a layer above this one.
    """
    members = present_members(annotation)
    if len(members) != 1:
        return False, None
    origin = typing.get_origin(members[0]) or members[0]
    if not isinstance(origin, type) or origin.__name__ != "Context":
        return False, None
    state = next((a for a in typing.get_args(members[0]) if a is not typing.Any), None)
    return True, state if isinstance(state, type) else None


@dataclass(slots=True)
class _Parameters:
    events: list[EventParam]
    resources: list[ResourceParam]
    context: str | None = None
    state: type[Any] | None = None
    provisional: tuple[type[Any], ...] = ()


def _read_parameters(
    func: StepFunction,
    hints: Mapping[str, object],
    declared: tuple[type[Any], ...],
    local_names: dict[str, object],
) -> _Parameters:
    found = _Parameters([], [])
    lone: list[EventParam] = []
    for name, parameter in inspect.signature(func).parameters.items():
        if name not in hints or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            continue
        annotation = hints[name]
        inner, metadata = plain(annotation)
        resource = next((m for m in metadata if isinstance(m, ResourceDescriptor)), None)
        is_context, state = context_state(annotation)
        if resource is not None:
            resource.set_localns(local_names)
            resource = ResourceDefinition(name, resource, inner).resource
            found.resources.append(ResourceParam(name, resource, inner))
        elif is_context:
            found.context, found.state = name, state or found.state
        elif (param := _event_param(name, annotation, declared)) is not None:
            found.events.append(param)
        elif all(is_message_type(t) for t in present_members(annotation)):
            types = cast("tuple[type[Any], ...]", present_members(annotation))
            lone.append(EventParam(name, "event", types))
    if not found.events and len(lone) == 1 and lone[0].types:
        found.events = lone
        found.provisional = tuple(t for t in lone[0].types if not is_event_type(t))
    if not found.events:
        raise WorkflowValidationError(
            "Step signature must have at least one parameter annotated as type Event"
        )
    return found


# --- the whole function --------------------------------------------------------------------------


def inspect_step(
    func: StepFunction,
    *,
    scopes: Sequence[Mapping[str, object]] | None = None,
    declared: tuple[type[Any], ...] = (),
) -> StepConfig:
    """Read what a function takes and gives; options of the decorators keep their defaults.

    Args:
        func: a function or coroutine function with annotations.
        scopes: what `names_around` returned; by default the caller's surroundings are used.
        declared: classes that are events here although they are no `Event` subclasses.

    Returns:
        The step as data, to be completed with `dataclasses.replace`.

    Raises:
        WorkflowValidationError: the signature cannot be that of a step; the text says why.

    Example:
        >>> from stepwell.authoring.events.model import StartEvent, StopEvent
        >>> async def greet(ev: StartEvent) -> StopEvent: ...
        >>> inspect_step(greet).accepted_events
        (<class 'stepwell.authoring.events.model.StartEvent'>,)
    """
    if inspect.isasyncgenfunction(func):
        raise WorkflowValidationError(NO_ASYNC_ITERATORS)
    if inspect.isgeneratorfunction(func):
        raise WorkflowValidationError(
            f"Step '{func.__name__}' is a generator, which is not supported. Return list[E] for "
            "a static collection, or emit incrementally with ctx.send_event."
        )
    if scopes is None:
        scopes = names_around(func, sys._getframe(1))  # pyright: ignore[reportPrivateUsage]
    hints = resolve(func, scopes)
    parameters = _read_parameters(func, hints, declared, {**scopes[1], **scopes[0]})
    events = _combine(parameters.events)
    if "return" not in hints:
        raise WorkflowValidationError(
            "Return types of workflows step functions must be annotated with their type."
        )
    returns = read_returns(hints["return"], func.__name__)
    return StepConfig(
        name=func.__name__,
        func=func,
        event_params=events,
        context_param=parameters.context,
        state_type=parameters.state,
        resources=tuple(parameters.resources),
        return_types=tuple(returns.types),
        list_returns=tuple(returns.lists),
        bare_returns=tuple(returns.bare),
        returns_none=returns.none,
        tuple_return=returns.tuple,
        tuple_returns=tuple(returns.tuples),
        # A plain wrapper around a coroutine function gives a coroutine, too.
        execution="async" if inspect.iscoroutinefunction(inspect.unwrap(func)) else "thread",
        provisional=parameters.provisional,
    )
