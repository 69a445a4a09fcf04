"""State machines as pictures: states, what leads on, where runs begin and end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from stepwell.authoring.drawing.draw import draw
from stepwell.authoring.drawing.journal import definition_seen
from stepwell.authoring.drawing.run import run_view
from stepwell.authoring.drawing.states import is_machine, machine_picture, unknown_steps
from stepwell.authoring.machine.define import Machine, machine_of
from stepwell.kernel.definition import Definition
from stepwell.machine import (
    complete,
    event_workflow,
    fail,
    goto,
    on_fail,
    run_subflow,
    sleep,
    step,
    wait,
    wait_for_event,
    workflow,
)
from stepwell.testing import run_virtual

HIDDEN = ("(complete)", "(plan)", "(fire)", "(on fail)", "(fail)", "(go)", "(start)")


@workflow("drawn-parcel")
class Parcel:
    class Context(BaseModel):
        pass

    @step(start=True)
    def send(self) -> Any:
        return complete()


@workflow("drawn-order")
class Order:
    context: Any

    class Context(BaseModel):
        n: int = 0
        naps: int = 0

    @step(start=True, title="Check it")
    def check(self) -> Any:
        if self.context.n < 0:
            return fail("no such order")
        return goto(self.ask if self.context.n else self.nap)

    @step()
    def ask(self) -> Any:
        return wait.for_signal("approval", timeout=timedelta(days=7), on_timeout="nap")

    @step()
    def ship(self) -> Any:
        return run_subflow(Parcel, on_complete=self.last)

    @step(visible=False)
    def nap(self) -> Any:
        self.context.naps += 1
        if self.context.naps < 3:
            return sleep(timedelta(hours=24))
        return goto(self.last)

    @step()
    def last(self) -> Any:
        return wait_for_event("paid")

    @on_fail
    def give_up(self) -> None:
        pass


@workflow("drawn-unknown")
class Unknown:
    class Context(BaseModel):
        pass

    @step(start=True)
    def jump(self) -> Any:
        return goto(getattr(self, "la" + "nd"))

    @step()
    def land(self) -> Any:
        return complete()


@event_workflow("drawn-meeting", offset_minutes=-60, name="drawn-remind")
class Remind:
    @step(start=True)
    def tell(self) -> Any:
        return complete()


@event_workflow("drawn-meeting", name="drawn-now")
class Now:
    @step(start=True)
    def tell(self) -> Any:
        return complete()


MACHINE = machine_of(Order)
Arrow = tuple[str, str, str]
DEFINITION = MACHINE.compiled().definition


def arrows(
    definition: Definition, machine: Machine | None = None
) -> Iterator[tuple[str, str, str]]:
    for edge in machine_picture(definition, None, machine).edges.values():
        yield edge.source.split(":")[1], edge.target.split(":")[1], edge.label


# --- of the class --------------------------------------------------------------------------------


def test_every_way_on_is_an_arrow_with_what_it_waits_for() -> None:
    assert set(arrows(DEFINITION, MACHINE)) == {
        ("start", "check", ""),
        ("check", "ask", ""),
        ("check", "nap", ""),
        ("check", "fail", ""),
        ("ask", "ship", "signal approval"),
        ("ask", "nap", "timeout 7 d"),
        ("nap", "nap", "sleep 1 d"),
        ("nap", "last", ""),
        ("ship", "last", "subflow Parcel"),
        ("ship", "drawn-parcel", "runs"),
        ("last", "complete", "event paid"),
        ("fails", "on_fail", ""),
    }


def test_titles_are_used_and_hidden_steps_are_dashed() -> None:
    nodes = machine_picture(DEFINITION, None, MACHINE).nodes
    assert nodes["step:check"].label == "Check it"
    assert nodes["step:on_fail"].label == "give_up"
    assert [node.label for node in nodes.values() if node.dashed] == ["nap"]


def test_subflows_are_drawn_as_pictures_of_their_own() -> None:
    (child,) = machine_picture(DEFINITION, None, MACHINE).children
    assert child.title == "drawn-parcel"
    assert "step:send" in child.nodes


@pytest.mark.parametrize(
    ("cls", "label"),
    [
        (Order, "start"),
        (Remind, "1 h before event drawn-meeting"),
        (Now, "event drawn-meeting"),
    ],
)
def test_the_start_says_what_starts_a_run(cls: type, label: str) -> None:
    machine = machine_of(cls)
    picture = machine_picture(machine.compiled().definition, None, machine)
    assert picture.nodes["event:start"].label == label


def test_what_the_code_does_not_say_is_a_dashed_question_mark() -> None:
    machine = machine_of(Unknown)
    assert list(unknown_steps(machine)) == ["jump"]
    assert not list(unknown_steps(MACHINE))
    picture = machine_picture(machine.compiled().definition, None, machine)
    edge = picture.edges["step:jump", "unknown:?"]
    assert edge.kind == "unknown"
    assert picture.nodes["unknown:?"].label == "?"


@pytest.mark.parametrize("format", ["mermaid", "dot", "svg", "html"])
def test_no_format_shows_the_names_of_the_machinery(format: Any) -> None:
    for machine in (MACHINE, None):
        text = draw(DEFINITION, format, machine=machine)
        assert "ask" in text
        assert not [name for name in HIDDEN if name in text]
    assert "dash" in draw(DEFINITION, format, machine=MACHINE)


# --- of the definition alone ---------------------------------------------------------------------


def test_the_definition_alone_gives_the_same_ways_without_words() -> None:
    bare = Definition.from_json(json.loads(json.dumps(DEFINITION.to_json())))
    assert is_machine(bare)
    expected = {
        (source, target)
        for source, target, _ in arrows(DEFINITION, MACHINE)
        if target != "drawn-parcel"
    }
    assert {(source, target) for source, target, _ in arrows(bare)} == expected


# --- of a run ------------------------------------------------------------------------------------


def ran(n: int, *, signal: bool = True, event: bool = True) -> tuple[Any, list[Any]]:
    """Where a run of the order is, and its journal."""

    async def main(clock: Any) -> Any:
        engine = clock.engine("memory://", [Order, Parcel])
        handler = await engine.start(Order, n=n)
        await clock.advance(1)
        if signal:
            await engine.signal(handler.run_id, "approval")
        await clock.advance(86400 * 3)
        if event:
            await engine.signal(handler.run_id, "event:paid")
        await clock.advance(1)
        info = await engine.get(handler.run_id)
        return info, await engine.batches(handler.run_id)

    return run_virtual(main)


def counted(definition: Definition, batches: list[Any], machine: Machine | None) -> dict[Any, int]:
    picture = machine_picture(definition, run_view(definition, batches), machine)
    return {
        (edge.source.split(":")[1], edge.target.split(":")[1]): edge.count
        for edge in picture.edges.values()
        if edge.count
    }


def test_a_run_that_was_signalled_counts_the_ways_it_took() -> None:
    _, batches = ran(5)
    assert counted(DEFINITION, batches, MACHINE) == {
        ("start", "check"): 1,
        ("check", "ask"): 1,
        ("ask", "ship"): 1,
        ("ship", "last"): 1,
        ("ship", "drawn-parcel"): 1,
        ("last", "complete"): 1,
    }


def test_a_run_that_slept_counts_each_time() -> None:
    _, batches = ran(0)
    took = counted(DEFINITION, batches, MACHINE)
    assert took["nap", "nap"] == 2
    assert took["nap", "last"] == 1


def test_a_run_that_failed_shows_where() -> None:
    _, batches = ran(-1)
    assert counted(DEFINITION, batches, MACHINE) == {
        ("start", "check"): 1,
        ("check", "fail"): 1,
        ("fails", "on_fail"): 1,
    }


def test_a_step_whose_wait_is_open_is_waiting() -> None:
    _, batches = ran(5, signal=False, event=False)
    view = run_view(DEFINITION, batches[:3])
    assert view.steps["ask"].status == "waiting"
    picture = machine_picture(DEFINITION, view, MACHINE)
    assert not picture.nodes["step:ship"].visited
    assert picture.nodes["step:ask"].visited


@pytest.mark.parametrize("n", [5, 0, -1])
def test_a_journal_alone_gives_the_same_ways(n: int) -> None:
    _, batches = ran(n)
    seen = definition_seen("drawn-order", [entries for _, entries in batches])
    assert is_machine(seen)
    whole = counted(DEFINITION, batches, MACHINE)
    whole.pop(("ship", "drawn-parcel"), None)
    assert counted(seen, batches, None) == whole
    text = draw(seen, "mermaid", run=run_view(seen, batches))
    assert not [name for name in HIDDEN if name in text]


def test_a_computed_way_that_a_run_took_is_drawn_as_taken() -> None:
    async def main(clock: Any) -> Any:
        engine = clock.engine("memory://", [Unknown])
        handler = await engine.start(Unknown)
        await handler
        return await engine.batches(handler.run_id)

    machine = machine_of(Unknown)
    definition = machine.compiled().definition
    view = run_view(definition, run_virtual(main))
    edges = machine_picture(definition, view, machine).edges
    assert edges["step:jump", "step:land"].kind == "dynamic"
    assert edges["step:jump", "step:land"].count == 1
