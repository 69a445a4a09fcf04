"""Errors that can't be told as they are: the run fails with them all the same, and says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stepwell import Context, Engine, StartEvent, StopEvent, Workflow, step
from stepwell.authoring.drawing.run import run_view
from stepwell.events import HumanResponseEvent, InputRequiredEvent
from stepwell.kernel.journal import RunEnded
from stepwell.values import ErrorInfo, RunStatus, where_raised


class Mute(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Delegating(Exception):
    """Has only what something else has."""

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)


ODD = {
    "mute": (Mute(), "(str() of it raised RuntimeError)"),
    "half a pair": (OSError("no file caf\udce9"), "no file caf\\udce9"),
    "delegating": (Delegating("said"), "said"),
}


class Fails(Workflow):
    @step
    async def work(self, ev: StartEvent) -> StopEvent:
        raise ODD[ev.how][0]


@pytest.mark.parametrize("how", ODD)
@pytest.mark.parametrize("url", ["memory://", "sqlite:///{}/runs.db"])
async def test_a_run_fails_with_an_odd_error(how: str, url: str, tmp_path: Path) -> None:
    async with Engine(url.format(tmp_path), [Fails()]) as engine:
        handler = Fails().run(how=how, engine=engine)
        with pytest.raises(type(ODD[how][0])):
            await handler
        info = await engine.get(handler.run_id)
        assert info.status is RunStatus.FAILED
        assert info.reason == ODD[how][1]


class Long(Workflow):
    @step
    async def work(self, ev: StartEvent) -> StopEvent:
        raise ValueError("x" * 1_000_000)


async def test_a_long_error_is_whole_once_and_short_where_runs_are_told_of(tmp_path: Path) -> None:
    async with Engine(f"sqlite:///{tmp_path}/runs.db", [Long()]) as engine:
        handler = Long().run(engine=engine)
        with pytest.raises(ValueError, match="x"):
            await handler
        info = await engine.get(handler.run_id)
        assert info.error is not None
        assert info.error["message"] == "x" * 1_000_000
        assert info.reason == "x" * 999 + "…"
        assert len((await engine.why(handler.run_id)).sentence) < 1200
    ended = RunEnded(RunStatus.FAILED, 0.0, None, ErrorInfo("Error", "x" * 1_000_000))
    assert len(run_view(Long().compiled().definition, [ended]).error) < 1100


class Asks(Workflow):
    @step
    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        got = await ctx.wait_for_event(
            HumanResponseEvent, waiter_event=InputRequiredEvent(), waiter_id="Well?\n- yes\n- no"
        )
        return StopEvent(result=got.response)


async def test_a_question_may_be_called_anything_and_is_answered() -> None:
    async with Engine("memory://", [Asks()]) as engine:
        handler = Asks().run(engine=engine)
        async for event in handler.stream_events():
            if isinstance(event, InputRequiredEvent):
                (wait,) = await engine.waits(handler.run_id)
                await engine.answer(handler.run_id, "yes", question=wait.id)
        assert await handler == "yes"


def test_an_error_that_was_never_raised_came_from_nowhere() -> None:
    assert where_raised(Delegating("said")) is None
    assert ErrorInfo.of(Delegating("said")).where is None


def test_where_an_error_came_from_is_one_line_of_text() -> None:
    code = compile("raise ValueError(1)", "odd\n\x1b[31m\udce9.py", "exec")
    with pytest.raises(ValueError, match="1") as caught:
        exec(code, {"__name__": "." * 1000})  # noqa: S102 - nothing but this has such a place
    assert where_raised(caught.value) == "odd??[31m?.py:1 in <module>"
