"""Drawings of event workflows and their runs, under the names that their users know.

A workflow class says more than its definition: which resources its steps use, and which other
workflows they start. The latter is found by reading the source of the steps, without running
anything: a call of a workflow class, `Child().run(...)`, or its name handed on, as in
`ctx.run_child(Child, ...)`. Names are looked up among the globals and the enclosing variables of
the step. Children of children are not looked for.

This module refuses to know how a drawing is made; it only adds boxes to a picture.
"""

from __future__ import annotations

import ast
import html
import inspect
import textwrap
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TypeAlias, cast

from stepwell.authoring.drawing.draw import Format, render
from stepwell.authoring.drawing.picture import Edge, Node, NodeKind, Picture, picture, step_id
from stepwell.authoring.drawing.run import Row, RunView, run_view
from stepwell.authoring.drawing.text import cut
from stepwell.authoring.events.compile import Source, compile_events
from stepwell.authoring.events.graph import WorkflowResourceConfigNode, WorkflowResourceNode
from stepwell.authoring.events.representation import get_workflow_representation
from stepwell.authoring.events.shape import Shape
from stepwell.authoring.events.signature import StepFunction
from stepwell.authoring.events.workflow import WorkflowBase, WorkflowMeta
from stepwell.errors import WorkflowConfigurationError, WorkflowRuntimeError
from stepwell.kernel.definition import Definition
from stepwell.kernel.journal import Entry

WorkflowLike: TypeAlias = WorkflowBase[Any, Any, Any] | type[WorkflowBase[Any, Any, Any]]


Journal: TypeAlias = Iterable[Entry | Row | Sequence[Entry]]
"""A journal as `run_view` takes it."""


class RecordedRun(Protocol):
    """What has to be known of a run to draw it; handlers offer it."""

    @property
    def definition(self) -> Definition:
        """What is run."""
        ...

    def journal_entries(self) -> Journal | Coroutine[Any, Any, Journal]:
        """What was decided so far, from the beginning; as `run_view` takes it."""
        ...


@dataclass(frozen=True, slots=True)
class Drawing:
    """An HTML drawing that notebooks show; `str()` is the page."""

    html: str

    def __str__(self) -> str:
        return self.html

    def _repr_html_(self) -> str:
        """The page in a frame of its own, so that its style does not touch the notebook's."""
        source = html.escape(self.html, quote=True)
        return f'<iframe srcdoc="{source}" width="100%" height="640" frameborder="0"></iframe>'


# --- the four doors ------------------------------------------------------------------------------


def draw_all_possible_flows(
    workflow: WorkflowLike,
    filename: str = "workflow_all_flows.html",
    notebook: bool = False,
    max_label_length: int | None = None,
    include_child_workflows: bool = True,
) -> Drawing | None:
    """Write an HTML page that shows every way a workflow may take.

    Args:
        workflow: a workflow, or its class.
        filename: where the page is written; overwritten if it exists.
        notebook: also return the drawing, for a notebook to show.
        max_label_length: letters a label may have; longer ones are cut and end in `*`.
        include_child_workflows: also draw the workflows that its steps start.

    Returns:
        The drawing with `notebook=True`, else None.

    Raises:
        OSError: the file cannot be written.
        WorkflowConfigurationError: it has no steps, or no single start and stop event.

    Example:
        >>> import tempfile
        >>> from stepwell.authoring.events.decorators import step
        >>> from stepwell.authoring.events.model import StartEvent, StopEvent
        >>> class Flow(WorkflowBase):
        ...     @step
        ...     async def only(self, ev: StartEvent) -> StopEvent: ...
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "flow.html"
        ...     draw_all_possible_flows(Flow, str(file))
        ...     "<svg" in file.read_text()
        True
    """
    drawn = _all_flows(workflow, include_child_workflows)
    return _write_page(drawn, None, filename, notebook, max_label_length)


