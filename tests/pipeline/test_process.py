"""Steps in processes: copies go there and results come back; what can't go is refused; who dies is
tried again, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.pipeline import work

from stepwell.errors import ExecutionRefused, StepTimeoutError
from stepwell.pipeline import ExecutionMode, Pipeline, Step

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc"),
]

PROCESS = ExecutionMode.PROCESS


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def children() -> set[str]:
    found: set[str] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended
            found |= set((task / "children").read_text().split())
    return found


def there() -> tuple[int, set[threading.Thread], set[str]]:
    """Descriptors, threads and processes; what earlier tests left may go at any time."""
    gc.collect()
    return len(os.listdir("/proc/self/fd")), set(threading.enumerate()), children()


def test_a_process_of_the_run_does_its_steps_and_ends_with_it() -> None:
    Pipeline(ctx={"n": 1}).add_step(work.double, execution_mode=PROCESS).run_sync()
    descriptors, threads, processes = there()
    pipeline = Pipeline(ctx={"n": 4}, deps={"gateway": threading.Lock()})
    pipeline.add_step(work.pid, execution_mode=PROCESS)
    pipeline.add_step(work.pid, execution_mode=PROCESS, name="again")
    pipeline.add_step(work.double, execution_mode="process")
    result = pipeline.run_sync()
    assert result["pid"] == result["again"] != os.getpid()
    assert result["double"] == 8
    assert "lost" not in result
    assert not alive(result["pid"])
    after = there()
    assert after[0] <= descriptors
    assert after[1] <= threads
    assert after[2] <= processes


def test_a_group_in_processes() -> None:
    steps = [Step(work.double, f"d{n}", execution_mode=PROCESS) for n in range(3)]
    assert Pipeline(ctx={"n": 4}).add_parallel_steps(steps, "g").run_sync()["g"] == [8, 8, 8]
    group = Pipeline(ctx={"n": 4}).add_parallel_steps([work.double, work.pid], "g", PROCESS)
    assert group.run_sync()["pid"] != os.getpid()


def test_its_exception_comes_back() -> None:
    pipeline = Pipeline(ctx={"n": 4}).add_step(work.fails, execution_mode=PROCESS)
    with pytest.raises(KeyError, match="4"):
        pipeline.run_sync()


def test_a_function_that_another_process_cant_run_is_refused_before_the_run() -> None:
    ran: list[int] = []

    async def first() -> None:
        ran.append(1)

    def local() -> None: ...

    for func, reason in ((lambda: 1, "lambda"), (local, "defined inside a function")):
        step = Step(func, "there", execution_mode=PROCESS)
        for pipeline in (
            Pipeline().add_step(first).add_step(step),
            Pipeline().add_step(first).add_parallel_steps([step], "g"),
            Pipeline().add_step(first).add_exit_step(step),
            Pipeline().add_step(first, err_step=step),
        ):
            with pytest.raises(ExecutionRefused, match=reason) as caught:
                pipeline.run_sync()
            assert "'there'" in str(caught.value)
    assert ran == []


def test_arguments_and_results_that_cant_go_name_the_step() -> None:
    pipeline = Pipeline(ctx={"n": threading.Lock()}).add_step(work.double, execution_mode=PROCESS)
    with pytest.raises(ExecutionRefused, match="'double'"):
        pipeline.run_sync()


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_a_child_that_dies_fails_the_attempt_and_is_tried_again(how: str, tmp_path: Path) -> None:
    def made(retries: int) -> Pipeline:
        pipeline = Pipeline(ctx={"path": str(tmp_path), "how": how, "times": 2})
        return pipeline.add_step(work.dies, retries=retries, execution_mode=PROCESS)

    with pytest.raises(ExecutionRefused, match="'dies'"):
        made(1).run_sync()
    for gone in tmp_path.iterdir():
        assert not alive(int(gone.name))
        gone.unlink()
    assert made(2).run_sync()["dies"] == "lived"
    assert not any(alive(int(gone.name)) for gone in tmp_path.iterdir())


def test_a_process_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    for seconds in (0.5, 4.0, 30.0):  # it begins in that time, or the machine is slow
        pipeline = Pipeline(ctx={"path": str(path)})
        pipeline.add_step(work.hangs, execution_mode=PROCESS, timeout=seconds)
        with pytest.raises(StepTimeoutError) as caught:
            pipeline.run_sync()
        assert not caught.value.abandoned
        if path.exists() and path.read_text():
            break
    assert not alive(int(path.read_text()))


async def test_a_process_is_killed_when_its_run_is_cancelled(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    left: list[Any] = []

    async def clean() -> None:
        left.append("clean")

    pipeline = Pipeline(ctx={"path": str(path)}).add_step(work.hangs, execution_mode=PROCESS)
    run = asyncio.create_task(pipeline.add_exit_step(clean).run())
    while not path.exists():  # noqa: ASYNC110 - another process says so
        await asyncio.sleep(0.01)
    pipeline.cancel()
    assert (await run).status == "cancelled"
    assert left == ["clean"]
    assert not alive(int(path.read_text()))
