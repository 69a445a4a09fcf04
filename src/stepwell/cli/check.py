"""`stepwell check`."""

from __future__ import annotations

from collections import Counter

import click

from stepwell.cli import output
from stepwell.cli.engines import looking, run_async
from stepwell.cli.load import load_all
from stepwell.cli.options import Exit, settings, shared_options, store_option


@click.command()
@click.argument("modules", nargs=-1, required=True, metavar="MODULE[:WORKFLOW]...")
@click.option(
    "--ignore-unknown",
    is_flag=True,
    help="Runs of workflows that were not named are none of this code's business.",
)
@store_option
@shared_options
@click.pass_context
def check(ctx: click.Context, modules: tuple[str, ...], ignore_unknown: bool, store: str) -> None:
    """Say for every live run whether it still fits the code as it is now.

    Run it with the new code before that is deployed. A run fits when its journal can be read and
    every step that it is at is still there. Exit code 1 when one does not fit.
    """
    ctx.exit(run_async(_check(modules, ignore_unknown, store)))


async def _check(modules: tuple[str, ...], ignore_unknown: bool, url: str) -> Exit:
    async with looking(url, load_all(modules)) as engine:
        found = await engine.check()
        known = engine.workflows
    if ignore_unknown:
        found = [(info, misfit) for info, misfit in found if info.workflow in known]
    misfits = [(info, misfit) for info, misfit in found if misfit is not None]
    if settings().json:
        output.document(
            {
                "checked": len(found),
                "misfits": len(misfits),
                "runs": [
                    {
                        "id": info.id,
                        "workflow": info.workflow,
                        "status": info.status.value,
                        "fits": misfit is None,
                        "why": misfit,
                    }
                    for info, misfit in found
                ],
            }
        )
        return Exit.FAILED if misfits else Exit.OK
    console = output.stdout()
    fine = Counter(info.workflow for info, misfit in found if misfit is None)
    bad = Counter(info.workflow for info, _ in misfits)
    rows = [
        ("ok" if not bad[name] else "problem", name, str(fine[name]), str(bad[name]))
        for name in sorted({*fine, *bad, *known})
    ]
    output.table(console, ("state", "workflow", "fit", "do not"), rows, give=(1,))
    for info, misfit in misfits:
        console.print()
        output.facts(
            console,
            [("run", f"{info.id}  {info.workflow}  {info.status.value}"), ("why", misfit or "")],
        )
    return Exit.FAILED if misfits else Exit.OK
