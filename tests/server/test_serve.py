"""`stepwell serve` as a process: the text's requests word for word, kills, settings, safety."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from tests.servers.ports import free_port

from stepwell.cli.main import cli

TASKS = """
from pathlib import Path

from stepwell.tasks import task


@task("note")
async def note(word: str) -> str:
    with open("notes.txt", "a") as file:
        file.write(word + "\\n")
    return word


@task("hang_once")
async def hang_once() -> str:
    import asyncio

    if not Path("hung").exists():
        Path("hung").write_text("")
        await asyncio.sleep(3600)
    return "at last"
"""

# The body of the text's curl command, as it stands there.
CREATE = """{
       "name": "sample_workflow",
       "steps": [
         {
           "execution_type": "sequential",
           "tasks": [
             {
               "name": "task_a",
               "params": { "timeout": 30 }
             },
             {
               "name": "task_b",
               "params": { "retry_count": 3 }
             }
           ]
         },
         {
           "execution_type": "parallel",
           "tasks": [
             {
               "name": "task_c",
               "params": { "priority": "high" }
             }
           ]
         }
       ]
     }"""


FAILING = """
import logging

from stepwell.tasks import task


@task("says")
def says() -> None:
    logging.getLogger(__name__).info("a word\\nof two lines", extra={"order": 7})


@task("boom")
async def boom() -> None:
    raise ValueError("bad luck")
"""


MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
TIMED = re.compile(MOMENT.pattern + r" (INFO   |WARNING|DEBUG  ) [\w.]+ ")


class Served:
    """A `stepwell serve` that runs."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("STEPWELL", "REDIS"))}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stepwell", "serve", "--port", "0", *options],
            cwd=folder,
            env={**kept, **environment, "NO_COLOR": "1", "COLUMNS": "200"},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said = ""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line
            if line.startswith("ready") or '"message": "ready"' in line:
                break
        found = re.search(r"serving\s+(http://[^\s\"]+)/docs", self.said)
        assert found is not None, self.said
        self.url = found[1]
        self.http = httpx.Client(base_url=self.url, timeout=100)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.kill()
        assert self.process.stderr is not None
        self.process.stderr.close()


Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path) -> Generator[Serve]:
    (tmp_path / "shop_tasks.py").write_text(TASKS)
    (tmp_path / "failing.py").write_text(FAILING)
    running: list[Served] = []

    def start(*options: str, **environment: str) -> Served:
        running.append(Served(tmp_path, *options, **environment))
        return running[-1]

    yield start
    for one in running:
        one.close()


def test_a_killed_service_goes_on_with_its_documents(serve: Serve, tmp_path: Path) -> None:
    steps = [
        {"name": "note", "params": {"word": "first"}},
        {"name": "hang_once"},
        {"name": "note", "params": {"word": "last"}},
    ]
    body = {"name": "long", "steps": [{"execution_type": "sequential", "tasks": steps}]}
    first = serve("--tasks", "shop_tasks")
    run_id = first.http.post("/api/workflow", json=body).json()["workflow_id"]
    seen: list[str] = []
    with first.http.stream("GET", f"/api/workflow/{run_id}/events") as stream:
        for line in stream.iter_lines():
            if line.startswith("id: "):
                seen.append(line[4:])
            if line.startswith("data: ") and '"hang_once"' in line:
                break
    while not (tmp_path / "hung").exists():
        pass
    first.kill()
    second = serve("--tasks", "shop_tasks")
    rest = second.http.get(f"/api/workflow/{run_id}/events", headers={"Last-Event-ID": seen[-1]})
    kinds = re.findall(r"^event: (.*)$", rest.text, re.MULTILINE)
    assert kinds[-1] == "run.ended"
    assert "run.started" not in kinds
    shown = second.http.get(f"/api/workflow/{run_id}").json()
    assert shown["status"] == "completed"
    assert (tmp_path / "notes.txt").read_text() == "first\nlast\n"


