"""What the engine does for those that only look and speak."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from stepwell import (
    Context,
    Engine,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from stepwell.errors import NoPendingQuestion, WorkflowRuntimeError
from stepwell.values import RunStatus


class Side(Event):
    pass


class Red(Event):
    said: str


class Busy(Workflow):
    """One step asks while another is at work."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Side | Red:
        ctx.send_event(Side())
        answer = await ctx.wait_for_event(
            HumanResponseEvent, waiter_event=InputRequiredEvent(prefix="colour?"), waiter_id="c"
        )
        return Red(said=answer.response)

    @step
    async def side(self, ev: Side) -> None:
        await asyncio.Event().wait()

    @step
    async def end(self, ev: Red) -> StopEvent:
        return StopEvent(result=ev.said)


@pytest.fixture
async def onlooker(url: str) -> AsyncIterator[Engine]:
    async with Engine(url, worker=False) as engine:
        yield engine


async def test_a_question_is_answered_while_other_steps_are_at_work(
    url: str, onlooker: Engine
) -> None:
    async with Engine(url, [Busy()], poll=0.01) as engine:
        handler = await engine.start(Busy)
        async for event in handler.stream_events():
            if isinstance(event, InputRequiredEvent):
                break
        info = await onlooker.get(handler.run_id)
        assert info.status is RunStatus.RUNNING
        (wait,) = await onlooker.waits(handler.run_id)
        assert (wait.id, wait.question) == ("c", {"prefix": "colour?"})
        await onlooker.answer(handler.run_id, "red", question="c")
        assert await handler == "red"
        assert await onlooker.waits(handler.run_id) == []
        with pytest.raises(NoPendingQuestion):
            await onlooker.answer(handler.run_id, "red")


async def test_an_engine_that_is_no_worker_leaves_what_it_starts_to_workers(
    url: str, onlooker: Engine
) -> None:
    onlooker.register(Busy())
    handler = await onlooker.start(Busy, run_id="r")
    assert (await onlooker.get("r")).status is RunStatus.QUEUED
    assert "no live worker knows" in (await onlooker.why("r")).sentence
    async with Engine(url, [Busy()], poll=0.01) as engine:
        async for event in handler.stream_events():
            if isinstance(event, InputRequiredEvent):
                break
        why = await onlooker.why("r")
        assert f"running on worker {engine.worker_id}: " in why.sentence
        assert "side (attempt 1, for " in why.sentence
        await engine.stop(0.0)
    assert "no live worker knows" in (await onlooker.why("r")).sentence


async def test_a_parked_run_is_resumed_without_its_code_and_its_deadline_moves(
    url: str, onlooker: Engine
) -> None:
    async with Engine(url, [Busy(timeout=60)], poll=0.01) as engine:
        handler = await engine.start(Busy, run_id="r")
        async for event in handler.stream_events():
            if isinstance(event, InputRequiredEvent):
                break
        with pytest.raises(WorkflowRuntimeError, match="is running, not parked"):
            await onlooker.resume("r")
        await engine.park("r", "stop")
        while (await engine.get("r")).status is not RunStatus.PARKED:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    before = (await onlooker.journal("r"))[0][2][0]
    await onlooker.resume("r")
    info = await onlooker.get("r")
    assert (info.status, info.owner) == (RunStatus.RUNNING, None)
    after = (await onlooker.journal("r"))[-1][2]
    assert isinstance(before, list)
    assert isinstance(after[0], list)
    assert after[0][0] == "res"
    assert float(str(after[0][3])) > float(str(before[2]))
    async with Engine(url, [Busy()], poll=0.01) as engine:
        await onlooker.answer("r", "red")
        assert await engine.result("r") == "red"
