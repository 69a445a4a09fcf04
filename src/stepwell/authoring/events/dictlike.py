"""A pydantic model that also carries whatever else it was given.

The theory: events and the default state have declared fields, checked by pydantic, and
*dynamic* values, which are everything else. The dynamic values live under the one extra key
`_data` of the model, in the very shape in which they are written as JSON. So writing and
reading a model needs no code of ours (pydantic does both in its core), a model without dynamic
values costs what a plain pydantic model costs, and equality, copies and validation contexts
work as they do for every pydantic model.

Two rules hold everywhere:

- Attributes show both: a declared field first, then a dynamic value.
- The mapping face (`model["x"]`, `in`, `len`, `keys()`, `to_dict()`, ...) shows the dynamic
  values alone.

Names of the mapping face give way to fields: an event may declare a field called `items`.

This module refuses to know what an event is for.
"""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, Self, cast

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

__all__ = ["DictLikeModel", "GivesWay"]

_DATA = "_data"
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_VIA_CLASS = (property, cached_property)


def _drain(values: dict[str, Any]) -> dict[str, Any]:
    drained = dict(values)
    values.clear()
    return drained


class GivesWay(property):
    """A property of instances that a subclass may hide behind a declared field.

    Pydantic warns about, and takes as the default value, whatever a class shows under the name
    of a field. This property does not show itself on the class, and on an instance it lets the
    value of such a field pass.

    Example:
        >>> class Box(DictLikeModel):
        ...     items: list[int]
        >>> Box(items=[1]).items
        [1]
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None, /) -> Any:
        if instance is None:
            raise AttributeError(self._name)
        fields = instance.__dict__
        if self._name in fields:
            return fields[self._name]
        return super().__get__(instance, owner)


class DictLikeModel(BaseModel):
    """Base of models with declared fields and dynamic values.

    Args:
        data: values of declared fields and of private attributes by name; what is neither
            becomes a dynamic value. The key `_data` (as found in dumped models) holds dynamic
            values too.

    Raises:
        pydantic.ValidationError: a declared field is missing or has a wrong value.

    Example:
        >>> class Point(DictLikeModel):
        ...     x: int
        >>> point = Point(x=1, label="home")
        >>> point.label, point["label"], len(point)
        ('home', 'home', 1)
        >>> point.model_dump()
        {'x': 1, '_data': {'label': 'home'}}
        >>> Point.model_validate(point.model_dump()) == point
        True
    """

    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True)

    # Extra keys that a subclass keeps beside `_data`.
    beside_data: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, /, **data: Any) -> None:
        self.__pydantic_validator__.validate_python(data, self_instance=self)
        if self.__pydantic_extra__:
            self._settle()

    # Pydantic then validates dicts into instances directly, and keeps the validation context,
    # which a constructor of ours could not receive.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    def _settle(self) -> None:
        """Move loose extra values to where they belong: private attributes or `_data`."""
        extra = self.__pydantic_extra__
        if extra is None:
            return
        private = type(self).__private_attributes__
        if not private and not self.beside_data and _DATA not in extra:
            extra[_DATA] = _drain(extra)
            return
        found = extra.get(_DATA)
        nested = isinstance(found, dict)
        data = dict(cast("dict[str, Any]", found)) if nested else {}
        for name in [n for n in extra if n not in self.beside_data]:
            value = extra.pop(name)
            if name in private:
                setattr(self, name, value)
            elif name != _DATA or not nested:
                data[name] = value
        if data:
            extra[_DATA] = data

    def _dynamic(self) -> Mapping[str, Any]:
        """The dynamic values, for reading; settles what validation left loose."""
        extra = self.__pydantic_extra__
        if not extra:
            return _NOTHING
        if len(extra) != 1 or _DATA not in extra:
            loose = extra.keys() - self.beside_data
            if loose != {_DATA}:
                self._settle()
        data = extra.get(_DATA, _NOTHING)
        if not isinstance(data, (dict, MappingProxyType)):  # `_data` given as something else
            self._settle()
            data = extra.get(_DATA, _NOTHING)
        return cast("Mapping[str, Any]", data)

    @property
    def _data(self) -> Mapping[str, Any]:
        """A live, read-only view of the dynamic values; write through the model."""
        return MappingProxyType(cast("dict[str, Any]", self._dynamic()))

    # --- attributes ---------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            data = self._dynamic()
            if name in data:
                return data[name]
        parent: Any = super()
        return parent.__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if self._is_dynamic(name):
            self[name] = value
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if self._is_dynamic(name) and name in self._dynamic():
            del self[name]
        else:
            super().__delattr__(name)

    def _is_dynamic(self, name: str) -> bool:
        cls = type(self)
        return not (
            name in cls.__pydantic_fields__
            or name.startswith("__")
            or name in cls.__private_attributes__
            or name in cls.__class_vars__
            or name in cls.beside_data
            or isinstance(getattr(cls, name, None), _VIA_CLASS)
            # What is frozen or closed says so itself.
            or cls.model_config.get("frozen", False)
            or cls.model_config.get("extra") != "allow"
        )

    # --- the mapping face -----------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        return self._dynamic()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        data = self._dynamic()
        if isinstance(data, dict):
            data[key] = value
        elif self.__pydantic_extra__ is not None:
            self.__pydantic_extra__[_DATA] = {key: value}
        else:
            raise TypeError(f"{type(self).__name__} takes no values beside its declared fields.")

    def __delitem__(self, key: str) -> None:
        data = self._dynamic()
        if key not in data:
            raise KeyError(key)
        extra = cast("dict[str, Any]", self.__pydantic_extra__)
        del extra[_DATA][key]
        if not extra[_DATA]:
            del extra[_DATA]

    def __contains__(self, key: object) -> bool:
        return key in self._dynamic()

    def __len__(self) -> int:
        return len(self._dynamic())

    def __bool__(self) -> bool:
        return True  # a message without dynamic values is still a message

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]
        return iter(self._dynamic())

    @GivesWay
    def get(self) -> Callable[..., Any]:
        """`get(key, default=None)`: one dynamic value."""
        return self._dynamic().get

    @GivesWay
    def keys(self) -> Callable[[], KeysView[str]]:
        """`keys()`: the names of the dynamic values."""
        return self._dynamic().keys

    @GivesWay
    def values(self) -> Callable[[], ValuesView[Any]]:
        """`values()`: the dynamic values."""
        return self._dynamic().values

    @GivesWay
    def items(self) -> Callable[[], ItemsView[str, Any]]:
        """`items()`: the dynamic values with their names."""
        return self._dynamic().items

    def to_dict(self) -> dict[str, Any]:
        """Return a shallow copy of the dynamic values."""
        return dict(self._dynamic())

    # --- what pydantic would do to the key `_data` as such -------------------------------------

    @classmethod
    def model_validate(cls, obj: Any, **kwargs: Any) -> Self:
        """As in pydantic; what is not declared becomes a dynamic value."""
        model = super().model_validate(obj, **kwargs)
        if model is not obj and model.__pydantic_extra__:
            model._settle()
        return model

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **kwargs: Any) -> Self:
        """As in pydantic; what is not declared becomes a dynamic value."""
        model = super().model_validate_json(json_data, **kwargs)
        if model.__pydantic_extra__:
            model._settle()
        return model

    @classmethod
    def model_construct(cls, _fields_set: set[str] | None = None, **values: Any) -> Self:
        """As in pydantic; what is not declared becomes a dynamic value."""
        model = super().model_construct(_fields_set, **values)
        if model.__pydantic_extra__:
            model._settle()
        return model

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As in pydantic; the copy has dynamic values of its own."""
        model = super().model_copy(update=update, deep=deep)
        if model.__pydantic_extra__:
            model._settle()
        return model

    def __copy__(self) -> Self:
        model = super().__copy__()
        if model.__pydantic_extra__:
            model._settle()
        return model

    def __eq__(self, other: object) -> bool:
        if isinstance(other, DictLikeModel):
            self._dynamic()
            other._dynamic()
        return super().__eq__(other)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        self._dynamic()
        for name, value in super().__repr_args__():
            if name == _DATA and isinstance(value, dict):
                yield from cast("dict[str, Any]", value).items()
            else:
                yield name, value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler, /
    ) -> JsonSchemaValue:
        # A schema lists what is declared; that more is welcome holds for every event.
        schema = handler(core_schema)
        target = handler.resolve_ref_schema(schema)
        if target.get("additionalProperties") is True:
            del target["additionalProperties"]
        return schema
