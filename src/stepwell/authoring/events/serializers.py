"""Serializers: values of events and states as text, and back.

The theory: most values are JSON already; a pydantic model is written as its JSON with the name
of its class beside it. On the way back the name is looked up among the classes this serializer
was given (`allowed_types`, `with_types`) and the events of stepwell itself. **Nothing is ever
imported by name**: whoever can write into a store or send a request can choose a name, and must
not be able to choose code with it.

`PickleSerializer` is the one exception, for contexts that were saved with it elsewhere. It runs
code from the data it reads. It must be asked for by name, it warns, and no part of stepwell
ever makes one.

This module refuses to know where texts are kept, and which workflow they belong to.
"""

from __future__ import annotations

import base64
import json
import pickle  # noqa: TID251 - for PickleSerializer alone, see there
import warnings
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from pydantic import BaseModel

from stepwell.authoring.events.model import framework_types
from stepwell.authoring.events.naming import known_types, qualified_name
from stepwell.errors import UnknownType, UnserializableValue

_MODEL = "__is_pydantic"
_COMPONENT = "__is_component"


class BaseSerializer(ABC):
    """What a serializer must do: text from a value, and the value from the text."""

    @abstractmethod
    def serialize(self, value: Any) -> str:
        """Write a value.

        Raises:
            ValueError: it cannot be written.
        """

    @abstractmethod
    def deserialize(self, value: str) -> Any:
        """Read what `serialize` wrote.

        Raises:
            ValueError: it cannot be read.
        """

    @contextmanager
    def validation_context(self) -> Generator[dict[str, Any]]:
        """Make the classes this serializer knows known to what pydantic reads in the block.

        Yields:
            The same as a validation context, for `Model.model_validate(data, context=...)`.
        """
        with known_types() as context:
            yield context


class JsonSerializer(BaseSerializer):
    """JSON, with the class name beside each pydantic model.

    Args:
        allowed_types: classes of models, events and exceptions that data may name. Stepwell's
            own events are always allowed.

    Raises:
        TypeError: `allowed_types` holds something that is not a class.

    Example:
        >>> class Page(BaseModel):
        ...     number: int
        >>> serializer = JsonSerializer(allowed_types=[Page])
        >>> serializer.deserialize(serializer.serialize({"pages": [Page(number=3)]}))
        {'pages': [Page(number=3)]}
    """

    def __init__(self, *, allowed_types: Iterable[type[Any]] | None = None) -> None:
        self._types: dict[str, type[Any]] = {}
        self._exceptions: dict[str, type[Exception]] = {}
        for cls in cast("Iterable[object]", allowed_types or ()):
            if not isinstance(cls, type):
                raise TypeError(f"allowed_types takes classes, not {cls!r}.")
            table = self._exceptions if issubclass(cls, Exception) else self._types
            cast("dict[str, type[Any]]", table)[qualified_name(cast("type[object]", cls))] = cls

    @property
    def allowed(self) -> tuple[type[Any], ...]:
        """The classes that data may name, exceptions among them."""
        return (*self._types.values(), *self._exceptions.values())

    def with_types(self, *classes: type[Any]) -> JsonSerializer:
        """Return a serializer that allows these classes too.

        Example:
            >>> class Page(BaseModel):
            ...     number: int
            >>> JsonSerializer().with_types(Page).resolve_class(qualified_name(Page)) is Page
            True
        """
        return JsonSerializer(allowed_types=(*self.allowed, *classes))

    def resolve_class(self, qualified_name: str) -> type[Any]:
        """Return the allowed class of this name.

        Raises:
            UnknownType: (a ValueError) no allowed class has it.
        """
        found = self._types.get(qualified_name) or framework_types().get(qualified_name)
        if found is None:
            raise UnknownType(
                qualified_name,
                sorted(self._types),
                message=(
                    f"Class {qualified_name} is not in the serializer's allowed types. Pass "
                    f"JsonSerializer(allowed_types=[{qualified_name}]) on the workflow or server "
                    "to allow it."
                ),
            )
        return found

    @contextmanager
    def validation_context(self) -> Generator[dict[str, Any]]:
        """Make the allowed types known to what pydantic reads in the block.

        Yields:
            The same as a validation context, for `Model.model_validate(data, context=...)`.
        """
        with known_types(self._types, self._exceptions) as context:
            yield context

    def serialize(self, value: Any) -> str:
        """Write a value as JSON text.

        Raises:
            UnserializableValue: (a ValueError) part of it is neither JSON nor a pydantic model;
                the error says which part.
        """
        return json.dumps(self.serialize_value(value))

    def deserialize(self, value: str) -> Any:
        """Read JSON text.

        Raises:
            UnknownType: (a ValueError) it names a class that is not allowed.
            ValueError: it is not JSON, or does not fit the class it names.
        """
        return self.deserialize_value(json.loads(value))

    def serialize_value(self, value: Any) -> Any:
        """Return the JSON form of a value, as plain Python data.

        Raises:
            UnserializableValue: as `serialize`.
        """
        return _encode(value, ())

    def deserialize_value(self, data: Any) -> Any:
        """Return the value of a JSON form.

        Raises:
            ValueError: as `deserialize`.
        """
        if not isinstance(data, (dict, list)):
            return data
        with self.validation_context():
            return self._decode(data)

    def _decode(self, data: Any) -> Any:
        if isinstance(data, dict):
            fields = cast("dict[str, Any]", data)
            name = fields.get("qualified_name")
            if isinstance(name, str) and "value" in fields:
                if fields.get(_MODEL):
                    return self._decode_model(name, fields["value"])
                if fields.get(_COMPONENT):
                    return self.resolve_class(name).from_dict(fields["value"])
            return {key: self._decode(item) for key, item in fields.items()}
        if isinstance(data, list):
            return [self._decode(item) for item in cast("list[Any]", data)]
        return data

    def _decode_model(self, name: str, value: Any) -> BaseModel:
        cls = self.resolve_class(name)
        if not issubclass(cls, BaseModel):
            raise ValueError(f"Class {name} is not a pydantic model.")
        context = {"types": self._types, "exceptions": self._exceptions}
        return cls.model_validate(value, context=context)


