"""P3: what a step returns and changes is seen together with its result, or not at all.

One journal row is one commit: it is there or it is not. So a step's result, the events that it
returned and its edits of the state must stand in one row; a failed attempt may leave no edit; and a
process that is killed at any write leaves the edits of just those steps that have a result.

Caught breaks: edits that are entered as they are made instead of with the result; edits that are
entered a moment after the result; a failed attempt whose edits are not taken back; a reader that
counts on from its cursor in the rows after it.
"""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from tests.promises.processes import Process, deaths, live

from stepwell import Context, Engine, Event, StartEvent, StopEvent, Workflow, step
from stepwell.patch import apply
from stepwell.retry_policy import retry_policy, stop_after_attempt, wait_fixed
from stepwell.runtime.stored import StreamItem
from stepwell.stores.sqlite import SQLiteStore

RUN = "run"


class Left(Event):
    n: int = 0


class Right(Event):
    pass


class LeftDone(Event):
    pass


class RightDone(Event):
    pass


class Flow(Workflow):
    """Every step notes its name in the state, in three edits with a pause in between."""

    async def note(self, ctx: Context, name: str) -> None:
        await ctx.store.set(name, "begun")
        ctx.write_event_to_stream(Event(note=name))
        await asyncio.sleep(0)
        await ctx.store.set(f"of.{name}", ctx.retry_info().retry_number)
        await ctx.store.set(name, "done")

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Left | Right | None:
        await self.note(ctx, "begin")
        ctx.send_event(Right())
        return Left()

    @step(retry_policy=retry_policy(wait=wait_fixed(0), stop=stop_after_attempt(2)))
    async def left(self, ctx: Context, ev: Left) -> LeftDone:
        if ctx.retry_info().retry_number == 0:
            await ctx.store.set("failed", 1)
            await ctx.store.set("begin", "spoilt")
            ctx.send_event(RightDone())
            raise ConnectionError("not now")
        await self.note(ctx, "left")
        return LeftDone()

    @step
    async def right(self, ctx: Context, ev: Right) -> RightDone:
        await self.note(ctx, "right")
        return RightDone()

    @step
    async def end(self, ctx: Context, ev: LeftDone | RightDone) -> StopEvent | None:
        both = ctx.collect_events(ev, [LeftDone, RightDone])
        if both is None:
            return None
        await self.note(ctx, "end")
        found = [name for name in sorted(NOTES) if await ctx.store.get(name, default=0) == "done"]
        return StopEvent(result=found)


NOTES = {"begin", "left", "right", "end"}

Rows = list[tuple[int, float, list[Any]]]


async def one_life(path: Path, me: Process) -> None:
    async with Engine(me.store(path), [Flow()]) as engine:
        await (await engine.start(Flow, run_id=RUN))


async def journal_of(path: Path) -> Rows:
    """What a process left, read without the workflow's code."""
    async with Engine(SQLiteStore(path), worker=False) as looker:
        there, _ = await looker.list()
        return cast("Rows", await looker.journal(RUN)) if there else []


def check(rows: Rows, sent: int = 0) -> set[str]:
    """At every row, the state shows the edits of the finished steps and nothing else; returns the
    names of the steps that finished with edits."""
    steps: dict[int, str] = {}
    state: Any = {}
    finished: set[str] = set()
    for _, _, entries in rows:
        done = [steps[e[1]] for e in entries if e[0] == "done"]
        for kind, *values in entries:
            if kind == "add":
                steps[values[0]] = values[1]
            elif kind == "set":
                state = apply(state, values[0])
        edited = {name for name in NOTES if name in state.get("_data", state)}
        returned = {"begin": "Left", "left": "LeftDone", "right": "RightDone", "end": None}
        for name in done:
            if name == "end" and "end" not in edited:
                continue  # it took in the first of two
            finished.add(name)
            emitted = [e[3][0] for e in entries if e[0] == "add" and e[3]]
            assert returned[name] is None or returned[name] in emitted, (name, entries)
            assert returned[name] is not None or any(e[0] == "end" for e in entries)
        assert edited == finished, f"the state shows {edited} when {finished} are finished"
        noted = state.get("_data", state)
        assert "failed" not in noted
        assert all(noted[name] == "done" for name in finished)
        assert set(noted.get("of", ())) == finished
    return finished


def test_a_result_its_events_and_its_edits_are_one_row(tmp_path: Path) -> None:
    live(partial(one_life, tmp_path / "runs.db"))
    rows = asyncio.run(journal_of(tmp_path / "runs.db"))
    assert any(entry[0] == "fail" for _, _, entries in rows for entry in entries)
    assert check(rows) == NOTES


