"""The pages for people: what they say, that nothing breaks out of them, and who may see them."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shlex
import threading
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from tests.server.conftest import SAMPLE, Api, ended
from tests.server.test_routes import Asking

import stepwell
from stepwell import Engine
from stepwell.authoring.drawing import draw
from stepwell.errors import StoreUnavailable
from stepwell.machine import complete, get_context, step, wait, workflow
from stepwell.server.shown import Reader
from stepwell.tasks import TaskRegistry
from stepwell.values import RunStatus

CREATE = "/api/workflow"
EVIL = "</code></pre></title><script>alert(1)</script><img src=x onerror=alert(2)>'\"&{{7*7}}"


@workflow("console-held")
class Held:
    class Context(BaseModel):
        by: str = ""

    @step(start=True)
    def hold(self):
        return wait.for_signal("go on")

    @step()
    def done(self):
        return complete(by=get_context().by)


class Page(HTMLParser):
    """What a browser would find: tags, links and the text that is seen."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.attributes: list[str] = []
        self.text = ""
        self.blocks: list[str] = []
        self._hidden = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._hidden = tag == "style"
        if tag == "pre":
            self.blocks.append("")
        self.attributes += [name for name, _ in attrs]
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text += f"{data} "
        if self.lasttag == "pre" and self.blocks:
            self.blocks[-1] += data


async def page(api: Api, path: str, **given: Any) -> Page:
    answer = await api.get(path, **given)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    found = Page(answer.text)
    assert "script" not in found.tags
    assert "img" not in found.tags
    assert not [name for name in found.attributes if name.startswith("on")]
    assert not [link for link in found.links if "//" in link]
    return found


async def test_the_console_shows_counts_and_runs_and_links_to_them(api: Api) -> None:
    done = (await api.post(f"{CREATE}?wait=60", json=SAMPLE)).json()["workflow_id"]
    failing = {**api.document({"name": "boom"}), "name": "failing"}
    failed = (await api.post(f"{CREATE}?wait=60", json=failing)).json()["workflow_id"]
    shown = await page(api, "/")
    assert f"stepwell {stepwell.__version__}" in shown.text
    assert "durability: none" in shown.text
    assert re.search(
        r"workflow\s+completed\s+failed\s+document\s+\(of all names\)\s+1\s+1", shown.text
    )
    assert re.search(r"failed\s+failing\s+" + failed + r"\s+\d+ s\s+boom", shown.text)
    assert re.search(r"completed\s+sample_workflow\s+" + done, shown.text)
    assert {f"/runs/{done}", f"/runs/{failed}", "/docs"} <= set(shown.links)
    for link in shown.links:
        assert (await api.get(link)).status_code == 200, link
    only = await page(api, "/?status=failed&definition=document")
    assert failed in only.text
    assert done not in only.text


async def test_a_console_without_runs_says_so(api: Api) -> None:
    shown = await page(api, "/")
    assert "There are none" in shown.text


async def test_the_console_turns_pages(api: Api) -> None:
    for _ in range(35):
        await api.post(f"{CREATE}?wait=60", json=SAMPLE)
    seen: list[str] = []
    where = "/?definition=document"
    for _ in range(2):
        shown = await page(api, where)
        seen += [link for link in shown.links if link.startswith("/runs/")]
        older = [link for link in shown.links if "after=" in link]
        where = older[0] if older else "/"
    assert len(set(seen)) == 35
    assert not older


async def test_a_run_shows_its_steps_errors_and_why(api: Api) -> None:
    body = api.document({"name": "boom", "params": {"retry_count": 1}}, {"name": "task_a"})
    body["on_error"] = api.document({"name": "task_b", "id": "clean"})["steps"]
    run_id = (await api.post(f"{CREATE}?wait=60", json=body)).json()["workflow_id"]
    shown = await page(api, f"/runs/{run_id}")
    assert re.search(r"boom\s+failed\s+2\s", shown.text)
    assert "builtins.ValueError: boom" in shown.text
    assert re.search(r"task_a\s+skipped", shown.text)
    assert re.search(r"On error.*task_b\s+\(clean\)\s+succeeded", shown.text, re.DOTALL)
    assert "svg" in shown.tags
    for link in shown.links:
        assert (await api.get(link)).status_code == 200, link


