"""Runs that begin later: before or after an event, or at the times of a schedule.

Such a run is there from the moment it is planned, and waits: for its time, or for word that its
time has moved. So what is planned can be listed, cancelled and explained like everything else, and
nothing but the run itself has to be kept anywhere.

A run of a schedule plans its successor before it begins. Which time comes next is committed first,
and the successor's key holds it; so however often that is done, and by however many workers, there
is one successor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from stepwell.authoring.machine.body import (
    FIRE,
    GO,
    MOVED,
    PLAN,
    RESULT,
    START,
    HiddenStep,
    MachineAttempt,
    start_message,
)
from stepwell.authoring.machine.context import dump
from stepwell.authoring.machine.cron import last_fire, next_fire
from stepwell.authoring.machine.define import Machine, Schedule
from stepwell.kernel.outcomes import Complete, Goto, Message, Outcome, WaitFor
from stepwell.values import utc

GRACE = 60.0
"""Seconds that a fire may be late and still not count as missed."""


def key_of(at: float) -> str:
    """The key of a schedule's run at this time."""
    return f"schedule:{utc(at).isoformat()}"


def correlation_of(machine: Machine) -> str:
    """The word by which the planned and past runs of a schedule are found."""
    return f"schedule:{machine.name}"


def planned(machine: Machine, at: float) -> Message:
    """The message that plans a schedule's run for `at`."""
    return start_message(machine, None, plan={"at": at, "fire": True})


class PlanStep(HiddenStep):
    """Wait for the time at which the run is to begin."""

    __slots__ = ()

    async def body(self, message: Message, attempt: MachineAttempt) -> Outcome:
        """Take in what has changed; then wait on, or go and begin."""
        plan = dict(cast("Mapping[str, Any]", attempt.peek("plan") or {}))
        if message.tag in (START, MOVED):
            given = cast("Mapping[str, Any]", message.payload)
            changes = {key: given[key] for key in ("context", "event") if key in given}
            plan.update(cast("Mapping[str, Any]", given.get("plan") or {}))
            attempt.put({**changes, "plan": plan})
        now = attempt.now()
        held = Message(GO, {"from": self.machine.start})
        if plan.get("paused"):
            return WaitFor(MOVED, held, PLAN)
        at = float(plan["at"])
        if now < at:
            return WaitFor(MOVED, held, PLAN, None, at - now, PLAN)
        schedule = self.machine.schedule
        if plan.get("fire") and schedule is not None:
            fires, following = due_now(schedule, at, now)
            attempt.put({"plan": {**plan, "fires": fires, "next": following}})
        return Goto(FIRE, Message(GO, None))


def due_now(schedule: Schedule, at: float, now: float) -> tuple[float | None, float]:
    """What a run that was planned for `at` does at `now`: the time that it fires for (None: none,
    it came too late), and the time of its successor."""
    oldest = at if schedule.max_age is None else max(at, now - schedule.max_age)
    if schedule.misfire == "skip":
        oldest = max(oldest, now - GRACE)
    if schedule.misfire == "all":
        mine = at if at >= oldest else next_fire(schedule, oldest - 1.0)
        if mine <= now:
            return mine, next_fire(schedule, mine)
        return None, next_fire(schedule, now)
    mine = max(at, last_fire(schedule, now))
    return (mine if mine >= oldest else None), next_fire(schedule, now)


class FireStep(HiddenStep):
    """Plan the next run of the schedule, and begin this one."""

    __slots__ = ()

    async def body(self, message: Message, attempt: MachineAttempt) -> Outcome:
        """The successor first: whatever becomes of this run, the schedule goes on."""
        machine = self.machine
        plan = cast("Mapping[str, Any]", attempt.peek("plan"))
        if not plan.get("fire"):
            return Goto(machine.start, Message(GO, None))
        following = plan.get("next")
        if following is not None:
            await attempt.start_run(
                machine.compiled(),
                machine,
                planned(machine, float(following)),
                key_of(float(following)),
                correlation_of(machine),
            )
        fires = plan.get("fires")
        if fires is None:
            return Complete(Message(RESULT, {"skipped": utc(float(plan["at"])).isoformat()}))
        known = machine.context.model_fields
        given = {"scheduled_at": utc(float(fires))} if "scheduled_at" in known else {}
        context = machine.new_context(**given)
        attempt.put({"context": dump(context, f"{machine.cls.__name__}.Context")})
        return Goto(machine.start, Message(GO, None))


__all__ = [
    "GRACE",
    "FireStep",
    "PlanStep",
    "correlation_of",
    "due_now",
    "key_of",
    "planned",
]
