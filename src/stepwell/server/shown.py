"""A run as the service shows it: one shape for workflows of every style, read from the journal.

A run has steps, and a step has tasks. In a document they are the document's, in its order, also
those that were not come to yet; in other workflows a step is a step, and its tasks are the pieces
of work that it was given. This module decides nothing about a run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from stepwell.authoring.document import StepSpec, TaskSpec, WorkflowDocument, numbered
from stepwell.authoring.document_run import (
    NAME,
    OWN_DOCUMENT,
    Documents,
    document_of,
    given_by,
    place_of,
)
from stepwell.authoring.program import Program
from stepwell.authoring.tasks import TaskStatus
from stepwell.authoring.words import is_hidden, step_said
from stepwell.errors import StepwellError
from stepwell.kernel.journal import Entry, Joined, StateEdited, WorkAdded
from stepwell.kernel.outcomes import Message
from stepwell.runtime.history import Batch, History, Work, plain, result_of
from stepwell.runtime.views import RunInfo, WaitInfo, short
from stepwell.values import ErrorInfo, Json, RunStatus, iso

MAX_SHOWN = 1000
"""How many tasks of a run that is no document's are shown: the newest."""

_STATUS = {
    "queued": "pending",
    "running": "running",
    "waiting": "waiting",
    "retrying": "retrying",
    "done": "succeeded",
    "failed": "failed",
    "stopped": "cancelled",
}


class Reader:
    """Goes through a run's journal, and knows what its steps are called outside.

    Args:
        info: the run.
        documents: what documents are compiled by.
    """

    def __init__(self, info: RunInfo, documents: Documents) -> None:
        self.info = info
        self.history = History()
        self.document: WorkflowDocument | None = None
        self.results: dict[str, Mapping[str, Any]] = {}
        self._documents = documents
        self._program: Program | None = None
        self._specs: dict[str, TaskSpec] = {}

    def read(self, entry: Entry, at: float) -> Work | None:
        """Take in an entry; returns the work that it is about, if it is one to show."""
        self.learn(entry)
        try:
            work = self.history.read(entry, at)
        except (KeyError, IndexError):
            return None  # of work from before a saved context was gone on with
        return work if work is not None and self.name_of(work) is not None else None

    def forget(self, work: Work) -> None:
        """Nobody asks for a piece of work any more; nothing comes of one that has ended."""
        self.history.works.pop(work.id, None)

    def read_all(self, batches: Iterable[Batch]) -> None:
        """Take in some rows."""
        for _, at, entries in batches:
            for entry in entries:
                self.read(entry, at)

    def learn(self, entry: Entry) -> None:
        """Take in what an entry says of a document, and of what its tasks gave. Doing it again
        changes nothing."""
        if self.info.workflow != NAME:
            return
        match entry:
            case WorkAdded(message=Message() as first) if self.document is None:
                payload = first.payload
                if isinstance(payload, Mapping) and OWN_DOCUMENT in payload:
                    self.document = document_of(first)
                    self._specs = {
                        place: spec
                        for word, steps in scopes_of(self.document)
                        for n, step in enumerate(steps)
                        for place, spec in placed(f"{word}.{n}", step)
                    }
                    try:
                        self._program, _ = self._documents.program_of(self.document)
                    except StepwellError:
                        self._program = None  # one of its tasks is not registered any more
            case Joined(message=message):
                given = message.payload
                if isinstance(given, Mapping):
                    rows = cast("Mapping[str, Any]", given)
                    self._result(str(rows.get("step")), rows.get("result"))
            case StateEdited(edits=edits):
                for edit in cast("Sequence[Mapping[str, Any]]", edits):
                    place = str(edit.get("path", ""))[1:].replace("~1", "/").replace("~0", "~")
                    self._result(place, edit.get("value"))
            case _:
                pass

    def _result(self, place: str, value: object) -> None:
        if isinstance(value, Mapping) and "status" in value:
            self.results[place] = cast("Mapping[str, Any]", value)

    def name_of(self, work: Work) -> str | None:
        """What a piece of work is called outside; None for the machinery's own."""
        if self.info.workflow == NAME:
            return None if self._program is None else place_of(self._program, work.step)
        step = work.step
        if is_hidden(step) or step.startswith("(") or step.endswith("(join)"):
            return None
        return step_said(step)

    def task_of(self, work: Work) -> dict[str, Json]:
        """What a piece of work is called, for those who follow the run."""
        place = self.name_of(work)
        spec = self._specs.get(str(place))
        # Not "id": that of an item is its cursor.
        named: dict[str, Json] = {"task": place, "place": place, "task_id": None}
        if spec is not None:
            named |= {"task": spec.name, "task_id": spec.id}
        return named

    def status_of(self, work: Work) -> str:
        """A task's status in the words of this service."""
        found = self.results.get(str(self.name_of(work)), {})
        if work.status == "done" and found.get("status") == TaskStatus.SKIPPED.value:
            return "skipped"
        return _STATUS.get(work.status, work.status)

    # --- the run as a whole ----------------------------------------------------------------------

    def run(self, why: str, waits: Sequence[WaitInfo], links: Mapping[str, str]) -> dict[str, Any]:
        """The run, for programs."""
        end = self.history.ended
        result = None if end is None or end.result is None else self.result_shown(end.result)
        shown: dict[str, Any] = {
            **summary(self.info, links),
            "error": _error_of(self.info),
            "why": why,
            "waits": [wait.to_json() for wait in waits],
            "result": result,
            "steps": self._steps(),
        }
        if self.document is not None:
            works = self._by_place()
            for word, steps in scopes_of(self.document)[1:]:
                if steps:
                    shown[word] = self._document_steps(word, steps, works)
        return shown

    def result_shown(self, message: Message) -> Json:
        """What the run gave. A document gives what its tasks gave, by place."""
        if self.info.workflow == NAME:
            return plain(given_by(self.results))
        return result_of(message)

    def _steps(self) -> list[dict[str, Json]]:
        if self.document is not None:
            return self._document_steps("steps", self.document.steps, self._by_place())
        found: dict[str, list[dict[str, Json]]] = {}
        for work in [w for w in self.history.works.values() if self.name_of(w)][-MAX_SHOWN:]:
            name = str(self.name_of(work))
            found.setdefault(name, []).append(self._task(name, None, name, work))
        return [_step(name, None, tasks) for name, tasks in found.items()]

    def _by_place(self) -> dict[str, Work]:
        return {str(self.name_of(work)): work for work in self.history.works.values()}

    def _document_steps(
        self, word: str, steps: Sequence[StepSpec], works: Mapping[str, Work]
    ) -> list[dict[str, Json]]:
        return [
            _step(
                f"{word}.{n}",
                step.execution_type,
                [
                    self._task(spec.name, spec.id, place, works.get(place))
                    for place, spec in placed(f"{word}.{n}", step)
                ],
            )
            for n, step in enumerate(steps)
        ]

    def _task(self, name: str, id: str | None, place: str, work: Work | None) -> dict[str, Json]:
        if work is None:
            status = "skipped" if self.info.status.terminal else "pending"
            return {**_NOT_BEGUN, "name": name, "id": id, "place": place, "status": status}
        error = work.error if work.status in ("failed", "retrying") else None
        return {
            "name": name,
            "id": id,
            "place": place,
            "status": self.status_of(work),
            "started": iso(work.began),
            "ended": iso(work.ended),
            "seconds": work.took,
            "result": plain(self.results.get(place, {}).get("result")),
            "error": error_json(error),
            "attempts": [
                {
                    "started": iso(attempt.began),
                    "ended": iso(attempt.ended),
                    "error": error_json(attempt.error),
                    "retry_at": iso(attempt.retry_at),
                }
                for attempt in work.attempts
            ],
        }


