"""A workflow as its rules see it: a table of steps, with a start and a stop event.

The theory: validation and routing ask the same few questions of a workflow, and they must get
the same answers: does this step take that event, does this event end the run, which handler
covers this step. They are answered here and nowhere else.

This module refuses to know what is right or wrong with a workflow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from stepwell.authoring.events.model import HumanResponseEvent, InputRequiredEvent, StopEvent
from stepwell.authoring.events.signature import StepConfig
from stepwell.errors import WorkflowValidationError

__all__ = [
    "GRAPH_CHECKS",
    "EventClass",
    "GraphCheck",
    "Shape",
    "Steps",
    "matches",
    "parse_graph_checks",
]

GraphCheck: TypeAlias = Literal["reachability", "terminal_event", "dead_end"]
"""A graph check that a step or a workflow may be exempt from."""

GRAPH_CHECKS: frozenset[str] = frozenset(get_args(GraphCheck))

EventClass: TypeAlias = type[Any]
"""Any class whose instances travel between steps."""

Steps: TypeAlias = Mapping[str, StepConfig]
"""Steps by name, in the order in which they were written."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A workflow as the rules see it.

    Attributes:
        name: class name of the workflow, for messages.
        steps: its steps by name, in the order in which they were written.
        start: the class of its start event.
        stop: the class of its stop event.
    """

    name: str
    steps: Steps
    start: EventClass
    stop: EventClass

    def is_stop(self, event: EventClass) -> bool:
        """Say whether an event ends the run."""
        return event is self.stop or issubclass(event, StopEvent)

    def goes_outside(self, event: EventClass) -> bool:
        """Say whether an event is complete without a step that consumes it."""
        return self.is_stop(event) or issubclass(event, InputRequiredEvent)

    def comes_from_outside(self, event: EventClass) -> bool:
        """Say whether an event needs no step that produces it."""
        return event is self.start or issubclass(event, HumanResponseEvent)

    def takes(self, step: StepConfig, event: EventClass) -> bool:
        """Say whether an event is routed to a step."""
        return any(matches(step, wanted, event) for wanted in step.accepted_events)

    def produced(self) -> dict[EventClass, None]:
        """The start event and everything a step may emit, in order."""
        found: dict[EventClass, None] = {self.start: None}
        for step in self.steps.values():
            found.update(dict.fromkeys(step.produced_events))
        return found

    def handlers(self) -> Iterator[StepConfig]:
        """The steps made by `@catch_error`."""
        return (step for step in self.steps.values() if step.is_error_handler)

    def covered_by(self, handler: StepConfig) -> tuple[str, ...]:
        """Names of the steps whose failures go to a handler."""
        if handler.for_steps is not None:
            return tuple(name for name in handler.for_steps if name in self.steps)
        claimed = {name for other in self.handlers() for name in other.for_steps or ()}
        return tuple(
            name
            for name, step in self.steps.items()
            if not step.is_error_handler and name not in claimed
        )


def matches(step: StepConfig, wanted: EventClass, event: EventClass) -> bool:
    """Say whether an event is one that a step asks for as `wanted`."""
    return event is wanted or (step.accept_event_subclasses and issubclass(event, wanted))


def parse_graph_checks(names: Iterable[str] | None) -> frozenset[str]:
    """Check the names in a `skip_graph_checks` option.

    Raises:
        WorkflowValidationError: a name is not among `GRAPH_CHECKS`.

    Example:
        >>> parse_graph_checks(["dead_end"])
        frozenset({'dead_end'})
    """
    # A lone string is an iterable of letters; it is meant as one name.
    given = frozenset((names,) if isinstance(names, str) else names or ())
    unknown = given - GRAPH_CHECKS
    if unknown:
        raise WorkflowValidationError(
            f"Unknown graph check names: {', '.join(sorted(unknown))}. "
            f"Valid names are: {', '.join(sorted(GRAPH_CHECKS))}"
        )
    return given
