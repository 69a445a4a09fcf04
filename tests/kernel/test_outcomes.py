"""The outcomes of state machines, and what a live attempt keeps, gathers and sends."""

from __future__ import annotations

import pytest
from tests.kernel.playing import Play, message

from stepwell.kernel.decide import advance
from stepwell.kernel.definition import StepDef
from stepwell.kernel.inputs import Attempted, Edited, Gathered, Noted, Sent, Wrote
from stepwell.kernel.journal import (
    AnswerKept,
    BufferGathered,
    ChildStarted,
    Digested,
    Published,
    RunEnded,
    StateEdited,
    StateKept,
    WaitOpened,
    WorkAdded,
    WorkBegun,
    WorkDone,
)
from stepwell.kernel.outcomes import Complete, Emit, Goto, Outcome, Sleep, Spawn, WaitFor
from stepwell.kernel.run import pending
from stepwell.values import Json, RunStatus

S, T, LATE = StepDef("s", accepts=("Start",)), StepDef("t"), StepDef("late")
M = message("State", {"n": 1})


def machine() -> Play:
    return Play(S, T, LATE, ends=()).start()


def test_goto_goes_to_the_step() -> None:
    play = machine()
    play.end("s", Goto("t", M))
    assert play.last == [WorkDone(1), WorkAdded(2, "t", M, True, 100.0)]


def test_sleep_goes_to_the_step_when_it_is_time() -> None:
    play = machine()
    play.end("s", Sleep(30.0, "t", M))
    assert play.last == [
        WorkDone(1),
        WorkAdded(2, "t", M, False, 100.0, not_before=130.0),
    ]
    assert (play.status, pending(play.run).due) == (RunStatus.WAITING, 130.0)
    assert play.after(29.9) == []
    assert play.feed(Attempted(play.at, 2, Emit())) == []
    assert play.after(0.1) == [WorkBegun(2, 130.0)]
    assert (play.work("t").attempt, play.work("t").first_at) == (1, 130.0)


def test_wait_for_goes_on_with_the_message() -> None:
    play = machine()
    play.end("s", WaitFor("Go", M, "t", {"n": 1}, 30.0, "late"))
    play.arrive("Go", {"n": 2})
    assert play.status is RunStatus.WAITING
    play.arrive("Go", {"n": 1})
    assert (play.running(), play.got("t")) == (["t"], {"n": 1})
    assert play.after(99.0) == []


def test_wait_for_takes_a_message_that_came_before() -> None:
    play = machine()
    play.arrive("Go", 7)
    play.end("s", WaitFor("Go", M, "t"))
    assert play.got("t") == 7
    assert not play.run.inbox


def test_wait_for_without_a_next_step_completes_the_run() -> None:
    play = Play(S, StepDef("other", accepts=("Go",))).start()
    play.end("s", WaitFor("Go", M))
    play.arrive("Go", 7)
    assert play.status is RunStatus.COMPLETED
    assert play.run.result == M
    assert not play.decided(WorkAdded)


def test_wait_for_that_runs_out_of_time_goes_to_its_other_step_with_the_message_it_had() -> None:
    play = machine()
    play.end("s", WaitFor("Go", M, "t", None, 30.0, "late"))
    play.after(30.0)
    assert (play.running(), play.got("late")) == (["late"], {"n": 1})
    play.arrive("Go")
    assert play.running() == ["late"]


def test_wait_for_that_runs_out_of_time_without_another_step_fails_the_run() -> None:
    play = machine()
    play.end("s", WaitFor("Go", M, "t", timeout=30.0))
    play.after(30.0)
    assert play.status is RunStatus.FAILED
    assert play.run.error is not None
    assert play.run.error.type == "builtins.TimeoutError"
    assert play.run.error.message == "no 'Go' arrived within 30 seconds"


@pytest.mark.parametrize("outcome", [WaitFor("Go", M, "t"), Spawn("Other", M, "t")])
def test_two_branches_that_wait_at_the_same_moment_have_waits_of_their_own(
    outcome: Outcome,
) -> None:
    play = machine()
    play.feed(Sent(100.0, 1, [message("Start"), message("Start")]))
    works = [w.id for w in play.all("s")]
    for id in works:
        play.end(id, outcome)
    assert len(play.run.waits or {}) == 3
    for id in play.run.children():
        play.child_ends(id)
    for _ in range(3):
        play.arrive("Go")
    assert play.running() == ["t", "t", "t"]


def test_spawn_starts_a_child_and_goes_on_with_how_it_ended() -> None:
    play = machine()
    play.end("s", Spawn("Other", M, "t"))
    (wait,) = play.decided(WaitOpened)
    assert play.decided(ChildStarted) == [ChildStarted(wait.id, "Other", M)]
    assert len(wait.id) == 16
    play.child_ends(wait.id, RunStatus.FAILED)
    assert play.got("t").status is RunStatus.FAILED  # pyright: ignore


def test_complete_completes_the_run() -> None:
    play = machine()
    play.end("s", Complete(M))
    assert play.last == [WorkDone(1), RunEnded(RunStatus.COMPLETED, 100.0, M)]


