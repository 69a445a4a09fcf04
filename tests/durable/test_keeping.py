"""What is kept of a run: snapshots, big payloads, streams; and values that can't be kept."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.durable.flows import Answer, Middle, asks

from stepwell import Context, Event, InputRequiredEvent, StartEvent, StopEvent, Workflow, step
from stepwell.errors import UnserializableValue, ValueTooLarge
from stepwell.testing import Bodies, HookedEngine, VirtualClock
from stepwell.values import RunStatus


def url_of(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/runs.db?durability=process"


class Out(Event):
    text: str


class Loop(Workflow):
    """Goes round `times` times, adding to its state, and asks at the end."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Middle:
        await ctx.store.set("times", ev.times)
        return Middle(n=0)

    @step
    async def turn(self, ctx: Context, ev: Middle) -> Middle | StopEvent:
        async with ctx.store.edit_state() as state:
            state["sum"] = state.get("sum", 0) + ev.n
            times = state["times"]
        if ev.n < times:
            return Middle(n=ev.n + 1)
        got = await ctx.wait_for_event(Answer, waiter_id="q", timeout=None)
        return StopEvent(result=[got.text, await ctx.store.get("sum")])


async def test_a_long_loop_is_taken_up_from_its_snapshot(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    flow = Loop(timeout=None)
    first = virtual_clock.engine(url_of(tmp_path), [flow], snapshot_every=50)
    run_id = (await first.start(flow, times=2000)).run_id
    await virtual_clock.settle()
    assert (await first.get(run_id)).status is RunStatus.WAITING
    rows = (await first.get(run_id)).seq
    assert rows > 100
    await first.stop()

    second = virtual_clock.engine(url_of(tmp_path), [flow], snapshot_every=50)
    await second.start_up()
    loaded = await second.store.load(run_id)
    assert loaded is not None
    assert loaded.snapshot is not None
    assert len(loaded.rows) < 60
    assert len(loaded.snapshot.data) < 2000  # of what is owed, not of what was
    await second.answer(run_id, {"text": "end"})
    assert await second.result(run_id) == ["end", sum(range(2001))]


@pytest.mark.parametrize("every", [1, 3, 10_000])
async def test_snapshots_change_nothing_but_the_speed(
    virtual_clock: VirtualClock, tmp_path: Path, every: int
) -> None:
    class Mixed(Workflow):
        @step
        async def split(self, ctx: Context, ev: StartEvent) -> list[Middle]:
            await ctx.store.set("seen", [])
            return [Middle(n=n) for n in range(5)]

        @step(num_workers=2)
        async def work(self, ctx: Context, ev: Middle) -> Out:
            kept = await ctx.memo("kept", lambda: ev.n * 10)
            got = await ctx.wait_for_event(Answer, waiter_id=f"q{ev.n}", timeout=None)
            async with ctx.store.edit_state() as state:
                state["seen"] = [*state["seen"], ev.n]
            return Out(text=f"{kept}{got.text}")

        @step
        async def join(self, ctx: Context, evs: list[Out]) -> StopEvent:
            seen = sorted(await ctx.store.get("seen"))
            return StopEvent(result=[sorted(e.text for e in evs), seen])

    flow = Mixed(timeout=None)
    run_id = ""
    for n in range(6):
        engine = virtual_clock.engine(url_of(tmp_path), [flow], snapshot_every=every)
        if not run_id:
            run_id = (await engine.start(flow)).run_id
        await engine.start_up()
        await virtual_clock.settle()
        if n < 5:
            await engine.signal(run_id, Answer(text=f"-{n}"), question=f"q{n}")
            await virtual_clock.settle()
            await engine.stop()
        else:
            expected = [sorted(f"{n * 10}-{n}" for n in range(5)), list(range(5))]
            assert await engine.result(run_id) == expected


async def test_big_payloads_go_through_every_door(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    big = "x" * 300_000

    class Big(Event):
        text: str

    class Flow(Workflow):
        @step
        async def one(self, ctx: Context, ev: StartEvent) -> Big:
            await ctx.store.set("big", ev.text + "1")
            ctx.write_event_to_stream(Event(shown=ev.text))
            return Big(text=ev.text + "2")

        @step
        async def two(self, ctx: Context, ev: Big) -> StopEvent:
            kept = await ctx.memo("kept", lambda: ev.text + "3")
            got = await ctx.wait_for_event(Answer, waiter_id="q", timeout=None)
            state = await ctx.store.get("big")
            return StopEvent(result=[ev.text, kept, got.text, state])

    flow = Flow(timeout=None)
    first = virtual_clock.engine(url_of(tmp_path), [flow], snapshot_every=2)
    run_id = (await first.start(flow, text=big)).run_id
    await virtual_clock.settle()
    await first.stop()
    second = virtual_clock.engine(url_of(tmp_path), [flow])
    await second.signal(run_id, Answer(text=big + "4"), question="q")
    assert await second.result(run_id) == [big + "2", big + "23", big + "4", big + "1"]
    shown = [item.event async for item in second.stream(run_id)]
    assert shown[0]["shown"] == big
    await second.stop()
    third = virtual_clock.engine(url_of(tmp_path), [flow])
    assert (await third.result(run_id))[0] == big + "2"


async def test_a_big_child_result_and_a_fork_of_big_rows(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    class Small(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=ev.text * 2)

    class Parent(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> Middle:
            got = await ctx.run_child(Small(), text=ev.text)
            return Middle(n=len(got))

        @step
        async def end(self, ev: Middle) -> StopEvent:
            return StopEvent(result=ev.n)

    engine = virtual_clock.engine(url_of(tmp_path))
    handler = await engine.start(Parent(), text="y" * 200_000)
    assert await handler == 400_000
    fork = await engine.fork(handler.run_id, step="end")
    assert await fork == 400_000
    await engine.delete([handler.run_id])
    assert await engine.result(fork.run_id) == 400_000
    fork2 = await engine.fork(fork.run_id)
    assert await fork2 == 400_000


class Bad(Workflow):
    """Returns what it is told to."""

    value: Any = None

    @step
    async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
        match ev.how:
            case "result":
                return StopEvent(result=type(self).value)
            case "state":
                await ctx.store.set("field", type(self).value)
            case "memo":
                await ctx.memo("field", lambda: type(self).value)
            case "stream":
                ctx.write_event_to_stream(Event(field=type(self).value))
        return StopEvent(result="kept it")


@pytest.mark.parametrize("how", ["result", "memo", "stream", "state"])
async def test_a_value_that_cannot_be_written_fails_the_step_by_the_name_of_its_path(
    sqlite_engine: HookedEngine, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(Bad, "value", {"list": [1, {"deep": object()}]})
    handler = await sqlite_engine.start(Bad(), how=how)
    with pytest.raises((UnserializableValue, ValueError)) as error:
        await handler
    assert "object" in str(error.value)
    if how != "state":
        assert "list.1.deep" in str(error.value)
    assert (await sqlite_engine.get(handler.run_id)).status is RunStatus.FAILED


@pytest.mark.parametrize("how", ["result", "memo", "stream", "state"])
async def test_a_value_that_is_too_large_fails_the_step_by_the_name_of_its_field(
    sqlite_engine: HookedEngine, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(Bad, "value", {"small": 1, "huge": "x" * (16 * 1024 * 1024 + 10)})
    handler = await sqlite_engine.start(Bad(), how=how)
    with pytest.raises(ValueTooLarge) as error:
        await handler
    assert {"result": "result", "memo": "huge", "stream": "field", "state": "field"}[how] in str(
        error.value
    )


# --- streams -------------------------------------------------------------------------------------


class Shows(Workflow):
    @step
    async def one(self, ctx: Context, ev: StartEvent) -> Middle:
        for n in range(4):
            ctx.write_event_to_stream(Event(n=n))
            if n % 2:
                await ctx.sleep(10)
        return Middle()

    @step
    async def two(self, ctx: Context, ev: Middle) -> StopEvent:
        ctx.write_event_to_stream(InputRequiredEvent(prefix="?"))
        return StopEvent(result="end")


async def test_every_reader_sees_the_same_stream_wherever_it_begins(
    sqlite_engine: HookedEngine,
) -> None:
    engine = sqlite_engine
    handler = await engine.start(Shows())

    async def read(after: str | None = None) -> list[tuple[str, str]]:
        return [(i.cursor, repr(i.event)) async for i in engine.stream(handler.run_id, after=after)]

    first, second = await asyncio.gather(read(), read())
    assert first == second
    assert [text for _, text in first] == [
        *(f"Event(n={n})" for n in range(4)),
        "InputRequiredEvent(prefix='?')",
        "StopEvent(result='end')",
    ]
    for place, (cursor, _) in enumerate(first):
        assert await read(cursor) == first[place + 1 :]
    with pytest.raises(ValueError, match="not a cursor"):
        await read("nonsense")


async def test_a_reader_goes_on_at_its_cursor_after_a_restart(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    flow = Shows(timeout=None)
    first = virtual_clock.engine(url_of(tmp_path), [flow])
    run_id = (await first.start(flow)).run_id
    seen: list[str] = []
    cursor = ""
    async for item in first.stream(run_id):
        seen.append(repr(item.event))
        cursor = item.cursor
        if len(seen) == 3:
            break
    await first.stop()
    second = virtual_clock.engine(url_of(tmp_path), [flow])
    async for item in second.stream(run_id, after=cursor):
        seen.append(repr(item.event))  # noqa: PERF401
    assert seen[:4] == [f"Event(n={n})" for n in range(4)]
    assert len(seen) == 6
    assert len(set(seen)) == 6


async def test_a_stream_ends_when_its_run_is_cancelled_or_fails(
    sqlite_engine: HookedEngine, virtual_clock: VirtualClock
) -> None:
    handler = await sqlite_engine.start(asks())
    reading = asyncio.ensure_future(_names(handler))
    await virtual_clock.settle()
    await sqlite_engine.cancel(handler.run_id)
    assert await reading == ["InputRequiredEvent", "WorkflowCancelledEvent"]


async def _names(handler: Any) -> list[str]:
    return [type(event).__name__ async for event in handler.stream_events()]


async def test_state_and_result_become_visible_together(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    """A body that edits the state and does not come to its end leaves no edit behind."""

    class Edits(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            count = await ctx.store.get("count", default=0)
            await ctx.store.set("count", count + 1)
            await asyncio.sleep(100)
            return StopEvent(result=await ctx.store.get("count"))

    flow = Edits(timeout=None)
    bodies = Bodies()
    run_id = ""
    for _ in range(3):
        engine = virtual_clock.engine(url_of(tmp_path), [flow], hooks=bodies)
        run_id = run_id or (await engine.start(flow)).run_id
        await engine.start_up()
        await virtual_clock.advance(50)
        await engine.stop(grace=0)
    last = virtual_clock.engine(url_of(tmp_path), [flow], hooks=bodies)
    assert await last.result(run_id) == 1
    assert len(bodies.begun) == 4


async def test_a_state_that_holds_itself_fails_the_step_and_hangs_nobody(
    sqlite_engine: HookedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring: dict[str, Any] = {"a": 1}
    ring["me"] = ring
    monkeypatch.setattr(Bad, "value", ring)
    handler = await sqlite_engine.start(Bad(), how="state")
    with pytest.raises((ValueError, RecursionError)):
        await handler


MARKED: list[Any] = [
    {"\x00blob": "no digest"},
    {"\x00blob": "a" * 64, "more": [{"\x00blob": {"\x00blob": 1}}]},
    {"\x00blob": {"a": 1}},
    {"\x00blob": None},
    "\x00blob",
    "\\u0000blob",
]


class Carried(Event):
    what: Any
    big: str


class Carries(Workflow):
    @step
    async def one(self, ctx: Context, ev: StartEvent) -> Carried:
        await ctx.store.set("what", ev.what)
        return Carried(what=ev.what, big="x" * ev.size)

    @step
    async def two(self, ctx: Context, ev: Carried) -> StopEvent:
        await ctx.sleep(3600)
        return StopEvent(result=[ev.what, await ctx.store.get("what"), len(ev.big)])


@pytest.mark.parametrize("size", [0, 200_000])
@pytest.mark.parametrize("what", MARKED)
async def test_a_payload_that_looks_like_one_kept_apart_comes_back_as_it_was(
    virtual_clock: VirtualClock, tmp_path: Path, what: object, size: int
) -> None:
    url = f"sqlite:///{tmp_path}/runs.db?durability=process"
    flow = Carries(timeout=None)
    first = virtual_clock.engine(url, [flow])
    handler = await first.start(flow, what=what, size=size)
    await virtual_clock.settle()
    await first.stop()
    second = virtual_clock.engine(url, [flow])
    assert await second.result(handler.run_id) == [what, what, size]
    third = virtual_clock.engine(url, [flow])
    assert await third.result(handler.run_id) == [what, what, size]


class Shapes(Workflow):
    @step
    async def one(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result={"t": (1, 2), 3: float("inf"), "s": "text", "f": 1.5})


async def test_who_ran_it_gets_the_result_itself_and_others_what_is_kept(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    """As docs/reference/handler.md says."""
    flow = Shapes(timeout=None)
    first = virtual_clock.engine(url_of(tmp_path), [flow])
    handler = await first.start(flow)
    assert await handler == {"t": (1, 2), 3: float("inf"), "s": "text", "f": 1.5}
    second = virtual_clock.engine(url_of(tmp_path), [flow])
    kept = {"t": [1, 2], "3": "Infinity", "s": "text", "f": 1.5}
    assert await second.result(handler.run_id) == kept
