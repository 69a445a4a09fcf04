"""Do the steps of a workflow fit together? Everything that can be known before running.

The theory: a workflow is a table of `StepConfig`s, and each rule is a function over that table
that either passes or raises with a text which names the steps and events at fault. They are
applied in a fixed order, from "there is nothing here" to "this join can never fire", so that a
mistake is reported as what it is and not by one of its consequences:

    1  there are steps                                          `check_has_steps`
    2  there is one start and one stop event class              `find_start`, `find_stop`
    3  no step consumes a stop event                            `check_no_stop_consumer`
    4  what is consumed is produced                             `check_consumed`
    5  what is produced is consumed                             `check_produced`
    6  error handlers are at peace with each other              `check_handlers`
    7  every step can be reached and leads somewhere            `check_graph`
    8  every join can be released                               `streams.check_streams`

What comes from outside (the start event, answers of people) counts as produced; what goes
outside (stop events, questions) counts as consumed. A `WorkflowErrorEvent` in a return
annotation is neither: it never travels.

This module refuses to know workflow classes, functions and running: it reads tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stepwell.authoring.events.model import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StepFailedEvent,
    StopEvent,
)
from stepwell.authoring.events.shape import EventClass, GraphCheck, Shape, Steps, matches
from stepwell.authoring.events.streams import check_streams
from stepwell.errors import WorkflowConfigurationError, WorkflowValidationError

__all__ = [
    "check_consumed",
    "check_graph",
    "check_handlers",
    "check_has_steps",
    "check_no_stop_consumer",
    "check_produced",
    "find_start",
    "find_stop",
    "uses_people",
    "validate_shape",
]


def _names(events: Iterable[EventClass]) -> str:
    return ", ".join(event.__name__ for event in events)


# --- 1 and 2: what a workflow cannot do without ----------------------------------------------


def check_has_steps(name: str, steps: Steps) -> None:
    """Rule 1. The text also says what follows from it, which is what people search for."""
    if not steps:
        raise WorkflowConfigurationError(
            f"Workflow '{name}' has no configured steps. Did you forget to annotate methods with "
            "@step or to register free-function steps via @step(workflow=...)? "
            + _missing("StartEvent", "received", name, "accepts")
        )


def _missing(kind: str, how: str, name: str, verb: str) -> str:
    return (
        f"At least one Event of type {kind} must be {how} by any step. "
        f"(Workflow '{name}' has no @step that {verb} {kind}.)"
    )


def _one_of(
    kind: type[Event], candidates: Iterable[EventClass], declared: EventClass | None
) -> dict[EventClass, None]:
    return {e: None for e in candidates if e is declared or issubclass(e, kind)}


def _only(
    kind: str, found: dict[EventClass, None], declared: EventClass | None, name: str, rule: str
) -> EventClass:
    if len(found) > 1:
        listed = ", ".join(repr(event) for event in found)
        raise WorkflowConfigurationError(
            f"Only one type of {kind} is allowed per workflow, found {len(found)}: {{{listed}}} "
            f"in workflow '{name}'."
        )
    event = next(iter(found), None)
    if event is None or (declared is not None and not issubclass(event, declared)):
        how, verb = rule.split()
        wanted = kind if declared is None else declared.__name__
        raise WorkflowConfigurationError(_missing(wanted, how, name, verb))
    return event


def find_start(name: str, steps: Steps, declared: EventClass | None = None) -> EventClass:
    """Rule 2: the one start event class that steps accept.

    Args:
        name: of the workflow, for messages.
        steps: its steps.
        declared: the start type of `Workflow[Ctx, Start, End]`; it may be any class.

    Raises:
        WorkflowConfigurationError: there is none, or there are several.
    """
    candidates = (event for step in steps.values() for event in step.accepted_events)
    found = _one_of(StartEvent, candidates, declared)
    return _only("StartEvent", found, declared, name, "received accepts")


def find_stop(name: str, steps: Steps, declared: EventClass | None = None) -> EventClass:
    """Rule 2: the one stop event class that steps return.

    Args:
        name: of the workflow, for messages.
        steps: its steps.
        declared: the end type of `Workflow[Ctx, Start, End]`; it may be any class.

    Raises:
        WorkflowConfigurationError: there is none, or there are several.
    """
    candidates = (event for step in steps.values() for event in step.produced_events)
    found = _one_of(StopEvent, candidates, declared)
    return _only("StopEvent", found, declared, name, "returned returns")


# --- 3 to 5: producers and consumers ----------------------------------------------------------


def check_no_stop_consumer(shape: Shape) -> None:
    """Rule 3."""
    wrong = [
        name
        for name, step in shape.steps.items()
        if any(shape.is_stop(event) for event in step.accepted_events)
    ]
    if wrong:
        listed = "', '".join(wrong)
        raise WorkflowValidationError(
            f"Step{'s' if len(wrong) > 1 else ''} '{listed}' cannot accept StopEvent. StopEvent "
            "signals the end of the workflow. Use a different Event type instead."
        )


def check_consumed(shape: Shape) -> None:
    """Rule 4."""
    produced = shape.produced()
    exempt = (InputRequiredEvent, HumanResponseEvent, StopEvent, StepFailedEvent)
    missing: dict[EventClass, None] = {}
    for step in shape.steps.values():
        for wanted in step.accepted_events:
            if not issubclass(wanted, exempt) and not any(
                matches(step, wanted, event) for event in produced
            ):
                missing[wanted] = None
    if missing:
        raise WorkflowValidationError(
            f"The following events are consumed but never produced: {_names(missing)}"
        )


def check_produced(shape: Shape) -> None:
    """Rule 5."""
    unused = [
        event
        for event in shape.produced()
        if not shape.goes_outside(event)
        and not issubclass(event, HumanResponseEvent)
        and not any(shape.takes(step, event) for step in shape.steps.values())
    ]
    if unused:
        raise WorkflowValidationError(
            f"The following events are produced but never consumed: {_names(unused)}"
        )


# --- 6: error handlers ---------------------------------------------------------------------------


def check_handlers(shape: Shape) -> None:
    """Rule 6; all its findings are reported together, one on a line."""
    handlers = list(shape.handlers())
    problems: list[str] = []
    wildcards = [handler.name for handler in handlers if handler.for_steps is None]
    if len(wildcards) > 1:
        problems.append(
            "Only one wildcard @catch_error handler is allowed per workflow, found "
            f"{len(wildcards)}: {', '.join(wildcards)}"
        )
    claims: dict[str, str] = {}
    for handler in handlers:
        for name in handler.for_steps or ():
            step = shape.steps.get(name)
            if step is None:
                problems.append(
                    f"@catch_error handler '{handler.name}' lists unknown step '{name}' in "
                    "for_steps."
                )
            elif step.is_error_handler:
                problems.append(
                    f"@catch_error handler '{handler.name}' cannot cover another handler step "
                    f"'{name}'."
                )
            elif claims.setdefault(name, handler.name) != handler.name:
                problems.append(
                    f"Step '{name}' is claimed by two @catch_error handlers: '{claims[name]}' "
                    f"and '{handler.name}'."
                )
        if handler.max_recoveries < 1:
            problems.append(
                f"@catch_error handler '{handler.name}' has "
                f"max_recoveries={handler.max_recoveries}; must be an integer >= 1."
            )
    if problems:
        raise WorkflowValidationError("\n".join(problems))


# --- 7: the graph --------------------------------------------------------------------------------


def _edges(shape: Shape) -> dict[str, set[str]]:
    """Which steps may run because of a step: those that take its events, and its handler."""
    return {
        name: {
            other
            for other, taker in shape.steps.items()
            if any(shape.takes(taker, event) for event in step.produced_events)
        }
        for name, step in shape.steps.items()
    }


def _closure(roots: Iterable[str], edges: Mapping[str, Iterable[str]]) -> set[str]:
    found: set[str] = set()
    todo = list(roots)
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo.extend(edges[name])
    return found


def _unreachable(shape: Shape, edges: Mapping[str, set[str]]) -> list[str]:
    with_failures = {name: set(targets) for name, targets in edges.items()}
    for handler in shape.handlers():
        for name in shape.covered_by(handler):
            with_failures[name].add(handler.name)
    roots = [
        name
        for name, step in shape.steps.items()
        if shape.takes(step, shape.start)
        or any(shape.comes_from_outside(event) for event in step.accepted_events)
    ]
    return sorted(shape.steps.keys() - _closure(roots, with_failures))


def _unconsumed(shape: Shape) -> list[EventClass]:
    """Events that end nowhere, produced by a step that is not exempt."""
    found: dict[EventClass, None] = {}
    for step in shape.steps.values():
        if "terminal_event" in step.skip_graph_checks:
            continue
        for event in step.produced_events:
            if not shape.goes_outside(event) and not any(
                shape.takes(taker, event) for taker in shape.steps.values()
            ):
                found[event] = None
    return sorted(found, key=lambda event: event.__name__)


def _dead_ends(shape: Shape, edges: Mapping[str, set[str]]) -> list[str]:
    """Steps that emit something from which no end can be reached; emitting nothing is no fault."""
    backwards: dict[str, set[str]] = {name: set() for name in shape.steps}
    for name, targets in edges.items():
        for target in targets:
            backwards[target].add(name)
    ends = [
        name
        for name, step in shape.steps.items()
        if any(shape.goes_outside(event) for event in step.produced_events)
    ]
    alive = _closure(ends, backwards)
    return sorted(n for n, s in shape.steps.items() if s.produced_events and n not in alive)


def check_graph(shape: Shape, skip: frozenset[str] = frozenset()) -> None:
    """Rule 7; all its findings are reported together.

    Args:
        shape: the workflow.
        skip: names of the checks the whole workflow is exempt from.

    Raises:
        WorkflowValidationError: some check failed; the text has a paragraph for each.
    """
    edges = _edges(shape)

    def held(names: list[str], check: GraphCheck) -> str:
        return ", ".join(n for n in names if check not in shape.steps[n].skip_graph_checks)

    failures: list[str] = []
    if "reachability" not in skip and (names := held(_unreachable(shape, edges), "reachability")):
        failures.append(
            f"[reachability] Unreachable steps: {names}\n"
            "    Steps must be reachable from StartEvent or HumanResponseEvent."
        )
    if "terminal_event" not in skip and (names := _names(_unconsumed(shape))):
        failures.append(
            f"[terminal_event] Events produced but never consumed: {names}\n"
            "    Only StopEvent and InputRequiredEvent may be terminal."
        )
    if "dead_end" not in skip and (names := held(_dead_ends(shape, edges), "dead_end")):
        failures.append(
            f"[dead_end] Dead-end steps: {names}\n"
            "    Steps must have a path to StopEvent or InputRequiredEvent."
        )
    if failures:
        raise WorkflowValidationError("\n  - ".join(["Graph validation failed:", *failures]))


# --- all of it -----------------------------------------------------------------------------------


def uses_people(shape: Shape) -> bool:
    """Say whether the workflow asks people, or takes their answers."""
    return any(issubclass(event, InputRequiredEvent) for event in shape.produced()) or any(
        issubclass(event, HumanResponseEvent)
        for step in shape.steps.values()
        for event in step.accepted_events
    )


def validate_shape(shape: Shape, skip: frozenset[str] = frozenset()) -> bool:
    """Apply the rules 3 to 8, in order; 1 and 2 were needed to make the shape.

    Args:
        shape: the workflow.
        skip: names of the graph checks the whole workflow is exempt from.

    Returns:
        Whether the workflow asks people, or takes their answers.

    Raises:
        WorkflowValidationError: the first rule that does not hold.

    Example:
        >>> from stepwell.authoring.events.signature import inspect_step
        >>> async def only(ev: StartEvent) -> StopEvent: ...
        >>> validate_shape(Shape("Flow", {"only": inspect_step(only)}, StartEvent, StopEvent))
        False
    """
    check_no_stop_consumer(shape)
    check_consumed(shape)
    check_produced(shape)
    check_handlers(shape)
    check_graph(shape, skip)
    check_streams(shape)
    return uses_people(shape)
