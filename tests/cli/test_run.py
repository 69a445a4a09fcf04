"""`stepwell run`: results, failures, input, stores, waiting."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Cli, finish, waiting_run


def test_the_result_is_json_on_standard_output_and_all_else_is_not(run_cli: Cli) -> None:
    said = run_cli("run", "shop:Hello", "-i", "name=Ada")
    assert said.out == '"Hello Ada"\n'
    assert "in memory (survives nothing)" in said.err
    assert "a word from the step" in said.err
    assert "completed in " in said.err


def test_progress_of_a_fan_out_is_told_in_plain_lines(run_cli: Cli) -> None:
    said = run_cli("run", "shop:Buy", "-i", "item=tea", "-i", "count=20")
    assert said.json == {"packed": list(range(20))}
    assert 'Note {"text": "20 of tea"}' in said.err
    assert "pack done (20 times" in said.err
    assert said.err.count("ConnectionError: line") == 3
    assert "\x1b" not in said.err


def test_quiet_says_nothing_but_the_result(run_cli: Cli) -> None:
    said = run_cli("run", "shop:Buy", "-i", "item=tea", "-q")
    assert (said.json, said.err) == ({"packed": [0]}, "")


def test_a_run_that_fails_says_where_in_the_users_code(run_cli: Cli) -> None:
    said = run_cli("run", "shop:Broken", code=1)
    assert said.out == ""
    assert "error  ValueError: no good" in said.err
    assert "where  in step 'work' after 2 tries, shop.py:" in said.err
    assert "Traceback" not in said.err
    assert "Traceback" in run_cli("run", "shop:Broken", "--debug", code=1).err


def test_with_json_success_and_failure_are_documents(run_cli: Cli) -> None:
    fine = run_cli("run", "shop:Hello", "--json").json
    assert (fine["status"], fine["result"], fine["error"]) == ("completed", "Hello you", None)
    bad = run_cli("run", "shop:Broken", "--json", code=1).json
    assert bad["status"] == "failed"
    place = bad["error"].pop("where")
    assert re.fullmatch(r"shop\.py:\d+ in work", place)
    assert bad["error"] == {"type": "builtins.ValueError", "message": "no good", "step": "work"}


@pytest.mark.parametrize(
    "args",
    [
        ("--input", '{"item": "tea", "count": 2}'),
        ("--input", "@order.json"),
        ("-i", "item=tea", "-i", "count=2"),
        ("--input", '{"item": "tea", "count": 9}', "-i", "count=2"),
    ],
)
def test_input_comes_as_json_as_a_file_or_field_by_field(
    args: tuple[str, ...], run_cli: Cli
) -> None:
    Path("order.json").write_text('{"item": "tea", "count": 2}')
    assert run_cli("run", "shop:Buy", *args).json == {"packed": [0, 1]}


def test_input_comes_from_standard_input(run_cli: Cli) -> None:
    said = run_cli("run", "shop:Buy", "--input", "@-", input='{"item": "tea"}')
    assert said.json == {"packed": [0]}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "item: field required"),
        (("-i", "item=tea", "-i", "count=many"), "count: input should be a valid integer"),
        (("-i", "item"), "is not key=value"),
        (("--input", "["), "--input is no JSON"),
        (("--input", "[1]"), "--input is list, not an object"),
        (("--input", "@nowhere.json"), "nowhere.json can't be read"),
        (("-i", "item=tea", "--key", "a"), "--key needs a run that is kept"),
        (("-i", "item=tea", "--detach"), "--detach needs a run that is kept"),
        (("-i", "item=tea", "--store", "nosql://x"), "names no store"),
    ],
)
def test_what_cannot_be_started_is_a_usage_error(
    args: tuple[str, ...], said: str, run_cli: Cli
) -> None:
    assert said in run_cli("run", "shop:Buy", *args, code=2).err


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nosuch:Buy", "there is no module 'nosuch'"),
        ("nosuch:Buy", "It is looked for in the current directory"),
        ("shop.Buy", "If Buy is the workflow, write shop:Buy."),
        ("shop:Nosuch", "module 'shop' has no 'Nosuch'"),
        ("shop:Note", "shop:Note is ModelMetaclass"),
        ("shop.py:Buy", "for example shop:Buy"),
        ("shop", "has several workflows: Hello, Buy, Ask, Broken, Slow"),
        ("cracked:Flow", "importing 'cracked' failed at"),
        ("halved:Flow", "SyntaxError"),
        ("leaving:Flow", "importing 'leaving' ended the process with 3"),
        ("odd:NoEnd", "odd:NoEnd is not valid: At least one Event of type StopEvent"),
        ("odd:Demanding", "odd:Demanding can't be made without arguments"),
    ],
)
def test_what_is_no_workflow_is_said_without_a_traceback(
    target: str, said: str, run_cli: Cli
) -> None:
    Path("cracked.py").write_text("import shop\nshop.nothing\n")
    Path("halved.py").write_text("def (\n")
    Path("leaving.py").write_text("raise SystemExit(3)\n")
    Path("odd.py").write_text(
        "from stepwell import StartEvent, Workflow, step\n"
        "from shop import Hello\n"
        "class NoEnd(Workflow):\n"
        "    @step\n"
        "    async def a(self, ev: StartEvent) -> None: ...\n"
        "class Demanding(Hello):\n"
        "    def __init__(self, what): ...\n"
    )
    error = run_cli("run", target, code=2).err
    assert said in error
    assert "Traceback" not in error


def test_an_instance_is_run_as_it_was_made(run_cli: Cli) -> None:
    Path("made.py").write_text("from shop import Hello\nhello = Hello(workflow_name='greeter')\n")
    assert run_cli("run", "made:hello", "--json").json["workflow"] == "greeter"


def test_with_a_store_the_run_is_kept(run_cli: Cli, url: str) -> None:
    said = run_cli("run", "shop:Buy", "-i", "item=tea", "--store", url, "--id", "mine")
    assert said.json == {"packed": [0]}
    assert f"kept in {url} (survives a power cut)" in said.err
    shown = run_cli("show", "mine", "--store", url, "--json").json
    assert (shown["status"], shown["result"]) == ("completed", {"packed": [0]})


def test_the_store_may_come_from_the_environment(
    run_cli: Cli, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPWELL_STORE", url)
    run_cli("run", "shop:Hello", "-q")
    assert len(run_cli("ls", "--json").json["runs"]) == 1


def test_a_second_start_with_a_key_gives_the_first_runs_result(run_cli: Cli, url: str) -> None:
    one = run_cli("run", "shop:Hello", "-i", "name=A", "--key", "k", "--store", url, "--json")
    two = run_cli("run", "shop:Hello", "-i", "name=B", "--key", "k", "--store", url, "--json")
    assert two.json["id"] == one.json["id"]
    assert two.json["result"] == "Hello A"
    assert "started before with this key" in two.err


def test_an_id_that_is_taken_is_refused(run_cli: Cli, url: str) -> None:
    run_cli("run", "shop:Hello", "--id", "one", "--store", url)
    assert (
        "already exists" in run_cli("run", "shop:Hello", "--id", "one", "--store", url, code=2).err
    )


def test_detached_it_is_left_to_workers_untouched(run_cli: Cli, url: str, shop: Any) -> None:
    said = run_cli("run", "shop:Hello", "--detach", "--id", "later", "--store", url)
    assert said.out == "later\n"
    assert "stepwell worker shop:Hello" in said.err
    row = run_cli("show", "later", "--store", url, "--json").json
    assert (row["status"], row["journal_rows"]) == ("queued", 0)
    assert finish(url, shop.Hello(), "later") == "Hello you"


def test_detached_json_is_the_run(run_cli: Cli, url: str) -> None:
    said = run_cli(
        "run",
        "shop:Hello",
        "--detach",
        "--correlation",
        "c",
        "--priority",
        "3",
        "--json",
        "--store",
        url,
    ).json
    assert (said["status"], said["correlation"], said["priority"]) == ("queued", "c", 3)


def test_a_wait_that_takes_too_long_cancels_a_run_in_memory(run_cli: Cli) -> None:
    said = run_cli("run", "shop:Slow", "--timeout-wait", "0.05", code=5)
    assert "not done within 50 ms" in said.err
    assert "it was cancelled, and nothing of it is kept" in said.err


def test_a_wait_that_takes_too_long_leaves_a_kept_run_and_says_how_to_go_on(
    run_cli: Cli, url: str, shop: Any
) -> None:
    said = run_cli(
        "run", "shop:Ask", "--id", "q", "--timeout-wait", "0.3", "--store", url, "--json", code=5
    )
    assert said.json["status"] == "waiting"
    assert f"stepwell worker shop:Ask --store {url}" in said.err
    assert f"answer it: stepwell answer q colour VALUE --store {url}" in said.err
    run_cli("answer", "q", "red", "--store", url)
    assert finish(url, shop.Ask(), "q") == "painted red"


def test_without_a_terminal_a_run_in_memory_says_that_nobody_can_answer(run_cli: Cli) -> None:
    said = run_cli("run", "shop:Ask", "--timeout-wait", "1", code=5)
    assert "asks: Which colour?" in said.err
    assert "nobody can answer it" in said.err


def test_a_run_that_is_parked_is_not_waited_for(run_cli: Cli, url: str) -> None:
    Path("doomed.py").write_text(
        "from shop import Ask, Context, StartEvent, StopEvent, Workflow, step\n"
        "from stepwell import Engine\n"
        "class Doomed(Workflow):\n"
        "    @step\n"
        "    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:\n"
        f"        async with Engine({url!r}, worker=False) as engine:\n"
        "            await engine.park(ctx.run_id, 'the paint is out')\n"
        "        await ctx.sleep(1000)\n"
        "        return StopEvent()\n"
    )
    said = run_cli("run", "doomed:Doomed", "--id", "d", "--store", url, code=1)
    assert "parked: the paint is out" in said.err
    assert f"stepwell resume d --store {url}" in said.err


def test_an_invalid_answer_of_the_store_is_no_silent_success(run_cli: Cli, tmp_path: Path) -> None:
    said = run_cli("run", "shop:Hello", "--store", f"sqlite:///{tmp_path}/no/x.db", code=4)
    assert "does not exist" in said.err


def test_lengths_of_time_are_read_and_others_refused(run_cli: Cli) -> None:
    error = run_cli("run", "shop:Hello", "--timeout-wait", "soon", code=2).err
    assert "write 90s, 15m, 2h or 30d" in error
    assert json.loads(run_cli("run", "shop:Hello", "--timeout-wait", "1m", "-q").out) == "Hello you"


def test_waiting_runs_made_elsewhere_are_left_as_they_are_by_looking(
    run_cli: Cli, url: str, shop: Any
) -> None:
    waiting_run(url, shop.Ask(), "w")
    before = run_cli("show", "w", "--store", url, "--json").json["journal_rows"]
    run_cli("ls", "--store", url)
    run_cli("why", "w", "--store", url)
    assert run_cli("show", "w", "--store", url, "--json").json["journal_rows"] == before


def test_what_needs_arguments_is_left_out_of_its_module_with_a_word(run_cli: Cli, url: str) -> None:
    Path("mixed.py").write_text(
        "from shop import Hello\n"
        "class Demanding(Hello):\n"
        "    def __init__(self, what): ...\n"
        "class Fine(Hello): ...\n"
    )
    said = run_cli("run", "mixed", "-i", "name=A", "--store", url)
    assert json.loads(said.out) == "Hello A"
    assert "left out" in said.err
    assert "mixed:Demanding can't be made without arguments" in said.err
    assert run_cli("ls", "--store", url, "--json").json["runs"][0]["workflow"] == "mixed.Fine"


def test_a_module_where_nothing_is_left_says_why(run_cli: Cli) -> None:
    Path("needy.py").write_text(
        "from shop import Hello\nclass Demanding(Hello):\n    def __init__(self, what): ...\n"
    )
    error = run_cli("run", "needy", code=2).err
    assert "'needy' has no workflow; needy:Demanding can't be made without arguments" in error
    assert "Make an instance in the module" in error


def test_a_constructor_that_raises_is_the_workflows_fault(run_cli: Cli) -> None:
    Path("raising.py").write_text(
        "from shop import Hello\n"
        "class Flow(Hello):\n"
        "    def __init__(self):\n"
        "        raise KeyError('API_KEY')\n"
    )
    error = run_cli("run", "raising:Flow", code=2).err
    assert "making raising:Flow failed: KeyError: 'API_KEY'" in error
    assert "Traceback" not in error


def test_the_head_comes_before_what_the_first_steps_do(run_cli: Cli, url: str) -> None:
    for store in ((), ("--store", url)):
        lines = run_cli("run", "shop:Broken", *store, code=1).err.splitlines()
        assert lines[0].startswith("run ")
        assert "survives" in lines[1]
        assert "prepare started" in lines[2]


def test_long_errors_go_on_under_their_beginning(
    run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    lines = run_cli("run", "nowhere:Flow", code=2).err.splitlines()
    assert lines[0] == "error  there is no module 'nowhere'"
    assert lines[2].startswith("to do  ")
    assert all(line.startswith(" " * 7) for line in lines[3:])
    assert all(len(line) <= 40 for line in lines[3:] if " " in line.strip())


def test_a_run_that_fell_silent_says_so_at_once_and_is_not_to_be_retried(
    run_cli: Cli, url: str
) -> None:
    Path("mute.py").write_text(
        "from shop import StartEvent, StopEvent, Workflow, step\n"
        "class Mute(Workflow):\n"
        "    def __init__(self):\n"
        "        super().__init__(timeout=1)\n"
        "    @step\n"
        "    async def only(self, ev: StartEvent) -> StopEvent | None: ...\n"
    )
    error = run_cli("run", "mute:Mute", "--id", "m", "--store", url, code=1).err
    assert "run m of mute.Mute has nothing left to do" in error
    assert "step 'only' returned None" in error
    assert "stepwell retry" not in error  # no step has failed
    assert "again  stepwell retry" in run_cli("run", "shop:Broken", "--store", url, code=1).err


# --- documents -----------------------------------------------------------------------------------

NUMBERS = {
    "name": "numbers",
    "steps": [
        {
            "execution_type": "sequential",
            "tasks": [
                {"name": "task_a", "params": {"n": {"$ref": "input.n"}, "m": {"$ref": "input.m"}}}
            ],
        }
    ],
    "input": {"n": 21, "m": 1},
}


def test_the_input_of_a_document_may_stand_with_it_as_in_requests(run_cli: Cli) -> None:
    Path("flow.json").write_text(json.dumps(NUMBERS))
    given = {"task": "task_a", "params": {"n": 21, "m": 1}}
    assert run_cli("run", "flow.json", "-q").json == {"steps.0.task_a": given}
    given = {"task": "task_a", "params": {"n": 4, "m": 1}}
    assert run_cli("run", "flow.json", "-q", "-i", "n=4").json == {"steps.0.task_a": given}
    Path("flow.json").write_text(json.dumps({**NUMBERS, "input": 5}))
    assert "input: an object is wanted" in run_cli("run", "flow.json", code=2).err


def test_a_document_that_is_left_to_others_or_copied_says_who_goes_on(
    run_cli: Cli, url: str
) -> None:
    Path("flow.json").write_text(json.dumps(NUMBERS))
    left = run_cli("run", "flow.json", "--detach", "--id", "d1", "--store", url)
    assert f"stepwell serve --store {url}" in left.err
    run_cli("run", "flow.json", "-q", "--id", "d2", "--store", url)
    copy = run_cli("fork", "d2", "-i", "n=5", "--store", url)
    assert f"stepwell serve --store {url}" in copy.err
    rows = run_cli("show", copy.out.strip(), "--journal", "--json", "--store", url).json["journal"]
    assert '"input": {"n": 5, "m": 1}' in json.dumps(rows[0])


def test_what_is_wrong_with_a_document_comes_with_what_to_do(run_cli: Cli) -> None:
    steps = [{"execution_type": "sequential", "tasks": [{"name": "nobodys"}]}]
    Path("flow.json").write_text(json.dumps({"name": "n", "steps": steps}))
    assert (
        "to do  Name the module that has it: --tasks MODULE."
        in run_cli("run", "flow.json", code=2).err
    )
    for name in ("nothing.yaml", "nothing.json"):
        assert "to do  Check its path." in run_cli("run", name, code=2).err
