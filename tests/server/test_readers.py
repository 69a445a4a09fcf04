"""Many readers at a real service: what they cost it, and that it lets go of all of them."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path

import pytest
from tests.server.test_serve import CREATE, Serve, serve

__all__ = ["serve"]

READERS = 500
EACH = 100
"""KB that a reader may cost; it is about 35."""

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")


def memory_of(pid: int) -> int:
    """KB of memory that a process has."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])


def test_500_readers_are_cheap_and_end_with_the_service(serve: Serve) -> None:
    served = serve(STEPWELL_DRAIN_SECONDS="1")
    tasks = [{"name": "sleep", "params": {"seconds": 999}}]
    body = {"name": "slow", "steps": [{"execution_type": "sequential", "tasks": tasks}]}
    run_id = served.http.post("/api/workflow", json=body).json()["workflow_id"]
    before = memory_of(served.process.pid)
    asked = f"GET /api/workflow/{run_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    port = int(served.url.rpartition(":")[2])
    lines = [socket.create_connection(("127.0.0.1", port), timeout=100) for _ in range(READERS)]
    try:
        for line in lines:
            line.sendall(asked)
        for line in lines:
            assert b"200 OK" in line.recv(65536)
        text = served.http.get("/metrics").text
        assert f"stepwell_streams {READERS}" in text
        assert memory_of(served.process.pid) - before < READERS * EACH
        headers = {"Content-Type": "application/json"}
        for _ in range(5):
            answer = served.http.post("/api/workflow?wait=60", content=CREATE, headers=headers)
            assert answer.json()["status"] == "completed"
        for line in lines[: READERS // 2]:
            line.close()
        for _ in range(1000):
            if f"stepwell_streams {READERS // 2}" in served.http.get("/metrics").text:
                break
        else:
            raise AssertionError("readers that hung up are still counted")
        served.process.send_signal(signal.SIGTERM)
        for line in lines[READERS // 2 :]:
            while line.recv(65536):
                pass
        assert served.process.wait(100) == 0
    finally:
        for line in lines:
            line.close()
