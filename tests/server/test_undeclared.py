"""Fields that nobody takes: whoever sends them is told, and nothing has happened."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, ConfigDict, Field
from tests.server.conftest import Api, ended

import stepwell
from stepwell import Context, Engine, Event, StartEvent, StopEvent, Workflow
from stepwell import step as flow_step
from stepwell.client import Client
from stepwell.errors import InvalidArgument
from stepwell.machine import complete, get_context, step, wait, workflow
from stepwell.pipeline import Pipeline


@workflow("told-order")
class Order:
    class Context(BaseModel):
        number: int
        approved: bool = False

    @step(start=True)
    def hold(self):
        return wait.for_signal("approval")

    @step()
    def done(self):
        return complete(approved=get_context().approved)


@workflow("told-noted")
class Noted:
    class Context(BaseModel):
        note: str = Field("", alias="remark")

    @step(start=True)
    def hold(self):
        return wait.for_signal("approval")


@workflow("told-easy")
class Easy:
    class Context(BaseModel):
        model_config = ConfigDict(extra="ignore")
        approved: bool = False

    @step(start=True)
    def hold(self):
        return wait.for_signal("approval")


@workflow("told-paid")
class Paid:
    class Context(BaseModel):
        number: int = 0

    @step(start=True)
    def hold(self):
        return wait.for_event("paid")


class approval(Event):
    approved: bool = False


class Begin(StartEvent):
    n: int = 0


class Flow(Workflow):
    @flow_step
    async def hold(self, ctx: Context, ev: Begin) -> StopEvent:
        found = await ctx.wait_for_event(approval)
        return StopEvent(result=found.get("by", "nobody"))


class Data(BaseModel):
    source: str = "a"


def load(source: str) -> str:
    return source


@pytest.fixture
async def api() -> AsyncGenerator[Api]:
    pipe = Pipeline(Data(), name="told-pipe")
    pipe.add_step(load)
    flow = Flow(workflow_name="told-flow", timeout=None)
    async with Engine("memory://", [Order, Noted, Easy, Paid, flow, pipe]) as engine:
        yield Api(stepwell.asgi(engine))


async def begun(api: Api, name: str, **fields: Any) -> str:
    """A run that waits."""
    answer = await api.post(f"/api/definitions/{name}/run", json=fields)
    assert answer.status_code == 202, answer.text
    run_id = answer.json()["workflow_id"]
    for _ in range(10_000):
        if (await api.get(f"/api/workflow/{run_id}")).json()["waits"]:
            return run_id
        await asyncio.sleep(0)
    raise AssertionError("it never waited")


async def unread(api: Api, run_id: str) -> list[str]:
    return (await api.get(f"/api/workflow/{run_id}")).json()["unread"]


def refused(answer: httpx.Response, code: str) -> str:
    assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
    return answer.json()["detail"]


async def test_a_signal_with_a_misspelt_field_is_refused_and_says_what_was_meant(api: Api) -> None:
    run_id = await begun(api, "told-order", number=1)
    sent = {"aproved": True}
    said = refused(
        await api.post(f"/api/workflow/{run_id}/signal/approval", json=sent), "bad_signal"
    )
    assert "aproved: the Context of told-order declares no such field" in said
    assert "it has number, approved; did you mean approved?" in said
    assert "approval" in json.dumps((await api.get(f"/api/workflow/{run_id}")).json()["waits"])
    assert await unread(api, run_id) == []
    answer = await api.post(f"/api/workflow/{run_id}/signal/approval", json={"approved": True})
    assert answer.json()["accepted"] is True


async def test_the_client_raises_what_was_refused(api: Api) -> None:
    run_id = await begun(api, "told-order", number=1)
    async with Client("http://test", transport=httpx.ASGITransport(api.app)) as client:
        with pytest.raises(InvalidArgument, match="did you mean approved"):
            await client.signal(run_id, "approval", {"aproved": True})
        with pytest.raises(InvalidArgument, match="did you mean approved"):
            await client.broadcast("approval", {"aproved": True})
        with pytest.raises(InvalidArgument, match="did you mean number"):
            await client.start("told-order", {"number": 1, "nummber": 1})


async def test_an_answer_is_looked_at_like_a_signal(api: Api) -> None:
    run_id = await begun(api, "told-order", number=1)
    for given in ({"aproved": True}, "yes", {"approved": "perhaps"}):
        answer = await api.post(f"/api/workflow/{run_id}/answer", json={"answer": given})
        refused(answer, "bad_signal")
    assert await unread(api, run_id) == []
    given = {"answer": {"approved": True}}
    assert (await api.post(f"/api/workflow/{run_id}/answer", json=given)).status_code == 202


async def test_a_broadcast_that_does_not_fit_one_run_reaches_none(api: Api) -> None:
    first, second = await begun(api, "told-order", number=1), await begun(api, "told-easy")
    said = refused(await api.post("/api/signal/approval", json={"approved": [1]}), "bad_signal")
    assert "does not fit run" in said
    assert await unread(api, first) == await unread(api, second) == []


async def test_a_broadcast_needs_one_run_that_takes_each_of_its_fields(api: Api) -> None:
    await begun(api, "told-order", number=1)
    await begun(api, "told-noted")
    path = "/api/signal/approval"
    assert "by" in refused(await api.post(path, json={"approved": True, "by": "a"}), "bad_signal")
    both = {"approved": True, "remark": "of the other"}
    assert (await api.post(path, json=both)).json() == {"received": 2}


async def test_an_event_workflow_takes_all_fields(api: Api) -> None:
    """And so does a broadcast that reaches one."""
    await begun(api, "told-flow")
    await begun(api, "told-order", number=1)
    answer = await api.post("/api/signal/approval", json={"approved": True, "by": "ada"})
    assert answer.json() == {"received": 2}


async def test_a_broadcast_reaches_and_asks_only_those_that_are_meant(api: Api) -> None:
    await begun(api, "told-order", number=1)
    await begun(api, "told-noted")
    path = "/api/signal/approval?definition=told-noted"
    refused(await api.post(path, json={"approved": True}), "bad_signal")
    assert (await api.post(path, json={"remark": "x"})).json() == {"received": 1}


async def test_a_context_may_say_that_it_ignores_other_fields(api: Api) -> None:
    run_id = await begun(api, "told-easy", whatever=1)
    answer = await api.post(f"/api/workflow/{run_id}/signal/approval", json={"more": 1})
    assert answer.json()["accepted"] is True


async def test_of_an_event_a_run_takes_what_it_declares(api: Api) -> None:
    run_id = await begun(api, "told-paid")
    answer = await api.post(
        f"/api/workflow/{run_id}/signal/event:paid", json={"number": 1, "currency": "EUR"}
    )
    assert answer.json()["accepted"] is True


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("told-order", {"number": 1, "nummber": 2}, "the Context of told-order"),
        ("told-pipe", {"sourc": "b"}, "the ctx of told-pipe"),
    ],
)
async def test_a_start_with_a_misspelt_field_is_refused(
    api: Api, name: str, fields: dict[str, Any], said: str
) -> None:
    answer = await api.post(f"/api/definitions/{name}/run", json=fields)
    assert said in refused(answer, "bad_input")
    assert "did you mean" in answer.json()["errors"][0]
    assert (await api.get("/api/counts")).json() == {"counts": []}


async def test_the_schemas_say_which_starts_take_no_other_fields(api: Api) -> None:
    rows = (await api.get("/api/definitions")).json()["definitions"]
    closed = {row["name"]: row["input_schema"].get("additionalProperties") for row in rows}
    assert closed["told-order"] is closed["told-pipe"] is False
    assert closed["told-easy"] is not False
    assert closed["told-flow"] is not False


# --- copies with other input ---------------------------------------------------------------------


async def forked(api: Api, run_id: str, **body: Any) -> httpx.Response:
    return await api.post(f"/api/workflow/{run_id}/fork", json=body)


async def test_a_copy_of_a_state_machine_begins_with_other_fields_of_its_context(api: Api) -> None:
    run_id = await begun(api, "told-order", number=1)
    for wrong, said in (
        ({"nummber": 2}, "did you mean number"),
        ({"number": "x"}, "valid integer"),
    ):
        assert said in refused(await forked(api, run_id, input=wrong), "bad_input")
    copy = (await forked(api, run_id, input={"approved": True})).json()["workflow_id"]
    await api.post(f"/api/workflow/{copy}/signal/approval")
    assert (await ended(api, copy))["result"] == {"approved": True}
    await api.post(f"/api/workflow/{run_id}/signal/approval")
    assert (await ended(api, run_id))["result"] == {"approved": False}


async def test_a_copy_that_goes_on_with_a_signal_may_have_been_told_otherwise(api: Api) -> None:
    run_id = await begun(api, "told-order", number=1)
    await api.post(f"/api/workflow/{run_id}/signal/approval", json={"approved": False})
    await ended(api, run_id)
    wrong = await forked(api, run_id, step="done", input={"aproved": True})
    assert "did you mean approved" in refused(wrong, "bad_input")
    unfit = await forked(api, run_id, step="done", input={"approved": "perhaps"})
    assert "approved: " in refused(unfit, "bad_input")
    copy = (await forked(api, run_id, step="done", input={"approved": True})).json()
    assert (await ended(api, copy["workflow_id"]))["result"] == {"approved": True}


async def test_a_copy_of_a_pipeline_begins_with_other_data(api: Api) -> None:
    run = (await api.post("/api/definitions/told-pipe/run?wait=60", json={"source": "b"})).json()
    run_id = run["workflow_id"]
    for wrong, said in (({"sourc": "c"}, "did you mean source"), ({"source": 5}, "valid string")):
        assert said in refused(await forked(api, run_id, input=wrong), "bad_input")
    copy = (await forked(api, run_id, input={"source": "c"})).json()["workflow_id"]
    assert (await ended(api, copy))["result"]["load"] == "c"
    later = await forked(api, run_id, step="load", input={"source": "c"})
    assert "no event whose fields" in refused(later, "bad_input")
    assert "from its start" in later.json()["hint"]


async def test_a_copy_of_a_document_begins_with_other_input(api: Api) -> None:
    tasks = [{"name": "task_a", "params": {"said": {"$ref": "input.word"}}}]
    body = {**api.document(*tasks), "input": {"word": "one", "other": 1}}
    run_id = (await api.post("/api/workflow?wait=60", json=body)).json()["workflow_id"]
    copy = (await forked(api, run_id, input={"word": "two"})).json()["workflow_id"]
    shown = await ended(api, copy)
    assert "two" in json.dumps(shown["steps"][0]["tasks"][0]["result"])


async def test_a_copy_of_an_event_workflow_has_to_fit_its_event(api: Api) -> None:
    run_id = await begun(api, "told-flow")
    await api.post(f"/api/workflow/{run_id}/signal/approval", json={"by": "ada"})
    await ended(api, run_id)
    assert (await forked(api, run_id, input={"anything": 1})).status_code == 202
    assert "n: " in refused(await forked(api, run_id, input={"n": "many"}), "bad_input")


# --- names that nothing waits for ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["told-order", "told-flow"])
async def test_why_names_what_was_sent_and_nothing_waits_for(api: Api, name: str) -> None:
    """It may have come early, so it is taken; or its name is misspelt."""
    run_id = await begun(api, name, **({"number": 1} if name == "told-order" else {}))
    quiet = (await api.get(f"/api/workflow/{run_id}")).json()["why"]
    await api.post(f"/api/workflow/{run_id}/signal/aproval", json={})
    why = quiet
    for _ in range(10_000):
        why = (await api.get(f"/api/workflow/{run_id}")).json()["why"]
        if "aproval" in why:
            break
        await asyncio.sleep(0)
    assert "approval" in why
    assert why.endswith(" Nothing waits for what it was sent and keeps: aproval.")
    assert "Nothing waits" not in quiet


async def test_of_many_faults_a_few_are_told(api: Api) -> None:
    many = {f"k{n}": 0 for n in range(5000)}
    told = await api.post("/api/definitions/told-order/run", json={"number": 1, **many})
    assert told.status_code == 422
    assert len(told.json()["errors"]) == 21
    task = {"name": "sleep", "params": {"seconds": 0, **many, "x" * 100_000: 0}}
    steps = [{"execution_type": "parallel", "tasks": [task, {"name": "sleep", "y" * 100_000: 0}]}]
    documents = await api.post("/api/workflow", json={"name": "n", "steps": steps})
    assert documents.status_code == 422
    steps[0]["tasks"] = [task]
    params = await api.post("/api/workflow", json={"name": "n", "steps": steps})
    assert params.status_code == 422
    assert "no such param" in params.json()["detail"]
    for answer in (told, documents, params):
        assert len(answer.content) < 10_000
