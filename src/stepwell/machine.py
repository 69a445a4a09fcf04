"""Durable state machines: processes of small steps that survive everything.

    from datetime import timedelta
    from pydantic import BaseModel
    from stepwell.machine import complete, engine, get_context, sleep, step, wait, workflow

    @workflow("onboarding")
    class Onboarding:
        class Context(BaseModel):
            user_id: int
            confirmed: bool = False

        @step(start=True)
        def welcome(self):
            return wait.for_signal("confirmed", timeout=timedelta(days=7), on_timeout="give_up")

        @step()
        def finish(self):
            return complete(user_id=get_context().user_id)

        @step()
        def give_up(self):
            return complete(expired=True)

    run = engine.start("onboarding", user_id=1)
    engine.signal("confirmed", {"confirmed": True}, run_id=run.id)

`engine` lives in a background thread and keeps its runs in `stepwell.db` unless STEPWELL_STORE, or
`engine.configure(...)`, says otherwise.
"""

from __future__ import annotations

from stepwell.authoring.machine.body import BrokenRule
from stepwell.authoring.machine.context import get_context
from stepwell.authoring.machine.decorators import event_workflow, on_fail, step, workflow
from stepwell.authoring.machine.define import Retry
from stepwell.authoring.machine.events import WorkflowEvent
from stepwell.authoring.machine.returns import (
    complete,
    fail,
    goto,
    run_subflow,
    sleep,
    wait,
    wait_for_event,
)
from stepwell.authoring.machine.status import SubflowResult, WorkflowStatus
from stepwell.runtime.machine.engine import WorkflowEngine
from stepwell.runtime.machine.queries import RunSet
from stepwell.runtime.machine.runs import StepExecution, WorkflowRun, default_engine

engine = WorkflowEngine()
"""The default engine: started on first use, stopped at exit."""

default_engine(engine)

__all__ = [
    "BrokenRule",
    "Retry",
    "RunSet",
    "StepExecution",
    "SubflowResult",
    "WorkflowEngine",
    "WorkflowEvent",
    "WorkflowRun",
    "WorkflowStatus",
    "complete",
    "engine",
    "event_workflow",
    "fail",
    "get_context",
    "goto",
    "on_fail",
    "run_subflow",
    "sleep",
    "step",
    "wait",
    "wait_for_event",
    "workflow",
]
