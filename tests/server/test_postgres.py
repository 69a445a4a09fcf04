"""The service on a real PostgreSQL: as any other store, lost while runs are at work, and shared."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from tests.server.conftest import Api, events_of
from tests.server.test_serve import CREATE, Served, refused
from tests.servers.ports import free_port
from tests.servers.postgres import PostgresServer
from tests.servers.postgres import begin as begin_server

import stepwell
from stepwell import Context, Engine, Event, StartEvent, StopEvent, Workflow, step
from stepwell.server import feed

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="kills processes"),
]

PATIENCE = 100.0
FLOWS = """
import asyncio
from pathlib import Path

from stepwell import Context, Event, StartEvent, StopEvent, Workflow, step
from stepwell.tasks import task


class Approved(Event):
    by: str


class Approval(Workflow):
    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        answer = await ctx.wait_for_event(Approved)
        return StopEvent(result=answer.by)


approval = Approval(timeout=None, workflow_name="approval")


@task("note")
async def note(word: str) -> str:
    with open("notes.txt", "a") as file:
        file.write(word + "\\n")
    return word


@task("gate")
async def gate() -> str:
    Path("at_the_gate").touch()
    while not Path("open").exists():
        await asyncio.sleep(0.01)
    return "through"
"""

Serve = Callable[..., Served]


class Approved(Event):
    by: str


class Approval(Workflow):
    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        answer = await ctx.wait_for_event(Approved)
        return StopEvent(result=answer.by)


def approvals() -> Approval:
    return Approval(timeout=None, workflow_name="approval")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    server = begin_server()
    yield server
    server.remove()


@pytest.fixture
def schema() -> str:
    return f"t{uuid.uuid4().hex[:20]}"


@pytest.fixture
def serve(server: PostgresServer, schema: str, tmp_path: Path) -> Generator[Serve]:
    """Starts services on one database that is new."""
    (tmp_path / "flows.py").write_text(FLOWS)
    url = server.url(schema)
    running: list[Served] = []

    def start(*options: str, **environment: str) -> Served:
        options = ("--tasks", "flows", "--app", "flows:approval", *options)
        running.append(Served(tmp_path, *options, STEPWELL_STORE=url, **environment))
        return running[-1]

    yield start
    for one in running:
        one.close()


def document(*tasks: str, **more: Any) -> dict[str, Any]:
    """A workflow that does these tasks in turn; `note` notes its place."""
    rows = [
        {"name": name, "params": {"word": str(n)} if name == "note" else {}}
        for n, name in enumerate(tasks)
    ]
    return {"name": "shop", "steps": [{"execution_type": "sequential", "tasks": rows}], **more}


def begin(served: Served, *tasks: str) -> str:
    answer = served.http.post("/api/workflow", json=document(*tasks))
    assert answer.status_code == 202, answer.text
    return answer.json()["workflow_id"]


def begin_approval(served: Served) -> str:
    answer = served.http.post("/api/definitions/approval/run", json={})
    assert answer.status_code == 202, answer.text
    return answer.json()["workflow_id"]


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it never did"
        threading.Event().wait(0.01)


class Reader:
    """Reads a run's stream in a thread: the kinds of its events, as they come."""

    def __init__(self, served: Served, run_id: str) -> None:
        self.kinds: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._url = f"{served.url}/api/workflow/{run_id}/events"
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            with httpx.stream("GET", self._url, timeout=PATIENCE) as answer:
                answer.raise_for_status()
                for line in answer.iter_lines():
                    if line.startswith("event: "):
                        self.kinds.put(line[7:])
        except httpx.HTTPError as error:
            self.kinds.put(repr(error))
        self.kinds.put("over")

    def until(self, kind: str) -> list[str]:
        """What came up to an event of this kind."""
        came: list[str] = []
        while kind not in came:
            came.append(self.kinds.get(timeout=PATIENCE))
            assert came[-1] != "over" or kind == "over", came
        return came


# One service --------------------------------------------------------------------------------------


