"""`draw`: a definition as text in one of four formats."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from stepwell.authoring.drawing import graphviz, mermaid, page, svg
from stepwell.authoring.drawing.picture import Picture, picture
from stepwell.authoring.drawing.pipelines import is_pipeline, pipeline_picture
from stepwell.authoring.drawing.run import RunView
from stepwell.authoring.drawing.states import is_machine, machine_picture
from stepwell.authoring.machine.define import Machine
from stepwell.kernel.definition import Definition

Format: TypeAlias = Literal["mermaid", "dot", "svg", "html"]
"""What a workflow can be drawn as."""


def draw(
    definition: Definition,
    format: Format = "mermaid",
    *,
    run: RunView | None = None,
    machine: Machine | None = None,
) -> str:
    """Draw a workflow.

    Args:
        definition: the workflow as data; its code is not needed.
        format: "mermaid" (a `flowchart TD`), "dot" (for Graphviz), "svg" (one self-contained
            document) or "html" (one self-contained page with legend and details).
        run: what a run did, from `run_view`: arrows then bear counts, steps the colour of their
            status, and what was not reached is grey.
        machine: of a state machine: what is known of its class (`Order.__stepwell__`), which says
            what its waits wait for, and more.

    Returns:
        The drawing as text.

    Raises:
        ValueError: the format is not known.

    Example:
        >>> from stepwell.kernel.definition import StepDef
        >>> greet = StepDef("greet", accepts=("Start",), emits=("Stop",))
        >>> print(draw(Definition("hello", (greet,), start="Start", ends=("Stop",))))
        flowchart TD
            event_Start(["Start"]):::startEventStyle
            step_greet["greet"]:::stepStyle
            event_Stop(["Stop"]):::stopEventStyle
            event_Start --> step_greet
            step_greet --> event_Stop
            classDef stepStyle fill:#ADD8E6,color:#000000
            classDef startEventStyle fill:#E27AFF,color:#000000
            classDef stopEventStyle fill:#FFA07A,color:#000000
        <BLANKLINE>
    """
    if is_machine(definition):
        return render(machine_picture(definition, run, machine), format, run)
    drawn = pipeline_picture if is_pipeline(definition) else picture
    return render(drawn(definition, run), format, run)


def render(drawn: Picture, format: Format, run: RunView | None = None) -> str:
    """Write a picture down in a format."""
    match format:
        case "mermaid":
            return mermaid.render(drawn)
        case "dot":
            return graphviz.render(drawn)
        case "svg":
            return svg.render(drawn)
        case "html":
            return page.render(drawn, run)
        case _:
            known = ", ".join(map(repr, get_args(Format)))
            raise ValueError(f"unknown format {format!r}; known formats are {known}")
