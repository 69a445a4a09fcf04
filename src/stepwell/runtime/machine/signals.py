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

from stepwell.authoring.machine.context import (
    merged,
    not_declared,
    plain,
    undeclared,
    unexpected,
)
from stepwell.authoring.machine.define import find_machine
from stepwell.authoring.machine.returns import check_name
from stepwell.authoring.words import EVENT, START
from stepwell.errors import InvalidArgument, RunNotFound, WorkflowNotRegistered
from stepwell.kernel.run import Run
from stepwell.runtime.arguments import words
from stepwell.runtime.engine import Engine
from stepwell.runtime.machine.runs import folded
from stepwell.runtime.views import RunInfo
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


async def live(core: Engine, **where: Any) -> list[RunInfo]:
    """All live runs that `Engine.list(**where)` gives."""
    found: list[RunInfo] = []
    cursor = None
    while True:
        infos, cursor = await core.list(status=_LIVE, limit=1000, after=cursor, **where)
        found += infos
        if cursor is None:
            return found


async def live_ids(core: Engine, **where: Any) -> list[str]:
    """The ids of all live runs that `Engine.list(**where)` gives."""
    return [info.id for info in await live(core, **where)]


async def check_payload(
    core: Engine,
    ids: list[str],
    name: str,
    payload: Mapping[str, Any],
    *,
    strict: bool = False,
) -> None:
    """Raise ValueError when the payload does not fit the Context of one of these runs. Those of
    which no class of a state machine is loaded are left out.

    Args:
        core, ids: where the runs are, and which.
        name: the signal.
        payload: its fields.
        strict: refuse a field, too, that would be dropped by every one of these runs, unless the
            Context says `extra="ignore"`. For those who speak from outside, and see no log. Events
            are for whom they concern: of their fields each takes what it declares.
    """
    if not payload:
        return
    kinds: dict[type[BaseModel], str] = {}
    dropped: list[tuple[str, list[str]]] = []
    strict = strict and not name.startswith(EVENT)
    for start in range(0, len(ids), 200):
        for loaded in await core.store.load_many(ids[start : start + 200]):
            row = loaded.row
            try:
                kind = find_machine(row.workflow, row.version or None).context
            except WorkflowNotRegistered:
                strict = False  # its workers check it when they take it in
                continue
            kinds[kind] = row.workflow
            if strange := undeclared(kind, payload):
                dropped.append((row.id, strange))
            run, state = await folded(core, loaded)
            context = state.get("context") or _given(run)
            merged(kind, context, payload, f"signal {name!r} does not fit run {row.id}")
    if strict and kinds:
        _check_known(name, kinds, payload)
    for id, strange in dropped:
        logger.warning(
            "signal %r to run %s: its Context declares no %s; dropped", name, id, ", ".join(strange)
        )


def _check_known(
    name: str, kinds: Mapping[type[BaseModel], str], payload: Mapping[str, Any]
) -> None:
    """Raises `InvalidArgument` for the fields of a signal that none of these Contexts takes."""
    strange = set(payload).intersection(*(unexpected(kind, payload) for kind in kinds))
    if strange:
        kind, workflow = next(iter(kinds.items()))
        said = not_declared(sorted(strange), kind, f"the Context of {workflow}")
        raise InvalidArgument(f"signal {name!r} does not fit: {'; '.join(said)}")


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
