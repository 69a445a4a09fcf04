"""Workflows as JSON or YAML documents: see `stepwell.tasks` for what their tasks do.

from stepwell import Engine
from stepwell.document import Documents, load

document = load("flow.json")
async with Engine("sqlite:///runs.db", [Documents()]) as engine:
    handler = await engine.start("document", document=document.model_dump(by_alias=True))
    result = await handler
"""

from stepwell.authoring.document import (
    Condition,
    StepSpec,
    TaskSpec,
    WorkflowDocument,
    load,
    parse,
    schema,
)
from stepwell.authoring.document_run import Documents
from stepwell.errors import DocumentError

__all__ = [
    "Condition",
    "DocumentError",
    "Documents",
    "StepSpec",
    "TaskSpec",
    "WorkflowDocument",
    "load",
    "parse",
    "schema",
]
