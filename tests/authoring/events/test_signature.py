"""What a step function's annotations say.

No `from __future__ import annotations` here: some tests need annotations as objects, and those
that need strings write strings.
"""

import functools
import typing
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, Generic, Never, Optional, TypeVar

import pytest
from pydantic import BaseModel
from typing_extensions import TypeAliasType

from stepwell.authoring.events.collect import All, Collect, Take
from stepwell.authoring.events.model import Event, StartEvent, StopEvent, WorkflowErrorEvent
from stepwell.authoring.events.resources import Resource, ResourceConfig
from stepwell.authoring.events.signature import inspect_step
from stepwell.errors import WorkflowValidationError

S = TypeVar("S")


class A(Event):
    n: int = 0


class B(Event):
    pass


class C(Event):
    pass


class Model(BaseModel):
    x: int = 0


@dataclass
class Data:
    x: int = 0


class State(BaseModel):
    pass


class Context(Generic[S]):
    """Recognised by its name alone."""


AorB = TypeAliasType("AorB", A | B)


def step_with(returns: Any = StopEvent, **params: Any) -> typing.Callable[..., Any]:
    """A function with the given annotations, in order."""
    namespace: dict[str, Any] = {}
    exec(f"def built(self, {', '.join(params)}): ...", namespace)  # noqa: S102 - a test table
    built = namespace["built"]
    built.__annotations__ = {**params, "return": returns}
    return built


NO_EVENT = "Step signature must have at least one parameter annotated as type Event"


@pytest.mark.parametrize(
    "params, expected",
    [
        ({"ev": A}, [("ev", "event", (A,))]),
        ({"ev": A | B}, [("ev", "event", (A, B))]),
        ({"ev": Optional[A]}, [("ev", "event", (A,))]),  # noqa: UP045 - the old spelling too
        ({"ev": A | None}, [("ev", "event", (A,))]),
        ({"ev": Event}, [("ev", "event", (Event,))]),
        ({"ev": AorB}, [("ev", "event", (A, B))]),
        ({"ev": AorB | C}, [("ev", "event", (A, B, C))]),
        ({"ev": Annotated[A, "whatever"]}, [("ev", "event", (A,))]),
        ({"a": A, "b": B}, [("a", "slot", (A,)), ("b", "slot", (B,))]),
        ({"a": A, "b": A}, [("a", "slot", (A,)), ("b", "slot", (A,))]),
        ({"evs": list[A]}, [("evs", "list", (A,))]),
        ({"evs": list[A] | None}, [("evs", "list", (A,))]),
        ({"evs": list[A | B]}, [("evs", "list", (A, B))]),
        ({"evs": list[Annotated[A, 3]]}, [("evs", "list", (A,))]),
        ({"events": tuple[A]}, [("events", "wrapped", (A,))]),
        ({"events": typing.Tuple[A]}, [("events", "wrapped", (A,))]),  # noqa: UP006
        ({"events": tuple[A | B]}, [("events", "wrapped", (A, B))]),
        ({"events": tuple[A, B]}, [("events", "slots", (A, B))]),
        ({"events": tuple[A, A]}, [("events", "slots", (A, A))]),
        ({"events": tuple[A, ...]}, [("events", "batch", (A,))]),
        ({"events": tuple[A | B, ...]}, [("events", "batch", (A, B))]),
        ({"x": tuple[Model, Data]}, [("x", "slots", (Model, Data))]),
        ({"events": Model}, [("events", "event", (Model,))]),
        ({"events": list[Data]}, [("events", "list", (Data,))]),
        ({"ev": A, "name": str}, [("ev", "event", (A,))]),
        ({"ev": A, "settings": Model}, [("ev", "event", (A,))]),
    ],
)
def test_event_parameters(params, expected):
    config = inspect_step(step_with(**params))
    assert [(p.name, p.kind, p.types) for p in config.event_params] == expected
    assert config.accepted_events == tuple(t for _, _, types in expected for t in types)
    assert config.provisional == ()


@pytest.mark.parametrize(
    "annotation, collect",
    [
        (list[A], Collect()),
        (tuple[A, ...], Collect()),
        (Annotated[list[A], Collect(Take(2))], Collect(Take(2))),
        (Annotated[tuple[A, ...], Collect(Take(2))], Collect(Take(2))),
        (Annotated[list[A], "x", Collect(All(), order="input")], Collect(order="input")),
        (A, None),
        (tuple[A], None),
        (tuple[A, B], None),
    ],
)
def test_what_completes_a_collection(annotation, collect):
    (param,) = inspect_step(step_with(events=annotation)).event_params
    assert param.collect == collect


