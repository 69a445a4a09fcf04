"""Runs that fall silent say so at once, and say why."""

from __future__ import annotations

import logging

import pytest

from stepwell import Context, Workflow, step
from stepwell.errors import WorkflowTimeoutError
from stepwell.events import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
)


class Lost(Event):
    pass


class Nothing(Workflow):
    @step
    async def only(self, ev: StartEvent) -> StopEvent | None:
        return None


class Sends(Workflow):
    @step
    async def only(self, ctx: Context, ev: StartEvent) -> StopEvent | None:
        ctx.send_event(Lost())
        return None


class Returns(Workflow):
    @step
    async def only(self, ev: StartEvent) -> Lost | StopEvent:
        return Lost()


class Asks(Workflow):
    @step
    async def ask(self, ev: StartEvent) -> InputRequiredEvent:
        return InputRequiredEvent()

    @step
    async def hear(self, ev: HumanResponseEvent) -> StopEvent:
        return StopEvent(result="heard")


@pytest.mark.parametrize(
    "workflow, said",
    [
        (Nothing, "step 'only' returned None."),
        (Sends, "step 'only' returned None; no step took Lost."),
        (Returns, "step 'only' returned Lost; no step took Lost."),
    ],
)
@pytest.mark.usefixtures("virtual_time")
async def test_the_log_says_at_once_who_let_go_of_the_run(
    workflow: type[Workflow], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    handler = workflow(timeout=0.05, disable_validation=True).run(run_id="r1")
    with pytest.raises(WorkflowTimeoutError):
        await handler
    (record,) = [r for r in caplog.records if r.name == "stepwell"]
    assert record.levelno == logging.WARNING
    told = record.getMessage()
    assert told.startswith(f"run r1 of {workflow.__module__}.{workflow.__qualname__} has nothing ")
    assert said in told
    assert told.endswith("It stays silent until its timeout in 0.05 s.")


@pytest.mark.usefixtures("virtual_time")
async def test_the_error_of_a_run_out_of_time_names_what_nobody_took() -> None:
    with pytest.raises(WorkflowTimeoutError, match=r"No steps active; no step took Lost$"):
        await Returns(timeout=0.05, disable_validation=True).run()


async def test_without_a_timeout_the_log_says_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    handler = Nothing(timeout=None).run()
    async for event in handler.stream_events(expose_internal=True):
        if type(event).__name__ == "WorkflowIdleEvent":
            break
    assert "It stays silent for ever; cancel it." in caplog.text
    await handler.cancel_run()


async def test_a_run_that_waits_for_a_person_is_not_silent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler = Asks().run()
    async for event in handler.stream_events():
        if isinstance(event, InputRequiredEvent):
            await handler.send_event(HumanResponseEvent())
    assert await handler == "heard"
    assert not caplog.records
