"""A picture as one HTML file: drawing, legend, and what each step is and did as a table.

The page loads nothing. One short script shows a box's details beside the pointer; it only ever sets
`textContent`, and where scripts are not allowed the `<title>` of each box does the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from stepwell.authoring.drawing import svg
from stepwell.authoring.drawing.picture import EdgeKind, NodeKind, Picture
from stepwell.authoring.drawing.run import RunView
from stepwell.authoring.drawing.style import (
    FILL,
    KIND_SAID,
    LINE,
    LINE_SAID,
    OFF,
    STATUS,
    off,
    run_line,
    status_line,
)
from stepwell.authoring.drawing.text import line, xml

_CSS = """
:root{color-scheme:light dark}
body{margin:0;padding:20px 24px 40px;background:#fff;color:#1d2731;
font:14px/1.45 system-ui,'Segoe UI',Helvetica,Arial,sans-serif}
h1{font-size:20px;margin:0 0 2px;overflow-wrap:anywhere}
h2{font-size:16px;margin:28px 0 8px;overflow-wrap:anywhere}
p{margin:2px 0 10px;overflow-wrap:anywhere}
.drawing{overflow:auto;border:1px solid #d5dbe1;border-radius:8px}
.drawing svg{display:block;margin:0 auto}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;list-style:none;padding:0;margin:10px 0}
.legend i{display:inline-block;width:22px;height:12px;border-radius:3px;margin-right:6px;
vertical-align:-1px;box-sizing:border-box;border:1px solid #5c7c8a}
.legend i.line{height:0;border:0;border-top:2px solid;vertical-align:4px}
.legend i.many{border-top-width:4px}
.legend i.dashed{border-top-style:dashed}
details{margin:10px 0}
summary{cursor:pointer}
table{border-collapse:collapse;margin-top:8px}
th,td{text-align:left;vertical-align:top;padding:5px 14px 5px 0;border-bottom:1px solid #d5dbe1}
td div{overflow-wrap:anywhere}
.error{color:#b3261e}
#tip{position:fixed;z-index:2;max-width:420px;padding:7px 10px;border-radius:6px;
background:#1d2731;color:#f3f6f9;font-size:12.5px;white-space:pre-line;overflow-wrap:anywhere;
pointer-events:none;box-shadow:0 3px 12px #0006}
@media (prefers-color-scheme:dark){
body{background:#14181e;color:#dde4eb}
.drawing,th,td{border-color:#333d48}
.error{color:#ff8a80}
#tip{background:#e8edf2;color:#14181e}}
"""

_SCRIPT = """
const tip=document.getElementById('tip');
for(const node of document.querySelectorAll('.sw .node')){
const title=node.querySelector('title'),text=title.textContent;
title.remove();node.setAttribute('aria-label',text);
node.addEventListener('pointermove',e=>{tip.textContent=text;tip.hidden=false;
tip.style.left=Math.max(4,Math.min(e.clientX+14,innerWidth-tip.offsetWidth-8))+'px';
tip.style.top=Math.max(4,Math.min(e.clientY+16,innerHeight-tip.offsetHeight-8))+'px'});
node.addEventListener('pointerleave',()=>{tip.hidden=true});}
"""


def render(picture: Picture, run: RunView | None = None) -> str:
    """The picture, and those of its child workflows, as one HTML page."""
    title = xml(line(picture.title))
    rows = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        '<head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{title}</title>",
        f"<style>{_CSS}{svg.CSS}</style></head>",
        f"<body><h1>{title}</h1>",
        *([f"<p>{xml(line(run_line(run)))}</p>"] if run is not None else []),
        *_figure(picture),
    ]
    for child in picture.children:
        rows.append(f"<h2>Child workflow {xml(line(child.title))}</h2>")
        rows += _figure(child)
    rows += ['<div id="tip" hidden></div>', f"<script>{_SCRIPT}</script>", "</body></html>"]
    return "\n".join(rows) + "\n"


def _figure(picture: Picture) -> Iterator[str]:
    yield f'<div class="drawing">{svg.figure(svg.place(picture))}</div>'
    yield f'<ul class="legend">{"".join(_legend(picture))}</ul>'
    yield from _table(picture)


def _legend(picture: Picture) -> Iterator[str]:
    nodes, edges = picture.nodes.values(), picture.edges.values()
    kinds: set[NodeKind] = {node.kind for node in nodes if node.visited}
    for kind, said in KIND_SAID.items():
        if kind in kinds:
            yield f'<li><i style="background:{FILL[kind]}"></i>{said}</li>'
    lines: set[EdgeKind] = {edge.kind for edge in edges if not off(edge)}
    for kind, said in LINE_SAID.items():
        if kind in lines and lines != {"flow"}:
            looks = f'class="line {_line_class(kind)}" style="color:{LINE[kind]}"'
            yield f"<li><i {looks}></i>{said}</li>"
    statuses = {node.view.status for node in nodes if node.view is not None}
    for status, colour in STATUS.items():
        if status in statuses:
            yield f'<li><i style="border:2.5px solid {colour}"></i>{status}</li>'
    if any(not node.visited for node in nodes) or any(map(off, edges)):
        yield f'<li><i style="background:{OFF};border-color:#aab3bd"></i>not reached</li>'


def _line_class(kind: EdgeKind) -> str:
    return {"flow": "", "many": "many"}.get(kind, "dashed")


def _table(picture: Picture) -> Iterator[str]:
    steps = [node for node in picture.nodes.values() if node.kind == "step"]
    ran = any(node.view is not None for node in steps)
    yield f"<details><summary>{len(steps)} step{'s' * (len(steps) != 1)}</summary><table>"
    yield f"<tr><th>step</th><th>what it does</th>{'<th>in this run</th>' * ran}</tr>"
    for node in steps:
        what = "".join(f"<div>{xml(line(text))}</div>" for text in node.details)
        row = f"<td><b>{xml(line(node.label))}</b></td><td>{what}</td>"
        if ran:
            did = "not reached" if node.view is None else status_line(node.view)
            row += f"<td>{xml(did)}"
            if node.view is not None and node.view.error:
                row += f'<div class="error">{xml(line(node.view.error))}</div>'
            row += "</td>"
        yield f"<tr>{row}</tr>"
    yield "</table></details>"
