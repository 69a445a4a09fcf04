"""DBOS on SQLite. Its quick way, measured against its async twin and found faster: synchronous
workflows calling synchronous steps, and `start_workflow` for many at once. It opens SQLite with the
default `synchronous=FULL` and a rollback journal; the file is put into WAL mode beforehand, because
that makes it nearly twice as fast and any user can do it. It has no mode without a database."""

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

from dbos import DBOS

from peers.common import PAYLOAD, Job, database_bytes, make_wal, perf_counter, serve

STEPS = 100
"""Distinct steps registered; a run uses the first `n` of them."""


def steps_returning(prefix: str, value: Any) -> list[Callable[[], Any]]:
    def one(i: int) -> Callable[[], Any]:
        @DBOS.step(name=f"{prefix}{i}")
        def go() -> Any:
            return value

        return go

    return [one(i) for i in range(STEPS)]


noops, talkers = steps_returning("noop", None), steps_returning("talk", PAYLOAD)


@DBOS.workflow()
def run_noops(n: int) -> None:
    for go in noops[:n]:
        go()


@DBOS.workflow()
def run_talkers(n: int) -> None:
    for go in talkers[:n]:
        go()


@contextmanager
def launched(job: Job) -> Any:
    assert job.n <= STEPS
    make_wal(job.db)
    DBOS(
        config={
            "name": "bench",
            "system_database_url": f"sqlite:///{job.db}",
            "log_level": "ERROR",
        }
    )
    DBOS.launch()
    try:
        run_noops(1)
        yield
    finally:
        DBOS.destroy()


def durable_chain(job: Job) -> float:
    with launched(job):
        started = perf_counter()
        for _ in range(job.repeat):
            run_noops(job.n)
        return perf_counter() - started


def durable_many(job: Job) -> float:
    with launched(job):
        started = perf_counter()
        for handle in [DBOS.start_workflow(run_noops, job.n) for _ in range(job.repeat)]:
            handle.get_result()
        return perf_counter() - started


def durable_growth(job: Job) -> float:
    with launched(job):
        before = database_bytes(job.db)
        for _ in range(job.repeat):
            run_talkers(job.n)
        return (database_bytes(job.db) - before) / (job.n * job.repeat)


IN_MEMORY = ("chain", "loop", "loop_memory", "fan_out", "sleeps", "sleeps_memory", "stream")

if __name__ == "__main__":
    serve(
        "dbos",
        {
            "durable_chain": durable_chain,
            "durable_many": durable_many,
            "durable_growth": durable_growth,
        },
        dict.fromkeys(IN_MEMORY, "no in-memory mode: every step is a database write"),
    )
