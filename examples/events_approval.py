"""A person in the loop: the run asks, is saved as JSON while it waits, and goes on elsewhere.

python examples/events_approval.py
"""

import asyncio
import json

from stepwell import (
    Context,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)


class Order(StartEvent):
    item: str
    price: int


class ApprovalNeeded(InputRequiredEvent):
    text: str


class Decision(HumanResponseEvent):
    approved: bool
    by: str


class Purchase(Workflow):
    @step
    async def buy(self, ctx: Context, ev: Order) -> StopEvent:
        quote = await ctx.memo("quote", self.ask_for_quote, ev.price)
        decision = await ctx.wait_for_event(
            Decision,
            waiter_event=ApprovalNeeded(text=f"Buy {ev.item} for {quote}?"),
            waiter_id="approval",
            timeout=None,
        )
        if not decision.approved:
            return StopEvent(result=f"{decision.by} said no")
        return StopEvent(result=f"bought {ev.item} for {quote}, approved by {decision.by}")

    async def ask_for_quote(self, price: int) -> int:
        return price + 10  # asked for once, also when the step starts again


async def main() -> str:
    flow = Purchase(timeout=60)

    handler = flow.run(item="a lathe", price=990)
    async for event in handler.stream_events():
        if isinstance(event, ApprovalNeeded):
            print("asked:", event.text)
            break
    saved = json.dumps(handler.ctx.to_dict())
    await handler.cancel_run()
    print("saved:", len(saved) > 0)

    resumed = flow.run(ctx=Context.from_dict(flow, json.loads(saved)))
    await resumed.answer("approval", Decision(approved=True, by="Ada"))
    result: str = await resumed
    print(result)
    return result


if __name__ == "__main__":
    asyncio.run(main())
