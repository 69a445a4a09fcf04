"""How the values of a pipeline's context are written down: JSON, models, and a few plain types.

The theory: what can be written must be readable by another process, so a class is refused when it
is written, not when it is missed after a crash. Known are the classes that the pipeline names: in
`types`, in the data that runs begin with, in the fields of a model that is its context, and in the
annotations of its steps. Times, dates, decimals, ids and sets travel as models of one value.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

from pydantic import BaseModel, RootModel

from stepwell.authoring.events.serializers import JsonSerializer
from stepwell.errors import UnserializableValue


class DatetimeValue(RootModel[datetime]):
    """A datetime."""


class DateValue(RootModel[date]):
    """A date."""


class TimeValue(RootModel[time]):
    """A time of day."""


class DurationValue(RootModel[timedelta]):
    """A timedelta."""


class DecimalValue(RootModel[Decimal]):
    """A decimal."""


class UuidValue(RootModel[UUID]):
    """A UUID."""


class SetValue(RootModel[set[Any]]):
    """A set of plain values."""


_PLAIN: Mapping[type, type[RootModel[Any]]] = {
    datetime: DatetimeValue,
    date: DateValue,
    time: TimeValue,
    timedelta: DurationValue,
    Decimal: DecimalValue,
    UUID: UuidValue,
    set: SetValue,
}
_WRAPPERS = tuple(_PLAIN.values())


class PipelineSerializer(JsonSerializer):
    """Writes the values of a pipeline.

    Args:
        types: the models that values may be.

    Example:
        >>> serializer = PipelineSerializer()
        >>> data = serializer.serialize_value({"paid": Decimal("1.50")})
        >>> serializer.deserialize_value(data)
        {'paid': Decimal('1.50')}
    """

    def __init__(self, types: Iterable[type[Any]] = ()) -> None:
        super().__init__(allowed_types=(*types, *_WRAPPERS))

    def serialize_value(self, value: Any) -> Any:
        """See `JsonSerializer.serialize_value`; models must be of a class that is known."""
        return super().serialize_value(self._wrapped(value, ()))

    def deserialize_value(self, data: Any) -> Any:
        """See `JsonSerializer.deserialize_value`."""
        return _unwrapped(super().deserialize_value(data))

    def with_types(self, *classes: type[Any]) -> JsonSerializer:
        """A serializer that knows these, too."""
        return PipelineSerializer((*self.allowed, *classes))

    def _wrapped(self, value: Any, path: tuple[str, ...]) -> Any:
        kind = cast("type[Any]", type(value))
        wrapper = _PLAIN.get(kind)
        if wrapper is not None:
            return wrapper(value)
        if isinstance(value, BaseModel):
            if kind not in self.allowed:
                raise UnserializableValue(
                    ".".join(path),
                    f"{kind.__module__}.{kind.__qualname__}",
                    message=f"The value at {'.'.join(path)!r} is a {kind.__qualname__}, which the "
                    "pipeline does not know: add it to Pipeline(types=[...])",
                )
        elif isinstance(value, Mapping):
            pairs = cast("Mapping[Any, Any]", value).items()
            return {k: self._wrapped(v, (*path, str(k))) for k, v in pairs}
        elif isinstance(value, list | tuple):
            items = cast("Iterable[Any]", value)
            return [self._wrapped(v, (*path, str(i))) for i, v in enumerate(items)]
        return value


def _unwrapped(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _unwrapped(v) for k, v in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_unwrapped(v) for v in cast("list[Any]", value)]
    return cast("RootModel[Any]", value).root if isinstance(value, _WRAPPERS) else value


def models_in(values: Iterable[Any]) -> set[type[BaseModel]]:
    """The classes of the models among values, and in the containers among them."""
    found: set[type[BaseModel]] = set()
    for value in values:
        if isinstance(value, BaseModel):
            found.add(type(value))
        elif isinstance(value, Mapping):
            found |= models_in(cast("Mapping[Any, Any]", value).values())
        elif isinstance(value, list | tuple):
            found |= models_in(cast("Iterable[Any]", value))
    return found


def models_named(annotations: Iterable[Any]) -> set[type[BaseModel]]:
    """The models that annotations name, also as parts of others."""
    found: set[type[BaseModel]] = set()
    for one in annotations:
        if isinstance(one, type) and issubclass(one, BaseModel):
            found.add(one)
        found |= models_named(typing.get_args(one))
    return found


def hints_of(func: Callable[..., Any]) -> list[Any]:
    """The annotations of a function, if they can be told."""
    inner = func if hasattr(func, "__annotations__") else getattr(func, "__call__", func)  # noqa: B004
    try:
        return list(typing.get_type_hints(inner).values())
    except (NameError, TypeError, AttributeError):  # of names that exist for type checkers only
        return []
