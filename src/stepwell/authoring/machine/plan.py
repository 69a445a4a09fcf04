"""Runs that begin later: before or after an event, or at the times of a schedule.

Such a run is there from the moment it is planned, and waits: for its time, or for word that its
time has moved. So what is planned can be listed, cancelled and explained like everything else, and
nothing but the run itself has to be kept anywhere.

A schedule is a chain of such runs. Each is planned for one time, which its key holds; it begins for
that time or not at all, and before either it plans its successor. Which time comes next is
committed first, so however often that is done, and by however many workers, there is one successor.

The module refuses to know what other runs there are: what is done about a time that has a run
already is `runtime/schedules.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from stepwell.authoring.machine.body import HiddenStep, MachineAttempt, start_message
from stepwell.authoring.machine.context import dump
from stepwell.authoring.machine.cron import last_fire, next_fire
from stepwell.authoring.machine.define import Machine, Schedule
from stepwell.authoring.words import FIRE, GO, MOVED, PLAN, RESULT, START
from stepwell.kernel.outcomes import Complete, Goto, Message, Outcome, WaitFor
from stepwell.values import Json, utc

GRACE = 60.0
"""Seconds that a fire may be late and still not count as missed."""


class Planner:
    """The schedule of a state machine, as the runtime asks it."""

    __slots__ = ("machine", "schedule")

    moved = MOVED

    def __init__(self, machine: Machine, schedule: Schedule) -> None:
        self.machine = machine
        self.schedule = schedule

    def describe(self) -> dict[str, Json]:
        """What is kept with each planned run, to be shown and compared."""
        return {"cron": self.schedule.cron, "timezone": self.schedule.timezone}

    def next(self, after: float) -> float:
        """The first time after `after` at which it fires."""
        return next_fire(self.schedule, after)

    def planned(self, at: float, plan: Mapping[str, Json]) -> Message:
        """The message that plans a run for `at`; `plan` is kept with it."""
        return start_message(self.machine, None, plan={**plan, "at": at, "fire": True})


class PlanStep(HiddenStep):
    """Wait for the time at which the run is to begin."""

    __slots__ = ()

    async def body(self, message: Message, attempt: MachineAttempt) -> Outcome:
        """Take in what has changed; then wait on, or go and begin."""
        plan = dict(cast("Mapping[str, Any]", attempt.peek("plan") or {}))
        own = plan.get("at")
        if message.tag in (START, MOVED):
            given = cast("Mapping[str, Any]", message.payload)
            changes = {key: given[key] for key in ("context", "event") if key in given}
            plan.update(cast("Mapping[str, Any]", given.get("plan") or {}))
            attempt.put({**changes, "plan": plan})
        now = attempt.now()
        schedule = self.machine.schedule if plan.get("fire") else None
        if schedule is not None:
            return self._fire(plan, plan["at"] if own is None else own, schedule, now, attempt)
        at = float(plan["at"])
        return self._wait(at - now) if now < at else Goto(FIRE, Message(GO, None))

    def _wait(self, seconds: float | None) -> Outcome:
        """Wait for word that the time has moved, or for the time: the run is at its start step."""
        late = None if seconds is None else PLAN
        held = Message(GO, {"from": self.machine.start})
        return WaitFor(MOVED, held, PLAN, None, seconds, late)

    def _fire(
        self,
        plan: dict[str, Any],
        own: float,
        schedule: Schedule,
        now: float,
        attempt: MachineAttempt,
    ) -> Outcome:
        """A run of a schedule begins for its own time or not at all."""
        at = float(plan["at"])
        if at == own and plan.get("paused"):
            return self._wait(None)
        since = plan.pop("since", None)  # when it was resumed; what it missed is not made up for
        if since is not None and at <= since:
            at = next_fire(schedule, float(since))
        if at != own:
            fires, following = False, at
            plan["moved"] = True
        elif now < own:
            attempt.put({"plan": plan})
            return self._wait(own - now)
        elif plan.get("backfill"):
            fires, following = True, None
        else:
            fires, following = due_now(schedule, own, now)
        attempt.put({"plan": {**plan, "at": own, "fires": fires, "next": following}})
        return Goto(FIRE, Message(GO, None))


def due_now(schedule: Schedule, at: float, now: float) -> tuple[bool, float]:
    """What becomes at `now` of a run that was planned for `at`, which is past: whether it begins,
    and the time of its successor (which may be past, too, and then is asked the same)."""
    oldest = -math.inf if schedule.max_age is None else now - schedule.max_age
    if schedule.misfire == "once" and now - at > GRACE:
        last = last_fire(schedule, now)
        if last > at and last >= oldest:
            return False, last  # the last one makes up for all
        return at >= oldest, next_fire(schedule, now)
    if schedule.misfire == "skip":
        oldest = max(oldest, now - GRACE)
    # Times are whole seconds: the first one that is not too old comes after the second before it.
    passed = at if oldest <= at else float(math.ceil(oldest)) - 1.0
    return at >= oldest, next_fire(schedule, passed)


class FireStep(HiddenStep):
    """Plan the next run of the schedule, and begin this one."""

    __slots__ = ()

    async def body(self, message: Message, attempt: MachineAttempt) -> Outcome:
        """The successor first: whatever becomes of this run, the schedule goes on."""
        machine = self.machine
        plan = cast("Mapping[str, Any]", attempt.peek("plan"))
        if not plan.get("fire"):
            return Goto(machine.start, Message(GO, None))
        at = float(plan["at"])
        following = plan.get("next")
        if following is not None:
            # A time that was moved has not had its turn; another time may still move there.
            after = float(plan.get("after") or 0.0) if plan.get("moved") else at
            program = machine.compiled()
            await attempt.plan_run(program, machine, float(following), {"after": after})
        if not plan.get("fires"):
            return Complete(Message(RESULT, {"skipped": utc(at).isoformat()}))
        known = machine.context.model_fields
        given = {"scheduled_at": utc(at)} if "scheduled_at" in known else {}
        context = machine.new_context(**given)
        attempt.put({"context": dump(context, f"{machine.cls.__name__}.Context")})
        return Goto(machine.start, Message(GO, None))
