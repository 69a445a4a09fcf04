"""An event workflow as a graph of plain models, for tools that show workflows to people.

The theory: the steps' signatures say everything, so the graph is read from a workflow *class* and
nothing is made or run. Steps and events are nodes and stand in turns; an event that several steps
take is one node with several edges. What a step needs besides events (resources, configuration
files) hangs on it, with an edge that bears the name of the parameter. `external_step` is whoever
answers when the workflow asks.

Ids are stable: the same source gives the same ids in every process, on every machine.

This module refuses to know how a graph is drawn, and whether the workflow is valid. It reads
configuration files, because their values are shown; one that cannot be read shows no value.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import typing
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import BaseModel, PydanticUserError, TypeAdapter

from stepwell.authoring.events.annotations import plain, present_members
from stepwell.authoring.events.graph import (
    WorkflowEventNode,
    WorkflowExternalNode,
    WorkflowGraph,
    WorkflowGraphEdge,
    WorkflowGraphNode,
    WorkflowResourceConfigNode,
    WorkflowResourceNode,
    WorkflowStepNode,
)
from stepwell.authoring.events.model import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
)
from stepwell.authoring.events.resources import (
    Resource,
    ResourceConfig,
    ResourceDefinition,
    ResourceDescriptor,
)
from stepwell.authoring.events.shape import Shape
from stepwell.authoring.events.workflow import WorkflowBase, WorkflowMeta

EXTERNAL = "external_step"
"""The id of the node for whoever is outside the workflow."""


def get_workflow_representation(
    workflow: WorkflowBase[Any, Any, Any] | type[WorkflowBase[Any, Any, Any]],
) -> WorkflowGraph:
    """The graph of a workflow: its steps, events, resources, and the outside if it asks there.

    Args:
        workflow: an instance, or the class; its options make no difference.

    Returns:
        The graph, named after the class and described by its docstring.

    Raises:
        TypeError: it is no event workflow.
        WorkflowConfigurationError: it has no steps, or no single start and stop event.
        WorkflowValidationError: the annotation of a resource's factory names something unknown.

    Example:
        >>> from stepwell.authoring.events.decorators import step
        >>> class Greeting(WorkflowBase):
        ...     @step
        ...     async def greet(self, ev: StartEvent) -> StopEvent: ...
        >>> [(e.source, e.target) for e in get_workflow_representation(Greeting).edges]
        [('StartEvent', 'greet'), ('greet', 'StopEvent')]
    """
    cls = workflow if isinstance(workflow, type) else type(workflow)
    if not isinstance(cast(object, cls), WorkflowMeta):
        raise TypeError(f"expected a Workflow or a Workflow class, got {workflow!r}")
    shape = cls._current_plan().shape  # pyright: ignore[reportPrivateUsage] - shared with authoring
    doc = cls.__doc__  # of this class: its parents describe themselves
    return _Builder(shape).build(cls.__name__, inspect.cleandoc(doc) if doc else None)


@dataclass(slots=True)
class _Builder:
    shape: Shape
    nodes: dict[str, WorkflowGraphNode] = field(default_factory=dict[str, WorkflowGraphNode])
    edges: dict[tuple[str, str, str | None], None] = field(
        default_factory=dict[tuple[str, str, str | None], None]
    )
    events: dict[type[Any], str] = field(default_factory=dict[type[Any], str])
    resources: dict[object, str] = field(default_factory=dict[object, str])

    def build(self, name: str, description: str | None) -> WorkflowGraph:
        steps = self.shape.steps.values()
        for step in steps:
            for event in (*step.accepted_events, *step.produced_events):
                self._name_event(event)
        asks = any(
            issubclass(event, InputRequiredEvent)
            for step in steps
            for event in step.produced_events
        )
        for step in steps:
            doc = inspect.getdoc(step.func)
            self.nodes[step.name] = WorkflowStepNode(id=step.name, label=step.name, description=doc)
            for event in (*step.accepted_events, *step.produced_events):
                self._add_event(event)
            for event, id in self.events.items():
                if self.shape.takes(step, event):
                    self._connect(id, step.name)
            for event in step.produced_events:
                self._connect(step.name, self.events[event])
            for param in step.resources:
                given = ResourceDefinition(param.name, param.descriptor, param.type_annotation)
                self._add_resource(step.name, given)
        if asks:
            self._add_external()
        return WorkflowGraph(
            name=name,
            nodes=list(self.nodes.values()),
            edges=[WorkflowGraphEdge(source=s, target=t, label=x) for s, t, x in self.edges],
            description=description,
        )

    def _connect(self, source: str, target: str, label: str | None = None) -> None:
        self.edges[source, target, label] = None

    def _name_event(self, event: type[Any]) -> None:
        """An id: the class's name, or a longer one where that is a step's or another class's."""
        if event not in self.events:
            taken = {*self.events.values(), *self.shape.steps, EXTERNAL}
            id = event.__name__
            if id in taken:
                id = f"{event.__module__}.{event.__qualname__}"
            self.events[event] = _free(id, taken)

    def _add_event(self, event: type[Any]) -> None:
        id = self.events[event]
        if id in self.nodes:
            return
        self.nodes[id] = WorkflowEventNode(
            id=id,
            label=event.__name__,
            event_type=event.__name__,
            event_types=self._chain(event),
            event_schema=_schema(event),
            produced_by=[s.name for s in self.shape.steps.values() if event in s.produced_events],
        )

    def _chain(self, event: type[Any]) -> list[str]:
        names = [event.__name__]
        names += [
            base.__name__
            for base in event.__mro__[1:]
            if issubclass(base, Event) and base is not Event
        ]
        # A declared start or end type may be any class; that it starts or ends is what counts.
        if event is self.shape.start and not issubclass(event, StartEvent):
            names.append(StartEvent.__name__)
        if event is self.shape.stop and not issubclass(event, StopEvent):
            names.append(StopEvent.__name__)
        return names

    def _add_external(self) -> None:
        self.nodes[EXTERNAL] = WorkflowExternalNode(id=EXTERNAL, label=EXTERNAL)
        for event, id in self.events.items():
            node = cast(WorkflowEventNode, self.nodes[id])
            if issubclass(event, InputRequiredEvent) and node.produced_by:
                self._connect(id, EXTERNAL)
            accepted = any(self.shape.takes(s, event) for s in self.shape.steps.values())
            if issubclass(event, HumanResponseEvent) and accepted:
                self._connect(EXTERNAL, id)

    # --- resources ---

    def _add_resource(self, user: str, definition: ResourceDefinition) -> None:
        descriptor = definition.resource
        key = _identity(descriptor)
        known = self.resources.get(key)
        if known is not None:
            self._connect(user, known, definition.name)
            return
        match descriptor:
            case ResourceConfig():
                node = _config_node(descriptor, self._taken())
            case _:
                node = _resource_node(descriptor, definition.type_annotation, self._taken())
        self.resources[key] = node.id
        self.nodes[node.id] = node
        self._connect(user, node.id, definition.name)
        for name, dependency, kind in descriptor.get_dependencies():
            self._add_resource(node.id, ResourceDefinition(name, dependency, kind))

    def _taken(self) -> set[str]:
        return {*self.nodes, *self.events.values(), *self.shape.steps, EXTERNAL}


