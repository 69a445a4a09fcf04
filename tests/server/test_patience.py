"""What the service waits for, and for how long: a store that says nothing, a body that does not
come, a head that does not end, a reader that does not read. On real sockets where they matter."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import httpx
import pytest
from tests.server.conftest import SAMPLE, Api, Begin, ended, until

import stepwell
from stepwell import Engine
from stepwell.errors import StoreUnavailable
from stepwell.server.service import Limits
from stepwell.stores.memory import MemoryStore
from stepwell.tasks import TaskRegistry
from stepwell.testing import VirtualClock

CREATE = "/api/workflow"


class Hanging(MemoryStore):
    """A store that can be made to hang, or to be gone."""

    def __init__(self) -> None:
        super().__init__()
        self.there = asyncio.Event()
        self.there.set()
        self.gone = False
        self.hanging: set[str] = set()

    async def _wait(self, verb: str) -> None:
        if self.gone:
            raise StoreUnavailable("the store is gone")
        if verb in self.hanging:
            await self.there.wait()

    async def get(self, run: str) -> Any:
        await self._wait("get")
        return await super().get(run)

    async def commit(self, commit: Any) -> str:
        await self._wait("commit")
        return await super().commit(commit)

    async def read(self, run: str, after: int = 0, limit: int = 1000) -> Any:
        await self._wait("read")
        return await super().read(run, after, limit)

    async def list(self, where: Any) -> Any:
        await self._wait("list")
        return await super().list(where)

    async def counts(self) -> Any:
        await self._wait("counts")
        return await super().counts()

    async def find(self, workflow: str, key: str) -> Any:
        await self._wait("find")
        return await super().find(workflow, key)

    async def send(self, messages: Any) -> Any:
        await self._wait("send")
        return await super().send(messages)


# --- a store that says nothing -------------------------------------------------------------------


async def test_a_start_is_answered_when_the_store_hangs_and_is_started_once(
    tasks: TaskRegistry,
) -> None:
    store = Hanging()
    async with Engine(store, lease=600.0) as engine:
        api = Api(stepwell.asgi(engine, tasks=tasks))
        service = api.app.state.stepwell
        service.limits, usual = Limits(patience=0.05), service.limits
        headers = {"Idempotency-Key": "k"}
        store.hanging = {"commit"}
        store.there.clear()
        for _ in range(2):
            answer = await api.post(CREATE, json=SAMPLE, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
            assert answer.headers["retry-after"] == "5"
            assert "Idempotency-Key" in answer.json()["hint"]
        store.there.set()
        service.limits = usual
        run_id = (await api.post(CREATE, json=SAMPLE, headers=headers)).json()["workflow_id"]
        assert (await ended(api, run_id))["status"] == "completed"
        assert len((await api.get("/api/workflows")).json()["workflows"]) == 1


READS = [
    ("GET", "/api/workflows"),
    ("GET", "/api/counts"),
    ("GET", "/metrics"),
    ("GET", "/readyz"),
    ("GET", f"{CREATE}/ID"),
    ("GET", f"{CREATE}/ID/events"),
    ("GET", f"{CREATE}/ID/journal"),
    ("GET", f"{CREATE}/ID/graph"),
    ("POST", CREATE),
    ("POST", f"{CREATE}/ID/cancel"),
    ("POST", f"{CREATE}/ID/signal/x"),
    ("POST", f"{CREATE}/ID/answer"),
    ("POST", f"{CREATE}/ID/resume"),
    ("POST", f"{CREATE}/ID/retry"),
    ("POST", f"{CREATE}/ID/fork"),
    ("POST", "/api/signal/x"),
    ("DELETE", f"{CREATE}/ID"),
]


@pytest.mark.parametrize("how", ["gone", "hanging"])
async def test_every_route_says_that_the_store_is_away_and_goes_on_when_it_is_back(
    tasks: TaskRegistry, how: str
) -> None:
    store = Hanging()
    async with Engine(store) as engine:
        api = Api(stepwell.asgi(engine, tasks=tasks))
        service = api.app.state.stepwell
        run_id = (await api.post(CREATE, json=api.slow())).json()["workflow_id"]
        service.limits, usual = Limits(patience=0.02), service.limits
        if how == "gone":
            store.gone = True
        else:
            store.hanging = {"get", "commit", "read", "list", "counts", "find", "send"}
            store.there.clear()
        for method, path in READS:
            body = SAMPLE if path == CREATE else {"answer": "x"} if "answer" in path else None
            answer = await api.request(method, path.replace("ID", run_id), json=body)
            assert answer.status_code == 503, path
            assert answer.headers["retry-after"] == "5"
            if path != "/readyz":
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["code"] == "store_unavailable"
        assert (await api.get("/healthz")).status_code == 200
        store.gone, store.hanging = False, set()
        store.there.set()
        service.limits = usual
        assert (await api.get("/readyz")).json()["status"] == "ready"
        await api.post(f"{CREATE}/{run_id}/cancel")
        assert (await ended(api, run_id))["status"] == "cancelled"


async def test_a_stream_stays_while_the_store_is_away(
    tasks: TaskRegistry, virtual_clock: VirtualClock
) -> None:
    store = Hanging()
    async with virtual_clock.engine(store) as engine:
        api = Api(stepwell.asgi(engine, tasks=tasks, patience=0.5, heartbeat=0.1))
        run_id = (await api.post(CREATE, json=api.slow())).json()["workflow_id"]
        reading = asyncio.create_task(api.get(f"{CREATE}/{run_id}/events"))
        await until(lambda: api.app.state.stepwell.feeds.readers == 1)
        store.gone = True
        await asyncio.sleep(0.6)  # longer than the patience of a request
        store.gone = False
        await api.post(f"{CREATE}/{run_id}/cancel")
        text = (await reading).text
        assert text.count("event: run.started") == 1
        assert text.count("event: run.ended") == 1


async def test_waiting_for_the_end_may_take_longer_than_an_answer(
    tasks: TaskRegistry, virtual_clock: VirtualClock
) -> None:
    async with virtual_clock.engine("memory://") as engine:
        api = Api(stepwell.asgi(engine, tasks=tasks, patience=0.5))
        answer = await api.post(CREATE, params={"wait": 0.7}, json=api.slow())
        assert answer.status_code == 202
        await engine.stop(0.0)


# --- on sockets ----------------------------------------------------------------------------------

HEAD = f"POST {CREATE} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


async def test_a_body_that_comes_a_byte_at_a_time_is_cut_off(site: Begin) -> None:
    line = await (await site()).line()
    line.say(HEAD + "Content-Length: 1000\r\n\r\n")

    async def drip() -> None:
        while True:
            line.say(" ")
            await asyncio.sleep(0.01)

    dripping = asyncio.create_task(drip())
    status, headers, body = await line.answer()
    dripping.cancel()
    assert (status, headers["connection"]) == (408, "close")
    assert json.loads(body)["code"] == "body_too_slow"


async def test_a_body_that_is_shorter_than_it_says_is_not_waited_for(site: Begin) -> None:
    line = await (await site()).line()
    body = json.dumps(SAMPLE)
    line.say(HEAD + f"Content-Length: {len(body) + 10}\r\n\r\n{body}")
    status, _, answer = await line.answer()
    assert (status, json.loads(answer)["code"]) == (408, "body_too_slow")


async def test_a_body_that_is_longer_than_it_says_is_not_taken_for_more(site: Begin) -> None:
    line = await (await site(patience=60.0)).line()
    body = json.dumps(SAMPLE)
    line.say(HEAD + f"Content-Length: {len(body)}\r\n\r\n{body}more of it\r\n\r\n")
    status, _, answer = await line.answer()
    assert status == 202
    assert b"HTTP/1.1 400" in answer  # the rest is no request


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "1, 2"])
async def test_a_length_that_is_none_is_refused(site: Begin, length: str) -> None:
    line = await (await site()).line()
    line.say(HEAD + f"Content-Length: {length}\r\n\r\n{{}}")
    status, headers, answer = await line.answer()
    assert status == 400
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(answer)["code"] == "bad_request"


async def test_a_chunked_body_over_the_limit_is_cut_off(site: Begin) -> None:
    line = await (await site(patience=60.0)).line()
    line.say(HEAD + "Transfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    for _ in range(17):
        line.say(chunk)
    status, headers, answer = await line.answer()
    assert (status, headers["connection"]) == (413, "close")
    assert json.loads(answer)["code"] == "body_too_large"


@pytest.mark.parametrize("said", ["GET /healthz HTTP/1.1\r\nHost: x\r\nX-", ""])
async def test_a_head_that_does_not_end_is_cut_off(site: Begin, said: str) -> None:
    line = await (await site()).line()
    line.say(said)
    status, headers, body = await line.answer()
    if said:
        assert (status, headers["connection"]) == (408, "close")
        assert json.loads(body)["code"] == "head_too_slow"
    else:
        assert status == 0  # who says nothing is told nothing


async def test_a_head_that_comes_a_byte_at_a_time_is_cut_off_on_every_request(site: Begin) -> None:
    where = await site()
    line = await where.line()
    line.say("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await line.reader.readuntil(b'"}')
    for n in range(1000):
        line.say("GET /healthz HTTP/1.1\r\nHost: x\r\n"[n : n + 1] or "x")
        await asyncio.sleep(0.005)
        if line.reader.at_eof() or line.reader.exception():
            break
    assert n < 900


async def test_a_head_that_is_too_large_is_refused(site: Begin) -> None:
    line = await (await site()).line()
    line.say("GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + "y" * 200_000)
    status, headers, body = await line.answer()
    assert status in (400, 431)
    assert headers["content-type"] == "application/problem+json"
    assert "64 KiB" in json.loads(body)["detail"]


async def test_a_connection_that_is_kept_serves_many_requests_however_long_they_take(
    site: Begin,
) -> None:
    where = await site(patience=0.5, store=30.0)
    slow = {"execution_type": "sequential", "tasks": [{"name": "hold"}]}
    async with httpx.AsyncClient(base_url=where.url, timeout=100) as client:
        for _ in range(2):
            body = {"name": "slow", "steps": [slow]}
            answer = await client.post(CREATE, params={"wait": 0.6}, json=body)
            assert answer.status_code == 202


async def test_a_reader_that_does_not_read_is_dropped_and_holds_nobody_up(
    site: Begin, tasks: TaskRegistry
) -> None:
    where = await site(patience=0.5, store=30.0)
    big = "x" * 100_000

    @tasks.task("big")
    async def give_much() -> str:
        return big

    names = [{"name": "big"}] * 100
    body = {"name": "big", "steps": [{"execution_type": "sequential", "tasks": names}]}
    async with httpx.AsyncClient(base_url=where.url, timeout=100) as client:
        run_id = (await client.post(CREATE, json=body)).json()["workflow_id"]
        line = await where.line(4096)
        cast(asyncio.Transport, line.writer.transport).pause_reading()
        line.say(f"GET {CREATE}/{run_id}/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        feeds = where.app.state.stepwell.feeds
        await until(lambda: feeds.readers == 1)
        reader = (await client.get(f"{CREATE}/{run_id}/events")).text
        assert reader.count("event: task.succeeded") == 100
        async with asyncio.timeout(60):
            while feeds.readers:  # noqa: ASYNC110 - it is not ours to tell
                await asyncio.sleep(0.01)
        assert feeds._feeds == {}
        line.writer.transport.abort()


@pytest.mark.parametrize("path", ["/healthz", "/", "/api/workflows", "/api/workflow/ID/events"])
async def test_a_head_is_asked_for_like_the_whole(site: Begin, path: str) -> None:
    where = await site(patience=60.0)
    run_id = await where.running()
    async with httpx.AsyncClient(base_url=where.url, timeout=100) as client:
        answer = await client.head(path.replace("ID", run_id))
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["stepwell-durability"] == "none"
        assert (await client.get("/healthz")).json()["status"] == "ok"
        assert (await client.head("/api/workflow/no")).status_code == 404
        assert (await client.head("/api/signal/x")).status_code == 405
    await until(lambda: where.app.state.stepwell.feeds.readers == 0)


async def test_an_idle_stream_is_no_slow_reader(site: Begin) -> None:
    where = await site(patience=0.5, store=30.0, heartbeat=0.1)
    run_id = await where.running()
    async with httpx.AsyncClient(base_url=where.url, timeout=100) as client:
        async with client.stream("GET", f"{CREATE}/{run_id}/events") as stream:
            lines = 0
            async for line in stream.aiter_lines():
                lines += line.startswith(": still here")
                if lines == 10:
                    break
        assert lines == 10


async def test_500_idle_readers_cost_little_and_are_all_let_go_of(site: Begin) -> None:
    where = await site(patience=60.0)
    run_id = await where.running()
    feeds = where.app.state.stepwell.feeds
    lines = [await where.line() for _ in range(500)]
    for line in lines:
        line.say(f"GET {CREATE}/{run_id}/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    await until(lambda: feeds.readers == 500)
    async with httpx.AsyncClient(base_url=where.url, timeout=100) as client:
        async with asyncio.timeout(30):  # starts are answered promptly beside them
            for _ in range(20):
                answer = await client.post(CREATE, params={"wait": 60}, json=SAMPLE)
                assert answer.json()["status"] == "completed"
    for line in lines[:250]:
        line.writer.transport.abort()
    await until(lambda: feeds.readers == 250)
    feeds.close()  # the service stops
    await until(lambda: feeds.readers == 0)
    for line in lines[250:]:
        async with asyncio.timeout(60):
            assert (await line.answer())[0] == 200
    assert feeds._feeds == {}
