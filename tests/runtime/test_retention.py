"""Ended runs are deleted after their time, whole, and live ones never."""

from __future__ import annotations

import pytest

from stepwell import Context, HumanResponseEvent, StartEvent, StopEvent, Workflow, step
from stepwell.errors import RunNotFound
from stepwell.testing import VirtualClock


class Ends(Workflow):
    workflow_version = "7"

    @step
    async def only(self, ev: StartEvent) -> StopEvent:
        return StopEvent()


class Waits(Workflow):
    @step
    async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
        await ctx.wait_for_event(HumanResponseEvent)
        return StopEvent()


async def test_ended_runs_are_deleted_after_their_time_and_live_ones_are_not(
    virtual_clock: VirtualClock,
) -> None:
    engine = virtual_clock.engine("memory://", lease=60, retention=0.0)
    waits = await engine.start(Waits(timeout=None))
    ended = await engine.start(Ends)
    await ended
    await virtual_clock.advance(120)
    with pytest.raises(RunNotFound):
        await engine.get(ended.run_id)
    assert (await engine.get(waits.run_id)).status == "waiting"


async def test_without_retention_ended_runs_are_kept(virtual_clock: VirtualClock) -> None:
    engine = virtual_clock.engine("memory://", lease=60, retention=None)
    ended = await engine.start(Ends)
    await ended
    await virtual_clock.advance(10_000)
    assert (await engine.get(ended.run_id)).version == "7"


async def test_a_retention_that_has_not_passed_keeps_runs(virtual_clock: VirtualClock) -> None:
    engine = virtual_clock.engine("memory://", lease=60, retention=3600)
    ended = await engine.start(Ends)
    await ended
    await virtual_clock.advance(3500)
    assert (await engine.get(ended.run_id)).status == "completed"
    await virtual_clock.advance(200)
    with pytest.raises(RunNotFound):
        await engine.get(ended.run_id)
