"""The lines of a service's log."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import stepwell
from stepwell.authoring.machine.define import find_machine
from stepwell.authoring.strict import strict_json
from stepwell.cli.log_lines import LogFormat, service_log
from stepwell.errors import WorkflowNotRegistered
from stepwell.tasks import TaskFailed
from stepwell.values import RAISED_AT


class Log:
    """A log that is written into a text."""

    def __init__(self) -> None:
        self.file = io.StringIO()

    def open(self, format: LogFormat, *modules: str, debug: bool = False) -> Any:
        return service_log(Console(file=self.file), format, modules, debug)

    @property
    def lines(self) -> list[str]:
        return self.file.getvalue().splitlines()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    monkeypatch.setattr("time.gmtime", lambda *_: (2026, 5, 1, 12, 30, 0, 4, 121, 0))
    return Log()


def test_text_cannot_pretend_to_be_another_record(log: Log) -> None:
    with log.open("text"):
        logging.getLogger("mine").warning("one\n2026 two\r\x1b[31m\tthree\x00\u2028four")
    head, more = log.lines
    assert head.startswith("2026-05-01T12:30:00.")
    assert head.endswith("Z WARNING mine one")
    assert more == "  2026 two\\r\\x1b[31m\\tthree\\x00\\u2028four"


def test_which_run_a_record_names_is_a_field_of_it(log: Log) -> None:
    with log.open("json"):
        logging.getLogger("stepwell").warning("run %s: taken over by %s", "r1", "w2")
        logging.getLogger("stepwell").warning("%s is no run", "r1")
    first, second = map(json.loads, log.lines)
    assert (first["run"], first["message"]) == ("r1", "run r1: taken over by w2")
    assert "run" not in second


def test_values_that_json_has_no_word_for_are_written_as_texts(log: Log) -> None:
    with log.open("json"):
        logging.getLogger("mine").error("no", extra={"where": {1}, "at": 1.5})
    (row,) = map(json.loads, log.lines)
    assert (row["where"], row["at"], row["level"]) == ("{1}", 1.5, "error")


@pytest.mark.parametrize("format", ["text", "json"])
def test_a_trace_belongs_to_its_record(log: Log, format: LogFormat) -> None:
    with log.open(format):
        try:
            raise ValueError("bad luck")
        except ValueError:
            logging.getLogger("mine").exception("it failed")
    if format == "json":
        (row,) = map(json.loads, log.lines)
        assert row["trace"].endswith("ValueError: bad luck")
    else:
        assert [line for line in log.lines if not line.startswith("  ")] == log.lines[:1]
        assert log.lines[-1] == "  ValueError: bad luck"


def test_from_which_level_on_depends_on_whose_it_is(log: Log) -> None:
    def speak() -> None:
        for name in ("theirs", "mine", "mine.part", "stepwell", "stepwell.tasks.x"):
            logging.getLogger(name).info(name)

    with log.open("text", "mine"):
        speak()
    assert [line.split()[2] for line in log.lines] == ["mine", "mine.part", "stepwell.tasks.x"]
    with log.open("text", debug=True):
        speak()
    assert [line.split()[2] for line in log.lines[3:]] == ["stepwell", "stepwell.tasks.x"]
    speak()  # it is as it was before
    assert len(log.lines) == 5


def test_of_a_failed_step_the_trace_begins_with_the_users_code(log: Log) -> None:
    def told(error: Exception) -> None:
        more = {"stepwell": {"run": "r1"}, "stepwell_cause": error}
        logging.getLogger("stepwell").warning("step.failed run=r1", extra=more)

    def raised(function: Callable[[], object]) -> Exception:
        try:
            function()
        except Exception as error:
            return error
        raise AssertionError("it raised nothing")

    def mine() -> None:
        find_machine("nobody's")

    with log.open("json"):
        told(raised(lambda: strict_json("{")))  # as raised by this file, on its first line
        told(raised(mine))
        told(TaskFailed("task 'x' failed"))
        told(ValueError("of nobody"))
        try:
            asyncio.run(asyncio.to_thread(mine))
        except WorkflowNotRegistered as error:
            error.__traceback__ = getattr(error.__traceback__, "tb_next", None)  # from asyncio on
            told(error)
    first, second, third, fourth, fifth = map(json.loads, log.lines)
    assert "test_log_lines.py" in fifth["trace"].splitlines()[1]
    assert "test_log_lines.py" in first["trace"].splitlines()[1]
    assert "mine" in second["trace"]
    assert "trace" not in third
    assert fourth["trace"] == "ValueError: of nobody"


def test_of_hidden_steps_only_what_is_new_is_told(log: Log) -> None:
    """`@on_fail` and the reducers of a group are the user's, and may fail."""

    def tell(level: int, step: str) -> None:
        logging.getLogger("stepwell").log(level, step, extra={"stepwell": {"step": step}})

    with log.open("json", debug=True):
        for step in ("(failed)", "(on fail)", "(join of both)", "mine"):
            tell(logging.WARNING, step)
            tell(logging.INFO, step)
    assert [(row["level"], row["step"]) for row in map(json.loads, log.lines)] == [
        ("warning", "(on fail)"),
        ("info", "(on fail)"),
        ("warning", "(join of both)"),
        ("warning", "mine"),
        ("info", "mine"),
    ]


