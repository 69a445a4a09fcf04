"""How a number is taken, and what may be said of it.

Everything is measured in turns: floor, stepwell, each peer, and again, so that a noisy minute hits
all of them alike. A ratio is the median of the ratios of neighbours (stepwell's cost over the
floor's in the same turn), never the ratio of two numbers taken at different times. The first turn
of every side warms up and is thrown away. This module knows nothing of what is measured.
"""

from __future__ import annotations

import contextlib
import json
import platform
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Literal

from peers.common import Job, Scenario, run_scenario
from setup import HERE, python_of

TURNS, QUICK_TURNS = 7, 3
SLOW, SLOW_TURNS = 5.0, 5
"""A side whose first turn costs more than `SLOW` seconds takes `SLOW_TURNS` turns only."""

ANSWER_LIMIT = 180.0
"""Seconds a peer may take for one answer before it is ended and reported so."""

DATA = HERE / ".data"
"""Databases live beside the code: a /tmp in memory would make every commit free."""


@dataclass(frozen=True, slots=True)
class Target:
    """A promise: the line's `of` must be at most (or, `at_least`, no less than) `bound`."""

    of: Literal["ratio", "median"]
    bound: float
    at_least: bool = False

    def __str__(self) -> str:
        return f"{self.of} {'>=' if self.at_least else '<='} {self.bound:g}"

    def met(self, line: dict[str, object]) -> bool:
        value = line[self.of]
        if not isinstance(value, float):
            return False
        return value >= self.bound if self.at_least else value <= self.bound


@dataclass(frozen=True, slots=True)
class Bench:
    """One measurement. `unit_of(raw cost, job)` turns a cost into the number that is printed."""

    name: str
    metric: str
    unit: str
    job: Job
    subject: Scenario
    unit_of: Callable[[float, Job], float]
    floor: Scenario | None = None
    target: Target | None = None
    peers: bool = True
    versus_tenth: bool = False
    """The floor is the same side at a tenth of the size, times ten: is the cost linear?"""

    peer_side: Callable[[str], Scenario] | None = None
    """How to measure a peer without its server process (imports are measured from outside)."""


class Unsupported(Exception):
    """The peer cannot do this; its message says why."""


class Peer:
    """A peer's process, asked over pipes. Started for one bench, ended with it."""

    def __init__(self, name: str) -> None:
        python = python_of(name)
        if not python.exists():
            raise Unsupported("not set up; run benchmarks/setup.py")
        self._process = subprocess.Popen(
            [str(python), "-m", f"peers.{name}"],
            cwd=HERE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )
        self.version = str(self._read().get("version"))

    def ask(self, job: Job) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(job.dumps() + "\n")
        answer = self._read()
        if "unsupported" in answer:
            raise Unsupported(str(answer["unsupported"]))
        if "raw" not in answer:
            raise RuntimeError(str(answer.get("error")))
        return float(str(answer["raw"]))

    def _read(self) -> dict[str, object]:
        assert self._process.stdout is not None
        timer = threading.Timer(ANSWER_LIMIT, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            raise RuntimeError(f"no answer (ended, or took more than {ANSWER_LIMIT:g} s)")
        return json.loads(line)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Side:
    """One of those taking turns: what it costs, or why it does not."""

    def __init__(self, name: str, scenario: Scenario, bench: Bench, turns: int) -> None:
        self.name, self._scenario, self._bench, self._turns = name, scenario, bench, turns
        self.raw: list[float] = []
        self.tenth: list[float] = []
        self.failure: dict[str, str] = {}
        self._warm = False

    def take_turn(self, directory: Path) -> None:
        if self.failure or len(self.raw) >= self._turns:
            return
        try:
            raw = self._measure(self._bench.job, directory)
            tenth = 0.0
            if self._bench.versus_tenth:
                small = replace(self._bench.job, n=self._bench.job.n // 10)
                tenth = 10 * self._measure(small, directory)
        except Unsupported as reason:
            self.failure = {"unsupported": str(reason)}
        except Exception as error:  # a side that breaks is reported; the others go on
            self.failure = {"error": f"{type(error).__name__}: {error}"[:300]}
        else:
            if self._warm:
                self.raw.append(raw)
                self.tenth.append(tenth)
            elif raw > SLOW:
                self._turns = min(self._turns, SLOW_TURNS)
            self._warm = True

    def _measure(self, job: Job, directory: Path) -> float:
        with tempfile.TemporaryDirectory(dir=directory) as fresh:
            return run_scenario(self._scenario, replace(job, db=f"{fresh}/bench.db"))

    def report(self, floor: Side | None) -> dict[str, object]:
        if self.failure or not self.raw:
            return {"median": None, **(self.failure or {"error": "never measured"})}
        job, unit_of = self._bench.job, self._bench.unit_of
        values = [unit_of(raw, job) for raw in self.raw]
        floors = self.tenth if self._bench.versus_tenth else floor.raw if floor else []
        ratios = [raw / base for raw, base in zip(self.raw, floors, strict=False) if base]
        return {
            "median": _short(median(values)),
            "min": _short(min(values)),
            "max": _short(max(values)),
            "n": len(values),
            "ratio": _short(median(ratios)) if ratios else None,
        }


def measure(bench: Bench, *, quick: bool, peers: list[str]) -> dict[str, object]:
    """Run `bench` in turns and return its line (see README for the fields)."""
    turns = QUICK_TURNS if quick else TURNS
    floor = Side("floor", bench.floor, bench, turns) if bench.floor else None
    subject = Side("stepwell", bench.subject, bench, turns)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(_data_directory()))
        rivals: dict[str, Side] = {}
        versions: dict[str, str] = {}
        for name in peers if bench.peers else []:
            rivals[name] = _rival(name, bench, turns, stack, versions)
        sides = [*([floor] if floor else []), subject, *rivals.values()]
        for _ in range(turns + 1):
            for side in sides:
                side.take_turn(directory)
    ours = subject.report(floor)
    line: dict[str, object] = {
        "bench": bench.name,
        "metric": bench.metric,
        "unit": bench.unit,
        **{key: ours.pop(key, None) for key in ("median", "min", "max", "n")},
        "floor": floor.report(None)["median"] if floor else _tenth_of(subject, bench),
        "ratio": ours.pop("ratio", None),
        **ours,  # what went wrong, if anything did
    }
    line["target"] = str(bench.target) if bench.target else None
    line["ok"] = bench.target.met(line) if bench.target else None
    line["python"] = platform.python_version()
    line["peers"] = {
        name: {"version": versions.get(name), **side.report(floor)} for name, side in rivals.items()
    }
    return line


def _rival(
    name: str, bench: Bench, turns: int, stack: contextlib.ExitStack, versions: dict[str, str]
) -> Side:
    if bench.peer_side is not None:
        return Side(name, bench.peer_side(name), bench, turns)
    try:
        peer = Peer(name)
    except (Unsupported, RuntimeError, OSError) as reason:
        side = Side(name, lambda job: 0.0, bench, turns)
        side.failure = {"unsupported": str(reason)}
        return side
    stack.callback(peer.close)
    versions[name] = peer.version
    return Side(name, peer.ask, bench, turns)


def _tenth_of(side: Side, bench: Bench) -> float | None:
    if not bench.versus_tenth or not side.tenth:
        return None
    return _short(bench.unit_of(median(side.tenth), bench.job))


@contextlib.contextmanager
def _data_directory() -> Iterator[str]:
    DATA.mkdir(exist_ok=True)
    path = tempfile.mkdtemp(dir=DATA)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _short(value: float) -> float:
    return float(f"{value:.4g}")
