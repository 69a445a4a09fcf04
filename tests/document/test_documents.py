"""Documents: checked whole before they run, and run as they say."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from stepwell import Engine
from stepwell.authoring.document import parse
from stepwell.authoring.document_file import read_file
from stepwell.authoring.strict import strict_json
from stepwell.document import DocumentError, Documents, WorkflowDocument, load
from stepwell.tasks import BUILT_IN, Task, TaskRegistry, TaskStatus

SAMPLE: dict[str, Any] = {
    "name": "sample_workflow",
    "steps": [
        {
            "execution_type": "sequential",
            "tasks": [
                {"name": "task_a", "params": {"timeout": 30}},
                {"name": "task_b", "params": {"retry_count": 3}},
            ],
        },
        {
            "execution_type": "parallel",
            "tasks": [{"name": "task_c", "params": {"priority": "high"}}],
        },
    ],
}


class Failing(Task):
    """As the text's example, at its end."""

    def __init__(self) -> None:
        super().__init__("failing")

    async def execute(self) -> bool:
        self.set_status(TaskStatus.RUNNING)
        self.set_status(TaskStatus.FAILED)
        return False


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def registry(calls: list[str]) -> TaskRegistry:
    made = TaskRegistry(BUILT_IN)

    @made.task("add")
    async def add(a: int, b: int = 1) -> int:
        return a + b

    @made.task("flaky")
    async def flaky(until: int) -> str:
        calls.append("flaky")
        if len(calls) < until:
            raise OSError("not yet")
        return "at last"

    @made.task("note")
    async def note(word: str) -> None:
        calls.append(word)

    @made.task("odd")
    async def odd() -> object:
        return object()

    made.register(Failing)
    return made


def document(*tasks: dict[str, Any], parallel: bool = False, **more: Any) -> dict[str, Any]:
    kind = "parallel" if parallel else "sequential"
    return {"name": "test", "steps": [{"execution_type": kind, "tasks": [*tasks]}], **more}


def one(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, **more}


async def run(registry: TaskRegistry, data: dict[str, Any], **given: Any) -> dict[str, Any]:
    async with Engine("memory://", [Documents(registry)]) as engine:
        return await (await engine.start("document", document=data, **given))


def faults(registry: TaskRegistry, data: Any) -> tuple[str, ...]:
    with pytest.raises(DocumentError) as caught:
        load(data, registry)
    return caught.value.problems


# --- what runs -----------------------------------------------------------------------------------


async def test_the_sample_runs_and_every_task_succeeds(registry: TaskRegistry) -> None:
    values = await run(registry, SAMPLE)
    for place in ("steps.0.task_a", "steps.0.task_b", "steps.1.task_c"):
        assert values[place]["status"] == "succeeded"
    # What steers the engine is not passed on.
    assert values["steps.0.task_a"]["result"] == {"task": "task_a", "params": {}}


async def test_references_by_place_by_id_and_to_the_input(registry: TaskRegistry) -> None:
    data = document(
        one("add", id="first", params={"a": {"$ref": "input.start"}}),
        one("add", params={"a": {"$ref": "first.result"}, "b": {"$ref": "steps.0.add.result"}}),
        one("add", params={"a": {"$ref": "steps.0.add_2.result"}}),
    )
    values = await run(registry, data, input={"start": 4})
    assert [values[f"steps.0.{n}"]["result"] for n in ("add", "add_2", "add_3")] == [5, 10, 11]


async def test_parallel_tasks_of_one_name_have_results_of_their_own(registry: TaskRegistry) -> None:
    data = document(one("add", params={"a": 1}), one("add", params={"a": 5}), parallel=True)
    values = await run(registry, data)
    assert values["steps.0.add"]["result"] == 2
    assert values["steps.0.add_2"]["result"] == 6


