"""The service on a real Redis: reached by the text's settings, lost while runs are at work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.server.test_serve import CREATE, Serve, free_port, serve
from tests.servers.redis import begin

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills processes")
__all__ = ["serve"]


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
        done = served.http.post("/api/workflow?wait=20", content=CREATE, headers=headers).json()
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
        for _ in range(200):
            shown = served.http.get(f"/api/workflow/{run_id}")
            if shown.status_code == 200:
                break
        assert shown.json()["status"] == "running"
        assert served.http.get("/readyz").json()["status"] == "ready"
        assert served.http.post(f"/api/workflow/{run_id}/cancel").status_code == 202
        stream = served.http.get(f"/api/workflow/{run_id}/events").text
        assert "event: run.ended" in stream
    finally:
        server.remove()
