"""Signals, events, timeouts and cancels at random moments, on two engines that share a file.

Each seed is a schedule of its own: when the world acts and through which engine, in which order
tasks begin and the store answers, how long steps take and which of them fail once. What a run took
in is written down three times: in its Context, in its journal, and in what the world was told when
it sent. The three have to agree.

STEPWELL_SEEDS=5000 plays that many; a failure names its seed.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pydantic import BaseModel
from tests.crash.machines import inside

from stepwell.kernel.journal import Entry, RunEnded, WaitEnded, WaitOpened
from stepwell.machine import (
    Retry,
    WorkflowEngine,
    complete,
    goto,
    sleep,
    step,
    wait,
    wait_for_event,
    workflow,
)
from stepwell.runtime.attempt import current
from stepwell.runtime.engine import Engine
from stepwell.runtime.machine.emitting import Occurrence
from stepwell.stores.sqlite import SQLiteStore
from stepwell.testing import VirtualClock
from stepwell.values import utc

RUNS = 4
ACTIONS = 36
SECONDS = 40.0
"""In which the world acts."""

ROUNDS = 6
SEEDS = int(os.environ.get("STEPWELL_SEEDS", "60"))
CHUNKS = 10

pytestmark = pytest.mark.timeout(300 + SEEDS)


@workflow("interleaved")
class Player:
    """Waits some rounds for a signal or an event, for a while; then takes what is still to come."""

    class Context(BaseModel):
        me: str
        log: list[str] = []
        visit: int = 0
        token: str = ""

    context: Context

    def chance(self, what: str) -> Random:
        """The same for every attempt of this visit."""
        began.append(f"{current.get().idempotency_key()}/{current.get().work.attempt}")
        return Random(f"{self.context.me}/{self.context.visit}/{what}")

    @step(start=True)
    async def ask(self) -> object:
        chance = self.chance("ask")
        await asyncio.sleep(chance.choice((0, 0, 0.2, 2)))
        self.context.visit += 1
        if self.context.visit > ROUNDS:
            return wait.for_signal("go", timeout=2 * SECONDS, on_timeout=self.end, then=self.got)
        timeout = chance.choice((0.5, 2, 5, 10))
        if chance.random() < 0.3:
            return wait_for_event("happened", timeout, on_timeout=self.late, then=self.got)
        return wait.for_signal("go", timeout=timeout, on_timeout=self.late, then=self.got)

    @step(retry=Retry(max_attempts=2, base_delay=0.7))
    async def got(self) -> object:
        chance = self.chance("got")
        self.context.log.append(self.context.token)
        await asyncio.sleep(chance.choice((0, 0, 0.3)))
        if chance.random() < 0.25 and current.get().work.attempt == 1:
            raise OSError("not yet")
        self.context.token = ""
        if chance.random() < 0.3:
            return sleep(chance.choice((0, 1, 4)), then=self.ask)
        return goto(self.ask)

    @step()
    async def late(self) -> object:
        await asyncio.sleep(self.chance("late").choice((0, 0.3)))
        self.context.log.append("late")
        return goto(self.ask)

    @step()
    async def end(self) -> object:
        self.chance("end")
        return complete()


began: list[str] = []
"""Which attempts began, in the order they did."""


@dataclass
class Play:
    """What the world did, and what it was told."""

    clock: VirtualClock
    chance: Random
    path: Path
    cores: list[Engine] = field(default_factory=list[Engine])
    used: Counter[Engine] = field(default_factory=Counter[Engine])
    runs: list[str] = field(default_factory=list[str])
    directed: dict[str, str] = field(default_factory=dict[str, str])
    """Accepted signals: token and run."""
    correlated: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])
    broadcast: dict[str, tuple[int, float, float]] = field(
        default_factory=dict[str, tuple[int, float, float]]
    )
    events: list[str] = field(default_factory=list[str])
    cancelled: dict[str, float] = field(default_factory=dict[str, float])
    restarts: int = 0

    def open(self) -> Engine:
        """One more engine on the file."""
        store = SQLiteStore(self.path, durability="process")
        core = self.clock.engine(store, lease=30.0)
        core.register(Player)
        core.register(Occurrence)
        return core

    async def restart(self, place: int, grace: float) -> None:
        """Stop an engine, orderly, while another takes its place."""
        old, self.cores[place] = self.cores[place], self.open()
        while self.used[old]:  # noqa: ASYNC110 - in virtual time
            await asyncio.sleep(0.01)
        self.restarts += 1
        await old.stop(grace)

    async def act(self, number: int) -> None:
        """Do something at some moment, through one of the engines."""
        chance = self.chance
        kind = chance.choices(
            ("run", "correlation", "all", "event", "later", "cancel", "restart"),
            (20, 6, 8, 8, 4, 2, 1),
        )[0]
        place = chance.randrange(2)
        run = chance.choice(self.runs)
        moment = chance.random() * SECONDS
        # Often at a moment at which something else happens, too.
        await asyncio.sleep(round(moment) if chance.random() < 0.5 else moment)
        if kind == "restart":
            await self.restart(place, chance.choice((0.0, 1.0)))
            return
        core = self.cores[place]
        self.used[core] += 1
        await self.speak(inside(core), kind, f"{kind}{number}", run)
        self.used[core] -= 1

    async def speak(self, engine: WorkflowEngine, kind: str, token: str, run: str) -> None:
        """Send something, and write down what is said of it."""
        payload = {"token": token}
        now = self.clock.now
        if kind == "run":
            if await engine.asignal("go", payload, run_id=run):
                self.directed[token] = run
        elif kind == "correlation":
            team = self.chance.choice(("even", "odd"))
            count = await engine.asignal("go", payload, correlation=team)
            self.correlated[token] = team, count
        elif kind == "all":
            before = now()
            count = await engine.asignal("go", payload)
            self.broadcast[token] = count, before, now()
        elif kind == "cancel":
            if await engine.acancel(run, "enough"):
                self.cancelled.setdefault(run, now())
        else:
            at = utc(now() + 10 * self.chance.random()) if kind == "later" else None
            self.events.append(token)
            await engine.aemit("happened", at=at, payload=payload)


async def play(clock: VirtualClock, seed: int, path: Path) -> Play:
    """Let the world and the runs act until all runs have ended."""
    played = Play(clock, Random(seed), path)
    played.cores = [played.open(), played.open()]
    for number in range(RUNS):
        run = await inside(played.chance.choice(played.cores)).astart(
            Player, me=f"{seed}/{number}", correlation="odd" if number % 2 else "even"
        )
        played.runs.append(run.id)
    await asyncio.gather(*(played.act(number) for number in range(ACTIONS)))
    counts = None
    for _ in range(60):
        await clock.advance(20)
        counts = await played.cores[0].counts()
        if all(status.terminal for _, status in counts):
            return played
    raise AssertionError(f"runs go on for ever: {counts}")


async def check(played: Play) -> None:
    """Whether the Contexts, the journals and the world agree."""
    core = played.cores[0]
    engine = inside(core)
    logs: dict[str, Counter[str]] = {}
    given_up: set[str] = set()
    for id in played.runs:
        run = await engine.runs.aget(id=id)
        assert run.status in ("completed", "cancelled"), run.error
        if run.status == "cancelled":
            given_up.add(id)
        assert (run.status == "cancelled") == (id in played.cancelled)
        log: list[str] = run.data["log"]
        logs[id] = Counter(token for token in log if token != "late")
        assert set(logs[id].values()) <= {1}, f"used twice: {log}"
        check_waits(await core.batches(id), len(log), run.status == "cancelled")
    # A body that an orderly stop cut off starts again; no other does.
    assert max(Counter(began).values()) <= 1 + played.restarts
    check_signals(played, logs, given_up)
    await check_broadcasts(played, logs)
    for core in played.cores:
        await core.start_up()  # one that took another's place may not have been needed yet
        assert await core.store.verify() == []
        for id in set(played.runs) - given_up:
            assert await core.store.messages(id) == []


def check_waits(batches: Sequence[tuple[float, list[Entry]]], took: int, cancelled: bool) -> None:
    """Each wait ended once, in time, and its end was taken in once."""
    opened: dict[str, WaitOpened] = {}
    ended = 0
    for at, entries in batches:
        for entry in entries:
            if isinstance(entry, WaitOpened):
                assert entry.id not in opened
                opened[entry.id] = entry
            elif isinstance(entry, WaitEnded):
                wait = opened.pop(entry.id)  # and no second time
                ended += 1
                if entry.timed_out:
                    assert wait.due is not None
                    assert at >= wait.due
    if cancelled:
        assert took <= ended <= took + 1  # its last may not have been taken in
    else:
        assert not opened
        assert ended == took + 1  # the last one ends the run


def check_signals(played: Play, logs: dict[str, Counter[str]], given_up: set[str]) -> None:
    """What was accepted for a run was taken in by it, once, and by no other."""
    for id, log in logs.items():
        mine = {token for token, run in played.directed.items() if run == id}
        took = {token for token in log if token.startswith("run")}
        assert took <= mine
        if id not in given_up:
            assert took == mine, f"lost: {mine - took}"
    for token, (team, count) in played.correlated.items():
        members = [id for n, id in enumerate(played.runs) if (n % 2 == 1) == (team == "odd")]
        took = sum(logs[id][token] for id in members)
        assert took == sum(log[token] for log in logs.values())
        assert took <= count <= took + len(given_up.intersection(members))


async def check_broadcasts(played: Play, logs: dict[str, Counter[str]]) -> None:
    """A broadcast answers waits that were open, and no later ones; it counts the runs that received
    it, but for those whose wait ended meanwhile."""
    ends: dict[str, list[float]] = {id: [] for id in played.runs}
    for id in played.runs:
        since: dict[str, float] = {}
        for at, entries in await played.cores[0].batches(id):
            for entry in entries:
                if isinstance(entry, WaitOpened):
                    since[entry.id] = entry.at
                elif isinstance(entry, WaitEnded):
                    ends[id].append(at)
                    token = token_of(entry)
                    if token in played.broadcast:
                        assert since[entry.id] <= played.broadcast[token][2]
                elif isinstance(entry, RunEnded):
                    ends[id].append(at)
    for token, (count, before, after) in played.broadcast.items():
        took = {id for id, log in logs.items() if log[token]}
        assert len(took) <= count
        # The other engine takes it in when it looks.
        crossed = {
            id
            for id, times in ends.items()
            if any(before - 0.01 <= at <= after + 10.0 for at in times)
        }
        assert count <= len(took | crossed)
    for token in played.events:
        assert max(log[token] for log in logs.values()) <= 1


def token_of(entry: WaitEnded) -> str | None:
    """What the answer to a wait said."""
    payload: Any = None if entry.answer is None else entry.answer.payload
    return payload.get("token") if isinstance(payload, dict) else None


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_whatever_comes_when_every_wait_ends_once_and_nothing_is_lost(
    tmp_path: Path, chunk: int
) -> None:
    for seed in range(chunk, SEEDS, CHUNKS):
        began.clear()
        clock = VirtualClock(seed=seed)

        async def both(clock: VirtualClock = clock, seed: int = seed) -> None:
            await check(await play(clock, seed, tmp_path / f"{seed}.db"))

        try:
            clock.run(both)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