@pytest.mark.parametrize(
    "condition, runs",
    [
        ({"$ref": "first.result"}, True),
        ({"$ref": "first.result", "negate": True}, False),
        ({"$ref": "first.result", "equals": 2}, True),
        ({"$ref": "first.result", "equals": 3}, False),
        ({"$ref": "first.result", "equals": 3, "negate": True}, True),
        ({"$ref": "first.nothing"}, False),
        ({"$ref": "first.nothing", "equals": None}, True),
        ({"$ref": "first.result", "equals": None}, False),
        ({"$ref": "input.one", "equals": True}, False),
    ],
)
async def test_conditions(
    registry: TaskRegistry, calls: list[str], condition: dict[str, Any], runs: bool
) -> None:
    data = document(
        one("add", id="first", params={"a": 1}),
        one("note", params={"word": "ran"}, condition=condition),
    )
    values = await run(registry, data, input={"one": 1})
    assert calls == (["ran"] if runs else [])
    assert values["steps.0.note"]["status"] == ("succeeded" if runs else "skipped")


async def test_retries_as_often_as_said(registry: TaskRegistry, calls: list[str]) -> None:
    values = await run(registry, document(one("flaky", params={"until": 3, "retry_count": 2})))
    assert values["steps.0.flaky"]["result"] == "at last"
    assert len(calls) == 3
    calls.clear()
    with pytest.raises(OSError, match="not yet"):
        await run(registry, document(one("flaky", params={"until": 9, "retry_count": 1})))
    assert len(calls) == 2


async def test_a_task_that_takes_too_long_fails(registry: TaskRegistry) -> None:
    data = document(one("sleep", params={"seconds": 60, "timeout": 0.05}))
    with pytest.raises(TimeoutError):
        await run(registry, data)


async def test_a_run_that_takes_too_long_still_does_its_exit_steps(
    registry: TaskRegistry, calls: list[str]
) -> None:
    bye = document(one("note", params={"word": "bye"}))["steps"]
    data = document(one("sleep", params={"seconds": 60}), timeout=0.05, on_exit=bye)
    with pytest.raises(Exception, match=r"timed out|took"):
        await run(registry, data)
    assert calls == ["bye"]


async def test_error_and_exit_steps(registry: TaskRegistry, calls: list[str]) -> None:
    data = document(
        one("failing"),
        one("note", params={"word": "never"}),
        on_error=document(one("note", params={"word": "sorry"}))["steps"],
        on_exit=document(one("note", params={"word": "bye"}))["steps"],
    )
    with pytest.raises(Exception, match="task 'failing' failed"):
        await run(registry, data)
    assert calls == ["sorry", "bye"]


async def test_a_result_that_cannot_be_kept_fails_its_task(registry: TaskRegistry) -> None:
    with pytest.raises(Exception, match="cannot be stored"):
        await run(registry, document(one("odd")))


