"""What must never happen to a run of a state machine, by name.

Each is tried with one engine in memory, and with two engines on one SQLite file that do things in
an order drawn by a seed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from stepwell import Engine
from stepwell.errors import WorkflowCancelledByUser
from stepwell.machine import (
    Retry,
    SubflowResult,
    complete,
    fail,
    goto,
    run_subflow,
    sleep,
    step,
    wait,
    workflow,
)
from stepwell.runtime.machine.signals import send_signal
from stepwell.testing import Bodies, HookedEngine, VirtualClock, run_virtual
from stepwell.values import RunStatus

DAY = 86400.0


class Box(BaseModel):
    n: int = 0
    said: list[str] = []


@workflow("never-ask")
class Ask:
    """Waits, with a way out for when nothing comes."""

    Context = Box
    context: Box

    @step(start=True)
    async def ask(self) -> Any:
        return wait.for_signal("go", timeout=DAY, on_timeout="late", then=self.went)

    @step()
    async def went(self) -> Any:
        self.context.said.append("went")
        return wait.for_signal("end", then=self.end)

    @step()
    async def late(self) -> Any:
        self.context.said.append("late")
        return complete(late=True)

    @step()
    async def end(self) -> Any:
        return complete(n=self.context.n, said=self.context.said)


@workflow("never-rest")
class Rest:
    """Sleeps before it asks."""

    Context = Box
    context: Box

    @step(start=True)
    async def rest(self) -> Any:
        return sleep(DAY, then=self.ask)

    @step()
    async def ask(self) -> Any:
        return wait.for_signal("go", timeout=timedelta(days=2))

    @step()
    async def end(self) -> Any:
        return complete(n=self.context.n)


@workflow("never-work")
class Work:
    """Commits, and is then at work for a long time."""

    Context = Box
    context: Box

    @step(start=True)
    async def one(self) -> Any:
        self.context.n = 1
        return goto(self.two)

    @step()
    async def two(self) -> Any:
        self.context.n = 2
        try:
            await asyncio.sleep(DAY / 2)
        except asyncio.CancelledError:
            await asyncio.sleep(1)  # takes its time, and comes to its end all the same
        return goto(self.three)

    @step()
    async def three(self) -> Any:
        self.context.n = 3
        return complete(n=3)


@workflow("never-child")
class Child:
    """Ends as it is told."""

    class Context(BaseModel):
        how: str

    context: Context

    @step(start=True)
    async def begin(self) -> Any:
        if self.context.how == "raised":
            raise OSError("down")
        return fail("no stock") if self.context.how == "failed" else wait.for_signal("never")


@workflow("never-parent")
class Parent:
    """Waits for a subflow."""

    class Context(BaseModel):
        how: str

    context: Context

    @step(start=True)
    async def begin(self) -> Any:
        return run_subflow(Child, on_complete=self.done, how=self.context.how)

    @step()
    async def done(self, result: SubflowResult) -> Any:
        return complete(status=result.status, error=result.error)


tried: list[str] = []


@workflow("never-retry", default_retry=Retry(max_attempts=3))
class Tried:
    """Each of its steps needs all its attempts."""

    Context = Box

    @step(start=True)
    async def one(self) -> Any:
        return self.attempt("one", goto(self.two))

    @step()
    async def two(self) -> Any:
        return self.attempt("two", complete())

    def attempt(self, name: str, then: Any) -> Any:
        tried.append(name)
        if tried.count(name) < 3:
            raise OSError(name)
        return then


MACHINES: list[Any] = [Ask, Rest, Work, Child, Parent, Tried]


class Place:
    """Where the runs live: one engine, or two that share a file."""

    def __init__(self, clock: VirtualClock, file: Path | None) -> None:
        self.clock = clock
        self.bodies = Bodies()
        url = "memory://" if file is None else f"sqlite:///{file}?durability=process"
        count = 1 if file is None else 2
        self.engines: list[HookedEngine] = [self.engine(url) for _ in range(count)]
        self.url = url

    def engine(self, url: str) -> HookedEngine:
        return self.clock.engine(url, MACHINES, hooks=self.bodies)

    @property
    def a(self) -> Engine:
        """The first engine."""
        return self.engines[0]

    @property
    def b(self) -> Engine:
        """Another engine, where there is one."""
        return self.engines[-1]

    async def start(self, cls: type, **fields: Any) -> str:
        """A new run, as far as it can get by itself."""
        handler: Any = await self.a.start(cls, **fields)
        await self.pause()
        return handler.run_id

    async def pause(self, seconds: float = 130.0) -> None:
        """Let everybody have noticed everything."""
        await self.clock.advance(seconds)

    async def signal(
        self, engine: Engine, name: str, run: str | None = None, **payload: Any
    ) -> int:
        return await send_signal(engine, name, payload, run, None)

    async def status(self, run: str) -> RunStatus:
        return (await self.b.get(run)).status

    async def data(self, run: str) -> Any:
        return (await self.b.state(run))["context"]

    def begun(self, run: str, step: str) -> int:
        """How many bodies of this step began."""
        return sum(1 for r, s, _ in self.bodies.begun if (r, s) == (run, step))


Test = Callable[[Place], Awaitable[None]]
PLACES = [("one", None), *(("two", seed) for seed in range(3))]


@pytest.fixture(params=PLACES, ids=[f"{name}-{seed}" for name, seed in PLACES])
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Test], None]:
    """Runs a test in its place, in virtual time."""
    name, seed = request.param
    tried.clear()

    def run(test: Test) -> None:
        async def main(clock: VirtualClock) -> None:
            place = Place(clock, None if name == "one" else tmp_path / "runs.db")
            for engine in place.engines:
                await engine.start_up()
            await test(place)

        run_virtual(main, seed=seed)

    return run


def test_duplicate_delivery_runs_no_step_twice(play: Any) -> None:
    async def test(at: Place) -> None:
        run = await at.start(Ask)
        told = await asyncio.gather(
            *(at.signal(engine, "go", n=7) for engine in (at.a, at.b, at.a, at.b))
        )
        await at.pause()
        assert sum(told) == 1
        assert at.begun(run, "went") == 1
        assert (await at.data(run))["said"] == ["went"]
        ids = await asyncio.gather(*(e.start(Ask, key="k") for e in (at.a, at.b, at.a)))
        await at.pause()
        assert len({handler.run_id for handler in ids}) == 1
        assert at.begun(ids[0].run_id, "ask") == 1

    play(test)


def test_a_signal_before_the_wait_is_not_lost(play: Any) -> None:
    async def test(at: Place) -> None:
        run = await at.start(Rest)
        assert await at.signal(at.b, "go", run, n=5) == 1
        await at.pause()
        assert await at.status(run) == "waiting"
        assert at.begun(run, "ask") == 0
        await at.pause(DAY)
        assert await at.a.result(run) == {"n": 5}

    play(test)


def test_the_timeout_of_a_satisfied_wait_does_not_fire(play: Any) -> None:
    async def test(at: Place) -> None:
        run = await at.start(Ask)
        await at.clock.advance(DAY - 400)
        assert await at.signal(at.b, "go") == 1
        await at.pause(3 * DAY)
        assert at.begun(run, "late") == 0
        assert await at.signal(at.a, "end") == 1
        await at.pause()
        assert await at.b.result(run) == {"n": 0, "said": ["went"]}

    play(test)


def test_a_timeout_without_a_target_fires(play: Any) -> None:
    async def test(at: Place) -> None:
        run = await at.start(Rest)
        await at.pause(DAY)
        assert await at.status(run) == "waiting"
        await at.pause(2 * DAY)
        assert await at.status(run) == "failed"
        with pytest.raises(TimeoutError, match="no 'go' arrived within 172800 seconds"):
            await at.b.result(run)

    play(test)


def test_two_signals_at_once_do_not_resume_a_run_twice(play: Any) -> None:
    async def test(at: Place) -> None:
        run = await at.start(Ask)
        told = await asyncio.gather(
            at.signal(at.a, "go", run, n=1), at.signal(at.b, "go", run, n=2)
        )
        await at.pause()
        assert told == [1, 1]  # both are kept; the second waits for a wait of its own
        assert at.begun(run, "went") == 1
        first = (await at.data(run))["n"]
        assert await at.signal(at.b, "end") == 1
        await at.pause()
        assert await at.a.result(run) == {"n": first, "said": ["went"]}

    play(test)


def test_a_signal_meant_for_one_run_wakes_no_other(play: Any) -> None:
    async def test(at: Place) -> None:
        runs = [await at.start(Ask) for _ in range(4)]
        assert await at.signal(at.b, "go", runs[2], n=3) == 1
        await at.pause()
        assert [at.begun(run, "went") for run in runs] == [0, 0, 1, 0]
        assert [(await at.data(run))["n"] for run in runs] == [0, 0, 3, 0]

    play(test)


def test_cancel_keeps_what_was_committed_and_is_not_undone(play: Any) -> None:
    async def test(at: Place) -> None:
        run = await at.start(Work)
        assert at.begun(run, "two") == 1
        assert await at.b.cancel(run, "enough") is True
        await at.pause(DAY)
        assert await at.status(run) == "cancelled"
        assert (await at.data(run))["n"] == 1
        assert at.begun(run, "three") == 0
        with pytest.raises(WorkflowCancelledByUser):
            await at.a.result(run)
        assert await at.a.cancel(run) is False

    play(test)


@pytest.mark.parametrize("how", ["failed", "raised", "cancelled"])
def test_no_end_of_a_child_leaves_its_parent_waiting(play: Any, how: str) -> None:
    async def test(at: Place) -> None:
        run = await at.start(Parent, how=how)
        if how == "cancelled":
            (child,), _ = await at.b.list(parent=run)
            await at.b.cancel(child.id, "enough")
        await at.pause(600)
        error = {"failed": "no stock", "raised": "down", "cancelled": "enough"}[how]
        status = "cancelled" if how == "cancelled" else "failed"
        assert await at.b.result(run) == {"status": status, "error": error}
        assert at.begun(run, "done") == 1

    play(test)


def test_a_wrong_payload_does_not_kill_the_run(play: Any) -> None:
    async def test(at: Place) -> None:
        run = await at.start(Ask)
        for way in (run, None):
            with pytest.raises(ValueError, match="n: Input should be a valid integer"):
                await at.signal(at.b, "go", way, n="seven")
        await at.pause()
        assert await at.status(run) == "waiting"
        assert at.begun(run, "went") == 0
        await at.signal(at.b, "go", n=7)
        await at.pause()
        assert (await at.data(run))["n"] == 7

    play(test)


def test_attempts_of_one_step_are_not_missing_in_the_next(play: Any) -> None:
    async def test(at: Place) -> None:
        run = await at.start(Tried)
        await at.pause(600)
        assert await at.status(run) == "completed"
        assert tried == ["one"] * 3 + ["two"] * 3

    play(test)


@pytest.mark.parametrize("heirs", [1, 2])
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_a_run_whose_process_died_does_not_stay_running(
    tmp_path: Path, heirs: int, seed: int | None
) -> None:
    url = f"sqlite:///{tmp_path}/runs.db?durability=process"

    async def first(clock: VirtualClock) -> str:
        engine = clock.engine(url, MACHINES, lease=3600.0)
        handler: Any = await engine.start(Work)
        await clock.advance(60)
        assert (await engine.get(handler.run_id)).status == "running"
        engine.abandon()
        await engine.store.close()
        return handler.run_id

    async def later(clock: VirtualClock) -> Any:
        engines = [clock.engine(url, MACHINES, lease=3600.0) for _ in range(heirs)]
        for engine in engines:
            await engine.start_up()
        await clock.advance(2 * DAY)
        state = await engines[-1].state(run)
        assert state["context"]["n"] == 3
        return await engines[-1].result(run)

    clock = VirtualClock(seed=seed)
    run = clock.run(first)
    assert VirtualClock(clock.now() + 60, seed=seed).run(later) == {"n": 3}
