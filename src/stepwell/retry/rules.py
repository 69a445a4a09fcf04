"""What rules of all kinds have in common: their shapes, and how one is described as data."""

from __future__ import annotations

import math
import random
import re
from dataclasses import fields, is_dataclass
from datetime import timedelta
from typing import Protocol, cast

Duration = int | float | timedelta
"""A length of time: a number of seconds, or a timedelta."""

ExceptionTypes = type[BaseException] | tuple[type[BaseException], ...]


# --- the shapes ------------------------------------------------------------------------------


class RetryCondition(Protocol):
    """Whether an error is worth another attempt."""

    def __call__(self, error: BaseException, /) -> bool: ...


class WaitStrategy(Protocol):
    """Seconds to wait; `attempts` counts the retries already made (0 before the first)."""

    def __call__(self, attempts: int, /, *, seed: int | None = None) -> float: ...


class StopCondition(Protocol):
    """Whether it has been enough; `upcoming_sleep` is the wait that a retry would cost."""

    def __call__(
        self, attempts: int, elapsed_time: float, /, *, upcoming_sleep: float = 0.0
    ) -> bool: ...


# --- shared by all rules ---------------------------------------------------------------------


def uniform(low: float, high: float, seed: int | None) -> float:
    return random.Random(seed).uniform(low, high)  # noqa: S311 - spreads load, keeps no secret


def backoff(first: float, base: float, retries: int) -> float:
    """`first * base**retries`; infinite where that is more than a float can hold."""
    if first == 0:
        return 0.0
    try:
        return first * base**retries
    except OverflowError:
        return math.copysign(math.inf, first)


def plain(value: object) -> object:
    """A rule or one of its fields as JSON data; infinity becomes null (no limit)."""
    match value:
        case Rule():
            return value.describe()
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case timedelta():
            return value.total_seconds()
        case re.Pattern():
            pattern = cast("re.Pattern[str]", value)
            return {"pattern": pattern.pattern, "flags": pattern.flags}
        case tuple():
            return [plain(item) for item in cast("tuple[object, ...]", value)]
        case type():
            return f"{value.__module__}.{value.__qualname__}"
        case _:
            # A function or object of the user's: its name is all that is known of it as data.
            named = value if hasattr(value, "__qualname__") else type(value)
            name = f"{getattr(named, '__module__', None)}.{getattr(named, '__qualname__', None)}"
            return {"kind": "custom", "name": name}


class Rule:
    """What conditions, waits, stops and policies have in common: they can be described."""

    def describe(self) -> dict[str, object]:
        """The rule as JSON data: its `kind` and its settings, durations in seconds."""
        described: dict[str, object] = {"kind": type(self).__name__}
        if is_dataclass(self):
            described |= {field.name: plain(getattr(self, field.name)) for field in fields(self)}
        return described
