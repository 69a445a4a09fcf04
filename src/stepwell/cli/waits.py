"""Waits as people and programs see them, and how to answer them."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import cast

from rich.console import Console
from rich.text import Text

from stepwell.cli import output
from stepwell.cli.options import DEFAULT_STORE
from stepwell.runtime.views import WaitInfo
from stepwell.values import Json

_ASKING = ("prefix", "question", "prompt", "message", "text")
"""Fields of a question that hold what to ask, by custom."""


def wait_json(wait: WaitInfo) -> dict[str, Json]:
    """A wait as JSON values."""
    return {
        "id": wait.id,
        "event": wait.event,
        "step": wait.step,
        "since": output.iso(wait.since),
        "due": output.iso(wait.due),
        "child": wait.child,
        "question": wait.question,
    }


def asked(question: object) -> str:
    """What a question asks, as a text; "" when there is no question."""
    fields = cast("Json", output.plain(question))
    if isinstance(fields, Mapping):
        for name in _ASKING:
            text = fields.get(name)
            if isinstance(text, str) and text.strip():
                rest = {k: v for k, v in fields.items() if k != name}
                more = f"  {json.dumps(rest, ensure_ascii=False)}" if rest else ""
                return f"{text.strip()}{more}"
        return json.dumps(fields, ensure_ascii=False) if fields else ""
    return "" if fields is None else str(fields)


def how_to_answer(run_id: str, wait: WaitInfo) -> str:
    """The command that answers a wait."""
    if wait.question is not None or wait.event == "HumanResponseEvent":
        return f"stepwell answer {run_id} {shlex.quote(wait.id)} VALUE"
    return f"stepwell signal {run_id} {shlex.quote(str(wait.event))} '{{...}}'"


def print_waits(console: Console, run_id: str, waits: Sequence[WaitInfo], store: str) -> None:
    """Every wait for something from outside, with the command that ends it. The command names the
    store when it would not be found without."""
    found = os.environ.get("STEPWELL_STORE") or DEFAULT_STORE
    at = "" if store == found else f" --store {shlex.quote(store)}"
    for wait in waits:
        if wait.event is None:
            continue
        console.print()
        question = asked(wait.question)
        rows: list[tuple[str, str | Text]] = [
            ("question" if question else "waits for", question or wait.event),
            ("until", "" if wait.due is None else output.local(wait.due)),
            ("answer", output.command(how_to_answer(run_id, wait) + at)),
        ]
        output.facts(console, rows)
