"""P4: terminal states are final; a run is always exactly one of queued, running, waiting, parked or
terminal; `why()` says what it waits for, since when, and what would move it.

What is told of a run is its row in the store; what is true is the fold of its journal. After each
write of the store the two must agree, and the fold must be what can be read off the journal in
another way: by its entries and by the work that is owed.

Caught breaks: a run that goes on deciding after its end; a store that takes signals for ended runs;
a fault in what follows the end that parks the run; a status that forgets that a run is parked; a
row of the store that says "running" while the run waits; `why` that does not say since when.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.durable.flows import Answer, Linear, asks

from stepwell import Context, Event, StartEvent, StopEvent, Workflow, step
from stepwell.errors import LeaseLost, NoPendingQuestion, WorkflowRuntimeError
from stepwell.kernel.journal import Entry, RunEnded, RunParked, RunResumed, RunStarted
from stepwell.kernel.run import QUEUED, RUNNING, Run, fold, pending
from stepwell.retry_policy import retry_policy, stop_after_attempt, wait_fixed
from stepwell.runtime import codec
from stepwell.runtime.turn import ActiveRun
from stepwell.stores.base import Commit, Store
from stepwell.stores.sqlite import SQLiteStore
from stepwell.testing import Hook, HookedEngine, VirtualClock, hooked
from stepwell.values import RunStatus

T = TypeVar("T")
RUN = "run"
LIVE = {RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING, RunStatus.PARKED}


def engine_on(clock: VirtualClock, path: Path, *flows: Any, **settings: Any) -> HookedEngine:
    store = SQLiteStore(path / "runs.db", durability="process")
    return clock.engine(store, flows, retention=None, **settings)


# --- final ---------------------------------------------------------------------------------------


class Stubborn(Workflow):
    """Ends in each way there is; one of its bodies does not stop when it is told to."""

    late: asyncio.Event
    went_on = False

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Event | StopEvent | None:
        await ctx.store.set("how", ev.how)
        if ev.how == "completed":
            ctx.send_event(Event(), step="wait")
            ctx.send_event(Event(), step="stay")
            await asyncio.sleep(60)
            return StopEvent(result="well")
        if ev.how == "failed":
            ctx.send_event(Event(), step="wait")
            ctx.send_event(Event(), step="stay")
            await asyncio.sleep(60)
            raise LookupError("no such thing")
        return Event()

    @step
    async def stay(self, ctx: Context, ev: Event) -> StopEvent:
        try:
            await asyncio.sleep(10 * 86400)
        except asyncio.CancelledError:
            await self.late.wait()
            type(self).went_on = True
            await ctx.store.set("how", "late")
        return StopEvent(result="late")

    @step
    async def wait(self, ctx: Context, ev: Event) -> StopEvent:
        await ctx.wait_for_event(Answer, waiter_id="q", timeout=86400 * 3)
        return StopEvent(result="answered")


async def refused(call: Awaitable[object], *errors: type[Exception]) -> bool:
    """Whether a call came to nothing, by its answer or by its error."""
    try:
        return not await call
    except errors:
        return True


@pytest.mark.parametrize("how", ["completed", "failed", "cancelled", "timed_out"])
async def test_nothing_changes_a_run_that_has_ended(
    virtual_clock: VirtualClock, tmp_path: Path, how: str
) -> None:
    flow = Stubborn(timeout=120.0)
    flow.late = asyncio.Event()
    Stubborn.went_on = False
    engine = engine_on(virtual_clock, tmp_path, flow)
    handler = await engine.start(flow, run_id=RUN, how=how)
    await virtual_clock.advance(30)
    if how == "cancelled":
        await engine.cancel(RUN)
    result = await asyncio.gather(handler, return_exceptions=True)
    assert (await engine.get(RUN)).status == how

    async def all_of_it(engine: HookedEngine) -> list[Any]:
        stream = [(i.cursor, repr(i.event)) async for i in engine.stream(RUN)]
        left = await engine.store.messages(RUN)
        return [await engine.store.get(RUN), await engine.journal(RUN), stream, left]

    before = await all_of_it(engine)
    flow.late.set()  # the body that did not stop ends now, with an edit and a result
    await virtual_clock.settle()
    assert Stubborn.went_on
    assert await all_of_it(engine) == before

    for again in range(2):
        assert await refused(engine.signal(RUN, Answer(text="late")))
        assert await refused(engine.signal(RUN, Answer(text="late"), question="q"))
        assert await refused(engine.signal(RUN, "Event", {}, step="stay"))
        assert await refused(engine.answer(RUN, {"text": "late"}), NoPendingQuestion)
        assert await refused(engine.cancel(RUN, "late"))
        assert await refused(engine.park(RUN, "late"))
        assert await refused(engine.resume(RUN), WorkflowRuntimeError)
        assert await all_of_it(engine) == before
        await virtual_clock.advance(timedelta(days=30))  # all timers it had are over
        assert await all_of_it(engine) == before
        if not again:
            await engine.stop()
            engine = engine_on(virtual_clock, tmp_path, flow)
            await engine.start_up()
    again_result = await asyncio.gather(engine.result(RUN), return_exceptions=True)
    assert repr(again_result) == repr(result)

    row = await engine.store.get(RUN)
    assert row is not None
    late = Commit(RUN, row.fence - 1, 1e10, RunStatus.RUNNING, 0.0, "late", [b"[]"])
    with pytest.raises(LeaseLost):  # by a worker that held the run before it ended
        await engine.store.commit(late)
    assert await all_of_it(engine) == before


async def test_a_fault_that_shows_after_the_end_changes_nothing(
    virtual_clock: VirtualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end is committed, and then this library fails to tell others of it."""

    def broken(_: ActiveRun) -> None:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(ActiveRun, "_finish_run", broken)
    engine = engine_on(virtual_clock, tmp_path, Linear())
    handler = await engine.start(Linear, run_id=RUN)
    assert await handler == 2
    await virtual_clock.advance(60)
    assert (await engine.get(RUN)).status is RunStatus.COMPLETED


