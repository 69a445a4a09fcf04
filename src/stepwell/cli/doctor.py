"""`stepwell doctor`: what is here, and what is wrong with it."""

from __future__ import annotations

import asyncio
import platform
import shutil
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import click
from rich.text import Text

from stepwell._version import __version__
from stepwell.cli import output
from stepwell.cli.db import in_bytes, opened, schema_of
from stepwell.cli.engines import existing_store, file_of, run_async
from stepwell.cli.options import Exit, settings, shared_options, store_option
from stepwell.errors import StoreError
from stepwell.runtime.identity import is_dead
from stepwell.stores.base import RunFilter, RunRow, Store, WorkerRow
from stepwell.stores.sqlite.connection import MIGRATIONS
from stepwell.values import RunStatus

_PACKAGES = ("pydantic", "click", "rich")
_LATE = 60.0
"""Seconds after which a run that is due and that nobody takes up counts as stuck."""
_SILENT = 3600.0
"""Seconds after which a running run without any news is worth a look."""
_AHEAD = 5.0
"""Seconds by which clocks of different machines may differ."""
_LOOKED_AT = 20_000
_LITTLE_ROOM = 200 * 1024 * 1024

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    what: str
    said: str
    to_do: str = ""


@click.command()
@click.option("--quick", is_flag=True, help="Leave out the check of the store's data.")
@store_option
@shared_options
@click.pass_context
def doctor(ctx: click.Context, quick: bool, store: str) -> None:
    """Look for what is wrong: versions, the store, workers, the clock, stuck runs.

    Exit code 4 when the store can't be used, 1 when something else is wrong.
    """
    ctx.exit(run_async(_doctor(quick, store)))


async def _doctor(quick: bool, url: str) -> Exit:
    findings = [*_versions()]
    code = Exit.OK
    try:
        async with opened(existing_store(url)) as store:
            findings += await _store(store, quick)
            findings += await _runs(store)
    except StoreError as error:
        findings.append(Finding("problem", "store", error.message, error.hint))
        code = Exit.STORE
    if code is Exit.OK and any(f.level == "problem" for f in findings):
        store_bad = any(f.level == "problem" and f.what in ("store", "data") for f in findings)
        code = Exit.STORE if store_bad else Exit.FAILED
    _print(findings, code)
    return code


def _print(findings: Sequence[Finding], code: Exit) -> None:
    if settings().json:
        output.document(
            {
                "ok": code is Exit.OK,
                "findings": [
                    {"level": f.level, "what": f.what, "said": f.said, "to_do": f.to_do}
                    for f in findings
                ],
            }
        )
        return
    console = output.stdout()
    width = max(len(f.what) for f in findings)
    for finding in findings:
        style = output.STYLES[finding.level]
        head = Text.assemble((f"{finding.level:<8}", style), " ", f"{finding.what:<{width}}")
        output.paragraph(console, head, finding.said)
        if finding.to_do:
            blank = Text(" " * (9 + width))
            output.paragraph(console, blank, f"to do: {finding.to_do}")
    counts = Counter(f.level for f in findings)
    problems, warnings = counts["problem"], counts["warning"]
    console.print()
    said = f"{problems} problem{'' if problems == 1 else 's'}, "
    said += f"{warnings} warning{'' if warnings == 1 else 's'}"
    console.print(said if problems or warnings else "All is well.")


# --- here ----------------------------------------------------------------------------------------


def _versions() -> list[Finding]:
    python = f"{platform.python_version()} on {platform.system()} ({sys.executable})"
    packages = ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)
    return [
        Finding("ok", "stepwell", f"{__version__} with {packages}"),
        Finding("ok", "python", f"{python}, SQLite {sqlite3.sqlite_version}"),
        Finding("ok", "clock", f"{output.local(time.time())}"),
    ]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"


# --- the store -----------------------------------------------------------------------------------


async def _store(store: Store, quick: bool) -> list[Finding]:
    found: list[Finding] = []
    file = file_of(store)
    said = f"{store.url}, durability {store.durability}"
    if file is not None:
        schema = await asyncio.to_thread(schema_of, file)
        log = file.with_name(f"{file.name}-wal")
        size = file.stat().st_size + (log.stat().st_size if log.exists() else 0)
        said += f", schema {schema} of {len(MIGRATIONS)}, {in_bytes(size)}"
    found.append(Finding("ok", "store", said))
    if file is not None:
        found += _room(file)
    if not quick and store.supports("verify"):
        faults = await store.verify()
        if faults:
            more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
            text = "; ".join(faults[:3]) + more
            hint = "`stepwell db verify` lists all. Keep a copy, and restore from a backup."
            found.append(Finding("problem", "data", text, hint))
        else:
            found.append(Finding("ok", "data", "sound"))
    return found


