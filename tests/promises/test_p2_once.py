"""P2: at most one committed result per run, step and input; a body that starts again has its key.

Three lives: the first process is killed before and after each of its writes, the second one at an
early write of its own, the third one comes to the end. Every body says its key as it begins.

Caught breaks: a fold on taking over that misses the last row of the journal (finished work is done
a second time); a key that is drawn anew for each body; a key that counts the attempts.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.promises.processes import Process, deaths, live

from stepwell import Context, Engine, Event, StartEvent, StopEvent, Workflow, step
from stepwell.kernel.journal import AttemptFailed, Entry, RunEnded, WorkAdded, WorkDone
from stepwell.retry_policy import retry_policy, stop_after_attempt, wait_fixed
from stepwell.stores.sqlite import SQLiteStore
from stepwell.values import RunStatus

RUN = "run"


class Part(Event):
    n: int


class Priced(Event):
    n: int


class Order(Workflow):
    """Parts at the same time, one of which needs two attempts; and all of them together."""

    def __init__(self, began: Callable[[str, int, str], None]) -> None:
        super().__init__(timeout=None)
        self.began = began

    @step
    async def split(self, ctx: Context, ev: StartEvent) -> list[Part]:
        self.began("split", 0, ctx.idempotency_key)
        return [Part(n=1), Part(n=2)]

    @step(retry_policy=retry_policy(wait=wait_fixed(0), stop=stop_after_attempt(3)))
    async def price(self, ctx: Context, ev: Part) -> Priced:
        self.began("price", ev.n, ctx.idempotency_key)
        if ev.n == 2 and ctx.retry_info().retry_number == 0:
            raise ConnectionError("not now")
        await ctx.memo("asked", lambda: ev.n)
        return Priced(n=ev.n)

    @step
    async def total(self, ctx: Context, ev: list[Priced]) -> StopEvent:
        self.began("total", 0, ctx.idempotency_key)
        return StopEvent(result=sum(e.n for e in ev))


async def one_life(path: Path, me: Process) -> None:
    """Begin the run, or go on with it, to its end."""
    order = Order(lambda *body: me.say(body))
    async with Engine(me.store(path), [order]) as engine:
        infos, _ = await engine.list()
        if not infos:
            await engine.start(order, run_id=RUN)
        await engine.result(RUN)


async def end(path: Path) -> list[Entry]:
    """The journal of the run that has ended."""
    store = SQLiteStore(path, durability="process")
    async with Engine(store, [Order(lambda *_: None)], worker=False) as looker:
        assert await looker.result(RUN) == 3
        return await looker.entries(RUN)


def check(entries: list[Entry], bodies: list[Any]) -> None:
    """One result for each piece of work, and one key."""
    steps = {e.id: e.step for e in entries if isinstance(e, WorkAdded)}
    done = Counter(e.id for e in entries if isinstance(e, WorkDone))
    assert set(done.values()) == {1}, f"work was done twice: {done}"
    assert Counter(steps[id] for id in done) == {"split": 1, "price": 2, "total": 1}
    assert len(steps) == len(done), "an input was given to a step twice"
    failed = [e for e in entries if isinstance(e, AttemptFailed)]
    assert len(failed) == 1, "the attempt that failed is in the journal once"
    endings = [e.status for e in entries if isinstance(e, RunEnded)]
    assert endings == [RunStatus.COMPLETED]
    keys: dict[tuple[str, int], set[str]] = {}
    for name, n, key in bodies:
        keys.setdefault((name, n), set()).add(key)
    assert set(keys) == {("split", 0), ("price", 1), ("price", 2), ("total", 0)}
    assert all(len(seen) == 1 for seen in keys.values()), f"a body had another key: {keys}"
    assert len(set.union(*keys.values())) == 4, f"two pieces of work had one key: {keys}"


def test_a_retry_has_the_key_of_the_attempt_before(tmp_path: Path) -> None:
    whole = live(partial(one_life, tmp_path / "runs.db"))
    assert [body[:2] for body in whole.said].count(["price", 2]) == 2
    check(asyncio.run(end(tmp_path / "runs.db")), whole.said)


def test_a_run_killed_at_any_write_has_each_result_once(tmp_path: Path) -> None:
    writes = live(partial(one_life, tmp_path / "whole.db")).writes
    repeated: set[str] = set()
    for turn, (when, number) in enumerate(deaths(writes)):
        path = tmp_path / f"{when}-{number}.db"
        first = live(partial(one_life, path), (when, number))
        assert first.killed or number > 5
        second = live(partial(one_life, path), ("after", 3 + turn % 3))
        third = live(partial(one_life, path))
        assert not third.killed
        bodies = first.said + second.said + third.said
        check(asyncio.run(end(path)), bodies)
        counts = Counter(name for name, n, _ in bodies if (name, n) != ("price", 2))
        repeated |= {name for name, count in counts.items() if count > 1}
    assert repeated == {"split", "price", "total"}, "no kill hit these bodies; the test is blind"
