"""One run as state, how an entry changes it (`evolve`), and what it owes now (`pending`).

`evolve` is total and tiny. It consults nothing but the entry and the run: no clock, no policy, no
definition, no user code. It changes the run in place, which is sound because a run is owned by one
turn at a time, and every case costs the same however large the run is (clearing a heap of dead
timers and dropping everything at the end are amortised over what put it there).

A run holds what is owed and nothing else: work that is queued, running, waiting or delayed, joins
that are partly filled, open streams and waits, messages nobody has taken yet. What a finished piece
of work needed is forgotten with it, so a loop of a million turns has the memory of one.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Any, TypeAlias, cast

from stepwell.kernel.journal import (
    AnswerKept,
    AttemptExpired,
    AttemptFailed,
    BufferGathered,
    ChildStarted,
    Digested,
    Entry,
    InboxTaken,
    Joined,
    JoinReleased,
    Published,
    RunEnded,
    RunParked,
    RunResumed,
    RunStarted,
    ScopeEntered,
    StateEdited,
    StreamClosed,
    StreamOpened,
    Unhandled,
    WaitDropped,
    WaitEnded,
    WaitOpened,
    WorkAdded,
    WorkBegun,
    WorkDone,
    WorkQueued,
)
from stepwell.kernel.outcomes import ChildResult, Message
from stepwell.values import ErrorInfo, Json, RunStatus


class Phase(enum.IntEnum):
    """Where a piece of work is."""

    QUEUED = 0
    RUNNING = 1
    WAITING = 2
    DELAYED = 3


MAX_UNTAKEN = 20
"""How many tags of messages that no step took a run remembers."""

# Members of an IntEnum are slow to look up through the class on the hot path.
QUEUED, RUNNING, WAITING, DELAYED = Phase


@dataclass(slots=True)
class Work:
    """One run of a step that is owed.

    `over`: no attempt is live; the first or the next one is to come. `partial`: it got one of
    several things it waits for, so its body may be busy although it still waits. `timer` is the
    number of its live timer (0: none). `restarts` counts how often a process died under an attempt.
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


def _set_timer(run: Run, at: float, kind: str, ref: int | str) -> int:
    run.counter += 1
    if run.timers is None:
        run.timers = []
    heappush(run.timers, (at, run.counter, kind, ref))
    return run.counter


def _drop_timer(run: Run) -> None:
    """One more timer of the heap is dead. When most are, sweep: O(1) amortised."""
    run.dead_timers += 1
    timers = run.timers
    if timers is not None and run.dead_timers > 16 and run.dead_timers * 2 > len(timers):
        timers[:] = [t for t in timers if _alive(run, t)]
        heapify(timers)
        run.dead_timers = 0


def evolve(run: Run, entry: Entry) -> None:
    """Change `run` by what `entry` says."""
    EVOLVE[type(entry)](run, entry)


def fold(run: Run, entries: Iterable[Entry]) -> Run:
    """`evolve` by each of `entries`; returns `run`."""
    for entry in entries:
        EVOLVE[type(entry)](run, entry)
    return run


def _run_started(run: Run, e: RunStarted) -> None:
    run.begun = True
    run.at = e.at
    run.deadline = e.deadline
    if e.deadline is not None:
        run.timer = _set_timer(run, e.deadline, "run", 0)


def _work_added(run: Run, e: WorkAdded) -> None:
    id = e.id
    run.counter = id
    run.at = e.at
    if e.begun:
        phase = RUNNING
        run.busy += 1
    elif e.not_before is None:
        phase = QUEUED
        run.busy += 1
    else:
        phase = DELAYED
    message = e.message
    if message is None:
        message, run.released = run.released, ()
    work = Work(id, e.step, message, phase, e.stream, e.index)
    run.work[id] = work
    if e.recoveries is not None:
        work.recoveries = dict(e.recoveries)
    if e.stream:
        streams: dict[int, Stream] = run.streams  # pyright: ignore[reportAssignmentType]
        streams[e.stream].live += 1
    if e.begun:
        work.attempt = 1
        work.first_at = e.at
        state = run.steps.get(e.step)
        if state is None:
            run.steps[e.step] = StepState(1)
        else:
            state.running += 1
        if e.deadline is not None:
            work.timer = _set_timer(run, e.deadline, "work", id)
        return
    work.over = True
    if e.not_before is None:
        _enqueue(run, work)
    else:
        work.timer = _set_timer(run, e.not_before, "work", id)


