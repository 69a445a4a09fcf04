"""An example of every operation, for the OpenAPI description and `/docs`.

They are data, and are held against the shapes by the tests: what stands here is what is answered.
"""

from __future__ import annotations

from typing import Any

from stepwell.server import shapes

RUN = "6916f4c02f9d3b51a07e"
ROOT = f"/api/workflow/{RUN}"
LINKS = {
    "self": ROOT,
    "events": f"{ROOT}/events",
    "graph": f"{ROOT}/graph",
    "cancel": f"{ROOT}/cancel",
}
AT, LATER = "2026-01-05T09:30:00+00:00", "2026-01-05T09:30:01+00:00"

PARAMETERS: dict[str, Any] = {
    "workflow_id": RUN,
    "name": "onboarding",
    "Last-Event-ID": "3.1",
    "wait": 1,
}
"""By name, wherever one of this name is taken."""

SUMMARY: dict[str, Any] = {
    "workflow_id": RUN,
    "name": "sample_workflow",
    "definition": "document",
    "status": "completed",
    "version": "9d5ed678fe57bcca",
    "created": AT,
    "updated": LATER,
    "ended": LATER,
    "due": None,
    "parent": None,
    "key": None,
    "correlation": "sample_workflow",
    "priority": 10,
    "owner": None,
    "journal_rows": 9,
    "unread": [],
    "reason": None,
    "error": None,
    "links": LINKS,
}
_RESULT: dict[str, Any] = {"task": "task_a", "params": {}}
SHOWN: dict[str, Any] = {
    **SUMMARY,
    "why": "completed at 2026-01-05 09:30:01 UTC. Nothing will move it again.",
    "waits": [],
    "result": {"steps.0.task_a": _RESULT},
    "steps": [
        {
            "name": "steps.0",
            "execution_type": "sequential",
            "status": "succeeded",
            "tasks": [
                {
                    "name": "task_a",
                    "id": None,
                    "place": "steps.0.task_a",
                    "status": "succeeded",
                    "started": AT,
                    "ended": LATER,
                    "seconds": 1.0,
                    "result": _RESULT,
                    "error": None,
                    "attempts": [{"started": AT, "ended": LATER, "error": None, "retry_at": None}],
                }
            ],
        }
    ],
}
STARTED = {"workflow_id": RUN, "status": "running", "links": LINKS}
DOCUMENT: dict[str, Any] = {
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

BODIES: dict[str, tuple[type[Any], Any]] = {
    "start": (shapes.NewWorkflow, DOCUMENT),
    "run_definition": (shapes.RunBody, {"user_id": 1}),
    "cancel": (shapes.CancelBody, {"reason": "ordered twice"}),
    "signal": (shapes.RunBody, {"confirmed": True}),
    "broadcast": (shapes.RunBody, {"confirmed": True}),
    "answer": (shapes.AnswerBody, {"answer": "yes", "question": "ask"}),
    "retry": (shapes.RetryBody, {"id": "order-17-again"}),
    "fork": (shapes.ForkBody, {"step": "charge", "input": {"amount": 20}}),
}
"""What is sent, by operation."""

ANSWERS: dict[str, tuple[int, type[Any], Any]] = {
    "start": (202, shapes.Started, STARTED),
    "show": (200, shapes.RunShown, SHOWN),
    "listing": (200, shapes.RunPage, {"workflows": [SUMMARY], "next": None}),
    "counts": (
        200,
        shapes.Counts,
        {"counts": [{"definition": "document", "status": "completed", "runs": 3}]},
    ),
    "journal": (
        200,
        shapes.JournalPage,
        {
            "rows": [{"row": 1, "at": 1767605400.0, "entries": [["run", None]]}],
            "next": None,
        },
    ),
    "cancel": (202, shapes.Started, STARTED),
    "signal": (202, shapes.Accepted, {"workflow_id": RUN, "accepted": True}),
    "broadcast": (202, shapes.Received, {"received": 2}),
    "answer": (202, shapes.Accepted, {"workflow_id": RUN, "accepted": True}),
    "resume": (202, shapes.Started, STARTED),
    "retry": (202, shapes.Started, STARTED),
    "fork": (202, shapes.Started, STARTED),
    "definitions": (
        200,
        shapes.Definitions,
        {
            "definitions": [
                {
                    "name": "onboarding",
                    "version": "1",
                    "steps": ["welcome", "finish"],
                    "input_schema": {
                        "type": "object",
                        "properties": {"user_id": {"type": "integer"}},
                        "required": ["user_id"],
                    },
                    "links": {
                        "run": "/api/definitions/onboarding/run",
                        "graph": "/api/definitions/onboarding/graph",
                    },
                }
            ],
            "tasks": ["log", "sleep", "task_a", "task_b", "task_c"],
        },
    ),
    "run_definition": (202, shapes.Started, STARTED),
    "healthz": (200, shapes.Health, {"status": "ok", "durability": "power"}),
    "readyz": (200, shapes.Health, {"status": "ready", "durability": "power"}),
}
"""What is answered, by operation: JSON."""

TEXTS: dict[str, str] = {
    "events": "retry: 1000\n\nid: 1.1\nevent: run.started\n"
    f'data: {{"id": "1.1", "type": "run.started", "workflow_id": "{RUN}", "at": "{AT}"}}\n\n',
    "run_graph": 'flowchart TD\n    event_start(["start"]):::startEventStyle\n',
    "definition_graph": 'flowchart TD\n    event_start(["start"]):::startEventStyle\n',
    "metrics": "# HELP stepwell_up Whether the service answers.\n"
    "# TYPE stepwell_up gauge\nstepwell_up 1\n",
    "docs": "<!doctype html>",
}
"""What is answered, by operation: text, of the first kind that the operation names."""

PROBLEM = {
    "type": "urn:stepwell:problem:bad_document",
    "title": "Unprocessable Entity",
    "status": 422,
    "detail": 'steps[0].tasks[0].name: unknown task "task_x"; known: task_a, task_b, task_c',
    "code": "bad_document",
    "errors": ['steps[0].tasks[0].name: unknown task "task_x"; known: task_a, task_b, task_c'],
}


def put_into(api: dict[str, Any]) -> None:
    """Put the examples where the operations of an OpenAPI description have theirs."""
    for methods in api["paths"].values():
        for operation in methods.values():
            name = operation["operationId"]
            for parameter in operation.get("parameters", ()):
                example = PARAMETERS.get(parameter["name"])
                if example:
                    parameter["example"] = example
            if name in BODIES:
                content = operation["requestBody"]["content"]
                content["application/json"]["example"] = BODIES[name][1]
            if name in ANSWERS:
                status, _, example = ANSWERS[name]
                content = operation["responses"][str(status)]["content"]
                content["application/json"]["example"] = example
            elif name in TEXTS:
                content = operation["responses"]["200"]["content"]
                next(iter(content.values()))["example"] = TEXTS[name]
    content = api["components"]["responses"]["422"]["content"]
    for kind in content.values():
        kind["example"] = PROBLEM