def test_a_service_on_postgres_starts_finishes_streams_and_takes_signals(serve: Serve) -> None:
    served = serve()
    assert "(durability: process)" in served.said  # the tests' server runs without fsync
    headers = {"Content-Type": "application/json"}
    shown = served.http.post("/api/workflow?wait=60", content=CREATE, headers=headers).json()
    assert shown["status"] == "completed"
    stream = served.http.get(f"/api/workflow/{shown['workflow_id']}/events").text
    assert stream.count("event: task.succeeded") == 3
    run_id = begin_approval(served)
    reader = Reader(served, run_id)
    reader.until("wait.opened")
    said = served.http.post(f"/api/workflow/{run_id}/signal/Approved", json={"by": "ann"})
    assert (said.status_code, said.json()["accepted"]) == (202, True)
    assert reader.until("over")[-2:] == ["run.ended", "over"]
    assert served.http.get(f"/api/workflow/{run_id}").json()["result"] == "ann"
    listed = served.http.get("/api/workflows").json()["workflows"]
    assert {run["status"] for run in listed} == {"completed"}
    assert len(listed) == 2
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(100) == 0


def test_a_postgres_that_is_not_there_is_refused_and_replaced_by_nothing(tmp_path: Path) -> None:
    url = f"postgresql://me:hush@127.0.0.1:{free_port()}/runs"
    said = refused(tmp_path, "--port", "0", STEPWELL_STORE=url)
    assert "cannot be reached" in said
    assert "Check that the server runs" in said
    assert "ready" not in said
    assert "hush" not in said


# A server that goes away --------------------------------------------------------------------------


def routes_of(run_id: str) -> list[tuple[str, str, dict[str, Any] | None]]:
    """One call of each route that needs the store."""
    run = f"/api/workflow/{run_id}"
    return [
        ("GET", "/readyz", None),
        ("GET", "/metrics", None),
        ("GET", run, None),
        ("GET", f"{run}/events", None),
        ("GET", f"{run}/journal", None),
        ("GET", f"{run}/graph", None),
        ("GET", "/api/workflows", None),
        ("GET", "/api/counts", None),
        ("POST", "/api/workflow", document("note")),
        ("POST", "/api/workflow?wait=60", document("note")),
        ("POST", "/api/definitions/approval/run", {}),
        ("POST", f"{run}/cancel", None),
        ("POST", f"{run}/signal/Approved", {"by": "ann"}),
        ("POST", "/api/signal/Approved", {"by": "ann"}),
        ("POST", f"{run}/answer", {"answer": "yes"}),
        ("POST", f"{run}/resume", None),
        ("POST", f"{run}/retry", None),
        ("POST", f"{run}/fork", None),
        ("DELETE", run, None),
    ]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_postgres_that_is_lost_is_waited_for_and_nothing_is_lost(
    serve: Serve, server: PostgresServer, tmp_path: Path, how: signal.Signals
) -> None:
    served = serve(STEPWELL_LEASE="3")
    run_id = begin(served, "note", "gate", "note")
    waiting = begin_approval(served)
    reader, other = Reader(served, run_id), Reader(served, waiting)
    until((tmp_path / "at_the_gate").exists)
    reader.until("task.succeeded")
    other.until("wait.opened")
    server.stop(how)
    try:
        for method, path, body in routes_of(run_id):
            began = time.monotonic()
            said = served.http.request(method, path, json=body)
            assert said.status_code == 503, (method, path, said.text)
            assert int(said.headers["retry-after"]) > 0, path
            if path != "/readyz":
                assert said.headers["content-type"] == "application/problem+json", path
            assert time.monotonic() - began < 10, path
        assert served.http.get("/healthz").status_code == 200
        assert served.http.get("/api/definitions").status_code == 200
        # The work that is under way does not stop for it.
        (tmp_path / "open").touch()
    finally:
        server.start()
    assert reader.until("over")[-2:] == ["run.ended", "over"]
    until(lambda: served.http.get("/readyz").status_code == 200)
    shown = served.http.get(f"/api/workflow/{run_id}").json()
    assert shown["status"] == "completed"
    assert (tmp_path / "notes.txt").read_text() == "0\n2\n"
    said = served.http.post(f"/api/workflow/{waiting}/signal/Approved", json={"by": "ann"})
    assert said.status_code == 202
    assert other.until("over")[-2:] == ["run.ended", "over"]
    # What was refused was not begun.
    assert len(served.http.get("/api/workflows").json()["workflows"]) == 2


