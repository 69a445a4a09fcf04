"""Joins and streams: several messages come together."""

from __future__ import annotations

from typing import Literal

import pytest
from tests.kernel.playing import Play, message

from stepwell.kernel.definition import Join, StepDef
from stepwell.kernel.inputs import Sent
from stepwell.kernel.journal import JoinReleased, StreamClosed, WorkAdded
from stepwell.kernel.outcomes import Sleep, Spawn, WaitFor
from stepwell.values import RunStatus

S = StepDef("s", accepts=("Start",), collectors=("j",))
W = StepDef("w", accepts=("A",))
INNER = StepDef("w", accepts=("A",), collectors=("j2",))


def collecting(
    tag: str = "B",
    take: int | None = None,
    order: Literal["arrival", "input"] = "arrival",
    name: str = "j",
) -> StepDef:
    return StepDef(name, join=Join("collect", ((tag,),), take, order))


def members(*payloads: object, tag: str = "A") -> list:
    return [message(tag, p) for p in payloads]


# --- AND-joins -----------------------------------------------------------------------------------


def test_an_and_join_runs_once_for_one_of_each_in_the_order_of_its_slots() -> None:
    play = Play(
        StepDef("s", accepts=("Start",)), StepDef("j", join=Join("all_of", (("A",), ("B", "C"))))
    ).start()
    for sent in (message("C", "c"), message("B", "b"), message("A", "a1")):
        play.feed(Sent(100.0, 1, [sent]))
    assert play.got("j") == ("a1", "c")
    play.arrive("A", "a2")
    assert [tuple(m.payload for m in w.message) for w in play.all("j")] == [  # pyright: ignore
        ("a1", "c"),
        ("a2", "b"),
    ]
    assert not play.run.joins


def test_an_and_join_brings_together_what_is_at_the_same_stream_level() -> None:
    play = Play(
        StepDef("s", accepts=("Start",)),
        StepDef("w", accepts=("A",)),
        StepDef("j", join=Join("all_of", (("B",), ("C",)))),
    ).start()
    play.feed(Sent(100.0, 1, [message("C", "outside")]))
    play.stream("s", *members(1, 2))
    play.emit("w", message("B", 1))
    assert not play.all("j")
    play.emit("w", message("C", 2))
    assert play.got("j") == (1, 2)


def test_what_an_and_join_still_holds_of_a_stream_is_forgotten_when_the_stream_closes() -> None:
    play = Play(
        StepDef("s", accepts=("Start", "Again")),
        StepDef("w", accepts=("A",)),
        StepDef("j", join=Join("all_of", (("B",), ("C",)))),
    ).start()
    for _ in range(3):
        play.stream("s", *members(1))
        play.emit("w", "B")
        assert play.decided(StreamClosed)
        assert not play.run.joins
        play.arrive("Again")


# --- streams -------------------------------------------------------------------------------------


@pytest.mark.parametrize("order, brought", [("arrival", (3, 1, 2)), ("input", (1, 2, 3))])
def test_a_collection_runs_once_when_its_stream_has_closed(
    order: Literal["arrival", "input"], brought: tuple[int, ...]
) -> None:
    play = Play(S, W, collecting(order=order)).start()
    play.stream("s", *members(1, 2, 3))
    assert play.running() == ["w", "w", "w"]
    for work in (4, 2, 3):
        assert not play.all("j")
        play.emit(1 + work, message("B", work - 1))
    assert play.got("j") == brought
    assert not play.run.streams
    assert not play.run.joins


@pytest.mark.parametrize("take", [None, 1, 5])
def test_an_empty_stream_runs_its_collection_once_with_nothing(take: int | None) -> None:
    play = Play(S, W, collecting(take=take)).start()
    play.stream("s")
    assert play.got("j") == ()
    assert not play.run.streams


def test_take_runs_at_the_nth_arrival_and_late_members_go_nowhere() -> None:
    play = Play(S, W, collecting(take=2)).start()
    play.stream("s", *members(1, 2, 3))
    play.emit(5, message("B", 3))
    play.emit(3, message("B", 1))
    assert play.got("j") == (3, 1)
    play.emit(4, message("B", 2))
    assert not play.decided(WorkAdded)
    assert play.decided(StreamClosed)
    assert len(play.all("j")) == 1
    assert not play.run.joins


def test_take_of_the_first_n_may_be_in_the_order_of_the_input() -> None:
    play = Play(S, W, collecting(take=2, order="input")).start()
    play.stream("s", *members(1, 2, 3))
    play.emit(5, message("B", 3))
    play.emit(3, message("B", 1))
    assert play.got("j") == (1, 3)


def test_a_stream_that_closes_before_the_nth_arrival_brings_what_it_has() -> None:
    play = Play(S, W, collecting(take=3)).start()
    play.stream("s", *members(1, 2))
    play.emit("w", message("B", 1))
    play.emit("w")
    assert play.got("j") == (1,)


def test_members_that_go_to_the_collection_at_once_do_not_close_the_stream_too_early() -> None:
    play = Play(S, collecting("A")).start()
    play.stream("s", *members(1, 2, 3))
    assert play.got("j") == (1, 2, 3)
    play = Play(S, collecting("A", take=2)).start()
    play.stream("s", *members(1, 2, 3))
    assert play.got("j") == (1, 2)
    assert not play.run.joins