_NOT_BEGUN: Mapping[str, Json] = {
    "started": None,
    "ended": None,
    "seconds": None,
    "result": None,
    "error": None,
    "attempts": [],
}


def scopes_of(document: WorkflowDocument) -> list[tuple[str, Sequence[StepSpec]]]:
    """The parts of a document, in the order in which they run."""
    return [
        ("steps", document.steps),
        ("on_error", document.on_error),
        ("on_exit", document.on_exit),
    ]


def placed(path: str, step: StepSpec) -> list[tuple[str, TaskSpec]]:
    """The tasks of a step with their places."""
    counts: dict[str, int] = {}
    return [(f"{path}.{numbered(spec.name, counts)}", spec) for spec in step.tasks]


def _step(name: str, kind: str | None, tasks: list[dict[str, Json]]) -> dict[str, Json]:
    return {"name": name, "execution_type": kind, "status": _together(tasks), "tasks": tasks}


def _together(tasks: Sequence[Mapping[str, Json]]) -> str:
    statuses = {str(task["status"]) for task in tasks}
    for word in ("failed", "cancelled", "running", "retrying", "waiting"):
        if word in statuses:
            return word
    if statuses <= {"skipped"}:
        return "skipped"
    if statuses <= {"succeeded", "skipped"}:
        return "succeeded"
    return "pending" if statuses <= {"pending"} else "running"


def error_json(error: ErrorInfo | None) -> Json:
    """An error as JSON values."""
    return None if error is None else error.to_json()


def summary(info: RunInfo, links: Mapping[str, str]) -> dict[str, Any]:
    """A run in short, as listings show it."""
    whole, error = info.to_json(), _error_of(info)
    name = info.correlation if info.workflow == NAME and info.correlation else info.workflow
    kept = (
        *("version", "created", "updated", "ended", "due", "parent", "key", "correlation"),
        *("priority", "owner", "journal_rows", "unread"),
    )
    return {
        "workflow_id": info.id,
        "name": name,
        "definition": info.workflow,
        "status": info.status.value,
        **{field: whole[field] for field in kept},
        "reason": info.reason,
        "error": None if error is None else {**error, "message": short(str(error["message"]))},
        "links": dict(links),
    }


def _error_of(info: RunInfo) -> Mapping[str, Json] | None:
    """What a run failed with."""
    return info.error if info.status is not RunStatus.COMPLETED else None