@pytest.mark.parametrize(
    "params, message",
    [
        ({"name": int}, NO_EVENT),
        ({"ev": A | int}, NO_EVENT),
        ({"ev": type[A]}, NO_EVENT),
        ({"ev": list[A] | B}, NO_EVENT),
        ({"evs": list[int]}, NO_EVENT),
        ({"evs": list[Model]}, NO_EVENT),
        ({"events": tuple[int, str]}, NO_EVENT),
        ({"events": tuple}, NO_EVENT),
        ({"events": tuple[()]}, NO_EVENT),
        ({"a": Model, "b": Model}, NO_EVENT),
        ({"ev": None}, NO_EVENT),
        (
            {"a": list[A], "b": list[B]},
            "A step may declare at most one list[E] collection parameter, but found both 'a' and "
            "'b'. Multi-slot collects are not supported.",
        ),
        (
            {"a": list[A], "b": B},
            "A list[E] collection parameter cannot be combined with other event parameters. Use a "
            "single list[E] parameter, or multiple single-event parameters for a multi-slot join.",
        ),
        (
            {"a": A | B, "b": C},
            "Collect-mode steps (more than one event parameter) require each event parameter to "
            "declare a single event type, but parameter 'a' declares 2. Union-typed collect "
            "parameters are not supported.",
        ),
        (
            {"a": A, "b": tuple[B]},
            "The tuple parameter 'b' cannot be combined with other event parameters. Name all "
            "joined events in one tuple, or give each its own parameter.",
        ),
        (
            {"events": tuple[A | B, C]},
            "Parameter 'events' joins events as a tuple, so each place of the tuple must be a "
            "single event type; a union in a place is not supported.",
        ),
        (
            {"a": Annotated[A, Collect()]},
            "Parameter 'a' carries a Collect marker but is not annotated as list[E] of an Event "
            "subclass. Collect markers apply only to collection fan-in (list[Event]) parameters.",
        ),
        (
            {"ev": A, "a": Annotated[list[int], Collect()]},
            "Parameter 'a' carries a Collect marker but is not annotated as list[E] of an Event "
            "subclass. Collect markers apply only to collection fan-in (list[Event]) parameters.",
        ),
        (
            {"a": Annotated[list[A], Collect(3)]},  # type: ignore[arg-type]
            "Collect cardinality on 'a' must be All() or Take(n). Other cardinalities are not "
            "supported.",
        ),
    ],
)
def test_parameters_that_cannot_be(params, message):
    with pytest.raises(WorkflowValidationError) as caught:
        inspect_step(step_with(**params))
    assert str(caught.value) == message


def test_an_unannotated_parameter_is_not_an_event():
    with pytest.raises(WorkflowValidationError, match=NO_EVENT):

        def f(self, ev) -> B: ...

        inspect_step(f)


def test_star_parameters_are_left_alone():
    def f(self, ev: A, *more: B, **others: C) -> B: ...

    assert inspect_step(f).accepted_events == (A,)


def test_a_lone_model_is_accepted_until_the_class_is_known():
    config = inspect_step(step_with(payload=Model))
    assert config.accepted_events == (Model,)
    assert config.provisional == (Model,)


def test_a_declared_class_is_an_event_whatever_it_is():
    config = inspect_step(step_with(payload=dict, returns=str), declared=(dict, str))
    assert config.accepted_events == (dict,)
    assert config.provisional == ()
    assert config.bare_returns == (str,)


@pytest.mark.parametrize(
    "annotation, name, state",
    [
        (Context, "c", None),
        (Context[State], "c", State),
        (Context[Any], "c", None),
        (Context[State] | None, "c", State),
        (Context[S], "c", None),  # type: ignore[valid-type]
        (str, None, None),
    ],
)
def test_context_parameter(annotation, name, state):
    config = inspect_step(step_with(ev=A, c=annotation))
    assert (config.context_param, config.state_type) == (name, state)


def test_resources_are_found_and_told_their_type(tmp_path):
    def make() -> int:
        return 3

    number = Resource(make)
    settings = ResourceConfig(str(tmp_path / "settings.json"))
    config = inspect_step(
        step_with(
            ev=A,
            number=Annotated[int, number],
            settings=Annotated[Model, settings],
            other=Annotated[int, "no resource"],
        )
    )
    first, second = config.resources
    assert (first.name, first.descriptor, first.type_annotation) == ("number", number, int)
    assert (second.name, second.type_annotation) == ("settings", Model)
    assert isinstance(second.descriptor, ResourceConfig)
    assert second.descriptor.cls_factory is Model


@pytest.mark.parametrize(
    "annotation, types, bare, lists, tuples, none",
    [
        (B, (B,), (B,), (), (), False),
        (None, (NoneType,), (), (), (), True),
        (B | None, (B, NoneType), (B,), (), (), True),
        (AorB, (A, B), (A, B), (), (), False),
        (Annotated[B, "x"], (B,), (B,), (), (), False),
        (list[A], (A,), (), (A,), (), False),
        (list[A | B] | C | None, (A, B, C, NoneType), (C,), (A, B), (), True),
        (list[A] | list[B], (A, B), (), (A, B), (), False),
        (list[A] | A, (A,), (A,), (A,), (), False),
        (tuple[A, B], (A, B), (), (), (A, B), False),
        (tuple[A, ...], (A,), (), (), (A,), False),
        (typing.Tuple[A] | StopEvent, (A, StopEvent), (StopEvent,), (), (A,), False),  # noqa: UP006
        (tuple[A] | list[B] | C, (A, B, C), (C,), (B,), (A,), False),
        (Never, (), (), (), (), False),
        (int, (int,), (int,), (), (), False),
        (Model, (Model,), (Model,), (), (), False),
        (dict[str, int], (dict,), (dict,), (), (), False),
        (Iterator[A], (Iterator,), (Iterator,), (), (), False),
    ],
)
def test_returns(annotation, types, bare, lists, tuples, none):
    config = inspect_step(step_with(ev=A, returns=annotation))
    assert config.return_types == types
    assert config.bare_returns == bare
    assert config.list_returns == lists
    assert config.tuple_returns == tuples
    assert config.tuple_return is bool(tuples)
    assert config.returns_none is none


