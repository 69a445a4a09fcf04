"""Runs inside of runs: a step runs other workflows; they are streamed and cancelled with it.

python examples/events_children.py
"""

import asyncio

from stepwell import Context, Event, StartEvent, StopEvent, Workflow, step


class Page(StartEvent):
    number: int


class Translating(Event):
    number: int


class Translate(Workflow):
    @step
    async def one(self, ctx: Context, ev: Page) -> StopEvent:
        ctx.write_event_to_stream(Translating(number=ev.number))
        await asyncio.sleep(0)
        return StopEvent(result=f"page {ev.number}, translated")


class Book(Workflow):
    @step
    async def all_pages(self, ctx: Context, ev: StartEvent) -> StopEvent:
        numbers: range = range(1, 4)
        pages = await asyncio.gather(*(ctx.run_child(Translate, number=n) for n in numbers))
        return StopEvent(result=pages)


async def main() -> list[str]:
    handler = Book(timeout=30).run()
    async for event in handler.stream_events():
        if isinstance(event, Translating):
            print("translating page", event.number)
    pages: list[str] = await handler
    print(*pages, sep="\n")
    return pages


if __name__ == "__main__":
    asyncio.run(main())
