"""Steps: what they get, what becomes of what they return, retries, timeouts, names, adding them."""

from __future__ import annotations

import asyncio
import functools
import threading
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from stepwell import StartEvent, StopEvent, step
from stepwell import Workflow as EventWorkflow
from stepwell.errors import (
    StepTimeoutError,
    WorkflowConfigurationError,
    WorkflowRuntimeError,
    WorkflowTimeoutError,
)
from stepwell.kernel.definition import Definition
from stepwell.pipeline import Dep, ExecutionMode, Pipeline, Scope, Step, Workflow
from stepwell.retry import retry_policy, stop_after_attempt, wait_fixed
from stepwell.testing import HookedEngine, VirtualClock
from stepwell.values import RunStatus


async def load(ctx: dict[str, Any]) -> str:
    return "data"


def test_the_older_name_is_the_same_class() -> None:
    assert Workflow is Pipeline
    assert {scope.name for scope in Scope} == {"NORMAL", "ERROR", "EXIT"}
    assert {mode.name for mode in ExecutionMode} == {"ASYNC", "THREAD", "PROCESS"}


def test_ctx_is_the_context_and_other_parameters_are_its_values() -> None:
    async def use(load: str, ctx: dict[str, Any], extra: int, other: str = "default") -> str:
        return f"{load} {ctx['extra']} {extra} {other}"

    result = asyncio.run(Pipeline(ctx={"extra": 1}).add_step(load).add_step(use).run(extra=2))
    assert result["use"] == "data 2 2 default"


def test_a_missing_value_names_the_step_and_the_key() -> None:
    async def use(lode: str) -> None:
        raise AssertionError

    pipeline = Pipeline(name="p").add_step(load).add_step(use)
    with pytest.raises(WorkflowRuntimeError, match=r"step 'use' .*'lode'.* it has load"):
        pipeline.run_sync()


def test_results_are_kept_under_the_names_of_steps_unless_they_are_none() -> None:
    async def nothing(ctx: dict[str, Any]) -> None:
        assert ctx.get("load") == "data"
        ctx["set"] = [1]

    pipeline = Pipeline().add_step(load).add_step(nothing)
    result = pipeline.run_sync()
    assert dict(result) == {"load": "data", "set": [1]} == pipeline.ctx
    assert result.results == {"load": "data", "nothing": None}
    assert result.timings.keys() == {"load", "nothing"}
    assert (result.status, result.error, result.handled) == (RunStatus.COMPLETED, None, False)
    assert len(result) == 2
    assert "completed" in repr(result)
    assert pipeline.get_step_value(load) == "data"
    assert pipeline.get_step_value("nothing") is None
    with pytest.raises(WorkflowConfigurationError, match="no step 'other'"):
        pipeline.get_step_value("other")


def test_plain_functions_run_in_a_thread_and_never_on_the_loop() -> None:
    def where(ctx: dict[str, Any]) -> int:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        ctx["changed"] = True
        return threading.get_ident()

    result = asyncio.run(Pipeline().add_step(where).run())
    assert result["where"] != threading.get_ident()
    assert result["changed"]
    assert not [t for t in threading.enumerate() if "Pipeline" in t.name]


def test_a_plain_function_may_pass_on_what_an_async_one_gives() -> None:
    assert Pipeline().add_step(lambda ctx: load(ctx), name="x").run_sync()["x"] == "data"


def test_methods_partials_and_callables() -> None:
    class Thing:
        async def method(self, ctx: dict[str, Any]) -> str:
            return "method"

        async def __call__(self, ctx: dict[str, Any]) -> str:
            return "called"

    async def add(a: int, b: int) -> int:
        return a + b

    pipeline = Pipeline(ctx={"b": 2}).add_step(Thing().method).add_step(Thing())
    pipeline.add_step(functools.partial(add, a=1))
    assert dict(pipeline.run_sync()) == {"b": 2, "method": "method", "Thing": "called", "add": 3}


@pytest.mark.parametrize("plain", [False, True])
def test_retries_are_further_attempts(plain: bool) -> None:
    tries: list[int] = []

    def fails(ctx: dict[str, Any]) -> str:
        ctx["half"] = len(tries)
        tries.append(1)
        if len(tries) < 3:
            raise OSError("not yet")
        return "there"

    async def fails_too(ctx: dict[str, Any]) -> str:
        return fails(ctx)

    used = fails if plain else fails_too
    pipeline = Pipeline().add_step(used, retries=2, name="fails")
    assert dict(pipeline.run_sync()) == {"half": 2, "fails": "there"}
    tries.clear()
    with pytest.raises(OSError, match="not yet"):
        Pipeline().add_step(used, retries=1).run_sync()
    assert len(tries) == 2


