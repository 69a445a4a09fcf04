"""`stepwell why`."""

from __future__ import annotations

import click
from rich.text import Text

from stepwell.cli import output
from stepwell.cli.engines import find_run, looking, run_async
from stepwell.cli.load import load_all
from stepwell.cli.options import app_option, server_option, settings, shared_options, store_option
from stepwell.cli.waits import how_to_retry, print_waits


@click.command()
@click.argument("run")
@app_option
@store_option
@server_option
@shared_options
def why(run: str, app: tuple[str, ...], store: str) -> None:
    """Say why RUN is where it is, since when, and what would move it.

    RUN is the id of a run, or the beginning of one. No code of the workflow is needed.
    """
    run_async(_why(run, app, store))


async def _why(given: str, app: tuple[str, ...], url: str) -> None:
    async with looking(url, load_all(app)) as engine:
        info = await find_run(engine, given)
        why = await engine.why(info.id)
    if settings().json:
        output.document(
            {
                "id": info.id,
                "workflow": info.workflow,
                "status": why.status.value,
                "sentence": why.sentence,
                "steps": list(why.steps),
                "waits": [wait.to_json() for wait in why.waits],
            }
        )
        return
    console = output.stdout()
    status = why.status.value
    console.print(
        Text.assemble(
            info.id, "  ", output.name_of(info), "  ", (status, output.STYLES.get(status, ""))
        )
    )
    again = how_to_retry(info, url)
    output.facts(console, [("why", why.sentence), ("again", output.command(again))])
    print_waits(console, info.id, why.waits, url)
