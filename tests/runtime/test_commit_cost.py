"""What a commit says of a run costs the same however much the run waits for. Calls are counted."""

from __future__ import annotations

import gc
import sys

from tests.kernel.playing import START, message

from stepwell.kernel.decide import advance
from stepwell.kernel.definition import Definition, StepDef
from stepwell.kernel.inputs import Asked, Loaded, Start
from stepwell.kernel.run import Run, next_due, next_due_away, pending
from stepwell.runtime.views import SHOWN, run_detail

LIMITED = Definition("w", (StepDef("s", accepts=("Start",)),), timeout=60.0)


def waiting(waits: int) -> Run:
    """A run with a limit of its time, whose one step waits for so many answers, each with a time of
    its own, later than the limit."""
    run = Run("r")
    advance(LIMITED, run, Start(0.0, START))
    (work,) = run.work
    for n in range(waits):
        asked = Asked(1.0, work, f"k{n}", f"w{n}", "Go", None, 100.0 + n, message("Question"))
        advance(LIMITED, run, asked)
    return run


def calls(waits: int) -> int:
    """How many Python functions it takes to say how the run stands. A collection of garbage in the
    middle would call whoever listens to the collector (hypothesis does), so it waits."""
    run, count = waiting(waits), 0
    next_due_away(run)
    collecting = gc.isenabled()
    gc.disable()

    def counted(_frame: object, event: str, _arg: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(counted)
    try:
        run_detail(run)
        next_due_away(run)
    finally:
        sys.setprofile(None)
        if collecting:
            gc.enable()
    return count


def test_a_commit_of_a_run_that_waits_for_much_costs_as_one_that_waits_for_a_little() -> None:
    assert calls(4000) == calls(4 * SHOWN)


def test_the_limit_of_its_time_does_not_run_out_while_nobody_holds_it() -> None:
    run = waiting(3)
    assert (next_due(run), next_due_away(run)) == (60.0, 101.0)
    assert next_due(run) == 60.0  # looking has changed nothing
    advance(LIMITED, run, Loaded(500.0, "another"))
    assert next_due_away(run) == pending(run).due == 101.0
    assert next_due_away(waiting(0)) is None
    assert next_due_away(Run("new")) is None
