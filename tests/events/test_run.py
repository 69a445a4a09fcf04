"""Starting runs and awaiting their results."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import weakref
from dataclasses import dataclass
from typing import Any

import pytest

from stepwell import Context, Event, StartEvent, StopEvent, Workflow, step
from stepwell.errors import (
    RunAlreadyExists,
    WorkflowConfigurationError,
    WorkflowRuntimeError,
    WorkflowTimeoutError,
    WorkflowValidationError,
)


class Topic(StartEvent):
    topic: str
    times: int = 1


class Report(StopEvent):
    text: str


class Middle(Event):
    n: int = 0


class Typed(Workflow):
    @step
    async def first(self, ev: Topic) -> Middle:
        return Middle(n=ev.times)

    @step
    async def second(self, ev: Middle) -> Report:
        return Report(text="x" * ev.n)


class Echo(Workflow):
    @step
    async def only(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=ev.get("word"))


async def test_a_plain_stop_event_gives_its_result() -> None:
    assert await Echo().run(word="hi") == "hi"
    assert await Echo().run() is None


async def test_a_stop_event_subclass_is_given_whole() -> None:
    assert await Typed().run(topic="t", times=3) == Report(text="xxx")
    assert await Typed().run(start_event=Topic(topic="t")) == Report(text="x")


async def test_awaiting_again_gives_the_same_and_so_does_waiting_at_once_by_many() -> None:
    handler = Echo().run(word="hi")

    async def wait() -> object:
        return await handler

    assert await asyncio.gather(wait(), wait(), wait()) == ["hi"] * 3
    assert await handler == "hi"


async def test_a_failure_raises_the_steps_own_exception_each_time() -> None:
    class Failing(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            raise KeyError("zz")

    handler = Failing().run()
    for _ in range(2):
        with pytest.raises(KeyError, match="zz"):
            await handler


async def test_start_events_that_can_not_be_made_are_refused_when_run_is_called() -> None:
    with pytest.raises(WorkflowRuntimeError) as told:
        Typed().run(nonsense=1)
    assert str(told.value) == (
        "Failed creating a start event of type 'Topic' with the keyword arguments: {'nonsense': 1}"
    )


async def test_a_start_event_of_another_type_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="must be an instance of 'StartEvent'"):
        Echo().run(start_event=Middle())  # type: ignore[arg-type]


async def test_other_arguments_beside_a_start_event_are_ignored_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert await Echo().run(start_event=StartEvent(word="a"), word="b") == "a"
    assert "word" in caplog.text


def test_run_needs_a_running_loop_and_says_what_else_there_is() -> None:
    with pytest.raises(RuntimeError, match=r"no running event loop.*run_sync"):
        Echo().run()


async def test_what_is_no_context_and_no_engine_is_refused_with_what_to_write() -> None:
    wrong: Any = "Ada"
    with pytest.raises(TypeError, match=r"takes a Context first, not str.*by name"):
        Echo().run(wrong)
    with pytest.raises(TypeError, match="engine must be an Engine, not str"):
        Echo().run(engine=wrong)


async def test_a_workflow_whose_init_forgets_its_parent_is_told() -> None:
    class Forgets(Workflow):
        def __init__(self, word: str) -> None:
            self.word = word

        @step
        async def go(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=self.word)

    with pytest.raises(WorkflowConfigurationError, match=r"does not call super\(\).__init__\(\)"):
        Forgets("a").run()


async def test_an_active_run_id_is_taken_and_free_again_after_the_end() -> None:
    go = asyncio.Event()

    class Waiting(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            await go.wait()
            return StopEvent()

    flow = Waiting()
    first = flow.run(run_id="dup")
    assert first.run_id == "dup"
    with pytest.raises(RunAlreadyExists, match=r"Workflow run with run_id 'dup' already exists."):
        flow.run(run_id="dup")
    with pytest.raises(RuntimeError):
        flow.run(run_id="dup")
    go.set()
    await first
    await flow.run(run_id="dup")


async def test_run_ids_differ() -> None:
    handlers = [Echo().run() for _ in range(50)]
    assert len({handler.run_id for handler in handlers}) == 50
    for handler in handlers:
        await handler


def test_a_run_that_died_with_its_loop_does_not_hold_its_id() -> None:
    class Endless(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            await asyncio.Event().wait()
            return StopEvent()

    async def start() -> str:
        return Endless().run(run_id="again").run_id

    assert asyncio.run(start()) == asyncio.run(start()) == "again"


async def test_what_is_wrong_with_a_workflow_is_said_when_it_is_run() -> None:
    class Dangling(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent | Middle:
            return StopEvent()

    with pytest.raises(WorkflowValidationError, match="produced but never consumed: Middle"):
        Dangling().run()
    await Dangling(disable_validation=True).run()
    with pytest.raises(WorkflowConfigurationError):

        class Empty(Workflow):
            pass

        Empty()


async def test_returning_something_else_fails_the_run() -> None:
    class Wrong(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            return 3  # type: ignore[return-value]

    with pytest.raises(
        WorkflowRuntimeError,
        match=r"Step function only returned int instead of an Event instance.",
    ):
        await Wrong().run()


@pytest.mark.usefixtures("virtual_time")
async def test_none_ends_a_branch_and_the_run_goes_on_without_it() -> None:
    class Silent(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent | None:
            return None

    with pytest.raises(WorkflowTimeoutError) as told:
        await Silent(timeout=0.05).run()
    assert str(told.value) == "Operation timed out after 0.05 seconds. No steps active"


@pytest.mark.usefixtures("virtual_time")
async def test_a_timeout_names_the_steps_that_were_running() -> None:
    class Slow(Workflow):
        @step
        async def crawl(self, ev: StartEvent) -> StopEvent:
            await asyncio.Event().wait()
            return StopEvent()

    handler = Slow(timeout=0.05).run()
    with pytest.raises(WorkflowTimeoutError) as told:
        await handler
    assert str(told.value) == (
        "Operation timed out after 0.05 seconds. Currently active steps: crawl"
    )
    assert [type(e).__name__ async for e in handler.stream_events()] == ["WorkflowTimedOutEvent"]


async def test_a_timeout_of_none_sets_no_limit() -> None:
    handler = Echo(timeout=None).run(word=1)
    assert await handler == 1


async def test_an_event_goes_to_every_step_that_takes_its_exact_type() -> None:
    class Special(Middle):
        pass

    seen: list[str] = []

    class Broadcast(Workflow):
        @step
        async def first(self, ev: StartEvent) -> Middle | Special:
            return Special()

        @step
        async def exact(self, ev: Middle) -> StopEvent:
            seen.append("exact")
            return StopEvent()

        @step
        async def special(self, ev: Special) -> None:
            seen.append("special")

        @step(accept_event_subclasses=True)
        async def loose(self, ev: Middle) -> StopEvent | None:
            seen.append("loose")
            return StopEvent(result="loose")

    assert await Broadcast().run() == "loose"
    assert seen == ["special", "loose"]


async def test_undeclared_kinds_of_stop_events_end_every_run_of_the_class() -> None:
    class Own(StopEvent):
        v: int = 0

    class Sub(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            return Own(v=3)

    flow = Sub(timeout=30)
    assert await flow.run() == Own(v=3)
    assert await flow.run() == Own(v=3)


async def test_the_first_stop_event_wins_and_stops_the_other_steps() -> None:
    stopped = asyncio.Event()

    class Race(Workflow):
        @step
        async def fork(self, ctx: Context, ev: StartEvent) -> Middle | None:
            ctx.send_event(Middle(n=1))
            ctx.send_event(Middle(n=2))
            return None

        @step
        async def run_it(self, ctx: Context, ev: Middle) -> StopEvent:
            if ev.n == 1:
                try:
                    await asyncio.Event().wait()
                finally:
                    stopped.set()
            return StopEvent(result=ev.n)

    assert await Race().run() == 2
    async with asyncio.timeout(30):
        await stopped.wait()


async def test_free_functions_are_steps_of_their_class_alone() -> None:
    class Host(Workflow):
        pass

    @step(workflow=Host)
    async def first(ev: StartEvent) -> Middle:
        return Middle(n=ev.n)

    @step(workflow=Host)
    async def last(ctx: Context, ev: Middle) -> StopEvent:
        await ctx.store.set("seen", ev.n)
        return StopEvent(result=ev.n + 1)

    assert await Host().run(n=1) == 2


async def test_a_finished_workflow_is_freed_without_the_collector() -> None:
    flow = Echo()
    handler = flow.run(word="x")
    await handler
    ctx = handler.ctx
    gone = weakref.ref(flow)
    gc.disable()
    try:
        del flow, handler, ctx
        await asyncio.sleep(0)
        gc.collect()
        assert gone() is None
    finally:
        gc.enable()


async def test_more_runs_than_allowed_at_once_wait_for_their_turn() -> None:
    active = most = 0
    go = asyncio.Event()

    class Few(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            nonlocal active, most
            active += 1
            most = max(most, active)
            await go.wait()
            active -= 1
            return StopEvent(result=ev.n)

    flow = Few(num_concurrent_runs=2)
    handlers = [flow.run(n=n) for n in range(5)]
    await asyncio.sleep(0)
    await handlers[4].cancel_run()  # one that has not begun
    assert handlers[4].is_done()
    go.set()
    assert [await handler for handler in handlers[:4]] == [0, 1, 2, 3]
    assert most == 2


async def test_a_failed_run_gives_its_place_to_the_next() -> None:
    class Failing(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            if ev.n == 0:
                raise ValueError("no")
            return StopEvent(result=ev.n)

    flow = Failing(num_concurrent_runs=1)
    first, second = flow.run(n=0), flow.run(n=1)
    assert await second == 1
    with pytest.raises(ValueError, match="no"):
        await first


def test_places_held_by_runs_of_a_closed_loop_are_free_again() -> None:
    class Once(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            if ev.get("hang"):
                await asyncio.Event().wait()
            return StopEvent(result="ran")

    flow = Once(num_concurrent_runs=1)

    async def abandon() -> None:
        flow.run(hang=True)
        await asyncio.sleep(0)

    async def use() -> object:
        return await flow.run()

    asyncio.run(abandon())
    assert asyncio.run(use()) == "ran"


# --- fields that are called like arguments of run ------------------------------------------------


class Song(StartEvent):
    key: str = ""
    engine: str = ""
    record: str = ""
    run_id: str = ""


@dataclass
class Tune:
    key: str


class Sings(Workflow):
    @step
    async def sing(self, ev: Song) -> StopEvent:
        return StopEvent(result=(ev.key, ev.engine, ev.record, ev.run_id))


class Hums(Workflow[Any, Tune, StopEvent]):
    async def start(self, payload: Tune) -> StopEvent:
        return StopEvent(result=payload.key)


async def test_such_fields_are_given_with_the_start_event() -> None:
    song = Song(key="G", engine="lute", record="wax", run_id="r")
    assert await Sings().run(start_event=song, run_id="mine") == ("G", "lute", "wax", "r")
    assert await Hums().run(start_event=Tune("C")) == "C"


@pytest.mark.parametrize(
    "flow, given, error, text",
    [
        (Sings, {"run_id": "r"}, ValueError, "run_id= is an argument of run() and a field of Song"),
        (Sings, {"key": "G"}, ValueError, "start_event=Song(key=...)"),
        (Hums, {"key": "G"}, ValueError, "start_event=Tune(key=...)"),
        (Sings, {"record": "wax"}, TypeError, "record must be True or False, not str"),
        (Sings, {"record": True}, ValueError, "start_event=Song(record=...)"),
        (Sings, {"engine": "lute"}, TypeError, "a field 'engine' of the start event"),
        (Echo, {"key": "G", "word": 1}, ValueError, "key= is the idempotency key of a durable run"),
        (Echo, {"key": 4, "word": 1}, TypeError, "key must be a string, not int"),
        (Echo, {"run_id": 4, "word": 1}, TypeError, "run_id must be a string, not int"),
    ],
)
async def test_and_are_not_taken_silently_for_something_else(
    flow: type[Workflow], given: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=re.escape(text)):
        flow().run(**given)
