"""`stepwell ls`."""

from __future__ import annotations

import time

import click

from stepwell.authoring.document_run import NAME
from stepwell.cli import output
from stepwell.cli.engines import find_run, looking, run_async, workflow_named
from stepwell.cli.errors import CommandError
from stepwell.cli.options import (
    Exit,
    Moment,
    Whole,
    server_option,
    settings,
    shared_options,
    store_option,
)
from stepwell.cli.waits import told
from stepwell.runtime.engine import Engine
from stepwell.runtime.views import RunInfo
from stepwell.values import RunStatus

_STATUSES = [status.value for status in RunStatus]


@click.command()
@click.option(
    "-w", "--workflow", metavar="NAME", help="Only runs of this workflow, or of this document."
)
@click.option(
    "-s",
    "--status",
    multiple=True,
    type=click.Choice([*_STATUSES, "live", "ended"]),
    metavar="STATUS",
    help=f"Only these; may be given several times: {', '.join(_STATUSES)}, live, ended.",
)
@click.option("--parent", metavar="RUN", help="Only children of this run.")
@click.option("--correlation", metavar="WORD", help="Only runs with this correlation.")
@click.option("--since", type=Moment(), metavar="TIME", help="Only runs made since (2h, a date).")
@click.option("-n", "--limit", type=Whole(1, 1000), default=20, show_default=True)
@click.option("--after", metavar="CURSOR", help="The next page: what the last one ended with.")
@store_option
@server_option
@shared_options
def ls(
    workflow: str | None,
    status: tuple[str, ...],
    parent: str | None,
    correlation: str | None,
    since: float | None,
    limit: int,
    after: str | None,
    store: str,
) -> None:
    """List runs, newest first."""
    run_async(_ls(workflow, status, parent, correlation, since, limit, after, store))


async def _ls(
    workflow: str | None,
    status: tuple[str, ...],
    parent: str | None,
    correlation: str | None,
    since: float | None,
    limit: int,
    after: str | None,
    url: str,
) -> None:
    async with looking(url) as engine:
        if workflow is not None:
            workflow, correlation = await _meant(engine, workflow, correlation)
        if parent is not None:
            parent = (await find_run(engine, parent)).id
        try:
            runs, cursor = await engine.list(
                workflow=workflow,
                status=_wanted(status),
                parent=parent,
                correlation=correlation,
                since=since,
                limit=limit,
                after=after,
            )
        except ValueError as error:
            raise CommandError(str(error), hint="Give the cursor just as ls printed it.") from error
        counts = await engine.counts()
    if settings().json:
        output.document({"runs": [run.to_json() for run in runs], "next": cursor})
        return
    _print(runs)
    filtered = any((workflow, status, parent, correlation, since))
    said = output.stderr()
    if not filtered:
        said.print(_tally(counts), style="dim")
    elif not runs:
        said.print("no run is like that", style="dim")
    if cursor is not None:
        said.print(f"more: stepwell ls --after {cursor}", style="dim", soft_wrap=True)


async def _meant(engine: Engine, given: str, correlation: str | None) -> tuple[str, str | None]:
    """The workflow that was typed, and the correlation; that of a document is its name."""
    try:
        return await workflow_named(engine, given), correlation
    except CommandError as error:
        if error.exit is not Exit.NOT_FOUND or correlation is not None:
            raise
        found, _ = await engine.list(workflow=NAME, correlation=given, limit=1)
        if not found:
            raise
        return NAME, given


def _wanted(given: tuple[str, ...]) -> list[RunStatus] | None:
    found: list[RunStatus] = []
    for word in given:
        if word in ("live", "ended"):
            found += [s for s in RunStatus if s.terminal == (word == "ended")]
        else:
            found.append(RunStatus(word))
    return list(dict.fromkeys(found)) or None


def _tally(counts: dict[tuple[str, RunStatus], int]) -> str:
    total = sum(counts.values())
    if not total:
        return "no runs yet"
    of = {s: sum(n for (_, t), n in counts.items() if t is s) for s in RunStatus}
    parts = ", ".join(f"{n} {s.value}" for s, n in of.items() if n)
    return f"{total} run{'s' if total > 1 else ''}: {parts}"


def _print(runs: list[RunInfo]) -> None:
    if not runs:
        return
    now = time.time()
    rows = [
        (
            run.id,
            run.status.value,
            output.name_of(run),
            output.ago(run.created, now),
            output.span((run.ended or now) - run.created) if run.ended else "",
            about(run),
        )
        for run in runs
    ]
    console = output.stdout()
    header = ("run", "status", "workflow", "created", "took", "about")
    output.table(console, header, rows, give=(5, 2), below=5)


def about(run: RunInfo) -> str:
    """What is most worth knowing of a run, in some words."""
    if run.error:
        return output.error_text(run.error)
    if run.reason:
        return run.reason
    words = [word for word in map(told, run.waits) if word]
    if not words and run.status is RunStatus.WAITING and run.due is not None:
        words = [f"time, {output.ago(run.due)}"]
    if words:
        return "for " + ", ".join(words)
    if run.status is RunStatus.RUNNING:
        return f"on {run.owner}" if run.owner else "until a worker takes it up"
    return ""
