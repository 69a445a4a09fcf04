"""Retry policies: tables of (policy, failure) -> delay, and what holds for all of them."""

from __future__ import annotations

import json
import math
import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell import retry
from stepwell import retry_policy as door
from stepwell.retry import (
    ConstantDelayRetryPolicy,
    ExponentialBackoffRetryPolicy,
    RetryPolicy,
    describe_policy,
    next_delay,
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
    retry_policy,
    retry_unless_exception_type,
    stop_after_attempt,
    stop_after_delay,
    stop_all,
    stop_any,
    stop_before_delay,
    stop_never,
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

BOOM = ValueError("boom")


def delays(policy: RetryPolicy, count: int, *, elapsed: float = 0.0) -> list[float | None]:
    return [policy.next(elapsed, attempts, BOOM, seed=42) for attempts in range(1, count + 1)]


# --- waits -----------------------------------------------------------------------------------

R = 0.6394267984578837  # random.Random(42).random()

WAITS = [
    (wait_none(), [0, 0, 0]),
    (wait_fixed(2), [2, 2, 2]),
    (wait_fixed(timedelta(minutes=1)), [60, 60]),
    (wait_fixed(-1), [0, 0]),
    (wait_incrementing(), [0, 100, 200]),
    (wait_incrementing(1, 2, 6), [1, 3, 5, 6, 6]),
    (wait_incrementing(start=5, increment=timedelta(seconds=-2)), [5, 3, 1, 0, 0]),
    (wait_exponential(), [1, 2, 4, 8, 16, 32, 60, 60]),
    (wait_exponential(multiplier=3, max=20, min=5), [5, 6, 12, 20, 20]),
    (wait_exponential(exp_base=10, max=timedelta(seconds=50)), [1, 10, 50]),
    (wait_exponential(min=100), [100, 100]),
    (wait_exponential(multiplier=0), [0, 0]),
    (wait_random(1, 3), [1 + 2 * R] * 3),
    (wait_random(), [R] * 3),
    (wait_exponential_jitter(), [1 + R, 2 + R, 4 + R, 8 + R, 16 + R, 32 + R, 60]),
    (wait_exponential_jitter(initial=2, max=10, jitter=3), [2 + 3 * R, 4 + 3 * R, 8 + 3 * R, 10]),
    (wait_random_exponential(), [R, 2 * R, 4 * R, 8 * R, 16 * R, 32 * R, 60 * R, 60 * R]),
    (wait_random_exponential(min=3), [3, 3, 3 + R, 3 + 5 * R]),
    (wait_random_exponential(min=100), [100, 100]),
    (wait_full_jitter(multiplier=0.5, max=4), [0.5 * R, R, 2 * R, 4 * R, 4 * R]),
    (wait_chain(wait_fixed(1), wait_fixed(2), wait_fixed(9)), [1, 2, 9, 9]),
    (wait_chain(wait_fixed(1), wait_exponential()), [1, 2, 4]),
    (wait_combine(), [0, 0]),
    (wait_combine(wait_fixed(1), wait_exponential()), [2, 3, 5]),
    (wait_fixed(1) + wait_random(0, 1), [1 + R] * 2),
    (sum([wait_fixed(1), wait_fixed(2), wait_fixed(3)]), [6, 6]),
    (wait_fixed(1) + (lambda attempts, *, seed=None: attempts), [1, 2, 3]),
    ((lambda attempts, *, seed=None: attempts) + wait_fixed(1), [1, 2, 3]),
]


@pytest.mark.parametrize("wait, expected", WAITS)
def test_waits_count_from_the_first_delay(wait: Any, expected: list[float]):
    policy = retry_policy(wait=wait, stop=stop_never())
    assert delays(policy, len(expected)) == pytest.approx(expected)


@pytest.mark.parametrize(
    "wait", [wait_exponential(), wait_exponential_jitter(), wait_random_exponential()]
)
def test_a_backoff_beyond_what_floats_hold_stays_at_its_maximum(wait: Any):
    delay = retry_policy(wait=wait, stop=stop_never()).next(0.0, 10**6, BOOM, seed=42)
    assert delay in (60.0, 60 * R)


def test_jitter_comes_from_the_seed_alone():
    policy = retry_policy(wait=wait_random(0, 1000))
    assert policy.next(0.0, 1, BOOM, seed=1) == policy.next(9.0, 1, BOOM, seed=1)
    assert policy.next(0.0, 1, BOOM, seed=1) != policy.next(0.0, 1, BOOM, seed=2)
    assert policy.next(0.0, 1, BOOM) != policy.next(0.0, 1, BOOM)


# --- stops -----------------------------------------------------------------------------------

# With wait_fixed(5): the (attempts, elapsed) that still get a retry, and those that do not.
STOPS = [
    (stop_never(), [(1, 0), (999, 1e9)], []),
    (stop_after_attempt(3), [(1, 0), (2, 1e9)], [(3, 0), (4, 0)]),
    (stop_after_attempt(0), [], [(1, 0)]),
    (stop_after_delay(10), [(1, 0), (99, 9.9)], [(1, 10), (1, 10.1)]),
    (stop_after_delay(timedelta(seconds=10)), [(1, 9.9)], [(1, 10)]),
    (stop_before_delay(10), [(1, 0), (99, 4.9)], [(1, 5), (1, 10)]),
    (stop_any(), [(1, 0)], []),
    (stop_all(), [], [(1, 0)]),
    (stop_after_attempt(2) | stop_after_delay(10), [(1, 9)], [(2, 0), (1, 10)]),
    (stop_after_attempt(2) & stop_after_delay(10), [(1, 10), (2, 9)], [(2, 10)]),
    (
        stop_after_attempt(2) | stop_after_delay(10) & stop_never(),
        [(1, 99)],
        [(2, 0)],
    ),
    (stop_never() | (lambda n, t, *, upcoming_sleep=0.0: n > 7), [(7, 0)], [(8, 0)]),
    (
        (lambda n, t, *, upcoming_sleep=0.0: upcoming_sleep > 4) & stop_any(stop_after_attempt(1)),
        [],
        [(1, 0)],
    ),
]


@pytest.mark.parametrize("stop, going_on, giving_up", STOPS)
def test_stops(stop: Any, going_on: list[tuple[int, float]], giving_up: list[tuple[int, float]]):
    policy = retry_policy(wait=wait_fixed(5), stop=stop)
    assert [policy.next(elapsed, n, BOOM) for n, elapsed in going_on] == [5.0] * len(going_on)
    assert [policy.next(elapsed, n, BOOM) for n, elapsed in giving_up] == [None] * len(giving_up)


# --- conditions ------------------------------------------------------------------------------


def caused_by(cause: BaseException | None) -> RuntimeError:
    error = RuntimeError("outer")
    error.__cause__ = cause
    return error


def happened_after(context: BaseException) -> RuntimeError:
    error = RuntimeError("outer")
    error.__context__ = context
    return error


def circular() -> RuntimeError:
    error = caused_by(None)
    error.__cause__ = caused_by(error)
    return error


CONDITIONS = [
    (retry_always(), [BOOM, KeyboardInterrupt()], []),
    (retry_never(), [], [BOOM]),
    (retry_if_exception(lambda error: "oo" in str(error)), [BOOM], [ValueError("x")]),
    (retry_if_exception_type(), [BOOM], [KeyboardInterrupt()]),
    (retry_if_exception_type((OSError, KeyError)), [TimeoutError(), KeyError()], [BOOM]),
    (retry_if_not_exception_type(ValueError), [KeyError(), KeyboardInterrupt()], [BOOM]),
    (retry_unless_exception_type(ValueError), [KeyError(), KeyboardInterrupt()], [BOOM]),
    (
        retry_if_exception_cause_type(ValueError),
        [caused_by(BOOM), caused_by(caused_by(BOOM))],
        [BOOM, happened_after(BOOM), caused_by(None), circular()],
    ),
    (retry_if_exception_message("boom"), [BOOM, OSError("boom")], [ValueError("boom!")]),
    (retry_if_exception_message(""), [ValueError()], [BOOM]),
    (retry_if_exception_message(match="bo+m$"), [ValueError("a\nboom")], [ValueError("bm")]),
    (retry_if_exception_message(match=re.compile("BOOM", re.I)), [BOOM], [ValueError("b")]),
    (retry_if_not_exception_message("boom"), [ValueError("boom!")], [BOOM]),
    (retry_if_not_exception_message(match="o+"), [ValueError("x")], [BOOM]),
    (retry_any(), [], [BOOM]),
    (retry_all(), [BOOM], []),
    (
        retry_if_exception_type(OSError) | retry_if_exception_message("boom"),
        [OSError(), BOOM],
        [ValueError("x")],
    ),
    (
        retry_if_exception_type(OSError) & retry_if_exception_message("boom"),
        [OSError("boom")],
        [OSError("x"), BOOM],
    ),
    ((lambda error: True) & retry_never(), [], [BOOM]),
    ((lambda error: True) | retry_never(), [BOOM], []),
]


@pytest.mark.parametrize("condition, retried, given_up", CONDITIONS)
def test_conditions(condition: Any, retried: list[Exception], given_up: list[Exception]):
    policy = retry_policy(retry=condition)
    assert [policy.next(0.0, 1, error) for error in retried] == [5.0] * len(retried)
    assert [policy.next(0.0, 1, error) for error in given_up] == [None] * len(given_up)


def test_by_default_any_exception_gets_two_retries_five_seconds_apart():
    assert delays(retry_policy(), 4) == [5.0, 5.0, None, None]
    interrupt: Any = KeyboardInterrupt()
    assert retry_policy().next(0.0, 1, interrupt) is None


def test_a_wait_is_not_asked_for_when_the_error_is_not_retried():
    def never_called(attempts: int, *, seed: int | None = None) -> float:
        raise AssertionError(attempts)

    assert retry_policy(retry=retry_never(), wait=never_called).next(0.0, 1, BOOM) is None


# --- what is refused -------------------------------------------------------------------------

REFUSED: list[tuple[Any, type[Exception], str]] = [
    (lambda: wait_chain(), ValueError, r"^wait_chain requires at least one strategy$"),
    (lambda: wait_fixed("3"), TypeError, "number of seconds or a timedelta, got str"),  # pyright: ignore
    (lambda: wait_exponential(max=math.nan), ValueError, "cannot be NaN"),
    (lambda: stop_after_delay(None), TypeError, "got NoneType"),  # pyright: ignore
    (retry_if_exception_message, TypeError, "missing 1 required argument 'message' or 'match'"),
    (
        lambda: retry_if_not_exception_message("a", "b"),
        TypeError,
        "takes either 'message' or 'match', not both",
    ),
    (lambda: retry_if_exception_message(match="("), re.error, "unterminated"),
    (lambda: retry_if_exception_type("x"), TypeError, "takes an exception class"),  # pyright: ignore
    (lambda: retry_if_exception_type((int,)), TypeError, "<class 'int'>"),  # pyright: ignore
    (lambda: retry_policy(retry=ValueError), TypeError, "retry= takes a rule such as"),  # pyright: ignore
    (lambda: retry_policy(wait=5), TypeError, "wait= takes a rule such as"),  # pyright: ignore
    (lambda: retry_policy(stop=3), TypeError, "stop= takes a rule such as"),  # pyright: ignore
    (lambda: wait_fixed(1) + 3, TypeError, "unsupported operand"),  # pyright: ignore
    (lambda: 3 + wait_fixed(1), TypeError, "unsupported operand"),
    (lambda: retry_always() & 3, TypeError, "unsupported operand"),  # pyright: ignore
    (lambda: stop_never() | 3, TypeError, "unsupported operand"),  # pyright: ignore
]


@pytest.mark.parametrize("make, error, text", REFUSED)
def test_nonsense_is_refused_where_it_is_written(make: Any, error: type[Exception], text: str):
    with pytest.raises(error, match=text):
        make()


# --- deprecated classes ----------------------------------------------------------------------


def test_constant_delay_is_deprecated_and_still_works():
    with pytest.warns(DeprecationWarning, match="^ConstantDelayRetryPolicy is deprecated") as seen:
        policy = ConstantDelayRetryPolicy(maximum_attempts=3, delay=2)
    assert seen[0].filename == __file__
    assert delays(policy, 3) == [2.0, 2.0, None]


@pytest.mark.parametrize(
    "jitter, expected", [(False, [1, 2, 4, 8, None]), (True, [R, 2 * R, 4 * R, 8 * R, None])]
)
def test_exponential_backoff_is_deprecated_and_still_works(jitter: bool, expected: list[Any]):
    with pytest.warns(DeprecationWarning, match="^ExponentialBackoffRetryPolicy is deprecated"):
        policy = ExponentialBackoffRetryPolicy(jitter=jitter)
    assert delays(policy, 5) == expected


# --- policies of the user --------------------------------------------------------------------


class Plain:
    def next(self, elapsed_time: float, attempts: int, error: Exception) -> float | None:
        return attempts


class Seeded:
    def next(
        self, elapsed_time: float, attempts: int, error: Exception, *, seed: int | None = None
    ) -> float | None:
        return seed


class Open:
    def next(self, *args: Any, **kwargs: Any) -> float | None:
        return kwargs["seed"]


class Answers:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def next(self, elapsed_time: float, attempts: int, error: Exception) -> Any:
        return self.answer


@pytest.mark.parametrize("policy, expected", [(Plain(), 3.0), (Seeded(), 7.0), (Open(), 7.0)])
def test_the_seed_goes_only_to_policies_that_take_it(policy: Any, expected: float):
    for _ in range(2):  # the second time from what is known about the class
        assert next_delay(policy, 0.0, 3, BOOM, seed=7) == expected


def test_a_method_of_the_object_alone_is_looked_at_by_itself():
    policy: Any = Plain()
    next_delay(policy, 0.0, 1, BOOM, seed=7)
    policy.next = lambda elapsed_time, attempts, error, seed: seed
    assert next_delay(policy, 0.0, 1, BOOM, seed=7) == 7.0


@pytest.mark.parametrize(
    "answer, delay", [(None, None), (0, 0.0), (-3, 0.0), (timedelta(milliseconds=5), 0.005)]
)
def test_answers_are_made_into_a_delay(answer: Any, delay: float | None):
    assert next_delay(Answers(answer), 0.0, 1, BOOM, seed=1) == delay


@pytest.mark.parametrize(
    "answer, error", [(math.inf, ValueError), (math.nan, ValueError), ("1", TypeError)]
)
def test_answers_that_are_no_delay_are_errors(answer: Any, error: type[Exception]):
    with pytest.raises(error):
        next_delay(Answers(answer), 0.0, 1, BOOM, seed=1)


# --- as data ---------------------------------------------------------------------------------


def test_a_policy_describes_itself_as_json():
    policy = retry_policy(
        retry=retry_if_exception_type((OSError, re.error)) & (lambda error: True),
        wait=wait_fixed(timedelta(minutes=1)) + wait_incrementing(),
        stop=stop_after_attempt(3),
    )
    described = describe_policy(policy)
    assert json.loads(json.dumps(described, allow_nan=False)) == {
        "kind": "retry_policy",
        "retry": {
            "kind": "retry_all",
            "retries": [
                {
                    "kind": "retry_if_exception_type",
                    "exception_types": [
                        "builtins.OSError",
                        f"{re.error.__module__}.{re.error.__qualname__}",
                    ],
                },
                {
                    "kind": "custom",
                    "name": f"{__name__}.test_a_policy_describes_itself_as_json.<locals>.<lambda>",
                },
            ],
        },
        "wait": {
            "kind": "wait_combine",
            "strategies": [
                {"kind": "wait_fixed", "wait": 60.0},
                {"kind": "wait_incrementing", "start": 0.0, "increment": 100.0, "max": None},
            ],
        },
        "stop": {"kind": "stop_after_attempt", "max_attempt_number": 3},
    }


@pytest.mark.parametrize("rule", [row[0] for row in [*WAITS, *STOPS, *CONDITIONS]])
def test_every_rule_is_a_value_and_has_a_json_form(rule: Any):
    json.dumps(rule.describe(), allow_nan=False)
    assert rule.describe()["kind"] == type(rule).__name__
    assert type(rule).__name__ in repr(rule)
    assert hash(rule) == hash(rule)


def test_equal_rules_are_equal():
    assert wait_fixed(3) == wait_fixed(3) != wait_fixed(4)
    assert retry_policy() == retry_policy() != retry_policy(stop=stop_never())


def test_a_policy_of_the_user_is_described_by_its_name():
    assert describe_policy(Plain()) == {"kind": "custom", "name": f"{__name__}.Plain"}


def test_the_door_shows_the_same_names():
    assert door.__all__ == retry.__all__
    assert all(getattr(door, name) is getattr(retry, name) for name in retry.__all__)


# --- what holds for all of them --------------------------------------------------------------

seconds = st.floats(min_value=0, max_value=1e6)
seeds = st.none() | st.integers()
attempts_made = st.integers(min_value=1, max_value=10**7)
bounded_waits = st.one_of(
    st.builds(wait_exponential, multiplier=seconds, exp_base=st.floats(0, 10), max=seconds),
    st.builds(wait_random_exponential, multiplier=seconds, exp_base=st.floats(0, 10), max=seconds),
    st.builds(wait_exponential_jitter, initial=seconds, max=seconds, jitter=seconds),
    st.builds(wait_incrementing, seconds, st.floats(-1e6, 1e6), seconds),
    st.builds(lambda low, high: wait_random(min(low, high), max(low, high)), seconds, seconds),
)
conditions = st.sampled_from([row[0] for row in CONDITIONS])
stops = st.sampled_from([row[0] for row in STOPS])
errors = st.sampled_from([error for row in CONDITIONS for error in (*row[1], *row[2])])


@given(bounded_waits, attempts_made, seeds)
def test_a_delay_is_never_negative_and_never_above_its_maximum(
    wait: Any, attempts: int, seed: int | None
):
    delay = next_delay(retry_policy(wait=wait, stop=stop_never()), 0.0, attempts, BOOM, seed)
    assert delay is not None
    assert 0 <= delay <= wait.max


@given(conditions, conditions, errors)
def test_either_and_both_for_conditions(a: Any, b: Any, error: BaseException):
    assert (a | b)(error) == (a(error) or b(error))
    assert (a & b)(error) == (a(error) and b(error))


@given(stops, stops, attempts_made, seconds, seconds)
def test_either_and_both_for_stops(a: Any, b: Any, attempts: int, elapsed: float, sleep: float):
    one = a(attempts, elapsed, upcoming_sleep=sleep)
    other = b(attempts, elapsed, upcoming_sleep=sleep)
    assert (a | b)(attempts, elapsed, upcoming_sleep=sleep) == (one or other)
    assert (a & b)(attempts, elapsed, upcoming_sleep=sleep) == (one and other)


@given(bounded_waits, bounded_waits, attempts_made, st.integers())
def test_a_sum_of_waits_is_the_sum_of_the_delays(a: Any, b: Any, attempts: int, seed: int):
    assert (a + b)(attempts, seed=seed) == a(attempts, seed=seed) + b(attempts, seed=seed)
