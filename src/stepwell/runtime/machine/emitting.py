"""Events: each starts, plans or moves the runs of event workflows, and wakes the runs that wait.

What is to happen later is a run that waits for its time: that of the event workflow itself, or an
`Occurrence`, which then tells whoever waits. So an event that has moved moves these, by their keys,
and whatever has begun goes on as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, cast

from pydantic import BaseModel

from stepwell.authoring.machine.body import start_message
from stepwell.authoring.machine.context import plain
from stepwell.authoring.machine.decorators import step, workflow
from stepwell.authoring.machine.define import Machine, machine_of, machines
from stepwell.authoring.machine.events import WorkflowEvent
from stepwell.authoring.machine.returns import check_name, complete
from stepwell.authoring.words import EVENT, MOVED
from stepwell.kernel.outcomes import Message
from stepwell.runtime.arguments import words
from stepwell.runtime.attempt import current
from stepwell.runtime.clock import new_run_id
from stepwell.runtime.engine import Engine
from stepwell.runtime.machine.signals import fields_of
from stepwell.stores.base import RunRow
from stepwell.values import RunStatus, utc


async def emit(
    core: Engine,
    name: str,
    entity: Any,
    at: datetime | None,
    payload: Mapping[str, Any] | None,
    event_id: str | None,
) -> WorkflowEvent:
    """See `WorkflowEngine.emit`."""
    check_name(name, "event", "emit()")
    aware(at, "emit(at=...)")
    words(event_id=event_id)
    now = core.now()
    when = utc(now) if at is None else at.astimezone(UTC)
    given = fields_of(payload, f"the payload of event {name!r}")
    event = WorkflowEvent(event_id or new_run_id(), name, when, entity, given)
    # All Contexts first: one that can't be made leaves nothing half-done.
    plans = [_plan(m, event) for m in machines() if m.trigger and m.trigger.event == name]
    for machine, context in plans:
        await _follow(core, machine, event, context, now)
    fields = cast("dict[str, Any]", plain(event.fields(), f"event {name!r}"))
    if _moment(event, 0.0, now) <= now and event_id is None:
        await core.broadcast(EVENT + name, fields)
    else:
        await _occur(core, event, fields, now)
    return event


def _plan(machine: Machine, event: WorkflowEvent) -> tuple[Machine, BaseModel | None]:
    """The Context of the run that the event starts; None when it is to start none."""
    wanted = getattr(machine.cls, "should_run_for_event", None)
    if callable(wanted) and not _on_class(machine.cls, wanted, event):
        return machine, None
    return machine, machine.new_context(event)


async def _follow(
    core: Engine,
    machine: Machine,
    event: WorkflowEvent,
    context: BaseModel | None,
    now: float,
) -> None:
    """Start, plan or move the run of one event workflow."""
    trigger = machine.trigger
    assert trigger is not None  # noqa: S101 - chosen for it
    key = f"event:{event.id}:{trigger.offset:g}"
    begins = _moment(event, trigger.offset, now)
    there = await core.store.find(machine.name, key)
    if context is None:
        if there is not None and await _is_planned(core, there):
            await core.cancel(there, f"event {event.name} does not want it any more")
        return
    plan = None if begins <= now and there is None else {"at": begins}
    message = start_message(machine, context, event=event.to_json(), plan=plan)
    await _plan_or_move(core, machine, message, key, there)


async def _plan_or_move(
    core: Engine, machine: Machine, message: Message, key: str, there: str | None
) -> None:
    """Start the run that has this key, or tell the one that is there and has not begun yet."""
    if there is None:
        await core.begin(machine, machine.compiled(), [message], key=key).started()
    elif await _is_planned(core, there):
        await core.signal(there, MOVED, cast("Mapping[str, Any]", message.payload))


async def _is_planned(core: Engine, run_id: str) -> bool:
    """Whether the run waits for its time to begin."""
    row = cast(RunRow, await core.store.get(run_id))
    if row.status.terminal:
        return False
    return row.status is RunStatus.QUEUED or any(
        wait.event == MOVED for wait in await core.waits(run_id)
    )


async def _occur(
    core: Engine,
    event: WorkflowEvent,
    fields: Mapping[str, Any],
    now: float,
) -> None:
    """Wake the runs that wait for the event once it happens."""
    machine = machine_of(Occurrence)
    key = f"occurrence:{event.name}:{event.id}"
    context = Occurrence.Context(tag=EVENT + event.name, fields=dict(fields))
    plan = {"at": _moment(event, 0.0, now)}
    message = start_message(machine, context, event=event.to_json(), plan=plan)
    there = await core.store.find(machine.name, key)
    await _plan_or_move(core, machine, message, key, there)


def aware(moment: object, what: str) -> None:
    """Check a time that a caller hands in: None, or a datetime that says its timezone."""
    if moment is not None and not isinstance(moment, datetime):
        raise TypeError(f"{what} takes an aware datetime, not {moment!r:.80}")
    if moment is not None and moment.tzinfo is None:
        raise ValueError(f"{what} takes an aware datetime, with a timezone; got {moment}")


def _moment(event: WorkflowEvent, offset: float, now: float) -> float:
    """The time of an event, and so much more. A datetime is a number of microseconds, and what is
    nearer than one of them to now is now."""
    at = event.at.timestamp() + offset
    return now if abs(at - now) < 2e-6 else at


def _on_class(cls: type, method: Callable[..., object], event: WorkflowEvent) -> bool:
    """Call `should_run_for_event`, which may be a class method, a static one or neither."""
    raw = cls.__dict__.get("should_run_for_event", method)
    if isinstance(raw, classmethod | staticmethod):
        return bool(method(event))
    return bool(method(cls(), event))


@workflow("stepwell.event")
class Occurrence:
    """An event that is yet to happen: waits for its time, and then wakes who waits for it."""

    class Context(BaseModel):
        """What is going to be told."""

        tag: str
        fields: dict[str, Any] = {}

    context: Context

    @step(start=True)
    async def tell(self) -> object:
        """Tell every run that waits."""
        told = await current.get().broadcast(self.context.tag, self.context.fields)
        return complete(told=told)
