"""The reference state machines that are killed at each of their writes, and what the world outside
does with each: it starts them, signals them, tells of events, changes its mind.

The world outside does everything again in every life, as whoever was not answered does; what it
does carries a key, so once is enough.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import BaseModel
from tests.crash import flows

from stepwell.machine import (
    Retry,
    SubflowResult,
    WorkflowEngine,
    WorkflowEvent,
    complete,
    event_workflow,
    fail,
    goto,
    on_fail,
    run_subflow,
    sleep,
    step,
    wait,
    workflow,
)
from stepwell.runtime.attempt import current
from stepwell.runtime.engine import Engine
from stepwell.stores.base import Store
from stepwell.testing import VirtualClock
from stepwell.values import utc

T = TypeVar("T")

BEGIN = 1_767_225_600.0
"""When the first life begins."""

APART = 10_000.0
"""Seconds between the beginnings of two lives."""


def effect(name: str) -> None:
    """Do something to the world."""
    os.write(flows.LOG, f"{name} {current.get().idempotency_key()}\n".encode())


class Noted(BaseModel):
    """A context in which steps say that they were there."""

    log: list[str] = []
    amount: int = 0
    patience: float = 30
    event_id: str = ""


@workflow("crash-part")
class Part:
    """A subflow: sleeps, waits for a signal, and ends as it is told."""

    Context = Noted
    context: Noted

    @step(start=True)
    async def begin(self) -> object:
        effect("part")
        self.context.log.append("begin")
        return sleep(7, then=self.ask)

    @step()
    def ask(self) -> object:
        effect("ask")
        return wait.for_signal(
            "part", timeout=self.context.patience, on_timeout=self.nobody, then=self.told
        )

    @step()
    def told(self) -> object:
        effect("told")
        return complete(amount=self.context.amount)

    @step()
    def nobody(self) -> object:
        effect("nobody")
        return fail("nobody came")


@workflow("crash-journey")
class Journey:
    """A sleep, a wait that runs out, a subflow, a step that is tried again, and a failure."""

    Context = Noted
    context: Noted

    @step(start=True)
    def begin(self) -> object:
        effect("begin")
        self.context.log.append("begin")
        return sleep(timedelta(minutes=2), then=self.hope)

    @step()
    async def hope(self) -> object:
        effect("hope")
        self.context.log.append("hope")
        return wait.for_signal("never", timeout=50, on_timeout=self.late, then=self.wrong)

    @step()
    def wrong(self) -> object:
        effect("wrong")
        return complete()

    @step()
    async def late(self) -> object:
        effect("late")
        self.context.log.append("late")
        return run_subflow(Part, on_complete=self.joined, amount=5)

    @step(retry=Retry(max_attempts=3, base_delay=20, backoff_factor=3))
    def joined(self, result: SubflowResult) -> object:
        effect("joined")
        attempt = current.get().work.attempt
        self.context.log.append(f"joined at {attempt}: {result.status}, {result.error}")
        if attempt < 3:
            raise OSError(f"attempt {attempt}")
        return goto(self.give_up, progress=0.5)

    @step()
    async def give_up(self) -> object:
        effect("give_up")
        return fail("it was too much")

    @on_fail
    def mourn(self, error: Exception) -> None:
        effect("mourn")
        self.context.log.append(str(error))


@workflow("crash-signalled")
class Signalled:
    """Is signalled twice before it waits, waits for both, and once more for what comes later."""

    Context = Noted
    context: Noted

    @step(start=True)
    async def begin(self) -> object:
        effect("begin")
        return sleep(10, then=self.first)

    @step()
    def first(self) -> object:
        effect("first")
        return wait.for_signal("paid", timeout=100, then=self.second)

    @step()
    def second(self) -> object:
        effect("second")
        self.context.log.append(f"got {self.context.amount}")
        return wait.for_signal("paid", timeout=100, then=self.third)

    @step()
    async def third(self) -> object:
        effect("third")
        self.context.log.append(f"got {self.context.amount}")
        return wait.for_signal("closed", timeout=1e6, on_timeout=self.third)


@workflow("crash-revoked")
class Revoked:
    """Waits for a subflow when it is cancelled; the subflow ends with it."""

    Context = Noted
    context: Noted

    @step(start=True)
    def begin(self) -> object:
        effect("begin")
        self.context.log.append("begin")
        return goto(self.part)

    @step()
    def part(self) -> object:
        effect("go")
        self.context.log.append("part")
        return run_subflow(Part, on_complete=self.never, patience=1e6)

    @step()
    def never(self) -> object:
        effect("never")
        return complete()


@event_workflow("crash-meeting", offset=timedelta(minutes=-10))
class Reminded:
    """Planned before an event; waits until it happens."""

    Context = Noted
    context: Noted

    @classmethod
    def create_context(cls, event: WorkflowEvent) -> Noted:
        return Noted(log=[event.name])

    @step(start=True)
    def remind(self) -> object:
        effect("remind")
        self.context.log.append("reminded")
        return wait.for_event("crash-met", then=self.met, where={"room": 7})

    @step()
    async def met(self) -> object:
        effect("met")
        self.context.log.append("met")
        return complete(event_id=self.context.event_id)


# --- the world outside ---------------------------------------------------------------------------


class Inside:
    """An executor for code that is in the engine's loop already."""

    def __init__(self, core: Engine) -> None:
        self.core = core

    def make_engine(self, store: str | Store | None, **settings: Any) -> Engine:
        return self.core

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        raise AssertionError("the steps of these machines have no need for it")

    async def acall(self, work: Coroutine[Any, Any, T]) -> T:
        return await work

    async def process(self, engine: Engine, until: float | None) -> int:
        return await engine.process_due()

    def stop(self) -> None:
        """There is nothing to stop."""