def _room(file: Path) -> list[Finding]:
    free = shutil.disk_usage(file.parent).free
    if free >= _LITTLE_ROOM:
        return []
    return [
        Finding(
            "warning",
            "disk",
            f"only {in_bytes(free)} are free where the store is",
            "Free some, or shorten what is kept: `stepwell db gc --older-than 7d`.",
        )
    ]


# --- runs and workers ----------------------------------------------------------------------------


async def _runs(store: Store) -> list[Finding]:
    now = time.time()
    alive = [w for w in await store.workers() if w.until > now and not is_dead(w.host, w.pid)]
    workers = [w for w in alive if w.workflows]
    counts = await store.counts()
    live = await _live(store)
    found = [_tally(counts), _workers(workers, bool(live))]
    found += _clock(live, now)
    found += _unknown(live, workers)
    found += _stuck(live, workers, now)
    found += _parked(live)
    return found


async def _live(store: Store) -> list[RunRow]:
    rows: list[RunRow] = []
    cursor = None
    statuses = [status for status in RunStatus if not status.terminal]
    while len(rows) < _LOOKED_AT:
        page = await store.list(RunFilter(status=statuses, limit=1000, after=cursor))
        rows += page.rows
        cursor = page.cursor
        if cursor is None:
            break
    return rows


def _tally(counts: dict[tuple[str, RunStatus], int]) -> Finding:
    of: Counter[str] = Counter()
    for (_, status), n in counts.items():
        of[status.value] += n
    said = ", ".join(f"{of[s.value]} {s.value}" for s in RunStatus if of[s.value]) or "none yet"
    return Finding("ok", "runs", said)


def _workers(workers: Sequence[WorkerRow], needed: bool) -> Finding:
    if workers:
        said = "; ".join(f"{w.id} ({', '.join(w.workflows)})" for w in workers[:10])
        return Finding("ok", "workers", f"{len(workers)} alive: {said}")
    if needed:
        hint = "Start one: `stepwell worker module:Workflow`."
        return Finding("warning", "workers", "none is alive, and there are live runs", hint)
    return Finding("ok", "workers", "none is alive, and none is needed")


def _clock(live: Sequence[RunRow], now: float) -> list[Finding]:
    ahead = [row for row in live if row.updated > now + _AHEAD]
    if not ahead:
        return []
    worst = max(ahead, key=lambda row: row.updated)
    return [
        Finding(
            "problem",
            "clock",
            f"run {worst.id} was changed {output.span(worst.updated - now)} from now",
            "The clock here, or of the machine that did it, is wrong; keep them in step (NTP).",
        )
    ]


def _unknown(live: Sequence[RunRow], workers: Sequence[WorkerRow]) -> list[Finding]:
    known = {name for worker in workers for name in worker.workflows}
    names = Counter(row.workflow for row in live if row.workflow not in known)
    if not names or not workers:
        return []
    said = ", ".join(f"{n} of {name}" for name, n in names.most_common(5))
    return [
        Finding(
            "warning",
            "unknown",
            f"live runs of workflows that no live worker knows: {said}",
            "Start a worker that has them; a renamed module or class is a new workflow "
            "(workflow_name= keeps the old name).",
        )
    ]


def _stuck(live: Sequence[RunRow], workers: Sequence[WorkerRow], now: float) -> list[Finding]:
    known = {name for worker in workers for name in worker.workflows}
    owners = {worker.id for worker in workers}
    late = [
        row
        for row in live
        if row.status is not RunStatus.PARKED
        and row.workflow in known
        and row.due is not None
        and row.owner not in owners
        and max(row.due, row.updated) < now - _LATE
    ]
    silent = [
        row
        for row in live
        if row.status is RunStatus.RUNNING and row.owner in owners and row.updated < now - _SILENT
    ]
    found: list[Finding] = []
    if late:
        hint = "Workers know them and do not take them up: are they overloaded? See their logs."
        said = f"{len(late)} due for over {output.span(_LATE)}: {_some(late)}"
        found.append(Finding("problem", "stuck", said, hint))
    if silent:
        hint = "`stepwell why RUN` says which step. A step without timeout= may run for ever."
        said = f"{len(silent)} running without news for over an hour: {_some(silent)}"
        found.append(Finding("warning", "silent", said, hint))
    return found


def _parked(live: Sequence[RunRow]) -> list[Finding]:
    parked = [row for row in live if row.status is RunStatus.PARKED]
    if not parked:
        return []
    hint = "`stepwell why RUN` says what for; then `stepwell resume RUN` or `stepwell cancel RUN`."
    return [Finding("warning", "parked", f"{len(parked)} need a person: {_some(parked)}", hint)]


def _some(rows: Sequence[RunRow]) -> str:
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    return ", ".join(row.id for row in rows[:3]) + more