def _encode(value: Any, path: tuple[str, ...]) -> Any:
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, BaseModel):
        return _encode_model(value, path)
    if isinstance(value, Mapping):
        pairs = cast("Mapping[Any, Any]", value).items()
        return {(k := _key(key, path)): _encode(item, (*path, k)) for key, item in pairs}
    if isinstance(value, (list, tuple)):
        items = cast("Sequence[Any]", value)
        return [_encode(item, (*path, str(i))) for i, item in enumerate(items)]
    raise _refused(value, path, repr(value))


def _encode_model(value: BaseModel, path: tuple[str, ...]) -> dict[str, Any]:
    cls = type(value)
    name = qualified_name(cls)
    component: Any = value
    if all(callable(getattr(cls, n, None)) for n in ("class_name", "to_dict", "from_dict")):
        return {_COMPONENT: True, "value": component.to_dict(), "qualified_name": name}
    try:
        written = value.model_dump(mode="json")
    except ValueError as error:  # pydantic's own, which names the field's type
        raise _refused(value, path, str(error)) from error
    return {_MODEL: True, "value": written, "qualified_name": name}


def _key(key: object, path: tuple[str, ...]) -> str:
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, (bool, int, float)):
        return json.dumps(key)  # as JSON would write it
    raise _refused(key, path, repr(key))


def _refused(value: object, path: tuple[str, ...], detail: str) -> UnserializableValue:
    where = f" (at {'.'.join(path)!r})" if path else ""
    message = f"Failed to serialize value: {type(value)}: {detail}{where}"
    return UnserializableValue(".".join(path), type(value), message=message)


class PickleSerializerWarning(UserWarning):
    """A serializer was made that runs code from the data it reads."""


class PickleSerializer(JsonSerializer):
    """JSON where possible, pickle where not. Reading runs code from the data: trust it fully.

    It exists to read contexts that were saved with it, and warns with `PickleSerializerWarning`
    when made. Stores and servers refuse to use it.

    Args:
        allowed_types: as for `JsonSerializer`; pickled parts are not bound by it.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings(action="ignore"):
        ...     serializer = PickleSerializer()
        >>> serializer.deserialize(serializer.serialize({1, 2}))
        {1, 2}
    """

    def __init__(self, *, allowed_types: Iterable[type[Any]] | None = None) -> None:
        super().__init__(allowed_types=allowed_types)
        warnings.warn(
            "PickleSerializer runs code from the data it reads; use it only to move contexts "
            "that you saved yourself, then go on with JsonSerializer.",
            PickleSerializerWarning,
            stacklevel=2,
        )

    def with_types(self, *classes: type[Any]) -> JsonSerializer:
        """Return a serializer of this kind that allows these classes too."""
        return PickleSerializer(allowed_types=(*self.allowed, *classes))

    def serialize(self, value: Any) -> str:
        """Write a value as JSON, or as base64 of its pickle where JSON has no form for it."""
        try:
            return super().serialize(value)
        except ValueError:
            return base64.b64encode(pickle.dumps(value)).decode("ascii")

    def deserialize(self, value: str) -> Any:
        """Read what `serialize` wrote; JSON is read as JSON and runs nothing."""
        try:
            data = json.loads(value)
        except ValueError:  # a pickle of protocol 2 and later is never JSON when in base64
            return pickle.loads(base64.b64decode(value))  # noqa: S301 - what this class is for
        return self.deserialize_value(data)


JsonPickleSerializer = PickleSerializer
"""The same under its older name."""
