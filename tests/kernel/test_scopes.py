"""How runs end: the error scope, the exit scope, cancelling, and that an end is final."""

from __future__ import annotations

import pytest
from tests.kernel.playing import START, Play, error, message

from stepwell.kernel.decide import FAILURE
from stepwell.kernel.definition import Join, StepDef
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
from stepwell.kernel.journal import RunEnded, ScopeEntered, Unhandled, WorkAdded
from stepwell.kernel.outcomes import ChildResult, Complete, Emit, Fail, Failure, Message
from stepwell.kernel.run import next_due, pending
from stepwell.values import ErrorInfo, RunStatus

S = StepDef("s", accepts=("Start",))
ERR, EXIT, MORE = StepDef("err"), StepDef("exit"), StepDef("more", accepts=("More",))


def scoped(*steps: StepDef, timeout: float | None = None) -> Play:
    play = Play(S, ERR, EXIT, MORE, *steps, on_error="err", on_exit="exit", timeout=timeout)
    return play.start()


# --- the error scope -----------------------------------------------------------------------------


def test_a_failure_nobody_took_enters_the_error_scope_and_ends_all_normal_work() -> None:
    play = scoped(StepDef("w", accepts=("A",)))
    play.at += 1.0
    play.emit("s", "A", "A", "More")
    play.fail("w")
    failure = Failure("w", message("A"), error(), 1, 0.0, 101.0)
    assert play.decided(ScopeEntered) == [
        ScopeEntered("error", RunStatus.FAILED, None, error(), "w", (), 1, 0.0)
    ]
    assert play.decided(WorkAdded)[0].message == Message(FAILURE, failure)
    assert play.running() == ["err"]


def test_after_the_error_scope_comes_the_exit_scope_and_then_the_run_fails_with_the_error() -> None:
    play = scoped()
    play.at += 2.0
    play.fail("s")
    play.emit("err", "More")
    assert play.running() == ["more"]
    play.complete("more")
    assert play.running() == ["exit"]
    play.at += 9.0
    play.complete("exit")
    assert play.last[-1] == RunEnded(
        RunStatus.FAILED, 111.0, None, error(), "s", attempts=1, elapsed=2.0
    )


def test_a_failure_in_the_error_scope_is_the_error_of_the_run() -> None:
    play = scoped()
    play.fail("s")
    play.feed(Attempted(100.0, play.work("err").id, Fail(error("second"))))
    play.complete("exit")
    assert play.run.error == error("second")
    assert play.run.failed_step == "err"


# --- the exit scope ------------------------------------------------------------------------------


def test_the_exit_scope_runs_before_a_success_too() -> None:
    play = scoped()
    play.complete("s", 7)
    assert play.status is RunStatus.RUNNING
    play.emit("exit", "More")
    play.complete("more", "unused")
    assert play.status is RunStatus.COMPLETED
    assert play.run.result == Message("Result", 7)


@pytest.mark.parametrize("scope", ["error", "exit"])
def test_a_scope_that_owes_nothing_any_more_is_over(scope: str) -> None:
    play = scoped()
    if scope == "error":
        play.fail("s")
        play.emit("err")
        play.emit("exit")
        assert play.status is RunStatus.FAILED
    else:
        play.complete("s", 7)
        play.emit("exit", "nobody takes this", "More")
        play.emit("more")
        assert play.status is RunStatus.COMPLETED


def test_steps_of_the_exit_scope_emit_as_many_messages_as_they_like() -> None:
    play = scoped(StepDef("two", accepts=("Two",), workers=1))
    play.complete("s")
    play.emit("exit", "nobody takes this", "More", "Two", "Two")
    assert play.running() == ["more", "two"]
    play.emit("two")
    assert play.running() == ["more", "two"]


def test_clean_up_that_fails_spoils_a_success() -> None:
    play = scoped()
    play.complete("s", 7)
    play.fail("exit")
    assert (play.status, play.run.error) == (RunStatus.FAILED, error())
    assert (play.run.failed_step, play.run.result) == ("exit", None)


def test_clean_up_that_fails_keeps_an_earlier_error() -> None:
    play = scoped()
    play.cancel()
    play.at += 5.0
    play.fail("exit")
    assert play.status is RunStatus.CANCELLED
    assert play.run.error == ErrorInfo("stepwell.errors.WorkflowCancelledByUser", "enough")
    assert (play.run.failed_step, play.run.failed_after) == (None, (0, 0.0))


def test_the_runs_time_limit_does_not_hold_for_clean_up() -> None:
    play = scoped(timeout=10.0)
    play.after(10.0)
    assert play.running() == ["exit"]
    assert next_due(play.run) is None
    play.feed(Loaded(200.0, "w"))
    assert next_due(play.run) is None
    play.complete("exit")
    assert play.status is RunStatus.TIMED_OUT


def test_a_step_of_clean_up_has_its_own_time_limit() -> None:
    play = Play(S, StepDef("exit", timeout=3.0), on_exit="exit").start()
    play.complete("s")
    assert pending(play.run).due == 103.0


