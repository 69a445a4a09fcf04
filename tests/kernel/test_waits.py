"""Waits: for messages, for time, for children."""

from __future__ import annotations

import pytest
from tests.kernel.playing import Play, message

from stepwell.kernel.definition import StepDef
from stepwell.kernel.inputs import Arrived, Asked, Attempted, GivenUp, Loaded
from stepwell.kernel.journal import (
    ChildStarted,
    InboxTaken,
    RunEnded,
    Unhandled,
    WaitDropped,
    WaitEnded,
    WaitOpened,
    WorkBegun,
)
from stepwell.kernel.outcomes import ChildResult, Emit, Message
from stepwell.kernel.run import QUEUED, RUNNING, TIMED_OUT, WAITING, pending
from stepwell.values import RunStatus

S = StepDef("s", accepts=("Start",))


def answers(play: Play, work: int = 1) -> dict[str, object]:
    return play.run.work[work].answers or {}


def test_a_wait_is_answered_by_the_message_it_waits_for() -> None:
    play = Play(S).start()
    play.ask("s", "Go", timeout=60.0)
    assert play.last == [WaitOpened("w", 100.0, 1, "k", "Go", None, 160.0)]
    assert play.status is RunStatus.WAITING
    play.arrive("Other")
    play.arrive("Go", 7)
    assert play.last == [WaitEnded("w", 1, message("Go", 7)), WorkBegun(1, 100.0)]
    assert answers(play) == {"k": message("Go", 7)}
    assert play.work("s").attempt == 1


class Payload:
    def __init__(self, **fields: object) -> None:
        self.__dict__.update(fields)


@pytest.mark.parametrize("make", [dict, Payload])
def test_a_wait_takes_only_messages_with_the_fields_it_asks_for(make: type) -> None:
    play = Play(S).start()
    play.ask("s", "Go", who="ann", n=1)
    for payload in (make(who="bob", n=1), make(who="ann"), None, make()):
        play.arrive("Go", payload)
        assert play.status is RunStatus.WAITING
    play.arrive("Go", make(who="ann", n=1, more=2))
    assert play.running() == ["s"]


@pytest.mark.parametrize(
    "arrived",
    [
        Arrived(120.0, message("Go", {"who": "ann"}), "gone", keep=False),
        Arrived(120.0, message("Other", {"who": "ann"}), "w", keep=False),
        Arrived(120.0, message("Go", {"who": "bob"}), "w", keep=False),
        Arrived(120.0, message("Go", {"who": "ann"}), "w", keep=False, since=99.0),
    ],
)
def test_an_answer_that_is_not_to_be_kept_leaves_no_trace(arrived: Arrived) -> None:
    play = Play(S).start()
    play.ask("s", "Go", who="ann")
    play.feed(arrived)
    assert play.last == []
    assert play.status is RunStatus.WAITING
    assert not play.run.inbox
    play.feed(Arrived(121.0, message("Go", {"who": "ann"}), "w", keep=False, since=100.0))
    assert play.running() == ["s"]


def test_an_answer_that_is_not_to_be_kept_is_not_kept_for_a_run_to_come() -> None:
    play = Play(S)
    play.feed(Arrived(100.0, message("Go"), "w", keep=False))
    assert play.last == []


def test_a_message_answers_one_wait_the_oldest_that_fits() -> None:
    play = Play(S, StepDef("w", accepts=("A",))).start()
    play.emit("s", "A", "A", "A")
    play.ask(2, "Go", wait="w1", who="ann")
    play.ask(3, "Go", wait="w2")
    play.ask(4, "Go", wait="w3")
    play.arrive("Go", {"who": "bob"})
    assert play.running() == ["w"]
    assert play.work("w").id == 3


def test_a_message_answers_by_id_in_any_order() -> None:
    play = Play(S, StepDef("w", accepts=("A",))).start()
    play.emit("s", "A", "A")
    play.ask(2, "Go", wait="w1")
    play.ask(3, "Go", wait="w2")
    play.arrive("Go", 1, wait="w2")
    assert play.work("w").id == 3
    play.arrive("Go", 2, wait="w2")
    assert play.last == [Unhandled(message("Go", 2), True, "w2")]
    play.arrive("Wrong", 2, wait="w1")
    assert play.running() == ["w"]


