"""Saving a run's context as data, and going on with it."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from stepwell import (
    All,
    Collect,
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from stepwell.context import JsonSerializer
from stepwell.errors import ContextSerdeError
from stepwell.retry_policy import retry_policy, stop_after_attempt, wait_fixed


class A(Event):
    n: int = 0


class B(Event):
    n: int = 0


class Answer(HumanResponseEvent):
    text: str = ""


def through_json(data: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(data))


class Count(Workflow):
    @step
    async def add(self, ctx: Context, ev: StartEvent) -> StopEvent:
        n = await ctx.store.get("n", default=0) + 1
        await ctx.store.set("n", n)
        return StopEvent(result=n)


async def test_before_and_after_a_run_only_the_state_is_there_to_save() -> None:
    flow = Count()
    ctx = Context(flow)
    await ctx.store.set("n", 5)
    before = through_json(ctx.to_dict())
    assert before["is_running"] is False
    restored = Context.from_dict(flow, before)
    assert not restored.is_running
    assert await flow.run(ctx=restored) == 6
    after = through_json(restored.to_dict())
    assert after["is_running"] is False
    assert await flow.run(ctx=Context.from_dict(flow, after)) == 7
    assert "state" not in restored.to_dict(include_state=False)


class Hang(Workflow):
    entered: list[str]

    @step
    async def first(self, ctx: Context, ev: StartEvent) -> A:
        await ctx.store.set("first", "done")
        return A(n=7)

    @step
    async def second(self, ctx: Context, ev: A) -> StopEvent:
        self.entered.append(ctx.idempotency_key)
        if len(self.entered) == 1:
            await asyncio.Event().wait()
        return StopEvent(result=(ev.n, await ctx.store.get("first")))


async def test_a_cancelled_run_goes_on_where_it_was() -> None:
    flow = Hang()
    flow.entered = []
    handler = flow.run()
    await asyncio.sleep(0)
    await handler.cancel_run()
    saved = through_json(handler.ctx.to_dict())
    assert saved["is_running"] is True
    ctx = Context.from_dict(flow, saved)
    assert ctx.is_running
    assert await flow.run(ctx=ctx) == (7, "done")
    assert not ctx.is_running
    # the work is the same, so outside systems see the same key
    assert len(flow.entered) == 2
    assert len(set(flow.entered)) == 1


async def test_a_run_is_saved_while_it_goes_on() -> None:
    flow = Hang()
    flow.entered = []
    handler = flow.run()
    await asyncio.sleep(0)
    saved = through_json(handler.ctx.to_dict())
    resumed = flow.run(ctx=Context.from_dict(flow, saved))
    assert resumed.run_id != handler.run_id  # the first is alive and keeps its id
    assert await resumed == (7, "done")
    await handler.cancel_run()


async def test_a_context_not_yet_run_again_can_be_saved_once_more() -> None:
    flow = Hang()
    flow.entered = []
    handler = flow.run()
    await asyncio.sleep(0)
    await handler.cancel_run()
    once = Context.from_dict(flow, through_json(handler.ctx.to_dict()))
    twice = Context.from_dict(flow, through_json(once.to_dict()))
    assert await flow.run(ctx=twice) == (7, "done")


class Ask(Workflow):
    @step
    async def ask(self, ev: StartEvent) -> InputRequiredEvent:
        return InputRequiredEvent(prefix="?")

    @step
    async def answer(self, ctx: Context, ev: Answer) -> StopEvent:
        return StopEvent(result=ev.text)


async def test_a_run_that_only_waits_for_a_person_starts_nothing_when_it_goes_on() -> None:
    flow = Ask()
    handler = flow.run()
    async for ev in handler.stream_events():
        if isinstance(ev, InputRequiredEvent):
            break
    saved = through_json(handler.ctx.to_dict())
    await handler.cancel_run()
    handler = flow.run(ctx=Context.from_dict(flow, saved))
    await handler.send_event(Answer(text="later"))
    assert await handler == "later"
    assert [type(ev) async for ev in handler.stream_events()] == [StopEvent]


class AskInside(Workflow):
    asked = 0

    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        first = await ctx.memo("first", self._once)
        answer = await ctx.wait_for_event(
            Answer, waiter_event=InputRequiredEvent(), waiter_id="q", requirements={"text": "yes"}
        )
        return StopEvent(result=(first, answer.text, ev.get("topic")))

    def _once(self) -> int:
        self.asked += 1
        return self.asked


async def test_a_step_that_waits_is_still_waiting_after_it_was_saved() -> None:
    flow = AskInside()
    handler = flow.run(topic="t")
    async for ev in handler.stream_events():
        if isinstance(ev, InputRequiredEvent):
            break
    saved = through_json(handler.ctx.to_dict())
    await handler.cancel_run()
    handler = flow.run(ctx=Context.from_dict(flow, saved))
    await handler.send_event(Answer(text="no"))
    await handler.answer("q", Answer(text="yes"))
    assert await handler == (1, "yes", "t")
    assert flow.asked == 1


async def test_half_filled_collections_are_kept() -> None:
    class Collecting(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> InputRequiredEvent | None:
            return None

        @step
        async def join(self, ctx: Context, ev: Answer) -> StopEvent | None:
            got = ctx.collect_events(ev, [Answer, Answer])
            return None if got is None else StopEvent(result=[e.text for e in got])  # type: ignore[attr-defined]

    flow = Collecting()
    handler = flow.run()
    await handler.send_event(Answer(text="1"))
    for _ in range(3):
        await asyncio.sleep(0)
    saved = through_json(handler.ctx.to_dict())
    await handler.cancel_run()
    handler = flow.run(ctx=Context.from_dict(flow, saved))
    await handler.send_event(Answer(text="2"))
    assert await handler == ["1", "2"]


async def test_a_list_that_is_being_worked_on_is_joined_all_the_same() -> None:
    hang = True

    class Fan(Workflow):
        @step
        async def fork(self, ev: StartEvent) -> list[A]:
            return [A(n=n) for n in range(4)]

        @step(num_workers=2)
        async def work(self, ev: A) -> B:
            if hang and ev.n:
                await asyncio.Event().wait()
            return B(n=ev.n * 10)

        @step
        async def join(self, evs: Annotated[list[B], Collect(All(), order="input")]) -> StopEvent:
            return StopEvent(result=[ev.n for ev in evs])

    flow = Fan()
    handler = flow.run()
    for _ in range(3):
        await asyncio.sleep(0)
    await handler.cancel_run()
    hang = False
    saved = through_json(handler.ctx.to_dict())
    assert await flow.run(ctx=Context.from_dict(flow, saved)) == [0, 10, 20, 30]


@pytest.mark.usefixtures("virtual_time")
async def test_a_try_that_is_to_come_still_comes() -> None:
    tried: list[int] = []

    class Later(Workflow):
        @step(retry_policy=retry_policy(wait=wait_fixed(0.03), stop=stop_after_attempt(2)))
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            info = ctx.retry_info()
            tried.append(info.retry_number)
            if info.retry_number == 0:
                raise ValueError("first")
            return StopEvent(result=str(info.last_exception))

    flow = Later()
    handler = flow.run()
    await asyncio.sleep(0.01)
    await handler.cancel_run()
    saved = through_json(handler.ctx.to_dict())
    assert await flow.run(ctx=Context.from_dict(flow, saved)) == "first"
    assert tried == [0, 1]


async def test_a_child_is_run_anew() -> None:
    class Child(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            answer = await ctx.wait_for_event(Answer)
            return StopEvent(result=answer.text)

    class Parent(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await ctx.run_child(AutoChild))

    class AutoChild(Workflow):
        runs = 0

        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            AutoChild.runs += 1
            if AutoChild.runs == 1:
                await asyncio.Event().wait()
            return StopEvent(result="child")

    flow = Parent()
    handler = flow.run()
    for _ in range(3):
        await asyncio.sleep(0)
    await handler.cancel_run()
    saved = through_json(handler.ctx.to_dict())
    assert await flow.run(ctx=Context.from_dict(flow, saved)) == "child"
    assert AutoChild.runs == 2


@pytest.mark.usefixtures("virtual_time")
async def test_the_limit_on_the_runs_time_goes_on_from_where_it_was() -> None:
    flow = Hang(timeout=0.1)
    flow.entered = []
    handler = flow.run()
    await asyncio.sleep(0.01)
    await handler.cancel_run()
    saved = through_json(handler.ctx.to_dict())
    await asyncio.sleep(0.12)  # time that nobody ran it does not count
    assert await flow.run(ctx=Context.from_dict(flow, saved)) == (7, "done")


@pytest.mark.usefixtures("virtual_time")
async def test_a_run_that_timed_out_is_over() -> None:
    flow = Hang(timeout=0.02)
    flow.entered = []
    handler = flow.run()
    with pytest.raises(Exception, match="timed out"):
        await handler
    saved = through_json(handler.ctx.to_dict())
    assert saved["is_running"] is False
    assert await flow.run(ctx=Context.from_dict(flow, saved)) == (7, "done")  # from its start


async def test_typed_state_is_read_back_as_its_type() -> None:
    class Inner(BaseModel):
        names: list[str] = []

    class State(BaseModel):
        n: int = 0
        inner: Inner = Inner()

    class Typed(Workflow):
        @step
        async def only(self, ctx: Context[State], ev: StartEvent) -> StopEvent:
            async with ctx.store.edit_state() as state:
                state.n += 1
                state.inner.names.append("x")
            return StopEvent(result=await ctx.store.get_state())

    flow = Typed()
    handler = flow.run()
    await handler
    ctx = Context.from_dict(flow, through_json(handler.ctx.to_dict()))
    assert await flow.run(ctx=ctx) == State(n=2, inner=Inner(names=["x", "x"]))


async def test_what_can_not_be_written_is_named() -> None:
    flow = Count()
    ctx = Context(flow)
    await ctx.store.set("client", object())
    with pytest.raises(ContextSerdeError, match="Failed to serialize state value for key client"):
        ctx.to_dict()


async def test_data_that_is_no_saved_context_is_refused() -> None:
    flow = Count()
    with pytest.raises(ContextSerdeError):
        Context.from_dict(flow, {"version": 3})
    with pytest.raises(ValueError, match="Cannot load serialized workflow context with version=99"):
        Context.from_dict(flow, {"version": 99, "is_running": False})


async def test_a_run_of_steps_that_are_gone_is_refused() -> None:
    flow = Hang()
    flow.entered = []
    handler = flow.run()
    await asyncio.sleep(0)
    await handler.cancel_run()
    with pytest.raises(ContextSerdeError, match="step 'second'"):
        Context.from_dict(Count(), through_json(handler.ctx.to_dict()))


async def test_types_that_the_data_names_are_never_imported() -> None:
    saved = Context(Count()).to_dict()
    saved["state"]["state_data"] = {
        "_data": {"x": '{"__is_pydantic": true, "value": {}, "qualified_name": "os.system"}'}
    }
    with pytest.raises(ContextSerdeError, match="not in the serializer's allowed types"):
        ctx = Context.from_dict(Count(), saved)
        await ctx.store.get("x")


# --- the formats of the library whose API this one keeps -----------------------------------------


def event_text(event: Event) -> str:
    return JsonSerializer().serialize(event)


STATE = {
    "store_type": "in_memory",
    "state_type": "DictState",
    "state_module": "workflows.context.state_store",
    "state_data": {"_data": {"first": '"done"'}},
}


@pytest.mark.parametrize("version", [1, 2])
async def test_contexts_of_formats_1_and_2_go_on(version: int) -> None:
    running: Any = event_text(A(n=3))
    if version == 2:
        running = {"event": running, "attempts": 0, "recovery_counts": {}, "worker_id": 0}
    saved = {
        "version": version,
        "state": STATE,
        "is_running": True,
        "workers": {
            "first": {
                "queue": [],
                "in_progress": [],
                "collected_events": {},
                "collected_waiters": [],
            },
            "second": {
                "queue": [],
                "in_progress": [running],
                "collected_events": {},
                "collected_waiters": [],
            },
        },
    }
    if version == 2:
        saved |= {"streams": {}, "collection_release_states": {}, "deliveries": []}
    flow = Hang()
    flow.entered = ["already"]
    assert await flow.run(ctx=Context.from_dict(flow, through_json(saved))) == (3, "done")


async def test_queues_collections_and_waits_of_format_1_are_kept() -> None:
    class Both(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> A | None:
            answer = await ctx.wait_for_event(Answer, waiter_id="w")
            return A(n=len(answer.text))

        @step
        async def join(self, ctx: Context, ev: A) -> StopEvent | None:
            got = ctx.collect_events(ev, [A, A, A])
            return None if got is None else StopEvent(result=[e.n for e in got])  # type: ignore[attr-defined]

    saved = {
        "version": 1,
        "state": {},
        "is_running": True,
        "workers": {
            "begin": {
                "queue": [],
                "in_progress": [],
                "collected_events": {},
                "collected_waiters": [
                    {
                        "waiter_id": "w",
                        "event": event_text(StartEvent()),
                        "waiting_for_event": "Answer",
                        "has_requirements": False,
                        "resolved_event": None,
                    }
                ],
            },
            "join": {
                "queue": [
                    {
                        "event": event_text(A(n=2)),
                        "attempts": 0,
                        "first_attempt_at": None,
                        "last_exception": None,
                        "last_failed_at": None,
                        "recovery_counts": {},
                    }
                ],
                "in_progress": [],
                "collected_events": {"default": [event_text(A(n=1))]},
                "collected_waiters": [],
            },
        },
    }
    flow = Both(timeout=30)
    handler = flow.run(ctx=Context.from_dict(flow, through_json(saved)))
    await asyncio.sleep(0)
    await handler.send_event(Answer(text="abc"))
    assert await handler == [1, 2, 3]


async def test_open_lists_of_format_2_are_refused_and_not_lost_silently() -> None:
    saved = {"version": 2, "state": {}, "is_running": True, "workers": {}, "streams": {"s": {}}}
    with pytest.raises(ContextSerdeError, match="list of events"):
        Context.from_dict(Count(), saved)


async def test_a_run_that_waits_for_its_turn_has_only_its_state_to_save() -> None:
    flow = Hang(num_concurrent_runs=1)
    flow.entered = []
    first, second = flow.run(), flow.run()
    await asyncio.sleep(0)
    assert through_json(second.ctx.to_dict())["is_running"] is False
    assert through_json(first.ctx.to_dict())["is_running"] is True
    await second.cancel_run()
    assert through_json(second.ctx.to_dict())["is_running"] is False
    await first.cancel_run()


async def test_a_memo_is_turned_back_into_its_type() -> None:
    class Price(BaseModel):
        amount: int

    class Memo(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            price = await ctx.memo("price", lambda: Price(amount=3), type=Price)
            if ev.get("wait"):
                await ctx.wait_for_event(Answer)
            return StopEvent(result=price)

    flow = Memo()
    handler = flow.run(wait=True)
    await asyncio.sleep(0)
    saved = through_json(handler.ctx.to_dict())
    await handler.cancel_run()
    handler = flow.run(ctx=Context.from_dict(flow, saved))
    await handler.send_event(Answer())
    assert await handler == Price(amount=3)
