"""From `module:Workflow`, typed by a person, to instances of workflows.

This is the one place of stepwell that imports a module by its name, and the name is never data: it
is what the user typed on the command line, as in `python -m module`.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Iterable
from importlib.util import find_spec
from inspect import signature
from types import ModuleType
from typing import cast

from stepwell.authoring.machine.define import Machine
from stepwell.authoring.machine.subflows import subflows
from stepwell.cli.errors import CommandError
from stepwell.cli.output import fact, stderr
from stepwell.errors import WorkflowConfigurationError, WorkflowValidationError
from stepwell.runtime.engine import Startable


def load_one(target: str) -> Startable:
    """The workflow that `module:Workflow` names. A module with just one may stand alone.

    Raises `CommandError` when it is not there, can't be imported, or is none.
    """
    found = load(target)
    if len(found) == 1:
        return found[0]
    names = ", ".join(_names(module_named(target.partition(":")[0])))
    raise CommandError(
        f"module {target!r} has several workflows: {names}",
        hint=f"Say which: {target}:{names.partition(',')[0]}",
    )


def load_all(targets: Iterable[str]) -> list[Startable]:
    """The workflows of all `targets`, each once, and the subflows that state machines run: who
    goes on with a run has to know its children."""
    found: list[Startable] = []
    names: set[str] = set()
    for target in targets:
        for workflow in load(target):
            inner = subflows(workflow) if isinstance(workflow, Machine) else ()
            for one in (workflow, *inner):
                name = one.compiled().definition.name
                if name not in names:
                    names.add(name)
                    found.append(one)
    return found


def load(target: str) -> list[Startable]:
    """The workflows that `module` or `module:Workflow` names; see `load_one`."""
    name, colon, attribute = target.partition(":")
    if not name or (colon and not attribute) or name.endswith(".py") or os.sep in name:
        raise CommandError(
            f"{target!r} does not name a module",
            hint=f"Write module:Workflow, for example {_likely(name, attribute)}.",
        )
    module = module_named(name)
    if not colon:
        return _of_module(module)
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            names = _names(module)
            raise CommandError(
                f"module {name!r} has no {attribute!r}",
                hint=f"It has {', '.join(names)}." if names else "It has no workflow.",
            )
        found = getattr(found, part)
    return [_instance(found, f"{name}:{attribute}")]


def is_module(name: str) -> bool:
    """Whether there is a module of this name; imports at most the packages that it is in."""
    _look_here()
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _look_here() -> None:
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def _likely(name: str, attribute: str) -> str:
    module = name.removesuffix(".py").strip("./").replace(os.sep, ".")
    return f"{module or 'flow'}:{attribute or 'MyWorkflow'}"


def module_named(name: str) -> ModuleType:
    """The module that was typed. Raises `CommandError`, which says why it can't be imported."""
    _look_here()
    try:
        # The name is what the user typed on the command line: see the module's text.
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = str(error.name or "")
        if name == missing or name.startswith(f"{missing}."):
            module, dot, workflow = name.rpartition(".")
            raise CommandError(
                f"there is no module {name!r}",
                hint=f"Name the module, not its file: {name.removesuffix('.py')}"
                if name.endswith(".py")
                else f"If {workflow} is the workflow, write {module}:{workflow}."
                if dot and workflow[:1].isupper()
                else "It is looked for in the current directory and in the Python environment: "
                f"{os.getcwd()}, {sys.prefix}.",
            ) from error
        raise _broken(name, error) from error
    except Exception as error:
        raise _broken(name, error) from error
    except SystemExit as error:
        raise CommandError(
            f"importing {name!r} ended the process with {error.code!r}",
            hint='Guard what is a script in it with `if __name__ == "__main__":`.',
            whose="workflow",
        ) from error


def _broken(name: str, error: Exception) -> CommandError:
    if isinstance(error, SyntaxError):
        place = f"{error.filename}:{error.lineno}"
    else:
        frames = [
            f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename
        ]
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else name
    return CommandError(
        f"importing {name!r} failed at {place}: {type(error).__name__}: {error}",
        hint="Put it right; --debug shows the traceback.",
        whose="workflow",
    )


def _machine(value: object) -> Machine | None:
    """What is known of a class that is a state machine."""
    found = value.__dict__.get("__stepwell__") if isinstance(value, type) else None
    return found if isinstance(found, Machine) else None


def _is_workflow(value: object) -> bool:
    return callable(getattr(value, "compiled", None)) or _machine(value) is not None


def _names(module: ModuleType) -> list[str]:
    """What in the module is a workflow of its own, classes and instances."""
    return [
        name
        for name, value in vars(module).items()
        if _is_workflow(value)
        and not name.startswith("_")
        and (not isinstance(value, type) or value.__module__ == module.__name__)
    ]


def _of_module(module: ModuleType) -> list[Startable]:
    """The workflows of a module. An instance stands for its class; a class that has no steps is a
    base of others. What can't be made without arguments is left out, with a word."""
    values = {name: getattr(module, name) for name in _names(module)}
    made: set[type] = {type(value) for value in values.values() if not isinstance(value, type)}
    found: list[Startable] = []
    left_out: list[CommandError] = []
    for name, value in values.items():
        if isinstance(value, type) and value in made:
            continue
        try:
            found.append(_instance(value, f"{module.__name__}:{name}"))
        except CommandError as error:
            needs = isinstance(error, _NeedsArguments)
            if not needs and not isinstance(error.__cause__, WorkflowConfigurationError):
                raise
            left_out.append(error)
    if not found:
        raise CommandError(
            f"module {module.__name__!r} has no workflow"
            + "".join(f"; {error.message}" for error in left_out),
            hint=left_out[0].hint
            if left_out
            else "Define a subclass of stepwell.Workflow or a class with @workflow in it, or name "
            "the module that does.",
        )
    for error in left_out:
        fact(stderr(), "left out", error.message, 8)
    return found


def _instance(value: object, target: str) -> Startable:
    if not _is_workflow(value):
        raise CommandError(
            f"{target} is {type(value).__name__} {value!r:.60}, not a workflow",
            hint="Name a workflow class or an instance of one.",
        )
    try:
        machine = _machine(value)
        if machine is not None:
            return machine
        made = cast(Startable, _made(value, target) if isinstance(value, type) else value)
        validate = getattr(made, "validate", None)
        if callable(validate):
            validate()
        made.compiled()
    except (WorkflowConfigurationError, WorkflowValidationError) as error:
        raise CommandError(
            f"{target} is not valid: {error}", hint="Put the workflow right.", whose="workflow"
        ) from error
    return made


class _NeedsArguments(CommandError):
    """A workflow class that only its author can make an instance of."""


def _made(cls: type, target: str) -> object:
    try:
        signature(cls).bind()
    except TypeError as error:
        raise _NeedsArguments(
            f"{target} can't be made without arguments: {error}",
            hint="Make an instance in the module, and name that: flow = MyWorkflow(...), "
            "then module:flow.",
            whose="workflow",
        ) from error
    try:
        return cls()
    except (WorkflowConfigurationError, WorkflowValidationError):
        raise
    except Exception as error:
        raise CommandError(
            f"making {target} failed: {type(error).__name__}: {error}",
            hint="Put it right; --debug shows the traceback.",
            whose="workflow",
        ) from error
