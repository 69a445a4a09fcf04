"""`signal`, `answer`, `cancel`, `resume`, `retry`, `fork`."""

from __future__ import annotations

from typing import Any

import pytest
from tests.cli.conftest import Cli, finish, parked_run, waiting_run

from stepwell.errors import WorkflowCancelledByUser


@pytest.fixture
def asks(url: str, shop: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("STEPWELL_STORE", url)
    return waiting_run(url, shop.Ask(), "asks")


def test_an_answer_moves_the_run(asks: str, run_cli: Cli, url: str, shop: Any) -> None:
    said = run_cli("answer", asks, "colour", "red").out
    assert said.startswith("question 'colour' of asks is answered; no live worker knows")
    assert finish(url, shop.Ask(), asks) == "painted red"


def test_the_only_question_need_not_be_named_and_json_gives_fields(
    asks: str, run_cli: Cli, url: str, shop: Any
) -> None:
    said = run_cli("answer", asks, '{"response": ["red", "blue"]}', "--json").json
    assert said == {
        "id": asks,
        "question": "colour",
        "event": "HumanResponseEvent",
        "accepted": True,
    }
    assert finish(url, shop.Ask(), asks) == "painted ['red', 'blue']"


def test_a_question_that_is_not_asked_is_not_found(asks: str, run_cli: Cli) -> None:
    error = run_cli("answer", asks, "shape", "round", code=3).err
    assert "does not ask 'shape'" in error
    assert "colour (Which colour?)" in error


def test_a_run_that_asks_nothing_is_said_to(run_cli: Cli, url: str) -> None:
    run_cli("run", "shop:Slow", "--detach", "--id", "slow", "--store", url)
    assert "asks nothing now" in run_cli("answer", "slow", "x", "--store", url, code=3).err


def test_a_signal_is_kept_until_it_is_waited_for(run_cli: Cli, url: str, shop: Any) -> None:
    run_cli("run", "shop:Ask", "--detach", "--id", "early", "--store", url)
    run_cli("signal", "early", "HumanResponseEvent", '{"response": "green"}', "--store", url)
    assert finish(url, shop.Ask(), "early") == "painted green"


def test_a_signal_is_sent_once_per_word(asks: str, run_cli: Cli) -> None:
    args = ("signal", asks, "Note", '{"text": "x"}', "--dedupe", "once", "--json")
    assert run_cli(*args).json["accepted"] is True
    assert run_cli(*args).json["accepted"] is False


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("Note", "{"), "the payload is no JSON"),
        (("Note", "[]"), "the payload is list, not a JSON object"),
    ],
)
def test_payloads_are_objects(args: tuple[str, ...], said: str, asks: str, run_cli: Cli) -> None:
    assert said in run_cli("signal", asks, *args, code=2).err


def test_with_the_code_at_hand_payloads_are_checked(run_cli: Cli, url: str) -> None:
    run_cli("run", "shop:Buy", "-i", "item=x", "--detach", "--id", "buy", "--store", url)
    args = ("signal", "buy", "Line", '{"n": "many"}', "--store", url)
    assert "does not make a Line" in run_cli(*args, "--app", "shop:Buy", code=2).err
    run_cli(*args)  # without it they are kept as they are


def test_what_has_ended_takes_nothing(run_cli: Cli, url: str) -> None:
    run_cli("run", "shop:Hello", "-q", "--id", "over", "--store", url)
    for args in (
        ("signal", "over", "Note"),
        ("answer", "over", "x"),
        ("cancel", "over"),
        ("resume", "over"),
    ):
        error = run_cli(*args, "--store", url, code=1).err
        assert "completed" in error


def test_a_cancelled_run_ends_when_a_worker_takes_it_in(
    asks: str, run_cli: Cli, url: str, shop: Any
) -> None:
    said = run_cli("cancel", asks, "--reason", "changed our mind").out
    assert "asks is to be cancelled; no live worker" in said
    with pytest.raises(WorkflowCancelledByUser, match="changed our mind"):
        finish(url, shop.Ask(), asks)


def test_a_parked_run_is_cancelled_at_once(run_cli: Cli, url: str, shop: Any) -> None:
    parked_run(url, shop.Ask(), "parked")
    said = run_cli("cancel", "parked", "--store", url, "--json").json
    assert said == {"runs": [{"id": "parked", "status": "cancelled", "asked": True}]}


def test_a_parked_run_goes_on_after_resume_without_its_code(
    run_cli: Cli, url: str, shop: Any
) -> None:
    parked_run(url, shop.Ask(), "parked")
    said = run_cli("resume", "parked", "--store", url).out
    assert "parked may go on; no live worker" in said
    assert "It was at" not in said  # its steps are in the journal, which is not read for this
    row = run_cli("show", "parked", "--store", url, "--json").json
    assert (row["status"], row["owner"]) == ("running", None)
    run_cli("answer", "parked", "red", "--store", url)
    assert finish(url, shop.Ask(), "parked") == "painted red"


