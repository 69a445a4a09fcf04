"""P7: a timer never fires early, fires once, and after down-time fires at once.

A timer is a date in the journal. What rings in the process is only a hint that it may be due, so
these tests ring too early, ring together with the answer that is waited for, and take the process
away. They catch, each tried out: a turn that takes the ring for the date (`due_timer` giving the
first timer instead of the first one that is due), a worker that believes its alarm to be still set
after it rang early, a time-out that is decided twice, a due time that is not committed with the
wait, and waits that are opened anew when the run is taken up again.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
from tests.durable.flows import Answer
from tests.promises.processes import Process, live

from stepwell import Context, Engine, StartEvent, StopEvent, Workflow, step
from stepwell.errors import StepTimeoutError, WorkflowTimeoutError
from stepwell.kernel.journal import AttemptFailed, WaitEnded, WaitOpened
from stepwell.retry_policy import retry_policy, stop_after_attempt, wait_fixed
from stepwell.testing import VirtualClock
from stepwell.values import RunStatus, TimerHandle

WEEK = timedelta(days=7)
HOUR = 3600.0


def url_of(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/runs.db?durability=process"


class Timers(Workflow):
    """One step for each way in which a step meets time; says when it went on."""

    clock: VirtualClock
    tries: list[float]

    @step(retry_policy=retry_policy(wait=wait_fixed(HOUR), stop=stop_after_attempt(2)))
    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        began = self.clock.now()
        self.tries.append(began)
        match ev.kind:
            case "sleep":
                await ctx.sleep(HOUR)
            case "wait":
                with pytest.raises(TimeoutError):
                    await ctx.wait_for_event(Answer, timeout=HOUR)
            case "two":
                await asyncio.gather(ctx.sleep(HOUR / 2), ctx.sleep(HOUR))
            case _:
                if ctx.retry_info().retry_number == 0:
                    raise OSError("once")
                return StopEvent(result=began - self.tries[0])
        return StopEvent(result=self.clock.now() - began)


def timers(clock: VirtualClock) -> Timers:
    flow = Timers(timeout=None)
    flow.clock, flow.tries = clock, []
    return flow


KINDS = ["sleep", "wait", "two", "retry"]


class Hasty(VirtualClock):
    """Rings before the time that it was asked for, the first times."""

    ahead = 1.0

    def call_at(self, when: float, callback: Callable[[], None]) -> TimerHandle:
        if when - self.now() > self.ahead:
            when -= self.ahead
        return super().call_at(when, callback)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_a_timer_is_never_early(tmp_path: Path, kind: str, seed: int) -> None:
    clock = VirtualClock(seed=seed)

    async def main() -> float:
        flow = timers(clock)
        return await (await clock.engine(url_of(tmp_path), [flow]).start(flow, kind=kind))

    assert HOUR <= clock.run(main) < HOUR + 0.1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("release_after", [60.0, 1e6], ids=["in the store", "in memory"])
def test_a_clock_that_rings_early_makes_no_timer_early_nor_late(
    tmp_path: Path, kind: str, release_after: float
) -> None:
    clock = Hasty()

    async def main() -> None:
        flow = timers(clock)
        engine = clock.engine(url_of(tmp_path), [flow], release_after=release_after, lease=1000)
        handler = await engine.start(flow, kind=kind)
        began = clock.now()
        await clock.advance(HOUR - 0.01)
        assert not handler.is_done()
        assert (await engine.get(handler.run_id)).status is RunStatus.WAITING
        await handler
        assert HOUR <= clock.now() - began < HOUR + 0.1

    clock.run(main)


def test_the_timeouts_of_a_step_and_of_a_run_are_never_early(tmp_path: Path) -> None:
    clock = Hasty()
    stopped: list[tuple[str, float]] = []

    class Slow(Workflow):
        @step(timeout=HOUR)
        async def work(self, ev: StartEvent) -> StopEvent:
            began = clock.now()
            try:
                await asyncio.sleep(10 * HOUR)
            finally:
                stopped.append(("step", clock.now() - began))
            return StopEvent()

    class Run(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            await asyncio.sleep(10 * HOUR)
            return StopEvent()

    async def main() -> None:
        engine = clock.engine(url_of(tmp_path))
        began = clock.now()
        slow, run = await engine.start(Slow(timeout=None)), await engine.start(Run(timeout=HOUR))
        with pytest.raises(WorkflowTimeoutError):
            await run
        stopped.append(("run", clock.now() - began))
        with pytest.raises(StepTimeoutError):
            await slow

    clock.run(main)
    assert sorted(kind for kind, _ in stopped) == ["run", "step"]
    assert all(HOUR <= seconds < HOUR + 0.1 for _, seconds in stopped), stopped


class Race(Workflow):
    """Either the answer or the time."""

    ends: Counter[str]

    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        try:
            await ctx.wait_for_event(Answer, waiter_id="q", timeout=60.0)
            result = "answered"
        except TimeoutError:
            result = "timed out"
        self.ends[ctx.run_id] += 1
        await asyncio.sleep(0.1)  # the other one comes while the run still lives
        return StopEvent(result=result)


@pytest.mark.parametrize("seed", range(8))
def test_a_timer_and_an_answer_of_the_same_moment_are_one_end(tmp_path: Path, seed: int) -> None:
    """8 seeds of 25 runs: 200 interleavings of the two."""
    clock = VirtualClock(seed=seed)
    moments = Random(seed)
    flow = Race(timeout=None)
    flow.ends = Counter()

    async def main() -> Counter[str]:
        engine = clock.engine(url_of(tmp_path), [flow])
        handlers = [await engine.start(flow) for _ in range(25)]
        await clock.advance(1.0)

        async def race(n: int) -> str:
            run = handlers[n]
            waits = await engine.waits(run.run_id)
            due = waits[0].due
            assert due is not None
            # An answer is on its way for a few thousandths of a second.
            await asyncio.sleep(due - clock.now() - moments.random() * 0.004)
            await engine.signal(run.run_id, Answer(text="x"), question="q")
            result: str = await run
            ended = [e for e in await engine.entries(run.run_id) if isinstance(e, WaitEnded)]
            assert [e.timed_out for e in ended] == [result == "timed out"]
            if result == "timed out":
                info = await engine.get(run.run_id)
                assert info.ended is not None
                assert info.ended >= due
            return result

        results = Counter(await asyncio.gather(*map(race, range(len(handlers)))))
        assert flow.ends == Counter({handler.run_id: 1 for handler in handlers})
        return results

    results = clock.run(main)
    assert results.total() == 25
    assert min(results["answered"], results["timed out"]) > 0, results  # it was a race


@pytest.mark.parametrize("kind", KINDS)
def test_what_came_due_in_a_week_of_down_time_fires_at_once_and_once(
    tmp_path: Path, kind: str
) -> None:
    clock = VirtualClock()

    async def main() -> None:
        flow = timers(clock)
        first = clock.engine(url_of(tmp_path), [flow])
        run = (await first.start(flow, kind=kind)).run_id
        began = clock.now()
        await clock.settle()
        await first.stop()
        clock.skip(WEEK)
        back = clock.now()
        second = clock.engine(url_of(tmp_path), [flow])
        await second.result(run)
        assert clock.now() - back < 0.1
        entries = await second.entries(run)
        opened = [e for e in entries if isinstance(e, WaitOpened)]
        ended = [e.id for e in entries if isinstance(e, WaitEnded)]
        assert sorted(ended) == sorted(e.id for e in opened)
        assert all(e.at == began for e in opened)  # nothing was counted anew
        assert len(flow.tries) == 2  # the body before, and the body that went on

    clock.run(main)


def test_what_is_not_due_after_the_down_time_goes_on_waiting_for_its_date(tmp_path: Path) -> None:
    clock = VirtualClock()

    class Month(Workflow):
        @step
        async def wait(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.sleep(timedelta(days=30))
            return StopEvent(result=clock.elapsed)

    async def main() -> float:
        flow = Month(timeout=None)
        run = ""
        for day in range(0, 28, 7):
            clock.elapsed = day * 86400.0
            engine = clock.engine(url_of(tmp_path), [flow])
            await engine.start_up()
            run = run or (await engine.start(flow)).run_id
            await clock.settle()
            assert (await engine.get(run)).status is RunStatus.WAITING
            await engine.stop()
        clock.skip(WEEK)
        return await clock.engine(url_of(tmp_path), [flow]).result(run)

    due = timedelta(days=30).total_seconds()
    assert due <= clock.run(main) < due + 0.1


@pytest.mark.parametrize("kind", ["sleep", "wait", "retry"])
def test_a_timer_survives_the_death_of_its_process(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "runs.db"
    begin = time.time()

    async def dies(me: Process) -> None:
        """In real time, up to the commit that says when the timer is due: its third write, after
        that of the worker and that of the run."""
        flow = timers(VirtualClock(begin))
        async with Engine(me.store(path), [flow], poll=60.0) as engine:
            await (await engine.start(flow, run_id="timer", kind=kind))

    assert live(dies, ("after", 3)).killed
    run = "timer"
    clock = VirtualClock(time.time())

    async def main() -> None:
        flow = timers(clock)
        flow.tries.append(begin)
        engine = clock.engine(f"sqlite:///{path}", [flow])
        await engine.start_up()
        before = await engine.entries(run)
        dates = [e.due for e in before if isinstance(e, WaitOpened)]
        dates += [e.retry_at for e in before if isinstance(e, AttemptFailed)]
        (due,) = dates
        assert due is not None
        assert due >= begin + HOUR
        await clock.advance(due - clock.now() - 0.01)
        assert (await engine.get(run)).status is RunStatus.WAITING
        await engine.result(run)
        assert due <= clock.now() < due + 0.1
        assert len([e for e in await engine.entries(run) if isinstance(e, WaitEnded)]) <= 1

    clock.run(main)
