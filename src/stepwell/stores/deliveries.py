"""From a writer's thread back to the event loops that wait: outcomes of jobs, word of changes.

A group of jobs is handed over with one call into each loop, not one for each job.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from stepwell.stores.changes import Changes


class Done(NamedTuple):
    """What became of a job: its result, or the error."""

    future: asyncio.Future[object]
    loop: asyncio.AbstractEventLoop
    result: object
    error: BaseException | None


class Deliveries:
    """Completes futures, and lets go of those who wait for changes, in whatever loop they are."""

    def __init__(self) -> None:
        self._changes: dict[asyncio.AbstractEventLoop, Changes] = {}

    async def changed(self, timeout: float) -> None:
        """In a loop: wait for something loud, up to `timeout` seconds."""
        loop = asyncio.get_running_loop()
        changes = self._changes.get(loop)
        if changes is None:
            changes = self._changes[loop] = Changes()
        await changes.wait(timeout)

    def complete(self, done: Sequence[Done], loud: bool) -> None:
        """In any thread: hand the outcomes to their loops, which in all but odd programs are one.
        `loud`: let go of those who wait for changes."""
        loops = dict.fromkeys(each.loop for each in done)
        if loud:
            loops.update(dict.fromkeys(tuple(self._changes)))
        for loop in loops:
            mine = done if len(loops) == 1 else [each for each in done if each.loop is loop]
            try:
                loop.call_soon_threadsafe(_deliver, mine, self._changes.get(loop) if loud else None)
            except RuntimeError:  # the loop is closed: nobody waits any more
                self._changes.pop(loop, None)


def _deliver(done: Sequence[Done], changes: Changes | None) -> None:
    for future, _, result, error in done:
        if future.done():  # whoever awaited it was cancelled
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
    if changes is not None:
        changes.bump()
