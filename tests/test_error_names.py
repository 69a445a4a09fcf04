"""Errors are named by where users import them: in runs, in journals, in logs."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import pytest
from pydantic import BaseModel

import stepwell
from stepwell import Engine
from stepwell.authoring.program import TypeRegistry
from stepwell.document import Documents
from stepwell.machine import step, workflow
from stepwell.tasks import BUILT_IN, TaskRegistry
from stepwell.values import ErrorInfo

DOORS = [
    f"stepwell.{found.name}"
    for found in pkgutil.iter_modules(stepwell.__path__)
    if found.name not in ("__main__", "authoring", "cli", "demo", "kernel", "server", "stores")
]


def public_errors() -> list[tuple[str, type[BaseException]]]:
    """What the modules that users import from have among their names."""
    found: list[tuple[str, type[BaseException]]] = []
    for door in DOORS:
        module = importlib.import_module(door)
        for name in getattr(module, "__all__", ()):
            kind = getattr(module, name)
            if isinstance(kind, type) and issubclass(kind, BaseException):
                found.append((door, kind))
    return found


def test_a_public_error_says_where_it_is_imported_from() -> None:
    errors = public_errors()
    assert {"TaskFailed", "BrokenRule", "RunNotFound"} <= {kind.__name__ for _, kind in errors}
    for _, kind in errors:
        assert kind.__module__ in DOORS, kind
        assert getattr(importlib.import_module(kind.__module__), kind.__qualname__) is kind


@workflow("named-errors")
class Odd:
    class Context(BaseModel):
        pass

    @step(start=True)
    def begin(self):
        return "nothing that a step may return"


async def test_a_run_shows_these_names() -> None:
    registry = TaskRegistry(BUILT_IN)

    @registry.task("no")
    def no() -> bool:
        return False

    steps = [{"execution_type": "sequential", "tasks": [{"name": "no"}]}]
    document = {"name": "n", "steps": steps}
    async with Engine("memory://", [Documents(registry), Odd]) as engine:

        async def failed(name: str, **fields: Any) -> str:
            handler = await engine.start(name, **fields)
            with pytest.raises(Exception, match=r"failed|may"):
                await handler
            return str(((await engine.get(handler.run_id)).error or {})["type"])

        assert await failed("document", document=document) == "stepwell.tasks.TaskFailed"
        assert await failed("named-errors") == "stepwell.machine.BrokenRule"


def test_what_was_kept_under_another_name_is_read_as_it_was() -> None:
    old = ErrorInfo("stepwell.authoring.tasks.TaskFailed", "task 'x' failed")
    read = TypeRegistry(()).exception(old)
    assert str(read) == "stepwell.authoring.tasks.TaskFailed: task 'x' failed"
