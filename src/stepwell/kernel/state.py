"""One run as state: what it owes, what it waits for, and when something is due.

A run holds what is owed and nothing else: work that is queued, running, waiting or delayed, joins
that are partly filled, open streams and waits, messages nobody has taken yet. What a finished piece
of work needed is forgotten with it, so a loop of a million turns has the memory of one.

Timers are a heap in which dead ones stay until they come up, or until most are dead; each is known
by the number that its owner holds. This module refuses to know how entries change a run; it only
keeps counts, queues and timers right.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import TypeAlias

from stepwell.kernel.journal import ScopeEntered
from stepwell.kernel.outcomes import Message
from stepwell.values import ErrorInfo, Json, RunStatus


class Phase(enum.IntEnum):
    """Where a piece of work is."""

    QUEUED = 0
    RUNNING = 1
    WAITING = 2
    DELAYED = 3


# Members of an IntEnum are slow to look up through the class on the hot path.
QUEUED, RUNNING, WAITING, DELAYED = Phase


@dataclass(slots=True)
class Work:
    """One run of a step that is owed.

    `over`: no attempt is live; the first or the next one is to come. `partial`: it got one of
    several things it waits for, so its body may be busy although it still waits. `timer` is the
    number of its live timer (0: none). `restarts` counts how often a process died under an attempt.
    `kept` are its writes to the run's state, of each field so many, that are kept already.
    """

    id: int
    step: str
    message: Message | tuple[Message, ...]
    phase: Phase
    stream: int = 0
    index: int = 0
    recoveries: dict[str, int] | None = None
    attempt: int = 0
    first_at: float = 0.0
    failed_at: float | None = None
    error: ErrorInfo | None = None
    over: bool = False
    partial: bool = False
    timer: int = 0
    restarts: int = 0
    waits: dict[str, str] | None = None
    answers: dict[str, object] | None = None
    digests: list[int] | None = None
    kept: dict[str, int] | None = None


@dataclass(slots=True)
class StepState:
    """The queue of one step and how many of it are running. `running` counts taken worker slots."""

    running: int = 0
    queue: deque[int] | None = None


@dataclass(slots=True)
class Wait:
    """Something is waited for; by a live attempt when `work` is not 0."""

    id: str
    at: float
    work: int
    key: str
    tag: str | None
    where: dict[str, Json] | None
    due: float | None
    timer: int = 0
    question: Message | None = None
    then: str | None = None
    on_timeout: str | None = None
    message: Message | None = None
    child: str | None = None
    stream: int = 0
    index: int = 0
    recoveries: dict[str, int] | None = None


@dataclass(slots=True)
class Stream:
    """Work that descends from one list of events. `live` counts what may still add to it; `joins`
    names the joins that hold members of it, `recoveries` are those of what opened it."""

    id: int
    parent: int
    index: int
    collectors: tuple[str, ...]
    live: int = 0
    recoveries: dict[str, int] | None = None
    joins: dict[str, None] | None = None


Member: TypeAlias = tuple[int, Message, "dict[str, int] | None"]
"""In a join: the position in the stream's list, the message, the recoveries it carries."""


@dataclass(slots=True)
class JoinState:
    """Members that wait in a join, by slot."""

    slots: dict[int, deque[Member]] = field(default_factory=dict[int, "deque[Member]"])
    released: bool = False


@dataclass(slots=True)
class Buffer:
    """What a step's attempts have gathered and not taken yet, by member number; `by_tag` has the
    numbers in the order in which they are taken."""

    members: dict[int, Message] = field(default_factory=dict[int, Message])
    by_tag: dict[str, deque[int]] = field(default_factory=dict[str, "deque[int]"])
    last: int = 0


@dataclass(slots=True)
class Run:
    """One execution of a workflow. Make it with `Run(id)`; change it through `evolve` only.

    `orphans` are child runs whose wait died with an attempt: by id, the work that may ask for them
    again, and under which key. `untaken` are the tags of what its steps sent and no step took.
    """

    id: str
    begun: bool = False
    ended: RunStatus | None = None
    parked: str | None = None
    scope: str = "normal"
    counter: int = 0
    at: float = 0.0
    deadline: float | None = None
    busy: int = 0
    work: dict[int, Work] = field(default_factory=dict[int, Work])
    steps: dict[str, StepState] = field(default_factory=dict[str, StepState])
    waits: dict[str, Wait] | None = None
    by_tag: dict[str, dict[str, None]] | None = None
    joins: dict[tuple[str, int], JoinState] | None = None
    streams: dict[int, Stream] | None = None
    buffers: dict[tuple[str, str], Buffer] | None = None
    inbox: dict[str, deque[Message]] | None = None
    timers: list[tuple[float, int, str, int | str]] | None = None
    timer: int = 0
    dead_timers: int = 0
    ending: ScopeEntered | None = None
    result: Message | None = None
    error: ErrorInfo | None = None
    failed_step: str | None = None
    failed_after: tuple[int, float] = (0, 0.0)
    parked_at: float = 0.0
    orphans: dict[str, tuple[int, str]] | None = None
    released: tuple[Message, ...] = ()
    untaken: tuple[str, ...] = ()

    @property
    def status(self) -> RunStatus:
        """The one status of the run."""
        if self.ended is not None:
            return self.ended
        if self.parked is not None:
            return RunStatus.PARKED
        if not self.begun:
            return RunStatus.QUEUED
        return RunStatus.RUNNING if self.busy else RunStatus.WAITING

    def children(self) -> tuple[str, ...]:
        """Ids of the child runs that have not ended."""
        waited = (w.child for w in (self.waits or {}).values() if w.child is not None)
        return (*waited, *(self.orphans or ()))


