"""The in-process style: `Workflow[Context, Start, End]`, `start`, and events in tuples."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from pydantic import BaseModel

from stepwell import (
    Context,
    Event,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowErrorEvent,
    catch_error,
    step,
)
from stepwell.errors import WorkflowRuntimeError
from stepwell.events import StepFailedEvent
from stepwell.retry_policy import retry_policy, stop_after_attempt, wait_none


class Shared(BaseModel):
    seen: list[str] = []


class Begin(BaseModel):
    initial_data: str


class First(BaseModel):
    data: str


class Second(BaseModel):
    result: str


class End(BaseModel):
    final_result: str


class A(Event):
    n: int = 0


class B(Event):
    n: int = 0


class Sum(Event):
    n: int = 0


async def test_the_example_of_the_style_runs_as_it_is_written() -> None:
    class MyWorkflow(Workflow[Shared, Begin, End]):
        async def start(self, payload: Begin) -> tuple[First]:
            return (First(data=payload.initial_data),)

        @step()
        async def first_step(self, events: tuple[First]) -> tuple[Second] | WorkflowErrorEvent:
            return (Second(result=events[0].data.upper()),)

        @step()
        async def second_step(self, events: tuple[Second]) -> End | WorkflowErrorEvent:
            return End(final_result=events[0].result + "!")

    flow = MyWorkflow()
    assert await flow.run(start_event=Begin(initial_data="x")) == End(final_result="X!")
    assert await flow.run(initial_data="y") == End(final_result="Y!")
    handler = flow.run(initial_data="z")
    assert [ev async for ev in handler.stream_events()] == [End(final_result="Z!")]
    assert handler.get_stop_event() == End(final_result="Z!")


async def test_dataclasses_and_the_shared_state_do_as_well() -> None:
    @dataclass
    class Go:
        n: int

    @dataclass
    class Done:
        n: int

    class Plain(Workflow[Shared, Go, Done]):
        async def start(self, ctx: Context[Shared], payload: Go) -> tuple[First]:
            await ctx.store.set("seen", ["start"])
            return (First(data=str(payload.n)),)

        @step
        async def only(self, ctx: Context[Shared], events: tuple[First]) -> Done:
            async with ctx.store.edit_state() as state:
                state.seen.append("only")
            return Done(int(events[0].data) + len(await ctx.store.get("seen")))

    assert await Plain().run(start_event=Go(5)) == Done(7)
    assert await Plain().run(n=5) == Done(7)


async def test_a_tuple_of_two_is_a_join_of_one_of_each() -> None:
    class Join(Workflow[Shared, StartEvent, StopEvent]):
        async def start(self, payload: StartEvent) -> tuple[A, B]:
            return (A(n=1), B(n=2))

        @step
        async def both(self, events: tuple[A, B]) -> StopEvent:
            a, b = events
            return StopEvent(result=(type(events), a.n, b.n))

    assert await Join(timeout=30).run() == (tuple, 1, 2)


async def test_an_open_tuple_collects_the_batch_as_a_list() -> None:
    class Batch(Workflow[Shared, StartEvent, StopEvent]):
        async def start(self, payload: StartEvent) -> tuple[A, ...]:
            return tuple(A(n=n) for n in range(payload.get("n", 3)))

        @step
        async def each(self, events: tuple[A]) -> tuple[B]:
            await asyncio.sleep(0)
            return (B(n=events[0].n * 2),)

        @step
        async def collect(self, events: tuple[B, ...]) -> StopEvent:
            return StopEvent(result=[ev.n for ev in events])

    assert await Batch(timeout=30).run() == [0, 2, 4]
    assert await Batch(timeout=30).run(n=0) == []


async def test_all_members_of_a_returned_tuple_are_emitted() -> None:
    seen: list[str] = []

    class Emit(Workflow[Shared, StartEvent, StopEvent]):
        async def start(self, payload: StartEvent) -> tuple[A, B]:
            return (A(), B())

        @step
        async def a(self, ev: A) -> None:
            seen.append("a")

        @step
        async def b(self, events: tuple[B]) -> StopEvent:
            seen.append("b")
            return StopEvent(result="end")

    assert await Emit(timeout=30).run() == "end"
    assert seen == ["a", "b"]


@pytest.mark.usefixtures("virtual_time")
async def test_steps_run_side_by_side_and_meet_again() -> None:
    class Diamond(Workflow[Shared, StartEvent, StopEvent]):
        async def start(self, payload: StartEvent) -> tuple[A, B]:
            return (A(n=1), B(n=2))

        @step
        async def left(self, events: tuple[A]) -> tuple[First]:
            await asyncio.sleep(0.01)
            return (First(data="left"),)

        @step
        async def right(self, events: tuple[B]) -> tuple[Second]:
            return (Second(result="right"),)

        @step
        async def meet(self, events: tuple[First, Second]) -> StopEvent:
            return StopEvent(result=events[0].data + events[1].result)

    assert await Diamond(timeout=30).run() == "leftright"


async def test_an_error_event_fails_the_attempt_so_it_is_tried_again() -> None:
    class Flaky(Workflow[Shared, StartEvent, StopEvent]):
        async def start(self, payload: StartEvent) -> tuple[A]:
            return (A(),)

        @step(retry_policy=retry_policy(wait=wait_none(), stop=stop_after_attempt(3)))
        async def work(self, ctx: Context, events: tuple[A]) -> StopEvent | WorkflowErrorEvent:
            number = ctx.retry_info().retry_number
            return WorkflowErrorEvent("not yet") if number < 2 else StopEvent(result=number)

    assert await Flaky(timeout=30).run() == 2


async def test_an_error_event_reaches_the_error_handler() -> None:
    class Caught(Workflow[Shared, StartEvent, StopEvent]):
        async def start(self, payload: StartEvent) -> tuple[A]:
            return (A(n=3),)

        @step
        async def work(self, events: tuple[A]) -> StopEvent | WorkflowErrorEvent:
            return WorkflowErrorEvent(KeyError("k"))

        @catch_error
        async def recover(self, ev: StepFailedEvent) -> StopEvent:
            return StopEvent(result=(repr(ev.exception), ev.input_event))

    assert await Caught(timeout=30).run() == ("KeyError('k')", A(n=3))


@pytest.mark.parametrize("joined", [False, True])
async def test_an_error_handler_sees_payloads_that_are_no_events(joined: bool) -> None:
    class Models(Workflow[Shared, Begin, StopEvent]):
        async def start(self, payload: Begin) -> tuple[First, Second]:
            return (First(data="d"), Second(result="r"))

        @step
        async def one(self, events: tuple[First]) -> StopEvent | None:
            if joined:
                return None
            raise ValueError

        @step
        async def both(self, events: tuple[First, Second]) -> StopEvent | None:
            if joined:
                raise ValueError
            return None

        @catch_error
        async def recover(self, ev: StepFailedEvent) -> StopEvent:
            given = ev.input_event
            return StopEvent(result=given.events if joined else given)  # type: ignore[attr-defined]

    given = await Models(timeout=30).run(initial_data="x")
    assert given == ([First(data="d"), Second(result="r")] if joined else First(data="d"))


@pytest.mark.parametrize(
    ("error", "kind"), [("a text", WorkflowRuntimeError), (KeyError("k"), KeyError)]
)
async def test_an_error_event_that_nobody_handles_fails_the_run(
    error: Exception | str, kind: type[Exception]
) -> None:
    class Fails(Workflow[Shared, StartEvent, StopEvent]):
        async def start(self, payload: StartEvent) -> tuple[A]:
            return (A(),)

        @step
        async def work(self, events: tuple[A]) -> StopEvent | tuple[A | WorkflowErrorEvent, ...]:
            return (WorkflowErrorEvent(error),)

    with pytest.raises(kind):
        await Fails(timeout=30).run()


async def test_a_tuple_is_not_a_result_where_none_was_declared() -> None:
    class Wrong(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            return (StopEvent(),)  # type: ignore[return-value]

    with pytest.raises(WorkflowRuntimeError, match="returned tuple instead of an Event instance"):
        await Wrong(timeout=30).run()


async def test_waits_and_children_work_in_this_style_too() -> None:
    class Child(Workflow[Shared, Begin, End]):
        async def start(self, payload: Begin) -> tuple[First]:
            return (First(data=payload.initial_data),)

        @step
        async def only(self, events: tuple[First]) -> End:
            return End(final_result=events[0].data)

    class Parent(Workflow[Shared, StartEvent, StopEvent]):
        async def start(self, payload: StartEvent) -> tuple[A]:
            return (A(),)

        @step
        async def asks(self, ctx: Context, events: tuple[A]) -> StopEvent:
            answer = await ctx.wait_for_event(B)
            end = await ctx.run_child(Child, initial_data=str(answer.n))
            return StopEvent(result=end.final_result)

    handler = Parent(timeout=30).run()
    await handler.send_event(B(n=4))
    assert await handler == "4"
