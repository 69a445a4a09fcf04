"""Child runs: results, failures, cancelling, and what happens when processes come and go."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.durable.flows import Answer, Asks, asks

from stepwell import Context, InputRequiredEvent, StartEvent, StopEvent, Workflow, step
from stepwell.errors import ChildFailed, WorkflowCancelledByUser
from stepwell.testing import HookedEngine, VirtualClock
from stepwell.values import RunStatus


def url_of(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/runs.db?durability=process"


class Parent(Workflow):
    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
        got = await ctx.run_child(asks())
        return StopEvent(result=f"child said {got}")


class Breaks(Workflow):
    @step
    async def work(self, ev: StartEvent) -> StopEvent:
        raise LookupError(ev.what)


async def child_of(engine: HookedEngine, run_id: str) -> str:
    for _ in range(50):
        rows, _ = await engine.list(parent=run_id)
        if rows and rows[0].waits:
            return rows[0].id
        await asyncio.sleep(1)
    raise AssertionError("there is no child that waits")


async def test_a_child_has_a_run_of_its_own_and_gives_its_result(
    sqlite_engine: HookedEngine,
) -> None:
    handler = await sqlite_engine.start(Parent(timeout=None))
    child = await child_of(sqlite_engine, handler.run_id)
    why = await sqlite_engine.why(handler.run_id)
    assert f"for child run {child} to end" in why.sentence
    await sqlite_engine.answer(child, {"text": "hello"})
    assert await handler == "child said hello"
    assert (await sqlite_engine.get(child)).status is RunStatus.COMPLETED


async def test_a_childs_questions_are_shown_in_its_parents_stream(
    sqlite_engine: HookedEngine,
) -> None:
    handler = await sqlite_engine.start(Parent(timeout=None))
    seen: list[str] = []
    async for event in handler.stream_events():
        seen.append(type(event).__name__)
        if isinstance(event, InputRequiredEvent):
            child = await child_of(sqlite_engine, handler.run_id)
            await sqlite_engine.answer(child, {"text": "hello"})
    assert seen == ["InputRequiredEvent", "StopEvent"]


async def test_a_childs_failure_reaches_the_step_that_waits(sqlite_engine: HookedEngine) -> None:
    class Copes(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            try:
                await ctx.run_child(Breaks(), what="a leg")
            except ChildFailed as error:
                return StopEvent(result=f"coped with {error}")
            return StopEvent(result="no error")

    assert "LookupError: a leg" in await (await sqlite_engine.start(Copes()))


async def test_a_child_is_cancelled_with_its_parent(
    sqlite_engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    handler = await sqlite_engine.start(Parent(timeout=None))
    child = await child_of(sqlite_engine, handler.run_id)
    await sqlite_engine.cancel(handler.run_id)
    with pytest.raises(WorkflowCancelledByUser):
        await handler
    await virtual_clock.settle()
    assert (await sqlite_engine.get(child)).status is RunStatus.CANCELLED


async def test_after_a_restart_a_child_goes_on_that_only_its_parents_code_knows(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    first = virtual_clock.engine(url_of(tmp_path), [Parent(timeout=None)])
    run_id = (await first.start("tests.durable.test_children.Parent")).run_id
    child = await child_of(first, run_id)
    await first.stop()
    second = virtual_clock.engine(url_of(tmp_path), [Parent(timeout=None)])
    assert Asks().workflow_name not in second.workflows
    await second.answer(child, Answer(text="still here"), question="q")
    assert await second.result(run_id) == "child said still here"


async def test_a_grandchild_too(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    class Grand(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await ctx.run_child(Parent(timeout=None)))

    first = virtual_clock.engine(url_of(tmp_path), [Grand(timeout=None)])
    run_id = (await first.start(Grand(timeout=None))).run_id
    await virtual_clock.settle()
    (middle,), _ = await first.list(parent=run_id)
    child = await child_of(first, middle.id)
    await first.stop()
    second = virtual_clock.engine(url_of(tmp_path), [Grand(timeout=None)], lease=30)
    await second.answer(child, Answer(text="deep"), question="q")
    assert await second.result(run_id) == "child said deep"


async def test_a_parent_that_is_let_go_of_comes_back_with_its_childs_result(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    engine = virtual_clock.engine(url_of(tmp_path), lease=30, release_after=60)
    handler = await engine.start(Parent(timeout=None))
    child = await child_of(engine, handler.run_id)
    await virtual_clock.advance(3600)
    assert (await engine.get(handler.run_id)).owner is None
    assert (await engine.get(child)).owner is None
    await engine.answer(child, {"text": "late"})
    assert await handler == "child said late"


async def test_several_children_at_once(sqlite_engine: HookedEngine) -> None:
    class Double(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            await asyncio.sleep(1)
            return StopEvent(result=ev.n * 2)

    class Many(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            children = (ctx.run_child(Double(), n=n) for n in range(10))
            return StopEvent(result=await asyncio.gather(*children))

    handler = await sqlite_engine.start(Many())
    assert await handler == [n * 2 for n in range(10)]
    assert len((await sqlite_engine.list(parent=handler.run_id))[0]) == 10