@pytest.mark.parametrize(
    "outcome",
    [
        Goto("nowhere", M),
        Sleep(1.0, "nowhere", M),
        WaitFor("Go", M, "nowhere"),
        WaitFor("Go", M, "t", on_timeout="nowhere"),
        Spawn("Other", M, "nowhere"),
    ],
)
def test_going_on_at_a_step_that_does_not_exist_fails_the_run(outcome: Outcome) -> None:
    play = machine()
    play.end("s", outcome)
    assert play.status is RunStatus.FAILED
    assert play.run.error is not None
    assert play.run.error.type == "stepwell.errors.WorkflowStepDoesNotExistError"
    assert "'s'" in play.run.error.message
    assert "'nowhere'" in play.run.error.message


def test_an_outcome_that_does_not_exist_is_a_bug() -> None:
    play = machine()
    with pytest.raises(AssertionError, match="unknown outcome 7"):
        advance(play.d, play.run, Attempted(100.0, 1, 7))  # pyright: ignore


# --- state, notes, digests -----------------------------------------------------------------------


def test_changes_of_the_state_come_before_what_follows_from_them() -> None:
    play = machine()
    play.feed(Attempted(100.0, 1, Complete(M), [{"op": "add"}]))
    assert play.last[0] == StateEdited([{"op": "add"}])
    play = machine()
    assert play.feed(Edited(100.0, [{"op": "add"}])) == [StateEdited([{"op": "add"}])]


def test_the_first_value_under_a_key_is_kept_for_the_next_start_and_for_a_retry() -> None:
    play = machine()
    assert play.feed(Noted(100.0, 1, "memo:a", M)) == [AnswerKept(1, "memo:a", M)]
    assert play.feed(Noted(100.0, 1, "memo:a", message("Other"))) == []
    assert play.feed(Noted(100.0, 9, "memo:a", M)) == []
    play.fail("s", retry_after=0.0)
    assert play.work("s").answers == {"memo:a": M}


def test_what_others_built_upon_of_an_attempt_is_known_to_the_next() -> None:
    play = machine()
    edits: list[Json] = [{"op": "add", "path": "/n", "value": 2}]
    upon = {1: {"n": 1, "m": 2}, 77: {"n": 1}}  # 77 is done
    assert play.feed(Edited(100.0, edits, upon)) == [
        StateEdited(edits),
        StateKept(1, {"n": 1, "m": 2}),
    ]
    assert play.feed(Edited(100.0, [], {1: {"n": 3}})) == [StateKept(1, {"n": 3})]
    play.fail("s", retry_after=0.0)
    assert play.work("s").kept == {"n": 3, "m": 2}


def test_an_attempt_that_ends_says_upon_whose_writes_it_built() -> None:
    play = Play(S, StepDef("w", accepts=("A",)), ends=()).start()
    play.feed(Sent(100.0, 1, [message("A")]))
    built = Attempted(100.0, play.work("w").id, Emit(), (), {1: {"n": 1}})
    assert play.feed(built) == [StateKept(1, {"n": 1}), WorkDone(2)]
    assert play.work("s").kept == {"n": 1}


def test_what_an_attempt_has_sent_and_written_is_known_to_the_next() -> None:
    play = machine()
    play.feed(Sent(100.0, 1, [message("X")], [11, 12]))
    assert play.decided(Digested) == [Digested(1, [11, 12])]
    play.feed(Wrote(100.0, [message("X")], 1, [13]))
    play.fail("s", retry_after=0.0)
    assert play.work("s").digests == [11, 12, 13]
    assert play.feed(Wrote(100.0, [message("X")])) == [Published([message("X")])]


# --- buffers -------------------------------------------------------------------------------------


def gather(
    play: Play, tag: str, payload: object, expected: str, key: str = "", buffer: str = "default"
) -> object:
    play.at += 1.0
    key = key or f"collect:{play.at}"
    play.feed(Gathered(play.at, 1, key, buffer, message(tag, payload), tuple(expected)))
    answer = (play.run.work[1].answers or {})[key]
    if answer is None:
        return None
    assert isinstance(answer, tuple)
    return tuple(m.payload for m in answer)


def test_a_buffer_gives_what_is_expected_once_all_of_it_is_there() -> None:
    play = machine()
    assert gather(play, "A", 1, "AB") is None
    assert gather(play, "B", 2, "AB") == (1, 2)
    assert not play.run.buffers


def test_a_buffer_gives_in_the_order_expected_and_of_one_type_first_come_first() -> None:
    play = machine()
    for tag, payload in [("A", 1), ("A", 2), ("A", 3)]:
        assert gather(play, tag, payload, "BAAB") is None
    assert gather(play, "B", 4, "BAAB") is None
    assert gather(play, "B", 5, "BAAB") == (4, 1, 2, 5)
    assert gather(play, "A", 6, "AA") == (3, 6)
    assert not play.run.buffers


def test_what_a_buffer_does_not_expect_is_dropped() -> None:
    play = machine()
    assert gather(play, "X", 1, "AB") is None
    assert not play.run.buffers
    assert gather(play, "A", 1, "") is None


def test_buffers_are_kept_apart_by_name() -> None:
    play = machine()
    assert gather(play, "A", 1, "AB", buffer="one") is None
    assert gather(play, "B", 2, "AB", buffer="two") is None
    assert gather(play, "B", 3, "AB", buffer="one") == (1, 3)


def test_what_was_gathered_under_a_key_is_not_gathered_again() -> None:
    play = machine()
    gather(play, "A", 1, "AA", key="k")
    assert play.decided(BufferGathered)
    gather(play, "A", 1, "AA", key="k")
    assert play.last == []
    play.fail("s", retry_after=0.0)
    gather(play, "A", 1, "AA", key="k")
    assert play.last == []
    assert gather(play, "A", 2, "AA") == (1, 2)
