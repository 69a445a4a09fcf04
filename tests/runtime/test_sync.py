"""The sync bridge: what wants to end the program ends the call, and not the loop behind it."""

from __future__ import annotations

import sys

import pytest

from stepwell import StartEvent, StopEvent, Workflow, run_sync, step


class Leaves(Workflow):
    @step
    async def only(self, ev: StartEvent) -> StopEvent:
        if ev.code:
            sys.exit(ev.code)
        return StopEvent(result="stayed")


def test_a_step_that_calls_exit_ends_its_run_and_leaves_the_loop_to_others() -> None:
    with pytest.raises(SystemExit, match="3"):
        run_sync(Leaves(), code=3)
    assert run_sync(Leaves(), code=0) == "stayed"
