"""State machines whose process is killed at any store write end as those that were not killed.

As `test_kills.py`: every reference machine lives once in peace, and then once for each write of
that life, before and after it; another process goes on with the file. All runs are compared with
those of the calm life: how they ended, their contexts, and every attempt of every step.
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
from tests.crash.machines import MACHINES

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL"),
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
    check_effects(effects, one, check_went_on(name, expected, one, ("runs",)))


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_that_is_killed_anywhere_ends_as_one_that_was_not(
    forks: ForkServer, tmp_path: Path, name: str
) -> None:
    expected, effects = _calm(forks, name, tmp_path)
    writes = expected["writes"]
    assert writes >= 10
    for one in killed_anywhere(forks, name, tmp_path, writes):
        _check(name, expected, effects, one)


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_that_is_killed_twice_ends_as_one_that_was_not(
    forks: ForkServer, tmp_path: Path, name: str
) -> None:
    expected, effects = _calm(forks, name, tmp_path)
    second = ((2, "after"), (3, "before"), (5, "after"))
    for one in killed_twice(forks, name, tmp_path, expected["writes"], second):
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
