"""An app with an engine in memory, and what tests ask of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

import httpx
import pytest

import stepwell
from stepwell import Engine
from stepwell.tasks import BUILT_IN, TaskRegistry

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


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop turn until something holds."""
    for _ in range(100_000):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never did")


async def ended(api: httpx.AsyncClient, run_id: str) -> dict[str, Any]:
    """The run when it has ended."""
    for _ in range(100_000):
        shown = (await api.get(f"/api/workflow/{run_id}")).json()
        if shown["ended"]:
            return shown
        await asyncio.sleep(0)
    raise AssertionError("it never ended")


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
