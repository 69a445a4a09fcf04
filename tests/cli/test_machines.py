"""State machines on the command line: the same commands, and what they say of waits and ends."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Cli, Said, kept

from stepwell import Engine
from stepwell.authoring.machine.define import _machines, machine_of  # pyright: ignore[reportPrivateUsage]
from stepwell.cli.load import load_all
from stepwell.machine import WorkflowEngine
from stepwell.values import RunStatus

ORDERS = """
from datetime import timedelta

from pydantic import BaseModel

from stepwell.machine import (
    Retry, complete, event_workflow, fail, goto, on_fail, run_subflow, sleep, step, wait,
    wait_for_event, workflow,
)


@workflow("shop-parcel")
class Parcel:
    class Context(BaseModel):
        n: int

    @step(start=True)
    def send(self):
        return complete(parcel=f"P{self.context.n}")


@workflow("shop-order", default_retry=Retry(max_attempts=2, base_delay=0))
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


@workflow("shop-nap")
class Nap:
    class Context(BaseModel):
        pass

    @step(start=True)
    def rest(self):
        return sleep(timedelta(days=30), then=self.pay)

    @step()
    def pay(self):
        return complete()


@workflow("shop-pay")
class Pay:
    class Context(BaseModel):
        n: int

    @step(start=True)
    def pay(self):
        return wait_for_event("paid", where={"n": self.context.n})


@event_workflow("meeting", offset_minutes=-60, name="shop-remind")
class Remind:
    @step(start=True)
    def tell(self):
        return complete(told=True)
