"""Drawings: what a definition shows, what a run did, and that the layout can be read."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.authoring.drawing import (
    Drawing,
    Format,
    draw,
    draw_all_possible_flows,
    draw_all_possible_flows_mermaid,
    draw_most_recent_execution,
    draw_most_recent_execution_mermaid,
    run_view,
)
from stepwell.authoring.drawing.layout import Box, Layout, Link, Size, layout
from stepwell.authoring.drawing.picture import Edge, Node, Picture, picture, seconds
from stepwell.authoring.drawing.run import RunView, StepView
from stepwell.authoring.drawing.svg import place
from stepwell.authoring.drawing.text import width
from stepwell.authoring.events.compile import compile_workflow
from stepwell.authoring.events.decorators import catch_error, step
from stepwell.authoring.events.model import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StepFailedEvent,
    StopEvent,
)
from stepwell.authoring.events.resources import Resource
from stepwell.authoring.events.workflow import WorkflowBase
from stepwell.errors import WorkflowRuntimeError
from stepwell.kernel.decide import advance
from stepwell.kernel.definition import Definition, Join, StepDef
from stepwell.kernel.inputs import Arrived, Asked, Attempted, CancelAsked, Input, Sent, Start
from stepwell.kernel.journal import Entry
from stepwell.kernel.outcomes import Complete, Emit, Fail, Goto, Message, Outcome
from stepwell.kernel.run import RUNNING, Run
from stepwell.retry import describe_policy
from stepwell.retry_policy import retry_policy, stop_after_attempt, stop_after_delay
from stepwell.values import ErrorInfo, RunStatus
from stepwell.workflow import Workflow

FORMATS: tuple[Format, ...] = get_args(Format)
SVG = "{http://www.w3.org/2000/svg}"


def flow(*steps: StepDef, **more: Any) -> Definition:
    return Definition("flow", steps, **{"start": "Start", "ends": ("Stop",), **more})


LINEAR = flow(
    StepDef("a", accepts=("Start",), emits=("A",)),
    StepDef("b", accepts=("A",), emits=("Stop",)),
)
LOOP = flow(
    StepDef("draft", accepts=("Start",), emits=("Draft",)),
    StepDef("review", accepts=("Draft",), emits=("Bad", "Good")),
    StepDef("improve", accepts=("Bad",), emits=("Draft",)),
    StepDef("publish", accepts=("Good",), emits=("Stop",)),
)
FAN = flow(
    StepDef("split", accepts=("Start",), opens=("Part",), collectors=("gather",)),
    StepDef("work", accepts=("Part",), emits=("Done",), on_error="rescue"),
    StepDef("check", accepts=("Part",), emits=("Checked",)),
    StepDef("gather", join=Join("collect", (("Done",),), order="input"), emits=("All",)),
    StepDef("both", join=Join("all_of", (("All",), ("Extra",))), emits=("Stop",)),
    StepDef("rescue", emits=("Done",)),
)


def arrows(drawn: Picture) -> set[tuple[str, str]]:
    """Arrows without the prefixes of ids."""
    return {(a.split(":", 1)[-1], b.split(":", 1)[-1]) for a, b in drawn.edges}


def edge(drawn: Picture, source: str, target: str) -> Edge:
    return next(
        e for e in drawn.edges.values() if e.source.endswith(source) and e.target.endswith(target)
    )


# --- what a definition shows ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "definition, expected",
    [
        pytest.param(
            LINEAR, {("Start", "a"), ("a", "A"), ("A", "b"), ("b", "Stop")}, id="linear"
        ),
        pytest.param(
            LOOP,
            {
                *{("Start", "draft"), ("draft", "Draft"), ("Draft", "review")},
                *{("review", "Bad"), ("review", "Good"), ("Bad", "improve")},
                *{("improve", "Draft"), ("Good", "publish"), ("publish", "Stop")},
            },
            id="loop",
        ),
        pytest.param(
            flow(StepDef("ask", accepts=("Start",), emits=("Q",)),
                 StepDef("take", accepts=("Answer",), emits=("Stop",)), publishes=("Q",)),
            {
                *{("Start", "ask"), ("ask", "Q"), ("Q", "external_step")},
                *{("external_step", "Answer"), ("Answer", "take"), ("take", "Stop")},
            },
            id="someone outside is asked and answers",
        ),
        pytest.param(
            flow(StepDef("one", emits=("two",)), StepDef("two", emits=("one", "Stop")),
                 entry="one"),
            {("Start", "one"), ("one", "two"), ("two", "one"), ("two", "Stop")},
            id="steps that go to each other by name",
        ),
        pytest.param(
            flow(StepDef("a", accepts=("Start",), emits=("Stop",), on_error="h"), StepDef("h")),
            {("Start", "a"), ("a", "Stop"), ("a", "h")},
            id="an error handler of one step",
        ),
        pytest.param(
            flow(*(StepDef(n, accepts=("Start",), on_error="h") for n in "abc"), StepDef("h")),
            {*(("Start", n) for n in "abc"), ("fails:h", "h")},
            id="an error handler of many",
        ),
        pytest.param(
            flow(StepDef("a", accepts=("Start",)), StepDef("e"), StepDef("x"),
                 on_error="e", on_exit="x"),
            {("Start", "a"), ("a step has failed", "e"), ("the run ends", "x")},
            id="scopes",
        ),
    ],
)  # fmt: skip
def test_a_definition_shows_its_ways(
    definition: Definition, expected: set[tuple[str, str]]
) -> None:
    assert arrows(picture(definition)) == expected


def test_lists_and_joins_are_marked() -> None:
    drawn = picture(FAN)
    opened, collected = edge(drawn, "step:split", "event:Part"), edge(drawn, "event:Done", "gather")
    assert (opened.kind, opened.label) == ("many", "list")
    assert (collected.kind, collected.label) == ("many", "all in order")
    assert edge(drawn, "event:All", "both").kind == "flow"
    assert edge(drawn, "step:work", "rescue").kind == "error"
    assert drawn.nodes["step:both"].badges == ("joins 2",)
    assert "waits for one of each: All + Extra" in drawn.nodes["step:both"].details
    first = replace(FAN.by_name["gather"], join=Join("collect", (("Done",),), take=3))
    taking = picture(flow(*(first if s.name == "gather" else s for s in FAN.steps)))
    assert edge(taking, "event:Done", "gather").label == "first 3"


def described(stop: Any) -> Any:
    return describe_policy(retry_policy(stop=stop))


@pytest.mark.parametrize(
    "more, expected",
    [
        ({}, ()),
        ({"workers": 4}, ()),
        ({"workers": 1}, ("1 at a time",)),
        ({"workers": 9}, ("9 at once",)),
        ({"timeout": 90.0}, ("\u2264 90 s",)),
        ({"retry": described(stop_after_attempt(5))}, ("5 tries",)),
        (
            {"retry": described(stop_after_attempt(7) | stop_after_delay(9))},
            ("7 tries",),
        ),
        ({"retry": described(stop_after_delay(9))}, ("retries",)),
        ({"retry": {"max_attempts": 2}, "timeout": 1.0}, ("2 tries", "\u2264 1 s")),
    ],
)
def test_limits_and_retries_are_badges(more: dict[str, Any], expected: tuple[str, ...]) -> None:
    drawn = picture(flow(StepDef("a", accepts=("Start",), emits=("Stop",), **more)))
    assert drawn.nodes["step:a"].badges == expected


@pytest.mark.parametrize(
    "value, said",
    [(0.0004, "0.4 ms"), (0.0096, "10 ms"), (0.0236, "24 ms"), (0.25, "250 ms"), (45, "45 s"),
     (60, "1 min"), (90, "90 s"), (7200, "2 h"), (86400 * 3, "3 d"), (0, "0 s")],
)  # fmt: skip
def test_durations_are_said_as_people_say_them(value: float, said: str) -> None:
    assert seconds(value) == said


def test_a_title_is_shown_in_place_of_the_name() -> None:
    drawn = picture(flow(StepDef("a", accepts=("Start",), emits=("Stop",), title="Check it")))
    assert drawn.nodes["step:a"].label == "Check it"
    assert "step a" in drawn.nodes["step:a"].details


# --- formats -------------------------------------------------------------------------------------


def test_mermaid_has_the_promised_ids_classes_and_colours() -> None:
    text = draw(
        flow(StepDef("my-step", accepts=("Start",), emits=("Q", "Stop")), publishes=("Q",)),
        "mermaid",
    )
    lines = [line.strip() for line in text.splitlines()]
    assert lines[0] == "flowchart TD"
    assert 'step_my_step["my-step"]:::stepStyle' in lines
    assert 'event_Start(["Start"]):::startEventStyle' in lines
    assert 'event_Stop(["Stop"]):::stopEventStyle' in lines
    assert 'event_Q(["Q"]):::defaultEventStyle' in lines
    assert 'external_step[/"outside"/]:::externalStyle' in lines
    assert "event_Start --> step_my_step" in lines
    for name, colour in [
        ("stepStyle", "#ADD8E6"),
        ("externalStyle", "#BEDAE4"),
        ("startEventStyle", "#E27AFF"),
        ("stopEventStyle", "#FFA07A"),
        ("defaultEventStyle", "#90EE90"),
    ]:
        assert f"classDef {name} fill:{colour},color:#000000" in lines


def test_mermaid_ids_stay_apart_when_cleaning_makes_names_equal() -> None:
    text = draw(flow(*(StepDef(n, accepts=("Start",)) for n in ("a-b", "a.b", "a_b"))))
    ids = re.findall(r"^    (\w+)[\[({]", text, re.MULTILINE)
    assert sorted(ids) == ["event_Start", "step_a_b", "step_a_b_2", "step_a_b_3"]


def test_mermaid_numbers_the_arrows_that_it_colours() -> None:
    text = draw(FAN)
    links = [line for line in text.splitlines() if re.search(r" (-->|==>|-\.->)", line)]
    styled = [int(n) for n in re.findall(r"linkStyle (\d+) ", text)]
    assert styled
    assert all(not re.search(r" -->", links[n]) for n in styled)
    assert len(styled) == sum(" -->" not in line for line in links)


EVIL = [
    "<script>alert(1)</script>",
    "\"quoted\" 'and' `ticked`",
    "a & b # c; d%%",
    "back\\slash\\",
    "]]> --> end",
    "new\nline\ttab\x00\x1b\ud800",
    "日本語 \u202eright",
    "${x} {{y}}",
]


@pytest.mark.parametrize("name", EVIL)
def test_text_of_users_is_only_text(name: str) -> None:
    definition = Definition(
        name,
        (StepDef(name, accepts=(name + "1",), emits=(name + "2",), retry={"kind": name}),),
        start=name + "1",
        ends=(name + "2",),
    )
    view = RunView({}, {name: StepView("failed", 1, 1, None, name)}, {}, RunStatus.FAILED, name)
    root = ET.fromstring(draw(definition, "svg", run=view))  # noqa: S314 - our own text
    assert {child.tag for child in root.iter()} <= {
        SVG + tag for tag in ("svg", "style", "rect", "g", "title", "text", "path", "circle")
    }
    html = draw(definition, "html", run=view)
    assert html.count("<script>") == 1
    assert html.count("alert(1)") == html.count("&lt;script&gt;alert(1)&lt;/script&gt;")
    mermaid = draw(definition, "mermaid", run=view)
    for line in mermaid.splitlines()[1:]:
        assert line.startswith("    ")
        assert line.count('"') in (0, 2)
    assert "<script" not in mermaid
    dot = draw(definition, "dot", run=view)
    for line in dot.splitlines():
        assert len(re.findall(r'(?<!\\)(?:\\\\)*"', line)) % 2 == 0


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
@pytest.mark.parametrize("name", ["plain", *EVIL])
def test_graphviz_reads_the_dot_text(name: str) -> None:
    definition = replace(FAN, name=name, steps=(*FAN.steps, StepDef(name, accepts=("Part",))))
    text = draw(definition, "dot").encode()
    done = subprocess.run(["dot", "-Tcanon"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("format", FORMATS)
def test_an_empty_definition_can_be_drawn(format: Format) -> None:
    assert "nothing" in draw(Definition("nothing", ()), format) or format == "mermaid"


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown format 'png'; known formats are 'mermaid'"):
        draw(LINEAR, "png")  # pyright: ignore[reportArgumentType]


def test_the_page_loads_nothing_and_explains_itself() -> None:
    html = draw(FAN, "html")
    assert not re.search(r"""(src|href)\s*=|@import|url\(""", html)
    assert set(re.findall(r"https?://[^\s\"']+", html)) == {"http://www.w3.org/2000/svg"}
    for said in ("step", "event", "failures", "a list: opened, collected", "6 steps"):
        assert f">{said}<" in html
    assert "outside the run" in html
    assert "configuration file" not in html, "the legend names what is there"


def test_svg_tells_details_on_hover() -> None:
    root = ET.fromstring(draw(FAN, "svg"))  # noqa: S314 - our own text
    titles = [t.text or "" for t in root.iter(SVG + "title")]
    assert any(t.startswith("work\n") and "its failures go to rescue" in t for t in titles)
    assert len(titles) == len(picture(FAN).nodes)


@pytest.mark.parametrize("format", FORMATS)
def test_drawing_twice_gives_the_same_text(format: Format) -> None:
    assert draw(FAN, format) == draw(Definition.from_json(FAN.to_json()), format)


# --- layout --------------------------------------------------------------------------------------


def check_readable(placed: Layout, sizes: dict[str, Size], links: Sequence[Link]) -> None:
    """Every box and arrow has one place; boxes and labels share none; arrows reach their boxes and
    cross no other; all is inside."""
    assert set(placed.boxes) == set(sizes)
    assert set(placed.paths) == set(range(len(links)))
    labels = [p.label for p in placed.paths.values() if p.label is not None]
    assert len(labels) == sum(link.label is not None for link in links)
    everything = [*placed.boxes.values(), *labels]
    for i, one in enumerate(everything):
        assert one.x >= 0
        assert one.y >= 0
        assert one.x + one.w <= placed.width + 0.01
        assert one.y + one.h <= placed.height + 0.01
        for other in everything[i + 1 :]:
            assert not shrunk(one).overlaps(shrunk(other)), (one, other)
    for number, link in enumerate(links):
        points = placed.paths[number].points
        first, last = placed.boxes[link.source], placed.boxes[link.target]
        assert touches(first, points[0])
        assert touches(last, points[-1])
        assert len(points) % 3 == 1
        for id, box in placed.boxes.items():
            if id not in (link.source, link.target):
                inside = [p for p in along(points) if contains(shrunk(box), p)]
                assert not inside, (link, id, inside)


def shrunk(box: Box) -> Box:
    return Box(box.x + 0.1, box.y + 0.1, box.w - 0.2, box.h - 0.2)


def contains(box: Box, point: tuple[float, float]) -> bool:
    return box.x < point[0] < box.x + box.w and box.y < point[1] < box.y + box.h


def touches(box: Box, point: tuple[float, float]) -> bool:
    x, y = point
    beside = abs(x - box.x - box.w) < 0.01 and box.y <= y <= box.y + box.h
    ends = min(abs(y - box.y), abs(y - box.y - box.h)) < 0.01
    return beside or (ends and box.x - 0.01 <= x <= box.x + box.w + 0.01)


def along(points: Sequence[tuple[float, float]]) -> Iterable[tuple[float, float]]:
    for i in range(0, len(points) - 1, 3):
        (ax, ay), (bx, by), (cx, cy), (dx, dy) = points[i : i + 4]
        for n in range(9):
            t = n / 8
            u = 1 - t
            a, b, c, d = u**3, 3 * u * u * t, 3 * u * t * t, t**3
            yield a * ax + b * bx + c * cx + d * dx, a * ay + b * by + c * cy + d * dy


NAMES = st.integers(0, 11).map(lambda n: f"n{n}")
LINKS = st.builds(
    Link,
    NAMES,
    NAMES,
    st.none() | st.builds(Size, st.floats(8, 140), st.floats(8, 20)),
)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(NAMES, st.builds(Size, st.floats(20, 260), st.floats(20, 90)), min_size=1),
    st.lists(LINKS, max_size=26),
)
def test_any_boxes_and_arrows_are_laid_out_readably(
    sizes: dict[str, Size], wanted: list[Link]
) -> None:
    links = [link for link in wanted if link.source in sizes and link.target in sizes]
    check_readable(layout(sizes, links), sizes, links)


def test_labels_of_arrows_from_a_box_to_itself_stand_apart() -> None:
    sizes = {"a": Size(20, 20)}
    links = [Link("a", "a", Size(width, 8)) for width in (79, 8, 140, 20)]
    check_readable(layout(sizes, links), sizes, links)


def test_arrows_lead_down_unless_they_close_a_cycle() -> None:
    sizes = {n: Size(40, 20) for n in "abcd"}
    links = [Link("a", "b"), Link("b", "c"), Link("c", "a"), Link("a", "d"), Link("c", "c")]
    placed = layout(sizes, links)
    assert [placed.paths[n].back for n in range(5)] == [False, False, True, False, True]
    y = {n: box.y for n, box in placed.boxes.items()}
    assert y["a"] < y["b"] < y["c"]
    assert y["a"] < y["d"]


def test_a_straight_flow_is_drawn_straight() -> None:
    placed = place(picture(LINEAR)).layout
    middles = {round(box.x + box.w / 2, 3) for box in placed.boxes.values()}
    assert len(middles) == 1


def test_crossings_that_can_be_avoided_are_avoided() -> None:
    sizes = {n: Size(40, 20) for n in ("top", "a", "b", "c", "x", "y", "z")}
    links = [Link("top", n) for n in "abc"] + [Link("a", "z"), Link("b", "y"), Link("c", "x")]
    boxes = layout(sizes, links).boxes
    upper = sorted("abc", key=lambda n: boxes[n].x)
    lower = sorted("xyz", key=lambda n: boxes[n].x)
    assert [{"a": "z", "b": "y", "c": "x"}[n] for n in upper] == lower


def test_an_arrow_from_nowhere_is_refused() -> None:
    with pytest.raises(KeyError):
        layout({"a": Size(1, 1)}, [Link("a", "b")])


def test_many_steps_are_laid_out_in_reasonable_time() -> None:
    """Three hundred steps in a row with shortcuts: long arrows must not make it quadratic."""
    steps = [
        StepDef(f"s{i}", accepts=(f"E{i}",), emits=(f"E{i + 1}", f"E{i + 7}")) for i in range(300)
    ]
    placed = place(picture(Definition("many", tuple(steps), start="E0")))
    assert len(placed.layout.boxes) == len(placed.picture.nodes)


@st.composite
def definitions(make: st.DrawFn) -> Definition:
    """Definitions of every kind of step, whether or not they make sense."""
    names = make(st.lists(st.sampled_from("abcdefg"), min_size=1, unique=True))
    tags = st.lists(st.sampled_from(["Start", "Stop", "A", "B", "C", *names]), max_size=3)
    steps: list[StepDef] = []
    for name in names:
        kind = make(st.sampled_from(["plain", "all_of", "collect"]))
        taken = tuple(make(tags))
        join = None
        if kind == "all_of" and taken:
            join = Join("all_of", tuple((tag,) for tag in taken))
        elif kind == "collect" and taken:
            join = Join("collect", (taken,))
        steps.append(
            StepDef(
                name,
                accepts=() if join else taken,
                join=join,
                emits=tuple(make(tags)),
                opens=tuple(make(tags)),
                on_error=make(st.none() | st.sampled_from(names)),
                workers=make(st.integers(0, 5)),
                timeout=make(st.none() | st.floats(0, 1e6)),
            )
        )
    pick = st.none() | st.sampled_from(names)
    return Definition(
        "d",
        tuple(steps),
        start=make(st.sampled_from(["", "Start"])),
        entry=make(pick),
        ends=("Stop",),
        publishes=make(st.sampled_from([(), ("C",)])),
        on_error=make(pick),
        on_exit=make(pick),
    )


@settings(max_examples=40, deadline=None)
@given(definitions())
def test_any_definition_can_be_drawn_in_every_format(definition: Definition) -> None:
    drawn = picture(definition)
    assert sum(node.kind == "step" for node in drawn.nodes.values()) == len(definition.steps)
    placed = place(drawn)
    sizes = {id: Size(box.w, box.h) for id, box in placed.layout.boxes.items()}
    links = [
        Link(
            e.source,
            e.target,
            Size(p.label.w, p.label.h) if (p := placed.layout.paths[n]).label else None,
        )
        for n, e in enumerate(placed.edges)
    ]
    check_readable(placed.layout, sizes, links)
    ET.fromstring(draw(definition, "svg"))  # noqa: S314 - our own text
    ids = re.findall(r"^    (\w+)(?:\[|\(|\{)", draw(definition), re.MULTILINE)
    assert len(ids) == len(set(ids)) == len(drawn.nodes)
    assert draw(definition, "dot").count("->") == len(drawn.edges)


def test_labels_fit_their_boxes() -> None:
    placed = place(picture(FAN))
    for node in placed.picture.nodes.values():
        assert placed.layout.boxes[node.id].w >= width(node.label, 13, bold=True) + 16


# --- what a run did ------------------------------------------------------------------------------


class Driver:
    """Runs a definition by hand and keeps its journal, flat and in batches."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.run = Run("r")
        self.entries: list[Entry] = []
        self.batches: list[list[Entry]] = []
        self.rows: list[tuple[float, list[Entry]]] = []
        self.at = 0.0

    def tell(self, input: Input) -> None:
        self.batches.append(advance(self.definition, self.run, input))
        self.rows.append((input.at, self.batches[-1]))
        self.entries += self.batches[-1]

    def start(self, tag: str = "Start") -> None:
        self.tell(Start(self.at, Message(tag, None)))

    def work(self, step: str) -> int:
        return next(w.id for w in self.run.work.values() if w.step == step and w.phase == RUNNING)

    def done(self, step: str, outcome: Outcome) -> None:
        self.at += 1.0
        self.tell(Attempted(self.at, self.work(step), outcome))

    def emits(self, step: str, *tags: str, stream: bool = False) -> None:
        self.done(step, Emit(tuple(Message(t, None) for t in tags), stream))

    def views(self) -> list[RunView]:
        views = [run_view(self.definition, e) for e in (self.entries, self.batches, self.rows)]
        assert views[0].visited == views[1].visited == views[2].visited
        assert views[0].emitted == views[1].emitted == views[2].emitted
        return views

    def view(self) -> RunView:
        return self.views()[0]


def test_a_finished_run_says_which_ways_it_took() -> None:
    driver = Driver(LOOP)
    driver.start()
    driver.emits("draft", "Draft")
    for _ in range(2):
        driver.emits("review", "Bad")
        driver.emits("improve", "Draft")
    driver.emits("review", "Good")
    driver.emits("publish", "Stop")
    view = driver.view()
    assert view.visited == {
        ("", "Start", "draft"): 1,
        ("draft", "Draft", "review"): 1,
        ("review", "Bad", "improve"): 2,
        ("improve", "Draft", "review"): 2,
        ("review", "Good", "publish"): 1,
        ("publish", "Stop", ""): 1,
    }
    assert view.status is RunStatus.COMPLETED
    assert view.steps["review"] == StepView("done", attempts=3, count=3, seconds=3.0)


def test_lists_joins_and_broadcasts_are_counted_as_what_they_are() -> None:
    driver = Driver(FAN)
    driver.start()
    driver.emits("split", "Part", "Part", "Part", stream=True)
    for _ in range(3):
        driver.emits("work", "Done")
        driver.emits("check", "Checked")
    driver.tell(Arrived(9.0, Message("Extra", None)))
    driver.emits("gather", "All")
    driver.emits("both", "Stop")
    view = driver.view()
    assert view.visited == {
        ("", "Start", "split"): 1,
        ("split", "Part", "work"): 3,
        ("split", "Part", "check"): 3,
        ("work", "Done", "gather"): 3,
        ("check", "Checked", ""): 3,
        ("", "Extra", "both"): 1,
        ("gather", "All", "both"): 1,
        ("both", "Stop", ""): 1,
    }
    assert view.emitted["split", "Part"] == 3, "each member counts once, though two steps take it"
    assert view.steps["gather"].count == 1


def test_rows_with_times_tell_how_long_every_step_took() -> None:
    driver = Driver(FAN)
    driver.start()
    driver.emits("split", "Part", "Part", stream=True)
    for _ in range(2):
        driver.emits("work", "Done")
        driver.emits("check", "Checked")
    flat, _, timed = driver.views()
    assert flat.steps["work"].seconds is None, "a bare journal does not say when it was done"
    assert timed.steps["work"].seconds == 1.0 + 3.0
    assert timed.steps["check"].seconds == 2.0 + 4.0


def test_failures_retries_and_handlers_show() -> None:
    driver = Driver(FAN)
    driver.start()
    driver.emits("split", "Part", stream=True)
    bad = ErrorInfo("builtins.ValueError", "bad")
    driver.done("work", Fail(bad, retry_after=0.0))
    driver.done("work", Fail(bad))
    view = driver.view()
    assert view.steps["work"] == StepView("failed", 2, 1, 2.0, "ValueError: bad")
    assert view.visited["work", "StepFailedEvent", "rescue"] == 1
    assert view.steps["rescue"].status == "running"
    driver.emits("rescue", "Done")
    assert driver.view().visited["rescue", "Done", "gather"] == 1


@pytest.mark.parametrize(
    "outcome, status",
    [(None, "running"), (Fail(ErrorInfo("x.E", "e"), retry_after=60.0), "retrying")],
)
def test_a_live_run_shows_where_it_is(outcome: Outcome | None, status: str) -> None:
    driver = Driver(LINEAR)
    driver.start()
    if outcome is not None:
        driver.done("a", outcome)
    view = driver.view()
    assert view.steps["a"].status == status
    assert view.status is RunStatus.RUNNING
    assert "b" not in view.steps


def test_a_step_that_waits_shows_its_question_and_its_answer() -> None:
    definition = flow(StepDef("a", accepts=("Start",), emits=("Stop",)), publishes=("Q",))
    driver = Driver(definition)
    driver.start()
    question = Message("Q", None)
    driver.tell(Asked(1.0, driver.work("a"), "k", "w", "Answer", question=question))
    assert driver.view().steps["a"].status == "waiting"
    assert driver.view().visited["a", "Q", ""] == 1
    driver.tell(Arrived(5.0, Message("Answer", None)))
    view = driver.view()
    assert view.visited["", "Answer", "a"] == 1
    assert view.steps["a"] == StepView("running", attempts=1, count=1)


def test_what_a_running_step_sends_comes_from_it() -> None:
    definition = flow(
        StepDef("a", accepts=("Start",), emits=("A", "Stop")),
        StepDef("b", accepts=("A",)),
        StepDef("c", accepts=("Start",)),
    )
    driver = Driver(definition)
    driver.start()
    driver.emits("c")
    driver.tell(Sent(3.0, driver.work("a"), (Message("A", None),)))
    assert driver.view().visited["a", "A", "b"] == 1


def test_a_cancelled_run_shows_what_was_stopped() -> None:
    driver = Driver(LINEAR)
    driver.start()
    driver.tell(CancelAsked(2.0, "no more"))
    view = driver.view()
    assert (view.status, view.steps["a"].status) == (RunStatus.CANCELLED, "stopped")
    assert "no more" in view.error


def test_scopes_are_entered_from_nowhere() -> None:
    definition = flow(
        StepDef("a", accepts=("Start",)), StepDef("e"), StepDef("x"), on_error="e", on_exit="x"
    )
    driver = Driver(definition)
    driver.start()
    driver.done("a", Fail(ErrorInfo("x.E", "e")))
    driver.emits("e")
    drawn = picture(definition, driver.view())
    assert edge(drawn, "a step has failed", "step:e").count == 1


def test_ways_that_are_not_declared_are_drawn_apart() -> None:
    definition = Definition("machine", (StepDef("a"), StepDef("b")), entry="a")
    driver = Driver(definition)
    driver.start("Go")
    driver.done("a", Goto("b", Message("Note", None)))
    driver.done("b", Complete(Message("Result", None)))
    view = driver.view()
    assert view.visited["a", "Note", "b"] == 1
    drawn = picture(definition, view)
    assert edge(drawn, "step:a", "step:b") == Edge("step:a", "step:b", "dynamic", "Note", 1)
    assert ("step:a", "step:b") not in picture(definition).edges


def test_a_drawn_run_counts_colours_and_greys() -> None:
    driver = Driver(LOOP)
    driver.start()
    driver.emits("draft", "Draft")
    driver.emits("review", "Bad")
    driver.emits("improve", "Draft")
    view = driver.view()
    drawn = picture(LOOP, view)
    assert edge(drawn, "event:Draft", "step:review").count == 2
    assert edge(drawn, "step:improve", "event:Draft").count == 1
    assert edge(drawn, "step:review", "event:Good").count == 0
    off = {id for id, node in drawn.nodes.items() if not node.visited}
    assert off == {"event:Good", "step:publish", "event:Stop"}
    mermaid = draw(LOOP, "mermaid", run=view)
    assert 'event_Draft -->|"2\u00d7"| step_review' in mermaid
    assert "class step_review runningStatus" in mermaid
    assert "class step_publish unvisitedStyle" in mermaid
    assert "classDef doneStatus stroke:#2E7D32,stroke-width:3px" in mermaid
    html = draw(LOOP, "html", run=view)
    assert "run running" in html
    assert "not reached" in html
    assert ">running 2\u00d7" in html


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 60), st.booleans())
def test_a_journal_may_end_anywhere(cut: int, batches: bool) -> None:
    driver = Driver(FAN)
    driver.start()
    driver.emits("split", "Part", "Part", stream=True)
    driver.done("work", Fail(ErrorInfo("x.E", "e"), retry_after=0.0))
    driver.done("work", Fail(ErrorInfo("x.E", "e")))
    driver.emits("rescue", "Done")
    driver.emits("work", "Done")
    driver.emits("check")
    driver.emits("check", "Checked")
    driver.emits("gather", "All")
    journal: Sequence[Any] = driver.batches if batches else driver.entries
    view = run_view(FAN, journal[:cut])
    for format in FORMATS:
        assert draw(FAN, format, run=view)
    assert sum(view.emitted.values()) <= sum(view.visited.values())


