"""An event workflow as a program: its step signatures become a definition and handlers.

The definition is made of the `StepConfig`s alone. Which joins a stream feeds is found here, once:
the events of a returned list, and whatever the steps that take them emit in turn, are on the
stream's level; every collecting step that takes one of those is released when the stream closes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import NoneType
from typing import Any, cast

from stepwell.authoring.events.collect import Take
from stepwell.authoring.events.dictlike import DictLikeModel
from stepwell.authoring.events.model import (
    CollectionReleaseEvent,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StepFailedEvent,
    StopEvent,
    UnreconstructedException,
    WorkflowCancelledEvent,
    WorkflowErrorEvent,
    WorkflowFailedEvent,
    WorkflowTimedOutEvent,
)
from stepwell.authoring.events.serializers import BaseSerializer, JsonSerializer
from stepwell.authoring.events.shape import matches
from stepwell.authoring.events.signature import EventParam, StepConfig
from stepwell.authoring.events.starting import make_start_event
from stepwell.authoring.events.workflow import WorkflowBase
from stepwell.authoring.program import (
    Ending,
    Execution,
    Handler,
    Program,
    StepAttempt,
    TypeRegistry,
    adapter,
)
from stepwell.errors import (
    WorkflowRuntimeError,
)
from stepwell.kernel.definition import Definition, Join, StepDef
from stepwell.kernel.outcomes import Complete, Emit, Failure, Message, Outcome
from stepwell.policy import next_delay
from stepwell.values import ErrorInfo, Json, RunStatus

_NOTHING = Emit()

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
    values = _Values(serializer)
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


# --- handlers ------------------------------------------------------------------------------------


class EventStep:
    """Does one step of an event workflow."""

    __slots__ = (
        "bound",
        "config",
        "context_name",
        "execution",
        "first",
        "func",
        "is_handler",
        "kind",
        "known",
        "loose",
        "member",
        "param",
        "plain",
        "policy",
        "quick",
        "resources",
        "streams",
        "tuple_streams",
        "types",
    )

    def __init__(
        self,
        config: StepConfig,
        types: TypeRegistry,
        *,
        bound: bool,
        known: Mapping[type, str],
        loose: bool,
        streams: bool,
        tuple_streams: bool,
    ) -> None:
        self.config = config
        self.func = cast("Callable[..., Any]", config.func)
        self.types = types
        self.known = known  # the types that the workflow declares; `types` may learn more
        self.bound = bound
        self.loose = loose
        self.param = config.event_params[0].name
        self.kind = config.event_params[0].kind
        self.context_name = config.context_param
        self.resources = config.resources
        self.is_handler = config.is_error_handler
        self.execution: Execution = config.execution
        self.policy = config.retry_policy
        self.streams = streams
        self.tuple_streams = tuple_streams
        # Types that are just emitted, nothing about them having to be looked at; bare ones, too,
        # unless a bare one may be a mistake.
        self.member: dict[type, str] = {
            kind: tag
            for kind, tag in known.items()
            if not loose and not issubclass(kind, WorkflowErrorEvent)
        }
        self.quick: dict[type, str] = {} if streams else self.member
        names = list(inspect.signature(self.func).parameters)
        self.first = names[1:2] == [self.param]
        self.plain = (
            bound
            and config.execution == "async"
            and self.kind == "event"
            and not self.context_name
            and not self.resources
            and not self.is_handler
        )

    @property
    def may_return(self) -> str:
        return "an Event instance"

    def begin(
        self, owner: object, message: Message | tuple[Message, ...], attempt: StepAttempt
    ) -> Coroutine[Any, Any, object]:
        """The user's coroutine, or one that prepares what the function needs around it."""
        if self.plain and type(message) is Message:
            if self.first:
                return self.func(owner, message.payload)
            return self.func(owner, **{self.param: message.payload})
        if self.resources or self.execution != "async":
            return self._around(owner, message, attempt)
        args = self._arguments(message, attempt)
        return self.func(owner, **args) if self.bound else self.func(**args)

    def _arguments(
        self, message: Message | tuple[Message, ...], attempt: StepAttempt
    ) -> dict[str, object]:
        kind = self.kind
        args: dict[str, object]
        if isinstance(message, Message):
            payload = message.payload
            if self.is_handler:
                payload = _failed_event(cast(Failure, payload), self.types)
            args = {self.param: (payload,) if kind == "wrapped" else payload}
        elif kind == "slot":
            params: tuple[EventParam, ...] = self.config.event_params
            args = {p.name: m.payload for p, m in zip(params, message, strict=True)}
        elif kind == "slots":
            args = {self.param: tuple(m.payload for m in message)}
        else:
            args = {self.param: [m.payload for m in message]}
        if self.context_name:
            args[self.context_name] = attempt.context()
        return args

    async def _around(
        self, owner: object, message: Message | tuple[Message, ...], attempt: StepAttempt
    ) -> object:
        args = self._arguments(message, attempt)
        if not self.resources:
            return await self._call(owner, args, attempt)
        async with cast(WorkflowBase, owner).resource_manager.resolution_scope() as scope:
            for resource in self.resources:
                args[resource.name] = await scope.get(resource.descriptor)
            return await self._call(owner, args, attempt)

    async def _call(
        self, owner: object, args: Mapping[str, object], attempt: StepAttempt
    ) -> object:
        func = self.func.__get__(owner) if self.bound else self.func
        if self.execution == "async":
            return await func(**args)
        return await attempt.call_sync(self.execution, func, args)

    def outcome(self, result: object) -> Outcome:
        if result is None:
            return _NOTHING
        kind = type(result)
        tag = self.quick.get(kind)
        if tag is not None:
            return Emit((Message(tag, result),))
        if self.streams:
            if kind is list:
                return self._stream(cast("list[object]", result))
            self._refuse_bare(kind)
        if kind is tuple and self.config.tuple_return:
            results = cast("tuple[object, ...]", result)
            messages = tuple(self._message(m) for m in results if m is not None)
            return Emit(messages, stream=self.tuple_streams)
        message = self._message(result)
        if isinstance(result, StopEvent):
            return Complete(message)
        return Emit((message,))

    def _stream(self, members: list[object]) -> Outcome:
        tags = self.member
        if tags.keys() >= set(map(type, members)):
            return Emit(tuple([Message(tags[type(m)], m) for m in members]), stream=True)
        for member in members:
            if type(member) not in self.known and not isinstance(member, Event):
                raise WorkflowRuntimeError(
                    f"Step function {self.config.name} returned a list containing "
                    f"{type(member).__name__} instead of an Event instance."
                )
        return Emit(tuple([self._message(member) for member in members]), stream=True)

    def _refuse_bare(self, kind: type) -> None:
        """A member of the declared list, alone, is most likely a forgotten pair of brackets."""
        config = self.config
        alone = (*config.bare_returns, *config.tuple_returns)
        if kind in config.list_returns and kind not in alone:
            raise WorkflowRuntimeError(
                f"Step function {config.name} returned a bare {kind.__name__} but its return "
                "annotation only declares it inside a list. Return a one-element list to fan out, "
                "or add the bare type to the annotation."
            )

    def _message(self, result: object) -> Message:
        if isinstance(result, WorkflowErrorEvent):
            raise result.exception
        kind = type(result)
        tag = self.known.get(kind)
        undeclared = tag is None
        if tag is None:
            if not isinstance(result, Event):
                raise WorkflowRuntimeError(
                    f"Step function {self.config.name} returned {kind.__name__} instead of an "
                    "Event instance."
                )
            tag = self.types.add(kind)
        if self.loose or undeclared:
            bases = tuple(self.known[b] for b in kind.__mro__[1:] if b in self.known)
            return Message(tag, result, None, bases)
        return Message(tag, result)

    def retry_after(
        self, error: Exception, attempts: int, elapsed: float, seed: int
    ) -> float | None:
        policy = self.policy
        return None if policy is None else next_delay(policy, elapsed, attempts, error, seed)


