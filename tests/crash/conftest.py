"""What the tests of kills share: a fork server, where the kills are, and what any run that went on
has in common with one that was not killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import stepwell

ROOT = Path(__file__).parent.parent.parent
SOURCE = Path(stepwell.__file__).parent.parent


class ForkServer:
    """A process that forks lives of workflows; see `tests.crash.server`."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.server"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{SOURCE}{os.pathsep}{ROOT}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def lives(
        self, flow: str, directory: Path, kills: Sequence[Sequence[tuple[int, str]]]
    ) -> list[dict[str, Any]]:
        """Let runs of a workflow live, each with its kills; what each found."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        directory.mkdir(parents=True, exist_ok=True)
        job = {"flow": flow, "directory": str(directory), "kills": kills}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def stop(self) -> None:
        """Let it end."""
        self.process.communicate()


@pytest.fixture(scope="module")
def forks() -> Iterator[ForkServer]:
    """The module's fork server."""
    server = ForkServer()
    yield server
    server.stop()


def killed_anywhere(
    forks: ForkServer, name: str, directory: Path, writes: int
) -> list[dict[str, Any]]:
    """A life for every one of the calm life's writes, killed before it, and one killed after it;
    and the lives that went on from there."""
    kills = [[(n, when)] for n in range(1, writes + 1) for when in ("before", "after")]
    lives = forks.lives(name, directory / "kills", kills)
    died = sum(one["statuses"][0] == -signal.SIGKILL for one in lives)
    assert died >= len(kills) * 3 // 4  # a busy machine puts more into one write
    return lives


def killed_twice(
    forks: ForkServer,
    name: str,
    directory: Path,
    writes: int,
    second: Sequence[tuple[int, str]],
) -> list[dict[str, Any]]:
    """Lives that are killed after some of the calm life's writes, and once more when they have gone
    on, at each of `second`."""
    first = range(2, writes + 1, max(1, writes // 6))
    kills = [[(n, "after"), again] for n in first for again in second]
    return forks.lives(name, directory / "kills", kills)


def check_went_on(
    name: str, expected: dict[str, Any], one: dict[str, Any], fields: Sequence[str]
) -> str:
    """The last life came to its end, left nothing, and is as the calm one in these fields of its
    report; what a committed step did was not done again. Says which life it was."""
    where = f"{name} killed at {one['kills']}: exits {one['statuses']}\n" + "\n".join(one["errors"])
    assert one["statuses"][-1] == 0, where
    report = one["report"]
    assert report is not None, where
    for field in (*fields, "done"):
        assert report[field] == expected[field], f"{field} of {where}"
    assert report["left"] == [], where
    committed = set(report["committed"])
    assert not [line for line in one["effects"][-1] if line.split()[1] in committed], where
    return where


def check_effects(expected: Sequence[str], one: dict[str, Any], where: str) -> None:
    """Whatever was done again said the same key as the first time."""
    distinct = {line for life in one["effects"] for line in life}
    assert Counter(line.split()[0] for line in distinct) == Counter(
        line.split()[0] for line in set(expected)
    ), where
