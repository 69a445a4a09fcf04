"""A run of a state machine as an object: what it was when it was looked at.

A run is read from its rows without its class: the journal is folded with payloads left as plain
data. So every run can be looked at, also one whose class is gone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import BaseModel

from stepwell import patch
from stepwell.authoring.machine.context import load
from stepwell.authoring.machine.define import find_machine
from stepwell.authoring.machine.status import WorkflowStatus
from stepwell.authoring.program import TypeRegistry
from stepwell.authoring.words import END, FIRE, GO, MOVED, ON_FAIL, PLAN, START
from stepwell.errors import WorkflowNotRegistered
from stepwell.kernel.journal import (
    AttemptFailed,
    Entry,
    RunEnded,
    ScopeEntered,
    StateEdited,
    WorkAdded,
    WorkBegun,
    WorkDone,
)
from stepwell.kernel.outcomes import Message
from stepwell.kernel.run import EVOLVE, RUNNING, Run, Wait, Work, pending
from stepwell.runtime import codec
from stepwell.runtime.saved import restore
from stepwell.runtime.views import detail_of
from stepwell.stores import base
from stepwell.values import RunStatus, utc

if TYPE_CHECKING:
    from stepwell.runtime.engine import Engine
    from stepwell.runtime.machine.engine import WorkflowEngine
    from stepwell.runtime.machine.queries import RunSet

HIDDEN = frozenset({END, FIRE, ON_FAIL, PLAN})
"""Steps that the class does not define."""


class _Objects:
    """`WorkflowRun.objects`: the runs of the default engine."""

    default: ClassVar[WorkflowEngine | None] = None

    def __get__(self, _run: object, _owner: type) -> RunSet:
        if _Objects.default is None:
            raise RuntimeError("WorkflowRun.objects needs stepwell.machine to be imported")
        return _Objects.default.runs


def default_engine(engine: WorkflowEngine) -> None:
    """Say which engine is meant by `WorkflowRun.objects`."""
    _Objects.default = engine


@dataclass(frozen=True, slots=True)
class StepExecution:
    """One attempt of one step.

    Attributes:
        step: the step.
        attempt: 1 for the first attempt of this visit.
        status: "running", "completed", "failed" or "cancelled".
        started_at, finished_at: when; aware, in UTC.
        error: what it raised.
    """

    step: str
    attempt: int
    status: str
    started_at: datetime
    finished_at: datetime | None = None
    error: str | None = None


class WorkflowRun:
    """A run, as it was when it was looked at; `refresh()` looks again.

    Attributes:
        id, name, version: which run, of which workflow.
        status: a `WorkflowStatus`, which equals its text ("waiting").
        current_step: the step that runs, or waits, or comes next; of a completed run its last.
        data: the Context as JSON values; `context` is the Context itself.
        error: why it failed, or was cancelled, or what the last attempt raised.
        result: what was given to `complete(...)`.
        waiting_signal: the signal that is waited for ("event:NAME" for an event).
        on_timeout_step: where it goes when that does not come in time.
        wake_at: when it goes on by itself; aware, in UTC.
        retry_count: how often the current step has been tried again in this visit.
        progress: from 0 to 1, as `goto(..., progress=)` said; 1 when complete.
        triggered_by_event_id: the event that started it.
        parent_run_id: the run that it is a subflow of.
        correlation, key: as given to `start`.
        created_at, updated_at, completed_at: when; aware, in UTC.
    """

    objects = _Objects()

    id: str
    name: str
    version: str
    status: WorkflowStatus
    current_step: str
    data: dict[str, Any]
    error: str | None
    result: dict[str, Any] | None
    waiting_signal: str | None
    on_timeout_step: str | None
    wake_at: datetime | None
    retry_count: int
    progress: float
    triggered_by_event_id: str | None
    parent_run_id: str | None
    correlation: str | None
    key: str | None
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None

    def __init__(self, engine: WorkflowEngine, seen: Mapping[str, Any]) -> None:
        self._engine = engine
        self._executions: list[StepExecution] | None = None
        self.__dict__.update(seen)

    @property
    def context(self) -> BaseModel | dict[str, Any]:
        """The Context, or `data` when the class is not loaded here."""
        try:
            kind = find_machine(self.name, self.version).context
        except WorkflowNotRegistered:
            return self.data
        return load(kind, self.data, f"the context of run {self.id}")

    def refresh(self) -> WorkflowRun:
        """Look at the run again; returns itself. Raises `RunNotFound` when it was deleted."""
        return self._take(self._engine.runs.get(id=self.id))

    refresh_from_db = refresh

    async def arefresh(self) -> WorkflowRun:
        """`refresh` for async code."""
        return self._take(await self._engine.runs.aget(id=self.id))

    def _take(self, other: WorkflowRun) -> WorkflowRun:
        self.__dict__.update(other.__dict__)
        return self

    @property
    def step_executions(self) -> list[StepExecution]:
        """Every attempt of every step so far, in order; read when first asked for."""
        if self._executions is None:
            self._executions = self._engine.call(lambda core: executions(core, self.id))
        return self._executions

    async def astep_executions(self) -> list[StepExecution]:
        """`step_executions` for async code."""
        if self._executions is None:
            self._executions = await self._engine.acall(lambda core: executions(core, self.id))
        return self._executions

    def __eq__(self, other: object) -> bool:
        """Whether both are the same run, seen now or then."""
        return isinstance(other, WorkflowRun) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        at = f" at {self.current_step}" if self.current_step else ""
        return f"<WorkflowRun {self.id} of {self.name}: {self.status}{at}>"


# --- reading -------------------------------------------------------------------------------------


async def folded(core: Engine, loaded: base.Loaded) -> tuple[Run, dict[str, Any]]:
    """A run and its state, without its class."""
    types = TypeRegistry(())
    run = Run(loaded.row.id)
    state: Any = {}
    if loaded.snapshot is not None:
        kept = json.loads(loaded.snapshot.data)
        run = restore(kept["run"], types)
        state = kept["state"] or {}
    for row in loaded.rows:
        for entry in codec.decode(await core.whole(row.data), types, row.at):
            # What a step that does not come to its end had begun with is in no state yet.
            if isinstance(entry, AttemptFailed) and entry.retry_at is None:
                state = _woken(state, run.work.get(entry.id))
            elif isinstance(entry, RunEnded | ScopeEntered):
                state = _woken(state, next(iter(run.work.values()), None))
            EVOLVE[type(entry)](run, entry)
            if isinstance(entry, StateEdited):
                state = patch.apply(state, cast("Iterable[Mapping[str, Any]]", entry.edits))
    for message in loaded.messages:
        if message.kind == "start" and not run.begun:
            first = codec.decode_message(message.data, types)
            state = dict(cast("Mapping[str, Any]", first.payload))
    return run, state


async def seen_by(core: Engine, ids: Sequence[str]) -> list[dict[str, Any]]:
    """What there is to see of these runs, in this order; those that are gone are left out."""
    found: dict[str, dict[str, Any]] = {}
    for loaded in await core.store.load_many(ids):
        run, state = await folded(core, loaded)
        found[loaded.row.id] = _seen(loaded.row, run, state)
    return [found[id] for id in ids if id in found]


def _seen(row: base.RunRow, run: Run, state: Mapping[str, Any]) -> dict[str, Any]:
    work = next(iter(run.work.values()), None)
    wait = next((w for w in (run.waits or {}).values() if not w.work), None)
    state = _woken(state, work)
    context = state.get("context")
    error = detail_of(row).get("reason")
    if error is None and work is not None and work.error is not None:
        error = work.error.message
    result = None
    if run.result is not None and run.error is None:
        result = dict(cast("Mapping[str, Any]", run.result.payload or {}))
    event = cast("Mapping[str, Any]", state.get("event") or {})
    due = pending(run).due if row.status is RunStatus.WAITING else None
    retries = 0 if work is None else work.attempt - (1 if work.phase == RUNNING else 0)
    return {
        "id": row.id,
        "name": row.workflow,
        "version": row.version,
        "status": WorkflowStatus.of(row.status),
        "current_step": _step(run, work, wait, state),
        "data": dict(cast("Mapping[str, Any]", context or {})),
        "error": error,
        "result": result,
        "waiting_signal": wait.tag if wait is not None and wait.tag not in (None, *_OWN) else None,
        "on_timeout_step": None if wait is None or wait.on_timeout in HIDDEN else wait.on_timeout,
        "wake_at": None if due is None else utc(due),
        "retry_count": max(0, retries),
        "progress": float(state.get("progress") or 0.0),
        "triggered_by_event_id": event.get("id"),
        "parent_run_id": row.parent,
        "correlation": row.correlation,
        "key": row.key,
        "created_at": utc(row.created),
        "updated_at": utc(row.updated),
        "completed_at": None if row.ended is None else utc(row.ended),
    }


_OWN = (MOVED,)
_EMPTY = (GO, MOVED)


def _woken(state: Mapping[str, Any], work: Work | None) -> dict[str, Any]:
    """The state, with what woke the step that begins now; the step commits it with its outcome."""
    woke = work.message if work is not None and isinstance(work.message, Message) else None
    payload = None if woke is None else _mapping(woke.payload)
    if woke is None or payload is None or woke.tag in _EMPTY:
        return dict(state)
    if woke.tag == START:
        return {**payload, **state}
    known = cast("dict[str, Any]", state.get("context") or {})
    merged = {**known, **{key: value for key, value in payload.items() if key in known}}
    return {**state, "context": merged}


def _mapping(payload: object) -> Mapping[str, Any] | None:
    return cast("Mapping[str, Any]", payload) if isinstance(payload, Mapping) else None


def _step(run: Run, work: Work | None, wait: Wait | None, state: Mapping[str, Any]) -> str:
    if work is not None and work.step not in HIDDEN:
        return work.step
    held = None if wait is None or wait.message is None else _mapping(wait.message.payload)
    if held is not None and held.get("from"):
        return str(held["from"])
    return str(state.get("last") or run.failed_step or "")


async def executions(core: Engine, run_id: str) -> list[StepExecution]:
    """Every attempt of every step of a run, from its journal."""
    types = TypeRegistry(())
    done: list[StepExecution] = []
    open_ones: dict[int, tuple[str, int, float]] = {}  # by work: step, attempt, since

    def close(work: int, at: float, status: str, error: str | None = None) -> None:
        step, attempt, since = open_ones.pop(work, ("", 0, 0.0))
        if step and step not in HIDDEN:
            done.append(StepExecution(step, attempt, status, utc(since), utc(at), error))

    names: dict[int, tuple[str, int]] = {}
    after = 0
    while rows := await core.store.read(run_id, after):
        for row in rows:
            for entry in codec.decode(await core.whole(row.data), types, row.at):
                _follow(entry, row.at, names, open_ones, close)
        after = rows[-1].seq
    for step, attempt, since in open_ones.values():
        if step not in HIDDEN:
            done.append(StepExecution(step, attempt, "running", utc(since)))
    return done


def _follow(
    entry: Entry,
    at: float,
    names: dict[int, tuple[str, int]],
    open_ones: dict[int, tuple[str, int, float]],
    close: Any,
) -> None:
    match entry:
        case WorkAdded(id=id, step=step, begun=begun):
            names[id] = (step, 1)
            if begun:
                open_ones[id] = (step, 1, entry.at)
        case WorkBegun(id=id) if id in names:
            step, attempt = names[id]
            open_ones.setdefault(id, (step, attempt, entry.at))
        case AttemptFailed(id=id, error=error) if id in names:
            close(id, entry.at, "failed", f"{error.type.rpartition('.')[2]}: {error.message}")
            step, attempt = names[id]
            names[id] = (step, attempt + 1)
        case WorkDone(id=id):
            close(id, at, "completed")
            names.pop(id, None)
        case ScopeEntered() | RunEnded():
            for id in tuple(open_ones):
                close(id, at, "cancelled")
        case _:
            return
