"""Schedules: one chain of planned runs, whatever happens to workers, clocks and code."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from stepwell.errors import InvalidArgument
from stepwell.machine import complete, get_context, step, workflow
from stepwell.stores.memory import MemoryStore
from stepwell.testing import VirtualClock
from stepwell.testing.stores import Dying, hooked

_names = itertools.count()


def hourly(
    name: str | None = None, version: str = "1", schedule: str = "0 * * * *", **options: Any
) -> Any:
    """A class with a schedule."""

    @workflow(name or f"hourly-{next(_names)}", version, schedule=schedule, **options)
    class Hourly:
        class Context(BaseModel):
            scheduled_at: datetime | None = None

        begun: ClassVar[list[str]] = []

        @step(start=True)
        async def work(self) -> object:
            at = get_context().scheduled_at
            self.begun.append(f"{at:%m-%dT%H:%M}")
            return complete(at=at)

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


async def test_two_engines_on_one_file_make_one_chain(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    cls = hourly()
    name = cls.__stepwell__.name
    url = f"sqlite:///{tmp_path / 'runs.db'}?durability=process"
    engines = [virtual_clock.engine(url, [cls], lease=900.0) for _ in range(2)]
    for engine in engines:
        await engine.start_up()
    await virtual_clock.advance(timedelta(hours=5, minutes=20))
    hours = [f"01-01T0{n}:00" for n in range(1, 6)]
    assert await fires(engines[0], name) == hours
    live, _ = await engines[0].list(workflow=name, status="waiting")
    assert [info.key for info in live] == ["schedule:2026-01-01T06:00:00+00:00"]


async def test_a_looking_engine_plans_nothing(virtual_clock: VirtualClock) -> None:
    cls = hourly()
    engine = virtual_clock.engine("memory://", [cls], worker=False)
    await engine.start_up()
    await virtual_clock.advance(timedelta(hours=2))
    (info,) = await engine.schedules()
    assert (info.next, info.run, info.cron) == (None, None, "0 * * * *")


async def test_a_cancelled_fire_is_called_off_and_the_schedule_goes_on(
    virtual_clock: VirtualClock,
) -> None:
    cls = hourly()
    name = cls.__stepwell__.name
    engine = virtual_clock.engine("memory://", [cls], lease=300.0)
    await engine.start_up()
    (info,) = await engine.schedules()
    await engine.cancel(str(info.run), "not this one")
    await virtual_clock.advance(timedelta(hours=3, minutes=5))
    assert await fires(engine, name) == ["01-01T02:00", "01-01T03:00"]


async def test_a_pause_survives_restarts_and_what_passed_is_not_made_up_for(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    cls = hourly(misfire="all")
    name = cls.__stepwell__.name
    url = f"sqlite:///{tmp_path / 'runs.db'}?durability=process"
    first = virtual_clock.engine(url, [cls])
    await first.start_up()
    await first.pause_schedule(name)
    await virtual_clock.advance(timedelta(hours=2))
    await first.stop()
    second = virtual_clock.engine(url, [cls])
    await second.start_up()
    await virtual_clock.advance(timedelta(hours=2, minutes=30))
    (info,) = await second.schedules()
    assert (info.paused, info.next) == (True, None)
    assert await fires(second, name) == []
    await second.resume_schedule(name)
    await virtual_clock.advance(timedelta(hours=1))
    assert await fires(second, name) == ["01-01T05:00"]
    (info,) = await second.schedules()
    assert (info.paused, info.next) == (False, at("2026-01-01 06:00"))


async def test_pausing_and_resuming_before_the_time_changes_nothing(
    virtual_clock: VirtualClock,
) -> None:
    cls = hourly()
    name = cls.__stepwell__.name
    engine = virtual_clock.engine("memory://", [cls])
    await engine.start_up()
    for _ in range(3):
        await engine.pause_schedule(name)
        await engine.resume_schedule(name)
    await virtual_clock.advance(timedelta(hours=1, minutes=1))
    assert await fires(engine, name) == ["01-01T01:00"]
    runs, _ = await engine.list(workflow=name)
    assert len(runs) == 2


async def test_pausing_needs_no_code_and_says_when_there_is_nothing_to_pause(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    cls = hourly()
    name = cls.__stepwell__.name
    url = f"sqlite:///{tmp_path / 'runs.db'}?durability=process"
    worker = virtual_clock.engine(url, [cls], lease=300.0)
    await worker.start_up()
    looking = virtual_clock.engine(url, worker=False)
    await looking.start_up()
    with pytest.raises(InvalidArgument, match="nothing is planned"):
        await looking.pause_schedule("nothing-of-the-kind")
    await looking.pause_schedule(name)
    (info,) = await looking.schedules()
    assert (info.workflow, info.paused, info.cron) == (name, True, "0 * * * *")
    await virtual_clock.advance(timedelta(hours=3))
    assert await fires(worker, name) == []


async def test_code_with_another_schedule_moves_what_is_planned_and_back(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}?durability=process"
    name = f"moving-{next(_names)}"

    async def live(version: str, schedule: str, time: timedelta) -> None:
        engine = virtual_clock.engine(url, [hourly(name, version, schedule)], lease=300.0)
        await engine.start_up()
        await virtual_clock.advance(time)
        await engine.stop()

    await live("1", "0 6 * * *", timedelta(minutes=10))  # planned for 06:00
    await live("2", "0 * * * *", timedelta(hours=7))  # fires at each hour, at 6 as well
    await live("3", "30 6 * * *", timedelta(days=1))
    await live("4", "30 * * * *", timedelta(hours=1))
    engine = virtual_clock.engine(url, [hourly(name, "5")])
    assert await fires(engine, name) == [
        *(f"01-01T0{n}:00" for n in range(1, 8)),
        "01-02T06:30",
        "01-02T07:30",
    ]


async def test_an_older_worker_does_not_move_what_a_newer_one_planned(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}?durability=process"
    name = f"moving-{next(_names)}"
    older = virtual_clock.engine(url, [hourly(name, "1", "0 * * * *")], lease=300.0)
    await older.start_up()
    await virtual_clock.advance(60)
    newer = virtual_clock.engine(url, [hourly(name, "2", "30 * * * *")], lease=300.0)
    await newer.start_up()
    await virtual_clock.advance(600)
    runs, _ = await newer.list(workflow=name)
    assert len(runs) == 2  # planned by one, moved by the other, and not back
    (info,) = await newer.schedules()
    assert (info.cron, info.next) == ("30 * * * *", at("2026-01-01 00:30"))


async def test_nothing_fires_twice_when_the_clock_goes_back(virtual_clock: VirtualClock) -> None:
    cls = hourly()
    name = cls.__stepwell__.name
    engine = virtual_clock.engine("memory://", [cls], lease=300.0)
    await engine.start_up()
    await virtual_clock.advance(timedelta(hours=3, minutes=10))
    virtual_clock.start -= 2 * 3600  # the clock says ten past one again
    (info,) = await engine.schedules()
    await engine.cancel(str(info.run))  # 04:00; without the run there is only what others remember
    runs, _ = await engine.list(workflow=name, status="completed")
    await engine.store.delete([runs[0].id])  # 03:00
    await virtual_clock.advance(timedelta(hours=4))
    assert await fires(engine, name) == ["01-01T01:00", "01-01T02:00", "01-01T05:00"]


async def test_backfill_starts_what_has_no_run_oldest_first_and_once(
    virtual_clock: VirtualClock,
) -> None:
    cls = hourly(misfire="skip")
    name = cls.__stepwell__.name
    engine = virtual_clock.engine("memory://", [cls])
    await engine.start_up()
    await virtual_clock.advance(timedelta(hours=1, minutes=5))  # 01:00 has fired
    virtual_clock.skip(timedelta(hours=4))  # 02:00 to 05:00 are skipped
    await virtual_clock.advance(60)
    assert await fires(engine, name) == ["01-01T01:00"]
    since, until = at("2025-12-31 23:00"), at("2026-01-01 23:00")
    assert await engine.backfill(name, since, until, limit=2) == 2
    assert await engine.backfill(name, since, until) == 4
    assert await engine.backfill(name, since, until) == 0
    await virtual_clock.settle()
    assert sorted(await fires(engine, name)) == sorted(
        ["12-31T23:00", "01-01T00:00", *(f"01-01T0{n}:00" for n in range(1, 6))]
    )
    assert cls.begun[:3] == ["01-01T01:00", "12-31T23:00", "01-01T00:00"]
    assert cls.begun[3:] == sorted(cls.begun[3:])
    await virtual_clock.advance(timedelta(hours=1))
    assert cls.begun[-1] == "01-01T06:00"
    with pytest.raises(InvalidArgument):
        await engine.backfill(name, since, until, limit=0)


async def test_the_last_time_was_made_up_for_by_hand_and_the_schedule_goes_on(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    cls = hourly()
    name = cls.__stepwell__.name
    url = f"sqlite:///{tmp_path / 'runs.db'}?durability=process"
    engine = virtual_clock.engine(url, [cls])
    await engine.start_up()
    await virtual_clock.settle()
    await engine.stop()
    virtual_clock.skip(timedelta(hours=3, minutes=30))
    looking = virtual_clock.engine(url, [cls], worker=False)
    assert await looking.backfill(name, at("2026-01-01 02:00"), at("2026-01-01 03:00")) == 2
    again = virtual_clock.engine(url, [cls])
    await again.start_up()
    await virtual_clock.advance(timedelta(hours=1))
    assert sorted(await fires(again, name)) == ["01-01T02:00", "01-01T03:00", "01-01T04:00"]


@pytest.mark.parametrize("misfire", ["skip", "once", "all"])
async def test_after_a_down_time(misfire: str, virtual_clock: VirtualClock, tmp_path: Path) -> None:
    cls = hourly(misfire=misfire)
    name = cls.__stepwell__.name
    url = f"sqlite:///{tmp_path / 'runs.db'}?durability=process"
    first = virtual_clock.engine(url, [cls])
    await first.start_up()
    await virtual_clock.settle()
    await first.stop()
    virtual_clock.skip(timedelta(hours=3, minutes=30))
    second = virtual_clock.engine(url, [cls])
    await second.start_up()
    await virtual_clock.advance(timedelta(hours=1))
    made_up = {
        "skip": [],
        "once": ["01-01T03:00"],
        "all": ["01-01T01:00", "01-01T02:00", "01-01T03:00"],
    }
    assert cls.begun == [*made_up[misfire], "01-01T04:00"]
    assert len(await fires(second, name)) == len(cls.begun)


async def test_a_fire_that_fails_does_not_stop_the_schedule(virtual_clock: VirtualClock) -> None:
    @workflow(f"failing-{next(_names)}", schedule="0 * * * *")
    class Failing:
        class Context(BaseModel):
            pass

        @classmethod
        def create_context(cls) -> Any:
            raise ZeroDivisionError("no context today")

        @step(start=True)
        def work(self) -> object:
            return complete()

    engine = virtual_clock.engine("memory://", [Failing])
    await engine.start_up()
    await virtual_clock.advance(timedelta(hours=3, minutes=1))
    failed, _ = await engine.list(status="failed")
    assert len(failed) == 3
    assert failed[0].reason == "no context today"
    (info,) = await engine.schedules()
    assert info.next == at("2026-01-01 04:00")
    assert info.last_status == "failed"


@pytest.mark.parametrize("seed", range(40))
def test_killed_at_any_write_each_time_fires_once(seed: int) -> None:
    """Engines die between planning, the successor and the start; others go on."""
    cls = hourly(misfire="all")
    name = cls.__stepwell__.name
    memory = MemoryStore()
    clock = VirtualClock(seed=seed)
    random = Random(seed)

    async def first() -> None:
        await clock.engine(memory, [cls]).start_up()  # what nobody has planned is not missed

    async def life() -> None:
        dying = Dying(random.randrange(1, 14), random.choice(["before", "after"]))
        engine = clock.engine(hooked(memory, dying), [cls], lease=600.0)
        starting = asyncio.ensure_future(engine.start_up())
        await dying.died()
        engine.abandon()
        starting.cancel()

    async def last() -> None:
        engine = clock.engine(memory, [cls], lease=600.0)
        await engine.start_up()
        await clock.advance(1500)
        hours = int((clock.now() - at("2026-01-01 00:00")) // 3600)
        start = datetime(2026, 1, 1, tzinfo=UTC)
        wanted = [(start + timedelta(hours=n + 1)).isoformat()[5:16] for n in range(hours)]
        assert sorted(await fires(engine, name)) == wanted
        live, _ = await engine.list(workflow=name, status="waiting")
        assert len(live) == 1

    clock.run(first)
    for _ in range(4):
        clock.run(life)
        clock.skip(random.randrange(660, 7200))
    clock.run(last)
