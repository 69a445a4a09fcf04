"""One writer of a state at a time, as long as somebody edits it.

The theory: writes happen between two awaits and need no lock, except while a block of
`edit_state` is open: then other writers wait for its end. A writer *inside* such a block would
wait for itself, so it is refused; so are tasks that the block started, for which it may wait.

A lock belongs to no event loop while nobody uses it. This module refuses to know what is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from contextvars import ContextVar

__all__ = ["EditLock"]


class _Block:
    """A block of `edit_state`, open or done."""

    __slots__ = ("lock", "open")

    def __init__(self, lock: EditLock) -> None:
        self.lock = lock
        self.open = True


_blocks: ContextVar[tuple[_Block, ...]] = ContextVar("stepwell_edit_blocks", default=())


class EditLock:
    """Taken by every writer of a state: `async with lock: ...`, or `async with lock.block()`.

    Raises:
        RuntimeError: taken inside a block that holds it already.
    """

    __slots__ = ("_lock", "_users")

    def __init__(self) -> None:
        self._lock: asyncio.Lock | None = None
        self._users = 0  # who holds the lock or waits for it

    async def __aenter__(self) -> None:
        if any(block.open and block.lock is self for block in _blocks.get()):
            raise RuntimeError("writer called inside edit_state: mutate the yielded state instead")
        lock = self._lock = self._lock or asyncio.Lock()
        self._users += 1
        try:
            await lock.acquire()
        except BaseException:
            self._left()
            raise

    async def __aexit__(self, *exc: object) -> None:
        if self._lock is not None:
            self._lock.release()
        self._left()

    def _left(self) -> None:
        self._users -= 1
        if self._users == 0:
            self._lock = None  # the next user may live in another event loop

    @asynccontextmanager
    async def block(self) -> AsyncGenerator[None]:
        """Hold the lock, and refuse it to whoever asks for it from within."""
        async with self:
            block = _Block(self)
            _blocks.set((*(b for b in _blocks.get() if b.open), block))
            try:
                yield
            finally:
                block.open = False
                _blocks.set(tuple(b for b in _blocks.get() if b.open))
