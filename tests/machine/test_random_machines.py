"""A machine that chance has drawn ends the same in memory, on SQLite, and after its process died.

The steps of the machine are data: for each visit what it returns, whether it raises first, what it
writes into the Context. The world outside sends its signals at fixed moments, and sends again what
it got no answer to. Time is virtual, so all lives have the same moments; a life that dies at a
write goes on at the same moment in another one.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from tests.crash.machines import inside, told

from stepwell.machine import (
    Retry,
    SubflowResult,
    complete,
    fail,
    goto,
    on_fail,
    run_subflow,
    sleep,
    step,
    wait,
    wait_for_event,
    workflow,
)
from stepwell.runtime.attempt import current
from stepwell.runtime.engine import Engine
from stepwell.stores.base import Store
from stepwell.stores.memory import MemoryStore
from stepwell.stores.sqlite import SQLiteStore
from stepwell.testing import VirtualClock
from stepwell.testing.stores import Dying, hooked
from stepwell.values import RunStatus

VISITS = 9
"""Steps that a run makes at most."""

# What a step does, by kind; steps are numbers, and are taken modulo how many there are.
Move = tuple[Any, ...]
steps = st.integers(0, 3)
names = st.sampled_from(["red", "blue"])
# Whole seconds; signals come in between, and timeouts have moments of their own.
seconds = st.integers(1, 12).map(float)
timeouts = st.none() | st.integers(1, 12).map(lambda n: n + 0.25)
moves: st.SearchStrategy[Move] = st.one_of(
    st.tuples(st.just("goto"), steps),
    st.tuples(st.just("sleep"), seconds, st.none() | steps),
    st.tuples(st.just("signal"), names, timeouts, st.none() | steps, st.none() | steps),
    st.tuples(st.just("event"), names, timeouts.map(lambda t: t or 5.25), steps, steps),
    st.tuples(st.just("part"), seconds, st.booleans(), steps),
    st.tuples(st.just("complete")),
    st.tuples(st.just("fail")),
    st.tuples(st.just("nonsense")),
)
visits = st.tuples(moves, st.integers(0, 3), st.booleans())
"""What it returns, how many attempts fail first, and whether it is a plain function's turn."""


@dataclass
class Drawn:
    """A machine, and what the world sends its run."""

    steps: list[list[tuple[Move, int, bool]]]
    mourns: bool
    signals: list[tuple[float, str, str]]


machines = st.builds(
    Drawn,
    st.lists(st.lists(visits, min_size=1, max_size=3), min_size=2, max_size=4),
    st.booleans(),
    st.lists(
        st.tuples(
            st.integers(0, 30).map(lambda n: n + 0.6),
            st.sampled_from(["red", "blue", "event:red", "cancel"]),
            st.sampled_from(["one", "two"]),
        ),
        max_size=6,
    ).map(lambda sent: sorted(sent, key=lambda s: s[0])),
)

numbers = itertools.count()


@workflow("random-part")
class Part:
    """The subflow of drawn machines."""

    class Context(BaseModel):
        seconds: float
        good: bool

    context: Context

    @step(start=True)
    async def rest(self) -> object:
        return sleep(self.context.seconds, then=self.end)

    @step()
    async def end(self) -> object:
        return complete(seconds=1) if self.context.good else fail("as it was told")


def made(drawn: Drawn) -> type:
    """The class of a drawn machine."""

    class Context(BaseModel):
        visits: int = 0
        told: str = ""
        log: list[str] = []

    def body(number: int) -> Callable[..., Any]:
        def returned(self: Any, result: SubflowResult | None) -> object:
            context: Context = self.context
            turns = drawn.steps[number]
            move, failures, _ = turns[context.visits % len(turns)]
            context.visits += 1
            context.log.append(f"{number} {context.told}")
            context.told = ""
            if result is not None:
                context.log.append(f"{result.status} {result.error} {result.result}")
            if current.get().work.attempt <= failures:
                raise OSError(f"attempt {current.get().work.attempt}")
            return complete(told="enough") if context.visits >= VISITS else value(move, drawn)

        return returned

    def named(number: int, plain: bool) -> Callable[..., Any]:
        returned = body(number)

        def in_a_thread(self: Any, result: SubflowResult | None = None) -> object:
            return returned(self, result)

        async def in_the_loop(self: Any, result: SubflowResult | None = None) -> object:
            return returned(self, result)

        stepped: Callable[..., Any] = in_a_thread if plain else in_the_loop
        stepped.__name__ = f"s{number}"
        retry = Retry(max_attempts=3, base_delay=0.5)
        return step(start=number == 0, retry=retry)(stepped)

    def mourn(self: Any, error: Exception) -> None:
        self.context.log.append(f"mourned {error}")

    members: dict[str, Any] = {"Context": Context}
    for number, turns in enumerate(drawn.steps):
        members[f"s{number}"] = named(number, turns[0][2])
    if drawn.mourns:
        members["mourn"] = on_fail(mourn)
    return workflow(f"random-{next(numbers)}")(type("Random", (), members))


