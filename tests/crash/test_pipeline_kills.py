"""Pipelines whose process is killed at any store write end as those that were not killed.

As `test_kills.py`: each lives once in peace, and then once for each write of that life, before and
after it; another process goes on with the file. All are compared with the calm life: how they
ended, their contexts, and that what was committed is not done again. The exit steps have run.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from tests.crash.conftest import ForkServer, check_went_on, killed_anywhere, killed_twice
from tests.crash.pipelines import PIPELINES

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL"),
]

ENDS = {"Good": "completed", "Bad": "failed"}
LAST = {"Good": {"clean", "x", "yy"}, "Bad": {"own", "error", "more", "clean", "last"}}


def check(name: str, expected: dict[str, Any], one: Any) -> None:
    """It ended as the calm one did."""
    where = check_went_on(name, expected, one, ("run",))
    done = {line.split()[0] for life in one["effects"] for line in life}
    assert done >= LAST[name], where
    assert "never" not in done, where


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_that_is_killed_anywhere_ends_as_one_that_was_not(
    forks: ForkServer, tmp_path: Path, name: str
) -> None:
    (calm,) = forks.lives(name, tmp_path / "calm", [[]])
    assert calm["statuses"] == [0], calm["errors"]
    expected = calm["report"]
    assert expected["run"]["status"] == ENDS[name]
    check(name, expected, calm)
    writes = expected["writes"]
    assert writes >= 12
    for one in killed_anywhere(forks, name, tmp_path, writes):
        check(name, expected, one)
    for one in killed_twice(forks, name, tmp_path / "twice", writes, ((2, "after"),)):
        check(name, expected, one)
