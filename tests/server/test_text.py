"""The older service's text, word for word, against a fresh `stepwell serve`: its commands, as a
shell runs them, its task class and its configuration. And `uvicorn module:app`."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from tests.server.test_serve import CREATE, Serve, serve
from tests.servers.ports import free_port

from stepwell.cli.main import cli

__all__ = ["serve"]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the commands are a shell's")

START = f"""curl -X POST "http://localhost:8000/api/workflow" \\
     -H "Content-Type: application/json" \\
     -d '{CREATE}'
"""

LOOK = """# Get specific workflow by ID
curl -X GET "http://localhost:8000/api/workflow/YOUR_WORKFLOW_ID"

# Get all workflows
curl -X GET "http://localhost:8000/api/workflows"
"""

TASK = """class MyCustomTask(Task):
    def __init__(self):
        super().__init__("my_custom_task")

    async def execute(self) -> bool:
        try:
            self.set_status(TaskStatus.RUNNING)
            logger.info("Running my custom task")
            # Task implementation here
            self.set_status(TaskStatus.SUCCEEDED)
            return True
        except Exception as e:
            logger.error(f"Error in my custom task: {e}")
            self.set_status(TaskStatus.FAILED)
            return False
"""

CONFIGURATION = """# Redis configuration
export REDIS_HOST=redis.example.com
export REDIS_PORT=6379
export REDIS_PASSWORD=your_password

# Application settings
export DEBUG=True
export MAX_CONCURRENT_WORKFLOWS=20
"""

IMPORTS = """import logging

from stepwell.tasks import Task, TaskStatus

logger = logging.getLogger(__name__)


"""


def shell(script: str, port: int, **replaced: str) -> str:
    """What a shell says to a script of the text; its port is where the test's service is."""
    if shutil.which("curl") is None:
        pytest.fail("curl is not installed (Debian: apt-get install curl)")
    script = script.replace("localhost:8000", f"localhost:{port}").replace("curl ", "curl -sS ")
    for word, other in replaced.items():
        script = script.replace(word, other)
    done = subprocess.run(
        ["sh", "-e"], input=script, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects that stand one behind the other."""
    found: list[dict[str, Any]] = []
    decoder = json.JSONDecoder()
    while text.strip():
        value, end = decoder.raw_decode(text.lstrip())
        found.append(value)
        text = text.lstrip()[end:]
    return found


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def test_the_commands_of_the_text_run_as_they_stand(serve: Serve) -> None:
    served = serve()
    port = port_of(served.url)
    (started,) = objects(shell(START, port))
    run_id = started["workflow_id"]
    stream = served.http.get(f"/api/workflow/{run_id}/events").text
    assert stream.count("event: task.succeeded") == 3
    one, all_of_them = objects(shell(LOOK, port, YOUR_WORKFLOW_ID=run_id))
    assert (one["name"], one["status"]) == ("sample_workflow", "completed")
    assert [t["status"] for s in one["steps"] for t in s["tasks"]] == ["succeeded"] * 3
    assert [run["workflow_id"] for run in all_of_them["workflows"]] == [run_id]
    assert "/api/workflow" in served.http.get("/docs").text
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(100) == 0


def test_the_task_class_of_the_text_works_as_it_stands(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "my_tasks.py").write_text(IMPORTS + TASK)
    served = serve("--tasks", "my_tasks")
    steps = [{"execution_type": "sequential", "tasks": [{"name": "my_custom_task"}]}]
    answer = served.http.post("/api/workflow?wait=60", json={"name": "mine", "steps": steps})
    (task,) = answer.json()["steps"][0]["tasks"]
    assert (task["name"], task["status"]) == ("my_custom_task", "succeeded")
    # As the text means it: an error inside is caught, and told by False and FAILED.
    broken = TASK.replace("# Task implementation here", 'raise OSError("no disk")')
    (tmp_path / "my_tasks.py").write_text(IMPORTS + broken)
    served = serve("--tasks", "my_tasks")
    answer = served.http.post("/api/workflow?wait=60", json={"name": "mine", "steps": steps})
    assert answer.json()["status"] == "failed"


def test_the_configuration_of_the_text_is_taken_as_it_stands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for line in CONFIGURATION.splitlines():
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            monkeypatch.setenv(name, value)
    done = CliRunner().invoke(cli, ["config", "--json"])
    shown = json.loads(done.stdout)
    assert shown["store"] == "redis://:********@redis.example.com:6379/0"
    rows = {name: (row["value"], row["from"]) for name, row in shown["settings"].items()}
    assert rows["redis_host"] == ("redis.example.com", "environment REDIS_HOST")
    assert rows["redis_port"] == ("6379", "environment REDIS_PORT")
    assert rows["redis_password"] == ("********", "environment REDIS_PASSWORD")
    assert rows["debug"] == ("True", "environment DEBUG")
    assert rows["max_concurrent_workflows"] == ("20", "environment MAX_CONCURRENT_WORKFLOWS")


def test_the_text_stands_in_the_tutorial_too() -> None:
    tutorial = Path(__file__).parents[2] / "docs" / "tutorial-service.md"
    said = re.sub(r"\s+", "", tutorial.read_text(encoding="utf-8"))
    body = START.partition("-d ")[2]
    assert re.sub(r"\s+", "", body) in said
    for line in LOOK.splitlines():
        if line.startswith("curl"):
            assert re.sub(r"\s+", "", line).replace("-XGET", "") in said


APP = """
import stepwell
from stepwell import Engine, StartEvent, StopEvent, Workflow, step


class Hello(Workflow):
    @step
    async def greet(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=f"Hello {ev.name}")


app = stepwell.asgi(Engine("sqlite:///runs.db", [Hello(workflow_name="hello")]))
"""


@contextmanager
def uvicorn_of(folder: Path, target: str) -> Generator[httpx.Client]:
    """`uvicorn module:app`, as users run it."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", target, "--port", str(port), "--log-level", "info"],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = ""
    try:
        for line in process.stderr:
            said += line
            if "Uvicorn running" in line:
                break
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=100) as client:
            yield client
        process.terminate()
        said += process.stderr.read()
        # A process that stops when it is told to, with nothing to complain of.
        assert process.wait(100) in (0, -15), said
        assert "Traceback" not in said, said
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_uvicorn_serves_an_app_of_asgi_and_goes_on_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(APP)
    with uvicorn_of(tmp_path, "mine:app") as client:
        answer = client.post("/api/definitions/hello/run?wait=60", json={"name": "Ada"})
        assert answer.json()["result"] == "Hello Ada"
        slow = [{"execution_type": "sequential", "tasks": [{"name": "sleep", "params": {}}]}]
        slow[0]["tasks"][0]["params"] = {"seconds": 999}
        run_id = client.post("/api/workflow", json={"name": "s", "steps": slow}).json()[
            "workflow_id"
        ]
        assert client.get("/").status_code == 200
    with uvicorn_of(tmp_path, "mine:app") as client:
        assert client.get(f"/api/workflow/{run_id}").json()["status"] in ("running", "waiting")
        assert client.post(f"/api/workflow/{run_id}/cancel").status_code == 202
        assert "run.ended" in client.get(f"/api/workflow/{run_id}/events").text
