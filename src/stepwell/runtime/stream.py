"""What a run shows its readers, for runs in memory: a list that any number may read.

Every reader has its own place in it and starts from the beginning or from where it says; all end
when the log is closed. Publishing to a log that nobody waits for costs an append.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator


class StreamLog:
    """An append-only list with readers that wait for more."""

    __slots__ = ("_waiting", "closed", "items")

    def __init__(self) -> None:
        self.items: list[object] = []
        self.closed = False
        self._waiting: list[asyncio.Future[None]] | None = None

    def publish(self, item: object) -> None:
        """Add `item` and wake the readers. After `close` it is dropped."""
        if not self.closed:
            self.items.append(item)
            if self._waiting:
                self._wake()

    def close(self) -> None:
        """Nothing more will come."""
        self.closed = True
        if self._waiting:
            self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        for future in waiting or ():
            if not future.done():
                future.set_result(None)

    async def read(self, after: int = 0) -> AsyncIterator[tuple[int, object]]:
        """Items with their positions (1, 2, ...), from `after` on, until the log is closed."""
        items = self.items
        while True:
            while after < len(items):
                item = items[after]
                after += 1
                yield after, item
            if self.closed:
                return
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            if self._waiting is None:
                self._waiting = []
            self._waiting.append(future)
            await future