# --- the doors of event workflows -----------------------------------------------------------------


class Wanted(InputRequiredEvent):
    pass


class Said(HumanResponseEvent):
    pass


class Base(Event):
    pass


class Special(Base):
    pass


class Child(WorkflowBase):
    @step
    async def inside(self, ev: StartEvent) -> StopEvent:
        raise NotImplementedError


def connect() -> int:
    """A connection."""
    return 1


class Parent(WorkflowBase):
    @step
    async def begin(self, ev: StartEvent, db: Annotated[int, Resource(connect)]) -> Special:
        await Child().run()  # pyright: ignore
        raise NotImplementedError

    @step(accept_event_subclasses=True)
    async def a_step_with_a_long_name(self, ev: Base) -> Wanted:
        raise NotImplementedError

    @step
    async def end(self, ev: Said) -> StopEvent:
        raise NotImplementedError

    @catch_error
    async def rescue(self, ev: StepFailedEvent) -> StopEvent:
        raise NotImplementedError


class Handing(WorkflowBase):
    @step
    async def only(self, ev: StartEvent, ctx: Any = None) -> StopEvent:
        return await ctx.run_child(Child, x=1)


def test_all_flows_show_resources_subclasses_and_children(tmp_path: Path) -> None:
    file = tmp_path / "flows.mermaid"
    text = draw_all_possible_flows_mermaid(Parent, str(file))
    assert file.read_text(encoding="utf-8") == text
    lines = [line.strip() for line in text.splitlines()]
    assert "event_Special --> step_a_step_with_a_long_name" in lines
    assert not any("event_Base" in line for line in lines)
    assert any(re.fullmatch(r'step_begin -\.->\|"db"\| resource_\w+', line) for line in lines)
    assert 'step_begin -.->|"runs"| child_Child' in lines
    assert 'subgraph workflow_Child["Child"]' in lines
    assert 'step_inside["inside"]:::stepStyle' in lines
    assert "child_Child -.-> event_StartEvent_2" in lines
    assert "event_Wanted --> external_step" in lines
    assert "classDef resourceStyle fill:#DDA0DD,color:#000000" in lines


