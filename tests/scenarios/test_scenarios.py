"""Every style on every store: the same scenarios, with the same history to the last entry.

Each scenario is played on the store in memory, too; what the bodies did, how runs are listed and
counted, their streams and their journals have to be equal there.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from tests.scenarios import documents, events, machines, pipelines
from tests.scenarios.world import DAY, HOUR, LEASE, Life, Seen, Style, World, broken, played, said
from tests.servers.postgres import postgres, postgres_url_for
from tests.servers.redis import redis, redis_url_for

from stepwell.errors import WorkflowCancelledByUser, WorkflowTimeoutError
from stepwell.stores.base import Store
from stepwell.stores.memory import MemoryStore
from stepwell.stores.postgres import PostgresStore
from stepwell.stores.redis import RedisStore
from stepwell.stores.sqlite import SQLiteStore
from stepwell.testing import clock

__all__ = ["postgres", "postgres_url_for", "redis", "redis_url_for"]

STYLES: Mapping[str, Style] = {
    "events": events.STYLE,
    "pipeline": pipelines.STYLE,
    "machine": machines.STYLE,
    "document": documents.STYLE,
}
STORES = ("memory", "sqlite", "postgres", "redis")
SCENARIOS: dict[str, tuple[str, tuple[Life, ...]]] = {}
"""By name: the flow that a scenario needs, and its lives."""


def scenario(name: str, flow: str) -> Callable[[Life], Life]:
    """What is decorated is a scenario; a second one of the same name is its life after a kill."""

    def add(life: Life) -> Life:
        _, lives = SCENARIOS.get(name, (flow, ()))
        SCENARIOS[name] = (flow, (*lives, life))
        return life

    return add


# --- one engine ----------------------------------------------------------------------------------


@scenario("runs to its end", "straight")
async def runs(world: World) -> None:
    await world.start("straight", n=1)
    assert await world.result() == 3
    assert said == ["one", "two"]
    assert await world.status() == "completed"


@scenario("a failed attempt is retried", "flaky")
async def retried(world: World) -> None:
    await world.start("flaky")
    assert await world.result() == "at last"
    assert said == ["try"] * 3
    assert world.clock.elapsed == pytest.approx(20)


@scenario("a failure is dealt with", "caught")
async def dealt_with(world: World) -> None:
    await world.start("caught")
    await world.clock.settle()
    assert said == ["breaks", "handles boom"]
    assert await world.status() == world.style.handled


@scenario("a step takes too long", "slow step")
async def slow_step(world: World) -> None:
    await world.start("slow step")
    with pytest.raises(TimeoutError):
        await world.result()
    assert said == ["begins"]
    assert await world.status() == "failed"
    assert world.clock.elapsed == pytest.approx(60)


@scenario("a run takes too long", "slow run")
async def slow_run(world: World) -> None:
    await world.start("slow run")
    with pytest.raises(WorkflowTimeoutError):
        await world.result()
    assert said == ["begins", "cleans up"]
    assert await world.status() == "timed_out"
    assert world.clock.elapsed == pytest.approx(60)


@scenario("sleeps for a day", "sleeps")
async def sleeps(world: World) -> None:
    await world.start("sleeps")
    await world.clock.advance(DAY - 1)
    assert said == ["before"]
    assert await world.result() == "rested"
    assert said == ["before", "after"]
    assert world.clock.elapsed == pytest.approx(DAY)


@scenario("waits for a signal and gets it", "asks")
async def signalled(world: World) -> None:
    await world.start("asks")
    await world.clock.advance(DAY)
    assert await world.status() == "waiting"
    assert await world.engine.signal("run", "Approved", {"by": "Ada"})
    assert await world.result() == "Ada"


@scenario("a signal comes before anyone waits", "asks later")
async def signalled_early(world: World) -> None:
    await world.start("asks later")
    await world.clock.settle()
    assert await world.engine.signal("run", "Approved", {"by": "Ada"}, dedupe="once")
    assert not await world.engine.signal("run", "Approved", {"by": "Ben"}, dedupe="once")
    assert await world.result() == "Ada"


@scenario("a signal does not come in time", "asks for an hour")
async def not_signalled(world: World) -> None:
    await world.start("asks for an hour")
    assert await world.result() == "nobody"
    assert world.clock.elapsed == pytest.approx(HOUR)
    assert not await world.engine.signal("run", "Approved", {"by": "Ada"})


@scenario("cancelled, it cleans up", "long")
async def cancelled(world: World) -> None:
    await world.start("long")
    await world.clock.advance(60)
    assert await world.engine.cancel("run", "not needed")
    with pytest.raises(WorkflowCancelledByUser, match="not needed"):
        await world.result()
    assert said == ["one", "begins", "cleans up"]
    assert await world.status() == "cancelled"
    assert not await world.engine.cancel("run")


@scenario("fans out and joins", "fans out")
async def fans_out(world: World) -> None:
    await world.start("fans out")
    assert await world.result() == [0, 1, 2]
    assert said == ["part 2", "part 1", "part 0", "joined"]
    assert world.clock.elapsed == pytest.approx(3 * HOUR)


@scenario("a child run gives its result", "parent")
async def child(world: World) -> None:
    await world.start("parent", n=1)
    assert await world.result() == 3
    assert said == ["one", "two", "joined"]
    assert [info.status.value for info in await world.children()] == ["completed"]


@scenario("cancelled, it takes its child along", "guardian")
async def child_cancelled(world: World) -> None:
    await world.start("guardian")
    await world.clock.advance(60)
    assert [info.status.value for info in await world.children()] == ["waiting"]
    assert await world.engine.cancel("run")
    await world.clock.settle()
    assert await world.status() == "cancelled"
    assert [info.status.value for info in await world.children()] == ["cancelled"]


@scenario("failed, it is tried again from there", "fragile")
async def tried_again(world: World) -> None:
    broken.add("disk")
    await world.start("fragile")
    with pytest.raises(OSError, match="disk"):
        await world.result()
    broken.remove("disk")
    await world.engine.retry("run", new_id="again")
    assert await world.result("again") == "written"
    assert said == ["one", "two", "two"]
    assert (await world.status(), await world.status("again")) == ("failed", "completed")


@scenario("a copy goes on from a step", "straight")
async def forked(world: World) -> None:
    await world.start("straight", n=1)
    assert await world.result() == 3
    await world.engine.fork("run", step=world.style.step("two"), new_id="copy")
    assert await world.result("copy") == 3
    assert said == ["one", "two", "two"]


@scenario("runs are listed and counted", "asks")
async def listed(world: World) -> None:
    for number in range(5):
        await world.start("asks", f"run {number}")
        await world.clock.advance(1)
    await world.engine.signal("run 1", "Approved", {"by": "Ada"})
    await world.engine.cancel("run 3")
    await world.clock.settle()
    engine = world.engine
    first, cursor = await engine.list(status="waiting", limit=2)
    rest, end = await engine.list(status="waiting", limit=2, after=cursor)
    assert [info.id for info in (*first, *rest)] == ["run 4", "run 2", "run 0"]
    assert end is None
    ended, _ = await engine.list(status=["completed", "cancelled"])
    assert [info.id for info in ended] == ["run 3", "run 1"]
    counts = {status.value: count for (_, status), count in (await engine.counts()).items()}
    assert counts == {"waiting": 3, "completed": 1, "cancelled": 1}
    assert await engine.broadcast("Approved", {"by": "Ben"}) == 3
    assert await world.result("run 4") == "Ben"


@scenario("read while it runs and afterwards", "publishes")
async def streamed(world: World) -> None:
    async def read() -> list[str]:
        return [repr(item.event) async for item in world.engine.stream("run")]

    await world.start("publishes")
    early = asyncio.create_task(read())
    await world.clock.advance(1.5 * HOUR)
    halfway = asyncio.create_task(read())
    await world.result()
    shown = [*(f"Progress(n={n})" for n in range(4)), "StopEvent()"]
    assert await early == await halfway == await read() == shown


# --- one that is killed, and another that goes on ------------------------------------------------


@scenario("killed while a step is at work", "long")
async def killed_at_work(world: World) -> None:
    await world.start("long")
    await world.clock.advance(60)
    assert said == ["one", "begins"]


@scenario("killed while a step is at work", "long")
async def goes_on_at_work(world: World) -> None:
    assert await world.result() == "done"
    assert said == ["one", "begins", "begins", "ends"]


@scenario("killed while it sleeps", "sleeps")
async def killed_asleep(world: World) -> None:
    await world.start("sleeps")
    await world.clock.advance(60)


@scenario("killed while it sleeps", "sleeps")
async def goes_on_asleep(world: World) -> None:
    assert await world.result() == "rested"
    assert said == ["before", "after"]
    assert world.clock.elapsed >= max(DAY, LEASE)


@scenario("killed while it waits for a signal", "asks")
async def killed_waiting(world: World) -> None:
    await world.start("asks")
    await world.clock.advance(60)


@scenario("killed while it waits for a signal", "asks")
async def goes_on_waiting(world: World) -> None:
    await world.clock.settle()
    assert await world.status() == "waiting"
    assert await world.engine.signal("run", "Approved", {"by": "Ada"})
    assert await world.result() == "Ada"


@scenario("killed with a signal that nobody has taken in", "asks later")
async def killed_signalled(world: World) -> None:
    await world.start("asks later")
    await world.clock.settle()
    assert await world.engine.signal("run", "Approved", {"by": "Ada"})


@scenario("killed with a signal that nobody has taken in", "asks later")
async def goes_on_signalled(world: World) -> None:
    assert await world.result() == "Ada"


@scenario("killed between two attempts", "flaky")
async def killed_between_attempts(world: World) -> None:
    await world.start("flaky")
    await world.clock.settle()
    assert said == ["try"]


@scenario("killed between two attempts", "flaky")
async def goes_on_trying(world: World) -> None:
    assert await world.result() == "at last"
    assert said == ["try"] * 3


@scenario("killed in the middle of a fan-out", "fans out")
async def killed_in_fan_out(world: World) -> None:
    await world.start("fans out")
    await world.clock.advance(1.5 * HOUR)
    assert said == ["part 2"]


@scenario("killed in the middle of a fan-out", "fans out")
async def goes_on_in_fan_out(world: World) -> None:
    assert await world.result() == [0, 1, 2]
    assert said == ["part 2", "part 1", "part 0", "joined"]


@scenario("killed while its child waits", "guardian")
async def killed_with_child(world: World) -> None:
    await world.start("guardian")
    await world.clock.advance(60)


@scenario("killed while its child waits", "guardian")
async def goes_on_with_child(world: World) -> None:
    await world.clock.settle()
    (info,) = await world.children()
    assert await world.engine.signal(info.id, "Approved", {"by": "Ada"})
    assert await world.result() == "Ada"


# --- the matrix ----------------------------------------------------------------------------------


@functools.cache
def in_memory(style: str, name: str) -> Seen:
    """What is to be seen of a scenario on the store in memory."""
    store = MemoryStore()
    return played(STYLES[style], SCENARIOS[name][1], lambda: store)


@pytest.fixture
def open_store(
    store: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Store]:
    """Opens the store that is tested: another one each time, on the same runs."""
    match store:
        case "memory":
            kept = MemoryStore()
            return lambda: kept
        case "sqlite":
            return lambda: SQLiteStore(tmp_path / "runs.db", durability="process")
        case "postgres":
            url_for = request.getfixturevalue("postgres_url_for")
            return lambda: PostgresStore(url_for(tmp_path))
        case _:
            # Verbs are waited for anyway; the connections that are open say nothing else.
            monkeypatch.setattr(clock, "_NETWORK", 0.0)
            url_for = request.getfixturevalue("redis_url_for")
            return lambda: RedisStore(url_for(tmp_path))


MATRIX = [
    pytest.param(style, store, name, id=f"{style}-{store}-{name}")
    for name, (flow, _) in SCENARIOS.items()
    for style in STYLES
    for store in STORES
    if flow not in STYLES[style].without
]


@pytest.mark.parametrize("style, store, name", MATRIX)
def test_scenario(style: str, store: str, name: str, open_store: Callable[[], Store]) -> None:
    seen = played(STYLES[style], SCENARIOS[name][1], open_store)
    assert seen == in_memory(style, name)


def test_every_style_has_every_flow_or_says_why_not() -> None:
    needed = {flow for flow, _ in SCENARIOS.values()}
    for style in STYLES.values():
        assert style.flows().keys() | style.without.keys() == needed
        assert not style.flows().keys() & style.without.keys()
