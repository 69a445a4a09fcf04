"""A schedule: one run for each time, and one to make up for a weekend without workers.

Days pass in milliseconds here, since the clock is a virtual one. With a real one, an `Engine` on a
SQLite file, or `stepwell worker module`, does the same.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel

from stepwell.machine import complete, get_context, step, workflow
from stepwell.testing import VirtualClock

MONDAY = datetime(2026, 3, 23, tzinfo=UTC)


@workflow("daily-report", schedule="0 9 * * MON-FRI", timezone="Europe/Berlin", misfire="once")
class DailyReport:
    class Context(BaseModel):
        scheduled_at: datetime | None = None

    @step(start=True)
    def write(self) -> Any:
        print(f"report of {get_context().scheduled_at:%a %d %b %H:%M} UTC")
        return complete()


async def main(clock: VirtualClock) -> None:
    engine = clock.engine("memory://", [DailyReport])
    await engine.start_up()
    await clock.advance(timedelta(days=3))
    await engine.pause_schedule("daily-report")
    await clock.advance(timedelta(days=3))  # Thursday and Friday are not made up for
    await engine.resume_schedule("daily-report")
    await clock.advance(timedelta(days=2))  # and the clocks have changed: nine is an hour earlier
    (schedule,) = await engine.schedules()
    print(f"last: {schedule.last_status}, next: {datetime.fromtimestamp(schedule.next or 0, UTC)}")


VirtualClock(MONDAY).run(main)
