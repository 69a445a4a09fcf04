"""The stream of a run: who sees what, in which order, and how it ends."""

from __future__ import annotations

import asyncio

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
from stepwell.errors import WorkflowCancelledByUser, WorkflowTimeoutError
from stepwell.events import (
    StepState,
    StepStateChanged,
    UnhandledEvent,
    WorkflowCancelledEvent,
    WorkflowFailedEvent,
    WorkflowIdleEvent,
    WorkflowTimedOutEvent,
)
from stepwell.handler import WorkflowHandler


class Progress(Event):
    n: int


class Counting(Workflow):
    @step
    async def count(self, ctx: Context, ev: StartEvent) -> StopEvent:
        for n in range(3):
            ctx.write_event_to_stream(Progress(n=n))
            ctx.write_event_to_stream(None)
            await asyncio.sleep(0)
        return StopEvent(result="end")


async def collect(handler: WorkflowHandler, **options: object) -> list[Event]:
    return [ev async for ev in handler.stream_events(**options)]  # type: ignore[arg-type]


WHOLE = [Progress(n=0), Progress(n=1), Progress(n=2)]


async def test_the_stream_shows_what_was_written_and_then_the_end() -> None:
    handler = Counting().run()
    *written, last = await collect(handler)
    assert written == WHOLE
    assert isinstance(last, StopEvent)
    assert last.result == "end"
    assert await handler == "end"


async def test_the_stream_may_be_left_unread() -> None:
    assert await Counting().run() == "end"


async def test_many_readers_each_see_all_of_it_while_it_runs_and_after() -> None:
    handler = Counting().run()
    early = await asyncio.gather(collect(handler), collect(handler))
    late = await collect(handler)
    assert early[0] == early[1] == late
    assert len(late) == 4


async def test_a_cursor_leaves_out_what_was_read_before() -> None:
    handler = Counting().run()
    read = []
    async for ev in handler.stream_events():
        read.append(ev)
        if len(read) == 2:
            break
    rest = await collect(handler, after=len(read))
    assert [*read, *rest][:3] == WHOLE
    assert len(rest) == 2


async def test_readers_that_stop_early_leave_nothing_behind() -> None:
    handler = Counting().run()
    async for _ in handler.stream_events():
        break
    reader = asyncio.create_task(collect(handler))
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert await handler == "end"


