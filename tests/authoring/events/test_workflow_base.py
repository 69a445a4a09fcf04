"""What a workflow class knows of itself before it runs."""

import functools
import gc
import logging
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Tuple, TypeVar  # noqa: UP035 - users write Tuple

import pytest
from pydantic import BaseModel

from stepwell.authoring.events.model import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StepFailedEvent,
    StopEvent,
    WorkflowErrorEvent,
)
from stepwell.authoring.events.resources import Resource, ResourceConfig, ResourceManager
from stepwell.authoring.events.serializers import JsonSerializer
from stepwell.authoring.events.state_data import DictState
from stepwell.authoring.events.workflow import WorkflowBase
from stepwell.decorators import catch_error, step
from stepwell.errors import (
    WorkflowConfigurationError,
    WorkflowRuntimeError,
    WorkflowValidationError,
)

S = TypeVar("S")


class Context(Generic[S]):
    """Recognised by its name."""


class A(Event):
    pass


class MyStart(StartEvent):
    topic: str


class MyStop(StopEvent):
    pass


class State(DictState):
    pass


class WiderState(State):
    pass


class OtherState(DictState):
    pass


class Flow(WorkflowBase):
    @step
    async def first(self, ev: StartEvent) -> A: ...

    @step
    async def second(self, ev: A) -> StopEvent: ...


class Topical(WorkflowBase):
    @step
    async def only(self, ev: MyStart) -> StopEvent: ...


# --- construction ---


def test_what_an_instance_says():
    manager, serializer, runtime = ResourceManager(), JsonSerializer(), object()
    flow = Flow(
        timeout=3,
        verbose=True,
        resource_manager=manager,
        num_concurrent_runs=2,
        runtime=runtime,
        workflow_name="mine",
        skip_graph_checks={"dead_end"},
        serializer=serializer,
    )
    assert flow.timeout == 3
    assert flow.verbose is True
    assert flow.resource_manager is manager
    assert flow.num_concurrent_runs == 2
    assert flow.runtime is runtime
    assert flow.workflow_name == "mine"
    assert flow.serializer is serializer
    assert flow.start_event_class is StartEvent
    assert flow.stop_event_class is StopEvent
    assert flow.events == [StartEvent, A, StopEvent]


def test_defaults():
    flow = Flow()
    assert flow.timeout == 45.0
    assert flow.verbose is False
    assert flow.num_concurrent_runs is None
    assert flow.runtime is None
    assert flow.serializer is None
    assert flow.workflow_name == f"{__name__}.Flow"
    assert flow.resource_manager is not Flow().resource_manager


def test_options_may_be_positional():
    flow = Flow(None, True, True, None, 3)
    assert (flow.timeout, flow.verbose, flow.num_concurrent_runs) == (None, True, 3)


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "1"])
def test_num_concurrent_runs_is_a_positive_integer(value: Any):
    with pytest.raises(WorkflowValidationError) as caught:
        Flow(num_concurrent_runs=value)
    assert str(caught.value) == "num_concurrent_runs must be an integer greater than 0 or None"


@pytest.mark.parametrize("value", [-1, True, "1", float("nan")])
def test_timeout_is_a_time(value: Any):
    with pytest.raises(WorkflowValidationError, match="timeout must be a number of seconds"):
        Flow(timeout=value)


def test_unknown_graph_checks():
    with pytest.raises(WorkflowValidationError) as caught:
        Flow(skip_graph_checks={"foo"})  # type: ignore[arg-type]
    assert str(caught.value) == (
        "Unknown graph check names: foo. Valid names are: dead_end, reachability, terminal_event"
    )


