"""Signals and answers: kept, taken once, by id, in any order, before anyone waits."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.durable.flows import Answer, Linear, Middle, asks

from stepwell import (
    Context,
    Event,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from stepwell.errors import (
    NoPendingQuestion,
    RunNotFound,
    StoreUnavailable,
    WorkflowCancelledByUser,
)
from stepwell.stores.memory import MemoryStore
from stepwell.testing import Failing, HookedEngine, VirtualClock, hooked
from stepwell.values import RunStatus


class Late(Workflow):
    """Works for an hour, then waits for what may have come long ago."""

    @step
    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        await asyncio.sleep(3600)
        got = await ctx.wait_for_event(Answer)
        return StopEvent(result=got.text)


class Three(Workflow):
    """Three questions at once."""

    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        async def one(id: str) -> str:
            got = await ctx.wait_for_event(
                Answer, waiter_event=InputRequiredEvent(prefix=id), waiter_id=id, timeout=None
            )
            return got.text

        return StopEvent(result=await asyncio.gather(*(one(id) for id in "abc")))


async def test_a_signal_may_come_before_anyone_waits(
    sqlite_engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    handler = await sqlite_engine.start(Late(timeout=None))
    assert await sqlite_engine.signal(handler.run_id, Answer(text="early"))
    await virtual_clock.settle()
    assert not handler.is_done()
    assert await handler == "early"


async def test_a_signal_before_a_restart_is_not_lost(
    virtual_clock: VirtualClock, tmp_path: object
) -> None:
    url = f"sqlite:///{tmp_path}/x.db?durability=process"
    flow = Late(timeout=None)
    first = virtual_clock.engine(url, [flow])
    handler = await first.start(flow)
    await first.signal(handler.run_id, Answer(text="early"))
    await first.stop()
    second = virtual_clock.engine(url, [flow])
    assert await second.result(handler.run_id) == "early"


async def test_a_repeated_signal_does_nothing(sqlite_engine: HookedEngine) -> None:
    class Two(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            a = await ctx.wait_for_event(Answer, timeout=None)
            b = await ctx.wait_for_event(Answer, timeout=None)
            return StopEvent(result=(a.text, b.text))

    engine = sqlite_engine
    handler = await engine.start(Two(timeout=None))
    assert await engine.signal(handler.run_id, Answer(text="1"), dedupe="m1")
    assert not await engine.signal(handler.run_id, Answer(text="1"), dedupe="m1")
    assert await engine.signal(handler.run_id, Answer(text="2"), dedupe="m2")
    assert list(await handler) == ["1", "2"]
    assert not await engine.signal(handler.run_id, Answer(text="3"))


@pytest.mark.parametrize("order", ["abc", "cba", "bca"])
async def test_questions_are_answered_by_id_in_any_order(
    sqlite_engine: HookedEngine, virtual_clock: VirtualClock, order: str
) -> None:
    engine = sqlite_engine
    handler = await engine.start(Three(timeout=None))
    await virtual_clock.settle()
    assert sorted(w.id for w in (await engine.get(handler.run_id)).waits) == ["a", "b", "c"]
    with pytest.raises(NoPendingQuestion):
        await engine.answer(handler.run_id, "which?")
    for id in order:
        await engine.answer(handler.run_id, {"text": id.upper()}, question=id)
        await virtual_clock.settle()
    assert await handler == ["A", "B", "C"]


async def test_answers_that_come_in_different_lives_are_kept(
    virtual_clock: VirtualClock, tmp_path: object
) -> None:
    url = f"sqlite:///{tmp_path}/x.db?durability=process"
    flow = Three(timeout=None)
    run_id = ""
    for id in "bca":
        engine = virtual_clock.engine(url, [flow])
        if not run_id:
            run_id = (await engine.start(flow)).run_id
        await engine.start_up()
        await virtual_clock.settle()
        await engine.answer(run_id, {"text": id.upper()}, question=id)
        if id != "a":
            await virtual_clock.settle()
            await engine.stop()
        else:
            assert await engine.result(run_id) == ["A", "B", "C"]


async def test_an_answer_may_come_before_its_question(
    sqlite_engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    class Slow(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await asyncio.sleep(60)
            got = await ctx.wait_for_event(Answer, waiter_id="later", timeout=None)
            return StopEvent(result=got.text)

    handler = await sqlite_engine.start(Slow(timeout=None))
    await handler.answer("later", Answer(text="early"))
    assert await handler == "early"


async def test_a_payload_that_does_not_fit_is_refused(sqlite_engine: HookedEngine) -> None:
    handler = await sqlite_engine.start(asks())
    with pytest.raises(ValueError, match="Answer"):
        await sqlite_engine.signal(handler.run_id, "Answer", {"text": {"not": "a text"}})
    with pytest.raises(RunNotFound):
        await sqlite_engine.signal("nobody", Answer())


async def test_a_signal_goes_to_the_steps_that_take_it(sqlite_engine: HookedEngine) -> None:
    class Takes(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Middle | None:
            return None

        @step
        async def go(self, ev: Middle) -> StopEvent:
            return StopEvent(result=ev.n)

    handler = await sqlite_engine.start(Takes(timeout=None))
    await sqlite_engine.signal(handler.run_id, "Middle", {"n": 7})
    assert await handler == 7


async def test_an_engine_without_the_code_can_signal_and_answer(
    virtual_clock: VirtualClock, tmp_path: object
) -> None:
    url = f"sqlite:///{tmp_path}/x.db?durability=process"
    flow = asks()
    first = virtual_clock.engine(url, [flow])
    run_id = (await first.start(flow)).run_id
    await virtual_clock.settle()
    await first.stop()
    looker = virtual_clock.engine(url, worker=False)
    assert (await looker.get(run_id)).status is RunStatus.WAITING
    await looker.answer(run_id, {"text": "from outside"})
    await looker.stop()
    second = virtual_clock.engine(url, [flow])
    assert await second.result(run_id) == "from outside"


async def test_an_event_sent_through_the_context_waits_for_a_store_in_trouble(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Who sends it so can't be told that it was not kept."""
    trouble = Failing()
    engine = virtual_clock.engine(hooked(MemoryStore(), trouble))
    handler = await engine.start(asks())
    await virtual_clock.settle()
    trouble.error = StoreUnavailable("the server is away")
    assert handler.ctx is not None
    for text in ("first", "second", "third"):
        handler.ctx.send_event(Answer(text=text))
    await virtual_clock.advance(60)
    assert not handler.is_done()
    assert "the server is away" in caplog.text
    assert trouble.refused < 200
    trouble.error = None
    assert await handler == "first"