async def test_a_big_run_holds_nobody_up_and_is_drawn_by_itself(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [{"execution_type": "sequential", "tasks": [{"name": "task_a"}] * 400}]
    answer = await api.post(f"{CREATE}?wait=60", json={"name": "big", "steps": steps})
    run_id = answer.json()["workflow_id"]
    threads: list[threading.Thread] = []

    class Watched(Reader):
        def run(self, *given: Any) -> dict[str, Any]:
            threads.append(threading.current_thread())
            return super().run(*given)

    def watched(*given: Any, **more: Any) -> str:
        threads.append(threading.current_thread())
        return draw(*given, **more)

    monkeypatch.setattr("stepwell.server.service.Reader", Watched)
    monkeypatch.setattr("stepwell.server.service.draw", watched)
    shown = await page(api, f"/runs/{run_id}")
    assert "svg" not in shown.tags
    assert "With 400 tasks it is too big" in shown.text
    (link,) = [link for link in shown.links if "format=svg" in link]
    assert (await api.get(link)).text.startswith("<svg")
    assert len(threads) == 2
    assert threading.main_thread() not in threads


async def test_a_run_that_waits_says_for_what(tasks: TaskRegistry) -> None:
    async with Engine("memory://", [Asking(workflow_name="asking")]) as engine:
        api = Api(stepwell.asgi(engine, tasks=tasks))
        run = await engine.start("asking", topic="x")
        while not (await engine.get(run.run_id)).waits:  # noqa: ASYNC110
            await asyncio.sleep(0)
        found = (await page(api, "/")).text
        assert re.search(r"waits for HumanResponseEvent, at most \d+ min", found)
        shown = await page(api, f"/runs/{run.run_id}")
        assert re.search(
            r"Waits for.*q\s+HumanResponseEvent\s+20\S+ \S+ UTC\s+20", shown.text, re.DOTALL
        )
        await engine.cancel(run.run_id)


def copied(shown: Page) -> list[tuple[list[str], list[str]]]:
    """The commands and the requests of a run's page, as a shell takes them."""
    pairs = [block.split("\n\n") for block in shown.blocks if block.startswith("stepwell ")]
    return [(shlex.split(one), shlex.split(two.replace("\\\n", " "))) for one, two in pairs]


async def sent(api: Api, curl: list[str], **fields: Any) -> httpx.Response:
    """What the request is answered, with a value filled in."""
    assert curl[:3] == ["curl", "-X", "POST"]
    headers = dict(curl[n + 1].split(": ") for n, word in enumerate(curl) if word == "-H")
    body = None
    if "-d" in curl:
        body = json.dumps({**json.loads(curl[curl.index("-d") + 1]), **fields})
    return await api.post(curl[3], content=body, headers=headers)


async def test_a_run_that_waits_for_a_person_says_what_to_copy(tasks: TaskRegistry) -> None:
    odd = 'it\'s "mine"; $(rm) `x`'
    async with Engine("memory://", [Asking(workflow_name="asking"), Held]) as engine:
        api = Api(stepwell.asgi(engine, tasks=tasks))
        await engine.start("asking", topic="x", run_id=odd)
        await engine.start("console-held", run_id="held")
        for run_id in (odd, "held"):
            while not (await engine.get(run_id)).waits:  # noqa: ASYNC110
                await asyncio.sleep(0)
        ((command, curl),) = copied(await page(api, f"/runs/{quote(odd)}"))
        assert command == ["stepwell", "answer", odd, "q", "VALUE", "--server", "http://test"]
        assert json.loads(curl[-1]) == {"answer": "VALUE", "question": "q"}
        assert (await sent(api, curl, answer="ships")).status_code == 202
        assert "ships" in str((await ended(api, quote(odd)))["result"])
        ((command, curl),) = copied(await page(api, "/runs/held"))
        assert command[:5] == ["stepwell", "signal", "held", "go on", "{...}"]
        assert (await sent(api, curl, by="ada")).status_code == 202
        shown = await ended(api, "held")
        assert shown["result"] == {"by": "ada"}
        assert copied(await page(api, "/runs/held")) == []


async def test_a_parked_run_says_how_it_is_let_go_on(tasks: TaskRegistry) -> None:
    async with Engine("memory://", [Held]) as engine:
        api = Api(stepwell.asgi(engine, tasks=tasks, token="hush"))
        await engine.start("console-held", run_id="held")
        await engine.park("held", "the paint is out")
        while (await engine.get("held")).status is not RunStatus.PARKED:  # noqa: ASYNC110
            await asyncio.sleep(0)
        known = {"Authorization": "Bearer hush"}
        shown = await page(api, "/runs/held", headers=known)
        command, curl = copied(shown)[0]
        assert command == ["stepwell", "resume", "held", "--server", "http://test"]
        assert curl[4:] == ["-H", "Authorization: Bearer $STEPWELL_TOKEN"]
        assert "hush" not in shown.text
        assert "variable STEPWELL_TOKEN" in shown.text
        assert (await api.post(curl[3], headers=known)).status_code == 202


async def test_documents_are_found_by_their_names(api: Api) -> None:
    for name in ("monthly", "daily & <more>"):
        body = {**api.document({"name": "task_a"}), "name": name}
        run_id = (await api.post(f"{CREATE}?wait=60", json=body)).json()["workflow_id"]
    shown = await page(api, "/")
    assert re.search(r"document\s+\(of all names\)\s+2", shown.text)
    one = await page(api, f"/runs/{run_id}")
    (link,) = [link for link in one.links if "name=" in link]
    found = await page(api, link)
    assert "Runs: name daily & <more>" in re.sub(r"\s+", " ", found.text)
    assert len([link for link in found.links if link.startswith("/runs/")]) == 2  # of one row


async def test_nothing_breaks_out_of_a_page(tasks: TaskRegistry) -> None:
    @tasks.task("evil")
    async def evil() -> dict[str, str]:
        return {EVIL: EVIL}

    @tasks.task("evil_error")
    async def evil_error() -> None:
        raise ValueError(EVIL)

    async with Engine("memory://", [Asking(workflow_name=EVIL)]) as engine:
        api = Api(stepwell.asgi(engine, tasks=tasks))
        body = {**api.document({"name": "evil"}, {"name": "evil_error"}), "name": EVIL}
        key = {"Idempotency-Key": EVIL}
        run_id = (await api.post(f"{CREATE}?wait=60", json=body, headers=key)).json()["workflow_id"]
        good = {**api.document({"name": "evil"}), "name": EVIL}
        await api.post(f"{CREATE}?wait=60", json=good)
        copy = await api.post(f"{CREATE}/{run_id}/fork", json={"id": EVIL})
        evil_id = copy.json()["workflow_id"]
        await ended(api, copy.headers["location"].rpartition("/")[2])
        await engine.start(EVIL, {"topic": EVIL}, run_id=f"{EVIL}2")
        await engine.signal(f"{EVIL}2", "HumanResponseEvent", {"response": EVIL})
        shown = await page(api, "/")
        for link in shown.links:
            if link.startswith(("/runs/", "/?")):
                inner = await page(api, link)
                assert "<script>" in inner.text
        assert evil_id == EVIL
        await page(api, "/", params={"definition": EVIL, "status": ""})
        await page(api, "/", params={"status": EVIL})
        await page(api, "/", params={"after": EVIL})
        await page(api, f"/runs/{EVIL.replace('/', '%2F')}x")
        await page(api, "/docs")


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/runs/no", 404, "No workflow run has run_id"),
        ("/?status=gone", 422, "is no status"),
        ("/?after=x", 422, "no cursor"),
        ("/?definition=%00", 422, "no control characters"),
    ],
)
async def test_what_can_not_be_shown_is_said_on_a_page(
    api: Api, path: str, status: int, said: str
) -> None:
    answer = await api.get(path)
    assert answer.status_code == status
    assert said in (await page(api, path)).text


