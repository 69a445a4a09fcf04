"""`stepwell serve`."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from typing import Any, cast

import click
from rich.console import Console

from stepwell.authoring.tasks import tasks
from stepwell.cli import output
from stepwell.cli.documents import load_tasks
from stepwell.cli.engines import run_steps
from stepwell.cli.errors import CommandError
from stepwell.cli.interrupts import Interrupts
from stepwell.cli.load import load_all
from stepwell.cli.log_lines import OF_SERVICE, LogFormat, service_log
from stepwell.cli.options import Duration, Exit, Whole, shared_options
from stepwell.cli.options import settings as shared
from stepwell.server.http_task import http_request
from stepwell.server.serving import (
    app_of,
    check_safe,
    listen_on,
    open_engine,
)
from stepwell.server.serving import (
    serve as serve_until,
)
from stepwell.server.settings import Settings, load, strangers, words_of

logger = logging.getLogger(OF_SERVICE)


def serve_options(command: Any) -> Any:
    """The flags of `serve`, which `config` takes, too. What is not given is None."""
    for option in reversed(
        (
            click.option("--host", metavar="ADDRESS", help="127.0.0.1; others need a token."),
            click.option("--port", type=Whole(0, 65535), help="8000; 0: a free one."),
            click.option("--store", metavar="URL", help="sqlite:///stepwell.db, or as REDIS_HOST."),
            click.option("--tasks", multiple=True, metavar="MODULE", help="Tasks for documents."),
            click.option(
                "--app", multiple=True, metavar="MODULE[:WORKFLOW]", help="Workflows to serve."
            ),
            click.option("--token", metavar="WORD", help="Callers must send it."),
            click.option("--insecure", is_flag=True, default=None, help="Any address, no token."),
            click.option(
                "--allow-host", multiple=True, metavar="NAME", help="A host name to answer to."
            ),
            click.option(
                "--max-concurrent-workflows", type=Whole(1), metavar="N",
                help="More are queued, by priority.",
            ),
            click.option(
                "--max-queue", type=Whole(1), metavar="N", help="More are refused."
            ),
            click.option(
                "--require-store", is_flag=True, default=None,
                help="Do not fall back to memory when Redis can't be reached.",
            ),
            click.option("--lease", type=Duration(), metavar="TIME", help="15s; as of workers."),
            click.option(
                "--log-format", type=click.Choice(["text", "json"]),
                help="text; json for collectors: an object a line.",
            ),
            click.option(
                "--drain-seconds", type=Duration(), metavar="TIME", help="30s; as of workers."
            ),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def flags_of(given: dict[str, Any]) -> dict[str, Any]:
    """What was typed, as the settings take it."""
    flags = {
        name: ",".join(cast("tuple[str, ...]", value)) or None
        if isinstance(value, tuple)
        else value
        for name, value in given.items()
    }
    return {**flags, "debug": shared().debug or None}


@click.command()
@serve_options
@shared_options
@click.pass_context
def serve(ctx: click.Context, **given: Any) -> None:
    """Serve workflows over HTTP, and advance their runs, until stopped.

    Anyone who may post can have the registered tasks done, and those only: a document names tasks,
    never code. `stepwell config` shows the settings, and where each came from. SIGTERM and Ctrl-C
    stop it gracefully; nothing is lost either way.
    """
    wanted = load(flags_of(given))
    if wanted.log_format == "json":
        shared().json = True  # why it does not start is for collectors, too
    check_safe(wanted)
    ctx.exit(run_steps(_serve(wanted)))


async def _serve(wanted: Settings) -> Exit:
    console = output.stderr()
    with (
        Interrupts(signal.SIGINT, signal.SIGTERM) as interrupts,
        contextlib.redirect_stdout(sys.stderr),  # what tasks print
        service_log(console, wanted.log_format, _modules(wanted), wanted.debug),
    ):
        for line in strangers():
            logger.warning(line)
        load_tasks(words_of(wanted.tasks), tasks)
        if hosts := words_of(wanted.http_hosts):
            try:
                tasks.register(http_request(hosts, words_of(wanted.http_schemes)))
            except ValueError as error:
                raise CommandError(str(error), hint="Put STEPWELL_HTTP_SCHEMES right.") from error
        workflows = load_all(words_of(wanted.app))
        listening = listen_on(wanted)
        opened = await open_engine(wanted, workflows)
        try:
            app = app_of(wanted, opened, tasks)
            host, port = listening.getsockname()[:2]
            address = f"[{host}]" if ":" in host else host
            service = app.state.stepwell
            facts = {
                "serving": f"http://{address}:{port}/docs",
                "console": f"http://{address}:{port}/",
                "store": f"{opened.engine.url} (durability: {service.durability()})",
                "tasks": ", ".join(tasks.names()),
                "workflows": ", ".join(service.definitions()),
                "token": "needed" if wanted.token else "none is needed",
            }
            _greet(console, wanted.log_format, facts)
            await serve_until(wanted, app, listening, interrupts.asked)
            logger.info("stopping: takes up nothing more, lets steps end (again: ends at once)")
            await opened.engine.stop(wanted.drain_seconds)
            logger.info("stopped")
        finally:
            listening.close()
            await opened.engine.stop(0.0)
    return Exit.OK


def _modules(wanted: Settings) -> list[str]:
    """The modules of the user's, whose loggers are heard from INFO on."""
    return [word.partition(":")[0] for word in words_of(f"{wanted.tasks},{wanted.app}")]


def _greet(console: Console, format: LogFormat, rows: dict[str, str]) -> None:
    """Say what is served, where and how: to people, or in records like all others."""
    if format == "json":
        logger.info("serving %s", rows["serving"], extra=rows)
        logger.info("ready")
    else:
        output.facts(console, rows.items())
        console.print("ready", style="green")
