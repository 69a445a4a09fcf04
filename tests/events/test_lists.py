"""Fan-out with a returned list, fan-in with a `list[E]` parameter, and joins of several events."""

from __future__ import annotations

import asyncio
from typing import Annotated

import pytest

from stepwell import (
    All,
    Collect,
    Context,
    Event,
    StartEvent,
    StopEvent,
    Take,
    Workflow,
    catch_error,
    step,
)
from stepwell.errors import WorkflowRuntimeError, WorkflowTimeoutError
from stepwell.events import CollectionReleaseEvent, StepFailedEvent


class A(Event):
    n: int = 0


class B(Event):
    n: int = 0


class C(Event):
    n: int = 0


async def test_a_returned_list_fans_out_and_a_list_parameter_joins_it() -> None:
    class Fan(Workflow):
        @step
        async def fork(self, ev: StartEvent) -> list[A]:
            return [A(n=n) for n in range(10)]

        @step
        async def work(self, ev: A) -> B:
            return B(n=ev.n * 2)

        @step
        async def join(self, evs: list[B]) -> StopEvent:
            return StopEvent(result=[ev.n for ev in evs])

    assert await Fan().run() == [n * 2 for n in range(10)]


async def test_members_come_as_they_finish_or_in_the_order_of_the_list() -> None:
    gates = {n: asyncio.Event() for n in range(3)}

    def flow(order: str) -> type[Workflow]:
        class Fan(Workflow):
            @step
            async def fork(self, ev: StartEvent) -> list[A]:
                return [A(n=n) for n in range(3)]

            @step
            async def work(self, ev: A) -> B:
                await gates[ev.n].wait()
                return B(n=ev.n)

            @step
            async def join(
                self,
                evs: Annotated[list[B], Collect(All(), order=order)],  # type: ignore[arg-type]
            ) -> StopEvent:
                return StopEvent(result=[ev.n for ev in evs])

        return Fan

    for order, expected in (("arrival", [2, 0, 1]), ("input", [0, 1, 2])):
        for gate in gates.values():
            gate.clear()
        handler = flow(order)().run()
        for n in (2, 0, 1):
            await asyncio.sleep(0)
            gates[n].set()
            await asyncio.sleep(0)
        assert await handler == expected


@pytest.mark.usefixtures("virtual_time")
async def test_take_fires_once_with_the_first_and_the_others_go_on() -> None:
    finished: list[int] = []
    gate = asyncio.Event()

    class Fan(Workflow):
        @step
        async def fork(self, ev: StartEvent) -> list[A]:
            return [A(n=n) for n in range(4)]

        @step(num_workers=4)
        async def work(self, ev: A) -> B:
            if ev.n > 1:
                await gate.wait()
            finished.append(ev.n)
            return B(n=ev.n)

        @step
        async def first(self, evs: Annotated[list[B], Collect(Take(2))]) -> C:
            gate.set()
            await asyncio.sleep(0.01)
            return C(n=len(evs))

        @step
        async def end(self, ev: C) -> StopEvent:
            return StopEvent(result=ev.n)

    assert await Fan(timeout=30).run() == 2
    assert finished == [0, 1, 2, 3]


async def test_take_of_more_than_there_are_fires_with_what_came() -> None:
    class Fan(Workflow):
        @step
        async def fork(self, ev: StartEvent) -> list[A]:
            return [A(n=n) for n in range(3)]

        @step
        async def work(self, ev: A) -> B | None:
            return B(n=ev.n) if ev.n else None

        @step
        async def join(self, evs: Annotated[list[B], Collect(Take(5))]) -> StopEvent:
            return StopEvent(result=[ev.n for ev in evs])

    assert await Fan(timeout=30).run() == [1, 2]


async def test_an_empty_list_joins_at_once_with_nothing() -> None:
    class Fan(Workflow):
        @step
        async def fork(self, ev: StartEvent) -> list[A]:
            return []

        @step
        async def work(self, ev: A) -> B:
            return B()

        @step
        async def join(self, evs: list[B]) -> StopEvent:
            return StopEvent(result=evs)

    assert await Fan(timeout=30).run() == []


