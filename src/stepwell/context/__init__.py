"""Public door: the context of a run, and how its values are written."""

from stepwell.authoring.events.serializers import JsonSerializer, PickleSerializer
from stepwell.runtime.context import Context

__all__ = ["Context", "JsonSerializer", "PickleSerializer"]
