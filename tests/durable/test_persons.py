"""What people do to runs: cancel, park, resume, fork, retry; and what a run says of itself."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.durable.flows import Answer, Asks, Fails, Linear, Middle, asks

from stepwell import Context, StartEvent, StopEvent, Workflow, step
from stepwell.errors import WorkflowCancelledByUser, WorkflowRuntimeError
from stepwell.testing import History, HookedEngine, VirtualClock
from stepwell.values import RunStatus


def url_of(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/runs.db?durability=process"


class Busy(Workflow):
    @step
    async def work(self, ev: StartEvent) -> StopEvent:
        await asyncio.sleep(3600)
        return StopEvent(result="done")


# --- cancel --------------------------------------------------------------------------------------


async def test_a_running_run_is_cancelled(
    sqlite_engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    handler = await sqlite_engine.start(Busy(timeout=None))
    await virtual_clock.settle()
    assert await sqlite_engine.cancel(handler.run_id, "not wanted")
    with pytest.raises(WorkflowCancelledByUser, match="not wanted"):
        await handler
    assert virtual_clock.elapsed < 5
    info = await sqlite_engine.get(handler.run_id)
    assert (info.status, info.owner) == (RunStatus.CANCELLED, None)


async def test_a_waiting_run_that_nobody_holds_is_cancelled(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    flow = asks()
    first = virtual_clock.engine(url_of(tmp_path), [flow])
    run_id = (await first.start(flow)).run_id
    await virtual_clock.settle()
    await first.stop()
    looker = virtual_clock.engine(url_of(tmp_path), worker=False)
    assert await looker.cancel(run_id)
    await looker.stop()
    second = virtual_clock.engine(url_of(tmp_path), [flow])
    with pytest.raises(WorkflowCancelledByUser):
        await second.result(run_id)


async def test_a_queued_run_is_cancelled_and_none_of_its_steps_begins(
    sqlite_engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    began: list[int] = []

    class One(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            began.append(ev.n)
            await asyncio.sleep(60)
            return StopEvent(result=ev.n)

    flow = One(num_concurrent_runs=1, timeout=None)
    first = await sqlite_engine.start(flow, n=1)
    await virtual_clock.settle()  # of two that are queued at the same time, either may be first
    second = await sqlite_engine.start(flow, n=2)
    await virtual_clock.settle()
    assert (await sqlite_engine.get(second.run_id)).status is RunStatus.QUEUED
    assert await sqlite_engine.cancel(second.run_id)
    with pytest.raises(WorkflowCancelledByUser):
        await second
    assert await first == 1
    assert began == [1]


async def test_a_parked_run_is_cancelled_at_once(
    sqlite_engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    handler = await sqlite_engine.start(asks())
    await sqlite_engine.park(handler.run_id, "let me look")
    await virtual_clock.settle()
    assert (await sqlite_engine.get(handler.run_id)).status is RunStatus.PARKED
    assert await sqlite_engine.cancel(handler.run_id)
    assert (await sqlite_engine.get(handler.run_id)).status is RunStatus.CANCELLED
    with pytest.raises(WorkflowCancelledByUser):
        await handler


async def test_cancelling_by_the_handler_waits_for_the_end(sqlite_engine: HookedEngine) -> None:
    handler = await sqlite_engine.start(asks())
    await handler.cancel_run()
    assert handler.is_done()
    assert (await sqlite_engine.get(handler.run_id)).status is RunStatus.CANCELLED


# --- park and resume -----------------------------------------------------------------------------


async def test_a_parked_run_says_why_and_goes_on_when_it_is_resumed(
    sqlite_engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    engine = sqlite_engine
    handler = await engine.start(Busy(timeout=None))
    await virtual_clock.settle()
    await engine.park(handler.run_id, "the disk is being changed")
    await virtual_clock.settle()
    why = await engine.why(handler.run_id)
    assert why.status is RunStatus.PARKED
    assert "the disk is being changed" in why.sentence
    assert "resume" in why.sentence
    await virtual_clock.advance(timedelta(days=1))
    assert not handler.is_done()
    await engine.resume(handler.run_id)
    assert await handler == "done"


async def test_only_a_parked_run_can_be_resumed(sqlite_engine: HookedEngine) -> None:
    handler = await sqlite_engine.start(asks())
    with pytest.raises(WorkflowRuntimeError, match="not parked"):
        await sqlite_engine.resume(handler.run_id)


def versions() -> tuple[type[Workflow], type[Workflow]]:
    """Two versions of a workflow: the second lacks the step that a run of the first is at."""

    class Old(Workflow):
        @step
        async def first(self, ev: StartEvent) -> Middle:
            return Middle()

        @step
        async def approve(self, ctx: Context, ev: Middle) -> StopEvent:
            got = await ctx.wait_for_event(Answer, waiter_id="q", timeout=None)
            return StopEvent(result=got.text)

    class New(Workflow):
        @step
        async def first(self, ev: StartEvent) -> Middle:
            return Middle()

        @step
        async def check(self, ctx: Context, ev: Middle) -> StopEvent:
            return StopEvent()

    return Old, New


async def test_a_run_whose_step_is_gone_is_parked_and_goes_on_when_it_is_back(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    old, new = versions()
    first = virtual_clock.engine(url_of(tmp_path), [old(timeout=None, workflow_name="w")])
    run_id = (await first.start("w")).run_id
    await virtual_clock.settle()
    await first.stop()

    second = virtual_clock.engine(url_of(tmp_path), [new(timeout=None, workflow_name="w")])
    ((info, misfit),) = await second.check()
    assert info.id == run_id
    assert "approve" in str(misfit)
    await second.signal(run_id, Answer(text="yes"), question="q")
    await virtual_clock.settle()
    parked = await second.get(run_id)
    assert parked.status is RunStatus.PARKED
    assert "'approve'" in str(parked.reason)
    assert "deploy code" in (await second.why(run_id)).sentence
    await second.stop()

    third = virtual_clock.engine(url_of(tmp_path), [old(timeout=None, workflow_name="w")])
    await third.resume(run_id)
    assert await third.result(run_id) == "yes"  # what was accepted meanwhile is not lost


async def test_a_run_that_cannot_be_decoded_is_parked_and_nothing_of_it_is_changed(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    class Old(Workflow):
        @step
        async def first(self, ctx: Context, ev: StartEvent) -> Middle:
            return Middle(n=1)

        @step
        async def wait(self, ctx: Context, ev: Middle) -> StopEvent:
            await ctx.sleep(60)
            return StopEvent(result=ev.n)

    wider = type("Middle", (Middle,), {"__annotations__": {"m": int}, "__module__": __name__})

    class New(Workflow):
        @step
        async def first(self, ctx: Context, ev: StartEvent) -> wider:  # type: ignore[valid-type]
            return wider(m=1)  # pyright: ignore[reportCallIssue] - made by hand above

        @step
        async def wait(self, ctx: Context, ev: wider) -> StopEvent:  # type: ignore[valid-type]
            return StopEvent()

    first = virtual_clock.engine(url_of(tmp_path), [Old(timeout=None, workflow_name="w")])
    run_id = (await first.start("w")).run_id
    await virtual_clock.settle()
    before = await first.journal(run_id)
    await first.stop()

    second = virtual_clock.engine(url_of(tmp_path), [New(timeout=None, workflow_name="w")])
    await second.start_up()
    await virtual_clock.advance(120)
    info = await second.get(run_id)
    assert info.status is RunStatus.PARKED
    assert "can't be read" in str(info.reason)
    assert (await second.journal(run_id))[: len(before)] == before
    await second.stop()

    third = virtual_clock.engine(url_of(tmp_path), [Old(timeout=None, workflow_name="w")])
    await third.resume(run_id)
    assert await third.result(run_id) == 1


async def test_runs_of_an_unknown_workflow_are_left_alone_and_said(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    first = virtual_clock.engine(url_of(tmp_path), [asks(workflow_name="old")])
    run_id = (await first.start("old")).run_id
    await virtual_clock.settle()
    await first.stop()
    second = virtual_clock.engine(url_of(tmp_path), [Linear()])
    await second.start_up()
    await second.signal(run_id, "Answer", {"text": "x"}, question="q")
    await virtual_clock.settle()
    why = await second.why(run_id)
    assert "no live worker knows workflow 'old'" in why.sentence
    ((_, misfit),) = await second.check()
    assert "'old'" in str(misfit)
    await second.stop()
    third = virtual_clock.engine(url_of(tmp_path), [asks(workflow_name="old")])
    assert await third.result(run_id) == "x"


# --- copies --------------------------------------------------------------------------------------


async def test_a_fork_goes_on_from_a_step_with_other_input(sqlite_engine: HookedEngine) -> None:
    handler = await sqlite_engine.start(Linear, n=3)
    assert await handler == 6
    fork = await sqlite_engine.fork(handler.run_id, step="second", input={"n": 50})
    assert await fork == 100
    (await History.of(fork)).step("first").ran(times=1)
    assert await handler == 6
    again = await sqlite_engine.fork(handler.run_id, input={"n": 7})
    assert await again == 14


async def test_a_fork_of_a_prefix_goes_on_from_there(
    sqlite_engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    engine = sqlite_engine
    handler = await engine.start(asks())
    await virtual_clock.settle()
    rows = await engine.journal(handler.run_id)
    await engine.answer(handler.run_id, {"text": "Ann"})
    assert await handler == "Ann"
    fork = await engine.fork(handler.run_id, seq=rows[-1][0], new_id="copy")
    await virtual_clock.settle()
    await engine.answer("copy", {"text": "Bob"})
    assert await fork == "Bob"
    with pytest.raises(WorkflowRuntimeError, match="journal rows"):
        await engine.fork(handler.run_id, seq=99)
    with pytest.raises(WorkflowRuntimeError, match=r"never came to step 'nowhere'; it was at \w+$"):
        await engine.fork(handler.run_id, step="nowhere")


async def test_a_failed_run_is_tried_again_as_a_new_one(
    sqlite_engine: HookedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = sqlite_engine
    handler = await engine.start(Fails, n=9)
    with pytest.raises(LookupError, match="no such thing"):
        await handler
    monkeypatch.setattr(Fails, "broken", False)
    again = await engine.retry(handler.run_id)
    assert await again == 9
    assert (await engine.get(handler.run_id)).status is RunStatus.FAILED
    (await History.of(again)).completed().step("first").ran(times=1)
    fine = await engine.start(Linear)
    await fine
    with pytest.raises(WorkflowRuntimeError, match="not ended by a failed step"):
        await engine.retry(fine.run_id)


# --- why -----------------------------------------------------------------------------------------


async def test_why_says_what_a_run_waits_for_and_what_would_move_it(
    sqlite_engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    engine = sqlite_engine
    asking = await engine.start(asks())
    busy = await engine.start(Busy(timeout=None))
    await virtual_clock.advance(120)
    why = await engine.why(asking.run_id)
    assert why.status is RunStatus.WAITING
    assert "Answer (question 'q') in step 'ask'" in why.sentence
    assert "2.0 min" in why.sentence
    assert why.waits[0].question == {"prefix": "name?"}
    why = await engine.why(busy.run_id)
    assert why.status is RunStatus.RUNNING
    assert "work" in why.sentence
    assert engine.worker_id in why.sentence


async def test_why_is_a_sentence_for_every_status(
    sqlite_engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    engine = sqlite_engine
    flows: list[Any] = [Linear(), Fails(), asks(), Busy(timeout=5.0)]
    runs = [(await engine.start(flow)).run_id for flow in flows]
    for _run in runs[:2]:
        await virtual_clock.settle()
    seen = {(await engine.get(run)).status for run in runs}
    assert seen == {
        RunStatus.COMPLETED,
        RunStatus.FAILED,
        RunStatus.WAITING,
        RunStatus.RUNNING,
    }
    await engine.cancel(runs[2], "enough")
    await virtual_clock.advance(10)
    sentences = [(await engine.why(run)).sentence for run in runs]
    assert sentences[0].startswith("completed at 2026-01-01")
    assert "no such thing" in sentences[1]
    assert "enough" in sentences[2]
    assert sentences[3].startswith("timed_out")
    assert all("Nothing will move it again." in sentence for sentence in sentences)


async def test_asks_and_their_names_are_all_different(sqlite_engine: HookedEngine) -> None:
    class Many(Workflow):
        @step(num_workers=4)
        async def split(self, ev: StartEvent) -> list[Middle]:
            return [Middle(n=n) for n in range(30)]

        @step(num_workers=30)
        async def ask(self, ctx: Context, ev: Middle) -> Answer:
            return await ctx.wait_for_event(Answer, requirements={"text": str(ev.n)}, timeout=None)

        @step
        async def join(self, evs: list[Answer]) -> StopEvent:
            return StopEvent(result=sorted(int(e.text) for e in evs))

    handler = await sqlite_engine.start(Many(timeout=None))
    why = await sqlite_engine.why(handler.run_id)
    for _ in range(50):
        if len(why.waits) == 30:
            break
        await asyncio.sleep(1)
        why = await sqlite_engine.why(handler.run_id)
    assert len({wait.id for wait in why.waits}) == 30
    assert len((await sqlite_engine.get(handler.run_id)).waits) == 20
    for n in range(30):
        await handler.send_event(Answer(text=str(n)))
    assert await handler == list(range(30))


def test_the_flows_are_what_they_say() -> None:
    assert Asks().workflow_name.endswith("Asks")
