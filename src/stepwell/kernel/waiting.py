"""How entries about waits, children and answers change a run.

A wait belongs to a live attempt, under a key, or to the run itself. What an attempt got is kept by
key, so a body that starts again from its top is answered without waiting. This module refuses to
know when a wait is opened and by what it may be answered.
"""

from __future__ import annotations

from collections import deque
from typing import cast

from stepwell.kernel.journal import (
    AnswerKept,
    BufferGathered,
    ChildStarted,
    Digested,
    WaitDropped,
    WaitEnded,
    WaitOpened,
)
from stepwell.kernel.outcomes import ChildResult, Message
from stepwell.kernel.state import (
    QUEUED,
    RUNNING,
    WAITING,
    Buffer,
    Run,
    Stream,
    Wait,
    Work,
    drop_timer,
    enqueue,
    leave,
    set_timer,
)
from stepwell.values import RunStatus

TIMED_OUT = "\x00timed out"
"""What `Work.answers` holds for a wait that ran out of time."""


def wait_opened(run: Run, e: WaitOpened) -> None:
    """Something is waited for; a busy body gives its worker slot back."""
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
        wait.timer = set_timer(run, e.due, "wait", e.id)
    if e.work:
        work = run.work[e.work]
        if work.waits is None:
            work.waits = {}
        work.waits[e.key] = e.id
        if work.phase == RUNNING:
            leave(run, work)
            work.phase = WAITING


def child_started(run: Run, e: ChildStarted) -> None:
    """What is waited for is a child run."""
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
        drop_timer(run)
    if wait.stream and run.streams:
        run.streams[wait.stream].live -= 1
    return wait


def close_waits(run: Run, work: Work) -> None:
    """An attempt of `work` is over, and with it all that it waits for; but its children go on."""
    for id in cast("dict[str, str]", work.waits).values():
        wait = _close_wait(run, id)
        if wait.child is not None:
            if run.orphans is None:
                run.orphans = {}
            run.orphans[wait.child] = (work.id, wait.key)
    work.waits = None


def wait_ended(run: Run, e: WaitEnded) -> None:
    """A wait got its answer, or ran out of time."""
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
        enqueue(run, work, first=True)


def wait_dropped(run: Run, e: WaitDropped) -> None:
    """A body went on without the answer."""
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
            work.timer = set_timer(run, e.deadline, "work", work.id)


def _keep(work: Work, key: str, answer: object) -> None:
    if work.answers is None:
        work.answers = {}
    work.answers[key] = answer


def answer_kept(run: Run, e: AnswerKept) -> None:
    """A value is kept under its key."""
    _keep(run.work[e.work], e.key, e.value)


def buffer_gathered(run: Run, e: BufferGathered) -> None:
    """A buffer took a message in, and may have given some away."""
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


def digested(run: Run, e: Digested) -> None:
    """What an attempt has sent is noted, so that it is not sent again."""
    work = run.work.get(e.work)
    if work is not None:
        if work.digests is None:
            work.digests = []
        work.digests.extend(e.digests)


def got_in_vain(answer: object) -> bool:
    """Whether the answer is of the kind that a new attempt is made for."""
    if isinstance(answer, Message) and isinstance(answer.payload, ChildResult):
        return answer.payload.status is not RunStatus.COMPLETED
    return answer == TIMED_OUT
