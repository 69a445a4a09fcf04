"""Word that there may be something new of a run, for those in this process who follow it.

News says nothing: who hears it looks for himself, and may find that nothing has changed. Nothing is
kept for those who do not listen, so who wants to miss nothing listens first and looks then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection


class News:
    """Who waits for news of which run."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}

    def of(self, run: str) -> asyncio.Future[None]:
        """Done when there may be something new of a run, from this moment on. Who listens no more
        cancels it."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(run, []).append(future)
        future.add_done_callback(lambda done: self._drop(run, done) if done.cancelled() else None)
        return future

    def _drop(self, run: str, future: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(run)
        if waiting is not None and future in waiting:
            waiting.remove(future)
            if not waiting:
                del self._waiting[run]

    def tell(self, run: str) -> None:
        """There may be something new of a run."""
        for future in self._waiting.pop(run, ()):
            if not future.done():
                future.set_result(None)

    def tell_but(self, held: Collection[str]) -> None:
        """There may be something new of every run that is followed, but for those in `held`."""
        for run in [run for run in self._waiting if run not in held]:
            self.tell(run)
