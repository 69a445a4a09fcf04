"""What stepwell logs, on the console of a command."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator

from rich.console import Console
from rich.text import Text

from stepwell.cli.options import settings

_STYLES = {logging.WARNING: "yellow", logging.ERROR: "bold red", logging.CRITICAL: "bold red"}


TASKS = "stepwell.tasks"
"""Tasks of documents log below this name, each under its own."""

REQUESTS = "uvicorn.access"


class ConsoleHandler(logging.Handler):
    """Writes records as lines: warnings and worse, and what tasks say. Leaves out what telemetry
    tells, which is shown as progress."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, "stepwell_event"):
            return
        of_task = record.name.startswith(f"{TASKS}.")
        said = record.getMessage()
        if of_task:
            said = f"task {record.name.removeprefix(f'{TASKS}.')}: {said}"
        if record.levelno < logging.WARNING:
            if of_task or record.name == REQUESTS:
                # Many, and plain: laying them out as rich text would cost more than the task.
                self._console.file.write(f"{said}\n")
            return
        self._console.print(Text(said, _STYLES.get(record.levelno, "")), soft_wrap=True)
        if record.exc_info and settings().debug:
            self._console.print(logging.Formatter().formatException(record.exc_info))


@contextlib.contextmanager
def console_logging(
    console: Console, *, tasks: bool = False, requests: bool = False
) -> Generator[None]:
    """Show what stepwell logs on `console`; also what tasks say, and every request, if wanted."""
    names = ["stepwell", *([REQUESTS] if requests else [])]
    handler = ConsoleHandler(console)
    before = [(logger, logger.propagate) for logger in map(logging.getLogger, names)]
    speakers = logging.getLogger(TASKS)
    level = speakers.level
    for logger, _ in before:
        logger.addHandler(handler)
        logger.propagate = False
    if tasks and level == logging.NOTSET:
        speakers.setLevel(logging.INFO)
    try:
        yield
    finally:
        speakers.setLevel(level)
        for logger, propagate in before:
            logger.propagate = propagate
            logger.removeHandler(handler)
