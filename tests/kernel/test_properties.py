"""Whatever happens to a run, in whatever order, what it counts is right and its journal is it."""

from __future__ import annotations

import copy
import itertools
from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.kernel.chaos import TAGS, Chaos, Command, commands, definitions
from tests.kernel.playing import START, check, same

from stepwell.kernel.attempts import attempt_ended, straight_on
from stepwell.kernel.decide import advance, decide
from stepwell.kernel.definition import Definition
from stepwell.kernel.inputs import Attempted, Start
from stepwell.kernel.journal import Entry, WaitEnded, WaitOpened, WorkAdded, WorkBegun, WorkDone
from stepwell.kernel.outcomes import Emit, Goto, Message, Outcome
from stepwell.kernel.routing import plain_way, route_message
from stepwell.kernel.run import RUNNING, Run, evolve, finish, next_due, pending

thorough = settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])


def play(definition: Definition, given: list[Command]) -> tuple[Run, list[Entry]]:
    """A run after these commands, checked after each of them, and its journal."""
    run = Run("r")
    chaos = Chaos(definition, run)
    journal = copy.deepcopy(advance(definition, run, Start(100.0, START)))
    for command in given:
        input = chaos.input(command)
        ended = run.ended
        entries = advance(definition, run, input)
        journal += copy.deepcopy(entries)
        check(definition, run)
        if ended is not None:
            assert not entries
            assert run.ended is ended
    return run, journal


@thorough
@given(definitions(), commands)
def test_the_counts_of_a_run_are_right_whatever_happens(
    definition: Definition, given: list[Command]
) -> None:
    run, journal = play(definition, given)
    opened = Counter(e.id for e in journal if isinstance(e, WaitOpened))
    answered = Counter(e.id for e in journal if isinstance(e, WaitEnded))
    assert answered <= opened, "a wait ended twice"
    for entry in journal:
        if isinstance(entry, WorkAdded):
            assert entry.step in definition.by_name
    owed = pending(run)
    if run.ended is None and run.parked is None:
        assert owed.alive_due == next_due(run)
        running = {w.id for w in run.work.values() if w.phase == RUNNING}
        assert running <= {w.id for w in owed.attempts}


@thorough
@given(definitions(), commands)
def test_after_every_single_entry_the_journal_alone_gives_the_same_run(
    definition: Definition, given: list[Command]
) -> None:
    run, again = Run("r"), Run("r")
    chaos = Chaos(definition, run)
    for input in [Start(100.0, START), *given]:
        if isinstance(input, tuple):
            input = chaos.input(input)
        for entry in decide(definition, run, input):
            written = copy.deepcopy(entry)
            evolve(run, entry)
            evolve(again, written)
            assert same(again, run)


@thorough
@given(
    definitions(),
    commands,
    st.sampled_from(TAGS),
    st.sampled_from([None, "s1"]),
    st.sampled_from([(), ("A",)]),
)
def test_the_short_way_of_a_message_is_its_way(
    definition: Definition, given: list[Command], tag: str, to: str | None, kinds: tuple[str, ...]
) -> None:
    run, _ = play(definition, given)
    if run.ended is not None or run.parked is not None:
        return
    m = Message(tag, {"n": 1}, to, kinds)
    for stream in (0, *(run.streams or ())):
        short = plain_way(definition, run, m, 1.0, stream, 3, {"s1": 1})
        if short is None:
            continue
        one, other = copy.deepcopy(run), copy.deepcopy(run)
        evolve(one, copy.deepcopy(short))
        entries: list[Entry] = []
        for entry in route_message(definition, other, m, 1.0, stream, 3, {"s1": 1}):
            evolve(other, entry)
            entries.append(entry)
        assert entries == [short]
        assert one == other


@thorough
@given(definitions(), commands)
def test_no_step_starts_twice_for_one_reason(definition: Definition, given: list[Command]) -> None:
    """An attempt begins only when work was added, put off, waiting, or taken up again."""
    run = Run("r")
    chaos = Chaos(definition, run)
    for input in [Start(100.0, START), *given]:
        if isinstance(input, tuple):
            input = chaos.input(input)
        alive = {w.id: w.attempt for w in run.work.values() if w.phase == RUNNING}
        resumed = type(input).__name__ in ("Loaded", "ResumeAsked", "CancelAsked")
        failed = {getattr(input, "work", 0)}
        for entry in decide(definition, run, input):
            if isinstance(entry, WorkBegun) and entry.id in alive:
                assert resumed or entry.id in failed
            evolve(run, entry)


@thorough
@given(definitions(), commands, st.sampled_from(TAGS), st.sampled_from([(), ("A",)]))
def test_the_short_end_of_an_attempt_is_its_end(
    definition: Definition, given: list[Command], tag: str, kinds: tuple[str, ...]
) -> None:
    run, _ = play(definition, given)
    if run.ended is not None or run.parked is not None:
        return
    goes = [Goto(step.name, Message(tag, None)) for step in definition.steps]
    goes.append(Goto("nowhere", Message(tag, None)))
    ends: list[Outcome] = [Emit((Message(tag, {"n": 1}, None, kinds),)), *goes]
    for id, outcome in itertools.product(run.work, ends):
        input = Attempted(1.0, id, outcome)
        short = straight_on(definition, run, run.work[id], outcome, 1.0)
        if short is None:
            continue
        one, other = copy.deepcopy(run), copy.deepcopy(run)
        finish(one, one.work[id])
        evolve(one, copy.deepcopy(short))
        entries: list[Entry] = []
        for entry in attempt_ended(definition, other, input):
            evolve(other, entry)
            entries.append(entry)
        assert entries == [WorkDone(id), short]
        assert entries == list(decide(definition, run, input))
        assert one == other
