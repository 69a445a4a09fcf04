"""`stepwell signal`, `answer`, `cancel`, `resume`: words to runs, without the workflow's code."""

from __future__ import annotations

from typing import Any, cast

import click

from stepwell.cli import output
from stepwell.cli.asking import fields_of
from stepwell.cli.engines import find_run, looking, run_async
from stepwell.cli.errors import CommandError
from stepwell.cli.inputs import json_typed
from stepwell.cli.load import load_all
from stepwell.cli.options import (
    Exit,
    app_option,
    server_option,
    settings,
    shared_options,
    store_option,
)
from stepwell.cli.waits import asked
from stepwell.errors import StepwellError
from stepwell.runtime.engine import Engine
from stepwell.runtime.machine.signals import check_payload, live_ids
from stepwell.runtime.views import RunInfo, WaitInfo
from stepwell.values import RunStatus


def _say(text: str, **fields: object) -> None:
    if settings().json:
        output.document(fields)
    else:
        output.stdout().print(text, soft_wrap=True)


def _ended(info: RunInfo, what: str) -> CommandError:
    return CommandError(
        f"run {info.id} has ended already ({info.status.value}); {what}",
        hint="What ended stays as it is; `stepwell retry` and `stepwell fork` start a new run.",
        exit=Exit.FAILED,
    )


def _refused(error: ValueError, hint: str) -> StepwellError:
    """Why an event, or an answer, can't be sent."""
    if isinstance(error, StepwellError):
        return CommandError(error.message, hint=error.hint or hint)
    return CommandError(str(error), hint=hint)


async def _who_moves(engine: Engine, info: RunInfo) -> str:
    """A word on who will act, when nobody is there to."""
    why = await engine.why(info.id)
    _, found, rest = why.sentence.partition("no live worker")
    return f"; {found}{rest}".rstrip(".") if found else ""


# --- signal --------------------------------------------------------------------------------------


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="[RUN] EVENT [JSON]")
@click.option("--all", "everyone", is_flag=True, help="To every run that waits for it now.")
@click.option("--correlation", metavar="WORD", help="To every live run with this correlation.")
@click.option("--run", "to", metavar="RUN", help="To this run; the same as RUN before EVENT.")
@click.option("--step", metavar="STEP", help="Only for this step.")
@click.option("--question", metavar="ID", help="It answers this question and no other.")
@click.option("--dedupe", metavar="WORD", help="A second signal with this word does nothing.")
@app_option
@store_option
@server_option
@shared_options
def signal(
    words: tuple[str, ...],
    everyone: bool,
    correlation: str | None,
    to: str | None,
    step: str | None,
    question: str | None,
    dedupe: str | None,
    app: tuple[str, ...],
    store: str,
) -> None:
    """Send RUN an event: the name of its type, and its fields as a JSON object.

    It is kept when this returns, and may come before anyone waits for it. With --app the fields
    are checked against the type, or the Context. A state machine's signal goes by its name, an
    event that one waits for as event:NAME. With --all or --correlation, to several runs: leave
    out RUN.
    """
    one = not everyone and correlation is None
    if sum((everyone, correlation is not None, to is not None)) > 1:
        raise click.UsageError("give one of --all, --correlation and --run")
    if one and to is None:
        to, words = words[0], words[1:]
    if not 1 <= len(words) <= 2:
        raise click.UsageError(
            "give RUN, EVENT and its fields as JSON; EVENT alone with --all, --correlation or --run"
        )
    event, payload = words[0], words[1] if len(words) > 1 else None
    if to is not None:
        run_async(_signal(to, event, payload, step, question, dedupe, app, store))
        return
    if step or question or dedupe:
        raise click.UsageError("--step, --question and --dedupe are for one run")
    run_async(_signal_all(event, payload, correlation, app, store))


async def _check(engine: Engine, ids: list[str], event: str, fields: dict[str, Any]) -> None:
    if settings().server is None:  # which has the code, and looks for itself
        await check_payload(engine, ids, event, fields, strict=True)


async def _signal(
    given: str,
    event: str,
    payload: str | None,
    step: str | None,
    question: str | None,
    dedupe: str | None,
    app: tuple[str, ...],
    url: str,
) -> None:
    fields = _object(payload)
    async with looking(url, load_all(app)) as engine:
        info = await find_run(engine, given)
        if info.status.terminal:
            raise _ended(info, "it takes no event")
        try:
            await _check(engine, [info.id], event, fields)
            accepted = await engine.signal(
                info.id, event, fields, step=step, question=question, dedupe=dedupe
            )
        except ValueError as error:
            raise _refused(error, "Put the JSON right.") from error
        moves = await _who_moves(engine, info)
    if accepted:
        _say(f"{event} is kept for {info.id}{moves}", id=info.id, event=event, accepted=True)
    else:
        _say(
            f"{info.id} had a signal with this word before; nothing was sent",
            id=info.id,
            event=event,
            accepted=False,
        )


