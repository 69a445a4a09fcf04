"""Copies of journal prefixes: where to cut, and how to change what the copy goes on with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from stepwell.authoring.program import TypeRegistry
from stepwell.errors import WorkflowRuntimeError
from stepwell.kernel.journal import Entry, RunStarted, WorkAdded
from stepwell.kernel.outcomes import Message
from stepwell.values import Json

Batches = list[tuple[float, list[Entry]]]


def cut(
    rows: Sequence[tuple[float, list[Entry]]],
    run_id: str,
    *,
    seq: int | None = None,
    step: str | None = None,
) -> Batches:
    """The journal up to a point: `seq` rows of it, or up to where `step` last began, or, with
    neither, up to where the run began. Raises `WorkflowRuntimeError` when there is no such point.
    """
    if rows and not any(isinstance(e, RunStarted) for _, entries in rows for e in entries):
        raise WorkflowRuntimeError(
            f"run {run_id} goes on from a saved context (or has not begun), so its journal is not "
            "all of it and can't be cut"
        )
    if seq is not None:
        if not 0 < seq <= len(rows):
            raise WorkflowRuntimeError(
                f"run {run_id} has {len(rows)} journal rows; it can't be cut behind row {seq}"
            )
        return [(at, list(entries)) for at, entries in rows[:seq]]
    found: tuple[int, int] | None = None
    for number, (_, entries) in enumerate(rows):
        for place, entry in enumerate(entries):
            if isinstance(entry, WorkAdded) and (step is None or entry.step == step):
                found = (number, place)
                if step is None:
                    break
        if found is not None and step is None:
            break
    if found is None:
        wanted = "a step" if step is None else f"step {step!r}"
        steps = sorted({e.step for _, es in rows for e in es if isinstance(e, WorkAdded)})
        raise WorkflowRuntimeError(
            f"run {run_id} never came to {wanted}; it was at {', '.join(steps) or 'none'}"
        )
    number, place = found
    at, entries = rows[number]
    return [(t, list(es)) for t, es in rows[:number]] + [(at, list(entries[: place + 1]))]


def replaced(batches: Batches, types: TypeRegistry, input: Mapping[str, Json]) -> None:
    """Replace fields of the message that the copy goes on with, in place.

    Raises `WorkflowRuntimeError` when the copy goes on with several messages at once, and
    ValueError when the fields do not fit the message's type.
    """
    for _, entries in reversed(batches):
        for place in range(len(entries) - 1, -1, -1):
            entry = entries[place]
            if not isinstance(entry, WorkAdded):
                continue
            message = entry.message
            if not isinstance(message, Message):
                raise WorkflowRuntimeError(
                    f"step {entry.step!r} goes on with several events; its input can't be edited"
                )
            data = json.loads(message.data or types.dumps(message.payload))
            payload = types.load(message.tag, {**data, **input})
            entry.message = Message(message.tag, payload, message.to, message.kinds)
            return
    raise WorkflowRuntimeError("the copy has no step whose input could be edited")
