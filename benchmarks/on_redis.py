"""Durable on Redis: what a committed step costs over a bare write there.

The floor is one connection, one RPUSH for each step, the next one when the answer is there. With
`appendfsync always` both survive a power cut, with `everysec` a crash of the process. The server is
one of our own, on the disk beside the code and on a Unix socket; without `redis-server` these
benches say so.
"""

from __future__ import annotations

import atexit
import shutil
import socket
import subprocess
import tempfile
from functools import cache, partial
from pathlib import Path
from threading import Event
from time import monotonic

from durable import chain_on, many_on
from harness import DATA, Bench, Unsupported
from memory import us_each
from peers.common import Job, perf_counter
from stepwell import Engine, Workflow

WRITE = b"*3\r\n$5\r\nRPUSH\r\n$5\r\nfloor\r\n$64\r\n%064d\r\n"


@cache
def server(fsync: str) -> Path:
    """The server of this process, by its socket, whose path must be short."""
    if shutil.which("redis-server") is None:
        raise Unsupported("redis-server is not installed")
    DATA.mkdir(exist_ok=True)
    files = tempfile.TemporaryDirectory(dir=DATA)
    place = tempfile.TemporaryDirectory(prefix="sw-", dir="/tmp")
    path = Path(place.name) / "s"
    options = {"port": "0", "unixsocket": str(path), "dir": files.name, "save": "",
               "appendonly": "yes", "appendfsync": fsync}  # fmt: skip
    flat = [each for name, value in options.items() for each in (f"--{name}", value)]
    process = subprocess.Popen(["redis-server", *flat], stdout=subprocess.DEVNULL)
    atexit.register(files.cleanup)
    atexit.register(place.cleanup)
    atexit.register(process.wait)
    atexit.register(process.terminate)
    deadline = monotonic() + 10
    while not path.exists():
        if process.poll() is not None or monotonic() > deadline:
            raise RuntimeError("redis-server did not start")
        Event().wait(0.01)
    return path


def emptied(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(path))
        line.sendall(b"FLUSHALL\r\n")
        assert line.recv(64) == b"+OK\r\n"
    return path


def floor_of_writes(fsync: str, job: Job) -> float:
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(emptied(server(fsync))))
        started = perf_counter()
        for i in range(job.n * job.repeat):
            line.sendall(WRITE % i)
            assert line.recv(64).startswith(b":")
        return perf_counter() - started


def open_engine(fsync: str, _job: Job, flow: Workflow) -> Engine:
    return Engine(f"redis:///0?socket={emptied(server(fsync))}", [flow])


def bench(name: str, metric: str, fsync: str, n: int, repeat: int) -> Bench:
    scenario = chain_on if name.startswith("redis_chain") else many_on
    return Bench(
        name=name,
        metric=f"durable step on Redis (appendfsync {fsync}), {metric}",
        unit="µs/step",
        job=Job(name, n, repeat),
        subject=scenario(partial(open_engine, fsync)),
        floor=partial(floor_of_writes, fsync),
        unit_of=us_each,
        peers=False,
    )


BENCHES = [
    bench("redis_chain_100", "one run of 100", "always", 100, 3),
    bench("redis_100x10", "100 runs of 10 at once", "always", 10, 100),
    bench("redis_everysec_100x10", "100 runs of 10 at once", "everysec", 10, 100),
]
