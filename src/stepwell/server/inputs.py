"""What a workflow can be started with, whatever it is written as: its schema, and what is wrong.

A workflow that is served says what it takes by its start event, its Context or its `ctx`. Where a
style is only found out while a run is at work, it is asked here before there is one.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from stepwell.authoring.machine.define import Machine
from stepwell.authoring.pipeline.build import PipelineBase
from stepwell.authoring.program import Program
from stepwell.authoring.starting import dropped, made_of_fields, takes_no_other
from stepwell.errors import StepwellError, WorkflowRuntimeError
from stepwell.runtime.engine import Engine
from stepwell.runtime.machine.signals import check_payload
from stepwell.runtime.views import RunInfo
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


def _closed(kind: type[BaseModel]) -> Schema:
    """That of a model whose other fields are refused, and which says so."""
    schema = _of_class(kind)
    if takes_no_other(kind, schema.get("properties", {})):
        schema["additionalProperties"] = False
    return schema


def _of_pipeline(pipeline: PipelineBase) -> Schema:
    """Its own data, which whoever starts a run may replace, field by field."""
    schema = dict(ANYTHING) if pipeline.model is None else _closed(pipeline.model)
    schema.pop("required", None)
    # The names of its data; what the values are is nobody's business.
    named: dict[str, Schema] = {name: {} for name in pipeline.initial}
    return {**schema, "properties": {**named, **schema.get("properties", {})}}


def _of_machine(machine: Machine) -> Schema:
    """The fields of its Context, or what its own `create_context` takes."""
    create = cast("Callable[..., object]", getattr(machine.cls, "create_context"))  # noqa: B009
    if made_of_fields(machine):
        return _closed(machine.context)
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
    """Look at what only a run would look at, and for what it would drop. Raises `Problem`."""
    source = program.source
    if isinstance(source, PipelineBase):
        try:
            source.beginning(fields)
        except ValueError as error:
            raise refused(name, error) from error
    faults = dropped(program, fields)
    if faults:
        raise _refusal(name, faults)


def check_edit(engine: Engine, info: RunInfo, fields: Mapping[str, Any]) -> None:
    """Look at what a copy of a run is to begin with, for what it would drop. Raises `Problem`."""
    program = engine.workflows.get(info.workflow)
    faults = [] if program is None else dropped(program, fields)
    if faults:
        raise Problem(422, "bad_input", faults[0], errors=faults)


def bad_edit(error: ValueError) -> Problem:
    """Why a copy of a run can't go on with what was sent."""
    if isinstance(error, StepwellError):
        return Problem(422, "bad_input", error.message, hint=error.hint)
    faults = _faults(error)
    return Problem(422, "bad_input", faults[0], errors=faults)


async def check_signal(
    engine: Engine, infos: Sequence[RunInfo], name: str, payload: Mapping[str, Any]
) -> None:
    """Look at what is sent to these runs, as far as they are of state machines: whether it fits
    their Contexts, and for what all of them would drop. Raises `Problem`."""
    programs = [engine.workflows.get(info.workflow) for info in infos]
    ids = [
        info.id
        for info, program in zip(infos, programs, strict=True)
        if program is None or machine_of(program) is not None
    ]
    try:
        await check_payload(engine, ids, name, payload, strict=len(ids) == len(infos))
    except ValueError as error:
        raise bad_signal(error) from error


def bad_signal(error: Exception) -> Problem:
    """Why an event can't be sent."""
    said = error.message if isinstance(error, StepwellError) else str(error)
    return Problem(422, "bad_signal", said, hint=str(getattr(error, "hint", "")))


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
    return _refusal(name, _faults(error))


def _refusal(name: str, faults: list[str]) -> Problem:
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
