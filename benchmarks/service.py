"""The REST service: runs started and finished over HTTP, and how soon a signal is seen on a stream.

The server is one process (`stepwell serve`, as anyone starts it), the load another: 16 keep-alive
connections, each with one request under way. The floor is one bare Starlette route on the same
uvicorn, loop (asyncio) and parser (h11). Floor, stepwell and the peer each get a fresh server every
turn, and an empty database; the first 200 requests warm it up and are not counted. SQLite is at
`synchronous=FULL` on both sides.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from statistics import quantiles
from threading import Event
from time import monotonic, perf_counter
from typing import NamedTuple

from harness import Bench, Target, Unsupported
from load import Line, ask, connect, load, request
from memory import per_second, us_each
from peers.common import Job, Scenario
from setup import HERE, python_of

CONNECTIONS = 16
WARM = 200
STARTING = 30.0
"""Seconds that a server may take to answer its first request."""

BARE = request("GET", "/bare")
RUN = request("POST", "/api/definitions/hello/run?wait=30", b'{"name":"Ada"}')
WAIT = request("POST", "/api/definitions/waiting/run", b"{}")
SIGNAL = b'{"number":1}'
DOCUMENT = request(
    "POST",
    "/api/workflow?wait=30",
    json.dumps(
        {
            "name": "sample",
            "steps": [
                {
                    "execution_type": "sequential",
                    "tasks": [{"name": "echo", "params": {"word": "Ada"}}],
                }
            ],
        }
    ).encode(),
)
PEER = request("POST", "/workflows/hello/run", b'{"start_event":{"name":"Ada"}}')


# -- servers --------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


class Server(NamedTuple):
    """A server that listens: its port and its process."""

    port: int
    process: int

    def worked(self) -> float:
        """Seconds of processor time that it has used."""
        with open(f"/proc/{self.process}/stat") as file:
            user, system = file.read().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def serving(*command: str) -> Iterator[Server]:
    """Start a server, `{port}` in its command being its port; gives it when it listens."""
    port = free_port()
    words = [word.replace("{port}", str(port)) for word in command]
    settings = ("STEPWELL_", "REDIS_", "MAX_CONCURRENT")
    env = {name: value for name, value in os.environ.items() if not name.startswith(settings)}
    process = subprocess.Popen(
        words, cwd=HERE, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = monotonic() + STARTING
        while True:
            try:
                connect(port).socket.close()
            except OSError:
                if process.poll() is not None or monotonic() > deadline:
                    raise RuntimeError(f"{' '.join(words)} does not serve") from None
                Event().wait(0.05)
            else:
                break
        yield Server(port, process.pid)
    finally:
        process.kill()
        process.wait()


def bare() -> contextlib.AbstractContextManager[Server]:
    return serving(sys.executable, "served.py", "bare", "{port}")


def stepwell(job: Job) -> contextlib.AbstractContextManager[Server]:
    url = f"sqlite:///{job.db}" if "sqlite" in job.bench else "memory://"
    command = ("-m", "stepwell", "serve", "--port", "{port}", "--store", url)
    served = ("--app", "served:hello", "--app", "served:Waiting", "--tasks", "served")
    return serving(sys.executable, *command, *served)


def llama_agents(job: Job) -> contextlib.AbstractContextManager[Server]:
    python = python_of("llama_agents")
    if not python.exists():
        raise Unsupported("not set up; run benchmarks/setup.py")
    where = [job.db] if "sqlite" in job.bench else []
    return serving(str(python), "-m", "peers.llama_agents", "{port}", *where)


# -- runs started and finished --------------------------------------------------------------------


def percentile(seconds: list[float], what: str) -> float:
    return quantiles(seconds, n=100)[49 if what == "p50" else 98]


def asked(server: Server, data: bytes, job: Job, what: str) -> float:
    """Seconds that all requests took, that the server worked for them, or a percentile of one."""
    load(server.port, data, WARM, CONNECTIONS)
    before = server.worked()
    took, seconds = load(server.port, data, job.n, CONNECTIONS)
    match what:
        case "all":
            return took
        case "cpu":
            return server.worked() - before
        case _:
            return percentile(seconds, what)


def side_bare(what: str, job: Job) -> float:
    with bare() as server:
        return asked(server, BARE, job, what)


def side_stepwell(data: bytes, what: str, job: Job) -> float:
    with stepwell(job) as server:
        return asked(server, data, job, what)


def side_peer(what: str, name: str) -> Scenario:
    def scenario(job: Job) -> float:
        with llama_agents(job) as server:
            return asked(server, PEER, job, what)

    return scenario


def side_tool(job: Job) -> float:
    with serving(sys.executable, "served.py", "tool", "{port}") as server:
        return asked(server, BARE, job, "all")


# -- signals --------------------------------------------------------------------------------------


def seen(line: Line, kind: bytes, got: bytes) -> bytes:
    """Read a stream until it has an event of this kind; what was read."""
    while kind not in got:
        part = line.socket.recv(65536)
        if not part:
            raise ConnectionError(f"the stream ended without {kind!r}: {got!r:.300}")
        got += part
    return got


def heard(what: str, job: Job) -> float:
    """From sending a signal to the run's end on its stream, for `repeat` of `n` waiting runs."""
    with stepwell(job) as (port, _):
        load(port, WAIT, job.n, CONNECTIONS, b"202")
        line = connect(port)
        page = request("GET", f"/api/workflows?status=waiting&limit={job.n}")
        runs: list[dict[str, str]] = []
        while len(runs) < job.n:
            runs = json.loads(ask(line, page))["workflows"]
        seconds: list[float] = []
        for run in runs[:: job.n // job.repeat]:
            path = f"/api/workflow/{run['workflow_id']}"
            stream = connect(port)
            stream.socket.sendall(request("GET", f"{path}/events"))
            got = seen(stream, b"event: wait.opened", b"")
            began = perf_counter()
            line.ask(request("POST", f"{path}/signal/heard", SIGNAL))
            seen(stream, b"event: run.ended", got)
            seconds.append(perf_counter() - began)
            while not line.read():
                pass
            stream.socket.close()
        return percentile(seconds, what)


# -- benches --------------------------------------------------------------------------------------


WHAT = {
    "all": "",
    "cpu": ": processor time of the server",
    "p50": ": median of a request",
    "p99": ": 99th percentile of a request",
}


def ms(raw: float, job: Job) -> float:
    return raw * 1e3


def runs_bench(
    store: str, kind: str, data: bytes, n: int, target: Target | None = None
) -> list[Bench]:
    """Requests a second, and how long one takes, of runs on a store."""
    name = f"service_{kind}_{store}" if kind else f"service_{store}"
    metric = f"one-step {kind or 'workflow'} started and finished over HTTP, {store}"

    def bench(what: str, unit: str, target: Target | None) -> Bench:
        return Bench(
            name=name if what == "all" else f"{name}_{what}",
            metric=metric + WHAT[what],
            unit=unit,
            job=Job(name, n),
            subject=partial(side_stepwell, data, what),
            floor=partial(side_bare, what),
            unit_of={"all": per_second, "cpu": us_each}.get(what, ms),
            target=target,
            peers=not kind,
            peer_side=partial(side_peer, what),
        )

    return [
        bench("all", "runs/s", target),
        bench("cpu", "µs/run", None),
        *(bench(what, "ms", None) for what in ("p50", "p99") if not kind),
    ]


def signal_bench(store: str, what: str) -> Bench:
    return Bench(
        name=f"service_signal_{store}_{what}",
        metric=f"signal over HTTP to the run's end on its stream, 1,000 wait, {store}: {what}",
        unit="ms",
        job=Job(f"service_signal_{store}", 1000, 100),
        subject=partial(heard, what),
        unit_of=ms,
        peers=False,
    )


BENCHES = [
    Bench(
        name="service_tool",
        metric="what the load tool asks of a server that answers at once",
        unit="requests/s",
        job=Job("service_tool", 5000),
        subject=side_tool,
        floor=partial(side_bare, "all"),
        unit_of=per_second,
        peers=False,
    ),
    *runs_bench("memory", "", RUN, 1000, Target("ratio", 4.07)),
    *runs_bench("sqlite", "", RUN, 500, Target("ratio", 6.25)),
    *runs_bench("memory", "document", DOCUMENT, 500),
    *runs_bench("sqlite", "document", DOCUMENT, 500),
    *(signal_bench(store, what) for store in ("memory", "sqlite") for what in ("p50", "p99")),
]