def test_children_can_be_left_out_and_labels_cut(tmp_path: Path) -> None:
    text = draw_all_possible_flows_mermaid(
        Parent(), None, max_label_length=8, include_child_workflows=False
    )
    assert "Child" not in text
    assert 'step_a_step_with_a_long_name["a_step_*"]' in text
    assert list(tmp_path.iterdir()) == []


def test_a_class_that_is_handed_on_is_a_child() -> None:
    assert "child_Child" in draw_all_possible_flows_mermaid(Handing, None)


def test_the_page_of_all_flows(tmp_path: Path) -> None:
    file = tmp_path / "flows.html"
    assert draw_all_possible_flows(Parent(), str(file)) is None
    page = file.read_text(encoding="utf-8")
    assert page.count("<svg") == 2
    assert "Child workflow Child" in page
    shown = draw_all_possible_flows(Parent, str(file), notebook=True)
    assert isinstance(shown, Drawing)
    assert str(shown) == file.read_text(encoding="utf-8")
    frame = shown._repr_html_()
    assert frame.startswith("<iframe srcdoc=")
    assert "<svg" not in frame, "the page stands in an attribute"


def test_what_is_no_workflow_cannot_be_drawn() -> None:
    with pytest.raises(TypeError, match="expected a Workflow"):
        draw_all_possible_flows_mermaid(int, None)  # pyright: ignore[reportArgumentType]