async def test_an_event_that_waits_for_the_store_does_not_keep_the_engine_from_stopping(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    trouble = Failing()
    engine = virtual_clock.engine(hooked(MemoryStore(), trouble))
    handler = await engine.start(asks())
    await virtual_clock.settle()
    trouble.error = StoreUnavailable("the server is away")
    assert handler.ctx is not None
    handler.ctx.send_event(Answer(text="first"))
    await virtual_clock.advance(10)
    await engine.stop()
    assert "may be lost" in caplog.text


async def test_an_event_that_nobody_takes_does_no_harm(sqlite_engine: HookedEngine) -> None:
    handler = await sqlite_engine.start(asks())
    await sqlite_engine.signal(handler.run_id, Event(what="noise"))
    await handler.send_event(Answer(text="x"))
    assert await handler == "x"


async def test_the_engine_can_be_asked_about_a_run_that_ended(
    sqlite_engine: HookedEngine,
) -> None:
    handler = await sqlite_engine.start(Linear)
    await handler
    assert not await sqlite_engine.cancel(handler.run_id)
    assert not await sqlite_engine.signal(handler.run_id, Answer())


async def test_what_waits_for_a_worker_is_said(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db?durability=process"
    first = virtual_clock.engine(url)
    handler = await first.start(asks())
    await virtual_clock.settle()
    await first.stop()
    looking = virtual_clock.engine(url)
    assert (await looking.get(handler.run_id)).unread == ()
    assert "message" not in (await looking.why(handler.run_id)).sentence
    await looking.answer(handler.run_id, {"text": "late"})
    await looking.signal(handler.run_id, Answer(text="too late"))
    await looking.cancel(handler.run_id)
    info = await looking.get(handler.run_id)
    assert info.unread == ("answer", "signal", "cancel")
    assert info.to_json()["unread"] == ["answer", "signal", "cancel"]
    assert (await looking.why(handler.run_id)).sentence.endswith(
        "It has 3 messages waiting (answer, signal, cancel) for a worker that knows it."
    )
    second = virtual_clock.engine(url, [asks()])
    with pytest.raises(WorkflowCancelledByUser):
        await second.result(handler.run_id)
    assert (await looking.get(handler.run_id)).unread == ()


async def test_what_waits_for_a_parked_run_is_said(
    sqlite_engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    handler = await sqlite_engine.start(asks())
    await sqlite_engine.park(handler.run_id, "look at this")
    await virtual_clock.settle()
    assert (await sqlite_engine.get(handler.run_id)).status is RunStatus.PARKED
    await sqlite_engine.signal(handler.run_id, Answer(text="kept"))
    why = (await sqlite_engine.why(handler.run_id)).sentence
    assert why.endswith("It has 1 message waiting (signal) for the resumed run.")
