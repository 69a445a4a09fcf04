"""Snapshots: a run goes through JSON at any moment and is the same run, as does its journal."""

from __future__ import annotations

import json
from collections import deque
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from tests.kernel.chaos import Chaos, Command, commands, definitions
from tests.kernel.playing import START, Play, check, message, same

from stepwell.authoring.program import TypeRegistry
from stepwell.kernel.decide import advance
from stepwell.kernel.definition import Definition, StepDef
from stepwell.kernel.inputs import Start
from stepwell.kernel.outcomes import Message
from stepwell.kernel.run import Run, fold
from stepwell.runtime import codec
from stepwell.runtime.saved import owed_by, restore, snapshot
from stepwell.runtime.sound import fault_in

TYPES = TypeRegistry([])


def through_json(run: Run) -> Run:
    return restore(json.loads(json.dumps(snapshot(run, TYPES))), TYPES)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(definitions(), commands)
def test_rows_and_snapshots_of_any_moment_give_the_same_run(
    definition: Definition, given: list[Command]
) -> None:
    run, again = Run("r"), Run("r")
    chaos = Chaos(definition, run)
    for input in [Start(100.0, START), *given]:
        if isinstance(input, tuple):
            input = chaos.input(input)
        entries = advance(definition, run, input)
        row = codec.encode(entries, TYPES, input.at)
        fold(again, codec.decode(row, TYPES, input.at))
        assert same(again, run)
        restored = through_json(run)
        assert restored == run
        assert fault_in(restored) is None
        check(definition, restored)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(definitions(), commands)
def test_a_restored_run_goes_on_as_the_one_that_was_saved(
    definition: Definition, given: list[Command]
) -> None:
    run = Run("r")
    advance(definition, run, Start(100.0, START))
    half = len(given) // 2
    chaos = Chaos(definition, run)
    for command in given[:half]:
        advance(definition, run, chaos.input(command))
    restored = through_json(run)
    for command in given[half:]:
        input = chaos.input(command)
        assert advance(definition, restored, input) == advance(definition, run, input)
    assert same(restored, run)


def test_containers_come_back_as_what_they_were() -> None:
    play = Play(*_steps()).start()
    play.arrive("Kept", 1)
    play.emit("s", "One", "One")
    restored = through_json(play.run)
    assert restored.inbox == {"Kept": deque([message("Kept", 1)])}
    assert isinstance((restored.inbox or {})["Kept"], deque)
    assert isinstance(restored.steps["one"].queue, deque)
    assert restored.failed_after == (0, 0.0)


def test_a_snapshot_of_an_older_release_lacks_what_came_later() -> None:
    run = Play(*_steps()).start().run
    data = snapshot(run, TYPES)
    assert data["c"] == "Run"
    del data["v"][-2:]
    assert restore(data, TYPES) == run


def test_a_snapshot_names_nothing_but_parts_of_a_run() -> None:
    for data in _STRANGE:
        with pytest.raises(ValueError, match="snapshot"):
            restore(data, TYPES)


_STRANGE: list[Any] = [
    7,
    None,
    [],
    {},
    {"c": "Message", "v": []},
    {"c": "builtins.eval", "v": ["1"]},
    {"c": "Work", "v": [1, "s"]},
    {"c": "Run"},
    {"x": 1},
    {"s": "asleep"},
    {"p": 9},
    {"d": [1]},
    {"m": ["A"]},
    {"c": "Run", "v": [{"x": 1}]},
]


def test_what_a_run_owes_can_start_again_in_another_run() -> None:
    play = Play(*_steps()).start()
    play.emit("s", "One", "One")
    play.arrive("Kept", 1)
    assert owed_by(play.run) == [
        Message("One", None, "one"),
        Message("One", None, "one"),
        Message("Kept", 1),
    ]


def _steps() -> tuple[Any, ...]:
    return StepDef("s", accepts=("Start",)), StepDef("one", accepts=("One",), workers=1)
