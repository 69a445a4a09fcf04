"""Looking at runs: what the engine's readers are told. Nothing is claimed, and nothing changes.

A run's row answers the usual questions; what the row does not have is read from the journal, with
the workflow's code where it is loaded and as plain data where it is not. What is told was true a
moment ago: runs go on while they are looked at.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stepwell.authoring.program import Program, TypeRegistry
from stepwell.errors import RunNotFound, StoreError
from stepwell.kernel.journal import Entry
from stepwell.kernel.rest import at_rest
from stepwell.kernel.run import Run
from stepwell.runtime.identity import is_dead
from stepwell.runtime.loading import (
    batches_of,
    fold,
    fold_bare,
    load,
    misfit_of,
    readable,
    whole_row,
)
from stepwell.runtime.views import RunInfo, WaitInfo, Why, in_short, run_info, waits_of
from stepwell.runtime.why import last_word, why_of
from stepwell.stores.base import RunFilter, RunRow
from stepwell.values import Json, RunStatus

if TYPE_CHECKING:
    from stepwell.runtime.worker import Worker

PAGE = 500
"""How many runs are looked at, and how many messages are sent, at once."""

_ROWS = 1000
"""How many rows of a journal are read at once."""


async def row_of(worker: Worker, run_id: str) -> RunRow:
    """The run's row. Raises `RunNotFound`."""
    row = await worker.store.get(run_id)
    if row is None:
        raise RunNotFound(run_id)
    return row


async def info_of(worker: Worker, run_id: str) -> RunInfo:
    """See `Engine.get`."""
    row = await row_of(worker, run_id)
    messages = () if row.status.terminal else await worker.store.messages(run_id)
    return run_info(row, messages)


async def page_of(worker: Worker, wanted: RunFilter) -> tuple[list[RunInfo], str | None]:
    """See `Engine.list`."""
    page = await worker.store.list(wanted)
    rows = [run_info(r) for r in page.rows]
    return rows, page.cursor


async def every(worker: Worker, wanted: RunFilter) -> AsyncIterator[RunInfo]:
    """All the runs there are of these, page by page."""
    wanted = replace(wanted, limit=PAGE)
    while True:
        infos, cursor = await page_of(worker, wanted)
        for info in infos:
            yield info
        if cursor is None:
            return
        wanted = replace(wanted, after=cursor)


async def batches(worker: Worker, run_id: str) -> list[tuple[float, list[Entry]]]:
    """See `Engine.batches`."""
    types = worker.program_or_bare((await row_of(worker, run_id)).workflow).types
    with readable(run_id):
        return [batch async for batch in batches_of(worker.store, run_id, types)]


async def journal(
    worker: Worker, run_id: str, after: int, limit: int | None = None
) -> list[tuple[int, float, list[Json]]]:
    """See `Engine.journal`."""
    await row_of(worker, run_id)
    found: list[tuple[int, float, list[Json]]] = []
    while limit is None or len(found) < limit:
        most = _ROWS if limit is None else min(_ROWS, limit - len(found))
        rows = await worker.store.read(run_id, after, most)
        if not rows:
            break
        whole = [(row, await whole_row(worker.store, row.data)) for row in rows]
        found += [(row.seq, row.at, json.loads(data)) for row, data in whole]
        after = rows[-1].seq
    return found


async def inspect(
    worker: Worker, run_id: str
) -> tuple[RunInfo, list[tuple[int, float, list[Json]]]]:
    """See `Engine.inspect`."""
    loaded = await worker.store.load(run_id)
    if loaded is None:
        raise RunNotFound(run_id)
    row = loaded.row
    info = run_info(row, loaded.messages)
    if loaded.snapshot is not None:
        return info, await journal(worker, run_id, 0)
    return info, [
        (each.seq, each.at, json.loads(await whole_row(worker.store, each.data)))
        for each in loaded.rows
    ]


async def waits(worker: Worker, run_id: str) -> list[WaitInfo]:
    """See `Engine.waits`."""
    if (await row_of(worker, run_id)).status.terminal:
        return []
    run = await fold_bare(worker.store, await load(worker.store, run_id))
    with readable(run_id):
        return waits_of(run)


async def why(worker: Worker, run_id: str) -> Why:
    """See `Engine.why`."""
    info = await info_of(worker, run_id)
    if info.status.terminal or info.status is RunStatus.PARKED:
        return why_of(info, None, None, worker.clock.now())
    found = worker.programs.get(info.workflow)
    if found is None:
        definition = None
        run = await fold_bare(worker.store, await load(worker.store, run_id))
    else:
        definition, (run, _) = found[0].definition, await folded(worker, run_id, found[0])
    now = worker.clock.now()
    alive = [
        w for w in await worker.store.workers() if w.until > now and not is_dead(w.host, w.pid)
    ]
    known = any(info.workflow in w.workflows for w in alive)
    held = any(w.id == info.owner for w in alive)
    last = await _last_word(worker, run_id) if at_rest(run) else ""
    with readable(run_id):
        return why_of(info, run, definition, now, held=held, known=known, last=last)


async def _last_word(worker: Worker, run_id: str) -> str:
    """What the last step of the run did. Reads all of its journal."""
    types = TypeRegistry(())
    with readable(run_id):
        rows = [batch async for batch in batches_of(worker.store, run_id, types)]
    return last_word(entry for _, entries in rows for entry in entries)


async def folded(worker: Worker, run_id: str, program: Program) -> tuple[Run, Any]:
    """The run and its state, folded with its workflow's code. Raises `RunNotFound`."""
    return await fold(worker.store, await load(worker.store, run_id), program)


async def check(worker: Worker) -> list[tuple[RunInfo, str | None]]:
    """See `Engine.check`."""
    found: list[tuple[RunInfo, str | None]] = []
    async for info in every(worker, RunFilter(status=[s for s in RunStatus if not s.terminal])):
        known = worker.programs.get(info.workflow)
        if known is None:
            found.append((info, f"workflow {info.workflow!r} is not among the loaded code"))
            continue
        try:
            run, _ = await folded(worker, info.id, known[0])
            with readable(info.id):
                found.append((info, misfit_of(run, known[0])))
        except (ValueError, KeyError, TypeError, StoreError) as error:
            told = in_short(error)
            found.append((info, f"its journal can't be read by this code: {told}"))
    return found