def test_what_answers_a_wait_of_a_step_goes_to_all_other_steps_but_not_into_that_one() -> None:
    play = Play(
        StepDef("s", accepts=("Start", "Go")), StepDef("other", accepts=("Go",)), publishes=("Go",)
    ).start()
    play.ask("s", "Go")
    play.arrive("Go")
    assert play.running() == ["s", "other"]


def test_a_message_that_a_step_emits_answers_a_wait() -> None:
    play = Play(S, StepDef("w", accepts=("A",))).start()
    play.arrive("A")
    play.ask("w", "Go")
    play.emit("s", message("Go", 1))
    assert play.running() == ["w"]


# --- early messages ------------------------------------------------------------------------------


@pytest.mark.parametrize("by_id", [False, True])
def test_an_early_message_is_kept_and_consumed_once(by_id: bool) -> None:
    play = Play(S).start()
    play.arrive("Go", 7, wait="w" if by_id else None)
    play.ask("s", "Go")
    slot = "wait:w" if by_id else "Go"
    assert play.last[1:] == [
        InboxTaken(slot),
        WaitEnded("w", 1, message("Go", 7)),
        WorkBegun(1, 100.0),
    ]
    assert not play.run.inbox
    play.ask("s", "Go", key="k2", wait="w2")
    assert play.status is RunStatus.WAITING


def test_of_early_messages_the_first_that_fits_is_taken() -> None:
    play = Play(S).start()
    for n in (1, 2, 1):
        play.arrive("Go", {"n": n})
    play.ask("s", "Go", n=2)
    assert answers(play) == {"k": message("Go", {"n": 2})}
    play.ask("s", "Go", key="k2", wait="w2")
    play.ask("s", "Go", key="k3", wait="w3")
    assert not play.run.inbox


def test_a_kept_message_of_another_type_does_not_answer_a_wait_by_its_id() -> None:
    play = Play(S).start()
    play.arrive("Wrong", 7, wait="w")
    play.ask("s", "Go")
    assert play.status is RunStatus.WAITING


# --- time ----------------------------------------------------------------------------------------


def test_a_wait_that_ran_out_of_time_says_so_and_is_never_answered() -> None:
    play = Play(S).start()
    play.ask("s", "Go", timeout=5.0)
    assert play.after(4.99) == []
    play.after(0.01)
    assert play.last == [WaitEnded("w", 1, None, True), WorkBegun(1, 105.0)]
    assert answers(play) == {"k": TIMED_OUT}
    play.arrive("Go", 7)
    assert play.last == [Unhandled(message("Go", 7), True)]
    play.arrive("Go", 7, wait="w")
    assert answers(play) == {"k": TIMED_OUT}


def test_a_wait_that_was_answered_never_runs_out_of_time() -> None:
    play = Play(S).start()
    play.ask("s", "Go", timeout=5.0)
    play.arrive("Go", 7)
    assert play.after(99.0) == []
    assert answers(play) == {"k": message("Go", 7)}


def test_a_sleep_ends_when_it_is_due_and_not_before() -> None:
    play = Play(S).start()
    play.arrive("Go", 1, wait="w")
    play.ask("s", None, timeout=5.0)
    assert play.status is RunStatus.WAITING
    play.arrive("Go", 2, wait="w")
    assert play.status is RunStatus.WAITING
    play.after(5.0)
    assert answers(play) == {"k": None}


# --- several waits -------------------------------------------------------------------------------


def test_an_attempt_may_wait_for_several_things_and_go_on_with_each() -> None:
    play = Play(S).start()
    play.ask(1, "A", key="a", wait="wa")
    play.ask(1, "B", key="b", wait="wb")
    play.arrive("B", 2)
    work = play.run.work[1]
    assert (work.phase, work.partial) == (WAITING, True)
    assert pending(play.run).attempts == (work,)
    play.arrive("A", 1)
    assert (work.phase, work.partial) == (RUNNING, False)
    assert answers(play) == {"b": message("B", 2), "a": message("A", 1)}


