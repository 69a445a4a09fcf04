"""Driving the kernel by hand: given a definition, when this happens, then that is decided.

`Play` is the smallest shell there can be: it hands inputs to the kernel, keeps the journal, and
after each of them recounts all that the run counts (`check`). So every test of the kernel is a
test of its invariants too.
"""

from __future__ import annotations

import copy
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import fields
from typing import TypeVar

from stepwell.kernel.decide import advance
from stepwell.kernel.definition import Definition, StepDef
from stepwell.kernel.inputs import (
    Arrived,
    Asked,
    Attempted,
    CancelAsked,
    ChildAsked,
    ChildEnded,
    Due,
    Input,
    Start,
)
from stepwell.kernel.journal import Entry
from stepwell.kernel.outcomes import ChildResult, Complete, Emit, Fail, Message, Outcome
from stepwell.kernel.run import DELAYED, QUEUED, RUNNING, WAITING, Run, Work, fold, next_due
from stepwell.values import ErrorInfo, RunStatus

E = TypeVar("E", bound=Entry)

START = Message("Start", None)


def message(tag: str, payload: object = None, to: str | None = None, *kinds: str) -> Message:
    return Message(tag, payload, to, kinds)


def error(text: str = "broken") -> ErrorInfo:
    return ErrorInfo("builtins.ValueError", text)


class Play:
    """A run and its journal."""

    def __init__(self, *steps: StepDef, ends: tuple[str, ...] = ("Stop",), **options: object):
        self.d = Definition("play", steps, ends=ends, **options)  # pyright: ignore[reportArgumentType]
        self.run = Run("run-1")
        self.at = 100.0
        self.journal: list[Entry] = []
        self.last: list[Entry] = []

    # --- inputs ----------------------------------------------------------------------------------

    def feed(self, input: Input) -> list[Entry]:
        over = self.run.ended
        self.last = advance(self.d, self.run, input)
        self.journal += copy.deepcopy(self.last)
        if over is not None:
            assert self.last == []
            assert self.run.ended is over
        check(self.d, self.run)
        return self.last

    def start(self, tag: str = "Start", payload: object = None) -> Play:
        self.feed(Start(self.at, Message(tag, payload)))
        return self

    def end(self, step: str | int, outcome: Outcome) -> list[Entry]:
        """The oldest running attempt of `step` (or of the work with that number) ends."""
        id = step if isinstance(step, int) else self.work(step).id
        return self.feed(Attempted(self.at, id, outcome))

    def emit(self, step: str | int, *messages: str | Message) -> list[Entry]:
        return self.end(step, Emit(_messages(messages)))

    def stream(self, step: str | int, *messages: str | Message) -> list[Entry]:
        return self.end(step, Emit(_messages(messages), stream=True))

    def fail(
        self, step: str | int, retry_after: float | None = None, final: bool = False
    ) -> list[Entry]:
        return self.end(step, Fail(error(), retry_after, final))

    def complete(self, step: str | int, payload: object = None) -> list[Entry]:
        return self.end(step, Complete(Message("Result", payload)))

    def arrive(self, tag: str, payload: object = None, wait: str | None = None) -> list[Entry]:
        return self.feed(Arrived(self.at, Message(tag, payload), wait))

    def ask(
        self,
        step: str | int,
        tag: str | None,
        *,
        key: str = "k",
        wait: str = "w",
        timeout: float | None = None,
        **where: object,
    ) -> list[Entry]:
        id = step if isinstance(step, int) else self.work(step).id
        fields = where or None
        return self.feed(Asked(self.at, id, key, wait, tag, fields, timeout))  # pyright: ignore[reportArgumentType]

    def child(self, step: str | int, child: str = "c1", key: str = "child:x") -> list[Entry]:
        id = step if isinstance(step, int) else self.work(step).id
        return self.feed(ChildAsked(self.at, id, key, child, "Other", START))

    def child_ends(self, child: str = "c1", status: RunStatus = RunStatus.COMPLETED) -> list[Entry]:
        return self.feed(ChildEnded(self.at, ChildResult(child, status)))

    def after(self, seconds: float) -> list[Entry]:
        """Time passes, and what is due happens."""
        self.at += seconds
        return self.feed(Due(self.at))

    def cancel(self) -> list[Entry]:
        return self.feed(CancelAsked(self.at, "enough"))

    # --- what is ---------------------------------------------------------------------------------

    def work(self, step: str) -> Work:
        return next(w for w in self.run.work.values() if w.step == step and w.phase == RUNNING)

    def all(self, step: str) -> list[Work]:
        return [w for w in self.run.work.values() if w.step == step]

    def running(self) -> list[str]:
        return [w.step for w in self.run.work.values() if w.phase == RUNNING]

    def queued(self) -> list[str]:
        return [w.step for w in self.run.work.values() if w.phase == QUEUED]

    def got(self, step: str) -> object:
        """The payload (or payloads) of the input of the one piece of work of `step`."""
        (work,) = self.all(step)
        if isinstance(work.message, tuple):
            return tuple(m.payload for m in work.message)
        return work.message.payload

    def decided(self, kind: type[E]) -> list[E]:
        """The entries of a kind that the last input led to."""
        return [e for e in self.last if isinstance(e, kind)]

    @property
    def status(self) -> RunStatus:
        return self.run.status


