"""Where the engine of a `WorkflowEngine` lives: a loop of its own, and the way into it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from stepwell.errors import ContextStateError
from stepwell.runtime.engine import Engine
from stepwell.runtime.sync import LoopThread
from stepwell.stores.base import Store

T = TypeVar("T")


class Executor(Protocol):
    """Runs the coroutines of an engine in the engine's own event loop."""

    def make_engine(self, store: str | Store | None, **settings: Any) -> Engine:
        """A new engine for this executor's loop; `store` None leaves it to the executor."""
        ...

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """From plain code: run `work` to its end."""
        ...

    async def acall(self, work: Coroutine[Any, Any, T]) -> T:
        """From any event loop: run `work` to its end, in the engine's."""
        ...

    async def process(self, engine: Engine, until: float | None) -> int:
        """In the engine's loop: do all that is due (by `until`, if time can be moved), in order;
        how many runs were taken up."""
        ...

    def stop(self) -> None:
        """The engine has stopped: close the loop."""
        ...


class BackgroundExecutor:
    """An event loop in a daemon thread; time is the system's."""

    def __init__(self) -> None:
        self._thread = LoopThread("stepwell-engine")

    def make_engine(self, store: str | Store | None, **settings: Any) -> Engine:
        """See `Executor`."""
        return Engine("sqlite:///stepwell.db" if store is None else store, **settings)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """See `Executor`. Raises ContextStateError in the engine's own loop, where it would wait
        for itself."""
        if self._thread.is_current():
            work.close()
            raise ContextStateError(
                "an async step must not block its event loop: await the twin of this call whose "
                "name begins with 'a' (astart, asignal, acancel, aemit)"
            )
        return self._thread.call(work)

    async def acall(self, work: Coroutine[Any, Any, T]) -> T:
        """See `Executor`."""
        if self._thread.is_current():
            return await work
        future = asyncio.run_coroutine_threadsafe(work, self._thread.loop())
        return await asyncio.wrap_future(future)

    async def process(self, engine: Engine, until: float | None) -> int:
        """See `Executor`. Time can't be moved here: `until` later than now does nothing more."""
        return await engine.process_due()

    def stop(self) -> None:
        """See `Executor`."""
        self._thread.stop()
