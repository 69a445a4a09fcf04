"""Whether a run that was read from somewhere can be a run at all.

A run is a web: numbers count what is elsewhere in it, names point across it. What a fold of a
journal gives is sound by construction; what comes from a file that people may have edited is looked
at here first, so that it is refused where it is loaded and not found broken somewhere in a turn.
Two looks: each field holds what its annotation says (`fits`), and all that is counted or pointed to
is there (`fault_in`). What the payloads of messages mean is not looked at.
"""

from __future__ import annotations

import types
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from functools import cache
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from stepwell.kernel.run import DELAYED, QUEUED, RUNNING, WAITING, Run

_MOST = 1e300
"""Numbers beyond this (and those that are none) can't be reckoned with."""


@cache
def hints_of(kind: type) -> Mapping[str, Any]:
    """The annotations of a dataclass; JSON values are not looked into."""
    return get_type_hints(kind, localns={"Json": object})


def misfit(value: object) -> str | None:
    """The first field of a dataclass instance that does not hold what it says; None if all do."""
    hints = hints_of(type(value))
    for field in fields(cast(Any, value)):
        held = getattr(value, field.name)
        if not fits(held, hints[field.name]):
            return f"{type(value).__name__}.{field.name} can't be {held!r:.100}"
    return None


def fits(value: object, hint: Any) -> bool:
    """Whether `value` is of the annotated type. Numbers are finite, true and false are none."""
    if hint is object or hint is Any:
        return True
    if hint is None or hint is type(None):
        return value is None
    origin = get_origin(hint)
    if origin is not None:
        return _fits_generic(value, origin, get_args(hint))
    if hint is float:
        return type(value) in (int, float) and -_MOST < cast(float, value) < _MOST
    if hint in (int, bool, str):
        return type(value) is hint
    return isinstance(value, hint)


def _fits_generic(value: object, origin: Any, args: tuple[Any, ...]) -> bool:
    if origin in (Union, types.UnionType):
        return any(fits(value, each) for each in args)
    if origin is Literal:
        return any(type(value) is type(each) and value == each for each in args)
    if not isinstance(value, origin):
        return False
    if isinstance(value, Mapping):
        rows = cast("Mapping[object, object]", value).items()
        return all(fits(key, args[0]) and fits(each, args[1]) for key, each in rows)
    items = tuple(cast("Iterable[object]", value))
    if origin is tuple and Ellipsis not in args:
        return len(items) == len(args) and all(map(fits, items, args))
    return all(fits(each, args[0]) for each in items)


def fault_in(run: Run) -> str | None:
    """What of the run's numbers and names does not add up, in a sentence; None if all does."""
    for look in _LOOKS:
        for is_so, what in look(run):
            if not is_so:
                return what
    return None


Facts = Iterable[tuple[bool, str]]


def _works(run: Run) -> Facts:
    works = run.work
    busy = sum(work.phase in (QUEUED, RUNNING) for work in works.values())
    yield run.busy == busy, f"it counts {run.busy} busy pieces of work of {busy}"
    for id, work in works.items():
        known = id == work.id and 0 < id <= run.counter
        yield known, f"work {id} has the number {work.id}, of {run.counter}"
        waits = work.phase == WAITING
        yield bool(work.waits) or not waits, f"work {id} waits for nothing"
        yield waits or not work.partial, f"work {id} got an answer and does not wait"
        yield work.phase != DELAYED or work.over, f"work {id} is delayed while it is tried"
        yield work.phase != RUNNING or work.attempt > 0, f"work {id} runs in no attempt"
        tries = work.attempt >= 0 and work.restarts >= 0
        yield tries, f"work {id} was tried a negative number of times"
        at_work = work.failed_at is None or not work.over or work.error is not None
        yield at_work, f"work {id} failed without an error"


def _steps(run: Run) -> Facts:
    works = run.work.values()
    running = Counter(work.step for work in works if work.phase == RUNNING)
    counted = {name: state.running for name, state in run.steps.items()}
    yield all(n >= 0 for n in counted.values()), "a step has a negative number of workers"
    yield running == +Counter(counted), "its steps count others as running than do run"
    queued = {(work.step, work.id) for work in works if work.phase == QUEUED}
    queues = [(name, id) for name, state in run.steps.items() for id in state.queue or ()]
    yield len(queues) == len(queued) and set(queues) == queued, "its queues hold other work"


