"""A program: a definition together with the handlers that do its steps and the types it knows.

Every authoring style compiles to one of these, and the runtime sees nothing else of a workflow.
A `Handler` turns a message into a running body and what the body returned into an outcome; the
`TypeRegistry` turns payloads into JSON and back. Decoding is closed: a type is found by its tag in
the registry, which holds what the workflow itself declares, and nothing is ever imported by name.
"""

from __future__ import annotations

import builtins
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from stepwell.authoring.events.serializers import BaseSerializer, JsonSerializer
from stepwell.errors import (
    InvalidArgument,
    RestoredError,
    UnserializableValue,
    ValueTooLarge,
    WorkflowNotRegistered,
    rebuilt,
)
from stepwell.kernel.definition import Definition
from stepwell.kernel.outcomes import Message, Outcome
from stepwell.values import ErrorInfo, Json, RunStatus

Execution: TypeAlias = Literal["async", "thread", "process"]

MAX_PAYLOAD = 16 * 1024 * 1024
"""Bytes of JSON that one payload may have; more fails the step."""


FREE = "memo"
"""The tag of values that have no declared type."""


class StepAttempt(Protocol):
    """What a handler may ask of the attempt that it starts."""

    def context(self) -> object:
        """The object that the step's `Context` parameter receives."""
        ...

    def call_sync(
        self, execution: Execution, func: Callable[..., object], kwargs: Mapping[str, object]
    ) -> Awaitable[object]:
        """Run a plain function off the event loop: in a thread or in another process."""
        ...


class Handler(Protocol):
    """Does one step. The same handler serves all runs; `owner` is the workflow's instance."""

    @property
    def may_return(self) -> str:
        """What the step may return, in words, for error texts."""
        ...

    def begin(
        self, owner: object, message: Message | tuple[Message, ...], attempt: StepAttempt
    ) -> Coroutine[Any, Any, object]:
        """The body, ready to run with this input."""
        ...

    def outcome(self, result: object) -> Outcome:
        """What the body's return value means. Raises the exception that the attempt is to fail
        with when it means a failure or nothing at all."""
        ...

    def retry_after(
        self, error: Exception, attempts: int, elapsed: float, seed: int
    ) -> float | None:
        """Seconds until the next attempt, None to give up."""
        ...


class Undecoded(dict[str, Any]):
    """JSON of a type that the registry does not know (yet): the code that waits for it does."""

    __slots__ = ("raw", "tag")

    def __init__(self, tag: str, data: Mapping[str, Any]) -> None:
        super().__init__(data)
        self.raw = data
        extra = self.get("_data")
        if isinstance(extra, dict):
            self.update(cast("dict[str, Any]", extra))
        self.tag = tag


_NOT_JSON = (PydanticSerializationError, ValueError, RecursionError)


def _refuse(value: object) -> object:
    raise UnserializableValue("", _type_name(type(value)))


def _type_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


