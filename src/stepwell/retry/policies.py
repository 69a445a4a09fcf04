"""Policies: a condition, a wait and a stop, asked in this order."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import cast

from stepwell.policy import RetryPolicy, SeedlessRetryPolicy, seconds_of
from stepwell.retry.conditions import (
    retry_if_exception_type,
)
from stepwell.retry.rules import (
    Duration,
    RetryCondition,
    Rule,
    StopCondition,
    WaitStrategy,
    plain,
)
from stepwell.retry.stops import (
    stop_after_attempt,
)
from stepwell.retry.waits import (
    wait_exponential,
    wait_fixed,
    wait_random_exponential,
)


@dataclass(frozen=True)
class _ComposedPolicy(Rule):
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
    wait: WaitStrategy = wait_fixed(5),  # noqa: B008 - a frozen value
    stop: StopCondition = stop_after_attempt(3),  # noqa: B008
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
    return cast("dict[str, object]", describe() if callable(describe) else plain(policy))
