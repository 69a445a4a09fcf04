"""What a workflow can be started with, whatever it is written as: its schema, and what is wrong.

A workflow that is served says what it takes by its start event, its Context or its `ctx`. Where a
style is only found out while a run is at work, it is asked here before there is one.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from stepwell.authoring.machine import decorators
from stepwell.authoring.machine.define import Machine
from stepwell.authoring.pipeline.build import PipelineBase
from stepwell.authoring.program import Program
from stepwell.errors import StepwellError, WorkflowRuntimeError
from stepwell.server.problems import Problem

Schema = dict[str, Any]

ANYTHING: Schema = {"type": "object"}


def machine_of(program: Program) -> Machine | None:
    """The state machine that a program was made of, if it was."""
    return program.source if isinstance(program.source, Machine) else None


# --- what it takes -------------------------------------------------------------------------------


def input_schema(program: Program) -> Schema:
    """The JSON Schema of what a workflow can be started with."""
    if isinstance(program.source, PipelineBase):
        return _of_pipeline(program.source)
    if isinstance(program.source, Machine):
        return _of_machine(program.source)
    return _of_class(program.types.classes.get(program.definition.start))


def _of_class(kind: type | None) -> Schema:
    if kind is None or not issubclass(kind, BaseModel):
        return dict(ANYTHING)
    try:
        schema = kind.model_json_schema()
        json.dumps(schema, allow_nan=False)
    except Exception:  # a field, or a default, that JSON has no word for
        return dict(ANYTHING)
    return schema


def _of_pipeline(pipeline: PipelineBase) -> Schema:
    """Its own data, which whoever starts a run may replace, field by field."""
    schema = dict(ANYTHING) if pipeline.model is None else _of_class(pipeline.model)
    schema.pop("required", None)
    # The names of its data; what the values are is nobody's business.
    named: dict[str, Schema] = {name: {} for name in pipeline.initial}
    return {**schema, "properties": {**named, **schema.get("properties", {})}}


def _of_machine(machine: Machine) -> Schema:
    """The fields of its Context, or what its own `create_context` takes."""
    create = cast("Callable[..., object]", getattr(machine.cls, "create_context"))  # noqa: B009
    if getattr(create, "__module__", "") == decorators.__name__:
        return _of_class(machine.context)
    try:
        taken = inspect.signature(create, eval_str=True).parameters.values()
    except (NameError, TypeError, ValueError):
        return dict(ANYTHING)
    fields: dict[str, Any] = {}
    more = False
    for one in taken:
        more = more or one.kind is one.VAR_KEYWORD
        if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
            hint = Any if one.annotation is one.empty else one.annotation
            fields[one.name] = (hint, ... if one.default is one.empty else one.default)
    config = ConfigDict(extra="allow" if more else "forbid", arbitrary_types_allowed=True)
    try:
        return _of_class(create_model(machine.name, __config__=config, **fields))
    except Exception:  # a name or a hint that pydantic takes for something else
        return dict(ANYTHING)


# --- what is wrong -------------------------------------------------------------------------------


def check(name: str, program: Program, fields: Mapping[str, Any]) -> None:
    """Look at what only a run would look at. Raises `Problem`."""
    if isinstance(program.source, PipelineBase):
        try:
            program.source.beginning(fields)
        except ValueError as error:
            raise refused(name, error) from error


def refusal(
    name: str, program: Program, fields: Mapping[str, Any], error: Exception
) -> Problem | None:
    """What a start that failed with this error is answered with, if it was for these fields; None
    when something else went wrong. A user's own code may look at them, and raise anything."""
    if isinstance(error, StepwellError) and not isinstance(error, WorkflowRuntimeError):
        return None
    try:
        program.start(fields)
    except Exception as again:
        return refused(name, again)
    return refused(name, error) if isinstance(error, WorkflowRuntimeError) else None


def refused(name: str, error: Exception) -> Problem:
    """Why a workflow can't be started with what was sent."""
    faults = _faults(error)
    return Problem(
        422, "bad_input", f"{name} can't be started with this: {faults[0]}", errors=faults
    )


def _faults(error: Exception) -> list[str]:
    cause = error if error.__cause__ is None else error.__cause__
    if isinstance(cause, ValidationError):
        rows = [(".".join(map(str, e["loc"])), e["msg"]) for e in cause.errors()]
        return [f"{where}: {said}" if where else said for where, said in rows]
    kind = type(cause).__name__
    return [f"{kind}: {cause}" if str(cause) else kind]
