"""The world outside of a workflow: services that are called, and remember that they were.

One JSON line per call, appended at once, so that a killed process leaves behind what it did. The
bindery is a service that knows idempotency keys: it does a thing once per key, however often it is
asked, and that is how a body that starts again after a crash does no harm.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Call:
    """One call: which service (`what`), concerning what (`of`), with which key, from which
    process, and whether the service did something (`fresh`) or knew the key already."""

    what: str
    of: str
    key: str
    pid: int
    fresh: bool


def call(log: str, what: str, of: str, key: str) -> None:
    """Call a service; that it happened can't be taken back."""
    fresh = all((c.what, c.key) != (what, key) for c in calls(log))
    line = json.dumps({"what": what, "of": of, "key": key, "pid": os.getpid(), "fresh": fresh})
    with Path(log).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def calls(log: str) -> list[Call]:
    """All calls so far, in order."""
    try:
        text = Path(log).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [Call(**json.loads(line)) for line in text.splitlines()]
