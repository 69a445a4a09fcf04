"""What is told about runs."""

from __future__ import annotations

from typing import Any

import pytest

from stepwell import StartEvent, StopEvent, Workflow, step
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
