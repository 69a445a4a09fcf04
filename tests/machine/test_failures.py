"""Retries, time limits, `@on_fail` and subflows: what becomes of a step that fails."""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from stepwell.machine import (
    Retry,
    SubflowResult,
    WorkflowEngine,
    WorkflowStatus,
    complete,
    fail,
    goto,
    on_fail,
    run_subflow,
    sleep,
    step,
    wait,
    workflow,
)
from stepwell.testing import SynchronousExecutor

SECOND = timedelta(seconds=1)


class Box(BaseModel):
    said: list[str] = []
    n: int = 0


def flaky(name: str, failures: list[Exception], **options: Any) -> tuple[Any, list[float]]:
    """A class whose step `work` raises these, and then succeeds; when it was tried."""
    tried: list[float] = []
    left = list(failures)
    retry = options.pop("retry", None)

    class Flaky:
        Context = Box
        context: Box

        @step(start=True)
        async def begin(self) -> Any:
            return goto(self.work)

        @step(retry=retry)
        async def work(self) -> Any:
            tried.append(asyncio.get_running_loop().time())
            if left:
                raise left.pop(0)
            return complete()

    return workflow(f"failures-{name}", **options)(Flaky), tried


def gaps(times: list[float]) -> list[float]:
    return [round(b - a, 3) for a, b in itertools.pairwise(times)]


@pytest.mark.parametrize(
    "name, options, wanted",
    [
        ("none", {}, []),
        ("default", {"default_retry": Retry(max_attempts=4)}, [1.0, 2.0, 4.0]),
        ("wins", {"default_retry": Retry(), "retry": Retry(max_attempts=1)}, []),
        ("own", {"retry": Retry(max_attempts=3, base_delay=10 * SECOND)}, [10.0, 20.0]),
        (
            "most",
            {"retry": Retry(max_attempts=6, base_delay=SECOND, max_delay=5 * SECOND)},
            [1.0, 2.0, 4.0, 5.0, 5.0],
        ),
        ("factor", {"retry": Retry(max_attempts=4, backoff_factor=1)}, [1.0, 1.0, 1.0]),
        ("five", {"default_retry": Retry(5, 2 * SECOND)}, [2.0, 4.0, 8.0, 16.0]),
    ],
)
def test_delays(
    engine: WorkflowEngine,
    executor: SynchronousExecutor,
    name: str,
    options: dict[str, Any],
    wanted: list[float],
) -> None:
    cls, tried = flaky(f"delay-{name}", [OSError("down")] * 20, **options)
    run = engine.start(cls)
    executor.advance(3600)
    assert gaps(tried) == wanted
    run.refresh()
    assert (run.status, run.error) == ("failed", "down")
    assert [(e.step, e.attempt, e.status, e.error) for e in run.step_executions[1:]] == [
        ("work", n, "failed", "OSError: down") for n in range(1, len(wanted) + 2)
    ]


def test_retry_on_chooses(engine: WorkflowEngine, executor: SynchronousExecutor) -> None:
    policy = Retry(max_attempts=5, retry_on=(OSError, KeyError))
    cls, tried = flaky("on", [OSError("a"), KeyError("b"), ValueError("c")], retry=policy)
    run = engine.start(cls)
    executor.advance(3600)
    assert len(tried) == 3
    assert (run.refresh().status, run.error) == ("failed", "c")


def test_a_run_between_attempts(engine: WorkflowEngine, executor: SynchronousExecutor) -> None:
    cls, _ = flaky("between", [OSError("down")] * 2, retry=Retry(base_delay=60 * SECOND))
    run = engine.start(cls).refresh()
    assert (run.status, run.current_step, run.error) == ("waiting", "work", "down")
    assert run.retry_count == 1
    assert run.wake_at == executor.now() + 60 * SECOND
    executor.advance(60)
    assert run.refresh().retry_count == 2
    executor.advance(120)
    run.refresh()
    assert (run.status, run.error, run.retry_count) == ("completed", None, 0)
    assert [e.attempt for e in run.step_executions if e.step == "work"] == [1, 2, 3]


