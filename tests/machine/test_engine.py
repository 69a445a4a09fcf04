"""`WorkflowEngine`: starts, signals, events, queries, and where it may be called from."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from tests.machine.conftest import BEGIN

from stepwell.errors import ContextStateError, RunNotFound, WorkflowNotRegistered
from stepwell.machine import (
    WorkflowEngine,
    WorkflowRun,
    WorkflowStatus,
    complete,
    event_workflow,
    fail,
    get_context,
    goto,
    sleep,
    step,
    wait,
    wait_for_event,
    workflow,
)
from stepwell.machine import engine as default_engine
from stepwell.testing import SynchronousExecutor

DAY = timedelta(days=1)
ROOT = Path(__file__).parents[2]


class Box(BaseModel):
    n: int = 0
    event_id: str = ""
    event_name: str = ""
    entity_id: int | str | None = None


def asking(name: str, signal: str = "go") -> Any:
    @workflow(f"engine-{name}")
    class Asking:
        Context = Box

        @step(start=True)
        def ask(self) -> Any:
            return wait.for_signal(signal)

        @step()
        def end(self) -> Any:
            return complete(n=get_context().n)

    return Asking


# --- start ---------------------------------------------------------------------------------------


def test_a_start_shows_the_run_as_created(engine: WorkflowEngine) -> None:
    run = engine.start(asking("created"), n=3, correlation="c", key="k")
    assert (run.status, run.current_step) == ("running", "ask")
    assert (run.name, run.version, run.data["n"]) == ("engine-created", "1", 3)
    assert (run.correlation, run.key) == ("c", "k")
    assert run.created_at == run.updated_at == BEGIN
    assert run.completed_at is run.error is run.result is run.parent_run_id is None
    assert repr(run) == f"<WorkflowRun {run.id} of engine-created: running at ask>"
    assert run.refresh() is run
    assert run.status == "waiting"
    assert run.refresh_from_db().status == WorkflowStatus.WAITING


def test_an_unknown_name(engine: WorkflowEngine) -> None:
    with pytest.raises(WorkflowNotRegistered, match="Workflow engine-nowhere not found"):
        engine.start("engine-nowhere")
    with pytest.raises(TypeError, match="is not decorated with @workflow"):
        engine.start(Box)


def test_a_key_starts_once(engine: WorkflowEngine) -> None:
    cls = asking("key")
    first = engine.start(cls, key="a", n=1)
    second = engine.start(cls, key="a", n=2)
    assert second.id == first.id
    assert (second.status, second.data["n"]) == ("waiting", 1)  # as it is, not as created
    assert engine.start(cls, key="b").id != first.id
    assert engine.start(asking("key-other"), key="a").id != first.id


def test_versions_live_side_by_side(engine: WorkflowEngine) -> None:
    def versioned(version: str) -> Any:
        class Machine:
            Context = Box

            @step(start=True)
            def ask(self) -> Any:
                return wait.for_signal("go")

            @step()
            def end(self) -> Any:
                return complete(version=version)

        return workflow("engine-versions", version=version)(Machine)

    one = versioned("1")
    old = engine.start("engine-versions")
    two = versioned("2")
    new = engine.start("engine-versions")
    also_old = engine.start(one)
    assert (old.version, new.version, also_old.version) == ("1", "2", "1")
    assert engine.signal("go") == 3
    results = [run.refresh().result for run in (old, new, also_old)]
    assert results == [{"version": "1"}, {"version": "2"}, {"version": "1"}]
    assert two is not one


# --- signals -------------------------------------------------------------------------------------


def test_a_broadcast_reaches_every_run_that_waits_for_it(engine: WorkflowEngine) -> None:
    cls, other = asking("broadcast"), asking("broadcast-other", "stop")
    runs = [engine.start(cls) for _ in range(3)]
    apart = engine.start(other)
    assert engine.signal("go", {"n": 5}) == 3
    assert [run.refresh().result for run in runs] == [{"n": 5}] * 3
    assert apart.refresh().status == "waiting"
    assert engine.signal("go") == 0
    assert engine.signal("nobody") == 0


def test_a_signal_to_one_run(engine: WorkflowEngine) -> None:
    cls = asking("one")
    first, second = engine.start(cls), engine.start(cls)
    assert engine.signal("go", {"n": 1}, run_id=first.id) == 1
    assert (first.refresh().status, second.refresh().status) == ("completed", "waiting")
    assert engine.signal("go", run_id=first.id) == 0  # it has ended
    with pytest.raises(RunNotFound):
        engine.signal("go", run_id="nowhere")
    with pytest.raises(ValueError, match="run_id or correlation, not both"):
        engine.signal("go", run_id=first.id, correlation="c")


def test_a_signal_by_correlation(engine: WorkflowEngine) -> None:
    cls, other = asking("correlation"), asking("correlation-other", "stop")
    mine = [engine.start(cls, correlation="order 7"), engine.start(other, correlation="order 7")]
    apart = engine.start(cls, correlation="order 8")
    assert engine.signal("go", correlation="order 7") == 2  # kept until they wait for it
    assert [run.refresh().status for run in mine] == ["completed", "waiting"]
    assert apart.refresh().status == "waiting"
    assert engine.signal("go", correlation="order 9") == 0


def test_a_signal_before_the_wait_is_kept_and_used_once(
    engine: WorkflowEngine, executor: SynchronousExecutor
) -> None:
    @workflow("engine-inbox")
    class Machine:
        Context = Box

        @step(start=True)
        def rest(self) -> Any:
            return sleep(DAY, then=self.ask)

        @step()
        def ask(self) -> Any:
            return wait.for_signal("go")

        @step()
        def ask_again(self) -> Any:
            return wait.for_signal("go")

        @step()
        def end(self) -> Any:
            return complete(n=get_context().n)

    run = engine.start(Machine)
    assert engine.signal("go", {"n": 1}, run_id=run.id) == 1
    assert run.refresh().current_step == "ask"
    executor.advance(DAY)
    assert (run.refresh().status, run.current_step) == ("waiting", "ask_again")
    assert run.data["n"] == 1
    engine.signal("go", {"n": 2}, run_id=run.id)
    assert run.refresh().result == {"n": 2}


@pytest.mark.parametrize("name", ["", "a\n", "event:x", "(moved)", 5])
def test_names_that_are_none(engine: WorkflowEngine, name: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"signal\(\)"):
        engine.signal(name)
    with pytest.raises((TypeError, ValueError), match=r"emit\(\)"):
        engine.emit(name)


# --- events --------------------------------------------------------------------------------------


def test_an_event_starts_its_workflows(engine: WorkflowEngine) -> None:
    class Order:
        id = 7

    @event_workflow("engine-placed")
    class First:
        class Context(BaseModel):
            order_id: int

        @classmethod
        def create_context(cls, event: Any = None) -> Context:
            return cls.Context(order_id=event.entity.id)

        @step(start=True)
        def begin(self) -> Any:
            return complete(order=get_context().order_id)

    @event_workflow("engine-placed", name="engine-second")
    class Second:
        class Context(BaseModel):
            entity_id: int = 0
            event_name: str = ""
            note: str = ""

        @step(start=True)
        def begin(self) -> Any:
            return complete(**get_context().model_dump())

    @event_workflow("engine-placed")
    class Unwilling:
        @classmethod
        def should_run_for_event(cls, event: Any) -> bool:
            return event.payload.get("note") != "x"

        @step(start=True)
        def begin(self) -> Any:
            return complete()

    event = engine.emit("engine-placed", Order(), payload={"note": "x", "colour": "red"})
    assert event.at == BEGIN
    first = engine.runs.get(name="First")
    assert (first.result, first.triggered_by_event_id) == ({"order": 7}, event.id)
    second = engine.runs.get(name="engine-second").result
    assert second == {"entity_id": 7, "event_name": "engine-placed", "note": "x"}
    assert not engine.runs.filter(name="Unwilling").exists()
    engine.emit("engine-placed", Order(), payload={"note": "y"})
    assert engine.runs.filter(name="Unwilling").count() == 1
    assert First is not Second is not Unwilling


@pytest.mark.parametrize(
    "name, options, starts",
    [
        ("before", {"offset_minutes": -60}, timedelta(hours=2)),
        ("at", {}, timedelta(hours=3)),
        ("after", {"offset_minutes": 30}, timedelta(hours=3, minutes=30)),
        ("offset", {"offset": timedelta(days=1)}, timedelta(hours=27)),
        ("past", {"offset_minutes": -600}, timedelta(0)),
    ],
)
def test_offsets(
    engine: WorkflowEngine,
    executor: SynchronousExecutor,
    name: str,
    options: dict[str, Any],
    starts: timedelta,
) -> None:
    begun: list[datetime] = []

    @event_workflow("engine-due", name=f"engine-offset-{name}", **options)
    class Due:
        @step(start=True)
        def begin(self) -> Any:
            begun.append(executor.now())
            return complete()

    engine.emit("engine-due", at=BEGIN + timedelta(hours=3))
    run = engine.runs.get(name=f"engine-offset-{name}")
    if starts:
        assert (run.status, run.current_step) == ("waiting", "begin")
        assert run.wake_at == BEGIN + starts
        assert run.waiting_signal is None
        executor.advance(starts - timedelta(seconds=1))
        assert begun == []
        executor.advance(1)
    assert begun == [BEGIN + starts]
    assert run.refresh().status == "completed"
    assert Due


def test_an_event_moves(engine: WorkflowEngine, executor: SynchronousExecutor) -> None:
    @event_workflow("engine-moved", offset_minutes=-60, name="engine-moving")
    class Moving:
        class Context(BaseModel):
            room: str = ""

        @classmethod
        def should_run_for_event(cls, event: Any) -> bool:
            return event.payload["room"] != "none"

        @step(start=True)
        def begin(self) -> Any:
            return complete(room=get_context().room)

    def tell(hours: int, room: str) -> None:
        at = BEGIN + timedelta(hours=hours)
        engine.emit("engine-moved", at=at, payload={"room": room}, event_id="e1")

    tell(3, "a")
    run = engine.runs.get(name="engine-moving")
    tell(8, "b")
    assert run.refresh().wake_at == BEGIN + timedelta(hours=7)
    executor.advance(timedelta(hours=6))
    assert run.refresh().status == "waiting"
    tell(6, "c")  # its time is over by now
    assert (run.refresh().status, run.result) == ("completed", {"room": "c"})
    tell(20, "d")  # it has begun: nothing happens any more
    assert engine.runs.filter(name="engine-moving").count() == 1
    assert Moving
    engine.emit("engine-moved", at=executor.now() + DAY, payload={"room": "a"}, event_id="e2")
    planned = engine.runs.filter(name="engine-moving", status="waiting").first()
    assert planned is not None
    engine.emit("engine-moved", at=executor.now() + DAY, payload={"room": "none"}, event_id="e2")
    assert planned.refresh().status == "cancelled"
    assert "does not want it any more" in str(planned.error)


def test_waiting_for_an_event_with_certain_fields(
    engine: WorkflowEngine, executor: SynchronousExecutor
) -> None:
    @workflow("engine-where")
    class Where:
        Context = Box

        @step(start=True)
        def ask(self) -> Any:
            return wait_for_event("engine-paid", where={"entity_id": get_context().n})

        @step()
        def end(self) -> Any:
            return complete(**get_context().model_dump())

    runs = [engine.start(Where, n=n) for n in (1, 2)]
    event = engine.emit("engine-paid", 2)
    assert [run.refresh().status for run in runs] == ["waiting", "completed"]
    assert runs[1].result == {
        "n": 2,
        "event_id": event.id,
        "event_name": "engine-paid",
        "entity_id": 2,
    }
    engine.emit("engine-paid", 1, at=BEGIN + DAY)
    assert runs[0].refresh().status == "waiting"
    executor.advance(DAY)
    assert runs[0].refresh().status == "completed"


def test_events_that_can_not_be(engine: WorkflowEngine) -> None:
    @event_workflow("engine-strict", name="engine-strict")
    class Strict:
        class Context(BaseModel):
            order_id: int

        @step(start=True)
        def begin(self) -> Any:
            return complete()

    with pytest.raises(ValueError, match="aware datetime"):
        engine.emit("engine-strict", at=datetime(2026, 1, 1), payload={"order_id": 1})
    with pytest.raises(ValueError, match="order_id"):
        engine.emit("engine-strict", payload={"order_id": "x"})
    wrong: Any = [1]
    with pytest.raises(TypeError, match="mapping of fields"):
        engine.emit("engine-strict", payload=wrong)
    assert engine.runs.filter(name="engine-strict").count() == 0
    assert Strict


# --- queries -------------------------------------------------------------------------------------


def test_queries(engine: WorkflowEngine, executor: SynchronousExecutor) -> None:
    @workflow("engine-query")
    class Query:
        Context = Box

        @step(start=True)
        def begin(self) -> Any:
            ways = [complete, lambda: fail("no"), lambda: sleep(DAY), lambda: wait.for_signal("q")]
            return ways[get_context().n]()

        @step()
        def end(self) -> Any:
            return complete()

    runs = [engine.start(Query, n=n) for n in (0, 1, 2, 3)]
    ids = [run.id for run in runs]
    found = engine.runs.filter(status=WorkflowStatus.FAILED)
    assert [run.id for run in found] == [ids[1]]
    assert [run.error for run in found] == ["no"]
    waiting = engine.runs.filter(status="waiting")
    assert {run.id for run in waiting} == {ids[2], ids[3]}
    by_signal = {run.id: (run.waiting_signal, run.wake_at) for run in waiting}
    assert by_signal == {ids[2]: (None, BEGIN + DAY), ids[3]: ("q", None)}
    assert [run.id for run in engine.runs.filter(waiting_signal="q")] == [ids[3]]
    assert engine.runs.get(id=ids[0]).status == "completed"
    assert engine.runs.get(ids[0]).id == ids[0]
    assert len(engine.runs.filter(status=["failed", "completed"])) == 2
    assert engine.runs.filter(status="failed").filter(status="completed").count() == 0
    assert engine.runs.counts() == {"waiting": 2, "completed": 1, "failed": 1}
    assert bool(engine.runs.filter(name="engine-nothing")) is False
    assert engine.runs.filter(name="engine-nothing").first() is None
    assert {run.id for run in engine.runs.all()} == set(ids)
    with pytest.raises(RunNotFound, match="nowhere"):
        engine.runs.get(id="nowhere")
    with pytest.raises(RunNotFound, match="status=cancelled"):
        engine.runs.get(status="cancelled")
    with pytest.raises(ValueError, match="several runs are like this"):
        engine.runs.get(status="waiting")
    with pytest.raises(ValueError, match="'lost' is not a valid WorkflowStatus"):
        engine.runs.filter(status="lost")
    with pytest.raises(TypeError, match="color"):
        engine.runs.filter(color="red")  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match="color"):
        engine.runs.get(color="red")


def test_objects_are_the_runs_of_the_default_engine() -> None:
    assert WorkflowRun.objects.engine is default_engine


# --- time ----------------------------------------------------------------------------------------


def test_process_scheduled_says_what_time_it_is(
    engine: WorkflowEngine, executor: SynchronousExecutor
) -> None:
    order: list[int] = []

    @workflow("engine-scheduled")
    class Later:
        Context = Box

        @step(start=True)
        def rest(self) -> Any:
            return sleep(get_context().n * DAY, then=self.end)

        @step()
        def end(self) -> Any:
            order.append(get_context().n)
            return complete()

    for n in (3, 1, 2, 9):
        engine.start(Later, n=n)
    assert engine.process_scheduled(BEGIN) == 0
    assert engine.process_scheduled(BEGIN + 5 * DAY) == 3
    assert order == [1, 2, 3]
    assert executor.now() == BEGIN + 5 * DAY
    with pytest.raises(ValueError, match="aware datetime"):
        engine.process_scheduled(datetime(2030, 1, 1))
    assert engine.process_scheduled(BEGIN + DAY) == 0  # time does not go back
    assert executor.now() == BEGIN + 5 * DAY


# --- where it may be called from -----------------------------------------------------------------


@pytest.fixture
def live() -> Any:
    """An engine in its background thread, in memory."""
    made = WorkflowEngine("memory://")
    yield made
    made.stop()


def test_from_threads(live: WorkflowEngine) -> None:
    cls = asking("threads")
    results: list[Any] = []

    def work(n: int) -> None:
        run = live.start(cls, n=0)
        live.signal("go", {"n": n}, run_id=run.id)
        results.append(live.result(run.id, timeout=100)["n"])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert sorted(results) == list(range(8))


async def test_from_async_code(live: WorkflowEngine) -> None:
    cls = asking("async")
    first, second = await live.astart(cls, n=1), await live.astart(cls)
    assert await live.asignal("go", {"n": 7}, run_id=first.id) == 1
    assert await live.aresult(first.id, timeout=100) == {"n": 7}
    assert (await first.arefresh()).status == "completed"
    assert [e.step for e in await first.astep_executions()] == ["ask", "end"]
    assert await live.acancel(second.id) is True
    assert (await live.runs.aget(id=second.id)).status == "cancelled"
    assert await live.runs.acount() == 2
    assert {run.id async for run in live.runs} == {first.id, second.id}
    assert await live.runs.filter(name="engine-async").acounts() == {"completed": 1, "cancelled": 1}
    event = await live.aemit("engine-nothing")
    assert event.name == "engine-nothing"
    assert await live.aprocess_scheduled() == 0


async def test_plain_calls_inside_a_running_loop_as_in_a_notebook(live: WorkflowEngine) -> None:
    run = live.start(asking("notebook"))
    live.signal("go", {"n": 2}, run_id=run.id)
    assert live.result(run.id, timeout=100) == {"n": 2}


async def test_the_executor_of_tests_inside_a_running_loop(
    engine: WorkflowEngine, executor: SynchronousExecutor
) -> None:
    run = engine.start(asking("inline"))
    assert engine.signal("go", {"n": 2}) == 1
    assert run.refresh().result == {"n": 2}
    again = await engine.astart(asking("inline2"))
    assert await engine.asignal("go", {"n": 3}) == 1
    assert (await again.arefresh()).result == {"n": 3}
    executor.advance(DAY)
    assert asyncio.get_running_loop().is_running()


@pytest.mark.parametrize("inline", [True, False])
def test_steps_may_use_the_engine(inline: bool) -> None:
    made = WorkflowEngine("memory://")
    if inline:
        made.set_executor(SynchronousExecutor())
    asked = asking(f"asked-{inline}")

    @workflow(f"engine-asker-{inline}")
    class Asker:
        class Context(BaseModel):
            other: str = ""
            told: int = 0
            refused: str = ""

        context: Context

        @step(start=True)
        def begin(self) -> Any:
            self.context.other = made.start(asked).id  # from a thread
            return goto(self.tell)

        @step()
        def tell(self) -> Any:
            self.context.told = made.signal("go", {"n": 4}, run_id=self.context.other)
            return goto(self.rest)

        @step()
        async def rest(self) -> Any:
            try:
                made.signal("go")
            except ContextStateError as error:
                self.context.refused = str(error)
            await made.asignal("nothing")
            return complete()

    run = made.start(Asker)
    made.result(run.id, timeout=100)
    run.refresh()
    assert run.data["told"] == 1
    assert "an async step must not block its event loop" in run.data["refused"]
    assert "asignal" in run.data["refused"]
    assert made.result(run.data["other"], timeout=100) == {"n": 4}
    made.stop()


def test_stop_and_start_again(tmp_path: Path) -> None:
    made = WorkflowEngine(f"sqlite:///{tmp_path}/runs.db")
    run = made.start(asking("again"), n=1)
    made.stop()
    made.stop()
    assert made.runs.get(id=run.id).name == "engine-again"
    made.signal("go", {"n": 2}, run_id=run.id)
    assert made.result(run.id, timeout=100) == {"n": 2}
    with pytest.raises(RuntimeError, match=r"call configure\(\) before its first use"):
        made.configure("memory://")
    made.stop()
    made.configure("memory://")
    assert made.runs.count() == 0
    made.stop()


def test_a_result_that_takes_too_long(live: WorkflowEngine) -> None:
    run = live.start(asking("late"))
    with pytest.raises(TimeoutError):
        live.result(run.id, timeout=0.05)
    with pytest.raises(RunNotFound):
        live.result("nowhere")
    assert run.refresh().status in ("running", "waiting")


SCRIPT = """
from pydantic import BaseModel
from stepwell.machine import complete, engine, step, wait, workflow

