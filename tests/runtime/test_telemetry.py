"""What is told about runs."""

from __future__ import annotations

from typing import Any

import pytest

from stepwell import (
    Context,
    Engine,
    HumanResponseEvent,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from stepwell.retry_policy import retry_policy, stop_after_attempt, wait_none
from stepwell.runtime.telemetry import listen


class Broken(Workflow):
    @step(retry_policy=retry_policy(wait=wait_none(), stop=stop_after_attempt(2)))
    async def work(self, ev: StartEvent) -> StopEvent:
        raise ValueError("no good")


async def test_a_failure_says_which_step_and_which_attempt_it_was() -> None:
    """Also the last one, when the run has forgotten the work already."""
    heard: list[tuple[str, Any, Any]] = []

    def hear(name: str, fields: dict[str, Any]) -> None:
        if name in ("step.started", "step.retrying", "step.failed"):
            heard.append((name, fields.get("step"), fields.get("attempt")))

    stop = listen(hear)
    try:
        with pytest.raises(ValueError, match="no good"):
            await Broken().run()
    finally:
        stop()
    assert heard == [
        ("step.started", "work", 1),
        ("step.retrying", "work", 1),
        ("step.started", "work", 2),
        ("step.failed", "work", 2),
    ]


class Waits(Workflow):
    @step
    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        await ctx.wait_for_event(HumanResponseEvent)
        return StopEvent()


async def test_an_event_that_comes_early_is_no_reason_to_worry(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Engine("memory://", [Waits(timeout=None)]) as engine:
        caplog.clear()
        caplog.set_level("INFO", "stepwell")
        handler = await engine.start(Waits)
        await engine.signal(handler.run_id, "Late")
        await engine.signal(handler.run_id, "HumanResponseEvent", {"response": "x"})
        await handler
    told = [r for r in caplog.records if getattr(r, "stepwell_event", "") == "event.unhandled"]
    assert {r.levelname for r in told} == {"INFO"}
