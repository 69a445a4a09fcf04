"""`stepwell schedule`: what it lists, says and does."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Cli

from stepwell import Engine
from stepwell.authoring.machine.define import _machines  # pyright: ignore[reportPrivateUsage]

REPORTS = """
from datetime import datetime
from pydantic import BaseModel
from stepwell.machine import complete, step, workflow

@workflow("night-report", schedule="30 3 * * *")
class Report:
    class Context(BaseModel):
        scheduled_at: datetime | None = None

    @step(start=True)
    def write(self):
        return complete()
"""


@pytest.fixture
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "night_reports.py").write_text(REPORTS)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("night_reports")
    for key, ref in tuple(_machines.items()):
        cls = ref()
        if cls is not None and cls.__module__ == "night_reports":
            del _machines[key]


@pytest.fixture
def planned(reports: Any, url: str) -> str:
    """A store in which a worker has planned the schedule."""

    async def plan() -> None:
        async with Engine(url, [reports.Report]) as engine:
            await engine.schedules()

    asyncio.run(plan())
    return url


def test_it_lists_pauses_and_resumes_without_code(run_cli: Cli, planned: str) -> None:
    def shown() -> Any:
        said = run_cli("schedule", "ls", "--json", "--store", planned)
        (only,) = json.loads(said.out)["schedules"]
        return only

    assert (shown()["workflow"], shown()["cron"]) == ("night-report", "30 3 * * *")
    assert shown()["next"].endswith("30:00+00:00")
    said = run_cli("schedule", "pause", "night-report", "--store", planned)
    assert "is paused" in said.out
    assert (shown()["paused"], shown()["next"]) == (True, None)
    assert "paused" in run_cli("schedule", "ls", "--store", planned).out
    said = run_cli("schedule", "resume", "night-report", "--json", "--store", planned)
    assert json.loads(said.out) == {"workflow": "night-report", "paused": False}
    assert shown()["paused"] is False


def test_backfill_needs_the_code_and_does_it_once(run_cli: Cli, planned: str) -> None:
    command = ("schedule", "backfill", "night_reports:Report", "--since", "3d", "--store", planned)
    assert json.loads(run_cli(*command, "--json").out) == {"workflow": "night-report", "started": 3}
    assert "started 0 runs of night-report" in run_cli(*command).out


def test_what_is_not_there_is_said(run_cli: Cli, planned: str) -> None:
    said = run_cli("schedule", "pause", "day-report", "--store", planned, code=2)
    assert "no schedule 'day-report'" in said.err
    assert "night-report" in said.err
