"""Where a step may go, read from its code: what is known, and what is said to be unknown."""

from __future__ import annotations

import datetime as clocks
import functools
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import stepwell.machine as m
from stepwell.authoring.machine.scan import Reach, scan
from stepwell.machine import complete, fail, goto, run_subflow, sleep, wait, wait_for_event
from stepwell.machine import goto as go

# Steps are never run here, only read: what they name need not be there.
A: Any = None
SHIP = "ship"
OPTIONS: dict[str, Any] = {}
for_signal = wait.for_signal


def logged(func: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return func(*args, **kwargs)

    return wrapper


class Flow:
    """Steps as users write them."""

    paid: bool
    ship: Any
    ask: Any
    late: Any

    def by_method(self) -> Any:
        return goto(self.ship, progress=0.5)

    def by_name(self) -> Any:
        return goto("ship")

    def by_class(self) -> Any:
        return goto(Flow.ship)

    def by_keyword(self) -> Any:
        return goto(step=self.ship)

    def by_alias(self) -> Any:
        return go(self.ship)

    def by_module(self) -> Any:
        return m.goto(self.ship)

    def by_local_import(self) -> Any:
        from stepwell.machine import goto as there

        return there(self.ship)

    def by_local_module(self) -> Any:
        import stepwell.machine as mm

        return mm.goto(self.ship)

    def with_another_self(this) -> Any:  # pyright: ignore[reportSelfClsParameterName]
        return goto(this.ship)

    def nested(self) -> Any:
        def inner() -> Any:
            return goto(self.ship)

        return inner()

    async def asynchronous(self) -> Any:
        return goto(self.ship)

    @logged
    def decorated(self) -> Any:
        return goto(self.ship)

    lambda_ = lambda self: goto(self.ship)  # noqa: E731 - what is tested

    def either(self) -> Any:
        return goto(self.ship if self.paid else self.ask)

    def one_of_three(self) -> Any:
        return goto(self.ship if self.paid else self.ask if random else "late")

    def two_ways(self) -> Any:
        if self.paid:
            return goto(self.ship)
        return goto(self.ask)

    def variable(self) -> Any:
        target = self.ship
        return goto(target)

    def constant(self) -> Any:
        return goto(SHIP)

    def looked_up(self) -> Any:
        return goto(getattr(self, "ship"))  # noqa: B009 - what is tested

    def half_known(self) -> Any:
        return goto(self.ship if self.paid else SHIP)

    def unpacked(self) -> Any:
        return goto(*(self.ship,))

    def options(self) -> Any:
        return wait.for_signal("approved", **OPTIONS)

    def silent(self) -> Any:
        raise NotImplementedError

    def other_goto(self) -> Any:
        goto: Any = {}.get
        return goto.get(self.ship)

    def again(self) -> Any:
        return sleep(timedelta(hours=24))

    def nap(self) -> Any:
        return sleep(clocks.timedelta(days=1, hours=12), then=self.ship)

    def seconds(self) -> Any:
        return sleep(90, self.ship)

    def computed(self) -> Any:
        return sleep(timedelta(days=random.random()), then=self.ship)

    def signal(self) -> Any:
        return wait.for_signal("approved", timeout=timedelta(days=7), on_timeout="late")

    def signal_then(self) -> Any:
        return for_signal("approved", None, None, self.ship)

    def event(self) -> Any:
        return wait_for_event("paid", timeout=60, on_timeout=self.late, then=self.ship)

    def event_method(self) -> Any:
        return m.wait.for_event(name="paid", then=None)

    def subflow(self) -> Any:
        return run_subflow(A.Parcel, on_complete=self.ship, n=1)

    def ends(self) -> Any:
        return complete(ok=True) if self.paid else fail("no")

    def helped(self) -> Any:
        return self._next()

    def _next(self) -> Any:
        return self._deeper() if random else goto(self.ship)

    def _deeper(self) -> Any:
        return goto(self.late)

    def too_deep(self) -> Any:
        return self._through()

    def _through(self) -> Any:
        return self._next()

    def itself(self) -> Any:
        return self.itself() if self.paid else goto(self.ship)


def reach(name: str) -> Reach:
    return scan(getattr(Flow, name), Flow)


@pytest.mark.parametrize(
    "name",
    [
        "by_method",
        "by_name",
        "by_class",
        "by_keyword",
        "by_alias",
        "by_module",
        "by_local_import",
        "by_local_module",
        "with_another_self",
        "nested",
        "asynchronous",
        "decorated",
        "lambda_",
        "itself",
    ],
)
def test_a_target_that_is_written_out_is_known(name: str) -> None:
    found = reach(name)
    assert found.labels == (("ship", "goto"),)
    assert not found.unknown
    assert found.read


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("either", ("ship", "ask")),
        ("one_of_three", ("ship", "ask", "late")),
        ("two_ways", ("ship", "ask")),
    ],
)
def test_all_of_several_targets_are_known_in_the_order_of_the_code(
    name: str, targets: tuple[str, ...]
) -> None:
    assert reach(name).targets == targets
    assert not reach(name).unknown


@pytest.mark.parametrize(
    "name", ["variable", "constant", "looked_up", "unpacked", "options", "silent", "other_goto"]
)
def test_what_is_not_written_out_is_unknown(name: str) -> None:
    found = reach(name)
    assert found.unknown
    assert found.read
    assert found.targets == ()
    assert not found.implicit


def test_one_known_and_one_unknown_target_are_both_told() -> None:
    assert reach("half_known").targets == ("ship",)
    assert reach("half_known").unknown


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("nap", (("ship", "sleep 36 h"),)),
        ("seconds", (("ship", "sleep 90 s"),)),
        ("computed", (("ship", "sleep"),)),
        ("signal", (("late", "timeout 7 d"),)),
        ("signal_then", (("ship", "signal approved"),)),
        ("event", (("ship", "event paid"), ("late", "timeout 1 min"))),
        ("subflow", (("ship", "subflow Parcel"),)),
    ],
)
def test_arrows_are_labelled_with_what_is_waited_for(
    name: str, labels: tuple[tuple[str, str], ...]
) -> None:
    assert reach(name).labels == labels


def test_a_wait_without_then_goes_on_at_the_next_step() -> None:
    assert reach("signal").implicit
    assert reach("signal").next_words == ("signal approved",)
    assert reach("event_method").next_words == ("event paid",)
    assert not reach("signal_then").implicit


def test_a_sleep_without_then_runs_the_step_again() -> None:
    assert reach("again").again
    assert reach("again").again_words == ("sleep 1 d",)
    assert not reach("nap").again


def test_ends_and_subflows_are_told() -> None:
    assert reach("ends").ends == ("complete", "fail")
    assert not reach("ends").unknown
    assert reach("subflow").subflows == ("A.Parcel",)


def test_a_method_of_the_class_is_read_one_level_deep() -> None:
    assert reach("helped").targets == ("ship",)
    found = reach("too_deep")
    assert found.targets == ()
    assert found.unknown


def test_code_that_was_typed_in_is_not_read() -> None:
    space: dict[str, Any] = {"goto": goto}
    exec("def typed(self):\n    return goto(self.ship)\n", space)  # noqa: S102 - as a prompt does
    found = scan(space["typed"])
    assert not found.read
    assert found.unknown
    assert found.targets == ()
