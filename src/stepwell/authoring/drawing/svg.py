"""A picture as SVG: self-contained, without scripts, fonts or links.

Boxes keep their light colours and dark letters everywhere; the ground, the arrows and their labels
follow the reader's light or dark scheme. Every box has its details in a `<title>`, which browsers
show on hover and screen readers read. All text of users goes through `text.xml`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from stepwell.authoring.drawing.layout import Box, Layout, Link, Path, Point, Size, layout
from stepwell.authoring.drawing.picture import Edge, Node, Picture
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
from stepwell.authoring.drawing.text import cut, line, width, xml

FONT = "'Helvetica Neue',Helvetica,Arial,'Liberation Sans',sans-serif"
LABEL, SMALL = 13.0, 10.5
PADDING = 13.0
LONGEST = 38
"""Letters of a label; the rest is in the details."""

HEAD = 7.0
"""Length of an arrow's head."""

CSS = f"""
.sw{{font-family:{FONT};--ground:#fff;--text:#2b3540;--off:#c3cad2}}
.sw .ground{{fill:var(--ground)}}
.sw .label{{font-size:{LABEL}px;font-weight:600;fill:#14202b}}
.sw .small{{font-size:{SMALL}px;fill:#24323f}}
.sw .pill{{fill:#fff;fill-opacity:.62}}
.sw .edge{{fill:none;stroke-width:1.5}}
.sw .many{{stroke-width:3}}
.sw .dashed{{stroke-dasharray:5 4}}
.sw .edge-text{{font-size:{SMALL}px;fill:var(--text)}}
.sw .unvisited .label,.sw .unvisited .small{{fill:#5b6673;font-weight:400}}
.sw .node:hover>.shape{{stroke-width:3px}}
@media (prefers-color-scheme:dark){{
.sw{{--ground:#14181e;--text:#d6dde5;--off:#3d4651}}
.sw .edge,.sw .head{{filter:brightness(1.55)}}
}}
"""


@dataclass(frozen=True, slots=True)
class Placed:
    """A picture with places."""

    picture: Picture
    layout: Layout
    edges: tuple[Edge, ...]


def place(picture: Picture) -> Placed:
    """Measure the boxes and labels of a picture and lay it out."""
    sizes = {node.id: _size(node) for node in picture.nodes.values()}
    edges = tuple(picture.edges.values())
    links = [Link(e.source, e.target, _label_size(edge_text(e))) for e in edges]
    return Placed(picture, layout(sizes, links), edges)


def render(picture: Picture) -> str:
    """The picture as one SVG document."""
    return figure(place(picture), f"<style>{CSS}</style>") + "\n"


def figure(placed: Placed, head: str = "") -> str:
    """A laid out picture as an `<svg>` element; `head` comes first in it."""
    places = placed.layout
    w, h = math.ceil(places.width), math.ceil(places.height)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="sw" width="{w}" height="{h}" '
        f'viewBox="0 0 {w} {h}" role="img" aria-label="{xml(line(placed.picture.title))}">',
        head,
        f'<rect class="ground" width="{w}" height="{h}" fill="#fff"/>',
        *(_arrow(edge, places.paths[n]) for n, edge in enumerate(placed.edges)),
        *(_box(node, places.boxes[node.id]) for node in placed.picture.nodes.values()),
        *_labels(placed),
        "</svg>",
    ]
    return "\n".join(part for part in parts if part)


# --- measuring -----------------------------------------------------------------------------------


def _label_of(node: Node) -> str:
    return cut(line(node.label), LONGEST)


def _pill(text: str) -> float:
    return width(text, SMALL) + 12.0


def _size(node: Node) -> Size:
    wide = width(_label_of(node), LABEL, bold=True)
    high = 18.0
    if node.badges:
        wide = max(wide, sum(map(_pill, node.badges)) + 4.0 * (len(node.badges) - 1))
        high += 19.0
    if node.view is not None:
        wide = max(wide, width(status_line(node.view), SMALL) + 12.0)
        high += 16.0
    round_ends = 8.0 if node.kind in ("event", "start", "stop", "scope") else 0.0
    return Size(max(56.0, wide + 2 * (PADDING + round_ends)), high + 14.0)


def _label_size(text: str) -> Size | None:
    return Size(width(text, SMALL) + 6.0, 15.0) if text else None


# --- boxes ---------------------------------------------------------------------------------------


