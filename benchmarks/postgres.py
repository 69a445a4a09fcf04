"""Durable on PostgreSQL with `fsync` on: what a committed step costs over a bare commit there.

The floor is one connection, one row, one commit for each step, by psycopg on the same server, in
turns with what is measured. The server is one of our own on this machine, as in the tests; without
PostgreSQL's programs these benches say so.
"""

from __future__ import annotations

import atexit
import sys
import tempfile
from functools import cache
from pathlib import Path

import psycopg

from durable import chain_on, hold_of, hold_of_nothing, many_on, ms
from harness import DATA, Bench, Unsupported
from memory import us_each
from peers.common import Job, perf_counter
from setup import HERE
from stepwell import Engine, Workflow
from stepwell.stores.postgres import PostgresStore

sys.path.append(str(HERE.parent))

from tests.servers.postgres import PostgresServer, programs


@cache
def server() -> PostgresServer:
    """The server of this process."""
    bin = programs()
    if bin is None:
        raise Unsupported("PostgreSQL is not installed")
    DATA.mkdir(exist_ok=True)
    data = tempfile.TemporaryDirectory(dir=DATA)
    started = PostgresServer(bin, fsync=True, data=Path(data.name))
    atexit.register(data.cleanup)
    atexit.register(started.remove)
    return started


def open_engine(job: Job, flow: Workflow) -> Engine:
    return Engine(server().url_for(Path(job.db)), [flow])


def floor_of_commits(job: Job) -> float:
    with psycopg.connect(server().url(), autocommit=True) as db:
        db.execute("CREATE TABLE IF NOT EXISTS t (id bigserial PRIMARY KEY, v text)")
        started = perf_counter()
        for i in range(job.n * job.repeat):
            db.execute("INSERT INTO t (v) VALUES (%s)", (f"{i:064}",))
        return perf_counter() - started


async def hold(job: Job) -> float:
    return await hold_of(PostgresStore(server().url_for(Path(job.db))))


BENCHES = [
    Bench(
        name="postgres_chain_100",
        metric="durable step on PostgreSQL, one run of 100",
        unit="µs/step",
        job=Job("postgres_chain", 100, 3),
        subject=chain_on(open_engine),
        floor=floor_of_commits,
        unit_of=us_each,
        peers=False,
    ),
    Bench(
        name="postgres_100x10",
        metric="durable step on PostgreSQL, 100 runs of 10 at once",
        unit="µs/step",
        job=Job("postgres_many", 10, 100),
        subject=many_on(open_engine),
        floor=floor_of_commits,
        unit_of=us_each,
        peers=False,
    ),
    Bench(
        name="postgres_hold_16_mib",
        metric="longest hold of the event loop, 16 MiB written to and read from PostgreSQL",
        unit="ms",
        job=Job("postgres_hold", 1),
        subject=hold,
        floor=hold_of_nothing,
        unit_of=ms,
        peers=False,
    ),
]