def _enqueue(run: Run, work: Work, first: bool = False) -> None:
    state = run.steps.get(work.step)
    if state is None:
        state = run.steps[work.step] = StepState()
    if state.queue is None:
        state.queue = deque()
    if first:
        state.queue.appendleft(work.id)
    else:
        state.queue.append(work.id)


def _leave(run: Run, work: Work) -> None:
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
        _drop_timer(run)


def _work_begun(run: Run, e: WorkBegun) -> None:
    work = run.work[e.id]
    run.at = e.at
    _leave(run, work)
    if work.waits:
        # While it was in the queue its body has asked for more: it gets what came, and waits on.
        work.phase = WAITING
        work.partial = True
        return
    work.phase = RUNNING
    run.busy += 1
    state = run.steps.get(work.step)
    if state is None:
        run.steps[work.step] = StepState(1)
    else:
        state.running += 1
    if work.attempt == 0:
        work.first_at = e.at
    if work.over:
        work.attempt += 1
        work.restarts = 0
    work.over = work.partial = False
    if e.deadline is not None:
        work.timer = _set_timer(run, e.deadline, "work", work.id)


def _work_done(run: Run, e: WorkDone) -> None:
    finish(run, run.work[e.id])


def finish(run: Run, work: Work) -> None:
    """What `WorkDone` does, for whoever keeps no entries."""
    del run.work[work.id]
    # The path of every no-op step, so the common case of `_leave` stands here once more.
    if work.phase == RUNNING and not work.timer:
        run.busy -= 1
        run.steps[work.step].running -= 1
    else:
        _leave(run, work)
    if work.stream:
        streams: dict[int, Stream] = run.streams  # pyright: ignore[reportAssignmentType]
        streams[work.stream].live -= 1
    if work.waits:
        _close_waits(run, work)


def _attempt_failed(run: Run, e: AttemptFailed) -> None:
    work = run.work[e.id]
    _leave(run, work)
    run.at = e.at
    work.error = e.error
    work.failed_at = e.at
    work.over = True
    work.partial = False
    if work.waits:
        # Its questions die with the attempt; the next one asks again.
        _close_waits(run, work)
    if work.answers and e.retry_at is not None:
        # To wait in vain and to have a child fail are what a new attempt is for.
        kept = {key: answer for key, answer in work.answers.items() if not _in_vain(answer)}
        work.answers = kept or None
    if e.retry_at is None:
        work.phase = WAITING
    else:
        work.phase = DELAYED
        work.timer = _set_timer(run, e.retry_at, "work", e.id)


def _in_vain(answer: object) -> bool:
    if isinstance(answer, Message) and isinstance(answer.payload, ChildResult):
        return answer.payload.status is not RunStatus.COMPLETED
    return answer == TIMED_OUT


def _work_queued(run: Run, e: WorkQueued) -> None:
    work = run.work[e.id]
    _leave(run, work)
    run.at = e.at
    work.phase = QUEUED
    run.busy += 1
    _enqueue(run, work)


def _attempt_expired(run: Run, e: AttemptExpired) -> None:
    run.work[e.id].timer = 0
    _drop_timer(run)


def _joined(run: Run, e: Joined) -> None:
    if run.joins is None:
        run.joins = {}
    key = (e.step, e.stream)
    join = run.joins.get(key)
    if join is None:
        join = run.joins[key] = JoinState()
        _note_join(run, e.step, e.stream)
    slot = join.slots.get(e.slot)
    if slot is None:
        slot = join.slots[e.slot] = deque()
    used = e.recoveries
    slot.append((e.index, e.message, used if used is None else dict(used)))


def _note_join(run: Run, step: str, stream: int) -> None:
    """What a join holds of a stream is forgotten with the stream."""
    opened = run.streams.get(stream) if run.streams else None
    if opened is not None:
        if opened.joins is None:
            opened.joins = {}
        opened.joins[step] = None


def _join_released(run: Run, e: JoinReleased) -> None:
    joins = run.joins
    if joins is None:
        joins = run.joins = {}
    key = (e.step, e.stream)
    join = joins.get(key)
    slots = {} if join is None else join.slots
    if not e.over:
        # An AND-join gives one of each slot away and goes on.
        run.released = tuple([slots[number].popleft()[1] for number in sorted(slots)])
        if not any(slots.values()):
            joins.pop(key, None)
    else:
        # A collection is over; late members of its stream must find it so.
        members = slots.get(0, ())
        if e.by_index:
            members = sorted(members, key=lambda member: member[0])
        run.released = tuple([message for _, message, _ in members])
        joins[key] = JoinState(released=True)
        _note_join(run, e.step, e.stream)


