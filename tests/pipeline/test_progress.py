"""A run's progress: what a program sees on standard error, what it needs for it, and what it is
called."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from stepwell.authoring.words import is_hidden, step_said
from stepwell.pipeline import Pipeline, Step


def made() -> Pipeline:
    tries: list[int] = []

    async def flaky() -> int:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("not yet")
        return 1

    async def one() -> int:
        return 1

    pipeline = Pipeline().add_step(flaky, retries=1)
    pipeline.add_parallel_steps([Step(one, "join"), Step(one, "steps")], name="both")
    return pipeline.add_step(one)


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    result = asyncio.run(made().run(progress=True, extra=1))
    assert result["both"] == [1, 1]
    assert result["extra"] == 1
    said = [line.split(maxsplit=2)[2] for line in capsys.readouterr().err.splitlines()]
    assert said[0] == "flaky started"
    assert said[1].startswith("flaky failed, again in 0 ms: OSError: not yet")
    assert [line.split(" (")[0] for line in said[2:]] == [
        "flaky done",
        "both started",
        "both done",
        "join started",
        "join done",
        "steps started",
        "steps done",
        "one started",
        "one done",
    ]


def test_nothing_is_said_when_nobody_asked(capsys: pytest.CaptureFixture[str]) -> None:
    made().run_sync()
    assert capsys.readouterr() == ("", "")


def test_the_command_line_tool_is_loaded_only_when_asked_for() -> None:
    code = """if True:
        import sys, asyncio
        sys.modules["rich"] = None
        from stepwell.pipeline import Pipeline
        assert not [m for m in sys.modules if m.startswith("stepwell.cli")]
        async def one(): return 1
        pipeline = Pipeline().add_step(one)
        assert asyncio.run(pipeline.run())["one"] == 1
        try: asyncio.run(pipeline.run(progress=True))
        except ModuleNotFoundError as error: print(error)
    """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'stepwell[cli]'" in ran.stdout


def test_hidden_steps_are_called_as_people_call_them() -> None:
    async def one() -> int:
        return 1

    pipeline = Pipeline().add_parallel_steps([Step(one, "a")], "g")
    pipeline.add_parallel_steps([Step(one, "b")], "h", max_concurrency=1)
    names = [step.name for step in pipeline.compiled().definition.steps]
    shown = [step_said(name) for name in names if not is_hidden(name)]
    assert shown == ["g", "a", "h", "h"]
    assert not [name for name in shown if "(" in name]