@workflow("script")
class Script:
    class Context(BaseModel):
        n: int = 0
    @step(start=True)
    def begin(self):
        return wait.for_signal("go")
    @step()
    def end(self):
        return complete(n=self.context.n)

run = engine.start("script")
engine.signal("go", {"n": 5}, run_id=run.id)
print(engine.result(run.id))
left = engine.start("script")
"""


@pytest.mark.parametrize("where", [None, "sqlite:///elsewhere.db"])
def test_the_default_engine_of_a_script(tmp_path: Path, where: str | None) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "STEPWELL_STORE"}
    if where is not None:
        environment["STEPWELL_STORE"] = where
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "{'n': 5}\n"
    files = {path.name for path in tmp_path.iterdir() if path.suffix == ".db"}
    assert files == {"stepwell.db" if where is None else "elsewhere.db"}


def test_times_are_aware(engine: WorkflowEngine) -> None:
    run = engine.start(asking("aware"))
    engine.signal("go")
    run.refresh()
    times = (run.created_at, run.updated_at, run.completed_at)
    assert {time.tzinfo for time in times if time} == {UTC}
    assert all(e.finished_at and e.started_at.tzinfo is UTC for e in run.step_executions)


@pytest.mark.parametrize("part", [0.1234564, 0.1234566, 0.5000004, 0.9999999])
def test_times_between_microseconds(part: float) -> None:
    executor = SynchronousExecutor(start=BEGIN.timestamp() + part)
    made = WorkflowEngine()
    made.set_executor(executor)

    @event_workflow(f"engine-instant-{part}", name=f"engine-instant-{part}")
    class Instant:
        @step(start=True)
        def begin(self) -> Any:
            return sleep(DAY, then=self.end)

        @step()
        def end(self) -> Any:
            return complete()

    made.emit(f"engine-instant-{part}")
    made.emit(f"engine-instant-{part}", at=executor.now())
    made.emit(f"engine-instant-{part}", event_id="e1")
    runs = list(made.runs.filter(name=f"engine-instant-{part}"))
    assert [run.current_step for run in runs] == ["end"] * 3
    assert len(made.runs.filter(name="stepwell.event", status="waiting")) == 0
    wake = runs[0].wake_at
    assert wake is not None
    assert made.process_scheduled(wake) == 3
    assert {run.refresh().status for run in runs} == {"completed"}
    assert Instant
    made.stop()


def run_program(code: str, place: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """A program of its own, in which warnings are errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", *flags, "-c", code],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