class TypeRegistry:
    """The types whose payloads a workflow may hold, by tag.

    A tag is the class's name; of two classes with one name the second gets its qualified name.
    Classes that are only met while running are given a tag too (so their payloads can be written),
    and can be read back once the running code has named them again.
    """

    def __init__(
        self,
        types: Iterable[type],
        dump: Callable[[object], object] | None = None,
        dump_free: Callable[[object], object] | None = None,
        load: Callable[[type, Json], object] | None = None,
        exceptions: Iterable[type[BaseException]] = (),
    ) -> None:
        self.tags: dict[type, str] = {}
        self.classes: dict[str, type] = {}
        self._dump = dump
        self._dump_free = dump_free
        self._load = load or _load_by_adapter
        self._exceptions = {_type_name(kind): kind for kind in exceptions}
        self.classes[FREE] = object
        for kind in types:
            self.add(kind)

    def add(self, kind: type) -> str:
        """Make `kind` known; returns its tag."""
        tag = self.tags.get(kind)
        if tag is None:
            tag = kind.__name__
            if tag in self.classes:
                tag = _type_name(kind)
            self.tags[kind] = tag
            self.classes[tag] = kind
        return tag

    def dumps(
        self, value: object, *, where: str = "", free: bool = False, limit: int = MAX_PAYLOAD
    ) -> str:
        """`value` as JSON text; `free` for a value without a declared type. Raises
        `UnserializableValue` or `ValueTooLarge`, naming the path of what can't be written (`where`
        is where the path starts)."""
        dump = self._dump_free if free else self._dump
        try:
            plain = dump(value) if dump is not None else value
            text = to_json(plain, fallback=_refuse, inf_nan_mode="strings")
        except (
            UnserializableValue,
            PydanticSerializationError,
            ValueError,
            RecursionError,
        ) as error:
            path, kind = _find_bad(value, where)
            if path in (where, "value") and isinstance(error, UnserializableValue):
                # A serializer refuses more than JSON does (sets, dates), and says where.
                path, kind = _refused_at(value, where, error.path), error.type
            raise UnserializableValue(path, kind) from error
        if len(text) > limit:
            raise ValueTooLarge(_find_big(value, where), len(text), limit)
        return text.decode()

    def load(self, tag: str, data: Json) -> object:
        """The payload that was written with this tag; `Undecoded` when the tag is not known."""
        kind = self.classes.get(tag)
        if kind is None:
            return Undecoded(tag, data) if isinstance(data, dict) else data
        return self._load(kind, data)

    def exception(self, info: ErrorInfo) -> BaseException:
        """The live exception of `info`, or the best likeness that its data allows: builtin and
        declared exceptions, and this library's own, as themselves, all others as
        `RestoredError`. A note says where the first one was raised."""
        if info.live is not None:
            return info.live
        likeness = self._likeness(info)
        if info.where is not None:
            likeness.add_note(f"It was raised at {info.where}.")
        return likeness

    def _likeness(self, info: ErrorInfo) -> BaseException:
        own = rebuilt(info.type, info.message)
        if own is not None:
            return own
        kind = self._exceptions.get(info.type) or _KNOWN.get(info.type)
        if kind is not None:
            try:
                restored = kind(info.message)
            except TypeError:
                return RestoredError(info.type, info.message)
            if str(restored) == info.message or kind is KeyError:
                return restored
        return RestoredError(info.type, info.message)


def _builtin_exceptions() -> dict[str, type[BaseException]]:
    return {
        f"builtins.{name}": kind
        for name, kind in vars(builtins).items()
        if isinstance(kind, type) and issubclass(kind, Exception)
    }


_KNOWN: dict[str, type[BaseException]] = _builtin_exceptions()


_adapters: dict[type, TypeAdapter[Any]] = {}


def adapter(kind: type) -> TypeAdapter[Any]:
    """A cached pydantic adapter for `kind`."""
    found = _adapters.get(kind)
    if found is None:
        found = _adapters[kind] = TypeAdapter(kind)
    return found


def _load_by_adapter(kind: type, data: Json) -> object:
    try:
        return adapter(kind).validate_json(json.dumps(data))
    except ValidationError as error:
        raise ValueError(f"stored data does not fit {kind.__name__}: {error}") from error


def _find_bad(value: object, path: str) -> tuple[str, str]:
    """The path and type of the first part of `value` that can't be written."""
    for name, part in _parts(value):
        deeper = f"{path}.{name}" if path else name
        try:
            to_json(part, fallback=_refuse, inf_nan_mode="strings")
        except _NOT_JSON:
            if part is value:
                break
            return _find_bad(part, deeper)
    return path or "value", _type_name(type(value))


def _refused_at(value: object, where: str, inner: str) -> str:
    """Where a serializer refused a part of `value`; a lone field may have been written bare, as
    the result of a stop event is."""
    names = [name for name, _ in _parts(value)]
    bare = len(names) == 1 and inner.partition(".")[0] != names[0]
    return ".".join(part for part in (where, names[0] if bare else "", inner) if part) or "value"


def _find_big(value: object, path: str) -> str:
    """The path of the biggest field of `value`."""
    sizes = [
        (len(to_json(part, fallback=str, inf_nan_mode="strings")), name)
        for name, part in _parts(value)
    ]
    if not sizes:
        return path or "value"
    name = max(sizes)[1]
    return f"{path}.{name}" if path else name


def _parts(value: object) -> list[tuple[str, object]]:
    if isinstance(value, Mapping):
        return [(str(k), v) for k, v in cast("Mapping[object, object]", value).items()]
    if isinstance(value, list | tuple | set | frozenset):
        return [(str(i), v) for i, v in enumerate(cast("Iterable[object]", value))]
    parts: dict[str, object] = {}
    for source in (getattr(value, "__dict__", None), getattr(value, "__pydantic_extra__", None)):
        if isinstance(source, dict):
            parts.update(cast("dict[str, object]", source))
    dynamic = parts.pop("_data", None)  # the values of an event that no field declares
    if isinstance(dynamic, Mapping):
        parts.update(cast("Mapping[str, object]", dynamic))
    return [(k, v) for k, v in parts.items() if not k.startswith("__")]


