"""Signals to runs of state machines: to one, to those of a correlation, or to all that wait.

What is sent is checked first against the Context of every run that would receive it, as that is
now: what does not fit one of them is sent to none. Runs whose class is not loaded here are checked
by the worker that takes the signal in.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel

from stepwell.authoring.machine.context import merged, plain, undeclared
from stepwell.authoring.machine.define import find_machine
from stepwell.authoring.machine.returns import check_name
from stepwell.authoring.words import START
from stepwell.errors import RunNotFound, WorkflowNotRegistered
from stepwell.kernel.run import Run
from stepwell.runtime.arguments import words
from stepwell.runtime.engine import Engine
from stepwell.runtime.machine.runs import folded
from stepwell.values import RunStatus

logger = logging.getLogger("stepwell")

_LIVE = tuple(status for status in RunStatus if not status.terminal)


async def send_signal(
    core: Engine,
    name: str,
    payload: Mapping[str, Any] | None,
    run_id: str | None,
    correlation: str | None,
) -> int:
    """Send a signal; how many runs received it. Raises what `WorkflowEngine.signal` raises."""
    check_name(name, "signal", "signal()")
    if run_id is not None and correlation is not None:
        raise ValueError("signal() takes run_id or correlation, not both")
    words(run_id=run_id, correlation=correlation)
    given = fields_of(payload, f"the payload of {name!r}")
    if run_id is None and correlation is None:
        await check_payload(core, await live_ids(core, waiting=name), name, given)
        return await core.broadcast(name, given)
    if run_id is not None:
        if await core.store.get(run_id) is None:
            raise RunNotFound(run_id)
        ids = [run_id]
    else:
        ids = await live_ids(core, correlation=correlation)
    await check_payload(core, ids, name, given)
    return sum([await core.signal(id, name, given) for id in ids])


async def live_ids(core: Engine, **where: Any) -> list[str]:
    """The ids of all live runs that `Engine.list(**where)` gives."""
    found: list[str] = []
    cursor = None
    while True:
        infos, cursor = await core.list(status=_LIVE, limit=1000, after=cursor, **where)
        found += [info.id for info in infos]
        if cursor is None:
            return found


async def check_payload(
    core: Engine, ids: list[str], name: str, payload: Mapping[str, Any]
) -> None:
    """Raise ValueError when the payload does not fit the Context of one of these runs. Those of
    which no class of a state machine is loaded are left out."""
    if not payload:
        return
    for start in range(0, len(ids), 200):
        for loaded in await core.store.load_many(ids[start : start + 200]):
            row = loaded.row
            try:
                kind = find_machine(row.workflow, row.version or None).context
            except WorkflowNotRegistered:
                continue  # its workers check it when they take it in
            dropped = undeclared(kind, payload)
            if dropped:
                logger.warning(
                    "signal %r to run %s: its Context declares no %s; dropped",
                    name,
                    row.id,
                    ", ".join(dropped),
                )
            run, state = await folded(core, loaded)
            context = state.get("context") or _given(run)
            merged(kind, context, payload, f"signal {name!r} does not fit run {row.id}")


def _given(run: Run) -> Mapping[str, Any]:
    """The Context that a run was started with, which its first step has yet to commit."""
    work = next(iter(run.work.values()), None)
    first = None if work is None or isinstance(work.message, tuple) else work.message
    if first is None or first.tag != START:
        return {}
    return cast("Mapping[str, Any]", first.payload).get("context") or {}


def fields_of(payload: object, what: str) -> dict[str, Any]:
    """A payload as JSON values. Raises TypeError for what has no fields."""
    if payload is None:
        return {}
    if isinstance(payload, BaseModel):
        payload = payload.model_dump()
    if not isinstance(payload, Mapping):
        raise TypeError(f"{what} is a mapping of fields to values, not {payload!r:.80}")
    return cast("dict[str, Any]", plain(cast("Mapping[str, Any]", payload), what))
