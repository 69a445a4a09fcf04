"""What a live attempt asks for, and what comes from outside and from children.

A question opens a wait, an answer ends it; what nobody waits for is routed or kept. This module
refuses to know who asks, and what an answer means.
"""

from __future__ import annotations

from typing import cast

from stepwell.kernel.attempts import state_edited
from stepwell.kernel.definition import Definition
from stepwell.kernel.inputs import (
    Arrived,
    Asked,
    ChildAsked,
    ChildEnded,
    Edited,
    Gathered,
    GivenUp,
    Noted,
    Sent,
    Wrote,
)
from stepwell.kernel.journal import (
    AnswerKept,
    BufferGathered,
    ChildStarted,
    Digested,
    Published,
    Unhandled,
    WaitDropped,
    WaitEnded,
    WaitOpened,
)
from stepwell.kernel.outcomes import Message
from stepwell.kernel.routing import answer_from_inbox, answer_wait, matches, route_message
from stepwell.kernel.run import Run, Wait
from stepwell.kernel.slots import Entries, begin_next
from stepwell.values import derived_id

CHILD = "ChildResult"
"""The tag of answers that say how a child run ended."""


def arrived(d: Definition, run: Run, i: Arrived) -> Entries:
    """A message came from outside."""
    if not run.begun:
        if i.keep:
            yield Unhandled(i.message, kept=True, wait=i.wait)
        return
    if i.wait is None:
        yield from route_message(d, run, i.message, i.at, external=True)
        return
    wait = (run.waits or {}).get(i.wait)
    # Waits for time or for a child have no tag: nobody outside can answer those.
    if wait is not None and wait.tag == i.message.tag and (i.keep or _is_meant(wait, i)):
        yield from answer_wait(d, run, wait, i.message, i.at)
    elif i.keep:
        yield Unhandled(i.message, kept=True, wait=i.wait)


def _is_meant(wait: Wait, i: Arrived) -> bool:
    """Whether `wait` is the one that was seen by whoever sent `i`, and wants it."""
    return (i.since is None or i.since == wait.at) and matches(i.message, wait.where)


def asked(d: Definition, run: Run, i: Asked) -> Entries:
    """A live attempt waits for a message, for time, or for both."""
    work = run.work.get(i.work)
    if work is None or work.over or (work.waits and i.key in work.waits):
        return
    due = None if i.timeout is None else i.at + i.timeout
    id = i.wait
    if run.waits and id in run.waits:
        id = derived_id(run.id, id, i.work, i.key)[:12]  # another piece of work has taken it
    yield WaitOpened(id, i.at, i.work, i.key, i.tag, i.where, due, i.question)
    yield from answer_from_inbox(d, run, id, i.at)
    if run.waits and id in run.waits:
        yield from begin_next(d, run, work.step, i.at)


def given_up(d: Definition, run: Run, i: GivenUp) -> Entries:
    """A live attempt went on without the answer."""
    work = run.work.get(i.work)
    id = None if work is None or work.over or not work.waits else work.waits.get(i.key)
    if work is None or id is None:
        return  # it was answered, or has gone with its attempt
    child = cast("dict[str, Wait]", run.waits)[id].child
    timeout = d.by_name[work.step].timeout
    deadline = None if timeout is None else i.at + timeout
    yield WaitDropped(id, work.id, i.at, deadline, () if child is None else (child,))


def noted(_d: Definition, run: Run, i: Noted) -> Entries:
    """A live attempt got a value that it is to get again."""
    work = run.work.get(i.work)
    if work is not None and not work.over and i.key not in (work.answers or {}):
        yield AnswerKept(i.work, i.key, i.value)


def gathered(_d: Definition, run: Run, i: Gathered) -> Entries:
    """A live attempt adds to a buffer of its step, and takes from it what it wants."""
    work = run.work.get(i.work)
    if work is None or work.over or (work.answers is not None and i.key in work.answers):
        return
    buffer = (run.buffers or {}).get((work.step, i.buffer))
    wanted: dict[str, int] = {}
    for tag in i.expected:
        wanted[tag] = wanted.get(tag, 0) + 1
    if i.message.tag not in wanted:
        yield AnswerKept(i.work, i.key, None)
        return
    number = 1 if buffer is None else buffer.last + 1
    have = {tag: buffer.by_tag.get(tag, ()) if buffer else () for tag in wanted}
    full = all(len(have[t]) + (t == i.message.tag) >= n for t, n in wanted.items())
    taken: tuple[int, ...] | None = None
    if full:
        # Of each tag what came first; the message itself comes last.
        queues = {tag: iter(members) for tag, members in have.items()}
        taken = tuple(next(queues[tag], number) for tag in i.expected)
    yield BufferGathered(i.work, i.key, work.step, i.buffer, i.message, taken)


def sent(d: Definition, run: Run, i: Sent) -> Entries:
    """A live attempt sends messages to steps."""
    work = run.work.get(i.work)
    if work is None or work.over:
        return
    if i.digests:
        yield Digested(i.work, i.digests)
    scope = run.scope
    for message in i.messages:
        yield from route_message(d, run, message, i.at, recoveries=work.recoveries)
        if run.ended is not None or run.scope != scope:
            return


def wrote(_d: Definition, run: Run, i: Wrote) -> Entries:
    """Messages for the readers of the stream."""
    if i.work is not None and i.digests and i.work in run.work:
        yield Digested(i.work, i.digests)
    yield Published(i.messages, i.work)


def edited(_d: Definition, run: Run, i: Edited) -> Entries:
    """The user's state was changed from outside its steps."""
    yield from state_edited(run, i)


def child_asked(d: Definition, run: Run, i: ChildAsked) -> Entries:
    """A live attempt wants the result of a child run."""
    work = run.work.get(i.work)
    if work is None or work.over or (work.waits and i.key in work.waits):
        return
    if run.waits and i.child in run.waits:
        return
    orphan = run.orphans is not None and i.child in run.orphans
    yield WaitOpened(i.child, i.at, i.work, i.key)
    if not orphan:  # or else it is still at work for an attempt that failed
        yield ChildStarted(i.child, i.workflow, i.message)
    yield from begin_next(d, run, work.step, i.at)


def child_ended(d: Definition, run: Run, i: ChildEnded) -> Entries:
    """A child run has ended."""
    id = i.result.run
    wait = (run.waits or {}).get(id)
    if wait is not None and wait.child is not None:
        yield from answer_wait(d, run, wait, Message(CHILD, i.result), i.at)
    elif run.orphans and id in run.orphans:
        yield WaitEnded(id, run.orphans[id][0], Message(CHILD, i.result))
