"""Takes the annotations of any function apart: names, aliases, metadata, unions.

The theory: an annotation may be written now and mean something only later. It may be a string
(`from __future__ import annotations`), and the classes it names may live in a function that is
just running. So names are looked up where a reader of the source would look: in the scopes that
enclose the function, in its module, and last at the place where it is decorated. Scopes are
recognised by the qualified name of the function, so that a caller's local variable which
happens to have the same name as an event is not mistaken for it.

This module refuses to know what events and steps are. It never imports a name.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from types import FrameType, NoneType, UnionType
from typing import Annotated, Any, Union, cast

from typing_extensions import TypeAliasType

from stepwell.errors import WorkflowValidationError

__all__ = ["names_around", "plain", "present_members", "resolve", "union_members"]

# Where Python has `type X = ...`, typing_extensions may still have a class of its own.
_ALIASES: tuple[type[Any], ...] = (TypeAliasType, getattr(typing, "TypeAliasType", TypeAliasType))


def plain(annotation: object) -> tuple[object, tuple[object, ...]]:
    """Take `Annotated` and `type` aliases off.

    Returns:
        What is inside, and all the metadata found on the way, outermost first.

    Example:
        >>> plain(Annotated[int, "seconds"])
        (<class 'int'>, ('seconds',))
    """
    metadata: tuple[object, ...] = ()
    while True:
        if isinstance(annotation, _ALIASES):
            annotation = cast(TypeAliasType, annotation).__value__
        elif typing.get_origin(annotation) is Annotated:
            annotation, *found = typing.get_args(annotation)
            metadata = (*metadata, *found)
        else:
            return annotation, metadata


def union_members(annotation: object) -> tuple[object, ...]:
    """List the members of a union, nested ones too, without repeats; else the annotation alone.

    Example:
        >>> union_members(int | Annotated[str | None, "name"])
        (<class 'int'>, <class 'str'>, <class 'NoneType'>)
    """
    annotation, _ = plain(annotation)
    if typing.get_origin(annotation) not in (Union, UnionType):
        return (annotation,)
    members = (m for arg in typing.get_args(annotation) for m in union_members(arg))
    return tuple(dict.fromkeys(members))


def present_members(annotation: object) -> tuple[object, ...]:
    """List the members of a union without None."""
    return tuple(m for m in union_members(annotation) if m is not NoneType and m is not None)


# --- resolving names -----------------------------------------------------------------------------


def names_around(
    func: Callable[..., object], frame: FrameType | None
) -> tuple[dict[str, object], ...]:
    """Collect the names by which annotations of `func` may be spelled besides its globals.

    Args:
        func: the function whose annotations will be resolved.
        frame: where it is being decorated; the frames that called it are looked at too.

    Returns:
        Two mappings: the names of the scopes that enclose the function in the source, which come
        before its module's names; and those of the place of decoration, which come after.
    """
    qualname, module = func.__qualname__, getattr(func, "__globals__", None)
    enclosing: dict[str, object] = {}
    fallback: dict[str, object] = {}
    while frame is not None:
        code = frame.f_code
        if code.co_name != "<module>" and frame.f_globals is module:
            scope = frame.f_locals
            if qualname.startswith((f"{code.co_qualname}.<locals>.", f"{code.co_qualname}.")):
                enclosing = {**scope, **enclosing}
            fallback = {**scope, **fallback}
        frame = frame.f_back
    return enclosing, fallback


def resolve(
    func: Callable[..., object], scopes: Sequence[Mapping[str, object]]
) -> dict[str, object]:
    """Evaluate all annotations of a function, with their metadata.

    Args:
        func: the function.
        scopes: what `names_around` returned for it.

    Returns:
        Parameter name, or "return", to the annotation.

    Raises:
        WorkflowValidationError: a name is not known, or an annotation makes no sense.
    """
    module: dict[str, object] = getattr(inspect.unwrap(func), "__globals__", {})
    wider = {**scopes[1], **module, **scopes[0]}
    try:
        try:
            return typing.get_type_hints(func, None, dict(scopes[0]), include_extras=True)
        except NameError:
            return typing.get_type_hints(func, None, wider, include_extras=True)
    except NameError as error:
        raise WorkflowValidationError(
            f"Failed to resolve type annotations for {func.__qualname__}. "
            f"Missing name: {error.name}. A name in an annotation must be known in the module of "
            "the step or in a scope around it at the moment the step is decorated."
        ) from error
    except (AttributeError, TypeError, SyntaxError) as error:
        raise WorkflowValidationError(
            f"Failed to resolve type annotations for {func.__qualname__}: {error}"
        ) from error
