"""Who waits for "something changed", and who says so, inside one event loop.

A counter grows with every change. A task that waits is let go at once when the counter moved since
its own last wait ended, and otherwise with the next change: so a change between two waits of a
task is never missed, however many tasks wait. A task that never waited before goes by the last
wait that such a newcomer ended: whoever wraps each wait into a new task gets the same answers as
long as it is the only one who does. Which change it was is not known here; whoever wakes looks.
"""

from __future__ import annotations

import asyncio
from typing import cast
from weakref import WeakKeyDictionary


class Changes:
    """The counter and its waiters. Every method belongs to the event loop's thread.

    >>> changes = Changes()
    >>> changes.bump()
    >>> asyncio.run(changes.wait(60.0))  # something changed before: returns at once
    """

    def __init__(self) -> None:
        self._count = 0
        # A task that ended takes its mark with it.
        self._seen: WeakKeyDictionary[asyncio.Task[object], int] = WeakKeyDictionary()
        self._seen_by_newcomers = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def bump(self) -> None:
        """Something changed: let go of everyone who waits."""
        self._count += 1
        if self._waiting:
            waiting, self._waiting = self._waiting, set()
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    async def wait(self, timeout: float) -> None:
        """Return when something changed since this task's last wait, or after `timeout` seconds."""
        task = cast("asyncio.Task[object]", asyncio.current_task())  # a coroutine runs in a task
        seen = self._seen.get(task)
        if (self._seen_by_newcomers if seen is None else seen) == self._count and timeout > 0:
            future = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            try:
                async with asyncio.timeout(timeout):
                    await future
            except TimeoutError:
                pass
            finally:
                self._waiting.discard(future)
        self._seen[task] = self._count
        if seen is None:
            self._seen_by_newcomers = self._count
