"""Waits: how many seconds until the next attempt. They add up with `+`."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass

from stepwell.policy import seconds_of
from stepwell.retry.rules import (
    Duration,
    Rule,
    WaitStrategy,
    backoff,
    uniform,
)


class _Wait(Rule):
    def __post_init__(self) -> None:
        if is_dataclass(self):
            for field in fields(self):
                seconds_of(getattr(self, field.name))

    def __call__(self, attempts: int, /, *, seed: int | None = None) -> float:
        raise NotImplementedError

    def __add__(self, other: WaitStrategy) -> wait_combine:
        return wait_combine(self, other) if callable(other) else NotImplemented

    def __radd__(self, other: WaitStrategy | int) -> wait_combine | _Wait:
        if other == 0:  # where sum() starts
            return self
        return wait_combine(other, self) if callable(other) else NotImplemented


@dataclass(frozen=True)
class wait_none(_Wait):
    """Try again at once."""

    def __call__(self, attempts: int, /, *, seed: int | None = None) -> float:
        return 0.0


@dataclass(frozen=True)
class wait_fixed(_Wait):
    """Always wait the same time.

    Example:
        >>> from datetime import timedelta
        >>> wait_fixed(timedelta(minutes=1))(0)
        60.0
    """

    wait: Duration

    def __call__(self, attempts: int, /, *, seed: int | None = None) -> float:
        return seconds_of(self.wait)


@dataclass(frozen=True)
class wait_random(_Wait):
    """Wait any time between `min` and `max`."""

    min: Duration = 0.0
    max: Duration = 1.0

    def __call__(self, attempts: int, /, *, seed: int | None = None) -> float:
        return uniform(seconds_of(self.min), seconds_of(self.max), seed)


@dataclass(frozen=True)
class wait_incrementing(_Wait):
    """Wait `start`, then `increment` longer each time, never below 0 or above `max`.

    Example:
        >>> [wait_incrementing(1, 2, max=4)(n) for n in range(3)]
        [1.0, 3.0, 4.0]
    """

    start: Duration = 0.0
    increment: Duration = 100.0
    max: Duration = math.inf

    def __call__(self, attempts: int, /, *, seed: int | None = None) -> float:
        wait = seconds_of(self.start) + seconds_of(self.increment) * attempts
        return max(0.0, min(wait, seconds_of(self.max)))


@dataclass(frozen=True)
class wait_exponential(_Wait):
    """Wait `multiplier`, then `exp_base` times longer each time, between `min` and `max`.

    Example:
        >>> [wait_exponential(max=5)(n) for n in range(4)]
        [1.0, 2.0, 4.0, 5.0]
    """

    multiplier: float = 1.0
    exp_base: float = 2.0
    max: Duration = 60.0
    min: Duration = 0.0

    def __call__(self, attempts: int, /, *, seed: int | None = None) -> float:
        wait = min(backoff(self.multiplier, self.exp_base, attempts), seconds_of(self.max))
        return max(0.0, seconds_of(self.min), wait)


@dataclass(frozen=True)
class wait_exponential_jitter(_Wait):
    """Exponential from `initial`, plus up to `jitter` at random; `max` caps the sum."""

    initial: Duration = 1.0
    exp_base: float = 2.0
    max: Duration = 60.0
    jitter: Duration = 1.0

    def __call__(self, attempts: int, /, *, seed: int | None = None) -> float:
        wait = backoff(seconds_of(self.initial), self.exp_base, attempts)
        wait += uniform(0.0, seconds_of(self.jitter), seed)
        return max(0.0, min(wait, seconds_of(self.max)))


@dataclass(frozen=True)
class wait_random_exponential(_Wait):
    """Wait any time between `min` and what `wait_exponential` would wait (full jitter).

    This spreads the retries of many clients best when they all failed at the same moment.
    """

    multiplier: float = 1.0
    exp_base: float = 2.0
    max: Duration = 60.0
    min: Duration = 0.0

    def __call__(self, attempts: int, /, *, seed: int | None = None) -> float:
        low = max(0.0, seconds_of(self.min))
        high = min(backoff(self.multiplier, self.exp_base, attempts), seconds_of(self.max))
        return uniform(low, max(low, high), seed)


def wait_full_jitter(
    multiplier: float = 1.0, exp_base: float = 2.0, max: Duration = 60.0, min: Duration = 0.0
) -> wait_random_exponential:
    """Another name for `wait_random_exponential`."""
    return wait_random_exponential(multiplier, exp_base, max, min)


@dataclass(frozen=True, init=False)
class wait_chain(_Wait):
    """The first strategy for the first retry, the second for the second; the last from then on.

    Raises ValueError without strategies.

    Example:
        >>> [wait_chain(wait_fixed(1), wait_fixed(9))(n) for n in range(3)]
        [1.0, 9.0, 9.0]
    """

    strategies: tuple[WaitStrategy, ...]

    def __init__(self, *strategies: WaitStrategy) -> None:
        if not strategies:
            raise ValueError("wait_chain requires at least one strategy")
        object.__setattr__(self, "strategies", strategies)

    def __call__(self, attempts: int, /, *, seed: int | None = None) -> float:
        strategy = self.strategies[min(max(attempts, 0), len(self.strategies) - 1)]
        return strategy(attempts, seed=seed)


@dataclass(frozen=True, init=False)
class wait_combine(_Wait):
    """The sum of all strategies (`a + b`).

    Example:
        >>> (wait_fixed(3) + wait_exponential())(1)
        5.0
    """

    strategies: tuple[WaitStrategy, ...]

    def __init__(self, *strategies: WaitStrategy) -> None:
        object.__setattr__(self, "strategies", strategies)

    def __call__(self, attempts: int, /, *, seed: int | None = None) -> float:
        return sum((strategy(attempts, seed=seed) for strategy in self.strategies), 0.0)
