"""`ls`, `show`, `why`, `logs`: looking at runs, none of whose code is loaded."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console
from tests.cli.conftest import Cli, finish, kept, parked_run, waiting_run

from stepwell import Engine
from stepwell.cli import output
from stepwell.document import Documents
from stepwell.values import RunStatus


@pytest.fixture
def runs(run_cli: Cli, url: str, shop: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Five runs, in this order: fine, bad, asks, parked, queued. Their code is gone."""
    run_cli(
        "run", "shop:Buy", "-i", "item=tea", "-i", "count=12", "-q", "--id", "fine", "--store", url
    )
    run_cli("run", "shop:Broken", "-q", "--id", "bad", "--store", url, code=1)
    waiting_run(url, shop.Ask(), "asks")
    parked_run(url, shop.Ask(), "parked")
    run_cli("run", "shop:Slow", "--detach", "--id", "queued", "--store", url)
    monkeypatch.setenv("STEPWELL_STORE", url)
    sys.modules["shop"] = None  # pyright: ignore[reportArgumentType] - importing it fails
    yield url
    del sys.modules["shop"]


# --- ls ------------------------------------------------------------------------------------------


def test_runs_are_listed_newest_first(runs: str, run_cli: Cli) -> None:
    said = run_cli("ls")
    rows = [line.split() for line in said.out.splitlines()]
    assert rows[0] == ["RUN", "STATUS", "WORKFLOW", "CREATED", "TOOK", "ABOUT"]
    assert [row[0] for row in rows[1:]] == ["queued", "parked", "asks", "bad", "fine"]
    assert "ValueError: no good" in said.out
    assert "for HumanResponseEvent (colour)" in said.out
    assert said.err == "5 runs: 1 queued, 1 waiting, 1 parked, 1 completed, 1 failed\n"


@pytest.mark.parametrize(
    ("args", "ids"),
    [
        (("-s", "failed"), ["bad"]),
        (("-s", "failed", "-s", "waiting"), ["asks", "bad"]),
        (("-s", "live"), ["queued", "parked", "asks"]),
        (("-s", "ended"), ["bad", "fine"]),
        (("-w", "Ask"), ["parked", "asks"]),
        (("-w", "shop.Buy"), ["fine"]),
        (("--since", "1h", "-n", "2"), ["queued", "parked"]),
        (("--since", "2999-01-01"), []),
        (("--correlation", "x"), []),
        (("--parent", "fine"), []),
    ],
)
def test_listings_are_filtered(
    args: tuple[str, ...], ids: list[str], runs: str, run_cli: Cli
) -> None:
    assert [run["id"] for run in run_cli("ls", "--json", *args).json["runs"]] == ids


def test_pages_follow_each_other(runs: str, run_cli: Cli) -> None:
    first = run_cli("ls", "-n", "3", "--json").json
    second = run_cli("ls", "-n", "3", "--after", first["next"], "--json").json
    assert [r["id"] for r in first["runs"] + second["runs"]] == [
        "queued",
        "parked",
        "asks",
        "bad",
        "fine",
    ]
    assert second["next"] is None
    assert f"--after {first['next']}" in run_cli("ls", "-n", "3").err
    assert "is not a page cursor" in run_cli("ls", "--after", "x", code=2).err


def test_an_unknown_workflow_is_not_found_and_the_known_are_named(runs: str, run_cli: Cli) -> None:
    error = run_cli("ls", "-w", "Nosuch", code=3).err
    assert "There are runs of shop.Ask, shop.Broken, shop.Buy, shop.Slow." in error


