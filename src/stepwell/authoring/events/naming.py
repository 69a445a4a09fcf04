"""Names of classes in data: how they are written, and what they may stand for when read.

The rule: **data never chooses code**. A name found in data is looked up among the classes the
reader was given, and nowhere else; no module is imported. The reader gives them as the
validation context of pydantic (`{"types": {name: class}, "exceptions": {name: class}}`), or for
all that is read within a block with `known_types(...)`. The exceptions of Python itself and the
plain ones of `stepwell.errors` are always known. An exception whose class is not known comes
back as `UnreconstructedException`, because a lost class must not make a failure unreadable.

This module refuses to know any event or state.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
from collections.abc import Generator, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Literal, TypeAlias, cast

from stepwell import errors

_Names: TypeAlias = Mapping[str, Mapping[str, type[Any]]]
_NO_NAMES: Mapping[str, type[Any]] = {}
_known: ContextVar[_Names | None] = ContextVar("stepwell_known_types", default=None)


@contextlib.contextmanager
def known_types(
    types: Mapping[str, type[Any]] | None = None,
    exceptions: Mapping[str, type[Exception]] | None = None,
) -> Generator[dict[str, Any]]:
    """Name the classes that data read within the block may name.

    A validation context given to pydantic directly goes first. The block yields such a context.

    Args:
        types: classes of events and models by qualified name.
        exceptions: classes of exceptions by qualified name.

    Example:
        >>> class Mine(Exception): ...
        >>> with known_types(exceptions={"app.Mine": Mine}):
        ...     load_exception({"exception_type": "app.Mine", "exception_message": "no"})
        Mine('no')
    """
    names: dict[str, Any] = {"types": types or {}, "exceptions": exceptions or {}}
    token = _known.set(names)
    try:
        yield names
    finally:
        _known.reset(token)


def qualified_name(cls: type[object]) -> str:
    """Return the name under which a class is written in data: module, dot, name.

    Classes of this package are named by their public module, which outlives moves inside.

    Example:
        >>> qualified_name(KeyError)
        'builtins.KeyError'
    """
    return f"{_PUBLIC.get(cls.__module__, cls.__module__)}.{cls.__qualname__}"


_PUBLIC = {
    "stepwell.authoring.events.model": "stepwell.events",
    "stepwell.authoring.events.dictlike": "stepwell.events",
    "stepwell.authoring.events.naming": "stepwell.events",
    "stepwell.authoring.events.state_data": "stepwell.context.state_store",
}


def names_of(
    kind: Literal["types", "exceptions"], context: object = None
) -> Iterator[Mapping[str, type[Any]]]:
    """Return the tables to look a name up in: of this validation context, then of the block."""
    for names in (context, _known.get()):
        if isinstance(names, Mapping):
            yield cast("_Names", names).get(kind, _NO_NAMES)


class UnreconstructedException(Exception):
    """Stands for an exception that was written as data and whose class is not known here.

    Args:
        message: the message it had.
        original_type: qualified name of its class.
    """

    __module__ = "stepwell.events"  # where it is imported from

    def __init__(self, message: str, *, original_type: str | None = None) -> None:
        super().__init__(message)
        self.original_type = original_type


_PLAIN_ERRORS = (
    errors.WorkflowValidationError,
    errors.WorkflowTimeoutError,
    errors.WorkflowRuntimeError,
    errors.WorkflowDone,
    errors.WorkflowCancelledByUser,
    errors.WorkflowStepDoesNotExistError,
    errors.WorkflowConfigurationError,
    errors.ContextSerdeError,
    errors.ContextStateError,
)
_EXCEPTIONS: dict[str, type[Exception]] = {
    f"{cls.__module__}.{cls.__qualname__}": cls
    for cls in (*vars(builtins).values(), *_PLAIN_ERRORS)
    if isinstance(cls, type) and issubclass(cls, Exception)
}


def dump_exception(error: BaseException) -> dict[str, str]:
    """Write an exception as data: the name of its class and its message.

    Example:
        >>> dump_exception(KeyError("zz"))
        {'exception_type': 'builtins.KeyError', 'exception_message': "'zz'"}
    """
    original = error.original_type if isinstance(error, UnreconstructedException) else None
    return {
        "exception_type": original or qualified_name(type(error)),
        "exception_message": str(error),
    }


def load_exception(
    value: Mapping[str, Any], known: Mapping[str, type[Exception]] | None = None
) -> Exception:
    """Build an exception from what `dump_exception` wrote, importing nothing.

    Args:
        value: the name of the class and the message.
        known: classes by qualified name, beside Python's own and those of `known_types`.

    Returns:
        An exception of that class, or `UnreconstructedException` when the class is not known or
        cannot be made from a message alone.
    """
    name, message = str(value.get("exception_type")), str(value.get("exception_message", ""))
    for names in (known or {}, *names_of("exceptions"), _EXCEPTIONS):
        cls = names.get(name)
        if cls is not None and issubclass(cls, Exception):
            argument: object = message
            if cls is KeyError:  # whose message is the repr of its key
                with contextlib.suppress(ValueError, SyntaxError):
                    argument = ast.literal_eval(message)
            try:
                return cls(argument)
            except TypeError:  # it wants other arguments than a message
                break
    return UnreconstructedException(message, original_type=name)