def _box(node: Node, box: Box) -> str:
    kind = "node" if node.visited else "node unvisited"
    rows = [
        f'<g class="{kind}"><title>{xml(chr(10).join(node_details(node)))}</title>',
        _shape(node, box),
    ]
    middle, y = box.x + box.w / 2, box.y + 20.0
    rows.append(_text(middle, y, _label_of(node), "label", "#14202b", LABEL))
    if node.badges:
        y += 19.0
        x = middle - (sum(map(_pill, node.badges)) + 4.0 * (len(node.badges) - 1)) / 2
        for badge in node.badges:
            w = _pill(badge)
            rows.append(
                f'<rect class="pill" x="{x:.1f}" y="{y - 11.5:.1f}" width="{w:.1f}" height="15" '
                'rx="7.5" fill="#fff" fill-opacity=".62"/>'
            )
            rows.append(_text(x + w / 2, y, badge, "small", "#24323f", SMALL))
            x += w + 4.0
    if node.view is not None:
        y += 17.0
        said = status_line(node.view)
        left = middle - width(said, SMALL) / 2 - 5.0
        colour = STATUS[node.view.status]
        rows.append(f'<circle cx="{left:.1f}" cy="{y - 3.6:.1f}" r="3.6" fill="{colour}"/>')
        rows.append(_text(middle + 5.0, y, said, "small", "#24323f", SMALL))
    return "".join(rows) + "</g>"


def _shape(node: Node, box: Box) -> str:
    fill = FILL[node.kind] if node.visited else OFF
    stroke, thick = ("#5c7c8a", 1.0) if node.visited else ("#aab3bd", 1.0)
    if node.view is not None:
        stroke, thick = STATUS[node.view.status], 2.4
    dashed = ' stroke-dasharray="5 3"' if _dashed(node) else ""
    looks = f'class="shape" fill="{fill}" stroke="{stroke}" stroke-width="{thick}"{dashed}'
    round = {"step": 7.0, "external": 4.0, "resource": 4.0, "resource_config": 0.0, "child": 4.0}
    radius = round.get(node.kind, min(box.h / 2, 16.0))
    rect = (
        f'<rect {looks} x="{box.x:.1f}" y="{box.y:.1f}" width="{box.w:.1f}" '
        f'height="{box.h:.1f}" rx="{radius:.1f}"/>'
    )
    if node.kind == "child":
        rect += (
            f'<rect fill="none" stroke="{stroke}" x="{box.x + 3:.1f}" y="{box.y + 3:.1f}" '
            f'width="{box.w - 6:.1f}" height="{box.h - 6:.1f}" rx="2"/>'
        )
    return rect


def _dashed(node: Node) -> bool:
    return node.dashed or node.kind in ("external", "scope", "unknown")


def _text(x: float, y: float, text: str, kind: str, fill: str, size: float) -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="middle" fill="{fill}" '
        f'font-size="{size:g}">{xml(text)}</text>'
    )


# --- arrows --------------------------------------------------------------------------------------


def _arrow(edge: Edge, path: Path) -> str:
    points = list(path.points)
    tip, before = points[-1], points[-2]
    dx, dy = _towards(before, tip)
    points[-1] = (tip[0] - dx * (HEAD - 1), tip[1] - dy * (HEAD - 1))
    curves = f"M{_at(points[0])}" + "".join(
        f"C{_at(points[i])} {_at(points[i + 1])} {_at(points[i + 2])}"
        for i in range(1, len(points) - 2, 3)
    )
    colour = "var(--off)" if off(edge) else LINE[edge.kind]
    plain = "#c3cad2" if off(edge) else LINE[edge.kind]
    kind = "edge many" if edge.kind == "many" else "edge"
    if edge.kind not in ("flow", "many"):
        kind += " dashed"
    half = HEAD * (0.62 if edge.kind == "many" else 0.5)
    foot = (tip[0] - dx * HEAD, tip[1] - dy * HEAD)
    sides = [(foot[0] - dy * half, foot[1] + dx * half), (foot[0] + dy * half, foot[1] - dx * half)]
    head = f"M{_at(tip)}L{_at(sides[0])}L{_at(sides[1])}Z"
    return (
        f'<path class="{kind}" d="{curves}" fill="none" stroke="{plain}" style="stroke:{colour}"/>'
        f'<path class="head" d="{head}" fill="{plain}" style="fill:{colour}"/>'
    )


def _towards(before: Point, tip: Point) -> Point:
    dx, dy = tip[0] - before[0], tip[1] - before[1]
    length = math.hypot(dx, dy) or 1.0
    return dx / length, dy / length


def _at(point: Point) -> str:
    return f"{point[0]:.1f},{point[1]:.1f}"


def _labels(placed: Placed) -> Iterator[str]:
    for number, edge in enumerate(placed.edges):
        box = placed.layout.paths[number].label
        if box is not None:
            x, y = box.x + box.w / 2, box.y + box.h - 4.2
            yield (
                f'<rect class="ground" x="{box.x:.1f}" y="{box.y + 1:.1f}" width="{box.w:.1f}" '
                f'height="{box.h - 2:.1f}" rx="3" fill="#fff"/>'
            )
            yield _text(x, y, edge_text(edge), "edge-text", "#2b3540", SMALL)
