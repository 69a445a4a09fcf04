"""An event workflow as a graph: which nodes and edges, what they say, and the filter."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ValidationError

from stepwell.authoring.events.decorators import catch_error, step
from stepwell.authoring.events.model import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StepFailedEvent,
    StopEvent,
)
from stepwell.authoring.events.resources import Resource, ResourceConfig
from stepwell.authoring.events.workflow import WorkflowBase
from stepwell.representation import (
    WorkflowEventNode,
    WorkflowExternalNode,
    WorkflowGenericNode,
    WorkflowGraph,
    WorkflowGraphEdge,
    WorkflowResourceConfigNode,
    WorkflowResourceNode,
    WorkflowStepNode,
    get_workflow_representation,
)


class First(Event):
    """The first."""

    x: int


class Second(First):
    pass


class Question(InputRequiredEvent):
    pass


class Answer(HumanResponseEvent):
    pass


class Settings(BaseModel):
    k: int


def inner() -> int:
    return 1


def database(
    i: Annotated[int, Resource(inner)],
    c: Annotated[Settings, ResourceConfig("no/such/file.json", "core", "the label", "what it is")],
) -> str:
    """The database."""
    return f"{i}{c}"


class Full(WorkflowBase):
    """All kinds of nodes."""

    @step
    async def begin(
        self, ev: StartEvent, db: Annotated[str, Resource(database)]
    ) -> First | Second | Question:
        """Begins."""
        raise NotImplementedError

    @step
    async def many(self, ev: First, db: Annotated[str, Resource(database)]) -> list[Second]:
        raise NotImplementedError

    @step
    async def gather(self, ev: list[Second]) -> StopEvent:
        raise NotImplementedError

    @step
    async def answered(self, ev: Answer) -> StopEvent | None:
        raise NotImplementedError

    @catch_error
    async def rescue(self, ev: StepFailedEvent) -> StopEvent:
        raise NotImplementedError


def edges(graph: WorkflowGraph) -> set[tuple[str, str, str | None]]:
    return {(e.source, e.target, e.label) for e in graph.edges}


def node(graph: WorkflowGraph, id: str) -> Any:
    return next(n for n in graph.nodes if n.id == id)


def test_every_step_and_event_is_one_node_and_the_class_and_its_instance_give_the_same() -> None:
    graph = get_workflow_representation(Full)
    plain = [n.id for n in graph.nodes if not n.node_type.startswith("resource")]
    assert sorted(plain) == sorted(
        [
            *("begin", "many", "gather", "answered", "rescue", "external_step"),
            *("StartEvent", "First", "Second", "Question", "Answer", "StopEvent"),
            "StepFailedEvent",
        ]
    )
    assert graph.name == "Full"
    assert graph.description == "All kinds of nodes."
    assert get_workflow_representation(Full()) == graph


def test_edges_say_who_takes_and_emits_and_who_is_asked() -> None:
    flow = {e for e in edges(get_workflow_representation(Full)) if "resource" not in e[1]}
    assert flow == {
        ("StartEvent", "begin", None),
        ("begin", "First", None),
        ("begin", "Second", None),
        ("begin", "Question", None),
        ("Question", "external_step", None),
        ("external_step", "Answer", None),
        ("Answer", "answered", None),
        ("answered", "StopEvent", None),
        ("First", "many", None),
        ("many", "Second", None),
        ("Second", "gather", None),
        ("gather", "StopEvent", None),
        ("StepFailedEvent", "rescue", None),
        ("rescue", "StopEvent", None),
    }


def test_an_event_node_knows_its_parents_its_schema_and_its_producers() -> None:
    graph = get_workflow_representation(Full)
    second = node(graph, "Second")
    assert second.event_type == "Second"
    assert second.event_types == ["Second", "First"]
    assert second.produced_by == ["begin", "many"]
    assert second.event_schema["properties"]["x"]["type"] == "integer"
    assert second.is_subclass_of("First")
    assert second.is_subclass_of("StopEvent", "Second")
    assert not second.is_subclass_of("Event")
    assert not second.is_subclass_of()
    assert node(graph, "Answer").event_types == ["Answer", "HumanResponseEvent"]
    assert node(graph, "begin").description == "Begins."
    assert node(graph, "many").description is None


def test_resources_hang_on_their_users_and_on_each_other_by_the_name_of_the_parameter() -> None:
    graph = get_workflow_representation(Full)
    (db,) = [n for n in graph.nodes if isinstance(n, WorkflowResourceNode) and n.label == "str"]
    (one,) = [n for n in graph.nodes if isinstance(n, WorkflowResourceNode) and n.label == "int"]
    (conf,) = [n for n in graph.nodes if isinstance(n, WorkflowResourceConfigNode)]
    assert {e for e in edges(graph) if e[1] in (db.id, one.id, conf.id)} == {
        ("begin", db.id, "db"),
        ("many", db.id, "db"),
        (db.id, one.id, "i"),
        (db.id, conf.id, "c"),
    }
    assert (db.type_name, db.getter_name, db.description) == ("str", "database", "The database.")
    assert db.source_file == __file__
    assert db.source_line == database.__code__.co_firstlineno
    assert db.id.startswith("resource_")
    assert len(db.id) == len("resource_") + 12
    assert conf.id.startswith("resource_config_")
    assert conf.label == "the label"
    assert conf.description == "what it is"
    assert conf.path_selector == "core"
    assert conf.type_name == "Settings"
    assert conf.config_value is None, "a file that is not there must not break the graph"
    assert conf.config_schema is not None
    assert "k" in conf.config_schema["properties"]


def test_a_configuration_file_shows_its_value(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text(json.dumps({"core": {"k": 3}}))

    class Configured(WorkflowBase):
        @step
        async def only(
            self, ev: StartEvent, c: Annotated[Settings, ResourceConfig(str(file), "core")]
        ) -> StopEvent:
            raise NotImplementedError

    (conf,) = [
        n
        for n in get_workflow_representation(Configured).nodes
        if isinstance(n, WorkflowResourceConfigNode)
    ]
    assert conf.config_value == {"k": 3}
    assert conf.config_file == str(file)
    assert conf.label == "Settings"


def test_two_factories_of_one_name_are_two_nodes() -> None:
    def made(n: int) -> Any:
        def factory() -> int:
            return n

        return factory

    class Two(WorkflowBase):
        @step
        async def only(
            self,
            ev: StartEvent,
            a: Annotated[int, Resource(made(1))],
            b: Annotated[int | None, Resource(made(2))],
        ) -> StopEvent:
            raise NotImplementedError

    found = [n for n in get_workflow_representation(Two).nodes if n.node_type == "resource"]
    assert len({n.id for n in found}) == 2
    assert {n.label for n in found} == {"int"}


def test_resource_ids_are_the_same_every_time() -> None:
    first, second = (get_workflow_representation(Full) for _ in range(2))
    assert [n.id for n in first.nodes] == [n.id for n in second.nodes]


def test_subclasses_lead_to_steps_that_take_them() -> None:
    class Loose(WorkflowBase):
        @step
        async def begin(self, ev: StartEvent) -> Second:
            raise NotImplementedError

        @step(accept_event_subclasses=True)
        async def end(self, ev: First) -> StopEvent:
            raise NotImplementedError

    assert {e[:2] for e in edges(get_workflow_representation(Loose)) if e[1] == "end"} == {
        ("First", "end"),
        ("Second", "end"),
    }


def test_without_a_question_there_is_no_outside() -> None:
    class Told(WorkflowBase):
        @step
        async def begin(self, ev: StartEvent) -> First | None:
            raise NotImplementedError

        @step
        async def end(self, ev: First | Answer) -> StopEvent:
            raise NotImplementedError

    graph = get_workflow_representation(Told)
    assert not [n for n in graph.nodes if isinstance(n, WorkflowExternalNode)]
    assert all("external_step" not in e for e in edges(graph))


def test_declared_types_of_any_class_count_as_start_and_stop() -> None:
    @dataclass
    class Order:
        n: int

    class Receipt:
        pass

    class Declared(WorkflowBase[Any, Order, Receipt]):
        async def start(self, payload: Order) -> Receipt:
            raise NotImplementedError

    graph = get_workflow_representation(Declared)
    assert node(graph, "Order").event_types == ["Order", "StartEvent"]
    assert node(graph, "Order").event_schema["properties"]["n"]["type"] == "integer"
    assert node(graph, "Receipt").event_types == ["Receipt", "StopEvent"]
    assert node(graph, "Receipt").event_schema is None


def test_events_that_share_a_name_get_ids_of_their_own() -> None:
    def another() -> Any:
        class First(Event):
            pass

        return First

    other = another()

    class Clash(WorkflowBase):
        @step
        async def begin(self, ev: StartEvent) -> First | other:  # pyright: ignore[reportInvalidTypeForm]
            raise NotImplementedError

        @step
        async def end(self, ev: First | other) -> StopEvent:  # pyright: ignore[reportInvalidTypeForm]
            raise NotImplementedError

    graph = get_workflow_representation(Clash)
    firsts = [n for n in graph.nodes if n.label == "First"]
    assert len(firsts) == 2
    assert firsts[0].id == "First"
    assert firsts[1].id.endswith("another.<locals>.First")
    assert {e[:2] for e in edges(graph)} == {
        ("StartEvent", "begin"),
        ("end", "StopEvent"),
        *(("begin", n.id) for n in firsts),
        *((n.id, "end") for n in firsts),
    }


@pytest.mark.parametrize("given", [int, 3, None])
def test_what_is_no_workflow_is_refused(given: Any) -> None:
    with pytest.raises(TypeError, match="expected a Workflow"):
        get_workflow_representation(given)


# --- models ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "most, expected",
    [(0, "*"), (1, "*"), (2, "a*"), (4, "abc*"), (7, "abcdef*"), (8, "abcdefgh"), (9, "abcdefgh")],
)
def test_a_long_label_is_cut_and_marked(most: int, expected: str) -> None:
    assert WorkflowStepNode(id="a", label="abcdefgh").truncated_label(most) == expected


def test_a_graph_comes_back_from_json_as_it_went() -> None:
    graph = get_workflow_representation(Full)
    again = WorkflowGraph.model_validate_json(graph.model_dump_json())
    assert again == graph
    assert [type(n) for n in again.nodes] == [type(n) for n in graph.nodes]


def test_unknown_kinds_are_generic_and_no_kind_is_a_step() -> None:
    rows = [
        {"id": "q", "label": "Q", "node_type": "agent", "event_types": ["Agent"]},
        {"id": "r", "label": "R"},
    ]
    graph = WorkflowGraph.model_validate({"name": "n", "nodes": rows, "edges": []})
    agent, plain = graph.nodes
    assert isinstance(agent, WorkflowGenericNode)
    assert agent.is_subclass_of("Agent")
    assert not WorkflowGenericNode(id="x", label="x", node_type="t").is_subclass_of("Agent")
    assert isinstance(plain, WorkflowStepNode)
    assert WorkflowGraph.model_validate(graph.model_dump()) == graph


def test_a_known_kind_must_be_complete() -> None:
    row = {"id": "q", "label": "Q", "node_type": "event"}
    with pytest.raises(ValidationError, match="event_type"):
        WorkflowGraph.model_validate({"name": "n", "nodes": [row], "edges": []})


# --- the filter --------------------------------------------------------------------------------


def made(ids: str, rows: list[tuple[str, str, str | None]]) -> WorkflowGraph:
    """Ids that begin with e are events, with r resources, all others steps."""
    kinds: dict[str, Any] = {"e": WorkflowEventNode, "r": WorkflowResourceNode}
    nodes: list[Any] = []
    for id in ids.split():
        more = {"event_type": id, "event_types": [id]} if id[0] == "e" else {}
        nodes.append(kinds.get(id[0], WorkflowStepNode)(id=id, label=f"L{id}", **more))
    return WorkflowGraph(
        name="g",
        nodes=nodes,
        edges=[WorkflowGraphEdge(source=s, target=t, label=x) for s, t, x in rows],
    )


@pytest.mark.parametrize(
    "ids, rows, removed, expected",
    [
        pytest.param(
            "s1 e1 s2", [("s1", "e1", "p"), ("e1", "s2", "q")], ["event"],
            [("s1", "s2", "Le1")], id="a removed node's label is the edge's",
        ),
        pytest.param(
            "s1 e1 r1 s2", [("s1", "e1", None), ("e1", "r1", None), ("r1", "s2", None)],
            ["event", "resource"], [("s1", "s2", "Le1")], id="the first of several",
        ),
        pytest.param(
            "s1 e1 e2 s2",
            [("s1", "e1", None), ("e1", "e2", None), ("e2", "e1", None), ("e2", "s2", None)],
            ["event"], [("s1", "s2", "Le1")], id="cycles end",
        ),
        pytest.param(
            "s1 e1", [("s1", "e1", None), ("e1", "s1", None)], ["event"],
            [("s1", "s1", "Le1")], id="back to itself",
        ),
        pytest.param(
            "s1 e1 s2", [("s1", "e1", None), ("e1", "s2", None), ("s1", "s2", "d")], ["event"],
            [("s1", "s2", "Le1")], id="one edge in each direction",
        ),
        pytest.param(
            "s1 r1 r2 s2", [("s1", "r1", "a"), ("r1", "r2", "b"), ("r2", "s2", "c")], ["step"],
            [("r1", "r2", "b")], id="edges of kept nodes keep their label",
        ),
        pytest.param("s1 e1", [("s1", "e1", None)], ["step", "event"], [], id="all removed"),
    ],
)  # fmt: skip
def test_removing_kinds_of_nodes_keeps_what_they_connected(
    ids: str,
    rows: list[tuple[str, str, str | None]],
    removed: list[str],
    expected: list[tuple[str, str, str | None]],
) -> None:
    graph = made(ids, rows)
    filtered = graph.filter_by_node_type(*removed)
    assert [(e.source, e.target, e.label) for e in filtered.edges] == expected
    assert all(n.node_type not in removed for n in filtered.nodes)
    assert len(graph.edges) == len(rows), "the graph itself is not changed"


def test_removing_nothing_gives_an_equal_graph_of_its_own() -> None:
    graph = made("s1 e1", [("s1", "e1", None), ("s1", "e1", None)])
    copy = graph.filter_by_node_type()
    assert copy == graph
    copy.nodes[0].label = "changed"
    assert graph.nodes[0].label == "Ls1"
