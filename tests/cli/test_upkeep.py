"""`graph`, `check`, `doctor`, `db`."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Cli, parked_run, waiting_run

from stepwell import Engine
from stepwell.runtime.identity import host_of_this_process
from stepwell.stores.base import WorkerRow
from stepwell.stores.sqlite import SQLiteStore

# --- graph ---------------------------------------------------------------------------------------


def test_a_workflow_is_drawn_as_mermaid(run_cli: Cli) -> None:
    said = run_cli("graph", "shop:Buy").out
    assert said.startswith("flowchart TD\n")
    assert "pack" in said


@pytest.mark.parametrize(
    ("file", "start"),
    [("x.svg", "<svg"), ("x.html", "<!"), ("x.dot", "digraph"), ("x.mmd", "flow")],
)
def test_the_files_name_says_the_format(file: str, start: str, run_cli: Cli) -> None:
    said = run_cli("graph", "shop:Buy", "-o", file)
    assert (said.out, said.err) == ("", f"written to {file}\n")
    assert Path(file).read_text().startswith(start)


def test_a_workflow_as_json_is_its_definition(run_cli: Cli) -> None:
    said = run_cli("graph", "shop:Buy", "--json").json
    assert [step["name"] for step in said["definition"]["steps"]] == ["take", "pack", "send"]


def test_a_run_is_drawn_as_it_went(run_cli: Cli, url: str) -> None:
    run_cli("run", "shop:Buy", "-i", "item=tea", "-i", "count=8", "-q", "--id", "b", "--store", url)
    said = run_cli("graph", "b", "--app", "shop", "--json", "--store", url).json
    assert said["run"]["steps"]["pack"]["count"] == 8
    assert {"from": "take", "event": "Line", "to": "pack", "times": 8} in said["run"]["ways"]
    assert "8" in run_cli("graph", "b", "--app", "shop", "--store", url).out


def test_a_run_is_drawn_without_its_code(run_cli: Cli, url: str) -> None:
    run_cli("run", "shop:Buy", "-i", "item=tea", "-i", "count=8", "-q", "--id", "b", "--store", url)
    said = run_cli("graph", "b", "--json", "--store", url)
    assert "drawn from its journal; --app MODULE also draws what it never came to" in said.err
    assert [step["name"] for step in said.json["definition"]["steps"]] == ["take", "pack", "send"]
    with_code = run_cli("graph", "b", "--app", "shop", "--json", "--store", url).json
    assert said.json["run"] == with_code["run"]
    drawn = run_cli("graph", "b", "--store", url).out
    assert "step_pack" in drawn
    assert "event_Line" in drawn


def test_a_lone_name_is_a_module_or_a_run(
    run_cli: Cli, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("alone.py").write_text("from shop import Hello\nclass Only(Hello): ...\n")
    assert "step_greet" in run_cli("graph", "alone").out
    error = run_cli("graph", "shop", code=2).err
    assert "module 'shop' has several workflows: Hello, Buy" in error
    assert "shop:Hello" in error
    monkeypatch.setenv("STEPWELL_STORE", url)
    assert (
        "'nowhere' is no module, and no run: There is no store"
        in run_cli("graph", "nowhere", code=4).err
    )
    run_cli("run", "shop:Hello", "-q", "--id", "alone")
    assert "drawn from its journal" in run_cli("graph", "alone").err
    assert "is no module, and no run: There is no run" in run_cli("graph", "nowhere", code=3).err


def test_a_drawing_that_cannot_be_written_is_said(run_cli: Cli) -> None:
    assert "can't be written" in run_cli("graph", "shop:Buy", "-o", "no/x.svg", code=2).err
    assert (
        "leave out --format"
        in run_cli("graph", "shop:Buy", "--json", "--format", "svg", code=2).err
    )


# --- check ---------------------------------------------------------------------------------------


def test_runs_that_fit_the_code_pass(run_cli: Cli, url: str, shop: Any) -> None:
    waiting_run(url, shop.Ask(), "asks")
    said = run_cli("check", "shop", "--store", url, "--json").json
    assert (said["checked"], said["misfits"]) == (1, 0)
    assert "ok" in run_cli("check", "shop", "--store", url).out


def test_code_that_lost_a_step_does_not_fit(run_cli: Cli, url: str, shop: Any) -> None:
    waiting_run(url, shop.Ask(), "asks")
    Path("next.py").write_text(
        "from stepwell import StartEvent, StopEvent, Workflow, step\n"
        "class Ask(Workflow):\n"
        "    @step\n"
        "    async def other(self, ev: StartEvent) -> StopEvent:\n"
        "        return StopEvent()\n"
        "ask = Ask(workflow_name='shop.Ask')\n"
    )
    said = run_cli("check", "next:ask", "--store", url, code=1).out
    assert "asks  shop.Ask  waiting" in said
    assert "no longer has the step(s) 'ask'" in said


def test_live_runs_of_workflows_that_are_gone_do_not_fit_unless_ignored(
    run_cli: Cli, url: str, shop: Any
) -> None:
    waiting_run(url, shop.Ask(), "asks")
    said = run_cli("check", "shop:Hello", "--store", url, "--json", code=1).json
    assert said["runs"][0]["why"] == "workflow 'shop.Ask' is not among the loaded code"
    run_cli("check", "shop:Hello", "--ignore-unknown", "--store", url)


# --- doctor --------------------------------------------------------------------------------------


def levels(said: Any) -> dict[str, str]:
    return {row["what"]: row["level"] for row in said["findings"]}


def test_a_fresh_store_is_well(run_cli: Cli, url: str) -> None:
    run_cli("db", "migrate", "--store", url)
    said = run_cli("doctor", "--store", url)
    assert said.out.endswith("All is well.\n")
    assert "durability power, schema 3 of 3" in said.out


def test_doctor_names_live_runs_that_nobody_advances_and_parked_ones(
    run_cli: Cli, url: str, shop: Any
) -> None:
    parked_run(url, shop.Ask(), "stopped")
    said = run_cli("doctor", "--store", url, "--json").json
    assert said["ok"] is True
    found = levels(said)
    assert (found["workers"], found["parked"]) == ("warning", "warning")


def test_doctor_names_runs_that_no_live_worker_knows(run_cli: Cli, url: str, shop: Any) -> None:
    waiting_run(url, shop.Ask(), "asks")

    async def look() -> Any:
        async with Engine(url, [shop.Hello()], name="other"):
            return await asyncio.to_thread(run_cli, "doctor", "--quick", "--json", "--store", url)

    found = asyncio.run(look()).json["findings"]
    unknown = next(row for row in found if row["what"] == "unknown")
    assert "1 of shop.Ask" in unknown["said"]
    assert next(row for row in found if row["what"] == "workers")["said"].startswith("1 alive")


def edit(url: str, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db:
        db.execute(sql, values)
        db.commit()


def test_doctor_finds_a_clock_that_was_ahead(run_cli: Cli, url: str, shop: Any) -> None:
    waiting_run(url, shop.Ask(), "asks")
    edit(url, "UPDATE runs SET updated = ?", time.time() + 3600)
    said = run_cli("doctor", "--store", url, "--json", code=1).json
    assert any(f["level"] == "problem" and f["what"] == "clock" for f in said["findings"])


def test_doctor_finds_runs_that_nobody_takes_up(run_cli: Cli, url: str, shop: Any) -> None:
    run_cli("run", "shop:Slow", "--detach", "--id", "slow", "--store", url)
    edit(url, "UPDATE runs SET updated = updated - 600, created = created - 600")
    # A worker that is alive, knows the workflow, and does nothing: this process, as a row.
    until = time.time() + 60
    idle = WorkerRow("idle", host_of_this_process(), os.getpid(), until, ["shop.Slow"])

    async def pretend() -> None:
        store = SQLiteStore(url.removeprefix("sqlite:///"))
        await store.open()
        await store.register(idle)
        await store.close()

    asyncio.run(pretend())
    said = run_cli("doctor", "--store", url, "--json", code=1).json
    assert levels(said)["stuck"] == "problem"


@pytest.mark.parametrize("content", ["not a database at all, but long enough to be one" * 50])
def test_doctor_and_others_say_that_a_file_is_no_store(
    content: str, run_cli: Cli, url: str
) -> None:
    Path(url.removeprefix("sqlite:///")).write_text(content)
    assert run_cli("doctor", "--store", url, "--json", code=4).json["ok"] is False
    assert "not a SQLite database" in run_cli("ls", "--store", url, code=4).err
    assert "Traceback" not in run_cli("db", "migrate", "--store", url, code=4).err


# --- db ------------------------------------------------------------------------------------------


def test_migrate_makes_a_store_once(run_cli: Cli, url: str) -> None:
    assert "is made, with schema version 3" in run_cli("db", "migrate", "--store", url).out
    assert run_cli("db", "migrate", "--store", url, "--json").json["before"] == 3


def test_gc_deletes_what_ended_long_ago_and_nothing_else(run_cli: Cli, url: str, shop: Any) -> None:
    for name in ("old", "new"):
        run_cli("run", "shop:Hello", "-q", "--id", name, "--store", url)
    waiting_run(url, shop.Ask(), "asks")
    edit(url, "UPDATE runs SET ended = ended - 90 * 86400 WHERE id = 'old'")
    assert run_cli("db", "gc", "--dry-run", "--store", url).out == "1 run would be deleted\n"
    assert run_cli("db", "gc", "--store", url).out == "1 run deleted\n"
    left = run_cli("ls", "--json", "--store", url).json["runs"]
    assert [run["id"] for run in left] == ["asks", "new"]
    run_cli("db", "gc", "--older-than", "0s", "--store", url)
    assert [r["id"] for r in run_cli("ls", "--json", "--store", url).json["runs"]] == ["asks"]


def test_a_backup_is_a_store_and_overwrites_nothing(run_cli: Cli, url: str) -> None:
    run_cli("run", "shop:Hello", "-q", "--id", "one", "--store", url)
    said = run_cli("db", "backup", "copy.db", "--store", url, "--json").json
    assert said["bytes"] == Path("copy.db").stat().st_size
    assert run_cli("show", "one", "--store", "sqlite:///copy.db", "--json").json["id"] == "one"
    assert "is there already" in run_cli("db", "backup", "copy.db", "--store", url, code=4).err


def test_verify_finds_faults(run_cli: Cli, url: str) -> None:
    run_cli("run", "shop:Hello", "-q", "--id", "one", "--store", url)
    assert "is sound" in run_cli("db", "verify", "--store", url).out
    edit(url, "DELETE FROM journal WHERE seq = 1")
    said = run_cli("db", "verify", "--store", url, "--json", code=4).json
    assert said["sound"] is False
    assert "journal rows" in json.dumps(said["faults"])
