"""What is checked when a class is decorated, and what it is told."""

# Wrong arguments are what is tested here.
# pyright: reportArgumentType=false, reportCallIssue=false
from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from stepwell.errors import WorkflowConfigurationError
from stepwell.machine import (
    Retry,
    WorkflowEngine,
    complete,
    event_workflow,
    goto,
    on_fail,
    run_subflow,
    sleep,
    step,
    wait,
    workflow,
)
from stepwell.testing import SynchronousExecutor


class Empty(BaseModel):
    """A Context with nothing in it."""


def no_context() -> Any:
    class Orders:
        @step(start=True)
        def begin(self) -> Any:
            return complete()

    return Orders


def context_of_another_kind() -> Any:
    class Orders:
        class Context:
            """No model."""

        @step(start=True)
        def begin(self) -> Any:
            return complete()

    return Orders


def no_start() -> Any:
    class Orders:
        Context = Empty

        @step()
        def begin(self) -> Any:
            return complete()

    return Orders


def no_steps() -> Any:
    class Orders:
        Context = Empty

    return Orders


def two_starts() -> Any:
    class Orders:
        Context = Empty

        @step(start=True)
        def one(self) -> Any:
            return complete()

        @step(start=True)
        def two(self) -> Any:
            return complete()

    return Orders


def unknown_target() -> Any:
    class Orders:
        Context = Empty

        @step(start=True)
        def begin(self) -> Any:
            return goto("ship")

    return Orders


def unknown_timeout_target() -> Any:
    class Orders:
        Context = Empty

        @step(start=True)
        def begin(self) -> Any:
            return wait.for_signal("paid", timeout=5, on_timeout="remind")

    return Orders


def a_method_that_is_no_step() -> Any:
    class Orders:
        Context = Empty

        def ship(self) -> None: ...

        @step(start=True)
        def begin(self) -> Any:
            return sleep(5, then=self.ship)

    return Orders


def two_on_fail() -> Any:
    class Orders:
        Context = Empty

        @step(start=True)
        def begin(self) -> Any:
            return complete()

        @on_fail
        def tell(self) -> None: ...

        @on_fail
        def log(self) -> None: ...

    return Orders


def step_and_on_fail() -> Any:
    class Orders:
        Context = Empty

        @step(start=True)
        @on_fail
        def begin(self) -> Any:
            return complete()

    return Orders


def two_arguments() -> Any:
    class Orders:
        Context = Empty

        @step(start=True)
        def begin(self, one: int, two: int) -> Any:
            return complete()

    return Orders


