"""What an engine is wrongly given is refused where it is given, and nothing is kept of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from tests.durable.flows import Answer, Asks, Linear, Middle, asks

from stepwell import Engine, HumanResponseEvent, StartEvent, StopEvent, Workflow, step
from stepwell.errors import InvalidArgument, NoPendingQuestion, WorkflowRuntimeError
from stepwell.testing import HookedEngine, VirtualClock

WRONG: Any = 5


class Needs(Workflow):
    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    @step
    async def only(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=self.what)


# --- answers and signals -------------------------------------------------------------------------


async def test_a_question_takes_no_other_event(sqlite_engine: HookedEngine) -> None:
    handler = await sqlite_engine.start(asks())
    with pytest.raises(InvalidArgument, match="takes a Answer, not a HumanResponseEvent"):
        await sqlite_engine.answer(handler.run_id, HumanResponseEvent(response="no"))
    with pytest.raises(InvalidArgument, match="does not make a Answer"):
        await sqlite_engine.answer(handler.run_id, {"text": {}})
    with pytest.raises(InvalidArgument, match="not 5"):
        await sqlite_engine.answer(handler.run_id, WRONG)
    await sqlite_engine.answer(handler.run_id, Answer(text="yes"))
    assert await handler == "yes"


@pytest.mark.parametrize("with_code", [True, False])
async def test_a_question_that_was_answered_takes_no_second_answer(
    virtual_clock: VirtualClock, tmp_path: Path, with_code: bool
) -> None:
    url = f"sqlite:///{tmp_path}/runs.db?durability=process"
    first = virtual_clock.engine(url)
    handler = await first.start(asks())
    await virtual_clock.settle()
    await first.stop()
    speaker = virtual_clock.engine(url, [asks()] if with_code else [], worker=False)
    await speaker.answer(handler.run_id, {"text": "first"})
    for question in (None, "q"):
        with pytest.raises(NoPendingQuestion, match="kept already"):
            await speaker.answer(handler.run_id, {"text": "second"}, question=question)
    assert (await speaker.get(handler.run_id)).unread == ("answer",)
    second = virtual_clock.engine(url, [asks()])
    assert await second.result(handler.run_id) == "first"


async def test_of_two_answers_at_once_one_is_taken(sqlite_engine: HookedEngine) -> None:
    handler = await sqlite_engine.start(asks())
    calls = [sqlite_engine.answer(handler.run_id, {"text": word}) for word in ("a", "b")]
    said = await asyncio.gather(*calls, return_exceptions=True)
    assert said[0] is None
    assert isinstance(said[1], NoPendingQuestion)
    assert await handler == "a"


async def test_a_signal_is_an_event(sqlite_engine: HookedEngine) -> None:
    handler = await sqlite_engine.start(asks())
    for wrong in (WRONG, cast(Any, Answer), cast(Any, None), ""):
        with pytest.raises(InvalidArgument):
            await sqlite_engine.signal(handler.run_id, wrong)
    with pytest.raises(WorkflowRuntimeError, match="nowhere"):
        await sqlite_engine.signal(handler.run_id, Answer(text="x"), step="nowhere")
    with pytest.raises(InvalidArgument):
        await sqlite_engine.signal(handler.run_id, "Answer", {"text": []})
    assert (await sqlite_engine.get(handler.run_id)).unread == ()


# --- workflows -----------------------------------------------------------------------------------


async def test_what_is_no_workflow_is_not_started(sqlite_engine: HookedEngine) -> None:
    for wrong in (WRONG, int, Middle(n=1)):
        with pytest.raises(InvalidArgument, match="workflow"):
            await sqlite_engine.start(cast(Any, wrong))
    with pytest.raises(InvalidArgument, match=r"Needs can't be made without arguments.*what"):
        await sqlite_engine.start(Needs)


def test_an_engine_takes_instances_and_classes() -> None:
    assert list(Engine("memory://", [Linear, asks()]).workflows) == [
        "tests.durable.flows.Linear",
        "tests.durable.flows.Asks",
    ]
    for wrong in (WRONG, int, "Linear", Needs):
        with pytest.raises(InvalidArgument):
            Engine("memory://", cast(Any, [wrong]))


async def test_one_name_is_one_workflow(sqlite_engine: HookedEngine) -> None:
    class Other(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result="another")

    engine = sqlite_engine
    flow = asks()
    engine.register(flow)
    engine.register(flow)
    engine.register(asks())  # nothing tells the two apart
    for other, what in (
        (Asks(timeout=3), "timeout=None, the other timeout=3"),
        (asks(num_concurrent_runs=2), "num_concurrent_runs"),
    ):
        with pytest.raises(InvalidArgument, match=what):
            await engine.start(other)
        with pytest.raises(InvalidArgument, match=what):
            other.run(engine=engine)
    engine.register(Linear(workflow_name="first"))
    with pytest.raises(InvalidArgument, match=r"flows\.Linear and .*<locals>\.Other are two"):
        await engine.start(Other(workflow_name="first"))
    assert await (await engine.start(Other(workflow_name="second"))) == "another"


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["run_id", "key", "correlation"])
@pytest.mark.parametrize("wrong", ["", 5, "x" * 513, "a\nb", "\x00", "\x7f", "\ud800"])
async def test_a_name_that_could_not_be_filed_is_refused(
    sqlite_engine: HookedEngine, what: str, wrong: object
) -> None:
    with pytest.raises(InvalidArgument, match=what):
        await sqlite_engine.start(Linear, **cast(Any, {what: wrong}))
    if what != "correlation":
        with pytest.raises((InvalidArgument, TypeError), match=what):
            Linear().run(engine=sqlite_engine, **cast(Any, {what: wrong}))
    assert await sqlite_engine.list() == ([], None)


async def test_any_other_text_is_a_name(sqlite_engine: HookedEngine) -> None:
    name = "Straße / 7 \U0001f600 " + "x" * 490
    handler = await sqlite_engine.start(Linear, run_id=name, key=name, correlation=name)
    assert handler.run_id == name
    info = await sqlite_engine.get(name)
    assert (info.key, info.correlation) == (name, name)


@pytest.mark.parametrize("wrong", ["high", 1.5, True, 2**63])
async def test_a_priority_is_a_whole_number(sqlite_engine: HookedEngine, wrong: object) -> None:
    with pytest.raises(InvalidArgument, match="priority"):
        await sqlite_engine.start(Linear, priority=cast(Any, wrong))