class Recorded:
    """A handler, as far as drawings know one."""

    def __init__(self, driver: Driver) -> None:
        self.definition = driver.definition
        self.driver = driver

    def journal_entries(self) -> list[Entry]:
        return self.driver.entries


def test_the_most_recent_execution_is_drawn_from_the_journal(tmp_path: Path) -> None:
    driver = Driver(LINEAR)
    driver.start()
    driver.emits("a", "A")
    file = tmp_path / "run.mermaid"
    text = draw_most_recent_execution_mermaid(Recorded(driver), str(file))
    assert file.read_text(encoding="utf-8") == text
    assert "class step_a doneStatus" in text
    assert "class event_Stop unvisitedStyle" in text
    page = tmp_path / "run.html"
    assert draw_most_recent_execution(Recorded(driver), str(page)) is None
    assert "run running" in page.read_text(encoding="utf-8")
    shown = draw_most_recent_execution(Recorded(driver), str(page), notebook=True)
    assert isinstance(shown, Drawing)


async def test_a_real_run_is_drawn(tmp_path: Path) -> None:
    class Batch(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Special]:
            return [Special(), Special(), Special()]

        @step
        async def work(self, ev: Special) -> Base:
            return Base()

        @step
        async def gather(self, evs: list[Base]) -> StopEvent:
            return StopEvent(result=len(evs))

    handler = Batch().run(record=True)
    assert await handler == 3
    text = draw_most_recent_execution_mermaid(handler, None)
    assert 'step_split ==>|"list 3\u00d7"| event_Special' in text
    assert 'event_Base ==>|"all 3\u00d7"| step_gather' in text
    assert "class step_gather doneStatus" in text
    assert "unvisitedStyle" not in text
    silent = Batch().run()
    await silent
    with pytest.raises(WorkflowRuntimeError, match="keeps no journal"):
        draw_most_recent_execution_mermaid(silent, None)


