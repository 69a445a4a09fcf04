"""Schedules: one chain of planned runs, whatever happens to workers, clocks and code."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from stepwell.machine import complete, get_context, step, workflow
from stepwell.testing import VirtualClock

_names = itertools.count()


def hourly(
    name: str | None = None, version: str = "1", schedule: str = "0 * * * *", **options: Any
) -> Any:
    """A class with a schedule."""

    @workflow(name or f"hourly-{next(_names)}", version, schedule=schedule, **options)
    class Hourly:
        class Context(BaseModel):
            scheduled_at: datetime | None = None

        @step(start=True)
        def work(self) -> object:
            return complete(at=get_context().scheduled_at)

    return Hourly


async def fires(engine: Any, name: str) -> list[str]:
    """The times that runs have begun for, in the order they were created."""
    infos, _ = await engine.list(workflow=name, status="completed", limit=1000)
    found: list[str] = []
    for info in sorted(infos, key=lambda i: (i.created, i.id)):
        result: Mapping[str, Any] = await engine.result(info.id)
        if "at" in result:
            found.append(result["at"][5:16])
    return found


def at(text: str) -> float:
    """Seconds since the epoch of a time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


async def test_a_schedule_fires_by_itself(virtual_clock: VirtualClock) -> None:
    cls = hourly()
    name = cls.__stepwell__.name
    engine = virtual_clock.engine("memory://", [cls])
    await engine.start_up()
    (before,) = await engine.schedules()
    assert (before.cron, before.timezone, before.paused) == ("0 * * * *", "UTC", False)
    assert before.next == at("2026-01-01 01:00")
    assert before.last_run is None
    await virtual_clock.advance(timedelta(hours=3, minutes=1))
    assert await fires(engine, name) == ["01-01T01:00", "01-01T02:00", "01-01T03:00"]
    (after,) = await engine.schedules()
    assert after.next == at("2026-01-01 04:00")
    assert after.last_at == at("2026-01-01 03:00")
    assert after.last_status == "completed"
