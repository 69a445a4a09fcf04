"""Which tables of steps are workflows, and what is said of those that are not.

A case is a table: step name to "accepted -> returned". `h: ...` steps are error handlers.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel

from stepwell.authoring.events.checks import (
    check_handlers,
    check_has_steps,
    find_start,
    find_stop,
    validate_shape,
)
from stepwell.authoring.events.collect import Collect, Take
from stepwell.authoring.events.model import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    InternalDispatchEvent,
    StartEvent,
    StepFailedEvent,
    StopEvent,
    WorkflowErrorEvent,
)
from stepwell.authoring.events.shape import Shape, parse_graph_checks
from stepwell.authoring.events.signature import StepConfig, inspect_step
from stepwell.errors import WorkflowConfigurationError, WorkflowValidationError


class A(Event):
    pass


class A2(A):
    pass


class B(Event):
    pass


class C(Event):
    pass


class D(Event):
    pass


class MyStart(StartEvent):
    pass


class MyStop(StopEvent):
    pass


class Ask(InputRequiredEvent):
    pass


class Answer(HumanResponseEvent):
    pass


class Payload(BaseModel):
    pass


class Result(BaseModel):
    pass


WORDS: dict[str, Any] = {
    **{cls.__name__: cls for cls in (A, A2, B, C, D, MyStart, MyStop, Ask, Answer, Payload)},
    "Result": Result,
    "Start": StartEvent,
    "Stop": StopEvent,
    "Any": Event,
    "Failed": StepFailedEvent,
    "Input": InputRequiredEvent,
    "Human": HumanResponseEvent,
    "Internal": InternalDispatchEvent,
    "Error": WorkflowErrorEvent,
    "Collect": Collect,
    "Take": Take,
}


def read_step(name: str, text: str, **options: Any) -> StepConfig:
    takes, _, returns = text.partition("->")
    params = takes if ":" in takes else f"ev: {takes}"
    namespace = dict(WORDS)
    exec(f"def {name}({params}) -> {returns}: ...", namespace)  # noqa: S102 - a test table
    declared = (Payload, Result)
    return replace(inspect_step(namespace[name], declared=declared), **options)


def steps_of(*lines: str, **options: dict[str, Any]) -> dict[str, StepConfig]:
    found: dict[str, StepConfig] = {}
    for line in lines:
        name, _, text = line.partition(" ")
        handler = {"is_error_handler": True} if name.startswith("h") else {}
        found[name] = read_step(name, text, **handler, **options.get(name, {}))
    return found


def shape_of(*lines: str, start: Any = None, stop: Any = None, **options: Any) -> Shape:
    steps = steps_of(*lines, **options)
    return Shape("Flow", steps, find_start("Flow", steps, start), find_stop("Flow", steps, stop))


def complaint(
    shape: Shape, skip: Iterable[str] = (), error: type[Exception] = WorkflowValidationError
) -> str:
    with pytest.raises(error) as caught:
        validate_shape(shape, parse_graph_checks(skip))
    return str(caught.value)


SUBCLASSES = {"accept_event_subclasses": True}

# --- 1 and 2 ---


def test_no_steps():
    with pytest.raises(WorkflowConfigurationError) as caught:
        check_has_steps("Flow", {})
    assert str(caught.value) == (
        "Workflow 'Flow' has no configured steps. Did you forget to annotate methods with @step "
        "or to register free-function steps via @step(workflow=...)? At least one Event of type "
        "StartEvent must be received by any step. (Workflow 'Flow' has no @step that accepts "
        "StartEvent.)"
    )
    check_has_steps("Flow", steps_of("s Start -> Stop"))


@pytest.mark.parametrize(
    "lines, declared, expected",
    [
        (["s Start -> Stop"], None, StartEvent),
        (["s MyStart -> A", "t A | MyStart -> Stop"], None, MyStart),
        (["s MyStart -> Stop"], StartEvent, MyStart),
        (["s Payload -> Stop"], Payload, Payload),
        (
            ["s A -> Stop"],
            None,
            "At least one Event of type StartEvent must be received by any step. (Workflow 'Flow' "
            "has no @step that accepts StartEvent.)",
        ),
        (
            ["s Payload -> Stop"],
            None,
            "At least one Event of type StartEvent must be received by any step. (Workflow 'Flow' "
            "has no @step that accepts StartEvent.)",
        ),
        (
            ["s Start -> Stop"],
            MyStart,
            "At least one Event of type MyStart must be received by any step. (Workflow 'Flow' "
            "has no @step that accepts MyStart.)",
        ),
        (
            ["s Start | MyStart -> Stop"],
            None,
            f"Only one type of StartEvent is allowed per workflow, found 2: {{{StartEvent!r}, "
            f"{MyStart!r}}} in workflow 'Flow'.",
        ),
    ],
)
def test_the_start_event(lines: list[str], declared: Any, expected: Any):
    if isinstance(expected, type):
        assert find_start("Flow", steps_of(*lines), declared) is expected
    else:
        with pytest.raises(WorkflowConfigurationError, match=f"^{re.escape(expected)}$"):
            find_start("Flow", steps_of(*lines), declared)


@pytest.mark.parametrize(
    "lines, declared, expected",
    [
        (["s Start -> Stop"], None, StopEvent),
        (["s Start -> MyStop | A", "t A -> MyStop"], None, MyStop),
        (["s Start -> MyStop"], StopEvent, MyStop),
        (["s Start -> tuple[A] | Result"], Result, Result),
        (["s Start -> list[Stop]"], None, StopEvent),
        (
            ["s Start -> A"],
            None,
            "At least one Event of type StopEvent must be returned by any step. (Workflow 'Flow' "
            "has no @step that returns StopEvent.)",
        ),
        (
            ["s Start -> Stop"],
            Result,
            "At least one Event of type Result must be returned by any step. (Workflow 'Flow' has "
            "no @step that returns Result.)",
        ),
        (
            ["s Start -> Stop | MyStop"],
            None,
            f"Only one type of StopEvent is allowed per workflow, found 2: {{{StopEvent!r}, "
            f"{MyStop!r}}} in workflow 'Flow'.",
        ),
    ],
)
def test_the_stop_event(lines: list[str], declared: Any, expected: Any):
    if isinstance(expected, type):
        assert find_stop("Flow", steps_of(*lines), declared) is expected
    else:
        with pytest.raises(WorkflowConfigurationError, match=f"^{re.escape(expected)}$"):
            find_stop("Flow", steps_of(*lines), declared)


# --- what is right ---


@pytest.mark.parametrize(
    "lines, options, people",
    [
        (["s Start -> Stop"], {}, False),
        (["s Start -> A | None", "t A -> Stop"], {}, False),
        (["s Start -> A | Stop", "t A -> None"], {}, False),
        (["s Start -> None", "t Answer -> Stop"], {}, True),
        (["s Start -> Input", "t Human -> Stop"], {}, True),
        (["s Start -> Ask", "t Answer -> Stop"], {}, True),
        (["s Start -> Ask | Stop"], {}, True),
        (["s Start -> Ask", "t Answer -> Ask", "u Ask -> Stop"], {}, True),
        (["s Start -> A2 | Stop", "t A -> Stop"], {"t": SUBCLASSES}, False),
        (["s Start -> A2 | Stop", "t Any -> Stop"], {"t": SUBCLASSES}, False),
        (["s Start -> A", "t A -> Start | Stop"], {}, False),
        (["s Start -> tuple[A, B]", "t events: tuple[A, B] -> Stop | Error"], {}, False),
        (["s Start -> A", "t A -> Stop", "h Failed -> None"], {}, False),
        (["s Start -> Stop", "h Failed -> B", "u B -> Stop"], {}, False),
        (["s Start -> A | None", "t A | Failed -> Stop"], {}, False),
        # streams
        (["s Start -> list[A]", "t a: list[A] -> Stop"], {}, False),
        (["s Start -> list[A]", "t A -> B", "u b: list[B] -> Stop"], {}, False),
        (["s Start -> list[A]", "t A -> Stop"], {}, False),
        (["s Start -> list[A] | B", "t A -> B", "u b: list[B] -> Stop"], {}, False),
        (["s Start -> list[A] | C", "t A -> B", "u b: list[B | C] -> Stop"], {}, False),
        (["s Start -> list[A]", "t A -> list[A] | B", "u b: list[B] -> Stop"], {}, False),
        (["s Start -> list[A2]", "u a: list[A] -> Stop"], {"u": SUBCLASSES}, False),
        (
            [
                "s Start -> list[A]",
                "t A -> list[B]",
                "u B -> C",
                "v c: list[C] -> D",
                "w d: list[D] -> Stop",
            ],
            {},
            False,
        ),
        (["s Start -> A | B", "u a: A, b: B -> Stop"], {}, False),
        (["s Start -> list[A | B]", "u a: A, b: B -> Stop"], {}, False),
        (["s Start -> list[A] | B", "u a: A, b: B -> Stop"], {}, False),
        (["s Start -> A", "u a: A, b: Start -> Stop"], {}, False),
        (["s Start -> A", "u a: A, b: Answer -> Stop"], {}, True),
        (["s Start -> A2 | B", "u a: A, b: B -> Stop"], {"u": SUBCLASSES}, False),
        (["s Start -> list[A]", "u a: A, h: A -> Stop"], {}, False),
        (
            ["s Start -> list[A]", "t A -> B", "u b: list[B] -> Stop", "h Failed -> B"],
            {},
            False,
        ),
        # tuples: joined one of each at the level of the step, or collected
        (
            ["s Start -> tuple[A, B]", "t A -> C", "u B -> D", "v events: tuple[C, D] -> Stop"],
            {},
            False,
        ),
        (["s Start -> tuple[A, A]", "t events: tuple[A, ...] -> Stop"], {}, False),
        (
            [
                "s Start -> tuple[A, ...]",
                "t events: tuple[A] -> tuple[B]",
                "u events: tuple[B, ...] -> Stop",
            ],
            {},
            False,
        ),
    ],
)
def test_tables_that_fit_together(lines: list[str], options: dict[str, Any], people: bool):
    assert validate_shape(shape_of(*lines, **options)) is people


def test_declared_classes_begin_and_end():
    shape = shape_of("s Payload -> tuple[A]", "t A -> Result | Error", start=Payload, stop=Result)
    assert validate_shape(shape) is False


# --- 3 to 5 ---

NEVER_PRODUCED = "The following events are consumed but never produced: "
NEVER_CONSUMED = "The following events are produced but never consumed: "


@pytest.mark.parametrize(
    "lines, message",
    [
        (
            ["s Start -> Stop", "t Stop -> Stop"],
            "Step 't' cannot accept StopEvent. StopEvent signals the end of the workflow. Use a "
            "different Event type instead.",
        ),
        (
            ["s Start -> Stop", "t Stop -> A", "u MyStop | A -> Stop"],
            "Steps 't', 'u' cannot accept StopEvent. StopEvent signals the end of the workflow. "
            "Use a different Event type instead.",
        ),
        (["s Start -> Stop", "t A | B -> Stop"], NEVER_PRODUCED + "A, B"),
        (["s Start -> Stop", "t Internal -> Stop"], NEVER_PRODUCED + "InternalDispatchEvent"),
        (["s Start -> Stop | A2", "t A -> Stop"], NEVER_PRODUCED + "A"),
        (["s Start -> Stop | A", "t Any -> Stop"], NEVER_PRODUCED + "Event"),
        (["s Start -> Stop | A | B"], NEVER_CONSUMED + "A, B"),
        (["s Start -> Stop | int"], NEVER_CONSUMED + "int"),
        (["s Start -> Stop | Any"], NEVER_CONSUMED + "Event"),
        (["s Start -> Stop | Failed"], NEVER_CONSUMED + "StepFailedEvent"),
        (["s Start -> Stop | tuple[A]"], NEVER_CONSUMED + "A"),
        (["s Start -> Stop", "h Failed -> B"], NEVER_CONSUMED + "B"),
        # the first rule that fails is the one that speaks
        (["s Start -> Stop | A", "t B -> Stop"], NEVER_PRODUCED + "B"),
    ],
)
def test_producers_and_consumers(lines: list[str], message: str):
    assert complaint(shape_of(*lines)) == message


def test_the_declared_end_cannot_be_consumed():
    shape = shape_of("s Start -> Result", "t Result -> Result", stop=Result)
    assert complaint(shape).startswith("Step 't' cannot accept StopEvent.")


# --- 6 ---

BASE = ["s Start -> A", "t A -> Stop"]


def handler_case(*handlers: tuple[str, ...] | None, **more: Any) -> Shape:
    names = ["h", "h2", "h3"][: len(handlers)]
    lines = [*BASE, *(f"{name} Failed -> Stop" for name in names)]
    options = {n: {"for_steps": h, **more.get(n, {})} for n, h in zip(names, handlers, strict=True)}
    return shape_of(*lines, **options)


@pytest.mark.parametrize(
    "handlers, messages",
    [
        (
            (None, None),
            ["Only one wildcard @catch_error handler is allowed per workflow, found 2: h, h2"],
        ),
        (
            (("x", "y"),),
            [
                "@catch_error handler 'h' lists unknown step 'x' in for_steps.",
                "@catch_error handler 'h' lists unknown step 'y' in for_steps.",
            ],
        ),
        ((("h2",), None), ["@catch_error handler 'h' cannot cover another handler step 'h2'."]),
        ((("h",),), ["@catch_error handler 'h' cannot cover another handler step 'h'."]),
        (
            (("s",), ("s", "t")),
            ["Step 's' is claimed by two @catch_error handlers: 'h' and 'h2'."],
        ),
        (
            (None, ("q",), None),
            [
                "Only one wildcard @catch_error handler is allowed per workflow, found 2: h, h3",
                "@catch_error handler 'h2' lists unknown step 'q' in for_steps.",
            ],
        ),
    ],
)
def test_handlers_that_disagree(handlers: Any, messages: list[str]):
    assert complaint(handler_case(*handlers)) == "\n".join(messages)


def test_max_recoveries():
    shape = handler_case(None, h={"max_recoveries": 0})
    with pytest.raises(WorkflowValidationError) as caught:
        check_handlers(shape)
    assert str(caught.value) == (
        "@catch_error handler 'h' has max_recoveries=0; must be an integer >= 1."
    )


@pytest.mark.parametrize("handlers", [(None, ("s",)), ((),), (("s",), ("t",)), (("s", "s"),)])
def test_handlers_that_agree(handlers: Any):
    shape = handler_case(*handlers)
    check_handlers(shape)


def test_which_steps_a_handler_covers():
    shape = handler_case(None, ("s",))
    assert shape.covered_by(shape.steps["h"]) == ("t",)
    assert shape.covered_by(shape.steps["h2"]) == ("s",)


# --- 7 ---


def reachability(names: str) -> str:
    return (
        f"\n  - [reachability] Unreachable steps: {names}"
        "\n    Steps must be reachable from StartEvent or HumanResponseEvent."
    )


def terminal(names: str) -> str:
    return (
        f"\n  - [terminal_event] Events produced but never consumed: {names}"
        "\n    Only StopEvent and InputRequiredEvent may be terminal."
    )


def dead_end(names: str) -> str:
    return (
        f"\n  - [dead_end] Dead-end steps: {names}"
        "\n    Steps must have a path to StopEvent or InputRequiredEvent."
    )


ALL_THREE = ["s Start -> Answer | A | Stop", "t A -> A", "u B -> B"]


@pytest.mark.parametrize(
    "lines, skip, options, message",
    [
        (
            ["s Start -> Stop", "t A -> B", "u B -> A"],
            (),
            {},
            reachability("t, u") + dead_end("t, u"),
        ),
        (["s Start -> Stop", "t Failed -> Stop"], (), {}, reachability("t")),
        (["s Start -> None", "t A -> Stop | A"], (), {}, reachability("t")),
        (["s Start -> A | Stop", "t A -> B", "u B -> A"], (), {}, dead_end("t, u")),
        (["s Start -> A | Stop", "t A -> B | None", "u B -> B"], (), {}, dead_end("t, u")),
        (["s Start -> A", "t A -> None", "h Failed -> Stop"], (), {}, dead_end("s")),
        (["s Start -> Answer | Stop | Human"], (), {}, terminal("Answer, HumanResponseEvent")),
        (["s Start -> list[Answer] | Stop"], (), {}, terminal("Answer")),
        (
            ["s Start -> Stop | A", "u A -> Stop", "h Failed -> B", "b B -> B"],
            (),
            {},
            dead_end("b, h"),
        ),
        (
            ["s Start -> Stop", "h Failed -> B", "u B -> Stop"],
            (),
            {"h": {"for_steps": ("u",)}},
            reachability("h, u"),
        ),
        (ALL_THREE, (), {}, reachability("u") + terminal("Answer") + dead_end("t, u")),
        (ALL_THREE, ("reachability",), {}, terminal("Answer") + dead_end("t, u")),
        (ALL_THREE, ("dead_end", "terminal_event"), {}, reachability("u")),
        (ALL_THREE, ("dead_end", "terminal_event", "reachability"), {}, None),
        (
            ALL_THREE,
            (),
            {
                "s": {"skip_graph_checks": frozenset({"terminal_event"})},
                "u": {"skip_graph_checks": frozenset({"reachability"})},
            },
            dead_end("t, u"),
        ),
        (
            ALL_THREE,
            ("terminal_event",),
            {
                "t": {"skip_graph_checks": frozenset({"dead_end"})},
                "u": {"skip_graph_checks": frozenset({"dead_end", "reachability"})},
            },
            None,
        ),
    ],
)
def test_the_graph(lines: list[str], skip: Any, options: Any, message: str | None):
    shape = shape_of(*lines, **options)
    if message is None:
        validate_shape(shape, parse_graph_checks(skip))
    else:
        assert complaint(shape, skip) == "Graph validation failed:" + message


@pytest.mark.parametrize("names", [["foo", "dead_end", "bar"], {"bar", "foo"}])
def test_unknown_graph_checks(names: Any):
    with pytest.raises(WorkflowValidationError) as caught:
        parse_graph_checks(names)
    assert str(caught.value) == (
        "Unknown graph check names: bar, foo. Valid names are: dead_end, reachability, "
        "terminal_event"
    )


@pytest.mark.parametrize(
    "given, expected",
    [(None, set()), ([], set()), ("dead_end", {"dead_end"}), ({"reachability"}, {"reachability"})],
)
def test_known_graph_checks(given: Any, expected: set[str]):
    assert parse_graph_checks(given) == expected


# --- 8 ---


def no_stream(step: str, param: str, names: str) -> str:
    return (
        f"Step '{step}' parameter '{param}' collects list[{names}], but no returned-list producer "
        "creates a stream for those event types. list[E] fan-in only consumes events from steps "
        "annotated as returning list[E]; use ctx.collect_events for unstreamed ctx.send_event "
        "flows."
    )


def no_level(step: str, listed: str) -> str:
    return (
        f"Step '{step}' joins event parameters that are never produced at a common stream level: "
        f"{listed}. A multi-slot join only fires when all of its inputs originate at the same "
        "level. To gate in-stream work on input from another level, use ctx.wait_for_event inside "
        "the producing step instead."
    )


IN_S = "is produced at the stream of step 's'"
IN_T = "is produced at the stream of step 't'"
AT_TOP = "is produced at the top level"


@pytest.mark.parametrize(
    "lines, message",
    [
        (["s Start -> A", "t a: list[A] -> Stop"], no_stream("t", "a", "A")),
        (["s Start -> A | B", "t a: list[A | B] -> Stop"], no_stream("t", "a", "A, B")),
        (["s Start -> A", "t events: tuple[A, ...] -> Stop"], no_stream("t", "events", "A")),
        (["s Start -> list[A]", "t a: list[A | Answer] -> Stop"], no_stream("t", "a", "Answer")),
        (
            ["s Start -> list[A]", "t A -> B", "v b: list[B] -> C", "x c: list[C] -> Stop"],
            no_stream("x", "c", "C"),
        ),
        (
            ["s Start -> list[A]", "u a: A, b: Human -> Stop"],
            no_level("u", f"'a' (A) {IN_S}; 'b' (HumanResponseEvent) {AT_TOP}"),
        ),
        (
            ["s Start -> list[A]", "u events: tuple[A, Start] -> Stop"],
            no_level("u", f"'events' (A) {IN_S}; 'events' (StartEvent) {AT_TOP}"),
        ),
        (
            ["s Start -> list[A]", "t A -> list[B]", "u b: B, c: Answer, d: A -> Stop"],
            no_level("u", f"'b' (B) {IN_T}; 'c' (Answer) {AT_TOP}; 'd' (A) {IN_S}"),
        ),
        (
            ["s Start -> list[A] | C", "t C -> list[A]", "u a: A, c: Answer -> Stop"],
            no_level(
                "u",
                f"'a' (A) {IN_S}, the stream of step 't'; 'c' (Answer) {AT_TOP}",
            ),
        ),
    ],
)
def test_joins_that_can_never_fire(lines: list[str], message: str):
    assert complaint(shape_of(*lines)) == message


def test_many_ways_through_lists_do_not_take_for_ever():
    kinds = [type(f"E{n}", (Event,), {}) for n in range(14)]
    WORDS.update({kind.__name__: kind for kind in kinds})
    names = " | ".join(kind.__name__ for kind in kinds)
    lines = [f"s Start -> list[{names}]"]
    lines += [f"t{n} E{n} -> list[{names}] | Stop" for n in range(14)]
    assert validate_shape(shape_of(*lines)) is False