async def test_a_journal_that_must_be_awaited_is_asked_for_in_words() -> None:
    class Stored(Recorded):
        async def journal_entries(self) -> list[Entry]:  # pyright: ignore[reportIncompatibleMethodOverride]
            await asyncio.sleep(0)
            return self.driver.entries

    driver = Driver(LINEAR)
    driver.start()
    with pytest.raises(WorkflowRuntimeError, match="must be awaited"):
        draw_most_recent_execution_mermaid(Stored(driver), None)
    view = run_view(LINEAR, await Stored(driver).journal_entries())
    assert view.steps["a"].status == "running"


def test_a_run_that_did_nothing_is_all_grey() -> None:
    drawn = picture(LINEAR, run_view(LINEAR, []))
    assert not any(node.visited for node in drawn.nodes.values())
    assert isinstance(drawn.nodes["step:a"], Node)


def test_a_bare_definition_shows_which_subclasses_come_to_a_step() -> None:
    definition = Definition.from_json(
        json.loads(
            json.dumps(compile_workflow(Parent()).definition.to_json())
        )  # as one that was served
    )
    lines = [line.strip() for line in draw(definition).splitlines()]
    assert "event_Special --> step_a_step_with_a_long_name" in lines
    assert not any("event_Base" in line for line in lines)
    assert definition.by_name["a_step_with_a_long_name"].kinds == ("Special",)
    assert "Base" not in definition.outside


def test_a_base_class_that_is_emitted_itself_is_shown_too() -> None:
    a = StepDef("a", accepts=("Start",), emits=("Base", "Special"))
    b = StepDef("b", accepts=("Base",), subclasses=True, kinds=("Special",), emits=("Stop",))
    text = draw(Definition("d", (a, b), start="Start", ends=("Stop",)))
    assert "event_Base --> step_b" in text
    assert "event_Special --> step_b" in text
