"""When things go wrong: retries with growing delays, a step timeout, and an error handler.

python examples/events_resilient.py
"""

import asyncio

from stepwell import Context, Event, StartEvent, StopEvent, Workflow, catch_error, step
from stepwell.events import StepFailedEvent
from stepwell.retry_policy import (
    retry_if_exception_type,
    retry_policy,
    stop_after_attempt,
    wait_exponential_jitter,
)


class Fetched(Event):
    text: str


class Resilient(Workflow):
    @step(
        timeout=1,
        retry_policy=retry_policy(
            retry=retry_if_exception_type(ConnectionError),
            wait=wait_exponential_jitter(initial=0.001, max=0.01, jitter=0.001),
            stop=stop_after_attempt(5),
        ),
    )
    async def fetch(self, ctx: Context, ev: StartEvent) -> Fetched:
        attempt = ctx.retry_info().retry_number
        print("attempt", attempt)
        if attempt < 2:
            raise ConnectionError("the line is bad")
        return Fetched(text="a page")

    @step
    async def parse(self, ev: Fetched) -> StopEvent:
        raise ValueError(f"{ev.text} has no title")

    @catch_error(for_steps=["parse"])
    async def give_a_default(self, ev: StepFailedEvent) -> StopEvent:
        print("recovered from:", ev.exception)
        return StopEvent(result="untitled")


async def main() -> str:
    title: str = await Resilient(timeout=30).run()
    print(title)
    return title


if __name__ == "__main__":
    asyncio.run(main())
