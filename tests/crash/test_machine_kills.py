"""State machines whose process is killed at any store write end as those that were not killed.

As `test_kills.py`: every reference machine lives once in peace, and then once for each write of
that life, before and after it; another process goes on with the file. All runs are compared with
those of the calm life: how they ended, their contexts, and every attempt of every step.
"""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.crash.conftest import ForkServer
from tests.crash.machines import MACHINES

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL"),
    pytest.mark.timeout(120),
]

ENDS = {
    "Journey": {"crash-journey": "failed", "crash-part": "failed"},
    "Signalled": {"crash-signalled": "completed"},
    "Revoked": {"crash-revoked": "cancelled", "crash-part": "cancelled"},
    "Reminded": {"Reminded": "completed", "stepwell.event": "completed"},
}


def _calm(forks: ForkServer, name: str, directory: Path) -> tuple[dict[str, Any], list[str]]:
    (calm,) = forks.lives(name, directory / "calm", [[]])
    assert calm["statuses"] == [0], calm["errors"]
    report = calm["report"]
    assert report["left"] == []
    assert {run["name"]: run["status"] for run in report["runs"]} == ENDS[name]
    return report, calm["effects"][0]


def _check(name: str, expected: dict[str, Any], effects: list[str], one: Any) -> None:
    where = f"{name} killed at {one['kills']}: exits {one['statuses']}\n" + "\n".join(one["errors"])
    assert one["statuses"][-1] == 0, where
    report = one["report"]
    assert report is not None, where
    assert report["runs"] == expected["runs"], where
    assert report["left"] == [], where
    assert report["done"] == expected["done"], where
    # What a committed step did is not done again, and whatever is done again says the same key.
    committed = set(report["committed"])
    assert not [line for line in one["effects"][-1] if line.split()[1] in committed], where
    distinct = {line for life in one["effects"] for line in life}
    assert Counter(line.split()[0] for line in distinct) == Counter(
        line.split()[0] for line in set(effects)
    ), where


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_that_is_killed_anywhere_ends_as_one_that_was_not(
    forks: ForkServer, tmp_path: Path, name: str
) -> None:
    expected, effects = _calm(forks, name, tmp_path)
    writes = expected["writes"]
    assert writes >= 10
    kills = [[(n, when)] for n in range(1, writes + 1) for when in ("before", "after")]
    lives = forks.lives(name, tmp_path / "kills", kills)
    for one in lives:
        _check(name, expected, effects, one)
    died = sum(one["statuses"][0] == -signal.SIGKILL for one in lives)
    assert died >= len(kills) * 3 // 4  # a busy machine puts more into one write


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_that_is_killed_twice_ends_as_one_that_was_not(
    forks: ForkServer, tmp_path: Path, name: str
) -> None:
    expected, effects = _calm(forks, name, tmp_path)
    writes = expected["writes"]
    kills = [
        [(n, "after"), (m, when)]
        for n in range(2, writes + 1, max(1, writes // 6))
        for m, when in ((2, "after"), (3, "before"), (5, "after"))
    ]
    for one in forks.lives(name, tmp_path / "kills", kills):
        _check(name, expected, effects, one)


def test_the_comparison_notices_what_it_is_there_for(forks: ForkServer, tmp_path: Path) -> None:
    """A step, a line of history, or an effect too many is seen: the check itself can fail."""
    expected, effects = _calm(forks, "Signalled", tmp_path)
    (one,) = forks.lives("Signalled", tmp_path / "kill", [[(8, "after")]])
    _check("Signalled", expected, effects, one)
    committed = one["report"]["committed"]
    assert committed
    for number, spoil in enumerate(
        (
            lambda r: r["report"]["runs"][0]["data"].update(amount=9),
            lambda r: r["report"]["runs"][0]["history"].append(["third", 1, "completed", None]),
            lambda r: r["report"]["runs"].append({"name": "another"}),
            lambda r: r["report"].update(left=["run x is running"]),
            lambda r: r["effects"][-1].append(f"first {committed[0]}"),
            lambda r: r["effects"][-1].append("third another-key"),
        )
    ):
        (spoilt,) = forks.lives("Signalled", tmp_path / f"spoil{number}", [[(8, "after")]])
        spoil(spoilt)
        with pytest.raises(AssertionError):
            _check("Signalled", expected, effects, spoilt)
