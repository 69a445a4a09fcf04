"""When to try again, and after how long: retry policies as data.

The theory: a policy is the answer to one question, asked after every failed attempt:
`next(elapsed_time, attempts, error, seed=...)` gives the seconds to wait before the next
attempt, or None to give up. A built-in policy puts three small rules together, each of which
sees only what it needs:

    condition   (error)                                      -> retry at all?
    wait        (retries so far, seed=...)                   -> seconds until the next attempt
    stop        (attempts, elapsed, upcoming_sleep=...)      -> has it been enough?

They are asked in this order, and rules of one kind combine: conditions and stops with `&` and
`|`, waits with `+`. Any function of the same shape may stand in for a rule, and any object
with a `next` method for a policy.

Rules are frozen values: comparable, printable, and describable as plain JSON (`describe()`),
so that a definition can be drawn, served and compared without running it. They hold no state
and read no clock. Chance enters only through `seed`: the same seed gives the same jitter on
every machine, so a delay computed again after a crash is the delay that was computed before.

This module refuses to know about steps, runs and journals: who counts the attempts, keeps the
clock and makes the seed is not its business.
"""

from __future__ import annotations

import math
import random
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from datetime import timedelta
from typing import Protocol, cast

from stepwell.policy import (
    RetryInfo,
    RetryPolicy,
    SeedlessRetryPolicy,
    next_delay,
    seconds_of,
)

__all__ = [
    "ConstantDelayRetryPolicy",
    "Duration",
    "ExponentialBackoffRetryPolicy",
    "RetryCondition",
    "RetryInfo",
    "RetryPolicy",
    "SeedlessRetryPolicy",
    "StopCondition",
    "WaitStrategy",
    "describe_policy",
    "next_delay",
    "retry_all",
    "retry_always",
    "retry_any",
    "retry_if_exception",
    "retry_if_exception_cause_type",
    "retry_if_exception_message",
    "retry_if_exception_type",
    "retry_if_not_exception_message",
    "retry_if_not_exception_type",
    "retry_never",
    "retry_policy",
    "retry_unless_exception_type",
    "stop_after_attempt",
    "stop_after_delay",
    "stop_all",
    "stop_any",
    "stop_before_delay",
    "stop_never",
    "wait_chain",
    "wait_combine",
    "wait_exponential",
    "wait_exponential_jitter",
    "wait_fixed",
    "wait_full_jitter",
    "wait_incrementing",
    "wait_none",
    "wait_random",
    "wait_random_exponential",
]

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


def _uniform(low: float, high: float, seed: int | None) -> float:
    return random.Random(seed).uniform(low, high)  # noqa: S311 - spreads load, keeps no secret


def _backoff(first: float, base: float, retries: int) -> float:
    """`first * base**retries`; infinite where that is more than a float can hold."""
    if first == 0:
        return 0.0
    try:
        return first * base**retries
    except OverflowError:
        return math.copysign(math.inf, first)


def _plain(value: object) -> object:
    """A rule or one of its fields as JSON data; infinity becomes null (no limit)."""
    match value:
        case _Rule():
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
            return [_plain(item) for item in cast("tuple[object, ...]", value)]
        case type():
            return f"{value.__module__}.{value.__qualname__}"
        case _:
            # A function or object of the user's: its name is all that is known of it as data.
            named = value if hasattr(value, "__qualname__") else type(value)
            name = f"{getattr(named, '__module__', None)}.{getattr(named, '__qualname__', None)}"
            return {"kind": "custom", "name": name}


