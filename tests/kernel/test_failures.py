"""Worker limits, retries, error handlers, and time limits of attempts and runs."""

from __future__ import annotations

import pytest
from tests.kernel.playing import Play, error, message

from stepwell.kernel.decide import FAILURE
from stepwell.kernel.definition import Join, StepDef
from stepwell.kernel.inputs import Attempted, Gathered, Noted, Sent
from stepwell.kernel.journal import AttemptExpired, AttemptFailed, RunEnded, WorkAdded, WorkBegun
from stepwell.kernel.outcomes import Emit, Failure, Message
from stepwell.kernel.run import DELAYED, pending
from stepwell.values import RunStatus

S = StepDef("s", accepts=("Start",))


# --- worker limits -------------------------------------------------------------------------------


def test_a_step_runs_no_more_often_at_once_than_it_has_workers_first_come_first_served() -> None:
    play = Play(S, StepDef("w", accepts=("A",), workers=2)).start()
    play.emit("s", *(message("A", n) for n in range(4)))
    assert (play.running(), play.queued()) == (["w", "w"], ["w", "w"])
    play.emit(3)
    assert play.last == [play.last[0], WorkBegun(4, 100.0)]
    play.emit(2)
    assert play.decided(WorkBegun) == [WorkBegun(5, 100.0)]


def test_no_limit_means_no_queue() -> None:
    play = Play(S, StepDef("w", accepts=("A",), workers=0)).start()
    play.emit("s", *(["A"] * 50))
    assert len(play.running()) == 50


def test_work_that_was_not_begun_can_not_end() -> None:
    play = Play(S, StepDef("w", accepts=("A",), workers=1)).start()
    play.emit("s", "A", "A")
    assert play.feed(Attempted(100.0, 3, Emit())) == []
    assert play.feed(Attempted(100.0, 99, Emit())) == []


# --- retries -------------------------------------------------------------------------------------


def test_a_retry_comes_after_its_delay_as_a_new_attempt_of_the_same_work() -> None:
    play = Play(S).start()
    play.fail("s", retry_after=5.0)
    assert play.last == [AttemptFailed(1, error(), 100.0, 105.0)]
    assert play.status is RunStatus.WAITING
    assert pending(play.run).due == 105.0
    assert play.after(4.9) == []
    assert play.after(0.1) == [WorkBegun(1, 105.0)]
    work = play.work("s")
    assert (work.attempt, work.first_at, work.failed_at, work.error) == (2, 100.0, 100.0, error())


def test_a_delay_holds_no_worker_slot() -> None:
    play = Play(S, StepDef("w", accepts=("A",), workers=1)).start()
    play.emit("s", message("A", 1), message("A", 2))
    play.fail("w", retry_after=5.0)
    assert [w.message.payload for w in play.all("w") if w.attempt and not w.over] == [2]  # pyright: ignore
    play.after(5.0)
    assert play.queued() == ["w"]
    play.emit("w")
    assert play.work("w").attempt == 2


def test_a_retry_without_delay_goes_behind_what_is_queued() -> None:
    play = Play(S, StepDef("w", accepts=("A",), workers=1)).start()
    play.emit("s", message("A", 1), message("A", 2))
    play.fail("w", retry_after=0.0)
    assert play.work("w").id == 3
    play.emit("w")
    assert (play.work("w").id, play.work("w").attempt) == (2, 2)


def test_a_retry_without_delay_begins_at_once_when_nothing_is_queued() -> None:
    play = Play(S).start()
    play.fail("s", retry_after=0.0)
    assert play.last == [AttemptFailed(1, error(), 100.0, 100.0), WorkBegun(1, 100.0)]


def test_what_a_stale_attempt_says_between_two_attempts_is_not_heard() -> None:
    play = Play(S, StepDef("w", accepts=("A",))).start()
    play.fail("s", retry_after=5.0)
    assert play.feed(Attempted(100.0, 1, Emit())) == []
    assert play.feed(Sent(100.0, 1, [message("A")])) == []
    assert play.ask(1, "A") == []
    assert play.child(1) == []
    assert play.feed(Noted(100.0, 1, "memo:a", message("A"))) == []
    assert play.feed(Gathered(100.0, 1, "k", "b", message("A"), ("A",))) == []


def test_without_a_handler_the_run_fails_with_the_error() -> None:
    play = Play(S).start()
    play.fail("s", retry_after=3.0)
    play.after(3.0)
    play.fail("s")
    assert play.last[-1] == RunEnded(
        RunStatus.FAILED, 103.0, None, error(), "s", attempts=2, elapsed=3.0
    )
    assert play.run.failed_after == (2, 3.0)


# --- error handlers ------------------------------------------------------------------------------

W = StepDef("w", accepts=("A",), on_error="h")
H = StepDef("h", recoveries=2)


def test_the_error_handler_receives_what_failed() -> None:
    play = Play(S, W, H).start()
    play.emit("s", message("A", 1))
    play.fail("w", retry_after=2.0)
    play.after(2.0)
    play.fail("w")
    (added,) = play.decided(WorkAdded)
    failure = Failure("w", message("A", 1), error(), 2, 2.0, 102.0)
    assert added == WorkAdded(4, "h", Message(FAILURE, failure), True, 102.0, None, 0, 0, {"h": 1})


