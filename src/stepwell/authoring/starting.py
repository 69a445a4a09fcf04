"""Which fields of a start would be dropped, whatever the workflow is written as.

A Context and the data of a pipeline are models, and pydantic's models leave out what they do not
declare. That is as it should be within a program; who starts a run from outside, by a request or on
a command line, has most probably misspelt a name, and is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from stepwell.authoring.machine import decorators
from stepwell.authoring.machine.context import declared, not_declared, unexpected
from stepwell.authoring.machine.define import Machine
from stepwell.authoring.pipeline.build import PipelineBase
from stepwell.authoring.program import Program


def made_of_fields(machine: Machine) -> bool:
    """Whether the Context is made by this library, of the fields that a run is started with."""
    create: object = getattr(machine.cls, "create_context", None)
    return getattr(create, "__module__", "") == decorators.__name__


def takes_no_other(kind: type[BaseModel], properties: Mapping[str, Any]) -> bool:
    """Whether a schema with these properties may say that there are no others. Of a field that has
    several names a schema has but one."""
    return "extra" not in kind.model_config and set(properties) == set(declared(kind))


def dropped(program: Program, fields: Mapping[str, Any]) -> list[str]:
    """A sentence for each field that a start with these would drop, although nobody said that it
    may: a model with `extra="ignore"` says so."""
    match program.source:
        case PipelineBase(model=kind) if kind is not None:
            whose = f"the ctx of {program.definition.name}"
        case Machine(context=kind) as machine if made_of_fields(machine):
            whose = f"the Context of {program.definition.name}"
        case _:
            return []
    return not_declared(unexpected(kind, fields), kind, whose)