class _Rule:
    """What conditions, waits, stops and policies have in common: they can be described."""

    def describe(self) -> dict[str, object]:
        """The rule as JSON data: its `kind` and its settings, durations in seconds."""
        described: dict[str, object] = {"kind": type(self).__name__}
        if is_dataclass(self):
            described |= {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        return described


# --- conditions ------------------------------------------------------------------------------


class _Condition(_Rule):
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


# --- waits -----------------------------------------------------------------------------------


class _Wait(_Rule):
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
        return _uniform(seconds_of(self.min), seconds_of(self.max), seed)


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
        wait = min(_backoff(self.multiplier, self.exp_base, attempts), seconds_of(self.max))
        return max(0.0, seconds_of(self.min), wait)


@dataclass(frozen=True)
class wait_exponential_jitter(_Wait):
    """Exponential from `initial`, plus up to `jitter` at random; `max` caps the sum."""

    initial: Duration = 1.0
    exp_base: float = 2.0
    max: Duration = 60.0
    jitter: Duration = 1.0

    def __call__(self, attempts: int, /, *, seed: int | None = None) -> float:
        wait = _backoff(seconds_of(self.initial), self.exp_base, attempts)
        wait += _uniform(0.0, seconds_of(self.jitter), seed)
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
        high = min(_backoff(self.multiplier, self.exp_base, attempts), seconds_of(self.max))
        return _uniform(low, max(low, high), seed)


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


# --- stops -----------------------------------------------------------------------------------


class _Stop(_Rule):
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


# --- policies --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _ComposedPolicy(_Rule):
    retry: RetryCondition
    wait: WaitStrategy
    stop: StopCondition

    def __post_init__(self) -> None:
        for name in ("retry", "wait", "stop"):
            rule = getattr(self, name)
            # A class is callable too, and `retry=ValueError` would retry everything.
            if isinstance(rule, type) or not callable(rule):
                raise TypeError(f"{name}= takes a rule such as {_EXAMPLES[name]}, got {rule!r}")

    def next(
        self, elapsed_time: float, attempts: int, error: Exception, *, seed: int | None = None
    ) -> float | None:
        if not self.retry(error):
            return None
        delay = max(0.0, seconds_of(self.wait(max(0, attempts - 1), seed=seed)))
        if self.stop(attempts, elapsed_time, upcoming_sleep=delay):
            return None
        return delay

    def describe(self) -> dict[str, object]:
        return {**super().describe(), "kind": "retry_policy"}


_EXAMPLES = {
    "retry": "retry_if_exception_type(OSError)",
    "wait": "wait_fixed(5)",
    "stop": "stop_after_attempt(3)",
}


def retry_policy(
    retry: RetryCondition | None = None,
    wait: WaitStrategy = wait_fixed(5),
    stop: StopCondition = stop_after_attempt(3),
) -> RetryPolicy:
    """A policy of a condition, a wait and a stop.

    Args:
        retry: which errors are retried; None retries any Exception.
        wait: how long (seconds) to wait before each retry.
        stop: when to give up.

    Returns:
        A frozen policy with `next(...)` and `describe()`.

    Raises:
        TypeError: one of the three is not a rule.

    Example:
        >>> policy = retry_policy(wait=wait_exponential(), stop=stop_after_attempt(4))
        >>> [policy.next(0.0, attempts, ValueError()) for attempts in (1, 2, 3, 4)]
        [1.0, 2.0, 4.0, None]
    """
    return _ComposedPolicy(retry_if_exception_type() if retry is None else retry, wait, stop)


class ConstantDelayRetryPolicy(_ComposedPolicy):
    """Deprecated: `retry_policy(wait=wait_fixed(delay), stop=stop_after_attempt(n))`."""

    def __init__(self, maximum_attempts: int = 3, delay: Duration = 5) -> None:
        warnings.warn(
            "ConstantDelayRetryPolicy is deprecated: write "
            "retry_policy(wait=wait_fixed(delay), stop=stop_after_attempt(n))",
            DeprecationWarning,
            stacklevel=2,
        )
        super().__init__(
            retry_if_exception_type(), wait_fixed(delay), stop_after_attempt(maximum_attempts)
        )


class ExponentialBackoffRetryPolicy(_ComposedPolicy):
    """Deprecated: `retry_policy(wait=wait_exponential(...), stop=stop_after_attempt(n))`.

    With `jitter` it is `wait_random_exponential(...)`.
    """

    def __init__(
        self,
        maximum_attempts: int = 5,
        initial_delay: float = 1.0,
        multiplier: float = 2.0,
        max_delay: Duration = 60.0,
        jitter: bool = True,
    ) -> None:
        kind = wait_random_exponential if jitter else wait_exponential
        warnings.warn(
            f"ExponentialBackoffRetryPolicy is deprecated: write "
            f"retry_policy(wait={kind.__name__}(...), stop=stop_after_attempt(n))",
            DeprecationWarning,
            stacklevel=2,
        )
        super().__init__(
            retry_if_exception_type(),
            kind(initial_delay, multiplier, max_delay),
            stop_after_attempt(maximum_attempts),
        )


# --- asking a policy -------------------------------------------------------------------------


def describe_policy(policy: SeedlessRetryPolicy) -> dict[str, object]:
    """Any policy as JSON data; one without `describe()` gives only the name of its class.

    Example:
        >>> describe_policy(retry_policy())["wait"]
        {'kind': 'wait_fixed', 'wait': 5}
    """
    describe = getattr(policy, "describe", None)
    return cast("dict[str, object]", describe() if callable(describe) else _plain(policy))
