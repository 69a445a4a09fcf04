"""A run as JSON values: snapshots for stores, and the dictionaries of `Context.to_dict`.

A snapshot holds the kernel's state of a run exactly. It is written by the classes below, which are
all it may name: reading one makes nothing but these. A saved context is such a snapshot and the
user's state beside it; a run that goes on with it starts what was running again from its top, as
after a crash, and keeps what the steps had already got: answers, memos, half-filled collections.
Child runs are not in it: they are started anew.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, cast

from stepwell.authoring.events.serializers import BaseSerializer
from stepwell.authoring.events.state_store import InMemoryStateStore
from stepwell.authoring.program import Program, TypeRegistry
from stepwell.errors import StoreCorrupt
from stepwell.kernel.decide import JOINED, advance
from stepwell.kernel.inputs import Arrived
from stepwell.kernel.journal import RunStarted, ScopeEntered, WaitEnded, WorkBegun
from stepwell.kernel.outcomes import Message
from stepwell.kernel.run import (
    Buffer,
    JoinState,
    Phase,
    Run,
    StepState,
    Stream,
    Wait,
    Work,
    evolve,
)
from stepwell.runtime.clock import SYSTEM
from stepwell.runtime.codec import read_message, write_message
from stepwell.runtime.sound import fault_in, fits, misfit
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
    """The run that `snapshot` wrote. Raises ValueError when it is none."""
    try:
        run = _read(data, types)
    except (LookupError, TypeError, AttributeError, ValueError, StoreCorrupt) as error:
        raise ValueError(f"a snapshot can't be read: {error!r}") from error
    if not isinstance(run, Run):
        raise ValueError(f"a snapshot of a run was stored here, not {data!r:.200}")
    return run


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
            row = [value.type, value.message, value.details]
            return {"c": "ErrorInfo", "v": row if value.where is None else [*row, value.where]}
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
            told, message, details, *where = rest[0][1]
            texts = [told, message, *where]
            if len(where) > 1 or not all(isinstance(text, str) for text in texts):
                raise ValueError(f"an error can't be {rest[0][1]!r:.100}")
            return ErrorInfo(told, message, details, None, *where)
        case "c":
            return _made(_PARTS[value], [_read(v, types) for v in rest[0][1]])
        case _:
            raise ValueError(f"a snapshot can't hold {kind!r}")


def _made(kind: type[Any], values: list[object]) -> object:
    """An instance of a part with these values of its fields; the rest has its defaults, because
    it was written before those fields were there."""
    made = cast(object, object.__new__(kind))  # not every field is an argument of its maker
    for number, field in enumerate(fields(kind)):
        if number < len(values):
            value = values[number]
        elif field.default_factory is not MISSING:
            value = field.default_factory()
        else:
            value = cast(object, field.default)
            if value is MISSING:
                raise ValueError(f"a {kind.__name__} without {field.name!r}")
        setattr(made, field.name, value)
    wrong = misfit(made)
    if wrong is not None:
        raise ValueError(wrong)
    return made


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
    serializer: BaseSerializer | None,
) -> dict[str, Any]:
    """What `Context.to_dict` gives; `run` is the one to go on with, None when there is none."""
    saved: dict[str, Any] = {"version": VERSION, "is_running": run is not None}
    if run is not None:
        saved["run"] = snapshot(run, program.types)
        saved["timeout"] = program.definition.timeout
    if store is not None:
        saved["state"] = store.to_dict(serializer or program.serializer)
    return saved


def load_saved(
    data: Mapping[str, Any], program: Program, serializer: BaseSerializer | None
) -> tuple[InMemoryStateStore[Any] | None, Run | None]:
    """The state of a saved context, and the run to go on with. Raises KeyError or ValueError."""
    version = data.get("version", 0)
    if not isinstance(version, int) or version > VERSION:
        raise ValueError(f"Cannot load serialized workflow context with version={version!r}.")
    store: InMemoryStateStore[Any] | None = None
    if data.get("state"):
        reader = serializer or program.serializer
        store = InMemoryStateStore[Any].from_dict(data["state"], reader, program.state_type)
    if not data["is_running"]:
        return store, None
    if version < VERSION:
        return store, _from_workers(data, program, serializer)
    run = restore(data["run"], program.types)
    fault = fault_in(run)
    if fault is not None:
        raise ValueError(f"the saved run makes no sense: {fault}")
    timeout = data.get("timeout")
    if not fits(timeout, float | None):
        raise ValueError(f"the saved run can't have had {timeout!r:.100} as its timeout")
    for work in run.work.values():
        if work.step not in program.definition.by_name:
            raise ValueError(
                f"the saved run owes work of step {work.step!r}, which "
                f"{program.definition.name!r} does not have"
            )
    _revive(run, program, timeout)
    return store, run


def _revive(run: Run, program: Program, timeout: float | None) -> None:
    """Make a run out of a snapshot that can be loaded: one that was cancelled is alive again, its
    deadline is that of the program, and children, which are gone, will be asked for anew."""
    run.ended = run.result = run.error = run.failed_step = run.orphans = None
    run.failed_after = (0, 0.0)
    now = program.definition.timeout
    if now is None:
        run.deadline = None
    elif run.deadline is None or timeout is None:
        run.deadline = run.at + now
    else:
        run.deadline += now - timeout
    for wait in tuple((run.waits or {}).values()):
        if wait.child is not None and wait.work:
            evolve(run, WaitEnded(wait.id, wait.work))
            work = run.work[wait.work]
            answers = dict(work.answers or {})
            del answers[wait.key]
            work.answers = answers or None
            if not work.partial:
                evolve(run, WorkBegun(work.id, run.at))


def _from_workers(
    data: Mapping[str, Any], program: Program, serializer: BaseSerializer | None
) -> Run:
    """The run of a context in the formats 1 and 2: queues, what was in progress, what was
    collected and what was waited for."""
    if any(data.get(part) for part in ("streams", "collection_release_states")):
        raise ValueError(
            f"the context was saved in format {data['version']} while a list of events was being "
            "worked on, which can't be taken over; let such runs finish first"
        )
    reader = serializer or program.serializer
    types = program.types
    run = Run("")
    at = SYSTEM.now()
    timeout = program.definition.timeout
    evolve(run, RunStarted(at, None if timeout is None else at + timeout))

    def message(text: str, step: str | None = None) -> Message:
        event: object = reader.deserialize(text)
        return Message(types.add(type(event)), event, step)

    for step, worker in cast("dict[str, dict[str, Any]]", data.get("workers", {})).items():
        if step not in program.definition.by_name:
            continue
        rows: list[Any] = [*worker.get("queue", ()), *worker.get("in_progress", ())]
        waiters = cast("list[dict[str, Any]]", worker.get("collected_waiters", ()))
        rows += [row["event"] for row in waiters]
        for row in rows:
            text = row if isinstance(row, str) else row["event"]
            advance(program.definition, run, Arrived(at, message(text, step)))
        for row in waiters:
            if row.get("resolved_event"):
                advance(program.definition, run, Arrived(at, message(row["resolved_event"])))
        for name, texts in cast("dict[str, list[str]]", worker.get("collected_events", {})).items():
            _fill_buffer(run, step, name, [message(text) for text in texts])
    return run


def _fill_buffer(run: Run, step: str, name: str, members: list[Message]) -> None:
    if not members:
        return
    buffer = Buffer()
    for member in members:
        buffer.last += 1
        buffer.members[buffer.last] = member
        buffer.by_tag.setdefault(member.tag, deque()).append(buffer.last)
    if run.buffers is None:
        run.buffers = {}
    run.buffers[(step, name)] = buffer