def test_waiting_gives_the_worker_slot_away_and_takes_it_again_before_newer_work() -> None:
    play = Play(S, StepDef("w", accepts=("A",), workers=1)).start()
    play.emit("s", "A", "A", "A")
    play.ask(2, "Go")
    assert play.work("w").id == 3
    play.arrive("Go")
    assert (play.run.work[2].phase, play.run.work[2].partial) == (QUEUED, False)
    play.emit(3)
    assert play.work("w").id == 2


def test_a_body_that_asks_for_more_while_it_waits_for_a_slot_goes_on_with_what_it_got() -> None:
    play = Play(S, StepDef("w", accepts=("A",), workers=1, timeout=9.0)).start()
    play.emit("s", "A", "A")
    play.ask(2, "A1", key="a", wait="wa")
    play.ask(2, "B1", key="b", wait="wb")
    play.arrive("A1")
    play.arrive("B1")
    assert play.run.work[2].phase == QUEUED
    play.ask(2, "C1", key="c", wait="wc")
    play.emit(play.work("w").id)
    assert play.decided(WorkBegun)
    assert (play.run.work[2].phase, play.run.work[2].partial) == (WAITING, True)
    assert not play.queued()
    play.arrive("C1")
    assert play.run.work[2].phase == RUNNING


def test_what_is_answered_while_its_body_is_in_the_queue_does_not_queue_it_again() -> None:
    play = Play(S, StepDef("w", accepts=("A",), workers=1)).start()
    play.emit("s", "A", "A")
    play.ask(2, "A1", key="a", wait="wa")
    play.arrive("A1")
    play.ask(2, "B1", key="b", wait="wb")
    play.ask(2, "C1", key="c", wait="wc")
    play.arrive("B1")
    work = play.run.work[2]
    assert (work.phase, work.partial) == (QUEUED, False)
    play.arrive("C1")
    assert play.queued() == ["w"]
    play.emit(play.work("w").id)
    assert (work.phase, list(answers(play, 2))) == (RUNNING, ["a", "b", "c"])


def test_the_same_question_is_not_asked_twice() -> None:
    play = Play(S).start()
    play.ask("s", "Go")
    assert play.ask(1, "Go") == []
    assert play.child(1, key="k") == []


def test_two_pieces_of_work_may_give_their_waits_the_same_id() -> None:
    play = Play(S, StepDef("w", accepts=("A",))).start()
    play.emit("s", "A", "A")
    play.ask(2, "Go", wait="mine")
    play.ask(3, "Go", wait="mine")
    assert len(play.run.waits or {}) == 2
    play.arrive("Go", wait="mine")
    play.arrive("Go")
    assert play.running() == ["w", "w"]


# --- the end of an attempt -----------------------------------------------------------------------


def test_the_waits_of_an_attempt_die_with_it() -> None:
    for final in (True, False):
        play = Play(S).start()
        play.ask("s", "Go", timeout=3.0)
        if final:
            play.emit(1)
        else:
            play.fail(1, retry_after=9.0)
        assert not play.run.waits
        assert play.after(5.0) == []
        play.arrive("Go")
        assert play.decided(Unhandled)


def test_an_attempt_may_end_while_it_waits_for_a_slot() -> None:
    play = Play(S, StepDef("w", accepts=("A",), workers=1)).start()
    play.emit("s", "A", "A", "A")
    play.ask(2, "Go")
    play.arrive("Go")
    play.feed(Attempted(100.0, 2, Emit()))
    assert (play.running(), play.queued()) == (["w"], ["w"])


# --- children ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [s for s in RunStatus if s.terminal])
def test_a_child_answers_its_parent_however_it_ends(status: RunStatus) -> None:
    play = Play(S).start()
    play.child("s")
    assert play.last == [
        WaitOpened("c1", 100.0, 1, "child:x"),
        ChildStarted("c1", "Other", Message("Start", None)),
    ]
    assert play.run.children() == ("c1",)
    play.child_ends("c1", status)
    assert answers(play) == {"child:x": Message("ChildResult", ChildResult("c1", status))}
    assert play.running() == ["s"]
    assert play.run.children() == ()
    assert play.child_ends("c1", status) == []


def test_nobody_outside_can_answer_for_a_child() -> None:
    play = Play(S).start()
    play.arrive("ChildResult", {}, wait="c1")
    play.child("s")
    play.feed(Arrived(100.0, message("ChildResult"), "c1"))
    assert play.status is RunStatus.WAITING