@pytest.mark.parametrize(
    "signature, message",
    [
        (
            (A, StopEvent),
            "At least one Event of type StartEvent must be received by any step. (Workflow "
            "'Broken' has no @step that accepts StartEvent.)",
        ),
        (
            (StartEvent, A),
            "At least one Event of type StopEvent must be returned by any step. (Workflow "
            "'Broken' has no @step that returns StopEvent.)",
        ),
        (
            (StartEvent | MyStart, StopEvent),
            "Only one type of StartEvent is allowed per workflow, found 2: ",
        ),
        (
            (StartEvent, StopEvent | MyStop),
            "Only one type of StopEvent is allowed per workflow, found 2: ",
        ),
    ],
)
@pytest.mark.parametrize("disable", [True, False])
def test_no_instance_without_one_start_and_one_stop(signature: Any, message: str, disable: bool):
    class Broken(WorkflowBase):
        @step
        async def only(self, ev: signature[0]) -> signature[1]: ...  # type: ignore[valid-type]

    with pytest.raises(WorkflowConfigurationError) as caught:
        Broken(disable_validation=disable)
    assert str(caught.value).startswith(message)


def test_no_steps():
    class Empty(WorkflowBase):
        async def forgotten(self, ev: StartEvent) -> StopEvent: ...

    with pytest.raises(WorkflowConfigurationError, match="'Empty' has no configured steps"):
        Empty()


def test_name_and_runtime_are_settled_by_the_launch():
    flow = Flow()
    flow.workflow_name = "before"
    flow.runtime = runtime = object()
    flow._lock()
    with pytest.raises(RuntimeError) as name:
        flow.workflow_name = "after"
    with pytest.raises(RuntimeError) as other:
        flow.runtime = object()
    assert str(name.value) == "Cannot change workflow_name after workflow has been launched"
    assert str(other.value) == "Cannot reassign runtime after workflow has been launched"
    assert (flow.workflow_name, flow.runtime) == ("before", runtime)


# --- steps ---


def test_steps_are_bound():
    flow = Flow()
    steps = flow._get_steps()
    assert list(steps) == ["first", "second"]
    assert steps["first"].call == flow.first
    assert steps["first"].config.func is Flow.first
    assert steps["first"].config.accepted_events == (StartEvent,)
    assert not steps["first"].free


def test_a_subclass_inherits_and_overrides():
    class Sub(Flow):
        @step
        async def second(self, ev: A) -> MyStop: ...

        @step
        async def third(self, ev: A) -> None: ...

    assert list(Sub()._get_steps()) == ["first", "second", "third"]
    assert Sub().stop_event_class is MyStop
    assert Flow().stop_event_class is StopEvent


def test_an_override_without_the_decorator_is_no_step():
    class Sub(Flow):
        async def second(self, ev: A) -> MyStop: ...  # type: ignore[override]

    with pytest.raises(WorkflowConfigurationError, match="has no @step that returns StopEvent"):
        Sub()


def test_steps_of_a_plain_mixin():
    class Mixin:
        @step
        async def second(self, ev: A) -> StopEvent: ...

    class Mixed(Mixin, WorkflowBase):
        @step
        async def first(self, ev: StartEvent) -> A: ...

    assert set(Mixed()._get_steps()) == {"first", "second"}


