"""Schedules: for each workflow that has one, exactly one planned run that has not begun.

The planned run is the schedule: what is to come, whether it is paused, and by which code it was
planned stand in its state. A run that begins plans its successor; here is what sees to it that
there is a first one, that there is one again after somebody cancelled it, and that it follows the
code when that has another schedule now. All of it may be done by several workers at once: what
makes one run out of several plans is the key, which holds the time.

    planned      live, has not begun, is not a run that was made up for by hand (`backfill`)
    free         a time has no run, or one that ended without having begun (skipped, or moved)

A time whose run was cancelled is not free: that is how one fire is called off. The module refuses
to know how workflows are written; a program says when it fires and what plans a run of it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from stepwell.authoring.program import Program, Schedules, bare_program
from stepwell.errors import InvalidArgument, StoreError, WorkflowNotRegistered
from stepwell.kernel.outcomes import Message
from stepwell.runtime import codec
from stepwell.runtime.clock import new_run_id
from stepwell.runtime.loading import fold
from stepwell.stores.base import Loaded, NewMessage, NewRun, RunFilter, RunRow
from stepwell.values import Json, RunStatus, utc

if TYPE_CHECKING:
    from stepwell.runtime.worker import Worker

logger = logging.getLogger("stepwell")

MOVED = "(moved)"
"""The tag of the word that something about a planned run has changed."""

_LIVE = (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING)
_NEWEST = 20
"""How many of a schedule's newest runs are looked at when it is not clear what is planned."""
_TAKEN_IN = 0.05
"""Seconds between two looks at a planned run that a worker has in its hands."""


@dataclass(frozen=True, slots=True)
class ScheduleInfo:
    """A schedule as the engine shows it. Times are seconds since the epoch, UTC.

    Attributes:
        workflow: its name.
        cron, timezone: when it fires.
        next: when it fires next; None when it is paused, or nothing is planned.
        paused: whether it is.
        run: the planned run.
        last_run, last_status, last_at: the run that began last, how it is, and the time it was for.
    """

    workflow: str
    cron: str
    timezone: str
    next: float | None
    paused: bool
    run: str | None = None
    last_run: str | None = None
    last_status: RunStatus | None = None
    last_at: float | None = None

    def to_json(self) -> dict[str, Json]:
        """The schedule as JSON values; times as ISO 8601 in UTC."""
        return {
            "workflow": self.workflow,
            "cron": self.cron,
            "timezone": self.timezone,
            "next": None if self.next is None else utc(self.next).isoformat(),
            "paused": self.paused,
            "run": self.run,
            "last_run": self.last_run,
            "last_status": None if self.last_status is None else self.last_status.value,
            "last_at": None if self.last_at is None else utc(self.last_at).isoformat(),
        }


def key_of(at: float) -> str:
    """The key of a schedule's run at this time."""
    return f"schedule:{utc(at).isoformat()}"


def correlation_of(workflow: str) -> str:
    """The word by which the planned and past runs of a schedule are found."""
    return f"schedule:{workflow}"


@dataclass(frozen=True, slots=True)
class Planned:
    """A run of a schedule, and what its plan is, with what has come for it taken in."""

    row: RunRow
    plan: Mapping[str, Any]
    started: bool = False  # its first step has what it begins with

    @property
    def at(self) -> float:
        """The time that it is for."""
        return float(self.plan.get("at", 0.0))

    @property
    def decided(self) -> bool:
        """Whether it has begun, or will not."""
        return "fires" in self.plan

    @property
    def is_next(self) -> bool:
        """Whether it is the schedule's next one."""
        return (
            self.row.status in _LIVE
            and bool(self.plan)
            and not self.decided
            and not self.plan.get("backfill")
        )

    @property
    def is_planning(self) -> bool:
        """Whether it has yet to plan its successor: that will be done, and is no one else's."""
        return (
            self.row.status in _LIVE
            and self.decided
            and not self.started
            and not self.plan.get("backfill")
        )

    @property
    def is_leaving(self) -> bool:
        """Whether it is about to end without having begun."""
        return self.row.status in _LIVE and self.plan.get("fires") is False

    @property
    def is_free(self) -> bool:
        """Whether it ended without having begun, and may make room for another of its time."""
        return self.row.status is RunStatus.COMPLETED and self.plan.get("fires") is False

    @property
    def paused(self) -> bool:
        """Whether it waits for somebody to resume the schedule."""
        return bool(self.plan.get("paused"))


