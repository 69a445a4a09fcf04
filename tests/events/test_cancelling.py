"""Cancelling runs, and what is left when their loop goes away."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap

import pytest

from stepwell import Event, HumanResponseEvent, StartEvent, StopEvent, Workflow, step
from stepwell.errors import WorkflowCancelledByUser
from stepwell.events import WorkflowCancelledEvent


class A(Event):
    n: int = 0


async def test_cancelling_stops_the_steps_and_runs_their_finally_blocks() -> None:
    log: list[str] = []

    class Hang(Workflow):
        @step
        async def fork(self, ev: StartEvent) -> list[A]:
            return [A(n=n) for n in range(3)]

        @step
        async def hang(self, ev: A) -> HumanResponseEvent:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                log.append(f"left {ev.n}")
            return HumanResponseEvent()

        @step
        async def join(self, evs: list[HumanResponseEvent]) -> StopEvent:
            return StopEvent()

    handler = Hang().run()
    for _ in range(3):
        await asyncio.sleep(0)
    await handler.cancel_run()
    assert handler.is_done()
    assert handler.get_stop_event() == WorkflowCancelledEvent()
    for _ in range(2):
        with pytest.raises(WorkflowCancelledByUser):
            await handler
    for _ in range(3):
        await asyncio.sleep(0)
    assert sorted(log) == ["left 0", "left 1", "left 2"]
    await handler.cancel_run()  # again: nothing


async def test_no_step_starts_after_a_cancel() -> None:
    started: list[str] = []

    class Chain(Workflow):
        @step
        async def first(self, ev: StartEvent) -> A:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                started.append("first was told")
            return A()

        @step
        async def second(self, ev: A) -> StopEvent:
            started.append("second")
            return StopEvent()

    handler = Chain().run()
    await asyncio.sleep(0)
    await handler.cancel_run()
    await asyncio.sleep(0.01)
    assert started == ["first was told"]


async def test_a_run_may_be_cancelled_before_it_did_anything() -> None:
    entered = False

    class Quick(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            nonlocal entered
            entered = True
            return StopEvent()

    handler = Quick().run()
    await handler.cancel_run()
    with pytest.raises(WorkflowCancelledByUser):
        await handler
    await asyncio.sleep(0)
    assert not entered


async def test_a_step_may_cancel_its_own_run() -> None:
    went_on = False
    handlers: list = []

    class Own(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            nonlocal went_on
            await handlers[0].cancel_run()
            await asyncio.Event().wait()
            went_on = True
            return StopEvent()

    handlers.append(Own().run())
    with pytest.raises(WorkflowCancelledByUser):
        await handlers[0]
    assert not went_on


async def test_the_older_names_still_work_and_say_so() -> None:
    class Hang(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            if ev.get("fail"):
                raise KeyError("k")
            if ev.get("hang"):
                await asyncio.Event().wait()
            return StopEvent(result=1)

    def ask(handler: object, name: str) -> object:
        with pytest.warns(DeprecationWarning, match=name):
            return getattr(handler, name)()

    hanging = Hang().run(hang=True)
    assert ask(hanging, "done") is False
    assert ask(hanging, "exception") is None
    assert ask(hanging, "cancel") is True
    with pytest.raises(WorkflowCancelledByUser):
        await hanging
    assert ask(hanging, "cancelled") is True
    assert ask(hanging, "cancel") is False
    failed = Hang().run(fail=True)
    with pytest.raises(KeyError):
        await failed
    assert repr(ask(failed, "exception")) == "KeyError('k')"
    fine = Hang().run()
    await fine
    assert (ask(fine, "done"), ask(fine, "cancelled"), ask(fine, "exception")) == (
        True,
        False,
        None,
    )
    assert str(fine).startswith("WorkflowHandler(workflow=")
    assert f"run_id={fine.run_id}, result=1)" in str(fine)


async def test_stop_event_result_waits_and_does_not_raise() -> None:
    class Fails(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            raise ValueError

    handler = Fails().run()
    assert handler.get_stop_event() is None
    assert not handler.is_done()
    event = await handler.stop_event_result()
    assert event is handler.get_stop_event() or event == handler.get_stop_event()
    assert handler.is_done()


async def test_the_one_who_waits_may_give_up_without_harm_to_the_run() -> None:
    go = asyncio.Event()

    class Slow(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            await go.wait()
            return StopEvent(result="there")

    handler = Slow().run()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(_await(handler), 0.01)
    go.set()
    assert await handler == "there"


async def _await(handler: object) -> object:
    return await handler  # type: ignore[misc]


@pytest.mark.parametrize(
    "waiting", ["asyncio.Event().wait()", "ctx.sleep(60)", "asyncio.sleep(60)"]
)
def test_a_loop_that_ends_in_the_middle_of_a_run_ends_cleanly(waiting: str) -> None:
    script = f"""
    import asyncio
    from stepwell import Context, Event, StartEvent, StopEvent, Workflow, step

    entered = []

    class A(Event):
        pass

    class Hang(Workflow):
        @step
        async def fork(self, ev: StartEvent) -> list[A]:
            return [A(), A()]

        @step
        async def hang(self, ctx: Context, ev: A) -> StopEvent:
            entered.append(ev)
            try:
                await {waiting}
            finally:
                await asyncio.sleep(0)
                print("left")
            return StopEvent()

        @step
        async def quick(self, evs: list[A]) -> None:
            return None

    async def main():
        handler = Hang().run()
        while len(entered) < 2:
            await asyncio.sleep(0)
        await asyncio.sleep(0.02)

    asyncio.run(main(), debug=True)
    print("ended")
    """
    ran = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        timeout=60,
    )
    assert ran.stdout.split() == ["left", "left", "ended"], ran.stdout + ran.stderr
    assert ran.stderr == ""
    assert ran.returncode == 0
