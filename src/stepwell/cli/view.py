"""Where the progress of a run is shown: a picture that is redrawn, lines, or nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.text import Text

from stepwell.cli.progress import Lines, Picture
from stepwell.values import RunStatus

_REDRAW = 0.1
"""Seconds between two pictures."""


class View:
    """Where progress is shown: a picture that is redrawn, lines, or nothing."""

    def __init__(
        self, console: Console, picture: Picture | None, lines: Lines | None = None
    ) -> None:
        self.console = console
        self._picture = picture
        self._lines = lines
        self._live: Live | None = None

    def __enter__(self) -> View:
        self._resume()
        return self

    def __exit__(self, *_error: object) -> None:
        self._halt()

    def _resume(self) -> None:
        if self._picture is not None:
            # Redrawn by a task of ours: a thread would read the numbers while they change.
            self._live = Live(
                self._picture, console=self.console, auto_refresh=False, transient=True
            )
            self._live.start(refresh=True)

    def _halt(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    async def redraw(self) -> None:
        """Redraw the picture now and then."""
        while self._picture is not None:
            if self._live is not None:
                self._live.refresh()
            await asyncio.sleep(_REDRAW)

    def pause(self) -> Callable[[], None]:
        """Stop redrawing until what is returned is called."""
        self._halt()
        return self._resume

    def say(self, text: str) -> None:
        """A line above the picture."""
        if self._lines is not None:
            self._lines.say(time.time(), text)
        elif self._picture is not None:
            self.console.print(Text(text), soft_wrap=False)

    def stop(self, status: RunStatus | None) -> None:
        """Draw the picture for the last time, and leave it there."""
        self._halt()
        if self._picture is not None and (status is not None or self._picture.progress.steps):
            self._picture.whole = True
            self.console.print(self._picture)
            self._picture = None
