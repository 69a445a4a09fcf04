"""Durable pipelines: what is kept, what is refused, what is there after a crash."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from stepwell import Context, Engine, StartEvent, StopEvent, step
from stepwell import Workflow as EventWorkflow
from stepwell.errors import UnserializableValue
from stepwell.pipeline import Dep, Pipeline, PipelineContext, Step
from stepwell.testing import HookedEngine, VirtualClock
from stepwell.values import RunStatus

BOOM = ValueError("boom")


async def boom() -> None:
    raise BOOM


class Order(BaseModel):
    at: datetime
    total: Decimal


class Gateway:
    def __init__(self) -> None:
        self.lock = threading.Lock()


async def test_values_of_many_kinds_are_kept(sqlite_engine: HookedEngine) -> None:
    values = {
        "order": Order(at=datetime(2026, 1, 1, tzinfo=UTC), total=Decimal("1.50")),
        "deep": {"list": [1, {"a": None}]},
        "a/b": "slash",
        "~": "tilde",
        "x.y": "dot",
        "é €": "letters",
    }

    async def look(ctx: PipelineContext) -> list[str]:
        assert {k: ctx[k] for k in values} == values
        ctx["deep"]["list"].append(2)
        return list(ctx)

    pipeline = Pipeline(ctx=values, engine=sqlite_engine, types=[Order]).add_step(look)
    result = await pipeline.run(name="given")
    assert result["deep"] == {"list": [1, {"a": None}, 2]}
    state = await sqlite_engine.state(result.run_id)
    assert state == {**values, "deep": {"list": [1, {"a": None}, 2]}, "name": "given"} | {
        "look": [*values, "name"]
    }


async def test_a_value_that_cant_be_kept_is_named_and_nothing_is_left(
    sqlite_engine: HookedEngine,
) -> None:
    pipeline = Pipeline(ctx={"order": 1, "gateway": Gateway()}, engine=sqlite_engine)
    pipeline.add_step(boom)
    with pytest.raises(UnserializableValue, match="gateway"):
        await pipeline.run()
    assert not pipeline.records
    assert await sqlite_engine.list() == ([], None)
    assert (await Pipeline(ctx={"gateway": Gateway()}).add_step(len_of).run())["len_of"] == 1


async def len_of(ctx: dict[str, Any]) -> int:
    return len(ctx)


async def test_dependencies_are_not_kept(sqlite_engine: HookedEngine) -> None:
    gateway = Gateway()

    async def use(ctx: PipelineContext) -> bool:
        return ctx["gateway"] is gateway is ctx["other"]

    pipeline = Pipeline(
        ctx={"gateway": Dep(gateway)}, deps={"other": gateway}, engine=sqlite_engine
    )
    result = await pipeline.add_step(use).run()
    assert result["use"]
    assert await sqlite_engine.state(result.run_id) == {"use": True}


async def test_a_model_is_kept_with_its_types(sqlite_engine: HookedEngine) -> None:
    async def add(ctx: Order) -> None:
        ctx.total += 1

    pipeline = Pipeline(
        ctx=Order(at=datetime(2026, 1, 1, tzinfo=UTC), total=Decimal("1.50")),
        engine=sqlite_engine,
    )
    result = await pipeline.add_step(add).run()
    state = await sqlite_engine.state(result.run_id)
    assert state == dict(result) == {**pipeline.initial, "total": Decimal("2.50")}


async def test_a_failure_is_kept_and_told(sqlite_engine: HookedEngine) -> None:
    async def handle(ctx: PipelineContext) -> str:
        return f"{ctx['normal_error']['step']}: {ctx['error_message']}"

    pipeline = Pipeline(engine=sqlite_engine).add_step(boom, retries=1)
    result = await pipeline.add_error_step(handle).run()
    assert (result.status, result.handled, result.error) == (RunStatus.FAILED, True, BOOM)
    assert result["handle"] == "boom: boom"
    info = await sqlite_engine.get(result.run_id)
    assert info.status is RunStatus.FAILED


async def test_an_attempt_that_failed_has_changed_nothing(sqlite_engine: HookedEngine) -> None:
    tries: list[int] = []

    async def flaky(ctx: PipelineContext) -> None:
        ctx["list"].append(len(tries))
        ctx["set"] = len(tries)
        tries.append(1)
        if len(tries) < 3:
            raise OSError("not yet")

    pipeline = Pipeline(ctx={"list": []}, engine=sqlite_engine).add_step(flaky, retries=2)
    result = await pipeline.run()
    assert dict(result) == {"list": [2], "set": 2}


async def test_what_steps_of_a_group_change_in_place_is_kept(sqlite_engine: HookedEngine) -> None:
    async def one(ctx: PipelineContext) -> None:
        ctx["one"].append(1)

    async def two(ctx: PipelineContext) -> None:
        ctx["two"]["two"] = ctx["one"]

    pipeline = Pipeline(ctx={"one": [], "two": {}}, engine=sqlite_engine)
    result = await pipeline.add_parallel_steps([one, two], "g").run()
    assert dict(result) == {"one": [1], "two": {"two": []}, "g": [None, None]}
    assert await sqlite_engine.state(result.run_id) == dict(result)


async def test_a_wait_for_a_signal_and_for_one_that_does_not_come(
    sqlite_engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    async def ask(ctx: PipelineContext) -> Any:
        return await ctx.wait_for_signal("approved")

    async def hope(ctx: PipelineContext) -> str:
        try:
            await ctx.wait_for_signal("never", timeout=3600)
        except TimeoutError:
            return "nobody"
        return "somebody"

    pipeline = Pipeline(engine=sqlite_engine).add_step(ask).add_step(hope)
    run = asyncio.create_task(pipeline.run(run_id="r"))
    await virtual_clock.settle()
    assert await sqlite_engine.signal("r", "approved", {"by": "Ada"})
    result = await run
    assert (result["ask"], result["hope"]) == ({"by": "Ada"}, "nobody")


async def test_in_memory_signals_come_through_the_handler_of_nobody() -> None:
    def in_thread(ctx: PipelineContext) -> None:
        coroutine = ctx.wait_for_signal("x")
        try:
            coroutine.send(None)
        finally:
            coroutine.close()

    with pytest.raises(RuntimeError, match="inside of async steps only"):
        await Pipeline().add_step(in_thread).run()


async def test_the_same_key_is_the_same_run(sqlite_engine: HookedEngine) -> None:
    runs: list[int] = []

    async def count() -> int:
        runs.append(1)
        return len(runs)

    pipeline = Pipeline(engine=sqlite_engine).add_step(count)
    first = await pipeline.run(key="k")
    second = await pipeline.run(key="k")
    assert first.run_id == second.run_id
    assert dict(first) == dict(second) == {"count": 1}
    with pytest.raises(ValueError, match="durable"):
        await Pipeline().add_step(count).run(key="k")


async def test_a_pipeline_made_anew_for_each_run(sqlite_engine: HookedEngine) -> None:
    """As programs do that give each its dependencies."""

    async def use(ctx: PipelineContext) -> int:
        return ctx["gateway"]

    results = [
        await Pipeline(name="made", deps={"gateway": n}).add_step(use).run(engine=sqlite_engine)
        for n in range(3)
    ]
    assert [r["use"] for r in results] == [0, 1, 2]


async def test_cancel_and_the_exit_scope(
    sqlite_engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    left: list[str] = []

    async def slow() -> None:
        await asyncio.sleep(3600)

    async def clean() -> None:
        await asyncio.sleep(1)
        left.append("clean")

    pipeline = Pipeline(engine=sqlite_engine).add_step(slow).add_exit_step(clean)
    run = asyncio.create_task(pipeline.run())
    await asyncio.sleep(60)
    pipeline.cancel("enough")
    result = await run
    assert result.status is RunStatus.CANCELLED
    assert str(result.error) == "enough"
    run = asyncio.create_task(pipeline.run(run_id="other"))
    await asyncio.sleep(60)
    await sqlite_engine.cancel("other")
    assert (await run).status is RunStatus.CANCELLED
    assert left == ["clean", "clean"]


async def test_it_is_a_part_of_an_event_workflow(sqlite_engine: HookedEngine) -> None:
    inner = Pipeline(ctx={"a": 1}, name="inner").add_step(lambda a, b: a + b, name="sum")

    class Outer(EventWorkflow):
        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=(await ctx.run_child(inner, b=4))["sum"])

    assert await Outer().run() == 5
    assert await Outer(timeout=None).run(engine=sqlite_engine) == 5


@pytest.mark.parametrize("exists", [False, True])
async def test_after_a_crash_it_goes_on_where_it_was(tmp_path: Path, exists: bool) -> None:
    """The engine stops in the middle; another pipeline of the same code, another factory of
    dependencies, another engine."""
    log: list[str] = []
    holds = asyncio.Event()

    def make(gateway: str) -> Pipeline:
        async def first(ctx: PipelineContext) -> str:
            log.append("first")
            return "one"

        async def second(ctx: PipelineContext) -> str:
            log.append(f"second by {ctx['gateway']}")
            if gateway == "old":
                holds.set()
                await asyncio.sleep(60)
            return "two"

        async def clean(ctx: PipelineContext) -> None:
            log.append(f"clean by {ctx['gateway']}")

        pipeline = Pipeline(ctx={"n": 1}, name="p", deps=lambda: {"gateway": gateway})
        pipeline.add_step(first).add_step(second)
        return pipeline.add_exit_step(clean)

    url = f"sqlite:///{tmp_path / 'runs.db'}"
    old = make("old")
    async with Engine(url, [old]) as engine:
        handler = await engine.start(old, run_id="r", n=2)
        await holds.wait()
        await engine.stop(0.0)
    assert not handler.is_done()
    new = make("new")
    async with Engine(url, [new]) as engine:
        await (await engine.handler("r")).wait()
        assert await engine.state("r") == {"n": 2, "first": "one", "second": "two"}
    assert log == ["first", "second by old", "second by new", "clean by new"]


async def test_steps_side_by_side_with_a_limit_are_kept_apart(sqlite_engine: HookedEngine) -> None:
    def gives(n: int) -> Step:
        async def body() -> int:
            await asyncio.sleep(10 - n)
            return n

        return Step(body, f"s{n}", err_step=Step(boom, f"e{n}"))

    pipeline = Pipeline(engine=sqlite_engine)
    pipeline.add_parallel_steps([gives(n) for n in range(7)], "g", max_concurrency=3)
    assert (await pipeline.run())["g"] == list(range(7))
