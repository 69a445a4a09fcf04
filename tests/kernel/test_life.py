"""A run is parked and resumed, loaded by another worker, and always says what it owes."""

from __future__ import annotations

import copy

import pytest
from tests.kernel.playing import START, Play, message, refolded

from stepwell.kernel.decide import MAX_RESTARTS, advance
from stepwell.kernel.definition import Join, StepDef
from stepwell.kernel.inputs import Attempted, Due, Edited, Loaded, ParkAsked, ResumeAsked, Start
from stepwell.kernel.journal import (
    AttemptExpired,
    RunParked,
    RunResumed,
    StateEdited,
    WorkBegun,
)
from stepwell.kernel.outcomes import Emit, Sleep
from stepwell.kernel.run import QUEUED, RUNNING, next_due, pending
from stepwell.values import RunStatus

S = StepDef("s", accepts=("Start",))


def park(play: Play) -> None:
    play.feed(ParkAsked(play.at, "the disk is full"))


def resume(play: Play) -> None:
    play.feed(ResumeAsked(play.at))


# --- parked --------------------------------------------------------------------------------------


def test_a_parked_run_says_why_and_does_nothing() -> None:
    play = Play(S, timeout=10.0).start()
    park(play)
    assert play.last == [RunParked("the disk is full", 100.0)]
    assert (play.status, play.run.parked) == (RunStatus.PARKED, "the disk is full")
    assert pending(play.run).attempts == ()
    assert next_due(play.run) is None
    assert play.after(99.0) == []
    assert play.emit(1, "Stop") == []
    assert play.ask(1, "Go") == []
    assert play.feed(Loaded(play.at, "w")) == []
    assert play.feed(ParkAsked(play.at, "again")) == []


def test_a_resumed_run_starts_again_what_was_running() -> None:
    play = Play(S).start()
    park(play)
    resume(play)
    assert play.last == [RunResumed(100.0)]
    assert [w.step for w in pending(play.run).attempts] == ["s"]
    assert play.feed(ResumeAsked(play.at)) == []


def test_time_in_which_a_run_is_parked_is_not_counted_whatever_arrives_meanwhile() -> None:
    play = Play(S, StepDef("t", accepts=("A",)), timeout=10.0).start()
    play.at += 4.0
    park(play)
    play.at += 1000.0
    play.arrive("A")
    play.at += 1000.0
    resume(play)
    assert play.run.deadline == play.at + 6.0
    assert play.status is RunStatus.RUNNING
    assert play.after(5.9) == []
    play.after(0.1)
    assert play.status is RunStatus.TIMED_OUT


def test_what_comes_for_a_parked_run_waits_until_it_is_resumed() -> None:
    play = Play(S, StepDef("t", accepts=("A",)), StepDef("u", accepts=("U",), workers=1)).start()
    play.emit("s", "A", "U", "U")
    play.ask("t", "Go")
    play.child("u")
    park(play)
    play.arrive("A")
    play.arrive("Go")
    play.child_ends()
    assert play.feed(Edited(play.at, [1])) == [StateEdited([1])]
    assert [w.phase for w in play.run.work.values()] == [QUEUED, QUEUED, RUNNING, QUEUED]
    assert not play.decided(WorkBegun)
    resume(play)
    assert play.running() == ["t", "u", "t"]
    assert play.queued() == ["u"]


def test_a_run_parked_before_it_began_keeps_its_start() -> None:
    play = Play(S)
    park(play)
    play.feed(Start(100.0, START))
    assert (play.status, play.running()) == (RunStatus.PARKED, [])
    resume(play)
    assert play.running() == ["s"]


@pytest.mark.parametrize("on_exit", [None, "exit"])
def test_a_parked_run_can_be_cancelled_and_cleans_up(on_exit: str | None) -> None:
    play = Play(S, StepDef("exit"), on_exit=on_exit).start()
    park(play)
    play.cancel()
    if on_exit:
        assert play.running() == ["exit"]
        play.emit("exit")
    assert play.status is RunStatus.CANCELLED


# --- loaded --------------------------------------------------------------------------------------


def test_time_in_which_a_run_is_not_alive_does_not_count() -> None:
    play = Play(S, timeout=10.0).start()
    play.at += 3.0
    play.emit("s", "nobody")
    play.arrive("Start")
    play.at += 500.0
    play.feed(Loaded(play.at, "worker-2"))
    assert play.last == [RunResumed(603.0, "worker-2", 610.0)]
    assert pending(play.run).alive_due == 610.0
    assert pending(play.run).due is None
    play.after(7.0)
    assert play.status is RunStatus.TIMED_OUT


def test_a_run_that_did_not_begin_is_loaded_without_a_word() -> None:
    assert Play(S).feed(Loaded(1.0, "w")) == []


