"""A picture as DOT text, for Graphviz and everything that reads its format."""

from __future__ import annotations

from collections.abc import Iterator

from stepwell.authoring.drawing.picture import Edge, Node, NodeKind, Picture
from stepwell.authoring.drawing.style import (
    FILL,
    LINE,
    OFF,
    STATUS,
    edge_text,
    node_details,
    off,
    status_line,
)
from stepwell.authoring.drawing.text import dot

_SHAPE: dict[NodeKind, str] = {
    "resource": "cylinder",
    "resource_config": "note",
    "scope": "hexagon",
}


def render(picture: Picture) -> str:
    """The picture as a DOT digraph; those of child workflows as clusters."""
    lines = [
        f"digraph {dot(picture.title)} {{",
        "    rankdir=TB",
        '    node [fontname="Helvetica,Arial,sans-serif", fontsize=11]',
        '    edge [fontname="Helvetica,Arial,sans-serif", fontsize=10]',
        *_body(picture, "", "    "),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _body(picture: Picture, prefix: str, indent: str) -> Iterator[str]:
    for node in picture.nodes.values():
        yield f"{indent}{dot(prefix + node.id)} [{_looks(node)}]"
    for edge in picture.edges.values():
        ends = f"{dot(prefix + edge.source)} -> {dot(prefix + edge.target)}"
        yield f"{indent}{ends} [{_line(edge)}]"
    for number, child in enumerate(picture.children, 1):
        inside = f"{prefix}{number}/"
        yield f"{indent}subgraph {dot(f'cluster_{inside}')} {{"
        yield f"{indent}    label={dot(child.title)}"
        yield from _body(child, inside, indent + "    ")
        yield f"{indent}}}"
        box, first = f"child:{child.title}", next(iter(child.nodes), None)
        if box in picture.nodes and first is not None:
            ends = f"{dot(prefix + box)} -> {dot(inside + first)}"
            yield f"{indent}{ends} [{_line(Edge('', '', 'child'))}]"


def _looks(node: Node) -> str:
    rows = [node.label, *([", ".join(node.badges)] if node.badges else [])]
    colour = "#55616F" if node.visited else "#C6CCD4"
    width = 1
    if node.view is not None:
        rows.append(status_line(node.view))
        colour, width = STATUS[node.view.status], 3
    style = "filled" if node.kind in _SHAPE else "rounded,filled"
    fields = {
        "label": _rows(rows),
        "shape": dot(_SHAPE.get(node.kind, "box")),
        "style": dot(
            style + (",dashed" if node.dashed or node.kind in ("external", "unknown") else "")
        ),
        "fillcolor": dot(FILL[node.kind] if node.visited else OFF),
        "fontcolor": dot("#000000" if node.visited else "#6B7280"),
        "color": dot(colour),
        "penwidth": str(width),
        "tooltip": _rows(node_details(node)),
    }
    return ", ".join(f"{key}={value}" for key, value in fields.items())


def _line(edge: Edge) -> str:
    fields = {"color": dot("#C6CCD4" if off(edge) else LINE[edge.kind])}
    if text := edge_text(edge):
        fields["label"] = dot(text)
    if edge.kind == "many":
        fields["penwidth"] = "2.5"
    elif edge.kind != "flow":
        fields["style"] = dot("dashed")
    return ", ".join(f"{key}={value}" for key, value in fields.items())


def _rows(rows: list[str]) -> str:
    """Lines of one quoted string."""
    return '"' + "\\n".join(dot(row)[1:-1] for row in rows) + '"'
