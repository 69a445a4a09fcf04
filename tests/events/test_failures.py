"""Retries, error handlers and step timeouts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from stepwell import Context, Event, StartEvent, StopEvent, Workflow, catch_error, step
from stepwell.errors import StepTimeoutError
from stepwell.events import StepFailedEvent, WorkflowFailedEvent
from stepwell.retry_policy import (
    retry_if_exception_type,
    retry_policy,
    stop_after_attempt,
    stop_after_delay,
    wait_fixed,
    wait_none,
)


class A(Event):
    n: int = 0


class B(Event):
    n: int = 0


def tries(number: int) -> Any:
    return retry_policy(wait=wait_none(), stop=stop_after_attempt(number))


async def test_a_step_is_tried_again_and_told_so() -> None:
    told: list[tuple[int, str]] = []

    class Retry(Workflow):
        @step(retry_policy=tries(3))
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            info = ctx.retry_info()
            told.append((info.retry_number, repr(info.last_exception)))
            assert (info.last_failed_at is None) == (info.retry_number == 0)
            assert info.elapsed_seconds >= 0
            if info.retry_number < 2:
                raise ValueError(info.retry_number)
            return StopEvent(result="got through")

    assert await Retry().run() == "got through"
    assert told == [(0, "None"), (1, "ValueError(0)"), (2, "ValueError(1)")]


async def test_when_tries_are_used_up_the_run_fails_with_the_last_error() -> None:
    class Retry(Workflow):
        @step(retry_policy=tries(3))
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            raise ValueError(ctx.retry_info().retry_number)

    handler = Retry().run()
    with pytest.raises(ValueError, match="2"):
        await handler
    last = handler.get_stop_event()
    assert isinstance(last, WorkflowFailedEvent)
    assert last.attempts == 3


async def test_what_the_policy_does_not_name_is_not_retried() -> None:
    entered = 0

    class Retry(Workflow):
        @step(retry_policy=retry_policy(retry=retry_if_exception_type(KeyError), wait=wait_none()))
        async def only(self, ev: StartEvent) -> StopEvent:
            nonlocal entered
            entered += 1
            raise ValueError("other")

    with pytest.raises(ValueError, match="other"):
        await Retry().run()
    assert entered == 1


@pytest.mark.usefixtures("virtual_time")
async def test_the_delay_counts_from_the_first_attempt() -> None:
    entered = 0

    class Retry(Workflow):
        @step(retry_policy=retry_policy(wait=wait_fixed(0.02), stop=stop_after_delay(0.05)))
        async def only(self, ev: StartEvent) -> StopEvent:
            nonlocal entered
            entered += 1
            raise ValueError("no")

    handler = Retry().run()
    with pytest.raises(ValueError, match="no"):
        await handler
    assert 2 <= entered <= 4
    last = handler.get_stop_event()
    assert isinstance(last, WorkflowFailedEvent)
    assert last.elapsed_seconds is not None
    assert 0.02 < last.elapsed_seconds < 5


async def test_a_policy_of_ones_own_needs_no_seed_and_fails_the_run_when_it_raises() -> None:
    class Once:
        def next(self, elapsed_time: float, attempts: int, error: Exception) -> float | None:
            if isinstance(error, KeyError):
                raise RuntimeError("broken policy")
            return 0 if attempts < 2 else None

    class Retry(Workflow):
        @step(retry_policy=Once())
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            if ev.get("key"):
                raise KeyError
            if ctx.retry_info().retry_number == 0:
                raise ValueError
            return StopEvent(result="again")

    assert await Retry().run() == "again"
    with pytest.raises(RuntimeError, match="broken policy"):
        await Retry(timeout=30).run(start_event=StartEvent(key=1))


@pytest.mark.usefixtures("virtual_time")
async def test_who_waits_for_its_next_try_does_not_hold_a_worker() -> None:
    order: list[int] = []

    class Retry(Workflow):
        @step
        async def fork(self, ctx: Context, ev: StartEvent) -> A | None:
            ctx.send_event(A(n=1))
            ctx.send_event(A(n=2))
            return None

        @step(
            num_workers=1,
            retry_policy=retry_policy(wait=wait_fixed(0.02), stop=stop_after_attempt(2)),
        )
        async def work(self, ctx: Context, ev: A) -> StopEvent | None:
            if ev.n == 1 and ctx.retry_info().retry_number == 0:
                raise ValueError
            order.append(ev.n)
            return StopEvent() if ev.n == 1 else None

    await Retry(timeout=30).run()
    assert order == [2, 1]


# --- error handlers --------------------------------------------------------------------------


@pytest.mark.usefixtures("virtual_time")
async def test_a_handler_gets_the_whole_story_and_may_end_the_run() -> None:
    class Catch(Workflow):
        @step
        async def first(self, ev: StartEvent) -> A:
            return A(n=4)

        @step(retry_policy=tries(2))
        async def second(self, ev: A) -> StopEvent:
            raise KeyError("k")

        @catch_error
        async def recover(self, ctx: Context, ev: StepFailedEvent) -> StopEvent:
            assert ev.failed_at.tzinfo is not None
            assert 0 <= ev.elapsed_seconds < 5
            return StopEvent(result=(ev.step_name, ev.input_event, repr(ev.exception), ev.attempts))

    assert await Catch().run() == ("second", A(n=4), "KeyError('k')", 2)


async def test_a_handler_may_recover_into_the_flow() -> None:
    class Catch(Workflow):
        @step
        async def first(self, ev: StartEvent) -> A:
            raise ValueError

        @step
        async def second(self, ev: A) -> StopEvent:
            return StopEvent(result=ev.n)

        @catch_error
        async def recover(self, ev: StepFailedEvent) -> A:
            return A(n=5)

    assert await Catch().run() == 5


async def test_the_handler_that_names_the_step_comes_before_the_one_for_all() -> None:
    class Catch(Workflow):
        @step
        async def first(self, ev: StartEvent) -> A:
            return A()

        @step
        async def second(self, ev: A) -> StopEvent:
            raise ValueError

        @catch_error(for_steps=["second"])
        async def named(self, ev: StepFailedEvent) -> StopEvent:
            return StopEvent(result="named")

        @catch_error
        async def everything(self, ev: StepFailedEvent) -> StopEvent:
            return StopEvent(result="for all")

    assert await Catch().run() == "named"


@pytest.mark.parametrize("sent", [False, True])
async def test_recoveries_are_counted_along_the_line_of_events(sent: bool) -> None:
    recovered = 0

    class Catch(Workflow):
        @step
        async def first(self, ev: StartEvent) -> A:
            return A()

        @step
        async def work(self, ev: A) -> StopEvent:
            raise ValueError("always")

        @catch_error(max_recoveries=2)
        async def recover(self, ctx: Context, ev: StepFailedEvent) -> A | None:
            nonlocal recovered
            recovered += 1
            if sent:
                ctx.send_event(A())
                return None
            return A()

    with pytest.raises(ValueError, match="always"):
        await Catch(timeout=30).run()
    assert recovered == 2


async def test_other_lines_have_a_count_of_their_own() -> None:
    recovered: list[int] = []

    class Catch(Workflow):
        @step
        async def fork(self, ev: StartEvent) -> list[A]:
            return [A(n=1), A(n=2)]

        @step
        async def work(self, ev: A) -> B:
            raise ValueError

        @catch_error(max_recoveries=1)
        async def recover(self, ev: StepFailedEvent) -> B:
            recovered.append(ev.input_event.n)  # type: ignore[attr-defined]
            return B()

        @step
        async def join(self, evs: list[B]) -> StopEvent:
            return StopEvent(result=len(evs))

    assert await Catch(timeout=30).run() == 2
    assert sorted(recovered) == [1, 2]


async def test_a_handler_that_raises_fails_the_run_with_what_it_raised() -> None:
    class Catch(Workflow):
        @step
        async def first(self, ev: StartEvent) -> StopEvent:
            raise ValueError

        @catch_error
        async def recover(self, ev: StepFailedEvent) -> StopEvent:
            raise LookupError("worse")

    with pytest.raises(LookupError, match="worse"):
        await Catch(timeout=30).run()


@pytest.mark.usefixtures("virtual_time")
async def test_a_handler_is_not_asked_about_a_timeout_or_a_cancel() -> None:
    asked = False

    class Catch(Workflow):
        @step
        async def first(self, ev: StartEvent) -> StopEvent:
            await asyncio.Event().wait()
            return StopEvent()

        @catch_error
        async def recover(self, ev: StepFailedEvent) -> StopEvent:
            nonlocal asked
            asked = True
            return StopEvent()

    with pytest.raises(Exception, match="timed out"):
        await Catch(timeout=0.02).run()
    handler = Catch().run()
    await asyncio.sleep(0)
    await handler.cancel_run()
    assert not asked


async def test_a_handler_that_returns_nothing_lets_the_rest_go_on() -> None:
    class Catch(Workflow):
        @step
        async def fork(self, ctx: Context, ev: StartEvent) -> A | B | None:
            ctx.send_event(A())
            ctx.send_event(B())
            return None

        @step
        async def fails(self, ev: A) -> None:
            raise ValueError

        @step
        async def ends(self, ev: B) -> StopEvent:
            await asyncio.sleep(0)
            return StopEvent(result="ended")

        @catch_error
        async def ignore(self, ev: StepFailedEvent) -> None:
            return None

    assert await Catch(timeout=30).run() == "ended"


# --- step timeouts ---------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0.02, timedelta(milliseconds=20)])
@pytest.mark.usefixtures("virtual_time")
async def test_a_step_that_takes_too_long_fails_with_a_timeout(limit: float | timedelta) -> None:
    left = False

    class Slow(Workflow):
        @step(timeout=limit)
        async def crawl(self, ev: StartEvent) -> StopEvent:
            nonlocal left
            try:
                await asyncio.Event().wait()
            finally:
                left = True
            return StopEvent()

    with pytest.raises(StepTimeoutError, match=r"Step 'crawl' timed out after 0.02 seconds"):
        await Slow(timeout=30).run()
    assert left


@pytest.mark.usefixtures("virtual_time")
async def test_a_step_timeout_is_retried_and_caught_like_other_failures() -> None:
    class Slow(Workflow):
        @step(timeout=0.01, retry_policy=tries(2))
        async def crawl(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await asyncio.Event().wait()
            return StopEvent()

        @catch_error
        async def recover(self, ev: StepFailedEvent) -> StopEvent:
            return StopEvent(result=(type(ev.exception).__name__, ev.attempts))

    assert await Slow(timeout=30).run() == ("StepTimeoutError", 2)


@pytest.mark.usefixtures("virtual_time")
async def test_a_body_that_will_not_stop_for_its_timeout_has_timed_out_all_the_same() -> None:
    class Stubborn(Workflow):
        @step(timeout=0.01)
        async def crawl(self, ev: StartEvent) -> StopEvent:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return StopEvent(result="I made it")

    with pytest.raises(StepTimeoutError):
        await Stubborn(timeout=30).run()


@pytest.mark.usefixtures("virtual_time")
async def test_bodies_after_one_that_swallowed_its_stop_run_undisturbed() -> None:
    class Stubborn(Workflow):
        @step(timeout=0.01)
        async def crawl(self, ev: StartEvent) -> A:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return A()

        @catch_error
        async def recover(self, ev: StepFailedEvent) -> A:
            return A()

        @step
        async def groups(self, ev: A) -> StopEvent:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(asyncio.sleep(0, "done"))
            async with asyncio.timeout(30):
                await asyncio.sleep(0)
            return StopEvent(result=task.result())

    assert await Stubborn(timeout=30).run() == "done"


@pytest.mark.usefixtures("virtual_time")
async def test_time_spent_waiting_does_not_count_for_the_step() -> None:
    class Waits(Workflow):
        @step(timeout=0.05)
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.sleep(0.08)
            return StopEvent(result="in time")

    assert await Waits(timeout=30).run() == "in time"


# --- things that are not quite exceptions ----------------------------------------------------


class Odd(BaseException):
    pass


def cancelled() -> None:
    raise asyncio.CancelledError("by itself")


def odd() -> None:
    raise Odd("not an Exception")


@pytest.mark.parametrize("pauses", [False, True])
@pytest.mark.parametrize(
    ("break_", "kind", "text"),
    [(cancelled, RuntimeError, "the step was cancelled: by itself"), (odd, Odd, "not an Exc")],
)
async def test_a_step_that_raises_no_exception_fails_the_run_and_does_not_hang_it(
    break_: Callable[[], None], kind: type[BaseException], text: str, pauses: bool
) -> None:
    class Break(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            if pauses:
                await asyncio.sleep(0)
            break_()
            return StopEvent()

    handler = Break(timeout=30).run()
    with pytest.raises(kind, match=text):
        await handler
    assert isinstance(handler.get_stop_event(), WorkflowFailedEvent)
    # the stream ended, too
    assert [type(ev) async for ev in handler.stream_events()] == [WorkflowFailedEvent]
