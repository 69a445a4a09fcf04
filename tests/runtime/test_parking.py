"""Who moves a parked run claims it; nothing that goes wrong meanwhile leaves a claim behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from stepwell import Engine, StartEvent, StopEvent, Workflow, step
from stepwell.errors import StoreUnavailable, WorkflowRuntimeError
from stepwell.stores.memory import MemoryStore
from stepwell.testing import Failing, Hook, hooked
from stepwell.values import RunStatus

T = TypeVar("T")
Move = Callable[[Engine, str], Awaitable[object]]


class Shared(MemoryStore):
    """Stays open for the other engines."""

    async def close(self) -> None:
        """Not by one of several."""


class Flow(Workflow):
    @step
    async def only(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=7)


class At(Hook):
    """Does something just before a verb is done, and after it, once."""

    def __init__(self, verb: str) -> None:
        self.verb: str | None = verb
        self.before: Callable[[], Awaitable[object]] = self.nothing
        self.after: Callable[[], Awaitable[object]] = self.nothing

    async def around(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
        if verb != self.verb:
            return await call()
        self.verb = None
        await self.before()
        answer = await call()
        await self.after()
        return answer

    async def nothing(self) -> None:
        """No more than the verb."""


@pytest.fixture
async def store() -> MemoryStore:
    """Has a parked run "r"."""
    store = Shared()
    async with Engine(store, worker=False) as engine:
        await engine.start(Flow(timeout=None), run_id="r")
        await engine.park("r", "look at it")
    async with Engine(store, [Flow(timeout=None)]):
        pass
    row = await store.get("r")
    assert row is not None
    assert (row.status, row.owner) == (RunStatus.PARKED, None)
    return store


async def goes_on(store: MemoryStore) -> None:
    """Whoever knows its workflow brings it to its end."""
    async with Engine(store, [Flow(timeout=None)]) as engine, asyncio.timeout(60):
        assert await engine.result("r") == 7


async def resume(engine: Engine, run: str) -> object:
    return await engine.resume(run)


async def cancel(engine: Engine, run: str) -> object:
    return await engine.cancel(run)


@pytest.mark.parametrize("move", [resume, cancel])
async def test_a_run_that_another_moved_meanwhile_is_given_back(
    store: MemoryStore, move: Move
) -> None:
    at = At("claim_one")
    async with Engine(store, worker=False) as other:
        at.before = lambda: other.resume("r")
        async with Engine(hooked(store, at), worker=False) as engine:
            try:
                assert await move(engine, "r") is False
            except WorkflowRuntimeError:
                assert move is resume
            await goes_on(store)


@pytest.mark.parametrize("move, verb", [(resume, "load"), (cancel, "list")])
@pytest.mark.parametrize("claims", [True, False])
async def test_a_store_that_fails_in_the_midst_leaves_the_run_to_be_moved(
    store: MemoryStore, move: Move, verb: str, claims: bool
) -> None:
    trouble = Failing()
    flows = [Flow(timeout=None)] if claims else []
    async with Engine(hooked(store, trouble), flows, worker=claims, lease=0.05) as engine:
        trouble.verbs, trouble.error = frozenset({verb, "load_many"}), StoreUnavailable("gone")
        with pytest.raises(StoreUnavailable):
            await move(engine, "r")
        trouble.error = None
        await given_back(store)
        await move(engine, "r")
        row = await store.get("r")
        assert row is not None
        assert row.status is not RunStatus.PARKED


async def given_back(store: MemoryStore) -> None:
    async with asyncio.timeout(60):
        while (row := await store.get("r")) is not None and row.owner is not None:
            await store.changed(0.05)


@pytest.mark.parametrize("move", [resume, cancel])
@pytest.mark.parametrize("claims", [True, False])
async def test_who_does_not_wait_for_it_leaves_nothing_half_done(
    store: MemoryStore, move: Move, claims: bool
) -> None:
    at, claimed, on = At("claim_one"), asyncio.Event(), asyncio.Event()

    async def after() -> None:
        claimed.set()
        await on.wait()

    at.after = after
    flows = [Flow(timeout=None)] if claims else []
    async with Engine(hooked(store, at), flows, worker=claims, lease=0.05) as engine:
        moving = asyncio.ensure_future(move(engine, "r"))
        await claimed.wait()
        moving.cancel()
        await asyncio.wait({moving})
        on.set()
        async with asyncio.timeout(60):
            while (row := await store.get("r")) is not None and row.status is RunStatus.PARKED:
                await store.changed(0.05)
        await given_back(store)


async def test_claims_may_be_given_up_by_several_at_once(store: MemoryStore) -> None:
    at, on = At("commit"), asyncio.Event()
    at.after = on.wait  # type: ignore[assignment]
    async with Engine(hooked(store, at), worker=False) as engine:
        worker = engine._worker
        row = await store.claim_one(worker.id, "r", 0.0)
        assert row is not None
        worker.letting_go.untouched(row)
        several = [asyncio.ensure_future(worker.letting_go.settle()) for _ in range(3)]
        await asyncio.sleep(0)
        on.set()
        await asyncio.gather(*several)
        await given_back(store)
