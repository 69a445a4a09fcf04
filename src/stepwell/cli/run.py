"""`stepwell run`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
import traceback
from collections.abc import AsyncGenerator, Generator, Mapping
from typing import Any, cast

import click
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from stepwell.authoring.document_run import Documents, given_by
from stepwell.authoring.program import Program
from stepwell.authoring.starting import dropped
from stepwell.cli import output
from stepwell.cli.asking import Asker
from stepwell.cli.documents import document_in, is_document, posted
from stepwell.cli.engines import run_async, run_steps, store_at
from stepwell.cli.errors import CommandError
from stepwell.cli.inputs import input_of
from stepwell.cli.interrupts import Interrupts
from stepwell.cli.load import load_one
from stepwell.cli.logs_handler import console_logging
from stepwell.cli.options import (
    Duration,
    Exit,
    Whole,
    one_place,
    server_option,
    settings,
    shared_options,
)
from stepwell.cli.progress import Lines, Picture, Progress
from stepwell.cli.running import Ended, InMemory, Kept, Watched, complaints
from stepwell.cli.view import View
from stepwell.errors import WorkflowRuntimeError
from stepwell.kernel.outcomes import Message
from stepwell.runtime.clock import new_run_id
from stepwell.runtime.engine import Engine, Startable
from stepwell.runtime.local import run_local
from stepwell.runtime.telemetry import listen
from stepwell.values import RunStatus

_SURVIVES = {
    "none": "survives nothing",
    "process": "survives a crash",
    "power": "survives a power cut",
}
_CANCEL_GRACE = 10.0


@click.command()
@click.argument("workflow", metavar="MODULE:WORKFLOW|FILE")
@click.option(
    "--input", "given", metavar="JSON|@FILE", help="The start event's fields: JSON, @file, @-."
)
@click.option(
    "-i",
    "fields",
    multiple=True,
    metavar="KEY=VALUE",
    help="One field; the value is JSON if it can be, else text.",
)
@click.option(
    "--store",
    envvar="STEPWELL_STORE",
    metavar="URL",
    show_envvar=True,
    callback=one_place,
    help="Keep the run there; without one it is in memory.",
)
@click.option("--id", "run_id", metavar="ID", help="The run's id; made when left out.")
@click.option(
    "--key", metavar="KEY", help="A second start with the same key gives the first's run."
)
@click.option("--correlation", metavar="WORD", help="A word of yours to find the run by.")
@click.option("--priority", type=Whole(), default=0, help="Higher is taken up first by workers.")
@click.option("--detach", is_flag=True, help="Only start it, and leave it to workers.")
@click.option("--timeout-wait", type=Duration(), metavar="TIME", help="Wait no longer than this.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("--tasks", multiple=True, metavar="MODULE", help="Tasks for a document.")
@server_option
@shared_options
@click.pass_context
def run(
    ctx: click.Context,
    workflow: str,
    given: str | None,
    fields: tuple[str, ...],
    store: str | None,
    run_id: str | None,
    key: str | None,
    correlation: str | None,
    priority: int,
    detach: bool,
    timeout_wait: float | None,
    quiet: bool,
    tasks: tuple[str, ...],
) -> None:
    """Run a workflow and print its result as JSON.

    MODULE:WORKFLOW names a class, or an instance, in a module of yours; FILE a document (.json,
    .yaml). With --server a service runs the document, or the workflow of that name. Without
    --store the run lives in this process and survives nothing. With it every step is kept; while
    this command waits, it is a worker for the workflow.

    Progress goes to standard error, and so does what the steps print.
    """
    if settings().server is not None:
        if run_id is not None or correlation is not None:
            raise click.UsageError("a service gives ids and correlations itself")
        fields_given = input_of(given, fields)
        work = posted(
            workflow,
            fields_given,
            key=key,
            priority=priority,
            detach=detach,
            timeout=timeout_wait,
            quiet=quiet,
        )
        ctx.exit(run_async(work))
    if store is not None and store.startswith("memory:"):
        store = None
    kept = (("--key", key), ("--correlation", correlation), ("--detach", detach))
    for option, value in kept if store is None else ():
        if value:
            raise click.UsageError(f"{option} needs a run that is kept: give --store")
    start = Start(
        workflow,
        store,
        input_of(given, fields),
        run_id,
        key,
        correlation,
        priority,
        timeout_wait,
        quiet,
        tasks,
    )
    ctx.exit(run_steps(start.detached() if detach else start.watched()))


class Start:
    """One start of a workflow from the command line."""

    def __init__(
        self,
        target: str,
        store: str | None,
        fields: dict[str, Any],
        run_id: str | None,
        key: str | None,
        correlation: str | None,
        priority: int,
        timeout: float | None,
        quiet: bool,
        tasks: tuple[str, ...] = (),
    ) -> None:
        self.target = target
        self.store = store
        self.run_id = run_id or new_run_id()
        self.key = key
        self.correlation = correlation
        self.priority = priority
        self.timeout = timeout
        self.quiet = quiet
        self.workflow: Startable
        if is_document(target):
            modules = "".join(f" --tasks {module}" for module in tasks)
            self.advancing = f"stepwell serve{modules} --store {store}"
            document, given = document_in(target, tasks, fields)
            documents = self.workflow = Documents()
            self.program: Program = documents.compiled()
            self.message: Message = documents.message(document, given)
            self.correlation = correlation or document.name
            self.priority = priority or document.priority()
        else:
            self.advancing = f"stepwell worker {target} --store {store}"
            self.workflow = load_one(target)
            self.program = self.workflow.compiled()
            self.message = self._message(fields)
        self.console: Console = output.stderr()
        self.out = sys.stdout  # while the run lasts, what its steps print goes elsewhere

    @property
    def name(self) -> str:
        """The workflow's name."""
        return self.program.definition.name

    def _message(self, fields: dict[str, Any]) -> Message:
        if faults := dropped(self.program, fields):
            raise self._refused(fields, "; ".join(faults))
        try:
            return self.program.start(fields)
        except (WorkflowRuntimeError, ValueError, TypeError) as error:
            cause = error if isinstance(error, ValidationError) else error.__cause__
            why = complaints(cause) if isinstance(cause, ValidationError) else str(cause or error)
            raise self._refused(fields, why) from error

    def _refused(self, fields: dict[str, Any], why: str) -> CommandError:
        return CommandError(
            f"{self.target} can't be started with {json.dumps(fields, default=str)}: {why}",
            hint="Give its fields with -i key=value or --input JSON.",
        )

    # --- leaving it to workers -------------------------------------------------------------------

    async def detached(self) -> Exit:
        """Only start it."""
        async with Engine(store_at(str(self.store)), worker=False, name="cli") as engine:
            handler = self._begin(engine)
            await handler.started()
            info = await engine.get(handler.run_id)
        if settings().json:
            output.document(info.to_json())
        else:
            output.stdout().print(info.id)
            self._note(f"{info.status.value} in {engine.url}; a worker takes it up:")
            self._note(f"  {self.advancing}")
        return Exit.OK

    def _begin(self, engine: Engine) -> Any:
        return engine.begin(
            self.workflow,
            self.program,
            [self.message],
            run_id=self.run_id,
            key=self.key,
            correlation=self.correlation,
            priority=self.priority,
        )

    # --- watching it -----------------------------------------------------------------------------

    async def watched(self) -> Exit:
        """Start it, show what it does, wait for its end."""
        began = time.time()
        lines = Lines(self.console, began)
        shown = self.console.is_terminal and not self.quiet
        say = None if shown or self.quiet else lines.say
        progress = Progress(self.run_id, say)
        stop_listening = listen(progress.hear)
        try:
            with (
                Interrupts(signal.SIGINT, signal.SIGTERM) as interrupts,
                self._showing(progress, lines, began, shown) as view,
                console_logging(view.console),
            ):
                async with self._started() as (watched, engine):
                    outcome = await self._wait(watched, view, progress, interrupts)
                    if isinstance(outcome, Ended):
                        view.stop(outcome.status)
                        return self._tell(watched, outcome, began)
                    view.stop(None)
                    return await self._left(watched, engine, outcome, progress, began)
        finally:
            stop_listening()

    @contextlib.asynccontextmanager
    async def _started(self) -> AsyncGenerator[tuple[Watched, Engine | None]]:
        if self.store is None:
            self._note(f"run {self.run_id} of {self.name}")
            self._note("in memory (survives nothing)")
            program, owner = self.program, cast(object, self.workflow)
            if program.variant is not None:
                program, owner = program.variant(self.message)
            local = run_local(program, owner, [self.message], run_id=self.run_id)
            yield InMemory(local), None
            return
        async with Engine(store_at(self.store), [self.workflow]) as engine:
            # Before it begins: what its first steps do is told at once.
            self._note(f"run {self.run_id} of {self.name}")
            self._note(f"kept in {engine.url} ({_SURVIVES[engine.durability]})")
            handler = self._begin(engine)
            await handler.started()
            if handler.run_id != self.run_id:
                self._note(f"started before with this key: run {handler.run_id}")
            yield Kept(engine, self.program, handler), engine

    @contextlib.contextmanager
    def _showing(
        self, progress: Progress, lines: Lines, began: float, shown: bool
    ) -> Generator[View]:
        if shown:
            with View(self.console, Picture(progress, began, time.time)) as view:
                yield view
        else:
            # What steps print must not mix with the result.
            with contextlib.redirect_stdout(sys.stderr):
                yield View(self.console, None, None if self.quiet else lines)

    async def _wait(
        self, watched: Watched, view: View, progress: Progress, interrupts: Interrupts
    ) -> Ended | Exit:
        """How the run ended, or why it is not waited for any more."""
        parked = asyncio.Event()
        progress.on_parked = parked.set
        asker = Asker(watched, self.program, view.console, self.store, view.say, view.pause)
        async with asyncio.TaskGroup() as group:
            end = group.create_task(watched.ended())
            others = [
                group.create_task(asker.listen()),
                group.create_task(asker.ask()),
                group.create_task(view.redraw()),
            ]
            stops = {
                group.create_task(_after(interrupts.asked, Exit.INTERRUPTED)),
                group.create_task(_after(parked, Exit.FAILED)),
            }
            try:
                done, _ = await asyncio.wait(
                    {end, *stops}, timeout=self.timeout, return_when=asyncio.FIRST_COMPLETED
                )
                if end in done:
                    # What it published last is still to be shown.
                    await asyncio.wait({others[0]}, timeout=1.0)
                    return end.result()
                if done:
                    return cast("asyncio.Task[Exit]", done.pop()).result()
                return Exit.TIMED_OUT
            finally:
                for task in (end, *others, *stops):
                    task.cancel()

    # --- what is said at the end -----------------------------------------------------------------

    def _note(self, text: str) -> None:
        if not self.quiet:
            self.console.print(Text(text, "dim"), soft_wrap=True)

    def _tell(self, watched: Watched, ended: Ended, began: float) -> Exit:
        status = ended.status.value
        run_id = watched.handler.run_id
        failed = ended.status is not RunStatus.COMPLETED
        if not self.quiet or failed:
            line = Text.assemble((status, output.STYLES.get(status, "")))
            line.append(f" {'after' if failed else 'in'} {output.span(time.time() - began)}")
            self.console.print(line)
        if failed:
            self._tell_failure(ended, run_id)
        error = {**(ended.error or {}), "step": ended.step} if failed else None
        result = ended.result
        if isinstance(self.workflow, Documents) and isinstance(result, Mapping):
            result = given_by(cast("Mapping[str, Any]", result))
        if settings().json:
            self._document(run_id, status, result, error, began)
        elif not failed:
            output.document(result, self.out)
        return Exit.FAILED if failed else Exit.OK

    def _document(
        self, run_id: str, status: str, result: object, error: object, began: float
    ) -> None:
        """How the run ended, or stands, for programs."""
        if settings().json:
            output.document(
                {
                    "id": run_id,
                    "workflow": self.name,
                    "store": self.store,
                    "status": status,
                    "result": result,
                    "error": error,
                    "seconds": round(time.time() - began, 6),
                },
                self.out,
            )

    def _tell_failure(self, ended: Ended, run_id: str) -> None:
        where = f"in step {ended.step!r}" if ended.step else ""
        if ended.attempts > 1:
            where += f" after {ended.attempts} tries"
        place = str((ended.error or {}).get("where") or "")
        if place:
            where += f", {place}" if where else place
        rows: list[tuple[str, str | Text]] = [
            ("error", output.error_text(ended.error)),
            ("where", where),
        ]
        if self.store is not None and ended.step and ended.status is RunStatus.FAILED:
            again = f"stepwell retry {run_id} --store {self.store}"
            rows.append(("again", output.command(again)))
        output.facts(self.console, rows)
        if settings().debug and ended.live is not None:
            traceback.print_exception(ended.live, file=self.console.file)

    async def _left(
        self,
        watched: Watched,
        engine: Engine | None,
        code: Exit,
        progress: Progress,
        began: float,
    ) -> Exit:
        """The run is not waited for any more: say what becomes of it."""
        why = {
            Exit.INTERRUPTED: "interrupted",
            Exit.TIMED_OUT: f"not done within {output.span(self.timeout or 0.0)}",
        }.get(code, f"parked: {progress.parked}")
        console = self.console
        run_id = watched.handler.run_id
        progress.mute()
        status = None if engine is None else (await engine.get(run_id)).status
        if watched.handler.is_done() or (status is not None and status.terminal):
            # It ended before the signal was heard: a step may keep the loop busy for long.
            return self._tell(watched, await watched.ended(), began)
        console.print(Text(why, "yellow"))
        if engine is None or status is None:
            await watched.handler.cancel_run(timeout=_CANCEL_GRACE)
            console.print("The run was in memory: it was cancelled, and nothing of it is kept.")
            self._document(run_id, RunStatus.CANCELLED.value, None, {"message": why}, began)
            return code
        self._document(run_id, status.value, None, None, began)
        said = (
            f"The run stays in {engine.url}, {status.value}. What was committed is kept; a step "
            "that was at work starts again from its top."
        )
        output.paragraph(console, Text(""), said)
        rows: list[tuple[str, str | Text]] = [
            ("go on", output.command(self.advancing)),
            ("look", output.command(f"stepwell why {run_id} --store {self.store}")),
            ("end it", output.command(f"stepwell cancel {run_id} --store {self.store}")),
        ]
        if progress.parked is not None:
            resume = f"stepwell resume {run_id} --store {self.store}"
            rows[0] = ("go on", output.command(resume))
        output.facts(console, rows)
        return code


async def _after(event: asyncio.Event, code: Exit) -> Exit:
    await event.wait()
    return code
