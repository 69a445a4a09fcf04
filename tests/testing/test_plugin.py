"""The pytest plugin: async tests that use its fixtures run in virtual time."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

import stepwell
from stepwell import Context, StartEvent, StopEvent, Workflow, step
from stepwell.testing import HookedEngine, VirtualClock


class Month(Workflow):
    @step
    async def wait(self, ctx: Context, ev: StartEvent) -> StopEvent:
        await ctx.sleep(timedelta(days=30))
        return StopEvent(result="a month later")


async def test_a_test_with_a_virtual_clock_runs_in_its_time(virtual_clock: VirtualClock) -> None:
    before = virtual_clock.now()
    await asyncio.sleep(3600)
    assert virtual_clock.now() - before == 3600
    assert asyncio.get_running_loop().time() == 3600


async def test_the_engine_in_memory_is_in_virtual_time(stepwell_engine: HookedEngine) -> None:
    assert stepwell_engine.durability == "none"
    assert await Month(timeout=None).run(engine=stepwell_engine) == "a month later"


@pytest.mark.parametrize("number", [1, 2])
async def test_the_engine_on_a_file_has_a_file_of_its_own(
    sqlite_engine: HookedEngine, tmp_path: Path, number: int
) -> None:
    assert await Month(timeout=None).run(engine=sqlite_engine) == "a month later"
    assert (tmp_path / "runs.db").exists()
    rows, _ = await sqlite_engine.list()
    assert len(rows) == 1


class TestInAClass:
    async def test_methods_work_too(self, virtual_clock: VirtualClock) -> None:
        await asyncio.sleep(86400)
        assert virtual_clock.elapsed == 86400


async def test_other_tests_run_in_real_time() -> None:
    assert not hasattr(asyncio.get_running_loop(), "clock")


def test_the_plugin_loads_nothing_of_stepwell_before_a_test_asks() -> None:
    code = (
        "import sys, stepwell.testing.plugin;"
        "heavy = [m for m in sys.modules if m.startswith(('pydantic', 'stepwell.runtime'))];"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    source = str(Path(stepwell.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
