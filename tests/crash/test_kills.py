"""A process that is killed at any store write loses nothing, and nothing is done twice for good.

Every reference workflow runs once without a kill, and then once for every write of that run, before
and after it, on a file of its own. The process kills itself there (SIGKILL, at once), and another
process goes on with the file.
"""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.crash.conftest import ForkServer
from tests.crash.flows import FLOWS, SEVERAL_AT_ONCE

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL"),
    pytest.mark.timeout(120),
]


def _same(name: str, shown: list[str]) -> list[str]:
    """What is shown, without the order that is another one each time."""
    return sorted(shown) if name in SEVERAL_AT_ONCE else shown


def _check(name: str, expected: dict[str, Any], expected_effects: list[str], one: Any) -> None:
    where = f"{name} killed at {one['kills']}: exits {one['statuses']}\n" + "\n".join(one["errors"])
    assert one["statuses"][-1] == 0, where
    report = one["report"]
    assert report is not None, where
    for field in ("status", "result", "error"):
        assert report[field] == expected[field], f"{field} of {where}"
    assert _same(name, report["stream"]) == _same(name, expected["stream"]), where
    assert report["again"] == report["stream"], where
    assert report["left"] == [], where
    assert report["done"] == expected["done"], where
    # What a committed step did is not done again, and whatever is done again says the same key.
    last = one["effects"][-1]
    committed = set(report["committed"])
    assert not [line for line in last if line.split()[1] in committed], where
    distinct = {line for life in one["effects"] for line in life}
    assert Counter(line.split()[0] for line in distinct) == Counter(
        line.split()[0] for line in set(expected_effects)
    ), where


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
    kills = [[(n, when)] for n in range(1, writes + 1) for when in ("before", "after")]
    lives = forks.lives(name, tmp_path / "kills", kills)
    for one in lives:
        _check(name, expected, effects, one)
    died = sum(one["statuses"][0] == -signal.SIGKILL for one in lives)
    assert died >= len(kills) * 3 // 4  # a busy machine puts more into one write


@pytest.mark.parametrize("name", ["Linear", "Fan", "Questions", "Parent", "Counter", "Memo"])
def test_a_run_that_is_killed_twice_ends_as_one_that_was_not(
    forks: ForkServer, tmp_path: Path, name: str
) -> None:
    expected, effects = _uninterrupted(forks, name, tmp_path)
    writes = expected["writes"]
    kills = [
        [(n, "after"), (m, when)]
        for n in range(2, writes + 1, max(1, writes // 6))
        for m, when in ((2, "after"), (3, "before"), (4, "after"))
    ]
    for one in forks.lives(name, tmp_path / "kills", kills):
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
