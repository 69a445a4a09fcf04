"""Cancelling: from wherever it comes, the exit steps run to their end."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import Any

import pytest

from stepwell.errors import WorkflowCancelledByUser
from stepwell.pipeline import Pipeline
from stepwell.values import RunStatus


class Slow:
    """A pipeline that is in its first step until it is cancelled, and what it did."""

    def __init__(self, exit_pauses: int = 3) -> None:
        self.log: list[str] = []
        self.running = asyncio.Event()
        self.in_exit = asyncio.Event()
        self.exit_pauses = exit_pauses
        self.pipeline = Pipeline().add_step(self.slow).add_step(self.never)
        self.pipeline.add_error_step(self.never, name="error")
        self.pipeline.add_exit_step(self.clean).add_exit_step(self.last)

    async def slow(self) -> None:
        self.running.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.log.append("cancelled")
            raise

    async def never(self) -> None:
        self.log.append("never")

    async def clean(self, ctx: dict[str, Any]) -> None:
        self.in_exit.set()
        for _ in range(self.exit_pauses):
            await asyncio.sleep(0.01)
        self.log.append("clean")

    async def last(self) -> None:
        self.log.append("last")

    def check(self) -> None:
        assert sorted(self.log[:2]) == ["cancelled", "clean"]
        assert self.log[2:] == ["last"]
        assert self.pipeline.result is not None
        assert self.pipeline.result.status is RunStatus.CANCELLED


async def from_task(slow: Slow) -> None:
    slow.pipeline.cancel()


async def from_thread(slow: Slow) -> None:
    await asyncio.to_thread(slow.pipeline.cancel)


async def from_signal_handler(slow: Slow) -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: slow.pipeline.cancel())
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("cancel", [from_task, from_thread, from_signal_handler])
async def test_cancel_from_anywhere(cancel: Any) -> None:
    slow = Slow()
    run = asyncio.create_task(slow.pipeline.run())
    await slow.running.wait()
    await cancel(slow)
    result = await run
    slow.check()
    assert isinstance(result.error, WorkflowCancelledByUser)
    assert not result.handled
    assert slow.pipeline.cancel() is False


async def test_a_cancelled_caller_cancels_the_run_and_waits_for_its_exit() -> None:
    slow = Slow()
    run = asyncio.create_task(slow.pipeline.run())
    await slow.running.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    slow.check()


async def test_a_timeout_around_it() -> None:
    slow = Slow()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await slow.pipeline.run()
    slow.check()


@pytest.mark.parametrize("again", ["cancel()", "caller", "both"])
async def test_a_cancel_during_clean_up_does_not_cut_it_short(again: str) -> None:
    slow = Slow()
    run = asyncio.create_task(slow.pipeline.run())
    await slow.running.wait()
    slow.pipeline.cancel("why not")
    await slow.in_exit.wait()
    for _ in range(2):
        if again != "caller":
            slow.pipeline.cancel()
        if again != "cancel()":
            run.cancel()
        await asyncio.sleep(0)
    if again == "cancel()":
        assert str((await run).error) == "why not"
    else:
        with pytest.raises(asyncio.CancelledError):
            await run
    slow.check()


async def test_a_cancel_during_the_clean_up_of_a_success() -> None:
    slow = Slow()
    pipeline = Pipeline().add_step(slow.last).add_exit_step(slow.clean)
    run = asyncio.create_task(pipeline.run())
    await slow.in_exit.wait()
    pipeline.cancel()
    assert (await run).status is RunStatus.COMPLETED
    assert slow.log == ["last", "clean"]


def test_a_program_that_ends_lets_clean_up_run() -> None:
    found: list[Slow] = []

    async def main() -> None:
        slow = Slow()
        found.append(slow)
        run = asyncio.create_task(slow.pipeline.run())
        await slow.running.wait()
        assert not run.done()

    asyncio.run(main())
    found[0].check()


def test_run_sync_is_interrupted() -> None:
    slow = Slow()
    before = threading.active_count()

    async def interrupts() -> None:
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(60)

    pipeline = Pipeline().add_step(interrupts).add_exit_step(slow.last)
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(pipeline.run())
    assert slow.log == ["last"]
    assert threading.active_count() == before


async def test_a_step_that_will_not_be_cancelled() -> None:
    log: list[str] = []
    running = asyncio.Event()

    async def stubborn() -> str:
        running.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            log.append("no")
        return "done"

    async def after() -> None:
        log.append("after")

    pipeline = Pipeline().add_step(stubborn).add_step(after).add_exit_step(after, name="exit")
    run = asyncio.create_task(pipeline.run())
    await running.wait()
    pipeline.cancel()
    result = await run
    assert result.status is RunStatus.CANCELLED
    assert sorted(log) == ["after", "no"]  # the exit step
    assert "stubborn" not in result


async def test_a_failing_exit_step_of_a_cancelled_run_is_raised() -> None:
    slow = Slow()

    async def fails() -> None:
        raise OSError("late")

    slow.pipeline.add_exit_step(fails)
    run = asyncio.create_task(slow.pipeline.run())
    await slow.running.wait()
    slow.pipeline.cancel()
    with pytest.raises(ExceptionGroup) as caught:
        await run
    assert [str(e) for e in caught.value.exceptions] == ["cancelled", "late"]
    slow.check()


async def test_all_runs_of_a_pipeline_are_cancelled() -> None:
    slow = Slow()
    runs = [asyncio.create_task(slow.pipeline.run()) for _ in range(3)]
    await slow.running.wait()
    await asyncio.sleep(0)
    assert slow.pipeline.cancel()
    assert {(await run).status for run in runs} == {RunStatus.CANCELLED}
