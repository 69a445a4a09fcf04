"""`stepwell schedule`: ls, pause, resume, backfill."""

from __future__ import annotations

import time

import click

from stepwell.cli import output
from stepwell.cli.engines import looking, run_async
from stepwell.cli.errors import CommandError
from stepwell.cli.load import load_one
from stepwell.cli.options import Moment, Whole, settings, shared_options, store_option
from stepwell.runtime.engine import Engine
from stepwell.runtime.schedules import ScheduleInfo
from stepwell.values import utc


@click.group()
@shared_options
def schedule() -> None:
    """Look at schedules, and say when they are to start runs."""


# --- ls ------------------------------------------------------------------------------------------


@schedule.command("ls")
@store_option
@shared_options
def ls(store: str) -> None:
    """List schedules: when each fires next, and what its last run did."""
    run_async(_ls(store))


async def _ls(url: str) -> None:
    async with looking(url) as engine:
        found = await engine.schedules()
    if settings().json:
        output.document({"schedules": [info.to_json() for info in found]})
        return
    if not found:
        output.stderr().print("no schedules; a worker plans those of its workflows", style="dim")
        return
    now = time.time()
    header = ("workflow", "when", "timezone", "next", "last", "status")
    rows = [
        (
            info.workflow,
            info.cron,
            info.timezone,
            _next(info, now),
            "" if info.last_at is None else output.ago(info.last_at, now),
            "" if info.last_status is None else info.last_status.value,
        )
        for info in found
    ]
    output.table(output.stdout(), header, rows, give=(0,))


def _next(info: ScheduleInfo, now: float) -> str:
    if info.paused:
        return "paused"
    return "not planned" if info.next is None else output.ago(info.next, now)


# --- pause, resume -------------------------------------------------------------------------------


async def _named(engine: Engine, given: str) -> str:
    """The workflow of the schedule that was typed."""
    names = [info.workflow for info in await engine.schedules()]
    if given in names:
        return given
    there = f"There are {', '.join(names)}." if names else "The store has none."
    raise CommandError(f"there is no schedule {given!r} in {engine.url}", hint=there)


async def _set_paused(workflow: str, url: str, paused: bool) -> None:
    async with looking(url) as engine:
        workflow = await _named(engine, workflow)
        if paused:
            await engine.pause_schedule(workflow)
        else:
            await engine.resume_schedule(workflow)
    if settings().json:
        output.document({"workflow": workflow, "paused": paused})
        return
    said = "is paused; `stepwell schedule resume` lets it go on" if paused else "goes on from now"
    output.stdout().print(f"the schedule of {workflow} {said}", soft_wrap=True)


@schedule.command()
@click.argument("workflow")
@store_option
@shared_options
def pause(workflow: str, store: str) -> None:
    """Let the schedule of WORKFLOW start nothing until it is resumed."""
    run_async(_set_paused(workflow, store, True))


@schedule.command()
@click.argument("workflow")
@store_option
@shared_options
def resume(workflow: str, store: str) -> None:
    """Let the schedule of WORKFLOW go on from now.

    Times that passed while it was paused are not made up for; `stepwell schedule backfill` does.
    """
    run_async(_set_paused(workflow, store, False))


# --- backfill ------------------------------------------------------------------------------------


@schedule.command()
@click.argument("target", metavar="MODULE[:WORKFLOW]")
@click.option("--since", type=Moment(), required=True, metavar="TIME", help="From (2d, a date).")
@click.option("--until", type=Moment(), metavar="TIME", help="To; now, if it is left out.")
@click.option("-n", "--limit", type=Whole(1), default=1000, show_default=True)
@store_option
@shared_options
def backfill(target: str, since: float, until: float | None, limit: int, store: str) -> None:
    """Start a run for each past time of a schedule that has none, oldest first.

    Doing it again starts none again. Workers advance the runs.
    """
    run_async(_backfill(target, since, until, limit, store))


async def _backfill(target: str, since: float, until: float | None, limit: int, url: str) -> None:
    workflow = load_one(target)
    name = workflow.compiled().definition.name
    end = time.time() if until is None else until
    if end < since:
        raise CommandError("--until is before --since", hint="Give the earlier time as --since.")
    async with looking(url, [workflow]) as engine:
        count = await engine.backfill(name, since, end, limit=limit)
    if settings().json:
        output.document({"workflow": name, "started": count})
        return
    span = f"{utc(since):%Y-%m-%d %H:%M} to {utc(end):%Y-%m-%d %H:%M} UTC"
    runs = f"{count} run{'' if count == 1 else 's'}"
    more = "; there may be more: do it again" if count == limit else ""
    output.stdout().print(f"started {runs} of {name} for {span}{more}", soft_wrap=True)
