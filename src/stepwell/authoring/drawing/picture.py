"""What is in a drawing: boxes and arrows, worked out of a definition, before anyone places them.

The theory: a definition says which steps take and emit which tags. Tags become boxes of their own
between the steps, because an event that three steps take is one thing to a reader, not three. What
happens beside the main flow (failures that go to a handler, the error and exit scopes, the world
outside that asks and answers) gets boxes and arrows of kinds of their own, so that every format
can show them apart.

A tag that nobody takes by tag, but that is a step's name, is an arrow straight to that step: that
is how styles whose steps go to each other by name say so in `emits`.

With a `RunView` the same picture says what happened: how often each arrow was taken, how each step
fared, and which parts were never reached. Ways that a run took although the definition does not
show them are added as dashed arrows.

This module refuses to know about formats, sizes and places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, cast

from stepwell.authoring.drawing.run import OUTSIDE, RunView, StepView, Way
from stepwell.authoring.drawing.words import badges, details_of, named_by, seconds
from stepwell.kernel.decide import FAILURE
from stepwell.kernel.definition import Definition, StepDef

__all__ = [
    "EXTERNAL",
    "Edge",
    "EdgeKind",
    "Node",
    "NodeKind",
    "Picture",
    "event_id",
    "picture",
    "seconds",
    "step_id",
]

NodeKind: TypeAlias = Literal[
    "step",
    "start",
    "stop",
    "event",
    "external",
    "scope",
    "resource",
    "resource_config",
    "child",
    "unknown",
]
EdgeKind: TypeAlias = Literal[
    "flow", "many", "error", "scope", "resource", "child", "dynamic", "unknown"
]

EXTERNAL = "external_step"


@dataclass(frozen=True, slots=True)
class Node:
    """A box.

    Args:
        id: unique in the picture.
        kind: what it stands for.
        label: what is written on it.
        badges: short remarks below the label.
        details: one line each, for those who want to know more.
        view: of a step in a run: how it fared.
        visited: False greys it: a run was drawn and did not come here.
        dashed: it is drawn with a dashed line.
    """

    id: str
    kind: NodeKind
    label: str
    badges: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    view: StepView | None = None
    visited: bool = True
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Edge:
    """An arrow. `count` is how often a run took it; None when no run is drawn."""

    source: str
    target: str
    kind: EdgeKind = "flow"
    label: str = ""
    count: int | None = None


@dataclass(slots=True)
class Picture:
    """Boxes and arrows, in the order in which the definition has them."""

    title: str
    nodes: dict[str, Node] = field(default_factory=dict[str, Node])
    edges: dict[tuple[str, str], Edge] = field(default_factory=dict[tuple[str, str], Edge])
    children: list[Picture] = field(default_factory=list["Picture"])

    def add(self, node: Node) -> str:
        """Add a box unless its id is there already; returns the id."""
        self.nodes.setdefault(node.id, node)
        return node.id

    def connect(self, edge: Edge) -> None:
        """Add an arrow; of two between the same boxes the first stays, with both labels."""
        key = (edge.source, edge.target)
        old = self.edges.get(key)
        if old is None:
            self.edges[key] = edge
        elif edge.label and edge.label not in old.label.split(", "):
            label = f"{old.label}, {edge.label}" if old.label else edge.label
            self.edges[key] = replace(old, label=label)

    def grey(self, alive: Iterable[str]) -> None:
        """Grey the boxes that are not `alive` and have no arrow that was taken."""
        found = set(alive)
        for edge in self.edges.values():
            if edge.count:
                found |= {edge.source, edge.target}
        for id, node in self.nodes.items():
            if id not in found:
                self.nodes[id] = replace(node, visited=False)


def step_id(name: str) -> str:
    """The id of a step's box."""
    return f"step:{name}"


def event_id(tag: str) -> str:
    """The id of an event's box."""
    return f"event:{tag}"


