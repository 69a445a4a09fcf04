"""Drawings of pipelines and of their runs: what their authors wrote, and no machinery."""

from __future__ import annotations

import pytest

from stepwell.authoring.drawing import draw, run_view
from stepwell.pipeline import Pipeline, Scope, Step
from stepwell.testing import HookedEngine


async def one() -> int:
    return 1


async def boom() -> None:
    raise ValueError("boom")


def made(limit: int | None = None) -> Pipeline:
    pipeline = Pipeline(name="drawn").add_step(one)
    pipeline.add_parallel_steps([Step(one, "b"), Step(one, "c")], "g", max_concurrency=limit)
    pipeline.add_cond_step([Step(one, "yes")], [Step(boom, "no")], name="choice")
    pipeline.add_error_step(one, name="err")
    return pipeline.add_parallel_steps([Step(one, "x")], "bye", scope=Scope.EXIT)


def arrows(text: str) -> set[tuple[str, str]]:
    """The arrows of a drawing, by the names of boxes."""
    lines = [line.strip() for line in text.splitlines()]
    found = [line.split(maxsplit=2) for line in lines if "-->" in line or "-.->" in line]
    return {(source.split("_", 1)[1], target.split("|")[-1]) for source, _, target in found}


def test_a_pipeline_is_drawn_without_its_machinery() -> None:
    text = draw(made().compiled().definition)
    assert not [w for w in ("(start)", "(failed)", "(go)", "(join", "(part", "(steps") if w in text]
    for label in ("start", "one", "g", "b", "c", "choice", "yes", "no", "err", "bye", "x"):
        assert f'["{label}"]' in text or f'(["{label}"])' in text
    ways = [
        ("start_", "step_one"),
        ("one", "step_g"),
        ("g", "step_g__b_"),
        ("g__b_", "step_choice"),
        ("g__c_", "step_choice"),
        ("choice", "step_yes"),
        ("choice", "step_no"),
        ("bye", "step_bye__x_"),
    ]
    drawn = {(source.lstrip("_"), target) for source, target in arrows(text)}
    assert set(ways) <= drawn


@pytest.mark.parametrize("format", ["mermaid", "dot", "svg", "html"])
def test_every_format_hides_it(format: str) -> None:
    text = draw(made(2).compiled().definition, format)  # type: ignore[arg-type]
    assert "(join" not in text
    assert "(failed)" not in text


async def test_a_run_is_drawn_with_the_ways_that_it_took(stepwell_engine: HookedEngine) -> None:
    pipeline = made()
    result = await pipeline.run(engine=stepwell_engine)
    view = run_view(pipeline.compiled().definition, await stepwell_engine.batches(result.run_id))
    text = draw(pipeline.compiled().definition, run=view)
    lines = [line.strip() for line in text.splitlines() if "-->" in line]
    taken = {line.split()[-1].split("|")[-1]: number for number, line in enumerate(lines)}
    styles = [line.split() for line in text.splitlines() if line.strip().startswith("linkStyle")]
    greyed = {int(words[1]) for words in styles if "#c6ccd4" in words[2]}
    assert taken["step_no"] in greyed
    assert not {taken[n] for n in ("step_one", "step_g", "step_g__b_", "step_yes")} & greyed