def test_what_descends_from_a_member_belongs_to_the_stream_too() -> None:
    play = Play(S, W, StepDef("x", accepts=("X",)), collecting(order="input")).start()
    play.stream("s", *members(1, 2))
    play.emit(3, "X")
    play.emit(4, message("B", 2), message("B", 22))
    assert not play.all("j")
    play.emit("x", message("B", 1))
    assert play.got("j") == (1, 2, 22)


def test_streams_inside_of_streams_close_from_the_inside() -> None:
    play = Play(
        S,
        INNER,
        StepDef("v", accepts=("V",)),
        collecting("C", name="j2"),
        collecting(order="input"),
    ).start()
    play.stream("s", *members(1, 2))
    play.stream(3, *members(10, 11, tag="V"))
    play.stream(4)
    assert [w.stream for w in play.all("j2")] == [2]
    play.emit("j2", message("B", "empty"))
    for _ in range(2):
        play.emit("v", message("C", "inner"))
    assert play.got("j2") == ("inner", "inner")
    assert not play.all("j")
    play.emit("j2", message("B", "full"))
    assert play.got("j") == ("full", "empty")
    assert not play.run.streams


def test_one_stream_may_feed_several_collections() -> None:
    s = StepDef("s", accepts=("Start",), collectors=("j", "k"))
    play = Play(s, W, collecting(), collecting("C", take=1, name="k")).start()
    play.stream("s", *members(1, 2))
    play.emit("w", message("B", 1))
    play.emit("w", message("C", 2))
    assert (play.got("j"), play.got("k")) == ((1,), (2,))


def test_a_failed_member_that_its_handler_drops_closes_the_stream() -> None:
    handler = StepDef("h", recoveries=9)
    w = StepDef("w", accepts=("A",), on_error="h")
    play = Play(S, w, handler, collecting()).start()
    play.stream("s", *members(1, 2, 3))
    play.emit("w", message("B", 1))
    play.fail("w")
    play.emit("w", message("B", 3))
    assert not play.all("j")
    play.emit("h")
    assert play.got("j") == (1, 3)


def test_a_failed_member_that_its_handler_replaces_keeps_its_place() -> None:
    play = Play(
        S, StepDef("w", accepts=("A",), on_error="h"), StepDef("h"), collecting(order="input")
    ).start()
    play.stream("s", *members(1, 2))
    play.fail(3)
    play.emit("w", message("B", 2))
    play.emit("h", message("B", "instead"))
    assert play.got("j") == ("instead", 2)


def test_a_retried_member_holds_its_stream_open() -> None:
    play = Play(S, W, collecting()).start()
    play.stream("s", *members(1))
    play.fail("w", retry_after=5.0)
    assert not play.all("j")
    play.after(5.0)
    play.emit("w", message("B", 1))
    assert play.got("j") == (1,)


def test_a_failure_that_ends_the_run_ends_its_streams() -> None:
    play = Play(S, W, collecting()).start()
    play.stream("s", *members(1, 2))
    play.fail("w")
    assert play.status is RunStatus.FAILED
    assert not play.decided(JoinReleased)


def test_what_a_member_sends_itself_is_not_of_its_stream() -> None:
    play = Play(S, W, StepDef("x", accepts=("X",)), collecting()).start()
    play.stream("s", *members(1))
    play.feed(Sent(100.0, 3, [message("X")]))
    play.emit("w")
    assert play.got("j") == ()
    assert play.work("x").stream == 0


@pytest.mark.parametrize("how", ["sleep", "wait", "timeout", "child"])
def test_a_member_that_sleeps_or_waits_holds_its_stream_open(how: str) -> None:
    play = Play(S, W, StepDef("x"), collecting(order="input")).start()
    play.stream("s", *members(1, 2))
    outcome = {
        "sleep": Sleep(5.0, "x", message("X")),
        "wait": WaitFor("Go", message("X"), "x"),
        "timeout": WaitFor("Go", message("X"), "x", None, 5.0, "x"),
        "child": Spawn("Other", message("X"), "x"),
    }[how]
    play.end(3, outcome)
    play.emit("w", message("B", 2))
    assert not play.all("j")
    if how == "child":
        (child,) = play.run.children()
        play.child_ends(child)
    elif how == "wait":
        play.arrive("Go")
    else:
        play.after(5.0)
    play.emit("x", message("B", 1))
    assert play.got("j") == (1, 2)
    assert play.status is RunStatus.RUNNING


def test_members_wait_their_turn_for_a_limited_step_in_their_order() -> None:
    play = Play(S, StepDef("w", accepts=("A",), workers=2), collecting()).start()
    play.stream("s", *members(*range(5)))
    begun: list[object] = []
    while play.all("w"):
        assert len([w for w in play.running() if w == "w"]) <= 2
        payload = play.work("w").message.payload  # pyright: ignore
        begun.append(payload)
        play.emit("w", message("B", payload))
    assert begun == [0, 1, 2, 3, 4]
    assert play.got("j") == (0, 1, 2, 3, 4)