def draw_all_possible_flows_mermaid(
    workflow: WorkflowLike,
    filename: str | None = "workflow_all_flows.mermaid",
    max_label_length: int | None = None,
    include_child_workflows: bool = True,
) -> str:
    """Every way a workflow may take, as Mermaid text.

    Args:
        workflow: a workflow, or its class.
        filename: where the text is written as well; None or "" writes no file.
        max_label_length: letters a label may have; longer ones are cut and end in `*`.
        include_child_workflows: also draw the workflows that its steps start.

    Returns:
        The text.

    Raises:
        OSError: the file cannot be written.
        WorkflowConfigurationError: it has no steps, or no single start and stop event.
    """
    drawn = _all_flows(workflow, include_child_workflows)
    return _write(drawn, "mermaid", None, filename, max_label_length)


def draw_most_recent_execution(
    handler: RecordedRun,
    filename: str = "workflow_recent_execution.html",
    notebook: bool = False,
    max_label_length: int | None = None,
) -> Drawing | None:
    """Write an HTML page that shows what a run did, or has done so far.

    Args:
        handler: the run's handler.
        filename: where the page is written; overwritten if it exists.
        notebook: also return the drawing, for a notebook to show.
        max_label_length: letters a label may have; longer ones are cut and end in `*`.

    Returns:
        The drawing with `notebook=True`, else None.

    Raises:
        OSError: the file cannot be written.
        WorkflowRuntimeError: the run keeps no journal (a run in memory does with `record=True`), or
            keeps it in a store; then await it and use `run_view` and `draw`.
    """
    view = run_view(handler.definition, _journal(handler))
    drawn = picture(handler.definition, view)
    return _write_page(drawn, view, filename, notebook, max_label_length)


def draw_most_recent_execution_mermaid(
    handler: RecordedRun,
    filename: str | None = "workflow_recent_execution.mermaid",
    max_label_length: int | None = None,
) -> str:
    """What a run did, or has done so far, as Mermaid text.

    Args:
        handler: the run's handler.
        filename: where the text is written as well; None or "" writes no file.
        max_label_length: letters a label may have; longer ones are cut and end in `*`.

    Returns:
        The text.

    Raises:
        OSError: the file cannot be written.
        WorkflowRuntimeError: the run keeps no journal (a run in memory does with `record=True`), or
            keeps it in a store; then await it and use `run_view` and `draw`.
    """
    view = run_view(handler.definition, _journal(handler))
    return _write(picture(handler.definition, view), "mermaid", view, filename, max_label_length)


def _journal(handler: RecordedRun) -> Journal:
    """The journal, if it is at hand. That of a run in memory is: asking for it never pauses."""
    found = handler.journal_entries()
    if not isinstance(found, Coroutine):
        return found
    try:
        found.send(None)
    except StopIteration as done:
        return cast(Journal, done.value)
    found.close()
    raise WorkflowRuntimeError(
        "The journal of this run is in a store and must be awaited. Draw it with "
        "draw(handler.definition, 'html', run=run_view(handler.definition, await "
        "handler.journal_entries()))."
    )


def _write_page(
    drawn: Picture, run: RunView | None, filename: str, notebook: bool, most: int | None
) -> Drawing | None:
    text = _write(drawn, "html", run, filename, most)
    return Drawing(text) if notebook else None


def _write(
    drawn: Picture, format: Format, run: RunView | None, filename: str | None, most: int | None
) -> str:
    if most is not None:
        _shorten(drawn, most)
    text = render(drawn, format, run)
    if filename:
        Path(filename).write_text(text, encoding="utf-8")
    return text


def _shorten(drawn: Picture, most: int) -> None:
    for id, node in drawn.nodes.items():
        short = cut(node.label, most, "*")
        if short != node.label:
            details = (node.label, *node.details)
            drawn.nodes[id] = replace(node, label=short, details=details)
    for child in drawn.children:
        _shorten(child, most)


# --- a workflow as a picture ---------------------------------------------------------------------


