"""What stepwell logs, on the console of a command."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator

from rich.console import Console
from rich.text import Text

from stepwell.cli.options import settings

_STYLES = {logging.WARNING: "yellow", logging.ERROR: "bold red", logging.CRITICAL: "bold red"}


class ConsoleHandler(logging.Handler):
    """Writes records as lines; leaves out what telemetry tells, which is shown as progress."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, "stepwell_event"):
            return
        text = Text(record.getMessage(), _STYLES.get(record.levelno, ""))
        self._console.print(text, soft_wrap=True)
        if record.exc_info and settings().debug:
            self._console.print(logging.Formatter().formatException(record.exc_info))


@contextlib.contextmanager
def console_logging(console: Console) -> Generator[None]:
    """Show what stepwell logs on `console`."""
    logger = logging.getLogger("stepwell")
    handler = ConsoleHandler(console)
    logger.addHandler(handler)
    before = logger.propagate
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = before
        logger.removeHandler(handler)
