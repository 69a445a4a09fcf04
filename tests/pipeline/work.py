"""What the tests of pipelines have done in other processes, which import it from here."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any


def pid(ctx: dict[str, Any]) -> int:
    ctx["lost"] = True  # what it returns is its only effect
    assert "gateway" not in ctx
    return os.getpid()


def double(n: int) -> int:
    return n * 2


def dies(path: str, how: str, times: int) -> str:
    """Die the first few times."""
    count = len(list(Path(path).iterdir()))
    if count < times:
        (Path(path) / str(os.getpid())).touch()
        if how == "exit":
            os._exit(3)
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)  # noqa: TID251 - the signal comes first
    return "lived"


def hangs(path: str) -> None:
    """Say who it is, and go on for longer than any test."""
    part = Path(f"{path}.part")
    part.write_text(str(os.getpid()))
    part.replace(path)
    time.sleep(60)  # noqa: TID251 - it is killed long before


def fails(n: int) -> None:
    raise KeyError(n)
