"""Something that happened, or is going to: what starts event workflows and wakes waiting runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from stepwell.values import Json


@dataclass(frozen=True, slots=True)
class WorkflowEvent:
    """An event, as `create_context(event)` and `should_run_for_event(event)` receive it.

    Attributes:
        id: which event it is; told again with the same id, it has changed.
        name: what kind of event.
        at: when it happens; aware, in UTC.
        entity: what it happened to, as it was given to `emit`; never kept.
        payload: what is said about it, as JSON values.
    """

    id: str
    name: str
    at: datetime
    entity: Any = None
    payload: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def entity_id(self) -> Json:
        """The entity's `pk` or `id`; the entity itself when it is a number or a text."""
        entity = self.entity
        if entity is None or isinstance(entity, int | str):
            return entity
        found = getattr(entity, "pk", None)
        if found is None:
            found = getattr(entity, "id", None)
        return found if found is None or isinstance(found, int | str) else str(found)

    def fields(self) -> dict[str, Any]:
        """What is merged into a Context: the payload, `event_id`, `event_name`, `entity_id`."""
        return {
            **self.payload,
            "event_id": self.id,
            "event_name": self.name,
            "entity_id": self.entity_id,
        }

    def to_json(self) -> dict[str, Json]:
        """What a run keeps of the event that started it."""
        return {"id": self.id, "name": self.name, "at": self.at.timestamp()}