def test_a_run_that_is_not_parked_is_not_resumed(asks: str, run_cli: Cli) -> None:
    assert "is waiting, not parked" in run_cli("resume", asks, code=1).err


# --- copies --------------------------------------------------------------------------------------


@pytest.fixture
def bad(run_cli: Cli, url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("STEPWELL_STORE", url)
    run_cli("run", "shop:Broken", "-q", "--id", "bad", code=1)
    return "bad"


def test_retry_starts_a_copy_at_the_step_that_failed(
    bad: str, run_cli: Cli, url: str, shop: Any
) -> None:
    said = run_cli("retry", bad, "--app", "shop", "--id", "again")
    assert said.out == "again\n"
    with pytest.raises(ValueError, match="no good"):
        finish(url, shop.Broken(), "again")
    steps = run_cli("show", "again", "--json").json["steps"]
    assert [step["step"] for step in steps] == ["prepare", "work"]


def test_what_failed_says_how_to_try_it_again(bad: str, run_cli: Cli, url: str) -> None:
    again = "again  stepwell retry bad\n"  # the store is in the environment
    assert again in run_cli("why", bad).out
    assert again in run_cli("show", bad).out
    other = run_cli("why", bad, "--store", url.replace("runs.db", "./runs.db")).out
    assert f"again  stepwell retry bad --store {url.replace('runs.db', './runs.db')}" in other
    run_cli("run", "shop:Hello", "-q", "--id", "fine")
    assert "stepwell retry" not in run_cli("why", "fine").out


def test_what_is_not_failed_is_not_retried_and_says_what_to_do(
    asks: str, run_cli: Cli, url: str, shop: Any
) -> None:
    assert f"`stepwell why {asks}` says" in run_cli("retry", asks, code=2).err
    parked_run(url, shop.Ask(), "parked")
    assert "`stepwell resume parked`" in run_cli("retry", "parked", "--store", url, code=2).err
    run_cli("run", "shop:Hello", "-q", "--id", "fine", "--store", url)
    assert "`stepwell fork`" in run_cli("retry", "fine", "--store", url, code=2).err


def test_copies_need_no_code(bad: str, run_cli: Cli, url: str, shop: Any) -> None:
    said = run_cli("retry", bad, "--id", "again")
    assert f"stepwell worker shop:Broken --store {url}" in said.err
    run_cli("fork", bad, "--step", "work", "--id", "copy")
    for run in ("again", "copy"):
        with pytest.raises(ValueError, match="no good"):
            finish(url, shop.Broken(), run)
        steps = run_cli("show", run, "--json").json["steps"]
        assert [step["step"] for step in steps] == ["prepare", "work"]


def test_fork_goes_on_with_other_input(bad: str, run_cli: Cli, url: str, shop: Any) -> None:
    args = ("--step", "work", "-i", "n=5", "--app", "shop", "--id", "copy", "--json")
    said = run_cli("fork", bad, *args).json
    assert (said["id"], said["copy_of"]) == ("copy", "bad")
    assert finish(url, shop.Broken(), "copy") == 5


def test_fork_behind_a_row(bad: str, run_cli: Cli, url: str, shop: Any) -> None:
    run_cli("fork", bad, "--seq", "1", "--app", "shop", "--id", "copy")
    with pytest.raises(ValueError, match="no good"):
        finish(url, shop.Broken(), "copy")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("fork", "bad", "-i", "n=1"), "Add --app shop:Broken"),
        (("fork", "bad", "-i", "n=1", "--app", "shop:Hello"), "loaded are shop.Hello"),
        (("fork", "bad", "--app", "shop", "--seq", "99"), "can't be cut behind row 99"),
        (("fork", "bad", "--app", "shop", "--step", "x"), "never came to step 'x'"),
        (("fork", "bad", "--app", "shop", "--seq", "1", "--step", "x"), "not both"),
        (
            ("fork", "bad", "--app", "shop", "--step", "work", "-i", "n=many"),
            "the copy can't go on with",
        ),
    ],
)
def test_copies_that_cannot_be_made(
    args: tuple[str, ...], said: str, bad: str, run_cli: Cli
) -> None:
    assert said in run_cli(*args, code=2).err


def test_only_failed_runs_are_retried(run_cli: Cli, url: str) -> None:
    run_cli("run", "shop:Hello", "-q", "--id", "fine", "--store", url)
    error = run_cli("retry", "fine", "--app", "shop", "--store", url, code=2).err
    assert "is completed, not failed" in error


def test_a_payload_that_says_a_field_twice_is_refused(run_cli: Cli, url: str, shop: Any) -> None:
    waiting_run(url, shop.Ask, "r1")
    sent = '{"response": "red", "response": "blue"}'
    said = run_cli("signal", "r1", "HumanResponseEvent", sent, "--store", url, code=2)
    assert "response is there twice" in said.err
