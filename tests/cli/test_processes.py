"""Real processes: signals, kills, followers, a terminal. What they wait for is a line or a file."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Cli

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and terminals of POSIX")

GATE = """
import asyncio
from pathlib import Path

from stepwell import Event, StartEvent, StopEvent, Workflow, step


class Open(Event):
    n: int


class Gate(Workflow):
    @step
    async def come(self, ev: StartEvent) -> Open:
        with open("come.txt", "a") as log:
            log.write("x")
        return Open(n=1)

    @step
    async def wait(self, ev: Open) -> StopEvent:
        while not Path("open").exists():
            await asyncio.sleep(0.01)
        return StopEvent(result="through")
"""

DEADLINE = 100.0

IN_MEMORY = {"STEPWELL_STORE": "memory://"}


@pytest.fixture
def start(
    shop: Any, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `stepwell ...` in a process of its own; what is left of them at the end is killed."""
    (tmp_path / "gate.py").write_text(GATE)
    monkeypatch.setenv("STEPWELL_STORE", url)
    started: list[subprocess.Popen[str]] = []

    def begin(*args: str, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "stepwell", *args],
            **{
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "stdin": subprocess.DEVNULL,
                "text": True,
                # Not what C code has in its environment: readline puts COLUMNS there.
                "env": dict(os.environ),
                **options,
            },
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def until(process: subprocess.Popen[str], **wanted: object) -> dict[str, Any]:
    """The first line of JSON that the process writes and that has these values."""
    assert process.stdout is not None
    for line in process.stdout:
        row = json.loads(line)
        if all(row.get(key) == value for key, value in wanted.items()):
            return row
    raise AssertionError(f"it ended without {wanted}: {process.communicate()[1]}")


Start = Callable[..., subprocess.Popen[str]]


def test_another_worker_goes_on_where_a_killed_one_was(start: Start, run_cli: Cli) -> None:
    run_cli("run", "gate:Gate", "--detach", "--id", "g")
    first = start("worker", "gate", "--json")
    until(first, event="step.started", step="wait")
    first.kill()
    first.wait(DEADLINE)
    assert "is gone" in run_cli("why", "g", "--json").json["sentence"] or (
        "held by no worker" in run_cli("why", "g", "--json").json["sentence"]
    )
    Path("open").touch()
    second = start("worker", "gate", "--json")
    assert until(second, event="run.ended")["status"] == "completed"
    second.terminate()
    assert second.wait(DEADLINE) == 0
    assert run_cli("show", "g", "--json").json["result"] == "through"
    assert Path("come.txt").read_text() == "x"  # what was committed was not done again


def test_a_worker_that_is_stopped_lets_steps_end(start: Start, run_cli: Cli) -> None:
    run_cli("run", "gate:Gate", "--detach", "--id", "g")
    worker = start("worker", "gate:Gate", "--json", "--name", "w")
    until(worker, event="step.started", step="wait")
    worker.terminate()
    assert worker.stderr is not None
    for line in worker.stderr:
        if line.startswith("SIGTERM: takes up nothing more"):
            break
    Path("open").touch()
    assert worker.wait(DEADLINE) == 0
    assert "stopped after" in worker.stderr.read()
    assert run_cli("show", "g", "--json").json["status"] == "completed"


def test_a_second_signal_ends_a_worker_at_once_and_loses_nothing(
    start: Start, run_cli: Cli
) -> None:
    run_cli("run", "gate:Gate", "--detach", "--id", "g")
    worker = start("worker", "gate", "--json")
    until(worker, event="step.started", step="wait")
    worker.send_signal(signal.SIGINT)
    assert worker.stderr is not None
    for line in worker.stderr:
        if line.startswith("SIGINT"):
            break
    worker.send_signal(signal.SIGINT)
    assert worker.wait(DEADLINE) == 130
    Path("open").touch()
    follow = start("logs", "-f", "g", "--json")
    other = start("worker", "gate", "--json")
    assert until(follow, kind="ended")["status"] == "completed"
    assert follow.wait(DEADLINE) == 0
    other.terminate()
    assert other.wait(DEADLINE) == 0


