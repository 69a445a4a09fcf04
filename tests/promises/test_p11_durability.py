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
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from stepwell import Engine, Event, StartEvent, StopEvent, Workflow, step
from stepwell.errors import StoreUnavailable
from stepwell.runtime.telemetry import listen
from stepwell.stores.sqlite import SQLiteStore


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
        async with asyncio.timeout(5):
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
