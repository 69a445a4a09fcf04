"""Ids, events and definitions with names that paths make trouble of: all work, everywhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import httpx
import pytest
from fastapi import FastAPI
from tests.server.conftest import Api, ended
from tests.server.test_routes import Asking

import stepwell
from stepwell import Engine
from stepwell.client import Client
from stepwell.errors import RunNotFound
from stepwell.server.paths import part_of
from stepwell.tasks import TaskRegistry
from stepwell.values import RunStatus

NAMES = [
    "a/b",
    "/",
    "//",
    "a%2Fb",
    "a%b",
    "..",
    ".",
    "../../etc/passwd",
    "a/../b",
    "a b+c?d#e&f=g;h",
    "\\\"'<script>",
    "é😀\u202eabc",
    "x" * 500,
    "😀/" * 250,
    "run/events",
    "none/cancel",
]


@pytest.fixture(params=["alone", "mounted"])
async def asking(request: pytest.FixtureRequest, tasks: TaskRegistry) -> AsyncGenerator[Api]:
    flows = [Asking(workflow_name="asking"), Asking(workflow_name="a/b %2F?")]
    async with Engine("memory://", flows) as engine:
        app = stepwell.asgi(engine, tasks=tasks)
        if request.param == "mounted":
            site = FastAPI()
            site.mount("/flows", app)
            api = Api(site)
            api.base_url = httpx.URL("http://test/flows")
        else:
            api = Api(app)
        api.app = app
        yield api


async def waiting(client: Client, run_id: str) -> None:
    for _ in range(1000):
        if await client.waits(run_id):
            return
    raise AssertionError("it never waited")


@pytest.mark.parametrize("name", NAMES)
async def test_a_run_of_any_name_is_reached_on_every_route(asking: Api, name: str) -> None:
    engine: Engine = asking.app.state.stepwell.engine
    transport = asking._transport
    async with Client(str(asking.base_url), transport=transport) as client:
        for other in ("a", "b", "x", "run", "none"):
            await engine.start("asking", {"topic": "other"}, run_id=other)
        await engine.start("asking", {"topic": "t"}, run_id=name)
        await waiting(client, name)
        info = await client.get(name)
        assert (info.id, info.status) == (name, RunStatus.WAITING)
        assert await client.signal(name, "an/event", {}) is True
        assert (await client.journal(name))[0][0] == 1
        answer = await asking.get(f"/api/workflow/{part_of(name)}/graph")
        assert "flowchart" in answer.text
        await client.answer(name, "yes")
        items = [item async for item in client.stream(name)]
        assert items[-1].terminal
        assert await client.result(name) == "t: yes"
        shown = await client.show(name)
        root = asking.base_url.path.rstrip("/")
        for link in shown["links"].values():
            assert link.startswith(f"{root}/api/workflow/{part_of(name)}")
        fork = await client.fork(name, new_id=None if name in (".", "..") else f"{name}/2")
        assert await client.cancel(fork.run_id) is True
        await ended(asking, part_of(fork.run_id))
        assert await client.delete([name]) == 1
        with pytest.raises(RunNotFound):
            await client.get(name)
        assert {run.id for run in (await client.list())[0]} >= {"a", "b", "x", "run", "none"}


async def test_a_definition_of_any_name_is_started_and_drawn(asking: Api) -> None:
    found = (await asking.get("/api/definitions")).json()["definitions"]
    (links,) = [row["links"] for row in found if row["name"] == "a/b %2F?"]
    root = asking.base_url.path.rstrip("/")
    run, graph = (links[word].removeprefix(root) for word in ("run", "graph"))
    assert (await asking.post(run, json={"topic": "x"})).status_code == 202
    assert "flowchart" in (await asking.get(graph)).text


async def test_no_run_can_be_called_what_no_path_leads_to(asking: Api) -> None:
    engine: Engine = asking.app.state.stepwell.engine
    await engine.start("asking", {"topic": "t"}, run_id="plain")
    for name in (".", ".."):
        answer = await asking.post("/api/workflow/plain/fork", json={"id": name})
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_word")
    for asked in ("a%1Fb", "%00", "%C3%28", "a%2F%1Fb"):
        answer = await asking.get(f"/api/workflow/{asked}")
        assert (answer.status_code, answer.json()["code"]) == (404, "run_not_found")
