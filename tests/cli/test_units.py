"""Progress, times, tables, lengths of time: no process, no store."""

from __future__ import annotations

import io
from typing import Any

import click
import pytest
from rich.console import Console

from stepwell.cli import output
from stepwell.cli.asking import fields_of
from stepwell.cli.options import Duration, Moment
from stepwell.cli.progress import Picture, Progress
from stepwell.runtime.history import plain


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "-"),
        (0.0, "0 ms"),
        (0.0123, "12 ms"),
        (0.9999, "1.0 s"),
        (59.94, "59.9 s"),
        (59.97, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3725, "1 h 2 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_spans(seconds: float | None, said: str) -> None:
    assert output.span(seconds) == said


@pytest.mark.parametrize(
    ("at", "said"), [(100.0, "now"), (70.0, "30 s ago"), (-800.0, "15 min ago"), (160.0, "in 60 s")]
)
def test_agos(at: float, said: str) -> None:
    assert output.ago(at, 100.0) == said


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5h", 5400), ("2m", 120), ("30d", 2592000)]
)
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-3s", "3 parsecs", "1h30"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Duration().convert(text, None, None)
    with pytest.raises(click.BadParameter):
        Moment().convert(text, None, None)


def test_a_moment_with_an_offset_is_that_moment() -> None:
    assert Moment().convert("1970-01-01T01:00:10+01:00", None, None) == 10.0


@pytest.mark.parametrize(
    ("typed", "fields"),
    [
        ("red", {"response": "red"}),
        ("42", {"response": "42"}),
        ('{"a": 1}', {"a": 1}),
        ("{not json", {"response": "{not json"}),
        ("[1]", {"response": "[1]"}),
    ],
)
def test_answers_as_they_are_typed(typed: str, fields: dict[str, Any]) -> None:
    assert fields_of(typed) == fields


def test_fields_that_an_event_does_not_declare_are_shown_like_the_others() -> None:
    assert plain({"a": 1, "_data": {"b": [{"_data": {"c": 2}}]}}) == {
        "a": 1,
        "b": [{"c": 2}],
    }


def test_wide_characters_are_cut_by_the_cells_they_take() -> None:
    assert output.cut("日本語日本語", 7) == "日本語…"
    assert output.cut("short", 7) == "short"


def tell(progress: Progress, *events: tuple[Any, ...]) -> None:
    for at, (name, fields) in enumerate(events):
        progress.hear(name, {"run": "r", "at": float(at), **fields})


def fan_out() -> Progress:
    progress = Progress("r")
    work = {"step": "pack", "attempt": 1}
    tell(
        progress,
        *[("step.started", {**work, "work": n}) for n in range(4)],
        *[("step.queued", {**work, "work": n}) for n in range(4, 20)],
        ("step.finished", {**work, "work": 0}),
        ("step.retrying", {**work, "work": 1, "error": "E: no", "retry_at": 99.0}),
        ("wait.opened", {"work": 2, "wait": "q", "event": "Answer"}),
    )
    return progress


def test_progress_counts_what_telemetry_tells() -> None:
    (count,) = fan_out().steps.values()
    assert (len(count.seen), count.done, count.queued) == (20, 1, 16)
    assert (count.running, set(count.waiting), set(count.retrying)) == ({3}, {2}, {1})
    assert not count.over


def test_other_runs_are_not_counted_but_children_are() -> None:
    progress = Progress("r")
    progress.hear("step.started", {"run": "x", "at": 0.0, "step": "s", "work": 1, "attempt": 1})
    assert not progress.steps
    tell(progress, ("child.started", {"child": "x", "child_workflow": "app.Kid"}))
    progress.hear("step.started", {"run": "x", "at": 0.0, "step": "s", "work": 1, "attempt": 1})
    assert [count.label for count in progress.steps.values()] == ["Kid.s"]


def test_a_failure_without_a_retry_is_counted_although_its_step_is_not_told_again() -> None:
    progress = Progress("r")
    tell(
        progress,
        ("step.started", {"step": "s", "work": 1, "attempt": 1}),
        ("step.failed", {"work": 1, "error": "E: no"}),
    )
    (count,) = progress.steps.values()
    assert (count.failed, count.word) == (1, "failed")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_picture_keeps_to_its_width_and_says_states_in_words(width: int) -> None:
    file = io.StringIO()
    console = Console(file=file, width=width, height=20, no_color=True, force_terminal=True)
    console.print(Picture(fan_out(), 0.0, lambda: 30.0))
    lines = Console(file=io.StringIO()).render_str(file.getvalue()).plain.splitlines()
    plain = [line for line in lines if "pack" in line]
    assert len(plain) == 1
    assert len(plain[0].rstrip()) <= width + 60  # the bar's colours
    assert "1/20" in plain[0]


def test_a_long_list_of_steps_keeps_to_the_height_and_shows_the_busy_ones() -> None:
    progress = Progress("r")
    for n in range(50):
        work = {"step": f"s{n}", "work": n, "attempt": 1}
        tell(progress, ("step.started", work))
        if n != 7:
            tell(progress, ("step.finished", work))
    file = io.StringIO()
    Console(file=file, width=80, height=20).print(Picture(progress, 0.0, lambda: 1.0))
    said = file.getvalue()
    assert len(said.splitlines()) <= 20
    assert "s7 " in said
    assert "34 more steps" in said