def test_a_retry_goes_on_with_the_child_that_its_failed_attempt_started() -> None:
    play = Play(S).start()
    play.child("s")
    play.fail(1, retry_after=0.0)
    assert play.run.children() == ("c1",)
    play.child("s")
    assert not play.decided(ChildStarted)
    play.child_ends("c1")
    assert play.running() == ["s"]
    assert list(answers(play)) == ["child:x"]


def test_a_child_that_ends_between_two_attempts_has_answered_the_next_one() -> None:
    play = Play(S).start()
    play.child("s")
    play.fail(1, retry_after=5.0)
    play.child_ends("c1")
    assert list(answers(play)) == ["child:x"]
    assert play.run.children() == ()
    play.after(5.0)
    assert play.running() == ["s"]


@pytest.mark.parametrize("how", ["cancelled", "completed"])
def test_a_child_that_its_step_did_not_wait_for_is_cancelled_with_the_run(how: str) -> None:
    play = Play(S, StepDef("w", accepts=("A",))).start()
    play.child("s")
    play.emit(1, "A")
    assert play.run.children() == ("c1",)
    if how == "cancelled":
        play.cancel()
    else:
        play.emit("w", "Stop")
    assert play.decided(RunEnded)[0].cancel == ("c1",)


def test_a_child_that_its_step_did_not_wait_for_is_forgotten_when_it_ends() -> None:
    play = Play(S, StepDef("w", accepts=("A",))).start()
    play.child("s")
    play.emit(1, "A")
    play.child_ends("c1")
    assert not play.run.orphans
    assert play.run.children() == ()


# --- restarts ------------------------------------------------------------------------------------


def test_waits_survive_a_restart() -> None:
    play = Play(S).start()
    play.ask("s", "Go", timeout=50.0)
    play.at += 20.0
    play.feed(Loaded(play.at, "other"))
    assert pending(play.run).attempts == ()
    assert pending(play.run).due == 150.0
    assert [w.id for w in pending(play.run).waits] == ["w"]
    play.arrive("Go", 1)
    assert play.running() == ["s"]


def test_a_question_is_shown_with_the_wait_it_belongs_to() -> None:
    play = Play(S).start()
    play.feed(Asked(100.0, 1, "k", "w", "Go", None, None, message("Question", 1)))
    assert play.decided(WaitOpened)[0].question == message("Question", 1)
    assert pending(play.run).waits[0].question == message("Question", 1)


# --- a body goes on without the answer -----------------------------------------------------------


def test_a_wait_that_its_body_gave_up_takes_no_answer() -> None:
    play = Play(StepDef("s", accepts=("Start",), timeout=10.0)).start()
    work = play.work("s").id
    play.ask("s", "Go")
    assert play.feed(GivenUp(101.0, work, "k")) == [WaitDropped("w", work, 101.0, 111.0)]
    assert play.running() == ["s"]
    play.arrive("Go", 7)
    assert play.decided(WaitEnded) == []
    assert play.run.inbox is not None


def test_of_two_waits_the_other_one_goes_on() -> None:
    play = Play(S).start()
    work = play.work("s").id
    play.ask("s", "Go")
    play.feed(Asked(100.0, work, "k2", "w2", "Come"))
    play.feed(GivenUp(100.0, work, "k"))
    assert play.run.work[work].phase == WAITING
    assert play.run.work[work].partial, "its body may be busy, so it is owed after a crash"
    play.arrive("Come")
    assert play.running() == ["s"]


def test_a_child_that_nobody_waits_for_is_named_for_cancelling() -> None:
    play = Play(S).start()
    work = play.work("s").id
    play.child("s")
    (dropped,) = play.feed(GivenUp(100.0, work, "child:x"))
    assert dropped == WaitDropped("c1", work, 100.0, None, ("c1",))
    assert play.child_ends() == []


def test_giving_up_what_was_answered_or_never_asked_changes_nothing() -> None:
    play = Play(S).start()
    work = play.work("s").id
    play.ask("s", "Go")
    play.arrive("Go")
    assert play.feed(GivenUp(100.0, work, "k")) == []
    assert play.feed(GivenUp(100.0, work, "other")) == []
    assert play.feed(GivenUp(100.0, 99, "k")) == []
