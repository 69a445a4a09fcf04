"""What starts a run: an event of the workflow's start class, made of keyword arguments.

This module refuses to know workflows and runs. It knows a class, and what it can be made of.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from stepwell.errors import WorkflowRuntimeError

T = TypeVar("T")


def make_start_event(cls: type[T], kwargs: Mapping[str, Any]) -> T:
    """The event a run begins with, made of keyword arguments.

    Raises:
        WorkflowRuntimeError: they do not make one.
    """
    try:
        return cls(**kwargs)
    except (ValidationError, TypeError) as error:
        raise WorkflowRuntimeError(
            f"Failed creating a start event of type '{cls.__name__}' with the keyword "
            f"arguments: {kwargs}"
        ) from error


@lru_cache(256)
def start_fields(cls: type) -> frozenset[str]:
    """The names of the fields that a class of start events declares."""
    if issubclass(cls, BaseModel):
        return frozenset(cls.model_fields)
    try:
        return frozenset(inspect.signature(cast("type[object]", cls)).parameters)
    except (TypeError, ValueError):  # a class of C has no signature, and then no field we know of
        return frozenset()
