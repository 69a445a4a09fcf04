"""The sync bridge: runs from plain scripts, threads and notebooks. One loop in one thread.

It works inside a running loop too (a notebook cell), since the runs live in a loop of their own.
"""

from __future__ import annotations

import asyncio
import atexit
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar, cast

from stepwell.runtime.handler import WorkflowHandler

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread, started on first use and stopped at exit."""

    def __init__(self, name: str = "stepwell-sync") -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, running."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive() or self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name=self._name, daemon=True
                )
                self._thread.start()
            return self._loop

    def is_current(self) -> bool:
        """Whether the caller is in the loop's own thread."""
        return threading.current_thread() is self._thread

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end in the loop. An interrupt here cancels it there."""
        if self.is_current():
            work.close()
            raise RuntimeError("run_sync() can't be called from its own event loop; use await")
        future = asyncio.run_coroutine_threadsafe(_guarded(work), self.loop())
        try:
            value, leaving = future.result()
        except BaseException:
            future.cancel()
            raise
        if leaving is not None:
            raise leaving
        return cast(T, value)

    def stop(self) -> None:
        """Stop the loop: cancel what runs, close it, join the thread."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None or not thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(wind_up(), loop).result(5.0)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5.0)
        loop.close()


async def _guarded(work: Coroutine[Any, Any, T]) -> tuple[T | None, BaseException | None]:
    """What `work` gives, or the exception with which it wants to end the program: raised in the
    loop, it would end the loop, and leave the caller waiting."""
    try:
        return await work, None
    except (SystemExit, KeyboardInterrupt) as leaving:
        return None, leaving


async def wind_up() -> None:
    """Leave nothing behind in a loop that is about to be closed."""
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    loop = asyncio.get_running_loop()
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()


background = LoopThread()
atexit.register(background.stop)


def run_sync(what: Any, /, **fields: Any) -> Any:
    """Run something to its end from code that is not async, also inside a running loop.

    Args:
        what: a workflow instance (then `fields` go to its `run`), a coroutine, or a function
            without arguments that returns something to await.
        **fields: for a workflow: what its `run` takes, such as `start_event` or its fields.

    Returns:
        What awaiting it gives.

    Raises:
        Whatever the run raises; RuntimeError when called from the thread that serves it.

    Example:
        >>> from stepwell import Workflow, run_sync, step
        >>> from stepwell.events import StartEvent, StopEvent
        >>> class Double(Workflow):
        ...     @step
        ...     async def double(self, ev: StartEvent) -> StopEvent:
        ...         return StopEvent(result=ev.n * 2)
        >>> run_sync(Double(), n=21)
        42
    """
    return background.call(_awaited(what, fields))


async def _awaited(what: Any, fields: dict[str, Any]) -> Any:
    run = getattr(what, "run", None)
    if callable(run) and not inspect.isawaitable(what):
        handler = cast("WorkflowHandler[Any]", run(**fields))
        try:
            return await handler
        except asyncio.CancelledError:
            await handler.cancel_run()
            raise
    if fields:
        raise TypeError("run_sync() takes fields for a workflow's run only")
    made = cast("Callable[[], Awaitable[Any]]", what)() if callable(what) else what
    return await made