async def _signal_all(
    event: str, payload: str | None, correlation: str | None, app: tuple[str, ...], url: str
) -> None:
    fields = _object(payload)
    async with looking(url, load_all(app)) as engine:
        where: dict[str, Any] = {"waiting": event}
        if correlation is not None:
            where = {"correlation": correlation}
        ids = await live_ids(engine, **where)
        try:
            await _check(engine, ids, event, fields)
            if correlation is None:
                count = await engine.broadcast(event, fields)
            else:
                count = sum([await engine.signal(id, event, fields) for id in ids])
        except ValueError as error:
            raise _refused(error, "Put the JSON right.") from error
    whom = "waits for it now" if correlation is None else f"is live with correlation {correlation}"
    none = f"no run {whom}" if not ids else "those that wait for it have an answer already"
    said = f"{event} is kept for {count} run{'s' if count != 1 else ''}"
    _say(said if count else f"nothing was sent: {none}", event=event, received=count)


def _object(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    value = json_typed(text, "the payload", "Write for example '{\"approved\": true}'.")
    if not isinstance(value, dict):
        raise CommandError(
            f"the payload is {type(value).__name__}, not a JSON object",
            hint="Name the field: '{\"value\": ...}'.",
        )
    return cast("dict[str, Any]", value)


# --- answer --------------------------------------------------------------------------------------


@click.command()
@click.argument("run")
@click.argument("words", nargs=-1, required=True, metavar="[QUESTION] VALUE")
@app_option
@store_option
@server_option
@shared_options
def answer(run: str, words: tuple[str, ...], app: tuple[str, ...], store: str) -> None:
    """Answer a question that RUN asks.

    QUESTION may be left out when there is just one. VALUE is a JSON object with the answer's
    fields; anything else becomes its field `response`, as text.
    """
    *before, value = list(words)
    if len(before) > 1:
        raise click.UsageError("give [QUESTION] and VALUE; put a VALUE of several words in quotes")
    run_async(_answer(run, before[0] if before else None, value, app, store))


async def _answer(
    given: str, question: str | None, value: str, app: tuple[str, ...], url: str
) -> None:
    async with looking(url, load_all(app)) as engine:
        info = await find_run(engine, given)
        if info.status.terminal:
            raise _ended(info, "it asks nothing")
        asking = [wait for wait in await engine.waits(info.id) if wait.event is not None]
        wait = _chosen(info, asking, question)
        fields = fields_of(value)
        try:
            await _check(engine, [info.id], str(wait.event), fields)
            await engine.answer(info.id, fields, question=wait.id)
        except ValueError as error:
            raise _refused(error, "Give its fields as a JSON object.") from error
        moves = await _who_moves(engine, info)
    said = f"question {wait.id!r} of {info.id} is answered{moves}"
    _say(said, id=info.id, question=wait.id, event=wait.event, accepted=True)


def _chosen(info: RunInfo, asking: list[WaitInfo], question: str | None) -> WaitInfo:
    found = [wait for wait in asking if question is None or wait.id == question]
    if len(found) == 1:
        return found[0]
    rows = "; ".join(f"{w.id} ({asked(w.question) or w.event})" for w in asking)
    if not asking:
        raise CommandError(
            f"run {info.id} asks nothing now",
            hint=f"`stepwell why {info.id}` says what it does; `stepwell signal` sends an event "
            "that is kept until someone waits for it.",
            exit=Exit.NOT_FOUND,
        )
    if question is None:
        raise CommandError(
            f"run {info.id} asks {len(asking)} questions: {rows}",
            hint=f"Say which: stepwell answer {info.id} {asking[0].id} VALUE",
        )
    raise CommandError(
        f"run {info.id} does not ask {question!r}",
        hint=f"It asks {rows}. It may have been answered already.",
        exit=Exit.NOT_FOUND,
    )


# --- cancel and resume ---------------------------------------------------------------------------


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--reason", default="", metavar="TEXT", help="Kept with the run.")
@store_option
@server_option
@shared_options
def cancel(runs: tuple[str, ...], reason: str, store: str) -> None:
    """Cancel runs, and their children.

    No new step starts once a worker has taken the request in; clean-up steps still run.
    """
    run_async(_cancel(runs, reason, store))


async def _cancel(given: tuple[str, ...], reason: str, url: str) -> None:
    rows: list[dict[str, object]] = []
    async with looking(url) as engine:
        found = [await find_run(engine, one) for one in given]
        over = [info for info in found if info.status.terminal]
        if over:
            raise _ended(over[0], "there is nothing to cancel")
        for info in found:
            await engine.cancel(info.id, reason)
            now = await engine.get(info.id)
            moves = "" if now.status.terminal else await _who_moves(engine, now)
            if not settings().json:
                word = "is cancelled" if now.status.terminal else "is to be cancelled"
                _say(f"{info.id} {word}{moves}")
            rows.append({"id": info.id, "status": now.status.value, "asked": True})
    if settings().json:
        output.document({"runs": rows})


@click.command()
@click.argument("run")
@store_option
@server_option
@shared_options
def resume(run: str, store: str) -> None:
    """Let a parked run go on, after what stopped it was put right."""
    run_async(_resume(run, store))


async def _resume(given: str, url: str) -> None:
    async with looking(url) as engine:
        info = await find_run(engine, given)
        if info.status.terminal:
            raise _ended(info, "there is nothing to resume")
        if info.status is not RunStatus.PARKED:
            raise CommandError(
                f"run {info.id} is {info.status.value}, not parked",
                hint=f"`stepwell why {info.id}` says what would move it.",
                exit=Exit.FAILED,
            )
        await engine.resume(info.id)
        moves = await _who_moves(engine, info)
    _say(f"{info.id} may go on{moves}", id=info.id, status="running")