# Two services -------------------------------------------------------------------------------------


def test_two_services_on_one_database_are_one_service(
    serve: Serve, server: PostgresServer, schema: str, tmp_path: Path
) -> None:
    # Long leases: one of a second is over before its time on a machine that halts for one.
    here, there = serve(STEPWELL_LEASE="3600"), serve(STEPWELL_LEASE="3600")
    run_id = begin_approval(here)
    shown = there.http.get(f"/api/workflow/{run_id}").json()
    assert (shown["definition"], shown["status"]) == ("approval", "waiting")
    reader = Reader(there, run_id)
    reader.until("wait.opened")
    said = there.http.post(f"/api/workflow/{run_id}/signal/Approved", json={"by": "ann"})
    assert said.json()["accepted"] is True
    assert reader.until("over")[-2:] == ["run.ended", "over"]
    shown = here.http.get(f"/api/workflow/{run_id}").json()
    assert shown.get("result") == "ann", shown
    # A start that is repeated at the other one waits for the run of the first.
    headers = {"Idempotency-Key": "k"}
    body = document("note", "gate", "note")
    first = here.http.post("/api/workflow", json=body, headers=headers).json()["workflow_id"]
    until((tmp_path / "at_the_gate").exists)
    opening = threading.Timer(0.2, (tmp_path / "open").touch)
    opening.start()
    again = there.http.post("/api/workflow?wait=60", json=body, headers=headers)
    assert again.headers["idempotency-replayed"] == "true"
    assert (again.json()["workflow_id"], again.json()["status"]) == (first, "completed")
    assert (tmp_path / "notes.txt").read_text() == "0\n2\n"
    # What one of them leaves behind, the other one goes on with.
    last = begin_approval(here)
    here.kill()
    place = f"{server.url()}&options=-csearch_path%3D{schema}"
    with psycopg.connect(place, autocommit=True) as db:
        db.execute("UPDATE workers SET until = 0 WHERE pid = %s", [here.process.pid])
    there.http.post(f"/api/workflow/{last}/signal/Approved", json={"by": "bob"})
    until(lambda: there.http.get(f"/api/workflow/{last}").json().get("result") == "bob")


async def test_what_another_service_does_is_heard_of_and_not_waited_for(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them looks by itself here: a stream or a wait that heard of nothing would be late."""
    monkeypatch.setattr(feed, "_SOON", 1000.0)
    monkeypatch.setattr(feed, "_LATE", 1000.0)
    url = server.url(f"t{uuid.uuid4().hex[:20]}")
    async with (
        Engine(url, [approvals()], poll=1000.0) as here,
        Engine(url, [approvals()], poll=1000.0) as there,
        Api(stepwell.asgi(here)) as one,
        Api(stepwell.asgi(there)) as other,
        asyncio.timeout(PATIENCE),
    ):
        for each in (one, other):
            each.app.state.stop_listening()  # it would hear all that is done in this process
        headers = {"Idempotency-Key": "k"}
        begun = await one.post("/api/definitions/approval/run", json={}, headers=headers)
        run_id = begun.json()["workflow_id"]
        reading = asyncio.create_task(events_of(other, run_id))
        waiting = asyncio.create_task(
            other.post("/api/definitions/approval/run?wait=60", json={}, headers=headers)
        )
        await asyncio.sleep(0.2)  # both have looked, and nothing more is to come
        assert not reading.done()
        assert not waiting.done()
        await one.post(f"/api/workflow/{run_id}/signal/Approved", json={"by": "ann"})
        kinds = [kind for _, kind, _ in await reading]
        assert kinds[-1] == "run.ended"
        assert (await waiting).json()["result"] == "ann"
