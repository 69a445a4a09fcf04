"""A process that is killed at any store write loses nothing, and nothing is done twice for good.

Every reference workflow runs once without a kill, and then once for every write of that run, before
and after it, on a file of its own. The process kills itself there (SIGKILL, at once), and another
process goes on with the file.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from tests.crash.conftest import (
    ForkServer,
    check_effects,
    check_went_on,
    killed_anywhere,
    killed_twice,
)
from tests.crash.flows import FLOWS, SEVERAL_AT_ONCE

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL"),
]


def _same(name: str, shown: list[str]) -> list[str]:
    """What is shown, without the order that is another one each time."""
    return sorted(shown) if name in SEVERAL_AT_ONCE else shown


def _check(name: str, expected: dict[str, Any], expected_effects: list[str], one: Any) -> None:
    where = check_went_on(name, expected, one, ("status", "result", "error"))
    report = one["report"]
    assert _same(name, report["stream"]) == _same(name, expected["stream"]), where
    assert report["again"] == report["stream"], where
    check_effects(expected_effects, one, where)


def _uninterrupted(
    forks: ForkServer, name: str, directory: Path
) -> tuple[dict[str, Any], list[str]]:
    (calm,) = forks.lives(name, directory / "calm", [[]])
    assert calm["statuses"] == [0], calm["errors"]
    assert calm["report"]["left"] == []
    (effects,) = calm["effects"]
    assert len(effects) == len(set(effects)) or name in ("Retry", "Handled")
    return calm["report"], effects


@pytest.mark.parametrize("name", FLOWS)
def test_a_run_that_is_killed_anywhere_ends_as_one_that_was_not(
    forks: ForkServer, tmp_path: Path, name: str
) -> None:
    expected, effects = _uninterrupted(forks, name, tmp_path)
    writes = expected["writes"]
    assert writes >= 3
    for one in killed_anywhere(forks, name, tmp_path, writes):
        _check(name, expected, effects, one)


@pytest.mark.parametrize("name", ["Linear", "Fan", "Questions", "Parent", "Counter", "Memo"])
def test_a_run_that_is_killed_twice_ends_as_one_that_was_not(
    forks: ForkServer, tmp_path: Path, name: str
) -> None:
    expected, effects = _uninterrupted(forks, name, tmp_path)
    second = ((2, "after"), (3, "before"), (4, "after"))
    for one in killed_twice(forks, name, tmp_path, expected["writes"], second):
        _check(name, expected, effects, one)


def test_the_comparison_notices_what_it_is_there_for(forks: ForkServer, tmp_path: Path) -> None:
    """A result, an event or an effect too many is seen: the check itself can fail."""
    expected, effects = _uninterrupted(forks, "Linear", tmp_path)
    (one,) = forks.lives("Linear", tmp_path / "kill", [[(4, "after")]])
    _check("Linear", expected, effects, one)
    committed = one["report"]["committed"]
    assert committed
    for spoil in (
        lambda r: r["report"].update(result=99),
        lambda r: r["report"]["stream"].append("twice"),
        lambda r: r["report"].update(left=["run x is running"]),
        lambda r: r["effects"][-1].append(f"one {committed[0]}"),
        lambda r: r["effects"][-1].append("three another-key"),
    ):
        (spoilt,) = forks.lives("Linear", tmp_path / f"spoil{id(spoil)}", [[(4, "after")]])
        spoil(spoilt)
        with pytest.raises(AssertionError):
            _check("Linear", expected, effects, spoilt)
