"""What a run that has ended still says: where it was, and what it had been told."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

from stepwell.machine import WorkflowEngine, goto, on_fail, step, wait, workflow
from stepwell.testing import SynchronousExecutor


def test_a_run_that_completes_by_its_last_wait_was_there(engine: WorkflowEngine) -> None:
    @workflow("last-wait")
    class Flow:
        class Context(BaseModel):
            n: int = 0

        @step(start=True)
        def begin(self):
            return goto(self.end)

        @step()
        def end(self):
            return wait.for_signal("done")

    run = engine.start(Flow)
    engine.signal("done", {"n": 3}, run_id=run.id)
    run.refresh()
    assert (run.status, run.current_step, run.data) == ("completed", "end", {"n": 3})


def test_a_run_that_waited_in_vain_failed_where_it_waited(
    engine: WorkflowEngine, executor: SynchronousExecutor
) -> None:
    @workflow("vain-wait")
    class Flow:
        class Context(BaseModel):
            pass

        @step(start=True)
        def ask(self):
            return wait.for_signal("never", timeout=timedelta(minutes=1), then=self.end)

        @step()
        def end(self):
            return wait.for_signal("done")

    run = engine.start(Flow)
    executor.advance(61)
    run.refresh()
    assert (run.status, run.current_step) == ("failed", "ask")


def test_on_fail_sees_what_woke_the_step_that_failed(engine: WorkflowEngine) -> None:
    seen: list[int] = []

    @workflow("woken-and-failed")
    class Flow:
        class Context(BaseModel):
            n: int = 0

        context: Context

        @step(start=True)
        def ask(self):
            return wait.for_signal("go", then=self.work)

        @step()
        def work(self):
            self.context.n += 1
            raise OSError("no")

        @on_fail
        def mourn(self):
            seen.append(self.context.n)

    run = engine.start(Flow)
    engine.signal("go", {"n": 7}, run_id=run.id)
    run.refresh()
    assert (run.status, run.data, seen) == ("failed", {"n": 7}, [7])