class Schedules(Protocol):
    """The times at which runs of a program start by themselves."""

    def describe(self) -> dict[str, Json]:
        """When it fires, in words for people (`cron`, `timezone`); the same for the same times."""
        ...

    def next(self, after: float) -> float:
        """The first time after `after` (seconds since the epoch) at which it fires."""
        ...

    def planned(self, at: float, plan: Mapping[str, Json]) -> Message:
        """The message that plans a run for `at`; `plan` is kept in the run's state as "plan"."""
        ...


def with_fields(_tag: str, data: Json, fields: Mapping[str, Json]) -> Json:
    """An event's data with other fields. Raises `InvalidArgument` when it can have none."""
    if not isinstance(data, Mapping):
        raise no_fields()
    return {**data, **fields}


def no_fields() -> InvalidArgument:
    """What a copy goes on with is no event: there is nothing to replace."""
    return InvalidArgument(
        "the copy goes on with no event whose fields could be replaced",
        hint="Fork the run from its start: leave out the step and the row.",
    )


@dataclass(slots=True)
class Program:
    """A workflow that can be run.

    Args:
        definition: what it is, as data.
        handlers: by step name.
        types: the payload types it knows.
        start: makes the start message from what the caller gave (JSON fields for a run that was
            started by name from outside).
        result: what a caller gets for the message that completed the run.
        final: the last item of the run's stream, made of how the run ended; None: there is none.
        failure: the exception a caller gets for the error that ended the run.
        serializer: writes the values of the run's state.
        state_type: the type of the run's state; None for a free dictionary.
        verbose: say what happens as it happens.
        resident: keep a run in memory for a while when it only waits; without it, one that has no
            live body is let go of at once.
        shows_state: a parent run gets to see the state that its child ended with.
        variant: for a program that stands for many, each run having its own: the one of the run
            that begins with this message, and its owner.
        admit: looks at a message from outside, and at the run's state, before the run takes it in;
            raises ValueError, saying why, for one that the run could not go on with.
        edit: puts other fields into a message, by its tag, that a copy of a run goes on with, as
            JSON; raises ValueError for what the message can't take.
        schedule: when runs of it start by themselves; None: never.
        source: what it was compiled from, for those who describe it: a state machine, a pipeline.
    """

    definition: Definition
    handlers: Mapping[str, Handler]
    types: TypeRegistry
    start: Callable[[Mapping[str, Any]], Message]
    result: Callable[[Message], object]
    final: Callable[[Ending], object | None]
    failure: Callable[[ErrorInfo], BaseException]
    serializer: BaseSerializer
    state_type: type | None = None
    verbose: bool = False
    resident: bool = True
    shows_state: bool = False
    variant: Callable[[Message], tuple[Program, object]] | None = None
    admit: Callable[[Message, Mapping[str, Any]], None] | None = None
    edit: Callable[[str, Json, Mapping[str, Json]], Json] = with_fields
    schedule: Schedules | None = None
    source: object = None

    def value(self, ending: Ending) -> object:
        """What a caller gets of a run that ended so; raises what it failed with."""
        if ending.error is not None:
            raise self.failure(ending.error)
        return None if ending.result is None else self.result(ending.result)


def bare_program(name: str) -> Program:
    """Stands in for a workflow whose code is not loaded: it does nothing, and payloads stay the
    plain data that the journal holds."""
    types = TypeRegistry(())

    def start(_fields: Mapping[str, Any]) -> Message:
        raise WorkflowNotRegistered(name)

    return Program(
        definition=Definition(name, ()),
        handlers={},
        types=types,
        start=start,
        result=lambda message: message.payload,
        final=lambda _ending: None,
        failure=types.exception,
        serializer=JsonSerializer(),
    )


@dataclass(slots=True)
class Ending:
    """How a run ended, with live objects."""

    status: RunStatus
    result: Message | None
    error: ErrorInfo | None
    step: str | None
    attempts: int = 0
    elapsed: float = 0.0
