"""Starting durable runs: keys, ids, lists, and looking at what is there."""

from __future__ import annotations

import pytest
from tests.durable.flows import Asks, Linear, asks

from stepwell import StartEvent, StopEvent, Workflow, step
from stepwell.errors import (
    RunAlreadyExists,
    RunNotFound,
    UnserializableValue,
    ValueTooLarge,
    WorkflowNotRegistered,
)
from stepwell.testing import HookedEngine, VirtualClock
from stepwell.values import RunStatus


async def test_the_same_key_gives_the_same_run(sqlite_engine: HookedEngine) -> None:
    engine = sqlite_engine
    one = await engine.start(Linear, key="order-1", n=3)
    two = await engine.start(Linear, key="order-1", n=4)
    assert (await one, await two) == (6, 6)
    assert one.run_id == two.run_id
    assert len((await engine.list())[0]) == 1


async def test_the_same_key_gives_the_same_run_when_asked_at_once(
    sqlite_engine: HookedEngine,
) -> None:
    flow = Linear()
    handlers = [flow.run(engine=sqlite_engine, key="k", n=n) for n in range(5)]
    results = [await handler for handler in handlers]
    assert len(set(results)) == 1
    assert len({handler.run_id for handler in handlers}) == 1
    assert len((await sqlite_engine.list())[0]) == 1


async def test_keys_belong_to_their_workflow(sqlite_engine: HookedEngine) -> None:
    one = await sqlite_engine.start(Linear, key="k")
    two = await sqlite_engine.start(asks(), key="k")
    assert one.run_id != two.run_id


async def test_a_run_id_that_is_taken_is_refused(sqlite_engine: HookedEngine) -> None:
    engine = sqlite_engine
    assert await (await engine.start(Linear, run_id="mine")) == 2
    with pytest.raises(RunAlreadyExists, match="mine"):
        await engine.start(Linear, run_id="mine", n=9)
    assert await engine.result("mine") == 2
    handler = Linear().run(engine=engine, run_id="mine")
    with pytest.raises(RunAlreadyExists):
        await handler


async def test_a_key_wins_over_a_run_id(sqlite_engine: HookedEngine) -> None:
    one = await sqlite_engine.start(Linear, run_id="a", key="k")
    two = await sqlite_engine.start(Linear, run_id="a", key="k")
    assert (one.run_id, two.run_id) == ("a", "a")


async def test_an_unknown_run_and_an_unknown_workflow_are_said(
    sqlite_engine: HookedEngine,
) -> None:
    with pytest.raises(RunNotFound):
        await sqlite_engine.get("nothing")
    with pytest.raises(WorkflowNotRegistered):
        await sqlite_engine.start("nothing")


async def test_lists_are_paged_newest_first(
    sqlite_engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    engine = sqlite_engine
    for n in range(7):
        await (await engine.start(Linear, run_id=f"r{n}", correlation=f"c{n % 2}"))
        await virtual_clock.advance(1)
    seen: list[str] = []
    cursor = None
    while True:
        page, cursor = await engine.list(limit=3, after=cursor)
        seen += [info.id for info in page]
        assert len(page) <= 3
        if cursor is None:
            break
    assert seen == [f"r{n}" for n in range(6, -1, -1)]
    some, _ = await engine.list(correlation="c1", status="completed")
    assert [info.id for info in some] == ["r5", "r3", "r1"]
    late, _ = await engine.list(since=virtual_clock.now() - 2.5)
    assert [info.id for info in late] == ["r6", "r5"]


async def test_counts_are_by_workflow_and_status(sqlite_engine: HookedEngine) -> None:
    for _ in range(3):
        await (await sqlite_engine.start(Linear))
    handler = await sqlite_engine.start(asks())
    await sqlite_engine.why(handler.run_id)
    counts = await sqlite_engine.counts()
    linear, asking = Linear().workflow_name, Asks().workflow_name
    assert counts[linear, RunStatus.COMPLETED] == 3
    assert sum(n for (name, _), n in counts.items() if name == asking) == 1


class Anything(Workflow):
    @step
    async def only(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result="fine")


async def test_a_start_that_cannot_be_written_is_refused_and_starts_nothing(
    sqlite_engine: HookedEngine,
) -> None:
    with pytest.raises(UnserializableValue, match=r"StartEvent\.config\.handle"):
        await sqlite_engine.start(Anything, config={"handle": object()})
    with pytest.raises(ValueTooLarge, match=r"StartEvent\.text"):
        await sqlite_engine.start(Anything, text="x" * (16 * 1024 * 1024 + 1))
    assert (await sqlite_engine.list())[0] == []


async def test_a_run_can_be_deleted_when_it_has_ended(sqlite_engine: HookedEngine) -> None:
    handler = await sqlite_engine.start(Linear)
    waiting = await sqlite_engine.start(asks())
    await handler
    assert await sqlite_engine.delete([handler.run_id, waiting.run_id]) == 1
    with pytest.raises(RunNotFound):
        await sqlite_engine.get(handler.run_id)


async def test_priority_says_who_is_first_when_room_is_short(
    virtual_clock: VirtualClock, sqlite_engine: HookedEngine
) -> None:
    order: list[str] = []

    class One(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            order.append(ev.name)
            return StopEvent()

    flow = One(num_concurrent_runs=1)
    handlers = [
        await sqlite_engine.start(flow, name=f"p{p}", priority=p) for p in (0, 5, 1)
    ]  # fmt: skip
    for handler in handlers:
        await handler
    assert order.index("p5") < order.index("p1")
