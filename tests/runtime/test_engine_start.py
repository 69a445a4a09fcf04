"""An engine that could not start holds nothing, and may be started again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from stepwell import Engine, Event, StartEvent, StopEvent, Workflow, step
from stepwell.errors import StoreUnavailable
from stepwell.runtime import letting_go
from stepwell.stores.memory import MemoryStore
from stepwell.testing import Failing, Hook, hooked
from stepwell.values import RunStatus

T = TypeVar("T")


class Waits(Workflow):
    """Does not end before `go` is set."""

    begun: asyncio.Event
    go: asyncio.Event

    @step
    async def wait(self, ev: StartEvent) -> StopEvent:
        self.begun.set()
        await self.go.wait()
        return StopEvent(result=ev.n)


@pytest.fixture
def flow() -> Waits:
    Waits.begun, Waits.go = asyncio.Event(), asyncio.Event()
    return Waits(timeout=None)


class Large(Event):
    text: str


class Leaves(Hook):
    """The store goes away once, when a step that was claimed at the start has begun."""

    gone = False

    async def around(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
        if verb == "counts" and not self.gone:
            await Waits.begun.wait()
            self.gone = True
            raise StoreUnavailable("gone")
        return await call()


async def left_by_a_worker_that_was_stopped(store: MemoryStore, flow: Workflow) -> str:
    first = Engine(store, [flow], name="first")
    handler = await first.start(flow, n=7)
    await Waits.begun.wait()
    await first.stop(grace=0.0)
    Waits.begun.clear()
    return handler.run_id


async def test_what_was_claimed_before_the_store_went_away_is_let_go_of(
    flow: Waits, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    store, trouble = MemoryStore(), Leaves()
    run_id = await left_by_a_worker_that_was_stopped(store, flow)
    engine = Engine(hooked(store, trouble), [flow], name="second")
    with pytest.raises(StoreUnavailable):
        await engine.start_up()
    await store.open()
    assert await store.workers() == []
    row = await store.get(run_id)
    assert row is not None
    assert (row.owner, row.status) == (None, RunStatus.RUNNING)
    assert trouble.gone
    async with engine:
        flow.go.set()
        assert await engine.result(run_id) == 7


class Silent(Hook):
    """A store that does some verbs, or does not, and answers them never, while `on`."""

    def __init__(self, *verbs: str, does: bool = True) -> None:
        self.verbs = verbs
        self.does = does
        self.on = False
        self.back = asyncio.Event()

    async def around(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
        if not self.on or verb not in self.verbs:
            return await call()
        if self.does:
            answer = await call()
            await self.back.wait()
            return answer
        await self.back.wait()
        return await call()


class Big(Workflow):
    """Its journal has a payload that is kept apart."""

    @step
    async def first(self, ev: StartEvent) -> Large:
        return Large(text="x" * 200_000)

    @step
    async def second(self, ev: Large) -> StopEvent:
        Waits.begun.set()
        await Waits.go.wait()
        return StopEvent(result=len(ev.text))


async def test_a_payload_that_can_not_be_read_just_now_parks_nothing(flow: Waits) -> None:
    store, trouble = MemoryStore(), Failing()
    big = Big(timeout=None)
    run_id = await left_by_a_worker_that_was_stopped(store, big)
    trouble.verbs, trouble.error = frozenset({"blob"}), StoreUnavailable("gone")
    engine = Engine(hooked(store, trouble), [big], name="second", poll=0.01)
    with pytest.raises(StoreUnavailable):
        await engine.start_up()
    trouble.error = None
    await engine.start_up()
    Waits.go.set()
    assert await engine.result(run_id) == 200_000
    await engine.stop(grace=0.0)


@pytest.mark.usefixtures("flow")
@pytest.mark.parametrize("does", [True, False])
@pytest.mark.parametrize("limited", [None, 1])
async def test_who_starts_a_run_is_answered_although_the_store_says_nothing(
    does: bool, limited: int | None
) -> None:
    """Whether it is kept is not known then; there will be one, however often it is started."""
    silent = Silent("commit", does=does)
    flow = Waits(timeout=None, num_concurrent_runs=limited)
    flow.go.set()
    async with Engine(hooked(MemoryStore(), silent), [flow], lease=0.2) as engine:
        silent.on = True
        async with asyncio.timeout(60):
            with pytest.raises(StoreUnavailable, match=r"within 0.4 s whether run r was kept"):
                await engine.start(flow, n=7, run_id="r", key="k")
        silent.on = False
        silent.back.set()
        async with asyncio.timeout(60):
            assert await (await engine.start(flow, n=7, key="k")) == 7
        assert list((await engine.counts()).values()) == [1]


async def test_an_engine_stops_although_the_store_says_nothing(
    flow: Waits, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(letting_go, "PATIENCE", 0.05)
    silent = Silent("unregister", "send")
    engine = Engine(hooked(MemoryStore(), silent), [flow])
    handler = await engine.start(flow, n=7)
    silent.on = True
    cancelling = asyncio.ensure_future(engine.cancel(handler.run_id))
    engine._worker.inbox.background(engine.signal(handler.run_id, "Nudge"))
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await engine.stop(grace=0.0)
    assert "could not sign off" in caplog.text
    assert "were on their way to runs" in caplog.text
    cancelling.cancel()
