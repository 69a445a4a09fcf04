"""P11: durability is never lost silently: it is explicit, logged at start, and a store that keeps
nothing warns. A store in trouble is waited for, and never replaced by memory.

Catches: an engine that goes on in memory when its store can't be written (the run would end while
the file is locked), one that gives the run up, and a start that does not say what is survived.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from stepwell import Context, Engine, Event, StartEvent, StopEvent, Workflow, step
from stepwell.errors import RunNotFound, StoreError, StoreUnavailable
from stepwell.runtime.telemetry import listen
from stepwell.stores.sqlite import SQLiteStore
from stepwell.testing import VirtualClock
from stepwell.values import RunStatus


class Half(Event):
    pass


class Two(Workflow):
    @step
    async def one(self, ev: StartEvent) -> Half:
        return Half()

    @step
    async def two(self, ev: Half) -> StopEvent:
        return StopEvent(result="kept")


@pytest.mark.parametrize(
    ("url", "durability"),
    [("sqlite:///{}", "power"), ("sqlite:///{}?durability=process", "process")],
)
async def test_what_a_sqlite_store_survives_is_said(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    url: str,
    durability: str,
) -> None:
    path = tmp_path / "runs.db"
    with caplog.at_level(logging.INFO, "stepwell"):
        async with Engine(url.format(f"/{path}"), [Two()]) as engine:
            assert engine.durability == durability
            assert await Two().run(engine=engine) == "kept"
    assert f"runs.db ({durability})" in caplog.text


async def test_a_store_that_keeps_nothing_warns(caplog: pytest.LogCaptureFixture) -> None:
    async with Engine("memory://", [Two()]) as engine:
        assert engine.durability == "none"
    warnings = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert any("survive nothing" in w for w in warnings)


async def test_a_store_that_is_not_there_is_an_error_and_not_a_run_in_memory(
    tmp_path: Path,
) -> None:
    engine = Engine(f"sqlite:////{tmp_path}/missing/runs.db", [Two()])
    with pytest.raises(StoreUnavailable, match="missing"):
        await engine.start_up()
    await engine.stop()
    assert os.listdir(tmp_path) == []


class Trouble(logging.Handler):
    """Notices that the engine says that its store is in trouble."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if "the store is in trouble" in record.getMessage():
            self.said.set()


@pytest.fixture
def trouble() -> Iterator[Trouble]:
    handler = Trouble()
    logger = logging.getLogger("stepwell")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


async def test_a_store_in_trouble_is_waited_for_and_nothing_is_lost(
    tmp_path: Path, trouble: Trouble
) -> None:
    path = tmp_path / "runs.db"
    locker = sqlite3.connect(path, isolation_level=None)
    begun = asyncio.Event()
    locked = asyncio.Event()

    class Waits(Workflow):
        @step
        async def one(self, ev: StartEvent) -> Half:
            begun.set()
            await locked.wait()
            return Half()

        @step
        async def two(self, ev: Half) -> StopEvent:
            return StopEvent(result="kept")

    heard: list[str] = []
    stop = listen(lambda name, fields: heard.append(f"{name} {fields.get('step', '')}"))
    async with Engine(SQLiteStore(path, busy_timeout=0.02), poll=0.01) as engine:
        handler = await engine.start(Waits(timeout=None))
        await begun.wait()
        locker.execute("BEGIN EXCLUSIVE")
        locked.set()
        async with asyncio.timeout(60):
            await trouble.said.wait()
        assert not handler.is_done()
        assert "step.started two" not in heard  # what is not kept is not gone on from
        assert engine.durability == "power"
        locker.execute("ROLLBACK")
        assert await handler == "kept"
        entries = [entry for _, _, row in await engine.journal(handler.run_id) for entry in row]
    stop()
    locker.close()
    assert [entry[0] for entry in cast("list[list[object]]", entries)].count("done") == 2


class Breaking:
    """A store whose every write is refused by SQLite for as long as a test wants."""

    def __init__(self, path: Path) -> None:
        self.store = SQLiteStore(path, on_write=self._on_write)
        self.refuses: int | None = None

    def _on_write(self, when: str, _number: int) -> None:
        if self.refuses is not None and when == "before":
            error = sqlite3.OperationalError("what SQLite says")
            error.sqlite_errorcode = self.refuses
            raise error


class Big(Event):
    text: str


class Busy(Workflow):
    """Its first body ends when `broken` is set; a second one gives what the first made."""

    broken: asyncio.Event
    bodies: Counter[str]

    @step
    async def one(self, ev: StartEvent) -> Big:
        self.bodies["one"] += 1
        await self.broken.wait()
        return Big(text="x" * 20_000)

    @step
    async def two(self, ctx: Context, ev: Big) -> StopEvent:
        self.bodies["two"] += 1
        await ctx.store.set("seen", True)
        return StopEvent(result=len(ev.text))


