"""Runs in memory, with no set-up: the turn of every run, without the store."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from stepwell.authoring.events.model import Event, InternalDispatchEvent
from stepwell.authoring.events.state_store import InMemoryStateStore
from stepwell.authoring.program import Ending, Program
from stepwell.errors import RunAlreadyExists
from stepwell.kernel.inputs import Arrived, ChildEnded, Start
from stepwell.kernel.journal import ChildStarted
from stepwell.kernel.outcomes import ChildResult, Message
from stepwell.kernel.run import Run
from stepwell.runtime.attempt import Attempt
from stepwell.runtime.clock import SYSTEM, new_run_id
from stepwell.runtime.context import Context, message_for
from stepwell.runtime.turn import ActiveRun
from stepwell.runtime.watchers import InternalEvents, Verbose
from stepwell.values import Clock

_live: dict[str, ActiveRun] = {}
"""The runs in memory that have not ended, by id. It also keeps them alive."""


def make_context(attempt: Attempt) -> Context[Any]:
    """The context of an attempt."""
    return Context[Any].bound(attempt.active, attempt)


class Gate:
    """Lets so many runs of a workflow be active at once; the others wait their turn."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.active = 0
        self.waiting: deque[LocalRun] = deque()


class LocalRun:
    """A run in memory, as its handler follows it."""

    __slots__ = ("_start", "active", "gate")

    def __init__(self, active: ActiveRun, start: list[Message], gate: Gate | None) -> None:
        self.active = active
        self.gate = gate
        self._start = start

    # --- its life --------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the run, or wait for the gate to let it in."""
        gate = self.gate
        if gate is not None:
            if gate.active >= gate.limit:
                gate.waiting.append(self)
                return
            gate.active += 1
        active = self.active
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
            gate.active -= 1
            if gate.waiting:
                gate.waiting.popleft().begin()

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

    async def ended(self) -> None:
        await self.active.ended()

    def events(self, *, after: int, expose_internal: bool) -> AsyncIterator[tuple[int, object]]:
        if expose_internal:
            self.active.watch(InternalEvents())
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
        active.arrive(Arrived(active.clock.now(), message_for(active, event, step), wait))

    async def cancel(self, reason: str) -> None:
        gate = self.gate
        if gate is not None and self in gate.waiting:
            gate.waiting.remove(self)
            gate.active += 1  # given back when it ends, which is at once
            self.active.run.begun = True
        self.active.cancel(reason)


def run_local(
    program: Program,
    owner: object,
    start: list[Message],
    *,
    run_id: str | None = None,
    gate: Gate | None = None,
    store: InMemoryStateStore[Any] | None = None,
    clock: Clock = SYSTEM,
    parent: ActiveRun | None = None,
) -> LocalRun:
    """Run a program in memory, in the running event loop.

    Args:
        program: what to run.
        owner: the workflow's instance.
        start: the start message; more than one for a run that goes on with saved work.
        run_id: the run's id; made when None.
        gate: limits how many runs are active at once.
        store: the state to begin with.
        clock: the time.
        parent: the run that this one is a part of.

    Raises:
        RunAlreadyExists: when a run with this id is active.
    """
    id = run_id or new_run_id()
    if id in _live:
        raise RunAlreadyExists(id)
    active = ActiveRun(program, owner, Run(id), clock, make_context, _spawn)
    active.store = store
    active.parent = parent
    local = LocalRun(active, start, gate)
    _live[id] = active
    active.on_end = local._left  # pyright: ignore[reportPrivateUsage]
    if program.verbose:
        active.watch(Verbose())
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
        result = ChildResult(run.id, status, run.result, run.error)
        parent.feed(ChildEnded(parent.clock.now(), result))

    if child.ending is not None:
        ended(child)
        return
    child.on_end = ended
    if parent.children is None:
        parent.children = []
    parent.children.append(child)
