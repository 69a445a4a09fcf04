"""P6: an accepted signal is consumed at most once, survives restarts, and may arrive before anyone
waits.

Catches: a signal that is kept in memory only until a wait takes it, one that is taken from the
inbox in another transaction than the one that says what came of it (killed in between it would be
lost, or answer two waits), and a repetition that is accepted twice.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.promises.processes import Process, deaths, live

from stepwell import (
    Context,
    Engine,
    Event,
    HumanResponseEvent,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)

RUN = "run"


class Twice(Workflow):
    @step
    async def wait(self, ctx: Context, ev: StartEvent) -> StopEvent:
        first = await ctx.wait_for_event(HumanResponseEvent, timeout=None)
        ctx.write_event_to_stream(Event(got=first.response))
        second = await ctx.wait_for_event(HumanResponseEvent, timeout=None)
        return StopEvent(result=[first.response, second.response])


def twice() -> Twice:
    return Twice(timeout=None, workflow_name="twice")


async def accept_early(path: Path) -> None:
    """Start the run and send it the first answer, while nobody advances it."""
    async with Engine(f"sqlite:////{path}", [twice()], worker=False) as engine:
        await engine.start("twice", run_id=RUN)
        answer = HumanResponseEvent(response="a")
        assert await engine.signal(RUN, answer, dedupe="first") is True
        assert await engine.signal(RUN, answer, dedupe="first") is False


async def finish(path: Path) -> tuple[object, list[list[object]]]:
    async with Engine(f"sqlite:////{path}", [twice()]) as engine:
        assert await engine.signal(RUN, HumanResponseEvent(response="a"), dedupe="first") is False
        assert await engine.signal(RUN, HumanResponseEvent(response="b"), dedupe="second") is True
        async with asyncio.timeout(10):
            result = await engine.result(RUN)
        rows = await engine.journal(RUN)
    return result, [entry for _, _, row in rows for entry in row if entry[0] == "got"]  # type: ignore[index,misc]


def test_a_signal_before_the_wait_is_taken_by_one_wait_only(tmp_path: Path) -> None:
    asyncio.run(accept_early(tmp_path / "runs.db"))
    result, answers = asyncio.run(finish(tmp_path / "runs.db"))
    assert result == ["a", "b"]
    assert len(answers) == 2


def _until_first_answer(path: Path):
    async def body(me: Process) -> None:
        async with Engine(me.store(path), [twice()], poll=0.01) as engine:
            async for item in engine.stream(RUN):
                me.say(item.event.got)
                break
        me.say(me.writes)

    return body


@pytest.mark.timeout(60)
def test_a_signal_survives_a_kill_at_any_write_and_is_taken_once(tmp_path: Path) -> None:
    calm = tmp_path / "calm.db"
    asyncio.run(accept_early(calm))
    told = live(_until_first_answer(calm))
    assert told.said[0] == "a"
    writes = told.said[-1]
    for when, number in deaths(writes):
        path = tmp_path / f"{when}{number}.db"
        asyncio.run(accept_early(path))
        live(_until_first_answer(path), kill=(when, number))
        result, answers = asyncio.run(finish(path))
        assert result == ["a", "b"], (when, number)
        assert len(answers) == 2, (when, number)
