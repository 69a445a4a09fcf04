"""P1: a step result that anyone was told of is never lost.

A process is killed before and after each write of its store, and right after each thing it was
told: a run was started, a result was returned, an event was streamed, rows of the journal were
shown. What the dead process had been told must be in the file that it left, and in the same order.

Caught breaks: a writer that completes its futures before the transaction's COMMIT; a ledger that
performs entries before they are committed; a file that is opened with `synchronous=NORMAL` where
power cuts are to be survived.
"""

from __future__ import annotations

import asyncio
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.promises.processes import Kill, Process, deaths, live

from stepwell import Context, Engine, Event, StartEvent, StopEvent, Workflow, step
from stepwell.stores.sqlite import SQLiteStore
from stepwell.values import RunStatus

RUN = "run"


class Halved(Event):
    n: int


class Flow(Workflow):
    """Two steps; both show something, and the second one keeps something in between."""

    @step
    async def halve(self, ctx: Context, ev: StartEvent) -> Halved:
        ctx.write_event_to_stream(Event(note="halve"))
        return Halved(n=ev.n // 2)

    @step
    async def end(self, ctx: Context, ev: Halved) -> StopEvent:
        ctx.write_event_to_stream(Event(note="end"))
        await ctx.memo("looked up", lambda: 7)
        ctx.write_event_to_stream(Event(note="looked up"))
        return StopEvent(result=ev.n)


async def one_life(path: Path, last: str | None, me: Process) -> None:
    """Start the run, and say all that this process is told of it; die on hearing `last`."""

    def tell(*word: Any) -> None:
        me.say(word)
        if word[0] == last:
            me.die()

    async with Engine(me.store(path, "power"), [Flow()]) as engine:
        handler = await engine.start(Flow, n=8, run_id=RUN)
        tell("started")

        async def stream() -> None:
            async for item in engine.stream(RUN):
                tell("streamed", item.cursor, repr(item.event))

        async def handed() -> None:
            async for event in handler.stream_events():
                tell("handed", repr(event))

        async def shown() -> None:
            status = RunStatus.QUEUED
            while not status.terminal:
                info = await engine.get(RUN)
                status = info.status
                tell("seen", status, info.seq)
                rows = await engine.journal(RUN)
                tell("shown", len(rows), rows)

        async def returned() -> None:
            tell("returned", await handler)

        await asyncio.gather(stream(), handed(), shown(), returned())


async def kept(path: Path) -> dict[str, Any]:
    """What the file holds, before anyone goes on with it; and how the run ends then."""
    async with Engine(SQLiteStore(path), worker=False) as looker:
        infos, _ = await looker.list()
        there = bool(infos)
        rows = await looker.journal(RUN) if there else []
        status = infos[0].status if there else None
    found: dict[str, Any] = {"there": there, "rows": rows, "status": status}
    if there:
        async with Engine(SQLiteStore(path), [Flow()]) as engine:
            found["result"] = await engine.result(RUN)
            items = [item async for item in engine.stream(RUN)]
            found["streamed"] = [[i.cursor, repr(i.event)] for i in items]
            assert len(await engine.journal(RUN)) >= len(rows)
    return found


def check(said: list[Any], found: dict[str, Any]) -> None:
    """Everything that was said is there."""
    streamed = [rest for word, *rest in said if word == "streamed"]
    handed = [text for word, text in (s for s in said if s[0] == "handed")]
    if said:
        assert found["there"], f"the run is gone; its process was told {said}"
    else:
        return
    assert streamed == found["streamed"][: len(streamed)]
    assert handed == [text for _, text in found["streamed"]][: len(handed)]
    for word, *rest in said:
        match word:
            case "shown":
                count, rows = rest
                assert [[*row] for row in found["rows"][:count]] == rows
            case "seen":
                status, row = rest
                assert found["rows"][-1][0] >= row
                if RunStatus(status).terminal:
                    assert found["status"] == status
            case "returned":
                assert found["status"] is RunStatus.COMPLETED
                assert found["result"] == rest[0]
            case _:
                continue


def test_what_was_told_before_a_kill_at_any_write_is_there_after_it(tmp_path: Path) -> None:
    whole = live(partial(one_life, tmp_path / "whole.db", None))
    assert ["returned", 4] in whole.said
    assert not whole.killed
    kills: list[Kill] = list(deaths(whole.writes))
    assert len(kills) >= 10
    told: set[str] = set()
    for when, number in kills:
        path = tmp_path / f"{when}-{number}.db"
        ended = live(partial(one_life, path, None), (when, number))
        # Which writes share a transaction depends on how threads run: there may be fewer of them.
        assert ended.killed or number > 6
        told |= {word for word, *_ in ended.said}
        check(ended.said, asyncio.run(kept(path)))
    assert told == {"started", "streamed", "handed", "shown", "seen", "returned"}


@pytest.mark.parametrize("last", ["started", "streamed", "handed", "shown", "seen", "returned"])
def test_what_was_told_an_instant_before_a_kill_is_there_after_it(
    tmp_path: Path, last: str
) -> None:
    ended = live(partial(one_life, tmp_path / "runs.db", last))
    assert ended.killed
    assert ended.said[-1][0] == last
    check(ended.said, asyncio.run(kept(tmp_path / "runs.db")))


@pytest.mark.usefixtures("synced")
@pytest.mark.parametrize(
    ("query", "durability", "level"), [("", "power", 2), ("?durability=process", "process", 1)]
)
async def test_the_store_syncs_each_commit_unless_it_is_told_otherwise(
    tmp_path: Path, query: str, durability: str, level: int
) -> None:
    def pragmas(db: sqlite3.Connection) -> list[Any]:
        names = ("synchronous", "journal_mode", "fullfsync")
        return [db.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    expected = [level, "wal", int(durability == "power")]
    async with Engine(f"sqlite:///{tmp_path / 'runs.db'}{query}", [Flow()]) as engine:
        assert engine.durability == durability
        store: Any = engine.store
        # In the connection that commits: SQLite keeps this setting for each connection alone.
        assert await store._writer.submit(False, pragmas) == expected
        assert await (await engine.start(Flow, n=8)) == 4
        assert await store._writer.submit(False, pragmas) == expected
