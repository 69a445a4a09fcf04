"""Failures: what error and exit steps see, what the result says, what is raised and logged."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from stepwell.errors import WorkflowRuntimeError
from stepwell.pipeline import Pipeline, Scope, Step
from stepwell.values import RunStatus

LOG: list[str] = []


@pytest.fixture(autouse=True)
def _fresh_log() -> None:
    LOG.clear()


def says(name: str, error: Exception | None = None) -> Step:
    """A step that says that it runs, and may fail."""

    async def body(ctx: dict[str, Any]) -> None:
        LOG.append(name)
        if error is not None:
            raise error

    return Step(body, name)


BOOM = ValueError("boom")


def test_error_and_then_exit_steps_run_in_order() -> None:
    pipeline = Pipeline().add_step(says("a")).add_step(says("b", BOOM)).add_step(says("c"))
    pipeline.add_exit_step(says("x1")).add_exit_step(says("x2"))
    pipeline.add_error_step(says("e1")).add_error_step(says("e2"))
    result = pipeline.run_sync()
    assert LOG == ["a", "b", "e1", "e2", "x1", "x2"]
    assert (result.status, result.handled, result.error) == (RunStatus.FAILED, True, BOOM)
    assert result.failed_step == "b"
    assert result.errors == {"b": BOOM}


def test_what_steps_see_of_a_failure() -> None:
    seen: dict[str, Any] = {}

    async def look(ctx: dict[str, Any]) -> None:
        seen.update(ctx)

    pipeline = Pipeline().add_step(says("b", BOOM)).add_error_step(look)
    result = pipeline.run_sync()
    assert seen == {
        "error": True,
        "normal_error": {"step": "b", "error": BOOM},
        "error_message": "boom",
    }
    assert dict(result) == seen
    assert Pipeline().add_step(says("a")).add_exit_step(look).run_sync().ctx == {}


def test_without_error_steps_it_raises_after_the_exit_steps(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "stepwell")
    pipeline = Pipeline().add_step(says("b", BOOM)).add_exit_step(says("x"))
    with pytest.raises(ValueError, match="boom") as caught:
        pipeline.run_sync()
    assert caught.value is BOOM
    assert LOG == ["b", "x"]
    assert pipeline.result is not None
    assert not pipeline.result.handled
    assert "normal step 'b' failed: ValueError: boom" in caplog.text


def test_a_failing_error_step_is_raised_with_the_first_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "stepwell")
    late = OSError("late")
    pipeline = Pipeline().add_step(says("b", BOOM)).add_error_step(says("e1", late))
    pipeline.add_error_step(says("e2")).add_exit_step(says("x"))
    with pytest.raises(ExceptionGroup) as caught:
        pipeline.run_sync()
    assert caught.value.exceptions == (BOOM, late)
    assert LOG == ["b", "e1", "x"]
    result = pipeline.result
    assert result is not None
    assert (result.status, result.handled, result.error) == (RunStatus.FAILED, False, BOOM)
    assert result.errors == {"b": BOOM, "e1": late}
    assert result["error_error"] == {"step": "e1", "error": late}
    assert result["normal_error"]["step"] == "b"
    levels = {r.getMessage().partition(": ")[2]: r.levelno for r in caplog.records}
    assert levels["normal step 'b' failed: ValueError: boom"] == logging.INFO
    assert levels["error step 'e1' failed: OSError: late"] == logging.ERROR


def test_each_exit_step_runs_even_if_an_earlier_one_failed() -> None:
    one, two = OSError("one"), KeyError("two")
    pipeline = Pipeline().add_step(says("a")).add_exit_step(says("x1", one))
    pipeline.add_exit_step(says("x2")).add_exit_step(says("x3", two)).add_exit_step(says("x4"))
    with pytest.raises(ExceptionGroup) as caught:
        pipeline.run_sync()
    assert LOG == ["a", "x1", "x2", "x3", "x4"]
    assert caught.value.exceptions == (one, two)
    result = pipeline.result
    assert result is not None
    assert (result.status, result.error, result.failed_step) == (RunStatus.FAILED, one, "x1")
    assert result["exit_error"] == {"step": "x3", "error": two}


def test_a_failed_exit_step_after_a_failure_and_after_one_that_was_handled() -> None:
    late = OSError("late")
    pipeline = Pipeline().add_step(says("b", BOOM)).add_exit_step(says("x", late))
    with pytest.raises(ExceptionGroup) as caught:
        pipeline.run_sync()
    assert caught.value.exceptions == (BOOM, late)
    pipeline = Pipeline().add_step(says("b", BOOM)).add_exit_step(says("x", late))
    with pytest.raises(ExceptionGroup) as caught:
        pipeline.add_error_step(says("e")).run_sync()
    assert caught.value.exceptions == (BOOM, late)


def test_cont_on_err_notes_the_failure_and_goes_on() -> None:
    pipeline = Pipeline().add_step(says("a", BOOM), cont_on_err=True)  # a Step has its own options
    with pytest.raises(ValueError, match="boom"):
        pipeline.run_sync()
    a, b = says("a", BOOM), says("b")
    pipeline = Pipeline().add_step(a.func, name="a", cont_on_err=True).add_step(b)
    LOG.clear()
    result = pipeline.add_error_step(says("e")).add_exit_step(says("x")).run_sync()
    assert LOG == ["a", "b", "x"]
    assert (result.status, result.error) == (RunStatus.COMPLETED, None)
    assert result.errors == {"a": BOOM}
    assert result["normal_error"]["step"] == "a"
    assert result["error"] is True


@pytest.mark.parametrize("how", ["err_step", "step_func", "by name"])
def test_the_error_step_of_one_step(how: str) -> None:
    fails, handler = says("b", BOOM), says("own")

    def made(**options: Any) -> Pipeline:
        pipeline = Pipeline()
        if how == "err_step":
            pipeline.add_step(fails.func, name="b", err_step=handler, **options)
        else:
            pipeline.add_step(fails.func, name="b", **options)
            covered = "b" if how == "by name" else fails.func
            pipeline.add_error_step(handler, step_func=covered)
        return pipeline.add_step(says("c")).add_exit_step(says("x"))

    with pytest.raises(ValueError, match="boom"):
        made().run_sync()
    assert LOG == ["b", "own", "x"]
    LOG.clear()
    assert made().add_error_step(says("e")).run_sync().handled
    assert LOG == ["b", "own", "e", "x"]
    LOG.clear()
    result = made(cont_on_err=True).run_sync()
    assert LOG == ["b", "own", "c", "x"]
    assert (result.status, result.handled) == (RunStatus.COMPLETED, False)


@pytest.mark.parametrize("goes_on", [False, True])
def test_the_error_step_of_one_step_fails(goes_on: bool) -> None:
    late = OSError("late")
    pipeline = Pipeline().add_step(
        says("b", BOOM).func, name="b", cont_on_err=goes_on, err_step=says("own", late)
    )
    pipeline.add_step(says("c")).add_error_step(says("e")).add_exit_step(says("x"))
    with pytest.raises(ExceptionGroup) as caught:
        pipeline.run_sync()
    assert LOG == ["b", "own", "e", "x"]
    assert set(caught.value.exceptions) == ({late} if goes_on else {BOOM, late})


def test_exit_steps_have_timeouts_and_retries_of_their_own() -> None:
    tries: list[int] = []

    async def slow() -> None:
        await asyncio.sleep(30)

    async def flaky() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise OSError

    pipeline = Pipeline().add_step(says("a")).add_exit_step(slow, timeout=0.01)
    pipeline.add_exit_step(flaky, retries=2).add_exit_step(says("x"))
    with pytest.raises(ExceptionGroup, match="slow") as caught:
        pipeline.run_sync()
    assert [type(e).__name__ for e in caught.value.exceptions] == ["StepTimeoutError"]
    assert LOG == ["a", "x"]
    assert len(tries) == 3


# --- side by side --------------------------------------------------------------------------------


def gives(name: str, value: Any = None, pause: int = 0, error: Exception | None = None) -> Step:
    async def body(ctx: dict[str, Any]) -> Any:
        LOG.append(f"+{name}")
        try:
            for _ in range(pause):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            LOG.append(f"!{name}")
            raise
        LOG.append(f"-{name}")
        if error is not None:
            raise error
        return value

    return Step(body, name)


@pytest.mark.parametrize("swapped", [False, True])
def test_results_of_a_group_are_in_the_order_given(swapped: bool) -> None:
    steps = [gives("a", 1, 5), gives("b"), gives("c", 3, 2)]
    pipeline = Pipeline()
    if swapped:
        pipeline.add_parallel_steps("g", steps)
    else:
        pipeline.add_parallel_steps(steps, name="g")
    result = pipeline.run_sync()
    assert dict(result) == {"a": 1, "c": 3, "g": [1, None, 3]}
    assert [line for line in LOG if line[0] == "-"] == ["-b", "-c", "-a"]
    assert pipeline.get_step_value("g") == [1, None, 3]


def test_a_group_without_a_name_and_without_steps() -> None:
    result = Pipeline().add_parallel_steps([gives("a", 1), gives("b", 2)]).run_sync()
    assert [1, 2] in result.values()
    with pytest.raises(ValueError, match="has no steps"):
        Pipeline().add_parallel_steps([], name="g")
    with pytest.raises(ValueError, match="max_concurrency"):
        Pipeline().add_parallel_steps([gives("a")], max_concurrency=0)


def test_the_first_failure_stops_the_others() -> None:
    pipeline = Pipeline().add_parallel_steps([gives("a", 1, 99), gives("b", error=BOOM)], name="g")
    pipeline.add_step(says("after")).add_exit_step(says("x"))
    with pytest.raises(ValueError, match="boom"):
        pipeline.run_sync()
    assert LOG == ["+a", "+b", "-b", "!a", "x"] or LOG == ["+a", "+b", "-b", "x", "!a"]
    assert pipeline.result is not None
    assert pipeline.result.errors == {"b": BOOM}
    assert "a" not in pipeline.result


@pytest.mark.parametrize("limit", [None, 2])
def test_or_all_are_waited_for(limit: int | None) -> None:
    late = OSError("late")
    steps = [gives("a", error=BOOM), gives("b", 2, 9), gives("c", error=late)]
    pipeline = Pipeline().add_parallel_steps(
        steps, name="g", fail_fast=False, max_concurrency=limit
    )
    with pytest.raises(ExceptionGroup, match="'g' failed: a, c") as caught:
        pipeline.add_step(says("after")).run_sync()
    assert caught.value.exceptions == (BOOM, late)
    assert "-b" in LOG
    assert "after" not in LOG
    assert pipeline.result is not None
    assert pipeline.result["normal_error"]["step"] == "g"
    assert pipeline.result.errors.keys() == {"a", "c", "g"}


@pytest.mark.parametrize("fail_fast", [True, False])
@pytest.mark.parametrize("limit", [None, 2])
def test_a_step_of_a_group_that_may_fail(fail_fast: bool, limit: int | None) -> None:
    may_fail = Step(gives("a", error=BOOM).func, "a", cont_on_err=True, err_step=says("own"))
    pipeline = Pipeline().add_parallel_steps(
        [may_fail, gives("b", 2, 9)], name="g", fail_fast=fail_fast, max_concurrency=limit
    )
    result = pipeline.add_step(says("after")).run_sync()
    assert result["g"] == [None, 2]
    assert LOG.count("own") == LOG.count("after") == 1
    assert LOG[-1] == "after"
    assert result.errors == {"a": BOOM}


@pytest.mark.parametrize("fail_fast", [True, False])
def test_the_error_step_of_one_step_of_a_group(fail_fast: bool) -> None:
    fails = Step(gives("a", error=BOOM).func, "a", err_step=says("own"))
    pipeline = Pipeline().add_parallel_steps([fails, gives("b", 2)], "g", fail_fast=fail_fast)
    with pytest.raises(ValueError if fail_fast else ExceptionGroup):
        pipeline.add_exit_step(says("x")).run_sync()
    assert LOG[-2:] == ["own", "x"]


def test_a_group_of_exit_steps_is_not_cut_short() -> None:
    pipeline = Pipeline().add_step(says("a"))
    pipeline.add_parallel_steps(
        [gives("x", error=BOOM), gives("y", 1, 9)], name="g", scope=Scope.EXIT
    )
    pipeline.add_exit_step(says("z"))
    with pytest.raises(ExceptionGroup) as caught:
        pipeline.run_sync()
    assert LOG[-2:] == ["-y", "z"]
    (group,) = caught.value.exceptions
    assert isinstance(group, ExceptionGroup)
    assert group.exceptions == (BOOM,)


def test_a_group_of_error_steps() -> None:
    pipeline = Pipeline().add_step(says("b", BOOM))
    pipeline.add_parallel_steps([gives("e", 1), gives("f", 2)], name="g", scope=Scope.ERROR)
    result = pipeline.run_sync()
    assert result.handled
    assert result["g"] == [1, 2]


def test_steps_of_a_group_do_not_see_each_others_changes() -> None:
    async def one(ctx: dict[str, Any]) -> None:
        ctx["one"] = 1
        ctx["seen"].append("one")
        await asyncio.sleep(0)
        assert "two" not in ctx

    async def two(ctx: dict[str, Any]) -> None:
        ctx["two"] = 2
        del ctx["old"]
        await asyncio.sleep(0)
        assert "one" not in ctx
        assert ctx["seen"] == []

    result = Pipeline(ctx={"seen": [], "old": 1}).add_parallel_steps([one, two], "g").run_sync()
    assert dict(result) == {"seen": ["one"], "one": 1, "two": 2, "g": [None, None]}


def sets(name: str, value: Any) -> Step:
    async def body(ctx: dict[str, Any]) -> None:
        ctx["key"] = value

    return Step(body, name)


def appends(name: str) -> Step:
    async def body(ctx: dict[str, Any]) -> None:
        ctx["key"].append(name)

    return Step(body, name)


@pytest.mark.parametrize("make", [lambda n: sets(n, n), appends])
def test_two_steps_of_a_group_that_change_one_key(make: Any) -> None:
    pipeline = Pipeline(ctx={"key": []}).add_parallel_steps([make("a"), make("b")], name="g")
    with pytest.raises(WorkflowRuntimeError, match=r"'a' and 'b' .*'g' both set ctx\['key'\]"):
        pipeline.run_sync()
    reducing = Pipeline(ctx={"key": 0}, reducers={"key": lambda one, two: one + two})
    reducing.add_parallel_steps([sets("a", 1), sets("b", 2), sets("c", 4)], name="g")
    assert reducing.run_sync()["key"] == 7


def test_no_more_at_once_than_max_concurrency() -> None:
    now, most = 0, 0

    async def one() -> int:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        return now

    steps = [Step(one, f"s{n}") for n in range(10)]
    result = Pipeline().add_parallel_steps(steps, "g", max_concurrency=3).run_sync()
    assert most == 3
    assert len(result["g"]) == 10
    with pytest.raises(ValueError, match="one timeout"):
        Pipeline().add_parallel_steps(
            [Step(one, "a", timeout=1), Step(one, "b")], max_concurrency=2
        )


def test_a_group_in_a_branch_and_a_branch_after_a_group() -> None:
    group = Pipeline().add_parallel_steps([gives("a", 1), gives("b", 2)], "g")
    group.add_cond_step([gives("yes", "yes")], [gives("no", "no")])
    assert "yes" in group.run_sync()
