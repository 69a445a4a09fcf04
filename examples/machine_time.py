"""State machines: sleeping for days, reminders, and runs that begin before or after an event.

python examples/machine_time.py
"""

from datetime import UTC, datetime, timedelta

from pydantic import BaseModel

from stepwell.machine import (
    complete,
    engine,
    event_workflow,
    get_context,
    goto,
    sleep,
    step,
    workflow,
)
from stepwell.testing import SynchronousExecutor

BEGIN = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
executor = SynchronousExecutor(start=BEGIN)


@workflow("reminders")
class Reminders:
    """Reminds three times, a day apart, and then asks somebody else."""

    class Context(BaseModel):
        reminders_sent: int = 0

    @step(start=True)
    def send_reminder(self):
        ctx = get_context()
        ctx.reminders_sent += 1
        if ctx.reminders_sent < 3:
            return sleep(timedelta(hours=24))  # and then this step again
        return goto(self.escalate)

    @step()
    def escalate(self):
        return complete(escalated=True)


@event_workflow("appointment_due", offset_minutes=-60)
class PreAppointmentReminder:
    """Begins an hour before the appointment."""

    @step(start=True)
    def send_reminder(self):
        return complete(at=executor.now())


@event_workflow("meeting_ended", offset_minutes=30)
class PostMeetingFollowup:
    """Begins half an hour after the meeting."""

    @step(start=True)
    def send_followup(self):
        return complete(at=executor.now())


def main() -> dict[str, object]:
    """Let some days pass; what happened in them."""
    engine.set_executor(executor)
    run = engine.start(Reminders)
    sent: list[int] = []
    for _ in range(3):
        sent.append(run.refresh().data["reminders_sent"])
        executor.advance(timedelta(hours=24))
    took = (run.refresh().completed_at or BEGIN) - BEGIN

    began = executor.now()
    engine.emit("appointment_due", at=began + timedelta(hours=5), event_id="visit 1")
    engine.emit("meeting_ended", at=began, event_id="meeting 1")
    planned = engine.runs.get(name="PreAppointmentReminder")
    early = ((planned.wake_at or began) - began, planned.status)
    # The appointment is put off, and the reminder with it.
    engine.emit("appointment_due", at=began + timedelta(hours=8), event_id="visit 1")
    moved = (planned.refresh().wake_at or began) - began
    executor.advance(timedelta(days=1))
    ends: dict[str, object] = {
        "reminders": (run.status, sent, run.result, took),
        "planned": early,
        "moved": moved,
        "began": {
            name: (engine.runs.get(name=name).completed_at or began) - began
            for name in ("PreAppointmentReminder", "PostMeetingFollowup")
        },
    }
    engine.set_executor(None)
    return ends


if __name__ == "__main__":
    for name, end in main().items():
        print(f"{name}: {end}")
