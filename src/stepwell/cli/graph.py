"""`stepwell graph`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import cast

import click

from stepwell.authoring.drawing.draw import Format, draw
from stepwell.authoring.drawing.journal import definition_seen
from stepwell.authoring.drawing.run import RunView, run_view
from stepwell.authoring.drawing.states import unknown_steps
from stepwell.authoring.machine.define import Machine
from stepwell.cli import output
from stepwell.cli.engines import find_run, looking, run_async
from stepwell.cli.errors import CommandError, NoStore, exit_code
from stepwell.cli.load import is_module, load_all, load_one
from stepwell.cli.options import Exit, app_option, settings, shared_options, store_option
from stepwell.errors import RunNotFound
from stepwell.kernel.definition import Definition
from stepwell.runtime.history import plain


@click.command()
@click.argument("what", metavar="MODULE:WORKFLOW|RUN")
@click.option(
    "--format",
    "form",
    type=click.Choice(["mermaid", "dot", "svg", "html", "json"]),
    help="By default what the file's name says, else mermaid.",
)
@click.option("-o", "--output", "file", metavar="FILE", help="Write it there.")
@app_option
@store_option
@shared_options
def graph(what: str, form: str | None, file: str | None, app: tuple[str, ...], store: str) -> None:
    """Draw a workflow, or what a run of it did.

    MODULE:WORKFLOW draws the workflow. The id of a run draws what the run did: how often each way
    was taken, how each step fared. With --app for its code also what was not reached.
    """
    form = form or ("json" if settings().json else _by_name(file))
    if settings().json and form != "json":
        raise click.UsageError("--json draws nothing: leave out --format")
    if ":" in what or (is_module(what) and not run_async(_is_run(what, store))):
        workflow = load_one(what)
        definition, view = workflow.compiled().definition, None
        machine = workflow if isinstance(workflow, Machine) else None
    else:
        definition, view, machine = run_async(_of_run(what, app, store))
    text = _drawn(definition, view, machine, form)
    if machine is not None and view is None:
        _warn(machine)
    if file is None:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        return
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{file} can't be written: {error.strerror}") from error
    output.stderr().print(f"written to {file}", style="dim", soft_wrap=True)


_ENDINGS = {
    ".mmd": "mermaid",
    ".mermaid": "mermaid",
    ".md": "mermaid",
    ".dot": "dot",
    ".gv": "dot",
    ".svg": "svg",
    ".html": "html",
    ".json": "json",
}


def _by_name(file: str | None) -> str:
    return _ENDINGS.get(Path(file or "").suffix, "mermaid")


async def _is_run(given: str, url: str) -> bool:
    try:
        async with looking(url) as engine:
            await engine.get(given)
    except (NoStore, RunNotFound):
        return False
    return True


def _warn(machine: Machine) -> None:
    """Say which steps go where the code does not say."""
    names = ", ".join(unknown_steps(machine))
    if names:
        said = f"where {names} may go can't be read from the code: drawn as ?"
        output.fact(output.stderr(), "warning", said, 8)


async def _of_run(
    given: str, app: tuple[str, ...], url: str
) -> tuple[Definition, RunView, Machine | None]:
    workflows = load_all(app)
    try:
        async with looking(url, workflows) as engine:
            info = await find_run(engine, given)
            program = engine.workflows.get(info.workflow)
            batches = await engine.batches(info.id)
    except (NoStore, RunNotFound) as error:
        raise CommandError(
            f"{given!r} is no module, and no run: {error.message}",
            hint="Write module:Workflow to draw a workflow, or the id of a run and its --store.",
            exit=exit_code(error) or Exit.USAGE,
        ) from error
    if program is not None:
        definition = program.definition
    else:
        definition = definition_seen(info.workflow, [entries for _, entries in batches])
        output.stderr().print(
            "drawn from its journal; --app MODULE also draws what it never came to",
            style="dim",
            soft_wrap=True,
        )
    machines = [w for w in workflows if isinstance(w, Machine) and w.name == info.workflow]
    return definition, run_view(definition, batches), machines[0] if machines else None


def _drawn(definition: Definition, view: RunView | None, machine: Machine | None, form: str) -> str:
    if form != "json":
        return draw(definition, cast(Format, form), run=view, machine=machine)
    whole: dict[str, object] = {"definition": definition.to_json()}
    if view is not None:
        whole["run"] = {
            "status": view.status.value,
            "error": view.error or None,
            "ways": [
                {"from": source or None, "event": tag, "to": target or None, "times": times}
                for (source, tag, target), times in view.visited.items()
            ],
            "steps": plain(dict(view.steps)),
        }
    return json.dumps(whole, indent=2, ensure_ascii=False)