def busy() -> Busy:
    flow = Busy(timeout=None)
    flow.broken, flow.bodies = asyncio.Event(), Counter()
    return flow


REFUSALS = {
    sqlite3.SQLITE_READONLY: "cannot be written",
    sqlite3.SQLITE_FULL: "no room left",
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_IOERR: "cannot be opened or read",
}


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_many_runs_stand_still_with_their_store_and_all_go_on(
    tmp_path: Path, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture, refusal: int
) -> None:
    """What bodies gave while nothing could be kept is kept afterwards; no body runs again."""
    path = tmp_path / "runs.db"
    breaking = Breaking(path)
    flow = busy()
    engine = virtual_clock.engine(breaking.store, [flow], lease=15)
    handlers = [await engine.start(flow, run_id=f"run{n}") for n in range(8)]
    await virtual_clock.settle()
    breaking.refuses = refusal
    flow.broken.set()
    began = virtual_clock.now()
    with pytest.raises(StoreError, match="run late could not be created") as caught:
        await engine.start(flow, run_id="late")  # nobody was promised this one
    assert REFUSALS[refusal] in str(caught.value)
    assert 15 <= virtual_clock.now() - began < 25
    with pytest.raises(RunNotFound):
        await engine.get("late")
    await virtual_clock.advance(120.0)
    assert flow.bodies == {"one": 8}
    assert not any(handler.is_done() for handler in handlers)
    assert {(await engine.get(f"run{n}")).seq for n in range(8)} == {1}
    assert (engine.durability, engine.store.url) == ("power", breaking.store.url)
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    for n in range(8):
        mine = [text for text in said if f"run run{n}:" in text]
        assert len(mine) > 10  # it goes on saying so
        assert all(REFUSALS[refusal] in text and str(path) in text for text in mine)
    breaking.refuses = None
    assert [await handler for handler in handlers] == [20_000] * 8
    assert await (await engine.start(flow, run_id="late")) == 20_000
    assert flow.bodies == {"one": 9, "two": 9}
    await engine.stop()
    other = virtual_clock.engine(f"sqlite:///{path}", [flow])
    infos, _ = await other.list()
    assert sorted(info.id for info in infos) == ["late", *(f"run{n}" for n in range(8))]
    assert {info.status for info in infos} == {RunStatus.COMPLETED}
    assert await other.store.verify() == []


async def test_a_full_disk_is_waited_for(tmp_path: Path, trouble: Trouble) -> None:
    """As above, with a file that may really not grow, in real time."""
    store = SQLiteStore(tmp_path / "runs.db")

    async def on_writer(sql: str) -> list[tuple[int, ...]]:
        return await store._write().submit(False, lambda db: db.execute(sql).fetchall())

    flow = busy()
    async with Engine(store, [flow], poll=0.01) as engine:
        handler = await engine.start(flow)
        ((pages,),) = await on_writer("PRAGMA page_count")
        await on_writer(f"PRAGMA max_page_count = {pages}")
        flow.broken.set()
        async with asyncio.timeout(60):
            await trouble.said.wait()
        assert (flow.bodies["two"], handler.is_done()) == (0, False)
        await on_writer("PRAGMA max_page_count = 1000000")
        async with asyncio.timeout(60):
            assert await handler == 20_000
    assert flow.bodies == {"one": 1, "two": 1}


async def test_an_engine_that_stops_before_its_store_is_back_says_what_was_not_kept(
    tmp_path: Path, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "runs.db"
    breaking = Breaking(path)
    flow = busy()
    engine = virtual_clock.engine(breaking.store, [flow])
    for n in range(8):
        await engine.start(flow, run_id=f"run{n}")
    await virtual_clock.settle()
    before = asyncio.all_tasks()
    breaking.refuses = sqlite3.SQLITE_FULL
    flow.broken.set()
    await virtual_clock.advance(60.0)
    late = asyncio.create_task(engine.start(flow, run_id="late"))
    await virtual_clock.settle()
    began = virtual_clock.now()
    await engine.stop()
    assert virtual_clock.now() - began < 13
    with pytest.raises(StoreError, match="late"):
        await late
    assert asyncio.all_tasks() <= before
    for n in range(8):
        assert f"run run{n}: its last commit was not finished" in caplog.text
    breaking.refuses = None
    second = virtual_clock.engine(f"sqlite:///{path}", [flow])
    assert [await second.result(f"run{n}") for n in range(8)] == [20_000] * 8
    with pytest.raises(RunNotFound):
        await second.get("late")
