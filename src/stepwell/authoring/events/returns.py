"""Reads a return annotation: what a step may emit, and in which shapes.

The theory: the members of the annotated union are independent promises. A class may be returned
bare, `list[...]` opens a stream of its members, each member of `tuple[...]` is emitted, None
emits nothing. Which of the named classes are events that someone takes is not asked here: a
class that nobody takes is found when the workflow is looked at as a whole.

This module refuses to know parameters and steps.
"""

from __future__ import annotations

import typing
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Never, NoReturn

from stepwell.authoring.events.annotations import present_members, union_members
from stepwell.errors import WorkflowValidationError

__all__ = ["NO_ASYNC_ITERATORS", "Returns", "read_returns"]

_ASYNC_ITERATORS: tuple[object, ...] = (AsyncIterator, AsyncIterable, AsyncGenerator)

NO_ASYNC_ITERATORS = (
    "Async-iterator fan-out (AsyncIterator[E] / AsyncGenerator[E, None] / async generator steps) "
    "is not supported. Return list[E] for a static collection, or emit incrementally with "
    "ctx.send_event."
)


@dataclass(slots=True)
class Returns:
    """What a step may return; the dictionaries are ordered sets.

    Attributes:
        types: all of it, `NoneType` too.
        lists: members of returned lists.
        bare: classes returned as a single value.
        none: None may be returned.
        tuples: members of returned tuples.
        tuple: a tuple may be returned, be it empty.
    """

    types: dict[type[Any], None]
    lists: dict[type[Any], None]
    bare: dict[type[Any], None]
    none: bool = False
    tuples: dict[type[Any], None] = field(default_factory=dict[type[Any], None])
    tuple: bool = False


def _emitted_class(member: object, step: str) -> type[Any]:
    # A generic alias stands for its class: whether that may be emitted is the workflow's business.
    cls = typing.get_origin(member) or member
    if not isinstance(cls, type) or (cls in (list, tuple) and member is not cls):
        raise WorkflowValidationError(
            f"Step '{step}' has a return annotation that names no event class: {member!r}."
        )
    return cls


def _returned_members(arguments: Sequence[object], step: str) -> Iterator[type[Any]]:
    for argument in arguments:
        for member in present_members(argument):
            if member is not Ellipsis:
                yield _emitted_class(member, step)


def read_returns(annotation: object, step: str) -> Returns:
    """Read a return annotation.

    Args:
        annotation: as resolved.
        step: name of the step, for messages.

    Raises:
        WorkflowValidationError: it is an async iterator, or names something that is no class.

    Example:
        >>> found = read_returns(list[int] | None, "s")
        >>> list(found.lists), found.none
        ([<class 'int'>], True)
    """
    found = Returns({}, {}, {})
    for member in union_members(annotation):
        origin, args = typing.get_origin(member), typing.get_args(member)
        if member is NoneType or member is None:
            found.none = True
            found.types[NoneType] = None
        elif member is Never or member is NoReturn:
            continue  # a step that always raises emits nothing
        elif origin in _ASYNC_ITERATORS or member in _ASYNC_ITERATORS:
            raise WorkflowValidationError(NO_ASYNC_ITERATORS)
        elif origin is list:
            found.lists.update(dict.fromkeys(_returned_members(args, step)))
            found.types.update(found.lists)
        elif origin is tuple:
            found.tuple = True
            found.tuples.update(dict.fromkeys(_returned_members(args, step)))
            found.types.update(found.tuples)
        else:
            found.bare[_emitted_class(member, step)] = None
            found.types.update(found.bare)
    return found
