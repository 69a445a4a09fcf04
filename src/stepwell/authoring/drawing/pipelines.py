"""Pipelines as pictures: the steps that their authors wrote, and no others.

The theory: it is the picture of the definition, with what only the machinery has taken out of it.
Steps that run side by side lead straight to what comes after them, because their join is no step;
and that failures pass a hidden step is nothing to see.

With a `RunView` the arrows keep what the run took.
"""

from __future__ import annotations

from dataclasses import replace

from stepwell.authoring.drawing.picture import Edge, Picture, event_id, picture, step_id
from stepwell.authoring.drawing.run import RunView
from stepwell.authoring.pipeline.handlers import FAILED, GO, START
from stepwell.authoring.words import is_hidden, step_said
from stepwell.kernel.definition import Definition


def is_pipeline(definition: Definition) -> bool:
    """Whether a definition is that of a pipeline."""
    return START in definition.by_name and FAILED in definition.by_name


def pipeline_picture(definition: Definition, run: RunView | None = None) -> Picture:
    """The boxes and arrows of a pipeline.

    Example:
        >>> from stepwell.kernel.definition import StepDef
        >>> steps = (StepDef("(start)", emits=("a",)), StepDef("a"), StepDef("(failed)"))
        >>> d = Definition("d", steps)
        >>> [node.label for node in pipeline_picture(d).nodes.values()]
        ['start', 'a']
    """
    whole = picture(definition, run)
    start = step_id(START)
    hidden = {step_id(s.name) for s in definition.steps if is_hidden(s.name)} - {start}
    hidden |= {event_id(tag) for s in definition.steps for tag in s.opens}
    hidden |= {event_id(GO), *_only_before(whole, step_id(FAILED))}
    drawn = Picture(whole.title)
    for id, node in whole.nodes.items():
        if id == start:
            drawn.add(replace(node, kind="start", label="start", badges=(), details=(), view=None))
        elif id not in hidden:
            name = id.removeprefix("step:")
            said = step_said(name) if node.kind == "step" and node.label == name else node.label
            details = tuple(line for line in node.details if "(" not in line)
            drawn.add(replace(node, label=said, details=details))
    edges = _counted(list(whole.edges.values()), run)
    after = {id: [e for e in edges if e.source == id] for id in hidden}
    for edge in edges:
        if edge.source not in hidden:
            for one in _ways(edge, after):
                drawn.connect(one)
    return drawn


def _counted(edges: list[Edge], run: RunView | None) -> list[Edge]:
    """How often each arrow from step to step was taken: as often as both of them were reached. A
    journal does not say where a step was reached from."""
    if run is None:
        return edges
    reached = {step_id(START): 1}
    for (_, _, target), count in run.visited.items():
        id = step_id(target)
        reached[id] = reached.get(id, 0) + count
    return [
        replace(e, count=min(reached.get(e.source, 0), reached.get(e.target, 0)))
        if e.kind == "flow"
        else e
        for e in edges
    ]


def _ways(
    edge: Edge, after: dict[str, list[Edge]], seen: frozenset[str] = frozenset()
) -> list[Edge]:
    """An arrow, or, when it leads to what is not drawn, the arrows to what comes after that."""
    if edge.target not in after:
        return [edge]
    if edge.target in seen or edge.kind in ("error", "many"):
        return []  # the parts of a group lead on
    found: list[Edge] = []
    for onward in after[edge.target]:
        count = edge.count if onward.count is None else min(edge.count or 0, onward.count)
        further = replace(edge, target=onward.target, count=count)
        found += _ways(further, after, seen | {edge.target})
    return found


def _only_before(whole: Picture, id: str) -> set[str]:
    """The boxes that lead to this one and to no other."""
    before = {e.source for e in whole.edges.values() if e.target == id}
    return {
        b
        for b in before
        if whole.nodes[b].kind == "scope"
        and all(e.target == id for e in whole.edges.values() if e.source == b)
    }
