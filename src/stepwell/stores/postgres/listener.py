"""The thread that hears of other processes' changes: LISTEN on a connection of its own.

A notification says "look", no more. It may be lost (the connection broke, the sender died before it
could send it), so nothing may depend on it: after every break, and as long as there is no
connection, those who wait are told to look anyway. It comes to life with the first who waits.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future

import psycopg
from psycopg import sql

from stepwell.errors import StoreError
from stepwell.stores.postgres.place import Connection, Place

logger = logging.getLogger("stepwell")

# Between two tries to connect, which is also how often those who wait look while there is none.
_AGAIN_SECONDS = (0.1, 2.0)


class Listener:
    """Calls `heard` (in its thread) whenever others may have changed something.

    Args:
        place: where to connect.
        heard: what to call.
        own: the server's process through which this store notifies others.
    """

    def __init__(self, place: Place, heard: Callable[[], None], own: Callable[[], int]) -> None:
        self._place = place
        self._heard = heard
        self._own = own
        self._closing = threading.Event()
        self.ready: Future[None] = Future()  # it listens, or could not connect at once
        self.ready.set_running_or_notify_cancel()
        self._mouth, self._ear = socket.socketpair()
        self._thread = threading.Thread(
            target=self._main, name="stepwell-postgres-listen", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread; waits for it (no longer than a connection takes to be made)."""
        self._closing.set()
        self._mouth.send(b"x")
        self._thread.join()
        self._mouth.close()
        self._ear.close()

    def _main(self) -> None:
        pause, longest = _AGAIN_SECONDS
        while not self._closing.is_set():
            try:
                db = self._place.connect()
            except StoreError as error:
                logger.debug("%s: nobody listens: %s", self._place.url, error)
                self._is_ready()
                self._heard()
                self._closing.wait(pause)
                pause = min(pause * 2, longest)
                continue
            pause = _AGAIN_SECONDS[0]
            try:
                self._listen(db)
            except psycopg.Error as error:
                logger.debug("%s: stopped listening: %s", self._place.url, error)
            finally:
                db.close()
            self._is_ready()
            self._heard()

    def _is_ready(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)

    def _listen(self, db: Connection) -> None:
        db.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._place.channel)))
        if self.ready.done():
            self._heard()  # of what happened while nobody listened
        self._is_ready()
        with selectors.DefaultSelector() as both:
            both.register(db.pgconn.socket, selectors.EVENT_READ)
            both.register(self._ear, selectors.EVENT_READ)
            while not self._closing.is_set():
                both.select()
                db.pgconn.consume_input()
                heard = False
                while (notification := db.pgconn.notifies()) is not None:
                    heard = heard or notification.be_pid != self._own()
                if heard:
                    self._heard()
