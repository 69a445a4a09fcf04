"""A key of idempotency starts one run, on every store, and stands for one request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field
from tests.server.conftest import SAMPLE, Api
from tests.servers.redis import RedisServer, redis

import stepwell
from stepwell import Engine, StartEvent, StopEvent, Workflow, step
from stepwell.tasks import TaskRegistry

__all__ = ["redis"]
KEY = {"Idempotency-Key": "k"}
DOCUMENT = "/api/workflow"


class Order(StartEvent):
    number: int
    note: str = "none"
    made: datetime = Field(default_factory=lambda: datetime.now(UTC))


class Ordering(Workflow):
    @step
    async def take(self, ev: Order) -> StopEvent:
        return StopEvent(result=ev.number)


def url_of(request: pytest.FixtureRequest, folder: Path) -> str:
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis")
        return server.url_for(folder)
    return "memory://" if request.param == "memory" else f"sqlite:///{folder}/runs.db"


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(request, tmp_path)


@pytest.fixture(params=["sqlite", "redis"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that survives, and that two may have."""
    return url_of(request, tmp_path)


def workflows() -> list[Workflow]:
    return [Ordering(workflow_name="order"), Ordering(workflow_name="reorder")]


@pytest.fixture
async def keyed(url: str, tasks: TaskRegistry) -> AsyncGenerator[Api]:
    async with Engine(url, workflows()) as engine:
        yield Api(stepwell.asgi(engine, tasks=tasks))


def run_of(name: str) -> str:
    return f"/api/definitions/{name}/run"


FIRST: dict[str, tuple[str, dict[str, Any]]] = {
    "document": (DOCUMENT, {**SAMPLE, "input": {"n": 1}}),
    "definition": (run_of("order"), {"number": 1, "note": "x"}),
}


@pytest.mark.parametrize("kind", FIRST)
async def test_many_at_once_with_one_key_start_exactly_one_run(keyed: Api, kind: str) -> None:
    path, body = FIRST[kind]
    answers = await asyncio.gather(*(keyed.post(path, json=body, headers=KEY) for _ in range(30)))
    assert {a.status_code for a in answers} == {202}
    assert len({a.json()["workflow_id"] for a in answers}) == 1
    assert sum("idempotency-replayed" not in a.headers for a in answers) == 1
    assert len((await keyed.get("/api/workflows")).json()["workflows"]) == 1
    late = await keyed.post(path, json=body, headers=KEY, params={"wait": 60})
    assert late.headers["idempotency-replayed"] == "true"
    assert late.json()["status"] == "completed"


OTHERS: list[tuple[str, str, dict[str, Any]]] = [
    ("document", DOCUMENT, {**SAMPLE, "name": "other", "input": {"n": 1}}),
    ("document", DOCUMENT, {**SAMPLE, "input": {"n": 2}}),
    ("document", DOCUMENT, SAMPLE),
    (
        "document",
        DOCUMENT,
        {
            "name": "sample_workflow",
            "steps": [
                SAMPLE["steps"][0],
                {
                    "execution_type": "parallel",
                    "tasks": [{"name": "task_c", "params": {"priority": "low"}}],
                },
            ],
            "input": {"n": 1},
        },
    ),
    ("document", run_of("order"), {"number": 1}),
    ("definition", run_of("order"), {"number": 2, "note": "x"}),
    ("definition", run_of("order"), {"number": 1}),
    ("definition", run_of("order") + "?priority=5", {"number": 1, "note": "x"}),
    ("definition", run_of("reorder"), {"number": 1, "note": "x"}),
    ("definition", DOCUMENT, SAMPLE),
]


@pytest.mark.parametrize(("kind", "path", "body"), OTHERS)
async def test_a_key_that_comes_with_another_request_is_refused(
    keyed: Api, kind: str, path: str, body: dict[str, Any]
) -> None:
    first, asked = FIRST[kind]
    run_id = (await keyed.post(first, json=asked, headers=KEY)).json()["workflow_id"]
    answer = await keyed.post(path, json=body, headers=KEY)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert run_id in answer.json()["detail"]
    assert len((await keyed.get("/api/workflows")).json()["workflows"]) == 1


async def test_two_requests_that_race_for_a_key_start_one_run(keyed: Api) -> None:
    bodies = [{"number": n} for n in range(5)]
    paths = [run_of(name) for name in ("order", "reorder")]
    answers = await asyncio.gather(
        *(keyed.post(p, json=b, headers=KEY) for p in paths for b in bodies)
    )
    assert sorted(a.status_code for a in answers) == [202, *[422] * 9]
    assert len((await keyed.get("/api/workflows")).json()["workflows"]) == 1


async def test_a_key_is_known_after_a_restart_whatever_the_order_of_fields(
    shared: str, tasks: TaskRegistry
) -> None:
    ids: list[str] = []
    for body in ({"number": 1, "note": "x"}, {"note": "x", "number": 1}):
        async with Engine(shared, workflows()) as engine:
            api = Api(stepwell.asgi(engine, tasks=tasks))
            answer = await api.post(run_of("order"), json=body, headers=KEY)
            ids.append(answer.json()["workflow_id"])
            other = await api.post(run_of("order"), json={"number": 2}, headers=KEY)
            assert other.status_code == 422
    assert ids[0] == ids[1]


async def test_two_services_on_one_store_start_one_run_for_a_key(
    shared: str, tasks: TaskRegistry
) -> None:
    async with Engine(shared, workflows()) as first, Engine(shared, workflows()) as second:
        apis = [Api(stepwell.asgi(engine, tasks=tasks)) for engine in (first, second)]
        answers = await asyncio.gather(
            *(
                api.post(run_of("order"), json={"number": n % 2}, headers=KEY)
                for n in range(10)
                for api in apis
            )
        )
        started = {a.json()["workflow_id"] for a in answers if a.status_code == 202}
        assert len(started) == 1
        assert {a.status_code for a in answers} == {202, 422}
        assert len((await apis[0].get("/api/workflows")).json()["workflows"]) == 1


async def test_a_run_that_was_started_from_python_is_found_by_its_key(keyed: Api) -> None:
    engine = keyed.app.state.stepwell.engine
    handler = await engine.start("order", number=7, key="k")
    answer = await keyed.post(run_of("order"), json={"number": 7}, headers=KEY)
    assert answer.json()["workflow_id"] == handler.run_id
    assert answer.headers["idempotency-replayed"] == "true"