@pytest.mark.parametrize("how", ["emit", "send"])
def test_recoveries_are_counted_along_what_the_handler_emits_or_sends(how: str) -> None:
    play = Play(S, W, H).start()
    play.emit("s", "A")
    for _ in range(2):
        play.fail("w")
        assert play.status is RunStatus.RUNNING
        if how == "emit":
            play.emit("h", "A")
        else:
            play.feed(Sent(100.0, play.work("h").id, [message("A")]))
            play.emit("h")
    play.fail("w")
    assert play.status is RunStatus.FAILED


def test_each_lineage_has_a_budget_of_its_own() -> None:
    play = Play(S, W, StepDef("h", recoveries=1)).start()
    play.emit("s", "A", "A")
    play.fail("w")
    play.fail("w")
    assert play.running() == ["h", "h"]


def test_recoveries_go_through_joins_and_streams() -> None:
    steps = (
        StepDef("s", accepts=("Start", "Again"), collectors=("j",)),
        StepDef("h", recoveries=2),
    )
    collect = StepDef("j", join=Join("collect", (("A",),)), on_error="h")
    for stream in (["A", "A"], []):
        play = Play(*steps, collect).start()
        for left in (2, 1, 0):
            play.stream("s", *stream)
            play.fail("j")
            if left:
                play.emit("h", "Again")
        assert play.status is RunStatus.FAILED
    both = StepDef("j", join=Join("all_of", (("A",), ("B",))), on_error="h")
    play = Play(StepDef("s", accepts=("Start", "Again")), steps[1], both).start()
    play.emit("s", "A", "B")
    play.fail("j")
    play.emit("h", "A")
    play.arrive("B")  # of another lineage, and later
    assert play.work("j").recoveries == {"h": 1}


def test_a_join_does_not_count_recoveries_of_others_that_passed_through_it() -> None:
    both = StepDef("j", join=Join("all_of", (("A",), ("B",))), on_error="h")
    play = Play(S, H, both).start()
    play.emit("s", "A", "B")
    play.fail("j")
    play.emit("h", "A", "B")
    assert play.work("j").recoveries == {"h": 1}
    play.arrive("A")
    play.arrive("B")
    assert play.all("j")[-1].recoveries is None


def test_a_handler_that_fails_fails_the_run() -> None:
    play = Play(S, W, H).start()
    play.emit("s", "A")
    play.fail("w")
    play.fail("h")
    assert play.status is RunStatus.FAILED
    assert play.run.failed_step == "h"


def test_a_final_failure_is_neither_retried_nor_handled() -> None:
    play = Play(S, W, H).start()
    play.emit("s", "A")
    play.fail("w", retry_after=1.0, final=True)
    assert play.status is RunStatus.FAILED


# --- time limits ---------------------------------------------------------------------------------


def test_an_attempt_that_has_had_its_time_expires_and_its_failure_follows() -> None:
    play = Play(StepDef("s", accepts=("Start",), timeout=3.0)).start()
    assert pending(play.run).due == 103.0
    assert play.after(3.0) == [AttemptExpired(1, 103.0)]
    assert play.after(3.0) == []
    assert play.running() == ["s"]
    play.fail("s", retry_after=0.0)
    assert play.last[-1] == WorkBegun(1, 106.0, 109.0)
    assert play.after(3.0) == [AttemptExpired(1, 109.0)]


def test_an_attempt_that_ends_in_time_does_not_expire() -> None:
    play = Play(StepDef("s", accepts=("Start",), timeout=3.0)).start()
    play.emit("s")
    assert play.after(3.0) == []


def test_waiting_for_a_message_is_not_being_busy() -> None:
    play = Play(StepDef("s", accepts=("Start",), timeout=3.0)).start()
    play.ask("s", "Go")
    assert play.after(30.0) == []
    play.arrive("Go")
    assert play.after(3.0) == [AttemptExpired(1, 133.0)]


def test_time_in_a_queue_is_not_counted() -> None:
    play = Play(S, StepDef("w", accepts=("A",), workers=1, timeout=3.0)).start()
    play.emit("s", "A", "A")
    play.at += 2.0
    play.emit("w")
    assert play.after(2.9) == []
    assert play.after(0.1) == [AttemptExpired(4, 105.0)]


@pytest.mark.parametrize(
    "doing, text",
    [
        ("running", "Currently active steps: s"),
        ("nothing", "No steps active"),
        ("waiting", "No steps active; waiting for Go in step 's'"),
        ("several", "Currently active steps: a, z"),
        ("delayed", "No steps active"),
    ],
)
def test_a_run_that_has_had_its_time_says_which_steps_were_at_work(doing: str, text: str) -> None:
    play = Play(
        S, StepDef("z", accepts=("A",), workers=1), StepDef("a", accepts=("B",)), timeout=0.2
    ).start()
    match doing:
        case "nothing":
            play.emit("s")
        case "waiting":
            play.ask("s", "Go")
        case "several":
            play.emit("s", "A", "A", "B", "B")
        case "delayed":
            play.fail("s", retry_after=9.0)
        case _:
            pass
    play.after(0.2)
    assert play.status is RunStatus.TIMED_OUT
    assert play.run.error is not None
    assert play.run.error.message == f"Operation timed out after 0.2 seconds. {text}"
    assert play.run.error.type == "stepwell.errors.WorkflowTimeoutError"


def test_everything_that_is_due_happens_in_the_order_of_its_time() -> None:
    play = Play(S, StepDef("w", accepts=("A",))).start()
    play.emit("s", "A", "A")
    play.fail(2, retry_after=9.0)
    play.fail(3, retry_after=8.0)
    assert play.after(100.0) == [WorkBegun(3, 200.0), WorkBegun(2, 200.0)]
    assert all(w.phase != DELAYED for w in play.all("w"))
