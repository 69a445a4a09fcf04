"""The in-memory scenarios in the event style, written once and run on both libraries that speak it.

stepwell keeps the public API of LlamaIndex Workflows, so the two sides of the comparison are the
same code with different names imported. The quick way of that API: one workflow instance for every
run (validation is cached), `timeout=None`, `num_workers` as wide as the fan-out, results awaited
without reading the stream unless the stream is what is measured.

Annotations here are evaluated where they stand (no postponed evaluation), because the classes they
name are arguments.
"""

import asyncio
from functools import cache
from types import new_class
from typing import Any

from peers.common import (
    NAP,
    HeldWhileAsleep,
    Job,
    KeptPerTurn,
    Scenario,
    perf_counter,
    timed,
)


class EventStyle:
    """One library's names, and workflows of the shapes the scenarios need."""

    def __init__(self, *, workflow: Any, step: Any, context: Any, events: Any) -> None:
        self.workflow, self.step, self.context = workflow, step, context
        self.event, self.start, self.stop = events.Event, events.StartEvent, events.StopEvent
        self.turn = new_class("Turn", (self.event,), {}, _one_int)
        self.item = new_class("Item", (self.event,), {}, _one_int)
        self.done = new_class("Done", (self.event,), {}, _one_int)
        self.chain_class = cache(self._chain_class)
        self.fan_class = cache(self._fan_class)

    def _chain_class(self, n: int, payload: str = "") -> Any:
        """A workflow of `n` distinct steps and events; each event carries `payload` if given."""
        step, data = self.step, {"text": payload} if payload else {}
        between = [new_class(f"E{i}", (self.event,)) for i in range(1, n)]
        events = [self.start, *between, self.stop]

        def link(i: int, taken: type, made: type) -> Any:
            async def go(self, ev: taken) -> made:
                return made(**data)

            go.__name__, go.__qualname__ = f"s{i}", f"Chain.s{i}"
            return step(go)

        steps = {f"s{i}": link(i, events[i], events[i + 1]) for i in range(n)}
        return new_class("Chain", (self.workflow,), {}, lambda body: body.update(steps))

    def loop_class(self, tick: Any = None) -> Any:
        """A workflow that goes round one step `n` times, telling `tick` the turn if given."""
        step, turn_event, start, stop = self.step, self.turn, self.start, self.stop

        class Loop(self.workflow):
            @step
            async def begin(self, ev: start) -> turn_event:
                return turn_event(i=ev.n)

            @step
            async def turn(self, ev: turn_event) -> turn_event | stop:
                if tick is not None:
                    tick(ev.i)
                return turn_event(i=ev.i - 1) if ev.i else stop()

        return Loop

    def _fan_class(self, n: int) -> Any:
        step, item, done, start, stop = self.step, self.item, self.done, self.start, self.stop

        class Fan(self.workflow):
            @step
            async def split(self, ev: start) -> list[item]:
                return [item(i=i) for i in range(n)]

            @step(num_workers=n)
            async def work(self, ev: item) -> done:
                return done(i=ev.i)

            @step
            async def join(self, evs: list[done]) -> stop:
                assert len(evs) == n
                return stop()

        return Fan

    def sleep_class(self, nap: Any) -> Any:
        step, start, stop = self.step, self.start, self.stop

        class Sleeper(self.workflow):
            @step
            async def sleep(self, ev: start) -> stop:
                await nap()
                return stop()

        return Sleeper

    def talk_class(self, items: list[Any]) -> Any:
        step, context, start, stop = self.step, self.context, self.start, self.stop

        class Talker(self.workflow):
            @step
            async def talk(self, ctx: context, ev: start) -> stop:
                for item in items:
                    ctx.write_event_to_stream(item)
                return stop()

        return Talker


def _one_int(body: dict[str, Any]) -> None:
    body["__annotations__"] = {"i": int}
    body["__module__"] = __name__


def event_scenarios(style: EventStyle) -> dict[str, Scenario]:
    """The in-memory scenarios on `style`'s library."""
    chain_flow = cache(lambda n: style.chain_class(n)(timeout=None))
    fan_flow = cache(lambda n: style.fan_class(n)(timeout=None))
    looping = style.loop_class()(timeout=None)
    sleeper = style.sleep_class(lambda: asyncio.sleep(NAP))(timeout=None)

    async def chain(job: Job) -> float:
        flow = chain_flow(job.n)
        return await timed(job.repeat, lambda: flow.run())

    async def loop(job: Job) -> float:
        return await timed(job.repeat, lambda: looping.run(n=job.n))

    async def loop_memory(job: Job) -> float:
        with KeptPerTurn(job.n) as kept:
            watched = style.loop_class(lambda left: kept.tick(job.n - left))
            await watched(timeout=None).run(n=job.n)
        return kept.per_turn

    async def fan_out(job: Job) -> float:
        flow = fan_flow(job.n)
        return await timed(job.repeat, lambda: flow.run())

    async def sleeps(job: Job) -> float:
        started = perf_counter()
        for handler in [sleeper.run() for _ in range(job.n)]:
            await handler
        return perf_counter() - started

    async def sleeps_memory(job: Job) -> float:
        with HeldWhileAsleep(job.n) as held:
            flow = style.sleep_class(held.nap)(timeout=None)
            for handler in [flow.run() for _ in range(job.n)]:
                await handler
        return held.held

    async def stream(job: Job) -> float:
        flow = style.talk_class([style.item(i=i) for i in range(job.n)])(timeout=None)

        async def once() -> None:
            handler = flow.run()
            seen = 0
            async for _ in handler.stream_events():
                seen += 1
            assert seen == job.n + 1  # the stop event ends the stream
            await handler

        return await timed(job.repeat, once)

    return {
        "chain": chain,
        "loop": loop,
        "loop_memory": loop_memory,
        "fan_out": fan_out,
        "sleeps": sleeps,
        "sleeps_memory": sleeps_memory,
        "stream": stream,
    }
