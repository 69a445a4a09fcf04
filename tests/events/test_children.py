"""Runs inside of runs."""

from __future__ import annotations

import asyncio

import pytest

from stepwell import Context, Event, HumanResponseEvent, StartEvent, StopEvent, Workflow, step
from stepwell.errors import ChildFailed, WorkflowCancelledByUser, WorkflowTimeoutError
from stepwell.retry_policy import retry_policy, stop_after_attempt, wait_none


class Note(Event):
    text: str


class Question(StartEvent):
    n: int


class Answer(StopEvent):
    n: int


class Double(Workflow):
    @step
    async def only(self, ctx: Context, ev: Question) -> Answer:
        ctx.write_event_to_stream(Note(text=f"doubling {ev.n}"))
        await asyncio.sleep(0)
        return Answer(n=ev.n * 2)


async def test_a_child_gives_its_result_and_is_seen_in_the_stream_of_its_parent() -> None:
    class Parent(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.write_event_to_stream(Note(text="before"))
            first = await ctx.run_child(Double, n=2)
            second = await ctx.run_child(Double(timeout=30), n=first.n)
            return StopEvent(result=second.n)

    handler = Parent().run()
    texts = [ev.text async for ev in handler.stream_events() if isinstance(ev, Note)]
    assert texts == ["before", "doubling 2", "doubling 4"]
    assert await handler == 8


async def test_children_run_side_by_side() -> None:
    class Parent(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            got = await asyncio.gather(*(ctx.run_child(Double, n=n) for n in range(5)))
            return StopEvent(result=[answer.n for answer in got])

    assert await Parent().run() == [0, 2, 4, 6, 8]


async def test_children_may_have_children() -> None:
    class Countdown(Workflow):
        @step
        async def only(self, ctx: Context, ev: Question) -> StopEvent:
            if ev.n == 0:
                ctx.write_event_to_stream(Note(text="bottom"))
                return StopEvent(result=[0])
            return StopEvent(result=[ev.n, *await ctx.run_child(Countdown, n=ev.n - 1)])

    handler = Countdown().run(n=4)
    assert [ev.text async for ev in handler.stream_events() if isinstance(ev, Note)] == ["bottom"]
    assert await handler == [4, 3, 2, 1, 0]


async def test_the_error_of_a_child_is_raised_in_the_step_that_asked() -> None:
    class Child(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            raise KeyError("child")

    class Parent(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            if ev.get("catch"):
                with pytest.raises(KeyError, match="child"):
                    await ctx.run_child(Child)
                return StopEvent(result="caught")
            return StopEvent(result=await ctx.run_child(Child))

    assert await Parent().run(catch=True) == "caught"
    with pytest.raises(KeyError, match="child"):
        await Parent().run()


async def test_a_retry_runs_a_failed_child_again_and_keeps_one_that_succeeded() -> None:
    ran: list[str] = []

    class Child(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            ran.append(ev.name)
            if ev.name == "flaky" and len(ran) < 3:
                raise ValueError("once")
            return StopEvent(result=ev.name)

    class Parent(Workflow):
        @step(retry_policy=retry_policy(wait=wait_none(), stop=stop_after_attempt(2)))
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            sure = await ctx.run_child(Child, name="sure")
            flaky = await ctx.run_child(Child, name="flaky")
            return StopEvent(result=(sure, flaky))

    assert await Parent(timeout=30).run() == ("sure", "flaky")
    assert ran == ["sure", "flaky", "flaky"]


class Endless(Workflow):
    left: list[str]

    @step
    async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
        try:
            if ev.get("wait"):
                await ctx.wait_for_event(HumanResponseEvent)
            await asyncio.Event().wait()
        finally:
            self.left.append(ev.get("name", "child"))
        return StopEvent()


def endless(**options: float | None) -> Endless:
    child = Endless(**options)  # type: ignore[arg-type]
    child.left = []
    return child


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


@pytest.mark.parametrize("wait", [True, False])
async def test_cancelling_the_parent_cancels_all_its_children(wait: bool) -> None:
    child = endless()

    class Parent(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await asyncio.gather(*(ctx.run_child(child, name=n, wait=wait) for n in "abc"))
            return StopEvent()

    handler = Parent().run()
    await settle()
    await handler.cancel_run()
    await settle()
    assert sorted(child.left) == ["a", "b", "c"]


@pytest.mark.usefixtures("virtual_time")
async def test_a_parent_that_fails_or_times_out_takes_its_children_along() -> None:
    child = endless(timeout=None)

    class Parent(Workflow):
        @step
        async def asks(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.run_child(child)
            return StopEvent()

        @step
        async def fails(self, ev: StartEvent) -> None:
            if ev.get("fail"):
                await asyncio.sleep(0.01)
                raise ValueError("other step")

    with pytest.raises(ValueError, match="other step"):
        await Parent().run(fail=True)
    await settle()
    with pytest.raises(WorkflowTimeoutError):
        await Parent(timeout=0.02).run()
    await settle()
    assert child.left == ["child", "child"]


@pytest.mark.usefixtures("virtual_time")
async def test_a_child_that_nobody_waits_for_any_more_is_cancelled() -> None:
    child = endless(timeout=None)

    class Parent(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await ctx.run_child(child)
            await settle()
            return StopEvent(result=list(child.left))

    assert await Parent(timeout=30).run() == ["child"]


@pytest.mark.usefixtures("virtual_time")
async def test_a_child_that_times_out_fails_the_step_with_its_timeout() -> None:
    child = endless(timeout=0.02)

    class Parent(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            with pytest.raises((WorkflowTimeoutError, ChildFailed), match="timed"):
                await ctx.run_child(child)
            return StopEvent(result="went on")

    assert await Parent(timeout=30).run() == "went on"


async def test_the_runs_of_a_workflow_started_by_hand_in_a_step_are_its_own() -> None:
    class Parent(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            answer = await Double().run(n=4)
            with pytest.raises(WorkflowCancelledByUser):
                handler = Double().run(n=1)
                await handler.cancel_run()
                await handler
            return StopEvent(result=answer.n)

    assert await Parent().run() == 8