def _failed_event(failure: Failure, types: TypeRegistry) -> StepFailedEvent:
    """What an error handler receives."""
    given = failure.input
    # Not validated: the tuple style sends other things than events.
    if isinstance(given, Message):
        event = given.payload
    else:
        event = CollectionReleaseEvent.model_construct(
            events=[m.payload for m in given], stream_id="", binding_id=failure.step
        )
    return StepFailedEvent.model_construct(
        step_name=failure.step,
        input_event=event,
        exception=types.exception(failure.error),
        attempts=failure.attempts,
        elapsed_seconds=failure.elapsed,
        failed_at=datetime.fromtimestamp(failure.failed_at, UTC),
    )


# --- values as JSON ------------------------------------------------------------------------------


class _Values:
    """Writes payloads so that they can be read back: models among the dynamic values of an event
    carry the name of their class, which is looked up among the workflow's types."""

    __slots__ = ("serializer",)

    def __init__(self, serializer: JsonSerializer) -> None:
        self.serializer = serializer

    def dump(self, value: object) -> object:
        if isinstance(value, DictLikeModel):
            extra = value.__pydantic_extra__
            if not extra:
                return value
            plain = value.model_dump(mode="json", exclude=set(extra))
            for key, item in extra.items():
                plain[key] = self.serializer.serialize_value(item)
            return plain
        return value

    def dump_free(self, value: object) -> object:
        return self.serializer.serialize_value(value)

    def load(self, kind: type, data: Json) -> object:
        with self.serializer.validation_context() as context:
            if kind is object:
                return self.serializer.deserialize_value(data)
            if issubclass(kind, DictLikeModel) and isinstance(data, dict):
                rows: dict[str, Any] = dict(cast("dict[str, Any]", data))
                for key in rows.keys() - kind.model_fields.keys():
                    rows[key] = self.serializer.deserialize_value(rows[key])
                return kind.model_validate(rows, context=context)
            return adapter(cast("type[object]", kind)).validate_python(data, context=context)


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
