"""What a step returns, and what becomes of the run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from stepwell.machine import (
    Retry,
    WorkflowEngine,
    WorkflowStatus,
    complete,
    fail,
    get_context,
    goto,
    sleep,
    step,
    wait,
    wait_for_event,
    workflow,
)
from stepwell.testing import SynchronousExecutor

DAY = timedelta(days=1)


class Box(BaseModel):
    said: list[str] = []
    approved: bool = False


def machine(name: str, begin: Callable[[Any], Any], **options: Any) -> Any:
    """A class whose first step is `begin`; it has the steps `second` and `third` behind it."""

    class Machine:
        Context = Box

        @step(start=True)
        def first(self) -> Any:
            get_context().said.append("first")
            return begin(self)

        @step()
        def second(self) -> Any:
            get_context().said.append("second")
            return complete()

        @step()
        def third(self) -> Any:
            get_context().said.append("third")
            return complete()

    return workflow(f"returns-{name}", **options)(Machine)


# --- goto ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, begin",
    [
        ("method", lambda self: goto(self.third)),
        ("name", lambda self: goto("third")),
        ("computed", lambda self: goto("thi" + "rd")),
        ("variable", lambda self: goto(getattr(self, "third"))),  # noqa: B009 - computed
        ("class", lambda self: goto(type(self).third)),
    ],
)
def test_goto_goes_there(engine: WorkflowEngine, name: str, begin: Any) -> None:
    run = engine.start(machine(f"goto-{name}", begin)).refresh()
    assert run.status == "completed"
    assert run.data["said"] == ["first", "third"]
    assert [e.step for e in run.step_executions] == ["first", "third"]


def test_goto_shows_progress(engine: WorkflowEngine) -> None:
    @workflow("returns-progress")
    class Progress:
        Context = Box

        @step(start=True)
        def begin(self) -> Any:
            return goto(self.ask, progress=0.25)

        @step()
        def ask(self) -> Any:
            return wait.for_signal("go")

    run = engine.start(Progress)
    assert run.progress == 0.0
    assert run.refresh().progress == 0.25
    engine.signal("go")
    assert run.refresh().progress == 1.0


def test_a_target_that_is_no_step_fails_the_run_at_once(engine: WorkflowEngine) -> None:
    cls = machine("lost", lambda self: goto("fo" + "urth"), default_retry=Retry(max_attempts=5))
    run = engine.start(cls).refresh()
    assert run.status == WorkflowStatus.FAILED
    assert run.error == (
        "step first of Machine goes to 'fourth', which is no step of it; it has first, second, "
        "third"
    )
    assert [(e.step, e.attempt, e.status) for e in run.step_executions] == [("first", 1, "failed")]


@pytest.mark.parametrize(
    "name, value, shown",
    [
        ("none", None, "None"),
        ("text", "second", "'second'"),
        ("mapping", {"status": "ok"}, "{'status': 'ok'}"),
        ("true", True, "True"),
        ("list", [goto("second")], "[Goto(step='second', progress=None)]"),
    ],
)
def test_anything_else_fails_the_run_and_says_what_may_be_returned(
    engine: WorkflowEngine, name: str, value: object, shown: str
) -> None:
    cls = machine(f"else-{name}", lambda self: value, default_retry=Retry(max_attempts=5))
    run = engine.start(cls).refresh()
    assert run.status == "failed"
    assert run.error == (
        f"step first of Machine returned {shown}; a step returns goto(...), sleep(...), "
        "wait.for_signal(...), wait_for_event(...), run_subflow(...), complete(...) or fail(...)"
    )
    assert len(run.step_executions) == 1
    assert run.data["said"] == []  # what the attempt changed is dropped


def test_the_function_instead_of_its_call_is_told_of(engine: WorkflowEngine) -> None:
    run = engine.start(machine("uncalled", lambda self: complete)).refresh()
    assert "step first of Machine returned <function complete" in str(run.error)


# --- sleep ---------------------------------------------------------------------------------------


def test_sleep_with_then(engine: WorkflowEngine, executor: SynchronousExecutor) -> None:
    run = engine.start(machine("sleep", lambda self: sleep(DAY, then=self.third))).refresh()
    assert (run.status, run.current_step) == ("waiting", "third")  # the step that comes next
    assert run.wake_at == executor.now() + DAY
    assert run.waiting_signal is None
    executor.advance(DAY - timedelta(seconds=1))
    assert run.refresh().status == "waiting"
    executor.advance(2)
    assert run.refresh().status == "completed"
    assert run.data["said"] == ["first", "third"]
    assert run.wake_at is None


def test_sleep_without_then_runs_the_same_step_again(
    engine: WorkflowEngine, executor: SynchronousExecutor
) -> None:
    def begin(self: Any) -> Any:
        return sleep(DAY) if len(self.context.said) < 3 else goto(self.second)

    run = engine.start(machine("again", begin)).refresh()
    for number in (1, 2):
        assert run.refresh().data["said"] == ["first"] * number
        assert run.current_step == "first"
        executor.advance(DAY)
    assert run.refresh().status == "completed"
    assert run.data["said"] == ["first", "first", "first", "second"]


@pytest.mark.parametrize("duration", [0, 0.5, 30 * DAY, 3000 * 365 * 86400.0])
def test_sleep_is_as_long_as_it_says(
    engine: WorkflowEngine, executor: SynchronousExecutor, duration: Any
) -> None:
    before = executor.now()
    cls = machine(f"sleep-{duration}", lambda self: sleep(duration, then=self.third))
    run = engine.start(cls).refresh()
    if duration == 0:
        assert run.status == "completed"
        return
    if run.wake_at is not None:
        seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
        assert (run.wake_at - before).total_seconds() == pytest.approx(seconds)


# --- waits ---------------------------------------------------------------------------------------

WAITS = [
    # name, arguments of the wait, ends by signal with, ends by timeout with
    ("bare", {}, ["first", "second"], "waits"),
    ("then", {"then": "third"}, ["first", "third"], "waits"),
    ("timeout", {"timeout": DAY}, ["first", "second"], "fails"),
    ("on", {"timeout": DAY, "on_timeout": "third"}, ["first", "second"], ["first", "third"]),
    (
        "on-then",
        {"timeout": DAY, "on_timeout": "second", "then": "third"},
        ["first", "third"],
        ["first", "second"],
    ),
    ("timeout-then", {"timeout": DAY, "then": "third"}, ["first", "third"], "fails"),
    ("seconds", {"timeout": 86400}, ["first", "second"], "fails"),
]


@pytest.mark.parametrize("kind", ["signal", "event"])
@pytest.mark.parametrize("name, options, answered, late", WAITS, ids=[w[0] for w in WAITS])
def test_waits(
    engine: WorkflowEngine,
    executor: SynchronousExecutor,
    kind: str,
    name: str,
    options: dict[str, Any],
    answered: list[str],
    late: Any,
) -> None:
    def begin(self: Any) -> Any:
        wanted = wait.for_signal if kind == "signal" else wait_for_event
        return wanted("decided", **options)

    def decide() -> None:
        if kind == "signal":
            assert engine.signal("decided", {"approved": True}) == 1
        else:
            engine.emit("decided", payload={"approved": True})

    cls = machine(f"wait-{kind}-{name}", begin)
    first, second = engine.start(cls).refresh(), None
    assert first.status == "waiting"
    assert first.waiting_signal == ("decided" if kind == "signal" else "event:decided")
    assert first.current_step == "first"
    assert first.on_timeout_step == options.get("on_timeout")
    assert first.wake_at == (executor.now() + DAY if "timeout" in options else None)
    decide()
    assert (first.refresh().status, first.data["said"]) == ("completed", answered)
    assert first.data["approved"] is True
    assert first.waiting_signal is first.wake_at is first.on_timeout_step is None

    second = engine.start(cls)
    executor.advance(2 * DAY)
    second.refresh()
    if late == "waits":
        assert second.status == "waiting"
    elif late == "fails":
        assert second.status == "failed"
        assert "decided" in str(second.error)
        assert "1 d" in str(second.error) or "86400" in str(second.error)
    else:
        assert (second.status, second.data["said"]) == ("completed", late)
        assert second.data["approved"] is False


@pytest.mark.parametrize("kind", ["signal", "event"])
def test_a_wait_of_the_last_step_completes_the_run(engine: WorkflowEngine, kind: str) -> None:
    @workflow(f"returns-last-{kind}")
    class Last:
        Context = Box

        @step(start=True)
        def only(self) -> Any:
            return wait.for_signal("go") if kind == "signal" else wait.for_event("go")

    run = engine.start(Last)
    if kind == "signal":
        engine.signal("go", {"approved": True})
    else:
        engine.emit("go", payload={"approved": True})
    assert (run.refresh().status, run.data["approved"]) == ("completed", True)
    assert run.current_step == "only"
    assert run.progress == 1.0


def test_a_step_may_wait_to_be_entered_again(engine: WorkflowEngine) -> None:
    @workflow("returns-reenter")
    class Reenter:
        Context = Box
        context: Box

        @step(start=True)
        def check(self) -> Any:
            self.context.said.append("check")
            if not self.context.approved:
                return wait.for_signal("approval", then=self.check)
            return complete()

        @step()
        def never(self) -> Any:
            return fail("not meant to be")

    run = engine.start(Reenter)
    assert engine.signal("approval") == 1  # without what it wants
    assert run.refresh().status == "waiting"
    assert engine.signal("approval", {"approved": True}) == 1
    assert (run.refresh().status, run.data["said"]) == ("completed", ["check"] * 3)


# --- complete and fail ---------------------------------------------------------------------------


def test_complete_sets_declared_fields_and_gives_all_as_the_result(engine: WorkflowEngine) -> None:
    run = engine.start(machine("done", lambda self: complete(approved=True, price="7")))
    assert run.refresh().status == "completed"
    assert run.data == {"said": ["first"], "approved": True}
    assert run.result == {"approved": True, "price": "7"} == engine.result(run.id)
    assert run.progress == 1.0
    assert run.completed_at is not None


def test_complete_with_a_field_of_the_wrong_kind_fails(engine: WorkflowEngine) -> None:
    run = engine.start(machine("done-wrong", lambda self: complete(approved="perhaps"))).refresh()
    assert run.status == "failed"
    assert "approved: Input should be a valid boolean" in str(run.error)


def test_complete_with_what_can_not_be_kept_fails(engine: WorkflowEngine) -> None:
    run = engine.start(machine("done-odd", lambda self: complete(lock=object()))).refresh()
    assert run.status == "failed"
    assert "complete().lock" in str(run.error)
    assert "builtins.object" in str(run.error)


def test_fail_fails_without_another_attempt(engine: WorkflowEngine) -> None:
    cls = machine("fail", lambda self: fail("no stock"), default_retry=Retry(max_attempts=5))
    run = engine.start(cls).refresh()
    assert (run.status, run.error) == ("failed", "no stock")
    assert run.data["said"] == ["first"]  # the step came to its end: what it changed is kept
    assert [(e.attempt, e.status) for e in run.step_executions] == [(1, "failed")]
    assert run.completed_at is not None
    with pytest.raises(Exception, match="no stock"):
        engine.result(run.id)


@pytest.mark.parametrize("way", ["async", "sync"])
def test_steps_may_be_async(engine: WorkflowEngine, way: str) -> None:
    if way == "async":

        @workflow("returns-async")
        class Machine:
            Context = Box
            context: Box

            @step(start=True)
            async def first(self) -> Any:
                assert get_context() is self.context
                self.context.said.append("async")
                return goto(self.second)

            @step()
            def second(self) -> Any:
                assert get_context() is self.context
                self.context.said.append("sync")
                return complete()

        run = engine.start(Machine).refresh()
        assert run.data["said"] == ["async", "sync"]
    else:
        run = engine.start(machine("sync", lambda self: complete())).refresh()
    assert run.status == "completed"