LEFT_RUNNING = """
from stepwell.machine import WorkflowEngine

class Engine(WorkflowEngine):
    def stop(self):
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(1) as pool:
            print("pools are", pool.submit(str, "there").result())
        super().stop()

engine = Engine("sqlite:///runs.db")
print(len(engine.runs))
"""


def test_an_engine_that_is_left_running_is_stopped_before_the_pools_it_reads_with(
    tmp_path: Path,
) -> None:
    ran = run_program(LEFT_RUNNING, tmp_path)
    assert (ran.stdout, ran.stderr) == ("0\npools are there\n", "")


FORKED = """
import multiprocessing
from pydantic import BaseModel
from stepwell.errors import StoreError
from stepwell.machine import complete, engine, step, workflow

@workflow("forked")
class Forked:
    class Context(BaseModel):
        n: int = 0
    @step(start=True)
    def begin(self):
        return complete(n=self.context.n)

def child():
    try:
        engine.start("forked", n=2)
    except StoreError as error:
        print(str(error).splitlines()[1], flush=True)
    engine.stop()
    engine.configure("memory://")
    print(engine.result(engine.start("forked", n=2).id, timeout=100), flush=True)

print(engine.result(engine.start("forked", n=1).id), flush=True)
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join(100)
print(process.exitcode, engine.result(engine.start("forked", n=3).id), len(engine.runs))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_begins_anew_and_leaves_its_parents_file_alone(tmp_path: Path) -> None:
    # From 3.12 on, Python itself warns of forks in programs with threads.
    ran = run_program(FORKED, tmp_path, "-W", "ignore::DeprecationWarning")
    assert "Traceback" not in ran.stderr
    assert ran.stdout.splitlines() == [
        "{'n': 1}",
        "Open stores after forking, or start processes by spawning them.",
        "{'n': 2}",
        "0 {'n': 3} 2",
    ]


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda e, run: e.start(None), "None is not decorated with @workflow"),
        (lambda e, run: e.start(5), "5 is not decorated with @workflow"),
        (lambda e, run: e.signal("go", run_id=run), "run_id must be a text, not WorkflowRun"),
        (lambda e, run: e.signal("go", correlation=5), "correlation must be a text, not int"),
        (lambda e, run: e.cancel(run), "run_id must be a text, not WorkflowRun"),
        (lambda e, run: e.result(run), "run_id must be a text, not WorkflowRun"),
        (lambda e, run: e.runs.get(run), "id must be a text, not WorkflowRun"),
        (lambda e, run: e.runs.filter(name=WorkflowRun), "name must be a text"),
        (lambda e, run: e.start("engine-wrongly", key=5), "key must be a text, not int"),
        (lambda e, run: e.emit("x", at="noon"), "emit(at=...) takes an aware datetime, not 'noon'"),
        (lambda e, run: e.emit("x", event_id=5), "event_id must be a text, not int"),
        (lambda e, run: e.process_scheduled("noon"), "process_scheduled() takes an aware datetime"),
        (lambda e, run: e.set_executor("inline"), "set_executor() takes an executor, not 'inline'"),
    ],
)
def test_what_is_wrongly_given_is_named(engine: WorkflowEngine, call: Any, text: str) -> None:
    cls = asking("wrongly")
    run = engine.start(cls)
    with pytest.raises(TypeError) as caught:
        call(engine, run)
    assert text in str(caught.value)


def test_runs_are_equal_when_they_are_the_same(engine: WorkflowEngine) -> None:
    cls = asking("equal")
    first, second = engine.start(cls), engine.start(cls)
    assert engine.runs.get(id=first.id) == first != second
    assert second in engine.runs
    assert len({first, engine.runs.get(id=first.id)}) == 1


def test_time_does_not_go_back(executor: SynchronousExecutor) -> None:
    with pytest.raises(ValueError, match="time does not go back"):
        executor.advance(-5)