async def plan_of(worker: Worker, loaded: Loaded) -> Planned:
    """What a run's plan is, with what has come for it taken in. Needs no code."""
    program = bare_program(loaded.row.workflow)
    run, state = await fold(worker.store, loaded, program)
    plan: dict[str, Any] = {}
    if state is not None:
        plan.update(cast("Mapping[str, Any]", state.peek("plan") or {}))
    first = not plan
    work = [m for w in run.work.values() for m in _messages(w.message)]
    came = [m for m in work if first or m.tag == MOVED]
    for message in loaded.messages:
        if message.kind == "start":
            came.append(codec.decode_message(message.data, program.types))
        elif message.kind == "event":
            came.append(codec.read_message(json.loads(message.data)["m"], program.types))
    if "fires" not in plan:
        for message in came:
            payload: Any = message.payload
            if (message.tag == MOVED or first) and isinstance(payload, Mapping):
                first = False
                given = cast("Mapping[str, Any]", payload).get("plan")
                # A time that it is to move to is not its own.
                given = dict(cast("Mapping[str, Any]", given or {}))
                if "at" in plan:
                    given.pop("at", None)
                plan.update(given)
    started = state is not None and state.peek("context") is not None
    return Planned(loaded.row, plan, started)


def _messages(given: Message | tuple[Message, ...] | None) -> tuple[Message, ...]:
    if given is None:
        return ()
    return given if isinstance(given, tuple) else (given,)


async def _load(worker: Worker, rows: Sequence[RunRow]) -> list[Planned]:
    ids = list(dict.fromkeys(row.id for row in rows))
    return [await plan_of(worker, loaded) for loaded in await worker.store.load_many(ids)]


async def planned_runs(worker: Worker, workflow: str) -> list[Planned]:
    """The planned runs of a schedule, the earliest first; if all is well there is one."""
    return [p for p in await _ahead(worker, workflow) if p.is_next]


async def _ahead(worker: Worker, workflow: str) -> list[Planned]:
    """The planned runs, and those that are about to plan one; the earliest first."""
    store, mark = worker.store, correlation_of(workflow)
    waiting = await store.list(
        RunFilter(workflow, _LIVE, correlation=mark, waiting=MOVED, limit=_NEWEST)
    )
    newest = await store.list(RunFilter(workflow, _LIVE, correlation=mark, limit=_NEWEST))
    found = await _load(worker, [*waiting.rows, *newest.rows])
    return sorted((p for p in found if p.is_next or p.is_planning), key=lambda p: p.at)


# --- planning ------------------------------------------------------------------------------------


async def ensure_schedules(worker: Worker) -> None:
    """See to it that each known schedule has one planned run, at a time at which it fires."""
    if not worker.claims:
        return
    for program, owner in tuple(worker.programs.values()):
        if program.schedule is None:
            continue
        try:
            await _ensure(worker, program, owner, program.schedule)
        except StoreError:
            raise
        except Exception as bug:
            name = program.definition.name
            logger.critical("the schedule of %s can't be seen to", name, exc_info=bug)


