"""A run whose entries nobody keeps takes shorter ways, and does the very same."""

from __future__ import annotations

import asyncio

import pytest

from stepwell import Event, StartEvent, StopEvent, Workflow, step


class A(Event):
    n: int = 0


class B(Event):
    n: int = 0


class Mixed(Workflow):
    """Bodies that pause and bodies that do not, a narrow step, a chain within the stream."""

    def __init__(self) -> None:
        super().__init__(timeout=None)
        self.seen: list[str] = []

    @step
    async def fork(self, ev: StartEvent) -> list[A]:
        return [A(n=n) for n in range(12)]

    @step(num_workers=3)
    async def work(self, ev: A) -> A | B:
        self.seen.append(f"work {ev.n}")
        if ev.n % 3 == 1:
            await asyncio.sleep(0)
        self.seen.append(f"done {ev.n}")
        return A(n=ev.n + 100) if ev.n == 5 else B(n=ev.n)

    @step
    async def join(self, evs: list[B]) -> StopEvent:
        return StopEvent(result=[ev.n for ev in evs])


async def test_bodies_start_and_end_in_the_same_order_whether_or_not_entries_are_kept() -> None:
    unseen, seen = Mixed(), Mixed()
    result = await unseen.run()
    assert sorted(result) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 105]
    assert await seen.run(record=True) == result
    assert unseen.seen == seen.seen


@pytest.mark.parametrize("record", [False, True])
async def test_members_before_the_one_that_ends_the_run_are_never_started(record: bool) -> None:
    started: list[int] = []

    class Ends(Workflow):
        @step
        async def fork(self, ev: StartEvent) -> list[A | StopEvent]:
            return [A(n=1), A(n=2), StopEvent(result="over"), A(n=3)]

        @step
        async def work(self, ev: A) -> None:
            started.append(ev.n)

    assert await Ends(timeout=None).run(record=record) == "over"
    await asyncio.sleep(0)
    assert not started


async def test_the_timer_follows_the_time_limits_of_the_steps() -> None:
    loop = asyncio.get_running_loop()

    def armed() -> int:
        scheduled: list[asyncio.TimerHandle] = getattr(loop, "_scheduled", [])
        return sum(1 for timer in scheduled if not timer.cancelled())

    class Timed(Workflow):
        @step(timeout=60.0)
        async def begin(self, ev: StartEvent) -> A:
            return A()

        @step
        async def free(self, ev: A) -> B:
            return B(n=armed())

        @step(timeout=60.0)
        async def end(self, ev: B) -> StopEvent:
            return StopEvent(result=(ev.n, armed()))

    before = armed()
    handler = Timed(timeout=None).run()
    assert armed() == before + 1
    assert await handler == (before, before + 1)
    assert armed() == before