def test_a_step_under_another_name_and_in_a_wrapper():
    def traced(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await function(*args, **kwargs)

        return wrapper

    class Wrapped(WorkflowBase):
        @traced
        @step
        async def only(self, ev: StartEvent) -> StopEvent: ...

        again = only

    steps = Wrapped()._get_steps()
    assert list(steps) == ["only", "again"]
    assert steps["again"].config.name == "again"
    assert steps["only"].config.func is Wrapped.__dict__["only"]


def test_free_functions_belong_to_one_class():
    class Base(WorkflowBase):
        @step
        async def first(self, ev: StartEvent) -> StopEvent | A: ...

    class Sibling(Base):
        pass

    class Sub(Base):
        pass

    @step(workflow=Sub)
    async def free(ev: A) -> None: ...

    assert list(Sub()._get_steps()) == ["first", "free"]
    assert Sub()._get_steps()["free"].free
    assert Sub()._get_steps()["free"].call is free
    assert Sub()._free_steps() == {"free"}
    for other in (Base, Sibling):
        assert list(other()._get_steps()) == ["first"]


def test_add_step_refuses():
    class Own(WorkflowBase):
        @step
        async def first(self, ev: StartEvent) -> StopEvent: ...

    async def plain(ev: StartEvent) -> StopEvent: ...

    def first(ev: StartEvent) -> StopEvent: ...

    with pytest.raises(WorkflowValidationError) as undecorated:
        Own.add_step(plain)
    with pytest.raises(WorkflowValidationError) as taken:
        step(workflow=Own)(first)
    step(workflow=Own)(plain)
    with pytest.raises(WorkflowValidationError) as again:
        Own.add_step(plain)
    assert str(undecorated.value) == "Step function plain is missing the `@step` decorator."
    for name, error in (("first", taken), ("plain", again)):
        assert str(error.value) == (
            f"A step {name} is already part of this workflow, please choose another name."
        )


def test_a_new_step_is_validated():
    class Own(WorkflowBase):
        @step
        async def first(self, ev: StartEvent) -> StopEvent: ...

    flow = Own()
    assert flow._ensure_valid() is False

    @step(workflow=Own)
    async def more(ev: A) -> StopEvent: ...

    with pytest.raises(WorkflowValidationError, match="consumed but never produced: A"):
        flow._ensure_valid()


def test_a_replaced_step_is_noticed_by_subclasses_too():
    class Own(WorkflowBase):
        @step
        async def first(self, ev: StartEvent) -> StopEvent: ...

    class Sub(Own):
        pass

    assert Sub().stop_event_class is StopEvent

    class Donor:
        @step
        async def first(self, ev: StartEvent) -> MyStop: ...

    Own.first = Donor.first  # type: ignore[method-assign,assignment]
    assert Sub().stop_event_class is MyStop
    del Own.first
    with pytest.raises(WorkflowConfigurationError):
        Sub()


# --- validation ---


def test_validation_is_remembered(monkeypatch: pytest.MonkeyPatch):
    class Own(Flow):
        pass

    calls: list[object] = []
    module = "stepwell.authoring.events.workflow.validate_shape"
    monkeypatch.setattr(module, lambda *args: calls.append(args) or True)
    assert Own()._ensure_valid() is True
    assert Own()._ensure_valid() is True
    assert len(calls) == 1
    Own(skip_graph_checks={"dead_end"})._ensure_valid()
    assert len(calls) == 2
    Own().validate()
    assert len(calls) == 3
    assert Own(disable_validation=True)._ensure_valid() is False
    assert len(calls) == 3


def test_skipped_checks_are_skipped():
    class Loose(WorkflowBase):
        @step
        async def only(self, ev: StartEvent) -> StopEvent | A: ...

        @step
        async def loop(self, ev: A) -> A: ...

    with pytest.raises(WorkflowValidationError, match=r"\[dead_end\] Dead-end steps: loop"):
        Loose()._ensure_valid()
    assert Loose(skip_graph_checks={"dead_end"})._ensure_valid() is False
    assert Loose(skip_graph_checks={"dead_end"}).validate() is False


def test_validate_says_whether_people_are_asked():
    class Asking(WorkflowBase):
        @step
        async def ask(self, ev: StartEvent) -> InputRequiredEvent: ...

        @step
        async def answer(self, ev: HumanResponseEvent) -> StopEvent: ...

    assert Asking().validate() is True
    assert Flow().validate() is False


def test_resource_configs_are_read(tmp_path: Any):
    class Settings(BaseModel):
        port: int

    file = tmp_path / "settings.json"

    class Configured(WorkflowBase):
        @step
        async def only(
            self, ev: StartEvent, settings: Annotated[Settings, ResourceConfig(str(file))]
        ) -> StopEvent: ...

    with pytest.raises(WorkflowValidationError) as caught:
        Configured().validate()
    assert str(caught.value).startswith(
        "Resource config validation failed:\n  - In step 'only', parameter 'settings'"
    )
    assert Configured().validate(validate_resource_configs=False) is False
    file.write_text('{"port": 1}')
    assert Configured().validate() is False


def test_resources_are_made_when_asked():
    made: list[str] = []

    def good() -> int:
        made.append("good")
        return 1

    def bad() -> int:
        raise ValueError("no")

    class Fine(WorkflowBase):
        @step
        async def only(self, ev: StartEvent, r: Annotated[int, Resource(good)]) -> StopEvent: ...

    class Failing(WorkflowBase):
        @step
        async def only(self, ev: StartEvent, r: Annotated[int, Resource(bad)]) -> StopEvent: ...

    assert Fine().validate() is False
    assert made == []
    assert Fine().validate(validate_resources=True) is False
    assert made == ["good"]
    with pytest.raises(WorkflowValidationError) as caught:
        Failing().validate(validate_resources=True)
    assert str(caught.value) == "Resource validation failed:\n  - In step 'only', parameter 'r': no"


async def test_resources_are_not_made_in_a_running_loop():
    with pytest.raises(RuntimeError, match="a running event loop"):
        Flow().validate(validate_resources=True)


# --- the start event ---


def test_the_start_event_is_made_of_keywords():
    event = Topical()._get_start_event_instance(None, topic="x")
    assert event == MyStart(topic="x")
    assert Flow()._get_start_event_instance(None, anything=1).anything == 1


@pytest.mark.parametrize("kwargs", [{}, {"topic": 3}])
def test_keywords_that_make_no_start_event(kwargs: dict[str, Any]):
    with pytest.raises(WorkflowRuntimeError) as caught:
        Topical()._get_start_event_instance(None, **kwargs)
    assert str(caught.value) == (
        f"Failed creating a start event of type 'MyStart' with the keyword arguments: {kwargs}"
    )


@pytest.mark.parametrize(
    "given, name", [("no event", "StartEvent"), (A(), "StartEvent"), (StartEvent(), "MyStart")]
)
def test_a_start_event_must_be_one(given: Any, name: str):
    with pytest.raises(ValueError, match="start_event") as caught:
        Topical()._get_start_event_instance(given)
    assert str(caught.value) == f"The 'start_event' argument must be an instance of '{name}'."


def test_keywords_beside_a_start_event_are_ignored_aloud(caplog: pytest.LogCaptureFixture):
    given = MyStart(topic="x")
    with caplog.at_level(logging.WARNING):
        assert Topical()._get_start_event_instance(given, more=1) is given
    assert "more" in caplog.text


# --- state ---


@pytest.mark.parametrize(
    "types, expected",
    [
        ((None, None), DictState),
        ((State, None), State),
        ((State, WiderState), WiderState),
        ((OtherState, OtherState), OtherState),
    ],
)
def test_state_types_of_steps(types: Any, expected: Any):
    class Stateful(WorkflowBase):
        @step
        async def first(self, ev: StartEvent, c: _context(types[0])) -> A: ...  # type: ignore[valid-type]

        @step
        async def second(self, ev: A, c: _context(types[1])) -> StopEvent: ...  # type: ignore[valid-type]

    assert Stateful().state_type is expected


def _context(state: Any) -> Any:
    return Context if state is None else Context[state]


def test_states_that_do_not_fit():
    class Stateful(WorkflowBase):
        @step
        async def first(self, ev: StartEvent, c: Context[State]) -> A: ...

        @step
        async def second(self, ev: A, c: Context[OtherState]) -> StopEvent: ...

    assert Stateful().state_types == (State, OtherState)
    with pytest.raises(ValueError, match="not in a compatible inheritance hierarchy"):
        _ = Stateful().state_type


@pytest.mark.parametrize("argument", [State, Context[State]])
def test_the_state_of_the_class_counts(argument: Any):
    class Stateful(WorkflowBase[argument]):
        @step
        async def only(self, ev: StartEvent) -> StopEvent: ...

    assert Stateful().state_type is State
    assert Stateful().start_event_class is StartEvent


def test_a_state_must_be_a_model():
    class Stateful(WorkflowBase[int]):
        @step
        async def only(self, ev: StartEvent) -> StopEvent: ...

    with pytest.raises(WorkflowConfigurationError, match="must be a pydantic model, got int"):
        Stateful()


# --- the style with said types ---


class Payload(BaseModel):
    initial: str


@dataclass
class Result:
    final: str


class FirstStep(BaseModel):
    data: str


@dataclass
class SecondStep:
    result: str


class Said(WorkflowBase[State, Payload, Result]):
    async def start(self, payload: Payload) -> Tuple[FirstStep]:  # noqa: UP006
        return (FirstStep(data=payload.initial),)

    @step()
    async def first(self, events: Tuple[FirstStep]) -> Tuple[SecondStep] | WorkflowErrorEvent:  # noqa: UP006
        return (SecondStep(result=events[0].data),)

    @step()
    async def second(self, events: Tuple[SecondStep]) -> Result | WorkflowErrorEvent:  # noqa: UP006
        return Result(final=events[0].result)


def test_types_that_are_said():
    flow = Said()
    assert flow.start_event_class is Payload
    assert flow.stop_event_class is Result
    assert flow.state_type is State
    assert flow.events == [Payload, FirstStep, SecondStep, Result]
    assert flow.validate() is False
    entry = flow._get_steps()["start"]
    assert entry.config.is_entry
    assert entry.call == flow.start
    assert [s.config.is_entry for s in flow._get_steps().values()] == [True, False, False]


def test_said_payloads_are_made_and_checked():
    assert Said()._get_start_event_instance(None, initial="x") == Payload(initial="x")
    given = Payload(initial="y")
    assert Said()._get_start_event_instance(given) is given
    with pytest.raises(WorkflowRuntimeError, match=r"'Payload' with the keyword arguments: \{\}"):
        Said()._get_start_event_instance(None)
    with pytest.raises(ValueError, match="must be an instance of 'Payload'"):
        Said()._get_start_event_instance(StartEvent())  # type: ignore[arg-type]


def test_any_class_may_begin_and_end():
    @dataclass
    class Numbers:
        n: int

    class Plain(WorkflowBase[Any, Numbers, int]):
        async def start(self, payload: Numbers) -> int | WorkflowErrorEvent:
            return payload.n

    assert Plain().start_event_class is Numbers
    assert Plain().stop_event_class is int
    assert Plain().validate() is False
    with pytest.raises(WorkflowRuntimeError, match="Failed creating a start event"):
        Plain()._get_start_event_instance(None, wrong=1)


def test_a_step_may_receive_the_said_payload():
    class Decorated(WorkflowBase[Any, Payload, Result]):
        @step
        async def begin(self, ev: Payload) -> Result: ...

    assert Decorated().start_event_class is Payload
    assert Decorated().validate() is False


def test_a_model_that_is_not_the_said_payload_is_no_event():
    with pytest.raises(WorkflowValidationError) as caught:

        class Wrong(WorkflowBase[Any, Payload, Result]):
            @step
            async def begin(self, ev: FirstStep) -> Result: ...

    assert str(caught.value).startswith(
        "Step signature must have at least one parameter annotated as type Event"
    )

    class Unsaid(WorkflowBase):
        pass

    with pytest.raises(WorkflowValidationError, match="Step signature must have"):

        @step(workflow=Unsaid)
        async def free(ev: FirstStep) -> StopEvent: ...


def test_the_entry_is_inherited_and_overridden():
    class Inherits(Said):
        pass

    class Overrides(Said):
        async def start(self, payload: Payload) -> Result: ...  # type: ignore[override]

        @step
        async def first(self, events: Tuple[SecondStep]) -> None: ...  # type: ignore[override] # noqa: UP006

    assert Inherits()._get_steps()["start"].config.is_entry
    assert Inherits().validate() is False
    assert Overrides()._get_steps()["start"].config.return_types == (Result,)


def test_types_may_be_said_through_a_generic_base():
    P = TypeVar("P")
    R = TypeVar("R")

    class Base(WorkflowBase[State, P, R], Generic[P, R]):
        pass

    class Filled(Base[Payload, Result]):
        async def start(self, payload: Payload) -> Result: ...

    assert Filled().start_event_class is Payload
    assert Filled().stop_event_class is Result
    assert Filled().state_type is State


def test_the_entry_may_be_written_with_text():
    class Local(BaseModel):
        pass

    class Textual(WorkflowBase[Any, Local, Result]):
        async def start(self, payload: "Local") -> "Result": ...

    assert Textual().start_event_class is Local


def test_start_events_may_be_said_too():
    class Typed(WorkflowBase[Any, MyStart, MyStop]):
        @step
        async def begin(self, ev: MyStart) -> MyStop: ...

    class Entered(WorkflowBase[Any, StartEvent, StopEvent]):
        async def start(self, payload: StartEvent) -> StopEvent: ...

    assert (Typed().start_event_class, Typed().stop_event_class) == (MyStart, MyStop)
    assert Entered()._get_steps()["start"].config.is_entry


def test_start_is_an_ordinary_name_where_no_types_are_said():
    class Ordinary(WorkflowBase):
        async def start(self, payload: int) -> int: ...

        @step
        async def only(self, ev: StartEvent) -> StopEvent: ...

    class Helper(WorkflowBase[State]):
        def start(self) -> None: ...

        @step
        async def only(self, ev: StartEvent) -> StopEvent: ...

    class Decorated(WorkflowBase):
        @step
        async def start(self, ev: StartEvent) -> StopEvent: ...

    assert list(Ordinary()._get_steps()) == ["only"]
    assert list(Helper()._get_steps()) == ["only"]
    assert not Decorated()._get_steps()["start"].config.is_entry


def test_the_entry_receives_what_was_said():
    with pytest.raises(WorkflowConfigurationError, match="must receive its declared start type"):

        class Wrong(WorkflowBase[Any, Payload, Result]):
            async def start(self, payload: MyStart) -> Result: ...


def test_type_arguments_are_classes():
    with pytest.raises(WorkflowConfigurationError, match="must be classes"):

        class Wrong(WorkflowBase[Any, "Payload", Result]):
            pass


def test_other_stops_than_the_said_one_are_refused():
    class Wrong(WorkflowBase[Any, Payload, Result]):
        async def start(self, payload: Payload) -> StopEvent: ...

    with pytest.raises(WorkflowConfigurationError, match="must be returned by any step"):
        Wrong()


def test_handlers_work_in_this_style():
    class Careful(WorkflowBase[Any, Payload, Result]):
        async def start(self, payload: Payload) -> Result: ...

        @catch_error
        async def rescue(self, ev: StepFailedEvent) -> Result: ...

    assert Careful().validate() is False


# --- cost ---


def test_an_instance_is_cheap():
    Flow()
    best = min(_time_of(Flow) for _ in range(5))
    assert best < 30e-6


def _time_of(make: Callable[[], object], times: int = 500) -> float:
    began = time.perf_counter()
    for _ in range(times):
        make()._ensure_valid()  # type: ignore[attr-defined]
    return (time.perf_counter() - began) / times


def test_an_instance_is_freed_without_the_garbage_collector():
    gc.disable()
    try:
        flow = Flow()
        flow.validate()
        flow._get_steps()
        gone = weakref.ref(flow)
        del flow
        assert gone() is None
    finally:
        gc.enable()
