"""Why a run rests, and whether anything can still move it."""

from __future__ import annotations

import pytest
from tests.kernel.playing import Play

from stepwell.kernel.definition import Definition, Join, StepDef
from stepwell.kernel.inputs import ParkAsked
from stepwell.kernel.outcomes import Complete, Emit, Fail, Message, Outcome
from stepwell.kernel.rest import held_up, returned, stalled
from stepwell.values import ErrorInfo

S = StepDef("s", accepts=("Start",), emits=("A", "B"))


def play(*steps: StepDef, timeout: float | None = None) -> Play:
    return Play(S, *steps, start="Start", timeout=timeout)


def test_what_only_the_outside_can_bring_is_what_steps_take_and_none_emits() -> None:
    human = StepDef("h", accepts=("Answer", "A"))
    both = StepDef("j", join=Join("all_of", (("A",), ("Word",))))
    d = Definition("d", (S, human, both), start="Start")
    assert d.outside == {"Answer", "Word"}


def test_what_error_and_exit_steps_get_does_not_come_from_outside() -> None:
    guarded = StepDef("s", accepts=("Start",), on_error="c")
    catch = StepDef("c", accepts=("StepFailedEvent",))
    bye = StepDef("bye", accepts=("Exit",))
    assert Definition("d", (guarded, catch, bye), start="Start", on_exit="bye").outside == set()


def test_a_run_whose_last_step_returned_nothing_is_stalled() -> None:
    game = play().start()
    assert not stalled(game.d, game.run)
    game.emit("s")
    assert stalled(game.d, game.run)
    assert held_up(game.d, game.run) == []


def test_a_run_that_a_person_may_move_is_not() -> None:
    game = play(StepDef("h", accepts=("Answer",))).start()
    game.emit("s")
    assert not stalled(game.d, game.run)


@pytest.mark.parametrize("how", ["waits", "delayed", "ended", "parked"])
def test_neither_is_one_that_is_owed_something_or_over(how: str) -> None:
    game = play().start()
    match how:
        case "waits":
            game.ask("s", "Go")
        case "delayed":
            game.fail("s", retry_after=3.0)
        case "ended":
            game.emit("s", "Stop")
        case _:
            game.feed(ParkAsked(game.at, "odd"))
    assert not stalled(game.d, game.run)


def test_the_events_that_no_step_took_are_named_once_each() -> None:
    game = play().start()
    game.emit("s", "Lost", "Lost", "Gone")
    game.arrive("Odd")
    assert held_up(game.d, game.run) == ["no step took Lost, Gone, Odd"]


def test_half_filled_joins_say_what_they_lack() -> None:
    both = StepDef("j", join=Join("all_of", (("A",), ("B", "C"), ("D",))))
    game = play(both).start()
    game.emit("s", "A", "D")
    assert held_up(game.d, game.run) == ["step 'j' has A, D and waits for B or C"]


def test_waits_name_their_step() -> None:
    game = play().start()
    game.ask("s", "Go")
    assert held_up(game.d, game.run) == ["waiting for Go in step 's'"]


def test_a_run_out_of_time_says_what_it_waited_for_and_what_nobody_took() -> None:
    game = play(timeout=5.0).start()
    game.emit("s", "Lost")
    game.after(5.0)
    assert game.run.error is not None
    text = "Operation timed out after 5.0 seconds. No steps active; no step took Lost"
    assert game.run.error.message == text


def test_a_thousand_of_them_are_counted() -> None:
    game = play().start()
    game.emit("s", *(f"Lost{n}" for n in range(1000)))
    (clause,) = held_up(game.d, game.run)
    assert clause.startswith("no step took Lost0, Lost1")
    assert len(clause) < 100
    assert len(game.run.untaken) < 100


@pytest.mark.parametrize(
    "outcome, words",
    [
        (Emit(), "returned None"),
        (Emit((), stream=True), "returned an empty list"),
        (Emit((Message("A", 1),)), "returned A"),
        (Emit((Message("A", 1), Message("A", 2), Message("B", 1))), "returned 2 A, B"),
        (Complete(Message("Stop", 1)), "returned Stop"),
        (Fail(ErrorInfo("builtins.ValueError", "no")), "failed with ValueError"),
    ],
)
def test_what_an_attempt_returned_in_words(outcome: Outcome, words: str) -> None:
    assert returned(outcome) == words