@pytest.mark.parametrize("columns", [60, 70])
def test_a_narrow_listing_keeps_what_matters_and_never_wraps(
    runs: str, run_cli: Cli, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    wide = run_cli("ls").out
    assert max(map(len, wide.splitlines())) > 70
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = run_cli("ls").out.splitlines()
    assert max(map(len, lines)) <= columns
    rows = [line for line in lines if not line.startswith(" ")]
    ids = [line.split()[0] for line in wide.splitlines()]
    assert [row.split()[0] for row in rows] == ids  # whole, to be copied
    assert "  ValueError: no good" in lines
    assert "  for HumanResponseEvent (colour)" in lines


def test_of_a_name_that_is_too_long_the_end_is_kept() -> None:
    file = io.StringIO()
    console = Console(file=file, width=29)
    rows = [("r1", "myapp.flows.orders.Report"), ("r2", "a sentence that has no end.")]
    output.table(console, ("run", "workflow"), rows, give=(1,))
    assert file.getvalue().splitlines()[1:] == [
        "r1   …app.flows.orders.Report",
        "r2   a sentence that has no…",
    ]


def test_a_document_goes_by_its_name(run_cli: Cli, url: str) -> None:
    steps = [{"execution_type": "sequential", "tasks": [{"name": "task_a"}]}]

    async def begin(engine: Engine) -> None:
        for name, run_id in (("monthly", "m1"), ("daily", "d1")):
            document = {"name": name, "steps": steps}
            handler = await engine.start(
                "document", document=document, run_id=run_id, correlation=name
            )
            await handler

    kept(url, begin, Documents())
    at = ("--store", url)
    gave = {"steps.0.task_a": {"task": "task_a", "params": {}}}
    assert run_cli("show", "m1", "--json", *at).json["result"] == gave
    assert '"steps.0": [' not in run_cli("show", "m1", *at).out
    assert [line.split()[2] for line in run_cli("ls", *at).out.splitlines()[1:]] == [
        "daily",
        "monthly",
    ]
    rows = run_cli("ls", "-w", "monthly", "--json", *at).json["runs"]
    assert [(row["id"], row["workflow"], row["correlation"]) for row in rows] == [
        ("m1", "document", "monthly")
    ]
    assert len(run_cli("ls", "-w", "document", "--json", *at).json["runs"]) == 2
    assert "There are runs of document." in run_cli("ls", "-w", "yearly", *at, code=3).err
    assert "workflow     monthly " in run_cli("show", "m1", *at).out
    assert "m1  monthly  completed" in run_cli("why", "m1", *at).out


# --- finding runs --------------------------------------------------------------------------------


def test_the_beginning_of_an_id_is_enough(runs: str, run_cli: Cli) -> None:
    assert run_cli("show", "par", "--json").json["id"] == "parked"


def test_a_beginning_that_several_have_is_refused_with_their_names(run_cli: Cli, url: str) -> None:
    for name in ("abc1", "abc2"):
        run_cli("run", "shop:Hello", "--detach", "--id", name, "--store", url)
    error = run_cli("show", "abc", "--store", url, code=2).err
    assert "2 runs have ids that begin with 'abc': abc2, abc1" in error
    assert "There is no run ''" in run_cli("show", "", "--store", url, code=3).err


@pytest.mark.parametrize("command", ["show", "why", "logs", "cancel", "resume"])
def test_an_unknown_run_is_not_found_and_close_ones_are_named(
    command: str, runs: str, run_cli: Cli
) -> None:
    error = run_cli(command, "parkde", code=3).err
    assert "There is no run 'parkde'" in error
    assert "Did you mean parked?" in error


# --- show ----------------------------------------------------------------------------------------


def test_show_has_steps_with_attempts_and_times(runs: str, run_cli: Cli) -> None:
    said = run_cli("show", "fine").out
    assert re.search(r"^status +completed$", said, re.MULTILINE)
    assert re.search(r"^take +done +1 +[\d:.]+ +\d+ ms$", said, re.MULTILINE)
    assert re.search(r"^pack x12 +done +14 ", said, re.MULTILINE)
    assert '"packed": [' in said
    each = run_cli("show", "fine", "--all").out
    assert len(re.findall(r"^pack +done", each, re.MULTILINE)) == 12
    assert "before: ConnectionError: line 10 is out of reach" in each


def test_show_says_what_failed_a_run(runs: str, run_cli: Cli) -> None:
    said = run_cli("show", "bad").out
    assert re.search(r"^work +failed +2 .*ValueError: no good", said, re.MULTILINE)
    assert re.search(r"\(in step 'work' after 2 tries,\s+shop\.py:\d+ in work\)", said)


def test_a_narrow_terminal_is_shown_whole_errors_and_results_to_be_copied(
    run_cli: Cli, url: str, shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "a name of several words " * 5
    run_cli("run", "shop:Hello", "-i", f"name={name}", "-q", "--id", "long", "--store", url)
    run_cli("run", "shop:Broken", "-q", "--id", "bad", "--store", url, code=1)
    monkeypatch.setenv("COLUMNS", "50")
    said = run_cli("show", "long", "--store", url).out
    assert json.loads(said[said.index("result") + len("result") :]) == f"Hello {name}"
    assert "\n  ValueError: no good" in run_cli("show", "bad", "--store", url).out


@pytest.mark.parametrize("command", ["show", "why"])
def test_how_to_answer_names_a_store_that_would_not_be_found(
    command: str, runs: str, run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STEPWELL_STORE")
    said = run_cli(command, "asks", "--store", runs).out
    assert f"stepwell answer asks colour VALUE --store {runs}\n" in said


def test_show_says_what_a_run_asks_and_how_to_answer(runs: str, run_cli: Cli) -> None:
    said = run_cli("show", "asks").out
    assert re.search(r"^question +Which colour\?$", said, re.MULTILINE)
    assert re.search(r"^answer +stepwell answer asks colour VALUE$", said, re.MULTILINE)


def test_show_as_json_has_every_attempt_in_utc(runs: str, run_cli: Cli) -> None:
    said = run_cli("show", "fine", "--json").json
    pack = [step for step in said["steps"] if step["step"] == "pack"]
    tries = [len(step["attempts"]) for step in pack]
    assert (len(pack), sum(tries)) == (12, 14)
    failed = next(step for step in pack if len(step["attempts"]) == 2)["attempts"][0]
    assert failed["error"]["type"] == "builtins.ConnectionError"
    assert failed["began"].endswith("+00:00")
    assert said["result"] == {"packed": list(range(12))}


def test_the_journal_is_shown_row_by_row(runs: str, run_cli: Cli) -> None:
    said = run_cli("show", "fine", "--journal").out
    assert re.search(r"^1 +[\d:.]+ +RunStarted", said, re.MULTILINE)
    assert "Published" in said
    assert 'Note {"text": "12 of tea"}' in said
    rows = run_cli("show", "fine", "--journal", "--json").json["journal"]
    assert [row["row"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[0]["entries"][0][0] == "run"


# --- why -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("fine", "completed at .* Nothing will move it again"),
        ("bad", "failed at .*: no good"),
        ("asks", r"waiting for HumanResponseEvent \(question 'colour'\) in step 'ask' for \d"),
        ("asks", "What comes is kept, but no live worker knows workflow 'shop.Ask'"),
        ("parked", "parked: the paint is out. .*stepwell resume parked"),
        ("queued", "queued for .*, but no live worker knows workflow 'shop.Slow'"),
    ],
)
def test_why_says_what_would_move_a_run(run: str, said: str, runs: str, run_cli: Cli) -> None:
    why = run_cli("why", run, "--json").json
    assert re.search(said, why["sentence"]), why["sentence"]


def test_why_lists_waits_for_people(runs: str, run_cli: Cli) -> None:
    said = run_cli("why", "asks").out
    assert "Which colour?" in said
    assert "stepwell answer asks colour VALUE" in said
    (wait,) = run_cli("why", "asks", "--json").json["waits"]
    assert (wait["id"], wait["question"]) == ("colour", {"prefix": "Which colour?"})


# --- logs ----------------------------------------------------------------------------------------


def test_logs_tell_what_a_run_did(runs: str, run_cli: Cli) -> None:
    said = run_cli("logs", "bad").out.splitlines()
    kinds = [line.split()[1] for line in said]
    assert kinds == ["run", "step", "done", "step", "retry", "step", "failed", "ended"]
    error = r"ValueError: no good \(shop\.py:\d+ in work\)$"
    assert re.search(rf"work #\d+ in 0 ms, after {error}", said[4])
    assert re.search(rf"ended     failed {error}", said[-1])


def test_logs_say_what_a_join_brought_together(runs: str, run_cli: Cli) -> None:
    said = run_cli("logs", "fine").out
    assert re.search(r"send #\d+ begins with 12 x Packed$", said, re.MULTILINE)


def test_logs_as_json_lines_can_be_gone_on_with(runs: str, run_cli: Cli) -> None:
    lines = run_cli("logs", "fine", "--json").lines
    assert lines[-1]["kind"] == "ended"
    assert lines[-1]["result"] == {"result": {"packed": list(range(12))}}
    row = lines[3]["row"]
    rest = run_cli("logs", "fine", "--json", "--after", str(row)).lines
    assert rest == [line for line in lines if line["row"] > row]


def test_logs_may_leave_out_all_but_events(runs: str, run_cli: Cli) -> None:
    lines = run_cli("logs", "fine", "--events", "--json").lines
    assert [line["kind"] for line in lines] == ["event", "ended"]
    assert lines[0]["fields"] == {"text": "12 of tea"}
    assert run_cli("logs", "asks", "--events", "--json").lines[0]["kind"] == "question"


def test_following_a_run_that_has_ended_ends(runs: str, run_cli: Cli) -> None:
    assert run_cli("logs", "-f", "fine").out == run_cli("logs", "fine").out


def test_the_answer_of_a_run_that_went_on_is_in_its_logs(run_cli: Cli, url: str, shop: Any) -> None:
    waiting_run(url, shop.Ask(), "asks")
    run_cli("answer", "asks", "red", "--store", url)
    assert finish(url, shop.Ask(), "asks") == "painted red"
    lines = run_cli("logs", "asks", "--json", "--store", url).lines
    got = next(line for line in lines if line["kind"] == "got")
    assert got["answer"] == {"event": "HumanResponseEvent", "fields": {"response": "red"}}
    assert RunStatus(lines[-1]["status"]) is RunStatus.COMPLETED