async def test_a_retry_policy(virtual_clock: VirtualClock, stepwell_engine: HookedEngine) -> None:
    tries: list[float] = []

    async def fails() -> None:
        tries.append(virtual_clock.now())
        raise OSError("down")

    policy = retry_policy(stop=stop_after_attempt(3), wait=wait_fixed(9))
    with pytest.raises(OSError, match="down"):
        await Pipeline(engine=stepwell_engine).add_step(fails, retry_policy=policy).run()
    assert [t - tries[0] for t in tries] == [0, 9, 18]
    with pytest.raises(ValueError, match="retries or retry_policy"):
        Pipeline().add_step(fails, retries=1, retry_policy=policy)


async def test_the_timeout_is_of_each_attempt(
    virtual_clock: VirtualClock, stepwell_engine: HookedEngine
) -> None:
    tries: list[float] = []

    async def slow() -> None:
        tries.append(virtual_clock.now())
        await asyncio.sleep(60 if len(tries) < 3 else 4)

    pipeline = Pipeline(engine=stepwell_engine)
    pipeline.add_step(slow, timeout=timedelta(seconds=5), retries=2)
    result = await pipeline.run()
    assert [t - tries[0] for t in tries] == [0, 5, 10]
    assert result.timings["slow"] == 4
    with pytest.raises(StepTimeoutError):
        await (
            Pipeline(name="x")
            .add_step(asyncio.sleep, timeout=5)
            .run(engine=stepwell_engine, delay=60)
        )


def test_the_timeout_of_a_thread(caplog: pytest.LogCaptureFixture) -> None:
    go_on = threading.Event()
    try:
        with pytest.raises(StepTimeoutError, match="Its thread can't be stopped") as caught:
            Pipeline().add_step(lambda: go_on.wait(100), name="hangs", timeout=0.05).run_sync()
        assert caught.value.abandoned
    finally:
        go_on.set()
    assert "a thread can't be" in caplog.text


async def test_the_timeout_of_steps_side_by_side(
    virtual_clock: VirtualClock, stepwell_engine: HookedEngine
) -> None:
    async def slow() -> None:
        await asyncio.sleep(60)

    pipeline = Pipeline(engine=stepwell_engine)
    pipeline.add_parallel_steps([load, slow], name="both", timeout=5)
    before = virtual_clock.now()
    with pytest.raises(StepTimeoutError):
        await pipeline.run()
    assert virtual_clock.now() - before == 5


async def test_the_timeout_of_the_run(
    virtual_clock: VirtualClock, stepwell_engine: HookedEngine
) -> None:
    left: list[str] = []

    async def slow() -> None:
        await asyncio.sleep(60)

    async def clean(ctx: dict[str, Any]) -> None:
        await asyncio.sleep(100)  # clean-up may take longer
        left.append("clean")

    pipeline = Pipeline(timeout=5, engine=stepwell_engine)
    pipeline.add_step(slow).add_error_step(load).add_exit_step(clean)
    with pytest.raises(WorkflowTimeoutError):
        await pipeline.run()
    assert left == ["clean"]
    assert pipeline.result is not None
    assert pipeline.result.status is RunStatus.TIMED_OUT
    assert "load" not in pipeline.result


NAMES = ["cancel", "error", "store", "_x", "ctx", "a/b", "~", "é €", "run", "x.y"]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_step_will_do(name: str) -> None:
    async def value() -> str:
        return name

    async def boom() -> None:
        raise ValueError(name)

    async def look(ctx: dict[str, Any]) -> None:
        assert ctx[name] == name

    result = Pipeline().add_step(value, name=name).add_step(look).run_sync()
    assert dict(result) == {name: name}
    pipeline = Pipeline().add_step(boom, name=name).add_exit_step(value, name="exit")
    with pytest.raises(ValueError, match=name):
        pipeline.run_sync()
    assert pipeline.ctx["normal_error"]["step"] == name


def test_keys_of_the_user_steer_nothing() -> None:
    async def writes(ctx: dict[str, Any]) -> None:
        ctx["error"] = True
        ctx["cancel"] = True
        ctx["normal_error"] = "mine"

    async def boom() -> None:
        raise ValueError("boom")

    pipeline = Pipeline().add_step(writes).add_step(load)
    assert pipeline.run_sync()["load"] == "data"
    pipeline = Pipeline().add_step(writes).add_step(boom).add_error_step(load)
    result = pipeline.run_sync()
    assert result["normal_error"] == "mine"
    assert result["error_message"] == "boom"
    assert isinstance(result.errors["boom"], ValueError)


