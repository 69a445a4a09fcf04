"""Messages find their steps: who takes one, what a join waits for, when a stream is over.

A message goes to whoever waits for it, then to every step that accepts it; members of a stream
carry its number and their position, and the stream closes when nothing can come from it any more.
This module refuses to know what is in a message and who sent it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import cast

from stepwell.kernel.definition import Definition, Join, Route, StepDef
from stepwell.kernel.ending import end_run
from stepwell.kernel.journal import (
    Entry,
    InboxTaken,
    Joined,
    JoinReleased,
    Published,
    StreamClosed,
    StreamOpened,
    Unhandled,
    WaitEnded,
    WorkAdded,
)
from stepwell.kernel.outcomes import Emit, Message
from stepwell.kernel.run import Run, Stream, Wait, Work
from stepwell.kernel.slots import Entries, add_work, begin_next
from stepwell.values import Json, RunStatus

JOINED = "\x00joined"
"""The tag of a message whose payload is the messages that a join had brought together."""


def route_message(
    d: Definition,
    run: Run,
    m: Message,
    at: float,
    stream: int = 0,
    index: int = 0,
    recoveries: Mapping[str, int] | None = None,
    external: bool = False,
) -> Entries:
    """`m` goes to whoever waits for it, then to every step that accepts it.

    Once clean-up has begun, what comes from outside can answer it and can start nothing.
    """
    closed = external and run.scope != "normal"
    marked = not closed and (
        m.tag in d.marked or (bool(m.kinds) and not d.marked.isdisjoint(m.kinds))
    )
    if marked:
        if m.tag in d.ends or (m.kinds and not set(d.ends).isdisjoint(m.kinds)):
            yield from end_run(d, run, at, RunStatus.COMPLETED, m)
            return
        yield Published((m,))
    if m.to is not None and m.to in d.by_name and not closed:
        # For this step and no other; whether it takes such messages was the sender's business.
        given = cast("tuple[Message, ...]", m.payload) if m.tag == JOINED else m
        step = d.by_name[m.to]
        if step.join is None or m.tag == JOINED:
            yield from add_work(d, run, step, given, at, stream, index, recoveries)
            return
    taken = False
    answered = ""
    if run.by_tag is not None and m.to is None and m.tag in run.by_tag:
        for id in run.by_tag[m.tag]:
            wait = cast("dict[str, Wait]", run.waits)[id]
            if matches(m, wait.where):
                if wait.work:
                    answered = run.work[wait.work].step
                taken = True
                scope = run.scope
                yield from answer_wait(d, run, wait, m, at)
                if run.ended is not None or run.scope != scope:
                    return
                break
    for route in () if closed else _routes(d, m):
        step = route.step
        if step.name == answered or (m.to is not None and step.name != m.to):
            continue
        if route.slot < 0:
            taken = True
            yield from add_work(d, run, step, m, at, stream, index, recoveries)
        elif step.join is not None and (stream or step.join.kind == "all_of"):
            taken = True
            yield from _join(d, run, route, m, at, stream, index, recoveries)
    if not taken and (external or not marked):
        yield Unhandled(m, kept=external)


def plain_way(
    d: Definition,
    run: Run,
    m: Message,
    at: float,
    stream: int,
    index: int,
    recoveries: Mapping[str, int] | None,
) -> Entry | None:
    """The one entry that `route_message` would yield for a message that a single step takes, or
    that just waits for the end of its stream; None for all others. Most messages are such."""
    tag = m.tag
    if m.to is not None or m.kinds or tag in d.marked or (run.by_tag and tag in run.by_tag):
        return None
    routes = d.routes.get(tag)
    if routes is None or len(routes) != 1:
        return None
    route = routes[0]
    step = route.step
    if route.slot < 0:
        state = run.steps.get(step.name)
        if state is None or not step.workers or (state.running < step.workers and not state.queue):
            deadline = None if step.timeout is None else at + step.timeout
            return WorkAdded(
                run.counter + 1, step.name, m, True, at, deadline, stream, index, recoveries
            )
        return WorkAdded(run.counter + 1, step.name, m, False, at, None, stream, index, recoveries)
    join = step.join
    if stream and join is not None and join.kind == "collect" and join.take is None:
        return Joined(step.name, stream, 0, index, m, recoveries)
    return None


def _routes(d: Definition, m: Message) -> Iterator[Route]:
    yield from d.routes.get(m.tag, ())
    if m.kinds:
        seen: set[str] = {route.step.name for route in d.routes.get(m.tag, ())}
        for kind in m.kinds:
            for route in d.by_kind.get(kind, ()):
                if route.step.name not in seen:
                    seen.add(route.step.name)
                    yield route


def _join(
    d: Definition,
    run: Run,
    route: Route,
    m: Message,
    at: float,
    stream: int,
    index: int,
    recoveries: Mapping[str, int] | None,
) -> Entries:
    step = route.step
    join = cast(Join, step.join)
    state = (run.joins or {}).get((step.name, stream))
    if state is not None and state.released:
        return
    yield Joined(step.name, stream, route.slot, index, m, recoveries)
    state = (run.joins or {})[(step.name, stream)]
    if join.kind == "all_of":
        if len(state.slots) == len(join.slots) and all(state.slots.values()):
            heads = [state.slots[slot][0] for slot in range(len(join.slots))]
            merged = _merged(used for _, _, used in heads)
            yield JoinReleased(step.name, stream)
            yield from add_work(d, run, step, None, at, stream, index, merged)
    elif join.take is not None and len(state.slots[0]) >= join.take:
        yield from _release(d, run, step, stream, at)


def _release(d: Definition, run: Run, step: StepDef, stream: int, at: float) -> Entries:
    """A collection is complete: `step` runs once with it, one level up."""
    opened = cast("dict[int, Stream]", run.streams)[stream]
    state = (run.joins or {}).get((step.name, stream))
    members = state.slots.get(0, ()) if state is not None else ()
    by_index = step.join is not None and step.join.order == "input"
    merged = _merged((opened.recoveries, *(used for _, _, used in members)))
    yield JoinReleased(step.name, stream, True, by_index)
    yield from add_work(d, run, step, None, at, opened.parent, opened.index, merged)


def _merged(parts: Iterable[Mapping[str, int] | None]) -> Mapping[str, int] | None:
    """The recoveries that lineages have used when they come together: of each the most."""
    merged: dict[str, int] | None = None
    for used in parts:
        if used:
            if merged is None:
                merged = dict(used)
            else:
                for name, count in used.items():
                    merged[name] = max(count, merged.get(name, 0))
    return merged


def open_stream(d: Definition, run: Run, work: Work, e: Emit, at: float) -> Entries:
    """A returned list: its members are routed as a stream of their own."""
    id = run.counter + 1
    collectors = d.by_name[work.step].collectors
    yield StreamOpened(id, work.stream, work.index, collectors, work.recoveries)
    # The stream counts as live while its members are being routed: one that is taken at once
    # by a join must not close it.
    for position, message in enumerate(e.messages):
        plain = plain_way(d, run, message, at, id, position, work.recoveries)
        if plain is not None:
            yield plain
            continue
        yield from route_message(d, run, message, at, id, position, work.recoveries)
        if run.ended is not None or not run.streams or id not in run.streams:
            return
    yield from close_streams(d, run, id, at)


def close_streams(d: Definition, run: Run, id: int, at: float) -> Entries:
    """Close stream `id` if nothing can come from it any more, and then its parents likewise."""
    while id and run.streams:
        stream = run.streams.get(id)
        if stream is None or stream.live:
            return
        for name in stream.collectors:
            state = (run.joins or {}).get((name, id))
            if state is None or not state.released:
                yield from _release(d, run, d.by_name[name], id, at)
        yield StreamClosed(id)
        id = stream.parent


def answer_wait(d: Definition, run: Run, wait: Wait, m: Message, at: float) -> Entries:
    """`m` ends the wait; what waited goes on with it."""
    yield WaitEnded(wait.id, wait.work, m)
    if wait.work:
        yield from begin_next(d, run, run.work[wait.work].step, at)
    elif wait.then is not None:
        yield from add_work(
            d, run, d.by_name[wait.then], m, at, wait.stream, wait.index, wait.recoveries
        )
    elif wait.message is not None:
        yield from end_run(d, run, at, RunStatus.COMPLETED, wait.message)


def answer_from_inbox(d: Definition, run: Run, id: str, at: float) -> Entries:
    """A message that came before anyone waited answers the wait at once."""
    if run.inbox is None:
        return
    wait = cast("dict[str, Wait]", run.waits)[id]
    for slot in (f"wait:{id}", wait.tag):
        for position, message in enumerate(run.inbox.get(slot, ()) if slot else ()):
            if message.tag == wait.tag and (slot != wait.tag or matches(message, wait.where)):
                yield InboxTaken(str(slot), position)
                yield from answer_wait(d, run, wait, message, at)
                return


def matches(m: Message, where: Mapping[str, Json] | None) -> bool:
    """Whether the message's payload has each of the fields of `where` with just that value."""
    if not where:
        return True
    payload = m.payload
    if isinstance(payload, Mapping):
        fields = cast("Mapping[str, object]", payload)
        return all(fields.get(k) == v for k, v in where.items())
    return all(getattr(payload, k, None) == v for k, v in where.items())
