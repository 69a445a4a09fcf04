"""`stepwell run` of what is no module: a document in a file, and whatever a service runs."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Generator, Iterable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from rich.text import Text

from stepwell.authoring.document import WorkflowDocument, parse
from stepwell.authoring.document_file import read_file
from stepwell.authoring.tasks import Task, TaskRegistry, tasks
from stepwell.cli import output
from stepwell.cli.engines import looking
from stepwell.cli.errors import CommandError
from stepwell.cli.load import module_named
from stepwell.cli.options import Exit, settings
from stepwell.errors import DocumentError
from stepwell.values import RunStatus

if TYPE_CHECKING:
    from stepwell.client import Client

ENTRY_POINTS = "stepwell.tasks"
"""The group of entry points under which installed packages offer tasks."""

_FILES = (".json", ".yaml", ".yml")


def is_document(target: str) -> bool:
    """Whether what was typed names a file with a document."""
    return target.endswith(_FILES)


def document_in(
    target: str, modules: tuple[str, ...], fields: Mapping[str, Any]
) -> tuple[WorkflowDocument, Mapping[str, Any]]:
    """The document of a file, checked against the tasks of these modules and the built-in ones, and
    the input: that of the file, if it has one as requests do, under these fields."""
    load_tasks(modules, tasks)
    with _hinted("Name the module that has it: --tasks MODULE."):
        data, given = _read(target, fields)
        return parse(data, tasks), given


def _read(target: str, fields: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any]]:
    try:
        found = read_file(Path(target))
    except OSError as error:
        raise CommandError(
            f"{target} can't be read: {error.strerror}", hint="Check its path."
        ) from error
    if not isinstance(found, dict):
        raise CommandError(f"{target} holds no document", hint="A document is an object.")
    data = cast("dict[str, Any]", found)
    given = data.pop("input", None)
    if given is None:
        return data, fields
    if not isinstance(given, dict):
        raise DocumentError([f"input: an object is wanted, not {given!r:.60}"])
    return data, {**given, **fields}


@contextlib.contextmanager
def _hinted(unknown_task: str) -> Generator[None]:
    """Say what to do about a document that has faults."""
    try:
        yield
    except DocumentError as error:
        missing = "unknown task" in error.message
        error.hint = error.hint or (unknown_task if missing else "Put the document right.")
        raise


async def posted(
    target: str,
    fields: dict[str, Any],
    *,
    key: str | None,
    priority: int,
    detach: bool,
    timeout: float | None,
    quiet: bool,
) -> Exit:
    """Have a service run a document, or a workflow of its own; follow it to its end.

    Args:
        target: a file, or the name of a workflow.
        fields: what it starts with.
        key: idempotency key.
        priority: higher starts first.
        detach: only start it.
        timeout: seconds to wait for its end; None: any number.
        quiet: show no progress.
    """
    what: str | Mapping[str, Any] = target
    given: Mapping[str, Any] = fields
    async with looking("") as engine:
        client = cast("Client", engine)
        with _hinted("The service has to be started with it: stepwell serve --tasks MODULE."):
            if is_document(target):
                what, given = _read(target, fields)
            run = await client.start(what, given, key=key, priority=priority)
        console = output.stderr()
        if detach:
            output.stdout().print(run.run_id)
            return Exit.OK
        if not quiet:
            console.print(Text(f"run {run.run_id} at {client.url}", "dim"), soft_wrap=True)
        try:
            async with (
                asyncio.timeout(timeout),
                contextlib.aclosing(client.stream(run.run_id)) as items,
            ):
                async for item in items:
                    event = cast("Mapping[str, Any]", item.event)
                    if not quiet:
                        console.print(_line(item.at, event), soft_wrap=True)
                    if event["type"] == "run.ended":
                        return _told(run.run_id, event)
        except TimeoutError:
            console.print(f"not done within {output.span(timeout)}; it goes on", style="yellow")
            return Exit.TIMED_OUT
    raise CommandError(f"run {run.run_id} was deleted", exit=Exit.NOT_FOUND)


def _line(at: float, event: Mapping[str, Any]) -> Text:
    about = event.get("place") or event.get("event") or event.get("status") or ""
    error = event.get("error")
    said = f"  {output.error_text(error)}" if error else ""
    return Text.assemble((output.clock(at), "dim"), f"  {event['type']:<14}  {about}{said}")


def _told(run_id: str, event: Mapping[str, Any]) -> Exit:
    done = event["status"] == RunStatus.COMPLETED.value
    if settings().json:
        shown = {field: event[field] for field in ("status", "result", "error")}
        output.document({"id": run_id, **shown})
    elif done:
        output.document(event["result"])
    return Exit.OK if done else Exit.FAILED


def load_tasks(modules: Iterable[str], registry: TaskRegistry) -> None:
    """Register the tasks of installed packages and of these modules.

    A module's `@task` functions register themselves; its classes derived from `Task` are
    registered under their names. Raises `CommandError` for a module that can't be imported.
    """
    for point in entry_points(group=ENTRY_POINTS):
        try:
            found = point.load()
        except Exception as error:
            raise CommandError(
                f"the tasks {point.value!r} of an installed package can't be loaded: {error}",
                hint="Repair or remove the package.",
                whose="operator",
            ) from error
        if isinstance(found, ModuleType):
            _register_classes(found, registry)
        elif isinstance(found, type) and issubclass(found, Task):
            registry.register(found, point.name)
    for name in modules:
        _register_classes(module_named(name), registry)


def _register_classes(module: ModuleType, registry: TaskRegistry) -> None:
    for found in vars(module).values():
        own = isinstance(found, type) and found.__module__ == module.__name__
        if own and issubclass(found, Task) and "execute" in vars(found):
            if inspect.isabstract(found) or found.__name__.startswith("_"):
                continue
            try:
                registry.register(found)
            except (TypeError, ValueError) as error:
                raise CommandError(
                    f"{found.__qualname__} of {module.__name__} can't be registered: {error}",
                    hint="A task's class is made without arguments, and has a name of its own.",
                    whose="workflow",
                ) from error
