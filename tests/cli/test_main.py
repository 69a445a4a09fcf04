"""The group: help, exit codes, errors in three lines, quick start."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from tests.cli.conftest import Cli

from stepwell._version import __version__
from stepwell.cli.main import _COMMANDS, cli

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"


def test_help_names_every_command_and_the_exit_codes(run_cli: Cli) -> None:
    said = run_cli("--help").out
    for name in _COMMANDS:
        assert re.search(rf"^  {name} ", said, re.MULTILINE), name
    assert "130  interrupted" in said
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_command_explains_itself_in_80_columns_and_takes_json(
    name: str, run_cli: Cli
) -> None:
    said = run_cli(name, "--help").out
    assert max(map(len, said.splitlines())) <= 80
    assert "--json" in said


def test_the_version(run_cli: Cli) -> None:
    assert run_cli("--version").out == f"stepwell {__version__}\n"


def test_a_misspelt_command_is_a_usage_error_that_names_the_right_one(run_cli: Cli) -> None:
    assert "Did you mean 'show'?" in run_cli("shwo", code=2).err


def test_a_command_whose_extra_is_missing_names_the_extra(
    run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "stepwell.cli.serve", raising=False)
    monkeypatch.delitem(sys.modules, "stepwell.server.serving", raising=False)
    said = run_cli("serve", code=2).err
    assert "serve needs uvicorn: pip install 'stepwell[server]'" in said


def test_help_imports_no_engine_and_no_rich() -> None:
    program = (
        "import sys\n"
        "from stepwell.cli.main import cli\n"
        "cli(['--help'], standalone_mode=False)\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('rich', 'pydantic', 'asyncio')])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=100
    )
    assert ran.stdout.splitlines()[-1] == "[]"


def test_an_error_says_what_and_whose_and_what_to_do(run_cli: Cli, url: str) -> None:
    said = run_cli("ls", "--store", url, code=4)
    assert said.out == ""
    what, whose, todo = said.err.splitlines()
    assert what.startswith("error  There is no store at sqlite:///")
    assert whose.startswith("fault  ")
    assert "STEPWELL_STORE" in todo
    assert not Path(url.removeprefix("sqlite:///")).exists()


MISUNDERSTOOD = [
    (("ls", "--nope"), "--nope", "stepwell ls [OPTIONS]"),
    (("show",), "Missing argument 'RUN'", "stepwell show [OPTIONS] RUN"),
    (("ls", "-n", "many"), "'many' is no whole number from 1 to 1000", "stepwell ls"),
    (("ls", "-n", "0"), "'0' is no whole number from 1 to 1000", "stepwell ls"),
    (("fork", "r", "--seq", "0"), "'0' is no whole number from 1", "stepwell fork"),
    (("frob",), "No such command 'frob'", "stepwell [OPTIONS] COMMAND"),
    (("--nope",), "--nope", "stepwell [OPTIONS] COMMAND"),
    (("db", "frob"), "No such command 'frob'", "stepwell db [OPTIONS] COMMAND"),
    (("signal", "r", "e", "{}", "--all"), "give RUN, EVENT and its fields", "stepwell signal"),
]


@pytest.mark.parametrize(("args", "what", "usage"), MISUNDERSTOOD)
def test_what_was_not_understood_is_said_like_any_other_error(
    run_cli: Cli, args: tuple[str, ...], what: str, usage: str
) -> None:
    said = run_cli(*args, code=2)
    assert said.out == ""
    first, fault, todo, more = said.err.splitlines()
    assert first.startswith("error  ")
    assert what in first
    assert fault == "fault  what was asked for"
    assert todo.startswith(f"to do  Usage: {usage}")
    assert more.endswith("--help` says more.")


def test_an_option_without_its_value_says_where_to_read_on(run_cli: Cli) -> None:
    said = run_cli("run", "x", "-i", code=2).err.splitlines()
    assert said[-1] == "to do  `stepwell run --help` says more."


@pytest.mark.parametrize("args", [("ls", "--nope", "--json"), ("--json", "ls", "--nope")])
def test_with_json_what_was_not_understood_is_json(run_cli: Cli, args: tuple[str, ...]) -> None:
    said = run_cli(*args, code=2)
    assert said.out == ""
    error = json.loads(said.err)["error"]
    assert (error["code"], error["whose"], error["exit"]) == ("usage", "user", 2)
    assert "--nope" in error["message"]


def test_with_json_the_error_is_json_on_standard_error(run_cli: Cli, url: str) -> None:
    said = run_cli("ls", "--json", "--store", url, code=4)
    assert said.out == ""
    error = json.loads(said.err)["error"]
    assert (error["code"], error["exit"], error["whose"]) == ("no_store", 4, "operator")


def test_debug_shows_the_traceback_of_an_error_that_has_none_else(run_cli: Cli, url: str) -> None:
    assert "Traceback" not in run_cli("ls", "--store", url, code=4).err
    assert "Traceback" in run_cli("--debug", "ls", "--store", url, code=4).err


def _options(command: click.Command, prefix: str) -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            inner = command.get_command(ctx, name)
            assert inner is not None
            found += _options(inner, f"{prefix} {name}")
    else:
        long = [o for p in command.params for o in p.opts if o.startswith("--")]
        found.append((prefix, long))
    return found


def test_every_command_and_option_has_its_place_in_the_docs() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for name, options in _options(cli, "stepwell"):
        assert re.search(rf"^#+ `{name}[ `]", text, re.MULTILINE), name
        section = re.split(rf"^#+ `{name}[ `].*$", text, flags=re.MULTILINE)[1]
        section = re.split(r"^#", section, flags=re.MULTILINE)[0]
        for option in options:
            if option not in ("--json", "--debug", "--no-color", "--help", "--store", "--server"):
                assert f"`{option}" in section, f"{name} {option}"
