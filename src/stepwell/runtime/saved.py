"""A run as JSON values: snapshots for stores, and the dictionaries of `Context.to_dict`.

A snapshot holds the kernel's state of a run exactly. It is written by the classes below, which are
all it may name: reading one makes nothing but these. A saved context holds less: the user's state
and the work that is owed, so that it can be put into a new run, of newer code too; what was running
is done again from its start.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

from stepwell.authoring.events.serializers import BaseSerializer
from stepwell.authoring.events.state_store import InMemoryStateStore
from stepwell.authoring.program import Program, TypeRegistry
from stepwell.kernel.decide import JOINED
from stepwell.kernel.journal import ScopeEntered
from stepwell.kernel.outcomes import Message
from stepwell.kernel.run import Buffer, JoinState, Phase, Run, StepState, Stream, Wait, Work
from stepwell.runtime.codec import read_message, write_message
from stepwell.values import ErrorInfo, RunStatus

VERSION = 3
"""Of saved contexts. 1 and 2 are formats of the library whose API this one keeps."""

_PARTS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        Run,
        Work,
        StepState,
        Wait,
        Stream,
        JoinState,
        Buffer,
        ScopeEntered,
        ErrorInfo,
    )
}


def snapshot(run: Run, types: TypeRegistry) -> Any:
    """`run` as JSON values, exactly."""
    return _write(run, types)


def restore(data: Any, types: TypeRegistry) -> Run:
    """The run that `snapshot` wrote."""
    return cast(Run, _read(data, types))


def _write(value: object, types: TypeRegistry) -> Any:
    match value:
        case RunStatus():
            return {"s": value.value}
        case Phase():
            return {"p": int(value)}
        case None | bool() | int() | float() | str():
            return value
        case Message():
            return {"m": json.loads(write_message(value, types))}
        case dict():
            rows = cast("dict[object, object]", value)
            return {"d": [[_write(k, types), _write(v, types)] for k, v in rows.items()]}
        case deque():
            return {"q": [_write(v, types) for v in cast("deque[object]", value)]}
        case tuple():
            return {"t": [_write(v, types) for v in cast("tuple[object, ...]", value)]}
        case list():
            return [_write(v, types) for v in cast("list[object]", value)]
        case ErrorInfo():
            return {"c": "ErrorInfo", "v": [value.type, value.message, value.details]}
        case _:
            kind = type(value)
            row = [_write(getattr(value, f.name), types) for f in fields(_PARTS[kind.__name__])]
            return {"c": kind.__name__, "v": row}


def _read(data: Any, types: TypeRegistry) -> object:
    if isinstance(data, list):
        return [_read(v, types) for v in cast("list[Any]", data)]
    if not isinstance(data, dict):
        return data
    (kind, value), *rest = cast("dict[str, Any]", data).items()
    match kind:
        case "s":
            return RunStatus(value)
        case "p":
            return Phase(value)
        case "m":
            return read_message(value, types)
        case "d":
            return {_read(k, types): _read(v, types) for k, v in value}
        case "q":
            return deque(_read(v, types) for v in value)
        case "t":
            return tuple(_read(v, types) for v in value)
        case "c" if value == "ErrorInfo":
            return ErrorInfo(*rest[0][1])
        case "c":
            return _PARTS[value](*(_read(v, types) for v in rest[0][1]))
        case _:
            raise ValueError(f"a snapshot can't hold {kind!r}")


def owed_by(run: Run) -> list[Message]:
    """The work that `run` owes, as messages that start it again in another run."""
    owed: list[Message] = []
    for work in run.work.values():
        if isinstance(work.message, tuple):
            owed.append(Message(JOINED, work.message, work.step))
        else:
            given = work.message
            owed.append(Message(given.tag, given.payload, work.step, data=given.data))
    for messages in (run.inbox or {}).values():
        owed.extend(messages)
    return owed


# --- saved contexts ------------------------------------------------------------------------------


def save(
    program: Program,
    run: Run | None,
    store: InMemoryStateStore[Any] | None,
    is_running: bool,
    staged: list[Message] | None,
    serializer: BaseSerializer | None,
) -> dict[str, Any]:
    """What `Context.to_dict` gives."""
    types = program.types
    owed: list[Any] = []
    for message in staged or (owed_by(run) if is_running and run is not None else ()):
        joined = message.tag == JOINED
        parts = cast("tuple[Message, ...]", message.payload) if joined else (message,)
        rows = [json.loads(write_message(m, types)) for m in parts]
        owed.append({"step": message.to, "input": rows, "join": joined})
    saved: dict[str, Any] = {"version": VERSION, "is_running": is_running, "owed": owed}
    if store is not None:
        saved["state"] = store.to_dict(serializer or program.serializer)
    return saved


def load_saved(
    data: Mapping[str, Any], program: Program, serializer: BaseSerializer | None
) -> tuple[InMemoryStateStore[Any] | None, list[Message] | None]:
    """The state and the owed work of a saved context. Raises KeyError or ValueError."""
    version = data.get("version", 0)
    if not isinstance(version, int) or version > VERSION:
        raise ValueError(f"Cannot load serialized workflow context with version={version!r}.")
    store = None
    if data.get("state"):
        reader = serializer or program.serializer
        store = InMemoryStateStore.from_dict(data["state"], reader)
    if not data["is_running"]:
        return store, None
    if version < VERSION:
        return store, _from_workers(data, program, serializer)
    owed: list[Message] = []
    for item in cast("list[dict[str, Any]]", data["owed"]):
        messages = [read_message(row, program.types) for row in item["input"]]
        if item.get("join"):
            owed.append(Message(JOINED, tuple(messages), item["step"]))
        else:
            messages[0].to = item.get("step")
            owed.append(messages[0])
    return store, owed


def _from_workers(
    data: Mapping[str, Any], program: Program, serializer: BaseSerializer | None
) -> list[Message]:
    """The owed work of contexts in the formats 1 and 2: queues and what was in progress."""
    reader = serializer or program.serializer
    owed: list[Message] = []
    for step, worker in cast("dict[str, dict[str, Any]]", data.get("workers", {})).items():
        rows = [item["event"] for item in worker.get("queue", ())]
        for row in (*rows, *worker.get("in_progress", ())):
            event = reader.deserialize(row)
            owed.append(Message(program.types.add(type(event)), event, step))
    return owed