async def _ensure(worker: Worker, program: Program, owner: object, schedule: Schedules) -> None:
    name = program.definition.name
    mark = correlation_of(name)
    page = await worker.store.list(RunFilter(name, _LIVE, correlation=mark, waiting=MOVED, limit=2))
    if [row.id for row in page.rows] == [worker.planned.get(name)]:
        return
    plans = await _ahead(worker, name)
    now = worker.clock.now()
    if not plans:
        after = max(now, await _passed(worker, name))
        await plan_run(worker, program, owner, schedule.next(after), {"after": after})
        return
    # Several are one as soon as the first of them begins: what it plans is there already.
    moved = [
        plan
        for plan in plans
        if plan.is_next and not plan.paused and await _follow(worker, plan, schedule, now)
    ]
    if not moved and len(plans) == 1 and plans[0].row.status is RunStatus.WAITING:
        worker.planned[name] = plans[0].row.id


async def _follow(worker: Worker, mine: Planned, schedule: Schedules, now: float) -> bool:
    """Move a planned run to where the code has it now; whether that was needed.

    Of two workers with other code, the one that was started last knows: its code is the newer.
    """
    described = schedule.describe()
    by = cast("Mapping[str, Any]", mine.plan.get("by") or {})
    if all(by.get(key) == value for key, value in described.items()):
        return False
    if float(by.get("started", -math.inf)) >= worker.started or mine.at <= now:
        return False
    after = max(now, float(mine.plan.get("after") or 0.0))
    at = schedule.next(after)
    note: dict[str, Json] = {"by": {**described, "started": worker.started}}
    if at != mine.at:
        note["at"] = at
    await _tell(worker, mine, note, f"moved:{worker.id}:{at}")
    return True


async def _passed(worker: Worker, workflow: str) -> float:
    """The latest time that is known to have had its turn."""
    page = await worker.store.list(
        RunFilter(workflow, correlation=correlation_of(workflow), limit=_NEWEST)
    )
    latest = 0.0
    for each in await _load(worker, page.rows):
        latest = max(latest, float(each.plan.get("after") or 0.0))
        if each.plan.get("fires"):
            latest = max(latest, each.at)
    return latest


async def plan_run(
    worker: Worker,
    program: Program,
    owner: object,
    at: float,
    plan: Mapping[str, Json],
    by_run: str | None = None,
) -> str:
    """Plan a run for `at`, or for the first time after it that is free, unless one is planned
    there; its id. `by_run` is the run that plans it; what has its time is left for later."""
    schedule = program.schedule
    if schedule is None:
        raise WorkflowNotRegistered(program.definition.name)
    worker.know(program, owner)
    by: Json = {**schedule.describe(), "started": worker.started}
    while True:
        message = schedule.planned(at, {**plan, "by": by})
        mark = correlation_of(program.definition.name)
        id, there = await _create(worker, program, at, message, mark, 0.0)
        if there is None or there.is_next or id == by_run:
            worker.wake()
            return id
        if there.is_leaving:
            await asyncio.sleep(_TAKEN_IN)  # then the time is free
            continue
        at = schedule.next(at)


async def _create(
    worker: Worker, program: Program, at: float, message: Message, mark: str, due: float
) -> tuple[str, Planned | None]:
    """Create a run for a time that is free: its id, and None. Or the run that has the time."""
    definition, store = program.definition, worker.store
    key = key_of(at)
    while True:
        id = new_run_id()
        new = NewRun(
            id,
            definition.name,
            worker.clock.now(),
            definition.version,
            due=due,
            start=codec.encode_message(message, program.types),
            key=key,
            correlation=mark,
        )
        found = await store.create(new)
        if found == id:
            return id, None
        loaded = await store.load(found)
        if loaded is None:
            continue  # it was deleted meanwhile
        there = await plan_of(worker, loaded)
        if not there.is_free:
            return found, there
        await store.delete([found])


async def _tell(
    worker: Worker, run: Planned, plan: Mapping[str, Json], dedupe: str | None = None
) -> bool:
    """Send a planned run word of what has changed."""
    program = bare_program(run.row.workflow)
    message = Message(MOVED, {"plan": dict(plan)})
    message.data = program.types.dumps(message.payload, where=MOVED)
    data = codec.encode_arrival(message, None, program.types)
    sent = NewMessage(run.row.id, "event", data, worker.clock.now(), dedupe)
    (accepted,) = await worker.inbox.send([sent])
    return accepted


