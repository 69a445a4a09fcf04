"""A process killed at any write to PostgreSQL loses nothing; see `tests.crash.test_kills`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.conftest import ROOT, SOURCE, ForkServer
from tests.crash.test_kills import _check, _uninterrupted
from tests.servers.postgres import PostgresServer, postgres

__all__ = ["postgres"]


@pytest.fixture(scope="module")
def forks(postgres: PostgresServer) -> Iterator[ForkServer]:
    server = ForkServer.__new__(ForkServer)
    server.process = subprocess.Popen(
        [sys.executable, "-m", "tests.stores.postgres_lives", str(postgres.directory)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{SOURCE}{os.pathsep}{ROOT}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield server
    server.stop()


@pytest.mark.parametrize("name", ["Linear", "Fan", "Questions", "Parent"])
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
