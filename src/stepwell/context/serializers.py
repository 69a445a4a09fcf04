"""The public door to serializers: values as text, and back, importing nothing by name."""

from stepwell.authoring.events.serializers import (
    BaseSerializer,
    JsonPickleSerializer,
    JsonSerializer,
    PickleSerializer,
    PickleSerializerWarning,
)

__all__ = [
    "BaseSerializer",
    "JsonPickleSerializer",
    "JsonSerializer",
    "PickleSerializer",
    "PickleSerializerWarning",
]
