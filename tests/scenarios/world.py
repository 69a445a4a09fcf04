"""What a scenario is played in: a store, the engines on it, and all that can be seen afterwards.

A scenario says what is started, what the world outside does and what comes of it, in terms of the
engine; the flows that it needs are written in each of the four styles. It is one function for each
life: between two of them the engine dies as if its process had been killed, and another one, on a
store that was opened anew, goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from stepwell.kernel.journal import Entry, RunResumed
from stepwell.runtime.views import RunInfo
from stepwell.stores.base import Store
from stepwell.testing import Dying, HookedEngine, VirtualClock, hooked

HOUR, DAY = 3600.0, 86400.0

LEASE = 2 * DAY
"""Seconds after which an engine that died is known to be dead."""

said: list[str] = []
"""What the bodies of the steps have done, in order."""

broken: set[str] = set()
"""What does not work at the moment; a scenario mends it by taking it out."""


@dataclass(frozen=True)
class Style:
    """A way to write workflows, and the flows of the scenarios written in it.

    Attributes:
        flows: makes what an engine is given to know the flows, by the names that scenarios use.
        value: what a run came to, of the many things that a result may hold.
        begins: the fields that a run of a flow begins with, when the scenario gives it some.
        step: what the style calls a step of a flow.
        handled: how a run ends whose failure was dealt with.
        without: what the style does not have, with the reason.
    """

    flows: Callable[[], Mapping[str, Any]]
    value: Callable[[Any], Any]
    begins: Callable[[str, Mapping[str, Any]], Mapping[str, Any]] = lambda _, given: given
    step: Callable[[str], str] = lambda name: name
    handled: str = "failed"
    without: Mapping[str, str] = field(default_factory=dict[str, str])


class World:
    """One life of the engine.

    Attributes:
        engine: on the store that is tested.
        clock: the time.
        style: the style that is tested.
    """

    def __init__(self, style: Style, clock: VirtualClock, store: Store) -> None:
        self.style = style
        self.clock = clock
        self.death = Dying()
        self.flows = style.flows()
        owners = {id(owner): owner for owner in self.flows.values()}.values()
        self.engine: HookedEngine = clock.engine(hooked(store, self.death), owners, lease=LEASE)

    async def start(self, flow: str, run_id: str = "run", **fields: Any) -> None:
        """Start a run of a flow."""
        given = self.style.begins(flow, fields)
        await self.engine.start(self.flows[flow], run_id=run_id, **given)

    async def result(self, run_id: str = "run") -> Any:
        """What a run came to; raises what it failed with."""
        return self.style.value(await self.engine.result(run_id))

    async def status(self, run_id: str = "run") -> str:
        """Where a run is, in a word."""
        return (await self.engine.get(run_id)).status.value

    async def children(self, run_id: str = "run") -> Sequence[RunInfo]:
        """The runs that are parts of a run."""
        return (await self.engine.list(parent=run_id))[0]


Life: TypeAlias = Callable[[World], Awaitable[None]]


@dataclass
class Seen:
    """All that can be seen of a scenario when it is over, without what differs from one engine or
    one store to another: the names of workers, and how entries were packed into rows."""

    said: list[str] = field(default_factory=list[str])
    runs: list[RunInfo] = field(default_factory=list[RunInfo])
    counts: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    journals: dict[str, list[Entry]] = field(default_factory=dict[str, list[Entry]])
    streams: dict[str, list[str]] = field(default_factory=dict[str, list[str]])


def played(style: Style, lives: Sequence[Life], open_store: Callable[[], Store]) -> Seen:
    """Play a scenario; `open_store` gives another store on the same runs each time."""
    said.clear()
    broken.clear()
    clock = VirtualClock()
    for life in lives[:-1]:
        done, at = clock.run(
            lambda life=life: _until_killed(World(style, clock, open_store()), life)
        )
        # At the end of the loop bodies are cancelled, and timers may be due: whoever is killed does
        # not see that.
        said[:], clock.elapsed = done, at
        clock.skip(LEASE)
    return clock.run(lambda: _to_the_end(World(style, clock, open_store()), lives[-1]))


async def _until_killed(world: World, life: Life) -> tuple[list[str], float]:
    """Live; what was done, and when it ended."""
    await life(world)
    last = list(said), world.clock.elapsed
    # From now on no verb of the store returns, so what the engine still does is not kept.
    dead = world.death.dead
    assert dead is not None
    dead.set()
    world.engine.abandon()
    await world.engine.store.close()
    return last


async def _to_the_end(world: World, life: Life) -> Seen:
    await life(world)
    await world.clock.settle()
    engine = world.engine
    seen = Seen(list(said))
    cursor = None
    while True:
        page, cursor = await engine.list(limit=2, after=cursor)
        seen.runs += [dataclasses.replace(info, owner=None, seq=0) for info in page]
        if cursor is None:
            break
    seen.counts = {(name, s.value): n for (name, s), n in (await engine.counts()).items()}
    for info in seen.runs:
        seen.journals[info.id] = [_nameless(entry) for entry in await engine.entries(info.id)]
        if info.status.terminal:
            seen.streams[info.id] = await _streamed(engine, info.id)
    return seen


def _nameless(entry: Entry) -> Entry:
    return dataclasses.replace(entry, worker="") if isinstance(entry, RunResumed) else entry


async def _streamed(engine: HookedEngine, run_id: str) -> list[str]:
    """The stream of a run that has ended; whoever lost his place in it goes on where he was."""
    items = [item async for item in engine.stream(run_id)]
    for number, item in enumerate(items[:-1], 1):
        assert [i async for i in engine.stream(run_id, after=item.cursor)] == items[number:]
    assert [item.terminal for item in items] == [False] * (len(items) - 1) + [True]
    return [f"{item.at} {item.event!r}" for item in items]
