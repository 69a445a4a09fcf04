"""Virtual time: jumps when there is nothing to do, waits for what is outside the loop."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stepwell import Context, Event, StartEvent, StopEvent, Workflow, step
from stepwell.errors import WorkflowTimeoutError
from stepwell.retry_policy import retry_policy, stop_after_attempt, wait_fixed
from stepwell.runtime.engine import Engine
from stepwell.testing import NothingLeft, VirtualClock, run_virtual


def test_sleeps_end_in_the_order_of_their_times() -> None:
    order: list[int] = []

    async def sleeper(days: int) -> None:
        await asyncio.sleep(days * 86400)
        order.append(days)

    async def main() -> None:
        await asyncio.gather(*(sleeper(days) for days in (3, 1, 365, 2)))

    run_virtual(main)
    assert order == [1, 2, 3, 365]


def test_timeouts_fire_in_virtual_time() -> None:
    async def main(clock: VirtualClock) -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await asyncio.Event().wait()
        return clock.elapsed

    assert run_virtual(main) == 3600


def test_time_starts_where_the_test_says_and_code_takes_none() -> None:
    start = datetime(2030, 6, 1, 12, tzinfo=UTC)

    async def main(clock: VirtualClock) -> tuple[datetime, datetime]:
        before = clock.datetime
        sum(range(10000))
        return before, clock.datetime

    assert run_virtual(main, start=start) == (start, start)


def test_time_stands_still_while_a_thread_is_at_work() -> None:
    go = threading.Event()

    async def main(clock: VirtualClock) -> list[str]:
        happened: list[str] = []

        async def in_thread() -> None:
            await asyncio.to_thread(go.wait, 30)
            happened.append("thread")

        async def timer() -> None:
            await asyncio.sleep(1)
            happened.append("timer")

        threading.Timer(0.05, go.set).start()
        await asyncio.gather(timer(), in_thread())
        return happened

    assert run_virtual(main) == ["thread", "timer"]


def test_threads_are_let_end_in_real_time() -> None:
    """asyncio gives them 300 seconds, since Python 3.12: virtual ones would be over at once."""

    async def main() -> None:
        held = threading.Event()
        pool = ThreadPoolExecutor(1)
        asyncio.get_running_loop().set_default_executor(pool)
        await asyncio.to_thread(held.clear)
        left = pool.submit(held.wait)  # nothing that the loop knows of
        ending = asyncio.create_task(asyncio.get_running_loop().shutdown_default_executor())
        threading.Timer(0.05, held.set).start()
        async with asyncio.timeout(300):
            await ending
        assert left.done()

    run_virtual(main)


def test_what_can_never_come_is_an_error_that_names_who_waits() -> None:
    async def waits_for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    clock = VirtualClock(patience=0.01)
    with pytest.raises(NothingLeft, match="waits_for_ever"):
        clock.run(waits_for_ever())


def test_a_machine_that_halts_does_not_use_up_the_patience() -> None:
    """The thread that is waited for halts with it, and has its turn when both go on."""
    halts = 0

    async def main() -> str:
        loop = asyncio.get_running_loop()
        selector = loop._selector._real  # type: ignore[attr-defined]
        said = loop.create_future()
        select = selector.select

        def halting(timeout: float) -> object:
            nonlocal halts
            if timeout > 0 and halts == 0:
                halts += 1
                threading.Thread(
                    target=loop.call_soon_threadsafe, args=(said.set_result, "at last")
                ).start()
                return []  # as if all the time had passed
            return select(timeout)

        selector.select = halting
        return await said

    assert run_virtual(main) == "at last"
    assert halts == 1


def test_advance_lets_time_pass_and_what_it_brings_be_done() -> None:
    async def main(clock: VirtualClock) -> list[str]:
        done: list[str] = []

        async def work() -> None:
            await asyncio.sleep(10)
            for _ in range(50):
                await asyncio.sleep(0)
            done.append("ten")
            await asyncio.sleep(10)
            done.append("twenty")

        task = asyncio.create_task(work())
        await clock.advance(timedelta(seconds=10))
        assert done == ["ten"]
        await clock.advance(9.5)
        assert done == ["ten"]
        await clock.advance(0.5)
        await task
        return done

    assert run_virtual(main) == ["ten", "twenty"]


def test_timers_that_are_close_together_do_not_make_the_loop_spin() -> None:
    async def main(clock: VirtualClock) -> list[float]:
        fired: list[float] = []
        at = clock.now() + 30 * 86400
        done = asyncio.Event()
        for n in range(20):
            clock.call_at(at + n * 2e-7, lambda: fired.append(clock.now()))
        clock.call_at(at + 1, done.set)
        await done.wait()
        assert all(now >= at for now in fired)
        return fired

    assert len(run_virtual(main)) == 20


async def test_outside_virtual_time_the_clock_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="run_virtual"):
        VirtualClock().call_at(0, lambda: None)
    with pytest.raises(RuntimeError, match="run_virtual"):
        await VirtualClock().settle()


def test_step_bodies_live_in_virtual_time() -> None:
    tries: list[float] = []
    clock = VirtualClock()

    class Slow(Workflow):
        @step(retry_policy=retry_policy(wait=wait_fixed(3600), stop=stop_after_attempt(3)))
        async def slow(self, ev: StartEvent) -> StopEvent:
            tries.append(clock.now() - clock.start)
            if len(tries) < 3:
                raise OSError("not yet")
            await asyncio.sleep(1800)
            return StopEvent(result=clock.elapsed)

    async def main(clock: VirtualClock) -> float:
        return await Slow(timeout=None).run(engine=clock.engine())

    assert clock.run(main) == 9000
    assert tries == [0, 3600, 7200]


def test_the_timeout_of_a_run_is_virtual(tmp_path: Path) -> None:
    class Endless(Workflow):
        @step
        async def wait(self, ev: StartEvent) -> StopEvent:
            await asyncio.sleep(1e6)
            return StopEvent()

    async def main(clock: VirtualClock) -> float:
        engine = clock.engine(f"sqlite:///{tmp_path}/runs.db?durability=process")
        with pytest.raises(WorkflowTimeoutError, match=r"timed out after 600\.0 seconds"):
            await Endless(timeout=600.0).run(engine=engine)
        return clock.elapsed

    assert 600 <= run_virtual(main) < 601


def test_a_sync_step_is_waited_for() -> None:
    class Sync(Workflow):
        @step
        def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=threading.current_thread() is threading.main_thread())

    async def main(clock: VirtualClock) -> bool:
        return await Sync(timeout=0.001).run(engine=clock.engine())

    assert run_virtual(main) is False


def test_the_engine_is_stopped_with_its_clock(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"

    async def start(clock: VirtualClock) -> Engine:
        engine = clock.engine(f"sqlite:///{path}?durability=process")
        await engine.start_up()
        return engine

    clock = VirtualClock()
    engine = clock.run(start)
    assert not path.with_name("runs.db-wal").exists()
    assert engine.url.endswith("runs.db")


class Part(Event):
    n: int


class Fan(Workflow):
    @step
    async def split(self, ev: StartEvent) -> list[Part]:
        return [Part(n=n) for n in range(6)]

    @step(num_workers=6)
    async def work(self, ctx: Context, ev: Part) -> Event:
        seen = await ctx.store.get("seen", default=[])
        await ctx.store.set("seen", [*seen, ev.n])
        return Event(n=ev.n)

    @step
    async def join(self, ctx: Context, events: list[Event]) -> StopEvent:
        return StopEvent(result=[e.n for e in events])


def _order(seed: int | None) -> list[int]:
    async def main(clock: VirtualClock) -> list[int]:
        return await Fan().run(engine=clock.engine())

    return run_virtual(main, seed=seed)


def test_without_a_seed_bodies_start_in_order() -> None:
    assert _order(None) == list(range(6))


def test_a_seed_makes_an_order_of_its_own_and_always_the_same() -> None:
    orders = {seed: _order(seed) for seed in range(12)}
    assert len({tuple(order) for order in orders.values()}) > 6
    assert all(sorted(order) == list(range(6)) for order in orders.values())
    assert [_order(seed) for seed in range(12)] == list(orders.values())
