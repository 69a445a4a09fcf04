"""A fork server for the tests of a module."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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
        directory.mkdir(exist_ok=True)
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
