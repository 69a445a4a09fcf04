"""`stepwell retry` and `stepwell fork`: new runs made of old ones. The code checks other input."""

from __future__ import annotations

import json
from typing import Any

import click

from stepwell.authoring.document_run import NAME, Documents
from stepwell.cli import output
from stepwell.cli.engines import find_run, looking, run_async
from stepwell.cli.errors import CommandError
from stepwell.cli.inputs import input_of
from stepwell.cli.load import load_all
from stepwell.cli.options import (
    Whole,
    app_option,
    server_option,
    settings,
    shared_options,
    store_option,
)
from stepwell.errors import WorkflowRuntimeError
from stepwell.runtime.engine import Engine
from stepwell.runtime.handler import WorkflowHandler
from stepwell.runtime.views import RunInfo
from stepwell.values import RunStatus


def target_of(info: RunInfo) -> str:
    """What most probably names the run's workflow: by default its name is where it stands."""
    module, dot, name = info.workflow.rpartition(".")
    return f"{module}:{name}" if dot else f"MODULE:{name}"


def _need_code(engine: Engine, info: RunInfo) -> None:
    """Raise `CommandError` unless the workflow's code is loaded."""
    if info.workflow in engine.workflows:
        return
    have = ", ".join(engine.workflows)
    raise CommandError(
        f"other input is checked by the code of {info.workflow}"
        + (f"; loaded are {have}" if have else ""),
        hint=f"Add --app {target_of(info)}",
    )


@click.command()
@click.argument("run")
@click.option("--id", "new_id", metavar="ID", help="The new run's id; made when left out.")
@app_option
@store_option
@server_option
@shared_options
def retry(run: str, new_id: str | None, app: tuple[str, ...], store: str) -> None:
    """Try a failed RUN again from the step that failed it, as a new run.

    What ended stays as it is. A worker takes the new run up.
    """
    run_async(_retry(run, new_id, app, store))


async def _retry(given: str, new_id: str | None, app: tuple[str, ...], url: str) -> None:
    async with looking(url, load_all(app)) as engine:
        info = await find_run(engine, given)
        if info.status not in (RunStatus.FAILED, RunStatus.TIMED_OUT):
            go_on = {
                RunStatus.PARKED: f"`stepwell resume {info.id}` lets it go on.",
                RunStatus.COMPLETED: "`stepwell fork` starts a copy of any run from a point in it.",
            }
            raise CommandError(
                f"run {info.id} is {info.status.value}, not failed",
                hint=go_on.get(info.status, f"`stepwell why {info.id}` says what would move it."),
            )
        handler = await engine.retry(info.id, new_id=new_id)
        await _made(engine, info, handler, app, url)


@click.command()
@click.argument("run")
@click.option("--seq", type=Whole(1), metavar="ROW", help="Copy this many journal rows.")
@click.option("--step", metavar="STEP", help="Copy up to where this step last began.")
@click.option("--input", "given", metavar="JSON|@FILE", help="Fields to go on with instead.")
@click.option("-i", "fields", multiple=True, metavar="KEY=VALUE", help="One such field.")
@click.option("--id", "new_id", metavar="ID", help="The copy's id; made when left out.")
@app_option
@store_option
@server_option
@shared_options
def fork(
    run: str,
    seq: int | None,
    step: str | None,
    given: str | None,
    fields: tuple[str, ...],
    new_id: str | None,
    app: tuple[str, ...],
    store: str,
) -> None:
    """Start a copy of RUN up to a point, and let it go on from there.

    Without --seq and --step the copy starts where the run did. `stepwell show --journal` lists the
    rows. A worker takes the copy up.
    """
    if seq is not None and step is not None:
        raise click.UsageError("give --seq or --step, not both")
    run_async(_fork(run, seq, step, input_of(given, fields), new_id, app, store))


async def _fork(
    given: str,
    seq: int | None,
    step: str | None,
    fields: dict[str, Any],
    new_id: str | None,
    app: tuple[str, ...],
    url: str,
) -> None:
    # Documents are data: to give one other input takes no code.
    async with looking(url, [*load_all(app), Documents()]) as engine:
        info = await find_run(engine, given)
        if fields and settings().server is None:
            _need_code(engine, info)
        try:
            handler = await engine.fork(
                info.id, seq=seq, step=step, input=fields or None, new_id=new_id
            )
        except WorkflowRuntimeError as error:
            raise CommandError(
                str(error), hint=f"See `stepwell show {info.id} --journal`."
            ) from error
        except ValueError as error:
            said = json.dumps(fields, default=str)
            raise CommandError(f"the copy can't go on with {said}: {error}") from error
        await _made(engine, info, handler, app, url)


async def _made(
    engine: Engine,
    info: RunInfo,
    handler: WorkflowHandler[Any],
    app: tuple[str, ...],
    url: str,
) -> None:
    made = await engine.get(handler.run_id)
    if settings().json:
        output.document({**made.to_json(), "copy_of": info.id})
        return
    output.stdout().print(made.id)
    console = output.stderr()
    if settings().server is not None:
        console.print(f"a copy of {info.id}", style="dim", soft_wrap=True)
        return
    console.print(f"a copy of {info.id}; a worker takes it up:", style="dim", soft_wrap=True)
    command = f"stepwell worker {' '.join(app) or target_of(info)} --store {url}"
    if info.workflow == NAME:
        command = f"stepwell serve --store {url}"
    console.print(f"  {command}", style="dim", soft_wrap=True)
