"""The in-process style: payloads are plain models, steps take and give tuples of events.

python examples/events_in_process.py
"""

import asyncio

from pydantic import BaseModel

from stepwell import Context, Workflow, WorkflowErrorEvent, step
from stepwell.retry_policy import retry_policy, stop_after_attempt, wait_none


class Seen(BaseModel):
    drafts: int = 0


class Brief(BaseModel):
    topic: str


class Outline(BaseModel):
    points: list[str]


class Picture(BaseModel):
    caption: str


class Draft(BaseModel):
    text: str


class Article(BaseModel):
    text: str


class Writing(Workflow[Seen, Brief, Article]):
    async def start(self, payload: Brief) -> tuple[Outline, Picture]:
        return (
            Outline(points=[f"what {payload.topic} are", "why they matter"]),
            Picture(caption=payload.topic),
        )

    @step(retry_policy=retry_policy(wait=wait_none(), stop=stop_after_attempt(3)))
    async def draft(
        self, ctx: Context[Seen], events: tuple[Outline, Picture]
    ) -> tuple[Draft] | WorkflowErrorEvent:
        outline, picture = events
        if ctx.retry_info().retry_number == 0:
            return WorkflowErrorEvent("the first draft is never good")
        async with ctx.store.edit_state() as state:
            state.drafts += 1
        return (Draft(text=f"[{picture.caption}] {', '.join(outline.points)}"),)

    @step()
    async def publish(self, events: tuple[Draft]) -> Article | WorkflowErrorEvent:
        return Article(text=events[0].text.capitalize())


async def main() -> str:
    article: Article = await Writing(timeout=30).run(start_event=Brief(topic="wells"))
    print(article.text)
    return article.text


if __name__ == "__main__":
    asyncio.run(main())