def test_attempts_count_for_each_visit(
    engine: WorkflowEngine, executor: SynchronousExecutor
) -> None:
    tried: list[str] = []

    @workflow("failures-visits", default_retry=Retry(max_attempts=3))
    class Visits:
        Context = Box
        context: Box

        @step(start=True)
        def one(self) -> Any:
            tried.append("one")
            if tried.count("one") % 3:
                raise OSError("one")
            return goto(self.two)

        @step()
        def two(self) -> Any:
            tried.append("two")
            if tried.count("two") % 3:
                raise OSError("two")
            self.context.n += 1
            return complete() if self.context.n == 2 else goto(self.one)

    run = engine.start(Visits)
    executor.advance(3600)
    assert (run.refresh().status, run.error) == ("completed", None)
    assert tried == (["one"] * 3 + ["two"] * 3) * 2
    attempts = [e.attempt for e in run.step_executions]
    assert attempts == [1, 2, 3] * 4


def test_the_count_and_the_history_survive_a_restart(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/runs.db"
    cls, tried = flaky("restart", [OSError("down")] * 9, retry=Retry(4, 60 * SECOND))
    engine = WorkflowEngine()
    begun = SynchronousExecutor(store)
    engine.set_executor(begun)
    run = engine.start(cls)
    begun.advance(61)
    assert len(tried) == 2
    engine.stop()
    later = SynchronousExecutor(store, start=begun.now() + 3600 * SECOND)
    engine.set_executor(later)
    later.advance(0)
    engine.process_scheduled(later.now())
    run.refresh()
    assert (run.status, run.retry_count, len(tried)) == ("waiting", 3, 3)
    later.advance(3600)
    run = engine.runs.get(id=run.id)
    assert (run.status, run.error, len(tried)) == ("failed", "down", 4)
    assert [(e.step, e.attempt, e.error) for e in run.step_executions] == [
        ("begin", 1, None),
        *(("work", n, "OSError: down") for n in (1, 2, 3, 4)),
    ]
    engine.stop()


# --- time limits ---------------------------------------------------------------------------------


def test_an_async_step_has_its_time(engine: WorkflowEngine, executor: SynchronousExecutor) -> None:
    @workflow("failures-slow-async", default_retry=Retry(max_attempts=2))
    class Slow:
        Context = Box

        @step(start=True, timeout=30 * SECOND)
        async def work(self) -> Any:
            await asyncio.sleep(31)
            return complete()

    run = engine.start(Slow)
    executor.advance(200)
    run.refresh()
    assert run.status == "failed"
    assert "work" in str(run.error)
    assert "30" in str(run.error)
    assert [e.status for e in run.step_executions] == ["failed", "failed"]


def test_a_sync_step_has_its_time() -> None:
    engine = WorkflowEngine("memory://")
    release = threading.Event()

    @workflow("failures-slow-sync")
    class Slow:
        Context = Box
        context: Box

        @step(start=True, timeout=0.05)
        def work(self) -> Any:
            release.wait(100)
            self.context.n = 7
            return complete()

    try:
        run = engine.start(Slow)
        with pytest.raises(TimeoutError):
            engine.result(run.id, timeout=100)
        assert run.refresh().status == "failed"
    finally:
        release.set()
    assert run.refresh().data["n"] == 0
    engine.stop()


# --- on_fail -------------------------------------------------------------------------------------


def mourner(name: str, begin: Any, mourn: Any) -> Any:
    class Mourner:
        Context = Box
        context: Box

        @step(start=True)
        def work(self) -> Any:
            return begin(self)

        @step()
        def end(self) -> Any:
            return complete()

    setattr(Mourner, mourn.__name__, on_fail(mourn))
    return workflow(f"failures-{name}", default_retry=Retry(max_attempts=2))(Mourner)


def raising(self: Any) -> Any:
    self.context.said.append("worked")
    raise OSError("down")


@pytest.mark.parametrize(
    "name, begin, error, said",
    [
        ("raised", raising, "down", []),
        ("failed", lambda self: fail("no stock"), "no stock", []),
        (
            "late",
            lambda self: wait.for_signal("go", timeout=60),
            "no 'go' arrived within 60 seconds",
            [],
        ),
        ("broken", lambda self: None, "step work of Mourner returned None", []),
    ],
)
def test_on_fail_runs_once_the_run_has_failed(
    engine: WorkflowEngine,
    executor: SynchronousExecutor,
    name: str,
    begin: Any,
    error: str,
    said: list[str],
) -> None:
    errors: list[BaseException] = []

    def mourn(self: Any, error: BaseException) -> None:
        errors.append(error)
        self.context.said.append("mourned")

    run = engine.start(mourner(f"mourn-{name}", begin, mourn))
    executor.advance(600)
    run.refresh()
    assert run.status == WorkflowStatus.FAILED
    assert error in str(run.error)
    assert [error in str(one) for one in errors] == [True]
    assert run.data["said"] == [*said, "mourned"]
    if name == "raised":
        assert isinstance(errors[0], OSError)
    if name == "late":
        assert isinstance(errors[0], TimeoutError)


def test_on_fail_takes_nothing_if_it_likes(
    engine: WorkflowEngine, executor: SynchronousExecutor
) -> None:
    async def mourn(self: Any) -> None:
        self.context.said.append("mourned")

    run = engine.start(mourner("bare", raising, mourn))
    executor.advance(600)
    assert run.refresh().data["said"] == ["mourned"]


def test_on_fail_that_fails_itself(engine: WorkflowEngine, executor: SynchronousExecutor) -> None:
    def mourn(self: Any) -> None:
        self.context.said.append("mourned")
        raise KeyError("no mail")

    run = engine.start(mourner("fails", raising, mourn))
    executor.advance(600)
    run.refresh()
    assert run.status == "failed"
    assert run.error == ("down (and then mourn, the @on_fail method, raised KeyError: 'no mail')")
    assert run.data["said"] == []


def test_on_fail_that_returns_something(
    engine: WorkflowEngine, executor: SynchronousExecutor
) -> None:
    def mourn(self: Any) -> Any:
        return goto("end")

    run = engine.start(mourner("returns", raising, mourn))
    executor.advance(600)
    run.refresh()
    assert run.status == "failed"
    assert "mourn of Mourner returned Goto" in str(run.error)
    assert "returns nothing" in str(run.error)


def test_on_fail_does_not_run_for_a_cancelled_run(engine: WorkflowEngine) -> None:
    called: list[int] = []

    def mourn(self: Any) -> None:
        called.append(1)

    run = engine.start(mourner("cancelled", lambda self: wait.for_signal("go"), mourn))
    assert engine.cancel(run.id, "enough") is True
    run.refresh()
    assert (run.status, run.error, called) == ("cancelled", "enough", [])
    assert engine.cancel(run.id) is False


# --- subflows ------------------------------------------------------------------------------------


def child(name: str, begin: Any) -> Any:
    class Child:
        class Context(BaseModel):
            n: int = 0

        context: Context

        @step(start=True)
        def only(self) -> Any:
            self.context.n += 1
            return begin(self)

    return workflow(f"failures-child-{name}")(Child)


def parent(name: str, kind: Any, **fields: Any) -> tuple[Any, list[SubflowResult]]:
    seen: list[SubflowResult] = []

    class Parent:
        class Context(BaseModel):
            active_subworkflow_run_id: str = ""
            made: str = ""

        context: Context

        @step(start=True)
        def begin(self) -> Any:
            return run_subflow(kind, on_complete=self.done, on_create=self.created, **fields)

        def created(self, run_id: str) -> None:
            self.context.made = run_id

        @step()
        def done(self, result: SubflowResult) -> Any:
            seen.append(result)
            return complete(status=result.status)

    return workflow(f"failures-parent-{name}")(Parent), seen


@pytest.mark.parametrize(
    "name, begin, status, error, result",
    [
        ("completed", lambda self: complete(x=1), "completed", None, {"x": 1}),
        ("failed", lambda self: fail("no stock"), "failed", "no stock", {}),
        ("raised", lambda self: 1 / 0, "failed", "division by zero", {}),
        ("cancelled", lambda self: wait.for_signal("never"), "cancelled", "enough", {}),
    ],
)
def test_every_end_of_a_subflow_wakes_its_parent(
    engine: WorkflowEngine, name: str, begin: Any, status: str, error: str | None, result: Any
) -> None:
    cls = child(name, begin)
    kind, seen = parent(name, cls, n=40)
    run = engine.start(kind).refresh()
    made = run.data["made"]
    assert run.data["active_subworkflow_run_id"] == made
    found = engine.runs.get(parent_run_id=run.id)
    assert (found.id, found.name) == (made, f"failures-child-{name}")
    if name == "cancelled":
        assert (run.status, run.current_step) == ("waiting", "begin")
        engine.cancel(made, "enough")
    run.refresh()
    assert (run.status, run.result) == ("completed", {"status": status})
    (ended,) = seen
    assert (ended.run_id, ended.status, ended.error) == (made, status, error)
    assert ended.result == result
    if name == "raised":
        assert ended.context is None  # its first step did not come to an end
    else:
        assert isinstance(ended.context, cls.Context)
        assert ended.context.n == 41


def test_a_subflow_in_a_subflow(engine: WorkflowEngine) -> None:
    inner = child("inner", lambda self: complete(x=self.context.n))
    middle, _ = parent("middle", inner, n=1)
    outer, seen = parent("outer", middle)
    run = engine.start(outer).refresh()
    assert (run.status, run.result) == ("completed", {"status": "completed"})
    assert seen[0].result == {"status": "completed"}


def test_cancelling_cascades(engine: WorkflowEngine) -> None:
    inner = child("casc-inner", lambda self: wait.for_signal("never"))
    middle, _ = parent("casc-middle", inner)
    outer, seen = parent("casc-outer", middle)
    run = engine.start(outer)
    assert engine.runs.filter(status="waiting").count() == 3
    engine.cancel(run.id)
    assert engine.runs.filter(status="cancelled").count() == 3
    assert seen == []


def test_a_start_of_a_subflow_that_does_not_fit_fails_the_parent(engine: WorkflowEngine) -> None:
    kind, _ = parent("unfit", child("unfit", lambda self: complete()), n="many")
    run = engine.start(kind).refresh()
    assert run.status == "failed"
    assert "valid integer" in str(run.error)
    assert engine.runs.count() == 1


def test_a_step_that_wants_a_subflow_and_comes_after_none_is_told_so(
    engine: WorkflowEngine,
) -> None:
    @workflow("failures-want", default_retry=Retry(max_attempts=3))
    class Wants:
        Context = Box

        @step(start=True)
        def begin(self) -> Any:
            return goto(self.done)

        @step()
        def done(self, result: SubflowResult) -> Any:
            return complete()

    run = engine.start(Wants).refresh()
    assert run.status == "failed"
    assert "step done of Wants takes 'result'" in str(run.error)
    assert "run_subflow" in str(run.error)
    assert len(run.step_executions) == 2


def test_a_subflow_step_is_tried_again_with_the_same_result(
    engine: WorkflowEngine, executor: SynchronousExecutor
) -> None:
    seen: list[str] = []

    @workflow("failures-again", default_retry=Retry(max_attempts=3))
    class Again:
        Context = Box

        @step(start=True)
        def begin(self) -> Any:
            return run_subflow(kind, on_complete="done")

        @step()
        def done(self, result: SubflowResult) -> Any:
            seen.append(result.run_id)
            if len(seen) < 3:
                raise OSError("down")
            return complete()

    kind = child("again", lambda self: complete())
    run = engine.start(Again)
    executor.advance(60)
    assert run.refresh().status == "completed"
    assert len(seen) == 3
    assert len(set(seen)) == 1
    assert engine.runs.filter(parent_run_id=run.id).count() == 1


def test_sleeping_on_is_no_retry(engine: WorkflowEngine, executor: SynchronousExecutor) -> None:
    @workflow("failures-poll", default_retry=Retry(max_attempts=2))
    class Poll:
        Context = Box
        context: Box

        @step(start=True)
        def poll(self) -> Any:
            self.context.n += 1
            return complete() if self.context.n == 10 else sleep(60)

    run = engine.start(Poll)
    executor.advance(3600)
    assert (run.refresh().status, run.data["n"]) == ("completed", 10)
    assert {e.attempt for e in run.step_executions} == {1}


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_step_that_exits_ends_its_attempt_and_nothing_else(way: str) -> None:
    engine = WorkflowEngine("memory://")

    @workflow(f"failures-exit-{way}")
    class Exits:
        Context = Box

        @step(start=True)
        def begin(self) -> Any:
            return sys.exit(3) if way == "sync" else goto(self.other)

        @step()
        async def other(self) -> Any:
            sys.exit("bye")

    run = engine.start(Exits)
    with pytest.raises(Exception, match=r"called sys\.exit"):
        engine.result(run.id, timeout=100)
    assert run.refresh().status == "failed"
    engine.stop()