# --- one status ----------------------------------------------------------------------------------


class Agreement(Hook):
    """After each verb: the row of the run says what its journal says."""

    def __init__(self) -> None:
        self.store: Store | None = None
        self.types: Any = None
        self.seen: list[RunStatus] = []
        self.wrong: list[tuple[str, RunStatus, RunStatus]] = []

    async def around(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
        done = await call()
        store = self.store
        if store is not None and verb in ("commit", "create", "send", "claim", "claim_one"):
            loaded = await store.load(RUN)
            if loaded is not None:
                rows = [codec.decode(row.data, self.types, row.at) for row in loaded.rows]
                run = fold(Run(RUN), [entry for entries in rows for entry in entries])
                if loaded.row.status is not run.status:
                    self.wrong.append((verb, loaded.row.status, run.status))
                if [loaded.row.status] != self.seen[-1:]:
                    self.seen.append(loaded.row.status)
        return done


def statuses(rows: Sequence[Sequence[Entry]]) -> list[RunStatus]:
    """The status at every row, each of which must be the only one that fits."""
    run = Run(RUN)
    seen: list[RunStatus] = [run.status]
    assert run.status is RunStatus.QUEUED
    started = parked = False
    ended: list[RunStatus] = []
    for entries in rows:
        fold(run, entries)
        for entry in entries:
            assert not ended, f"{entry} came after the end"
            match entry:
                case RunStarted():
                    started = True
                case RunParked():
                    parked = True
                case RunResumed():
                    parked = False
                case RunEnded(status=status):
                    ended.append(status)
                case _:
                    continue
        busy = any(work.phase in (RUNNING, QUEUED) for work in run.work.values())
        alive = started and not ended and not parked
        fitting = {
            *ended,
            *([RunStatus.QUEUED] if not started else []),
            *([RunStatus.PARKED] if parked and not ended else []),
            *([RunStatus.RUNNING] if alive and busy else []),
            *([RunStatus.WAITING] if alive and not busy else []),
        }
        assert fitting == {run.status}
        if run.status is RunStatus.WAITING:
            owed = pending(run)
            assert owed.waits or owed.due is not None, "it waits for nothing"
        if ended:
            assert pending(run).attempts == ()
        seen.append(run.status)
    return seen


class Busy(Workflow):
    """Works, waits for its second try, waits for an answer and for time, and works again."""

    @step(retry_policy=retry_policy(wait=wait_fixed(300), stop=stop_after_attempt(2)))
    async def work(self, ctx: Context, ev: StartEvent) -> list[Event]:
        await asyncio.sleep(60)
        if ctx.retry_info().retry_number == 0:
            raise ConnectionError("not now")
        return [Event(n=n) for n in range(3)]

    @step(num_workers=1)
    async def one_by_one(self, ctx: Context, ev: Event) -> Answer:
        await asyncio.sleep(60)
        await ctx.sleep(60)
        return Answer(text=str(ev.n))

    @step
    async def end(self, ctx: Context, ev: list[Answer]) -> StopEvent:
        got = await ctx.wait_for_event(Answer, waiter_id="q", timeout=None)
        return StopEvent(result=got.text + "".join(sorted(e.text for e in ev)))


@pytest.mark.parametrize("parks_at", [30, 200, 500, 5000])
async def test_a_run_has_one_status_at_every_row_and_its_row_in_the_store_says_it(
    virtual_clock: VirtualClock, tmp_path: Path, parks_at: float
) -> None:
    flow = Busy(timeout=None)
    agreement = Agreement()
    agreement.types = flow.compiled().types
    store = SQLiteStore(tmp_path / "runs.db", durability="process")
    engine = virtual_clock.engine(hooked(store, agreement), [flow], retention=None)
    agreement.store = virtual_clock.store(store)
    starter = engine_on(virtual_clock, tmp_path, flow, worker=False)
    await starter.start(flow, run_id=RUN)
    assert (await starter.get(RUN)).status is RunStatus.QUEUED
    await engine.start_up()
    await virtual_clock.advance(parks_at)
    assert await engine.park(RUN, "let me look")
    await virtual_clock.advance(100)
    assert (await engine.get(RUN)).status is RunStatus.PARKED
    await engine.resume(RUN)
    await virtual_clock.advance(5000)
    assert (await engine.get(RUN)).status is RunStatus.WAITING
    await engine.answer(RUN, {"text": "ok"})
    assert await engine.result(RUN) == "ok012"

    rows = [codec.decode(row.data, agreement.types, row.at) for row in await engine.store.read(RUN)]
    seen = statuses(rows)
    assert set(seen) == {*LIVE, RunStatus.COMPLETED}
    assert set(agreement.seen) == {*LIVE, RunStatus.COMPLETED}
    assert agreement.seen[-1] is RunStatus.COMPLETED
    counts = await engine.counts()
    assert [(status, n) for (_, status), n in counts.items() if n] == [(RunStatus.COMPLETED, 1)]


@pytest.mark.parametrize("words", ["cc", "cp", "ca", "ac", "pc", "pa"])
async def test_words_that_come_together_with_the_one_that_ends_a_run_change_nothing(
    virtual_clock: VirtualClock, tmp_path: Path, words: str
) -> None:
    """They were accepted, and are read from the inbox when the run has just ended."""
    flow = asks()
    engine = engine_on(virtual_clock, tmp_path, flow)
    await engine.start(flow, run_id=RUN)
    await virtual_clock.settle()
    await engine.stop()
    looker = engine_on(virtual_clock, tmp_path, flow, worker=False)
    for word in words:
        if word == "c":
            assert await looker.cancel(RUN)
        elif word == "p":
            assert await looker.park(RUN, "let me look")
        else:
            assert await looker.signal(RUN, Answer(text="yes"))
    engine = engine_on(virtual_clock, tmp_path, flow)
    await engine.start_up()
    await virtual_clock.advance(60)
    rows = [
        codec.decode(row.data, flow.compiled().types, row.at)
        for row in await engine.store.read(RUN)
    ]
    status = (await engine.get(RUN)).status
    assert statuses(rows)[-1] is status
    expected = {"a": RunStatus.COMPLETED, "c": RunStatus.CANCELLED, "p": RunStatus.PARKED}
    assert status is (RunStatus.CANCELLED if words in ("ac", "pc") else expected[words[0]])
    assert await engine.store.messages(RUN) == []


# --- why -----------------------------------------------------------------------------------------


class Ends(Workflow):
    @step
    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        await asyncio.sleep(3600)
        if ev.get("fails", False):
            raise LookupError("no such thing")
        return StopEvent()


class Naps(Workflow):
    @step
    async def nap(self, ctx: Context, ev: StartEvent) -> StopEvent:
        await ctx.sleep(86400)
        return StopEvent()


async def test_a_run_says_why_it_is_where_it_is(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    one = Ends(num_concurrent_runs=1, timeout=7000.0)
    engine = engine_on(virtual_clock, tmp_path, one, asks(), Naps(timeout=None))

    async def told(run: str, status: str, *words: str) -> None:
        why = await engine.why(run)
        assert why.status == (await engine.get(run)).status == status
        for word in words:
            assert re.search(word, why.sentence), f"{word!r} is not in {why.sentence!r}"

    running = (await engine.start(one)).run_id
    queued = (await engine.start(one, fails=True)).run_id
    asking = (await engine.start(asks())).run_id
    napping = (await engine.start(Naps)).run_id
    parked = (await engine.start(asks())).run_id
    await engine.park(parked, "the disk is being changed")
    await virtual_clock.advance(600)

    await told(running, "running", "work", r"10\.0 min", re.escape(engine.worker_id))
    await told(queued, "queued", r"for 10\.0 min", "starts when a worker .* has room")
    await told(asking, "waiting", "Answer", "'q'", "'ask'", r"10\.0 min", "answer it to move")
    await told(napping, "waiting", "time to pass", "'nap'", r"10\.0 min", "until 2026-01-02 00:00")
    await told(parked, "parked", "the disk is being changed", "person", f"resume {parked}")

    await virtual_clock.advance(3600)
    await told(running, "completed", "2026-01-01 01:00:0", "Nothing will move it again")
    await told(queued, "running", "work")
    await virtual_clock.advance(3600)
    await told(queued, "failed", "no such thing", "2026-01-01 02:00:0", "Nothing will move it")
    assert await engine.cancel(asking, "not wanted")
    assert await engine.cancel(parked, "not wanted")
    await virtual_clock.settle()
    await told(asking, "cancelled", "not wanted", "Nothing will move it again")
    await told(parked, "cancelled", "not wanted", "Nothing will move it again")
    late = (await engine.start(Naps(timeout=60.0, workflow_name="late"))).run_id
    await virtual_clock.advance(100)
    await told(late, "timed_out", "Nothing will move it again")


async def test_what_a_run_says_it_needs_is_what_moves_it(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    first = engine_on(virtual_clock, tmp_path, asks())
    await first.start(asks(), run_id=RUN)
    await virtual_clock.settle()
    await first.stop()
    looker = engine_on(virtual_clock, tmp_path, worker=False)
    why = await looker.why(RUN)
    assert "no live worker knows" in why.sentence
    (wait,) = why.waits
    assert (wait.id, wait.event, wait.step) == ("q", "Answer", "ask")
    await looker.answer(RUN, {"text": "yes"}, question=wait.id)
    await virtual_clock.advance(60)
    assert not (await looker.get(RUN)).status.terminal  # an answer alone was not said to be enough
    second = engine_on(virtual_clock, tmp_path, asks())
    assert await second.result(RUN) == "yes"
    with pytest.raises(WorkflowRuntimeError, match="completed"):
        await second.resume(RUN)
