"""The log of a service: every record begins with its time, its level and its logger.

    2026-05-01T12:30:00.123Z INFO    stepwell.tasks.report run=6b01927e4c39 reporting
    {"time": "2026-05-01T12:30:00.123Z", "level": "info", "logger": "stepwell.tasks.report", ...}

All loggers of the process come here, the server's and those of users: one format, one stream.
Which run a record is about is known from the step that runs where it is made, or from what it says.
What goes on over several lines is indented: a line that begins at its left edge is a record, and
nothing that was logged can pretend to be another one.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import logging
import os
import re
import time
import traceback
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, cast

from rich.console import Console
from rich.text import Text

import stepwell
from stepwell.authoring.pipeline.handlers import FAILED
from stepwell.authoring.words import ON_FAIL, is_hidden
from stepwell.runtime.attempt import current
from stepwell.values import RAISED_AT, ErrorInfo

LogFormat = Literal["text", "json"]

_STYLES = {logging.WARNING: "yellow", logging.ERROR: "bold red", logging.CRITICAL: "bold red"}
_OWN = {
    "stepwell_event",
    "stepwell",
    "stepwell_cause",
    "message",
    "asctime",
    "taskName",
    "color_message",
}
_USUAL = frozenset({*vars(logging.makeLogRecord({})), *_OWN})
"""What every record has; all else its logger was given by whoever logs."""

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")

_CALLERS = tuple(
    f"{Path(str(module.__file__)).parent}{os.sep}"
    for module in (stepwell, asyncio, concurrent.futures)
)
"""Where the code is that calls the user's."""

MOST = 32_768
"""Characters of a text that are written: readers of logs, and collectors, have limits, too."""

OF_SERVICE = "stepwell.serve"
"""The logger that tells how the service itself is."""

OF_TASKS = "stepwell.tasks"
"""Tasks of documents log below this name, each under its own."""