@pytest.mark.usefixtures("virtual_time")
async def test_none_instead_of_a_list_opens_no_stream() -> None:
    joined = False

    class Fan(Workflow):
        @step
        async def fork(self, ev: StartEvent) -> list[A] | None:
            return None

        @step
        async def join(self, evs: list[A]) -> StopEvent:
            nonlocal joined
            joined = True
            return StopEvent()

    with pytest.raises(WorkflowTimeoutError):
        await Fan(timeout=0.03).run()
    assert not joined


async def test_a_branch_that_ends_in_none_does_not_hold_up_the_join() -> None:
    class Fan(Workflow):
        @step
        async def fork(self, ev: StartEvent) -> list[A]:
            return [A(n=n) for n in range(5)]

        @step
        async def work(self, ev: A) -> B | None:
            await asyncio.sleep(0)
            return B(n=ev.n) if ev.n % 2 else None

        @step
        async def join(self, evs: list[B]) -> StopEvent:
            return StopEvent(result=sorted(ev.n for ev in evs))

    assert await Fan(timeout=30).run() == [1, 3]


async def test_a_bare_event_beside_a_list_is_ordinary_and_alone_is_refused() -> None:
    class Fan(Workflow):
        @step
        async def fork(self, ev: StartEvent) -> list[A] | C:
            return C(n=7) if ev.get("bare") == "C" else A()  # type: ignore[return-value]

        @step
        async def join(self, evs: list[A]) -> StopEvent:
            return StopEvent(result="joined")

        @step
        async def single(self, ev: C) -> StopEvent:
            return StopEvent(result=ev.n)

    assert await Fan(timeout=30).run(bare="C") == 7
    with pytest.raises(WorkflowRuntimeError) as told:
        await Fan(timeout=30).run(bare="A")
    assert str(told.value).startswith(
        "Step function fork returned a bare A but its return annotation only declares it inside a "
        "list. Return a one-element list to fan out"
    )


async def test_a_list_member_that_is_no_event_fails_the_run() -> None:
    class Fan(Workflow):
        @step
        async def fork(self, ev: StartEvent) -> list[A]:
            return [A(), 3]  # type: ignore[list-item]

        @step
        async def join(self, evs: list[A]) -> StopEvent:
            return StopEvent()

    with pytest.raises(
        WorkflowRuntimeError,
        match=r"Step function fork returned a list containing int instead of an Event instance.",
    ):
        await Fan(timeout=30).run()


async def test_a_list_in_a_list_is_joined_level_by_level() -> None:
    class Group(Event):
        names: list[str]

    class Part(Event):
        name: str

    class Whole(Event):
        text: str

    class Nested(Workflow):
        @step
        async def groups(self, ev: StartEvent) -> list[Group]:
            return [Group(names=["a", "b"]), Group(names=[]), Group(names=["c"])]

        @step
        async def parts(self, ev: Group) -> list[Part]:
            return [Part(name=name) for name in ev.names]

        @step
        async def inner(self, evs: list[Part]) -> Whole:
            return Whole(text="+".join(sorted(ev.name for ev in evs)))

        @step
        async def outer(self, evs: list[Whole]) -> StopEvent:
            return StopEvent(result=sorted(ev.text for ev in evs))

    assert await Nested(timeout=30).run() == ["", "a+b", "c"]


async def test_ten_thousand_members_are_no_trouble() -> None:
    class Big(Workflow):
        @step
        async def fork(self, ev: StartEvent) -> list[A]:
            return [A(n=n) for n in range(10_000)]

        @step
        async def work(self, ev: A) -> B:
            return B(n=ev.n)

        @step
        async def join(self, evs: list[B]) -> StopEvent:
            return StopEvent(result=sum(ev.n for ev in evs))

    assert await Big().run() == 49_995_000


async def test_a_failed_member_is_recovered_into_its_stream() -> None:
    class Fan(Workflow):
        @step
        async def fork(self, ev: StartEvent) -> list[A]:
            return [A(n=n) for n in range(3)]

        @step
        async def work(self, ev: A) -> B:
            if ev.n == 1:
                raise ValueError("one")
            return B(n=ev.n)

        @catch_error(for_steps=["work"])
        async def recover(self, ev: StepFailedEvent) -> B:
            assert isinstance(ev.input_event, A)
            return B(n=-ev.input_event.n)

        @step
        async def join(self, evs: list[B]) -> StopEvent:
            return StopEvent(result=sorted(ev.n for ev in evs))

    assert await Fan(timeout=30).run() == [-1, 0, 2]


