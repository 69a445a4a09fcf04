"""Durable on Redis: steps per second, beside bare writes of one connection to the same server.

    python benchmarks/on_redis.py [--runs N]

The floor is the cheapest thing that could be called durable: one connection, one RPUSH for each
step, the next one when the answer is there. One JSON line for each `appendfsync`; both sides go
in turns, so that a noisy minute hits both. Starts a server of its own; needs `redis-server`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter

from setup import HERE
from stepwell import Engine, Event, StartEvent, StopEvent, Workflow, step

STEPS = 10
TURNS = 5
DATA = HERE / ".data"


class Next(Event):
    n: int


class Chain(Workflow):
    @step
    async def begin(self, ev: StartEvent) -> Next:
        return Next(n=1)

    @step
    async def go_on(self, ev: Next) -> Next | StopEvent:
        return StopEvent(result=ev.n) if ev.n == STEPS else Next(n=ev.n + 1)


@contextmanager
def server(fsync: str) -> Iterator[Path]:
    """A server on the disk beside the code; gives its socket, whose path must be short."""
    DATA.mkdir(exist_ok=True)
    files = Path(tempfile.mkdtemp(dir=DATA))
    place = Path(tempfile.mkdtemp(prefix="sw-", dir="/tmp"))
    options = {"port": "0", "unixsocket": str(place / "s"), "dir": str(files), "save": "",
               "appendonly": "yes", "appendfsync": fsync}  # fmt: skip
    flat = [each for name, value in options.items() for each in (f"--{name}", value)]
    process = subprocess.Popen(["redis-server", *flat], stdout=subprocess.DEVNULL)
    try:
        deadline = monotonic() + 10
        while not (place / "s").exists():
            assert process.poll() is None, "redis-server did not start"
            assert monotonic() < deadline, "redis-server did not start in time"
        yield place / "s"
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(files)
        shutil.rmtree(place)


def floor(path: Path, writes: int) -> float:
    """Writes per second."""
    value = "x" * 64
    command = f"*3\r\n$5\r\nRPUSH\r\n$5\r\nfloor\r\n$64\r\n{value}\r\n".encode()
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(path))
        started = perf_counter()
        for _ in range(writes):
            line.sendall(command)
            assert line.recv(64).startswith(b":")
        return writes / (perf_counter() - started)


async def durable(path: Path, runs: int) -> float:
    """Steps per second of runs that go on at once."""
    flow = Chain(timeout=None)
    async with Engine(f"redis:///0?socket={path}", [flow]) as engine:
        assert engine.durability in ("power", "process")
        await flow.run(engine=engine)
        started = perf_counter()
        await asyncio.gather(*(flow.run(engine=engine) for _ in range(runs)))
        return runs * (STEPS + 1) / (perf_counter() - started)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--runs", type=int, default=100, help="at once (default: 100)")
    runs: int = arguments.parse_args().runs
    for fsync, survives in (("always", "power"), ("everysec", "process")):
        with server(fsync) as path:
            turns = [
                (floor(path, 2000), asyncio.run(durable(path, 1)), asyncio.run(durable(path, runs)))
                for _ in range(TURNS)
            ]
        bare, one, many = ([*column] for column in zip(*turns, strict=True))
        said = {
            "bench": "durable_on_redis",
            "appendfsync": fsync,
            "survives": survives,
            "bare_writes_per_s": round(median(bare)),
            "steps_per_s_of_one_run": round(median(one)),
            "runs_at_once": runs,
            "steps_per_s": round(median(many)),
            "of_bare": round(median(m / b for m, b in zip(many, bare, strict=True)), 2),
        }
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
