"""State machines: finding runs, looking at them, and intervening. Kept in a file, in real time.

python examples/machine_monitoring.py
"""

import tempfile
import threading
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel

from stepwell.machine import (
    WorkflowEngine,
    WorkflowRun,
    WorkflowStatus,
    complete,
    fail,
    get_context,
    sleep,
    step,
    wait,
    workflow,
)

PAUSE = threading.Event()


@workflow("monitored")
class Monitored:
    class Context(BaseModel):
        kind: str
        approved: bool = False

    @step(start=True)
    def begin(self):
        kind = get_context().kind
        if kind == "fails":
            return fail("no such customer")
        if kind == "sleeps":
            return sleep(timedelta(days=30), then=self.end)
        return wait.for_signal("approval_received")

    @step()
    def end(self):
        return complete()


def settled(run: WorkflowRun) -> WorkflowRun:
    """The run once it rests. (Real time: steps run in the background, and this looks again.)"""
    while run.refresh().status in (WorkflowStatus.PENDING, WorkflowStatus.RUNNING):
        PAUSE.wait(0.01)
    return run


def main() -> dict[str, object]:
    """Start some runs, find them again, and end them."""
    ends: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        engine = WorkflowEngine(f"sqlite:///{Path(folder) / 'runs.db'}")
        kinds = ("waits", "sleeps", "fails")
        waits, sleeps, fails = (settled(engine.start(Monitored, kind=kind)) for kind in kinds)

        run = engine.runs.get(id=waits.id)
        ends["one"] = (run.status, run.current_step, run.data)
        ends["failed"] = [
            (run.name, run.error) for run in engine.runs.filter(status=WorkflowStatus.FAILED)
        ]
        waiting = engine.runs.filter(status=WorkflowStatus.WAITING)
        ends["signals"] = [run.waiting_signal for run in waiting if run.waiting_signal]
        ends["sleepers"] = [run.id == sleeps.id for run in waiting if run.wake_at]
        ends["history"] = [(e.step, e.status) for e in fails.step_executions]

        engine.cancel(sleeps.id, "not wanted any more")
        while not sleeps.refresh().status.terminal:
            PAUSE.wait(0.01)
        ends["cancelled"] = (sleeps.status, sleeps.error)
        ends["told"] = engine.signal("approval_received", {"approved": True})
        engine.result(waits.id, timeout=30)
        engine.process_scheduled()  # nothing is due; a worker does it by itself
        ends["counts"] = engine.runs.counts()
        engine.stop()
    return ends


if __name__ == "__main__":
    for name, end in main().items():
        print(f"{name}: {end}")
