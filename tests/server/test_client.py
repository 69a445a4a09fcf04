"""The client: the engine's verbs over HTTP, with the engine's errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
from tests.server.conftest import SAMPLE
from tests.server.test_routes import Asking

import stepwell
from stepwell import Engine
from stepwell.client import Client, ServiceError
from stepwell.errors import (
    DocumentError,
    InvalidArgument,
    NoPendingQuestion,
    RunNotFound,
    StoreUnavailable,
    WorkflowNotRegistered,
    WorkflowRuntimeError,
)
from stepwell.tasks import TaskRegistry
from stepwell.values import RunStatus

SLOW: dict[str, Any] = {
    "name": "slow",
    "steps": [
        {
            "execution_type": "sequential",
            "tasks": [{"name": "sleep", "params": {"seconds": 3600}}],
        }
    ],
}


@pytest.fixture
async def client(tasks: TaskRegistry) -> AsyncGenerator[Client]:
    async with Engine("memory://", [Asking(workflow_name="asking")]) as engine:
        transport = httpx.ASGITransport(stepwell.asgi(engine, tasks=tasks, token="t"))
        async with Client("http://test", token="t", transport=transport) as client:
            yield client


async def test_a_document_is_run_and_looked_at(client: Client) -> None:
    run = await client.start(SAMPLE, {"x": 1}, key="k")
    again = await client.start(SAMPLE, {"x": 1}, key="k")
    assert again.run_id == run.run_id
    result = await run
    assert result["steps.0.task_a"] == {"task": "task_a", "params": {}}
    info = await client.get(run.run_id)
    assert (info.status, info.correlation) == (RunStatus.COMPLETED, "sample_workflow")
    assert info.key == "k"
    assert [i.id for i in (await client.list(status="completed"))[0]] == [run.run_id]
    assert await client.counts() == {("document", RunStatus.COMPLETED): 1}
    items = [item async for item in client.stream(run.run_id)]
    assert items[-1].terminal
    rest = [item async for item in client.stream(run.run_id, after=items[2].cursor)]
    assert rest == items[3:]
    rows = await client.journal(run.run_id)
    assert [seq for seq, _, _ in rows] == list(range(1, info.seq + 1))
    assert await client.journal(run.run_id, after=2) == rows[2:]
    assert "completed" in (await client.why(run.run_id)).sentence
    assert await client.delete([run.run_id]) == 1
    with pytest.raises(RunNotFound):
        await client.get(run.run_id)


async def test_a_workflow_is_started_by_name_and_answered(client: Client) -> None:
    run = await client.start("asking", topic="ships")
    for _ in range(1000):
        waits = await client.waits(run.run_id)
        if waits:
            break
    assert [wait.id for wait in waits] == ["q"]
    with pytest.raises(NoPendingQuestion):
        await client.answer(run.run_id, "no", question="other")
    await client.answer(run.run_id, "yes", question="q")
    assert await run == "ships: yes"
    with pytest.raises(WorkflowRuntimeError):
        await client.signal(run.run_id, "Late", {})
    assert await client.cancel(run.run_id) is False


async def test_an_event_for_all_that_wait_for_it(client: Client) -> None:
    runs = [await client.start("asking", topic=word) for word in ("a", "b")]
    for _ in range(1000):
        waiting, _ = await client.list(waiting="HumanResponseEvent")
        if len(waiting) == 2:
            break
    assert await client.broadcast("HumanResponseEvent", {"response": "go"}) == 2
    assert await asyncio.gather(*runs) == ["a: go", "b: go"]


async def test_failures_are_raised_and_retried(client: Client) -> None:
    steps = [{"execution_type": "sequential", "tasks": [{"name": "second"}]}]
    run = await client.start({"name": "n", "steps": steps})
    with pytest.raises(OSError, match="not yet"):
        await run
    again = await client.retry(run.run_id, new_id="again")
    assert again.run_id == "again"
    assert await again == {"steps.0.second": "at last"}
    copy = await client.fork(run.run_id)
    assert await copy == {"steps.0.second": "at last"}


async def test_cancelling(client: Client) -> None:
    run = await client.start(SLOW)
    assert await client.signal(run.run_id, "X", {}, dedupe="1") is True
    assert await client.signal(run.run_id, "X", {}, dedupe="1") is False
    assert await run.cancel("enough") is True
    with pytest.raises(Exception, match=r"enough|cancelled"):
        await run


async def test_what_is_refused_is_the_engines_error(client: Client) -> None:
    with pytest.raises(DocumentError) as caught:
        await client.start({"name": "n", "steps": []})
    assert caught.value.problems[0].startswith("steps: ")
    with pytest.raises(WorkflowNotRegistered, match="asking"):
        await client.start("nothing")
    with pytest.raises(InvalidArgument, match="topic"):
        await client.start("asking", topic=[])
    with pytest.raises(InvalidArgument, match="JSON"):
        await client.start("asking", topic=object())
    for call in (client.get("no"), client.resume("no"), client.retry("no"), client.result("no")):
        with pytest.raises(RunNotFound, match="'no'"):
            await call
    with pytest.raises(InvalidArgument, match="http://host:port"):
        Client("localhost:8000")


async def test_a_wrong_token_and_what_is_no_service(tasks: TaskRegistry) -> None:
    async with Engine("memory://") as engine:
        transport = httpx.ASGITransport(stepwell.asgi(engine, tasks=tasks, token="t"))
        async with Client("http://test", transport=transport) as client:
            with pytest.raises(ServiceError) as caught:
                await client.counts()
            assert (caught.value.status, caught.value.problem) == (401, "unauthorized")

    def other(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(404, text="nothing here")

    async with Client("http://test", transport=httpx.MockTransport(other)) as client:
        with pytest.raises(ServiceError, match="no stepwell service"):
            await client.get("x")


async def test_a_stream_that_breaks_off_is_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []
    lines = [
        b'{"id": "1.1", "type": "run.started", "at": "2026-01-01T00:00:00+00:00"}\n',
        b'{"id": "2.1", "type": "run.ended", "at": "2026-01-01T00:00:01+00:00", '
        b'"status": "completed", "result": 7, "error": null}\n',
    ]

    class Broken(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncGenerator[bytes]:
            yield lines[0]
            raise httpx.ReadError("gone")

    def service(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("last-event-id"))
        if len(asked) == 1:
            return httpx.Response(200, stream=Broken())
        if len(asked) == 2:
            raise httpx.ConnectError("restarting")
        return httpx.Response(200, content=lines[1])

    monkeypatch.setattr("stepwell.client._AGAIN", 0.0)
    async with Client("http://test", transport=httpx.MockTransport(service)) as client:
        assert await client.result("x") == 7
    assert asked == [None, "1.1", "1.1"]


async def test_a_service_that_stays_away_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def service(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("nobody")

    monkeypatch.setattr("stepwell.client._AGAIN", 0.0)
    async with Client("http://test", transport=httpx.MockTransport(service)) as client:
        with pytest.raises(StoreUnavailable, match="can't be reached"):
            await client.result("x")
        with pytest.raises(StoreUnavailable, match="can't be reached"):
            await client.get("x")