def told_of(error: Exception) -> None:
    more = {"stepwell": {"run": "r1"}, "stepwell_cause": error}
    logging.getLogger("stepwell").warning("step.failed run=r1", extra=more)


@pytest.mark.parametrize("format", ["text", "json"])
def test_long_texts_are_cut(log: Log, format: LogFormat) -> None:
    with log.open(format):
        told_of(ValueError("x" * 1_000_000))
        logging.getLogger("mine").error("%s", "y" * 1_000_000, extra={"more": "z" * 1_000_000})
    assert len(log.file.getvalue()) < 4 * 40_000
    assert log.file.getvalue().count("more characters)") == (2 if format == "text" else 3)


class Delegating(Exception):
    """Has only what something else has."""

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)


@pytest.mark.parametrize("format", ["text", "json"])
def test_an_error_that_no_trace_can_be_had_of_is_told_all_the_same(
    log: Log, format: LogFormat
) -> None:
    with log.open(format):
        try:
            raise Delegating("no such field")
        except Delegating as error:
            told_of(error)
    assert log.file.getvalue().count("Delegating: no such field") == 1
    assert log.file.getvalue().count("raise Delegating") == 1


def test_what_json_cannot_say_is_text_on_a_line_that_is_json(log: Log) -> None:
    circle: list[Any] = []
    circle.append(circle)
    with log.open("json"):
        for value in (float("nan"), {(1, 2): 3}, circle):
            logging.getLogger("mine").error("no", extra={"value": value})

    def refuse(word: str) -> None:
        raise AssertionError(word)

    rows = [json.loads(line, parse_constant=refuse) for line in log.lines]
    assert [row["value"] for row in rows] == ["nan", "{(1, 2): 3}", "[[...]]"]
    assert {row["message"] for row in rows} == {"no"}


def test_an_error_of_another_process_has_its_own_trace_and_no_other(log: Log) -> None:
    error = ValueError("of the other")
    error.__dict__[RAISED_AT] = "mine.py:1 in work"
    error.add_note("In the process of step 'work':\nTraceback of the other")
    try:
        find_machine("nobody's")
    except WorkflowNotRegistered as other:  # frames of the library
        error.__traceback__ = other.__traceback__ and other.__traceback__.tb_next
    with log.open("json"):
        told_of(error)
    (row,) = map(json.loads, log.lines)
    assert row["trace"].splitlines()[0] == "ValueError: of the other"


def test_code_beside_the_library_whose_name_begins_with_its_is_the_users(log: Log) -> None:
    beside = f"{Path(stepwell.__file__).parent}_of_mine.py"
    code = compile("def work():\n  find('nobody')\nwork()", beside, "exec")
    with log.open("json"):
        try:
            exec(code, {"find": find_machine})  # noqa: S102 - nothing but this is there
        except WorkflowNotRegistered as error:
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
            told_of(error)
    (row,) = map(json.loads, log.lines)
    assert "_of_mine.py" in row["trace"]
