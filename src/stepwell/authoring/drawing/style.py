"""The colours and words that all formats share."""

from __future__ import annotations

from stepwell.authoring.drawing.picture import Edge, EdgeKind, Node, NodeKind
from stepwell.authoring.drawing.picture import seconds as said_seconds
from stepwell.authoring.drawing.run import RunView, StepStatus, StepView

FILL: dict[NodeKind, str] = {
    "step": "#ADD8E6",
    "external": "#BEDAE4",
    "start": "#E27AFF",
    "stop": "#FFA07A",
    "event": "#90EE90",
    "resource": "#DDA0DD",
    "resource_config": "#B2DFDB",
    "scope": "#FBE3E3",
    "child": "#D9D7FA",
    "unknown": "#FFFFFF",
}

OFF = "#E6E8EB"
"""The fill of what a run did not visit."""

STATUS: dict[StepStatus, str] = {
    "done": "#2E7D32",
    "running": "#1565C0",
    "queued": "#5E35B1",
    "waiting": "#B26A00",
    "retrying": "#C75000",
    "failed": "#C62828",
    "stopped": "#616B77",
}

LINE: dict[EdgeKind, str] = {
    "flow": "#55616F",
    "many": "#2F6F4F",
    "error": "#C0392B",
    "scope": "#A0526B",
    "resource": "#9565A8",
    "child": "#6A63C4",
    "dynamic": "#8A5A00",
    "unknown": "#8A5A00",
}

KIND_SAID: dict[NodeKind, str] = {
    "step": "step",
    "start": "start of the run",
    "stop": "end of the run",
    "event": "event",
    "external": "outside the run",
    "scope": "on failure, at the end",
    "resource": "resource",
    "resource_config": "configuration file",
    "child": "child workflow",
    "unknown": "not to be read from the code",
}

LINE_SAID: dict[EdgeKind, str] = {
    "flow": "takes, emits",
    "many": "a list: opened, collected",
    "error": "failures",
    "scope": "clean-up",
    "resource": "uses",
    "child": "runs",
    "dynamic": "taken by the run, not declared",
    "unknown": "computed when it is run",
}


def status_line(view: StepView) -> str:
    """How a step fared, in a few words.

    >>> status_line(StepView("done", attempts=4, count=3, seconds=1.5))
    'done 3\u00d7, 4 attempts, 1.5 s'
    """
    words = [view.status + (f" {view.count}\u00d7" if view.count > 1 else "")]
    if view.attempts > view.count:
        words.append(f"{view.attempts} attempts")
    if view.seconds is not None:
        words.append(said_seconds(view.seconds))
    return ", ".join(words)


def edge_text(edge: Edge) -> str:
    """What is written on an arrow: its label, and how often it was taken."""
    if not edge.count or (edge.count == 1 and not edge.label):
        return edge.label
    return f"{edge.label} {edge.count}\u00d7".strip()


def off(edge: Edge) -> bool:
    """Whether a run was drawn and did not take this arrow."""
    return edge.count == 0


def node_details(node: Node) -> list[str]:
    """Everything there is to know of a box, a line each."""
    found = [node.label, *node.details]
    if node.view is not None:
        found.append(status_line(node.view))
        if node.view.error:
            found.append(node.view.error)
    elif not node.visited:
        found.append("not reached by this run")
    return found


def run_line(run: RunView) -> str:
    """How the run stands, in a few words."""
    return f"run {run.status.value.replace('_', ' ')}" + (f": {run.error}" if run.error else "")