# --- cancelling ----------------------------------------------------------------------------------


def test_cancelling_ends_the_run_and_names_its_children() -> None:
    play = Play(S).start()
    play.child("s", "c1", "k1")
    play.child(1, "c2", "k2")
    play.cancel()
    assert play.decided(RunEnded)[0].cancel == ("c1", "c2")
    assert play.status is RunStatus.CANCELLED


def test_a_cancelled_run_still_says_what_it_owed() -> None:
    play = Play(S).start()
    play.cancel()
    assert [w.step for w in play.run.work.values()] == ["s"]
    assert pending(play.run).attempts == ()


def test_cancelling_before_the_start_ends_the_run_without_clean_up() -> None:
    play = Play(S, EXIT, on_exit="exit")
    play.cancel()
    assert play.status is RunStatus.CANCELLED
    assert play.feed(Start(100.0, START)) == []


def test_cancelling_during_clean_up_changes_nothing() -> None:
    play = scoped()
    play.complete("s", 7)
    assert play.cancel() == []
    play.complete("exit")
    assert play.status is RunStatus.COMPLETED


def test_cancelling_during_the_error_scope_goes_on_with_the_exit_scope() -> None:
    play = scoped()
    play.fail("s")
    play.cancel()
    assert play.running() == ["exit"]
    play.complete("exit")
    assert play.status is RunStatus.CANCELLED


@pytest.mark.parametrize("tag, to", [("More", None), ("Start", "s"), ("Stop", None)])
def test_once_cancelled_nothing_from_outside_starts_a_normal_step_or_cuts_clean_up_short(
    tag: str, to: str | None
) -> None:
    play = scoped()
    play.cancel()
    play.feed(Arrived(100.0, message(tag, None, to)))
    assert play.last == [Unhandled(message(tag, None, to), kept=True)]
    assert play.running() == ["exit"]


def test_a_message_from_outside_answers_what_clean_up_waits_for() -> None:
    play = scoped()
    play.cancel()
    play.ask("exit", "Go")
    play.arrive("Go")
    assert play.running() == ["exit"]


@pytest.mark.parametrize("how", ["emit", "send"])
def test_what_follows_the_end_in_one_breath_starts_nothing_in_the_exit_scope(how: str) -> None:
    play = scoped()
    if how == "emit":
        play.emit("s", "Stop", "More")
    else:
        play.feed(Sent(100.0, 1, [message("Stop"), message("More")]))
    assert play.running() == ["exit"]


def test_children_of_normal_work_and_of_clean_up_are_cancelled_each_in_its_time() -> None:
    play = scoped()
    play.child("s", "c1")
    play.cancel()
    assert play.decided(ScopeEntered)[0].cancel == ("c1",)
    play.child("exit", "c2")
    play.end(play.all("exit")[0].id, Complete(START))
    assert play.decided(RunEnded)[0].cancel == ("c2",)


# --- the end is final ----------------------------------------------------------------------------

ALL_INPUTS: list[Input] = [
    Start(1.0, START),
    Attempted(1.0, 1, Emit((message("A"),))),
    Arrived(1.0, message("A")),
    Asked(1.0, 1, "k", "w", "A"),
    Noted(1.0, 1, "k", START),
    Gathered(1.0, 1, "k", "b", START, ("Start",)),
    Sent(1.0, 1, [message("A")]),
    Wrote(1.0, [message("A")]),
    Edited(1.0, [{"op": "add"}]),
    ChildAsked(1.0, 1, "k", "c", "W", START),
    ChildEnded(1.0, ChildResult("c", RunStatus.FAILED)),
    Due(1e9),
    CancelAsked(1.0),
    ParkAsked(1.0, "why"),
    ResumeAsked(1.0),
    Loaded(1.0, "w"),
]


@pytest.mark.parametrize("status", [s for s in RunStatus if s.terminal])
def test_after_the_end_nothing_is_decided(status: RunStatus) -> None:
    play = Play(S, timeout=9.0).start()
    match status:
        case RunStatus.COMPLETED:
            play.complete("s")
        case RunStatus.FAILED:
            play.fail("s")
        case RunStatus.CANCELLED:
            play.cancel()
        case _:
            play.after(9.0)
    assert play.status is status
    for input in ALL_INPUTS:
        assert play.feed(input) == []


def test_clean_up_is_not_over_while_a_join_of_its_own_is_still_to_come() -> None:
    join = StepDef("j", join=Join("collect", (("Part",),)))
    exit_step = StepDef("exit", collectors=("j",))
    work = StepDef("w", accepts=("A",))
    play = Play(S, exit_step, work, join, on_exit="exit").start()
    play.complete("s")
    play.stream("exit", message("A"), message("A"))
    play.emit("w", "Part")
    play.emit("w", "Part")
    assert play.running() == ["j"]
    assert play.run.ended is None