async def test_a_store_in_trouble_is_said_on_a_page(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(*_given: Any) -> Any:
        raise StoreUnavailable("the store is gone")

    monkeypatch.setattr(api.app.state.stepwell.engine.store, "counts", gone)
    answer = await api.get("/")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "the store is gone" in (await page(api, "/")).text


async def test_a_degraded_service_says_so_loudly_on_every_page(tasks: TaskRegistry) -> None:
    async with Engine("memory://") as engine:
        api = Api(stepwell.asgi(engine, tasks=tasks, degraded="redis unreachable"))
        answer = await api.post(f"{CREATE}?wait=60", json=SAMPLE)
        run_id = answer.json()["workflow_id"]
        said = "durability: none (degraded: redis unreachable)"
        assert said in answer.json()["why"]
        for path in ("/", f"/runs/{run_id}"):
            text = (await api.get(path)).text
            (loud,) = re.findall(r'<p class="loud" role="alert">(.*?)</p>', text)
            assert said in loud
        assert said in (await page(api, f"/runs/{run_id}")).text


async def test_a_token_is_asked_for_and_a_browser_can_give_it(tasks: TaskRegistry) -> None:
    async with Engine("memory://") as engine:
        api = Api(stepwell.asgi(engine, tasks=tasks, token="sésame:x"))
        right = base64.b64encode("any:sésame:x".encode()).decode()
        wrong = base64.b64encode(b"any:other").decode()
        for path in ("/", "/docs", "/runs/x"):
            answer = await api.get(path)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == 'Basic realm="stepwell"'
            assert "any name, and the token" in answer.json()["hint"]
        for given in (f"Basic {wrong}", "Basic !", "Basic", "Basic é", "Other x"):
            answer = await api.get("/", headers={b"Authorization": given.encode()})
            assert answer.status_code == 401
        headers = {"Authorization": f"Basic {right}"}
        text = (await api.get("/", headers=headers)).text
        assert "There are none" in text
        assert "sésame" not in text
        assert (await api.get("/api/workflows", headers=headers)).status_code == 200
        # To change something takes the token itself: browsers send passwords by themselves.
        answer = await api.post(CREATE, json=SAMPLE, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


async def test_a_mounted_console_links_to_itself(tasks: TaskRegistry) -> None:
    async with Engine("memory://") as engine:
        site = FastAPI()
        site.mount("/flows", stepwell.asgi(engine, tasks=tasks))
        api = Api(site)
        await api.post(f"/flows{CREATE}?wait=60", json=SAMPLE)
        shown = await page(api, "/flows/")
        for link in shown.links:
            assert link.startswith("/flows/")
            assert (await api.get(link)).status_code == 200, link