def _all_flows(workflow: WorkflowLike, children: bool) -> Picture:
    cls = workflow if isinstance(workflow, type) else type(workflow)
    if not isinstance(cast(object, cls), WorkflowMeta):
        raise TypeError(f"expected a Workflow or a Workflow class, got {workflow!r}")
    timeout = None if isinstance(workflow, type) else workflow.timeout
    shape = cls._current_plan().shape  # pyright: ignore[reportPrivateUsage] - shared with authoring
    drawn = picture(_definition(cls, shape, timeout))
    _add_resources(drawn, cls)
    if children:
        for name, config in shape.steps.items():
            for child in _children(config.func, cls):
                box = Node(f"child:{child.__name__}", "child", child.__name__)
                drawn.connect(Edge(step_id(name), drawn.add(box), "child", "runs"))
                if all(known.title != child.__name__ for known in drawn.children):
                    drawn.children.append(_child(child))
    return drawn


def _child(cls: type[WorkflowBase[Any, Any, Any]]) -> Picture:
    try:
        return _all_flows(cls, children=False)
    except WorkflowConfigurationError:
        return Picture(cls.__name__)  # it cannot run, which is for the parent's run to say


def _definition(
    cls: type[WorkflowBase[Any, Any, Any]], shape: Shape, timeout: float | None
) -> Definition:
    """The definition under the class's name."""
    source = Source(
        name=cls.__name__,
        steps=shape.steps,
        free=frozenset(),
        start=shape.start,
        stop=shape.stop,
        timeout=timeout,
        state_type=None,
        serializer=None,
        verbose=False,
    )
    return compile_events(source).definition


def _add_resources(drawn: Picture, cls: type[WorkflowBase[Any, Any, Any]]) -> None:
    graph = get_workflow_representation(cls)
    ids: dict[str, str] = {}
    for node in graph.nodes:
        kind: NodeKind
        match node:
            case WorkflowResourceNode():
                kind = "resource"
                said = [f"made by {node.getter_name}", node.description]
                if node.source_file:
                    said.append(f"{node.source_file}:{node.source_line}")
            case WorkflowResourceConfigNode():
                kind = "resource_config"
                said = [node.description, node.config_file]
                said.append(f"at {node.path_selector}" if node.path_selector else None)
            case _:
                continue
        details = tuple(line for line in said if line)
        ids[node.id] = drawn.add(Node(node.id, kind, node.label, details=details))
    for edge in graph.edges:
        if edge.target in ids:
            source = ids.get(edge.source) or step_id(edge.source)
            drawn.connect(Edge(source, ids[edge.target], "resource", edge.label or ""))


# --- child workflows -----------------------------------------------------------------------------


def _children(
    func: StepFunction, cls: type[WorkflowBase[Any, Any, Any]]
) -> Iterator[type[WorkflowBase[Any, Any, Any]]]:
    """The workflow classes that the source of a step calls, or hands on to a call."""
    inner = inspect.unwrap(func)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inner)))
    except (OSError, TypeError, SyntaxError):
        return  # no source (typed at a prompt, compiled away): nothing is known of its children
    names = _names(inner)
    seen: set[object] = {cls}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        for part in (node.func, *node.args, *(keyword.value for keyword in node.keywords)):
            found = _looked_up(part, names)
            if isinstance(found, WorkflowMeta) and found not in seen:
                seen.add(found)
                yield cast("type[WorkflowBase[Any, Any, Any]]", found)


def _names(func: StepFunction) -> Mapping[str, object]:
    code = getattr(func, "__code__", None)
    cells = getattr(func, "__closure__", None) or ()
    enclosing: dict[str, object] = {}
    for name, cell in zip(getattr(code, "co_freevars", ()), cells, strict=True):
        try:
            enclosing[name] = cell.cell_contents
        except ValueError:
            continue  # a variable without a value yet
    return {**getattr(func, "__globals__", {}), **enclosing}


def _looked_up(node: ast.expr, names: Mapping[str, object]) -> object:
    """What a name, or a dotted name in a module or class, stands for; nothing is called."""
    match node:
        case ast.Name(id=name):
            return names.get(name)
        case ast.Attribute(value=value, attr=name):
            owner = _looked_up(value, names)
            return vars(owner).get(name) if isinstance(owner, type | ModuleType) else None
        case _:
            return None
