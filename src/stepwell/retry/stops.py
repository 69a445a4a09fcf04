"""Stops: whether it has been enough. They combine with `&` and `|`."""

from __future__ import annotations

from dataclasses import dataclass

from stepwell.policy import seconds_of
from stepwell.retry.rules import (
    Duration,
    Rule,
    StopCondition,
)


class _Stop(Rule):
    def __call__(
        self, attempts: int, elapsed_time: float, /, *, upcoming_sleep: float = 0.0
    ) -> bool:
        raise NotImplementedError

    def __and__(self, other: StopCondition) -> stop_all:
        return stop_all(self, other) if callable(other) else NotImplemented

    def __rand__(self, other: StopCondition) -> stop_all:
        return stop_all(other, self) if callable(other) else NotImplemented

    def __or__(self, other: StopCondition) -> stop_any:
        return stop_any(self, other) if callable(other) else NotImplemented

    def __ror__(self, other: StopCondition) -> stop_any:
        return stop_any(other, self) if callable(other) else NotImplemented


@dataclass(frozen=True)
class stop_never(_Stop):
    """Never give up."""

    def __call__(
        self, attempts: int, elapsed_time: float, /, *, upcoming_sleep: float = 0.0
    ) -> bool:
        return False


@dataclass(frozen=True)
class stop_after_attempt(_Stop):
    """Give up after this many attempts, the first one included.

    Example:
        >>> stop_after_attempt(3)(3, 0.0)
        True
    """

    max_attempt_number: int

    def __call__(
        self, attempts: int, elapsed_time: float, /, *, upcoming_sleep: float = 0.0
    ) -> bool:
        return attempts >= self.max_attempt_number


@dataclass(frozen=True)
class _ByDelay(_Stop):
    max_delay: Duration

    def __post_init__(self) -> None:
        seconds_of(self.max_delay)


@dataclass(frozen=True)
class stop_after_delay(_ByDelay):
    """Give up when the first attempt began `max_delay` ago or earlier.

    The last attempt may begin later than that, by one wait; see `stop_before_delay`.
    """

    def __call__(
        self, attempts: int, elapsed_time: float, /, *, upcoming_sleep: float = 0.0
    ) -> bool:
        return elapsed_time >= seconds_of(self.max_delay)


@dataclass(frozen=True)
class stop_before_delay(_ByDelay):
    """Give up when the next attempt would begin `max_delay` or more after the first."""

    def __call__(
        self, attempts: int, elapsed_time: float, /, *, upcoming_sleep: float = 0.0
    ) -> bool:
        return elapsed_time + upcoming_sleep >= seconds_of(self.max_delay)


@dataclass(frozen=True, init=False)
class stop_any(_Stop):
    """Give up when at least one of the rules says so (`a | b`); with none, never."""

    stops: tuple[StopCondition, ...]

    def __init__(self, *stops: StopCondition) -> None:
        object.__setattr__(self, "stops", stops)

    def __call__(
        self, attempts: int, elapsed_time: float, /, *, upcoming_sleep: float = 0.0
    ) -> bool:
        return any(
            stop(attempts, elapsed_time, upcoming_sleep=upcoming_sleep) for stop in self.stops
        )


@dataclass(frozen=True, init=False)
class stop_all(_Stop):
    """Give up when all of the rules say so (`a & b`); with none, at once."""

    stops: tuple[StopCondition, ...]

    def __init__(self, *stops: StopCondition) -> None:
        object.__setattr__(self, "stops", stops)

    def __call__(
        self, attempts: int, elapsed_time: float, /, *, upcoming_sleep: float = 0.0
    ) -> bool:
        return all(
            stop(attempts, elapsed_time, upcoming_sleep=upcoming_sleep) for stop in self.stops
        )
