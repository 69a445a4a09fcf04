"""Can every join of a workflow be released? Levels of streams, and the rules on them.

The theory: a step that returns `list[E]` opens a stream, and everything that follows from its
members happens *inside* that stream, until a `list[...]` parameter joins it and what the joining
step emits is outside again. So each event occurs at levels: the top level, the stream of step
`s`, the stream of step `t` within that of `s`, and so on. A level is written as the tuple of the
steps whose streams enclose it; `()` is the top. The levels are found by walking the workflow
from the events that come from outside until nothing new turns up.

    `list[E]` joins       E must occur inside some stream, or nothing ever closes
    joins of several      one of each must occur at one and the same level

A step that may return a list *or* a single event is read generously: its single events count as
inside its stream as well, because the step may also send them from where its list is made. A
returned tuple is read generously, too: its members stay at the level of the step, where others
can join one of each; and they can be collected like those of a list.

This module refuses to know how streams are opened, counted and closed while running.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from stepwell.authoring.events.model import HumanResponseEvent
from stepwell.authoring.events.shape import EventClass, Shape, matches
from stepwell.authoring.events.signature import EventParam, StepConfig
from stepwell.errors import WorkflowValidationError

__all__ = ["check_streams"]

_Level: TypeAlias = tuple[str, ...]
_Levels: TypeAlias = dict[EventClass, set[_Level]]

_MOST_LEVELS = 200
"""Beyond this many levels of one event the question is left to the run, which detects a stream
that cannot close: paths through list-returning steps can grow exponentially in number."""


def _levels_of(levels: _Levels, step: StepConfig, wanted: EventClass) -> set[_Level]:
    """The levels at which something occurs that a step takes as `wanted`."""
    found: set[_Level] = set()
    for event, at in levels.items():
        if matches(step, wanted, event):
            found |= at
    return found


def _slots(step: StepConfig) -> list[tuple[str, EventClass]]:
    """Parameter name and event class of each place of a join of several; else nothing."""
    return [
        (param.name, event)
        for param in step.event_params
        if param.kind in ("slot", "slots")
        for event in param.types
    ]


def _common(levels: _Levels, step: StepConfig, places: Iterable[EventClass]) -> set[_Level]:
    return set[_Level].intersection(*(_levels_of(levels, step, event) for event in places))


def _own_levels(levels: _Levels, step: StepConfig) -> set[_Level]:
    """The levels at which a step itself runs."""
    if slots := _slots(step):
        return _common(levels, step, (event for _, event in slots))
    found = {level for event in step.accepted_events for level in _levels_of(levels, step, event)}
    if step.event_params[0].collect is not None:
        # What is collected at the top level came in tuples; `check_streams` sees to that.
        return {level[:-1] for level in found}
    return found


def _inside(level: _Level, step: str) -> _Level:
    # A stream opened again from inside itself (a loop) is at the level it already had.
    return level[: level.index(step) + 1] if step in level else (*level, step)


def _find_levels(shape: Shape) -> _Levels | None:
    """All levels of all events; None when there are too many to tell."""
    levels: _Levels = {shape.start: {()}}
    for step in shape.steps.values():
        for event in step.accepted_events:
            if issubclass(event, HumanResponseEvent):
                levels[event] = {()}
    grew = True
    while grew:
        grew = False
        runs_at = {name: _own_levels(levels, step) for name, step in shape.steps.items()}
        for handler in shape.handlers():  # they run where the step failed
            runs_at[handler.name] |= {
                level for name in shape.covered_by(handler) for level in runs_at[name]
            }
        for name, step in shape.steps.items():
            for event, at in _emitted(step, runs_at[name]):
                known = levels.setdefault(event, set())
                grew = grew or not at <= known
                known |= at
                if len(known) > _MOST_LEVELS:
                    return None
    return levels


def _emitted(step: StepConfig, at: set[_Level]) -> Iterable[tuple[EventClass, set[_Level]]]:
    inner = {_inside(level, step.name) for level in at} if step.list_returns else at
    for event in step.produced_events:
        outside = event in step.bare_returns or event in step.tuple_returns
        yield event, (inner | at if outside else inner)


def _where(levels: set[_Level]) -> str:
    names = [f"the stream of step '{level[-1]}'" if level else "the top level" for level in levels]
    return ", ".join(sorted(set(names))) or "no level"


def _from_tuples(shape: Shape) -> set[EventClass]:
    """The members of returned tuples, and everything that follows from them."""
    found = {event for step in shape.steps.values() for event in step.tuple_returns}
    todo = list(found)
    while todo:
        event = todo.pop()
        for step in shape.steps.values():
            if shape.takes(step, event):
                new = set(step.produced_events) - found
                found |= new
                todo.extend(new)
    return found


def _check_list(
    step: StepConfig, param: EventParam, levels: _Levels, in_tuples: set[EventClass]
) -> None:
    missing = [
        wanted.__name__
        for wanted in param.types
        if not any(_levels_of(levels, step, wanted))
        and not any(matches(step, wanted, event) for event in in_tuples)
    ]
    if missing:
        raise WorkflowValidationError(
            f"Step '{step.name}' parameter '{param.name}' collects list[{', '.join(missing)}], "
            "but no returned-list producer creates a stream for those event types. list[E] "
            "fan-in only consumes events from steps annotated as returning list[E]; use "
            "ctx.collect_events for unstreamed ctx.send_event flows."
        )


def _check_slots(step: StepConfig, levels: _Levels) -> None:
    slots = _slots(step)
    if slots and not _common(levels, step, (event for _, event in slots)):
        listed = "; ".join(
            f"'{name}' ({event.__name__}) is produced at {_where(_levels_of(levels, step, event))}"
            for name, event in slots
        )
        raise WorkflowValidationError(
            f"Step '{step.name}' joins event parameters that are never produced at a common "
            f"stream level: {listed}. A multi-slot join only fires when all of its inputs "
            "originate at the same level. To gate in-stream work on input from another level, "
            "use ctx.wait_for_event inside the producing step instead."
        )


def check_streams(shape: Shape) -> None:
    """Check that every join can be released.

    Args:
        shape: the workflow; its other rules hold.

    Raises:
        WorkflowValidationError: a join never gets what it waits for; the text says why.
    """
    levels = _find_levels(shape)
    if levels is None:
        return
    in_tuples = _from_tuples(shape)
    for step in shape.steps.values():
        for param in step.event_params:
            if param.collect is not None:
                _check_list(step, param, levels, in_tuples)
        _check_slots(step, levels)
