"""Ended runs are deleted after their time, whole, and live ones never."""

from __future__ import annotations

import asyncio

import pytest

from stepwell import Context, Engine, HumanResponseEvent, StartEvent, StopEvent, Workflow, step
from stepwell.errors import RunNotFound


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


async def test_ended_runs_are_deleted_after_their_time_and_live_ones_are_not() -> None:
    async with Engine("memory://", lease=0.06, retention=0.0) as engine:
        waits = await engine.start(Waits)
        ended = await engine.start(Ends)
        await ended
        async with asyncio.timeout(60):
            while True:
                try:
                    await engine.get(ended.run_id)
                except RunNotFound:
                    break
                await asyncio.sleep(0.01)
        assert (await engine.get(waits.run_id)).status == "waiting"


async def test_without_retention_ended_runs_are_kept() -> None:
    async with Engine("memory://", lease=0.03, retention=None) as engine:
        ended = await engine.start(Ends)
        await ended
        await asyncio.sleep(0.05)
        assert (await engine.get(ended.run_id)).version == "7"


async def test_a_retention_that_has_not_passed_keeps_runs() -> None:
    async with Engine("memory://", lease=0.03, retention=3600) as engine:
        ended = await engine.start(Ends)
        await ended
        await asyncio.sleep(0.05)
        with pytest.raises(RunNotFound):
            await engine.get("another")
        assert (await engine.get(ended.run_id)).status == "completed"
