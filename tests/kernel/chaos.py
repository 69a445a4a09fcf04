"""Random definitions, and a shell that does random things to a run of one: valid and invalid.

A command is three small numbers; what they mean depends on what the run owes at that moment, so
Hypothesis can leave commands out and make numbers smaller, and what is left still means something.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeAlias

from hypothesis import strategies as st

from stepwell.kernel.definition import Definition, Join, StepDef
from stepwell.kernel.inputs import (
    Arrived,
    Asked,
    Attempted,
    CancelAsked,
    ChildAsked,
    ChildEnded,
    Due,
    Edited,
    Gathered,
    Input,
    Loaded,
    Noted,
    ParkAsked,
    ResumeAsked,
    Sent,
    Start,
    Wrote,
)
from stepwell.kernel.outcomes import (
    ChildResult,
    Complete,
    Emit,
    Fail,
    Goto,
    Message,
    Outcome,
    Sleep,
    Spawn,
    WaitFor,
)
from stepwell.kernel.run import Run, next_due
from stepwell.values import ErrorInfo, RunStatus

TAGS = ["Start", "A", "B", "C", "D", "Stop", "Show"]
NAMES = ["s0", "s1", "s2", "s3", "s4"]
STATUSES = [s for s in RunStatus if s.terminal]

Command: TypeAlias = tuple[int, int, int]


def _many(seed: int) -> list[Command]:
    """Hypothesis likes short lists; long ones come from a seed."""
    random = Random(seed)
    return [
        (random.randrange(41), random.randrange(41), random.randrange(41))
        for _ in range(random.randrange(20, 120))
    ]


commands = st.lists(st.tuples(*(st.integers(0, 40) for _ in range(3))), max_size=30) | st.integers(
    0, 2**32
).map(_many)

_tags = st.lists(st.sampled_from(TAGS[:5]), min_size=1, max_size=2, unique=True).map(tuple)
_joins = st.builds(
    Join,
    st.just("collect"),
    st.tuples(_tags),
    st.none() | st.integers(1, 2),
    st.sampled_from(["arrival", "input"]),
) | st.builds(Join, st.just("all_of"), st.sampled_from([(("A",), ("B",)), (("C",), ("A", "D"))]))


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    """Any definition that a compiler might make."""
    names = NAMES[: draw(st.integers(1, 5))]
    joins = {name: draw(st.none() | _joins) if name != "s0" else None for name in names}
    collectors = [name for name, join in joins.items() if join is not None and join.take != 0]
    collectors = [name for name in collectors if joins[name].kind == "collect"]  # pyright: ignore
    plain = [name for name, join in joins.items() if join is None]
    some = st.none() | st.sampled_from(plain)
    steps: list[StepDef] = []
    for name, join in joins.items():
        steps.append(
            StepDef(
                name,
                accepts=("Start",) if name == "s0" else draw(_tags) if join is None else (),
                subclasses=draw(st.booleans()),
                join=join,
                workers=draw(st.integers(0, 2)),
                timeout=draw(st.sampled_from([None, None, 3.0])),
                on_error=draw(some),
                recoveries=draw(st.integers(1, 2)),
                collectors=tuple(collectors) if draw(st.booleans()) else (),
            )
        )
    return Definition(
        "chaos",
        tuple(steps),
        entry=draw(st.sampled_from([None, "s0"])),
        ends=("Stop",),
        publishes=("Show",),
        timeout=draw(st.sampled_from([None, 50.0])),
        on_error=draw(some),
        on_exit=draw(some),
    )


class Chaos:
    """Turns commands into inputs."""

    def __init__(self, d: Definition, run: Run) -> None:
        self.d = d
        self.run = run
        self.at = 100.0
        self.number = 0

    def input(self, command: Command) -> Input:
        op, x, y = command
        self.number += 1
        self.at += (y % 3) * 0.5
        return self._OPS[op % len(self._OPS)](self, x, y)

    # --- parts -----------------------------------------------------------------------------------

    def work(self, x: int) -> int:
        """Mostly work that runs, now and then any other number."""
        busy = [w.id for w in self.run.work.values() if w.attempt and not w.over]
        if x % 13 == 12 or not busy:
            return x % 20
        return busy[x % len(busy)]

    def message(self, x: int, y: int) -> Message:
        to = ("s1" if y % 2 else "nobody") if y % 17 == 16 else None
        kinds = ("A",) if y % 11 == 10 else ()
        tag = TAGS[x % len(TAGS)]
        if tag == "Stop" and y % 3:
            tag = "C"
        return Message(tag, {"n": y % 2}, to, kinds)

    def where(self, y: int) -> dict[str, int] | None:
        return {"n": y % 2} if y % 3 == 0 else None

    def step(self, x: int) -> str:
        return (*self.d.by_name, "nowhere")[x % (len(self.d.by_name) + 1)]

    def outcome(self, x: int, y: int) -> Outcome:
        m = self.message(x, y)
        match y % 12:
            case 0 | 1 | 2:
                return Emit(tuple(self.message(x + i, y + i) for i in range(y % 4)))
            case 3 | 4:
                return Emit(tuple(self.message(x + i // 2, i) for i in range(x % 5)), stream=True)
            case 5:
                return Fail(ErrorInfo("E", str(x)), (0.0, 1.0, 2.0)[x % 3])
            case 6:
                return Fail(ErrorInfo("E", str(x)), (None, 1.0)[x % 2], x % 5 == 4)
            case 7:
                return Goto(self.step(x), m)
            case 8:
                return Sleep(float(x % 4), self.step(x), m)
            case 9:
                then = (None, self.step(x))[x % 5 > 0]
                limit = (None, 2.0)[x % 2]
                return WaitFor(m.tag, m, then, self.where(x), limit, (None, "s0")[x % 3 > 0])
            case 10:
                return Spawn("Other", m, self.step(x))
            case _:
                return Complete(m) if x % 4 == 0 else Emit((m,))

    # --- operations ------------------------------------------------------------------------------

    def start(self, x: int, y: int) -> Input:
        return Start(self.at, Message("Start", {"n": 0}))

    def end(self, x: int, y: int) -> Input:
        edits = [{"op": "add", "path": "/a", "value": x}] if x % 3 == 0 else ()
        return Attempted(self.at, self.work(y), self.outcome(x, x + y), edits)

    def arrive(self, x: int, y: int) -> Input:
        waits = [*(self.run.waits or {}), "w1", "w2"]
        return Arrived(self.at, self.message(x, y), waits[x % len(waits)] if y % 3 == 0 else None)

    def ask(self, x: int, y: int) -> Input:
        wait = ("w1", "w2")[x % 2] if x % 7 == 6 else f"w{self.number}"
        tag = (None, *TAGS[1:5])[y % 5]
        limit = 2.0 if tag is None or y % 2 else None
        question = self.message(x, y) if y % 4 == 0 else None
        work, key = self.work(x), f"k{y % 3}"
        return Asked(self.at, work, key, wait, tag, self.where(x), limit, question)

    def note(self, x: int, y: int) -> Input:
        return Noted(self.at, self.work(x), f"memo{y % 3}", self.message(x, y))

    def gather(self, x: int, y: int) -> Input:
        expected = (("A", "B"), ("A", "A"), ("B", "A", "C"))[y % 3]
        m = Message(("A", "B", "C", "D")[x % 4], {"n": y})
        return Gathered(self.at, self.work(x), f"g{self.number - y % 2}", "ab"[x % 2], m, expected)

    def send(self, x: int, y: int) -> Input:
        messages = [self.message(x + i, y + i) for i in range(y % 3)]
        return Sent(self.at, self.work(x), messages, list(range(y % 3)))

    def write(self, x: int, y: int) -> Input:
        return Wrote(self.at, [self.message(x, y)], self.work(x) if y % 2 else None, [y])

    def child(self, x: int, y: int) -> Input:
        m = self.message(x, y)
        return ChildAsked(self.at, self.work(x), f"c{y % 2}", f"child{y % 4}", "Other", m)

    def child_ends(self, x: int, y: int) -> Input:
        ids = (*self.run.children(), "child0", "child1")
        result = self.message(x, y) if y % 2 else None
        return ChildEnded(self.at, ChildResult(ids[x % len(ids)], STATUSES[y % 4], result))

    def due(self, x: int, y: int) -> Input:
        due = next_due(self.run)
        self.at = max(self.at, due) if due is not None and x % 2 else self.at + y / 4
        return Due(self.at)

    def rarely(self, x: int, y: int) -> Input:
        match y % 9:
            case 0:
                return CancelAsked(self.at)
            case 1 | 2:
                return ParkAsked(self.at, "why")
            case 3 | 4 | 5:
                return ResumeAsked(self.at)
            case 6:
                upon = {self.work(x): {"b": y + 1}} if x % 2 else None
                return Edited(self.at, [{"op": "add", "path": "/b", "value": y}], upon)
            case _:
                self.at += x
                return Loaded(self.at, "w")

    _OPS: tuple[Callable[..., Input], ...] = (
        end,
        end,
        end,
        arrive,
        ask,
        end,
        due,
        send,
        child,
        child_ends,
        gather,
        note,
        write,
        rarely,
        start,
        end,
        ask,
        arrive,
    )