"""


@pytest.fixture
def orders(shop: object, tmp_path: Path) -> Iterator[Any]:
    """The module `orders` in the current directory."""
    (tmp_path / "orders.py").write_text(ORDERS)
    importlib.invalidate_caches()
    yield importlib.import_module("orders")
    for key, ref in tuple(_machines.items()):
        cls = ref()  # a test that failed keeps its classes alive
        if cls is not None and cls.__module__ in ("orders", "more"):
            del _machines[key]


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
    assert re.search(r"ok\s+shop-order\s+1\s+0", checked)
    assert said("why", "r1", "--app", "orders", "--store", url).code == 0


def test_run_of_a_module_with_several_says_which_there_are(said: Cli) -> None:
    error = said("run", "orders", code=2).err
    assert "Order" in error
    assert "orders:" in error


def test_a_worker_of_a_machine_knows_its_subflows(said: Cli) -> None:
    known = [w.compiled().definition.name for w in load_all(["orders:Order"])]
    assert known == ["shop-order", "shop-parcel"]
    assert [w.compiled().definition.name for w in load_all(["orders:Parcel"])] == ["shop-parcel"]


def test_a_class_that_only_inherits_is_no_machine_of_its_own(
    said: Cli, orders: Any, tmp_path: Path
) -> None:
    (tmp_path / "more.py").write_text("import orders\nclass Mine(orders.Order): pass\n")
    assert "not a workflow" in said("run", "more:Mine", code=2).err
    assert machine_of(orders.Order).name == "shop-order"


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


# --- what is shown -------------------------------------------------------------------------------

HIDDEN = re.compile(r"\((?:start|go|result|complete|plan|fire|on fail|moved)\)")


def worked(url: str, *classes: Any, run_id: str) -> None:
    """A worker brings the run to its end."""

    async def result(engine: Engine) -> None:
        while not (await engine.get(run_id)).status.terminal:  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    kept(url, result, *classes)


def test_ls_says_which_signal_and_when_a_sleep_ends(said: Cli, url: str, orders: Any) -> None:
    begun(url, orders.Order, "r1", n=500)
    begun(url, orders.Nap, "r2")
    rows = flat(said("ls", "--store", url))
    assert "for signal 'approval'" in rows
    assert "for time, in 30 d" in rows


def test_show_gives_the_wait_and_both_ways_on(said: Cli, url: str, orders: Any) -> None:
    begun(url, orders.Pay, "r1", n=7)
    shown = flat(said("show", "r1", "--store", url))
    assert "waits for event 'paid' then end answer stepwell signal r1 event:paid" in shown
    assert "'{\"n\": 7, ...}'" in shown
    (wait,) = said("--json", "show", "r1", "--store", url).json["waits"]
    assert (wait["event"], wait["where"], wait["then"]) == ("event:paid", {"n": 7}, "end")


@pytest.mark.parametrize("fields", [{"n": 5}, {"n": -1}, {"n": 13}])
def test_nothing_shows_the_names_of_the_machinery(
    said: Cli, url: str, orders: Any, fields: dict[str, Any]
) -> None:
    async def go(engine: Engine) -> None:
        await engine.start(orders.Order, run_id="r1", **fields)

    kept(url, go, orders.Order, orders.Parcel)
    worked(url, orders.Order, orders.Parcel, run_id="r1")
    for command in ("show", "logs", "why"):
        assert not HIDDEN.search(said(command, "r1", "--store", url).out), command
        assert not HIDDEN.search(said("--json", command, "r1", "--store", url).out), command
    assert not HIDDEN.search(said("show", "r1", "--journal", "--store", url).out)


def test_logs_tell_of_signals_sleeps_and_subflows(said: Cli, url: str, orders: Any) -> None:
    begun(url, orders.Order, "r1", n=500)
    said("signal", "r1", "approval", '{"approved": true}', "--store", url)
    worked(url, orders.Order, orders.Parcel, run_id="r1")
    logs = said("logs", "r1", "--store", url).out
    told = [" ".join(line.split()[1:]) for line in logs.splitlines()]
    assert any(line.startswith("waits for signal 'approval' until") for line in told)
    assert any(line.endswith(': approval {"approved": true}') for line in told)
    assert any(
        re.fullmatch(r"step done #\d+ begins with the end of its child run", x) for x in told
    )
    assert any(re.fullmatch(r"got \w+: completed", line) for line in told)
    begun(url, orders.Nap, "r2")
    assert re.search(r"sleeps\s+until \d{4}", said("logs", "r2", "--store", url).out)


def test_show_names_the_method_that_failed_and_the_reason(said: Cli, url: str, orders: Any) -> None:
    said("run", "orders:Order", "-i", "n=-1", "--store", url, "--id", "r1", code=1)
    shown = flat(said("show", "r1", "--store", url))
    assert "@on_fail done" in shown
    assert "error WorkflowFailed: no such order (in step 'check')" in shown


def test_run_says_what_the_run_waits_for(said: Cli, url: str) -> None:
    args = ("run", "orders:Order", "-i", "n=500", "--store", url, "--timeout-wait", "0.3s")
    ran = said(*args, code=5)
    assert re.search(r"ask waits for signal 'approval' until \d{4}-", ran.err)
    assert not HIDDEN.search(ran.err)


def test_run_says_until_when_a_run_sleeps(said: Cli) -> None:
    ran = said("run", "orders:Nap", "--timeout-wait", "0.3s", code=5)
    assert re.search(r"sleeps until \d{4}-\S+ \S+ \S+, then pay", ran.err)


def test_run_shows_tries_and_the_reason_of_a_failure(said: Cli) -> None:
    ran = said("run", "orders:Order", "-i", "n=13", code=1)
    assert "check failed, again in" in ran.err
    assert "error  OSError: the bank is closed" in ran.err
    assert "@on_fail done" in ran.err
    assert '"status"' not in ran.err


def test_retry_fork_and_cancel_take_runs_of_machines(said: Cli, url: str, orders: Any) -> None:
    said("run", "orders:Order", "-i", "n=-1", "--store", url, "--id", "bad", code=1)
    again = said("--json", "retry", "bad", "--store", url).json
    worked(url, orders.Order, run_id=again["id"])
    assert said("--json", "show", again["id"], "--store", url).json["status"] == "failed"
    begun(url, orders.Order, "r1", n=500)
    copy = said("--json", "fork", "r1", "--store", url).json
    said("cancel", "r1", "--store", url)
    assert copy["id"] != "r1"


# --- signals -------------------------------------------------------------------------------------


def waiting_for(url: str, cls: Any, **fields: str) -> None:
    """Kept runs that wait, by id, with their correlations."""

    async def begin(engine: Engine) -> None:
        for run_id, word in fields.items():
            await engine.start(cls, run_id=run_id, correlation=word, n=500)
            while (await engine.get(run_id)).status is not RunStatus.WAITING:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    kept(url, begin, cls)


def unread(said: Cli, url: str, run_id: str) -> list[str]:
    return said("--json", "show", run_id, "--store", url).json["unread"]


def test_a_signal_to_all_reaches_those_that_wait_for_it(said: Cli, url: str, orders: Any) -> None:
    waiting_for(url, orders.Order, r1="a", r2="b")
    begun(url, orders.Pay, "r3", n=1)
    sent = said("--json", "signal", "approval", "--all", '{"approved": true}', "--store", url)
    assert sent.json == {"event": "approval", "received": 2}
    assert [unread(said, url, run) for run in ("r1", "r2", "r3")] == [["answer"], ["answer"], []]
    again = said("signal", "approval", "--all", "--store", url).out
    assert again == "nothing was sent: those that wait for it have an answer already\n"
    nobody = said("signal", "refusal", "--all", "--store", url).out
    assert nobody == "nothing was sent: no run waits for it now\n"


def test_a_signal_to_a_correlation_reaches_its_live_runs(said: Cli, url: str, orders: Any) -> None:
    waiting_for(url, orders.Order, r1="a", r2="b")
    sent = said("signal", "approval", "--correlation", "a", "--store", url).out
    assert sent == "approval is kept for 1 run\n"
    assert [unread(said, url, run) for run in ("r1", "r2")] == [["signal"], []]
    nobody = said("signal", "approval", "--correlation", "c", "--store", url).out
    assert nobody == "nothing was sent: no run is live with correlation c\n"


@pytest.mark.parametrize("form", [("r1", "approval"), ("approval", "--run", "r1")])
def test_a_signal_to_one_run_has_two_forms(
    said: Cli, url: str, orders: Any, form: tuple[str, ...]
) -> None:
    waiting_for(url, orders.Order, r1="a", r2="a")
    said("signal", *form, '{"approved": true}', "--store", url)
    assert [unread(said, url, run) for run in ("r1", "r2")] == [["signal"], []]


@pytest.mark.parametrize("form", [("approval", "--all"), ("r1", "approval")])
def test_with_the_code_a_wrong_payload_is_refused_before_anything_is_sent(
    said: Cli, url: str, orders: Any, form: tuple[str, ...]
) -> None:
    waiting_for(url, orders.Order, r1="a")
    args = ("signal", *form, '{"approved": "perhaps"}', "--store", url, "--app", "orders")
    error = " ".join(said(*args, code=2).err.split())
    assert "signal 'approval' does not fit run r1" in error
    assert "approved" in error
    assert unread(said, url, "r1") == []


@pytest.mark.parametrize(
    "words",
    [
        ("approval",),
        ("approval", "--all", "--correlation", "a"),
        ("r1", "approval", "{}", "--all"),
        ("approval", "--all", "--step", "ask"),
    ],
)
def test_what_signal_can_not_mean_is_a_usage_error(
    said: Cli, url: str, words: tuple[str, ...]
) -> None:
    assert "Usage" in said("signal", *words, "--store", url, code=2).err


# --- graph ---------------------------------------------------------------------------------------


def test_graph_draws_a_machine_and_warns_of_what_it_can_not_read(
    said: Cli, orders: Any, tmp_path: Path
) -> None:
    drawn = said("graph", "orders:Order")
    assert 'step_ask -->|"timeout 7 d"| step_nap' in drawn.out
    assert drawn.err == ""
    (tmp_path / "more.py").write_text(
        "from pydantic import BaseModel\n"
        "from stepwell.machine import goto, step, workflow\n"
        '@workflow("shop-jump")\n'
        "class Jump:\n"
        "    class Context(BaseModel): pass\n"
        "    @step(start=True)\n"
        "    def jump(self):\n"
        "        to = 'jump'\n"
        "        return goto(to)\n"
    )
    jump = said("graph", "more:Jump")
    assert "where jump may go can't be read from the code" in " ".join(jump.err.split())
    assert "unknown" in jump.out


def test_graph_of_a_run_needs_no_code_and_shows_more_with_it(
    said: Cli, url: str, orders: Any
) -> None:
    begun(url, orders.Order, "r1", n=500)
    bare = said("graph", "r1", "--store", url).out
    assert "step_check --> step_ask" in bare
    assert "waiting" in bare
    assert "step_ship" not in bare
    whole = said("graph", "r1", "--store", url, "--app", "orders").out
    assert 'step_ask -->|"signal approval"| step_ship' in whole
    assert not HIDDEN.search(bare + whole)


# --- planned runs --------------------------------------------------------------------------------


def planned(url: str) -> str:
    """A run that is to begin before a meeting that is two days ahead."""
    engine = WorkflowEngine(url)
    try:
        engine.emit("meeting", at=datetime.now(UTC) + timedelta(days=2))
        (run,) = engine.runs.filter(name="shop-remind")
        return run.id
    finally:
        engine.stop()


def test_a_planned_run_says_when_it_begins(said: Cli, url: str) -> None:
    run_id = planned(url)
    begins = said("why", run_id, "--store", url)
    assert re.search(r"waiting to begin at \S+ \S+ UTC", flat(begins))
    shown = said("show", run_id, "--store", url)
    assert "STEP" not in shown.out
    logs = said("logs", run_id, "--store", url)
    assert re.search(r"waits\s+for its time to begin until", logs.out)
    drawn = said("graph", run_id, "--store", url, "--app", "orders")
    assert "1 h before event meeting" in drawn.out
    assert "class event_start unvisitedStyle" not in drawn.out
    for one in (begins, shown, logs, drawn):
        assert not HIDDEN.search(one.out)
        assert "planned" not in one.out


# --- fields that nobody takes --------------------------------------------------------------------


@pytest.mark.parametrize("form", [("approval", "--all"), ("r1", "approval")])
def test_with_the_code_a_misspelt_field_is_refused_before_anything_is_sent(
    said: Cli, url: str, orders: Any, form: tuple[str, ...]
) -> None:
    waiting_for(url, orders.Order, r1="a")
    args = ("signal", *form, '{"aproved": true}', "--store", url, "--app", "orders")
    error = " ".join(said(*args, code=2).err.split())
    assert "declares no such field" in error
    assert "did you mean approved?" in error
    assert unread(said, url, "r1") == []


def test_a_run_with_a_misspelt_field_is_not_started(said: Cli) -> None:
    error = " ".join(said("run", "orders:Order", "-i", "aproved=true", code=2).err.split())
    assert "the Context of" in error
    assert "did you mean approved?" in error


def test_a_copy_of_a_machine_begins_with_what_was_typed(said: Cli, url: str, orders: Any) -> None:
    waiting_for(url, orders.Order, r1="a")
    at = ("--store", url, "--app", "orders", "--json")
    error = json.loads(said("fork", "r1", "-i", "aproved=true", *at, code=2).err)["error"]
    assert "did you mean approved?" in error["message"]
    copy = said("fork", "r1", "-i", "approved=true", *at).json["id"]
    rows = said("show", copy, "--journal", "--json", "--store", url).json["journal"]
    assert '"approved": true' in json.dumps(rows[0])