def picture(definition: Definition, run: RunView | None = None) -> Picture:
    """The boxes and arrows of a definition and, if given, of what a run did."""
    draft = _Draft(definition, run, Picture(definition.name))
    draft.build()
    return draft.picture


@dataclass(slots=True)
class _Draft:
    definition: Definition
    run: RunView | None
    picture: Picture
    taken: dict[str, list[StepDef]] = field(default_factory=dict[str, list[StepDef]])
    emitted: dict[str, list[StepDef]] = field(default_factory=dict[str, list[StepDef]])

    def build(self) -> None:
        d = self.definition
        for step in d.steps:
            for tag in (*step.emits, *step.opens):
                self.emitted.setdefault(tag, []).append(step)
        for step in d.steps:
            for tag in self._takes(step):
                self.taken.setdefault(tag, []).append(step)
        self._start()
        for step in d.steps:
            self.picture.add(self._step_node(step))
            self._inputs(step)
            self._outputs(step)
        self._failures()
        self._scope(d.on_error, "a step has failed", "runs once when a failure found no handler")
        self._scope(d.on_exit, "the run ends", "runs before the run ends, however it ends")
        self._outside()
        if self.run is not None:
            self._dynamic(self.run)
            self._grey()

    # --- boxes ---

    def _event(self, tag: str) -> str:
        d = self.definition
        kind: NodeKind = "event"
        details: tuple[str, ...] = ()
        if tag == d.start:
            kind, details = "start", ("starts the run",)
        elif tag in d.ends:
            kind, details = "stop", ("ends the run as completed",)
        elif tag in d.publishes:
            details = ("is shown to readers of the run's stream",)
        return self.picture.add(Node(event_id(tag), kind, tag, details=details))

    def _step_node(self, step: StepDef) -> Node:
        view = None if self.run is None else self.run.steps.get(step.name)
        return Node(
            id=step_id(step.name),
            kind="step",
            label=step.title or step.name,
            badges=tuple(badges(step)),
            details=tuple(details_of(step)),
            view=view,
        )

    # --- arrows ---

    def _start(self) -> None:
        d = self.definition
        if d.entry is not None:
            self.picture.add(Node(event_id(d.start), "start", d.start or "start"))
            self._connect(event_id(d.start), step_id(d.entry), tag=d.start)
        elif d.start:
            self._event(d.start)

    def _inputs(self, step: StepDef) -> None:
        join = step.join
        label = ""
        if join is not None and join.kind == "collect":
            label = "all" if join.take is None else f"first {join.take}"
            label += " in order" if join.order == "input" else ""
        for tag in self._takes(step):
            if self._is_goto(tag):
                continue
            source = self._event(tag)
            kind: EdgeKind = "many" if label else "flow"
            self._connect(source, step_id(step.name), kind, label, tag)

    def _outputs(self, step: StepDef) -> None:
        for tag in dict.fromkeys((*step.emits, *step.opens)):
            many = tag in step.opens
            kind: EdgeKind = "many" if many else "flow"
            label = "list" if many else ""
            if self._is_goto(tag):
                self._connect(step_id(step.name), step_id(tag), kind, label, None)
            else:
                self._connect(step_id(step.name), self._event(tag), kind, label, tag)

    def _takes(self, step: StepDef) -> tuple[str, ...]:
        """What comes to a step. A base class that nobody emits itself would only be a box that
        leads nowhere, when there are subclasses that come to the step."""
        named = named_by(step)
        if not step.kinds:
            return named
        made = (tag for tag in named if tag in self.emitted or tag == self.definition.start)
        return tuple(dict.fromkeys((*made, *step.kinds)))

    def _is_goto(self, tag: str) -> bool:
        d = self.definition
        return tag in d.by_name and tag not in self.taken and tag not in d.marked

    def _failures(self) -> None:
        """Arrows from steps to their error handlers; one box speaks for all if most have it."""
        covered: dict[str, list[StepDef]] = {}
        for step in self.definition.steps:
            if step.on_error is not None:
                covered.setdefault(step.on_error, []).append(step)
        for handler, steps in covered.items():
            target = step_id(handler)
            if len(steps) <= 2:
                for step in steps:
                    self._connect(step_id(step.name), target, "error", "fails", FAILURE)
                continue
            others = [s for s in self.definition.steps if s.name not in covered]
            what = "a step" if len(steps) == len(others) else f"one of {len(steps)} steps"
            names = "failures of: " + ", ".join(s.name for s in steps)
            box = Node(f"scope:fails:{handler}", "scope", f"{what} fails", details=(names,))
            self.picture.add(box)
            count = self._count(lambda way, to=handler: way[1:] == (FAILURE, to))
            self.picture.connect(Edge(box.id, target, "error", "", count))

    def _scope(self, entry: str | None, label: str, detail: str) -> None:
        if entry is None:
            return
        box = self.picture.add(Node(f"scope:{label}", "scope", label, details=(detail,)))
        count = self._count(lambda way: (way[0], way[2]) == (OUTSIDE, entry))
        self.picture.connect(Edge(box, step_id(entry), "scope", "", count))

    def _outside(self) -> None:
        """Who reads what is published, and sends what no step emits."""
        d = self.definition
        asked = [tag for tag in d.publishes if tag in self.emitted]
        loose = {tag for step in d.steps if step.subclasses for tag in named_by(step)}
        sent = [
            tag
            for tag in self.taken
            if tag not in self.emitted and tag != d.start and tag not in loose
        ]
        if not asked and not sent:
            return
        self.picture.add(
            Node(EXTERNAL, "external", "outside", details=("people and programs outside the run",))
        )
        for tag in asked:
            self._connect(event_id(tag), EXTERNAL, tag=tag)
        for tag in sent:
            self._connect(EXTERNAL, event_id(tag), tag=tag)

    # --- a run ---

    def _connect(
        self,
        source: str,
        target: str,
        kind: EdgeKind = "flow",
        label: str = "",
        tag: str | None = None,
    ) -> None:
        count = None if self.run is None else _taken(self.run, source, target, tag)
        self.picture.connect(Edge(source, target, kind, label, count))

    def _count(self, wanted: Callable[[Way], bool]) -> int | None:
        if self.run is None:
            return None
        return sum(n for way, n in self.run.visited.items() if wanted(way))

    def _dynamic(self, run: RunView) -> None:
        """The ways that the run took and the definition does not show."""
        edges = self.picture.edges
        for (source, tag, target), count in run.visited.items():
            box = event_id(tag)
            first = step_id(source) if source else ""
            last = step_id(target) if target else ""
            if (first, last) in edges or tag == FAILURE:
                continue
            if box not in self.picture.nodes:
                if first in self.picture.nodes and last in self.picture.nodes:
                    self.picture.connect(Edge(first, last, "dynamic", tag, count))
                continue
            if first and (first, box) not in edges:
                emitted = run.emitted.get((source, tag), count)
                self.picture.connect(Edge(first, box, "dynamic", "", emitted))
            if last and (box, last) not in edges:
                self.picture.connect(Edge(box, last, "dynamic", "", count))

    def _grey(self) -> None:
        """Boxes without a visited arrow, and steps that did not run, were not visited."""
        run = cast(RunView, self.run)
        self.picture.grey(step_id(name) for name, view in run.steps.items() if view.count)


def _taken(run: RunView, source: str, target: str, tag: str | None) -> int:
    """How often an arrow was taken."""
    if source.startswith("step:") and target.startswith("step:"):
        first, last = source[5:], target[5:]
        return sum(
            n
            for (a, t, b), n in run.visited.items()
            if a == first and b == last and tag in (None, t)
        )
    if source.startswith("step:"):
        return run.emitted.get((source[5:], tag or ""), 0)
    if source == EXTERNAL:
        return run.emitted.get((OUTSIDE, tag or ""), 0)
    last = OUTSIDE if target == EXTERNAL else target.removeprefix("step:")
    return sum(n for (_, t, b), n in run.visited.items() if b == last and tag in (None, t))
