"""A picture as Mermaid text: a `flowchart TD`, which many Markdown viewers show."""

from __future__ import annotations

import re
from collections.abc import Iterator

from stepwell.authoring.drawing.picture import Edge, EdgeKind, Node, NodeKind, Picture
from stepwell.authoring.drawing.style import FILL, LINE, OFF, STATUS, edge_text, off, status_line
from stepwell.authoring.drawing.text import mermaid

_CLASS: dict[NodeKind, str] = {
    "step": "stepStyle",
    "external": "externalStyle",
    "start": "startEventStyle",
    "stop": "stopEventStyle",
    "event": "defaultEventStyle",
    "resource": "resourceStyle",
    "resource_config": "resourceConfigStyle",
    "scope": "scopeStyle",
    "child": "childStyle",
    "unknown": "unknownStyle",
}
_SHAPE: dict[NodeKind, tuple[str, str]] = {
    "step": ("[", "]"),
    "external": ("[/", "/]"),
    "start": ("([", "])"),
    "stop": ("([", "])"),
    "event": ("([", "])"),
    "resource": ("[(", ")]"),
    "resource_config": ("[(", ")]"),
    "scope": ("{{", "}}"),
    "child": ("[[", "]]"),
    "unknown": ("((", "))"),
}
_EVENTS = ("start", "stop", "event")


def render(picture: Picture) -> str:
    """The picture as Mermaid text; those of child workflows as subgraphs."""
    writer = _Writer()
    writer.picture(picture, "    ")
    return "\n".join(["flowchart TD", *writer.lines, *writer.classes()]) + "\n"


class _Writer:
    """Writes pictures; ids are unique and arrows are numbered over all of them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.marks: list[str] = []
        self.styles: list[str] = []
        self.used: set[str] = set()
        self.kinds: set[NodeKind] = set()
        self.links = 0

    def picture(self, picture: Picture, indent: str) -> str | None:
        """Write one picture and its children; returns the id of its first box."""
        ids: dict[str, str] = {}
        for node in picture.nodes.values():
            ids[node.id] = self._node(node, indent)
        for edge in picture.edges.values():
            self._edge(edge, ids[edge.source], ids[edge.target], indent)
        for child in picture.children:
            name = self._clean(f"workflow_{child.title}")
            self.lines.append(f'{indent}subgraph {name}["{mermaid(child.title)}"]')
            first = self.picture(child, indent + "    ")
            self.lines.append(f"{indent}end")
            box = ids.get(f"child:{child.title}")
            if box is not None and first is not None:
                self._edge(Edge("", "", "child"), box, first, indent)
        return next(iter(ids.values()), None)

    def _clean(self, text: str) -> str:
        """An id that Mermaid can read and that was not used before."""
        base = found = re.sub(r"[^A-Za-z0-9_]", "_", text)
        number = 1
        while found in self.used:
            number += 1
            found = f"{base}_{number}"
        self.used.add(found)
        return found

    def _node(self, node: Node, indent: str) -> str:
        kind = "event" if node.kind in _EVENTS else node.kind
        name = node.id.split(":", 1)[-1]
        id = self._clean(name if name.startswith(f"{kind}_") else f"{kind}_{name}")
        self.kinds.add(node.kind)
        rows = [mermaid(node.label)]
        if node.badges:
            rows.append("<small>" + mermaid(", ".join(node.badges)) + "</small>")
        if node.view is not None:
            rows.append("<small>" + mermaid(status_line(node.view)) + "</small>")
            self.marks.append(f"    class {id} {node.view.status}Status")
        elif not node.visited:
            self.marks.append(f"    class {id} unvisitedStyle")
        if node.dashed or node.kind == "unknown":
            self.styles.append(f"    style {id} stroke-dasharray:5 3")
        left, right = _SHAPE[node.kind]
        label = "<br/>".join(rows)
        self.lines.append(f'{indent}{id}{left}"{label}"{right}:::{_CLASS[node.kind]}')
        return id

    def _edge(self, edge: Edge, source: str, target: str, indent: str) -> None:
        text = mermaid(edge_text(edge))
        label = f'|"{text}"|' if text else ""
        self.lines.append(f"{indent}{source} {_arrow(edge.kind)}{label} {target}")
        if off(edge):
            self.styles.append(f"    linkStyle {self.links} stroke:#c6ccd4")
        elif edge.kind != "flow":
            self.styles.append(f"    linkStyle {self.links} stroke:{LINE[edge.kind]}")
        self.links += 1

    def classes(self) -> Iterator[str]:
        """The looks: of kinds of boxes, of what happened to them, of arrows."""
        for kind, fill in FILL.items():
            if kind in self.kinds:
                yield f"    classDef {_CLASS[kind]} fill:{fill},color:#000000"
        named = {mark.rsplit(" ", 1)[1] for mark in self.marks}
        for status, colour in STATUS.items():
            if f"{status}Status" in named:
                yield f"    classDef {status}Status stroke:{colour},stroke-width:3px"
        if "unvisitedStyle" in named:
            yield f"    classDef unvisitedStyle fill:{OFF},color:#6b7280,stroke:#c6ccd4"
        yield from self.marks
        yield from self.styles


def _arrow(kind: EdgeKind) -> str:
    return "-->" if kind == "flow" else "==>" if kind == "many" else "-.->"
