"""Start-up: what importing stepwell costs, taken in fresh interpreters.

A lazy package makes `import stepwell` cheap by putting the cost off to the first name used, and
`import pydantic` is lazy too. The bare pair is therefore measured for what it is, and the same
promise is asked again where it cannot be put off: all a first program names, over the one class of
pydantic it cannot do without.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from harness import Bench, Target, Unsupported
from peers.common import Job, Scenario
from setup import python_of

STEPWELL = "import stepwell"
STEPWELL_USED = (
    "from stepwell import Context, Workflow, step;"
    "from stepwell.events import Event, StartEvent, StopEvent"
)
PYDANTIC = "import pydantic"
PYDANTIC_USED = "from pydantic import BaseModel"

PEERS = {
    "llama_index": "from workflows import Context, Workflow, step;"
    "from workflows.events import Event, StartEvent, StopEvent",
    "langgraph": "from langgraph.graph import END, START, StateGraph",
    "pydantic_graph": "from pydantic_graph import GraphBuilder, StepContext",
    "burr": "from burr.core import ApplicationBuilder, GraphBuilder, State, action",
    "dbos": "from dbos import DBOS",
}
"""What each peer's user writes at the top of the smallest program."""


def seconds_to(statement: str, python: Path | str = sys.executable) -> float:
    """Seconds `statement` takes in a fresh interpreter, whose own start is not counted."""
    code = f"from time import perf_counter as p; t = p(); {statement}; print(p() - t)"
    # Packages that pip installed come with their bytecode; so does a checkout once it was used,
    # unless the environment forbids it.
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, check=False, env=env
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return float(done.stdout)


def difference(statement: str, base: str) -> Scenario:
    """Best of `repeat` of each, taken in turns: bytecode caches and disk are warm in both."""

    def scenario(job: Job) -> float:
        pairs = [(seconds_to(statement), seconds_to(base)) for _ in range(job.repeat)]
        ours, theirs = zip(*pairs, strict=True)
        return min(ours) - min(theirs)

    return scenario


def best_import(statement: str, python: Path | str, job: Job) -> float:
    return min(seconds_to(statement, python) for _ in range(job.repeat))


def import_of(statement: str) -> Scenario:
    return lambda job: best_import(statement, sys.executable, job)


def peer_import(name: str) -> Scenario:
    def scenario(job: Job) -> float:
        if not python_of(name).exists():
            raise Unsupported("not set up; run benchmarks/setup.py")
        return best_import(PEERS[name], python_of(name), job)

    return scenario


def ms(raw: float, job: Job) -> float:
    return raw * 1e3


BENCHES = [
    Bench(
        name="import",
        metric="import stepwell minus import pydantic",
        unit="ms",
        job=Job("import", 1, 8),
        subject=difference(STEPWELL, PYDANTIC),
        unit_of=ms,
        target=Target("median", 35),
        peers=False,
    ),
    Bench(
        name="import_used_over_pydantic",
        metric="import of the names a first program uses, minus pydantic's BaseModel",
        unit="ms",
        job=Job("import", 1, 4),
        subject=difference(STEPWELL_USED, PYDANTIC_USED),
        unit_of=ms,
        target=Target("median", 35),
        peers=False,
    ),
    Bench(
        name="import_used",
        metric="import of the names a first program uses",
        unit="ms",
        job=Job("import", 1, 4),
        subject=import_of(STEPWELL_USED),
        floor=import_of(PYDANTIC_USED),
        unit_of=ms,
        peer_side=peer_import,
    ),
]
