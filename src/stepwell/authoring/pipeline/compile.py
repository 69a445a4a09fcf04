"""A pipeline as a program: each scope a chain of steps, each step's outcome the way to the next.

A parallel group is three kinds of steps: one that opens a stream, its members, and a join that
takes their results in order. A branch is a step that goes one of two ways. The error and exit
scopes are those of the definition; every failure passes one hidden step, which notes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from stepwell.authoring.pipeline.build import PipelineBase
from stepwell.authoring.pipeline.failures import FailedHandler, OwnErrorHandler
from stepwell.authoring.pipeline.groups import JoinHandler, MemberHandler, OpenHandler
from stepwell.authoring.pipeline.handlers import (
    FAILED,
    GO,
    RESULT,
    START,
    BranchHandler,
    Place,
    StartHandler,
    StepHandler,
    part_of,
    place_of,
    shared_name,
)
from stepwell.authoring.pipeline.serializer import (
    PipelineSerializer,
    hints_of,
    models_in,
    models_named,
)
from stepwell.authoring.pipeline.steps import Branch, Node, Parallel, Scope, Step
from stepwell.authoring.program import Ending, Handler, Program, TypeRegistry, no_fields
from stepwell.errors import (
    WorkflowConfigurationError,
)
from stepwell.kernel.definition import Definition, Join, StepDef
from stepwell.kernel.outcomes import Message
from stepwell.values import Json, RunStatus

_ANY_NUMBER = 1_000_000_000


def compile_pipeline(pipeline: PipelineBase) -> Program:
    """The program of a pipeline. Raises WorkflowConfigurationError when it has no steps."""
    if not pipeline.scopes[Scope.NORMAL]:
        raise WorkflowConfigurationError(
            f"pipeline {pipeline.name!r} has no steps; add one: pipeline.add_step(function)"
        )
    made = _Compiler(pipeline)
    entries = {scope: made.chain(nodes, None, scope) for scope, nodes in pipeline.scopes.items()}
    made.own_error_steps()
    first = cast(str, entries[Scope.NORMAL])
    steps = [StepDef(START, emits=(first,)), *made.steps]
    steps.append(StepDef(FAILED, recoveries=_ANY_NUMBER))
    made.handlers[START] = StartHandler(pipeline, Place(Scope.NORMAL, first))
    made.handlers[FAILED] = FailedHandler(pipeline, made.places)
    serializer = PipelineSerializer(_types_of(pipeline))
    types = TypeRegistry(
        (),
        dump_free=serializer.serialize_value,
        dump=serializer.serialize_value,
        load=lambda _kind, data: serializer.deserialize_value(data),
    )
    for tag in (START, RESULT, *made.parts):
        types.classes[tag] = object
    return Program(
        definition=Definition(
            name=pipeline.name,
            version=pipeline.version,
            steps=tuple(steps),
            start=GO,
            timeout=pipeline.timeout,
            on_error=entries[Scope.ERROR],
            on_exit=entries[Scope.EXIT],
        ),
        handlers=made.handlers,
        types=types,
        start=lambda fields: Message(START, dict(fields), START),
        result=lambda message: dict(cast("Mapping[str, Any]", message.payload or {})),
        final=_final,
        failure=TypeRegistry(()).exception,
        serializer=serializer,
        shows_state=True,
        edit=lambda tag, data, fields: _edited(pipeline, types, tag, data, fields),
        source=pipeline,
    )


def _edited(
    pipeline: PipelineBase, types: TypeRegistry, tag: str, data: Json, fields: Mapping[str, Json]
) -> Json:
    """Other values for the data that a run began with."""
    if tag != START or not isinstance(data, Mapping):
        raise no_fields()
    made = {**data, **fields}
    pipeline.beginning(cast("Mapping[str, Any]", types.load(tag, made)))
    return made


def _types_of(pipeline: PipelineBase) -> list[type[Any]]:
    """The models that values of its context may be."""
    fields = () if pipeline.model is None else pipeline.model.model_fields.values()
    hints = [hint for step in pipeline.steps() for hint in hints_of(step.func)]
    named = models_named([*(field.annotation for field in fields), *hints])
    found = {*pipeline.types, *models_in(pipeline.initial.values()), *named}
    return sorted(found, key=lambda kind: f"{kind.__module__}.{kind.__qualname__}")


class _Compiler:
    def __init__(self, pipeline: PipelineBase) -> None:
        self.pipeline = pipeline
        self.steps: list[StepDef] = []
        self.handlers: dict[str, Handler] = {}
        self.places: dict[str, Place] = {}
        self.parts: list[str] = []

    def chain(self, nodes: Sequence[Node], after: str | None, scope: Scope) -> str | None:
        """Compile nodes that follow one another; the name of the first step."""
        previous = [None, *(node.name for node in nodes)][: len(nodes)]
        compiled: list[list[StepDef]] = []
        for node, before in zip(reversed(nodes), reversed(previous), strict=True):
            mark = len(self.steps)
            after = self._node(node, before, after, scope)
            compiled.append(self.steps[mark:])
            del self.steps[mark:]
        self.steps += [step for part in reversed(compiled) for step in part]
        return after

    def _node(self, node: Node, before: str | None, after: str | None, scope: Scope) -> str:
        match node:
            case Step():
                place = Place(scope, after, node)
                self._add(node.name, place, node, after)
                self.handlers[node.name] = StepHandler(self.pipeline, place)
            case Parallel():
                self._group(node, after, scope)
            case Branch():
                place = Place(scope, after)
                mark = len(self.steps)
                on_true = self.chain(node.on_true, after, scope)
                on_false = self.chain(node.on_false, after, scope)
                ways = tuple(dict.fromkeys(w for w in (on_true, on_false) if w is not None))
                self.steps.insert(mark, StepDef(node.name, emits=ways, on_error=FAILED))
                self.places[node.name] = place
                self.handlers[node.name] = BranchHandler(
                    self.pipeline, place, node.condition, before, (on_true, on_false)
                )
        return node.name

    def _add(
        self, name: str, place: Place, step: Step, after: str | None, workers: int = 0
    ) -> None:
        describe = getattr(step.policy, "describe", None)
        self.steps.append(
            StepDef(
                name,
                emits=() if after is None else (after,),
                timeout=step.timeout,
                workers=workers,
                on_error=FAILED,
                retry=cast("Json", describe()) if callable(describe) else None,
            )
        )
        self.places[name] = place

    def _group(self, group: Parallel, after: str | None, scope: Scope) -> None:
        part, join = part_of(group), f"(join of {group.name})"
        self.parts.append(part)
        opened = Place(scope, after, None, group)
        shared = shared_name(group)
        names = [shared or f"{group.name} ({step.name})" for step in group.members]
        self.steps.append(
            StepDef(
                group.name,
                emits=tuple(dict.fromkeys(names)),
                opens=(part,),
                collectors=(join,),
                on_error=FAILED,
            )
        )
        self.places[group.name] = self.places[join] = opened
        self.handlers[group.name] = OpenHandler(self.pipeline, opened, tuple(names))
        for name, step in zip(names, group.members, strict=True):
            if name not in self.handlers:
                place = Place(scope, after, step if shared is None else None, group)
                self._add(name, place, step, join, group.max_concurrency or 0)
                self.handlers[name] = MemberHandler(self.pipeline, place, step.policy)
        self.steps.append(
            StepDef(
                join,
                join=Join("collect", ((part,),), None, "input"),
                emits=() if after is None else (after,),
                on_error=FAILED,
            )
        )
        self.handlers[join] = JoinHandler(self.pipeline, opened)

    def own_error_steps(self) -> None:
        """The error steps of single steps."""
        for covered, step in self.pipeline.handlers_of.items():
            at = place_of(self.places, covered)
            place = Place(Scope.ERROR if at.scope is Scope.NORMAL else at.scope, at.after, step)
            self._add(step.name, place, step, at.after)
            self.handlers[step.name] = OwnErrorHandler(self.pipeline, place, at)


def _final(ending: Ending) -> object | None:
    """The last item of the run's stream: how it ended."""
    shown: dict[str, Any] = {"status": ending.status.value}
    if ending.error is not None:
        shown["error"] = ending.error.message
    return shown


__all__ = ["RESULT", "RunStatus", "compile_pipeline"]
