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
from tests.crash.conftest import ForkServer
from tests.crash.pipelines import PIPELINES

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL"),
    pytest.mark.timeout(120),
]

ENDS = {"Good": "completed", "Bad": "failed"}
LAST = {"Good": {"clean", "x", "yy"}, "Bad": {"own", "error", "more", "clean", "last"}}


def check(name: str, expected: dict[str, Any], one: Any) -> None:
    """It ended as the calm one did."""
    where = f"{name} killed at {one['kills']}: exits {one['statuses']}\n" + "\n".join(one["errors"])
    assert one["statuses"][-1] == 0, where
    report = one["report"]
    assert report is not None, where
    assert report["run"] == expected["run"], where
    assert report["left"] == [], where
    assert report["done"] == expected["done"], where
    committed = set(report["committed"])
    assert not [line for line in one["effects"][-1] if line.split()[1] in committed], where
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
    kills = [[(n, when)] for n in range(1, writes + 1) for when in ("before", "after")]
    kills += [[(n, "after"), (2, "after")] for n in range(2, writes, 4)]
    lives = forks.lives(name, tmp_path / "kills", kills)
    for one in lives:
        check(name, expected, one)
    died = sum(one["statuses"][0] == -signal.SIGKILL for one in lives)
    assert died >= len(kills) * 3 // 4  # a busy machine puts more into one write
