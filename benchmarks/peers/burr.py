"""Apache Burr. Its quick way: a graph built once with `GraphBuilder`; each run is an application
built on it (an application is one run and cannot be started over), async actions and `arun`;
`MapStates` for the fan-out; a streaming action for the stream. No tracker.

Durable: one run uses the synchronous application with `SQLitePersister`, which is the faster of
its two; many runs at once share one `AsyncSQLitePersister`, as a sync one would hold the loop. Both
save after every step with SQLite's default `synchronous=FULL`. Neither asks for WAL; the file is
put into WAL mode beforehand, because that makes both faster and any user can do it."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import cache
from typing import Any

from burr.core import ApplicationBuilder, ApplicationContext, GraphBuilder, State, action, when
from burr.core.action import streaming_action
from burr.core.parallelism import MapStates, RunnableGraph
from burr.core.persistence import SQLitePersister
from burr.integrations.persisters.b_aiosqlite import AsyncSQLitePersister

from peers.common import (
    NAP,
    PAYLOAD,
    HeldWhileAsleep,
    Job,
    KeptPerTurn,
    database_bytes,
    make_wal,
    perf_counter,
    serve,
    timed,
)


def chain_graph(n: int, go: Any) -> Any:
    return (
        GraphBuilder()
        .with_actions(**{f"s{i}": go for i in range(n)})
        .with_transitions(*((f"s{i}", f"s{i + 1}") for i in range(n - 1)))
        .build()
    )


def start(graph: Any, first: str = "s0") -> Any:
    return ApplicationBuilder().with_graph(graph).with_entrypoint(first)


@action(reads=[], writes=[])
async def noop(state: State) -> State:
    return state


@action(reads=[], writes=["value"])
def noop_sync(state: State) -> State:
    return state.update(value=PAYLOAD)


@cache
def chain_of(n: int) -> Any:
    return chain_graph(n, noop)


async def chain(job: Job) -> float:
    graph, halt = chain_of(job.n), [f"s{job.n - 1}"]
    return await timed(job.repeat, lambda: start(graph).build().arun(halt_after=halt))


def loop_graph(tick: Callable[[int], None]) -> Any:
    @action(reads=["left"], writes=["left"])
    async def turn(state: State) -> State:
        tick(state["left"])
        return state.update(left=state["left"] - 1)

    return (
        GraphBuilder()
        .with_actions(turn=turn, done=noop)
        .with_transitions(("turn", "done", when(left=0)), ("turn", "turn"))
        .build()
    )


looping = loop_graph(lambda left: None)


async def loop(job: Job) -> float:
    def once() -> Awaitable[object]:
        app = start(looping, "turn").with_state(left=job.n).build()
        return app.arun(halt_after=["done"])

    return await timed(job.repeat, once)


async def loop_memory(job: Job) -> float:
    with KeptPerTurn(job.n) as kept:
        graph = loop_graph(lambda left: kept.tick(job.n - left))
        await start(graph, "turn").with_state(left=job.n).build().arun(halt_after=["done"])
    return kept.per_turn


@action(reads=["i"], writes=["done"])
async def work(state: State) -> State:
    return state.update(done=state["i"])


branch = RunnableGraph.create(work)


class Fan(MapStates):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def is_async(self) -> bool:
        return True

    def action(self, state: State, inputs: dict[str, Any]) -> Any:
        return branch  # a bare action would build this graph anew for every branch

    async def states(
        self, state: State, context: ApplicationContext, inputs: dict[str, Any]
    ) -> AsyncGenerator[State, None]:
        for i in range(self.n):
            yield state.update(i=i)

    async def reduce(self, state: State, states: Any) -> State:
        done = [each["done"] async for each in states]
        assert len(done) == self.n
        return state.update(count=len(done))

    @property
    def reads(self) -> list[str]:
        return []

    @property
    def writes(self) -> list[str]:
        return ["count"]


@cache
def fan_of(n: int) -> Any:
    return GraphBuilder().with_actions(fan=Fan(n)).build()


async def fan_out(job: Job) -> float:
    graph = fan_of(job.n)
    return await timed(job.repeat, lambda: start(graph, "fan").build().arun(halt_after=["fan"]))


def sleep_graph(nap: Callable[[], Awaitable[None]]) -> Any:
    @action(reads=[], writes=[])
    async def sleep(state: State) -> State:
        await nap()
        return state

    return GraphBuilder().with_actions(sleep=sleep).build()


def sleep_run(graph: Any) -> Awaitable[object]:
    return start(graph, "sleep").build().arun(halt_after=["sleep"])


sleeper = sleep_graph(lambda: asyncio.sleep(NAP))


async def sleeps(job: Job) -> float:
    started = perf_counter()
    await asyncio.gather(*(sleep_run(sleeper) for _ in range(job.n)))
    return perf_counter() - started


async def sleeps_memory(job: Job) -> float:
    with HeldWhileAsleep(job.n) as held:
        graph = sleep_graph(held.nap)
        await asyncio.gather(*(sleep_run(graph) for _ in range(job.n)))
    return held.held


async def stream(job: Job) -> float:
    items = [{"i": i} for i in range(job.n)]

    @streaming_action(reads=[], writes=["i"])
    async def talk(state: State) -> AsyncGenerator[Any, None]:
        for item in items:
            yield item, None
        yield items[-1], state.update(**items[-1])

    graph = GraphBuilder().with_actions(talk=talk).build()

    async def once() -> None:
        app = start(graph, "talk").build()
        _, container = await app.astream_result(halt_after=["talk"])
        seen = 0
        async for _ in container:
            seen += 1
        await container.get()
        assert seen >= job.n

    return await timed(job.repeat, once)


def saved(job: Job) -> SQLitePersister:
    make_wal(job.db)
    persister = SQLitePersister.from_values(job.db)
    persister.initialize()
    return persister


def run_saved(persister: SQLitePersister, graph: Any, n: int) -> None:
    app = start(graph).with_state_persister(persister).build()
    app.run(halt_after=[f"s{n - 1}"])


@cache
def sync_chain_of(n: int) -> Any:
    return chain_graph(n, noop_sync)


def durable_chain(job: Job) -> float:
    graph = sync_chain_of(job.n)
    with saved(job) as persister:
        started = perf_counter()
        for _ in range(job.repeat):
            run_saved(persister, graph, job.n)
        return perf_counter() - started


async def durable_many(job: Job) -> float:
    make_wal(job.db)
    graph, halt = chain_of(job.n), [f"s{job.n - 1}"]
    async with AsyncSQLitePersister.from_values(job.db) as persister:
        await persister.initialize()

        async def once() -> None:
            app = await start(graph).with_state_persister(persister).abuild()
            await app.arun(halt_after=halt)

        started = perf_counter()
        await asyncio.gather(*(once() for _ in range(job.repeat)))
        return perf_counter() - started


def durable_growth(job: Job) -> float:
    graph = sync_chain_of(job.n)
    with saved(job) as persister:
        before = database_bytes(job.db)
        for _ in range(job.repeat):
            run_saved(persister, graph, job.n)
    return (database_bytes(job.db) - before) / (job.n * job.repeat)


if __name__ == "__main__":
    serve(
        "apache-burr",
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
