"""`stepwell worker`."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from stepwell.authoring.words import step_said, tag_said
from stepwell.cli import output
from stepwell.cli.engines import run_steps, store_at
from stepwell.cli.interrupts import Interrupts
from stepwell.cli.load import load_all
from stepwell.cli.logs_handler import console_logging
from stepwell.cli.options import (
    Duration,
    Exit,
    settings,
    shared_options,
    store_option,
)
from stepwell.runtime.engine import Engine
from stepwell.runtime.telemetry import listen
from stepwell.values import iso

_STYLES = {
    "run.parked": "bold yellow",
    "step.failed": "red",
    "step.expired": "red",
    "step.retrying": "yellow",
}
_QUIET = frozenset({"run.parked", "step.failed", "step.expired"})


@click.command()
@click.argument("modules", nargs=-1, required=True, metavar="MODULE[:WORKFLOW]...")
@click.option("--name", metavar="NAME", help="What it is called in listings; the host's name.")
@click.option(
    "--lease",
    type=Duration(),
    default="15s",
    show_default=True,
    metavar="TIME",
    help="Others take over when it has been silent for so long.",
)
@click.option(
    "--drain-seconds",
    type=Duration(),
    default="30s",
    show_default=True,
    metavar="TIME",
    help="How long steps that are at work may go on when it is stopped.",
)
@click.option("-q", "--quiet", is_flag=True, help="Only what went wrong.")
@store_option
@shared_options
@click.pass_context
def worker(
    ctx: click.Context,
    modules: tuple[str, ...],
    name: str | None,
    lease: float,
    drain_seconds: float,
    quiet: bool,
    store: str,
) -> None:
    """Advance the runs of workflows until stopped.

    Names modules of yours: all workflows in them, or the ones that are named. SIGTERM and Ctrl-C
    stop it gracefully: it takes up nothing more, lets steps end, lets go of its runs. A second one
    ends it at once; other workers take over. Nothing is lost either way.
    """
    if lease <= 0:
        raise click.UsageError("--lease must be above 0")
    ctx.exit(run_steps(_worker(modules, name, lease, drain_seconds, quiet, store)))


async def _worker(
    modules: tuple[str, ...],
    name: str | None,
    lease: float,
    drain: float,
    quiet: bool,
    url: str,
) -> Exit:
    workflows = load_all(modules)
    console = output.stderr()
    out = sys.stdout
    engine = Engine(store_at(url), workflows, name=name, lease=lease)
    with (
        Interrupts(signal.SIGINT, signal.SIGTERM) as interrupts,
        contextlib.redirect_stdout(sys.stderr),  # what steps print
        console_logging(console),
    ):
        stop_listening = listen(Teller(console, quiet, out).tell)
        try:
            if not quiet:
                _greet(console, engine, lease)
            await engine.start_up()
            console.print("ready", style="green")
            await interrupts.asked.wait()
            word = signal.Signals(interrupts.signal or signal.SIGTERM).name
            console.print(
                f"{word}: takes up nothing more, lets steps end for up to {output.span(drain)} "
                "(again: ends at once)",
                soft_wrap=True,
            )
            began = time.monotonic()
            await engine.stop(drain)
            console.print(f"stopped after {output.span(time.monotonic() - began)}")
        finally:
            stop_listening()
            await asyncio.shield(engine.stop(0.0))
    return Exit.OK


def _greet(console: Console, engine: Engine, lease: float) -> None:
    output.facts(
        console,
        [
            ("worker", engine.worker_id),
            ("store", f"{engine.url} (durability: {engine.durability})"),
            ("workflows", ", ".join(engine.workflows)),
            ("lease", output.span(lease)),
        ],
    )


def _said(name: str, value: object) -> str:
    """One field of a telemetry event, in a line for people."""
    if name == "step":
        return step_said(str(value))
    if name == "event":
        value = tag_said(str(value)) or value
    return str(value) if name in ("status", "error", "reason") else f"{name}={value}"


class Teller:
    """Says what the runs of a worker do: lines, or lines of JSON on standard output."""

    def __init__(self, console: Console, quiet: bool, out: Any) -> None:
        self._console = console
        self._quiet = quiet
        self._out = out
        self._json = settings().json

    def tell(self, name: str, fields: Mapping[str, Any]) -> None:
        """One telemetry event."""
        if self._quiet and name not in _QUIET:
            return
        if self._json:
            output.json_line({"event": name, **fields, "at": iso(fields["at"])}, self._out)
            return
        rest = " ".join(
            _said(k, v)
            for k, v in fields.items()
            if k not in ("run", "workflow", "at", "retry_at", "until")
        )
        line = Text.assemble(
            (output.clock(fields["at"]), "dim"),
            "  ",
            fields["run"],
            "  ",
            (f"{name:<14}", _STYLES.get(name, "")),
            f" {rest}",
        )
        if name == "run.started":
            line.append(str(fields["workflow"]))
        self._console.print(line, soft_wrap=True)
