"""Steps that wait: for events, for time; and the questions they ask meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stepwell import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from stepwell.errors import ContextStateError, WorkflowTimeoutError
from stepwell.retry_policy import retry_policy, stop_after_attempt, wait_none


class Question(InputRequiredEvent):
    about: str


class Answer(HumanResponseEvent):
    about: str = ""
    text: str = ""


class Item(Event):
    name: str


async def test_a_step_that_waits_goes_on_where_it_stood() -> None:
    entered = 0

    class Ask(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            nonlocal entered
            entered += 1
            got = await ctx.wait_for_event(Answer, waiter_event=Question(about="a"), waiter_id="a")
            again = await ctx.wait_for_event(Answer)
            return StopEvent(result=(got.text, again.text))

    handler = Ask().run()
    asked = 0
    async for ev in handler.stream_events():
        if isinstance(ev, Question):
            asked += 1
            await handler.send_event(Answer(text="one"))
            await handler.send_event(Answer(text="two"))
    assert await handler == ("one", "two")
    assert (entered, asked) == (1, 1)


@pytest.mark.usefixtures("virtual_time")
async def test_a_wait_that_was_given_up_takes_no_answer() -> None:
    asked_again = asyncio.Event()

    class Ask(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await ctx.wait_for_event(Answer)
            asked_again.set()
            return StopEvent(result=(await ctx.wait_for_event(Answer)).text)

    handler = Ask(timeout=0.2).run()
    await asked_again.wait()
    await asyncio.sleep(0)
    await handler.send_event(Answer(text="there"))
    assert await handler == "there"


async def test_requirements_choose_the_answer_and_others_are_kept_for_later() -> None:
    class Ask(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            second = await ctx.wait_for_event(Answer, requirements={"about": "b"})
            first = await ctx.wait_for_event(Answer, requirements={"about": "a"})
            return StopEvent(result=(first.text, second.text))

    handler = Ask().run()
    await asyncio.sleep(0)
    await handler.send_event(Answer(about="a", text="1"))
    await handler.send_event(Answer(about="b", text="2"))
    assert await handler == ("1", "2")


async def test_an_answer_of_a_subclass_does_not_match() -> None:
    class Special(Answer):
        pass

    class Ask(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=(await ctx.wait_for_event(Answer)).text)

    handler = Ask().run()
    await handler.send_event(Special(text="no"))
    await handler.send_event(Answer(text="yes"))
    assert await handler == "yes"


async def test_an_answer_may_come_before_the_question() -> None:
    go = asyncio.Event()

    class Ask(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await go.wait()
            by_type = await ctx.wait_for_event(Answer)
            by_id = await ctx.wait_for_event(Answer, waiter_id="q")
            return StopEvent(result=(by_type.text, by_id.text))

    handler = Ask().run()
    await handler.answer("q", Answer(text="by id"))
    await handler.send_event(Answer(text="by type"))
    go.set()
    assert await handler == ("by type", "by id")


class Many(Workflow):
    @step
    async def fork(self, ev: StartEvent) -> list[Item]:
        return [Item(name=name) for name in "abc"]

    @step
    async def ask(self, ctx: Context, ev: Item) -> Answer:
        return await ctx.wait_for_event(
            Answer, waiter_event=Question(about=ev.name), waiter_id=ev.name
        )

    @step
    async def join(self, evs: list[Answer]) -> StopEvent:
        return StopEvent(result=[ev.text for ev in evs])


async def test_several_questions_are_answered_by_id_in_any_order() -> None:
    handler = Many().run()
    asked: list[str] = []
    async for ev in handler.stream_events():
        if isinstance(ev, Question):
            asked.append(ev.about)
            if len(asked) == 3:
                for about in "cab":
                    await handler.answer(about, Answer(text=about.upper()))
    assert asked == ["a", "b", "c"]
    assert await handler == ["C", "A", "B"]


async def test_one_answer_without_an_id_answers_one_question() -> None:
    handler = Many(timeout=30).run()
    for text in ("1", "2", "3"):
        await handler.send_event(Answer(text=text))
    assert await handler == ["1", "2", "3"]


async def test_questions_asked_at_once_by_one_step_are_answered_in_any_order() -> None:
    class Both(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            first, second = await asyncio.gather(
                ctx.wait_for_event(Answer, waiter_id="first"),
                ctx.wait_for_event(Answer, waiter_id="second"),
            )
            return StopEvent(result=(first.text, second.text))

    handler = Both().run()
    await asyncio.sleep(0)
    await handler.answer("second", Answer(text="2"))
    await handler.answer("first", Answer(text="1"))
    assert await handler == ("1", "2")


async def test_a_body_goes_on_with_the_first_of_several_answers() -> None:
    class Both(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            waits = [asyncio.ensure_future(ctx.wait_for_event(Answer, waiter_id=id)) for id in "ab"]
            done, rest = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for other in rest:
                other.cancel()
            return StopEvent(result=[task.result().text for task in done])

    handler = Both(timeout=30).run()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await handler.answer("b", Answer(text="only b"))
    assert await handler == ["only b"]


@pytest.mark.parametrize("name", ["a:1", "1", "a#1"])
async def test_any_text_names_a_question_and_may_be_used_again(name: str) -> None:
    class Twice(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            first = await ctx.wait_for_event(Answer, waiter_id=name)
            second = await ctx.wait_for_event(Answer, waiter_id=name)
            return StopEvent(result=(first.text, second.text))

    handler = Twice().run()
    await handler.answer(name, Answer(text="1"))
    await handler.answer(f"{name}#1", Answer(text="2"))
    assert await handler == ("1", "2")


async def test_a_wait_without_an_answer_times_out_inside_the_step() -> None:
    class Ask(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            try:
                await ctx.wait_for_event(Answer, timeout=0.02)
            except TimeoutError as error:
                return StopEvent(result=str(error))
            return StopEvent()

    assert await Ask().run() == "Timed out waiting for Answer"


async def test_an_answer_is_not_also_an_input_of_the_step_that_waited_for_it() -> None:
    seen: list[str] = []

    class Ask(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent | Answer) -> StopEvent | None:
            if isinstance(ev, Answer):
                seen.append("input")
                return None
            await ctx.wait_for_event(Answer)
            await asyncio.sleep(0)
            return StopEvent(result="waited")

        @step
        async def other(self, ev: Answer) -> None:
            seen.append("other")

    handler = Ask().run()
    await asyncio.sleep(0)
    await handler.send_event(Answer())
    assert await handler == "waited"
    assert seen == ["other"]


async def test_who_waits_gives_its_worker_to_others() -> None:
    class Ask(Workflow):
        @step
        async def fork(self, ctx: Context, ev: StartEvent) -> Item | None:
            ctx.send_event(Item(name="waits"))
            ctx.send_event(Item(name="answers"))
            return None

        @step(num_workers=1)
        async def one(self, ctx: Context, ev: Item) -> StopEvent | None:
            if ev.name == "waits":
                return StopEvent(result=(await ctx.wait_for_event(Answer)).text)
            ctx.send_event(Answer(text="from the other"))
            return None

    assert await Ask(timeout=30).run() == "from the other"


@pytest.mark.usefixtures("virtual_time")
async def test_a_retry_waits_again_where_the_attempt_before_waited_in_vain() -> None:
    class Ask(Workflow):
        @step(retry_policy=retry_policy(wait=wait_none(), stop=stop_after_attempt(2)))
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            kept = await ctx.wait_for_event(Answer, waiter_id="kept")
            got = await ctx.wait_for_event(
                Answer, waiter_id="late", waiter_event=Question(about="late"), timeout=0.03
            )
            return StopEvent(result=(kept.text, got.text, ctx.retry_info().retry_number))

    handler = Ask().run()
    await handler.answer("kept", Answer(text="once"))
    tries = 0
    async for ev in handler.stream_events():
        if isinstance(ev, Question):
            tries += 1
            if tries == 2:
                await handler.answer("late", Answer(text="second try"))
    assert await handler == ("once", "second try", 1)


@pytest.mark.usefixtures("virtual_time")
async def test_time_passes_in_a_step_without_holding_its_worker() -> None:
    order: list[str] = []

    class Nap(Workflow):
        @step
        async def fork(self, ctx: Context, ev: StartEvent) -> Item | None:
            ctx.send_event(Item(name="sleeps"))
            ctx.send_event(Item(name="works"))
            return None

        @step(num_workers=1)
        async def one(self, ctx: Context, ev: Item) -> StopEvent | None:
            if ev.name == "works":
                order.append("worked")
                return None
            await ctx.sleep(0.02)
            order.append("slept")
            return StopEvent()

    await Nap().run()
    assert order == ["worked", "slept"]


@pytest.mark.usefixtures("virtual_time")
async def test_waiting_does_not_outlive_the_run() -> None:
    left: list[str] = []

    class Ask(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            try:
                await ctx.wait_for_event(Answer)
            finally:
                left.append("left")
            return StopEvent()

    with pytest.raises(WorkflowTimeoutError):
        await Ask(timeout=0.02).run()
    await asyncio.sleep(0)
    assert left == ["left"]


async def test_a_step_that_ends_its_own_run_does_not_go_on() -> None:
    went_on = False

    class Own(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            nonlocal went_on
            ctx.send_event(StopEvent(result="sent"))
            await ctx.sleep(5)
            went_on = True
            return StopEvent()

    assert await Own(timeout=30).run() == "sent"
    assert not went_on


async def test_asking_is_for_steps_only() -> None:
    class One(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

    flow = One()
    handler = flow.run()
    await handler
    calls: list[Any] = [
        lambda ctx: ctx.wait_for_event(Answer),
        lambda ctx: ctx.sleep(1),
        lambda ctx: ctx.memo("x", lambda: 1),
        lambda ctx: ctx.run_child(One),
    ]
    for call in calls:
        with pytest.raises(ContextStateError, match="only available from within step functions"):
            await call(handler.ctx)
        with pytest.raises(ContextStateError, match="requires a running workflow"):
            await call(Context(flow))
