"""What is sent to a run is read from the store once, and not once for every message."""

from __future__ import annotations

import asyncio

from stepwell import Context, Engine, Event, StartEvent, StopEvent, Workflow, step
from stepwell.stores.base import MessageRow
from stepwell.stores.memory import MemoryStore


class Note(Event):
    n: int


class Takes(Workflow):
    """Waits for so many notes, one after the other."""

    @step
    async def take(self, ctx: Context, ev: StartEvent) -> StopEvent:
        taken = [(await ctx.wait_for_event(Note)).n for _ in range(ev.notes)]
        return StopEvent(result=taken)


class Counting(MemoryStore):
    """Counts how often messages are read, and how many."""

    reads = rows = 0

    async def messages(self, run: str, after: int = 0) -> list[MessageRow]:
        await asyncio.sleep(0)
        found = await super().messages(run, after)
        self.reads += 1
        self.rows += len(found)
        return found


async def test_what_is_sent_at_once_is_read_at_once() -> None:
    store = Counting()
    async with Engine(store, [Takes]) as engine:
        handler = await engine.start(Takes, notes=200)
        before = store.reads
        sent = (engine.signal(handler.run_id, Note(n=n)) for n in range(200))
        assert all(await asyncio.gather(*sent))
        assert await handler == list(range(200))
        assert store.reads - before <= 20
        assert store.rows <= 400
