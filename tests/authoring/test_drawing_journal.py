"""What a journal tells of the workflow that wrote it."""

from __future__ import annotations

from collections.abc import Sequence

from tests.kernel.playing import Play

from stepwell.authoring.drawing.draw import draw
from stepwell.authoring.drawing.journal import definition_seen
from stepwell.authoring.drawing.run import run_view
from stepwell.kernel.definition import Definition, Join, StepDef
from stepwell.kernel.journal import Entry


def seen(play: Play, batches: Sequence[Sequence[Entry]]) -> Definition:
    found = definition_seen("play", batches)
    for end in range(len(batches)):  # a journal may end anywhere
        draw(definition_seen("play", batches[:end]), "svg")
    assert run_view(found, batches).visited == run_view(play.d, batches).visited
    return found


def test_joins_lists_and_questions_are_seen() -> None:
    play = Play(
        StepDef(
            "s", accepts=("Start",), emits=("A", "B", "Ask"), collectors=("all",), opens=("M",)
        ),
        StepDef("both", join=Join("all_of", (("A",), ("B",))), emits=("Two",)),
        StepDef("two", accepts=("Two",), emits=("Go",)),
        StepDef("open", accepts=("Go",), opens=("M",), collectors=("all",)),
        StepDef("all", join=Join("collect", (("M",),)), emits=("Stop",)),
        start="Start",
        publishes=("Ask",),
    )
    batches = [
        play.start().last,
        play.emit("s", "Ask", "A", "B"),
        play.emit("both", "Two"),
        play.emit("two", "Go"),
        play.stream("open", "M", "M"),
        play.emit("all", "Stop"),
    ]
    found = seen(play, batches)
    assert (found.start, found.ends, found.publishes) == ("Start", ("Stop",), ("Ask",))
    steps = {step.name: step for step in found.steps}
    assert list(steps) == ["s", "both", "two", "open", "all"]
    assert steps["s"].emits == ("Ask", "A", "B")
    assert steps["both"].join == Join("all_of", (("A",), ("B",)))
    assert steps["open"].opens == ("M",)
    assert steps["all"].join == Join("collect", (("M",),))


def test_a_message_from_outside_has_no_step_that_emits_it() -> None:
    play = Play(
        StepDef("s", accepts=("Start",)),
        StepDef("h", accepts=("Answer",), emits=("Stop",)),
        start="Start",
    ).start()
    batches = [play.last, play.emit("s"), play.arrive("Answer"), play.emit("h", "Stop")]
    found = seen(play, batches)
    assert [(step.name, step.accepts, step.emits) for step in found.steps] == [
        ("s", ("Start",), ()),
        ("h", ("Answer",), ("Stop",)),
    ]