def test_runs_above_the_limit_queue_and_start_by_priority(serve: Serve, tmp_path: Path) -> None:
    served = serve("--tasks", "shop_tasks", MAX_CONCURRENT_WORKFLOWS="1")

    def post(*tasks: dict[str, Any]) -> str:
        body = {"name": "p", "steps": [{"execution_type": "sequential", "tasks": [*tasks]}]}
        return served.http.post("/api/workflow", json=body).json()["workflow_id"]

    holder = post({"name": "sleep", "params": {"seconds": 3600}})
    runs = [
        post({"name": "note", "params": {"word": word, "priority": word}})
        for word in ("low", "normal", "high")
    ]
    shown = served.http.get("/api/workflows", params={"status": "queued"}).json()["workflows"]
    assert len(shown) == 3
    served.http.post(f"/api/workflow/{holder}/cancel")
    for run_id in runs:
        served.http.get(f"/api/workflow/{run_id}/events")
    assert (tmp_path / "notes.txt").read_text() == "high\nnormal\nlow\n"


def test_redis_that_cannot_be_reached_is_replaced_by_memory_and_shouted_about(
    serve: Serve,
) -> None:
    served = serve(REDIS_HOST="127.0.0.1", REDIS_PORT=str(free_port()), REDIS_PASSWORD="hush")
    assert "redis unreachable" in served.said
    assert "hush" not in served.said
    health = served.http.get("/healthz")
    assert health.headers["stepwell-durability"] == "none (degraded: redis unreachable)"
    assert served.http.get("/readyz").json()["status"] == "degraded"
    headers = {"Content-Type": "application/json"}
    answer = served.http.post("/api/workflow?wait=60", content=CREATE, headers=headers)
    assert answer.json()["status"] == "completed"
    said = "durability: none (degraded: redis unreachable)"
    assert said in answer.json()["why"]
    assert said in served.http.get("/").text
    assert said in said_by(served, "why", answer.json()["workflow_id"])


@pytest.mark.parametrize("debug", ["1", ""])
def test_what_tasks_say_is_logged_and_every_request_when_asked_for(
    serve: Serve, debug: str
) -> None:
    served = serve(DEBUG=debug)
    says = {"name": "log", "params": {"message": "hello"}}
    step = {"execution_type": "sequential", "tasks": [says, {"name": "task_a"}]}
    body = {"name": "says", "steps": [step]}
    run = served.http.post("/api/workflow?wait=60", json=body).json()
    assert run["status"] == "completed"
    served.process.terminate()
    assert served.process.stderr is not None
    lines = served.process.stderr.read().splitlines()
    about = f"run={run['workflow_id']}"
    assert [line.partition(" ")[2] for line in lines if " stepwell.tasks." in line] == [
        f"INFO    stepwell.tasks.log {about} hello",
        f"INFO    stepwell.tasks.task_a {about} runs with {{}}",
    ]
    assert all(TIMED.match(line) for line in lines)
    asked = [line for line in lines if "POST /api/workflow?wait=60" in line]
    assert len(asked) == bool(debug)


def test_for_collectors_every_line_is_an_object(serve: Serve) -> None:
    """From the first on, whoever logs: the service, tasks, a user's own module, the server."""
    served = serve("--tasks", "failing", STEPWELL_LOG_FORMAT="json", STEPWELL_PROT="1")
    steps = [{"execution_type": "sequential", "tasks": [{"name": "says"}, {"name": "boom"}]}]
    body = {"name": "fails", "steps": steps}
    run = served.http.post("/api/workflow?wait=60", json=body).json()["workflow_id"]
    with socket.create_connection(("127.0.0.1", served.http.base_url.port or 0)) as line:
        line.sendall(b"nonsense\r\n\r\n")
        line.recv(10)
    served.process.terminate()
    assert served.process.stderr is not None
    rows = [json.loads(line) for line in (served.said + served.process.stderr.read()).splitlines()]
    assert {row["level"] for row in rows} == {"info", "warning"}
    assert all(MOMENT.fullmatch(row["time"]) for row in rows)
    assert {row["logger"] for row in rows} >= {"stepwell.serve", "stepwell", "failing"}
    assert [row["message"] for row in rows if row["logger"] == "stepwell.serve"] == [
        "the variable STEPWELL_PROT means nothing to stepwell; did you mean STEPWELL_PORT?",
        f"serving {served.url}/docs",
        "ready",
        "stopping: takes up nothing more, lets steps end (again: ends at once)",
        "stopped",
    ]
    said, failed = [row for row in rows if row.get("run") == run]
    assert (said["logger"], said["message"], said["step"], said["order"]) == (
        "failing",
        "a word\nof two lines",
        "steps.0.says",
        7,
    )
    assert (failed["event"], failed["step"], failed["workflow"]) == (
        "step.failed",
        "steps.0.boom",
        "document",
    )
    assert failed["error"] == "builtins.ValueError: bad luck"
    assert "failing.py" in failed["trace"]


