"""P6: an accepted signal is consumed at most once, survives restarts, and may come before anyone
waits.

A signal is a row in the run's inbox; the commit that takes it in deletes the row. Between the two
the process is killed here, before and after each of its writes, with signals that come before
anyone waits for them, and two waits that want one each.

Caught breaks: a commit that leaves the messages it took in where they are; one that deletes them
before what came of them is kept; a run that forgets what came when nobody waited; a fold that
does not mark such a message as used; a dedupe word that is forgotten with its message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

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
from stepwell.stores.sqlite import SQLiteStore
from stepwell.values import RunStatus

RUN = "run"


class Paid(HumanResponseEvent):
    amount: int


class First(Event):
    amount: int


class Two(Workflow):
    """Two waits in two steps, each of which takes one payment."""

    @step
    async def one(self, ctx: Context, ev: StartEvent) -> First:
        paid = await ctx.wait_for_event(Paid, timeout=None)
        return First(amount=paid.amount)

    @step
    async def other(self, ctx: Context, ev: First) -> StopEvent:
        paid = await ctx.wait_for_event(Paid, timeout=None)
        return StopEvent(result=[ev.amount, paid.amount])


def engine_on(store: SQLiteStore) -> Engine:
    return Engine(store, [Two(timeout=None)], poll=0.02)


def store_on(path: Path) -> SQLiteStore:
    return SQLiteStore(path, durability="process")


async def create(path: Path, signals: Sequence[tuple[int, str | None]] = ()) -> list[bool]:
    """A run that nobody has advanced yet, and what it is sent by a process without its code."""
    async with Engine(store_on(path), [Two(timeout=None)], worker=False) as starter:
        await starter.start(Two, run_id=RUN)
        assert (await starter.get(RUN)).status is RunStatus.QUEUED
        return await send(starter, signals)


async def send(engine: Engine, signals: Sequence[tuple[int, str | None]]) -> list[bool]:
    return [
        await engine.signal(RUN, "Paid", {"amount": amount}, dedupe=word)
        for amount, word in signals
    ]


async def go_on(path: Path, me: Process) -> None:
    async with engine_on(me.store(path)) as engine:
        me.say(await engine.result(RUN))


async def ended(path: Path) -> tuple[Any, list[Any], int]:
    """The result, the payments that waits were given, and the messages that are left."""
    store = store_on(path)
    async with engine_on(store) as engine:
        result = await engine.result(RUN)
        rows: list[Any] = await engine.journal(RUN)
        left = len(await store.messages(RUN))
    got = [e[3][1]["amount"] for _, _, entries in rows for e in entries if e[0] == "got"]
    return result, got, left


def test_signals_before_anyone_waits_are_taken_once_whatever_write_kills(tmp_path: Path) -> None:
    def begin(name: str) -> Path:
        path = tmp_path / f"{name}.db"
        assert asyncio.run(create(path, [(1, None), (2, None), (3, None)])) == [True] * 3
        return path

    whole = live(partial(go_on, begin("whole")))
    assert whole.said == [[1, 2]]
    found: list[tuple[bool, int]] = []
    for when, number in deaths(whole.writes):
        path = begin(f"{when}-{number}")
        live(partial(go_on, path), (when, number))
        found.append(asyncio.run(left_by_the_dead(path)))
        result, got, left = asyncio.run(ended(path))
        assert result == [1, 2]
        assert got == [1, 2]
        assert left == 0
    assert (True, 4) in found, "no kill came while the start and the signals were in the inbox"
    assert found.count((True, 0)) >= 2, "no kill came while they were kept for a wait to come"


async def left_by_the_dead(path: Path) -> tuple[bool, int]:
    """Whether the run has yet to end, and how many messages are in its inbox."""
    store = store_on(path)
    async with Engine(store, worker=False) as looker:
        alive = not (await looker.get(RUN)).status.terminal
        return alive, len(await store.messages(RUN))


def test_an_accepted_signal_survives_the_process_that_accepted_it(tmp_path: Path) -> None:
    """The sender dies right after it was told, while the run waits; a second one comes later."""

    async def accept(path: Path, me: Process) -> None:
        async with engine_on(me.store(path)) as engine:
            await engine.start(Two, run_id=RUN)
            while (await engine.get(RUN)).status is not RunStatus.WAITING:
                await engine.store.changed(0.02)
            me.say(await engine.signal(RUN, Paid(amount=1)))
            me.die()

    path = tmp_path / "runs.db"
    dead = live(partial(accept, path))
    assert dead.killed
    assert dead.said == [True]

    async def second() -> None:
        async with engine_on(store_on(path)) as engine:
            while not (await engine.get(RUN)).waits or await first_waits(engine):
                await engine.store.changed(0.02)
            assert await engine.signal(RUN, Paid(amount=2))
            assert await engine.result(RUN) == [1, 2]

    asyncio.run(second())
    assert asyncio.run(ended(path)) == ([1, 2], [1, 2], 0)


async def first_waits(engine: Engine) -> bool:
    return any(wait.step == "one" for wait in (await engine.get(RUN)).waits)


def test_a_signal_to_a_run_that_nobody_holds_is_kept_for_who_takes_it_up(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    asyncio.run(create(path))

    async def waits() -> None:
        async with engine_on(store_on(path)) as engine:
            while (await engine.get(RUN)).status is not RunStatus.WAITING:
                await engine.store.changed(0.02)

    async def sends() -> None:
        async with Engine(store_on(path), worker=False) as looker:
            assert (await looker.get(RUN)).status is RunStatus.WAITING
            assert await send(looker, [(1, None), (2, None)]) == [True, True]

    asyncio.run(waits())
    asyncio.run(sends())
    assert asyncio.run(ended(path)) == ([1, 2], [1, 2], 0)


def test_a_repeated_signal_does_nothing_also_after_the_first_was_consumed(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    accepted = asyncio.run(create(path, [(1, "a"), (1, "a"), (9, "a")]))
    assert accepted == [True, False, False]

    async def repeats() -> None:
        async with engine_on(store_on(path)) as engine:
            while not (waits := (await engine.get(RUN)).waits) or waits[0].step == "one":
                await engine.store.changed(0.02)
            assert await send(engine, [(1, "a")]) == [False]

    asyncio.run(repeats())

    async def once_more() -> list[bool]:
        async with Engine(store_on(path), worker=False) as looker:
            return await send(looker, [(1, "a"), (2, "b"), (2, "b")])

    assert asyncio.run(once_more()) == [False, True, False]
    assert asyncio.run(ended(path)) == ([1, 2], [1, 2], 0)


def test_two_waits_at_once_do_not_share_a_signal(tmp_path: Path) -> None:
    """Answers come while two waits are open; a kill at any write gives neither of them twice."""

    class Both(Workflow):
        @step
        async def both(self, ctx: Context, ev: StartEvent) -> StopEvent:
            one, other = await asyncio.gather(
                ctx.wait_for_event(Paid, waiter_id="one", timeout=None),
                ctx.wait_for_event(Paid, waiter_id="other", timeout=None),
            )
            return StopEvent(result=sorted([one.amount, other.amount]))

    async def life(path: Path, me: Process) -> None:
        store = me.store(path)
        async with Engine(store, [Both(timeout=None)], poll=0.02) as engine:
            if not (await engine.list())[0]:
                await engine.start(Both, run_id=RUN)
            while len((await engine.get(RUN)).waits) < 2:
                await store.changed(0.02)
            await send(engine, [(1, "m1"), (2, "m2")])
            me.say(await engine.result(RUN))

    async def rest(path: Path) -> Any:
        async with Engine(store_on(path), [Both(timeout=None)], poll=0.02) as engine:
            if not (await engine.list())[0]:
                await engine.start(Both, run_id=RUN)
            await send(engine, [(1, "m1"), (2, "m2")])  # whoever was not told says it again
            return await engine.result(RUN)

    writes = live(partial(life, tmp_path / "whole.db")).writes
    for when, number in deaths(writes):
        path = tmp_path / f"{when}-{number}.db"
        live(partial(life, path), (when, number))
        assert asyncio.run(rest(path)) == [1, 2]
