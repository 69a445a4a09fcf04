"""`stepwell show`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence

import click
from rich.console import Console
from rich.text import Text

from stepwell.authoring.document_run import NAME, given_by
from stepwell.authoring.words import ON_FAIL, is_hidden, step_said, tag_said
from stepwell.cli import output
from stepwell.cli.engines import find_run, looking, run_async
from stepwell.cli.narrative import told
from stepwell.cli.options import server_option, settings, shared_options, store_option
from stepwell.cli.waits import how_to_retry, print_waits
from stepwell.kernel.journal import Entry
from stepwell.kernel.outcomes import Message
from stepwell.runtime.history import (
    Batch,
    History,
    Work,
    batches_of,
    by_step,
    history_of,
    result_of,
)
from stepwell.runtime.views import RunInfo, Why
from stepwell.values import Json, RunStatus, iso

_EACH = 5
"""A step with more pieces of work than this is shown as one line."""


@click.command()
@click.argument("run")
@click.option("--journal", is_flag=True, help="Also what was decided, entry by entry.")
@click.option("--all", "each", is_flag=True, help="Every piece of work, however many.")
@store_option
@server_option
@shared_options
def show(run: str, journal: bool, each: bool, store: str) -> None:
    """Show RUN: its steps with attempts and times, what it waits for, how it ended.

    RUN is the id of a run, or the beginning of one. No code of the workflow is needed.
    """
    run_async(_show(run, journal, each, store))


async def _show(given: str, journal: bool, each: bool, url: str) -> None:
    async with looking(url) as engine:
        info = await find_run(engine, given)
        why = await engine.why(info.id)
        batches = await batches_of(engine, info.id)
        children, _ = await engine.list(parent=info.id, limit=20)
        rows = await engine.journal(info.id) if journal and settings().json else []
    history = history_of(batches)
    if settings().json:
        whole = _json(info, why, history, children)
        if journal:
            whole["journal"] = [
                {"row": seq, "at": iso(at), "entries": list(entries)} for seq, at, entries in rows
            ]
        output.document(whole)
        return
    console = output.stdout()
    output.facts(console, _facts(info, why, history, children))
    if history.works:
        console.print()
        _steps(console, history, each)
    if not info.status.terminal:
        print_waits(console, info.id, why.waits, url)
    _ending(console, info, history, how_to_retry(info, url))
    if journal:
        _journal(console, batches)


# --- for people ----------------------------------------------------------------------------------


def _facts(
    info: RunInfo, why: Why, history: History, children: Sequence[RunInfo]
) -> list[tuple[str, str | Text]]:
    now = time.time()
    status = info.status.value
    ended = ""
    if info.ended is not None:
        ended = f"{output.local(info.ended)} (took {output.span(info.ended - info.created)})"
    created = f"{output.local(info.created)} ({output.ago(info.created, now)})"
    sentence = "" if info.status.terminal else why.sentence
    return [
        ("run", info.id),
        ("workflow", f"{output.name_of(info)} {info.version}".strip()),
        ("status", Text(status, output.STYLES.get(status, ""))),
        ("why", sentence),
        ("created", created),
        ("ended", ended),
        ("worker", info.owner or ""),
        ("parent", info.parent or ""),
        ("children", ", ".join(f"{c.id} ({c.status.value})" for c in children)),
        ("key", info.key or ""),
        ("correlation", info.correlation or ""),
        ("priority", str(info.priority) if info.priority else ""),
    ]


def _steps(console: Console, history: History, each: bool) -> None:
    rows: list[Sequence[str | Text]] = []
    for step, works in by_step(history):
        if _of_machinery(step):
            continue
        if len(works) > _EACH and not each:
            rows.append(_together(step, works))
            rows += [_alone(work) for work in works if work.status == "failed"][:_EACH]
        else:
            rows += [_alone(work) for work in works]
    header = ("step", "status", "tries", "began", "took", "about")
    if rows:
        output.table(console, header, rows, give=(5, 0), below=5)


def _of_machinery(step: str) -> bool:
    """Whether a step is none of the user's: what it does is told by what the run waits for."""
    return is_hidden(step) and step != ON_FAIL


def _alone(work: Work) -> Sequence[str | Text]:
    began = work.began
    return (
        step_said(work.step),
        work.status,
        str(len(work.attempts)),
        "" if began is None else output.clock(began),
        "" if work.took is None else output.span(work.took),
        _about(work),
    )


