"""The progress of a run that a program of the user's started, on standard error.

As `stepwell run` shows it: a picture that is redrawn on a terminal, else a line for each thing that
happens. It is redrawn when something happens, and by nobody else, so that the program's own loop is
left alone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Mapping
from typing import Any

from rich.live import Live

from stepwell.cli.output import stderr
from stepwell.cli.progress import Lines, Picture, Progress
from stepwell.runtime.telemetry import listen


@contextlib.contextmanager
def followed(run_id: str) -> Generator[None]:
    """Show the progress of the run with this id while the block runs."""
    console = stderr()
    began = time.time()
    if not console.is_terminal:
        stop = listen(Progress(run_id, Lines(console, began).say).hear)
        try:
            yield
        finally:
            stop()
        return
    progress = Progress(run_id)
    picture = Picture(progress, began, time.time)
    with Live(picture, console=console, auto_refresh=False, transient=True) as live:

        def hear(name: str, fields: Mapping[str, Any]) -> None:
            progress.hear(name, fields)
            live.refresh()

        stop = listen(hear)
        try:
            yield
        finally:
            stop()
            picture.whole = True
    console.print(picture)
