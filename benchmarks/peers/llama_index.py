"""LlamaIndex Workflows, in memory. Its quick way: one workflow instance reused for every run
(validation is cached), `timeout=None`, `num_workers` as wide as the fan-out, results awaited
without reading the stream unless the stream is what is measured."""

import asyncio
from functools import cache
from types import new_class
from typing import Any

from workflows import Context, Workflow, step
from workflows.events import Event, StartEvent, StopEvent

from peers.common import NAP, HeldWhileAsleep, Job, KeptPerTurn, perf_counter, serve, timed


@cache
def chain_of(n: int) -> Workflow:
    events = [StartEvent, *(new_class(f"E{i}", (Event,)) for i in range(1, n)), StopEvent]

    def link(i: int, taken: type, made: type) -> Any:
        async def go(self, ev: taken) -> made:
            return made()

        go.__name__, go.__qualname__ = f"s{i}", f"Chain.s{i}"
        return step(go)

    steps = {f"s{i}": link(i, events[i], events[i + 1]) for i in range(n)}
    return new_class("Chain", (Workflow,), {}, lambda ns: ns.update(steps))(timeout=None)


async def chain(job: Job) -> float:
    flow = chain_of(job.n)
    return await timed(job.repeat, lambda: flow.run())


class Turn(Event):
    i: int


class Loop(Workflow):
    @step
    async def begin(self, ev: StartEvent) -> Turn:
        return Turn(i=ev.n)

    @step
    async def turn(self, ev: Turn) -> Turn | StopEvent:
        return Turn(i=ev.i - 1) if ev.i else StopEvent()


looping = Loop(timeout=None)


async def loop(job: Job) -> float:
    return await timed(job.repeat, lambda: looping.run(n=job.n))


async def loop_memory(job: Job) -> float:
    with KeptPerTurn(job.n) as kept:

        class Watched(Loop):
            @step
            async def turn(self, ev: Turn) -> Turn | StopEvent:
                kept.tick(job.n - ev.i)
                return Turn(i=ev.i - 1) if ev.i else StopEvent()

        await Watched(timeout=None).run(n=job.n)
    return kept.per_turn


class Item(Event):
    i: int


class Done(Event):
    i: int


@cache
def fan_of(n: int) -> Workflow:
    class Fan(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Item]:
            return [Item(i=i) for i in range(n)]

        @step(num_workers=n)
        async def work(self, ev: Item) -> Done:
            return Done(i=ev.i)

        @step
        async def join(self, evs: list[Done]) -> StopEvent:
            assert len(evs) == n
            return StopEvent()

    return Fan(timeout=None)


async def fan_out(job: Job) -> float:
    flow = fan_of(job.n)
    return await timed(job.repeat, lambda: flow.run())


class Sleeper(Workflow):
    @step
    async def sleep(self, ev: StartEvent) -> StopEvent:
        await asyncio.sleep(NAP)
        return StopEvent()


sleeper = Sleeper(timeout=None)


async def sleeps(job: Job) -> float:
    started = perf_counter()
    await asyncio.gather(*(sleeper.run() for _ in range(job.n)))
    return perf_counter() - started


async def sleeps_memory(job: Job) -> float:
    with HeldWhileAsleep(job.n) as held:

        class Napper(Workflow):
            @step
            async def sleep(self, ev: StartEvent) -> StopEvent:
                await held.nap()
                return StopEvent()

        flow = Napper(timeout=None)
        await asyncio.gather(*(flow.run() for _ in range(job.n)))
    return held.held


async def stream(job: Job) -> float:
    items = [Item(i=i) for i in range(job.n)]

    class Talker(Workflow):
        @step
        async def talk(self, ctx: Context, ev: StartEvent) -> StopEvent:
            for item in items:
                ctx.write_event_to_stream(item)
            return StopEvent()

    flow = Talker(timeout=None)

    async def once() -> None:
        handler = flow.run()
        seen = 0
        async for _ in handler.stream_events():
            seen += 1
        assert seen == job.n + 1
        await handler

    return await timed(job.repeat, once)


NOT_DURABLE = "the core keeps nothing by itself; the caller writes snapshots or journal records"

if __name__ == "__main__":
    serve(
        {
            "chain": chain,
            "loop": loop,
            "loop_memory": loop_memory,
            "fan_out": fan_out,
            "sleeps": sleeps,
            "sleeps_memory": sleeps_memory,
            "stream": stream,
        },
        dict.fromkeys(("durable_chain", "durable_many", "durable_growth"), NOT_DURABLE),
    )
