"""Adversarial moments: between a claim and its reading, at a refused start, at a stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pytest
from tests.durable.flows import Answer, Linear, Middle, asks

from stepwell import (
    All,
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from stepwell.errors import InvalidArgument, RunAlreadyExists, StoreLocked, WorkflowRuntimeError
from stepwell.kernel.outcomes import Message
from stepwell.stores.base import NewMessage, NewRun, WorkerRow
from stepwell.stores.memory import MemoryStore
from stepwell.testing import Bodies, Failing, HookedEngine, VirtualClock, hooked
from stepwell.testing.stores import Hook
from stepwell.values import RunStatus

T = TypeVar("T")


def url_of(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/runs.db?durability=process"


class Routed(Workflow):
    """Asks by an event, and a step of its own takes the answer."""

    @step
    async def ask(self, ev: StartEvent) -> InputRequiredEvent:
        return InputRequiredEvent(prefix="name?")

    @step
    async def take(self, ev: HumanResponseEvent) -> StopEvent:
        await asyncio.sleep(1)
        return StopEvent(result=ev.response)


class Once(Hook):
    """Does something at the first call of a verb."""

    def __init__(self, verb: str, what: Callable[[], Awaitable[None]]) -> None:
        self.verb = verb
        self.what = what
        self.armed = False

    async def around(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
        if self.armed and verb == self.verb:
            self.armed = False
            await self.what()
        return await call()


async def _locked() -> None:
    raise StoreLocked("another process keeps it locked")


# --- taking runs up ------------------------------------------------------------------------------


async def test_a_message_that_wakes_a_run_starts_its_step_once(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    bodies = Bodies()
    engine = virtual_clock.engine(url_of(tmp_path), lease=30, release_after=60, hooks=bodies)
    handler = await engine.start(Routed(timeout=None))
    await virtual_clock.advance(300)
    assert (await engine.get(handler.run_id)).owner is None
    await engine.signal(handler.run_id, HumanResponseEvent(response="Ada"))
    assert await handler == "Ada"
    assert [name for _, name, _ in bodies.begun] == ["ask", "take"]


async def test_a_run_that_was_claimed_and_could_not_be_read_is_read_again(
    virtual_clock: VirtualClock,
) -> None:
    trouble = Once("load_many", _locked)
    store = MemoryStore()
    engine = virtual_clock.engine(hooked(store, trouble), lease=30, release_after=60)
    handler = await engine.start(asks())
    await virtual_clock.advance(300)
    trouble.armed = True
    await engine.answer(handler.run_id, {"text": "back"})
    async with asyncio.timeout(600):
        assert await handler == "back"


async def test_a_run_that_others_took_between_claim_and_load_is_left_to_them(
    virtual_clock: VirtualClock,
) -> None:
    store = MemoryStore()
    taken: list[str] = []

    async def steal() -> None:
        await store.unregister(engine.worker_id)  # as others do when its lease is long over
        until = virtual_clock.now() + 60
        await store.register(WorkerRow("thief", "elsewhere", 1, until, ("Asks",)))
        row = await store.claim_one("thief", handler.run_id, virtual_clock.now())
        assert row is not None
        taken.append(row.id)

    trouble = Once("load_many", steal)
    bodies = Bodies()
    engine = virtual_clock.engine(hooked(store, trouble), lease=30, release_after=60, hooks=bodies)
    handler = await engine.start(asks())
    await virtual_clock.advance(300)
    before = len(bodies.begun)
    trouble.armed = True
    await engine.answer(handler.run_id, {"text": "back"})
    await virtual_clock.settle()
    assert taken
    assert len(bodies.begun) == before
    row = await store.get(handler.run_id)
    assert row is not None
    assert row.status is RunStatus.WAITING


async def test_a_message_that_makes_no_sense_stops_nobody(
    virtual_clock: VirtualClock,
) -> None:
    store = MemoryStore()
    engine = virtual_clock.engine(store, lease=30, release_after=60)
    handler = await engine.start(asks())
    for data in (b'{"m":5,"w":null}', b"[]", b"7", b'{"m":["Answer",{"text":{}}],"w":null}', b"{"):
        await store.send([NewMessage(handler.run_id, "event", data, virtual_clock.now())])
    await virtual_clock.advance(300)
    other = await engine.start(Linear(timeout=None))
    assert await other == 2
    await engine.answer(handler.run_id, {"text": "well"})
    assert await handler == "well"


async def test_a_start_that_makes_no_sense_parks_its_run(virtual_clock: VirtualClock) -> None:
    store = MemoryStore()
    engine = virtual_clock.engine(store, [Linear()])
    await engine.start_up()
    name = next(iter(engine.workflows))
    await store.create(NewRun("bad", name, virtual_clock.now(), start=b"[1,2]"))
    await virtual_clock.advance(60)
    engine._worker.wake()
    await virtual_clock.advance(60)
    info = await engine.get("bad")
    assert info.status is RunStatus.PARKED
    assert info.reason is not None
    assert "start" in info.reason
    assert "http" not in info.reason
    await engine.resume("bad")
    await virtual_clock.settle()
    assert (await engine.get("bad")).status is RunStatus.PARKED
    assert await engine.cancel("bad")
    assert (await engine.get("bad")).status is RunStatus.CANCELLED


# --- starting ------------------------------------------------------------------------------------


async def test_a_refused_start_leaves_the_run_that_has_the_id_alone(
    sqlite_engine: HookedEngine,
) -> None:
    engine = sqlite_engine
    handler = await engine.start(asks(), run_id="mine")
    with pytest.raises(RunAlreadyExists):
        await engine.start(asks(), run_id="mine")
    await engine.answer("mine", {"text": "still here"})
    async with asyncio.timeout(60):
        assert await handler == "still here"


class Counted(Workflow):
    @step
    async def count(self, ctx: Context, ev: StartEvent) -> StopEvent:
        n = await ctx.store.get("n", default=0) + 1
        await ctx.store.set("n", n)
        return StopEvent(result=n)


async def test_a_run_that_waits_for_room_takes_its_state_along(
    sqlite_engine: HookedEngine,
) -> None:
    flow = Counted(timeout=None, num_concurrent_runs=1)
    ctx = Context(flow)
    await ctx.store.set("n", 41)
    assert await flow.run(ctx, engine=sqlite_engine) == 42


# --- stopping ------------------------------------------------------------------------------------


async def test_whoever_waits_for_a_run_hears_that_the_engine_stops(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    engine = virtual_clock.engine(url_of(tmp_path))
    handler = await engine.start(asks())

    async def read() -> None:
        async for _ in engine.stream(handler.run_id):
            pass

    async def result() -> Any:
        return await handler

    tasks = [asyncio.ensure_future(result()), asyncio.ensure_future(read())]
    await virtual_clock.settle()
    await engine.stop()
    async with asyncio.timeout(60):
        errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(error, Exception) for error in errors), errors
    assert "stopped" in str(errors[0])


async def test_a_commit_that_the_store_refuses_does_not_outlive_its_engine(
    virtual_clock: VirtualClock,
) -> None:
    trouble = Failing()
    engine = virtual_clock.engine(hooked(MemoryStore(), trouble))
    handler = await engine.start(asks())
    await virtual_clock.settle()
    trouble.error = StoreLocked("for ever")
    trouble.verbs = frozenset({"commit"})
    await engine.answer(handler.run_id, {"text": "late"})
    await virtual_clock.advance(30)
    await engine.stop()  # and conftest sees that no task is left


async def test_a_body_that_does_not_stop_does_not_keep_its_engine(
    virtual_clock: VirtualClock,
) -> None:
    free = asyncio.Event()

    class Stubborn(Workflow):
        @step
        async def one(self, ev: StartEvent) -> StopEvent:
            while not free.is_set():
                try:
                    await free.wait()
                except asyncio.CancelledError:
                    continue
            return StopEvent()

    engine = virtual_clock.engine("memory://")
    await engine.start(Stubborn(timeout=None))
    await virtual_clock.settle()
    async with asyncio.timeout(60):
        await engine.stop()
    free.set()


async def test_an_engine_that_could_not_start_can_start_later(
    virtual_clock: VirtualClock,
) -> None:
    trouble = Once("register", _locked)
    trouble.armed = True
    engine = virtual_clock.engine(hooked(MemoryStore(), trouble))
    with pytest.raises(StoreLocked):
        await engine.start_up()
    handler = await engine.start(Linear(timeout=None))
    assert await handler == 2


class Nested(Workflow):
    """Its first half is done when it is saved; the second waits for an answer."""

    @step
    async def first(self, ctx: Context, ev: StartEvent) -> Middle:
        await ctx.store.set("first", await ctx.store.get("first", default=0) + 1)
        return Middle(n=7)

    @step
    async def second(self, ctx: Context, ev: Middle) -> StopEvent:
        got = await ctx.wait_for_event(Answer, waiter_id="q", timeout=None)
        return StopEvent(result=[ev.n, got.text, await ctx.store.get("first")])


@pytest.mark.parametrize("room", [None, 1])
async def test_a_saved_context_goes_on_as_a_durable_run(
    sqlite_engine: HookedEngine, virtual_clock: VirtualClock, room: int | None
) -> None:
    flow = Nested(timeout=None, num_concurrent_runs=room)
    before = flow.run()
    await virtual_clock.settle()
    data = before.ctx.to_dict()
    await before.cancel_run()
    handler = flow.run(Context.from_dict(flow, data), engine=sqlite_engine, run_id="on")
    await handler.started()
    await virtual_clock.settle()
    assert [wait.id for wait in await sqlite_engine.waits("on")] == ["q"]
    await sqlite_engine.answer("on", {"text": "well"})
    assert await handler == [7, "well", 1]
    assert (await sqlite_engine.get("on")).status is RunStatus.COMPLETED


async def test_a_run_that_goes_on_from_a_saved_context_cannot_be_forked_from_its_journal(
    sqlite_engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    flow = Nested(timeout=None)
    before = flow.run()
    await virtual_clock.settle()
    data = before.ctx.to_dict()
    await before.cancel_run()
    handler = flow.run(Context.from_dict(flow, data), engine=sqlite_engine, run_id="on")
    await handler.started()
    await virtual_clock.settle()
    with pytest.raises(WorkflowRuntimeError, match="saved context"):
        await sqlite_engine.fork("on", seq=1)


async def test_more_than_one_start_message_waits_for_room(
    sqlite_engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    class Pair(Workflow):
        @step
        async def both(self, evs: Annotated[tuple[Middle, Answer], All()]) -> StopEvent:
            return StopEvent(result=evs[1].text)

        @step
        async def begin(self, ev: StartEvent) -> None:
            return None

    flow = Pair(timeout=None, num_concurrent_runs=1)
    program = flow.compiled()
    messages = [
        Message(program.types.add(type(event)), event)
        for event in (StartEvent(), Middle(n=1), Answer(text="both"))
    ]
    assert await sqlite_engine.begin(flow, program, messages) == "both"


class Number(Event):
    n: int


class Strict(Workflow):
    @step
    async def first(self, ev: StartEvent) -> Number:
        return Number(n=1)

    @step
    async def second(self, ev: Number) -> StopEvent:
        await asyncio.sleep(3600)
        return StopEvent()


async def test_why_data_does_not_fit_is_said_without_addresses(
    virtual_clock: VirtualClock,
) -> None:
    store = MemoryStore()
    flow = Strict(timeout=None)
    first = virtual_clock.engine(store, [flow])
    handler = await first.start(flow)
    await virtual_clock.settle()
    with pytest.raises(InvalidArgument) as refused:
        await first.signal(handler.run_id, "Number", {"n": "x"})
    await first.stop()
    rows = store._runs[handler.run_id].journal  # pyright: ignore[reportPrivateUsage]
    for place, row in enumerate(rows):
        rows[place] = replace(row, data=row.data.replace(b'{"n":1}', b'{"n":"x"}'))
    second = virtual_clock.engine(store, [flow])
    await second.start_up()
    await virtual_clock.settle()
    info = await second.get(handler.run_id)
    assert info.status is RunStatus.PARKED
    for told in (str(refused.value), str(info.reason)):
        assert "valid integer" in told
        assert "http" not in told