async def test_what_a_handler_makes_of_a_failed_member_is_in_its_stream() -> None:
    class Fan(Workflow):
        @step
        async def fork(self, ev: StartEvent) -> list[A]:
            return [A(n=n) for n in range(3)]

        @step
        async def work(self, ev: A) -> B:
            raise ValueError(ev.n)

        @catch_error
        async def recover(self, ev: StepFailedEvent) -> C:
            return C(n=int(str(ev.exception)))

        @step
        async def collected(self, evs: list[C]) -> StopEvent:
            return StopEvent(result=[ev.n for ev in evs])

        @step
        async def unused(self, ev: B) -> None:
            return None

    flow = Fan(timeout=1, skip_graph_checks={"dead_end"})
    assert await flow.run() == [0, 1, 2]


async def test_members_of_a_subclass_reach_a_step_that_takes_subclasses() -> None:
    class Special(A):
        pass

    class Fan(Workflow):
        @step
        async def fork(self, ev: StartEvent) -> list[Special]:
            return [Special(n=1), Special(n=2)]

        @step(accept_event_subclasses=True)
        async def work(self, ev: A) -> B:
            return B(n=ev.n)

        @step
        async def join(self, evs: list[B]) -> StopEvent:
            return StopEvent(result=[ev.n for ev in evs])

    assert await Fan(timeout=30).run() == [1, 2]


async def test_a_failed_join_shows_what_it_was_given() -> None:
    class Fan(Workflow):
        @step
        async def fork(self, ev: StartEvent) -> list[A]:
            return [A(n=1), A(n=2)]

        @step
        async def join(self, evs: list[A]) -> StopEvent:
            raise ValueError("no")

        @catch_error
        async def recover(self, ev: StepFailedEvent) -> StopEvent:
            assert isinstance(ev.input_event, CollectionReleaseEvent)
            return StopEvent(result=[e.n for e in ev.input_event.events])  # type: ignore[attr-defined]

    assert await Fan(timeout=30).run() == [1, 2]


async def test_send_event_can_not_add_to_a_stream() -> None:
    told: list[str] = []

    class Fan(Workflow):
        @step
        async def fork(self, ctx: Context, ev: StartEvent) -> list[A]:
            with pytest.raises(WorkflowRuntimeError, match="collects a stream"):
                ctx.send_event(A(n=9), step="join")
            with pytest.warns(UserWarning, match="only taken by steps that collect a stream"):
                ctx.send_event(A(n=9))
            told.append("both")
            return [A(n=1)]

        @step
        async def join(self, evs: list[A]) -> StopEvent:
            return StopEvent(result=[ev.n for ev in evs])

    assert await Fan(timeout=30).run() == [1]
    assert told == ["both"]


# --- joins of several ------------------------------------------------------------------------


async def test_a_step_with_two_event_parameters_runs_when_both_have_come() -> None:
    class Both(Workflow):
        @step
        async def fork(self, ctx: Context, ev: StartEvent) -> A | B | None:
            for n in (1, 2):
                ctx.send_event(A(n=n))
            for n in (10, 20):
                ctx.send_event(B(n=n))
            return None

        @step
        async def join(self, a: A, b: B) -> C:
            return C(n=a.n + b.n)

        @step
        async def end(self, ctx: Context, ev: C) -> StopEvent | None:
            got = ctx.collect_events(ev, [C, C])
            return None if got is None else StopEvent(result=[e.n for e in got])  # type: ignore[attr-defined]

    assert await Both(timeout=30).run() == [11, 22]


async def test_a_join_inside_a_stream_pairs_at_its_level() -> None:
    class Pair(Event):
        pair: tuple[int, int]

    class Inside(Workflow):
        @step
        async def fork(self, ev: StartEvent) -> list[A | B]:
            return [A(n=1), B(n=2)]

        @step
        async def join(self, a: A, b: B) -> Pair:
            return Pair(pair=(a.n, b.n))

        @step
        async def gather(self, evs: list[Pair]) -> StopEvent:
            return StopEvent(result=[ev.pair for ev in evs])

    assert await Inside(timeout=30).run() == [(1, 2)]
