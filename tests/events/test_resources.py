"""Resources in steps: made when needed, shared or not, closed at the end of their scope."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel

from stepwell import Context, Event, Resource, ResourceConfig, StartEvent, StopEvent, Workflow, step
from stepwell.resource import ResourceManager
from stepwell.retry_policy import retry_policy, stop_after_attempt, wait_none

log: list[str] = []


@pytest.fixture(autouse=True)
def empty_log() -> None:
    log.clear()


class Next(Event):
    pass


class Client:
    def __init__(self, name: str) -> None:
        self.name = name


def make_client() -> Client:
    log.append("made")
    return Client("shared")


async def make_fresh() -> Client:
    await asyncio.sleep(0)
    log.append("fresh")
    return Client("fresh")


def make_outer(inner: Annotated[Client, Resource(make_client)]) -> Client:
    return Client(f"outer of {inner.name}")


async def open_connection() -> AsyncIterator[Client]:
    log.append("open")
    try:
        yield Client("connection")
    finally:
        await asyncio.sleep(0)
        log.append("close")


def open_file() -> Iterator[Client]:
    log.append("open file")
    try:
        yield Client("file")
    finally:
        log.append("close file")


async def test_a_cached_resource_is_made_once_for_all_steps_and_runs() -> None:
    class Use(Workflow):
        @step
        async def first(
            self, ev: StartEvent, client: Annotated[Client, Resource(make_client)]
        ) -> Next:
            return Next()

        @step
        async def second(
            self, ctx: Context, ev: Next, client: Annotated[Client, Resource(make_outer)]
        ) -> StopEvent:
            return StopEvent(result=client.name)

    flow = Use()
    assert await flow.run() == "outer of shared"
    assert await flow.run() == "outer of shared"
    assert log == ["made"]


async def test_workflows_may_share_a_manager() -> None:
    class Use(Workflow):
        @step
        async def first(
            self, ev: StartEvent, client: Annotated[Client, Resource(make_client)]
        ) -> StopEvent:
            return StopEvent(result=id(client))

    manager = ResourceManager()
    one, other = Use(resource_manager=manager), Use(resource_manager=manager)
    assert await one.run() == await other.run()
    assert await Use().run() != await one.run()


async def test_an_uncached_resource_is_made_for_every_attempt() -> None:
    class Use(Workflow):
        @step(retry_policy=retry_policy(wait=wait_none(), stop=stop_after_attempt(2)))
        async def only(
            self,
            ctx: Context,
            ev: StartEvent,
            client: Annotated[Client, Resource(make_fresh, cache=False)],
        ) -> StopEvent:
            if ctx.retry_info().retry_number == 0:
                raise ValueError
            return StopEvent(result=client.name)

    assert await Use().run() == "fresh"
    assert log == ["fresh", "fresh"]


@pytest.mark.parametrize("how", ["returns", "raises", "cancelled"])
async def test_what_a_step_opened_is_closed_however_the_step_ends(how: str) -> None:
    class Use(Workflow):
        @step
        async def only(
            self,
            ev: StartEvent,
            client: Annotated[Client, Resource(open_connection, cache=False)],
            file: Annotated[Client, Resource(open_file, cache=False)],
        ) -> StopEvent:
            log.append("use")
            if how == "raises":
                raise ValueError("used")
            if how == "cancelled":
                await asyncio.Event().wait()
            return StopEvent(result=client.name + file.name)

    handler = Use().run()
    if how == "raises":
        with pytest.raises(ValueError, match="used"):
            await handler
    elif how == "cancelled":
        while "use" not in log:  # noqa: ASYNC110 - a turn or two
            await asyncio.sleep(0)
        await handler.cancel_run()
        for _ in range(5):
            await asyncio.sleep(0)
    else:
        assert await handler == "connectionfile"
    assert log == ["open", "open file", "use", "close file", "close"]


async def test_a_resource_that_can_not_be_made_fails_the_step_which_is_tried_again() -> None:
    def flaky() -> Client:
        log.append("try")
        if len(log) < 2:
            raise ConnectionError("down")
        return Client("up")

    class Use(Workflow):
        @step(retry_policy=retry_policy(wait=wait_none(), stop=stop_after_attempt(2)))
        async def only(
            self, ev: StartEvent, client: Annotated[Client, Resource(flaky)]
        ) -> StopEvent:
            return StopEvent(result=client.name)

    assert await Use().run() == "up"


async def test_configuration_comes_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Settings(BaseModel):
        url: str

    (tmp_path / "c.json").write_text(json.dumps({"core": {"db": {"url": "u"}}}))
    monkeypatch.chdir(tmp_path)

    class Use(Workflow):
        @step
        def only(
            self,
            ev: StartEvent,
            settings: Annotated[Settings, ResourceConfig("c.json", path_selector="core.db")],
        ) -> StopEvent:
            return StopEvent(result=settings.url)

    assert await Use().run() == "u"
