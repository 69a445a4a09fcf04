"""How a person moves a run that waits for one: as a command, and as a request.

Both are to be copied: what a run, an event or a question is called can't end an argument. What is
to be filled in is said in capitals, or is an ellipsis.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from stepwell.authoring.words import MOVED


def is_for_people(wait: Mapping[str, Any]) -> bool:
    """Whether a wait, in its form as JSON, ends by something from outside."""
    return wait["event"] not in (None, MOVED)


def command(run_id: str, wait: Mapping[str, Any]) -> str:
    """The command that ends a wait.

    >>> wait = {"id": "q", "event": "approval", "question": None, "where": None}
    >>> command("r1", wait), command("r1", {**wait, "question": {"prefix": "Well?"}})
    ("stepwell signal r1 approval '{...}'", 'stepwell answer r1 q VALUE')
    """
    run = shlex.quote(run_id)
    if _asks(wait):
        return f"stepwell answer {run} {shlex.quote(wait['id'])} VALUE"
    given = "{...}"
    if wait["where"]:  # nothing else would do
        given = json.dumps(wait["where"], ensure_ascii=False)[:-1] + ", ...}"
    return f"stepwell signal {run} {shlex.quote(str(wait['event']))} {shlex.quote(given)}"


def request(wait: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The request that ends a wait: whether to `answer` or to `signal`, and the body.

    >>> request({"id": "q", "event": "HumanResponseEvent", "question": None, "where": None})
    ('answer', {'answer': 'VALUE', 'question': 'q'})
    """
    if _asks(wait):
        return "answer", {"answer": "VALUE", "question": wait["id"]}
    return "signal", dict(wait["where"] or {})


def _asks(wait: Mapping[str, Any]) -> bool:
    return wait["question"] is not None or wait["event"] == "HumanResponseEvent"
