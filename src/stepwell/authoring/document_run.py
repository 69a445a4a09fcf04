"""How documents run: each compiles to a pipeline, and so to the same definition as all else.

Every run may be of another document, so a run carries its own: whoever takes it up compiles it from
there. A task that is not registered where a run is taken up parks the run; nothing is skipped.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from stepwell.authoring.document import (
    TaskSpec,
    WorkflowDocument,
    check_plain,
    data_of,
    numbered,
    parse,
    root_of,
    roots_of,
)
from stepwell.authoring.pipeline.build import PipelineBase
from stepwell.authoring.pipeline.compile import compile_pipeline
from stepwell.authoring.pipeline.context import PipelineContext
from stepwell.authoring.pipeline.handlers import START, PipelineHandler
from stepwell.authoring.pipeline.steps import Parallel, Scope, Step
from stepwell.authoring.program import Program, no_fields
from stepwell.authoring.tasks import TaskFailed, TaskRegistry, TaskStatus, tasks
from stepwell.errors import DocumentError
from stepwell.kernel.outcomes import Message
from stepwell.values import Json

NAME = "document"
"""What runs of documents are filed under."""

OWN_DOCUMENT = "(document)"
"""Where the message that a run begins with has the document."""

_KEPT = 256
_SCOPES = ("steps.", "on_error.", "on_exit.")  # what the places of tasks begin with


@dataclass(frozen=True, slots=True)
class After:
    """Try up to `retries` times more, `delay` seconds after each failure."""

    retries: int
    delay: float

    def next(
        self, elapsed_time: float, attempts: int, error: Exception, *, seed: int | None = None
    ) -> float | None:
        """See `RetryPolicy.next`."""
        return self.delay if attempts <= self.retries else None

    def describe(self) -> dict[str, Json]:
        """The policy as JSON data."""
        return {"kind": "After", "retries": self.retries, "delay": self.delay}


class Documents:
    """What an engine is given to run documents: `Engine(url, [Documents(registry)])`.

    Args:
        registry: the tasks that documents may name.
    """

    def __init__(self, registry: TaskRegistry | None = None) -> None:
        self.registry = registry or tasks
        self._lock = threading.Lock()  # big documents are compiled in threads
        self._programs: OrderedDict[str, tuple[Program, object]] = OrderedDict()
        # What is the same for all documents: how runs are found, written and shown.
        stub = PipelineBase(name=NAME).add_step(_never, name="any")
        self._program = replace(
            compile_pipeline(stub), start=self._start, variant=self.variant, edit=_edited
        )

    def compiled(self) -> Program:
        """The program that stands for those of all documents."""
        return self._program

    def _start(self, fields: Mapping[str, Any]) -> Message:
        for word in fields:
            if word not in ("document", "input"):
                raise DocumentError([f"{word}: a run takes a document and its input, nothing else"])
        return self.message(parse(fields.get("document"), self.registry), fields.get("input"))

    def message(self, document: WorkflowDocument, given: object = None) -> Message:
        """What a run of `document` begins with.

        Args:
            document: a document that was checked.
            given: the input, which references find as `input`: a mapping; None is an empty one.

        Raises:
            DocumentError: the input is no mapping of JSON values.
        """
        if given is not None and not isinstance(given, Mapping):
            raise DocumentError([f"input: an object is wanted, not {given!r:.60}"])
        rows = dict(cast("Mapping[str, Any]", given or {}))
        check_plain(rows, "the input")
        # Not `exclude_defaults`: a condition that says `equals: null` means it.
        data = document.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return Message(START, {"input": rows, OWN_DOCUMENT: data}, START)

    def variant(self, first: Message) -> tuple[Program, object]:
        """The program of the run that begins with this message."""
        return self.program_of(document_of(first))

    def program_of(self, document: WorkflowDocument) -> tuple[Program, object]:
        """The program of a document that was checked."""
        digest = document.digest()
        with self._lock:
            found = self._programs.get(digest)
        if found is None:
            for spec in every_task(document):
                self.registry.find(spec.name)
            pipeline = pipeline_of(document, self.registry)
            found = compile_pipeline(pipeline), pipeline
        with self._lock:
            found = self._programs.setdefault(digest, found)
            self._programs.move_to_end(digest)
            if len(self._programs) > _KEPT:
                self._programs.popitem(last=False)
        return found


def _edited(tag: str, data: Json, fields: Mapping[str, Json]) -> Json:
    """Other values for the input that a run of a document began with."""
    if tag != START or not isinstance(data, Mapping):
        raise no_fields()
    held = data.get("input")
    given = {**(held if isinstance(held, Mapping) else {}), **fields}
    check_plain(given, "the input")
    return {**data, "input": given}


def given_by(results: Mapping[str, Any]) -> dict[str, Any]:
    """What the tasks of a document gave, by place: what people see of a run's result.

    Args:
        results: what the run's state holds: of each task its status and result, and more.

    >>> given_by({"input": {}, "steps.0.a": {"status": "succeeded", "result": 1}, "steps.0": []})
    {'steps.0.a': 1}
    """
    noted = {
        place: cast("Mapping[str, Any]", found)
        for place, found in results.items()
        if place.startswith(_SCOPES) and isinstance(found, Mapping)
    }
    return {
        place: found.get("result")
        for place, found in noted.items()
        if found.get("status") == TaskStatus.SUCCEEDED.value
    }


async def _never() -> None:
    raise AssertionError("the step of no document")


def every_task(document: WorkflowDocument) -> list[TaskSpec]:
    """All tasks of a document, in order."""
    scopes = (document.steps, document.on_error, document.on_exit)
    return [task for steps in scopes for step in steps for task in step.tasks]


def document_of(first: Message) -> WorkflowDocument:
    """The document of the run that begins with this message."""
    payload = cast("Mapping[str, Any]", first.payload)
    return WorkflowDocument.model_validate(payload[OWN_DOCUMENT])


def place_of(program: Program, step: str) -> str | None:
    """Where in its document (`steps.0.task_a`) a step of a compiled one stands; None for those
    that belong to the machinery."""
    handler = program.handlers.get(step)
    found = handler.place.step if isinstance(handler, PipelineHandler) else None
    return None if found is None else found.name


def pipeline_of(document: WorkflowDocument, registry: TaskRegistry) -> PipelineBase:
    """The pipeline that a document describes."""
    pipeline = PipelineBase(name=NAME, timeout=document.timeout, version=document.digest())
    places: dict[str, str] = {}
    named = (
        ("steps", document.steps, Scope.NORMAL),
        ("on_error", document.on_error, Scope.ERROR),
        ("on_exit", document.on_exit, Scope.EXIT),
    )
    for word, steps, scope in named:
        for number, step in enumerate(steps):
            counts: dict[str, int] = {}
            made = [
                _step(spec, f"{word}.{number}.{numbered(spec.name, counts)}", places, registry)
                for spec in step.tasks
            ]
            if step.execution_type == "parallel":
                pipeline.add_node(scope, Parallel(f"{word}.{number}", tuple(made)))
            else:
                for one in made:
                    pipeline.add_step(one, scope)
    return pipeline


def _step(spec: TaskSpec, place: str, places: dict[str, str], registry: TaskRegistry) -> Step:
    if spec.id is not None:
        places[spec.id] = place
    # Only what it refers to: a copy of all places for every task would take a square of them.
    known = {root: places[root] for root in roots_of(spec) if root in places}

    async def run(ctx: PipelineContext) -> Json:
        return await perform(spec, ctx, known, registry)

    run.__annotations__.clear()  # reading them costs most of what compiling a big document does
    retries = int(spec.params.get("retry_count") or 0)
    return Step(
        run,
        name=place,
        timeout=spec.params.get("timeout"),
        retry_policy=After(retries, float(spec.params.get("retry_delay") or 0.0)),
    )


async def perform(
    spec: TaskSpec, ctx: Mapping[str, Any], places: Mapping[str, str], registry: TaskRegistry
) -> Json:
    """Do one task: resolve its params, make it, let it execute, and see what it says."""
    condition = spec.condition
    if condition is not None:
        value = resolve(condition.ref, ctx, places, missing=None)
        given = "equals" in condition.model_fields_set
        wanted = condition.equals
        same = value == wanted and isinstance(value, bool) == isinstance(wanted, bool)
        holds = same if given else bool(value)
        if holds is condition.negate:
            return {"status": TaskStatus.SKIPPED.value, "result": None}
    task = registry.create(spec.name)
    params = resolved(data_of(spec), ctx, places)
    kind = task.Params
    task.params = params if kind is None else kind.model_validate(params)
    task.context = ctx
    task.set_status(TaskStatus.RUNNING)
    result = await task.execute()
    if result is False or task.status is TaskStatus.FAILED:
        raise TaskFailed(f"task {spec.name!r} failed")
    value = None if isinstance(result, bool) else result
    return {"status": TaskStatus.SUCCEEDED.value, "result": value}


_NOTHING: Any = object()


def resolved(value: Any, ctx: Mapping[str, Any], places: Mapping[str, str]) -> Any:
    """Params with every reference replaced by what it names."""
    if isinstance(value, Mapping):
        rows = cast("Mapping[str, Any]", value)
        if len(rows) == 1 and isinstance(rows.get("$ref"), str):
            return resolve(rows["$ref"], ctx, places)
        return {key: resolved(item, ctx, places) for key, item in rows.items()}
    if isinstance(value, list):
        return [resolved(item, ctx, places) for item in cast("list[Any]", value)]
    return value


def resolve(
    ref: str, ctx: Mapping[str, Any], places: Mapping[str, str], *, missing: Any = _NOTHING
) -> Any:
    """What a reference names. Raises TaskFailed when it is not there, unless `missing` is given."""
    root = root_of(ref)
    value = ctx.get(places.get(root, root), _NOTHING)
    rest = ref[len(root) + 1 :].split(".") if len(ref) > len(root) else []
    for part in rest:
        if isinstance(value, Mapping):
            value = cast("Mapping[str, Any]", value).get(part, _NOTHING)
        elif (
            isinstance(value, list) and part.isdigit() and int(part) < len(cast("list[Any]", value))
        ):
            value = cast("list[Any]", value)[int(part)]
        else:
            value = _NOTHING
        if value is _NOTHING:
            break
    if value is not _NOTHING:
        return value
    if missing is not _NOTHING:
        return missing
    giver = "the run was given" if root == "input" else "that task gave"
    raise TaskFailed(f"the reference {ref!r} names nothing: {giver} no such value")
