"""Runs in memory, with no set-up: the turn of every run, without the store."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from stepwell.authoring.events.model import Event, InternalDispatchEvent
from stepwell.authoring.events.state_store import InMemoryStateStore
from stepwell.authoring.program import Ending, Program
from stepwell.errors import RunAlreadyExists, WorkflowRuntimeError
from stepwell.kernel.inputs import Arrived, ChildEnded, Loaded, Start
from stepwell.kernel.journal import ChildStarted, Entry
from stepwell.kernel.outcomes import ChildResult, Message
from stepwell.kernel.run import Run
from stepwell.runtime.attempt import Attempt
from stepwell.runtime.clock import SYSTEM, new_run_id
from stepwell.runtime.context import Context
from stepwell.runtime.messages import message_for
from stepwell.runtime.telemetry import watchers_for
from stepwell.runtime.turn import ActiveRun
from stepwell.runtime.watchers import Verbose, expose
from stepwell.values import Clock

_live: dict[str, ActiveRun] = {}
"""The runs in memory that have not ended, by id. It also keeps them alive."""


def _forget_lost() -> None:
    """Runs whose event loop was closed under them will never end."""
    for id, active in tuple(_live.items()):
        if active.loop.is_closed():
            del _live[id]


_loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
"""The loop of the last run that was started."""


def make_context(attempt: Attempt) -> Context[Any]:
    """The context of an attempt."""
    return Context[Any].bound(attempt.active, attempt)


class Gate:
    """Lets so many runs of a workflow be active at once; the others wait their turn."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.active: set[LocalRun] = set()
        self.waiting: deque[LocalRun] = deque()

    def full(self) -> bool:
        """Whether as many runs as may be are active. Those of a closed loop will never end."""
        if len(self.active) >= self.limit:
            self.active = {run for run in self.active if not run.active.loop.is_closed()}
        return len(self.active) >= self.limit

    def let_in(self) -> None:
        """Begin what waits, as far as there is room."""
        while self.waiting and not self.full():
            run = self.waiting.popleft()
            if not run.active.loop.is_closed():
                run.begin()


class LocalRun:
    """A run in memory, as its handler follows it."""

    __slots__ = ("_saved", "_start", "active", "gate", "record")

    def __init__(
        self, active: ActiveRun, start: list[Message], gate: Gate | None, saved: bool = False
    ) -> None:
        self.active = active
        self._saved = saved
        self.gate = gate
        self.record: list[tuple[float, list[Entry]]] | None = None
        self._start = start

    # --- its life --------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the run, or wait for the gate to let it in."""
        gate = self.gate
        if gate is not None:
            if gate.full():
                gate.waiting.append(self)
                return
            gate.active.add(self)
        active = self.active
        if self._saved:
            active.feed(Loaded(active.clock.now(), ""))
            return
        first, *more = self._start
        self._start = []
        now = active.clock.now()
        active.feed(Start(now, first))
        for message in more:
            active.feed(Arrived(now, message))

    def _left(self, active: ActiveRun) -> None:
        _live.pop(active.run.id, None)
        gate = self.gate
        if gate is not None:
            gate.active.discard(self)
            gate.let_in()

    # --- what a handler asks ---------------------------------------------------------------------

    @property
    def program(self) -> Program:
        return self.active.program

    @property
    def run_id(self) -> str:
        return self.active.run.id

    @property
    def ending(self) -> Ending | None:
        return self.active.ending

    def context(self) -> Context[Any]:
        return Context[Any].bound(self.active)

    def ended(self) -> Awaitable[None]:
        return self.active.ended()

    def events(self, *, after: int, expose_internal: bool) -> AsyncIterator[tuple[int, object]]:
        if expose_internal:
            expose(self.active)
        return self._events(after, expose_internal)

    async def _events(self, after: int, internal: bool) -> AsyncIterator[tuple[int, object]]:
        number = 0
        async for _, item in self.active.stream.read():
            if internal or not isinstance(item, InternalDispatchEvent):
                number += 1
                if number > after:
                    yield number, item

    async def send(self, event: Event, step: str | None, wait: str | None) -> None:
        active = self.active
        active.arrive(
            Arrived(
                active.clock.now(), message_for(active.definition, active.types, event, step), wait
            )
        )

    async def started(self) -> None:
        """There is nothing to wait for."""

    async def entries(self) -> list[tuple[float, list[Entry]]]:
        if self.record is None:
            raise WorkflowRuntimeError(
                "this run keeps no journal: start it with run(..., record=True), or on an engine"
            )
        return self.record

    async def cancel(self, reason: str) -> None:
        gate = self.gate
        if gate is not None and self in gate.waiting:
            gate.waiting.remove(self)
        self.active.cancel(reason)


def run_local(
    program: Program,
    owner: object,
    start: list[Message],
    *,
    saved: Run | None = None,
    run_id: str | None = None,
    gate: Gate | None = None,
    store: InMemoryStateStore[Any] | None = None,
    clock: Clock = SYSTEM,
    parent: ActiveRun | None = None,
    record: bool = False,
) -> LocalRun:
    """Run a program in memory, in the running event loop.

    Args:
        program: what to run.
        owner: the workflow's instance.
        start: the start message.
        saved: the run to go on with, instead of `start`. It keeps its id when that is free.
        run_id: the run's id; made when None.
        gate: limits how many runs are active at once.
        store: the state to begin with.
        clock: the time.
        parent: the run that this one is a part of.
        record: keep the journal (in memory), for drawings and tests.

    Raises:
        RunAlreadyExists: when a run with this id is active.
    """
    global _loop
    loop = asyncio.get_running_loop()
    if _loop is None or _loop() is not loop:
        _loop = weakref.ref(loop)
        _forget_lost()
    if saved is not None and run_id is None and saved.id not in _live:
        run_id = saved.id
    id = run_id or new_run_id()
    if id in _live:
        raise RunAlreadyExists(id)
    run = Run(id) if saved is None else saved
    run.id = id
    active = ActiveRun(program, owner, run, clock, make_context, _spawn)
    active.store = store
    active.parent = parent
    local = LocalRun(active, start, gate, saved is not None)
    _live[id] = active
    active.on_end = local._left  # pyright: ignore[reportPrivateUsage]
    if program.verbose:
        active.watch(Verbose())
    for watcher in watchers_for(program):
        active.watch(watcher)
    if record:
        local.record = []
        active.record = local.record
    local.begin()
    return local


def _spawn(parent: ActiveRun, entry: ChildStarted) -> None:
    """Start the child run that a step of `parent` asked for."""
    program, owner = (parent.programs or {})[entry.workflow]
    local = run_local(
        program, owner, [entry.message], run_id=entry.id, clock=parent.clock, parent=parent
    )
    child = local.active
    left = child.on_end

    def ended(active: ActiveRun) -> None:
        if left is not None:
            left(active)
        if parent.children:
            parent.children.remove(active)
        run = active.run
        status = run.status
        name, shown = entry.workflow, active.shown_state()
        result = ChildResult(run.id, status, run.result, run.error, name, shown)
        parent.feed(ChildEnded(parent.clock.now(), result))

    if child.ending is not None:
        ended(child)
        return
    child.on_end = ended
    if parent.children is None:
        parent.children = []
    parent.children.append(child)
