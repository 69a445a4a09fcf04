"""What the decorators accept, refuse and leave on a function."""

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from stepwell.authoring.events.model import Event, StartEvent, StepFailedEvent, StopEvent
from stepwell.authoring.events.workflow import WorkflowBase
from stepwell.decorators import catch_error, step
from stepwell.errors import WorkflowValidationError
from stepwell.retry import retry_policy


class A(Event):
    pass


def config_of(function: Any) -> Any:
    return function._step_config


def test_a_step_is_the_function_itself():
    class Holder:
        def method(self, ev: A) -> StopEvent: ...

    before = Holder.method
    assert step(num_workers=2)(before) is before
    assert config_of(before).func is before


@pytest.mark.parametrize("decorate", [step, step(), step(None)])
def test_bare_and_called_give_the_defaults(decorate: Callable[..., Any]):
    class Holder:
        @decorate
        async def method(self, ev: A) -> StopEvent: ...

    config = config_of(Holder.method)
    assert config.name == "method"
    assert config.num_workers == 4
    assert config.retry_policy is None
    assert config.timeout is None
    assert config.execution == "async"
    assert config.accept_event_subclasses is False
    assert config.skip_graph_checks == frozenset()
    assert config.is_error_handler is False
    assert config.is_entry is False


def test_every_option_arrives():
    policy = retry_policy()

    class Holder:
        @step(
            num_workers=7,
            retry_policy=policy,
            skip_graph_checks=["dead_end", "reachability"],
            accept_event_subclasses=True,
            timeout=timedelta(minutes=1),
            execution="process",
        )
        def method(self, ev: A) -> StopEvent: ...

    config = config_of(Holder.method)
    assert config.num_workers == 7
    assert config.retry_policy is policy
    assert config.skip_graph_checks == {"dead_end", "reachability"}
    assert config.accept_event_subclasses is True
    assert config.timeout == 60.0
    assert config.execution == "process"


@pytest.mark.parametrize("value", [0, -1, True, "1", 1.0])
def test_num_workers_is_a_positive_integer(value: Any):
    with pytest.raises(WorkflowValidationError) as caught:
        step(num_workers=value)
    assert str(caught.value) == "num_workers must be an integer greater than 0"


@pytest.mark.parametrize("value", [0, -1, True, "1", math.nan, math.inf, timedelta(0)])
def test_a_timeout_is_a_positive_time(value: Any):
    with pytest.raises(WorkflowValidationError, match="timeout must be a number of seconds"):
        step(timeout=value)


def test_a_retry_policy_must_be_one():
    with pytest.raises(WorkflowValidationError, match=r"retry_policy must have a next\(\) method"):
        step(retry_policy=3)  # type: ignore[call-overload]


def test_any_object_with_next_is_a_retry_policy():
    class Once:
        def next(self, elapsed_time: float, attempts: int, error: Exception) -> float | None:
            return None

    class Holder:
        @step(retry_policy=Once())  # type: ignore[call-overload,misc]
        async def method(self, ev: A) -> StopEvent: ...

    assert isinstance(config_of(Holder.method).retry_policy, Once)


@pytest.mark.parametrize("names", [["foo", "bar", "dead_end"], {"bar", "foo"}])
def test_graph_checks_are_known_by_name(names: Any):
    with pytest.raises(WorkflowValidationError) as caught:
        step(skip_graph_checks=names)
    assert str(caught.value) == (
        "Unknown graph check names: bar, foo. Valid names are: dead_end, reachability, "
        "terminal_event"
    )


@pytest.mark.parametrize(
    "wanted, is_async, result",
    [
        ("auto", True, "async"),
        ("auto", False, "thread"),
        ("async", True, "async"),
        ("thread", False, "thread"),
        ("process", False, "process"),
        ("async", False, "execution='async' but is not a coroutine function"),
        ("thread", True, "execution='thread' but is a coroutine function"),
        ("process", True, "execution='process' but is a coroutine function"),
        ("fiber", True, "execution must be one of auto, async, thread, process, got 'fiber'"),
    ],
)
def test_execution(wanted: Any, is_async: bool, result: str):
    async def coroutine(self: object, ev: A) -> StopEvent: ...

    def plain(self: object, ev: A) -> StopEvent: ...

    function = coroutine if is_async else plain
    function.__qualname__ = f"Holder.{function.__name__}"
    if result in ("async", "thread", "process"):
        assert config_of(step(execution=wanted)(function)).execution == result
    else:
        with pytest.raises(WorkflowValidationError, match=result):
            step(execution=wanted)(function)


