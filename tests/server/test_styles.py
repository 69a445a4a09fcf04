"""Every way to write a workflow, from one end to the other over HTTP: started, followed, spoken to,
cancelled, tried again, copied and drawn, by the client and by plain requests."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import jsonschema_rs
import pytest
from pydantic import BaseModel, ConfigDict
from tests.server.conftest import SAMPLE, Api, Begin

import stepwell
from stepwell import (
    Context,
    Engine,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    Workflow,
)
from stepwell import step as flow_step
from stepwell.client import Client, RemoteRun
from stepwell.errors import InvalidArgument
from stepwell.machine import (
    complete,
    event_workflow,
    get_context,
    goto,
    on_fail,
    sleep,
    step,
    wait,
    workflow,
)
from stepwell.pipeline import Pipeline
from stepwell.tasks import TaskRegistry
from stepwell.testing import VirtualClock
from stepwell.values import RunStatus

broken = {"now": True}


class Begun(StartEvent):
    topic: str


class Asking(Workflow):
    @flow_step
    async def ask(self, ev: Begun, ctx: Context) -> StopEvent:
        reply = await ctx.wait_for_event(
            HumanResponseEvent,
            waiter_id="q",
            waiter_event=InputRequiredEvent(prefix=f"what of {ev.topic}?"),  # type: ignore[call-arg]
        )
        if reply.response == "break" and broken["now"]:
            raise ValueError("it broke")
        return StopEvent(result=f"{ev.topic}: {reply.response}")


@workflow("rest-order")
class Order:
    class Context(BaseModel):
        number: int
        note: str = "none"
        said: str = ""

    @step(start=True)
    def begin(self):
        return sleep(timedelta(seconds=0), "hold")

    @step()
    def hold(self):
        return wait.for_signal(
            "paid", timeout=timedelta(days=7), then="finish", on_timeout="give_up"
        )

    @step()
    def finish(self):
        if get_context().said == "break" and broken["now"]:
            raise ValueError("it broke")
        return complete(said=get_context().said)

    @step()
    def give_up(self):
        return goto("finish")


@workflow("rest-own-context")
class Own:
    class Context(BaseModel):
        total: int

    @classmethod
    def create_context(cls, prices: list[int], extra: int = 0) -> Own.Context:
        return cls.Context(total=sum(prices) + 1 // extra)

    @step(start=True)
    def done(self):
        return complete(total=get_context().total)

    @on_fail
    def sorry(self):
        return complete()


@event_workflow("rest.ordered", name="rest-on-event")
class OnEvent:
    class Context(BaseModel):
        model_config = ConfigDict(extra="forbid")
        entity: str = ""

    @step(start=True)
    def done(self):
        return complete()


@workflow("rest-odd")
class Odd:
    class Context(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        far: float = float("inf")

    @step(start=True)
    def done(self):
        return complete()


class Data(BaseModel):
    source: str
    times: int = 2


def load(source: str) -> str:
    return source


async def asked(load: str) -> str:
    if load == "wait":
        import asyncio

        await asyncio.Event().wait()
    if load == "break" and broken["now"]:
        raise ValueError("it broke")
    return load


def total(asked: str, times: int) -> str:
    return asked * times


async def first(ctx: Any) -> str:
    return "first"


async def second(ctx: Any) -> str:
    if broken["now"]:
        raise ValueError("it broke")
    return "second"


async def third(ctx: Any) -> str:
    return "third"


def pipelines() -> list[Pipeline]:
    made = Pipeline(Data(source="a"), name="rest-pipe")
    free = Pipeline({"source": "a", "times": 2, "secret": "hush"}, name="rest-free")
    for one in (made, free):
        for func in (load, asked, total):
            one.add_step(func)
    group = Pipeline(name="rest-group")
    group.add_parallel_steps([first, second, third], "both")
    return [made, free, group]


def flows() -> list[Any]:
    return [Asking(workflow_name="asking"), Order, Own, OnEvent, Odd, *pipelines()]


async def until_waits(client: Client, run: RemoteRun) -> None:
    for _ in range(1000):
        if await client.waits(run.run_id):
            return
    raise AssertionError("it never waited")


DRAWN = ("mermaid", "dot", "svg", "html")


async def drawn(client: Client, path: str) -> dict[str, str]:
    """A drawing in every format."""
    found: dict[str, str] = {}
    async with httpx.AsyncClient(base_url=client.url, timeout=100) as http:
        for format in DRAWN:
            answer = await http.get(f"{path}/graph", params={"format": format})
            assert answer.status_code == 200
            found[format] = answer.text
    return found


async def kinds(client: Client, run: RemoteRun) -> list[str]:
    return [item.event["type"] async for item in client.stream(run.run_id)]


async def ends(client: Client, run: RemoteRun) -> RunStatus:
    async for _ in client.stream(run.run_id):
        pass
    return (await client.get(run.run_id)).status


@pytest.fixture(autouse=True)
def broken_at_first() -> None:
    broken["now"] = True


async def from_end_to_end(
    client: Client, name: str, fields: dict[str, Any], speak: Callable[[str, str], Any]
) -> None:
    """What all styles that wait for something have in common."""
    run = await client.start(name, fields)
    await until_waits(client, run)
    assert "wait" in (await client.why(run.run_id)).sentence
    await speak(run.run_id, "hello")
    seen = await kinds(client, run)
    assert (seen[0], seen[-1]) == ("run.started", "run.ended")
    assert seen.count("task.succeeded") >= 1
    assert "hello" in json.dumps(await run)
    # Cancelled.
    other = await client.start(name, fields)
    await until_waits(client, other)
    assert await other.cancel("enough") is True
    assert await ends(client, other) is RunStatus.CANCELLED
    # Failed, and tried again when it was put right.
    third = await client.start(name, fields)
    await until_waits(client, third)
    await speak(third.run_id, "break")
    assert await ends(client, third) is RunStatus.FAILED
    with pytest.raises(ValueError, match="it broke"):
        await third
    broken["now"] = False
    again = await client.retry(third.run_id)
    if await client.waits(again.run_id) or not (await client.get(again.run_id)).status.terminal:
        await until_ended_or_asked(client, again, speak)
    assert "break" in json.dumps(await again)
    # Copied from its beginning.
    copy = await client.fork(run.run_id)
    await until_waits(client, copy)
    await speak(copy.run_id, "twice")
    assert "twice" in json.dumps(await copy)
    # Drawn.
    pictures = await drawn(client, f"/api/workflow/{run.run_id}")
    assert "flowchart" in pictures["mermaid"]


async def until_ended_or_asked(client: Client, run: RemoteRun, speak: Callable[..., Any]) -> None:
    """A step that waits in its body is asked again when it is tried again."""
    for _ in range(1000):
        if (await client.get(run.run_id)).status.terminal:
            return
        if await client.waits(run.run_id):
            await speak(run.run_id, "break")
            return
    raise AssertionError("it stood still")


async def test_an_event_workflow_from_end_to_end(site: Begin) -> None:
    where = await site(patience=10.0, workflows=flows())
    async with Client(where.url) as client:

        async def speak(run_id: str, word: str) -> None:
            await client.answer(run_id, word, question="q")

        await from_end_to_end(client, "asking", {"topic": "ships"}, speak)


async def test_a_state_machine_from_end_to_end(site: Begin) -> None:
    where = await site(patience=10.0, workflows=flows())
    async with Client(where.url) as client:

        async def speak(run_id: str, word: str) -> None:
            for _ in range(1000):
                waits = await client.waits(run_id)
                if any(wait.event == "paid" or "paid" in str(wait.event) for wait in waits):
                    break
            assert await client.signal(run_id, "paid", {"said": word}) is True

        await from_end_to_end(client, "rest-order", {"number": 1}, speak)
        # Drawn with all that its class says.
        pictures = await drawn(client, "/api/definitions/rest-order")
        for text in pictures.values():
            for said in ("sleep 0 s", "signal paid", "timeout 7 d"):
                assert said in text
        waiting = await client.start("rest-order", {"number": 2})
        await until_waits(client, waiting)
        with pytest.raises(InvalidArgument, match="does not fit"):
            await client.signal(waiting.run_id, "paid", {"said": 5})
        of_run = await drawn(client, f"/api/workflow/{waiting.run_id}")
        assert all("signal paid" in text for text in of_run.values())
        assert "the run fails" in (await drawn(client, "/api/definitions/rest-own-context"))["svg"]
        assert await client.broadcast("paid", {"said": "all"}) == 1
        assert await waiting == {"said": "all"}


async def test_a_pipeline_from_end_to_end(site: Begin) -> None:
    where = await site(patience=10.0, workflows=flows())
    async with Client(where.url) as client:
        run = await client.start("rest-pipe", {"source": "b"})
        seen = await kinds(client, run)
        assert seen.count("task.succeeded") == 3
        assert (await run)["total"] == "bb"
        other = await client.start("rest-pipe", {"source": "wait"})
        assert await client.signal(other.run_id, "Noted", {"x": 1}) is True
        assert await other.cancel("enough") is True
        assert await ends(client, other) is RunStatus.CANCELLED
        third = await client.start("rest-pipe", {"source": "break"})
        assert await ends(client, third) is RunStatus.FAILED
        broken["now"] = False
        again = await client.retry(third.run_id)
        assert (await again)["total"] == "breakbreak"
        copy = await client.fork(run.run_id, step="total")
        assert (await copy)["total"] == "bb"
        group = await client.start("rest-group")
        assert await ends(client, group) is RunStatus.COMPLETED
        broken["now"] = True
        failed = await client.start("rest-group")
        assert await ends(client, failed) is RunStatus.FAILED
        broken["now"] = False
        again = await client.retry(failed.run_id)
        assert (await again)["both"] == ["first", "second", "third"]
        for path in ("/api/definitions/rest-pipe", f"/api/workflow/{run.run_id}"):
            pictures = await drawn(client, path)
            assert all("asked" in text for text in pictures.values())


async def test_a_document_from_end_to_end(site: Begin, tasks: TaskRegistry) -> None:
    @tasks.task("may_break")
    async def may_break(word: str) -> str:
        if broken["now"]:
            raise ValueError("it broke")
        return word

    where = await site(patience=10.0, workflows=flows())
    async with Client(where.url) as client:
        run = await client.start(SAMPLE)
        assert (await kinds(client, run)).count("task.succeeded") == 3
        slow = {"execution_type": "sequential", "tasks": [{"name": "hold"}]}
        other = await client.start({"name": "slow", "steps": [slow]})
        assert await client.signal(other.run_id, "Noted", {}) is True
        assert await other.cancel("enough") is True
        assert await ends(client, other) is RunStatus.CANCELLED
        task = {"name": "may_break", "params": {"word": {"$ref": "input.word"}}}
        body = {"name": "b", "steps": [{"execution_type": "parallel", "tasks": [task]}]}
        third = await client.start(body, {"word": "hello"})
        assert await ends(client, third) is RunStatus.FAILED
        broken["now"] = False
        again = await client.retry(third.run_id)
        assert await again == {"steps.0.may_break": "hello"}
        copy = await client.fork(run.run_id)
        assert len(await copy) == 3
        pictures = await drawn(client, f"/api/workflow/{run.run_id}")
        assert all("task_b" in text for text in pictures.values())


# --- what they take ------------------------------------------------------------------------------

TAKEN: list[tuple[str, dict[str, Any], bool]] = [
    ("asking", {"topic": "x"}, True),
    ("asking", {"topic": "x", "more": 1}, True),
    ("asking", {}, False),
    ("asking", {"topic": 1}, False),
    ("rest-order", {"number": 1}, True),
    ("rest-order", {"number": 1, "note": "x", "more": 1}, False),
    ("rest-order", {}, False),
    ("rest-order", {"number": "x"}, False),
    ("rest-own-context", {"prices": [1, 2], "extra": 1}, True),
    ("rest-own-context", {}, False),
    ("rest-own-context", {"prices": [1], "extra": 1, "more": 1}, False),
    ("rest-on-event", {"entity": "x"}, True),
    ("rest-on-event", {"more": 1}, False),
    ("rest-odd", {}, True),
    ("rest-pipe", {}, True),
    ("rest-pipe", {"source": "x", "times": 3}, True),
    ("rest-pipe", {"times": "many"}, False),
    ("rest-free", {}, True),
    ("rest-free", {"source": "x", "more": [1]}, True),
]


@pytest.mark.parametrize(("name", "fields", "fits"), TAKEN)
async def test_the_schema_says_what_is_taken(
    tasks: TaskRegistry, name: str, fields: dict[str, Any], fits: bool
) -> None:
    async with Engine("memory://", flows()) as engine:
        api = Api(stepwell.asgi(engine, tasks=tasks))
        found = (await api.get("/api/definitions")).json()["definitions"]
        (schema,) = [row["input_schema"] for row in found if row["name"] == name]
        assert jsonschema_rs.is_valid(schema, fields) is fits
        answer = await api.post(f"/api/definitions/{name}/run", json=fields)
        assert answer.status_code == (202 if fits else 422), answer.text
        if not fits:
            assert answer.json()["code"] == "bad_input"
            assert answer.json()["errors"]
            assert "validation error" not in answer.text
        assert "hush" not in json.dumps(found)
        await engine.stop(0.0)


async def test_what_a_users_own_code_makes_of_bad_fields_is_no_fault_of_the_service(
    tasks: TaskRegistry,
) -> None:
    async with Engine("memory://", flows()) as engine:
        api = Api(stepwell.asgi(engine, tasks=tasks))
        bodies: list[tuple[str, dict[str, Any]]] = [
            ("rest-own-context", {"prices": [1], "extra": 0}),  # divides by it
            ("rest-own-context", {"prices": {"a": "b"}, "extra": 1}),
            ("rest-on-event", {"event": {"entity": "x"}}),
            ("rest-on-event", {"event": "x"}),
            ("rest-order", {"self": 1, "cls": 2}),
        ]
        for name, fields in bodies:
            answer = await api.post(f"/api/definitions/{name}/run", json=fields)
            assert (answer.status_code, answer.json()["code"]) == (422, "bad_input"), answer.text
        async with Client("http://test", transport=httpx.ASGITransport(api.app)) as client:
            with pytest.raises(InvalidArgument, match="ZeroDivisionError"):
                await client.start("rest-own-context", {"prices": [1], "extra": 0})


async def test_what_a_test_watches_is_described_as_before() -> None:
    """Engines in virtual time put themselves around the steps of what they run."""
    VirtualClock().engine("memory://", [Order])
    async with Engine("memory://", [Order]) as engine:
        found = (await Api(stepwell.asgi(engine)).get("/api/definitions")).json()["definitions"]
        assert found[0]["input_schema"]["required"] == ["number"]
