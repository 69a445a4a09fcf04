"""`stepwell logs`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import click
from rich.text import Text

from stepwell.authoring.words import MOVED, ON_FAIL, is_hidden, step_said, tag_said, wanted
from stepwell.cli import output
from stepwell.cli.engines import find_run, looking, run_async
from stepwell.cli.narrative import error, message
from stepwell.cli.options import Whole, server_option, settings, shared_options, store_option
from stepwell.cli.waits import asked
from stepwell.kernel.journal import (
    AttemptExpired,
    AttemptFailed,
    ChildStarted,
    Entry,
    Published,
    RunEnded,
    RunParked,
    RunResumed,
    RunStarted,
    Unhandled,
    WaitEnded,
    WaitOpened,
    WorkAdded,
    WorkBegun,
    WorkDone,
)
from stepwell.kernel.outcomes import ChildResult, Message
from stepwell.runtime.engine import Engine
from stepwell.runtime.history import Batch, History, Work, batches_of, plain
from stepwell.values import Json, iso

_POLL = 0.5
"""Seconds between two looks at a run that is followed, when the store tells of no change."""

_STYLES = {
    "event": "cyan",
    "question": "magenta",
    "failed": "red",
    "expired": "red",
    "retry": "yellow",
    "parked": "bold yellow",
}


@click.command()
@click.argument("run")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@click.option("--events", is_flag=True, help="Only what the run publishes, asks and ends with.")
@click.option(
    "--after", type=Whole(), default=0, metavar="ROW", help="Leave out rows up to this one."
)
@store_option
@server_option
@shared_options
def logs(run: str, follow: bool, events: bool, after: int, store: str) -> None:
    """Tell what RUN did: steps, attempts, events, questions, its end.

    Each line of --json has the journal's row, so that --after can go on behind it. No code of the
    workflow is needed.
    """
    run_async(_logs(run, follow, events, after, store))


async def _logs(given: str, follow: bool, events: bool, after: int, url: str) -> None:
    async with looking(url) as engine:
        info = await find_run(engine, given)
        history = History()
        seen = 0
        while True:
            batches = await batches_of(engine, info.id, seen)
            for batch in batches:
                _print(batch, history, events, after)
                seen = batch[0]
            if history.ended is not None or not follow:
                return
            if not batches:
                await _news(engine, info.id)


async def _news(engine: Engine, run_id: str) -> None:
    """Return when there may be more. Raises `RunNotFound` when the run was deleted meanwhile."""
    if settings().server is None:
        await engine.store.changed(_POLL)
    else:
        await asyncio.sleep(_POLL)
    await engine.get(run_id)


def _print(batch: Batch, history: History, events: bool, after: int) -> None:
    """Tell a journal row, and let `history` know of it."""
    seq, at, entries = batch
    console = output.stdout()
    for entry in entries:
        work = history.read(entry, at)
        if seq <= after:
            continue
        for kind, fields, text in lines_of(entry, work):
            if events and kind not in ("event", "question", "ended"):
                continue
            if settings().json:
                output.json_line({"row": seq, "at": iso(at), "kind": kind, **fields})
                continue
            style = _STYLES.get(kind, "")
            if kind == "ended":
                style = output.STYLES.get(str(fields["status"]), "")
            line = Text.assemble((output.clock(at), "dim"), "  ", (f"{kind:<8}", style), "  ", text)
            line.rstrip()
            console.print(line, soft_wrap=True)


Line = tuple[str, dict[str, Json], str]
"""A line: its kind, its fields for programs, its words for people."""


def lines_of(entry: Entry, work: Work | None) -> Iterator[Line]:
    """What is told of an entry; nothing of what only the engine cares for."""
    of: dict[str, Json] = {} if work is None else {"step": step_said(work.step), "work": work.id}
    if work is not None and is_hidden(work.step) and work.step != ON_FAIL:
        return  # what the run waits for says it all
    where = "" if work is None else step_said(work.step)
    tries = 0 if work is None else len(work.attempts)
    nth = "" if work is None else f"{where} #{work.id}"
    match entry:
        case RunStarted():
            yield "run", {}, "begins"
        case WorkAdded() if entry.begun:
            yield "step", of, f"{nth} begins{_given(work)}"
        case WorkAdded(not_before=until) if until is not None:
            yield "sleeps", {**of, "until": iso(until)}, f"until {output.local(until)}"
        case WorkAdded():
            yield "queued", of, f"{nth}{_given(work)}"
        case WorkBegun() if work is not None:
            again = f", try {tries}" if tries > 1 else ""
            yield "step", {**of, "attempt": tries}, f"{nth} begins{again}"
        case WorkDone() if work is not None and work.status == "done":
            yield "done", {**of, "seconds": work.took}, f"{nth} in {output.span(work.took)}"
        case AttemptFailed(error=failure, retry_at=at):
            fields: dict[str, Json] = {
                **of,
                "attempt": tries,
                "error": failure.to_json(),
                "retry_at": iso(at),
            }
            if at is None:
                yield "failed", fields, f"{nth} for good, at try {tries}: {error(failure)}"
            else:
                again = output.span(max(0.0, at - entry.at))
                yield "retry", fields, f"{nth} in {again}, after {error(failure)}"
        case AttemptExpired():
            yield "expired", of, f"{nth} took longer than it may"
        case WaitOpened() | WaitEnded():
            yield from _wait(entry, of, nth)
        case Published(messages=messages):
            for given in messages:
                yield "event", {**of, **_event(given)}, message(given)
        case Unhandled(message=given, kept=kept):
            then = "kept until someone waits for it" if kept else "nobody takes it"
            yield "unused", {**_event(given), "kept": kept}, f"{message(given)}: {then}"
        case ChildStarted(id=id, workflow=workflow):
            yield "child", {"child": id, "workflow": workflow}, f"{id} of {workflow} is started"
        case RunParked(reason=reason):
            yield "parked", {"reason": reason}, reason
        case RunResumed(worker=worker):
            on = f"on {worker}" if worker else "by a person"
            yield "resumed", {"worker": worker or None}, on
        case RunEnded():
            yield _end(entry)
        case _:
            return


def _given(work: Work | None) -> str:
    tags = () if work is None or is_hidden(work.step) else work.given
    kinds = ", ".join(filter(None, map(tag_said, dict.fromkeys(tags))))
    if not kinds:
        return ""
    return f" with {kinds}" if len(tags) == 1 else f" with {len(tags)} x {kinds}"


def _event(given: Message) -> dict[str, Json]:
    if isinstance(given.payload, ChildResult):
        child = given.payload
        ended: dict[str, Json] = {"child": child.run, "status": child.status.value}
        if child.error is not None:
            ended["error"] = child.error.to_json()
        if child.result is not None:
            ended["result"] = plain(child.result.payload)
        return {"event": given.tag, "fields": ended}
    return {"event": given.tag, "fields": plain(given.payload)}


def _wait(entry: WaitOpened | WaitEnded, of: dict[str, Json], nth: str) -> Iterator[Line]:
    fields: dict[str, Json] = {**of, "wait": entry.id}
    if isinstance(entry, WaitOpened):
        fields |= {"event": entry.tag, "due": iso(entry.due)}
        if entry.question is not None:
            payload = plain(entry.question.payload)
            yield "question", {**fields, "question": payload}, f"{entry.id}: {asked(payload)}"
        else:
            until = "" if entry.due is None else f" until {output.local(entry.due)}"
            yield "waits", fields, f"{nth} for {_wanted(entry)}{until}".lstrip()
    elif entry.timed_out:
        text = f"{entry.id} has waited long enough"
        yield "got", {**fields, "timed_out": True}, f"{nth}: {text}" if nth else text
    else:
        got = "" if entry.answer is None else message(entry.answer)
        if entry.answer is not None and isinstance(entry.answer.payload, ChildResult):
            child = entry.answer.payload
            got = child.status.value + ("" if child.error is None else f" {error(child.error)}")
        answer = None if entry.answer is None else _event(entry.answer)
        yield "got", {**fields, "answer": answer}, f"{entry.id}: {got}"


def _wanted(entry: WaitOpened) -> str:
    if entry.tag is None:
        return "the end of its child run" if entry.then is not None else "time to pass"
    if entry.tag == MOVED:
        return "its time to begin" if entry.due is not None else "its schedule to go on"
    return entry.tag if entry.then is None else wanted(entry.tag)


def _end(entry: RunEnded) -> Line:
    fields: dict[str, Json] = {"status": entry.status.value, "step": entry.step}
    text = entry.status.value
    if entry.error is not None:
        fields["error"] = entry.error.to_json()
        text += f" {error(entry.error)}"
    if entry.result is not None:
        fields["result"] = plain(entry.result.payload)
        text += f" {message(entry.result)}"
    return "ended", fields, text