def test_a_second_signal_in_the_middle_of_a_line_ends_the_process_all_the_same() -> None:
    """It may come while something is written, when nothing else can be."""
    code = (
        "import io, os, signal, sys\n"
        "from stepwell.cli.engines import end_now\n"
        "class Terminal(io.RawIOBase):\n"
        "    def writable(self): return True\n"
        "    def write(self, data): os.kill(os.getpid(), signal.SIGINT); return len(data)\n"
        "signal.signal(signal.SIGINT, lambda *_: end_now(130))\n"
        "sys.stderr = io.TextIOWrapper(io.BufferedWriter(Terminal()))\n"
        "print('SIGINT: takes up nothing more', file=sys.stderr, flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=DEADLINE)
    assert done.returncode == 130


def test_followers_see_what_another_process_does_as_it_does_it(start: Start, run_cli: Cli) -> None:
    run_cli("run", "gate:Gate", "--detach", "--id", "g")
    follow = start("logs", "-f", "g", "--json")
    worker = start("worker", "gate", "--json")
    assert until(follow, kind="step", step="wait")["row"] > 0
    Path("open").touch()
    assert until(follow, kind="ended")["result"] == {"result": "through"}
    assert follow.wait(DEADLINE) == 0
    worker.terminate()
    assert worker.wait(DEADLINE) == 0


def test_an_interrupted_run_in_memory_is_cancelled(start: Start) -> None:
    run = start("run", "gate:Gate", env={**os.environ, **IN_MEMORY})
    assert run.stderr is not None
    for line in run.stderr:
        if "wait started" in line:
            break
    run.send_signal(signal.SIGINT)
    assert run.wait(DEADLINE) == 130
    assert "it was cancelled, and nothing of it is kept" in run.stderr.read()


def test_an_interrupted_run_in_a_store_stays_there(start: Start, run_cli: Cli, url: str) -> None:
    run = start("run", "gate:Gate", "--id", "g")
    assert run.stderr is not None
    for line in run.stderr:
        if "wait started" in line:
            break
    run.send_signal(signal.SIGINT)
    assert run.wait(DEADLINE) == 130
    assert f"stepwell worker gate:Gate --store {url}" in run.stderr.read()
    assert run_cli("show", "g", "--json").json["status"] == "running"


def test_a_run_that_ended_before_its_interrupt_was_heard_has_ended(start: Start) -> None:
    Path("busy.py").write_text(
        "import os, signal\n"
        "from stepwell import StartEvent, StopEvent, Workflow, step\n"
        "class Busy(Workflow):\n"
        "    @step\n"
        "    async def keep(self, ev: StartEvent) -> StopEvent:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        return StopEvent(result='made')\n"
    )
    run = start("run", "busy:Busy", env={**os.environ, **IN_MEMORY})
    said, _ = run.communicate(timeout=DEADLINE)
    assert (run.returncode, said.strip()) == (0, '"made"')


def test_a_step_in_a_thread_that_will_not_end_holds_nobody_up(start: Start) -> None:
    Path("stubborn.py").write_text(
        "import threading\n"
        "from stepwell import StartEvent, StopEvent, Workflow, step\n"
        "class Stubborn(Workflow):\n"
        "    @step\n"
        "    def work(self, ev: StartEvent) -> StopEvent:\n"
        "        threading.Event().wait()\n"
        "        return StopEvent()\n"
    )
    run = start(
        "run", "stubborn:Stubborn", "--timeout-wait", "0.1", env={**os.environ, **IN_MEMORY}
    )
    assert run.wait(DEADLINE) == 5
    assert run.stderr is not None
    assert "it was cancelled, and nothing of it is kept" in run.stderr.read()


def test_ctrl_c_while_following_is_no_error(start: Start, run_cli: Cli) -> None:
    run_cli("run", "gate:Gate", "--detach", "--id", "g")
    run_cli("signal", "g", "Hello")
    with_worker = start("worker", "gate", "--json")
    follow = start("logs", "-f", "g", "--json")
    until(follow, kind="step", step="wait")
    follow.send_signal(signal.SIGINT)
    assert follow.wait(DEADLINE) == 130
    assert follow.stderr is not None
    assert follow.stderr.read() == ""
    with_worker.kill()


class Terminal:
    """A terminal of 80 columns with a process at it; its standard output is a pipe."""

    def __init__(self, start: Start, *args: str, env: dict[str, str]) -> None:
        self._fd, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.seen = ""
        self.process = start(
            *args,
            stdin=other,
            stderr=other,
            env={**os.environ, "TERM": "xterm-256color", **IN_MEMORY, **env},
        )
        os.close(other)

    def read_until(self, text: str) -> None:
        """Read until `text` has been written. Raises EOFError when the process is gone."""
        end = time.monotonic() + DEADLINE
        while text not in self.seen:
            ready, _, _ = select.select([self._fd], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"no {text!r} in {self.seen!r}"
            try:
                self.seen += os.read(self._fd, 65536).decode()
            except OSError:  # the process is gone, and with it its end of the terminal
                raise EOFError(self.seen) from None

    def type(self, text: str) -> None:
        """Type on it."""
        os.write(self._fd, text.encode())

    def finish(self) -> str:
        """Read to the end; returns what the process wrote to standard output."""
        with suppress(EOFError):
            self.read_until("\0")
        out, _ = self.process.communicate(timeout=DEADLINE)
        os.close(self._fd)
        return out

    @property
    def lines(self) -> list[str]:
        """What was written, without colours and movements of the cursor."""
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.seen)
        return [line for line in re.split(r"[\r\n]+", plain) if line]


@pytest.mark.parametrize("env", [{}, {"NO_COLOR": "1"}])
def test_questions_are_asked_on_the_terminal_and_nothing_is_wider_than_it(
    env: dict[str, str], start: Start
) -> None:
    terminal = Terminal(start, "run", "shop:Ask", env=env)
    terminal.read_until("> ")
    terminal.type("dark red\n")
    assert terminal.finish() == '"painted dark red"\n'
    assert any(line.startswith("? Which colour?") for line in terminal.lines)
    assert any(re.match(r"ask +done", line) for line in terminal.lines)
    assert max(map(len, terminal.lines)) <= 80
    assert ("\x1b[32m" in terminal.seen) != bool(env)


def test_a_fan_out_is_drawn_with_a_bar(start: Start) -> None:
    terminal = Terminal(
        start, "run", "shop:Buy", "-i", "item=tea", "-i", "count=20", env={"COLUMNS": "80"}
    )
    assert json.loads(terminal.finish()) == {"packed": list(range(20))}
    assert any(re.match(r"pack +done x20 .* 23 tries", line) for line in terminal.lines)
    assert max(map(len, terminal.lines)) <= 80


def test_the_end_of_input_leaves_a_question_open(start: Start) -> None:
    terminal = Terminal(start, "run", "shop:Ask", "--timeout-wait", "2", env={})
    terminal.read_until("> ")
    terminal.type("\x04")
    terminal.read_until("not done within")
    terminal.finish()
    assert terminal.process.returncode == 5


def test_ctrl_c_at_a_question_ends_the_asking(start: Start, url: str, run_cli: Cli) -> None:
    terminal = Terminal(start, "run", "shop:Ask", "--id", "q", env={"STEPWELL_STORE": url})
    terminal.read_until("> ")
    terminal.process.send_signal(signal.SIGINT)
    terminal.read_until("end it")
    terminal.finish()
    assert terminal.process.returncode == 130
    assert run_cli("show", "q", "--json").json["status"] == "waiting"
