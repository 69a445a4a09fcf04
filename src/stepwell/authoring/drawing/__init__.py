"""Drawings of workflows: from the definition alone, and of what a run did.

    draw(definition, "svg")                            any authoring style, without its code
    draw(definition, "html", run=run_view(definition, entries))

The stages are files: `run` reads a journal (into a `view`), `journal` a definition out of one,
`picture` (with `words`) says which boxes and arrows there are, `layout` (with `layers`, `curves`
and `shapes`) places them, and `mermaid`, `graphviz`, `svg` and `page` write them down. `flows`
draws event workflows, with their resources and child workflows.
"""

from stepwell.authoring.drawing.draw import Format, draw
from stepwell.authoring.drawing.flows import (
    Drawing,
    RecordedRun,
    draw_all_possible_flows,
    draw_all_possible_flows_mermaid,
    draw_most_recent_execution,
    draw_most_recent_execution_mermaid,
)
from stepwell.authoring.drawing.run import RunView, StepView, run_view

__all__ = [
    "Drawing",
    "Format",
    "RecordedRun",
    "RunView",
    "StepView",
    "draw",
    "draw_all_possible_flows",
    "draw_all_possible_flows_mermaid",
    "draw_most_recent_execution",
    "draw_most_recent_execution_mermaid",
    "run_view",
]
