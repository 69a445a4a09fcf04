"""What stepwell logs, on the console of a command that shows progress by itself."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator

from rich.console import Console
from rich.text import Text

from stepwell.cli.options import settings

_STYLES = {logging.WARNING: "yellow", logging.ERROR: "bold red", logging.CRITICAL: "bold red"}


class ConsoleHandler(logging.Handler):
    """Writes warnings and worse as lines. Leaves out what telemetry tells, which is shown as
    progress."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "stepwell_event", None) is not None:
            return
        style = _STYLES.get(record.levelno, "")
        self._console.print(Text(record.getMessage(), style), soft_wrap=True)
        if record.exc_info and settings().debug:
            self._console.print(logging.Formatter().formatException(record.exc_info))


@contextlib.contextmanager
def console_logging(console: Console) -> Generator[None]:
    """Show what stepwell logs on `console`."""
    logger, handler = logging.getLogger("stepwell"), ConsoleHandler(console)
    propagate = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = propagate
        logger.removeHandler(handler)
