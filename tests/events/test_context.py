"""The faces of a context, its state, and what may be asked where."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest
from pydantic import BaseModel, Field

from stepwell import Context, Event, HumanResponseEvent, StartEvent, StopEvent, Workflow, step
from stepwell.errors import ContextStateError, WorkflowRuntimeError
from stepwell.retry_policy import retry_policy, stop_after_attempt, wait_none


class Ping(Event):
    n: int = 0


class Counter(BaseModel):
    n: int = 0
    log: list[str] = Field(default_factory=list)


class Count(Workflow):
    @step
    async def add(self, ctx: Context, ev: StartEvent) -> StopEvent:
        n = await ctx.store.get("n", default=0) + 1
        await ctx.store.set("n", n)
        return StopEvent(result=n)


async def test_state_goes_from_run_to_run_with_the_context() -> None:
    flow = Count()
    ctx = Context(flow)
    await ctx.store.set("n", 10)
    assert await flow.run(ctx=ctx) == 11
    assert not ctx.is_running
    handler = flow.run(ctx=ctx)
    assert handler.ctx.is_running
    assert await handler == 12
    assert await flow.run(ctx=handler.ctx) == 13
    assert await ctx.store.get("n") == 13
    assert await flow.run() == 1


async def test_a_context_in_use_can_not_start_another_run() -> None:
    go = asyncio.Event()

    class Wait(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            await go.wait()
            return StopEvent()

    flow = Wait()
    ctx = Context(flow)
    handler = flow.run(ctx=ctx)
    for used in (ctx, handler.ctx):
        with pytest.raises(ContextStateError) as told:
            flow.run(ctx=used)
        assert str(told.value) == (
            "Cannot start a new run while context is already running. Wait for completion or use "
            "a new Context."
        )
    go.set()
    await handler


async def test_a_context_that_was_cancelled_starts_anew_with_its_state() -> None:
    class Hang(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.store.set("left", ev.word)
            if ev.word == "first":
                await asyncio.Event().wait()
            return StopEvent(result=ev.word)

    flow = Hang()
    ctx = Context(flow)
    handler = flow.run(ctx=ctx, word="first")
    await asyncio.sleep(0)
    await handler.cancel_run()
    assert not ctx.is_running
    assert await flow.run(ctx=ctx, word="second") == "second"


async def test_typed_state() -> None:
    class Typed(Workflow):
        @step
        async def one(self, ctx: Context[Counter], ev: StartEvent) -> StopEvent:
            async with ctx.store.edit_state() as state:
                state.n += 2
                state.log.append("one")
            return StopEvent(result=await ctx.store.get_state())

    assert await Typed().run() == Counter(n=2, log=["one"])


async def test_many_steps_at_once_edit_the_state_one_after_the_other() -> None:
    class Done(Event):
        pass

    class Edit(Workflow):
        @step
        async def fork(self, ev: StartEvent) -> list[Ping]:
            return [Ping(n=n) for n in range(20)]

        @step(num_workers=20)
        async def edit(self, ctx: Context[Counter], ev: Ping) -> Done:
            async with ctx.store.edit_state() as state:
                n = state.n
                await asyncio.sleep(0)
                state.n = n + 1
            return Done()

        @step
        async def join(self, ctx: Context[Counter], evs: list[Done]) -> StopEvent:
            return StopEvent(result=await ctx.store.get("n"))

    assert await Edit().run() == 20


async def test_writing_inside_edit_state_is_an_error_and_not_a_deadlock() -> None:
    class Edit(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            async with ctx.store.edit_state():
                await ctx.store.set("n", 1)
            return StopEvent()

    with pytest.raises(RuntimeError, match="writer called inside edit_state"):
        await Edit(timeout=30).run()


async def test_what_a_failed_attempt_changed_is_undone() -> None:
    class Undo(Workflow):
        @step(retry_policy=retry_policy(wait=wait_none(), stop=stop_after_attempt(3)))
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            seen = await ctx.store.get("n", default=0)
            await ctx.store.set("n", seen + 1)
            if ctx.retry_info().retry_number < 2:
                raise ValueError("again")
            return StopEvent(result=(seen, await ctx.store.get("n")))

    flow = Undo()
    ctx = Context(flow)
    assert await flow.run(ctx=ctx) == (0, 1)
    assert await flow.run(ctx=ctx) == (1, 2)  # also in the second run with one context


async def test_what_was_changed_before_the_run_failed_is_undone_and_the_rest_stays() -> None:
    class Fail(Workflow):
        @step
        async def one(self, ctx: Context, ev: StartEvent) -> Ping:
            await ctx.store.set("one", 1)
            return Ping()

        @step
        async def two(self, ctx: Context, ev: Ping) -> StopEvent:
            await ctx.store.set("two", 2)
            raise ValueError("no")

    handler = Fail().run()
    with pytest.raises(ValueError, match="no"):
        await handler
    assert await handler.ctx.store.get("one") == 1
    assert await handler.ctx.store.get("two", default=None) is None


async def test_the_state_is_readable_and_writable_from_outside_while_it_runs() -> None:
    class Wait(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.store.set("inside", 1)
            await ctx.wait_for_event(HumanResponseEvent)
            return StopEvent(result=await ctx.store.get("outside"))

    handler = Wait().run()
    await asyncio.sleep(0)
    assert await handler.ctx.store.get("inside") == 1
    await handler.ctx.store.set("outside", 2)
    handler.ctx.send_event(HumanResponseEvent())
    assert await handler == 2
    assert await handler.ctx.store.get("outside") == 2


# --- faces -----------------------------------------------------------------------------------


async def test_what_is_for_outside_is_refused_inside() -> None:
    told: list[str] = []

    class Inside(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            for call in (ctx.to_dict, ctx.stream_events, ctx.running_steps, ctx.get_result):
                with pytest.raises(ContextStateError) as error:
                    made: Any = call()
                    if asyncio.iscoroutine(made):
                        await made
                told.append(str(error.value))
            with pytest.warns(DeprecationWarning, match="outside of steps"):
                assert ctx.is_running
            return StopEvent()

    with pytest.warns(DeprecationWarning, match="get_result"):
        await Inside().run()
    names = ("to_dict", "stream_events", "running_steps", "get_result")
    assert told == [
        f"{name} is only available from handler code, not from within steps." for name in names
    ]


async def test_what_is_for_steps_is_refused_outside() -> None:
    flow = Count()
    handler = flow.run()
    await handler
    calls: dict[str, Any] = {
        "collect_events": lambda ctx: ctx.collect_events(Ping(), [Ping]),
        "retry_info": lambda ctx: ctx.retry_info(),
        "idempotency_key": lambda ctx: ctx.idempotency_key,
    }
    for name, call in calls.items():
        with pytest.raises(ContextStateError) as error:
            call(handler.ctx)
        assert str(error.value) == f"{name} is only available from within step functions."
        with pytest.raises(ContextStateError) as error:
            call(Context(flow))
        assert str(error.value) == (
            f"{name} requires a running workflow. Call workflow.run() first."
        )


async def test_before_the_run_there_is_nobody_to_send_to() -> None:
    ctx = Context(Count())
    with pytest.raises(ContextStateError) as error:
        ctx.send_event(Ping())
    assert str(error.value) == (
        "send_event() called before workflow started. Call workflow.run() first."
    )
    with pytest.raises(ContextStateError, match="requires a running workflow"):
        ctx.write_event_to_stream(Ping())
    assert not ctx.is_running


async def test_the_context_of_the_running_step_is_found_without_a_parameter() -> None:
    class Deep(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await self.deeper() is ctx)

        async def deeper(self) -> Context[Any]:
            await asyncio.sleep(0)
            return Context.get_step_context()

    assert await Deep().run() is True
    with pytest.raises(WorkflowRuntimeError) as error:
        Context.get_step_context()
    assert str(error.value) == (
        "Context.get_step_context() may only be called from within a step function"
    )


async def test_sending_to_one_step_is_checked() -> None:
    class Steps(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> None:
            return None

        @step
        async def a(self, ctx: Context, ev: Ping) -> HumanResponseEvent | None:
            return None

        @step
        async def b(self, ctx: Context, ev: Ping | HumanResponseEvent) -> StopEvent | None:
            return StopEvent(result="b") if isinstance(ev, Ping) else None

        @step
        async def produce(self, ev: HumanResponseEvent) -> Ping | None:
            return None

    handler = Steps().run()
    with pytest.raises(WorkflowRuntimeError, match="Step nope does not exist"):
        handler.ctx.send_event(Ping(), "nope")
    with pytest.raises(WorkflowRuntimeError, match="Step a does not accept event of type <class"):
        await handler.send_event(HumanResponseEvent(), "a")
    await handler.send_event(Ping(), step="b")
    assert await handler == "b"


async def test_an_event_sent_from_a_step_that_then_fails_is_not_sent() -> None:
    seen: list[int] = []

    class Fail(Workflow):
        @step(retry_policy=retry_policy(wait=wait_none(), stop=stop_after_attempt(2)))
        async def begin(self, ctx: Context, ev: StartEvent) -> Ping | None:
            number = ctx.retry_info().retry_number
            ctx.send_event(Ping(n=number))
            if number == 0:
                raise ValueError
            return None

        @step
        async def take(self, ev: Ping) -> StopEvent:
            seen.append(ev.n)
            return StopEvent()

    await Fail().run()
    assert seen == [1]


async def test_running_steps_are_those_at_work() -> None:
    go = asyncio.Event()

    class Work(Workflow):
        @step
        async def waits(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(HumanResponseEvent)
            return StopEvent()

        @step
        async def works(self, ev: StartEvent) -> None:
            await go.wait()

    handler = Work().run()
    await asyncio.sleep(0)
    assert await handler.ctx.running_steps() == ["works"]
    go.set()
    await asyncio.sleep(0)
    assert await handler.ctx.running_steps() == []
    await handler.send_event(HumanResponseEvent())
    await handler


async def test_context_variables_of_the_starter_are_seen_and_do_not_leak() -> None:
    colour: ContextVar[str] = ContextVar("colour", default="none")
    seen: list[str] = []

    class Leak(Workflow):
        @step
        async def first(self, ev: StartEvent) -> Ping:
            seen.append(colour.get())
            colour.set("of the first step")
            await asyncio.sleep(0)
            seen.append(colour.get())
            return Ping()

        @step
        async def second(self, ev: Ping) -> StopEvent:
            seen.append(colour.get())
            return StopEvent()

    colour.set("of the starter")
    handler = Leak().run()
    colour.set("later")
    await handler
    assert seen == ["of the starter", "of the first step", "of the starter"]
    assert colour.get() == "later"


async def test_the_idempotency_key_is_of_the_work_and_the_same_in_every_attempt() -> None:
    keys: list[str] = []

    class Keys(Workflow):
        @step
        async def fork(self, ctx: Context, ev: StartEvent) -> list[Ping]:
            return [Ping(n=0), Ping(n=1)]

        @step(retry_policy=retry_policy(wait=wait_none(), stop=stop_after_attempt(2)))
        async def pay(self, ctx: Context, ev: Ping) -> HumanResponseEvent:
            keys.append(ctx.idempotency_key)
            if ctx.retry_info().retry_number == 0:
                raise ValueError
            return HumanResponseEvent()

        @step
        async def join(self, evs: list[HumanResponseEvent]) -> StopEvent:
            return StopEvent()

    await Keys().run()
    assert len(keys) == 4
    assert len(set(keys)) == 2
    await Keys().run()
    assert len(set(keys)) == 4


async def test_a_memo_is_made_once_and_kept_for_the_retry() -> None:
    made: list[int] = []

    class Memo(Workflow):
        @step(retry_policy=retry_policy(wait=wait_none(), stop=stop_after_attempt(3)))
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            def make(n: int) -> int:
                made.append(n)
                return n * 10

            async def later(n: int) -> int:
                await asyncio.sleep(0)
                return make(n)

            first = await ctx.memo("x", make, 1)
            second = await ctx.memo("x", later, 2)
            if ctx.retry_info().retry_number < 2:
                raise ValueError
            third = await ctx.memo("y", make, 3)
            return StopEvent(result=(first, second, third))

    assert await Memo().run() == (10, 20, 30)
    assert made == [1, 2, 3]


async def test_a_memo_that_raised_is_made_again() -> None:
    tries = 0

    class Memo(Workflow):
        @step(retry_policy=retry_policy(wait=wait_none(), stop=stop_after_attempt(2)))
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            def make() -> str:
                nonlocal tries
                tries += 1
                if tries == 1:
                    raise ValueError
                return "made"

            return StopEvent(result=await ctx.memo("x", make))

    assert await Memo().run() == "made"
