"""The shapes of what the service answers, for OpenAPI: what clients may rely on."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from stepwell.authoring.document import WorkflowDocument

Status = Literal[
    "queued", "running", "waiting", "parked", "completed", "failed", "cancelled", "timed_out"
]
TaskState = Literal[
    "pending", "running", "waiting", "retrying", "succeeded", "failed", "cancelled", "skipped"
]


NO_CONTROL = r"^[^\x00-\x1f\x7f]+$"
WORD: dict[str, Any] = {"minLength": 1, "maxLength": 512, "pattern": NO_CONTROL}
"""What a name, an id or a key may be, in the words of JSON Schema."""

CURSOR: dict[str, Any] = {"pattern": r"^([0-9]{1,15}\.[0-9]{1,15})?$"}
STATUSES: dict[str, Any] = {
    "items": {
        "type": "string",
        "pattern": f"^({'|'.join(get_args(Status))})(,({'|'.join(get_args(Status))}))*$",
    }
}

Word = Annotated[str, Field(min_length=1, max_length=512, pattern=NO_CONTROL)]
NewId = Annotated[
    str,
    Field(
        min_length=1,
        max_length=512,
        # In words of JSON Schema alone: what looks ahead is nothing for the validator.
        json_schema_extra={"pattern": rf"^(?!\.\.?$){NO_CONTROL[1:]}"},
    ),
]


class Shape(BaseModel):
    """What all shapes have in common: no field but those that are said."""

    model_config = ConfigDict(extra="forbid")


class NewWorkflow(WorkflowDocument):
    """A document, and what it is given."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "sample_workflow",
                    "steps": [
                        {
                            "execution_type": "sequential",
                            "tasks": [
                                {"name": "task_a", "params": {"timeout": 30}},
                                {"name": "task_b", "params": {"retry_count": 3}},
                            ],
                        },
                        {
                            "execution_type": "parallel",
                            "tasks": [{"name": "task_c", "params": {"priority": "high"}}],
                        },
                    ],
                }
            ]
        }
    )
    input: dict[str, Any] = Field(
        default_factory=dict, description="What references find as `input`."
    )


class Problem(BaseModel):
    """What is wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="A stable word for programs.")
    hint: str = Field("", description="What to do about it.")
    errors: list[str] = Field(default_factory=list[str], description="Every fault, with its path.")


class Error(Shape):
    """An error of a task or a run."""

    type: str
    message: str
    where: str | None = None
    step: str | None = None


class Attempt(Shape):
    """One try of a task."""

    started: str | None
    ended: str | None
    error: Error | None
    retry_at: str | None


class TaskShown(Shape):
    """A task of a run."""

    name: str
    id: str | None
    place: str
    status: TaskState
    started: str | None
    ended: str | None
    seconds: float | None
    result: Any
    error: Error | None
    attempts: list[Attempt]


class StepShown(Shape):
    """A step of a run, with its tasks."""

    name: str
    execution_type: Literal["sequential", "parallel"] | None
    status: TaskState
    tasks: list[TaskShown]


class Wait(Shape):
    """Something that a run waits for."""

    id: str
    event: str | None
    step: str
    since: str | None
    due: str | None
    child: str | None
    question: Any
    where: dict[str, Any] | None
    then: str | None
    on_timeout: str | None


class RunSummary(Shape):
    """A run, in short."""

    workflow_id: str
    name: str
    definition: str
    status: Status
    version: str
    created: str
    updated: str
    ended: str | None
    due: str | None
    parent: str | None
    key: str | None
    correlation: str | None
    priority: int
    owner: str | None
    journal_rows: int
    unread: list[str]
    reason: str | None
    error: Error | None
    links: dict[str, str]


class RunShown(RunSummary):
    """A run, with all that it did."""

    why: str
    waits: list[Wait]
    result: Any
    steps: list[StepShown]
    on_error: list[StepShown] = Field(default_factory=list[StepShown])
    on_exit: list[StepShown] = Field(default_factory=list[StepShown])


class RunPage(Shape):
    """Some runs, newest first."""

    workflows: list[RunSummary]
    next: str | None = Field(description="The cursor of the next page; none on the last.")


class Started(Shape):
    """A run that was started."""

    workflow_id: str
    status: Status
    links: dict[str, str]


class Accepted(Shape):
    """A message that is kept for a run."""

    workflow_id: str
    accepted: bool = Field(description="False when it came before, with the same key.")


class Count(Shape):
    """How many runs of a workflow there are with a status."""

    definition: str
    status: Status
    runs: int


class Counts(Shape):
    """How many runs there are."""

    counts: list[Count]


class JournalRow(Shape):
    """What was decided together, and when (seconds since 1970)."""

    row: int
    at: float
    entries: list[Any]


class JournalPage(Shape):
    """Some rows of a journal; `next` is what to ask behind for more."""

    rows: list[JournalRow]
    next: int | None


class RetryBody(Shape):
    """What the new run is called."""

    id: NewId | None = None


class Received(Shape):
    """How many runs an event reached."""

    received: int


class DefinitionShown(Shape):
    """A workflow that the service has."""

    name: str
    version: str
    steps: list[str]
    input_schema: dict[str, Any] = Field(description="JSON Schema of what it is started with.")
    links: dict[str, str]


class Definitions(Shape):
    """The workflows, and the tasks that documents may name."""

    definitions: list[DefinitionShown]
    tasks: list[str]


class Health(Shape):
    """How the service is."""

    status: str
    durability: str
    detail: str | None = None


class CancelBody(Shape):
    """Why a run is cancelled."""

    reason: str = ""


class AnswerBody(Shape):
    """An answer to a question of a run."""

    answer: str | dict[str, Any]
    question: str | None = None


class ForkBody(Shape):
    """Where a copy of a run begins."""

    seq: int | None = Field(None, ge=1)
    step: Word | None = None
    input: dict[str, Any] | None = None
    id: NewId | None = None


class RunBody(BaseModel):
    """The fields that a workflow starts with."""

    model_config = ConfigDict(extra="allow")
