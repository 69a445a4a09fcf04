"""Plain functions as steps: in threads, and in processes of their own."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import threading
import time
from pathlib import Path

import pytest

from stepwell import Context, Event, StartEvent, StopEvent, Workflow, step
from stepwell.errors import ExecutionRefused, StepTimeoutError
from stepwell.events import Event as AnyEvent

colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


class A(Event):
    n: int = 0


async def test_a_plain_function_runs_in_a_thread_with_the_context_variables() -> None:
    class Sync(Workflow):
        @step
        def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            main = threading.current_thread() is threading.main_thread()
            return StopEvent(result=(main, colour.get(), Context.get_step_context() is ctx))

    colour.set("red")
    assert await Sync().run() == (False, "red", True)


async def test_a_thread_may_send_write_and_collect() -> None:
    class Sync(Workflow):
        @step
        def fork(self, ctx: Context, ev: StartEvent) -> A | None:
            for n in range(3):
                ctx.write_event_to_stream(A(n=n))
                ctx.send_event(A(n=n))
            return None

        @step(num_workers=1)
        def join(self, ctx: Context, ev: A) -> StopEvent | None:
            got = ctx.collect_events(ev, [A] * 3)
            return None if got is None else StopEvent(result=[e.n for e in got])  # type: ignore[attr-defined]

    handler = Sync(timeout=30).run()
    events: list[AnyEvent] = [ev async for ev in handler.stream_events()]
    assert events[:3] == [A(n=0), A(n=1), A(n=2)]
    assert await handler == [0, 1, 2]


async def test_an_error_in_a_thread_is_the_steps_error() -> None:
    class Sync(Workflow):
        @step
        def only(self, ev: StartEvent) -> StopEvent:
            raise KeyError("in a thread")

    with pytest.raises(KeyError, match="in a thread"):
        await Sync().run()


async def test_threads_do_not_hold_up_the_loop() -> None:
    release = threading.Event()

    class Sync(Workflow):
        @step
        def only(self, ev: StartEvent) -> StopEvent:
            assert release.wait(60)
            return StopEvent(result="released")

    handler = Sync().run()
    await asyncio.sleep(0.01)
    release.set()
    assert await handler == "released"


async def test_a_thread_that_takes_too_long_is_left_alone_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    release, ended = threading.Event(), threading.Event()

    class Sync(Workflow):
        @step(timeout=0.02)
        def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            release.wait(60)
            try:
                ctx.send_event(A())
            except asyncio.CancelledError:
                ended.set()
            return StopEvent(result="too late")

    with caplog.at_level(logging.WARNING, logger="stepwell"), pytest.raises(StepTimeoutError):
        await Sync().run()
    release.set()
    assert "a thread can't be" in caplog.text
    assert await asyncio.to_thread(ended.wait, 60)


# --- processes: everything has to be importable there --------------------------------------------


class InProcess(Workflow):
    def __init__(self, factor: int = 2, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.factor = factor

    @step(execution="process")
    def only(self, ev: StartEvent) -> StopEvent:
        if ev.get("fail"):
            raise KeyError("in a process")
        if ev.get("die"):
            os._exit(3)
        if ev.get("path"):
            Path(ev.path).write_text(str(os.getpid()))
            time.sleep(600)  # noqa: TID251 - it is killed long before
        return StopEvent(result=(os.getpid(), ev.n * self.factor))


class Unsendable(Workflow):
    @step(execution="process")
    def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
        return StopEvent()


class UnsendableResult(Workflow):
    @step(execution="process")
    def only(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=threading.Lock())


async def test_a_function_runs_in_a_process_of_its_own() -> None:
    pid, product = await InProcess(factor=3).run(n=14)  # type: ignore[misc]
    assert pid != os.getpid()
    assert product == 42


async def test_a_workflow_that_has_run_on_and_is_limited_can_still_be_sent() -> None:
    flow = InProcess(num_concurrent_runs=1, verbose=False)
    first = flow.run(n=1)
    second = flow.run(n=2)
    assert (await first)[1] == 2  # type: ignore[index]
    assert (await second)[1] == 4  # type: ignore[index]


async def test_an_error_in_a_process_is_the_steps_error() -> None:
    with pytest.raises(KeyError, match="in a process"):
        await InProcess().run(fail=True)


async def test_a_process_that_dies_fails_the_step_and_says_how() -> None:
    with pytest.raises(ExecutionRefused, match="its process died with exit code 3"):
        await InProcess().run(die=True)


async def test_what_can_not_be_sent_is_refused() -> None:
    with pytest.raises(ExecutionRefused, match="can't be sent to another process"):
        await Unsendable().run()
    with pytest.raises(ExecutionRefused, match="its result can't be sent"):
        await UnsendableResult().run()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def written(path: Path) -> str:
    return path.read_text() if path.exists() else ""


async def started(path: Path) -> int:
    async with asyncio.timeout(60):
        while not written(path):  # noqa: ASYNC110 - another process says so, in a file
            await asyncio.sleep(0.02)
    return int(written(path))


async def test_cancelling_kills_the_process(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    handler = InProcess().run(path=str(path), n=1)
    pid = await started(path)
    assert alive(pid)
    await handler.cancel_run()
    async with asyncio.timeout(60):
        while alive(pid) or len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)


class Hurried(InProcess):
    @step(execution="process", timeout=0.1)
    def only(self, ev: StartEvent) -> StopEvent:
        return super().only(ev)


async def test_a_process_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    with pytest.raises(StepTimeoutError):
        await Hurried().run(path=str(tmp_path / "pid"), n=1)
