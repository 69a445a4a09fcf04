"""Fan out, work side by side, and join: a question is answered from several sources at once.

python examples/events_research.py
"""

import asyncio
from typing import Annotated

from stepwell import All, Collect, Context, Event, StartEvent, StopEvent, Workflow, step


class Question(StartEvent):
    text: str


class Source(Event):
    name: str


class Finding(Event):
    source: str
    text: str


class Answer(StopEvent):
    text: str


class Research(Workflow):
    @step
    async def plan(self, ev: Question) -> list[Source]:
        return [Source(name=name) for name in ("library", "archive", "web")]

    @step(num_workers=2, timeout=5)
    async def search(self, ctx: Context, ev: Source) -> Finding:
        await asyncio.sleep(0.01)
        finding = Finding(source=ev.name, text=f"what the {ev.name} says")
        ctx.write_event_to_stream(finding)
        return finding

    @step
    async def write(
        self, findings: Annotated[list[Finding], Collect(All(), order="input")]
    ) -> Answer:
        return Answer(text="; ".join(finding.text for finding in findings))


async def main() -> str:
    handler = Research(timeout=30).run(text="Why is the sky blue?")
    async for event in handler.stream_events():
        if isinstance(event, Finding):
            print("found in the", event.source)
    answer: Answer = await handler
    print(answer.text)
    return answer.text


if __name__ == "__main__":
    asyncio.run(main())
