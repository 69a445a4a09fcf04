"""An event workflow as a program: its step signatures become a definition and handlers.

The definition is made of the `StepConfig`s alone. Which joins a stream feeds is found here, once:
the events of a returned list, and whatever the steps that take them emit in turn, are on the
stream's level; every collecting step that takes one of those is released when the stream closes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any, cast

from stepwell.authoring.events.collect import Take
from stepwell.authoring.events.model import (
    HumanResponseEvent,
    InputRequiredEvent,
    StopEvent,
    WorkflowCancelledEvent,
    WorkflowFailedEvent,
    WorkflowTimedOutEvent,
)
from stepwell.authoring.events.naming import UnreconstructedException
from stepwell.authoring.events.payloads import Values
from stepwell.authoring.events.serializers import BaseSerializer, JsonSerializer
from stepwell.authoring.events.shape import matches
from stepwell.authoring.events.signature import StepConfig
from stepwell.authoring.events.starting import make_start_event
from stepwell.authoring.events.steps import EventStep
from stepwell.authoring.events.workflow import WorkflowBase
from stepwell.authoring.program import (
    Ending,
    Handler,
    Program,
    TypeRegistry,
)
from stepwell.kernel.definition import Definition, Join, StepDef
from stepwell.kernel.outcomes import Message
from stepwell.values import ErrorInfo, Json, RunStatus

_MOST_PROGRAMS = 64
"""Programs kept for one class: an option that differs from run to run must not pile them up."""


@dataclass(frozen=True, slots=True)
class Source:
    """What `compile_events` is given of a workflow."""

    name: str
    steps: Mapping[str, StepConfig]
    free: frozenset[str]
    start: type[Any]
    stop: type[Any]
    timeout: float | None
    state_type: type | None
    serializer: BaseSerializer | None
    verbose: bool
    version: str = ""


def compile_workflow(workflow: WorkflowBase[Any, Any, Any]) -> Program:
    """The program of a workflow instance; made once for each class and set of options."""
    plan = workflow._plan_now()  # pyright: ignore[reportPrivateUsage] - one thing in two files
    key = (
        workflow.timeout,
        workflow.workflow_name,
        workflow.workflow_version,
        workflow.verbose,
        workflow.serializer,
    )
    program = plan.programs.get(key)
    if program is None:
        source = Source(
            name=workflow.workflow_name,
            steps=plan.shape.steps,
            free=plan.free,
            start=plan.shape.start,
            stop=plan.shape.stop,
            timeout=workflow.timeout,
            state_type=workflow.state_type,
            serializer=workflow.serializer,
            verbose=workflow.verbose,
            version=workflow.workflow_version,
        )
        if len(plan.programs) >= _MOST_PROGRAMS:
            plan.programs.clear()
        program = plan.programs[key] = compile_events(source)
    return cast(Program, program)


def compile_events(source: Source) -> Program:
    """The program of a validated event workflow."""
    steps = source.steps
    declared = dict.fromkeys(
        t
        for config in steps.values()
        for t in (*config.accepted_events, *config.return_types)
        if t is not NoneType
    )
    declared[source.start] = declared[source.stop] = None
    for builtin in (HumanResponseEvent, InputRequiredEvent, StopEvent):
        declared[builtin] = None
    given = source.serializer if isinstance(source.serializer, JsonSerializer) else None
    serializer = (given or JsonSerializer()).with_types(*declared)
    values = Values(serializer)
    errors = [kind for kind in serializer.allowed if issubclass(kind, Exception)]
    types = TypeRegistry(declared, values.dump, values.dump_free, values.load, errors)
    tag = types.add
    recovers = _recovers(steps)
    collectors = _all_collectors(steps, recovers)
    definition = Definition(
        name=source.name,
        version=source.version,
        steps=tuple(
            _step_def(config, types, recovers, collectors[config.name], _kinds(source, config))
            for config in steps.values()
        ),
        start=tag(source.start),
        ends=tuple(tag(t) for t in declared if t is source.stop or issubclass(t, StopEvent)),
        publishes=tuple(tag(t) for t in declared if issubclass(t, InputRequiredEvent)),
        timeout=None if source.timeout is None else float(source.timeout),
    )
    loose = bool(definition.by_kind)
    known = dict(types.tags)
    for kind in serializer.allowed:
        # No step takes it, but it may be in the stream, or in a message from outside.
        if kind not in errors:
            types.add(kind)
    handlers: dict[str, Handler] = {
        name: EventStep(
            config,
            types,
            bound=name not in source.free,
            known=known,
            loose=loose,
            streams=bool(config.list_returns),
            tuple_streams=bool(config.tuple_returns and definition.by_name[name].collectors),
        )
        for name, config in steps.items()
    }
    return Program(
        definition=definition,
        handlers=handlers,
        types=types,
        start=lambda fields: _start_message(source, types, fields),
        result=_result,
        final=lambda ending: _final(ending, source, types),
        failure=types.exception,
        serializer=source.serializer or serializer,
        state_type=source.state_type,
        verbose=source.verbose,
    )


# --- the definition ------------------------------------------------------------------------------


def _recovers(steps: Mapping[str, StepConfig]) -> dict[str, str]:
    """Which error handler covers which step: a handler that names it, else the one for all."""
    covers: dict[str, str] = {}
    for config in steps.values():
        if config.is_error_handler and config.for_steps is None:
            for other in steps.values():
                if not other.is_error_handler:
                    covers.setdefault(other.name, config.name)
    for config in steps.values():
        for name in config.for_steps or () if config.is_error_handler else ():
            covers[name] = config.name
    return covers


def _step_def(
    config: StepConfig,
    types: TypeRegistry,
    recovers: Mapping[str, str],
    collectors: tuple[str, ...],
    kinds: Iterable[type],
) -> StepDef:
    tag = types.add
    join = _join_of(config, types)
    members = _stream_members(config)
    policy = config.retry_policy
    describe = getattr(policy, "describe", None)
    return StepDef(
        name=config.name,
        accepts=() if join or config.is_error_handler else _tags(config.accepted_events, types),
        subclasses=config.accept_event_subclasses,
        kinds=_tags(kinds, types),
        join=join,
        emits=_tags(config.produced_events, types),
        workers=config.num_workers,
        timeout=config.timeout,
        on_error=recovers.get(config.name),
        recoveries=config.max_recoveries,
        collectors=collectors,
        opens=tuple(tag(t) for t in members),
        retry=cast("Json", describe()) if callable(describe) else None,
    )


def _kinds(source: Source, config: StepConfig) -> list[type]:
    """What reaches a step as a subclass of what it accepts, of all that the workflow may emit."""
    if not config.accept_event_subclasses:
        return []
    made = dict.fromkeys(
        (source.start, *(t for s in source.steps.values() for t in s.produced_events))
    )
    takes, exact = config.accepted_events, set(config.accepted_events)
    return [t for t in made if t not in exact and any(matches(config, w, t) for w in takes)]


def _tags(kinds: Iterable[type], types: TypeRegistry) -> tuple[str, ...]:
    return tuple(types.add(t) for t in dict.fromkeys(kinds))


def _join_of(config: StepConfig, types: TypeRegistry) -> Join | None:
    first = config.event_params[0]
    if first.kind == "slot":
        return Join("all_of", tuple(_tags(p.types, types) for p in config.event_params))
    if first.kind == "slots":
        return Join("all_of", tuple((types.add(t),) for t in first.types))
    if first.kind in ("list", "batch"):
        collect = first.collect
        take = collect.cardinality.n if collect and isinstance(collect.cardinality, Take) else None
        order = collect.order if collect else "arrival"
        return Join("collect", (_tags(first.types, types),), take, order)
    return None


def _collects(config: StepConfig) -> bool:
    return config.event_params[0].kind in ("list", "batch")


def _stream_members(config: StepConfig) -> tuple[type, ...]:
    return config.list_returns or config.tuple_returns


def _all_collectors(
    steps: Mapping[str, StepConfig], recovers: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """For each step the joins that its stream feeds; empty when it opens none.

    A list always opens a stream. A tuple does when it is collected, unless its step already works
    in a stream that the same join collects: then what it emits is a part of that one.
    """
    found: dict[str, tuple[str, ...]] = {}
    inside: dict[str, set[str]] = {}
    for config in steps.values():
        within = inside[config.name] = set[str]()
        members = _stream_members(config)
        found[config.name] = _collectors(members, steps, recovers, within) if members else ()
    for name, config in steps.items():
        if not config.list_returns and any(
            name in inside[other] and not set(found[name]).isdisjoint(found[other])
            for other in steps
            if other != name
        ):
            found[name] = ()
    return found


def _collectors(
    members: Iterable[type],
    steps: Mapping[str, StepConfig],
    recovers: Mapping[str, str],
    inside: set[str],
) -> tuple[str, ...]:
    """The collecting steps that a stream of `members` feeds; the steps in the stream go into
    `inside`."""
    found: dict[str, None] = {}
    seen: set[type] = set()
    frontier = list(members)
    while frontier:
        kind = frontier.pop()
        if kind in seen:
            continue
        seen.add(kind)
        for config in steps.values():
            if not any(matches(config, wanted, kind) for wanted in config.accepted_events):
                continue
            if _collects(config):
                found[config.name] = None
                continue
            inside.add(config.name)
            if config.name in recovers:  # the handler works where the step failed
                handler = steps[recovers[config.name]]
                frontier.extend(t for t in handler.bare_returns if t is not NoneType)
            frontier.extend(t for t in config.bare_returns if t is not NoneType)
            frontier.extend(config.tuple_returns)
            inner = [t for t in config.list_returns if t not in seen]
            nested = _collectors(inner, steps, recovers, set()) if inner else ()
            if inner and not nested:
                frontier.extend(inner)
            for name in nested:
                # A stream within the stream: what its joins emit is on this level again.
                frontier.extend(t for t in steps[name].bare_returns if t is not NoneType)
                frontier.extend(steps[name].tuple_returns)
    return tuple(found)


# --- starting and ending -------------------------------------------------------------------------


def _start_message(source: Source, types: TypeRegistry, fields: Mapping[str, Any]) -> Message:
    event: object = make_start_event(source.start, fields)
    return Message(types.add(type(event)), event)


def _result(message: Message) -> object:
    event = message.payload
    return event.result if type(event) is StopEvent else event


def _final(ending: Ending, source: Source, types: TypeRegistry) -> object | None:
    match ending.status:
        case RunStatus.COMPLETED:
            return ending.result.payload if ending.result is not None else None
        case RunStatus.TIMED_OUT:
            error = cast(ErrorInfo, ending.error)
            active = [name for name in str(error.details or "").split(", ") if name]
            return WorkflowTimedOutEvent(timeout=source.timeout or 0.0, active_steps=active)
        case RunStatus.CANCELLED:
            return WorkflowCancelledEvent()
        case _:
            error = cast(ErrorInfo, ending.error)
            raised = types.exception(error)
            if not isinstance(raised, Exception):
                raised = UnreconstructedException(error.message, original_type=error.type)
            return WorkflowFailedEvent(
                step_name=ending.step or "",
                exception=raised,
                attempts=ending.attempts or None,
                elapsed_seconds=ending.elapsed,
            )