# --- what people ask for -------------------------------------------------------------------------


async def set_paused(worker: Worker, workflow: str, paused: bool) -> None:
    """Pause a schedule, or resume it; kept when this returns. Raises `InvalidArgument`."""
    end = worker.clock.now() + worker.lease
    sent: str | None = None
    while True:
        plans = await planned_runs(worker, workflow)
        if not plans:
            if worker.clock.now() >= end or not await _may_appear(worker, workflow):
                raise InvalidArgument(
                    f"nothing is planned for a schedule of workflow {workflow!r}",
                    hint="A worker that knows the workflow plans it: is one running?",
                )
        else:
            mine = next((p for p in plans if p.paused != paused), plans[0])
            if mine.paused == paused:
                # A worker that holds it may have decided already, and not have written it down.
                if sent is None or mine.row.owner is None or worker.clock.now() >= end:
                    return
            else:
                plan: dict[str, Json] = {"paused": paused}
                if not paused:
                    plan["since"] = worker.clock.now()
                await _tell(worker, mine, plan)
                sent = mine.row.id
                continue
        await asyncio.sleep(_TAKEN_IN)


async def _may_appear(worker: Worker, workflow: str) -> bool:
    """Whether a planned run is about to be there: the one before is at it."""
    known = worker.programs.get(workflow)
    if worker.claims and known is not None and known[0].schedule is not None:
        await ensure_schedules(worker)
        return True
    mark = correlation_of(workflow)
    page = await worker.store.list(RunFilter(workflow, _LIVE, correlation=mark, limit=1))
    return bool(page.rows)


async def backfill(worker: Worker, program: Program, since: float, until: float, limit: int) -> int:
    """Start a run for each time from `since` to `until` that is past and free, oldest first."""
    schedule = program.schedule
    name = program.definition.name
    if schedule is None:
        raise InvalidArgument(f"workflow {name!r} has no schedule")
    if limit < 1:
        raise InvalidArgument(f"limit must be 1 or more, got {limit!r}")
    until = min(until, worker.clock.now())
    by: Json = {**schedule.describe(), "started": worker.started}
    count = 0
    at = schedule.next(math.ceil(since) - 1.0)
    while at <= until and count < limit:
        message = schedule.planned(at, {"backfill": True, "by": by})
        _, there = await _create(worker, program, at, message, f"backfill:{name}", at)
        count += there is None
        at = schedule.next(at)
    if count:
        worker.wake()
    return count


async def schedules(worker: Worker) -> list[ScheduleInfo]:
    """All schedules that are known here, or of which the store has runs, by workflow."""
    known = {n: p.schedule for n, (p, _) in worker.programs.items() if p.schedule is not None}
    names = sorted({name for name, _ in await worker.store.counts()} | known.keys())
    found = [await _info(worker, name, known.get(name)) for name in names]
    return [info for info in found if info is not None]


async def _info(worker: Worker, name: str, schedule: Schedules | None) -> ScheduleInfo | None:
    page = await worker.store.list(RunFilter(name, correlation=correlation_of(name), limit=_NEWEST))
    if not page.rows and schedule is None:
        return None
    plans = await planned_runs(worker, name)
    mine = plans[0] if plans else None
    runs = sorted(await _load(worker, page.rows), key=lambda p: p.at, reverse=True)
    last = next((p for p in runs if p.plan.get("fires")), None)
    shown: Mapping[str, Any] = {}
    if mine is not None or runs:
        shown = cast("Mapping[str, Any]", (mine or runs[0]).plan.get("by") or {})
    if schedule is not None and mine is None:
        shown = schedule.describe()
    return ScheduleInfo(
        name,
        str(shown.get("cron", "")),
        str(shown.get("timezone", "")),
        None if mine is None or mine.paused else mine.at,
        mine is not None and mine.paused,
        None if mine is None else mine.row.id,
        None if last is None else last.row.id,
        None if last is None else last.row.status,
        None if last is None else last.at,
    )
