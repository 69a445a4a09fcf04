"""Events: the typed messages between steps, and how they are written and read.

The theory: an event is a value, made once, routed by its class, and written as JSON. Its
declared fields and dynamic values are `DictLikeModel`'s business; this module says which kinds
of event there are, and how the three things that JSON cannot name are written inside of an
event: another event, an event class, an exception.

Names of classes in data follow the rule of `naming`: they are looked up among the types that
the reader was given, and an unknown one is an error. The events of this module are always known.

This module refuses to know what steps are, when an event is emitted, and who listens.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias, cast

from pydantic import PlainSerializer, PlainValidator, ValidationInfo
from pydantic_core import PydanticCustomError

from stepwell import errors
from stepwell.authoring.events.dictlike import DictLikeModel, GivesWay
from stepwell.authoring.events.naming import (
    dump_exception,
    load_exception,
    names_of,
    qualified_name,
)

_NOT_GIVEN: Any = object()

# --- the kinds of event ------------------------------------------------------------------------


class Event(DictLikeModel):
    """A message between steps: declare fields on a subclass, or pass anything by keyword.

    Args:
        data: declared fields, and any other values (dynamic; see `DictLikeModel`).

    Raises:
        pydantic.ValidationError: a declared field is missing or has a wrong value.

    Example:
        >>> class Found(Event):
        ...     page: int
        >>> found = Found(page=3, source="cache")
        >>> found.page, found.source, found.get("nothing", "default")
        (3, 'cache', 'default')
    """

    if TYPE_CHECKING:

        def __init__(self, /, **data: Any) -> None: ...


class StartEvent(Event):
    """The event a run begins with; `run(topic="x")` makes one with `topic="x"`."""

    if TYPE_CHECKING:

        def __init__(self, /, **data: Any) -> None: ...


class StopEvent(Event):
    """The event a run ends with.

    Args:
        result: what awaiting the run returns, when the event is a plain `StopEvent`. A
            subclass is returned whole.
        data: declared fields of a subclass, and any other values.

    Example:
        >>> StopEvent(result={"a": 1})
        StopEvent(result={'a': 1})
        >>> StopEvent().model_dump()
        {}
    """

    beside_data: ClassVar[frozenset[str]] = frozenset({"result"})

    def __init__(self, /, result: Any = _NOT_GIVEN, **data: Any) -> None:
        if result is not _NOT_GIVEN:
            data["result"] = result
        self.__pydantic_validator__.validate_python(data, self_instance=self)
        extra = self.__pydantic_extra__
        if extra and (len(extra) != 1 or extra.get("result") is None):
            self._settle()

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    def _settle(self) -> None:
        super()._settle()
        extra = self.__pydantic_extra__
        if extra and extra.get("result") is None:
            extra.pop("result", None)  # no result is written as nothing

    @GivesWay
    def result(self) -> Any:
        """What the run returns; a subclass may compute it in `_get_result()`."""
        return self._get_result()

    def _get_result(self) -> Any:
        extra = self.__pydantic_extra__
        return extra.get("result") if extra else None

    def __str__(self) -> str:
        return str(self.result)


class InputRequiredEvent(Event):
    """A question to the outside; a step that returns it, or waits with it, asks."""

    if TYPE_CHECKING:

        def __init__(self, /, **data: Any) -> None: ...


class HumanResponseEvent(Event):
    """An answer from the outside."""

    if TYPE_CHECKING:

        def __init__(self, /, **data: Any) -> None: ...


class WorkflowCancelledEvent(StopEvent):
    """Ends the stream of a run that was cancelled."""


class IdleReleasedEvent(StopEvent):
    """Ends the stream of a run that was put aside while it waits."""


class InternalDispatchEvent(Event):
    """Base of the events about the engine itself; streamed only with `expose_internal=True`."""


class WorkflowIdleEvent(InternalDispatchEvent):
    """The run has nothing to do until something arrives from outside."""


class UnhandledEvent(InternalDispatchEvent):
    """An event arrived from outside and nobody accepts it.

    Attributes:
        event_type: class name of the event.
        qualified_name: the same with its module.
        step_name: the step it was addressed to, if any.
        idle: whether the run had nothing else to do.
    """

    event_type: str
    qualified_name: str
    step_name: str | None = None
    idle: bool


class StepState(Enum):
    """Where a step stands with one input event."""

    PREPARING = "preparing"
    RUNNING = "running"
    NOT_RUNNING = "not_running"


class StepStateChanged(InternalDispatchEvent):
    """A step began, ended, or could not begin yet.

    Attributes:
        name: name of the step.
        step_state: the new state.
        worker_id: which of its workers, or `<enqueued>` while none is free.
        input_event_name: what it works on.
        output_event_name: what it returned.
    """

    name: str
    step_state: StepState
    worker_id: str
    input_event_name: str
    output_event_name: str | None = None


# --- what JSON cannot name -----------------------------------------------------------------------

EventType: TypeAlias = type[Event]
"""Any event class."""


def _find_event_class(name: str, info: ValidationInfo) -> type[Event]:
    listed: set[str] = set()
    for names in (*names_of("types", info.context), _FRAMEWORK):
        found = names.get(name)
        if found is not None and issubclass(found, Event):
            return found
        if names is not _FRAMEWORK:
            listed.update(names)
    raise errors.UnknownType(name, sorted(listed))


def _dump_event(event: Event | None) -> Any:
    if event is None:
        return None
    return {
        "__is_pydantic": True,
        "value": event,  # pydantic goes on from here, in its own mode
        "qualified_name": qualified_name(type(event)),
    }


def _load_event(value: Any, info: ValidationInfo) -> Event:
    if isinstance(value, Event):
        return value
    if isinstance(value, Mapping):
        written = cast("Mapping[str, Any]", value)
        name = written.get("qualified_name")
        if isinstance(name, str) and "value" in written:
            cls = _find_event_class(name, info)
            return cls.model_validate(written["value"], context=info.context)
    raise PydanticCustomError("event_type", "Input should be an event or a written event")


def _load_optional_event(value: Any, info: ValidationInfo) -> Event | None:
    return None if value is None else _load_event(value, info)


def _dump_event_class(cls: type[Event]) -> str:
    return qualified_name(cls)


def _load_event_class(value: Any, info: ValidationInfo) -> type[Event]:
    if isinstance(value, type) and issubclass(value, Event):
        return value
    if isinstance(value, str):
        return _find_event_class(value, info)
    raise PydanticCustomError("event_class", "Input should be an event class or its name")


# The validator comes first: it stands for the type, which pydantic by itself may not know.
SerializableEvent = Annotated[
    Event,
    PlainValidator(_load_event, json_schema_input_type=Any),
    PlainSerializer(_dump_event, return_type=Any),
]
"""Field type: an event of any class, kept whole."""

SerializableOptionalEvent = Annotated[
    Event | None,
    PlainValidator(_load_optional_event, json_schema_input_type=Any),
    PlainSerializer(_dump_event, return_type=Any),
]
"""Field type: an event of any class, or None."""

SerializableEventType = Annotated[
    type[Event],
    PlainValidator(_load_event_class, json_schema_input_type=Any),
    PlainSerializer(_dump_event_class, return_type=str),
]
"""Field type: an event class, written as its name."""


def _load_exception_field(value: Any, info: ValidationInfo) -> Exception:
    if isinstance(value, Exception):
        return value
    if isinstance(value, Mapping) and "exception_type" in value:
        known: dict[str, type[Exception]] = {}
        for names in names_of("exceptions", info.context):
            known = {**names, **known}
        return load_exception(cast("Mapping[str, Any]", value), known)
    raise PydanticCustomError("exception", "Input should be an exception or a written exception")


SerializableException = Annotated[
    Exception,
    PlainValidator(_load_exception_field, json_schema_input_type=Any),
    PlainSerializer(dump_exception, return_type=Any),
]
"""Field type: an exception, written as the name of its class and its message."""


# --- events about failures ---------------------------------------------------------------------


class WorkflowTimedOutEvent(StopEvent):
    """Ends the stream of a run that took too long.

    Attributes:
        timeout: the time it had, in seconds.
        active_steps: names of the steps that were running.
    """

    timeout: float
    active_steps: list[str]


class WorkflowFailedEvent(StopEvent):
    """Ends the stream of a run that failed.

    Attributes:
        step_name: the step whose error ended the run.
        exception: the error.
        attempts: how often the step was tried.
        elapsed_seconds: from its first attempt to the end.
    """

    step_name: str
    exception: SerializableException
    attempts: int | None = None
    elapsed_seconds: float | None = None


class StepFailedEvent(Event):
    """What a `@catch_error` handler receives when a step has used up its attempts.

    Attributes:
        step_name: the step that failed.
        input_event: what it worked on.
        exception: its last error.
        attempts: how often it was tried.
        elapsed_seconds: from the first attempt to the last failure.
        failed_at: time of the last failure, in UTC.
    """

    step_name: str
    input_event: SerializableEvent
    exception: SerializableException
    attempts: int
    elapsed_seconds: float
    failed_at: datetime


class CollectionReleaseEvent(Event):
    """What a collecting step works on; seen as `StepFailedEvent.input_event` when it fails.

    Attributes:
        events: the collected events.
        stream_id: the stream they came in.
        binding_id: the parameter that collects them.
    """

    events: list[SerializableEvent]
    stream_id: str = ""
    binding_id: str = ""


def _load_error(value: Any, info: ValidationInfo) -> Exception | str:
    return value if isinstance(value, str) else _load_exception_field(value, info)


def _dump_error(error: Exception | str) -> Any:
    return error if isinstance(error, str) else dump_exception(error)


class WorkflowErrorEvent(Event):
    """Returned by a step instead of raising: this attempt failed with that error.

    The retry policy of the step applies, then its error handler; then the run fails.

    Args:
        error: the exception, or a message.
        data: any other values.

    Example:
        >>> WorkflowErrorEvent("no such page").exception
        WorkflowRuntimeError('no such page')
    """

    error: Annotated[
        Exception | str,
        PlainValidator(_load_error, json_schema_input_type=Any),
        PlainSerializer(_dump_error, return_type=Any),
    ] = "The step failed."

    if TYPE_CHECKING:

        def __init__(self, error: Exception | str = "The step failed.", **data: Any) -> None: ...

    else:

        def __init__(self, /, *error, **data):
            if len(error) > 1:
                raise TypeError(f"WorkflowErrorEvent takes one error, but {len(error)} were given.")
            if error:
                data["error"] = error[0]
            super().__init__(**data)

        __init__.__pydantic_base_init__ = True

    @property
    def exception(self) -> Exception:
        """The error as an exception; a message becomes a `WorkflowRuntimeError`."""
        if isinstance(self.error, str):
            return errors.WorkflowRuntimeError(self.error)
        return self.error


_FRAMEWORK: dict[str, type[DictLikeModel]] = {
    f"{module}.{cls.__name__}": cls
    for cls in list(globals().values())
    if isinstance(cls, type) and issubclass(cls, DictLikeModel)
    for module in ("stepwell.events", "workflows.events")
}


def framework_types() -> Mapping[str, type[DictLikeModel]]:
    """Return the events that are always known, by name.

    The names that the `workflows` package gave them are understood too, so that contexts
    saved there can be read.
    """
    return _FRAMEWORK
