"""The short way of busy requests: it answers as the long way does, and takes plain ones only."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import Scope
from tests.server.conftest import SAMPLE, Api

import stepwell
from stepwell import Engine, StartEvent, StopEvent, Workflow, step
from stepwell.server.app import _BUSY
from stepwell.server.direct import Direct

RUN = "/api/definitions/hello/run"


class Hello(Workflow):
    @step
    async def greet(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=f"Hello {ev.name}")


@pytest.fixture
async def hello() -> AsyncGenerator[Api]:
    async with Engine("memory://", [Hello(workflow_name="hello")]) as engine:
        yield Api(stepwell.asgi(engine))


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were answered by the short way."""
    found: list[str] = []
    plain = Direct._answer

    async def answer(self: Direct, scope: Scope, *given: Any) -> bool:
        done = await plain(self, scope, *given)
        if done:
            found.append(scope["path"])
        return done

    monkeypatch.setattr(Direct, "_answer", answer)
    return found


@pytest.mark.parametrize("query", ["", "?wait=60", "?wait=2.5&priority=-7", "?priority=3"])
async def test_plain_requests_take_the_short_way(hello: Api, taken: list[str], query: str) -> None:
    answer = await hello.post(RUN + query, json={"name": "Ada"})
    assert taken == [RUN]
    assert answer.status_code == (200 if "wait" in query else 202)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("?wait=5e0", 200),
        ("?wait=+5", 200),
        ("?wait=60&wait=60", 200),
        ("?wait=%35", 200),
        ("?wait=60&other=1", 422),
        ("?wait=-1", 422),
        ("?wait=nan", 422),
        ("?wait=", 422),
        ("?priority=1.5", 422),
        ("?priority=1000001", 422),
    ],
)
async def test_others_take_the_long_one(
    hello: Api, taken: list[str], query: str, status: int
) -> None:
    answer = await hello.post(RUN + query, json={"name": "Ada"})
    assert answer.status_code == status, answer.text
    assert not taken


@pytest.mark.parametrize("long", ["", "&priority=%30"])
async def test_both_ways_give_the_same(hello: Api, taken: list[str], long: str) -> None:
    headers = {"Idempotency-Key": "once"}
    for replayed in (None, "true"):
        answer = await hello.post(f"{RUN}?wait=60{long}", json={"name": "Ada"}, headers=headers)
        assert answer.status_code == 200
        assert answer.json()["result"] == "Hello Ada"
        assert answer.json()["key"] == "once"
        assert answer.headers.get("idempotency-replayed") == replayed
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["stepwell-durability"] == "none"
        assert answer.headers["cache-control"] == "no-store"
    answer = await hello.post(f"/api/definitions/no/run?wait=60{long}", json={})
    assert answer.status_code == 404
    assert answer.json()["code"] == "workflow_not_registered"
    text = (await hello.get("/metrics")).text
    route = 'route="/api/definitions/{name}/run"'
    assert f'stepwell_http_requests_total{{method="POST",{route},status="200"}} 2' in text
    assert bool(taken) is not bool(long)


async def test_an_empty_key_is_refused(hello: Api, taken: list[str]) -> None:
    answer = await hello.post(RUN, json={"name": "Ada"}, headers={"Idempotency-Key": ""})
    assert (answer.status_code, taken) == (422, [])


async def test_documents_and_looks_take_it_mounted_too(taken: list[str]) -> None:
    async with Engine("memory://") as engine:
        api = Api(Starlette(routes=[Mount("/flows", stepwell.asgi(engine))]))
        answer = await api.post("/flows/api/workflow?wait=60", json=SAMPLE)
        assert answer.status_code == 200
        own = answer.json()["links"]["self"]
        assert (await api.get(own)).json() == answer.json()
        assert taken == ["/flows/api/workflow", own]


def test_every_short_way_is_a_route(api: Api) -> None:
    paths = api.app.openapi()["paths"]
    for route in _BUSY:
        operation = paths[route.path][route.method.lower()]
        known = {p["name"] for p in operation.get("parameters", ())}
        assert route.query <= known
        assert route.key is ("Idempotency-Key" in known)
