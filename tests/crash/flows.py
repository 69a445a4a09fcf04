"""The reference workflows that are killed at each of their writes.

A step says in a log, which survives its process, that it did something to the world.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from stepwell import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    Workflow,
    catch_error,
    step,
)
from stepwell.events import StepFailedEvent
from stepwell.retry_policy import retry_policy, stop_after_attempt, wait_fixed

LOG = -1
"""The file descriptor of the log; set by whoever runs these."""


def effect(ctx: Context, step_name: str) -> None:
    """Do something to the world."""
    os.write(LOG, f"{step_name} {ctx.idempotency_key}\n".encode())


class A(Event):
    n: int = 0


class B(Event):
    n: int = 0


class C(Event):
    n: int = 0


class Linear(Workflow):
    @step
    async def one(self, ctx: Context, ev: StartEvent) -> A:
        effect(ctx, "one")
        return A(n=1)

    @step
    async def two(self, ctx: Context, ev: A) -> B:
        effect(ctx, "two")
        await asyncio.sleep(1)
        return B(n=ev.n + 1)

    @step
    async def three(self, ctx: Context, ev: B) -> StopEvent:
        effect(ctx, "three")
        return StopEvent(result=ev.n + 1)


class Fan(Workflow):
    @step
    async def split(self, ctx: Context, ev: StartEvent) -> list[A]:
        effect(ctx, "split")
        return [A(n=n) for n in range(8)]

    @step(num_workers=3)
    async def work(self, ctx: Context, ev: A) -> B:
        effect(ctx, "work")
        await asyncio.sleep(1)
        return B(n=ev.n**2)

    @step
    async def join(self, ctx: Context, evs: list[B]) -> StopEvent:
        effect(ctx, "join")
        return StopEvent(result=sorted(ev.n for ev in evs))


class Questions(Workflow):
    """Three questions: two at once, then one."""

    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        effect(ctx, "ask")

        async def one(id: str) -> str:
            question = InputRequiredEvent(prefix=id)
            got = await ctx.wait_for_event(
                HumanResponseEvent, waiter_event=question, waiter_id=id, timeout=None
            )
            return got.response

        both = await asyncio.gather(one("a"), one("b"))
        return StopEvent(result=[*both, await one("c")])


class Timer(Workflow):
    @step
    async def wait(self, ctx: Context, ev: StartEvent) -> A:
        effect(ctx, "wait")
        await ctx.sleep(100)
        return A()

    @step
    async def end(self, ctx: Context, ev: A) -> StopEvent:
        effect(ctx, "end")
        try:
            await ctx.wait_for_event(HumanResponseEvent, timeout=50)
        except TimeoutError:
            return StopEvent(result="nobody")
        return StopEvent(result="somebody")


class Retry(Workflow):
    @step(retry_policy=retry_policy(wait=wait_fixed(30), stop=stop_after_attempt(5)))
    async def flaky(self, ctx: Context, ev: StartEvent) -> StopEvent:
        effect(ctx, "flaky")
        number = ctx.retry_info().retry_number
        ctx.write_event_to_stream(Event(note=f"try {number}"))
        await asyncio.sleep(0.1)
        if number < 2:
            raise OSError(f"try {number}")
        return StopEvent(result=number)


class Part(Workflow):
    @step
    async def part(self, ctx: Context, ev: StartEvent) -> StopEvent:
        effect(ctx, "part")
        question = InputRequiredEvent(prefix="part")
        got = await ctx.wait_for_event(
            HumanResponseEvent, waiter_event=question, waiter_id="part", timeout=None
        )
        return StopEvent(result=f"{ev.name}:{got.response}")


class Parent(Workflow):
    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> A:
        effect(ctx, "begin")
        name = await ctx.run_child(Part(timeout=None), name="child")
        return A(n=len(name))

    @step
    async def end(self, ctx: Context, ev: A) -> StopEvent:
        effect(ctx, "end")
        return StopEvent(result=ev.n)


class Cancelled(Workflow):
    """Waits for an answer; what comes is a wish to cancel it. Its child is to end with it."""

    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        effect(ctx, "ask")
        await ctx.run_child(Part(timeout=None), name="child")
        return StopEvent(result="never")


class Handled(Workflow):
    @step(retry_policy=retry_policy(wait=wait_fixed(1), stop=stop_after_attempt(2)))
    async def fails(self, ctx: Context, ev: StartEvent) -> A:
        effect(ctx, "fails")
        raise LookupError("not there")

    @step
    async def then(self, ctx: Context, ev: A) -> StopEvent:
        effect(ctx, "then")
        return StopEvent(result=ev.n)

    @catch_error
    async def mend(self, ctx: Context, ev: StepFailedEvent) -> A:
        effect(ctx, "mend")
        return A(n=ev.attempts)


class Counter(Workflow):
    """Eight steps at once, each of which adds to the run's state."""

    @step
    async def split(self, ctx: Context, ev: StartEvent) -> list[A]:
        effect(ctx, "split")
        await ctx.store.set("total", 100)
        return [A(n=n) for n in range(8)]

    @step(num_workers=8)
    async def add(self, ctx: Context, ev: A) -> B:
        effect(ctx, "add")
        async with ctx.store.edit_state() as state:
            state["total"] = state["total"] + 1
            state[f"seen_{ev.n}"] = True
        await asyncio.sleep(1)
        return B(n=ev.n)

    @step
    async def join(self, ctx: Context, evs: list[B]) -> StopEvent:
        effect(ctx, "join")
        total = await ctx.store.get("total")
        seen = [await ctx.store.get(f"seen_{n}") for n in range(8)]
        return StopEvent(result=[total, all(seen), len(evs)])


