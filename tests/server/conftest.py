"""An app with an engine in memory, and what tests ask of it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Any

import httpx
import pytest

import stepwell
from stepwell import Engine
from stepwell.runtime.engine import Startable
from stepwell.server.serving import listen_on, serve
from stepwell.server.settings import load
from stepwell.tasks import BUILT_IN, TaskRegistry

PATIENCE = 100.0
"""Seconds after which something is said not to happen."""

SAMPLE: dict[str, Any] = {
    "name": "sample_workflow",
    "steps": [
        {
            "execution_type": "sequential",
            "tasks": [
                {"name": "task_a", "params": {"timeout": 30}},
                {"name": "task_b", "params": {"retry_count": 3}},
            ],
        },
        {
            "execution_type": "parallel",
            "tasks": [{"name": "task_c", "params": {"priority": "high"}}],
        },
    ],
}


class Api(httpx.AsyncClient):
    """A client of an app, without sockets."""

    def __init__(self, app: Any) -> None:
        # Errors that leave the app are the service's own faults: the test is to see them.
        super().__init__(transport=httpx.ASGITransport(app), base_url="http://test")
        self.app = app

    def document(self, *tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
        steps = [{"execution_type": "sequential", "tasks": [*tasks]}]
        return {"name": "test", "steps": steps, **more}

    def slow(self) -> dict[str, Any]:
        return self.document({"name": "sleep", "params": {"seconds": 3600}})


@pytest.fixture
def tasks() -> TaskRegistry:
    made = TaskRegistry(BUILT_IN)
    calls: list[str] = []

    @made.task("boom")
    async def boom() -> None:
        raise ValueError("boom")

    @made.task("second")
    async def second() -> str:
        """Succeeds when it is called again."""
        calls.append("")
        if len(calls) < 2:
            raise OSError("not yet")
        return "at last"

    return made


@pytest.fixture
async def api(tasks: TaskRegistry) -> AsyncGenerator[Api]:
    async with Engine("memory://") as engine:
        yield Api(stepwell.asgi(engine, tasks=tasks))
        await engine.stop(0.0)


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop turn until something holds; others may have to do something for it as well."""
    async with asyncio.timeout(PATIENCE):
        for turn in itertools.count():
            if holds():
                return
            await asyncio.sleep(0 if turn < 1000 else 0.002)


async def ended(api: httpx.AsyncClient, run_id: str) -> dict[str, Any]:
    """The run when it has ended."""
    async with asyncio.timeout(PATIENCE):
        while True:
            shown = (await api.get(f"/api/workflow/{run_id}")).json()
            if shown["ended"]:
                return shown
            await asyncio.sleep(0)


def tasks_of(shown: dict[str, Any]) -> list[dict[str, Any]]:
    """All tasks of a run's steps."""
    return [task for step in shown["steps"] for task in step["tasks"]]


async def events_of(
    api: httpx.AsyncClient, run_id: str, headers: dict[str, str] | None = None
) -> list[tuple[str, str, dict[str, Any]]]:
    """A stream to its end: cursors, kinds, data."""
    answer = await api.get(f"/api/workflow/{run_id}/events", headers=headers)
    found: list[tuple[str, str, dict[str, Any]]] = []
    for block in answer.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] != ":")
        if "data" in fields:
            found.append((fields["id"], fields["event"], json.loads(fields["data"])))
    return found


# --- on sockets ----------------------------------------------------------------------------------


class Line:
    """A connection to the service, by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def say(self, text: str | bytes) -> None:
        self.writer.write(text.encode() if isinstance(text, str) else text)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """All that comes until the service hangs up."""
        data = b""
        with contextlib.suppress(ConnectionError):
            while part := await self.reader.read(65536):
                data += part
        head, _, body = data.partition(b"\r\n\r\n")
        first, *rest = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in rest)
        return int(first.split()[1]) if first else 0, headers, body


class Site:
    """A service on a socket."""

    def __init__(self, app: Any, port: int) -> None:
        self.app = app
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.lines: list[Line] = []

    async def line(self, buffer: int | None = None) -> Line:
        sock = socket.socket()
        if buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        limit = buffer or 2**16
        self.lines.append(Line(*await asyncio.open_connection(sock=sock, limit=limit)))
        return self.lines[-1]

    async def running(self) -> str:
        """A run that goes on."""
        slow = {"execution_type": "sequential", "tasks": [{"name": "hold"}]}
        async with httpx.AsyncClient(base_url=self.url, timeout=100) as client:
            answer = await client.post("/api/workflow", json={"name": "slow", "steps": [slow]})
        return answer.json()["workflow_id"]


Begin = Callable[..., Awaitable[Site]]


@pytest.fixture
async def site(tasks: TaskRegistry) -> AsyncGenerator[Begin]:
    @tasks.task("hold")
    async def hold() -> None:
        await asyncio.Event().wait()

    async with contextlib.AsyncExitStack() as stack:

        async def begin(
            patience: float = 0.5,
            workflows: Iterable[Startable | type] = (),
            store: float | None = None,
            **more: Any,
        ) -> Site:
            """`patience` with callers; with the store as well, unless `store` says otherwise."""
            engine = Engine("memory://", workflows)
            await engine.start_up()
            settings = load({"port": 0, "patience": patience, "drain_seconds": 1})
            app = stepwell.asgi(engine, tasks=tasks, patience=store or patience, **more)
            listening = listen_on(settings)
            stop = asyncio.Event()
            serving = asyncio.create_task(serve(settings, app, listening, stop))

            async def end() -> None:
                stop.set()
                await serving
                listening.close()
                await engine.stop(0.0)
                for line in made.lines:
                    line.writer.close()

            stack.push_async_callback(end)
            made = Site(app, listening.getsockname()[1])
            return made

        yield begin
