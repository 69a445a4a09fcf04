"""What a run did, read from its journal: which ways it took, how often, and how each step fared.

The theory: the journal says which work was added and which was done, but not which work caused
which. It follows from the order: what a step emits is decided in the same turn as the end of its
work, right after it. So between `WorkDone` of a step and the next entry that can only begin a new
decision, added work came from that step. In a flat journal one thing stays open: work that came
from outside, or from a step that is still running, right after another step was done. There the
definition decides: a tag that the step just done may not emit, but another does, came from there;
one that no step emits came from outside. Entries given in batches, one for each decision, leave
less to that.

This module refuses to know about drawings. It holds no state and reads no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, cast

from stepwell.authoring.drawing.view import OUTSIDE, RunView, StepStatus, StepView, Way
from stepwell.kernel.decide import CHILD, FAILURE
from stepwell.kernel.definition import Definition
from stepwell.kernel.journal import (
    AttemptFailed,
    Digested,
    Entry,
    Joined,
    JoinReleased,
    Published,
    RunEnded,
    RunParked,
    RunResumed,
    RunStarted,
    ScopeEntered,
    Unhandled,
    WaitEnded,
    WaitOpened,
    WorkAdded,
    WorkBegun,
    WorkDone,
    WorkQueued,
)
from stepwell.kernel.outcomes import Message
from stepwell.values import ErrorInfo, RunStatus

__all__ = ["OUTSIDE", "Row", "RunView", "StepStatus", "StepView", "Way", "run_view"]

Row: TypeAlias = tuple[float, Sequence[Entry]]
"""Entries that were decided together, and when (seconds since the epoch)."""


def run_view(definition: Definition, entries: Iterable[Entry | Row | Sequence[Entry]]) -> RunView:
    """What a run did, from its journal.

    Args:
        definition: what was run.
        entries: the journal from its beginning; or batches of entries, one for each decision; or
            such batches with their times, which alone tell how long every step took. The journal
            may end anywhere.

    Example:
        >>> from stepwell.kernel.definition import StepDef
        >>> a = StepDef("a", accepts=("Start",), emits=("Stop",))
        >>> d = Definition("d", (a,), start="Start", ends=("Stop",))
        >>> view = run_view(
        ...     d,
        ...     [
        ...         RunStarted(0.0),
        ...         WorkAdded(1, "a", Message("Start", None), True, 0.0),
        ...         WorkDone(1),
        ...         RunEnded(RunStatus.COMPLETED, 2.0, Message("Stop", None)),
        ...     ],
        ... )
        >>> dict(view.visited)
        {('', 'Start', 'a'): 1, ('a', 'Stop', ''): 1}
        >>> view.steps["a"]
        StepView(status='done', attempts=1, count=1, seconds=2.0, error='')
    """
    reader = _Reader(definition)
    for item in entries:
        if isinstance(item, Sequence):
            at, batch = _timed(item)
            reader.begin_batch(at)
            for entry in batch:
                reader.read(entry)
            reader.begin_batch()
        else:
            reader.read(item)
    return reader.view()


def _timed(item: Row | Sequence[Entry]) -> tuple[float | None, Sequence[Entry]]:
    if item and isinstance(item[0], float | int):
        at, batch = cast(Row, item)
        return at, batch
    return None, cast("Sequence[Entry]", item)


@dataclass(slots=True)
class _Work:
    step: str
    began: float | None
    attempts: int
    status: StepStatus
    over: bool = False


@dataclass(slots=True)
class _Tally:
    attempts: int = 0
    count: int = 0
    seconds: float = 0.0
    timed: bool = False
    untimed: bool = False
    failed: bool = False
    error: str = ""
    open: dict[int, None] = field(default_factory=dict[int, None])


class _Reader:
    """Goes through a journal once."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.work: dict[int, _Work] = {}
        self.steps: dict[str, _Tally] = {}
        self.visited: dict[Way, int] = {}
        self.emitted: dict[tuple[str, str], int] = {}
        self.waits: dict[str, str] = {}
        self.own: dict[str, str] = {}
        self.status = RunStatus.QUEUED
        self.error = ""
        self.emitters: dict[str, list[str]] = {}
        for step in definition.steps:
            for tag in (*step.emits, *step.opens):
                self.emitters.setdefault(tag, []).append(step.name)
        self.at: float | None = None
        self.source = OUTSIDE
        self.released = False
        self.scoped = False
        self.ending: tuple[_Tally, _Work] | None = None
        self.last: tuple[Message, str, int] | None = None

    def begin_batch(self, at: float | None = None) -> None:
        """What follows belongs to another decision, made `at`."""
        self.at = at
        self.source = OUTSIDE
        self.released = False
        self.last = None
        self._forget()

    def read(self, e: Entry) -> None:
        match e:
            case RunStarted() | RunResumed():
                self.begin_batch(self.at)
                self.status = RunStatus.RUNNING
            case RunParked():
                self.begin_batch(self.at)
                self.status = RunStatus.PARKED
            case WorkAdded():
                self._added(e)
            case WorkBegun():
                self._begun(e)
            case WorkQueued():
                self.work[e.id].status = "queued"
            case WorkDone():
                self._done(e)
            case AttemptFailed():
                self._failed(e)
            case Joined():
                self._travel(e.message, e.step, e.slot)
            case JoinReleased():
                self.released = True
            case WaitOpened():
                self._wait(e)
            case Digested() if e.work in self.work:
                self.source = self.work[e.work].step  # what it sends follows
            case WaitEnded():
                self._answered(e)
            case Published(messages=messages, work=None):
                for message in messages:
                    self._travel(message, OUTSIDE)
            case Unhandled():
                if not e.kept:
                    self._travel(e.message, OUTSIDE)
            case ScopeEntered():
                self.scoped = True
                self._result(e.result)
                self.released = True  # what follows is clean-up, added for no message of a step
            case RunEnded():
                self._ended(e)
            case _:
                pass

    # --- work ---

    def _added(self, e: WorkAdded) -> None:
        tally = self.steps.setdefault(e.step, _Tally())
        tally.count += 1
        tally.attempts += e.begun
        tally.open[e.id] = None
        phase: StepStatus = (
            "running" if e.begun else "queued" if e.not_before is None else "waiting"
        )
        self.work[e.id] = _Work(e.step, e.at if e.begun else None, int(e.begun), phase)
        if self.released:
            self.released = False
            if isinstance(e.message, Message):  # into a scope, not out of a join
                self._go(OUTSIDE, e.message.tag, e.step)
        elif isinstance(e.message, Message):
            source = self._travel(e.message, e.step)
            if self.ending is not None and source != self.ending[1].step:
                self._forget()
        self._ends(e.at)

    def _begun(self, e: WorkBegun) -> None:
        work = self.work[e.id]
        if self.ending is not None and self.ending[1].step == work.step:
            self._ends(e.at)  # it took the worker slot that has just got free
        self.begin_batch(self.at)
        if work.attempts == 0 or work.over:
            work.attempts += 1
            self.steps[work.step].attempts += 1
        if work.began is None:
            work.began = e.at
        work.over = False
        work.status = "running"

    def _failed(self, e: AttemptFailed) -> None:
        work = self.work[e.id]
        work.over = True
        work.status = "retrying" if e.retry_at is not None else "failed"
        tally = self.steps[work.step]
        tally.error = _said(e.error)
        if e.retry_at is None:
            tally.failed = True
            self._took(tally, work, e.at)

    def _done(self, e: WorkDone) -> None:
        work = self.work.pop(e.id)
        tally = self.steps[work.step]
        tally.open.pop(e.id, None)
        if work.status != "failed":
            self._forget()
            self.ending = (tally, work)
            if self.at is not None:
                self._ends(self.at)
        self.source = work.step
        self.last = None

    def _took(self, tally: _Tally, work: _Work, at: float) -> None:
        if work.began is not None:
            tally.seconds += max(0.0, at - work.began)
            tally.timed = True

    def _ends(self, at: float) -> None:
        """The decision that ended the last work says its time."""
        if self.ending is not None:
            self._took(*self.ending, at)
            self.ending = None

    def _forget(self) -> None:
        """The decision that ended the last work is over, and did not say its time."""
        if self.ending is not None:
            self.ending[0].untimed = True
            self.ending = None

    # --- waits ---

    def _wait(self, e: WaitOpened) -> None:
        if e.work:
            work = self.work[e.work]
            work.status = "waiting"
            self.waits[e.id] = work.step
            if e.question is not None:
                self._go(work.step, e.question.tag, OUTSIDE)
                self._count(work.step, e.question.tag)
        elif self.source:
            self.own[e.id] = self.source  # the run itself waits, and goes on from there
        self.last = None

    def _answered(self, e: WaitEnded) -> None:
        step = self.waits.pop(e.id, None)
        if e.id in self.own:
            self.source = self.own.pop(e.id)
            return
        if step is not None and e.work in self.work:
            self.work[e.work].status = "queued"
        if step is None or (e.answer is not None and e.answer.tag not in self.emitters):
            self.source = OUTSIDE  # an answer that no step emits; it also moves a run that waited
        if step is not None and e.answer is not None and e.answer.tag != CHILD:
            self._travel(e.answer, step)

    # --- messages ---

    def _travel(self, message: Message, target: str, slot: int = -1) -> str:
        source = self._from(message.tag)
        place = self._place(message, target, slot)
        last = self.last
        more = (
            last is not None
            and message.to is None
            and last[1] == source
            and last[0].tag == message.tag
            and last[2] < place  # the message that was just routed, on its way to one more step
        )
        if not more:
            self._count(source, message.tag)
        self.last = (message, source, place)
        if slot > 0 and last is not None and last[0] is message:
            return source  # the same message in one more slot of the same join
        self._go(source, message.tag, target)
        return source

    def _from(self, tag: str) -> str:
        """Which step emitted a message that is decided about now."""
        emitters = self.emitters.get(tag, ())
        just = self.source
        if just and (just in emitters or tag == FAILURE):
            return just
        if tag == self.definition.start:
            return OUTSIDE
        busy = {work.step for work in self.work.values() if work.status == "running"}
        alive = [name for name in emitters if name in busy]
        if len(alive) == 1:
            return alive[0]
        return just if just and not emitters and self._is_free(just, tag) else OUTSIDE

    def _is_free(self, step: str, tag: str) -> bool:
        """Whether a step may emit a tag that no step says it emits: it says nothing at all of what
        it emits, or no step takes the tag by its name, so that it cannot be a signal."""
        said = self.definition.by_name[step]
        return not (said.emits or said.opens) or tag not in self.definition.routes

    def _place(self, message: Message, target: str, slot: int) -> int:
        """The position among the routes of a message, which are taken in order."""
        if target == OUTSIDE:
            return -1
        d = self.definition
        routes = [*d.routes.get(message.tag, ())]
        for kind in message.kinds:
            routes += d.by_kind.get(kind, ())
        for position, route in enumerate(routes):
            if route.step.name == target and route.slot in (slot, -1):
                return position
        return len(routes)

    def _go(self, source: str, tag: str, target: str) -> None:
        way = (source, tag, target)
        self.visited[way] = self.visited.get(way, 0) + 1

    def _count(self, source: str, tag: str) -> None:
        self.emitted[source, tag] = self.emitted.get((source, tag), 0) + 1

    # --- the end ---

    def _result(self, result: Message | None) -> None:
        if result is not None:
            self._travel(result, OUTSIDE)

    def _ended(self, e: RunEnded) -> None:
        self._ends(e.at)
        if not self.scoped:
            self._result(e.result)
        self.status = e.status
        if e.error is not None:
            self.error = _said(e.error)
        for work in self.work.values():
            if work.status != "failed":
                work.status = "stopped"

    def view(self) -> RunView:
        steps = {name: self._step(tally) for name, tally in self.steps.items()}
        for name in self.own.values():  # nothing of the step is left, but the run is still there
            if not self.status.terminal:
                steps[name] = replace(steps[name], status="waiting")
        return RunView(self.visited, steps, self.emitted, self.status, self.error)

    def _step(self, tally: _Tally) -> StepView:
        if tally.open:
            newest = next(reversed(tally.open))
            status = self.work[newest].status
        else:
            status = cast(StepStatus, "failed" if tally.failed else "done")
        took = tally.seconds if tally.timed and not tally.untimed else None
        return StepView(status, tally.attempts, tally.count, took, tally.error)


def _said(error: ErrorInfo) -> str:
    """An error beside a picture: as much of it as anyone reads there."""
    return f"{error.type.removeprefix('builtins.')}: {error.message:.1000}"
