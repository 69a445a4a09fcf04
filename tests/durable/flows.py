"""Workflows that several of these tests run."""

from __future__ import annotations

from typing import Any

from stepwell import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)


class Middle(Event):
    n: int = 0


class Answer(HumanResponseEvent):
    text: str = ""


class Linear(Workflow):
    """Two steps."""

    @step
    async def first(self, ev: StartEvent) -> Middle:
        return Middle(n=ev.get("n", 1))

    @step
    async def second(self, ctx: Context, ev: Middle) -> StopEvent:
        ctx.write_event_to_stream(Event(note="second"))
        return StopEvent(result=ev.n * 2)


class Asks(Workflow):
    """One question, then its answer."""

    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        question = InputRequiredEvent(prefix="name?")
        got = await ctx.wait_for_event(Answer, waiter_event=question, waiter_id="q", timeout=None)
        return StopEvent(result=got.text)


class Fails(Workflow):
    """Fails in its second step as long as it is told to."""

    broken = True

    @step
    async def first(self, ev: StartEvent) -> Middle:
        return Middle(n=ev.get("n", 1))

    @step
    async def second(self, ev: Middle) -> StopEvent:
        if type(self).broken:
            raise LookupError("no such thing")
        return StopEvent(result=ev.n)


def asks(**options: Any) -> Asks:
    """`Asks` without a limit of time."""
    return Asks(timeout=None, **options)
