"""The service on a real Redis: reached by the text's settings, lost while runs are at work."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Generator
from pathlib import Path

import httpx
import pytest
from tests.server.test_serve import CREATE, Serve, serve
from tests.servers.ports import free_port
from tests.servers.redis import RedisServer, begin

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills processes")
__all__ = ["serve"]


def answered(ask: Callable[[], httpx.Response]) -> httpx.Response:
    """Ask until there is an answer: the service finds by itself that its store is back."""
    for _ in range(1000):
        answer = ask()
        if answer.status_code != 503:
            return answer
        threading.Event().wait(0.05)
    raise AssertionError(f"its store is not back for it: {answer.text}")


def test_a_redis_that_is_lost_is_waited_for_and_nothing_is_lost(
    serve: Serve, tmp_path: Path
) -> None:
    port = free_port()
    server = begin(port=str(port), appendfsync="always")
    try:
        served = serve(
            "--tasks",
            "shop_tasks",
            REDIS_HOST="127.0.0.1",
            REDIS_PORT=str(port),
            STEPWELL_LEASE="2",
        )
        assert "degraded" not in served.said
        headers = {"Content-Type": "application/json"}
        done = served.http.post("/api/workflow?wait=60", content=CREATE, headers=headers).json()
        assert done["status"] == "completed"
        slow = {"execution_type": "sequential", "tasks": [{"name": "hang_once"}]}
        body = {"name": "slow", "steps": [slow]}
        run_id = served.http.post("/api/workflow", json=body).json()["workflow_id"]
        server.kill()
        lost = served.http.get(f"/api/workflow/{run_id}")
        assert (lost.status_code, lost.json()["status"]) == (503, 503)
        assert lost.headers["retry-after"]
        assert served.http.get("/readyz").status_code == 503
        assert served.http.get("/healthz").status_code == 200
        assert served.http.post("/api/workflow", json=body).status_code == 503
        server.start()
        shown = answered(lambda: served.http.get(f"/api/workflow/{run_id}"))
        assert shown.json()["status"] == "running"
        assert served.http.get("/readyz").json()["status"] == "ready"
        assert served.http.post(f"/api/workflow/{run_id}/cancel").status_code == 202
        stream = served.http.get(f"/api/workflow/{run_id}/events").text
        assert "event: run.ended" in stream
    finally:
        server.remove()


@contextlib.contextmanager
def halted(server: RedisServer) -> Generator[None]:
    """A server that is there, and says nothing."""
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


def test_a_redis_that_hangs_is_not_waited_for_and_nothing_is_started_twice(serve: Serve) -> None:
    port = free_port()
    server = begin(port=str(port), appendfsync="always")
    try:
        served = serve(
            REDIS_HOST="127.0.0.1",
            REDIS_PORT=str(port),
            STEPWELL_LEASE="60",
            STEPWELL_PATIENCE="0.5",
        )
        headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
        with halted(server):
            for _ in range(2):
                late = served.http.post("/api/workflow", content=CREATE, headers=headers)
                assert (late.status_code, late.json()["code"]) == (503, "store_unavailable")
                assert "did not answer within 0.5 s" in late.json()["detail"]
            assert served.http.get("/healthz").status_code == 200
            assert served.http.get("/readyz").status_code == 503
            assert served.http.get("/").status_code == 503
        answer = answered(
            lambda: served.http.post("/api/workflow?wait=60", content=CREATE, headers=headers)
        )
        assert answer.json()["status"] == "completed"
        listed = served.http.get("/api/workflows").json()["workflows"]
        assert [run["workflow_id"] for run in listed] == [answer.json()["workflow_id"]]
    finally:
        server.remove()


def test_a_stream_outlives_its_redis_and_misses_nothing(serve: Serve, tmp_path: Path) -> None:
    port = free_port()
    server = begin(port=str(port), appendfsync="always")
    try:
        served = serve(
            "--tasks",
            "shop_tasks",
            REDIS_HOST="127.0.0.1",
            REDIS_PORT=str(port),
            STEPWELL_LEASE="2",
            STEPWELL_HEARTBEAT="0.1",
        )
        steps = [{"name": "note", "params": {"word": "first"}}, {"name": "hang_once"}]
        body = {"name": "slow", "steps": [{"execution_type": "sequential", "tasks": steps}]}
        run_id = served.http.post("/api/workflow", json=body).json()["workflow_id"]
        kinds: list[str] = []
        silent = 0
        with served.http.stream("GET", f"/api/workflow/{run_id}/events") as stream:
            for line in stream.iter_lines():
                if line.startswith("event: "):
                    kinds.append(line.removeprefix("event: "))
                if kinds.count("task.started") == 2 and server.process is not None and silent >= 0:
                    server.kill()
                    silent = 0
                silent += line == ": still here"
                if server.process is None and silent == 5:  # it stays while the store is away
                    server.start()
                    said = answered(lambda: served.http.post(f"/api/workflow/{run_id}/cancel"))
                    assert said.status_code == 202
                    silent = -10_000
        assert kinds[0] == "run.started"
        assert kinds[-1] == "run.ended"
        assert kinds.count("run.started") == kinds.count("run.ended") == 1
        assert kinds.count("task.succeeded") == 1
    finally:
        server.remove()
