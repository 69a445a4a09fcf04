"""The models of a workflow's graph: nodes by kind, edges, and the graph with its filter.

They are plain data that goes to JSON and back, so that tools in other processes can show a
workflow. This module refuses to know how a graph is made or drawn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeAlias, cast

from pydantic import BaseModel, Discriminator, Field, Tag

# --- nodes ---------------------------------------------------------------------------------------


class WorkflowNodeBase(BaseModel):
    """What all nodes have.

    Example:
        >>> WorkflowStepNode(id="a", label="a_long_name").truncated_label(6)
        'a_lon*'
    """

    id: str = Field(description="Names the node in the edges of its graph.")
    label: str = Field(description="What to write on the node.")

    def truncated_label(self, max_length: int) -> str:
        """The label in at most `max_length` characters; `*` ends one that was cut."""
        if len(self.label) <= max_length:
            return self.label
        return self.label[: max(0, max_length - 1)] + "*"


class WorkflowStepNode(WorkflowNodeBase):
    """A step; its id is its name."""

    node_type: Literal["step"] = "step"
    description: str | None = Field(default=None, description="The step's docstring.")


class _Typed(WorkflowNodeBase):
    """A node that knows the classes it is one of."""

    def _chain(self) -> Iterable[str]:
        return ()

    def is_subclass_of(self, *type_names: str) -> bool:
        """Whether one of the names is that of the node's class or of a parent event class."""
        return not set(type_names).isdisjoint(self._chain())


class WorkflowEventNode(_Typed):
    """A class of events; its id is the class's name."""

    node_type: Literal["event"] = "event"
    event_type: str = Field(description="The name of the class.")
    event_types: list[str] = Field(
        description="That name, and those of the event classes it derives from, nearest first."
    )
    event_schema: dict[str, Any] | None = Field(
        default=None, description="JSON schema of the events."
    )
    produced_by: list[str] = Field(
        default_factory=list, description="The steps that may return it, alone or in lists."
    )

    def _chain(self) -> Iterable[str]:
        return self.event_types


class WorkflowExternalNode(WorkflowNodeBase):
    """Whoever answers the workflow's questions."""

    node_type: Literal["external"] = "external"


class WorkflowResourceNode(WorkflowNodeBase):
    """A resource that a factory makes; one node for each factory."""

    node_type: Literal["resource"] = "resource"
    type_name: str | None = Field(default=None, description="The annotated type.")
    getter_name: str | None = Field(default=None, description="The factory's name.")
    source_file: str | None = Field(default=None, description="Where the factory is written.")
    source_line: int | None = Field(default=None, description="The line where it begins.")
    description: str | None = Field(default=None, description="The factory's docstring.")


class WorkflowResourceConfigNode(WorkflowNodeBase):
    """A model that is read from a JSON file."""

    node_type: Literal["resource_config"] = "resource_config"
    type_name: str | None = Field(default=None, description="The model's name.")
    config_file: str | None = Field(default=None, description="Absolute path of the file.")
    path_selector: str | None = Field(default=None, description="Dotted path inside the file.")
    config_schema: dict[str, Any] | None = Field(
        default=None, description="JSON schema of the model."
    )
    config_value: dict[str, Any] | None = Field(
        default=None, description="What the file says now; None when it cannot be read."
    )
    description: str | None = Field(default=None, description="What its author says it is.")


class WorkflowGenericNode(_Typed):
    """A node of a kind that this library does not know: other tools may add their own."""

    node_type: str
    event_type: str | None = Field(default=None, description="A type name, if the kind has types.")
    event_types: list[str] | None = Field(
        default=None, description="That name, and those it derives from."
    )

    def _chain(self) -> Iterable[str]:
        return self.event_types or ()


_KNOWN: dict[str, type[WorkflowNodeBase]] = {
    "step": WorkflowStepNode,
    "event": WorkflowEventNode,
    "external": WorkflowExternalNode,
    "resource": WorkflowResourceNode,
    "resource_config": WorkflowResourceConfigNode,
}


