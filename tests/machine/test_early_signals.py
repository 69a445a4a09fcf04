"""Signals that come before the first step of a run has ended."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import BaseModel
from tests.crash.machines import inside

from stepwell.machine import complete, goto, step, wait, workflow
from stepwell.testing import VirtualClock


@workflow("slow-beginning")
class Slow:
    class Context(BaseModel):
        needed: int
        amount: int = 0

    context: Context

    @step(start=True)
    async def begin(self) -> object:
        await asyncio.sleep(10)
        return goto(self.ask)

    @step()
    async def ask(self) -> object:
        return wait.for_signal("paid", then=self.end)

    @step()
    async def end(self) -> object:
        return complete(total=self.context.needed + self.context.amount)


async def test_a_signal_while_the_first_step_runs_is_checked_and_kept(
    virtual_clock: VirtualClock,
) -> None:
    core = virtual_clock.engine()
    engine = inside(core)
    run = await engine.astart(Slow, needed=1)
    await virtual_clock.advance(1)
    with pytest.raises(ValueError, match="amount: Input should be a valid integer"):
        await engine.asignal("paid", {"amount": "many"}, run_id=run.id)
    assert await engine.asignal("paid", {"amount": 4}, run_id=run.id) == 1
    assert await core.result(run.id) == {"total": 5}