def _about(work: Work) -> str:
    now = time.time()
    error = "" if work.error is None else _error(work)
    if work.status == "waiting":
        return "for " + ", ".join(work.waited.values())
    if work.status == "retrying":
        at = work.attempts[-1].retry_at
        return f"again {'now' if at is None else output.ago(at, now)} after {error}"
    if work.status == "done" and error:
        return f"before: {error}"
    return error


def _error(work: Work) -> str:
    error = work.error
    if error is None:
        return ""
    return output.error_text(error.to_json(), place=True)


def _together(step: str, works: Sequence[Work]) -> Sequence[str | Text]:
    counts = Counter(work.status for work in works)
    begun = [work.began for work in works if work.began is not None]
    ends = [work.ended for work in works if work.ended is not None]
    slowest = max((work.took or 0.0 for work in works), default=0.0)
    status = counts.most_common(1)[0][0] if len(counts) == 1 else "running"
    if counts["failed"] and not counts["running"] and not counts["queued"]:
        status = "failed"
    over = all(work.ended is not None for work in works)
    about = ", ".join(f"{n} {word}" for word, n in counts.items())
    if counts["done"]:
        about += f"; slowest {output.span(slowest)}"
    return (
        f"{step_said(step)} x{len(works)}",
        status,
        str(sum(len(work.attempts) for work in works)),
        output.clock(min(begun)) if begun else "",
        output.span(max(ends) - min(begun)) if over and begun and ends else "",
        about,
    )


def _result(info: RunInfo, message: Message) -> Json:
    """What the run gave: a document, what its tasks gave."""
    result = result_of(message)
    if info.workflow == NAME and isinstance(result, Mapping):
        return given_by(result)
    return result


def _ending(console: Console, info: RunInfo, history: History, again: str) -> None:
    end = history.ended
    if end is None:
        return
    rows: list[tuple[str, str | Text]] = []
    if end.error is not None and info.status is not RunStatus.COMPLETED:
        text = output.error_text(end.error.to_json(), place=not end.step)
        if end.step:
            tries = f" after {end.attempts} tries" if end.attempts > 1 else ""
            place = f", {end.error.where}" if end.error.where else ""
            text += f" (in step {step_said(end.step)!r}{tries}{place})"
        rows += [("error", Text(text, "red")), ("again", output.command(again))]
    if end.result is not None:
        rows.append(("result", output.command(output.pretty(_result(info, end.result)))))
    if rows:
        console.print()
        output.facts(console, rows)


def _journal(console: Console, batches: Sequence[Batch]) -> None:
    console.print()
    rows: list[Sequence[str | Text]] = []
    for seq, at, entries in batches:
        for number, entry in enumerate(entries):
            first = number == 0
            rows.append(
                (str(seq) if first else "", output.clock(at) if first else "", *_entry(entry))
            )
    output.table(console, ("row", "at", "entry", ""), rows, give=(3,))


def _entry(entry: Entry) -> tuple[str, str]:
    return type(entry).__name__, told(entry)


# --- for programs --------------------------------------------------------------------------------


def _json(
    info: RunInfo, why: Why, history: History, children: Sequence[RunInfo]
) -> dict[str, Json]:
    end = history.ended
    return {
        **info.to_json(),
        "why": why.sentence,
        "waits": [wait.to_json() for wait in why.waits],
        "steps": [work_json(w) for w in history.works.values() if not _of_machinery(w.step)],
        "children": [{"id": c.id, "status": c.status.value} for c in children],
        "result": None if end is None or end.result is None else _result(info, end.result),
    }


def work_json(work: Work) -> dict[str, Json]:
    """One piece of work as JSON values."""
    return {
        "work": work.id,
        "step": step_said(work.step),
        "input": [said for said in map(tag_said, work.given) if said],
        "status": work.status,
        "added": iso(work.added),
        "ended": iso(work.ended),
        "seconds": work.took,
        "waits": list(work.waited),
        "attempts": [
            {
                "began": iso(a.began),
                "ended": iso(a.ended),
                "error": None
                if a.error is None
                else {"type": a.error.type, "message": a.error.message},
                "retry_at": iso(a.retry_at),
            }
            for a in work.attempts
        ],
    }
