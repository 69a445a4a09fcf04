"""Starting a run of a state machine, and what the caller gets of it: the run as it was created.

It is made of what was handed in, not read back: when the caller looks, the run may have gone on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel

from stepwell.authoring.machine.body import start_message
from stepwell.authoring.machine.define import find_machine, machine_of
from stepwell.authoring.machine.status import WorkflowStatus
from stepwell.runtime.clock import new_run_id
from stepwell.runtime.engine import Engine
from stepwell.runtime.machine.runs import WorkflowRun
from stepwell.values import utc

if TYPE_CHECKING:
    from stepwell.runtime.machine.engine import WorkflowEngine


async def start(
    engine: WorkflowEngine,
    core: Engine,
    workflow: str | type,
    context: BaseModel | None,
    key: str | None,
    correlation: str | None,
    fields: Mapping[str, Any],
) -> WorkflowRun:
    """See `WorkflowEngine.start`."""
    if isinstance(workflow, str):
        machine = find_machine(workflow)
    else:
        machine = machine_of(workflow)
    if context is None:
        context = machine.new_context(**fields)
    elif fields:
        raise TypeError("start() takes a Context, or the fields of one, not both")
    elif not isinstance(context, machine.context):
        raise TypeError(
            f"start() takes a {machine.cls.__name__}.Context, not {type(context).__name__}"
        )
    message = start_message(machine, context)
    id = new_run_id()
    now = core.now()
    handler = core.begin(
        machine, machine.compiled(), [message], run_id=id, key=key, correlation=correlation
    )
    await handler.started()
    if handler.run_id != id:
        return await engine.runs.aget(id=handler.run_id)
    payload = cast("Mapping[str, Any]", message.payload)
    at = utc(now)
    return WorkflowRun(
        engine,
        {
            "id": id,
            "name": machine.name,
            "version": machine.version,
            "status": WorkflowStatus.RUNNING,
            "current_step": machine.start,
            "data": dict(cast("Mapping[str, Any]", payload.get("context") or {})),
            "error": None,
            "result": None,
            "waiting_signal": None,
            "on_timeout_step": None,
            "wake_at": None,
            "retry_count": 0,
            "progress": 0.0,
            "triggered_by_event_id": None,
            "parent_run_id": None,
            "correlation": correlation,
            "key": key,
            "created_at": at,
            "updated_at": at,
            "completed_at": None,
        },
    )
