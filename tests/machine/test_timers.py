"""Timers that come due while the worker looks the other way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from pydantic import BaseModel
from tests.crash.machines import inside

from stepwell.machine import complete, sleep, step, workflow
from stepwell.stores.memory import MemoryStore
from stepwell.testing import VirtualClock
from stepwell.testing.stores import Hook, hooked

T = TypeVar("T")


@workflow("overslept")
class Sleeper:
    class Context(BaseModel):
        pass

    @step(start=True)
    async def rest(self) -> object:
        return sleep(timedelta(seconds=10), then=self.end)

    @step()
    async def end(self) -> object:
        return complete()


class Slow(Hook):
    """A store that takes its time to say when something is due."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.seconds = 0.0

    async def around(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
        result = await call()
        if verb == "next_due":
            self.clock.skip(self.seconds)
        return result


async def test_what_comes_due_during_a_look_is_not_left_for_the_next_poll(
    virtual_clock: VirtualClock,
) -> None:
    slow = Slow(virtual_clock)
    core = virtual_clock.engine(hooked(MemoryStore(), slow), poll=1000.0)
    core.register(Sleeper)
    begun = virtual_clock.now()
    run = await inside(core).astart(Sleeper)
    await virtual_clock.advance(9.9)
    slow.seconds = 0.2  # it is due after the look for what is due, and before that for what will be
    core.look()
    await virtual_clock.settle()
    slow.seconds = 0.0
    assert await core.result(run.id) == {}
    assert 10.0 <= virtual_clock.now() - begun < 11.0
