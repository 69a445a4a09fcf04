"""A run starts, and messages find the steps that take them."""

from __future__ import annotations

import pytest
from tests.kernel.playing import Play, message

from stepwell.kernel.definition import Join, StepDef
from stepwell.kernel.inputs import Sent, Start, Wrote
from stepwell.kernel.journal import Published, RunEnded, RunStarted, Unhandled, WorkAdded, WorkDone
from stepwell.kernel.outcomes import Message
from stepwell.values import RunStatus


def test_starting_begins_the_step_that_accepts_the_start_message() -> None:
    play = Play(StepDef("a", accepts=("Start",)), timeout=45.0)
    assert play.status is RunStatus.QUEUED
    play.start(payload=1)
    assert play.last == [
        RunStarted(100.0, 145.0),
        WorkAdded(2, "a", Message("Start", 1), True, 100.0),
    ]
    assert play.status is RunStatus.RUNNING


def test_a_run_starts_once() -> None:
    play = Play(StepDef("a", accepts=("Start",))).start()
    assert play.feed(Start(101.0, message("Start"))) == []


def test_an_entry_step_takes_a_start_message_of_any_tag() -> None:
    play = Play(StepDef("a"), StepDef("b", accepts=("Start",)), entry="a").start()
    assert play.running() == ["a"]


ROUTES = [
    # what steps accept, what is emitted, who runs
    ({"a": ("A",), "b": ("B",)}, message("A"), ["a"]),
    ({"a": ("A",), "b": ("A", "B")}, message("A"), ["a", "b"]),
    ({"a": ("A",), "b": ("A", "B")}, message("A", None, "b"), ["b"]),
    ({"a": ("A",)}, message("X", None, "a"), ["a"]),
    ({"a": ("A",)}, message("Sub", None, None, "A"), []),
    ({"a": ("A",)}, message("X"), []),
    ({"a": ("A",)}, message("A", None, "nobody"), []),
]


@pytest.mark.parametrize("accepts, emitted, running", ROUTES)
def test_a_message_goes_to_every_step_that_accepts_its_tag_or_to_the_one_it_names(
    accepts: dict[str, tuple[str, ...]], emitted: Message, running: list[str]
) -> None:
    steps = [StepDef(name, accepts=tags) for name, tags in accepts.items()]
    play = Play(StepDef("s", accepts=("Start",)), *steps).start()
    play.emit("s", emitted)
    assert play.running() == running
    assert play.decided(Unhandled) == ([] if running else [Unhandled(emitted)])


def test_subclasses_go_where_a_base_is_accepted_by_steps_that_say_so_and_only_once() -> None:
    play = Play(
        StepDef("s", accepts=("Start",)),
        StepDef("open", accepts=("Base", "Root"), subclasses=True),
        StepDef("exact", accepts=("Base",)),
        StepDef("own", accepts=("Sub", "Base"), subclasses=True),
    ).start()
    play.emit("s", message("Sub", None, None, "Base", "Root"))
    assert play.running() == ["own", "open"]


def test_a_message_that_ends_the_run_is_its_result() -> None:
    play = Play(StepDef("s", accepts=("Start",)), StepDef("t", accepts=("Stop",))).start()
    play.emit("s", message("Stop", 7), "Other")
    assert play.last == [
        WorkDone(1),
        RunEnded(RunStatus.COMPLETED, 100.0, Message("Stop", 7)),
    ]
    assert play.run.result == Message("Stop", 7)
    assert not play.run.work


def test_a_subclass_of_an_end_ends_the_run_too() -> None:
    play = Play(StepDef("s", accepts=("Start",))).start()
    play.emit("s", message("MyStop", 7, None, "Stop"))
    assert play.status is RunStatus.COMPLETED


def test_nothing_that_was_emitted_or_sent_after_the_end_is_routed() -> None:
    for how in ("emit", "send"):
        play = Play(StepDef("s", accepts=("Start",)), StepDef("t", accepts=("A",))).start()
        if how == "emit":
            play.emit("s", "A", "Stop", "A")
        else:
            play.feed(Sent(100.0, 1, [message("A"), message("Stop"), message("A")]))
        assert isinstance(play.last[-1], RunEnded)
        assert len(play.decided(WorkAdded)) == 1


def test_messages_of_the_publishing_kind_are_shown_to_readers_and_routed() -> None:
    play = Play(
        StepDef("s", accepts=("Start",)), StepDef("t", accepts=("Ask",)), publishes=("Ask", "Say")
    ).start()
    play.emit("s", "Ask", "Say")
    assert play.decided(Published) == [Published((message("Ask"),)), Published((message("Say"),))]
    assert play.running() == ["t"]
    assert not play.decided(Unhandled)


def test_a_message_from_outside_that_nobody_takes_is_kept() -> None:
    play = Play(StepDef("s", accepts=("Start",)), StepDef("t", accepts=("A",))).start()
    play.arrive("A")
    assert play.running() == ["s", "t"]
    play.arrive("B")
    assert play.last == [Unhandled(message("B"), kept=True)]
    play.feed(Sent(100.0, 1, [message("B")]))
    assert play.last == [Unhandled(message("B"), kept=False)]


def test_what_came_before_the_run_began_is_routed_when_it_begins() -> None:
    play = Play(StepDef("s", accepts=("Start",)), StepDef("t", accepts=("A", "B")))
    play.arrive("A", 1)
    play.arrive("A", 2)
    play.arrive("C", 3)
    assert play.status is RunStatus.QUEUED
    play.start()
    assert play.running() == ["s", "t", "t"]
    assert play.run.inbox is not None
    assert list(play.run.inbox) == ["C"]


def test_what_a_step_writes_is_for_readers_alone() -> None:
    play = Play(StepDef("s", accepts=("Start",)), StepDef("t", accepts=("A",))).start()
    play.feed(Wrote(100.0, [message("A")], 1))
    assert play.last == [Published([message("A")], 1)]
    assert play.running() == ["s"]


def test_a_message_for_a_collecting_step_outside_of_a_stream_is_not_taken() -> None:
    play = Play(StepDef("s", accepts=("Start",)), StepDef("j", join=Join("collect", (("A",),))))
    play.start().emit("s", message("A", None, "j"))
    assert play.decided(Unhandled)