def _stream_opened(run: Run, e: StreamOpened) -> None:
    if run.streams is None:
        run.streams = {}
    run.counter = e.id
    recoveries = None if e.recoveries is None else dict(e.recoveries)
    run.streams[e.id] = Stream(e.id, e.parent, e.index, e.collectors, 0, recoveries)
    if e.parent:
        run.streams[e.parent].live += 1


def _stream_closed(run: Run, e: StreamClosed) -> None:
    streams = cast("dict[int, Stream]", run.streams)
    stream = streams.pop(e.id)
    if stream.parent:
        streams[stream.parent].live -= 1
    if run.joins and stream.joins:
        for step in stream.joins:
            run.joins.pop((step, e.id), None)


def _wait_opened(run: Run, e: WaitOpened) -> None:
    if run.waits is None:
        run.waits = {}
    run.counter += 1
    run.at = e.at
    where = dict(e.where) if e.where else None
    wait = Wait(e.id, e.at, e.work, e.key, e.tag, where, e.due)
    wait.question, wait.then, wait.on_timeout, wait.message = (
        e.question,
        e.then,
        e.on_timeout,
        e.message,
    )
    run.waits[e.id] = wait
    if e.stream:
        wait.stream, wait.index = e.stream, e.index
        streams: dict[int, Stream] = run.streams  # pyright: ignore[reportAssignmentType]
        streams[e.stream].live += 1
    if e.recoveries is not None:
        wait.recoveries = dict(e.recoveries)
    if run.orphans and run.orphans.pop(e.id, None) is not None:
        wait.child = e.id
    if e.tag is not None:
        if run.by_tag is None:
            run.by_tag = {}
        run.by_tag.setdefault(e.tag, {})[e.id] = None
    if e.due is not None:
        wait.timer = _set_timer(run, e.due, "wait", e.id)
    if e.work:
        work = run.work[e.work]
        if work.waits is None:
            work.waits = {}
        work.waits[e.key] = e.id
        if work.phase == RUNNING:
            _leave(run, work)
            work.phase = WAITING


def _child_started(run: Run, e: ChildStarted) -> None:
    cast("dict[str, Wait]", run.waits)[e.id].child = e.id


def _close_wait(run: Run, id: str) -> Wait:
    wait = cast("dict[str, Wait]", run.waits).pop(id)
    if wait.tag is not None and run.by_tag is not None:
        waiting = run.by_tag[wait.tag]
        del waiting[id]
        if not waiting:
            del run.by_tag[wait.tag]
            if not run.by_tag:
                run.by_tag = None
    if wait.timer:
        wait.timer = 0
        _drop_timer(run)
    if wait.stream and run.streams:
        run.streams[wait.stream].live -= 1
    return wait


def _close_waits(run: Run, work: Work) -> None:
    """An attempt of `work` is over, and with it all that it waits for; but its children go on."""
    for id in cast("dict[str, str]", work.waits).values():
        wait = _close_wait(run, id)
        if wait.child is not None:
            if run.orphans is None:
                run.orphans = {}
            run.orphans[wait.child] = (work.id, wait.key)
    work.waits = None


TIMED_OUT = "\x00timed out"
"""What `Work.answers` holds for a wait that ran out of time."""


def _wait_ended(run: Run, e: WaitEnded) -> None:
    if run.orphans and e.id in run.orphans:
        owner, key = run.orphans.pop(e.id)
        if owner in run.work:
            _keep(run.work[owner], key, e.answer)
        return
    wait = _close_wait(run, e.id)
    if not wait.work:
        return
    work = run.work[wait.work]
    waits = cast("dict[str, str]", work.waits)
    del waits[wait.key]
    _keep(work, wait.key, TIMED_OUT if e.timed_out else e.answer)
    if work.phase != WAITING:
        return
    if waits:
        work.partial = True
    else:
        # The last thing it waited for: it wants its worker slot back, before newer work.
        work.partial = False
        work.phase = QUEUED
        run.busy += 1
        _enqueue(run, work, first=True)


def _wait_dropped(run: Run, e: WaitDropped) -> None:
    wait = _close_wait(run, e.id)
    work = run.work[e.work]
    waits = cast("dict[str, str]", work.waits)
    del waits[wait.key]
    run.at = e.at
    if work.phase != WAITING:
        return
    work.partial = bool(waits)
    if not waits:
        work.phase = RUNNING
        run.busy += 1
        run.steps[work.step].running += 1
        if e.deadline is not None:
            work.timer = _set_timer(run, e.deadline, "work", work.id)


def _keep(work: Work, key: str, answer: object) -> None:
    if work.answers is None:
        work.answers = {}
    work.answers[key] = answer