def value(move: Move, drawn: Drawn) -> object:
    """What the step returns."""

    def at(number: int | None) -> str | None:
        return None if number is None else f"s{number % len(drawn.steps)}"

    match move:
        case ("goto", to):
            return goto(at(to) or "", progress=0.5)
        case ("sleep", duration, then):
            return sleep(duration, then=at(then))
        case ("signal", name, timeout, late, then):
            # Nobody may come: no wait is without an end.
            timeout = timeout or 40.25
            return wait.for_signal(name, timeout, on_timeout=at(late), then=at(then))
        case ("event", name, timeout, late, then):
            return wait_for_event(name, timeout, on_timeout=at(late), then=at(then))
        case ("part", duration, good, then):
            return run_subflow(Part, on_complete=at(then) or "", seconds=duration, good=good)
        case ("complete",):
            return complete(visits=99, free="text")
        case ("fail",):
            return fail("drawn")
        case _:
            return "nonsense"


# --- lives ---------------------------------------------------------------------------------------


@dataclass
class World:
    """The world outside, which outlives the processes: what it has sent, and when all began."""

    drawn: Drawn
    kind: type
    clock: VirtualClock
    begun: float = 0.0
    sent: int = 0
    now: float = 0.0
    ends: list[Any] = field(default_factory=list[Any])

    async def live(self, store: Store, hook: Dying) -> None:
        """One life of the engine, up to the end of the run or of the process."""
        core = self.clock.engine(hooked(store, hook))
        core.register(Part)
        core.register(self.kind)
        lived = asyncio.ensure_future(self.outside(core))
        died = asyncio.ensure_future(hook.died())
        await asyncio.wait({lived, died}, return_when=asyncio.FIRST_COMPLETED)
        if died.done():
            lived.cancel()
            core.abandon()
            self.now = self.clock.elapsed
            left = self.clock.store(store)  # no time passes while it is seen to
            await left.close()
            await left.open()  # what a new process of this machine finds out of itself
            await left.unregister(core.worker_id)
            await left.close()
        else:
            died.cancel()
            await lived
            await core.stop()

    async def outside(self, core: Engine) -> None:
        """Start the run and send what there is to send; what had no answer, again."""
        engine = inside(core)
        run = await engine.astart(self.kind, key="one")
        signals = self.drawn.signals
        while self.sent < len(signals):
            at, name, word = signals[self.sent]
            await self.clock.advance(max(0.0, self.begun + at - self.clock.now()))
            if name == "cancel":
                if self.sent == len(signals) - 1:  # a cancel makes the rest moot
                    await core.cancel(run.id, word)
            else:
                await core.signal(run.id, name, {"told": word}, dedupe=f"signal {self.sent}")
            self.sent += 1
        while any(not status.terminal for _, status in await core.counts()):
            await self.clock.advance(10.0)
            assert self.clock.now() < self.begun + 3000, await engine.runs.first().arefresh()  # type: ignore[union-attr]
        self.ends = [{key: one[key] for key in one if key != "name"} for one in await told(engine)]
        for info in (await core.list())[0]:
            row = await core.store.get(info.id)
            assert row is not None
            assert (row.owner, row.due) == (None, None)
        verify = await core.store.verify()
        assert verify == []


def ends(drawn: Drawn, store: Callable[[], Store], hooks: Sequence[Dying]) -> list[Any]:
    """How the runs of a machine end, in as many lives as there are hooks."""
    clock = VirtualClock()
    world = World(drawn, made(drawn), clock, clock.now())

    for hook in hooks:
        if not world.ends:
            clock.run(world.live, store=store(), hook=hook)
            clock.elapsed = world.now  # what its loop waited for while it was closed did not pass
    assert world.ends
    return world.ends


@settings(
    max_examples=60,
    phases=[Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example],
)
@given(machines, st.integers(0, 1000), st.integers(0, 1000), st.sampled_from(["before", "after"]))
def test_a_machine_ends_the_same_wherever_it_lives_and_dies(
    drawn: Drawn, first: int, second: int, when: str
) -> None:
    note(f"{drawn}, {first}, {second}, {when}")
    calm = Dying()
    memory = MemoryStore()
    expected = ends(drawn, lambda: memory, [calm])
    assert all(RunStatus(run["status"]).terminal for run in expected)
    writes = len(calm.writes)
    with tempfile.TemporaryDirectory() as directory:

        def on_file(name: str) -> Callable[[], Store]:
            return lambda: SQLiteStore(Path(directory) / name, durability="process")

        assert ends(drawn, on_file("calm.db"), [Dying()]) == expected
        dying = [Dying(1 + first % writes, when), Dying(1 + second % writes, "after"), Dying()]
        assert ends(drawn, on_file("killed.db"), dying) == expected
        memory = MemoryStore()
        again = [Dying(1 + second % writes, when), Dying()]
        assert ends(drawn, lambda: memory, again) == expected
