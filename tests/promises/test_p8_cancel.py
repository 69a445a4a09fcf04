"""P8: after a cancel is accepted no new step starts; child runs are cancelled too.

Accepted means: the call has returned, and the engine that was called holds the run; or, when
another worker holds it, or nobody does, that worker has taken the request in. The tests catch, each
tried out: a cancel that returns before it was taken in, or before what was decided earlier has been
performed or dropped; children that are not told, or only the first thousand of them; bodies that
are left to run, or that were about to begin and do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
from tests.durable.flows import Answer, asks
from tests.promises.processes import Process, live

from stepwell import Context, Event, StartEvent, StopEvent, Workflow, step
from stepwell.errors import WorkflowCancelledByUser
from stepwell.kernel.journal import Entry, RunEnded, WorkAdded, WorkBegun
from stepwell.retry_policy import retry_policy, stop_after_attempt, wait_fixed
from stepwell.runtime.engine import Engine
from stepwell.runtime.telemetry import listen
from stepwell.stores.sqlite import SQLiteStore
from stepwell.testing import Bodies, HookedEngine, VirtualClock
from stepwell.values import RunStatus

HOUR = 3600.0


def url_of(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/runs.db?durability=process"


class Part(Event):
    n: int


class Done(Event):
    n: int


class Fan(Workflow):
    """Twelve parts, two at a time, three steps deep; each body takes a moment."""

    finals: list[str]

    @step
    async def split(self, ev: StartEvent) -> list[Part]:
        return [Part(n=n) for n in range(12)]

    @step(num_workers=2)
    async def part(self, ev: Part) -> Done:
        self.finals.append("began")
        try:
            await asyncio.sleep(0.01)
        finally:
            self.finals.append("ended")
        return Done(n=ev.n)

    @step
    async def join(self, evs: list[Done]) -> Answer:
        await asyncio.sleep(0.01)
        return Answer()

    @step
    async def end(self, ev: Answer) -> StopEvent:
        await asyncio.sleep(0.01)
        return StopEvent()


def nothing_begins_after_the_end(entries: Sequence[Entry]) -> None:
    (at,) = [i for i, e in enumerate(entries) if isinstance(e, RunEnded)]
    assert not [e for e in entries[at:] if isinstance(e, WorkAdded | WorkBegun)]


async def all_is_over(clock: VirtualClock, engine: HookedEngine, runs: Sequence[str]) -> None:
    """The runs are cancelled, nothing of them is at work, and later that is still so."""
    for seconds in (0.0, 5 * engine._worker.lease):
        await clock.advance(seconds)
        for run in runs:
            info = await engine.get(run)
            assert (info.status, info.owner, info.waits) == (RunStatus.CANCELLED, None, ())
            entries = await engine.entries(run)
            assert len([e for e in entries if isinstance(e, RunEnded)]) == 1
            nothing_begins_after_the_end(entries)
    assert engine._worker.runs == {}
    bodies = [t for t in asyncio.all_tasks() if "_run_ready" in repr(t)]
    assert not bodies


@pytest.mark.parametrize("seed", range(25))
def test_no_step_begins_after_a_cancel_wherever_it_comes(tmp_path: Path, seed: int) -> None:
    """The cancel comes at a random moment of a run that is never idle."""
    clock = VirtualClock(seed=seed)
    bodies = Bodies()

    async def main() -> None:
        flow = Fan(timeout=None)
        flow.finals = []
        engine = clock.engine(url_of(tmp_path), [flow], hooks=bodies)
        handler = await engine.start(flow)
        await asyncio.sleep(Random(seed).random() * 0.09)
        assert await engine.cancel(handler.run_id)
        begun = len(bodies.begun)
        await all_is_over(clock, engine, [handler.run_id])
        assert len(bodies.begun) == begun
        assert flow.finals.count("began") == flow.finals.count("ended")

    clock.run(main)


def test_of_many_bodies_that_were_about_to_begin_none_does() -> None:
    """The cancel comes while a crowd of bodies is started one after the other."""
    clock = VirtualClock()
    began: list[int] = []
    accepted: list[int] = []

    class Crowd(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Part]:
            return [Part(n=n) for n in range(2000)]

        @step(num_workers=2000)
        async def part(self, ev: Part) -> Done:
            began.append(ev.n)
            if ev.n == 0:
                cancelling.append(asyncio.create_task(cancel()))
            await asyncio.sleep(HOUR)
            return Done(n=ev.n)

        @step
        async def join(self, evs: list[Done]) -> StopEvent:
            return StopEvent()

    cancelling: list[asyncio.Task[None]] = []
    engines: list[HookedEngine] = []

    async def cancel() -> None:
        assert await engines[0].cancel("run")
        accepted.append(len(began))

    async def main() -> None:
        engines.append(clock.engine("memory://"))  # whose turns of the loop are always as many
        await engines[0].start(Crowd(timeout=None), run_id="run")
        await clock.settle()
        await all_is_over(clock, engines[0], ["run"])

    clock.run(main)
    assert accepted == [len(began)]
    assert 0 < len(began) < 2000, "the cancel came too late; the test is blind"


def test_a_retry_that_was_to_come_does_not(tmp_path: Path) -> None:
    clock = VirtualClock()
    tries: list[float] = []

    class Flaky(Workflow):
        @step(retry_policy=retry_policy(wait=wait_fixed(HOUR), stop=stop_after_attempt(5)))
        async def work(self, ev: StartEvent) -> StopEvent:
            tries.append(clock.elapsed)
            raise OSError("down")

    async def main() -> None:
        engine = clock.engine(url_of(tmp_path))
        handler = await engine.start(Flaky(timeout=None))
        await clock.advance(1.5 * HOUR)
        assert len(tries) == 2
        assert await engine.cancel(handler.run_id)
        await all_is_over(clock, engine, [handler.run_id])
        assert len(tries) == 2

    clock.run(main)


def test_bodies_are_cancelled_and_clean_up_and_nothing_of_them_is_kept(tmp_path: Path) -> None:
    clock = VirtualClock()
    cleaned: list[str] = []

    class Careful(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Part]:
            return [Part(n=n) for n in range(3)]

        @step
        async def part(self, ctx: Context, ev: Part) -> Done:
            try:
                if ev.n == 0:
                    await asyncio.sleep(100 * HOUR)
                elif ev.n == 1:
                    await ctx.wait_for_event(Answer, timeout=None)
                else:
                    await asyncio.gather(asyncio.sleep(100 * HOUR), ctx.sleep(100 * HOUR))
            except asyncio.CancelledError:
                ctx.send_event(Part(n=9))
                return Done(n=0)  # too late
            finally:
                await asyncio.sleep(0.5)
                await ctx.store.set("late", True)
                cleaned.append(f"part {ev.n}")
            return Done(n=ev.n)

        @step
        async def join(self, evs: list[Done]) -> StopEvent:
            cleaned.append("join")
            return StopEvent()

    async def main() -> None:
        engine = clock.engine(url_of(tmp_path))
        handler = await engine.start(Careful(timeout=None))
        await clock.advance(1.0)
        assert await engine.cancel(handler.run_id, "enough")
        await clock.advance(1.0)
        assert sorted(cleaned) == ["part 0", "part 1", "part 2"]
        await all_is_over(clock, engine, [handler.run_id])
        with pytest.raises(WorkflowCancelledByUser, match="enough"):
            await handler
        assert not await engine.cancel(handler.run_id)
        assert "late" not in str(await engine.journal(handler.run_id))

    clock.run(main)


@pytest.mark.parametrize("state", ["queued", "waiting", "in the store", "parked", "due timer"])
def test_a_run_in_any_state_is_cancelled(tmp_path: Path, state: str) -> None:
    clock = VirtualClock()
    bodies = Bodies()

    async def main() -> None:
        flow = asks(num_concurrent_runs=1 if state == "queued" else None)
        release = 60.0 if state == "in the store" else 1e6
        url = url_of(tmp_path)
        engine = clock.engine(url, [flow], hooks=bodies, release_after=release, lease=30)
        first = (await engine.start(flow)).run_id
        run = (await engine.start(flow)).run_id if state == "queued" else first
        await clock.advance(200.0)
        if state == "parked":
            await engine.park(run, "let me look")
            await clock.settle()
        info = await engine.get(run)
        expected = {"queued": RunStatus.QUEUED, "parked": RunStatus.PARKED}
        assert info.status is expected.get(state, RunStatus.WAITING)
        assert (info.owner is None) == (state in ("queued", "in the store", "parked"))
        begun = len(bodies.begun)
        assert await engine.cancel(run)
        if state == "queued":  # it is claimed when there is room for it
            await engine.cancel(first)
        await clock.settle()
        await all_is_over(clock, engine, [run])
        assert len(bodies.begun) == begun

    clock.run(main)


# --- children ------------------------------------------------------------------------------------


class Grandchild(Workflow):
    @step
    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        if ev.waits:
            await ctx.wait_for_event(Answer, timeout=None)
        await asyncio.sleep(1000 * HOUR)
        return StopEvent()


class Child(Workflow):
    @step
    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        await ctx.run_child(Grandchild(timeout=None), waits=ev.waits)
        return StopEvent()


class Parent(Workflow):
    @step
    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        await asyncio.gather(
            ctx.run_child(Child(timeout=None), waits=ev.waits),
            ctx.run_child(Grandchild(timeout=None), waits=ev.waits),
        )
        return StopEvent()


FAMILY = [Parent(timeout=None), Child(timeout=None), Grandchild(timeout=None)]


async def family_of(engine: Engine) -> list[str]:
    """The ids of all runs: the parent, its two children, and the child of one of them."""
    infos, _ = await engine.list()
    (top,) = [i.id for i in infos if i.parent is None]
    children = [i.id for i in infos if i.parent == top]
    (last,) = [i.id for i in infos if i.parent in children]
    assert len(infos) == 4
    return [top, *children, last]


@pytest.mark.parametrize("waits", [False, True])
def test_children_and_theirs_are_cancelled_with_their_parent(tmp_path: Path, waits: bool) -> None:
    clock = VirtualClock()

    async def main() -> None:
        engine = clock.engine(url_of(tmp_path), FAMILY)
        await engine.start(FAMILY[0], waits=waits)
        await clock.advance(1.0)
        runs = await family_of(engine)
        assert await engine.cancel(runs[0])
        await clock.settle()
        await all_is_over(clock, engine, runs)

    clock.run(main)


def test_children_are_cancelled_wherever_they_are(tmp_path: Path) -> None:
    """The parent is here, its child waits in the store, and theirs are held by another engine."""
    clock = VirtualClock()
    parent, child, grandchild = FAMILY

    async def main() -> None:
        url = url_of(tmp_path)
        first = clock.engine(url, FAMILY)
        await first.start(parent, waits=False)
        await clock.advance(1.0)
        runs = await family_of(first)
        await first.stop(grace=0.0)
        other = clock.engine(url, [grandchild], lease=30)
        await other.start_up()
        one = clock.engine(url, [parent, child], lease=30)
        await one.start_up()
        await clock.settle()
        where = [(info.workflow.rpartition(".")[2], info.owner) for info in (await one.list())[0]]
        assert where.count(("Grandchild", other.worker_id)) == 2
        assert await one.cancel(runs[0])
        await clock.advance(60.0)
        for engine in (one, other):
            assert engine._worker.runs == {}
        looker = clock.engine(url, FAMILY, lease=30)
        await all_is_over(clock, looker, runs)

    clock.run(main)


@pytest.mark.parametrize("waits", [False, True])
def test_children_that_nobody_holds_are_cancelled_by_who_takes_them_up(
    tmp_path: Path, waits: bool
) -> None:
    clock = VirtualClock()
    bodies = Bodies()

    async def main() -> None:
        url = url_of(tmp_path)
        first = clock.engine(url, FAMILY)
        await first.start(FAMILY[0], waits=waits)
        await clock.advance(1.0)
        runs = await family_of(first)
        await first.stop(grace=0.0)
        looker = clock.engine(url, worker=False)
        assert await looker.cancel(runs[0])
        await looker.stop()
        clock.skip(timedelta(days=7))
        second = clock.engine(url, FAMILY[:1], hooks=bodies)  # the parent first, and it alone
        await second.start_up()
        await clock.settle()
        assert (await second.get(runs[0])).status is RunStatus.CANCELLED
        await second.stop()
        third = clock.engine(url, FAMILY, hooks=bodies)
        await third.start_up()
        await clock.settle()
        await all_is_over(clock, third, runs)
        # A child's child is asked when its parent ended; it may have gone on until then.
        assert {run for run, _, _ in bodies.begun} <= {runs[3]}

    clock.run(main)


def test_a_parked_parent_takes_its_children_along(tmp_path: Path) -> None:
    clock = VirtualClock()

    async def main() -> None:
        engine = clock.engine(url_of(tmp_path), FAMILY)
        await engine.start(FAMILY[0], waits=True)
        await clock.advance(1.0)
        runs = await family_of(engine)
        await engine.park(runs[0], "let me look")
        await clock.settle()
        assert await engine.cancel(runs[0])
        await clock.settle()
        await all_is_over(clock, engine, runs)

    clock.run(main)


def test_a_parked_parent_of_very_many_takes_all_of_them_along(tmp_path: Path) -> None:
    clock = VirtualClock()

    class Many(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            waiting = [ctx.run_child(asks(), n=n) for n in range(1010)]
            await asyncio.gather(*waiting)
            return StopEvent()

    async def main() -> None:
        engine = clock.engine(url_of(tmp_path))
        run = (await engine.start(Many(timeout=None))).run_id
        await clock.settle()
        await engine.park(run, "let me look")
        await clock.settle()
        assert await engine.cancel(run)
        await clock.settle()
        counts = await engine.counts()
        assert {status for _, status in counts} == {RunStatus.CANCELLED}
        assert sum(counts.values()) == 1011

    clock.run(main)


ACCEPTED = [(1, "after"), (2, "before"), (2, "after"), (3, "before"), (3, "after")]


@pytest.mark.parametrize("number, when", ACCEPTED)
def test_an_accepted_cancel_survives_the_death_of_the_process(
    tmp_path: Path, number: int, when: str
) -> None:
    """Killed around the writes of a cancel: the request is kept, the parent ends, children end."""
    path = tmp_path / "runs.db"

    async def dies(me: Process) -> None:
        left: list[int] = []
        writes: list[int] = []

        def on_write(at: str, number: int) -> None:
            writes.append(number)
            if left and at == "before":
                left[0] -= 1
            if left == [0] and at == when:
                me.die()

        store = SQLiteStore(path, durability="process", on_write=on_write)
        begun = asyncio.Event()
        stop = listen(lambda name, told: begun.set() if "Grandchild" in str(told) else None)
        async with Engine(store, FAMILY, poll=3600.0, lease=3600.0) as engine:
            handler = await engine.start(FAMILY[0], run_id="parent", waits=False)
            await begun.wait()
            seen, quiet = -1, 0
            while quiet < 10:  # the others begin, and then nothing is written any more
                quiet = quiet + 1 if seen == len(writes) else 0
                seen = len(writes)
                await asyncio.sleep(0.04)
            left.append(number)
            await engine.cancel(handler.run_id)
            await asyncio.sleep(1000.0)
        stop()

    assert live(dies).killed
    clock = VirtualClock(time.time())
    bodies = Bodies()

    async def main() -> None:
        engine = clock.engine(f"sqlite:///{path}?durability=process", FAMILY, hooks=bodies)
        await engine.start_up()
        await clock.settle()
        infos, _ = await engine.list()
        await all_is_over(clock, engine, [info.id for info in infos])
        assert "parent" not in {run for run, _, _ in bodies.begun}

    clock.run(main)