def test_names_must_differ() -> None:
    pipeline = Pipeline(name="p").add_step(load).add_step(load).add_step(load)
    assert [s.name for s in pipeline.steps()] == ["load", "load_2", "load_3"]
    with pytest.raises(WorkflowConfigurationError, match="two steps called 'load'"):
        pipeline.add_step(lambda: 1, name="load")
    with pytest.raises(WorkflowConfigurationError, match="two steps called 'load'"):
        pipeline.add_parallel_steps([lambda_named("a"), lambda_named("load")], name="g")
    pipeline.add_step(lambda_named("a"))  # the group that was refused has taken no name
    pipeline.add_parallel_steps([lambda_named("b"), lambda_named("c")], name="x")
    pipeline.add_step(lambda: 1, name="x.b")
    assert pipeline.run_sync()["x"] == ["b", "c"]


def lambda_named(name: str) -> Step:
    return Step(lambda: name, name)


def test_no_steps_after_a_run_and_none_at_all() -> None:
    pipeline = Pipeline().add_step(load)
    pipeline.run_sync()
    with pytest.raises(WorkflowConfigurationError, match="has been run"):
        pipeline.add_step(load)
    with pytest.raises(WorkflowConfigurationError, match="has no steps"):
        Pipeline(name="empty").run_sync()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"retries": -1}, "retries must be 0 or more"),
        ({"timeout": 0}, "timeout must be above 0"),
        ({"execution_mode": "process"}, "is async"),
        ({"execution_mode": "elsewhere"}, "elsewhere"),
        ({"name": "a(b"}, r"without '\('"),
        ({"err_step": Step(print, err_step=max)}, "no error step of its own"),
        ({"scope": "never"}, "never"),
    ],
)
def test_arguments_that_make_no_sense(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        Pipeline().add_step(load, **options)


def test_what_is_no_function_and_what_has_no_name() -> None:
    with pytest.raises(TypeError, match="takes a function"):
        Pipeline().add_step(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="retries is a number"):
        Pipeline().add_step(load, retries=True)
    with pytest.raises(ValueError, match="needs a name"):
        Pipeline().add_step(lambda: 1)
    with pytest.raises(ValueError, match="plain function"):
        Pipeline().add_step(lambda: 1, name="x", execution_mode=ExecutionMode.ASYNC)


def test_the_decorator() -> None:
    pipeline = Pipeline()

    @pipeline.step
    async def one() -> int:
        return 1

    @pipeline.step(retries=2, name="second")
    async def two(one: int) -> int:
        return one + 1

    assert asyncio.run(two(1)) == 2
    assert pipeline.run_sync()["second"] == 2


def test_running_twice_and_at_once_shares_nothing() -> None:
    async def add(ctx: dict[str, Any], n: int) -> None:
        await asyncio.sleep(0)
        ctx["seen"].append(n)

    pipeline = Pipeline(ctx={"seen": [], "deep": {"list": []}}).add_step(add)

    async def main() -> list[list[int]]:
        runs = await asyncio.gather(*(pipeline.run(n=n) for n in range(3)))
        return [r["seen"] for r in runs]

    assert asyncio.run(main()) == [[0], [1], [2]]
    assert pipeline.run_sync(n=5)["seen"] == [5]
    assert pipeline.initial == {"seen": [], "deep": {"list": []}}


def test_a_model_as_the_context() -> None:
    class Order(BaseModel):
        id: str
        total: int = 0
        lines: list[str] = []

    async def price(ctx: Order) -> None:
        ctx.total += 5
        ctx.lines.append("a")

    async def wrong(ctx: Order) -> None:
        ctx.total = "much"  # type: ignore[assignment]

    pipeline = Pipeline(ctx=Order(id="1")).add_step(price).add_step(price, name="again")
    assert dict(pipeline.run_sync()) == {"id": "1", "total": 10, "lines": ["a", "a"]}
    assert pipeline.run_sync(id="2")["id"] == "2"
    with pytest.raises(ValidationError):
        pipeline.run_sync(id=[])
    with pytest.raises(ValidationError):
        Pipeline(ctx=Order(id="1")).add_step(wrong).run_sync()


class Gateway:
    async def charge(self, amount: int) -> str:
        return f"charged {amount}"


def test_dependencies_in_each_way_of_giving_them() -> None:
    async def charge(ctx: dict[str, Any], gateway: Gateway) -> str:
        assert ctx["gateway"] is gateway
        return await gateway.charge(3)

    made: list[int] = []

    def make() -> dict[str, Gateway]:
        made.append(1)
        return {"gateway": Gateway()}

    for options in (
        {"ctx": {"gateway": Gateway()}},
        {"ctx": {"gateway": Dep(Gateway())}},
        {"deps": {"gateway": Gateway()}},
        {"deps": make},
    ):
        pipeline = Pipeline(**options).add_step(charge)  # type: ignore[arg-type]
        assert pipeline.run_sync()["charge"] == "charged 3"
        assert isinstance(pipeline.run_sync()["gateway"], Gateway)
    assert made == [1]


def test_dependencies_are_the_pipelines() -> None:
    async def change(ctx: dict[str, Any]) -> None:
        ctx["gateway"] = None

    pipeline = Pipeline(deps={"gateway": Gateway()}).add_step(change)
    with pytest.raises(TypeError, match=r"'gateway'.* is a dependency"):
        pipeline.run_sync()
    with pytest.raises(ValueError, match="given to the pipeline"):
        pipeline.run_sync(gateway=Gateway())
    with pytest.raises(ValueError, match="given to the pipeline"):
        Pipeline().add_step(load).run_sync(other=Dep(3))
    with pytest.raises(ValueError, match="pipeline's own"):
        Pipeline(ctx={"(pipeline)": 1})


@pytest.mark.parametrize("flag", [True, False])
def test_conditions(flag: bool) -> None:
    async def is_it(flag: bool) -> bool:
        return flag

    async def yes() -> str:
        return "yes"

    async def no() -> str:
        return "no"

    async def end(ctx: dict[str, Any]) -> list[str]:
        return [k for k in ("yes", "no", "after") if k in ctx]

    async def after() -> str:
        return "after"

    word = "yes" if flag else "no"
    by_condition = Pipeline().add_cond_step(
        [yes, after], [no, Step(after, "after_2")], condition=is_it
    )
    result = by_condition.add_step(end).run_sync(flag=flag)
    assert result["end"] == (["yes", "after"] if flag else ["no"])
    by_step = Pipeline().add_step(is_it).add_cond_step(yes, no).add_step(end)
    assert by_step.run_sync(flag=flag)["end"] == [word]
    nothing_to_do = Pipeline().add_step(is_it).add_cond_step(yes)
    assert ("yes" in nothing_to_do.run_sync(flag=flag)) is flag
    nested = Pipeline().add_cond_step(yes, name="last", condition=is_it).add_exit_step(end)
    assert nested.run_sync(flag=flag)["end"] == (["yes"] if flag else [])
    with pytest.raises(WorkflowConfigurationError, match="needs a condition"):
        Pipeline().add_cond_step(yes, no)


def test_a_workflow_of_another_style_is_a_step() -> None:
    class Five(EventWorkflow):
        @step
        async def go(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=getattr(ev, "n", 5))

    async def twice(Five: int) -> int:
        return Five * 2

    async def asks(ctx: Any) -> int:
        return await ctx.run_child(Five, n=7)

    inner = Pipeline(ctx={"a": 1}, name="inner").add_step(lambda a: a + 1, name="sum")
    pipeline = Pipeline().add_step(Five).add_step(twice).add_step(inner).add_step(asks)
    result = pipeline.run_sync()
    assert (result["twice"], result["inner"], result["asks"]) == (10, {"a": 1, "sum": 2}, 7)


def test_a_pipeline_is_data() -> None:
    async def again(ctx: dict[str, Any]) -> None: ...

    pipeline = (
        Pipeline(name="p", timeout=9)
        .add_step(load, retries=2, err_step=Step(again, "own"))
        .add_parallel_steps([load, again], name="g", max_concurrency=2)
        .add_cond_step([Step(again, "t")], None, condition=load, name="c")
        .add_error_step(again)
        .add_exit_step(again)
    )
    definition = pipeline.compiled().definition
    assert Definition.from_json(definition.to_json()) == definition
    assert definition.by_name["load"].retry == {"kind": "Again", "retries": 2}


@pytest.mark.parametrize("kind", ["notebook", "thread", "uvloop"])
def test_wherever_it_runs(kind: str) -> None:
    pipeline = Pipeline().add_step(load).add_step(lambda load: load + "!", name="x")
    found: list[Any] = []
    if kind == "notebook":

        async def cell() -> None:
            found.append(pipeline.run_sync()["x"])
            found.append((await pipeline.run())["x"])

        asyncio.run(cell())
    elif kind == "thread":
        threads = [
            threading.Thread(target=lambda: found.append(pipeline.run_sync()["x"])),
            threading.Thread(target=lambda: found.append(asyncio.run(pipeline.run())["x"])),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    else:
        uvloop = pytest.importorskip("uvloop")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found.append(runner.run(pipeline.run())["x"])
    assert set(found) == {"data!"}
