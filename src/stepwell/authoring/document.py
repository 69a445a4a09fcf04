"""Documents: workflows as JSON or YAML, of sequential and parallel tasks.

A document is data about tasks that someone else has registered. It is checked whole before it
runs, and every fault names its path. There are no expressions in it: a value is written out, or it
is a reference to what came before, `{"$ref": "steps.0.task_a.result.url"}`.

This module refuses to know how documents run; `document_run` compiles them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stepwell.authoring.document_file import read_file
from stepwell.authoring.strict import SHOWN, few, what_there_is
from stepwell.authoring.tasks import STEERING, TaskRegistry, tasks
from stepwell.errors import DocumentError

NAME = "document"
"""What runs of documents are filed under."""

MAX_STEPS = 1000
MAX_TASKS = 1000
MAX_ALL_TASKS = 10_000
"""All tasks of a document: what can be compiled in about a second."""

MAX_DEPTH = 64

PRIORITIES: Mapping[str, int] = {"low": -10, "normal": 0, "high": 10}
"""What the words for priorities mean."""

MAX_NODES = 200_000
"""Values that a document may have, all told: YAML can say a lot in a few lines."""

_WHOLE = 2**63
"""No whole number of a document is as far from 0."""


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
    name: str = Field(
        min_length=1,
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="What the workflow is called; no control characters.",
        examples=["sample_workflow"],
    )
    steps: list[StepSpec] = Field(
        min_length=1, max_length=MAX_STEPS, description="Done in this order."
    )
    timeout: float | None = Field(
        None,
        gt=0,
        lt=1e9,
        allow_inf_nan=False,
        description="Seconds the run may take before its exit steps begin.",
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
    data = source if isinstance(source, Mapping) else read_file(Path(source))
    return parse(data, registry or tasks)


def parse(data: object, registry: TaskRegistry) -> WorkflowDocument:
    """The document that `data` is. Raises `DocumentError` with every fault that it has."""
    check_plain(data)
    try:
        document = WorkflowDocument.model_validate(data)
    except ValidationError as error:
        raise DocumentError(few(_fault(e) for e in error.errors(include_url=False))) from error
    problems = few(_problems(document, registry))
    if problems:
        raise DocumentError(problems)
    return document


def check_plain(data: object, what: str = "a document") -> None:
    """Raise `DocumentError` unless `data` is what JSON can say, within the limits of documents."""
    todo, count = [(data, 1)], 0
    while todo:
        value, depth = todo.pop()
        count += 1
        if depth > MAX_DEPTH:
            raise DocumentError([f"{what} is at most {MAX_DEPTH} levels deep"])
        if count > MAX_NODES:
            raise DocumentError([f"{what} has at most {MAX_NODES} values"])
        match value:
            case dict():
                rows = cast("dict[object, object]", value)
                for key, item in rows.items():
                    if not isinstance(key, str):
                        raise DocumentError([f"{what} has texts for keys, not {key!r:.60}"])
                    todo += [(key, depth), (item, depth + 1)]
            case list():
                todo += [(item, depth + 1) for item in cast("list[object]", value)]
            case str():
                if not _is_text(value):
                    raise DocumentError([f"{what} has a text that is no Unicode: {value!r:.60}"])
            case None | bool():
                pass
            case int():
                if not -_WHOLE <= value < _WHOLE:
                    raise DocumentError([f"{what} has whole numbers of at most 64 bits"])
            case float():
                if value != value or value in (float("inf"), float("-inf")):
                    raise DocumentError([f"{what} has finite numbers, not {value!r}"])
            case _:
                raise DocumentError(
                    [f"{what} holds what JSON can say, not {type(value).__name__}: {value!r:.60}"]
                )


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _fault(error: Any) -> str:
    said = "an object is wanted" if error["type"] == "model_type" else error["msg"]
    if error["type"] == "extra_forbidden":
        *where, key = error["loc"]
        said = f"there is no such field; {what_there_is(str(key), _fields_at(where, key))}"
    return f"{_path(error['loc'])}: {said}"


_PARTS = {
    **dict.fromkeys(("steps", "on_error", "on_exit"), StepSpec),
    "tasks": TaskSpec,
    "condition": Condition,
}


def _fields_at(where: Sequence[str | int], key: object) -> list[str]:
    """What the part of a document at this path has; and its input, which may be given with it."""
    kind: type[BaseModel] = WorkflowDocument
    for part in where:
        kind = _PARTS.get(str(part), kind)
    fields = [field.alias or name for name, field in kind.model_fields.items()]
    return [*fields, "input"] if kind is WorkflowDocument and key != "input" else fields


def _path(parts: Iterable[str | int]) -> str:
    text = ""
    for part in parts:
        name = f"{part:.80}" if isinstance(part, str) else f"[{part}]"
        text += f".{name}" if text and isinstance(part, str) else name
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
    count = sum(len(step.tasks) for _, step in _all_steps(document))
    if count > MAX_ALL_TASKS:
        yield f"steps: a document has at most {MAX_ALL_TASKS} tasks, not {count}"
        return
    seen_ids: dict[str, str] = {}
    before: set[str] = {"input"}
    for path, step in _all_steps(document):
        added: set[str] = set()
        place = path.replace("[", ".").replace("]", "")
        counts: dict[str, int] = {}
        for n, spec in enumerate(step.tasks):
            at = f"{path}.tasks[{n}]"
            yield from _steering(spec.params, f"{at}.params")
            if spec.name not in registry:
                yield f'{at}.name: unknown task "{spec.name}"; known: {_some(registry.names())}'
            elif problem := _unfit(spec, registry):
                yield f"{at}.params: {problem}"
            refs = list(_refs(spec.params, f"{at}.params"))
            if spec.condition is not None:
                refs.append((f"{at}.condition", spec.condition.ref))
            for where, ref in refs:
                if root_of(ref) not in before:
                    yield (
                        f"{where}: {ref!r:.200} names nothing that comes before; there is "
                        f"{_some(before)}"
                    )
            name = numbered(spec.name, counts)
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


def _some(names: Iterable[str]) -> str:
    known = sorted(names)
    return ", ".join(known[:SHOWN]) + (", ..." if len(known) > SHOWN else "")


def root_of(ref: str) -> str:
    """The part of a reference that names a task's result, or the input."""
    parts = ref.split(".")
    return ".".join(parts[:3]) if parts[0] in _SCOPES else parts[0]


