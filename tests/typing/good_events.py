"""An event workflow whose types are right, in each of its two styles."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, assert_type

from pydantic import BaseModel

from stepwell import (
    All,
    Collect,
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Resource,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowErrorEvent,
    catch_error,
    step,
)
from stepwell.events import StepFailedEvent, WorkflowFailedEvent
from stepwell.handler import WorkflowHandler
from stepwell.retry_policy import retry_policy, stop_after_attempt, wait_exponential


class Topic(StartEvent):
    topic: str


class Part(Event):
    number: int


class Done(Event):
    number: int


class Report(StopEvent):
    text: str


class Question(InputRequiredEvent):
    text: str


class Answer(HumanResponseEvent):
    text: str


class Progress(BaseModel):
    parts: int = 0
    log: list[str] = []


class Client:
    def fetch(self, number: int) -> str:
        return str(number)


def make_client() -> Client:
    return Client()


def slow(number: int) -> int:
    return number


async def slower(number: int) -> str:
    return str(number)


class Reports(Workflow):
    @step
    async def split(self, ctx: Context[Progress], ev: Topic) -> list[Part]:
        assert_type(ev.topic, str)
        await ctx.store.set("parts", 3)
        async with ctx.store.edit_state() as state:
            assert_type(state, Progress)
            state.log.append(ev.topic)
        assert_type((await ctx.store.get_state()).parts, int)
        return [Part(number=n) for n in range(3)]

    @step(
        num_workers=8,
        timeout=10,
        retry_policy=retry_policy(wait=wait_exponential(), stop=stop_after_attempt(3)),
    )
    async def work(
        self,
        ctx: Context[Progress],
        ev: Part,
        client: Annotated[Client, Resource(make_client)],
    ) -> Done:
        assert_type(await ctx.memo("slow", slow, ev.number), int)
        assert_type(await ctx.memo("slower", slower, ev.number), str)
        assert_type(ctx.retry_info().retry_number, int)
        assert_type(ctx.idempotency_key, str)
        ctx.write_event_to_stream(Done(number=ev.number))
        ctx.send_event(Answer(text=client.fetch(ev.number)), step="join")
        await ctx.sleep(0.1)
        return Done(number=ev.number)

    @step
    async def join(
        self, ctx: Context[Progress], evs: Annotated[list[Done], Collect(All(), order="input")]
    ) -> Report:
        answer = await ctx.wait_for_event(Answer, waiter_event=Question(text="?"), timeout=None)
        assert_type(answer, Answer)
        return Report(text=answer.text + str(len(evs)))

    @step(execution="thread")
    def plain(self, ev: Answer) -> Report | None:
        return None

    @catch_error(for_steps=["work"])
    async def recover(self, ev: StepFailedEvent) -> Report:
        assert_type(ev.exception, Exception)
        return Report(text=ev.step_name)


@step(workflow=Reports)
async def free(ev: Done) -> None:
    return None


async def main() -> None:
    flow = Reports(timeout=60, num_concurrent_runs=3)
    handler = flow.run(topic="wells")
    async for event in handler.stream_events():
        assert_type(event, Event)
        if isinstance(event, Question):
            await handler.answer("q", Answer(text=event.text))
            await handler.send_event(Answer(text=event.text), step="join")
        elif isinstance(event, WorkflowFailedEvent):
            print(event.step_name, event.exception)
    result: Report = await handler
    print(result.text, handler.is_done(), handler.run_id)
    saved = handler.ctx.to_dict()
    ctx = Context[Progress].from_dict(flow, saved)
    assert_type((await ctx.store.get_state()).parts, int)
    await flow.run(ctx=ctx)
    await handler.cancel_run(timeout=1.0)


# --- types said on the class ---------------------------------------------------------------------


@dataclass
class Order:
    item: str


class Priced(BaseModel):
    price: int


class Receipt(BaseModel):
    text: str


class Shop(Workflow[Progress, Order, Receipt]):
    async def start(self, payload: Order) -> tuple[Priced]:
        return (Priced(price=len(payload.item)),)

    @step()
    async def sell(self, events: tuple[Priced]) -> Receipt | WorkflowErrorEvent:
        if events[0].price == 0:
            return WorkflowErrorEvent("nothing is free")
        return Receipt(text=str(events[0].price))


class Stops(Workflow[Progress, StartEvent, StopEvent]):
    @step
    async def only(self, ctx: Context[Progress], ev: StartEvent) -> StopEvent:
        child = await ctx.run_child(Shop, item="axe")
        return StopEvent(result=child)


async def typed() -> None:
    handler = Shop().run(start_event=Order(item="axe"))
    assert_type(handler, WorkflowHandler[Receipt])
    receipt = await handler
    assert_type(receipt, Receipt)
    print(receipt.text)
    number: int = await Stops().run()
    print(number)


asyncio.run(main())
asyncio.run(typed())
