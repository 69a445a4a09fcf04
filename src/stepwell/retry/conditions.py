"""Conditions: whether an error is worth another attempt. They combine with `&` and `|`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from stepwell.retry.rules import (
    ExceptionTypes,
    RetryCondition,
    Rule,
)


class _Condition(Rule):
    def __call__(self, error: BaseException, /) -> bool:
        raise NotImplementedError

    def __and__(self, other: RetryCondition) -> retry_all:
        return retry_all(self, other) if callable(other) else NotImplemented

    def __rand__(self, other: RetryCondition) -> retry_all:
        return retry_all(other, self) if callable(other) else NotImplemented

    def __or__(self, other: RetryCondition) -> retry_any:
        return retry_any(self, other) if callable(other) else NotImplemented

    def __ror__(self, other: RetryCondition) -> retry_any:
        return retry_any(other, self) if callable(other) else NotImplemented


@dataclass(frozen=True)
class retry_always(_Condition):
    """Retry whatever was raised."""

    def __call__(self, error: BaseException, /) -> bool:
        return True


@dataclass(frozen=True)
class retry_never(_Condition):
    """Retry nothing."""

    def __call__(self, error: BaseException, /) -> bool:
        return False


@dataclass(frozen=True)
class retry_if_exception(_Condition):
    """Retry when `predicate(error)` is true.

    Example:
        >>> retry_if_exception(lambda error: "busy" in str(error))(OSError("busy"))
        True
    """

    predicate: Callable[[BaseException], bool]

    def __call__(self, error: BaseException, /) -> bool:
        return bool(self.predicate(error))


@dataclass(frozen=True)
class _ByType(_Condition):
    exception_types: ExceptionTypes = Exception

    def __post_init__(self) -> None:
        types: object = self.exception_types
        for one in cast("tuple[object, ...]", types) if isinstance(types, tuple) else (types,):
            if not (isinstance(one, type) and issubclass(one, BaseException)):
                raise TypeError(
                    f"{type(self).__name__} takes an exception class or a tuple of them, "
                    f"got {one!r}"
                )


@dataclass(frozen=True)
class retry_if_exception_type(_ByType):
    """Retry when the error is of one of `exception_types` (any Exception unless given).

    Raises TypeError for anything that is not an exception class or a tuple of them.

    Example:
        >>> retry_if_exception_type((OSError, TimeoutError))(ConnectionError())
        True
    """

    def __call__(self, error: BaseException, /) -> bool:
        return isinstance(error, self.exception_types)


@dataclass(frozen=True)
class retry_if_not_exception_type(_ByType):
    """Retry unless the error is of one of `exception_types`.

    Example:
        >>> retry_if_not_exception_type(ValueError)(ValueError())
        False
    """

    def __call__(self, error: BaseException, /) -> bool:
        return not isinstance(error, self.exception_types)


@dataclass(frozen=True)
class retry_unless_exception_type(_ByType):
    """Retry until an error of one of `exception_types` is raised."""

    def __call__(self, error: BaseException, /) -> bool:
        return not isinstance(error, self.exception_types)


@dataclass(frozen=True)
class retry_if_exception_cause_type(_ByType):
    """Retry when one of the error's causes (`raise ... from cause`) is of `exception_types`.

    The error itself does not count, nor does an error that merely happened before it.
    """

    def __call__(self, error: BaseException, /) -> bool:
        seen = {id(error)}
        cause = error.__cause__
        while cause is not None and id(cause) not in seen:
            if isinstance(cause, self.exception_types):
                return True
            seen.add(id(cause))
            cause = cause.__cause__
        return False


@dataclass(frozen=True)
class _ByMessage(_Condition):
    message: str | None = None
    match: str | re.Pattern[str] | None = None

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.message is not None and self.match is not None:
            raise TypeError(f"{name}() takes either 'message' or 'match', not both")
        if self.match is not None:
            re.compile(self.match)  # a bad pattern is reported where it is written
        elif self.message is None:
            raise TypeError(f"{name}() missing 1 required argument 'message' or 'match'")

    def _matches(self, error: BaseException) -> bool:
        if self.match is None:
            return str(error) == self.message
        return re.search(self.match, str(error)) is not None


@dataclass(frozen=True)
class retry_if_exception_message(_ByMessage):
    """Retry when `str(error)` equals `message`, or `match` is found anywhere in it.

    Raises TypeError unless exactly one of the two is given, `re.error` for a bad pattern.

    Example:
        >>> retry_if_exception_message(match="rate limit")(OSError("hit the rate limit"))
        True
    """

    def __call__(self, error: BaseException, /) -> bool:
        return self._matches(error)


@dataclass(frozen=True)
class retry_if_not_exception_message(_ByMessage):
    """Retry unless `str(error)` equals `message`, or `match` is found anywhere in it."""

    def __call__(self, error: BaseException, /) -> bool:
        return not self._matches(error)


@dataclass(frozen=True, init=False)
class retry_any(_Condition):
    """Retry when at least one of the conditions says so (`a | b`); with none, never.

    Example:
        >>> retry_any(retry_never(), retry_always())(ValueError())
        True
    """

    retries: tuple[RetryCondition, ...]

    def __init__(self, *retries: RetryCondition) -> None:
        object.__setattr__(self, "retries", retries)

    def __call__(self, error: BaseException, /) -> bool:
        return any(retry(error) for retry in self.retries)


@dataclass(frozen=True, init=False)
class retry_all(_Condition):
    """Retry when all of the conditions say so (`a & b`); with none, always.

    Example:
        >>> (retry_if_exception_type(OSError) & retry_if_exception_message("busy"))(OSError("busy"))
        True
    """

    retries: tuple[RetryCondition, ...]

    def __init__(self, *retries: RetryCondition) -> None:
        object.__setattr__(self, "retries", retries)

    def __call__(self, error: BaseException, /) -> bool:
        return all(retry(error) for retry in self.retries)
