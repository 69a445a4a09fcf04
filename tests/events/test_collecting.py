"""`ctx.collect_events`: buffers of a step."""

from __future__ import annotations

import asyncio

from stepwell import Context, Event, StartEvent, StopEvent, Workflow, step
from stepwell.retry_policy import retry_policy, stop_after_attempt, wait_none


class A(Event):
    n: int = 0


class B(Event):
    n: int = 0


class C(Event):
    pass


async def test_events_come_in_the_expected_order_and_first_come_first_among_equals() -> None:
    class Collect(Workflow):
        @step
        async def send(self, ctx: Context, ev: StartEvent) -> A | B | None:
            for event in (A(n=1), A(n=2), A(n=3), B(n=1), B(n=2), A(n=4)):
                ctx.send_event(event)
            return None

        @step(num_workers=1)
        async def join(self, ctx: Context, ev: A | B) -> StopEvent | None:
            got = ctx.collect_events(ev, [B, A, A])
            if got is None:
                return None
            rounds = [*await ctx.store.get("rounds", default=[])]
            rounds.append([(type(e).__name__, e.n) for e in got])  # type: ignore[attr-defined]
            await ctx.store.set("rounds", rounds)
            return StopEvent(result=rounds) if len(rounds) == 2 else None

    assert await Collect(timeout=30).run() == [
        [("B", 1), ("A", 1), ("A", 2)],
        [("B", 2), ("A", 3), ("A", 4)],
    ]


async def test_nothing_expected_is_there_at_once() -> None:
    class Collect(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=ctx.collect_events(ev, []))

    assert await Collect().run() == []


async def test_the_body_runs_once_for_each_event_however_many_come_at_once() -> None:
    entered = 0

    class Collect(Workflow):
        @step
        async def send(self, ctx: Context, ev: StartEvent) -> A | None:
            for n in range(40):
                ctx.send_event(A(n=n))
            return None

        @step(num_workers=40)
        async def join(self, ctx: Context, ev: A) -> StopEvent | None:
            nonlocal entered
            entered += 1
            await asyncio.sleep(0)
            got = ctx.collect_events(ev, [A] * 40)
            return None if got is None else StopEvent(result=len(got))

    assert await Collect().run() == 40
    assert entered == 40


async def test_buffers_with_other_names_are_apart() -> None:
    class Collect(Workflow):
        @step
        async def send(self, ctx: Context, ev: StartEvent) -> A | None:
            for n in range(4):
                ctx.send_event(A(n=n))
            return None

        @step
        async def join(self, ctx: Context, ev: A) -> B | None:
            got = ctx.collect_events(ev, [A, A], buffer_id=f"{ev.n % 2}")
            return None if got is None else B(n=sum(e.n for e in got))  # type: ignore[attr-defined]

        @step
        async def both(self, ctx: Context, ev: B) -> StopEvent | None:
            got = ctx.collect_events(ev, [B, B])
            sums = sorted(e.n for e in got or ())  # type: ignore[attr-defined]
            return None if got is None else StopEvent(result=sums)

    assert await Collect().run() == [2, 4]


async def test_an_event_of_a_type_not_expected_is_dropped() -> None:
    class Collect(Workflow):
        @step
        async def send(self, ctx: Context, ev: StartEvent) -> A | C | None:
            for event in (A(n=1), C(), A(n=2)):
                ctx.send_event(event)
            return None

        @step(num_workers=1)
        async def join(self, ctx: Context, ev: A | C) -> StopEvent | None:
            got = ctx.collect_events(ev, [A, A])
            return None if got is None else StopEvent(result=[type(e).__name__ for e in got])

    assert await Collect().run() == ["A", "A"]


async def test_a_retry_does_not_put_its_event_in_twice() -> None:
    class Collect(Workflow):
        @step
        async def send(self, ctx: Context, ev: StartEvent) -> A | None:
            ctx.send_event(A(n=1))
            ctx.send_event(A(n=2))
            return None

        @step(retry_policy=retry_policy(wait=wait_none(), stop=stop_after_attempt(3)))
        async def join(self, ctx: Context, ev: A) -> StopEvent | None:
            got = ctx.collect_events(ev, [A, A])
            if ctx.retry_info().retry_number < 2:
                raise ValueError("again")
            return None if got is None else StopEvent(result=[e.n for e in got])  # type: ignore[attr-defined]

    assert await Collect(timeout=30).run() == [1, 2]
