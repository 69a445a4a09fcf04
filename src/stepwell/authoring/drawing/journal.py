"""What can be told of a workflow from the journal of one of its runs, without its code.

A journal names the steps that were given work, and the messages that were decided about together
with the end of the step that emitted them. That is enough to draw what the run did. What it never
came to is not in there: those steps are missing, and so are limits, retries and titles.

This module refuses to guess: a message whose emitter the journal does not tell comes from outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from stepwell.authoring.drawing.states import machine_seen
from stepwell.kernel.decide import FAILURE, JOINED
from stepwell.kernel.definition import Definition, Join, StepDef
from stepwell.kernel.journal import (
    Digested,
    Entry,
    Joined,
    JoinReleased,
    Published,
    RunEnded,
    ScopeEntered,
    StreamOpened,
    Unhandled,
    WorkAdded,
    WorkDone,
)
from stepwell.kernel.outcomes import Message


@dataclass(slots=True)
class _Seen:
    """What was seen of a step. The dictionaries are ordered sets."""

    accepts: dict[str, None] = field(default_factory=dict[str, None])
    slots: dict[int, dict[str, None]] = field(default_factory=dict[int, dict[str, None]])
    emits: dict[str, None] = field(default_factory=dict[str, None])
    opens: dict[str, None] = field(default_factory=dict[str, None])
    collects: bool = False


def definition_seen(name: str, batches: Iterable[Sequence[Entry]]) -> Definition:
    """What a run shows of its workflow.

    Args:
        name: what to call it.
        batches: the journal from its beginning, a batch for each decision; it may end anywhere.

    Example:
        >>> from stepwell.kernel.journal import RunStarted
        >>> start = [RunStarted(0.0), WorkAdded(1, "a", Message("Start", None), True, 0.0)]
        >>> end = [WorkDone(1), WorkAdded(2, "b", Message("Middle", None), True, 1.0)]
        >>> [(step.name, step.emits) for step in definition_seen("d", [start, end]).steps]
        [('a', ('Middle',)), ('b', ())]
    """
    batches = [*batches]
    machine = machine_seen(name, batches)
    if machine is not None:
        return machine
    reader = _Reader()
    for batch in batches:
        reader.source = None
        reader.opening = False
        for entry in batch:
            reader.read(entry)
    return reader.definition(name)


class _Reader:
    """Goes through a journal once."""

    def __init__(self) -> None:
        self.steps: dict[str, _Seen] = {}
        self.work: dict[int, str] = {}
        self.start = ""
        self.ends: dict[str, None] = {}
        self.published: dict[str, None] = {}
        self.source: str | None = None
        self.opening = False

    def read(self, e: Entry) -> None:
        match e:
            case WorkAdded(id=id, step=step, message=message):
                self.work[id] = step
                seen = self.step(step)
                if isinstance(message, Message):
                    if message.tag != JOINED:
                        seen.accepts[message.tag] = None
                    if not self.start:
                        self.start = message.tag
                    elif message.tag != FAILURE:
                        self.emitted(message)
            case WorkDone(id=id):
                self.source = self.work.pop(id, None)
            case Digested(work=id):
                self.source = self.work.get(id)
            case StreamOpened():
                self.opening = True
            case Joined(step=step, slot=slot, message=message):
                self.step(step).slots.setdefault(slot, {})[message.tag] = None
                self.emitted(message)
            case JoinReleased(step=step, over=over):
                self.step(step).collects |= over
            case Published(messages=messages, work=None):
                for message in messages:
                    if self.emitted(message):
                        self.published[message.tag] = None
            case Unhandled(message=message, kept=False):
                self.emitted(message)
            case ScopeEntered(result=Message() as result) | RunEnded(result=Message() as result):
                self.ends[result.tag] = None
                self.emitted(result)
                self.source = None
            case _:
                pass

    def step(self, name: str) -> _Seen:
        return self.steps.setdefault(name, _Seen())

    def emitted(self, message: Message) -> bool:
        if self.source is None:
            return False
        seen = self.step(self.source)
        (seen.opens if self.opening else seen.emits)[message.tag] = None
        return True

    def definition(self, name: str) -> Definition:
        steps = tuple(_step(step, seen) for step, seen in self.steps.items())
        published = tuple(tag for tag in self.published if tag not in self.ends)
        return Definition(name, steps, start=self.start, ends=tuple(self.ends), publishes=published)


def _step(name: str, seen: _Seen) -> StepDef:
    join = None
    if seen.slots:
        slots = tuple(tuple(seen.slots[n]) for n in sorted(seen.slots))
        join = Join("collect" if seen.collects or len(slots) == 1 else "all_of", slots)
    accepts = tuple(seen.accepts) if join is None else ()
    return StepDef(name, accepts, join=join, emits=tuple(seen.emits), opens=tuple(seen.opens))
