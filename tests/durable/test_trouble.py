"""A store in trouble: it is said, nothing is lost, and the run goes on when the store is back."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from tests.durable.flows import Answer, Linear, Middle, asks

from stepwell import Context, StartEvent, StopEvent, Workflow, step
from stepwell.errors import (
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    StoreUnavailable,
    StoreVersionError,
)
from stepwell.runtime.engine import Engine
from stepwell.stores.memory import MemoryStore
from stepwell.stores.sqlite import SQLiteStore
from stepwell.testing import Bodies, Failing, History, Hook, VirtualClock, hooked

T = TypeVar("T")


class Slow(Workflow):
    @step
    async def one(self, ctx: Context, ev: StartEvent) -> Middle:
        await asyncio.sleep(10)
        return Middle(n=1)

    @step
    async def two(self, ctx: Context, ev: Middle) -> StopEvent:
        await asyncio.sleep(10)
        return StopEvent(result=ev.n)


@pytest.mark.parametrize("kind", [StoreFull, StoreLocked, StoreReadOnly, StoreUnavailable])
async def test_a_run_waits_for_its_store_and_goes_on(
    virtual_clock: VirtualClock, kind: type[StoreError], caplog: pytest.LogCaptureFixture
) -> None:
    trouble, bodies = Failing(), Bodies()
    engine = virtual_clock.engine(hooked(MemoryStore(), trouble), hooks=bodies)
    handler = await engine.start(Slow(timeout=None))
    await virtual_clock.advance(5)
    trouble.error = kind("the disk is in trouble")
    await virtual_clock.advance(3600)
    assert not handler.is_done()
    assert "the disk is in trouble" in caplog.text
    assert 100 < trouble.refused < 2000  # tries again, and not all the time
    trouble.error = None
    assert await handler == 1
    assert [step for _, step, _ in bodies.begun] == ["one", "two"]  # nothing was done again
    (await History.of(handler)).completed()


async def test_who_starts_a_run_while_the_store_is_in_trouble_waits_with_it(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    trouble = Failing()
    engine = virtual_clock.engine(hooked(MemoryStore(), trouble))
    await engine.start_up()
    trouble.error = StoreFull("no space")
    starting = asyncio.ensure_future(engine.start(Linear(timeout=None)))
    await virtual_clock.advance(60)
    assert not starting.done()  # it is not acknowledged before it is kept
    trouble.error = None
    assert await (await starting) == 2


async def test_a_signal_to_a_store_in_trouble_is_refused_to_who_sends_it(
    virtual_clock: VirtualClock,
) -> None:
    trouble = Failing()
    engine = virtual_clock.engine(hooked(MemoryStore(), trouble))
    handler = await engine.start(asks())
    await virtual_clock.settle()
    trouble.error = StoreFull("no space")
    with pytest.raises(StoreFull):
        await engine.signal(handler.run_id, Answer(text="lost?"))
    trouble.error = None
    await engine.signal(handler.run_id, Answer(text="kept"))
    assert await handler == "kept"


async def test_an_engine_can_stop_while_its_store_is_in_trouble(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    store, trouble = MemoryStore(), Failing()
    flow = Slow(timeout=None)
    engine = virtual_clock.engine(hooked(store, trouble), [flow])
    handler = await engine.start(flow)
    await virtual_clock.advance(5)
    trouble.error = StoreFull("no space")
    await virtual_clock.advance(10)
    await engine.stop(grace=1)
    assert virtual_clock.elapsed < 60
    assert "could not sign off" in caplog.text
    second = virtual_clock.engine(store, [flow])
    virtual_clock.skip(2 * 86400)  # the first could not say that it stopped: its lease has to end
    assert await second.result(handler.run_id) == 1


async def test_reads_that_fail_are_said_and_tried_again(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    trouble = Failing()
    trouble.verbs = frozenset({"next_due", "claim", "load_many", "inbox", "messages"})
    flow = asks(num_concurrent_runs=1)
    engine = virtual_clock.engine(hooked(MemoryStore(), trouble), [flow])
    first, second = await engine.start(flow), await engine.start(flow)
    await virtual_clock.settle()
    trouble.error = StoreUnavailable("gone fishing")
    await engine.signal(first.run_id, Answer(text="1"), question="q")
    await virtual_clock.advance(60)
    assert "gone fishing" in caplog.text
    trouble.error = None
    assert await first == "1"
    await engine.signal(second.run_id, Answer(text="2"), question="q")
    assert await second == "2"


async def test_a_file_that_cannot_be_opened_is_said_with_a_way_out(tmp_path: Path) -> None:
    engine = Engine(f"sqlite:///{tmp_path}/nowhere/runs.db")
    with pytest.raises(StoreUnavailable) as error:
        await engine.start_up()
    assert "nowhere" in str(error.value)
    await engine.stop()
    rubbish = tmp_path / "rubbish.db"
    rubbish.write_text("this is no database, and it is long enough to see that it is none" * 20)
    engine = Engine(f"sqlite:///{rubbish}")
    with pytest.raises(StoreError) as error:
        await engine.start_up()
    assert "rubbish.db" in str(error.value)
    await engine.stop()


async def test_a_file_of_a_newer_release_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with Engine(f"sqlite:///{path}") as engine:
        assert await (await engine.start(Linear)) == 2
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("UPDATE meta SET value = '9999' WHERE key = 'schema'")
    db.close()
    before = path.read_bytes()
    engine = Engine(f"sqlite:///{path}")
    with pytest.raises(StoreVersionError):
        await engine.start_up()
    await engine.stop()
    assert path.read_bytes() == before


async def test_another_process_that_holds_the_file_only_makes_it_slow(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = SQLiteStore(path, durability="process", busy_timeout=0.01)
    async with Engine(store) as engine:
        assert await (await engine.start(Linear)) == 2
        other = sqlite3.connect(path)
        other.execute("BEGIN IMMEDIATE")
        starting = asyncio.ensure_future(engine.start(Linear, n=5))
        await asyncio.sleep(0.1)
        assert not starting.done()
        other.rollback()
        other.close()
        assert await (await starting) == 10


class Broken(Hook):
    """Raises what no store should, from one verb, for a while."""

    def __init__(self, verb: str) -> None:
        self.verb = verb
        self.on = False
        self.raised = asyncio.Event()

    async def around(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
        if self.on and verb == self.verb:
            self.raised.set()
            raise ZeroDivisionError("a fault of the store")
        return await call()


async def test_the_lease_is_renewed_whatever_else_goes_wrong(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    store, broken = MemoryStore(), Broken("workers")
    engine = virtual_clock.engine(hooked(store, broken), lease=30.0)
    await engine.start_up()
    broken.on = True
    await virtual_clock.advance(100)
    (worker,) = await store.workers()
    assert worker.until > virtual_clock.now()
    assert "a fault of the store" in caplog.text


async def test_a_worker_that_heard_nonsense_goes_on_listening(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, broken = MemoryStore(), Broken("changed")
    broken.on = True
    async with Engine(hooked(store, broken), [Linear], poll=0.01) as engine:
        await broken.raised.wait()
        broken.on = False
        other = Engine(store, worker=False)
        await other.start(Linear(), run_id="r")
        async with asyncio.timeout(60):
            assert await engine.result("r") == 2
    await other.stop()
    assert "a fault of the store" in caplog.text