async def test_a_failure_ends_the_stream_with_an_event_and_only_awaiting_raises() -> None:
    class Failing(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            raise KeyError("zz")

    handler = Failing().run()
    (last,) = await collect(handler)
    assert isinstance(last, WorkflowFailedEvent)
    assert (last.step_name, repr(last.exception), last.attempts) == ("only", "KeyError('zz')", 1)
    assert last.elapsed_seconds is not None
    assert 0 <= last.elapsed_seconds < 5
    assert handler.get_stop_event() == last
    with pytest.raises(KeyError):
        await handler


@pytest.mark.usefixtures("virtual_time")
async def test_a_timeout_ends_the_stream_with_an_event() -> None:
    class Slow(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            await asyncio.Event().wait()
            return StopEvent()

    handler = Slow(timeout=0.03).run()
    assert await collect(handler) == [WorkflowTimedOutEvent(timeout=0.03, active_steps=["only"])]
    with pytest.raises(WorkflowTimeoutError):
        await handler


async def test_a_cancel_ends_the_stream_with_an_event() -> None:
    class Slow(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            await asyncio.Event().wait()
            return StopEvent()

    handler = Slow().run()
    reader = asyncio.create_task(collect(handler))
    await asyncio.sleep(0)
    await handler.cancel_run()
    assert await reader == [WorkflowCancelledEvent()]
    with pytest.raises(WorkflowCancelledByUser):
        await handler


async def test_what_a_failing_step_wrote_is_seen() -> None:
    class Failing(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.write_event_to_stream(Progress(n=1))
            raise ValueError

    assert (await collect(Failing().run()))[0] == Progress(n=1)


async def test_undeclared_kinds_of_questions_are_shown_too() -> None:
    class Question(InputRequiredEvent):
        text: str

    class Ask(Workflow):
        @step
        async def ask(self, ev: StartEvent) -> InputRequiredEvent:
            return Question(text="?")

        @step
        async def answer(self, ev: HumanResponseEvent) -> StopEvent:
            return StopEvent(result=ev.get("v"))

    for _ in range(2):
        handler = Ask(timeout=30).run()
        async for ev in handler.stream_events():
            if isinstance(ev, Question):
                await handler.send_event(HumanResponseEvent(v=ev.text))
        assert await handler == "?"


# --- what happens inside ---------------------------------------------------------------------


def told(events: list[Event]) -> list[str]:
    return [
        f"{e.name} {e.step_state.value} {e.worker_id} {e.input_event_name} {e.output_event_name}"
        if isinstance(e, StepStateChanged)
        else type(e).__name__
        for e in events
    ]


START, STOP, NONE = f"{StartEvent}", f"{StopEvent}", f"{type(None)}"


async def test_inside_of_a_run_of_one_step() -> None:
    class One(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

    assert told(await collect(One().run(), expose_internal=True)) == [
        "only running 0 StartEvent None",
        f"only not_running 0 {START} {STOP}",
        "StopEvent",
    ]
    assert told(await collect(One().run())) == ["StopEvent"]


async def test_inside_of_a_run_that_asks_a_person_between_steps() -> None:
    class Ask(Workflow):
        @step
        async def ask(self, ev: StartEvent) -> InputRequiredEvent:
            return InputRequiredEvent()

        @step
        async def answer(self, ev: HumanResponseEvent) -> StopEvent:
            return StopEvent()

    handler = Ask().run()
    seen: list[Event] = []
    async for ev in handler.stream_events(expose_internal=True):
        seen.append(ev)
        if isinstance(ev, WorkflowIdleEvent):
            await handler.send_event(HumanResponseEvent())
    assert told(seen) == [
        "ask running 0 StartEvent None",
        f"ask not_running 0 {START} {InputRequiredEvent}",
        "InputRequiredEvent",
        "WorkflowIdleEvent",
        "answer running 0 HumanResponseEvent None",
        f"answer not_running 0 {HumanResponseEvent} {STOP}",
        "StopEvent",
    ]


async def test_inside_of_a_step_that_waits() -> None:
    class Ask(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(HumanResponseEvent, waiter_event=InputRequiredEvent())
            return StopEvent()

    handler = Ask().run()
    seen: list[Event] = []
    async for ev in handler.stream_events(expose_internal=True):
        seen.append(ev)
        if isinstance(ev, WorkflowIdleEvent):
            await handler.send_event(HumanResponseEvent())
    assert told(seen) == [
        "ask running 0 StartEvent None",
        f"ask not_running 0 {START} None",
        "InputRequiredEvent",
        "WorkflowIdleEvent",
        "ask running 0 StartEvent None",
        f"ask not_running 0 {START} {STOP}",
        "StopEvent",
    ]


async def test_queued_work_is_preparing_and_gets_the_worker_that_is_free() -> None:
    class Queue(Workflow):
        @step
        async def fork(self, ctx: Context, ev: StartEvent) -> Progress | None:
            ctx.send_event(Progress(n=0))
            ctx.send_event(Progress(n=1))
            return None

        @step(num_workers=1)
        async def work(self, ctx: Context, ev: Progress) -> StopEvent | None:
            return StopEvent() if ctx.collect_events(ev, [Progress, Progress]) else None

    assert told(await collect(Queue().run(), expose_internal=True)) == [
        "fork running 0 StartEvent None",
        f"fork not_running 0 {START} {NONE}",
        "work preparing <enqueued> Progress None",
        "work running 0 Progress None",
        f"work not_running 0 {Progress} {NONE}",
        "work running 0 Progress None",
        f"work not_running 0 {Progress} {STOP}",
        "StopEvent",
    ]


async def test_two_readers_of_the_inside_do_not_double_it() -> None:
    handler = Counting().run()
    streams = [handler.stream_events(expose_internal=True) for _ in range(2)]
    first, second = [[ev async for ev in stream] for stream in streams]
    assert first == second
    states = [e.step_state for e in first if isinstance(e, StepStateChanged)]
    assert states == [StepState.RUNNING, StepState.NOT_RUNNING]


async def test_the_context_outside_shows_the_inside_too() -> None:
    handler = Counting().run()
    seen = [e async for e in handler.ctx.stream_events(expose_internal=True)]
    assert sum(isinstance(e, StepStateChanged) for e in seen) == 2


async def test_an_event_that_nobody_takes_is_said_to_be_unhandled() -> None:
    class Waiting(Workflow):
        @step
        async def wait(self, ev: HumanResponseEvent) -> StopEvent:
            return StopEvent()

        @step
        async def begin(self, ev: StartEvent) -> None:
            return None

    handler = Waiting().run()
    seen: list[Event] = []
    async for ev in handler.stream_events(expose_internal=True):
        seen.append(ev)
        if isinstance(ev, WorkflowIdleEvent) and not any(
            isinstance(e, UnhandledEvent) for e in seen
        ):
            await handler.send_event(Progress(n=1))
        elif isinstance(ev, UnhandledEvent):
            await handler.send_event(HumanResponseEvent())
    (unhandled,) = [e for e in seen if isinstance(e, UnhandledEvent)]
    assert unhandled.model_dump() == {
        "event_type": "Progress",
        "qualified_name": f"{Progress.__module__}.Progress",
        "step_name": None,
        "idle": True,
    }


async def test_verbose_runs_say_what_they_do(capsys: pytest.CaptureFixture[str]) -> None:
    class Two(Workflow):
        @step
        async def first(self, ev: StartEvent) -> Progress:
            return Progress(n=1)

        @step
        async def last(self, ev: Progress) -> StopEvent:
            return StopEvent()

    await Two(verbose=True).run()
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if ":" in line.split("]")[0]] == [
        "[first:0] started from StartEvent",
        "[first:0] complete with Progress",
        "[last:0] started from Progress",
        "[last:0] complete with StopEvent",
    ]
    assert "[tick] add: Progress -> last" in lines


async def test_verbose_runs_say_it_to_a_logger_that_listens(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="stepwell.verbose"):
        await Counting(verbose=True).run()
    assert "[count:0] started from StartEvent" in caplog.text
    assert capsys.readouterr().out == ""
