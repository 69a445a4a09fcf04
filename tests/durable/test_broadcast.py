"""One event to every run that waits for it now: to those, to no later wait, and once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.durable.flows import Answer, Linear, asks

from stepwell import Context, Event, HumanResponseEvent, StartEvent, StopEvent, Workflow, step
from stepwell.runtime.views import RunInfo
from stepwell.stores.base import NewMessage
from stepwell.testing import HookedEngine, VirtualClock
from stepwell.values import RunStatus


class Approval(HumanResponseEvent):
    by: str = ""
    order: int = 0


class Waits(Workflow):
    """Waits for an approval for a minute, and for another one for a minute, both by one name."""

    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        first = await self.one(ctx)
        return StopEvent(result=[first, await self.again(ctx)])

    async def one(self, ctx: Context) -> str:
        try:
            got = await ctx.wait_for_event(Approval, waiter_id="approval", timeout=60.0)
        except TimeoutError:
            return "late"
        return got.by

    async def again(self, ctx: Context) -> str:
        return await self.one(ctx)


class Retries(Workflow):
    """Each time round it is a new piece of work that waits under the same name."""

    @step
    async def ask(self, ctx: Context, ev: StartEvent | Event) -> Event | StopEvent:
        said = [*ev.get("said", []), await Waits.one(Waits(), ctx)]
        return StopEvent(result=said) if len(said) == 2 else Event(said=said)


class Picky(Workflow):
    """Waits for the approval of its own order."""

    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        wants = {"order": ev.get("order")}
        got = await ctx.wait_for_event(Approval, requirements=wants, timeout=None)
        return StopEvent(result=got.by)


class Many(Workflow):
    """Waits for many things at once, the approval last."""

    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        async def answer(n: int) -> None:
            await ctx.wait_for_event(Answer, waiter_id=f"q{n:02}", timeout=None)

        others = [asyncio.ensure_future(answer(n)) for n in range(25)]
        await asyncio.sleep(0)
        got = await ctx.wait_for_event(Approval, timeout=None)
        for other in others:
            other.cancel()
        return StopEvent(result=got.by)


@pytest.fixture(params=["memory", "sqlite"])
def engine(
    request: pytest.FixtureRequest, tmp_path: Path, virtual_clock: VirtualClock
) -> HookedEngine:
    sqlite = f"sqlite:///{tmp_path}/runs.db?durability=process"
    url = "memory://" if request.param == "memory" else sqlite
    flows = [Waits(timeout=None), Retries(timeout=None), Picky(timeout=None), Many(timeout=None)]
    return virtual_clock.engine(url, [*flows, asks()])


async def waiting(engine: HookedEngine, name: str = "Approval") -> set[str]:
    infos, cursor = await engine.list(waiting=name, limit=5000)
    assert cursor is None
    return {info.id for info in infos}


async def begun(engine: HookedEngine, clock: VirtualClock, name: str, *ids: str) -> None:
    workflow = next(n for n in engine.workflows if n.endswith(name))
    for id in ids:
        await engine.start(workflow, run_id=id)
    await clock.settle()


async def test_every_run_that_waits_receives_it_and_no_other(
    engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    await begun(engine, virtual_clock, "Waits", "a", "b")
    await begun(engine, virtual_clock, "Asks", "other")
    before = await engine.get("other")
    assert await waiting(engine) == {"a", "b"}
    assert await waiting(engine, "Answer") == {"other"}
    assert await engine.broadcast("Approval", {"by": "Ada"}) == 2
    await virtual_clock.settle()
    assert await engine.broadcast("Approval", {"by": "Bob"}) == 2  # each waits once more
    assert await engine.result("a") == await engine.result("b") == ["Ada", "Bob"]
    assert await engine.get("other") == before
    assert await waiting(engine) == set()
    assert await engine.broadcast("Approval", {"by": "Cyd"}) == 0


async def test_of_two_broadcasts_for_one_wait_one_is_received(
    engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    await begun(engine, virtual_clock, "Waits", *(f"run{n}" for n in range(20)))
    send = engine.store.send
    both = asyncio.Barrier(2)

    async def together(messages: object) -> list[bool]:
        """Each has seen whom it concerns before the other speaks."""
        await both.wait()
        return await send(messages)  # pyright: ignore[reportArgumentType]

    engine.store.send = together  # pyright: ignore[reportAttributeAccessIssue]
    said = await asyncio.gather(
        *(engine.broadcast("Approval", {"by": name}) for name in ("Ada", "Bob"))
    )
    engine.store.send = send  # pyright: ignore[reportAttributeAccessIssue]
    assert sum(said) == 20
    for n in range(20):
        first, second = await engine.result(f"run{n}")
        assert first in ("Ada", "Bob")
        assert second == "late"  # the other one did not wait for the next question


async def test_after_the_wait_ran_out_of_time_nobody_receives_it(
    engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    await begun(engine, virtual_clock, "Waits", "a")
    assert await engine.result("a") == ["late", "late"]
    assert await engine.broadcast("Approval", {"by": "Ada"}) == 0


@pytest.mark.parametrize("flow", ["Waits", "Retries"])
async def test_one_that_races_with_the_timeout_never_reaches_a_later_wait(
    engine: HookedEngine, virtual_clock: VirtualClock, flow: str
) -> None:
    await begun(engine, virtual_clock, flow, "a")
    (seen,) = await engine.waits("a")
    send = engine.store.send

    async def late(messages: object) -> list[bool]:
        await virtual_clock.advance(61.0)  # between what the broadcast saw and what it sends
        await virtual_clock.settle()
        (now,) = await engine.waits("a")
        assert now != seen
        return await send(messages)  # pyright: ignore[reportArgumentType]

    engine.store.send = late  # pyright: ignore[reportAttributeAccessIssue]
    assert await engine.broadcast("Approval", {"by": "Ada"}) == 1
    engine.store.send = send  # pyright: ignore[reportAttributeAccessIssue]
    await virtual_clock.settle()
    assert await waiting(engine) == {"a"}  # the later one waits on
    assert await engine.broadcast("Approval", {"by": "Bob"}) == 1
    assert await engine.result("a") == ["late", "Bob"]
    assert not any("Ada" in str(row) for row in await engine.journal("a"))


async def test_one_for_a_run_that_is_let_go_of_is_taken_in_when_it_comes_back(
    tmp_path: Path, virtual_clock: VirtualClock
) -> None:
    url, flow = f"sqlite:///{tmp_path}/runs.db?durability=process", Waits(timeout=None)
    async with virtual_clock.engine(url, [flow]) as first:
        await begun(first, virtual_clock, "Waits", "a", "b")
    async with virtual_clock.engine(url, []) as outside:  # knows no workflow, and no types
        assert await waiting(outside) == {"a", "b"}
        (wait,) = await outside.waits("a")
        assert await outside.broadcast("Approval", {"by": "Ada"}) == 2
        assert await outside.broadcast("Approval", {"by": "Bob"}) == 0
        assert wait.where is None
    async with virtual_clock.engine(url, [flow]) as second:
        assert await second.result("a") == await second.result("b") == ["Ada", "late"]


async def test_a_dropped_one_does_not_stop_the_clock_of_a_run(
    tmp_path: Path, virtual_clock: VirtualClock
) -> None:
    url, flow = f"sqlite:///{tmp_path}/runs.db?durability=process", Picky(timeout=300.0)
    async with virtual_clock.engine(url, [flow]) as first:
        await first.start(flow, run_id="a", order=1)
        await virtual_clock.settle()
    async with virtual_clock.engine(url, []) as outside:
        (wait,) = await outside.waits("a")
        data = f'{{"m":["Approval",{{"order":2}}],"w":"{wait.id}","k":0,"s":null}}'.encode()
        assert await outside.store.send([NewMessage("a", "event", data, 1.0)]) == [True]
    async with virtual_clock.engine(url, [flow]) as second:
        await virtual_clock.settle()
        info = await second.get("a")
        assert (info.status, info.unread) == (RunStatus.WAITING, ())
        await virtual_clock.advance(301.0)
        await virtual_clock.settle()
        assert (await second.get("a")).status is RunStatus.TIMED_OUT


async def test_a_wait_that_asks_for_other_fields_is_not_answered(
    engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    for n in (1, 2):
        workflow = next(n for n in engine.workflows if n.endswith("Picky"))
        await engine.start(workflow, run_id=f"order{n}", order=n)
    await virtual_clock.settle()
    (wait,) = (await engine.get("order2")).waits
    assert wait.where == {"order": 2}
    assert await engine.broadcast("Approval", {"order": 3}) == 0
    assert await engine.broadcast("Approval", {"order": 2, "by": "Ada"}) == 1
    assert await engine.result("order2") == "Ada"
    assert await waiting(engine) == {"order1"}


async def test_a_check_that_raises_stops_all_of_it(
    engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    await begun(engine, virtual_clock, "Waits", "a", "b", "c")
    seen: list[str] = []

    def check(info: RunInfo) -> None:
        seen.append(info.id)
        if info.id == "a":
            raise PermissionError("not yours")

    with pytest.raises(PermissionError):
        await engine.broadcast("Approval", {"by": "Ada"}, check=check)
    await virtual_clock.settle()
    assert "a" in seen
    assert await waiting(engine) == {"a", "b", "c"}
    assert [info.unread for info in (await engine.list())[0]] == [()] * 3


async def test_a_payload_that_does_not_fit_the_type_is_refused(
    engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    await begun(engine, virtual_clock, "Waits", "a")
    with pytest.raises(ValueError, match="Approval"):
        await engine.broadcast("Approval", {"order": "not a number"})
    assert await waiting(engine) == {"a"}


async def test_only_runs_of_the_workflow_and_the_correlation_receive_it(
    engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    waits = next(n for n in engine.workflows if n.endswith("Waits"))
    many = next(n for n in engine.workflows if n.endswith("Many"))
    for run, workflow, word in (("a", waits, "x"), ("b", waits, "y"), ("c", many, "x")):
        await engine.start(workflow, run_id=run, correlation=word)
    await virtual_clock.settle()
    assert await engine.broadcast("Approval", workflow=waits, correlation="x") == 1
    await virtual_clock.settle()
    assert await engine.broadcast("Approval", correlation="x", workflow=many) == 1
    await virtual_clock.settle()
    assert await waiting(engine) == {"a", "b"}


async def test_a_run_that_waits_for_more_than_its_row_shows_is_reached(
    engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    await begun(engine, virtual_clock, "Many", "a")
    assert "Approval" not in {w.event for w in (await engine.get("a")).waits}
    assert await engine.broadcast("Approval", {"by": "Ada"}) == 1
    assert await engine.result("a") == "Ada"


async def test_a_parked_run_takes_it_in_when_it_goes_on(
    engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    await begun(engine, virtual_clock, "Waits", "a")
    await engine.park("a", "look at this")
    await virtual_clock.settle()
    assert await engine.broadcast("Approval", {"by": "Ada"}) == 1
    assert (await engine.get("a")).status is RunStatus.PARKED
    await engine.resume("a")
    assert (await engine.result("a"))[0] == "Ada"


async def test_a_copy_of_a_waiting_run_is_listed_too(
    engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    await begun(engine, virtual_clock, "Waits", "a")
    seq = (await engine.get("a")).seq
    copy = await engine.fork("a", seq=seq, new_id="copy")
    await virtual_clock.settle()
    assert await waiting(engine) == {"a", "copy"}
    assert await engine.broadcast("Approval", {"by": "Ada"}) == 2
    await virtual_clock.settle()
    assert await engine.broadcast("Approval", {"by": "Bob"}) == 2
    assert await copy == ["Ada", "Bob"]


async def test_a_run_that_never_waits_is_never_listed(
    sqlite_engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    told: list[object] = []
    commit = sqlite_engine.store.commit

    async def listening(one: object) -> str:
        told.append(one.waits)  # pyright: ignore[reportAttributeAccessIssue]
        return await commit(one)  # pyright: ignore[reportArgumentType]

    sqlite_engine.store.commit = listening  # pyright: ignore[reportAttributeAccessIssue]
    assert await (await sqlite_engine.start(Linear())) == 2
    assert set(told) == {None}


async def test_a_thousand_runs_receive_it(
    engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    await begun(engine, virtual_clock, "Waits", *(f"run{n}" for n in range(1000)))
    assert len(await waiting(engine)) == 1000
    assert await engine.broadcast("Approval", {"by": "Ada"}) == 1000
    await virtual_clock.settle()
    assert await engine.broadcast("Approval", {"by": "Bob"}) == 1000
    await virtual_clock.settle()
    assert await engine.counts() == {(next(iter(engine.workflows)), RunStatus.COMPLETED): 1000}
