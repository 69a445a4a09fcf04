"""Waits as people and programs see them, and how to answer them."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import cast

from rich.console import Console
from rich.text import Text

from stepwell.authoring.words import MOVED, step_said, wanted
from stepwell.cli import output
from stepwell.cli.options import DEFAULT_STORE, settings
from stepwell.runtime.answering import command
from stepwell.runtime.history import plain
from stepwell.runtime.views import RunInfo, WaitInfo
from stepwell.values import Json, RunStatus

_ASKING = ("prefix", "question", "prompt", "message", "text")
"""Fields of a question that hold what to ask, by custom."""


def asked(question: object) -> str:
    """What a question asks, as a text; "" when there is no question."""
    fields = cast("Json", plain(question))
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
    return command(run_id, wait.to_json())


def told(wait: WaitInfo) -> str:
    """What is waited for, in a few words."""
    if wait.child is not None:
        return f"child {wait.child}"
    if wait.event is None:
        return "" if wait.due is None else f"time, {output.ago(wait.due)}"
    if wait.event == MOVED:
        return "its schedule to go on" if wait.due is None else f"its time, {output.ago(wait.due)}"
    if wait.then is not None:
        return wanted(wait.event)
    return f"{wait.event} ({wait.id})"


def at_store(store: str) -> str:
    """The option that names the store, or the service, for a command to be copied; "" when it is
    found without."""
    server = settings().server
    if server is not None:
        return "" if server == os.environ.get("STEPWELL_SERVER") else f" --server {server}"
    found = os.environ.get("STEPWELL_STORE") or DEFAULT_STORE
    return "" if store == found else f" --store {shlex.quote(store)}"


def how_to_retry(info: RunInfo, store: str) -> str:
    """The command that tries a failed run again; "" when it was not ended by a step."""
    failed = info.status is RunStatus.FAILED and info.error is not None and info.error.get("step")
    return f"stepwell retry {info.id}{at_store(store)}" if failed else ""


def _what(wait: WaitInfo) -> str:
    return str(wait.event) if wait.then is None else wanted(str(wait.event))


def print_waits(console: Console, run_id: str, waits: Sequence[WaitInfo], store: str) -> None:
    """Every wait for something from outside, with the command that ends it. The command names the
    store when it would not be found without."""
    at = at_store(store)
    for wait in waits:
        if wait.event is None or wait.event == MOVED:
            continue
        console.print()
        question = asked(wait.question)
        rows: list[tuple[str, str | Text]] = [
            ("question" if question else "waits for", question or _what(wait)),
            ("until", "" if wait.due is None else output.local(wait.due)),
            ("then", "" if wait.then is None else step_said(wait.then)),
            ("else", "" if wait.on_timeout is None else step_said(wait.on_timeout)),
            ("answer", output.command(how_to_answer(run_id, wait) + at)),
        ]
        output.facts(console, rows)
