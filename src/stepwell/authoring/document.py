"""Documents: workflows as JSON or YAML, of sequential and parallel tasks.

A document is data about tasks that someone else has registered. It is checked whole before it
runs, and every fault names its path. There are no expressions in it: a value is written out, or it
is a reference to what came before, `{"$ref": "steps.0.task_a.result.url"}`.

It compiles to a pipeline, and so to the same definition as everything else. Since every run may be
of another document, a run carries its own: whoever takes it up compiles it from there.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stepwell.authoring.pipeline.build import PipelineBase
from stepwell.authoring.pipeline.compile import compile_pipeline
from stepwell.authoring.pipeline.context import PipelineContext
from stepwell.authoring.pipeline.handlers import START
from stepwell.authoring.pipeline.steps import Parallel, Scope, Step
from stepwell.authoring.program import Program
from stepwell.authoring.tasks import TaskFailed, TaskRegistry, TaskStatus, tasks
from stepwell.errors import DocumentError
from stepwell.kernel.outcomes import Message
from stepwell.values import Json

NAME = "document"
"""What runs of documents are filed under."""

MAX_STEPS = 1000
MAX_TASKS = 1000
MAX_DEPTH = 64
MAX_BYTES = 1024 * 1024

STEERING = ("timeout", "retry_count", "retry_delay", "priority")
"""Params that steer the engine and are not passed to the task."""

PRIORITIES: Mapping[str, int] = {"low": -10, "normal": 0, "high": 10}
"""What the words for priorities mean."""

OWN_DOCUMENT = "(document)"
"""Where the message that a run begins with has the document."""

_KEPT = 256


class Condition(BaseModel):
    """When a task runs: when what `$ref` names is there and true, or equal to `equals`.

    `negate` turns it round. A task that does not run is skipped.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    ref: str = Field(alias="$ref", min_length=1, max_length=1000)
    equals: Any = None
    negate: bool = False