def test_an_error_event_is_returned_but_not_produced():
    config = inspect_step(step_with(ev=A, returns=tuple[B] | WorkflowErrorEvent | None))
    assert config.return_types == (B, WorkflowErrorEvent, NoneType)
    assert config.produced_events == (B,)


ASYNC_ITERATOR = (
    "Async-iterator fan-out (AsyncIterator[E] / AsyncGenerator[E, None] / async generator steps) "
    "is not supported. Return list[E] for a static collection, or emit incrementally with "
    "ctx.send_event."
)


@pytest.mark.parametrize(
    "annotation, message",
    [
        (AsyncIterator[A], ASYNC_ITERATOR),
        (AsyncGenerator[A, None], ASYNC_ITERATOR),
        (AsyncIterable[A] | B, ASYNC_ITERATOR),
        (list[list[A]], "names no event class: list[test_signature.A]"),
        (tuple[list[A]], "names no event class: list[test_signature.A]"),
        (S, "names no event class: ~S"),
    ],
)
def test_returns_that_cannot_be(annotation, message):
    with pytest.raises(WorkflowValidationError) as caught:
        inspect_step(step_with(ev=A, returns=annotation))
    text = str(caught.value).replace(f"{__name__}.", "test_signature.")
    assert message in text


def test_generators_are_no_steps():
    async def many(self, ev: A) -> B:  # type: ignore[misc]
        yield B()  # type: ignore[misc]

    def few(self, ev: A) -> B:  # type: ignore[misc]
        yield B()  # type: ignore[misc]

    with pytest.raises(WorkflowValidationError, match="Async-iterator fan-out"):
        inspect_step(many)
    with pytest.raises(WorkflowValidationError, match="'few' is a generator"):
        inspect_step(few)


def test_the_return_annotation_is_needed():
    def f(self, ev: A): ...

    with pytest.raises(WorkflowValidationError) as caught:
        inspect_step(f)
    assert str(caught.value) == (
        "Return types of workflows step functions must be annotated with their type."
    )


def test_names_of_the_enclosing_function_are_found():
    class Local(Event):
        pass

    def f(self, ev: "Local", more: "Annotated[list[Local], 'x'] | None" = None) -> "Local | None":
        return ev

    with pytest.raises(WorkflowValidationError, match="cannot be combined"):
        inspect_step(f)

    def g(self, ev: "Local") -> "list[Local] | None": ...

    config = inspect_step(g)
    assert config.accepted_events == (Local,)
    assert config.list_returns == (Local,)


def test_a_local_name_of_the_caller_does_not_hide_the_module():
    def define():
        def f(self, ev: "A") -> "B": ...

        return inspect_step(f)

    def caller():
        A = int  # noqa: F841 - stands in the way
        return define()

    assert caller().accepted_events == (A,)


def test_names_at_the_place_of_decoration_are_found_last():
    class Local(Event):
        pass

    B = int  # noqa: F841 - the module's B comes first
    config = inspect_step(_defined_elsewhere)
    assert config.accepted_events == (Local,)
    assert config.return_types == (globals()["B"],)


def _defined_elsewhere(ev: "Local") -> "B":  # type: ignore[name-defined] # noqa: F821
    ...


def test_a_missing_name_is_named():
    def f(self, ev: "Nowhere") -> B:  # type: ignore[name-defined] # noqa: F821
        ...

    with pytest.raises(WorkflowValidationError) as caught:
        inspect_step(f)
    assert str(caught.value).startswith(
        "Failed to resolve type annotations for test_a_missing_name_is_named.<locals>.f. "
        "Missing name: Nowhere."
    )


def test_an_annotation_that_makes_no_sense_is_an_error():
    def f(self, ev: "typing.Nothing") -> B:  # type: ignore[name-defined]
        ...

    with pytest.raises(WorkflowValidationError, match=r"Failed to resolve .*Nothing"):
        inspect_step(f)


def test_where_a_function_runs():
    async def a(ev: A) -> B: ...

    def plain(ev: A) -> B: ...

    @functools.wraps(a)
    def wrapper(*args: Any) -> Any:
        return a(*args)

    assert inspect_step(a).execution == "async"
    assert inspect_step(plain).execution == "thread"
    assert inspect_step(wrapper).execution == "async"
    assert inspect_step(wrapper).accepted_events == (A,)


def test_the_start_type_may_be_a_start_event():
    config = inspect_step(step_with(ev=StartEvent))
    assert config.accepted_events == (StartEvent,)
    assert (config.name, config.num_workers, config.retry_policy) == ("built", 4, None)
