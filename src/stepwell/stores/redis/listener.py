"""Hears of other processes' changes: SUBSCRIBE on a connection of its own.

A message says "look", no more. It may be lost, so nothing may depend on it: after every break, and
as long as there is no connection, those who wait are told to look anyway. What this store announced
itself is not worth a look.
"""

from __future__ import annotations

import asyncio
import logging

from stepwell.errors import StoreError
from stepwell.stores.changes import Changes
from stepwell.stores.redis.errors import BROKEN
from stepwell.stores.redis.line import Line
from stepwell.stores.redis.place import Place

logger = logging.getLogger("stepwell")

# Between two tries to connect, which is also how often those who wait look while there is none.
_AGAIN_SECONDS = (0.1, 2.0)


class Listener:
    """Bumps `changes` whenever another caller may have changed something.

    Args:
        place: where to connect.
        own: what this store's own announcements say.
        changes: whom to tell.

    Attributes:
        begun: set when it hears, or could not begin to (it goes on trying).
    """

    def __init__(self, place: Place, own: str, changes: Changes) -> None:
        self._place = place
        self._own = own.encode()
        self._changes = changes
        self.begun = asyncio.Event()
        self._task = asyncio.create_task(self._main(), name="stepwell-redis-listener")

    async def stop(self) -> None:
        """End the task."""
        self._task.cancel()
        await asyncio.wait((self._task,))
        self.begun.set()

    async def _main(self) -> None:
        pause, longest = _AGAIN_SECONDS
        while True:
            line = Line(self._place)
            try:
                await line.connect()
                pause = _AGAIN_SECONDS[0]
                await self._listen(line)
            except (StoreError, *BROKEN) as error:
                logger.debug("%s: nobody listens: %s", self._place.url, error)
            except Exception as bug:  # those who wait are not to hang on it
                logger.critical("%s: listening failed", self._place.url, exc_info=bug)
            finally:
                await line.close()
            self._changes.bump()
            self.begun.set()
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)

    async def _listen(self, line: Line) -> None:
        await line.call(("SUBSCRIBE", self._place.key("changes")))
        self._changes.bump()  # of what happened before anyone listened
        self.begun.set()
        while True:
            match await line.heard():
                case [b"message", _, said] if said != self._own:
                    self._changes.bump()
                case _:
                    pass
