"""The patch of two JSON values turns the first into the second, and is small."""

from __future__ import annotations

import copy
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.patch import apply, diff, same

_keys = st.one_of(
    st.sampled_from(["a", "b", "a/b", "m~n", "~1", "-", "0", ""]), st.text(max_size=4)
)
_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(allow_nan=False, width=16),
    st.text(max_size=5),
)
_json: st.SearchStrategy[Any] = st.recursive(
    _scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=6), st.dictionaries(_keys, inner, max_size=5)),
    max_leaves=25,
)


@given(_json, _json)
def test_applying_the_diff_gives_the_second_value_and_changes_neither(before: Any, after: Any):
    was_before, was_after = copy.deepcopy(before), copy.deepcopy(after)
    patch = diff(before, after)
    assert same(apply(before, json.loads(json.dumps(patch))), after)
    assert same(before, was_before)
    assert same(after, was_after)
    assert bool(patch) is not same(before, after)


@given(st.lists(_json, min_size=2, max_size=5))
def test_patches_fold_in_order(values: list[Any]):
    doc = values[0]
    for previous, following in itertools.pairwise(values):
        doc = apply(doc, diff(previous, following))
    assert same(doc, values[-1])


def test_an_append_is_one_operation_whatever_the_length():
    log = [{"line": n} for n in range(1000)]
    assert diff({"log": log}, {"log": [*log, {"line": -1}]}) == [
        {"op": "add", "path": "/log/-", "value": {"line": -1}}
    ]


def test_taking_the_first_element_is_one_operation():
    queue = list(range(1000))
    assert diff(queue, queue[1:]) == [{"op": "remove", "path": "/0"}]


def test_inserting_in_the_middle_keeps_the_others():
    assert diff([1, 2, 3], [1, 9, 2, 3]) == [{"op": "add", "path": "/1", "value": 9}]


def test_one_changed_leaf_is_one_operation():
    before = {"rows": [{"id": n, "text": "x" * 50} for n in range(20)]}
    after = copy.deepcopy(before)
    after["rows"][7]["text"] = "y"
    assert diff(before, after) == [{"op": "replace", "path": "/rows/7/text", "value": "y"}]


def test_what_changed_everywhere_is_replaced_as_a_whole():
    assert diff({"v": [0] * 50}, {"v": [1] * 50}) == [
        {"op": "replace", "path": "/v", "value": [1] * 50}
    ]


@pytest.mark.parametrize(
    ("before", "after"), [(1, True), (0, False), (1, 1.0), ([1], [True]), ({"a": 0}, {"a": False})]
)
def test_values_that_python_takes_for_equal_are_told_apart(before: Any, after: Any):
    assert diff(before, after)
    assert same(apply(before, diff(before, after)), after)


def test_unchanged_parts_are_shared():
    before = {"big": {"x": [1]}, "n": 1}
    assert apply(before, [{"op": "replace", "path": "/n", "value": 2}])["big"] is before["big"]


def test_values_of_the_patch_are_not_changed_by_later_operations():
    value: list[int] = []
    patch = [
        {"op": "add", "path": "/l", "value": value},
        {"op": "add", "path": "/l/-", "value": 1},
    ]
    assert apply({}, patch) == {"l": [1]}
    assert value == []


@pytest.mark.parametrize(
    ("op", "message"),
    [
        ({"op": "move", "from": "/a", "path": "/b"}, "Unsupported state patch op 'move'"),
        ({"path": "/a"}, "Unsupported state patch op None"),
        ({"op": "remove", "path": "/zz"}, "'/zz' is not in the document"),
        ({"op": "replace", "path": "/l/5", "value": 1}, "'/l/5' is not in the document"),
        ({"op": "add", "path": "/l/x", "value": 1}, "'/l/x' is not in the document"),
        ({"op": "add", "path": "/l/-1", "value": 1}, "'/l/-1' is not in the document"),
        ({"op": "add", "path": "/n/x", "value": 1}, "'/n/x' is not in the document"),
        ({"op": "add", "path": "n", "value": 1}, "not a JSON pointer"),
        ({"op": "add", "path": "/n"}, "has no value"),
        ({"op": "remove", "path": ""}, "whole document"),
    ],
)
def test_what_cannot_be_carried_out_is_refused(op: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        apply({"l": [1], "n": 1}, [op])
