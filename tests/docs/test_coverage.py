"""What is public is described: every name, option and flag stands under a heading of the reference.

A name counts as described when it stands in code font in the section that is about its owner.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

import click
import pytest
from tests.docs.pages import ROOT, read

import stepwell
import stepwell.errors
import stepwell.events
import stepwell.machine
import stepwell.pipeline
import stepwell.resource
import stepwell.retry_policy
from stepwell import Collect, Context, Engine, Workflow, catch_error, step
from stepwell.authoring.pipeline.build import PipelineBase
from stepwell.cli.main import cli
from stepwell.handler import WorkflowHandler
from stepwell.pipeline import Pipeline, PipelineResult, Step
from stepwell.runtime import telemetry
from stepwell.runtime.codec import TAGS
from stepwell.runtime.views import RunInfo, WaitInfo, Why
from stepwell.stores.base import Store
from stepwell.testing import SynchronousExecutor

REFERENCE = ROOT / "docs" / "reference"


def options(function: Callable[..., Any], *without: str) -> list[str]:
    """The parameters of a function that a caller may give by name."""
    left_out = {"self", *without}
    return [
        name
        for name, p in inspect.signature(function).parameters.items()
        if name not in left_out and p.kind is not p.VAR_KEYWORD
    ]


def members(cls: type) -> list[str]:
    """What a class defines for its users."""
    return [name for name in vars(cls) if not name.startswith("_")]


def described(page: str, heading: str | None) -> set[str]:
    """The words in code font in a section (or, without a heading, anywhere) of a reference page."""
    found = read(REFERENCE / page)
    text = found.prose if heading is None else found.section(heading)
    assert text is not None, f"docs/reference/{page} has no heading {heading!r}"
    return {w for code in re.findall(r"`([^`\n]+)`", text) for w in re.findall(r"\w+", code)}


INTERNAL_CONTEXT = {"attach", "bound", "in_use", "owed", "saved"}
INTERNAL_ENGINE = {"begin"}
INTERNAL_WORKFLOW = {"compiled"}


def annotated(cls: type) -> list[str]:
    """The fields that a class declares, and what else it defines for its users."""
    named = [name for name in inspect.get_annotations(cls) if not name.startswith("_")]
    return sorted({*named, *members(cls)})


MACHINES: list[tuple[str, str | None, Iterable[str]]] = [
    ("machine.md", None, stepwell.machine.__all__),
    ("machine.md", "workflow", options(stepwell.machine.workflow)),
    ("machine.md", "event_workflow", options(stepwell.machine.event_workflow)),
    ("machine.md", "step", options(stepwell.machine.step, "func")),
    ("machine.md", "What a step returns", options(stepwell.machine.goto)),
    ("machine.md", "What a step returns", options(stepwell.machine.sleep)),
    ("machine.md", "What a step returns", options(stepwell.machine.wait.for_signal)),
    ("machine.md", "What a step returns", options(stepwell.machine.wait.for_event)),
    ("machine.md", "What a step returns", options(stepwell.machine.run_subflow)),
    ("machine.md", "Retry", annotated(stepwell.machine.Retry)),
    ("machine.md", "WorkflowEngine", set(members(stepwell.machine.WorkflowEngine)) - {"forget"}),
    ("machine.md", "WorkflowEngine", options(stepwell.machine.WorkflowEngine.start)),
    ("machine.md", "WorkflowEngine", options(stepwell.machine.WorkflowEngine.signal)),
    ("machine.md", "WorkflowEngine", options(stepwell.machine.WorkflowEngine.emit)),
    ("machine.md", "WorkflowEngine", options(stepwell.machine.WorkflowEngine.cancel)),
    ("machine.md", "RunSet", annotated(stepwell.machine.RunSet)),
    ("machine.md", "WorkflowRun", annotated(stepwell.machine.WorkflowRun)),
    ("machine.md", "StepExecution", annotated(stepwell.machine.StepExecution)),
    ("machine.md", "WorkflowStatus", members(stepwell.machine.WorkflowStatus)),
    ("machine.md", "SubflowResult", annotated(stepwell.machine.SubflowResult)),
    ("machine.md", "WorkflowEvent", annotated(stepwell.machine.WorkflowEvent)),
    ("machine.md", "SynchronousExecutor", members(SynchronousExecutor)),
]

PIPELINES: list[tuple[str, str | None, Iterable[str]]] = [
    ("pipeline.md", None, stepwell.pipeline.__all__),
    ("pipeline.md", "Pipeline", options(Pipeline.__init__)),
    ("pipeline.md", "Pipeline", set(members(Pipeline)) - {"compiled"}),
    ("pipeline.md", "Pipeline", members(PipelineBase)),
    *(
        ("pipeline.md", name, options(getattr(Pipeline, name)))
        for name in (
            "add_step",
            "add_error_step",
            "add_exit_step",
            "add_parallel_steps",
            "add_cond_step",
            "run",
        )
    ),
    ("pipeline.md", "Step", options(Step.__init__)),
    ("pipeline.md", "PipelineResult", options(PipelineResult.__init__)),
    ("pipeline.md", "PipelineContext", ["wait_for_signal", "run_child", "idempotency_key"]),
]

CASES: list[tuple[str, str | None, Iterable[str]]] = [
    *MACHINES,
    *PIPELINES,
    ("names.md", "stepwell", stepwell.__all__),
    ("workflow.md", "Workflow", options(Workflow.__init__)),
    ("workflow.md", "run", options(Workflow.run)),
    ("workflow.md", "Workflow", set(members(Workflow)) - INTERNAL_WORKFLOW),
    ("workflow.md", "step", options(step, "func")),
    ("workflow.md", "catch_error", options(catch_error, "func")),
    ("workflow.md", "Collect", options(Collect)),
    ("context.md", "Context", set(members(Context)) - INTERNAL_CONTEXT),
    ("context.md", "wait_for_event", options(Context.wait_for_event)),
    ("handler.md", "WorkflowHandler", members(WorkflowHandler)),
    ("events.md", None, stepwell.events.__all__),
    ("resources.md", None, stepwell.resource.__all__),
    ("retry.md", None, stepwell.retry_policy.__all__),
    ("errors.md", None, stepwell.errors.__all__),
    ("engine.md", "Engine", options(Engine.__init__)),
    ("engine.md", "Engine", set(members(Engine)) - INTERNAL_ENGINE),
    ("engine.md", "start", options(Engine.start)),
    ("engine.md", "list", options(Engine.list)),
    ("engine.md", "signal", options(Engine.signal)),
    ("engine.md", "broadcast", options(Engine.broadcast)),
    ("engine.md", "fork", options(Engine.fork)),
    ("engine.md", "RunInfo", [*RunInfo.__slots__, *WaitInfo.__slots__, *Why.__slots__]),
    ("store.md", "The verbs", members(Store)),
    ("journal.md", "Entries", TAGS),
]


@pytest.mark.parametrize(
    "page, heading, names",
    CASES,
    ids=[f"{page}-{heading}-{n}" for n, (page, heading, _) in enumerate(CASES)],
)
def test_public_names_are_described(page: str, heading: str | None, names: Iterable[str]) -> None:
    missing = sorted(set(names) - described(page, heading))
    assert missing == [], f"docs/reference/{page}, under {heading!r}"


def flags() -> list[tuple[str, str]]:
    """Every command with every flag of its own."""
    ctx = click.Context(cli)
    found: list[tuple[str, str]] = []

    def walk(name: str, command: click.Command) -> None:
        for param in command.params:
            if isinstance(param, click.Option) and not param.hidden:
                found.extend((name, flag) for flag in param.opts if flag.startswith("--"))
        if isinstance(command, click.Group):
            for sub in command.list_commands(ctx):
                child = command.get_command(ctx, sub)
                assert child is not None
                walk(f"{name} {sub}".strip(), child)

    walk("", cli)
    return found


def test_every_command_and_flag_is_described() -> None:
    pages = (REFERENCE / "cli.md", REFERENCE / "names.md")
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    missing = {flag for _, flag in flags() if not re.search(rf"{flag}\b", text)}
    missing |= {f"stepwell {c}" for c, _ in flags() if c and f"stepwell {c}" not in text}
    assert sorted(missing) == []


def test_error_codes_are_described() -> None:
    text = (REFERENCE / "errors.md").read_text(encoding="utf-8")
    classes = [getattr(stepwell.errors, n) for n in stepwell.errors.__all__ if n != "Whose"]
    assert [c.code for c in classes if f"`{c.code}`" not in text] == []


def test_the_glossary_has_the_words_of_the_project() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = (
        "workflow definition program run step attempt event outcome input entry journal snapshot "
        "pending signal wait timer lease turn worker queue store engine surface host queued "
        "running waiting parked completed failed cancelled timed_out visit subflow broadcast "
        "correlation"
    )
    several = ["state machine"]
    assert [w for w in (*words.split(), *several) if f"**{w}**" not in text] == []


def rows(page: str) -> dict[str, list[str]]:
    """The rows of a reference page's tables, by the word in code font that they start with."""
    text = read(REFERENCE / page).prose
    found = re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE)
    return {name: rest.split(" | ") for name, rest in found}


def test_the_table_of_entries_says_what_the_code_says() -> None:
    table = rows("journal.md")
    for tag, kind in TAGS.items():
        names = ", ".join(f"`{f.name}`" for f in dataclasses.fields(kind))
        wanted = (
            f"| `{tag}` | {kind.__name__} | {names} | {' '.join((kind.__doc__ or '').split())} |"
        )
        assert table.get(tag, [])[:2] == [kind.__name__, names], f"write: {wanted}"


def test_the_table_of_errors_says_what_the_code_says() -> None:
    table = rows("errors.md")
    for name in stepwell.errors.__all__:
        if name != "Whose":
            kind = getattr(stepwell.errors, name)
            assert table[name][:2] == [f"`{kind.code}`", kind.whose], name


def test_every_event_of_telemetry_is_described() -> None:
    catalogue = (telemetry.__doc__ or "").split("Every event")[0]
    names = set(re.findall(r"\b[a-z]+\.[a-z]+\b", catalogue))
    text = (ROOT / "docs" / "how-to" / "observe.md").read_text(encoding="utf-8")
    assert len(names) > 10
    assert sorted(name for name in names if f"`{name}`" not in text) == []
