"""A run that owes nothing and has not ended says in `why` what it came from."""

from __future__ import annotations

from pathlib import Path

from tests.durable.flows import Answer

from stepwell import Event, InputRequiredEvent, StartEvent, StopEvent, Workflow, step
from stepwell.testing import HookedEngine, VirtualClock


class Lost(Event):
    pass


class Drops(Workflow):
    """Its second step is gone."""

    @step
    async def first(self, ev: StartEvent) -> Lost | StopEvent:
        return Lost()


class Asks(Workflow):
    """A question that another step takes the answer of."""

    @step
    async def ask(self, ev: StartEvent) -> InputRequiredEvent:
        return InputRequiredEvent()

    @step
    async def hear(self, ev: Answer) -> StopEvent:
        return StopEvent()


def drops(timeout: float | None = None) -> Drops:
    return Drops(timeout=timeout, disable_validation=True)


async def test_why_names_the_last_step_and_what_nobody_took(
    sqlite_engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    handler = await sqlite_engine.start(drops())
    await virtual_clock.settle()
    why = await sqlite_engine.why(handler.run_id)
    assert "(step 'first' returned Lost; no step took Lost)" in why.sentence
    assert "nothing else will move it: cancel it" in why.sentence


async def test_why_says_when_its_timeout_will_end_it(
    sqlite_engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    handler = await sqlite_engine.start(drops(timeout=60))
    await virtual_clock.settle()
    why = await sqlite_engine.why(handler.run_id)
    assert "before its timeout at 2026-01-01 00:01:00 UTC" in why.sentence


async def test_why_names_the_event_that_would_move_it(
    sqlite_engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    handler = await sqlite_engine.start(Asks(timeout=None))
    await virtual_clock.settle()
    why = await sqlite_engine.why(handler.run_id)
    assert why.sentence.startswith("waiting for Answer from outside")
    assert "step 'ask' returned InputRequiredEvent" in why.sentence
    assert f"stepwell signal {handler.run_id} Answer" in why.sentence


async def test_it_says_so_where_the_code_is_not_known(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/runs.db?durability=process"
    flow = drops()
    first = virtual_clock.engine(url, [flow])
    run_id = (await first.start(flow)).run_id
    await virtual_clock.settle()
    await first.stop()
    looker = virtual_clock.engine(url, worker=False)
    why = await looker.why(run_id)
    assert "(step 'first' returned Lost; no step took Lost)" in why.sentence
    await looker.stop()