@pytest.mark.parametrize(
    "make, text",
    [
        (no_context, "Workflow Orders must define a Context class"),
        (context_of_another_kind, "Workflow Orders must define a Context class"),
        (no_start, "Workflow Orders must have exactly one step marked with start=True"),
        (no_steps, "Workflow Orders must have exactly one step marked with start=True"),
        (two_starts, "Workflow Orders has multiple start steps: one, two"),
        (unknown_target, "step begin names the step 'ship', which the class has not; it has begin"),
        (unknown_timeout_target, "step begin names the step 'remind', which the class has not"),
        (a_method_that_is_no_step, "ship, which begin goes to, is not marked with @step"),
        (two_on_fail, "Workflow Orders has two @on_fail methods: tell and log"),
        (step_and_on_fail, "begin is marked with both @step and @on_fail"),
        (two_arguments, "step begin takes 2 arguments; a step takes none, or one"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_class_that_does_not_hold_together_is_refused(
    make: Callable[[], type], text: str
) -> None:
    with pytest.raises(WorkflowConfigurationError) as caught:
        workflow("decorators-refused")(make())
    assert text in str(caught.value)


def test_a_refused_class_does_not_take_the_name() -> None:
    with pytest.raises(WorkflowConfigurationError):
        workflow("decorators-again")(no_start())

    @workflow("decorators-again")
    class Orders:
        Context = Empty

        @step(start=True)
        def begin(self) -> Any:
            return complete()

    assert Orders.__name__ == "Orders"


def good() -> Any:
    class Orders:
        Context = Empty

        @step(start=True)
        def begin(self) -> Any:
            return complete()

    return Orders


@pytest.mark.parametrize(
    "what, kind, text",
    [
        (lambda: workflow(good()), TypeError, '@workflow("orders")'),
        (lambda: workflow(""), TypeError, "takes the name of the workflow"),
        (lambda: workflow("x")(len), TypeError, "@workflow goes on a class"),
        (lambda: workflow("x", default_retry=3)(good()), TypeError, "default_retry takes a Retry"),
        (lambda: workflow("x", schedule="at noon"), ValueError, "'at noon' is no cron expression"),
        (lambda: workflow("x", schedule="0 9 * * *", timezone="Mars"), ValueError, "'Mars'"),
        (lambda: workflow("x", schedule="0 9 * * *", misfire="run"), ValueError, "skip, once, all"),
        (lambda: event_workflow(good()), TypeError, '@event_workflow("paid")'),
        (
            lambda: event_workflow("paid", offset_minutes=5, offset=timedelta(minutes=5)),
            ValueError,
            "offset or offset_minutes, not both",
        ),
        (lambda: step(retry=3), TypeError, "retry takes a Retry(...), not 3"),
        (lambda: step(timeout=0), ValueError, "timeout must be above 0, got 0"),
        (lambda: step(timeout="1 min"), TypeError, "timeout"),
        (lambda: step(7), TypeError, "@step goes on a method, not on 7"),
        (lambda: on_fail(7), TypeError, "@on_fail goes on a method, not on 7"),
        (lambda: Retry(max_attempts=0), ValueError, "max_attempts must be 1 or more, got 0"),
        (lambda: Retry(max_attempts=True), ValueError, "max_attempts must be 1 or more"),
        (lambda: Retry(base_delay=timedelta(-1)), ValueError, "must not be negative"),
        (lambda: Retry(backoff_factor=0.5), ValueError, "backoff_factor must be 1 or more"),
        (lambda: Retry(jitter=2), ValueError, "jitter is a part of the delay, from 0 to 1, got 2"),
        (lambda: Retry(retry_on=5), TypeError, "retry_on takes exception types, got 5"),
        (lambda: Retry(max_attempts="3"), TypeError, "max_attempts"),
        (lambda: Retry(base_delay="1"), TypeError, "base_delay"),
        (lambda: goto(5), TypeError, "goto() takes a step, as self.next_step or 'next_step'"),
        (lambda: goto("a", progress=2), ValueError, "progress goes from 0 to 1, got 2"),
        (lambda: goto("a", progress=float("nan")), ValueError, "progress goes from 0 to 1"),
        (lambda: sleep("1 d"), TypeError, "sleep() takes a timedelta (or seconds)"),
        (lambda: sleep(-1), ValueError, "sleep() takes a duration of 0 s to about 3,000 years"),
        (lambda: sleep(5, then=5), TypeError, "then= takes a step"),
        (lambda: wait.for_signal(""), TypeError, "takes the name of the signal"),
        (lambda: wait.for_signal(good), TypeError, "takes the name of the signal"),
        (lambda: wait.for_signal("a\n"), ValueError, "all printable"),
        (lambda: wait.for_signal("(moved)"), ValueError, "the engine's own"),
        (lambda: wait.for_event("event:x"), ValueError, "the engine's own"),
        (lambda: wait.for_signal("a", on_timeout="b"), ValueError, "on_timeout but no timeout"),
        (lambda: wait.for_signal("a", timeout="5"), TypeError, "timeout= takes a timedelta"),
        (lambda: wait.for_signal("a", timeout=-5), ValueError, "timeout= takes a duration"),
        (lambda: wait.for_event("a", where=5), TypeError, "where= takes a mapping"),
        (lambda: run_subflow(good(), "a"), TypeError, "takes a class decorated with @workflow"),
        (lambda: run_subflow("orders", "a"), TypeError, "takes a class decorated with @workflow"),
    ],
)
def test_a_wrong_argument_is_refused_where_it_is_given(
    what: Callable[[], Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind) as caught:
        what()
    assert text in str(caught.value)


def test_a_second_class_of_the_same_name_and_version_is_refused() -> None:
    first = workflow("decorators-twice")(good())
    with pytest.raises(WorkflowConfigurationError) as caught:
        workflow("decorators-twice")(good())
    assert "there is a workflow 'decorators-twice' of version '1' already" in str(caught.value)
    assert "another name, or another version" in str(caught.value)
    second = workflow("decorators-twice", version="2")(good())
    del first, caught
    gc.collect()
    assert workflow("decorators-twice")(good()) is not second


def test_a_class_is_decorated_once() -> None:
    made = workflow("decorators-once")(good())
    with pytest.raises(WorkflowConfigurationError, match="'decorators-once' already"):
        workflow("decorators-once-more")(made)
    with pytest.raises(WorkflowConfigurationError, match="'decorators-once' already"):
        event_workflow("happened")(made)


def test_a_subclass_is_a_workflow_of_its_own(engine: WorkflowEngine) -> None:
    @workflow("decorators-base")
    class Base:
        class Context(BaseModel):
            said: list[str] = []

        context: Context

        @step(start=True)
        def begin(self) -> Any:
            self.context.said.append("base begins")
            return goto(self.end)

        @step()
        def end(self) -> Any:
            self.context.said.append(f"{type(self).__name__} ends")
            return complete()

    @workflow("decorators-derived")
    class Derived(Base):
        @step(start=True)
        def begin(self) -> Any:
            self.context.said.append("derived begins")
            return super().begin()

    with pytest.raises(TypeError, match=r"Plain.* is not decorated"):

        class Plain(Base):
            pass

        engine.start(Plain)
    assert engine.start(Base).refresh().data["said"] == ["base begins", "Base ends"]
    derived = engine.start(Derived).refresh()
    assert derived.data["said"] == ["derived begins", "base begins", "Derived ends"]


def test_an_overridden_step_that_is_no_step_any_more_is_gone() -> None:
    class Base:
        Context = Empty

        @step(start=True)
        def begin(self) -> Any:
            return goto(self.end)

        @step()
        def end(self) -> Any:
            return complete()

    class Derived(Base):
        def end(self) -> Any:
            return complete()

    with pytest.raises(WorkflowConfigurationError, match="end"):
        workflow("decorators-overridden")(Derived)


def waiting(explicit: bool) -> Any:
    class Loans:
        Context = Empty

        @step(start=True)
        def begin(self) -> Any:
            return goto(self.review) if explicit else goto(self.denied)

        if explicit:

            @step()
            def review(self) -> Any:
                return wait.for_signal("reviewed", then=self.denied)

        else:

            @step()
            def review(self) -> Any:
                return wait.for_signal("reviewed")

        @step()
        def denied(self) -> Any:
            return complete()

    return Loans


def test_an_implicit_next_step_that_others_go_to_is_told_of() -> None:
    with pytest.warns(UserWarning, match=r"review waits .* then=self\.denied") as seen:
        workflow("decorators-implicit")(waiting(explicit=False))
    assert seen[0].filename == __file__


def test_a_named_next_step_is_not() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        workflow("decorators-explicit")(waiting(explicit=True))


def test_an_implicit_next_step_of_its_own_is_not() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        @workflow("decorators-linear")
        class Linear:
            Context = Empty

            @step(start=True)
            def ask(self) -> Any:
                return wait.for_signal("answer", timeout=5, on_timeout="late")

            @step()
            def read(self) -> Any:
                return complete()

            @step()
            def late(self) -> Any:
                return complete()

        assert Linear


def test_step_without_parentheses() -> None:
    @workflow("decorators-bare")
    class Bare:
        Context = Empty

        @step(start=True)
        def begin(self) -> Any:
            return goto(self.end)

        @step
        def end(self) -> Any:
            return complete()

    assert Bare


def test_an_engine_whose_loop_is_gone_is_no_obstacle() -> None:
    executor = SynchronousExecutor()
    engine = WorkflowEngine()
    engine.set_executor(executor)
    assert engine.runs.count() == 0
    executor.stop()  # and not the engine: as when a program is torn down in any order
    assert workflow("decorators-after")(good())