def _kind_of(value: object) -> str:
    """Which of the node models data is to be read as."""
    if isinstance(value, WorkflowNodeBase):
        for kind, model in _KNOWN.items():
            if isinstance(value, model):
                return kind
        return "generic"
    data = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    kind = data.get("node_type", "step")
    return kind if isinstance(kind, str) and kind in _KNOWN else "generic"


WorkflowGraphNode: TypeAlias = Annotated[
    Annotated[WorkflowStepNode, Tag("step")]
    | Annotated[WorkflowEventNode, Tag("event")]
    | Annotated[WorkflowExternalNode, Tag("external")]
    | Annotated[WorkflowResourceNode, Tag("resource")]
    | Annotated[WorkflowResourceConfigNode, Tag("resource_config")]
    | Annotated[WorkflowGenericNode, Tag("generic")],
    Discriminator(_kind_of),
]
"""Any node; when read from JSON, `node_type` says which."""


class WorkflowGraphEdge(BaseModel):
    """An arrow between two nodes, by their ids; a resource's bears the parameter's name."""

    source: str
    target: str
    label: str | None = None


class WorkflowGraph(BaseModel):
    """A workflow as nodes and edges.

    Example:
        >>> graph = WorkflowGraph(
        ...     name="g",
        ...     nodes=[
        ...         WorkflowStepNode(id="a", label="a"),
        ...         WorkflowEventNode(id="E", label="E", event_type="E", event_types=["E"]),
        ...         WorkflowStepNode(id="b", label="b"),
        ...     ],
        ...     edges=[
        ...         WorkflowGraphEdge(source="a", target="E"),
        ...         WorkflowGraphEdge(source="E", target="b"),
        ...     ],
        ... )
        >>> graph.filter_by_node_type("event").edges
        [WorkflowGraphEdge(source='a', target='b', label='E')]
    """

    name: str
    nodes: list[WorkflowGraphNode]
    edges: list[WorkflowGraphEdge]
    description: str | None = None

    def filter_by_node_type(self, *node_types: str) -> WorkflowGraph:
        """The graph without the nodes of these types.

        What a removed node connected stays connected: a way from one remaining node to another
        over removed ones becomes an edge with the label of the first node that was removed from
        it. Two nodes keep one edge in each direction, the first one found.

        Args:
            node_types: what to remove, as in the nodes' `node_type`.

        Returns:
            A new graph; without arguments an equal one.
        """
        if not node_types:
            return self.model_copy(deep=True)
        labels = {node.id: node.label for node in self.nodes}
        kept = [node for node in self.nodes if node.node_type not in node_types]
        ids = {node.id for node in kept}
        outgoing: dict[str, list[WorkflowGraphEdge]] = {}
        for edge in self.edges:
            outgoing.setdefault(edge.source, []).append(edge)
        edges: dict[tuple[str, str], WorkflowGraphEdge] = {}
        for node in kept:
            for edge in outgoing.get(node.id, ()):
                label = edge.label if edge.target in ids else labels.get(edge.target)
                for target in _reached(edge.target, ids, outgoing):
                    new = WorkflowGraphEdge(source=node.id, target=target, label=label)
                    edges.setdefault((node.id, target), new)
        return WorkflowGraph(
            name=self.name,
            nodes=[node.model_copy(deep=True) for node in kept],
            edges=list(edges.values()),
            description=self.description,
        )


def _reached(
    first: str, kept: set[str], outgoing: dict[str, list[WorkflowGraphEdge]]
) -> Iterable[str]:
    """The nearest kept nodes from `first` on, which may be one itself."""
    seen = {first}
    frontier = deque([first])
    while frontier:
        id = frontier.popleft()
        if id in kept:
            yield id
            continue
        for edge in outgoing.get(id, ()):
            if edge.target not in seen:
                seen.add(edge.target)
                frontier.append(edge.target)
