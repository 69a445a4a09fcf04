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

from stepwell.policy import RetryInfo, RetryPolicy, SeedlessRetryPolicy, next_delay
from stepwell.retry.conditions import (
    retry_all,
    retry_always,
    retry_any,
    retry_if_exception,
    retry_if_exception_cause_type,
    retry_if_exception_message,
    retry_if_exception_type,
    retry_if_not_exception_message,
    retry_if_not_exception_type,
    retry_never,
    retry_unless_exception_type,
)
from stepwell.retry.policies import (
    ConstantDelayRetryPolicy,
    ExponentialBackoffRetryPolicy,
    describe_policy,
    retry_policy,
)
from stepwell.retry.rules import Duration, RetryCondition, StopCondition, WaitStrategy
from stepwell.retry.stops import (
    stop_after_attempt,
    stop_after_delay,
    stop_all,
    stop_any,
    stop_before_delay,
    stop_never,
)
from stepwell.retry.waits import (
    wait_chain,
    wait_combine,
    wait_exponential,
    wait_exponential_jitter,
    wait_fixed,
    wait_full_jitter,
    wait_incrementing,
    wait_none,
    wait_random,
    wait_random_exponential,
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
