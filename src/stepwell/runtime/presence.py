"""How the workers of one store know of each other: one row for each, renewed while it lives.

A worker's row says until when its lease runs, which process it is, and whose runs it may be
expected to advance. A worker whose process is gone from this machine is dead at once; any other is
taken for dead when its lease has run out, which is the store's to see when runs are claimed.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from stepwell.runtime.identity import host_of_this_process, is_dead
from stepwell.stores.base import WorkerRow

if TYPE_CHECKING:
    from stepwell.runtime.worker import Worker

logger = logging.getLogger("stepwell")


class Presence:
    """A worker's row in its store, and what it makes of those of others."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._host = host_of_this_process()
        self._registered: tuple[str, ...] | None = None
        self._renewed = 0.0

    def offered(self) -> tuple[str, ...]:
        """The workflows whose runs others may expect this worker to advance."""
        return tuple(self._worker.programs) if self._worker.claims else ()

    @property
    def outdated(self) -> bool:
        """Whether the row names other workflows than the worker has now."""
        return self._registered != self.offered()

    async def renew(self) -> bool:
        """Write the row; False when the lease had lapsed meanwhile."""
        worker, names = self._worker, self.offered()
        now = worker.clock.now()
        in_time = now - self._renewed <= worker.lease
        await worker.store.register(
            WorkerRow(worker.id, self._host, os.getpid(), now + worker.lease, names)
        )
        self._registered = names
        self._renewed = now
        return in_time

    async def bury(self) -> list[str]:
        """Take the rows of workers away that are no more. Returns those of this machine whose
        process is gone: nobody need wait for their leases."""
        worker = self._worker
        now = worker.clock.now()
        dead: list[str] = []
        for row in await worker.store.workers():
            if row.id == worker.id:
                continue
            if is_dead(row.host, row.pid):
                dead.append(row.id)
            elif row.until + 10 * worker.lease < now:
                await worker.store.unregister(row.id)
        for id in dead:
            logger.info("worker %s is dead; its runs are taken over", id)
            await worker.store.unregister(id)
        return dead
