"""Workers of one store whose code differs: a run goes to one that can go on with it."""

from __future__ import annotations

import asyncio

from stepwell import Context, Engine, Event, StartEvent, StopEvent, Workflow, step
from stepwell.authoring.document_run import Documents
from stepwell.authoring.tasks import TaskRegistry
from stepwell.stores.memory import MemoryStore
from stepwell.testing import VirtualClock

ONE = {"name": "one", "steps": [{"execution_type": "sequential", "tasks": [{"name": "slow"}]}]}


def documents(*names: str) -> Documents:
    registry = TaskRegistry()
    for name in names:

        @registry.task(name)
        async def work() -> str:
            await asyncio.sleep(5)
            return "done"

    return Documents(registry)


async def started(clock: VirtualClock, store: MemoryStore, count: int) -> list[str]:
    """Runs that somebody else started, and that no worker has taken up."""
    engine, mine = clock.engine(store, worker=False), documents("slow")
    return [(await engine.start(mine, {"document": ONE})).run_id for _ in range(count)]


async def statuses(engine: Engine, runs: list[str]) -> set[str]:
    return {(await engine.get(run)).status.value for run in runs}


async def test_a_run_whose_task_one_worker_lacks_is_done_by_the_other(
    virtual_clock: VirtualClock,
) -> None:
    store = MemoryStore()
    runs = await started(virtual_clock, store, 8)
    lacks = virtual_clock.engine(store, [documents("quick")], name="lacks", lease=15.0)
    has = virtual_clock.engine(store, [documents("slow")], name="has", lease=15.0, max_active=1)
    await has.start_up()
    await lacks.start_up()
    await virtual_clock.advance(300)
    assert await statuses(has, runs) == {"completed"}


async def test_one_that_was_parked_goes_on_where_its_task_is_when_a_person_resumes_it(
    virtual_clock: VirtualClock,
) -> None:
    store = MemoryStore()
    (run,) = await started(virtual_clock, store, 1)
    lacks = virtual_clock.engine(store, [documents("quick")], name="lacks", lease=15.0)
    await lacks.start_up()
    await virtual_clock.advance(60)
    assert await statuses(lacks, [run]) == {"parked"}
    assert "unknown task 'slow'" in (await lacks.why(run)).sentence
    has = virtual_clock.engine(store, [documents("slow")], name="has", lease=15.0)
    await has.start_up()
    await lacks.resume(run)
    await virtual_clock.advance(60)
    assert await statuses(lacks, [run]) == {"completed"}


async def test_a_run_that_no_live_worker_can_do_is_parked(virtual_clock: VirtualClock) -> None:
    store = MemoryStore()
    runs = await started(virtual_clock, store, 3)
    engines = [
        virtual_clock.engine(store, [documents("quick")], name=name, lease=15.0)
        for name in ("a", "b", "c")
    ]
    await asyncio.gather(*(engine.start_up() for engine in engines))
    await virtual_clock.advance(300)
    assert await statuses(engines[0], runs) == {"parked"}


class Go(Event):
    pass


def release(*, newer: bool) -> Workflow:
    """Two releases of one workflow: only the newer one has the step `more`."""

    class Old(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result="old")

    class New(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Go:
            return Go()

        @step
        async def more(self, ev: Go, ctx: Context) -> StopEvent:
            await ctx.sleep(600)
            return StopEvent(result="new")

    return (New if newer else Old)(workflow_name="released", timeout=None)


async def test_in_a_rolling_deploy_old_workers_leave_new_runs_to_new_ones(
    virtual_clock: VirtualClock,
) -> None:
    store = MemoryStore()
    new = release(newer=True)
    first = virtual_clock.engine(store, [new], name="first")
    run = (await first.start(new)).run_id
    await virtual_clock.advance(10)
    await first.stop()  # the run is in the middle of what only the newer release has
    old = virtual_clock.engine(store, [release(newer=False)], name="old", lease=15.0)
    await old.start_up()
    second = virtual_clock.engine(store, [release(newer=True)], name="second", lease=15.0)
    await second.start_up()
    await virtual_clock.advance(900)
    assert await second.result(run) == "new"
