"""LangGraph. Its quick way: a `StateGraph` compiled once, `ainvoke`, no checkpointer in memory;
`Send` for the fan-out; the custom stream mode for the stream. Durable: `AsyncSqliteSaver` (WAL) on
one shared connection with `durability="sync"`, the only mode that commits a step before the next
one starts ("async", the default, may lose the last one; "exit" saves once per run). Its connection
stays at SQLite's default `synchronous=FULL`."""

import asyncio
import operator
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, TypedDict
from uuid import uuid4

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from peers.common import (
    NAP,
    PAYLOAD,
    HeldWhileAsleep,
    Job,
    KeptPerTurn,
    database_bytes,
    perf_counter,
    serve,
    timed,
)


class State(TypedDict, total=False):
    value: Any


def chain_graph(n: int, value: Any) -> StateGraph[State]:
    def node(i: int) -> Any:
        async def go(state: State) -> State:
            return {"value": value}

        return go

    graph = StateGraph(State)
    for i in range(n):
        graph.add_node(f"s{i}", node(i))
    for a, b in pairwise([START, *graph.nodes, END]):
        graph.add_edge(a, b)
    return graph


@cache
def chain_of(n: int) -> Any:
    return chain_graph(n, None).compile()


async def chain(job: Job) -> float:
    graph, config = chain_of(job.n), {"recursion_limit": job.n + 2}
    return await timed(job.repeat, lambda: graph.ainvoke({"value": None}, config))


def loop_graph(tick: Any) -> Any:
    async def turn(state: State) -> State:
        tick(state["value"])
        return {"value": state["value"] - 1}

    graph = StateGraph(State)
    graph.add_node("turn", turn)
    graph.add_edge(START, "turn")
    graph.add_conditional_edges("turn", lambda state: "turn" if state["value"] else END)
    return graph.compile()


looping = loop_graph(lambda value: None)


async def loop(job: Job) -> float:
    config = {"recursion_limit": job.n + 2}
    return await timed(job.repeat, lambda: looping.ainvoke({"value": job.n}, config))


async def loop_memory(job: Job) -> float:
    with KeptPerTurn(job.n) as kept:
        graph = loop_graph(lambda value: kept.tick(job.n - value))
        await graph.ainvoke({"value": job.n}, {"recursion_limit": job.n + 2})
    return kept.per_turn


class Fan(TypedDict, total=False):
    n: int
    done: Annotated[list[int], operator.add]


def fan_graph() -> Any:
    async def work(state: Any) -> Fan:
        return {"done": [state["i"]]}

    async def join(state: Fan) -> Fan:
        assert len(state["done"]) == state["n"]
        return {}

    graph = StateGraph(Fan)
    graph.add_node("work", work)
    graph.add_node("join", join)
    graph.add_conditional_edges(
        START, lambda state: [Send("work", {"i": i}) for i in range(state["n"])], ["work"]
    )
    graph.add_edge("work", "join")
    graph.add_edge("join", END)
    return graph.compile()


fanning = fan_graph()


async def fan_out(job: Job) -> float:
    return await timed(job.repeat, lambda: fanning.ainvoke({"n": job.n}))


def sleep_graph(nap: Any) -> Any:
    async def sleep(state: State) -> State:
        await nap()
        return {}

    graph = StateGraph(State)
    graph.add_node("sleep", sleep)
    graph.add_edge(START, "sleep")
    graph.add_edge("sleep", END)
    return graph.compile()


sleeper = sleep_graph(lambda: asyncio.sleep(NAP))


async def sleeps(job: Job) -> float:
    started = perf_counter()
    await asyncio.gather(*(sleeper.ainvoke({"value": None}) for _ in range(job.n)))
    return perf_counter() - started


async def sleeps_memory(job: Job) -> float:
    with HeldWhileAsleep(job.n) as held:
        graph = sleep_graph(held.nap)
        await asyncio.gather(*(graph.ainvoke({"value": None}) for _ in range(job.n)))
    return held.held


async def stream(job: Job) -> float:
    items = list(range(job.n))

    async def talk(state: State) -> State:
        write = get_stream_writer()
        for item in items:
            write(item)
        return {}

    graph = StateGraph(State)
    graph.add_node("talk", talk)
    graph.add_edge(START, "talk")
    graph.add_edge("talk", END)
    compiled = graph.compile()

    async def once() -> None:
        seen = 0
        async for _ in compiled.astream({"value": None}, stream_mode="custom"):
            seen += 1
        assert seen == job.n

    return await timed(job.repeat, once)


def thread(n: int) -> Any:
    return {"configurable": {"thread_id": uuid4().hex}, "recursion_limit": n + 2}


async def durable_chain(job: Job) -> float:
    async with AsyncSqliteSaver.from_conn_string(job.db) as saver:
        await saver.setup()
        graph = chain_graph(job.n, None).compile(checkpointer=saver)
        return await timed(
            job.repeat,
            lambda: graph.ainvoke({"value": None}, thread(job.n), durability="sync"),
        )


async def durable_many(job: Job) -> float:
    async with AsyncSqliteSaver.from_conn_string(job.db) as saver:
        await saver.setup()
        graph = chain_graph(job.n, None).compile(checkpointer=saver)
        started = perf_counter()
        await asyncio.gather(
            *(
                graph.ainvoke({"value": None}, thread(job.n), durability="sync")
                for _ in range(job.repeat)
            )
        )
        return perf_counter() - started


async def durable_growth(job: Job) -> float:
    async with AsyncSqliteSaver.from_conn_string(job.db) as saver:
        await saver.setup()
        before = database_bytes(job.db)
        graph = chain_graph(job.n, PAYLOAD).compile(checkpointer=saver)
        for _ in range(job.repeat):
            await graph.ainvoke({"value": PAYLOAD}, thread(job.n), durability="sync")
    return (database_bytes(job.db) - before) / (job.n * job.repeat)


if __name__ == "__main__":
    serve(
        "langgraph",
        {
            "chain": chain,
            "loop": loop,
            "loop_memory": loop_memory,
            "fan_out": fan_out,
            "sleeps": sleeps,
            "sleeps_memory": sleeps_memory,
            "stream": stream,
            "durable_chain": durable_chain,
            "durable_many": durable_many,
            "durable_growth": durable_growth,
        },
        {},
    )
