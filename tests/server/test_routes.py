"""The routes, by an app without sockets: what the text asks for, and what is refused."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.server.conftest import SAMPLE, Api, ended, events_of, tasks_of, until

import stepwell
from stepwell import Context, Engine, HumanResponseEvent, StartEvent, StopEvent, Workflow, step
from stepwell.errors import InvalidArgument, StoreUnavailable
from stepwell.server import shapes
from stepwell.tasks import BUILT_IN, TaskRegistry

CREATE = "/api/workflow"


# --- what the text asks for ----------------------------------------------------------------------


async def test_the_sample_is_started_and_shown(api: Api) -> None:
    answer = await api.post(CREATE, json=SAMPLE)
    assert answer.status_code == 202
    started = shapes.Started.model_validate(answer.json())
    assert answer.headers["location"] == f"/api/workflow/{started.workflow_id}"
    assert answer.headers["stepwell-durability"] == "none"
    shown = await ended(api, started.workflow_id)
    shapes.RunShown.model_validate(shown)
    assert shown["name"] == "sample_workflow"
    assert shown["status"] == "completed"
    assert [s["execution_type"] for s in shown["steps"]] == ["sequential", "parallel"]
    assert [(t["name"], t["status"]) for t in tasks_of(shown)] == [
        ("task_a", "succeeded"),
        ("task_b", "succeeded"),
        ("task_c", "succeeded"),
    ]
    assert shown["priority"] == 10
    assert shown["result"]["steps.1.task_c"] == {"task": "task_c", "params": {}}
    listed = shapes.RunPage.model_validate((await api.get("/api/workflows")).json())
    assert [run.workflow_id for run in listed.workflows] == [started.workflow_id]


async def test_wait_gives_the_run_when_it_ends_in_time(api: Api) -> None:
    answer = await api.post(CREATE, params={"wait": 60}, json=SAMPLE)
    assert answer.status_code == 200
    assert answer.json()["status"] == "completed"
    slow = await api.post(CREATE, params={"wait": 0}, json=api.slow())
    assert slow.status_code == 202
    shapes.Started.model_validate(slow.json())


async def test_readers_are_told_what_tasks_side_by_side_gave_and_which_were_skipped(
    api: Api,
) -> None:
    both = [
        {"name": "task_a"},
        {"name": "task_b", "condition": {"$ref": "input.wanted"}},
    ]
    body = {"name": "both", "steps": [{"execution_type": "parallel", "tasks": both}]}
    run = (await api.post(CREATE, params={"wait": 60}, json=body)).json()
    told = {
        item["task"]: (item["type"], item["result"])
        for _, kind, item in await events_of(api, run["workflow_id"])
        if kind in ("task.succeeded", "task.skipped")
    }
    assert told == {
        "task_a": ("task.succeeded", {"task": "task_a", "params": {}}),
        "task_b": ("task.skipped", None),
    }


async def test_parameters_that_a_route_does_not_have_are_refused(api: Api) -> None:
    for method, path, word in (
        ("POST", "/api/signal/decided", "definiton"),
        ("GET", "/api/workflows", "stauts"),
        ("POST", CREATE, "wiat"),
        ("GET", "/api/definitions", "name"),
    ):
        answer = await api.request(method, path, params={word: "x"}, json={})
        assert answer.status_code == 422
        problem = answer.json()
        assert problem["code"] == "unknown_parameter"
        assert repr(word) in problem["detail"]


def test_an_empty_token_is_none_to_be_trusted() -> None:
    with pytest.raises(InvalidArgument, match="the token is empty"):
        stepwell.asgi(Engine("memory://"), token="")


async def test_failed_tasks_show_their_attempts_and_errors(api: Api) -> None:
    body = api.document({"name": "boom", "params": {"retry_count": 1}}, {"name": "task_a"})
    body["on_error"] = api.document({"name": "task_b"})["steps"]
    shown = (await api.post(CREATE, params={"wait": 60}, json=body)).json()
    shapes.RunShown.model_validate(shown)
    assert shown["status"] == "failed"
    boom, after = tasks_of(shown)
    assert boom["status"] == "failed"
    assert [a["error"]["message"] for a in boom["attempts"]] == ["boom", "boom"]
    assert boom["error"].pop("where").startswith("tests/server/conftest.py:")
    assert boom["error"] == {"type": "builtins.ValueError", "message": "boom"}
    assert after["status"] == "skipped"
    assert shown["steps"][0]["status"] == "failed"
    assert shown["on_error"][0]["tasks"][0]["status"] == "succeeded"


async def test_a_listing_has_the_beginning_of_long_errors_and_a_run_all_of_it(api: Api) -> None:
    word = "x" * 5000
    task = {"name": "task_a", "params": {"a": {"$ref": f"input.{word}"}}}
    shown = (await api.post(CREATE, params={"wait": 60}, json=api.document(task))).json()
    assert shown["status"] == "failed"
    whole = shown["error"]["message"]
    (listed,) = (await api.get("/api/workflows")).json()["workflows"]
    assert listed["error"] == {**shown["error"], "message": f"{whole[:999]}…"}
    assert word in whole


async def test_listing_filters_and_pages(api: Api) -> None:
    for name in ("one", "two", "two"):
        await api.post(CREATE, params={"wait": 60}, json={**SAMPLE, "name": name})
    found = (await api.get("/api/workflows", params={"name": "two"})).json()["workflows"]
    assert [run["name"] for run in found] == ["two", "two"]
    first = (await api.get("/api/workflows", params={"limit": 2})).json()
    second = (await api.get("/api/workflows", params={"limit": 2, "after": first["next"]})).json()
    ids = {run["workflow_id"] for page in (first, second) for run in page["workflows"]}
    assert len(ids) == 3
    assert second["next"] is None
    assert (await api.get("/api/workflows?status=failed,parked")).json()["workflows"] == []
    assert len((await api.get("/api/workflows?since=2020-01-01")).json()["workflows"]) == 3
    assert (await api.get("/api/workflows?since=9999999999")).json()["workflows"] == []


# --- idempotency ---------------------------------------------------------------------------------


async def test_replays_of_a_key_give_the_first_run_also_while_it_is_made(api: Api) -> None:
    headers = {"Idempotency-Key": "k"}
    answers = await asyncio.gather(
        *(api.post(CREATE, json=SAMPLE, headers=headers) for _ in range(20))
    )
    assert {a.status_code for a in answers} == {202}
    assert len({a.json()["workflow_id"] for a in answers}) == 1
    assert sum("idempotency-replayed" not in a.headers for a in answers) == 1
    other = await api.post(CREATE, json={**SAMPLE, "name": "other"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


# --- control -------------------------------------------------------------------------------------


async def test_cancel_retry_fork_and_delete(api: Api) -> None:
    run_id = (await api.post(CREATE, json=api.slow())).json()["workflow_id"]
    assert (await api.delete(f"{CREATE}/{run_id}")).status_code == 409
    assert (await api.post(f"{CREATE}/{run_id}/cancel", json={"reason": "no"})).status_code == 202
    shown = await ended(api, run_id)
    assert (shown["status"], shown["reason"]) == ("cancelled", "no")
    assert (await api.post(f"{CREATE}/{run_id}/cancel")).status_code == 409
    assert (await api.post(f"{CREATE}/{run_id}/retry")).status_code == 409
    copy = (await api.post(f"{CREATE}/{run_id}/fork")).json()["workflow_id"]
    assert copy != run_id
    await api.post(f"{CREATE}/{copy}/cancel")
    assert (await api.delete(f"{CREATE}/{run_id}")).status_code == 204
    assert (await api.get(f"{CREATE}/{run_id}")).status_code == 404


async def test_ids_that_are_no_ascii_are_linked_to(api: Api) -> None:
    shown = (await api.post(CREATE + "?wait=60", json=SAMPLE)).json()
    plain = await api.post(f"{CREATE}/{shown['workflow_id']}/fork", json={"id": "é😀"})
    assert (await ended(api, "é😀"))["links"]["self"] == plain.headers["location"]
    assert (await api.get(plain.headers["location"])).status_code == 200


async def test_a_failed_run_is_tried_again_as_a_new_one(api: Api) -> None:
    shown = (await api.post(CREATE + "?wait=60", json=api.document({"name": "second"}))).json()
    assert shown["status"] == "failed"
    again = await api.post(f"{CREATE}/{shown['workflow_id']}/retry")
    assert again.status_code == 202
    assert (await ended(api, again.json()["workflow_id"]))["status"] == "completed"


# --- workflows of other styles -------------------------------------------------------------------


class Ask(StartEvent):
    topic: str


class Asking(Workflow):
    @step
    async def ask(self, ev: Ask, ctx: Context) -> StopEvent:
        reply = await ctx.wait_for_event(HumanResponseEvent, waiter_id="q")
        return StopEvent(result=f"{ev.topic}: {reply.response}")


@pytest.fixture
async def others() -> AsyncGenerator[Api]:
    async with Engine("memory://", [Asking(workflow_name="asking")]) as engine:
        yield Api(stepwell.asgi(engine))


class Lines(Workflow):
    @step
    async def ask(self, ev: StartEvent, ctx: Context) -> StopEvent:
        reply = await ctx.wait_for_event(HumanResponseEvent, waiter_id="Well?\n- yes\n- no")
        return StopEvent(result=reply.response)


async def test_a_question_may_be_called_anything() -> None:
    async with Engine("memory://", [Lines(workflow_name="lines")]) as engine:
        api = Api(stepwell.asgi(engine))
        run_id = (await api.post("/api/definitions/lines/run", json={})).json()["workflow_id"]
        waits: list[Any] = []
        for _ in range(1000):
            if waits := (await api.get(f"{CREATE}/{run_id}")).json()["waits"]:
                break
        wrong = {"answer": "yes", "question": "q\n" * 10_000}
        unasked = await api.post(f"{CREATE}/{run_id}/answer", json=wrong)
        assert unasked.status_code == 409
        assert len(unasked.content) < 1000
        named = {"answer": "yes", "question": waits[0]["id"]}
        assert (await api.post(f"{CREATE}/{run_id}/answer", json=named)).status_code == 202
        assert (await ended(api, run_id))["result"] == "yes"


async def test_definitions_are_listed_drawn_started_and_answered(others: Api) -> None:
    found = shapes.Definitions.model_validate((await others.get("/api/definitions")).json())
    (asking,) = found.definitions
    assert asking.name == "asking"
    assert "topic" in (asking.input_schema or {})["properties"]
    drawn = await others.get(asking.links["graph"])
    assert "flowchart" in drawn.text
    bad = await others.post(asking.links["run"], json={"topic": []})
    assert (bad.status_code, bad.json()["code"]) == (422, "bad_input")
    run_id = (await others.post(asking.links["run"], json={"topic": "x"})).json()["workflow_id"]
    early = await others.post(f"{CREATE}/{run_id}/answer", json={"answer": "y", "question": "no"})
    assert early.status_code == 409
    for _ in range(1000):
        if (await others.get(f"{CREATE}/{run_id}")).json()["waits"]:
            break
    said = await others.post(f"{CREATE}/{run_id}/answer", json={"answer": "yes"})
    assert said.status_code == 202
    shown = await ended(others, run_id)
    shapes.RunShown.model_validate(shown)
    assert shown["result"] == "x: yes"
    assert [(s["name"], s["status"]) for s in shown["steps"]] == [("ask", "succeeded")]
    assert "flowchart" in (await others.get(f"{CREATE}/{run_id}/graph")).text


async def test_signals_are_kept_once_for_a_key(others: Api) -> None:
    path = "/api/definitions/asking/run"
    run_id = (await others.post(path, json={"topic": "x"})).json()["workflow_id"]
    where, headers = f"{CREATE}/{run_id}/signal/Other", {"Idempotency-Key": "1"}
    for accepted in (True, False):
        said = await others.post(where, json={"a": 1}, headers=headers)
        assert (said.status_code, said.json()["accepted"]) == (202, accepted)
    assert (await others.post(f"{CREATE}/{run_id}/signal/(go)", json={})).status_code == 422
    await others.post(f"{CREATE}/{run_id}/signal/HumanResponseEvent", json={"response": "z"})
    assert (await ended(others, run_id))["result"] == "x: z"
    assert (await others.post(where, json={})).json()["code"] == "run_ended"


# --- streams -------------------------------------------------------------------------------------


async def test_a_stream_tells_all_of_a_run_and_goes_on_behind_a_cursor(api: Api) -> None:
    body = api.document({"name": "second", "params": {"retry_count": 1}}, {"name": "task_a"})
    run_id = (await api.post(CREATE, json=body)).json()["workflow_id"]
    whole = await events_of(api, run_id)
    assert [kind for _, kind, _ in whole] == [
        "run.started",
        "task.started",
        "task.retrying",
        "task.started",
        "task.succeeded",
        "task.started",
        "task.succeeded",
        "run.ended",
    ]
    assert whole[1][2]["task"] == "second"
    assert all(data["id"] == cursor for cursor, _, data in whole)
    for n, (cursor, _, _) in enumerate(whole[:-1]):
        rest = await events_of(api, run_id, {"Last-Event-ID": cursor})
        assert rest == whole[n + 1 :]
    last = await api.get(f"{CREATE}/{run_id}/events", headers={"Last-Event-ID": whole[-1][0]})
    assert last.status_code == 204
    lines = await api.get(f"{CREATE}/{run_id}/events", headers={"Accept": "application/x-ndjson"})
    assert [json.loads(line) for line in lines.text.splitlines()] == [data for _, _, data in whole]


@pytest.mark.parametrize("how", ["cancelled", "deleted", "closed"])
async def test_a_stream_ends_however_the_run_does(api: Api, how: str) -> None:
    run_id = (await api.post(CREATE, json=api.slow())).json()["workflow_id"]
    reading = [asyncio.create_task(events_of(api, run_id)) for _ in range(3)]
    service = api.app.state.stepwell
    await until(lambda: service.feeds.readers == 3)
    if how == "closed":
        service.feeds.close()
    else:
        await api.post(f"{CREATE}/{run_id}/cancel")
        if how == "deleted":
            await ended(api, run_id)
            await api.delete(f"{CREATE}/{run_id}")
    seen = await asyncio.gather(*reading)
    assert seen[0] == seen[1] == seen[2]
    if how == "cancelled":
        assert seen[0][-1][2]["status"] == "cancelled"
    assert service.feeds.readers == 0
    assert service.feeds._feeds == {}


async def test_500_readers_of_one_run_share_one_look_at_it(api: Api) -> None:
    run_id = (await api.post(CREATE, json=api.slow())).json()["workflow_id"]
    reading = [asyncio.create_task(events_of(api, run_id)) for _ in range(500)]
    service = api.app.state.stepwell
    await until(lambda: service.feeds.readers == 500)
    assert [len(feeds) for feeds in service.feeds._feeds.values()] == [1]
    await api.post(f"{CREATE}/{run_id}/cancel")
    seen = await asyncio.gather(*reading)
    assert all(one[-1][1] == "run.ended" for one in seen)


async def test_silent_streams_show_that_they_live(tasks: TaskRegistry) -> None:
    async with Engine("memory://") as engine:
        api = Api(stepwell.asgi(engine, tasks=tasks, heartbeat=0.001))
        run_id = (await api.post(CREATE, json=api.slow())).json()["workflow_id"]
        service = api.app.state.stepwell
        reading = asyncio.create_task(api.get(f"{CREATE}/{run_id}/events"))
        await until(lambda: service.feeds.readers == 1)
        for _ in range(50):
            await asyncio.sleep(0.001)
        await api.post(f"{CREATE}/{run_id}/cancel")
        assert ": still here" in (await reading).text


# --- what is refused -----------------------------------------------------------------------------


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    shown = answer.json()
    shapes.Problem.model_validate(shown)
    assert shown["code"] == code
    assert "Traceback" not in answer.text
    return shown


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "content, status, code",
    [
        (b"", 400, "bad_json"),
        (b"{", 400, "bad_json"),
        (b"\xff\xfe", 400, "bad_json"),
        (b'{"name": NaN}', 400, "bad_json"),
        (b'{"name": 1e999}', 400, "bad_json"),
        (b'{"name": "a", "name": "a", "steps": []}', 400, "bad_json"),
        (b'{"name": "\\ud800"}', 400, "bad_json"),
        (b"9" * 5000, 400, "bad_json"),
        (b"9" * 30, 400, "bad_json"),
        (b"[" * 100 + b"]" * 100, 400, "bad_json"),
        (b"[" * 100_000, 400, "bad_json"),
        (b"[]", 422, "bad_body"),
        (b"null", 422, "bad_body"),
        (b'"x"', 422, "bad_body"),
        (b"{}", 422, "bad_document"),
        (b'{"name": "a\\u0000b", "steps": []}', 422, "bad_document"),
        (b" " * (1024 * 1024 + 1), 413, "body_too_large"),
    ],
)
async def test_bodies_that_are_no_documents(
    api: Api, content: bytes, status: int, code: str
) -> None:
    problem(await api.post(CREATE, content=content, headers=JSON), status, code)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ('{"name": "a", "steps": [], "name": "b"}', "name"),
        (
            '{"name": "a", "steps": [{"tasks": []}, {"tasks": [{"id": 1, "id": 1}]}]}',
            "steps[1].tasks[0].id",
        ),
        # The outer one hides the inner one: whoever mends it is told of the other then.
        ('{"input": {"n": 1, "n": 2}, "input": {}}', "input"),
    ],
)
async def test_a_key_that_is_there_twice_is_named_with_its_place(
    api: Api, content: str, place: str
) -> None:
    shown = problem(await api.post(CREATE, content=content, headers=JSON), 400, "bad_json")
    assert shown["detail"] == f"the body means two things: {place} is there twice"


async def test_a_body_that_may_be_left_out_is_an_object_all_the_same(api: Api) -> None:
    answer = await api.post("/api/signal/x", content=b"null", headers=JSON)
    shown = problem(answer, 422, "bad_body")
    assert shown["detail"] == "the body is an object, not null"
    assert (await api.post("/api/signal/x", content=b"", headers=JSON)).status_code == 202


async def test_a_cursor_is_looked_at_also_when_another_one_wins(api: Api) -> None:
    run_id = (await api.post(f"{CREATE}?wait=60", json=SAMPLE)).json()["workflow_id"]
    headers = {"Last-Event-ID": "1.1"}
    answer = await api.get(f"{CREATE}/{run_id}/events?after=x", headers=headers)
    problem(answer, 422, "bad_cursor")


async def test_a_body_of_unsaid_length_is_cut_off(api: Api) -> None:
    async def endless() -> AsyncGenerator[bytes]:
        for _ in range(100):
            yield b" " * 100_000

    problem(await api.post(CREATE, content=endless(), headers=JSON), 413, "body_too_large")


async def test_a_body_has_to_say_that_it_is_json(api: Api) -> None:
    answer = await api.post(CREATE, content=json.dumps(SAMPLE), headers={"Content-Type": "text/x"})
    problem(answer, 415, "unsupported_media_type")


async def test_every_fault_of_a_document_is_named(api: Api) -> None:
    body = api.document({"name": "task_x"}, {"name": "task_a", "params": {"timeout": 0}})
    shown = problem(await api.post(CREATE, json=body), 422, "bad_document")
    assert shown["errors"][0].startswith('steps[0].tasks[0].name: unknown task "task_x"; known: ')
    assert shown["errors"][1].startswith("steps[0].tasks[1].params.timeout: ")


@pytest.mark.parametrize(
    "method, path, status, code",
    [
        ("GET", "/nothing", 404, "no_such_route"),
        ("PUT", "/api/workflows", 405, "method_not_allowed"),
        ("GET", "/api/workflow/no", 404, "run_not_found"),
        ("GET", "/api/workflow/%00", 404, "run_not_found"),
        ("GET", "/api/workflow/" + "x" * 2000, 404, "run_not_found"),
        ("GET", "/api/workflow/%ff%fe", 404, "run_not_found"),
        ("DELETE", "/api/workflow/no", 404, "run_not_found"),
        ("POST", "/api/workflow/no/cancel", 404, "run_not_found"),
        ("POST", "/api/workflow/no/retry", 404, "run_not_found"),
        ("POST", "/api/workflow/no/resume", 404, "run_not_found"),
        ("POST", "/api/workflow/no/signal/x", 404, "run_not_found"),
        ("GET", "/api/workflow/no/events", 404, "run_not_found"),
        ("GET", "/api/workflow/no/events?after=x", 422, "bad_cursor"),
        ("GET", "/api/workflow/no/graph?format=png", 422, "bad_parameter"),
        ("GET", "/api/workflows?limit=0", 422, "bad_parameter"),
        ("GET", "/api/workflows?limit=x", 422, "bad_parameter"),
        ("GET", "/api/workflows?status=gone", 422, "bad_status"),
        ("GET", "/api/workflows?since=nan", 422, "bad_time"),
        ("GET", "/api/workflows?since=1e300", 422, "bad_time"),
        ("GET", "/api/workflows?since=yesterday", 422, "bad_time"),
        ("GET", "/api/workflows?after=x", 422, "bad_cursor"),
        ("GET", "/api/workflows?name=%00", 422, "bad_word"),
        ("POST", "/api/definitions/no/run", 404, "workflow_not_registered"),
        ("POST", "/api/definitions/document/run", 404, "workflow_not_registered"),
        ("GET", "/api/definitions/no/graph", 404, "workflow_not_registered"),
        ("POST", "/api/workflow?wait=-1", 422, "bad_parameter"),
        ("POST", "/api/workflow?wait=inf", 422, "bad_parameter"),
    ],
)
async def test_requests_that_make_no_sense(
    api: Api, method: str, path: str, status: int, code: str
) -> None:
    problem(await api.request(method, path), status, code)


async def test_refusals_say_what_was_asked_and_what_to_do(api: Api) -> None:
    shown = problem(await api.get("/nothing"), 404, "no_such_route")
    assert shown["detail"] == "there is no route GET /nothing"
    shown = problem(answer := await api.put("/api/counts"), 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET"
    answer = await api.put(f"{CREATE}/x")
    assert answer.headers["allow"] == "DELETE, GET"
    assert "/docs" in shown["hint"]
    shown = problem(await api.post(CREATE), 400, "bad_json")
    assert shown["detail"] == "a JSON body is wanted, and there is none"
    shown = problem(await api.get("/api/workflows?after=zz"), 422, "bad_cursor")
    assert "'zz'" in shown["detail"]
    shown = problem(await api.post("/api/definitions/no/run"), 404, "workflow_not_registered")
    assert "/api/definitions" in shown["hint"]
    run_id = (await api.post(CREATE, json=api.slow())).json()["workflow_id"]
    shown = problem(await api.delete(f"{CREATE}/{run_id}"), 409, "run_not_ended")
    assert "only runs that have ended" in shown["detail"]


async def test_too_many_queued_runs_are_refused_and_replays_are_not(tasks: TaskRegistry) -> None:
    async with Engine("memory://", worker=False) as engine:
        api = Api(stepwell.asgi(engine, tasks=tasks, max_queue=2))
        key = {"Idempotency-Key": "k"}
        for n in range(2):
            given = key if n == 0 else {}
            assert (await api.post(CREATE, json=SAMPLE, headers=given)).status_code == 202
        answer = await api.post(CREATE, json=SAMPLE)
        problem(answer, 429, "queue_full")
        assert answer.headers["retry-after"] == "5"
        assert (await api.post(CREATE, json=SAMPLE, headers=key)).status_code == 202


# --- who may ask ---------------------------------------------------------------------------------


async def test_a_token_is_asked_for_by_all_but_the_probes(tasks: TaskRegistry) -> None:
    async with Engine("memory://") as engine:
        api = Api(stepwell.asgi(engine, tasks=tasks, token="sésame"))
        for path in ("/api/workflows", "/docs", "/openapi.json", "/metrics", "/nothing"):
            answer = await api.get(path)
            problem(answer, 401, "unauthorized")
            kind = "Basic" if path == "/docs" else "Bearer"  # browsers ask people for a password
            assert answer.headers["www-authenticate"].startswith(kind)
        assert (await api.get("/healthz")).status_code == 200
        assert (await api.get("/readyz")).status_code == 200
        for given in ("Bearer no", "Basic x", "Bearer"):
            answer = await api.get("/api/workflows", headers={"Authorization": given})
            problem(answer, 401, "unauthorized")
        right = {b"Authorization": "Bearer sésame".encode()}
        assert (await api.get("/api/workflows", headers=right)).status_code == 200


async def test_pages_of_other_sites_change_nothing(api: Api) -> None:
    answer = await api.post(CREATE, json=SAMPLE, headers={"Sec-Fetch-Site": "cross-site"})
    problem(answer, 403, "cross_site")
    assert (await api.get("/api/workflows")).json()["workflows"] == []


async def test_other_host_names_lead_nowhere(tasks: TaskRegistry) -> None:
    async with Engine("memory://") as engine:
        api = Api(stepwell.asgi(engine, tasks=tasks, hosts=["localhost", "[::1]"]))
        problem(await api.get("/healthz", headers={"Host": "evil.example"}), 421, "wrong_host")
        for host in ("localhost:8000", "LOCALHOST", "[::1]:80"):
            assert (await api.get("/healthz", headers={"Host": host})).status_code == 200


# --- about itself --------------------------------------------------------------------------------


async def test_openapi_is_whole_and_docs_need_no_other_site(api: Api) -> None:
    made = (await api.get("/openapi.json")).json()
    text = json.dumps(made)
    for ref in set(re.findall(r'"\$ref": "#/([^"]+)"', text)):
        found: Any = made
        for part in ref.split("/"):
            found = found[part]
    assert made["components"]["schemas"]["NewWorkflow"]["examples"]
    page = (await api.get("/docs")).text
    assert "/api/workflow/{workflow_id}/events" in page
    assert "<script" not in page
    assert "//cdn" not in page


async def test_metrics_count_runs_and_requests(api: Api) -> None:
    await api.post(CREATE, params={"wait": 60}, json=SAMPLE)
    await api.request("BREW", "/pot")
    text = (await api.get("/metrics")).text
    assert 'stepwell_runs{workflow="document",status="completed"} 1' in text
    assert (
        'stepwell_http_requests_total{method="POST",route="/api/workflow",status="200"} 1' in text
    )
    assert 'method="OTHER"' in text
    assert 'stepwell_events_total{event="run.ended"} 1' in text


async def test_a_degraded_service_says_so_everywhere(tasks: TaskRegistry) -> None:
    async with Engine("memory://") as engine:
        api = Api(stepwell.asgi(engine, tasks=tasks, degraded="redis unreachable"))
        said = "none (degraded: redis unreachable)"
        health = await api.get("/healthz")
        assert health.json()["durability"] == said
        assert health.headers["stepwell-durability"] == said
        ready = (await api.get("/readyz")).json()
        assert (ready["status"], ready["durability"]) == ("degraded", said)
        assert "stepwell_degraded 1" in (await api.get("/metrics")).text


async def test_it_can_be_mounted(tasks: TaskRegistry) -> None:
    async with Engine("memory://") as engine:
        site = FastAPI()
        site.mount("/flows", stepwell.asgi(engine, tasks=tasks, token="t"))
        api = Api(site)
        assert (await api.get("/flows/healthz")).status_code == 200
        right = {"Authorization": "Bearer t"}
        answer = await api.post("/flows/api/workflow", json=SAMPLE, headers=right)
        link = answer.json()["links"]["self"]
        assert link.startswith("/flows/api/workflow/")
        assert (await api.get(link, headers=right)).status_code == 200


async def test_a_store_in_trouble_is_a_503_and_nothing_is_lost(
    tasks: TaskRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Engine("memory://") as engine:
        api = Api(stepwell.asgi(engine, tasks=tasks))
        run_id = (await api.post(CREATE + "?wait=60", json=SAMPLE)).json()["workflow_id"]

        async def gone(*_given: Any) -> Any:
            raise StoreUnavailable("the store is gone")

        with monkeypatch.context() as patched:
            patched.setattr(engine.store, "get", gone)
            patched.setattr(engine.store, "load", gone)
            for path in (f"{CREATE}/{run_id}", f"{CREATE}/{run_id}/events"):
                answer = await api.get(path)
                problem(answer, 503, "store_unavailable")
                assert answer.headers["retry-after"] == "5"
            assert (await api.get("/readyz")).status_code == 503
            assert (await api.get("/healthz")).status_code == 200
        assert (await api.get(f"{CREATE}/{run_id}")).json()["status"] == "completed"


async def test_a_fault_of_the_service_shows_no_trace(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_given: Any) -> Any:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(api.app.state.stepwell.engine.store, "load", broken)
    answer = await api.get(f"{CREATE}/x")
    problem(answer, 500, "internal_error")
    assert "secret" not in answer.text
    assert "ZeroDivisionError" in caplog.text


def test_the_registry_of_a_fresh_install_has_the_texts_tasks() -> None:
    assert {"task_a", "task_b", "task_c"} <= set(TaskRegistry(BUILT_IN).names())
