"""State machines in tests: everything happens within the calls, in virtual time and in memory.

    engine.set_executor(SynchronousExecutor())

After `engine.start(...)` returns, the run has come as far as it can without time passing or a
signal. Time stands still until `advance` or `engine.process_scheduled(...)` says otherwise.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any, TypeVar

from stepwell.errors import ContextStateError
from stepwell.runtime.engine import Engine
from stepwell.runtime.sync import wind_up
from stepwell.stores.base import Store
from stepwell.testing.clock import VirtualClock, VirtualLoop, settled

T = TypeVar("T")


class SynchronousExecutor:
    """Runs a `WorkflowEngine` inline, in virtual time.

    Args:
        store: where runs are kept; a new one in memory by default, whatever the engine was given.
        start: when time begins: an aware datetime, or seconds since the epoch; now by default.

    Example:
        >>> from datetime import timedelta
        >>> from pydantic import BaseModel
        >>> from stepwell.machine import WorkflowEngine, complete, sleep, step, workflow
        >>> @workflow("doc-patience")
        ... class Patience:
        ...     class Context(BaseModel):
        ...         pass
        ...     @step(start=True)
        ...     def wait_a_month(self):
        ...         return sleep(timedelta(days=30), then=self.done)
        ...     @step()
        ...     def done(self):
        ...         return complete()
        >>> engine, executor = WorkflowEngine(), SynchronousExecutor()
        >>> engine.set_executor(executor)
        >>> run = engine.start("doc-patience")
        >>> run.refresh().status
        <WorkflowStatus.WAITING: 'waiting'>
        >>> executor.advance(timedelta(days=31))
        1
        >>> run.refresh().status
        <WorkflowStatus.COMPLETED: 'completed'>
        >>> engine.stop()
    """

    def __init__(
        self, store: str | Store = "memory://", *, start: datetime | float | None = None
    ) -> None:
        if isinstance(start, datetime) and start.tzinfo is None:
            raise ValueError(f"start takes an aware datetime, with a timezone; got {start}")
        self.clock = VirtualClock(time.time() if start is None else start)
        self._store = store
        self._loop: VirtualLoop | None = None
        self._owner: int | None = None
        self._lock = threading.Lock()
        self._engine: Engine | None = None

    # --- what an executor is ---------------------------------------------------------------------

    def make_engine(self, store: str | Store | None, **settings: Any) -> Engine:
        """A new engine in virtual time, on the executor's own store."""
        settings.pop("clock", None)
        self._engine = self.clock.engine(self._store, **settings)
        return self._engine

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work`, and all that follows from it without time passing."""
        if self._owner is not None:  # a step, in a thread of the loop that is running
            if self._owner == threading.get_ident():
                work.close()
                raise ContextStateError(
                    "an async step must not block its event loop: await the twin of this call "
                    "whose name begins with 'a' (astart, asignal, acancel, aemit)"
                )
            return asyncio.run_coroutine_threadsafe(work, self._running()).result()
        with self._lock:
            self._owner = threading.get_ident()
            try:
                return _alone(self._running(), work)
            finally:
                self._owner = None

    async def acall(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work`, and what follows from it, from async code."""
        if self._loop is not None and asyncio.get_running_loop() is self._loop:
            return await work
        return await asyncio.to_thread(self.call, work)

    async def process(self, engine: Engine, until: float | None) -> int:
        """Let time pass to `until` (the system's time when None), and do what comes due, in order
        of due times."""
        clock = self.clock
        target = max(clock.now(), time.time() if until is None else until)
        last = target + 1e-6  # the times that runs show are rounded to microseconds
        before = engine.taken
        await settled()
        while ((due := await engine.next_due()) is not None and due <= last) or engine.busy:
            until = target if due is None else min(due, target)
            if engine.busy and clock.now() < target:
                # Bodies live by the loop's time, which does not jump over what they wait for.
                await asyncio.sleep(max(0.0, until - clock.now()))
            elif due is None or due > last:
                break
            else:
                clock.skip(max(0.0, due - clock.now()))
            engine.look()
            await settled()
        clock.skip(max(0.0, target - clock.now()))
        return engine.taken - before

    def stop(self) -> None:
        """Close the loop."""
        loop, self._loop = self._loop, None
        if loop is not None:
            _alone(loop, wind_up())
            loop.close()

    # --- what a test does with it ----------------------------------------------------------------

    def now(self) -> datetime:
        """The time, aware, in UTC."""
        return self.clock.datetime

    def advance(self, duration: timedelta | float) -> int:
        """Let time pass: `duration` is a timedelta, or seconds. What comes due is done in the order
        of due times; returns how many times a run was taken up."""
        seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
        if seconds < 0:
            raise ValueError(f"time does not go back: advance({duration!r})")
        engine = self._engine
        if engine is None:
            self.clock.skip(seconds)
            return 0
        return self.call(self.process(engine, self.clock.now() + seconds))

    def _running(self) -> VirtualLoop:
        if self._loop is None:
            self._loop = VirtualLoop(self.clock)
        return self._loop


def _alone(loop: VirtualLoop, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in a loop that is not running, and let it settle; also inside of another loop."""

    async def all_of_it() -> T:
        try:
            return await work
        finally:
            await settled()

    outer = asyncio._get_running_loop()  # pyright: ignore[reportPrivateUsage] - a test may be async
    asyncio._set_running_loop(None)  # pyright: ignore[reportPrivateUsage]
    try:
        return loop.run_until_complete(all_of_it())
    finally:
        asyncio._set_running_loop(outer)  # pyright: ignore[reportPrivateUsage]
