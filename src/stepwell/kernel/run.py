"""How an entry changes a run: `evolve`.

`evolve` is total and tiny. It consults nothing but the entry and the run: no clock, no policy, no
definition, no user code. It changes the run in place, which is sound because a run is owned by one
turn at a time, and every case costs the same however large the run is (clearing a heap of dead
timers and dropping everything at the end are amortised over what put it there).

What a run is stands in `state`, what entries about waits do to it in `waiting`; whoever asks about
runs finds all of it here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, cast

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
    StateKept,
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
from stepwell.kernel.outcomes import Message
from stepwell.kernel.state import (
    DELAYED,
    QUEUED,
    RUNNING,
    WAITING,
    Buffer,
    JoinState,
    Pending,
    Phase,
    Run,
    StepState,
    Stream,
    Wait,
    Work,
    drop_timer,
    due_timer,
    enqueue,
    leave,
    next_due,
    next_due_away,
    pending,
    set_timer,
)
from stepwell.kernel.waiting import (
    TIMED_OUT,
    answer_kept,
    buffer_gathered,
    child_started,
    close_waits,
    digested,
    got_in_vain,
    wait_dropped,
    wait_ended,
    wait_opened,
)
from stepwell.values import RunStatus

__all__ = [
    "DELAYED",
    "EVOLVE",
    "MAX_UNTAKEN",
    "QUEUED",
    "RUNNING",
    "TIMED_OUT",
    "WAITING",
    "Buffer",
    "JoinState",
    "Pending",
    "Phase",
    "Run",
    "StepState",
    "Stream",
    "Wait",
    "Work",
    "due_timer",
    "evolve",
    "finish",
    "fold",
    "next_due",
    "next_due_away",
    "pending",
]

MAX_UNTAKEN = 20
"""How many tags of messages that no step took a run remembers."""


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
        run.timer = set_timer(run, e.deadline, "run", 0)


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
            work.timer = set_timer(run, e.deadline, "work", id)
        return
    work.over = True
    if e.not_before is None:
        enqueue(run, work)
    else:
        work.timer = set_timer(run, e.not_before, "work", id)


def _work_begun(run: Run, e: WorkBegun) -> None:
    work = run.work[e.id]
    run.at = e.at
    leave(run, work)
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
        work.timer = set_timer(run, e.deadline, "work", work.id)


def _work_done(run: Run, e: WorkDone) -> None:
    finish(run, run.work[e.id])


def finish(run: Run, work: Work) -> None:
    """What `WorkDone` does, for whoever keeps no entries."""
    del run.work[work.id]
    # The path of every no-op step, so the common case of `leave` stands here once more.
    if work.phase == RUNNING and not work.timer:
        run.busy -= 1
        run.steps[work.step].running -= 1
    else:
        leave(run, work)
    if work.stream:
        streams: dict[int, Stream] = run.streams  # pyright: ignore[reportAssignmentType]
        streams[work.stream].live -= 1
    if work.waits:
        close_waits(run, work)


def _attempt_failed(run: Run, e: AttemptFailed) -> None:
    work = run.work[e.id]
    leave(run, work)
    run.at = e.at
    work.error = e.error
    work.failed_at = e.at
    work.over = True
    work.partial = False
    if work.waits:
        # Its questions die with the attempt; the next one asks again.
        close_waits(run, work)
    if work.answers and e.retry_at is not None:
        # To wait in vain and to have a child fail are what a new attempt is for.
        kept = {key: answer for key, answer in work.answers.items() if not got_in_vain(answer)}
        work.answers = kept or None
    if e.retry_at is None:
        work.phase = WAITING
    else:
        work.phase = DELAYED
        work.timer = set_timer(run, e.retry_at, "work", e.id)


def _work_queued(run: Run, e: WorkQueued) -> None:
    work = run.work[e.id]
    leave(run, work)
    run.at = e.at
    work.phase = QUEUED
    run.busy += 1
    enqueue(run, work)


def _attempt_expired(run: Run, e: AttemptExpired) -> None:
    run.work[e.id].timer = 0
    drop_timer(run)


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
            opened = run.streams.get(e.stream) if run.streams else None
            if opened is not None and opened.joins is not None:
                opened.joins.pop(e.step, None)
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
        drop_timer(run)
    run.deadline = e.deadline
    if e.deadline is not None:
        run.timer = set_timer(run, e.deadline, "run", 0)


def _state_kept(run: Run, e: StateKept) -> None:
    work = run.work.get(e.work)
    if work is not None:
        if work.kept is None:
            work.kept = {}
        work.kept.update(e.writes)


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
    WaitOpened: wait_opened,
    WaitEnded: wait_ended,
    WaitDropped: wait_dropped,
    ChildStarted: child_started,
    AnswerKept: answer_kept,
    BufferGathered: buffer_gathered,
    Digested: digested,
    Published: _nothing,
    Unhandled: _unhandled,
    StateEdited: _nothing,
    StateKept: _state_kept,
    InboxTaken: _inbox_taken,
    ScopeEntered: _scope_entered,
    RunEnded: _run_ended,
    RunParked: _run_parked,
    RunResumed: _run_resumed,
}
