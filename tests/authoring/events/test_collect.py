"""Join markers are plain values that refuse nonsense where it is written."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from stepwell import collect as door
from stepwell.authoring.events.collect import All, Collect, Take


def test_a_join_collects_everything_in_arrival_order_unless_told_otherwise():
    assert Collect() == Collect(All(), order="arrival")


def test_markers_are_values():
    assert Take(2) == Take(2) != Take(3)
    assert len({Collect(Take(2)), Collect(Take(2)), Collect(Take(2), order="input")}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        Take(2).n = 3  # pyright: ignore[reportAttributeAccessIssue] - that is the point


@pytest.mark.parametrize("n", [0, -1, 1.0, "2", None, True])
def test_take_wants_a_positive_integer(n: Any):
    with pytest.raises(ValueError, match=r"^Take\(n\) requires an integer n >= 1$"):
        Take(n)


def test_the_order_is_one_of_two():
    order: Any = "random"
    with pytest.raises(ValueError, match="must be 'arrival' or 'input', got 'random'"):
        Collect(order=order)


def test_an_unfit_cardinality_is_kept_for_whoever_can_name_the_parameter():
    unfit: Any = 5
    assert Collect(unfit).cardinality == 5


def test_the_door_shows_the_same_classes():
    assert (door.All, door.Collect, door.Take) == (All, Collect, Take)