def _messages(given: Sequence[str | Message]) -> tuple[Message, ...]:
    return tuple(m if isinstance(m, Message) else Message(m, None) for m in given)


def refolded(journal: Sequence[Entry], id: str = "run-1") -> Run:
    """The run that the journal alone gives."""
    return fold(Run(id), copy.deepcopy(list(journal)))


def same(one: Run, other: Run) -> bool:
    """Whether the runs are equal in every field. Dead timers do not count: asking what is due may
    drop them, and that is no entry."""
    return all(
        _live_timers(one) == _live_timers(other)
        if f.name == "timers"
        else getattr(one, f.name) == getattr(other, f.name)
        for f in fields(Run)
        if f.name != "dead_timers"
    )


def _live_timers(run: Run) -> list[tuple[float, int, str, int | str]]:
    owed = {w.timer for w in (*run.work.values(), *(run.waits or {}).values())} | {run.timer}
    return sorted(t for t in run.timers or () if t[1] in owed)


# --- what holds after every input ----------------------------------------------------------------


def check(d: Definition, run: Run) -> None:
    """Recount everything that a run counts. Raises AssertionError where it is not so."""
    if run.ended is not None:
        assert run.ended.terminal
        assert run.status is run.ended
        assert next_due(run) is None
        return
    assert run.status in (
        {RunStatus.PARKED}
        if run.parked is not None
        else {RunStatus.QUEUED}
        if not run.begun
        else {RunStatus.RUNNING if run.busy else RunStatus.WAITING}
    )
    works = run.work
    assert all(id == work.id <= run.counter for id, work in works.items())
    assert run.busy == sum(w.phase in (QUEUED, RUNNING) for w in works.values())
    _check_steps(d, run)
    _check_waits(run)
    _check_streams(run)
    _check_timers(run)
    for buffer in (run.buffers or {}).values():
        assert buffer.members
        members: dict[str, deque[int]] = {}
        for number, m in buffer.members.items():
            members.setdefault(m.tag, deque()).append(number)
        assert members == {tag: numbers for tag, numbers in buffer.by_tag.items() if numbers}
    assert all((run.inbox or {"": deque([START])}).values())


def _check_steps(d: Definition, run: Run) -> None:
    running = Counter(w.step for w in run.work.values() if w.phase == RUNNING)
    queued = Counter(w.id for w in run.work.values() if w.phase == QUEUED)
    assert running == +Counter({name: state.running for name, state in run.steps.items()})
    assert queued == Counter(id for state in run.steps.values() for id in state.queue or ())
    for name, state in run.steps.items():
        workers = d.by_name[name].workers
        if workers:
            assert state.running <= workers
        assert all(run.work[id].step == name for id in state.queue or ())
        if state.queue and run.parked is None:
            assert state.running == workers, "a slot is free and work is queued for it"


def _check_waits(run: Run) -> None:
    waits = run.waits or {}
    tags: dict[str, list[str]] = {}
    for id, wait in waits.items():
        assert wait.id == id
        if wait.tag is not None:
            tags.setdefault(wait.tag, []).append(id)
        if wait.work:
            assert (run.work[wait.work].waits or {})[wait.key] == id
    assert tags == {tag: list(ids) for tag, ids in (run.by_tag or {}).items()}
    assert run.by_tag is None or run.by_tag
    for work in run.work.values():
        asked = work.waits or {}
        assert all(waits[id].work == work.id and waits[id].key == k for k, id in asked.items())
        match work.phase:
            case 1:
                assert not asked
                assert not work.over
                assert work.attempt
            case 2:
                assert asked
                assert not work.over
            case 3:
                assert work.over
                assert not asked
            case _:
                assert not (work.over and asked)
        assert not work.partial or work.phase == WAITING
    assert len(set(run.children())) == len(run.children())


def _check_streams(run: Run) -> None:
    streams = run.streams or {}
    live = Counter(w.stream for w in run.work.values())
    live.update(w.stream for w in (run.waits or {}).values() if not w.work)
    live.update(s.parent for s in streams.values())
    del live[0]
    assert live == Counter({id: stream.live for id, stream in streams.items()})
    assert all(stream.live for stream in streams.values()), "it should have been closed"
    for step, stream in run.joins or {}:
        assert stream == 0 or step in (streams[stream].joins or {})


def _check_timers(run: Run) -> None:
    owed: list[tuple[int, str, int | str]] = [
        (w.timer, "work", w.id) for w in run.work.values() if w.timer
    ]
    owed += [(w.timer, "wait", w.id) for w in (run.waits or {}).values() if w.timer]
    if run.timer:
        owed.append((run.timer, "run", 0))
    heap = run.timers or []
    alive = [t[1:] for t in heap if t[1:] in owed]
    assert sorted(alive, key=str) == sorted(owed, key=str)
    assert run.dead_timers == len(heap) - len(alive)
    assert run.dead_timers <= max(17, len(heap) // 2 + 1)
    for work in run.work.values():
        assert bool(work.timer) or work.phase != DELAYED
        assert not work.timer or work.phase in (RUNNING, DELAYED)
    for wait in (run.waits or {}).values():
        assert bool(wait.timer) == (wait.due is not None)
