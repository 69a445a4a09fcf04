"""Mistakes in event workflows that a type checker must report."""

from pydantic import BaseModel

from stepwell import Context, Event, HumanResponseEvent, StartEvent, StopEvent, Workflow, step


class Topic(StartEvent):
    topic: str


class Part(Event):
    number: int


class Answer(HumanResponseEvent):
    text: str


class Progress(BaseModel):
    parts: int = 0


class Receipt(BaseModel):
    text: str


class Wrong(Workflow):
    @step
    async def one(self, ctx: Context[Progress], ev: Topic) -> Part:
        topic: int = ev.topic  # error: reportAssignmentType
        async with ctx.store.edit_state() as state:
            state.part = 1  # error: reportAttributeAccessIssue
            state.parts = "one"  # error: reportAttributeAccessIssue
        answer = await ctx.wait_for_event(Answer)
        part: Part = answer  # error: reportAssignmentType
        number: str = await ctx.memo("m", len, "abc")  # error: reportAssignmentType
        ctx.send_event("a text")  # error: reportArgumentType
        print(topic, part)
        ctx.write_event_to_stream(number)  # error: reportArgumentType
        return StopEvent()  # error: reportReturnType

    @step(num_workers="4")  # error: reportArgumentType
    async def two(self, ev: Part) -> StopEvent:
        return StopEvent()

    @step(execution="fibre")  # error: reportArgumentType
    async def three(self, ev: Part) -> None:
        return None


class Shop(Workflow[Progress, Topic, Receipt]):
    async def start(self, payload: Topic) -> tuple[Part]:
        return (Part(number=1),)

    @step
    async def sell(self, events: tuple[Part]) -> Receipt:
        return Receipt(text=str(events[0].number))


class NotEvents(Context[int]):  # error: reportInvalidTypeArguments
    pass


async def main() -> None:
    handler = Shop().run(start_event=Part(number=1))  # error: reportArgumentType
    receipt = await Shop().run(topic="t")
    receipt.txt = "t"  # error: reportAttributeAccessIssue
    number: int = await Shop().run(topic="t")  # error: reportAssignmentType
    print(number, handler)
    await Shop(timeout="soon").run()  # error: reportArgumentType
    async for event in Shop().run(topic="t").stream_events():
        print(event.text)
    Shop().run(topic="t").send_event(Answer(text="a"))  # error: reportUnusedCoroutine