class TaskSpec(BaseModel):
    """One task of a document."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(
        min_length=1, max_length=200, description="The registered task.", examples=["task_a"]
    )
    params: dict[str, Any] = Field(
        default_factory=dict,
        description="Given to the task; `timeout` (seconds), `retry_count`, `retry_delay` "
        "(seconds) and `priority` (low, normal, high, or a number) steer the engine instead.",
    )
    id: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$", max_length=200,
        description="A name of its own, for references.",
    )  # fmt: skip
    condition: Condition | None = Field(None, description="When it runs; always by default.")


class StepSpec(BaseModel):
    """Some tasks, one after the other or side by side."""

    model_config = ConfigDict(extra="forbid")
    execution_type: Literal["sequential", "parallel"]
    tasks: list[TaskSpec] = Field(min_length=1, max_length=MAX_TASKS)


class WorkflowDocument(BaseModel):
    """A workflow as data.

    Example:
        >>> document = WorkflowDocument.model_validate({
        ...     "name": "sample",
        ...     "steps": [{"execution_type": "sequential", "tasks": [{"name": "task_a"}]}],
        ... })
        >>> document.steps[0].tasks[0].name
        'task_a'
    """

    model_config = ConfigDict(extra="forbid", title="stepwell workflow document")
    name: str = Field(min_length=1, max_length=200, description="What the workflow is called.")
    steps: list[StepSpec] = Field(
        min_length=1, max_length=MAX_STEPS, description="Done in this order."
    )
    timeout: float | None = Field(
        None, gt=0, description="Seconds the run may take before its exit steps begin."
    )
    on_error: list[StepSpec] = Field(
        default_factory=list[StepSpec], description="Done when a task has failed for good."
    )
    on_exit: list[StepSpec] = Field(
        default_factory=list[StepSpec], description="Done at the end, however it came to it."
    )

    def digest(self) -> str:
        """The same for documents that say the same."""
        text = json.dumps(self.model_dump(mode="json", by_alias=True), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def priority(self) -> int:
        """The highest priority of its tasks: that of its runs."""
        found = [
            priority_of(task.params["priority"])
            for _, step in _all_steps(self)
            for task in step.tasks
            if "priority" in task.params
        ]
        return max(found, default=0)


def priority_of(value: object) -> int:
    """A priority as a number. Raises ValueError when it is none."""
    if isinstance(value, str) and value in PRIORITIES:
        return PRIORITIES[value]
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e6 <= value <= 1e6:
        raise ValueError(f"priority is low, normal, high or a number, not {value!r:.60}")
    return int(value)


# --- reading and checking ------------------------------------------------------------------------


def load(
    source: str | Path | Mapping[str, Any], registry: TaskRegistry | None = None
) -> WorkflowDocument:
    """Read a document and check it.

    Args:
        source: a path (`.json`, `.yaml` or `.yml`), or the data itself.
        registry: the tasks that it may name; the default registry by default.

    Raises:
        DocumentError: it is no document; the text has a line for every fault, with its path.
        OSError: the file can't be read.

    Example:
        >>> load({"name": "n", "steps": [{"execution_type": "parallel", "tasks": [{"name": "x"}]}]})
        Traceback (most recent call last):
        stepwell.errors.DocumentError: steps[0].tasks[0].name: unknown task "x"; known: ...
    """
    data = source if isinstance(source, Mapping) else _read(Path(source))
    return parse(data, registry or tasks)


def _read(path: Path) -> Any:
    if path.stat().st_size > MAX_BYTES:
        raise DocumentError([f"{path}: a document has at most {MAX_BYTES} bytes"])
    text = path.read_text(encoding="utf-8")
    if path.suffix.lower() not in (".yaml", ".yml"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DocumentError([f"{path} is no JSON: {error}"]) from error
    try:
        import yaml  # an extra
    except ImportError:
        raise DocumentError(
            [f"{path}: reading YAML needs PyYAML: pip install 'stepwell[yaml]'"]
        ) from None
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DocumentError([f"{path} is no YAML: {error}"]) from error


def parse(data: object, registry: TaskRegistry) -> WorkflowDocument:
    """The document that `data` is. Raises `DocumentError` with every fault that it has."""
    if _depth(data) > MAX_DEPTH:
        raise DocumentError([f"a document is at most {MAX_DEPTH} levels deep"])
    try:
        document = WorkflowDocument.model_validate(data)
    except ValidationError as error:
        raise DocumentError([_fault(e) for e in error.errors(include_url=False)]) from error
    problems = list(_problems(document, registry))
    if problems:
        raise DocumentError(problems)
    return document


def _depth(data: object) -> int:
    deepest, todo = 0, [(data, 1)]
    while todo:
        value, depth = todo.pop()
        deepest = max(deepest, depth)
        if deepest > MAX_DEPTH:
            break
        if isinstance(value, Mapping):
            todo += [(v, depth + 1) for v in cast("Mapping[object, object]", value).values()]
        elif isinstance(value, list):
            todo += [(v, depth + 1) for v in cast("list[object]", value)]
    return deepest


def _fault(error: Any) -> str:
    return f"{_path(error['loc'])}: {error['msg']}"


def _path(parts: Iterable[str | int]) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "the document"


def _all_steps(document: WorkflowDocument) -> list[tuple[str, StepSpec]]:
    """All steps, with their paths."""
    named = (
        ("steps", document.steps),
        ("on_error", document.on_error),
        ("on_exit", document.on_exit),
    )
    return [(f"{name}[{n}]", step) for name, steps in named for n, step in enumerate(steps)]


def _problems(document: WorkflowDocument, registry: TaskRegistry) -> Iterable[str]:
    seen_ids: dict[str, str] = {}
    before: set[str] = {"input"}
    for path, step in _all_steps(document):
        added: set[str] = set()
        place = path.replace("[", ".").replace("]", "")
        counts: dict[str, int] = {}
        for n, spec in enumerate(step.tasks):
            at = f"{path}.tasks[{n}]"
            if spec.name not in registry:
                known = ", ".join(registry.names())
                yield f'{at}.name: unknown task "{spec.name}"; known: {known}'
            else:
                yield from _params(spec, at, registry)
            refs = list(_refs(spec.params, f"{at}.params"))
            if spec.condition is not None:
                refs.append((f"{at}.condition", spec.condition.ref))
            for where, ref in refs:
                if not any(ref == root or ref.startswith(f"{root}.") for root in before):
                    yield (
                        f"{where}: {ref!r} names nothing that comes before; there is "
                        f"{', '.join(sorted(before))}"
                    )
            name = _numbered(spec.name, counts)
            new = {f"{place}.{name}"}
            if spec.id is not None:
                if spec.id in seen_ids or spec.id in ("input", "steps", "on_error", "on_exit"):
                    other = seen_ids.get(spec.id, "the document's own word")
                    yield f"{at}.id: {spec.id!r} is taken: {other}"
                seen_ids[spec.id] = at
                new.add(spec.id)
            if step.execution_type == "sequential":
                before |= new
            else:
                added |= new
        before |= added


def _params(spec: TaskSpec, at: str, registry: TaskRegistry) -> Iterable[str]:
    params = spec.params
    for key, least in (("timeout", 1e-3), ("retry_count", 0), ("retry_delay", 0)):
        value = params.get(key)
        if value is None:
            continue
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not least <= value < 1e9
        ):
            yield f"{at}.params.{key}: a number of {least:g} or more is wanted, not {value!r:.60}"
        elif key == "retry_count" and (not isinstance(value, int) or value > 1000):
            yield f"{at}.params.{key}: a whole number up to 1000 is wanted, not {value!r:.60}"
    if "priority" in params:
        try:
            priority_of(params["priority"])
        except ValueError as error:
            yield f"{at}.params.priority: {error}"
    data = data_of(spec)
    if not list(_refs(data, "")):
        problem = registry.problem(spec.name, data)
        if problem is not None:
            yield f"{at}.params: {problem}"


def _numbered(name: str, counts: dict[str, int]) -> str:
    counts[name] = counts.get(name, 0) + 1
    return name if counts[name] == 1 else f"{name}_{counts[name]}"


def data_of(spec: TaskSpec) -> dict[str, Any]:
    """The params that go to the task."""
    return {key: value for key, value in spec.params.items() if key not in STEERING}


def _refs(value: object, at: str) -> Iterable[tuple[str, str]]:
    """All references in some params, with their paths."""
    if isinstance(value, Mapping):
        rows = cast("Mapping[str, object]", value)
        ref = rows.get("$ref")
        if len(rows) == 1 and isinstance(ref, str):
            yield at, ref
            return
        for key, item in rows.items():
            yield from _refs(item, f"{at}.{key}")
    elif isinstance(value, list):
        for n, item in enumerate(cast("list[object]", value)):
            yield from _refs(item, f"{at}[{n}]")


# --- running -------------------------------------------------------------------------------------


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
        self._programs: OrderedDict[str, tuple[Program, object]] = OrderedDict()
        # What is the same for all documents: how runs are found, written and shown.
        stub = PipelineBase(name=NAME).add_step(_never, name="any")
        self._program = replace(compile_pipeline(stub), start=self._start, variant=self._variant)

    def compiled(self) -> Program:
        """The program that stands for those of all documents."""
        return self._program

    def _start(self, fields: Mapping[str, Any]) -> Message:
        document = parse(fields.get("document"), self.registry)
        payload: dict[str, Any] = {"input": dict(fields.get("input") or {})}
        payload[OWN_DOCUMENT] = document.model_dump(
            mode="json", by_alias=True, exclude_defaults=True
        )
        return Message(START, payload, START)

    def _variant(self, first: Message) -> tuple[Program, object]:
        """The program of the run that begins with this message."""
        payload = cast("Mapping[str, Any]", first.payload)
        document = WorkflowDocument.model_validate(payload[OWN_DOCUMENT])
        digest = document.digest()
        found = self._programs.get(digest)
        if found is None:
            pipeline = pipeline_of(document, self.registry)
            found = self._programs[digest] = compile_pipeline(pipeline), pipeline
            if len(self._programs) > _KEPT:
                self._programs.popitem(last=False)
        self._programs.move_to_end(digest)
        return found


async def _never() -> None:
    raise AssertionError("the step of no document")


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
                _step(spec, f"{word}.{number}.{_numbered(spec.name, counts)}", places, registry)
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
    known = dict(places)

    async def run(ctx: PipelineContext) -> Json:
        return await perform(spec, ctx, known, registry)

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
        holds = value == condition.equals if given else bool(value)
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
    parts = ref.split(".")
    if parts[0] in ("steps", "on_error", "on_exit") and len(parts) >= 3:
        value, rest = ctx.get(".".join(parts[:3]), _NOTHING), parts[3:]
    else:
        value, rest = ctx.get(places.get(parts[0], parts[0]), _NOTHING), parts[1:]
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
    raise TaskFailed(f"the reference {ref!r} names nothing: that task gave no such value")


def schema() -> dict[str, Any]:
    """The JSON Schema of documents."""
    return WorkflowDocument.model_json_schema(by_alias=True)


__all__: Sequence[str] = [
    "Condition",
    "Documents",
    "StepSpec",
    "TaskSpec",
    "WorkflowDocument",
    "load",
    "parse",
    "perform",
    "pipeline_of",
    "schema",
]