class LogHandler(logging.Handler):
    """Writes records as lines.

    Args:
        console: where to.
        format: for people, or one JSON object each.
    """

    def __init__(self, console: Console, format: LogFormat) -> None:
        super().__init__()
        self._console = console
        self._json = format == "json"

    def emit(self, record: logging.LogRecord) -> None:
        """One record."""
        if _of_machinery(record):
            return
        try:
            fields = fields_of(record)
            if self._json:
                self._console.file.write(f"{_as_json(fields)}\n")
            else:
                style = _STYLES.get(record.levelno)
                self._write(fields, style if self._console.is_terminal else None)
        except Exception:
            self.handleError(record)

    def _write(self, fields: Mapping[str, Any], style: str | None) -> None:
        run = fields.get("run")
        about = f"run={run} " if run and str(run) not in fields["message"] else ""
        head = f"{fields['time']} {fields['level'].upper():<7} {fields['logger']} {about}"
        line = head + _indented(fields["message"])
        if style is None:
            # Many, and plain: laying them out as rich text would cost more than a task.
            self._console.file.write(f"{line}\n")
        else:
            self._console.print(Text(line, style), soft_wrap=True)
        if "trace" in fields:
            self._console.file.write(f"  {_indented(fields['trace'])}\n")


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What a record says, by name: `time`, `level`, `logger`, `message`; what it is about (`run`,
    `workflow`, `step`, ...) and what it was given besides (`extra=`); the `trace` of an error."""
    fields: dict[str, Any] = {
        "time": moment(record.created),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
    }
    told = cast("Mapping[str, Any] | None", getattr(record, "stepwell", None))
    if told is not None:
        fields["event"] = getattr(record, "stepwell_event", None)
        about = {name: value for name, value in told.items() if name != "at"}
    else:
        about = _where(record)
    more = {name: value for name, value in vars(record).items() if name not in _USUAL}
    for name, value in (*about.items(), *more.items()):
        fields.setdefault(name, value)
    cause = getattr(record, "stepwell_cause", None)
    if isinstance(cause, BaseException) and record.levelno >= logging.WARNING:
        if trace := _trace(cause):
            fields["trace"] = trace
    elif record.exc_info and record.exc_info[1] is not None:
        fields["trace"] = _formatted(record.exc_info[1], record.exc_info[2])
    return {
        name: _cut(value) if isinstance(value, str) else value for name, value in fields.items()
    }


def _as_json(fields: Mapping[str, Any]) -> str:
    try:
        return json.dumps(fields, ensure_ascii=False, default=str, allow_nan=False)
    except (TypeError, ValueError, RecursionError):  # it has what no object of JSON can have
        plain = {k: v if isinstance(v, str) else _cut(repr(v)) for k, v in fields.items()}
        return json.dumps(plain, ensure_ascii=False)


def _cut(text: str) -> str:
    if len(text) <= MOST:
        return text
    return f"{text[:MOST]}... ({len(text) - MOST} more characters)"


def _of_machinery(record: logging.LogRecord) -> bool:
    """Whether it tells of a step that no user wrote, and nothing that was not told already."""
    told = cast("Mapping[str, Any]", getattr(record, "stepwell", {}))
    step = str(told.get("step", ""))
    if record.levelno >= logging.WARNING:
        return step == FAILED  # it passes on what failed another one
    return is_hidden(step) and step != ON_FAIL


def _where(record: logging.LogRecord) -> dict[str, Any]:
    """Which run a record is about: the one whose step makes it, or the one that it names."""
    attempt = current.get(None)
    if attempt is not None:
        return {"run": attempt.run_id, "workflow": attempt.active.definition.name} | {
            "step": attempt.step
        }
    if str(record.msg).startswith("run %s") and isinstance(record.args, tuple) and record.args:
        return {"run": record.args[0]}
    return {}


def _trace(error: BaseException) -> str:
    """The trace of what a step raised, from the user's code on; of an error that says all by itself
    there is none. One of another process has brought along its own."""
    last = error.__traceback__
    while last is not None and last.tb_frame.f_code.co_filename.startswith(_CALLERS):
        last = last.tb_next
    if last is None and RAISED_AT not in vars(error):
        if type(error).__module__.startswith("stepwell.") and error.__cause__ is None:
            return ""
        last = error.__traceback__
    return _formatted(error, last)


def _formatted(error: BaseException, trace: TracebackType | None) -> str:
    """A trace, whatever the error does when it is asked about itself."""
    try:
        return "".join(traceback.format_exception(type(error), error, trace)).rstrip()
    except Exception:
        info = ErrorInfo.of(error)
        return "".join([*traceback.format_tb(trace), f"{info.type}: {info.message}"])


def moment(at: float) -> str:
    """A time, to the millisecond, in UTC.

    >>> moment(1_777_638_600.1239)
    '2026-05-01T12:30:00.123Z'
    """
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(at))}.{int(at % 1 * 1000):03d}Z"


def _indented(text: str) -> str:
    if text.isprintable():
        return text
    plain = _CONTROL.sub(lambda found: repr(found[0])[1:-1], text.rstrip("\n"))
    return plain.replace("\n", "\n  ")


@contextlib.contextmanager
def service_log(
    console: Console, format: LogFormat, modules: Iterable[str], debug: bool
) -> Generator[None]:
    """Write all that this process logs on `console`.

    Warnings and worse, of every logger; from INFO on what tasks say, and these modules of the
    user's; everything that stepwell says, with `debug`.
    """
    levels = dict.fromkeys((OF_SERVICE, OF_TASKS, *modules), logging.INFO)
    if debug:
        levels["stepwell"] = logging.DEBUG
    root, handler = logging.getLogger(), LogHandler(console, format)
    loggers = [logging.getLogger(name) for name in levels]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        if logger.level == logging.NOTSET:
            logger.setLevel(levels[logger.name])
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
