"""When schedules fire: expressions, zones, clocks that change, and what is made up for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from stepwell.authoring.machine.cron import Schedule, last_fire, next_fire
from stepwell.authoring.machine.plan import GRACE, due_now
from stepwell.errors import WorkflowConfigurationError
from stepwell.machine import complete, step, workflow


def at(text: str) -> float:
    """Seconds since the epoch of a time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def times(schedule: Schedule, after: str, count: int) -> list[str]:
    """The next times, in UTC."""
    now = at(after)
    found: list[str] = []
    for _ in range(count):
        now = next_fire(schedule, now)
        found.append(datetime.fromtimestamp(now, UTC).isoformat()[5:16])
    return found


@pytest.mark.parametrize(
    ("cron", "zone", "after", "wanted"),
    [
        # Clocks go forward: a time that is not on them fires when they have jumped.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-28 00:00",
            ["03-28T01:30", "03-29T01:00", "03-30T00:30"],
        ),
        (
            "30 2 * * *",
            "America/New_York",
            "2026-03-07 00:00",
            ["03-07T07:30", "03-08T07:00", "03-09T06:30"],
        ),
        (
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-02 16:00",
            ["10-03T15:30", "10-04T15:15"],
        ),
        # Clocks go back: a time that is on them twice fires once.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-24 00:00",
            ["10-24T00:30", "10-25T00:30", "10-26T01:30"],
        ),
        (
            "30 1 * * *",
            "America/New_York",
            "2026-10-31 00:00",
            ["10-31T05:30", "11-01T05:30", "11-02T06:30"],
        ),
        (
            "45 1 * * *",
            "Australia/Lord_Howe",
            "2026-04-03 15:00",
            ["04-04T14:45", "04-05T15:15"],
        ),
        # Each hour is each hour, whatever the clocks do.
        (
            "0 * * * *",
            "Europe/Berlin",
            "2026-10-24 23:30",
            ["10-25T00:00", "10-25T01:00", "10-25T02:00"],
        ),
        ("30 2 * * *", "UTC", "2026-03-29 00:00", ["03-29T02:30", "03-30T02:30"]),
        ("0 0 29 2 *", "UTC", "2026-01-01 00:00", ["02-29T00:00", "02-29T00:00"]),
        ("0 0 L * *", "UTC", "2028-02-01 00:00", ["02-29T00:00", "03-31T00:00"]),
        ("0 9 * * MON-FRI", "UTC", "2026-01-02 10:00", ["01-05T09:00", "01-06T09:00"]),
    ],
)
def test_when_it_fires(cron: str, zone: str, after: str, wanted: list[str]) -> None:
    schedule = Schedule(cron, zone)
    assert times(schedule, after, len(wanted)) == wanted


def test_six_fields_begin_with_seconds() -> None:
    found = next_fire(Schedule("*/10 * * * * *"), at("2026-01-01 00:00") + 0.5)
    assert found == at("2026-01-01 00:00") + 10


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Asia/Kathmandu", "UTC"])
@pytest.mark.parametrize("cron", ["30 2 * * *", "*/15 * * * *", "15 1,2 * * *", "*/7 1-3 * * *"])
@pytest.mark.parametrize("day", ["2026-03-07", "2026-03-28", "2026-10-24", "2026-10-31"])
def test_the_last_time_is_the_one_before_the_next(cron: str, zone: str, day: str) -> None:
    schedule = Schedule(cron, zone)
    now = next_fire(schedule, at(f"{day} 12:00"))
    for _ in range(80):
        following = next_fire(schedule, now)
        assert following > now
        for moment in (now, now + 0.5, (now + following) / 2, following - 1, following - 0.25):
            assert last_fire(schedule, moment) == now
            assert next_fire(schedule, moment) == following
        now = following


@pytest.mark.parametrize("cron", ["0 0 30 2 *", "61 * * * *", "every day", "* * * * * * *", ""])
def test_what_never_fires_is_refused_when_it_is_written(cron: str) -> None:
    with pytest.raises(ValueError, match="schedule"):
        workflow("never", schedule=cron)


def test_other_options_are_refused_when_they_are_written() -> None:
    with pytest.raises(ValueError, match="Mars"):
        workflow("never", schedule="0 0 * * *", timezone="Mars/Olympus")
    with pytest.raises(ValueError, match="misfire"):
        workflow("never", schedule="0 0 * * *", misfire="twice")
    with pytest.raises(ValueError, match="max_age"):
        workflow("never", schedule="0 0 * * *", max_age=0)


def test_a_context_that_nobody_can_fill_is_refused() -> None:
    def make(fill: bool) -> Any:
        class Report:
            class Context(BaseModel):
                scheduled_at: datetime
                customer: int

            @step(start=True)
            def work(self) -> object:
                return complete()

            if fill:

                @classmethod
                def create_context(cls, scheduled_at: datetime) -> Any:
                    return cls.Context(scheduled_at=scheduled_at, customer=7)

        return Report

    with pytest.raises(WorkflowConfigurationError, match="customer"):
        workflow("unfilled", schedule="0 0 * * *")(make(False))
    workflow("filled", schedule="0 0 * * *")(make(True))
    workflow("by-hand")(make(False))


# --- what is made up for -------------------------------------------------------------------------

CRONS = ["* * * * *", "*/7 * * * *", "0 * * * *", "30 2 * * *", "*/20 * * * * *", "0 9 * * MON"]
DOWN = st.floats(min_value=0.0, max_value=86400.0, allow_nan=False)


@settings(max_examples=80, deadline=None)
@given(
    cron=st.sampled_from(CRONS),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
    misfire=st.sampled_from(["skip", "once", "all"]),
    max_age=st.sampled_from([None, 30.0, 3600.0, 86400.0]),
    begin=st.sampled_from([at("2026-03-27 20:00"), at("2026-10-24 20:00"), at("2026-11-01 01:00")]),
    naps=st.lists(st.one_of(st.just(0.0), DOWN), min_size=1, max_size=5),
)
def test_what_is_made_up_for(
    cron: str, zone: str, misfire: str, max_age: float | None, begin: float, naps: list[float]
) -> None:
    schedule = Schedule(cron, zone, misfire, max_age)
    planned = next_fire(schedule, begin)
    fired: list[float] = []
    limit = math.inf if max_age is None else max_age
    for nap in naps:
        now = planned + nap  # the worker comes back, and does what is due at once
        first = planned
        mine: list[float] = []
        for _ in range(20_000):
            if planned > now:
                break
            fires, following = due_now(schedule, planned, now)
            assert following > planned
            if fires:
                assert planned <= now
                assert now - planned <= limit
                mine.append(planned)
            planned = following
        assert planned == next_fire(schedule, now)
        due = list(_between(schedule, first, now))
        young = [t for t in due if now - t <= limit]
        if misfire == "all":
            assert mine == young
        elif misfire == "skip":
            assert mine == [t for t in young if now - t <= GRACE]
        elif nap <= GRACE:
            assert mine == young
        else:
            assert mine == young[-1:]
        fired += mine
    assert fired == sorted(set(fired))


def _between(schedule: Schedule, first: float, last: float) -> Iterator[float]:
    now = first
    while now <= last:
        yield now
        now = next_fire(schedule, now)
