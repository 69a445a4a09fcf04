"""The workflow of the demonstration: read six books on lighthouses, and print a leaflet.

Nothing in it knows of crashes, workers or databases.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

from pydantic import BaseModel

from stepwell import (
    Collect,
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from stepwell.demo import outside
from stepwell.retry_policy import retry_policy, stop_after_attempt, wait_fixed


class Topic(StartEvent):
    """Starts a run. `log` is the file in which the world outside remembers its calls."""

    name: str
    log: str


class Book(Event):
    """A book to read, and how long that takes."""

    title: str
    words: int
    seconds: float
    unlucky: bool = False


class Note(Event):
    """What a book says."""

    title: str
    text: str


class Leaflet(Event):
    """The notes under a title."""

    title: str
    notes: list[str]


class Desk(BaseModel):
    """The state of a run."""

    log: str = ""
    words: int = 0


BOOKS = (
    Book(title="Pharos of Alexandria", words=280, seconds=0.8),
    Book(title="Tower of Hercules", words=110, seconds=0.8, unlucky=True),
    Book(title="Eddystone", words=1698, seconds=0.8),
    Book(title="Bell Rock", words=1810, seconds=0.8),
    Book(title="Skerryvore", words=1844, seconds=3.0),
    Book(title="Fastnet", words=1904, seconds=3.0),
)


class Research(Workflow):
    """Reads books at the same time, asks a person for a title, and prints a leaflet."""

    def __init__(self) -> None:
        super().__init__(timeout=None)  # a person may take as long as a person takes

    @step
    async def plan(self, ctx: Context[Desk], ev: Topic) -> list[Book]:
        """Open a stream of six books: each is read by itself."""
        await began(ctx, "plan", log=ev.log)
        await ctx.store.set("log", ev.log)
        return list(BOOKS)

    @step(
        num_workers=4, retry_policy=retry_policy(wait=wait_fixed(0.5), stop=stop_after_attempt(3))
    )
    async def read(self, ctx: Context[Desk], ev: Book) -> Note:
        """Fetch a book, pay for it, read it."""
        log = await began(ctx, ev.title)
        key = ctx.idempotency_key
        text = await ctx.memo("fetch", lambda: fetch(log, ev, key))
        if ev.unlucky and ctx.retry_info().retry_number == 0:
            raise ConnectionError("the library hung up")
        outside.call(log, "pay", ev.title, key)
        await asyncio.sleep(ev.seconds)
        async with ctx.store.edit_state() as desk:
            desk.words += ev.words
        ctx.write_event_to_stream(Event(progress=f"read {ev.title}"))
        return Note(title=ev.title, text=text)

    @step
    async def choose(
        self, ctx: Context[Desk], notes: Annotated[list[Note], Collect(order="input")]
    ) -> Leaflet:
        """Ask a person for the title. This may take days; it holds no process up."""
        await began(ctx, "choose")
        question = InputRequiredEvent(prefix="What shall the leaflet be called?")
        answer = await ctx.wait_for_event(
            HumanResponseEvent, waiter_event=question, waiter_id="title"
        )
        return Leaflet(title=answer.response, notes=[note.text for note in notes])

    @step
    async def publish(self, ctx: Context[Desk], ev: Leaflet) -> StopEvent:
        """Have it printed."""
        log = await began(ctx, "publish")
        outside.call(log, "print", ev.title, ctx.idempotency_key)
        desk = await ctx.store.get_state()
        return StopEvent(result={"title": ev.title, "notes": len(ev.notes), "words": desk.words})


async def began(ctx: Context[Desk], what: str, *, log: str | None = None) -> str:
    """Leave a trace that a body was entered; gives the file of traces."""
    path = log or (await ctx.store.get_state()).log
    outside.call(path, "began", what, ctx.idempotency_key)
    return path


def fetch(log: str, book: Book, key: str) -> str:
    """Get a book from the library."""
    outside.call(log, "fetch", book.title, key)
    return f"{book.title}: {book.words} words"
