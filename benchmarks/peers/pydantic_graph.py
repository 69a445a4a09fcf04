"""pydantic-graph, in memory (since 2.0 it has no persistence). Its quick way: a graph built once
with `GraphBuilder`, plain edges for the chain, a self-returning `BaseNode` for the loop (a decision
node would be a second hop), `map()` and a `join` for the fan-out, instrumentation off."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

from pydantic_graph import (
    BaseNode,
    End,
    GraphBuilder,
    GraphRunContext,
    StepContext,
    reduce_list_append,
)

from peers.common import NAP, HeldWhileAsleep, Job, KeptPerTurn, perf_counter, serve, timed


@cache
def chain_of(n: int) -> Any:
    g = GraphBuilder(auto_instrument=False)

    def link(i: int) -> Any:
        async def go(ctx: StepContext[None, None, None]) -> None:
            return None

        return g.step(go, node_id=f"s{i}")

    links = [g.start_node, *(link(i) for i in range(n)), g.end_node]
    for a, b in pairwise(links):
        g.add_edge(a, b)
    return g.build()


async def chain(job: Job) -> float:
    graph = chain_of(job.n)
    return await timed(job.repeat, lambda: graph.run())


@dataclass
class Counter:
    left: int
    tick: Callable[[int], None] = lambda left: None


@dataclass
class Turn(BaseNode[Counter, None, None]):
    async def run(self, ctx: GraphRunContext[Counter, None]) -> Turn | End[None]:
        ctx.state.tick(ctx.state.left)
        ctx.state.left -= 1
        return Turn() if ctx.state.left else End(None)


def loop_graph() -> Any:
    g = GraphBuilder(state_type=Counter, auto_instrument=False)

    @g.step
    async def begin(ctx: StepContext[Counter, None, None]) -> Turn:
        return Turn()

    g.add(g.edge_from(g.start_node).to(begin), g.node(Turn))
    g.add(g.edge_from(begin).to(Turn))
    return g.build()


looping = loop_graph()


async def loop(job: Job) -> float:
    return await timed(job.repeat, lambda: looping.run(state=Counter(job.n)))


async def loop_memory(job: Job) -> float:
    with KeptPerTurn(job.n) as kept:
        await looping.run(state=Counter(job.n, lambda left: kept.tick(job.n - left)))
    return kept.per_turn


def fan_graph() -> Any:
    g = GraphBuilder(input_type=int, auto_instrument=False)

    @g.step
    async def split(ctx: StepContext[None, None, int]) -> list[int]:
        return list(range(ctx.inputs))

    @g.step
    async def work(ctx: StepContext[None, None, int]) -> int:
        return ctx.inputs

    @g.step
    async def check(ctx: StepContext[None, None, list[int]]) -> int:
        return len(ctx.inputs)

    collect = g.join(reduce_list_append, initial_factory=list[int])
    g.add(
        g.edge_from(g.start_node).to(split),
        g.edge_from(split).map().to(work),
        g.edge_from(work).to(collect),
        g.edge_from(collect).to(check),
        g.edge_from(check).to(g.end_node),
    )
    return g.build()


fanning = fan_graph()


async def fan_out(job: Job) -> float:
    async def once() -> None:
        assert await fanning.run(inputs=job.n) == job.n

    return await timed(job.repeat, once)


def sleep_graph(nap: Callable[[], Awaitable[None]]) -> Any:
    g = GraphBuilder(auto_instrument=False)

    @g.step
    async def sleep(ctx: StepContext[None, None, None]) -> None:
        await nap()

    g.add(g.edge_from(g.start_node).to(sleep), g.edge_from(sleep).to(g.end_node))
    return g.build()


sleeper = sleep_graph(lambda: asyncio.sleep(NAP))


async def sleeps(job: Job) -> float:
    started = perf_counter()
    await asyncio.gather(*(sleeper.run() for _ in range(job.n)))
    return perf_counter() - started


async def sleeps_memory(job: Job) -> float:
    with HeldWhileAsleep(job.n) as held:
        graph = sleep_graph(held.nap)
        await asyncio.gather(*(graph.run() for _ in range(job.n)))
    return held.held


NOT_DURABLE = "no persistence since 2.0"

if __name__ == "__main__":
    serve(
        "pydantic-graph",
        {
            "chain": chain,
            "loop": loop,
            "loop_memory": loop_memory,
            "fan_out": fan_out,
            "sleeps": sleeps,
            "sleeps_memory": sleeps_memory,
        },
        {
            "stream": "a step cannot hand events to a reader while it runs",
            **dict.fromkeys(("durable_chain", "durable_many", "durable_growth"), NOT_DURABLE),
        },
    )
