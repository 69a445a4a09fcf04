"""What is said when a command can't do what it was asked: what, whose, what to do.

This module refuses to guess: an exception that is not known here is a fault of stepwell, and keeps
its traceback.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Sequence
from typing import cast

import click

from stepwell.cli import output
from stepwell.cli.options import Exit, settings
from stepwell.errors import (
    ContextSerdeError,
    ContextStateError,
    LeaseLost,
    NoPendingQuestion,
    RunNotFound,
    StepwellError,
    StoreError,
    StoreUnavailable,
    Whose,
    WorkflowConfigurationError,
    WorkflowRuntimeError,
    WorkflowStepDoesNotExistError,
    WorkflowValidationError,
)

_FAULT = {
    "user": "what was asked for",
    "workflow": "the workflow's code",
    "operator": "the store, or the machine it is on",
    "stepwell": "stepwell itself; please report it",
}


class CommandError(StepwellError):
    """A command can't be done as asked.

    Args:
        message: what happened.
        hint: what to do.
        whose: who can put it right.
        exit: what the process is to end with.
    """

    code = "command_refused"
    whose = "user"

    def __init__(
        self, message: str, *, hint: str = "", whose: str = "user", exit: Exit = Exit.USAGE
    ) -> None:
        super().__init__(message, hint=hint)
        self.whose = cast("Whose", whose)
        self.exit = exit


class NoStore(StoreUnavailable):
    """There is nothing at the place that the store's URL names."""

    code = "no_store"
    hint = (
        "Give its URL with --store or STEPWELL_STORE. `stepwell run --store`, `stepwell worker` "
        "and `stepwell db migrate` make one."
    )


_USAGE = (
    WorkflowValidationError,
    WorkflowConfigurationError,
    WorkflowRuntimeError,
    WorkflowStepDoesNotExistError,
    ContextSerdeError,
    ContextStateError,
)


def exit_code(error: BaseException) -> Exit | None:
    """What the process ends with because of `error`; None: a fault of stepwell's own."""
    match error:
        case CommandError():
            return error.exit
        case RunNotFound() | NoPendingQuestion():
            return Exit.NOT_FOUND
        case StoreError() | LeaseLost():
            return Exit.STORE
        case StepwellError():
            return Exit.USAGE
        case _ if isinstance(error, _USAGE):
            return Exit.USAGE
        case _:
            return None


def report(error: BaseException) -> Exit | None:
    """Say on standard error what went wrong; returns what to end with. Says nothing, and returns
    None, when the error is not one that a user can do something about."""
    code = exit_code(error)
    if code is None:
        return None
    message = error.message if isinstance(error, StepwellError) else str(error)
    whose = str(getattr(error, "whose", "user"))
    hint = str(getattr(error, "hint", ""))
    if settings().debug:
        traceback.print_exception(error)
    name = str(getattr(error, "code", "error"))
    _say(name, message, whose, hint, code, settings().json)
    return code


def misunderstood(error: click.ClickException, given: Sequence[str]) -> Exit:
    """Say on standard error why what was typed was not understood; returns what to end with."""
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    if ctx is None:
        word = next((f" {word}" for word in given if not word.startswith("-")), "")
        hint = f"`stepwell{word} --help` says more."
    else:
        usage = " ".join(ctx.get_usage().split())
        hint = f"{usage}\n`{ctx.command_path} --help` says more."
    _say("usage", error.format_message(), "user", hint, Exit.USAGE, "--json" in given)
    return Exit.USAGE


def _say(name: str, message: str, whose: str, hint: str, code: Exit, as_json: bool) -> None:
    console = output.stderr()
    if as_json:
        said = {"code": name, "message": message, "whose": whose, "hint": hint, "exit": int(code)}
        console.file.write(json.dumps({"error": said}, ensure_ascii=False) + "\n")
        return
    output.facts(
        console, [("error", message), ("fault", _FAULT.get(whose, whose)), ("to do", hint)]
    )