def inside(core: Engine) -> WorkflowEngine:
    """The engine for plain code, around one that lives in this loop."""
    engine = WorkflowEngine()
    engine.set_executor(Inside(core))
    return engine


async def nothing(engine: WorkflowEngine, core: Engine, clock: VirtualClock, run: str) -> None:
    """Just watch."""


async def pay(engine: WorkflowEngine, core: Engine, clock: VirtualClock, run: str) -> None:
    """Signals before anyone waits; then, when it waits for the end, one to all that do."""
    for n in (1, 2):
        await core.signal(run, "paid", {"amount": n}, dedupe=f"paid {n}")
    if await until_it_waits(engine, core, clock, "closed"):
        assert await engine.asignal("closed", {"amount": 3}) == 1


async def revoke(engine: WorkflowEngine, core: Engine, clock: VirtualClock, run: str) -> None:
    """Cancel it when its subflow waits."""
    if await until_it_waits(engine, core, clock, "part"):
        assert await engine.acancel(run, "changed my mind")


async def meet(engine: WorkflowEngine, core: Engine, clock: VirtualClock, run: str) -> None:
    """Tell of the event, and that it has moved; and of another one that is waited for."""
    for minutes in (30, 40):
        at = utc(BEGIN + 60 * minutes)
        await engine.aemit("crash-meeting", at=at, payload={"room": 7}, event_id="meeting")
    if await until_it_waits(engine, core, clock, "event:crash-met"):
        for room in (8, 7):
            payload = {"room": room, "amount": room}
            at = utc(core.now() + 60)
            await engine.aemit("crash-met", at=at, payload=payload, event_id=f"met {room}")


async def until_it_waits(
    engine: WorkflowEngine, core: Engine, clock: VirtualClock, signal: str
) -> bool:
    """Let time pass until some run waits for this; False when all has ended before."""
    while True:
        await clock.settle()
        if await engine.runs.filter(waiting_signal=signal).acount():
            return True
        if not await go_on(core, clock):
            return False


async def go_on(core: Engine, clock: VirtualClock) -> bool:
    """Let time pass until something is due, and have it done; False when nothing will be."""
    await clock.settle()
    due = await core.next_due()
    if due is None:
        return False
    await clock.advance(max(0.001, due - core.now()))
    return True


Outside = Callable[[WorkflowEngine, Engine, VirtualClock, str], Awaitable[None]]

MACHINES: Mapping[str, tuple[type, Outside]] = {
    "Journey": (Journey, nothing),
    "Signalled": (Signalled, pay),
    "Revoked": (Revoked, revoke),
    "Reminded": (Reminded, meet),
}


async def lived(engine: WorkflowEngine, core: Engine, clock: VirtualClock, name: str) -> None:
    """Have a machine live until nothing of it is left to do."""
    machine, outside = MACHINES[name]
    run = ""
    if name != "Reminded":
        run = (await engine.astart(machine, key="crash")).id
    await outside(engine, core, clock, run)
    while await go_on(core, clock):
        pass


async def told(engine: WorkflowEngine) -> list[dict[str, Any]]:
    """All that there is to say of the runs, but for ids and times."""
    found = [
        {
            "name": run.name,
            "status": str(run.status),
            "data": run.data,
            # How many it told of an event is not said twice.
            "result": None if run.name == "stepwell.event" else run.result,
            "error": run.error,
            "progress": run.progress,
            "waiting": run.waiting_signal,
            "current": run.current_step,
            "retries": run.retry_count,
            "history": [
                (one.step, one.attempt, one.status, one.error)
                for one in await run.astep_executions()
            ],
        }
        async for run in engine.runs
    ]
    return sorted(found, key=lambda run: (run["name"], repr(run["data"])))