def _waits(run: Run) -> Facts:
    waits = run.waits or {}
    tags: dict[str, set[str]] = {}
    for id, wait in waits.items():
        yield id == wait.id, f"wait {id!r} is called {wait.id!r}"
        if wait.tag is not None:
            tags.setdefault(wait.tag, set()).add(id)
        if wait.work:
            work = run.work.get(wait.work)
            asked = work is not None and (work.waits or {}).get(wait.key) == id
            yield asked, f"wait {id!r} is of work {wait.work}, which does not ask for it"
    listed = {tag: set(ids) for tag, ids in (run.by_tag or {}).items()}
    yield tags == listed, "the tags it waits for are not those of its waits"
    for work in run.work.values():
        for key, id in (work.waits or {}).items():
            wait = waits.get(id)
            mine = wait is not None and (wait.work, wait.key) == (work.id, key)
            yield mine, f"work {work.id} asks for {id!r}, which is not its own"


def _streams(run: Run) -> Facts:
    streams = run.streams or {}
    live = Counter(work.stream for work in run.work.values())
    live.update(wait.stream for wait in (run.waits or {}).values() if not wait.work)
    live.update(stream.parent for stream in streams.values())
    del live[0]
    counted = {id: stream.live for id, stream in streams.items()}
    yield live == Counter(counted), "its streams count other members than there are"
    for id, stream in streams.items():
        known = id == stream.id and stream.parent < id <= run.counter
        yield known, f"stream {id} has the number {stream.id}, in {stream.parent}"
    for step, id in run.joins or {}:
        held = id == 0 or (id in streams and step in (streams[id].joins or {}))
        yield held, f"step {step!r} joins stream {id}, which does not know of it"
    for id, stream in streams.items():
        for step in stream.joins or ():
            yield (step, id) in (run.joins or {}), f"stream {id} names a join that is not there"


def _timers(run: Run) -> Facts:
    owed: Counter[tuple[int, str, int | str]] = Counter()
    owed.update((work.timer, "work", work.id) for work in run.work.values() if work.timer)
    owed.update((wait.timer, "wait", wait.id) for wait in (run.waits or {}).values() if wait.timer)
    if run.timer:
        owed[run.timer, "run", 0] += 1
    heap = run.timers or []
    yield (
        all(heap[(n - 1) // 2] <= heap[n] for n in range(1, len(heap))),
        "its timers have no order",
    )
    alive = Counter(timer[1:] for timer in heap if timer[1:] in owed)
    yield alive == owed, "its timers are not those that are owed"
    yield all(0 < timer[1] <= run.counter for timer in heap), "a timer has no number"
    dead = len(heap) - alive.total()
    yield run.dead_timers == dead, f"it counts {run.dead_timers} dead timers of {dead}"
    for id, wait in (run.waits or {}).items():
        yield bool(wait.timer) == (wait.due is not None), f"wait {id!r} has no timer for its end"
    for work in run.work.values():
        yield bool(work.timer) or work.phase != DELAYED, f"work {work.id} is delayed for ever"


def _collections(run: Run) -> Facts:
    for (step, name), buffer in (run.buffers or {}).items():
        tags: dict[str, deque[int]] = {}
        for number, message in buffer.members.items():
            tags.setdefault(message.tag, deque()).append(number)
            yield 0 < number <= buffer.last, f"buffer {name!r} of {step!r} has a stray member"
        held = {tag: numbers for tag, numbers in buffer.by_tag.items() if numbers}
        yield tags == held, f"buffer {name!r} of step {step!r} lists other members than it has"
    for step, join in (run.joins or {}).items():
        yield all(slot >= 0 for slot in join.slots), f"the join of {step[0]!r} has no such slot"
    yield all((run.inbox or {}).values()), "its inbox has an empty place"


def _life(run: Run) -> Facts:
    yield run.scope in ("normal", "error", "exit"), f"it can't be in scope {run.scope!r}"
    yield (
        (run.ending is not None) == (run.scope != "normal") or run.ended is not None,
        ("how it is to end is not settled"),
    )
    yield run.begun or not run.work, "it has work, and has not begun"
    yield run.ended is None or run.ended.terminal, f"it can't have ended as {run.ended!r}"
    yield (run.deadline is not None) or not run.timer, "its limit of time is not said"


_LOOKS: tuple[Callable[[Run], Facts], ...] = (
    _life,
    _works,
    _steps,
    _waits,
    _streams,
    _timers,
    _collections,
)