async def test_a_run_goes_on_on_another_engine_with_its_own_document(
    registry: TaskRegistry, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    data = document(one("add", id="x", params={"a": 1}), one("add", params={"a": 2}))
    async with Engine(url, [Documents(registry)], worker=False) as engine:
        handler = await engine.start("document", document=data)
        run_id = handler.run_id
    async with Engine(url, [Documents(registry)]) as engine:
        assert (await engine.result(run_id))["steps.0.add_2"]["result"] == 3


async def test_a_run_whose_task_is_gone_is_parked_and_says_so(
    registry: TaskRegistry, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    async with Engine(url, [Documents(registry)], worker=False) as engine:
        handler = await engine.start("document", document=document(one("add", params={"a": 1})))
        run_id = handler.run_id
    async with Engine(url, [Documents(TaskRegistry(BUILT_IN))]) as engine:
        await engine.process_due()
        info = await engine.get(run_id)
        assert info.status.value == "parked"
        assert "unknown task 'add'" in str(info.reason)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, said",
    [
        ({"steps": []}, "steps: "),
        ({"name": ""}, "name: "),
        ({"name": "a\nb"}, "name: "),
        ({"timeout": 0}, "timeout: "),
        ({"timeout": float("inf")}, "a document has finite numbers"),
        ({"more": 1}, "more: "),
        ({"steps": [{"execution_type": "any", "tasks": [one("task_a")]}]}, "steps[0].execution"),
        (document(one("task_x")), 'steps[0].tasks[0].name: unknown task "task_x"; known: add, '),
        (document(one("add", params={"a": "x"})), "steps[0].tasks[0].params: a: "),
        (document(one("add", params={})), "steps[0].tasks[0].params: a: Field required"),
        (document(one("task_a", params={"timeout": -1})), "steps[0].tasks[0].params.timeout: "),
        (document(one("task_a", params={"timeout": "1"})), "steps[0].tasks[0].params.timeout: "),
        (document(one("x", params={"retry_count": 0.5})), "steps[0].tasks[0].params.retry_count"),
        (document(one("x", params={"priority": "top"})), "steps[0].tasks[0].params.priority: "),
        (document(one("add", params={"a": {"$ref": "y.z"}})), "steps[0].tasks[0].params.a: 'y.z'"),
        (document(one("log", id="steps")), "steps[0].tasks[0].id: 'steps' is taken"),
        (document(one("task_a", id="x"), one("task_b", id="x")), "steps[0].tasks[1].id: 'x'"),
        (
            document(one("task_a", condition={"$ref": "steps.0.task_a"})),
            "steps[0].tasks[0].condition: ",
        ),
        (
            document(one("task_a", id="a"), one("add", params={"a": {"$ref": "a"}}), parallel=True),
            "steps[0].tasks[1].params.a: 'a' names nothing that comes before",
        ),
        (document(one("task_a", params={"n": 2**64})), "a document has whole numbers of at most"),
        (document(one("task_a", params={"n": "\ud800"})), "a document has a text that is no"),
        (document(one("task_a", params={"n": {1: 2}})), "a document has texts for keys"),
        (document(one("task_a", params={"n": {2}})), "a document holds what JSON can say"),
    ],
)
def test_every_fault_names_its_path(
    registry: TaskRegistry, change: dict[str, Any], said: str
) -> None:
    problems = faults(registry, {**SAMPLE, **change})
    assert any(p.startswith(said) for p in problems), problems


@pytest.mark.parametrize("data", [None, 1, "x", [], [SAMPLE]])
def test_what_is_no_object_is_no_document(registry: TaskRegistry, data: Any) -> None:
    with pytest.raises(DocumentError, match="the document"):
        parse(data, registry)


def test_what_is_too_deep_is_refused(registry: TaskRegistry) -> None:
    deep: Any = 1
    for _ in range(70):
        deep = [deep]
    assert faults(registry, document(one("task_a", params={"n": deep}))) == (
        "a document is at most 64 levels deep",
    )


def test_many_faults_are_cut_short_and_found_fast(registry: TaskRegistry) -> None:
    tasks = [one("add", params={"a": {"$ref": f"no{n}"}}) for n in range(1000)]
    began = time.perf_counter()
    problems = faults(registry, {"name": "n", "steps": document(*tasks)["steps"] * 10})
    assert time.perf_counter() - began < 5.0
    assert problems[-1] == "... and more"
    assert len(problems) == 21


def test_big_documents_compile_in_time_and_bigger_ones_are_refused(registry: TaskRegistry) -> None:
    def steps(count: int) -> list[dict[str, Any]]:
        return [
            document(*(one("task_a", id=f"t{n}_{m}") for m in range(1000)))["steps"][0]
            for n in range(count)
        ]

    documents = Documents(registry)
    began = time.perf_counter()
    made = documents.message(load({"name": "n", "steps": steps(10)}, registry))
    documents.variant(made)
    assert time.perf_counter() - began < 15.0  # it took a minute, and gigabytes
    assert faults(registry, {"name": "n", "steps": steps(11)}) == (
        "steps: a document has at most 10000 tasks, not 11000",
    )


def test_yaml_and_json_files_read_alike(registry: TaskRegistry, tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    text = "name: n\nsteps:\n- execution_type: parallel\n  tasks:\n  - name: task_a\n"
    (tmp_path / "flow.yaml").write_text(text)
    (tmp_path / "flow.json").write_text(
        '{"name": "n", "steps": [{"execution_type": "parallel", "tasks": [{"name": "task_a"}]}]}'
    )
    assert load(tmp_path / "flow.yaml", registry) == load(tmp_path / "flow.json", registry)


def test_a_key_that_is_merged_in_before_its_part_is_read_is_not_there_twice(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    (tmp_path / "flow.yaml").write_text(
        "deep: {er: {b: &b {<<: &c {x: 1, y: 1}, x: 2}}}\na: {<<: *b, y: 3}\n"
    )
    read = read_file(tmp_path / "flow.yaml")
    assert read == {"deep": {"er": {"b": {"x": 2, "y": 1}}}, "a": {"x": 2, "y": 3}}


def test_to_say_where_a_key_is_there_twice_costs_the_same_whatever_it_is_within() -> None:
    def cost(name: str) -> float:
        text = f'{{"{name}": [{"0, " * 100_000}0], "z": {{"a": 1, "a": 2}}}}'
        began = time.process_time()
        with pytest.raises(ValueError, match=r"z\.a is there twice"):
            strict_json(text)
        return time.process_time() - began

    short = min(cost("k") for _ in range(3))
    assert min(cost("k" * 400_000) for _ in range(2)) < 6 * short


@pytest.mark.parametrize(
    "text, said",
    [
        ("name: n\nsteps: [", "is no YAML"),
        ("name: n\nwhen: 2026-01-01\n", "holds what JSON can say, not date"),
        ("a: &a [x, x, x]\n", "name: Field required"),
        ("name: n\nsteps:\n- tasks: []\n  tasks: []\n", "line 4: tasks is there twice"),
        ("a: &a {x: 1}\nb: {<<: *a, x: 2}\n", "name: Field required"),
        ("&a [*a]\n", "at most 64 levels"),
        ("!!python/object/apply:os.system ['true']", "is no YAML"),
    ],
)
def test_yaml_that_is_no_document(
    registry: TaskRegistry, tmp_path: Path, text: str, said: str
) -> None:
    pytest.importorskip("yaml")
    (tmp_path / "flow.yaml").write_text(text)
    with pytest.raises(DocumentError) as caught:
        load(tmp_path / "flow.yaml", registry)
    assert any(said in problem for problem in caught.value.problems)


def test_a_misspelt_word_is_named_with_what_was_meant(registry: TaskRegistry) -> None:
    def of(**more: Any) -> tuple[str, ...]:
        task = {"name": "task_a", **more}
        return faults(registry, {"name": "n", "steps": [{**SAMPLE["steps"][0], "tasks": [task]}]})

    assert of(parms={}) == (
        "steps[0].tasks[0].parms: there is no such field; it has name, params, id, condition; "
        "did you mean params?",
    )
    assert of(condition={"$ref": "input.x", "equal": 1}) == (
        "steps[0].tasks[0].condition.equal: there is no such field; it has $ref, equals, negate; "
        "did you mean equals?",
    )
    assert "did you mean input?" in faults(registry, {**SAMPLE, "inptu": {}})[0]
    assert faults(registry, {**SAMPLE, "input": {}}) == (
        "input: there is no such field; it has name, steps, timeout, on_error, on_exit",
    )
    spelt = {"name": "log", "params": {"message": "x", "retry_cuont": 2}}
    step = {"execution_type": "parallel", "tasks": [spelt]}
    assert faults(registry, {"name": "n", "on_exit": [step], "steps": [step]})[0] == (
        "steps[0].tasks[0].params: retry_cuont: there is no such param; it has message, level, "
        "timeout, retry_count, retry_delay, priority; did you mean retry_count?"
    )


def test_json_with_a_key_twice_is_refused(registry: TaskRegistry, tmp_path: Path) -> None:
    (tmp_path / "flow.json").write_text('{"name": "n", "steps": [{"tasks": [], "tasks": []}]}')
    with pytest.raises(DocumentError, match=r"flow\.json: steps\[0\]\.tasks is there twice"):
        load(tmp_path / "flow.json", registry)


def test_yaml_that_says_very_much_in_a_few_lines(registry: TaskRegistry, tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    (tmp_path / "flow.yaml").write_text("\n".join(lines))
    with pytest.raises(DocumentError, match="values"):
        load(tmp_path / "flow.yaml", registry)


def test_names_that_references_cannot_go_through_are_not_registered() -> None:
    registry = TaskRegistry()
    with pytest.raises(ValueError, match=r"letters, digits"):
        registry.task("a.b")(len)


def test_a_document_survives_being_written_and_read() -> None:
    data = document(one("task_a", condition={"$ref": "input.x", "equals": None}))
    model = WorkflowDocument.model_validate(data)
    again = WorkflowDocument.model_validate(model.model_dump(by_alias=True, exclude_unset=True))
    assert again.digest() == model.digest()
    assert again.steps[0].tasks[0].condition == model.steps[0].tasks[0].condition