def test_an_attempt_that_starts_again_has_all_of_its_time() -> None:
    play = Play(StepDef("s", accepts=("Start",), timeout=3.0)).start()
    play.at += 50.0
    play.feed(Loaded(play.at, "w"))
    assert play.last[1:] == [WorkBegun(1, 150.0, 153.0)]
    assert play.work("s").attempt == 1
    assert play.after(2.9) == []
    assert play.after(0.1) == [AttemptExpired(1, 153.0)]
    play.feed(Loaded(play.at, "w"))
    assert pending(play.run).due == 156.0


def test_timers_that_came_due_while_nobody_was_there_fire_at_once() -> None:
    play = Play(S, StepDef("t")).start()
    play.end("s", Sleep(5.0, "t", START))
    play.at += 1000.0
    play.feed(Loaded(play.at, "w"))
    play.after(0.0)
    assert play.running() == ["t"]


def test_an_attempt_under_which_processes_keep_dying_parks_the_run() -> None:
    play = Play(S, StepDef("w", accepts=("A",))).start()
    play.ask("s", "Go")
    play.arrive("A")
    for _ in range(MAX_RESTARTS):
        play.feed(Loaded(play.at, "w"))
        assert play.status is RunStatus.RUNNING
    play.feed(Loaded(play.at, "w"))
    assert play.status is RunStatus.PARKED
    assert play.run.parked == "the worker died 26 times while step 'w' was running"
    assert play.run.work[1].restarts == 0
    resume(play)
    assert play.status is RunStatus.RUNNING
    play.feed(Loaded(play.at, "w"))
    assert play.status is RunStatus.RUNNING


def test_a_new_attempt_has_not_died_yet() -> None:
    play = Play(S).start()
    play.feed(Loaded(play.at, "w"))
    assert play.work("s").restarts == 1
    play.fail("s", retry_after=0.0)
    assert play.work("s").restarts == 0


def test_a_run_that_owes_a_step_its_workflow_no_longer_has_is_parked() -> None:
    play = Play(S, StepDef("old", accepts=("Old",))).start()
    play.emit("s", "Old")
    play.d = Play(S).d
    advance(play.d, play.run, Loaded(play.at, "w"))
    assert play.run.parked == "the run owes step 'old', which its workflow has not"
    advance(play.d, play.run, ResumeAsked(play.at))
    assert play.status is RunStatus.PARKED


def test_what_is_queued_begins_when_a_new_version_has_more_workers() -> None:
    play = Play(S, StepDef("w", accepts=("A",), workers=1)).start()
    play.emit("s", "A", "A", "A")
    play.d = Play(S, StepDef("w", accepts=("A",), workers=2)).d
    play.feed(Loaded(play.at, "w"))
    assert (play.running(), play.queued()) == (["w", "w"], ["w"])


# --- what is owed --------------------------------------------------------------------------------


def everything_at_once() -> Play:
    play = Play(
        StepDef("s", accepts=("Start",), timeout=400.0, collectors=("j",)),
        StepDef("w", accepts=("A",), workers=2, timeout=300.0),
        StepDef("late"),
        StepDef("j", join=Join("collect", (("B",),))),
        timeout=1000.0,
    ).start()
    play.stream("s", *(message("A", n) for n in range(6)))
    play.emit("w", message("B", 0))
    play.fail("w", retry_after=200.0)
    play.ask("w", "Go", timeout=100.0)
    play.child("w")
    play.end("w", Sleep(250.0, "late", START))
    return play


def test_pending_finds_everything_that_is_owed_in_the_journal_alone() -> None:
    play = everything_at_once()
    run = refolded(play.journal)
    owed = pending(run)
    assert [w.step for w in owed.attempts] == [w.step for w in pending(play.run).attempts] == ["w"]
    assert (owed.due, owed.alive_due) == (200.0, 200.0)
    assert next_due(run) == 200.0
    assert [(w.id, w.child) for w in owed.waits] == [("w", None), ("c1", "c1")]
    due: list[float] = []
    while (at := next_due(run)) is not None and run.ended is None:
        due.append(at)
        advance(play.d, run, Due(at))
    assert due == [200.0, 300.0, 350.0, 400.0, 500.0, 1100.0]


def test_the_first_of_several_times_is_what_is_due_whatever_died_before_it() -> None:
    play = Play(S, StepDef("w", accepts=("A",), timeout=50.0)).start()
    play.emit("s", *(["A"] * 40))
    ids = [w.id for w in play.all("w")]
    for number, id in enumerate(ids[:-1]):
        play.at += 1.0
        play.feed(Attempted(play.at, id, Emit()))
        assert pending(play.run).due == next_due(copy.deepcopy(play.run)) == 150.0, number
        assert len(play.run.timers or ()) <= 40
    play.emit(ids[-1])
    assert next_due(play.run) is None


def test_a_run_that_ended_owes_nothing() -> None:
    play = everything_at_once()
    play.cancel()
    assert pending(play.run).attempts == pending(play.run).waits == ()
    assert pending(play.run).due is pending(play.run).alive_due is next_due(play.run) is None