def _answer_kept(run: Run, e: AnswerKept) -> None:
    _keep(run.work[e.work], e.key, e.value)


def _buffer_gathered(run: Run, e: BufferGathered) -> None:
    if run.buffers is None:
        run.buffers = {}
    key = (e.step, e.buffer)
    buffer = run.buffers.get(key)
    if buffer is None:
        buffer = run.buffers[key] = Buffer()
    buffer.last += 1
    buffer.members[buffer.last] = e.message
    buffer.by_tag.setdefault(e.message.tag, deque()).append(buffer.last)
    answer: tuple[Message, ...] | None = None
    if e.taken is not None:
        taken: list[Message] = []
        for number in e.taken:
            message = buffer.members.pop(number)
            # Of one tag, what came first is taken first.
            buffer.by_tag[message.tag].popleft()
            taken.append(message)
        answer = tuple(taken)
        if not buffer.members:
            del run.buffers[key]
    _keep(run.work[e.work], e.key, answer)


def _digested(run: Run, e: Digested) -> None:
    work = run.work.get(e.work)
    if work is not None:
        if work.digests is None:
            work.digests = []
        work.digests.extend(e.digests)


def _unhandled(run: Run, e: Unhandled) -> None:
    if e.kept:
        if run.inbox is None:
            run.inbox = {}
        slot = e.message.tag if e.wait is None else f"wait:{e.wait}"
        run.inbox.setdefault(slot, deque()).append(e.message)
    elif e.message.tag not in run.untaken and len(run.untaken) < MAX_UNTAKEN:
        run.untaken = (*run.untaken, e.message.tag)


def _inbox_taken(run: Run, e: InboxTaken) -> None:
    inbox = cast("dict[str, deque[Message]]", run.inbox)
    slot = inbox[e.slot]
    del slot[e.position]
    if not slot:
        del inbox[e.slot]


def _clear(run: Run) -> None:
    run.busy = 0
    run.work.clear()
    run.steps.clear()
    run.waits = run.by_tag = run.joins = run.streams = run.buffers = run.orphans = None


def _scope_entered(run: Run, e: ScopeEntered) -> None:
    _clear(run)
    run.timers = run.deadline = None
    run.timer = run.dead_timers = 0
    run.scope = e.scope
    run.ending = e


def _run_ended(run: Run, e: RunEnded) -> None:
    run.at = e.at
    run.ended = e.status
    run.result = e.result
    run.error = e.error
    run.failed_step = e.step
    run.failed_after = (e.attempts, e.elapsed)
    run.ending = None
    if e.status in (RunStatus.COMPLETED, RunStatus.FAILED):
        _clear(run)
        run.inbox = run.timers = None
        run.timer = run.dead_timers = 0
    # What a cancelled run owed stays: a saved context can go on with it in a new run.


def _run_parked(run: Run, e: RunParked) -> None:
    run.at = run.parked_at = e.at
    run.parked = e.reason


def _run_resumed(run: Run, e: RunResumed) -> None:
    run.at = e.at
    by_person = run.parked is not None
    run.parked = None
    for work in run.work.values():
        if work.phase == RUNNING or work.partial:
            work.restarts = 0 if by_person else work.restarts + e.died
    if run.timer:
        run.timer = 0
        _drop_timer(run)
    run.deadline = e.deadline
    if e.deadline is not None:
        run.timer = _set_timer(run, e.deadline, "run", 0)


def _nothing(run: Run, e: Published | StateEdited) -> None:
    """Facts for readers of the journal; the run owes nothing because of them."""


EVOLVE: dict[type, Callable[[Run, Any], None]] = {
    # What `evolve` does, by kind of entry; the turn looks it up itself to save a call.
    RunStarted: _run_started,
    WorkAdded: _work_added,
    WorkBegun: _work_begun,
    WorkDone: _work_done,
    WorkQueued: _work_queued,
    AttemptFailed: _attempt_failed,
    AttemptExpired: _attempt_expired,
    Joined: _joined,
    JoinReleased: _join_released,
    StreamOpened: _stream_opened,
    StreamClosed: _stream_closed,
    WaitOpened: _wait_opened,
    WaitEnded: _wait_ended,
    WaitDropped: _wait_dropped,
    ChildStarted: _child_started,
    AnswerKept: _answer_kept,
    BufferGathered: _buffer_gathered,
    Digested: _digested,
    Published: _nothing,
    Unhandled: _unhandled,
    StateEdited: _nothing,
    InboxTaken: _inbox_taken,
    ScopeEntered: _scope_entered,
    RunEnded: _run_ended,
    RunParked: _run_parked,
    RunResumed: _run_resumed,
}
