"""Payloads of events as JSON, and back.

Models among the dynamic values of an event carry the name of their class, which is looked up among
the workflow's types: never imported by what the data says.
"""

from __future__ import annotations

from typing import Any, cast

from stepwell.authoring.events.dictlike import DictLikeModel
from stepwell.authoring.events.serializers import JsonSerializer
from stepwell.authoring.program import adapter
from stepwell.values import Json


class Values:
    """Writes and reads the payloads of one workflow, with its serializer."""

    __slots__ = ("serializer",)

    def __init__(self, serializer: JsonSerializer) -> None:
        self.serializer = serializer

    def dump(self, value: object) -> object:
        """What `value` is written as: itself, if it holds no dynamic values."""
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
        """A value without a declared type, as JSON values."""
        return self.serializer.serialize_value(value)

    def load(self, kind: type, data: Json) -> object:
        """The payload of type `kind` that was written as `data`; `object` for one without."""
        with self.serializer.validation_context() as context:
            if kind is object:
                return self.serializer.deserialize_value(data)
            if issubclass(kind, DictLikeModel) and isinstance(data, dict):
                rows: dict[str, Any] = dict(cast("dict[str, Any]", data))
                for key in rows.keys() - kind.model_fields.keys():
                    rows[key] = self.serializer.deserialize_value(rows[key])
                return kind.model_validate(rows, context=context)
            return adapter(cast("type[object]", kind)).validate_python(data, context=context)
