"""Stores that somebody looks over the shoulder of: every verb goes through a hook first.

A hook may count verbs, hold them up, refuse them, or let the process seem to die in one. It stands
between the engine and a real store, so what is tested is the real store.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from stepwell.errors import StoreError
from stepwell.stores.base import Store

T = TypeVar("T")

WRITES = frozenset(
    {"commit", "create", "send", "register", "unregister", "claim", "claim_one", "delete"}
)
"""The verbs that change what a store holds."""


TURNS = WRITES - {"register", "unregister"}
"""The writes that runs are made of; a worker's heartbeats are left out."""


class Hook:
    """Stands around each verb of a store. This one does nothing."""

    async def around(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
        """Do the verb by calling `call` (or do not), and return what it gave."""
        return await call()


class _Hooked:
    """A store with a hook. Verbs are looked up once, then they are attributes."""

    def __init__(self, store: Store, hook: Hook) -> None:
        self._store = store
        self._hook = hook

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._store, name)
        if not inspect.iscoroutinefunction(verb):
            return verb
        hook = self._hook

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await hook.around(name, lambda: verb(*args, **kwargs))

        self.__dict__[name] = call
        return call


def hooked(store: Store, hook: Hook) -> Store:
    """The store, with every verb going through `hook`."""
    return cast(Store, _Hooked(store, hook))


class Failing(Hook):
    """Refuses verbs for as long as a test wants: the disk is full, the server is away.

    Example:
        >>> from stepwell.errors import StoreFull
        >>> from stepwell.stores.memory import MemoryStore
        >>> trouble = Failing()
        >>> store = hooked(MemoryStore(), trouble)
        >>> trouble.error = StoreFull("no space left on the device")
        >>> trouble.error = None  # there is space again
    """

    error: StoreError | None = None
    verbs: frozenset[str] = WRITES
    refused = 0

    async def around(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
        """See `Hook.around`."""
        if self.error is not None and verb in self.verbs:
            self.refused += 1
            raise self.error
        return await call()


class Killed(BaseException):
    """The process seems to have died in a store's write (raised by `Dying` to the test)."""


class Dying(Hook):
    """Counts writes of runs, and at one of them seems to kill the process: from then on no verb
    ever returns, so nothing that the code does after it is kept.

    Args:
        at: the number of the write, from 1; 0 only counts.
        when: "before" (the write is not made) or "after" (it is made, and nobody hears of it).
    """

    def __init__(self, at: int = 0, when: str = "before") -> None:
        self.at = at
        self.when = when
        self.writes: list[str] = []
        self.dead: asyncio.Event | None = None

    async def around(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
        """See `Hook.around`."""
        if self.dead is None:
            self.dead = asyncio.Event()
        if self.dead.is_set():
            if verb == "close":
                return await call()
            return await asyncio.get_running_loop().create_future()
        if verb not in TURNS:
            return await call()
        self.writes.append(verb)
        if len(self.writes) != self.at:
            return await call()
        if self.when == "after":
            await call()
        self.dead.set()
        return await asyncio.get_running_loop().create_future()

    async def died(self) -> None:
        """Return when the process seems to have died."""
        if self.dead is None:
            self.dead = asyncio.Event()
        await self.dead.wait()
