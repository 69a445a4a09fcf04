"""Options that commands share, and where their values are kept while a command runs.

Imports click alone: `stepwell --help` loads this module.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any, TypeVar

import click
from click.core import ParameterSource

DEFAULT_STORE = "sqlite:///stepwell.db"

_KEY = "stepwell.cli"

F = TypeVar("F", bound=Callable[..., Any])


class Exit(IntEnum):
    """What the process says when it ends."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    STORE = 4
    TIMED_OUT = 5
    INTERRUPTED = 130


@dataclass(slots=True)
class Settings:
    """What the shared options said, before or behind the command's name."""

    json: bool = False
    debug: bool = False
    no_color: bool = False
    server: str | None = None


def remember(ctx: click.Context) -> Settings:
    """The settings of this invocation; `ctx.meta` is shared by a command and its group."""
    return ctx.meta.setdefault(_KEY, Settings())


def settings() -> Settings:
    """The settings of the command that is running."""
    ctx = click.get_current_context(silent=True)
    return Settings() if ctx is None else remember(ctx)


def _set(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        setattr(remember(ctx), str(param.name), True)


def shared_options(command: F) -> F:
    """`--json`, `--no-color` and `--debug`, which every command has, and the group too."""
    for name, help in (
        ("--debug", "Show tracebacks."),
        ("--no-color", "No colours (also: NO_COLOR=1)."),
        ("--json", "JSON on standard output, and nothing else there."),
    ):
        command = click.option(
            name, is_flag=True, expose_value=False, callback=_set, help=help, is_eager=True
        )(command)
    return command


def store_option(command: F) -> F:
    """`--store` of commands that need a store."""
    return click.option(
        "--store",
        envvar="STEPWELL_STORE",
        default=DEFAULT_STORE,
        show_default=True,
        show_envvar=True,
        metavar="URL",
        callback=one_place,
        help="Where the runs are kept.",
    )(command)


def server_option(command: F) -> F:
    """`--server` of commands that can ask a service instead of a store."""
    return click.option(
        "--server",
        envvar="STEPWELL_SERVER",
        show_envvar=True,
        metavar="URL",
        expose_value=False,
        callback=_set_server,
        help="Ask this service instead of a store; STEPWELL_TOKEN is its token.",
    )(command)


def _set_server(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    # What was typed beats the environment; of two things that were typed none does.
    if value and (_typed(ctx, str(param.name)) or not _typed(ctx, "store")):
        remember(ctx).server = one_place(ctx, param, value)


def _typed(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def one_place(ctx: click.Context, _param: click.Parameter, value: str) -> str:
    """What was given for `--store` or `--server`. Raises `UsageError` when both were typed."""
    if _typed(ctx, "store") and _typed(ctx, "server"):
        raise click.UsageError("--store and --server name two places to look; give one")
    return value


def app_option(command: F) -> F:
    """`--app`: code to load."""
    return click.option(
        "--app",
        multiple=True,
        metavar="MODULE[:WORKFLOW]",
        help="Load this code of yours first; may be given several times.",
    )(command)


_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


class Whole(click.IntRange):
    """A whole number, between bounds if there are any."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            found = int(value)
        except ValueError:
            found = None
        low, high = self.min, self.max
        small = found is not None and low is not None and found < low
        large = found is not None and high is not None and found > high
        if found is None or small or large:
            bounds = f" from {low}" if low is not None else ""
            bounds += f" to {high}" if high is not None else ""
            self.fail(f"{value!r} is no whole number{bounds}", param, ctx)
        return found


class Duration(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] - since 8.5
    """A length of time: `90`, `90s`, `15m`, `2h`, `30d`. In seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, int | float):
            return float(value)
        seconds = _seconds(str(value))
        if seconds is None:
            self.fail(f"{value!r} is no length of time; write 90s, 15m, 2h or 30d", param, ctx)
        return seconds


class Moment(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] - since 8.5
    """A moment: an ISO date or time (local, unless it has an offset), or a length of time ago."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        seconds = _seconds(str(value))
        if seconds is not None:
            return time.time() - seconds
        try:
            return datetime.fromisoformat(str(value)).timestamp()
        except ValueError:
            self.fail(
                f"{value!r} is no time; write 2h (ago), 2026-05-01 or 2026-05-01T12:30+02:00",
                param,
                ctx,
            )


def _seconds(text: str) -> float | None:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip())
    if found is None or (found[2] and found[2] not in _UNITS):
        return None
    return float(found[1]) * _UNITS.get(found[2], 1.0)