def _free(id: str, taken: set[str]) -> str:
    """`id`, or `id` and a number."""
    found, number = id, 1
    while found in taken:
        number += 1
        found = f"{id}_{number}"
    return found


def _hashed(*parts: object) -> str:
    return hashlib.sha256(":".join(map(str, parts)).encode()).hexdigest()[:12]


def _schema(kind: type[Any]) -> dict[str, Any] | None:
    try:
        if issubclass(kind, BaseModel):
            return kind.model_json_schema()
        return TypeAdapter[Any](kind).json_schema()
    except PydanticUserError:
        return None  # a field whose type has no JSON form; the event is drawn without a schema


def _identity(descriptor: ResourceDescriptor) -> object:
    """The same for two annotations that are filled with one thing."""
    match descriptor:
        case Resource():
            return id(descriptor.factory)  # the workflow's class keeps it
        case ResourceConfig():
            return (descriptor.config_file, descriptor.path_selector, descriptor.cls_factory)
        case _:
            return (type(descriptor), descriptor.name)


def _type_name(annotation: object) -> str | None:
    """A type as its author would write it, without None."""
    names: list[str] = []
    for member in present_members(plain(annotation)[0]):
        if isinstance(member, type) and not typing.get_args(member):
            names.append(cast("type[Any]", member).__name__)
        else:
            names.append(str(member).replace("typing.", ""))
    return " | ".join(names) or None


def _resource_node(
    descriptor: ResourceDescriptor, annotation: object, taken: set[str]
) -> WorkflowResourceNode:
    factory = inspect.unwrap(descriptor.factory) if isinstance(descriptor, Resource) else None
    while isinstance(factory, functools.partial):
        factory = cast("functools.partial[Any]", factory).func  # what it calls describes it
    file, line = _source(factory)
    module = getattr(factory, "__module__", type(descriptor).__module__)
    id = _free(f"resource_{_hashed(module, descriptor.name, line)}", taken)
    type_name = _type_name(annotation) if annotation is not None else None
    return WorkflowResourceNode(
        id=id,
        label=type_name or descriptor.name,
        type_name=type_name,
        getter_name=getattr(factory, "__name__", descriptor.name),
        source_file=file,
        source_line=line,
        description=inspect.getdoc(factory) if factory is not None else None,
    )


def _source(factory: object) -> tuple[str | None, int | None]:
    if factory is None:
        return None, None
    target = cast("type[Any]", factory)
    try:
        return inspect.getsourcefile(target), inspect.getsourcelines(target)[1]
    except (TypeError, OSError):
        return None, None  # built in, or typed at a prompt


def _config_node(config: ResourceConfig, taken: set[str]) -> WorkflowResourceConfigNode:
    model = config.cls_factory
    type_name = model.__name__ if model is not None else None
    selector = config.path_selector
    try:
        value = config.call().model_dump(mode="json") if model is not None else None
    except (OSError, ValueError):
        value = None  # `Workflow.validate()` says what is wrong with the file
    return WorkflowResourceConfigNode(
        id=_free(f"resource_config_{_hashed(config.config_file, selector or '')}", taken),
        label=config.label or type_name or config.name,
        type_name=type_name,
        config_file=config.config_file,
        path_selector=selector,
        config_schema=_schema(model) if model is not None else None,
        config_value=value,
        description=config.description,
    )