@dataclass(slots=True)
class Pending:
    """All that is owed now: attempts to be (re)started, the next time something is due, and what
    is waited for. `alive_due` also counts the limit on the time that the run may be alive."""

    attempts: tuple[Work, ...]
    due: float | None
    alive_due: float | None
    waits: tuple[Wait, ...]


def pending(run: Run) -> Pending:
    """What `run` owes now. A fresh process needs no more than this to go on."""
    if run.ended is not None:
        return Pending((), None, None, ())
    waits = tuple((run.waits or {}).values())
    if run.parked is not None:
        return Pending((), None, None, waits)
    attempts = tuple(work for work in run.work.values() if work.phase == RUNNING or work.partial)
    timers = [t for t in run.timers or () if _alive(run, t)]
    due = min((t[0] for t in timers if t[2] != "run"), default=None)
    return Pending(attempts, due, min((t[0] for t in timers), default=None), waits)


def next_due(run: Run) -> float | None:
    """When the next live timer of `run` is due. Drops dead timers from the top of the heap."""
    timers = run.timers
    if timers is None or run.ended is not None or run.parked is not None:
        return None
    while timers:
        if _alive(run, timers[0]):
            return timers[0][0]
        heappop(timers)
        run.dead_timers -= 1
    return None


def next_due_away(run: Run) -> float | None:
    """When a run that nobody holds has to be taken up: as `next_due`, but the limit on the time
    that it may be alive does not run out meanwhile."""
    due = next_due(run)
    timers = run.timers
    if due is None or timers is None or timers[0][2] != "run":
        return due
    limit = heappop(timers)
    due = next_due(run)
    heappush(timers, limit)
    return due


def due_timer(run: Run, at: float) -> tuple[float, int, str, int | str] | None:
    """The first live timer that is due at `at`, or None."""
    due = next_due(run)
    return run.timers[0] if due is not None and due <= at and run.timers else None


def _alive(run: Run, timer: tuple[float, int, str, int | str]) -> bool:
    _, number, kind, ref = timer
    if kind == "work":
        work = run.work.get(ref)  # pyright: ignore[reportArgumentType]
        return work is not None and work.timer == number
    if kind == "wait":
        wait = (run.waits or {}).get(ref)  # pyright: ignore[reportArgumentType]
        return wait is not None and wait.timer == number
    return run.timer == number


def set_timer(run: Run, at: float, kind: str, ref: int | str) -> int:
    """One more timer, for `ref`; returns its number."""
    run.counter += 1
    if run.timers is None:
        run.timers = []
    heappush(run.timers, (at, run.counter, kind, ref))
    return run.counter


def drop_timer(run: Run) -> None:
    """One more timer of the heap is dead. When most are, sweep: O(1) amortised."""
    run.dead_timers += 1
    timers = run.timers
    if timers is not None and run.dead_timers > 16 and run.dead_timers * 2 > len(timers):
        timers[:] = [t for t in timers if _alive(run, t)]
        heapify(timers)
        run.dead_timers = 0


def enqueue(run: Run, work: Work, first: bool = False) -> None:
    """`work` gets in the queue of its step, at the end or (`first`) before all."""
    state = run.steps.get(work.step)
    if state is None:
        state = run.steps[work.step] = StepState()
    if state.queue is None:
        state.queue = deque()
    if first:
        state.queue.appendleft(work.id)
    else:
        state.queue.append(work.id)


def leave(run: Run, work: Work) -> None:
    """`work` leaves its phase: slot, queue place and timer are given back."""
    phase = work.phase
    if phase == RUNNING:
        run.busy -= 1
        run.steps[work.step].running -= 1
    elif phase == QUEUED:
        run.busy -= 1
        queue = run.steps[work.step].queue
        if queue is not None:
            if queue[0] == work.id:
                queue.popleft()
            else:
                queue.remove(work.id)
    if work.timer:
        work.timer = 0
        drop_timer(run)