def test_why_a_task_failed_is_logged_with_its_trace_once(serve: Serve) -> None:
    served = serve("--tasks", "failing")
    step = {
        "execution_type": "sequential",
        "tasks": [{"name": "boom", "params": {"retry_count": 1}}],
    }
    body = {"name": "fails", "steps": [step]}
    run = served.http.post("/api/workflow?wait=60", json=body).json()
    assert run["status"] == "failed"
    served.process.terminate()
    assert served.process.stderr is not None
    said = served.process.stderr.read()
    assert said.count(f"step.failed run={run['workflow_id']}") == 1
    assert said.count("failing.py") == 1
    assert said.count(", line ") == 1  # of the user's code: the library's own says nothing
    assert said.count("ValueError: bad luck") == 2
    # What goes on over several lines is indented: what begins at the left edge is a record.
    assert all(TIMED.match(line) for line in said.splitlines() if not line.startswith("  "))


def refused(folder: Path, *options: str, **environment: str) -> str:
    """What is said by a service that does not start."""
    done = subprocess.run(
        [sys.executable, "-m", "stepwell", "serve", *options],
        cwd=folder,
        env={**os.environ, **environment, "NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return done.stderr


def test_what_is_not_started(tmp_path: Path) -> None:
    away = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(free_port())}
    said = refused(tmp_path, "--port", "0", STEPWELL_REQUIRE_STORE="1", **away)
    assert "\nready" not in said
    assert f"127.0.0.1:{away['REDIS_PORT']}" in said
    assert "there is no token" in refused(tmp_path, "--host", "0.0.0.0")  # noqa: S104
    for nothing in ("", " "):
        said = refused(tmp_path, "--host", "0.0.0.0", "--token", nothing)  # noqa: S104
        assert "token: it is empty" in said
    assert "names no store" in refused(tmp_path, "--port", "0", "--store", "mongo://x")
    assert "there is no module 'nothing'" in refused(tmp_path, "--port", "0", "--tasks", "nothing")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = refused(tmp_path, "--port", str(taken.getsockname()[1]))
    assert "can't listen on" in said
    said = refused(tmp_path, "--host", "0.0.0.0", "--log-format", "json")  # noqa: S104
    assert "there is no token" in json.loads(said)["error"]["message"]


def config(monkeypatch: pytest.MonkeyPatch, folder: Path, *options: str) -> dict[str, Any]:
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(cli, ["config", "--json", *options])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_variables_that_mean_nothing_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("STEPWELL_NOTHING=1\n")
    monkeypatch.setenv("STEPWELL_PROT", "9")
    done = CliRunner().invoke(cli, ["config", "--json"])
    assert done.stderr.splitlines() == [
        "the variable STEPWELL_NOTHING means nothing to stepwell",
        "the variable STEPWELL_PROT means nothing to stepwell; did you mean STEPWELL_PORT?",
    ]


def test_config_says_where_every_value_comes_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(
        textwrap.dedent("""
        REDIS_HOST=redis.example.com
        REDIS_PASSWORD=p@ss word
        MAX_CONCURRENT_WORKFLOWS=5
        STEPWELL_PORT=1
        """)
    )
    monkeypatch.setenv("MAX_CONCURRENT_WORKFLOWS", "20")
    monkeypatch.setenv("DEBUG", "True")
    shown = config(monkeypatch, tmp_path, "--port", "9", "--token", "hush")
    assert shown["store"] == "redis://:********@redis.example.com:6379/0"
    rows = {name: (row["value"], row["from"]) for name, row in shown["settings"].items()}
    assert rows["port"] == ("9", "flag --port")
    assert rows["max_concurrent_workflows"] == ("20", "environment MAX_CONCURRENT_WORKFLOWS")
    assert rows["debug"] == ("True", "environment DEBUG")
    assert rows["redis_host"] == ("redis.example.com", ".env REDIS_HOST")
    assert rows["redis_password"] == ("********", ".env REDIS_PASSWORD")
    assert rows["token"] == ("********", "flag --token")
    assert rows["host"] == ("127.0.0.1", "default")
    assert "hush" not in json.dumps(shown)
    assert "p@ss" not in json.dumps(shown)


def test_settings_that_make_no_sense_are_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEPWELL_PORT", "secret")
    done = CliRunner().invoke(cli, ["config"])
    assert done.exit_code == 2
    assert "STEPWELL_PORT" in done.stderr
    assert "secret" not in done.stderr


def said_by(served: Served, *args: str, code: int = 0) -> str:
    """What a command says that asks the service."""
    environment = {"STEPWELL_SERVER": served.url, "NO_COLOR": "1", "COLUMNS": "200"}
    done = CliRunner(env=environment).invoke(cli, args)
    assert done.exit_code == code, done.stderr
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.stdout if code == 0 else done.stderr


def test_commands_ask_a_service(serve: Serve, tmp_path: Path) -> None:
    served = serve("--tasks", "shop_tasks")
    flow = tmp_path / "flow.json"
    flow.write_text(CREATE)
    result = json.loads(said_by(served, "run", str(flow)))
    assert result["steps.1.task_c"] == {"task": "task_c", "params": {}}
    listed = json.loads(said_by(served, "ls", "--json"))["runs"]
    assert [run["correlation"] for run in listed] == ["sample_workflow"]
    run_id = listed[0]["id"]
    assert "steps.0.task_a" in said_by(served, "show", run_id[:16])
    assert "completed" in said_by(served, "why", run_id)
    assert "completed" in said_by(served, "logs", "-f", run_id)
    assert "has ended already" in said_by(served, "cancel", run_id, code=1)
    copy = said_by(served, "fork", run_id, "-i", "word=1").strip()
    entries = served.http.get(f"/api/workflow/{copy}/journal").json()["rows"][0]["entries"]
    assert '"input": {"word": 1}' in json.dumps(entries)
    flow.write_text(json.dumps({"name": "x", "steps": []}))
    assert "steps: " in said_by(served, "run", str(flow), code=2)
    assert "There is no run" in said_by(served, "show", "zzz", code=3)
    slow = {"execution_type": "sequential", "tasks": [{"name": "sleep", "params": {"seconds": 99}}]}
    flow.write_text(json.dumps({"name": "slow", "steps": [slow]}))
    slow_id = said_by(served, "run", str(flow), "--detach").strip()
    assert "is kept for" in said_by(served, "signal", slow_id, "Hello", "{}")
    assert "is kept for" in said_by(served, "signal", slow_id, "Hello", '{"n": 1}')
    assert "nobody" not in said_by(served, "signal", "Nothing", "--all", '{"n": 1}')
    two = ("--store", str(tmp_path / "no.db"), "--server", served.url)
    assert "two places" in said_by(served, "ls", *two, code=2)
    assert "There is no store" in said_by(served, "ls", *two[:2], code=4)
    assert "asks nothing" in said_by(served, "answer", slow_id, "yes", code=3)
    said_by(served, "cancel", slow_id)
    served.kill()
    assert "can't be reached" in said_by(served, "ls", code=4)


def test_a_document_is_run_in_memory_and_in_a_store(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("flow.json").write_text(CREATE)
    for options in ([], ["--store", "sqlite:///runs.db"]):
        done = CliRunner().invoke(cli, ["run", "flow.json", "-q", *options])
        assert done.exit_code == 0, done.stderr
        assert json.loads(done.stdout)["steps.0.task_b"]["task"] == "task_b"
    Path("flow.json").write_text("{")
    done = CliRunner().invoke(cli, ["run", "flow.json"])
    assert (done.exit_code, "is no JSON" in done.stderr) == (2, True)
    done = CliRunner().invoke(cli, ["run", "nothing.yaml"])
    assert (done.exit_code, "can't be read" in done.stderr) == (2, True)


def test_random_requests_never_find_a_fault_of_the_service(serve: Serve, tmp_path: Path) -> None:
    """A few of each route; RELIABILITY.md says how to try thousands. Not that all is taken that the
    description allows: what a task is called, and numbers over 64 bits, it can't say."""
    program = Path(sys.executable).with_name("schemathesis")
    if not program.exists():
        pytest.skip("schemathesis is not installed")
    served = serve()
    done = subprocess.run(
        [
            *(str(program), "run", f"{served.url}/openapi.json", "--checks", "all"),
            *("--exclude-checks", "positive_data_acceptance"),
            *("--phases", "fuzzing", "-n", "4", "--request-timeout", "15", "--no-color"),
            *("--seed", "1", "--suppress-health-check", "all"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
