"""What a retry policy is, and how one is asked. The policies themselves are in `retry`.

A policy is any object with a method `next`; whoever asks need not know which. This file is apart
because every step is asked about its policy, but few have one.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, cast, runtime_checkable
from weakref import WeakKeyDictionary

__all__ = ["RetryInfo", "RetryPolicy", "SeedlessRetryPolicy", "next_delay", "seconds_of"]


@runtime_checkable
class RetryPolicy(Protocol):
    """Anything that says when a failed step is tried again.

    Example:
        >>> from stepwell.retry import retry_policy
        >>> isinstance(retry_policy(), RetryPolicy)
        True
    """

    def next(
        self, elapsed_time: float, attempts: int, error: Exception, *, seed: int | None = None
    ) -> float | None:
        """Seconds until the next attempt, or None to give up.

        Args:
            elapsed_time: seconds since the first attempt began.
            attempts: attempts made so far; 1 after the first failure.
            error: what the last attempt raised.
            seed: where jitter comes from; None draws it fresh.
        """
        ...


class SeedlessRetryPolicy(Protocol):
    """The least a policy can be: `next` without `seed`. Every RetryPolicy is one, too.

    Example:
        >>> class Once:
        ...     def next(self, elapsed_time, attempts, error):
        ...         return 0.5 if attempts < 2 else None
        >>> next_delay(Once(), 0.0, 1, ValueError(), seed=7)
        0.5
    """

    def next(self, elapsed_time: float, attempts: int, error: Exception, /) -> float | None:
        """As `RetryPolicy.next`; the arguments come by position."""
        ...


@dataclass(frozen=True, slots=True)
class RetryInfo:
    """What a running step may know about its own retries.

    Attributes:
        retry_number: retries so far; 0 in the first attempt.
        elapsed_seconds: seconds since the first attempt began.
        last_exception: what the attempt before this one raised.
        last_failed_at: when it did.

    Example:
        >>> RetryInfo(0, 0.0, None, None).retry_number
        0
    """

    retry_number: int
    elapsed_seconds: float
    last_exception: Exception | None
    last_failed_at: datetime | None


def seconds_of(value: object) -> float:
    """A duration as seconds. Raises TypeError or ValueError for what is none."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if not isinstance(value, int | float):
        raise TypeError(
            f"A duration is a number of seconds or a timedelta, got {type(value).__name__}"
        )
    if math.isnan(value):
        raise ValueError("A duration cannot be NaN")
    return float(value)


_takes_seed_by_type: WeakKeyDictionary[type, bool] = WeakKeyDictionary()


def _signature_takes_seed(next_method: Callable[..., object]) -> bool:
    try:
        parameters = inspect.signature(next_method).parameters.values()
    except ValueError:  # written in C without a signature
        return False
    return any(
        parameter.kind is parameter.VAR_KEYWORD
        or (parameter.name == "seed" and parameter.kind is not parameter.POSITIONAL_ONLY)
        for parameter in parameters
    )


def _takes_seed(policy: SeedlessRetryPolicy) -> bool:
    if "next" in getattr(policy, "__dict__", {}):  # this object's own: its type says nothing
        return _signature_takes_seed(policy.next)
    kind = type(policy)
    known = _takes_seed_by_type.get(kind)
    if known is None:
        known = _takes_seed_by_type[kind] = _signature_takes_seed(policy.next)
    return known


def next_delay(
    policy: SeedlessRetryPolicy, elapsed: float, attempts: int, error: Exception, seed: int | None
) -> float | None:
    """Ask any policy for the delay before the next attempt.

    Args:
        policy: a built-in policy, or any object with a `next` method, with or without `seed`.
        elapsed: seconds since the first attempt began.
        attempts: attempts made so far; 1 after the first failure.
        error: what the last attempt raised.
        seed: where jitter comes from; the same seed gives the same delay.

    Returns:
        Seconds until the next attempt (finite, at least 0), or None to give up.

    Raises:
        TypeError, ValueError: the policy answered with something that is no delay.
        Exception: whatever the policy raises itself.

    Example:
        >>> from stepwell.retry import retry_policy
        >>> next_delay(retry_policy(), 0.0, 1, ValueError(), seed=1)
        5.0
    """
    if _takes_seed(policy):
        answer = cast("RetryPolicy", policy).next(elapsed, attempts, error, seed=seed)
    else:
        answer = policy.next(elapsed, attempts, error)
    if answer is None:
        return None
    delay = seconds_of(answer)
    if math.isinf(delay):
        raise ValueError("A retry policy returned an infinite delay; return None to give up")
    return max(0.0, delay)
