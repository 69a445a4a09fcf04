"""What stepwell logs, on the console of a command."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Generator

from rich.console import Console
from rich.text import Text

from stepwell.cli.options import settings

_STYLES = {logging.WARNING: "yellow", logging.ERROR: "bold red", logging.CRITICAL: "bold red"}


_FAILED = "step.failed"

TASKS = "stepwell.tasks"
"""Tasks of documents log below this name, each under its own."""

REQUESTS = "uvicorn.access"


class ConsoleHandler(logging.Handler):
    """Writes records as lines: warnings and worse, and what tasks say. Leaves out what telemetry
    tells, which is shown as progress; where nothing shows progress, `failures` are told, with the
    trace of what is not tried again: nothing else keeps it."""

    def __init__(self, console: Console, failures: bool = False) -> None:
        super().__init__(logging.INFO)
        self._console = console
        self._failures = failures

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "stepwell_event", None)
        if event is not None:
            cause = getattr(record, "stepwell_cause", None)
            if self._failures and event == _FAILED and isinstance(cause, BaseException):
                self._console.print(Text(record.getMessage(), "yellow"), soft_wrap=True)
                self._console.file.write("".join(traceback.format_exception(cause)))
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
    """Show what stepwell logs on `console`; also what tasks say and how they fail, and every
    request, if wanted."""
    names = ["stepwell", *([REQUESTS] if requests else [])]
    handler = ConsoleHandler(console, failures=tasks)
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