@pytest.mark.parametrize("decorate", [step, step(), step(num_workers=1)])
def test_a_free_function_needs_a_workflow(decorate: Callable[..., Any]):
    def free(ev: A) -> StopEvent: ...

    with pytest.raises(WorkflowValidationError) as caught:
        decorate(free)
    assert str(caught.value) == (
        "To decorate free please pass a workflow class to the @step decorator."
    )


def test_a_free_function_is_added_to_its_workflow():
    class Flow(WorkflowBase):
        pass

    @step(workflow=Flow, timeout=3)
    async def only(ev: StartEvent) -> StopEvent: ...

    assert Flow()._get_steps()["only"].call is only
    assert Flow()._get_steps()["only"].config.timeout == 3.0


def test_a_static_method_may_be_a_step():
    class Flow(WorkflowBase):
        @step
        @staticmethod
        async def inside(ev: StartEvent) -> A: ...

        @staticmethod
        @step
        async def outside(ev: A) -> StopEvent: ...

    steps = Flow()._get_steps()
    assert list(steps) == ["inside", "outside"]
    assert steps["inside"].free
    assert steps["inside"].call is Flow.inside


@pytest.mark.parametrize("thing", [3, object(), classmethod(lambda cls: None), A])
def test_only_functions_are_steps(thing: Any):
    with pytest.raises(WorkflowValidationError, match="A step must be a function or a method"):
        step(thing)


def test_a_class_method_is_no_step():
    with pytest.raises(WorkflowValidationError, match="'s' is a class method"):

        class Flow(WorkflowBase):
            @classmethod
            @step
            async def s(cls, ev: StartEvent) -> StopEvent: ...


# --- catch_error ---


def test_a_handler_and_its_defaults():
    class Holder:
        @catch_error
        async def handle(self, ev: StepFailedEvent) -> StopEvent: ...

        @catch_error(for_steps=["a", "b"], max_recoveries=3)
        def some(self, events: tuple[StepFailedEvent]) -> A | None: ...

    first, second = config_of(Holder.handle), config_of(Holder.some)
    assert first.is_error_handler
    assert (first.for_steps, first.max_recoveries) == (None, 1)
    assert (first.num_workers, first.retry_policy) == (1, None)
    assert (second.for_steps, second.max_recoveries) == (("a", "b"), 3)
    assert second.execution == "thread"


@pytest.mark.parametrize("value", [0, -1, True, "1", 1.5])
def test_max_recoveries_is_a_positive_integer(value: Any):
    with pytest.raises(WorkflowValidationError) as caught:
        catch_error(max_recoveries=value)
    assert str(caught.value) == "@catch_error max_recoveries must be an integer >= 1"


@pytest.mark.parametrize("value", ["a", [1], 3, {"a"}])
def test_for_steps_is_a_list_of_names(value: Any):
    with pytest.raises(WorkflowValidationError) as caught:
        catch_error(for_steps=value)
    assert str(caught.value) == (
        "@catch_error for_steps must be None or a list of step name strings"
    )


@pytest.mark.parametrize(
    "annotation", [A, A | StepFailedEvent, list[StepFailedEvent], tuple[StepFailedEvent, A]]
)
def test_a_handler_takes_failures_only(annotation: Any):
    def handle(self: object, ev: annotation) -> StopEvent: ...  # type: ignore[valid-type]

    with pytest.raises(WorkflowValidationError) as caught:
        catch_error(handle)
    assert str(caught.value) == (
        "@catch_error handler 'handle' must accept StepFailedEvent as its event parameter."
    )


def test_a_free_handler_joins_through_add_step():
    class Flow(WorkflowBase):
        @step
        async def only(self, ev: StartEvent) -> StopEvent: ...

    @catch_error
    async def handle(ev: StepFailedEvent) -> StopEvent: ...

    Flow.add_step(handle)
    assert Flow()._get_steps()["handle"].config.is_error_handler
    assert Flow().validate() is False


def test_annotations_as_text_are_resolved_in_the_class_body():
    class Flow(WorkflowBase):
        class Inner(Event):
            pass

        @step
        async def first(self, ev: "StartEvent") -> "Inner": ...  # type: ignore[name-defined]

        @step()
        async def second(self, ev: "Inner") -> "StopEvent": ...  # type: ignore[name-defined]

    assert Flow().events == [StartEvent, Flow.Inner, StopEvent]