def roots_of(spec: TaskSpec) -> set[str]:
    """What a task refers to."""
    roots = {root_of(ref) for _, ref in _refs(spec.params, "")}
    return roots if spec.condition is None else {*roots, root_of(spec.condition.ref)}


_SCOPES = ("steps", "on_error", "on_exit")


def _steering(params: Mapping[str, Any], at: str) -> Iterable[str]:
    for key, least in (("timeout", 1e-3), ("retry_count", 0), ("retry_delay", 0)):
        value = params.get(key)
        if value is None:
            continue
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not least <= value < 1e9
        ):
            yield f"{at}.{key}: a number of {least:g} or more is wanted, not {value!r:.60}"
        elif key == "retry_count" and (not isinstance(value, int) or value > 1000):
            yield f"{at}.{key}: a whole number up to 1000 is wanted, not {value!r:.60}"
    if "priority" in params:
        try:
            priority_of(params["priority"])
        except ValueError as error:
            yield f"{at}.priority: {error}"


def _unfit(spec: TaskSpec, registry: TaskRegistry) -> str | None:
    """What is wrong with the data of a task; what a reference gives is seen when it runs."""
    data = data_of(spec)
    return None if next(iter(_refs(data, "")), None) else registry.problem(spec.name, data)


def numbered(name: str, counts: dict[str, int]) -> str:
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


def schema() -> dict[str, Any]:
    """The JSON Schema of documents."""
    return WorkflowDocument.model_json_schema(by_alias=True)


__all__: Sequence[str] = [
    "Condition",
    "StepSpec",
    "TaskSpec",
    "WorkflowDocument",
    "load",
    "parse",
    "schema",
]