class Memo(Workflow):
    @step
    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        effect(ctx, "work")
        made: list[str] = []
        for name in ("x", "y", "x"):
            made.append(await ctx.memo(name, lambda: f"{len(made)}"))
            await ctx.sleep(5)
        return StopEvent(result=made)


class Collecting(Workflow):
    @step
    async def send(self, ctx: Context, ev: StartEvent) -> A | C | None:
        effect(ctx, "send")
        for n in range(3):
            ctx.send_event(A(n=n))
        await ctx.sleep(1)
        ctx.send_event(C(n=9))
        return None

    @step(num_workers=3)
    async def turn(self, ctx: Context, ev: A) -> B:
        effect(ctx, "turn")
        return B(n=ev.n * 10)

    @step
    async def collect(self, ctx: Context, ev: B | C) -> StopEvent | None:
        effect(ctx, "collect")
        got = ctx.collect_events(ev, [B, B, B, C])
        if got is None:
            return None
        return StopEvent(result=sorted(e.n for e in got))


class Streamed(Workflow):
    @step
    async def one(self, ctx: Context, ev: StartEvent) -> A:
        effect(ctx, "one")
        for n in range(3):
            ctx.write_event_to_stream(Event(note=f"one {n}"))
            await ctx.sleep(1)
        return A()

    @step
    async def two(self, ctx: Context, ev: A) -> StopEvent:
        effect(ctx, "two")
        ctx.write_event_to_stream(Event(note="two 1"))
        await asyncio.sleep(1)
        ctx.write_event_to_stream(Event(note="two 2"))
        return StopEvent(result="shown")


FLOWS: Mapping[str, type[Workflow]] = {
    flow.__name__: flow
    for flow in (
        Linear,
        Fan,
        Questions,
        Timer,
        Retry,
        Parent,
        Cancelled,
        Handled,
        Counter,
        Memo,
        Collecting,
        Streamed,
    )
}

CANCEL = "\x00cancel"
ANSWERS: Mapping[str, Mapping[str, Any]] = {
    "Questions": {id: {"response": id.upper()} for id in "abc"},
    "Parent": {"part": {"response": "yes"}},
    "Cancelled": {"part": {"response": CANCEL}},
}

KNOWN: Mapping[str, list[type[Workflow]]] = {"Cancelled": [Part]}
"""Workflows that the engine has to know beside the one that is started: a child that is to be
cancelled after its parent has ended has nobody left to say what it is."""

SEVERAL_AT_ONCE = frozenset({"Fan", "Counter", "Collecting"})
"""Workflows in which steps run at once, so that their order may be another one each time."""
