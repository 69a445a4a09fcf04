"""Streams of long runs hold only so much: for the furthest reader, the slow, the latecomers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from stepwell import Engine, Event, StartEvent, StopEvent, Workflow, step
from stepwell.authoring.document_run import Documents
from stepwell.server import feed
from stepwell.server.feed import Feeds, Item

TURNS = 400
"""Each of them is two items or so."""


class Again(Event):
    left: int


class Loop(Workflow):
    @step
    async def begin(self, ev: StartEvent) -> Again:
        return Again(left=TURNS)

    @step
    async def turn(self, ev: Again) -> Again | StopEvent:
        return Again(left=ev.left - 1) if ev.left else StopEvent(result="done")


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with Engine("memory://", [Loop(timeout=None)]) as engine:
        yield engine


@pytest.fixture
async def feeds(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Feeds:
    monkeypatch.setattr(feed, "KEPT", 50)
    documents = Documents()
    engine.register(documents)
    return Feeds(engine, documents)


async def ended_run(engine: Engine) -> str:
    handler = await engine.start(Loop(timeout=None))
    assert await handler == "done"
    return handler.run_id


def held(feeds: Feeds, run: str) -> list[int]:
    """How many items each look at the run holds."""
    return [len(one.items) for one in feeds._feeds[run]]


async def taken(items: AsyncGenerator[Item | None], most: int) -> list[Item]:
    """So many items, or fewer when the stream ends."""
    found: list[Item] = []
    async for item in items:
        if item is not None:
            found.append(item)
        if len(found) == most:
            break
    return found


async def test_the_journal_is_not_read_far_ahead_of_its_reader(
    engine: Engine, feeds: Feeds
) -> None:
    run = await ended_run(engine)
    items = feeds.read(run, (0, 0), heartbeat=60.0)
    await taken(items, 1)
    for _ in range(100):
        await asyncio.sleep(0)
    most = max(held(feeds, run))
    assert most <= 60
    whole: list[Item] = []
    async for item in items:
        assert item is not None
        whole.append(item)
        most = max(most, *held(feeds, run))
    assert len(whole) > 2 * TURNS
    assert whole[-1].kind == "run.ended"
    assert most <= 3 * 50 + 10
    assert feeds._feeds == {}


async def test_who_falls_too_far_behind_comes_back_with_its_cursor_and_misses_nothing(
    engine: Engine, feeds: Feeds
) -> None:
    run = await ended_run(engine)
    slow = feeds.read(run, (0, 0), heartbeat=60.0)
    first = await taken(slow, 10)
    fast = await taken(feeds.read(run, (0, 0), heartbeat=60.0), 10_000)
    assert await taken(slow, 10_000) == []  # it was left behind, and its stream ended
    rest = await taken(feeds.read(run, first[-1].cursor, heartbeat=60.0), 10_000)
    assert first + rest == fast
    assert fast[-1].kind == "run.ended"


async def test_a_latecomer_reads_all_while_another_is_far_ahead(
    engine: Engine, feeds: Feeds
) -> None:
    run = await ended_run(engine)
    ahead = feeds.read(run, (0, 0), heartbeat=60.0)
    seen = await taken(ahead, 500)
    late = await taken(feeds.read(run, (0, 0), heartbeat=60.0), 10_000)
    assert late[:500] == seen
    assert late[500:] == await taken(ahead, 10_000)
    assert feeds.readers == 0
    assert feeds._feeds == {}


async def test_a_look_at_a_run_forgets_work_that_has_ended(
    engine: Engine, feeds: Feeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 0
    read = feed.Reader.read

    def counted(self: feed.Reader, *what: object) -> object:
        nonlocal most
        found = read(self, *what)  # pyright: ignore[reportArgumentType]
        most = max(most, len(self.history.works))
        return found

    monkeypatch.setattr(feed.Reader, "read", counted)
    await taken(feeds.read(await ended_run(engine), (0, 0), heartbeat=60.0), 10_000)
    assert 0 < most < 10