def test_a_process_killed_at_any_write_leaves_the_edits_of_finished_steps(tmp_path: Path) -> None:
    writes = live(partial(one_life, tmp_path / "whole.db")).writes
    found: set[frozenset[str]] = set()
    for when, number in deaths(writes):
        path = tmp_path / f"{when}-{number}.db"
        live(partial(one_life, path), (when, number))
        left = asyncio.run(journal_of(path))
        found.add(frozenset(check(left)))
        result = asyncio.run(went_on(path))
        assert result == sorted(NOTES) or not left
        rows = asyncio.run(journal_of(path))
        assert rows[: len(left)] == left
        assert check(rows) == (NOTES if left else set())
    assert len(found) >= 4, f"the kills met too few states: {found}"


async def went_on(path: Path) -> Any:
    async with Engine(SQLiteStore(path, durability="process"), [Flow()]) as engine:
        there, _ = await engine.list()
        return await engine.result(RUN) if there else None


async def test_a_failed_run_shows_no_edit_of_the_attempt_that_failed_it(tmp_path: Path) -> None:
    class Fails(Workflow):
        @step
        async def first(self, ctx: Context, ev: StartEvent) -> Left:
            await ctx.store.set("kept", 1)
            return Left()

        @step
        async def second(self, ctx: Context, ev: Left) -> StopEvent:
            await ctx.store.set("lost", 1)
            await ctx.store.set("kept", 2)
            raise LookupError("no such thing")

    async with Engine(SQLiteStore(tmp_path / "runs.db"), [Fails()]) as engine:
        handler = await engine.start(Fails, run_id=RUN)
        with pytest.raises(LookupError):
            await handler
        state: Any = {}
        for _, _, entries in cast("Rows", await engine.journal(RUN)):
            for entry in entries:
                if entry[0] == "set":
                    state = apply(state, entry[1])
        assert state.get("_data", state) == {"kept": 1}


class Said(Event):
    said: str


class Chatter(Workflow):
    """Steps at the same time that all write, and one that waits for the readers."""

    ready: asyncio.Event

    @step
    async def begin(self, ev: StartEvent) -> list[Left]:
        return [Left(n=n) for n in range(6)]

    @step(num_workers=3)
    async def talk(self, ctx: Context, ev: Left) -> LeftDone:
        for i in range(4):
            ctx.write_event_to_stream(Said(said=f"{ev.n}.{i}"))
            await asyncio.sleep(0)
            if ev.n == 3:
                await ctx.memo("pause", lambda: 0)
        return LeftDone()

    @step
    async def end(self, ctx: Context, ev: list[LeftDone]) -> StopEvent:
        await self.ready.wait()
        ctx.write_event_to_stream(Said(said="last"))
        return StopEvent(result=len(ev))


async def test_every_reader_sees_the_same_order(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    flow = Chatter(timeout=None)
    flow.ready = asyncio.Event()

    def shown(items: list[StreamItem]) -> list[tuple[str, str]]:
        return [(item.cursor, repr(item.event)) for item in items]

    async def read(engine: Engine, after: str | None = None) -> list[StreamItem]:
        return [item async for item in engine.stream(RUN, after=after)]

    async with (
        Engine(SQLiteStore(path, durability="process"), [flow]) as engine,
        Engine(SQLiteStore(path, durability="process"), [flow], worker=False, poll=0.02) as other,
    ):
        await engine.start(flow, run_id=RUN)
        middle: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def first() -> list[StreamItem]:
            seen: list[StreamItem] = []
            async for item in engine.stream(RUN):
                seen.append(item)
                if len(seen) == 12:
                    middle.set_result(item.cursor)
            return seen

        async def from_a_cursor(reader: Engine) -> list[StreamItem]:
            cursor = await middle
            flow.ready.set()
            return await read(reader, cursor)

        whole, again, elsewhere, rest, rest_elsewhere = await asyncio.gather(
            first(), read(engine), read(other), from_a_cursor(engine), from_a_cursor(other)
        )
        expected = shown(whole)
        assert len(expected) == 6 * 4 + 2
        assert len({cursor for cursor, _ in expected}) == len(expected)
        assert shown(again) == shown(elsewhere) == expected
        assert shown(rest) == shown(rest_elsewhere) == expected[12:]
        assert whole[-1].terminal
        assert not any(item.terminal for item in whole[:-1])
        for number, (cursor, _) in enumerate(expected):
            assert shown(await read(other, cursor)) == expected[number + 1 :]
        # And the order is that of the journal.
        journal = cast("Rows", await other.journal(RUN))
        entries = [e for _, _, row in journal for e in row if e[0] == "pub"]
        journaled = [m[1]["said"] for _, messages, *_ in entries for m in messages]
        assert journaled == [item.event.said for item in whole[:-1]]
