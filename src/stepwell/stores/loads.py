"""Loads of single runs: one trip to the database for all that wait for one.

A service that answers with whole runs asks for one after the other while an earlier load is under
way. Those that wait go together: a trip costs statements, turns of the interpreter's lock and a
call into the event loop, and all of these once for however many runs. What a run is, and how it is
read, is not known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import NamedTuple, cast

from stepwell.errors import StoreUnavailable
from stepwell.stores.base import Loaded
from stepwell.stores.deliveries import Deliveries, Done

_TOGETHER = 64
"""How many runs one trip loads at most: bounds the time the first of them waits."""


class _Asked(NamedTuple):
    run: str
    future: asyncio.Future[Loaded | None]
    loop: asyncio.AbstractEventLoop


class Loads:
    """Takes in what is asked in event loops, and has it done in a pool of threads.

    Args:
        pool: where loads are done. One that is shut down still answers what was asked before.
        load: in a thread: those of some runs that there are, in the order asked for.
    """

    def __init__(
        self, pool: ThreadPoolExecutor, load: Callable[[Sequence[str]], list[Loaded]]
    ) -> None:
        self._pool = pool
        self._load = load
        self._lock = Lock()  # of the two below
        self._asked: list[_Asked] = []
        self._under_way = False
        self._deliveries = Deliveries()

    def load(self, run: str) -> asyncio.Future[Loaded | None]:
        """In a loop: the run, or None when there is none."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Loaded | None] = loop.create_future()
        with self._lock:
            self._asked.append(_Asked(run, future, loop))
            begin, self._under_way = not self._under_way, True
        if begin:
            try:
                self._pool.submit(self._trips)
            except RuntimeError as error:  # shut down, as when Python exits
                self._give_up(error)
        return future

    def _give_up(self, error: Exception) -> None:
        with self._lock:
            asked, self._asked, self._under_way = self._asked, [], False
        self._deliveries.complete([_done(each, None, error) for each in asked], loud=False)

    def _trips(self) -> None:
        """In a thread: one trip. The next one queues up behind the pool's other work."""
        while True:
            with self._lock:
                asked, self._asked = self._asked[:_TOGETHER], self._asked[_TOGETHER:]
            self._trip(asked)
            with self._lock:
                if not self._asked:
                    self._under_way = False
                    return
            try:
                self._pool.submit(self._trips)
            except RuntimeError:  # shut down: go on here
                continue
            return

    def _trip(self, asked: Sequence[_Asked]) -> None:
        runs = [*dict.fromkeys(each.run for each in asked)]
        try:
            found = {loaded.row.id: loaded for loaded in self._load(runs)}
        except BaseException as error:  # for those who wait
            # What is wrong with one run is nothing to the others; with the store it is, and to find
            # that out once more for each of them could take a time limit each.
            if len(asked) > 1 and not isinstance(error, StoreUnavailable):
                for each in asked:
                    self._trip((each,))
                return
            done = [_done(each, None, error) for each in asked]
        else:
            done = [_done(each, found.get(each.run), None) for each in asked]
        self._deliveries.complete(done, loud=False)


def _done(asked: _Asked, loaded: Loaded | None, error: BaseException | None) -> Done:
    # A future is invariant in what it gives.
    return Done(cast("asyncio.Future[object]", asked.future), asked.loop, loaded, error)
