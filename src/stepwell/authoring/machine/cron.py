"""When a schedule fires. Cron expressions are read by `cronsim`; this adds zones and errors.

Times on clocks that are put forward are made up for as soon as the clock has jumped, and times on
clocks that are put back happen once, as cron of Debian does it.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

MISFIRES = ("skip", "once", "all")


@dataclass(frozen=True, slots=True)
class Schedule:
    """When runs of a class start by themselves.

    Attributes:
        cron: five fields (minute, hour, day, month, weekday), or six with seconds first.
        timezone: an IANA name; the fields are times on its clocks.
        misfire: what to do about times that passed while no worker ran: "skip" them, make up for
            the last "once", or for "all" of them.
        max_age: seconds; times that passed longer ago are skipped in any case. None: no limit.
    """

    cron: str
    timezone: str = "UTC"
    misfire: str = "once"
    max_age: float | None = None

    def __post_init__(self) -> None:
        if self.misfire not in MISFIRES:
            raise ValueError(f"misfire is one of {', '.join(MISFIRES)}, not {self.misfire!r}")
        if self.max_age is not None and self.max_age <= 0:
            raise ValueError(f"max_age must be above 0, got {self.max_age!r}")
        next_fire(self, 0.0)


def next_fire(schedule: Schedule, after: float) -> float:
    """The first time after `after` (seconds since the epoch) at which the schedule fires.

    Raises:
        ValueError: the expression or the zone can't be understood, or it never fires.

    Example:
        >>> monday = datetime(2026, 3, 30, tzinfo=UTC).timestamp()  # a day after clocks changed
        >>> at = next_fire(Schedule("0 9 * * MON-FRI", "Europe/Berlin"), monday)
        >>> datetime.fromtimestamp(at, UTC).isoformat()
        '2026-03-30T07:00:00+00:00'
    """
    return _first(schedule, after, reverse=False)


def last_fire(schedule: Schedule, at: float) -> float:
    """The last time at or before `at` at which the schedule fired. Raises as `next_fire`."""
    # Searching backwards may miss times where clocks change, or find some that are none; so what it
    # finds is only where to begin. Searching forwards is what says when the schedule fires.
    found = float(math.floor(at)) + 1.0
    while True:
        found = _first(schedule, found, reverse=True)
        first = next_fire(schedule, found - 1.0)
        if first <= at:
            break
    while (following := next_fire(schedule, first)) <= at:
        first = following
    return first


def _first(schedule: Schedule, start: float, *, reverse: bool) -> float:
    """The first time after `start`, or the last one before it, that is found."""
    cronsim = _cronsim()
    try:
        zone = ZoneInfo(schedule.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            f"timezone {schedule.timezone!r} is not known here (an IANA name such as "
            f"'Europe/Berlin'; the package tzdata has them all): {error}"
        ) from None
    try:
        times = cast(
            "Iterator[datetime]",
            cronsim.CronSim(schedule.cron, datetime.fromtimestamp(start, zone), reverse=reverse),
        )
        while True:
            found = next(times).astimezone(UTC).timestamp()
            # Where clocks are put back, the first may be of the hour that has passed once already.
            if reverse or found > start:
                return found
    except cronsim.CronSimError as error:
        raise ValueError(f"schedule {schedule.cron!r} is no cron expression: {error}") from None
    except StopIteration:
        raise ValueError(f"schedule {schedule.cron!r} never fires") from None


def _cronsim() -> Any:
    try:
        return importlib.import_module("cronsim")
    except ImportError:
        raise RuntimeError(
            "schedules need the package cronsim: pip install 'stepwell[schedule]'"
        ) from None
