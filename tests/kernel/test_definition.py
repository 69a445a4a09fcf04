"""A definition is data: it goes through JSON unchanged, and its routing tables follow from it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.kernel.definition import Definition, Join, StepDef

names = st.sampled_from(["a", "b", "c", "d"])
tags = st.lists(st.sampled_from(["A", "B", "C", ""]), max_size=3).map(tuple)
seconds = st.none() | st.floats(0, 1e6) | st.integers(0, 9)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
joins = st.builds(
    Join,
    st.sampled_from(["all_of", "collect"]),
    st.lists(tags, max_size=2).map(tuple),
    st.none() | st.integers(0, 5),
    st.sampled_from(["arrival", "input"]),
)


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    mine = draw(st.lists(names, unique=True, max_size=4))
    some = st.none() | st.sampled_from(mine) if mine else st.none()
    steps = [
        draw(
            st.builds(
                StepDef,
                st.just(name),
                tags,
                st.booleans(),
                st.none() | joins,
                tags,
                st.integers(0, 4),
                seconds,
                some,
                st.integers(0, 3),
                st.lists(st.sampled_from(mine), max_size=2).map(tuple),
                tags,
                json_values,
                st.text(max_size=3),
            )
        )
        for name in mine
    ]
    return Definition(
        draw(st.text(max_size=5)),
        tuple(steps),
        draw(st.text(max_size=3)),
        draw(st.text(max_size=3)),
        draw(some),
        draw(tags),
        draw(tags),
        draw(seconds),
        draw(some),
        draw(some),
    )


@given(definitions())
def test_a_definition_goes_through_json_unchanged(definition: Definition) -> None:
    again = Definition.from_json(json.loads(json.dumps(definition.to_json())))
    assert again == definition
    assert json.dumps(again.to_json()) == json.dumps(definition.to_json())
    assert (again.routes, again.by_kind) == (definition.routes, definition.by_kind)


def test_what_is_as_usual_is_not_written() -> None:
    definition = Definition("d", (StepDef("a", accepts=("A",), recoveries=0, timeout=0.0),))
    assert definition.to_json() == {
        "name": "d",
        "steps": [{"name": "a", "accepts": ["A"], "recoveries": 0, "timeout": 0.0}],
    }


@pytest.mark.parametrize(
    "steps, options, text",
    [
        ((StepDef("a"), StepDef("a")), {}, "names a step twice"),
        ((StepDef("a", on_error="b"),), {}, "step 'a' names the unknown step 'b'"),
        ((StepDef("a", collectors=("b",)),), {}, "step 'a' names the unknown step 'b'"),
        ((StepDef("a"),), {"entry": "b"}, "definition 'd' names the unknown step 'b'"),
        ((StepDef("a"),), {"on_exit": "b"}, "definition 'd' names the unknown step 'b'"),
        ((StepDef("a"),), {"on_error": "b"}, "definition 'd' names the unknown step 'b'"),
    ],
)
def test_names_must_be_known_and_unique(
    steps: tuple[StepDef, ...], options: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        Definition("d", steps, **options)


@pytest.mark.parametrize("data", [{"name": "d", "steps": [], "colour": 1}, {"steps": []}])
def test_unknown_and_missing_fields_are_refused(data: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Definition.from_json(data)


def test_a_join_is_reached_through_each_of_its_slots() -> None:
    join = StepDef("j", join=Join("all_of", (("A", "B"), ("C",))), subclasses=True)
    definition = Definition("d", (join, StepDef("a", accepts=("A",))))
    slots = {tag: [(r.step.name, r.slot) for r in rs] for tag, rs in definition.routes.items()}
    assert slots == {"A": [("j", 0), ("a", -1)], "B": [("j", 0)], "C": [("j", 1)]}
    assert set(definition.by_kind) == {"A", "B", "C"}
