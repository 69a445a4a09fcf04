"""The system's clock. Everything that wants to know the time asks the clock it was given."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
from collections.abc import Callable

from stepwell.values import TimerHandle


class SystemClock:
    """The time of this machine; timers are timers of the running event loop."""

    __slots__ = ()

    now = staticmethod(time.time)
    """Seconds since the epoch, UTC."""

    def call_at(self, when: float, callback: Callable[[], None]) -> TimerHandle:
        """Call `callback` in the running loop when it is `when`."""
        delay = when - time.time()
        return asyncio.get_running_loop().call_later(max(0.0, delay), callback)

    def polls(self) -> bool:
        """Other processes live in the same time, so looking for their changes makes sense."""
        return True


SYSTEM = SystemClock()


_random = random.Random(secrets.randbits(128))  # noqa: S311 - ids are no secrets


def _reseed() -> None:
    _random.seed(secrets.randbits(128))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reseed)


def new_run_id() -> str:
    """A fresh run id: 20 hex digits, sortable by the second of its making.

    >>> len(new_run_id())
    20
    """
    return f"{(int(time.time()) << 48) | _random.getrandbits(48):020x}"
