"""`stepwell`: the group of commands, and what becomes of their errors.

A command's module is imported when the command is used, so `stepwell --help` costs little more
than click. The table below is the whole mechanism: it is constant, and says of every command where
it is and what it is for.

Whatever goes wrong because of a user, a workflow or a store ends here as three lines: what
happened, who can put it right, what to do. Only a fault of stepwell's own shows a traceback.
"""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Sequence
from typing import Any

import click

from stepwell._version import __version__
from stepwell.cli.options import remember, shared_options

_COMMANDS = {
    "run": ("stepwell.cli.run", "Run a workflow, in memory or kept in a store."),
    "serve": ("stepwell.cli.serve", "Serve workflows over HTTP until stopped."),
    "worker": ("stepwell.cli.worker", "Advance the runs of a store until stopped."),
    "ls": ("stepwell.cli.listing", "List runs, newest first."),
    "show": ("stepwell.cli.show", "Show one run: steps, attempts, waits, result."),
    "logs": ("stepwell.cli.logs", "What a run did, as a stream; -f follows it."),
    "why": ("stepwell.cli.why", "Why a run is where it is, and what would move it."),
    "signal": ("stepwell.cli.speak", "Send a run an event."),
    "answer": ("stepwell.cli.speak", "Answer a question that a run asks."),
    "cancel": ("stepwell.cli.speak", "Cancel runs."),
    "resume": ("stepwell.cli.speak", "Let a parked run go on."),
    "retry": ("stepwell.cli.copies", "Try a failed run again, as a new run."),
    "fork": ("stepwell.cli.copies", "Start a copy of a run from a point in it."),
    "schedule": ("stepwell.cli.schedule", "List, pause, resume and backfill schedules."),
    "graph": ("stepwell.cli.graph", "Draw a workflow, or what a run did."),
    "check": ("stepwell.cli.check", "Whether live runs fit the code as it is now."),
    "config": ("stepwell.cli.config", "The settings of serve, and where each came from."),
    "doctor": ("stepwell.cli.doctor", "Look for what is wrong here."),
    "db": ("stepwell.cli.db", "Keep the store in order."),
}
"""Every command: the module that has it, under its own name, and what it is for."""

_OF_SERVER = ("fastapi", "starlette", "uvicorn", "pydantic_settings", "dotenv", "httpx")
"""What only the commands of the service need."""

_EPILOG = """\b
Exit codes:
  0    done
  1    the run failed; a check found something; there was nothing to do it to
  2    the command was not understood, or can't be done as asked
  3    no such run, or no such question
  4    the store can't be reached or used
  5    the time given for waiting is over
  130  interrupted

\b
STEPWELL_STORE   the store of commands that need one (sqlite:///stepwell.db)
NO_COLOR         any value: no colours
"""


_HELP: tuple[type[click.UsageError], ...] = tuple(
    kind
    for name, kind in vars(click.exceptions).items()
    if name == "NoArgsIsHelpError"  # since click 8.2
)
"""What a group of commands raises to have its help shown."""


class Commands(click.Group):
    """The commands of the table above, each imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = _COMMANDS.get(cmd_name)
        if found is None:
            return None
        try:
            return getattr(importlib.import_module(found[0]), cmd_name)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in _OF_SERVER:
                raise
            raise click.UsageError(
                f"{cmd_name} needs {error.name}: pip install 'stepwell[server]'", ctx
            ) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # click would import every command to ask it for its first line.
        with formatter.section("Commands"):
            formatter.write_dl([(name, purpose) for name, (_, purpose) in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            if args[0].startswith("-") or args[0] in _COMMANDS:
                raise  # a command that is there, and can't be used here
            close = _close(args[0])
            meant = f" Did you mean {close!r}?" if close else ""
            raise click.UsageError(f"No such command {args[0]!r}.{meant}", ctx) from None

    def main(self, args: Sequence[str] | None = None, *more: Any, **others: Any) -> Any:
        """As click's, but that what was not understood is said as all other errors are."""
        given = list(sys.argv[1:] if args is None else args)
        if not others.pop("standalone_mode", True):
            return super().main(given, *more, standalone_mode=False, **others)
        try:
            code = super().main(given, *more, standalone_mode=False, **others)
        except _HELP as error:
            error.show()
            code = error.exit_code
        except click.ClickException as error:
            from stepwell.cli.errors import misunderstood  # as above

            code = misunderstood(error, given)
        except click.Abort:
            code = 130
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            ctx.exit(130)
        except Exception as error:
            # Imported only now: reporting needs what the command needed.
            from stepwell.cli.errors import report

            code = report(error)
            if code is None:
                raise
            ctx.exit(code)


def _close(word: str) -> str | None:
    import difflib  # only after a typing mistake

    found = difflib.get_close_matches(word, _COMMANDS, 1)
    return found[0] if found else None


@click.command(
    cls=Commands,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
@click.version_option(__version__, "--version", message="stepwell %(version)s")
@shared_options
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Typed, durable workflows: run them, look at them, speak to them."""
    remember(ctx)


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a character
    cli(prog_name="stepwell")
