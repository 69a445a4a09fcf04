"""A run that goes on from any prefix of its journal ends as the run that was never interrupted.

The handlers here are scripts: what a body asks, sends and returns follows from its step, its input
and the number of its attempt, so any difference at the end is the kernel's.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernel.playing import START, check, message

from stepwell.kernel.decide import advance
from stepwell.kernel.definition import Definition, Join, StepDef
from stepwell.kernel.inputs import (
    Asked,
    Attempted,
    ChildAsked,
    ChildEnded,
    Due,
    Gathered,
    Loaded,
    Noted,
    Sent,
    Start,
)
from stepwell.kernel.journal import Entry, WorkAdded
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
from stepwell.kernel.run import RUNNING, Run, Work, fold, next_due, pending
from stepwell.values import ErrorInfo, RunStatus

BROKEN = ErrorInfo("builtins.ValueError", "broken")

Ask = tuple[str, str]
Script = tuple[list[Ask], list[Outcome]]


class Shell:
    """Runs scripts; it can be killed after any input, since it keeps nothing but the journal."""

    def __init__(
        self, d: Definition, scripts: Mapping[str, Script], journal: list[list[Entry]]
    ) -> None:
        self.d = d
        self.scripts = scripts
        self.turns = copy.deepcopy(journal)
        self.run = fold(Run("r"), [e for turn in copy.deepcopy(journal) for e in turn])
        self.at = max(self.run.at, 100.0)
        if journal:
            self.feed(Loaded(self.at, "w"))

    def feed(self, input: object) -> None:
        self.turns.append(copy.deepcopy(advance(self.d, self.run, input)))  # pyright: ignore
        check(self.d, self.run)

    def play(self) -> Run:
        if not self.run.begun:
            self.feed(Start(self.at, START))
        for _ in range(500):
            if self.run.ended is not None:
                return self.run
            ready = [w for w in pending(self.run).attempts if w.phase == RUNNING]
            children = self.run.children()
            due = next_due(self.run)
            if ready:
                self.go_on(min(ready, key=lambda w: w.id))
            elif children:
                result = Message("Result", children[0])
                self.feed(
                    ChildEnded(self.at, ChildResult(children[0], RunStatus.COMPLETED, result))
                )
            elif due is not None:
                self.at = max(self.at, due)
                self.feed(Due(self.at))
            else:
                raise AssertionError(f"nothing moves {self.run}")
        raise AssertionError("it does not end")

    def go_on(self, work: Work) -> None:
        asks, outcomes = self.scripts[work.step]
        answers = work.answers or {}
        for number, (kind, what) in enumerate(asks):
            key = f"{kind}:{number}"
            match kind:
                case "sleep" if key not in answers:
                    self.feed(Asked(self.at, work.id, key, f"{work.id}{key}", None, None, 5.0))
                    return
                case "child" if key not in answers:
                    self.feed(ChildAsked(self.at, work.id, key, f"{work.id}{key}", what, START))
                    return
                case "memo" if key not in answers:
                    self.feed(Noted(self.at, work.id, key, message("memo", what)))
                case "gather" if key not in answers:
                    m = message("A", work.id)
                    self.feed(Gathered(self.at, work.id, key, "b", m, ("A", "A")))
                case "send" if number not in (work.digests or ()):
                    self.feed(Sent(self.at, work.id, [message(what)], [number]))
                case _:
                    continue
            return
        outcome = copy.deepcopy(outcomes[min(work.attempt, len(outcomes)) - 1])
        self.feed(Attempted(self.at, work.id, outcome))


def done(journal: list[list[Entry]]) -> list[tuple[str, object]]:
    """Which work there was, with which input, in order."""
    return [(e.step, e.message) for turn in journal for e in turn if isinstance(e, WorkAdded)]


STEPS = {
    "fan": (
        [("memo", "x"), ("sleep", "")],
        [Fail(BROKEN, 2.0), Emit(tuple(message("A", n) for n in range(3)), stream=True)],
    ),
    "work": ([("gather", ""), ("child", "W")], [Emit((message("B", 1),))]),
    "flaky": ([("send", "A")], [Fail(BROKEN, 0.0), Fail(BROKEN), Emit()]),
    "rescue": ([], [Emit((message("C", "rescued"),))]),
    "collect": ([("sleep", "")], [Emit((message("C", "collected"), message("D")))]),
    "both": ([], [Sleep(3.0, "wait", message("W"))]),
    "wait": ([], [WaitFor("Never", message("W"), "nap", timeout=7.0, on_timeout="nap")]),
    "nap": ([], [Spawn("Other", message("S"), "last")]),
    "last": ([("memo", "y")], [Goto("stop", message("Z"))]),
    "stop": ([], [Complete(message("Result", 7))]),
    "bad": ([], [Fail(BROKEN, 1.0), Fail(BROKEN)]),
    "clean": ([("sleep", "")], [Emit((message("More"),))]),
    "more": ([], [Complete(message("Unused"))]),
}


def definition(end: str, workers: int) -> Definition:
    stop = StepDef("stop") if end == "well" else StepDef("stop", timeout=50.0)
    return Definition(
        "d",
        (
            StepDef("fan", accepts=("Start",), collectors=("collect",)),
            StepDef("flaky", accepts=("Start",), on_error="rescue"),
            StepDef("work", accepts=("A",), workers=workers),
            StepDef("rescue"),
            StepDef("collect", join=Join("collect", (("B",),))),
            StepDef("both", join=Join("all_of", (("C",), ("D",)))),
            *(StepDef(name) for name in ("wait", "nap", "last")),
            stop,
            StepDef("bad", accepts=("D",) if end == "badly" else ()),
            StepDef("clean"),
            StepDef("more", accepts=("More",)),
        ),
        timeout=None if end == "well" else 10_000.0,
        on_exit="clean",
    )


@pytest.mark.parametrize("end", ["well", "badly"])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_run_killed_after_any_turn_ends_as_if_it_had_not_been(end: str, workers: int) -> None:
    d = definition(end, workers)
    whole = Shell(d, STEPS, [])
    whole.play()
    assert whole.run.ended is (RunStatus.COMPLETED if end == "well" else RunStatus.FAILED)
    assert len(whole.turns) > 20
    for killed in range(1, len(whole.turns)):
        again = Shell(d, STEPS, whole.turns[:killed])
        run = again.play()
        assert (run.ended, run.result, run.error) == (
            whole.run.ended,
            whole.run.result,
            whole.run.error,
        )
        assert done(again.turns) == done(whole.turns), killed


@settings(max_examples=50)
@given(st.sampled_from(["well", "badly"]), st.lists(st.integers(1, 12), max_size=20))
def test_a_run_killed_again_and_again_ends_as_if_it_had_not_been(
    end: str, kills: list[int]
) -> None:
    d = definition(end, 2)
    whole = Shell(d, STEPS, [])
    whole.play()
    journal: list[list[Entry]] = []
    for more in kills:
        shell = Shell(d, STEPS, journal)
        shell.play()
        journal = shell.turns[: len(journal) + 1 + more]
    last = Shell(d, STEPS, journal)
    last.play()
    assert (last.run.ended, last.run.result) == (whole.run.ended, whole.run.result)
    assert done(last.turns) == done(whole.turns)
