"""A run's life on a worker: let go when it only waits, stopped gracefully, taken up again."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from tests.durable.flows import Answer, Linear, Middle, asks

from stepwell import Context, Event, StartEvent, StopEvent, Workflow, step
from stepwell.errors import WorkflowTimeoutError
from stepwell.kernel.decide import MAX_RESTARTS
from stepwell.retry_policy import retry_policy, stop_after_attempt, wait_fixed
from stepwell.testing import Bodies, History, HookedEngine, VirtualClock
from stepwell.values import RunStatus


def url_of(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/runs.db?durability=process"


class Month(Workflow):
    @step
    async def wait(self, ctx: Context, ev: StartEvent) -> StopEvent:
        await ctx.sleep(timedelta(days=30))
        return StopEvent(result="a month later")


async def test_a_waiting_run_is_let_go_and_comes_back_by_a_signal(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    bodies = Bodies()
    engine = virtual_clock.engine(url_of(tmp_path), lease=30, release_after=60, hooks=bodies)
    handler = await engine.start(asks())
    await virtual_clock.advance(300)
    info = await engine.get(handler.run_id)
    assert (info.status, info.owner) == (RunStatus.WAITING, None)
    await engine.answer(handler.run_id, {"text": "back"})
    assert await handler == "back"
    assert len(bodies.begun) == 2
    assert (await History.of(handler)).resumed == 1


async def test_a_sleeping_run_is_let_go_and_comes_back_when_it_is_time(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    engine = virtual_clock.engine(url_of(tmp_path), lease=86400, release_after=60)
    handler = await engine.start(Month(timeout=None))
    await virtual_clock.advance(timedelta(days=29, hours=23))
    info = await engine.get(handler.run_id)
    assert (info.status, info.owner) == (RunStatus.WAITING, None)
    assert await handler == "a month later"
    assert virtual_clock.elapsed == pytest.approx(30 * 86400, abs=1)
    assert virtual_clock.elapsed >= 30 * 86400


async def test_a_timer_that_was_due_while_nothing_ran_fires_at_once_and_once(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    flow = Month(timeout=None)
    first = virtual_clock.engine(url_of(tmp_path), [flow])
    run_id = (await first.start(flow)).run_id
    await virtual_clock.settle()
    await first.stop()
    virtual_clock.skip(timedelta(days=90))
    before = virtual_clock.now()
    second = virtual_clock.engine(url_of(tmp_path), [flow])
    assert await second.result(run_id) == "a month later"
    assert virtual_clock.now() - before < 1


async def test_stopping_lets_bodies_end_within_the_grace(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    ends: list[str] = []

    class Slow(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            await asyncio.sleep(ev.seconds)
            ends.append("work")
            return StopEvent(result="done")

    flow = Slow(timeout=None)
    engine = virtual_clock.engine(url_of(tmp_path), [flow])
    quick = await engine.start(flow, seconds=1)
    slow = await engine.start(flow, seconds=100)
    await virtual_clock.settle()
    await engine.stop(grace=2.0)
    assert ends == ["work"]
    second = virtual_clock.engine(url_of(tmp_path), [flow])
    assert (await second.get(quick.run_id)).status is RunStatus.COMPLETED
    left = await second.get(slow.run_id)
    assert left.status is RunStatus.RUNNING
    assert await second.result(slow.run_id) == "done"
    assert ends == ["work", "work"]


async def test_an_engine_starts_nothing_new_while_it_stops(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    began: list[str] = []

    class Chain(Workflow):
        @step
        async def one(self, ev: StartEvent) -> Middle:
            began.append("one")
            await asyncio.sleep(1)
            return Middle()

        @step
        async def two(self, ev: Middle) -> StopEvent:
            began.append("two")
            await asyncio.sleep(100)
            return StopEvent(result="end")

    flow = Chain(timeout=None)
    engine = virtual_clock.engine(url_of(tmp_path), [flow])
    handler = await engine.start(flow)
    await virtual_clock.settle()
    await engine.stop(grace=5.0)
    second = virtual_clock.engine(url_of(tmp_path), [flow])
    assert await second.result(handler.run_id) == "end"
    assert began.count("one") == 1


async def test_bodies_that_stop_may_clean_up_but_not_commit(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    cleaned: list[str] = []

    class Careful(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                cleaned.append("once")
                return StopEvent(result="too early")
            return StopEvent(result="in time")

    flow = Careful(timeout=None)
    engine = virtual_clock.engine(url_of(tmp_path), [flow])
    handler = await engine.start(flow)
    await virtual_clock.settle()
    await engine.stop(grace=0.5)
    assert cleaned == ["once"]
    second = virtual_clock.engine(url_of(tmp_path), [flow])
    assert await second.result(handler.run_id) == "in time"


async def test_alive_time_counts_and_down_time_does_not(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    class Busy(Workflow):
        @step
        async def first(self, ev: StartEvent) -> Middle:
            await asyncio.sleep(300)
            return Middle()

        @step
        async def second(self, ev: Middle) -> StopEvent:
            await asyncio.sleep(550)
            return StopEvent()

    flow = Busy(timeout=600.0)
    first = virtual_clock.engine(url_of(tmp_path), [flow])
    run_id = (await first.start(flow)).run_id
    await virtual_clock.advance(300)
    await first.stop(grace=0)
    virtual_clock.skip(timedelta(days=5))
    second = virtual_clock.engine(url_of(tmp_path), [flow])
    began = virtual_clock.now()
    with pytest.raises(WorkflowTimeoutError):
        await second.result(run_id)
    assert virtual_clock.now() - began == pytest.approx(300, abs=1)


async def test_a_retry_delay_survives_a_restart(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    tries: list[float] = []

    class Flaky(Workflow):
        @step(retry_policy=retry_policy(wait=wait_fixed(3600), stop=stop_after_attempt(4)))
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            tries.append(virtual_clock.elapsed)
            if len(tries) < 3:
                raise OSError(f"try {len(tries)}")
            info = ctx.retry_info()
            return StopEvent(result=[info.retry_number, str(info.last_exception)])

    flow = Flaky(timeout=None)
    first = virtual_clock.engine(url_of(tmp_path), [flow])
    run_id = (await first.start(flow)).run_id
    await virtual_clock.advance(600)
    await first.stop()
    virtual_clock.skip(600)
    second = virtual_clock.engine(url_of(tmp_path), [flow])
    assert await second.result(run_id) == [2, "try 2"]
    assert tries == [0, pytest.approx(3600, abs=1), pytest.approx(7200, abs=1)]


async def test_num_concurrent_runs_holds_for_durable_runs(
    sqlite_engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    active = most = 0

    class Limited(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            nonlocal active, most
            active += 1
            most = max(most, active)
            await asyncio.sleep(10)
            active -= 1
            return StopEvent(result=ev.n)

    flow = Limited(num_concurrent_runs=2, timeout=None)
    handlers = [await sqlite_engine.start(flow, n=n) for n in range(7)]
    assert [await handler for handler in handlers] == list(range(7))
    assert most == 2
    assert 40 <= virtual_clock.elapsed < 45


async def test_num_concurrent_runs_holds_after_a_restart(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    active = most = 0

    class Limited(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            nonlocal active, most
            active += 1
            most = max(most, active)
            try:
                await asyncio.sleep(10)
            finally:
                active -= 1
            return StopEvent(result=ev.n)

    flow = Limited(num_concurrent_runs=2, timeout=None)
    first = virtual_clock.engine(url_of(tmp_path), [flow])
    ids = [(await first.start(flow, n=n)).run_id for n in range(5)]
    await virtual_clock.advance(3)
    await first.stop(grace=0.1)
    second = virtual_clock.engine(url_of(tmp_path), [flow])
    assert [await second.result(id) for id in ids] == list(range(5))
    assert most == 2


async def test_max_active_bounds_memory_and_everything_is_done(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    flow = asks()
    engine = virtual_clock.engine(url_of(tmp_path), [flow], max_active=5, lease=30)
    handlers = [await engine.start(flow) for _ in range(12)]
    await virtual_clock.advance(600)
    for n, handler in enumerate(handlers):
        await engine.signal(handler.run_id, Answer(text=str(n)), question="q")
    assert [await handler for handler in handlers] == [str(n) for n in range(12)]


async def test_a_result_is_there_for_an_engine_that_never_ran_it(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    flow = Linear()
    first = virtual_clock.engine(url_of(tmp_path), [flow])
    run_id = (await first.start(flow, n=4)).run_id
    assert await first.result(run_id) == 8
    await first.stop()
    other = virtual_clock.engine(url_of(tmp_path), [flow])
    assert await other.result(run_id) == 8
    handler = await other.handler(run_id)
    assert [type(e).__name__ async for e in handler.stream_events()] == ["Event", "StopEvent"]
    assert isinstance(await handler.stop_event_result(), StopEvent)
    assert handler.is_done()


MANY = 3_000


async def test_many_thousand_waiting_runs_cost_a_restart_nothing(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    bodies = Bodies()
    flow = Month(timeout=None)
    soon = type("Soon", (Month,), {})(timeout=None, workflow_name="soon")
    first = virtual_clock.engine(url_of(tmp_path), [flow, soon], max_active=20_000)
    handlers = [flow.run(engine=first) for _ in range(MANY)]
    for handler in handlers:
        await handler.started()
    await virtual_clock.settle()
    virtual_clock.elapsed += 3600
    late = (await first.start(soon)).run_id
    await virtual_clock.settle()
    await first.stop()
    second = virtual_clock.engine(url_of(tmp_path), [flow, soon], hooks=bodies, max_active=20_000)
    await second.start_up()
    await virtual_clock.settle()
    assert bodies.begun == []  # nothing is due, so nothing was loaded
    assert second._worker.runs == {}  # pyright: ignore[reportPrivateUsage]
    await second.signal(late, Event(nothing="of interest"))
    await virtual_clock.settle()
    assert second._worker.runs.keys() == {late}  # pyright: ignore[reportPrivateUsage]


class Endless(Workflow):
    """A step that works for a day."""

    @step
    async def work(self, ev: StartEvent) -> StopEvent:
        await asyncio.sleep(86_400)
        return StopEvent(result="at last")


async def test_a_run_is_not_parked_for_stops_that_were_orderly(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    flow = Endless(timeout=None)
    engine = virtual_clock.engine(url_of(tmp_path), [flow])
    handler = await engine.start(flow)
    for _ in range(MAX_RESTARTS + 5):
        await virtual_clock.advance(10)
        await engine.stop()
        engine = virtual_clock.engine(url_of(tmp_path), [flow])
        await engine.start_up()
    info = await engine.get(handler.run_id)
    assert (info.status, info.owner) == (RunStatus.RUNNING, engine.worker_id)
    assert await engine.result(handler.run_id) == "at last"


async def test_a_run_that_its_workers_die_of_is_parked_also_after_an_orderly_stop(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    flow = Endless(timeout=None)
    engine = virtual_clock.engine(url_of(tmp_path), [flow], lease=15)
    handler = await engine.start(flow)
    await virtual_clock.advance(10)
    await engine.stop()
    deaths = 0
    while True:
        engine = virtual_clock.engine(url_of(tmp_path), [flow], lease=15)
        await engine.start_up()
        await virtual_clock.advance(16)
        if (await engine.get(handler.run_id)).status is RunStatus.PARKED:
            break
        deaths += 1
        await engine.store.unregister(engine.worker_id)  # what others do when it has died
        engine.abandon()
        await engine.store.close()
    assert deaths == MAX_RESTARTS + 1
