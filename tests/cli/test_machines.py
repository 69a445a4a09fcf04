"""State machines on the command line: the same commands, and what they say of waits and ends."""

from __future__ import annotations

import asyncio
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Cli, Said, kept

from stepwell import Engine
from stepwell.authoring.machine.define import machine_of
from stepwell.values import RunStatus

ORDERS = """
from datetime import timedelta

from pydantic import BaseModel

from stepwell.machine import (
    Retry, complete, event_workflow, fail, goto, on_fail, run_subflow, sleep, step, wait,
    wait_for_event, workflow,
)


@workflow("parcel")
class Parcel:
    class Context(BaseModel):
        n: int

    @step(start=True)
    def send(self):
        return complete(parcel=f"P{self.context.n}")


@workflow("order", default_retry=Retry(max_attempts=2, base_delay=0))
class Order:
    class Context(BaseModel):
        n: int
        approved: bool = False
        note: str = ""

    @step(start=True)
    def check(self):
        if self.context.n < 0:
            return fail("no such order")
        if self.context.n == 13:
            raise OSError("the bank is closed")
        return goto(self.ask if self.context.n > 100 else self.ship, progress=0.2)

    @step()
    def ask(self):
        return wait.for_signal(
            "approval", timeout=timedelta(days=7), on_timeout="nap", then=self.ship
        )

    @step()
    def ship(self):
        return run_subflow(Parcel, on_complete=self.done, n=self.context.n)

    @step(title="Tell the customer")
    def done(self, result):
        return complete(parcel=result.result["parcel"], approved=self.context.approved)

    @step()
    def nap(self):
        return sleep(timedelta(days=1), then=self.pay)

    @step()
    def pay(self):
        return wait_for_event("paid", where={"n": self.context.n})

    @on_fail
    def give_up(self, error):
        self.context.note = str(error)


@workflow("nap")
class Nap:
    class Context(BaseModel):
        pass

    @step(start=True)
    def rest(self):
        return sleep(timedelta(days=30), then=self.pay)

    @step()
    def pay(self):
        return complete()


@workflow("pay")
class Pay:
    class Context(BaseModel):
        n: int

    @step(start=True)
    def pay(self):
        return wait_for_event("paid", where={"n": self.context.n})


@event_workflow("meeting", offset_minutes=-60)
class Remind:
    @step(start=True)
    def tell(self):
        return complete(told=True)
"""


@pytest.fixture
def orders(shop: object, tmp_path: Path) -> Any:
    """The module `orders` in the current directory."""
    (tmp_path / "orders.py").write_text(ORDERS)
    importlib.invalidate_caches()
    return importlib.import_module("orders")


@pytest.fixture
def said(run_cli: Cli, orders: object) -> Cli:
    return run_cli


def begun(url: str, cls: Any, run_id: str, *others: Any, **fields: Any) -> str:
    """A kept run of a state machine that waits."""

    async def begin(engine: Engine) -> str:
        await engine.start(cls, run_id=run_id, **fields)
        while (await engine.get(run_id)).status is not RunStatus.WAITING:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        return run_id

    return kept(url, begin, cls, *others)


def flat(said: Said) -> str:
    """What was printed, however its lines were broken."""
    return " ".join(said.out.split())


# --- loading -------------------------------------------------------------------------------------


def test_a_class_is_run_and_its_result_printed(said: Cli) -> None:
    ran = said("run", "orders:Order", "--input", '{"n": 5}')
    assert ran.json == {"parcel": "P5", "approved": False}


def test_a_module_of_several_machines_is_a_fine_app(said: Cli, url: str, orders: Any) -> None:
    begun(url, orders.Order, "r1", n=500)
    checked = said("check", "orders", "--store", url).out
    assert re.search(r"ok\s+order\s+1\s+0", checked)
    assert said("why", "r1", "--app", "orders", "--store", url).code == 0


def test_run_of_a_module_with_several_says_which_there_are(said: Cli) -> None:
    error = said("run", "orders", code=2).err
    assert "Order" in error
    assert "orders:" in error


def test_a_class_that_only_inherits_is_no_machine_of_its_own(
    said: Cli, orders: Any, tmp_path: Path
) -> None:
    (tmp_path / "more.py").write_text("import orders\nclass Mine(orders.Order): pass\n")
    assert "not a workflow" in said("run", "more:Mine", code=2).err
    assert machine_of(orders.Order).name == "order"


def test_a_start_without_its_fields_says_which(said: Cli) -> None:
    error = said("run", "orders:Order", code=2).err
    assert "n: field required" in " ".join(error.split())
    assert "pydantic.dev" not in error


# --- why -----------------------------------------------------------------------------------------


def test_why_says_signal_since_until_and_both_ways_on(said: Cli, url: str, orders: Any) -> None:
    begun(url, orders.Order, "r1", n=500)
    why = flat(said("why", "r1", "--store", url))
    assert re.search(
        r"waiting for signal 'approval', at step 'ask', since \S+ \S+ UTC \(\d+ s\), until "
        r"\S+ \S+ UTC, then goes to 'nap'; `stepwell signal r1 approval '{...}'` takes it to "
        "'ship'",
        why,
    )


def test_why_of_a_sleep_says_until_when_and_what_is_next(said: Cli, url: str, orders: Any) -> None:
    begun(url, orders.Nap, "r1")
    why = flat(said("why", "r1", "--store", url))
    assert re.search(r"waiting for time to pass until \S+ \S+ UTC, then goes to 'pay'", why)


def test_why_of_a_wait_for_an_event_names_its_values(said: Cli, url: str, orders: Any) -> None:
    begun(url, orders.Pay, "r1", n=7)
    why = flat(said("why", "r1", "--store", url))
    assert "for event 'paid' with {\"n\": 7}, at step 'pay'" in why
    assert "takes it to 'end'" in why
    assert "(complete)" not in why
