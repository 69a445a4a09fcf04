"""How a run begins: in the memory of who starts it, or in the store, where it waits for room.

A run that is begun at once is created by the commit of its first turn. One that has to wait is
created by a commit of its own, with all that it is to begin with: its start message, further
messages, the state that was prepared for it; or, when it goes on with a saved context, the run that
was saved, as a snapshot that precedes its journal. A start that repeats another one begins nothing,
and is the run of the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from stepwell.authoring.events.state_store import InMemoryStateStore
from stepwell.authoring.program import Program
from stepwell.errors import RunAlreadyExists, StoreUnavailable
from stepwell.kernel.inputs import Arrived, Edited, Start
from stepwell.kernel.journal import StateEdited
from stepwell.kernel.outcomes import Message
from stepwell.kernel.run import Run
from stepwell.runtime import codec
from stepwell.runtime.context import Context
from stepwell.runtime.ledger import RunLedger
from stepwell.runtime.saved import snapshot
from stepwell.runtime.stored import StoredRun
from stepwell.stores.base import Commit, NewMessage, NewRun, Snapshot
from stepwell.values import Json, RunStatus


async def begin(
    stored: StoredRun,
    owner: object,
    new: NewRun,
    messages: Sequence[Message],
    store: InMemoryStateStore[Any] | None,
    ctx: Context[Any] | None,
) -> None:
    """Begin a run, and return when it is kept.

    Args:
        stored: the run as its handler follows it; is told where it is.
        owner: the workflow's instance.
        new: the run's row.
        messages: the start message and those that follow it.
        store: the state to begin with.
        ctx: the context to go on with, when it was saved; is attached to the run.

    Raises:
        RunAlreadyExists: there is a run with this id.
        StoreError: the run could not be kept, or the store did not say so for two leases.
    """
    seconds = 2 * stored.worker.lease  # after one, a store that does answer is given up
    patience = asyncio.timeout(seconds)
    try:
        async with patience:
            await _begin(stored, owner, new, messages, store, ctx, patience)
    except TimeoutError as error:
        raise StoreUnavailable(
            f"the store has not said within {seconds:g} s whether run {new.id} was kept",
            hint="If it was, it goes on by itself. Start runs with a key: a start that is repeated"
            " begins nothing twice.",
        ) from error


async def _begin(
    stored: StoredRun,
    owner: object,
    new: NewRun,
    messages: Sequence[Message],
    store: InMemoryStateStore[Any] | None,
    ctx: Context[Any] | None,
    patience: asyncio.Timeout,
) -> None:
    worker, program = stored.worker, stored.program
    for message in messages:
        message.data = message.data or program.types.dumps(message.payload, where=message.tag)
    if new.key is not None and (other := await worker.store.find(new.workflow, new.key)):
        stored.run_id = other
        return
    if new.id in worker.runs:
        raise RunAlreadyExists(new.id)
    saved = None if ctx is None else ctx.saved
    limit = getattr(owner, "num_concurrent_runs", None)
    full = limit is not None or len(worker.runs) >= worker.max_active
    if full or saved is not None or not worker.claims:
        # Its turn may be later: it is created first, and claimed when there is room.
        commit = _queued(new, worker.id, program, messages, store, saved)
        stored.run_id = await worker.store.commit(commit)
        worker.wake()
        return
    now = worker.clock.now()
    ledger = RunLedger(worker, new.id, 1, 0, create=new)
    active = worker.adopt(program, owner, Run(new.id), ledger, None)
    stored.active = active
    if ctx is not None:
        ctx.attach(active)
    active.feed(Start(now, messages[0]))
    if store is not None:
        edits = _edits_of(store, program)
        if edits:
            active.feed(Edited(now, edits))
        active.store = store
        store.observer = None
    for message in messages[1:]:
        active.feed(Arrived(now, message))
    await _kept(stored, ledger, patience)


async def _kept(stored: StoredRun, ledger: RunLedger, patience: asyncio.Timeout) -> None:
    """Return when the run is kept, or its start has turned out to repeat another."""
    try:
        await ledger.settled_or_lost()
    except asyncio.CancelledError:
        if ledger.create is None or patience.expired():
            raise
        raise StoreUnavailable(f"the engine stopped before run {ledger.run_id} was kept") from None
    if ledger.refused is not None:
        raise ledger.refused
    if ledger.repeats is not None:
        stored.run_id = ledger.repeats
        stored.active = None
    elif ledger.lost and ledger.create is not None:
        raise StoreUnavailable(f"the engine stopped before run {ledger.run_id} was kept")


def _edits_of(store: InMemoryStateStore[Any], program: Program) -> list[Json]:
    """The state that was prepared for a run, as the JSON patch that its journal begins with."""
    return [
        {"op": "add", "path": f"/{_pointer(key)}", "value": cast(Json, value)}
        for key, value in store.encoded(program.serializer).items()
    ]


def _pointer(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _queued(
    new: NewRun,
    worker: str,
    program: Program,
    messages: Sequence[Message],
    store: InMemoryStateStore[Any] | None,
    saved: Run | None,
) -> Commit:
    """The commit that creates a run and leaves it to whoever has room for it.

    Args:
        new: the run.
        worker: who creates it.
        program: what it runs.
        messages: the start message and those that follow it; not looked at with `saved`.
        store: the state to begin with.
        saved: the run to go on with.
    """
    types, at = program.types, new.at
    rows: list[bytes] = []
    kept: Snapshot | None = None
    more: list[NewMessage] = []
    if saved is not None:
        state = None if store is None else store.encoded(program.serializer)
        data = {"run": snapshot(saved, types), "state": state}
        kept = Snapshot(0, codec.dump_json(cast(Any, data)))
    else:
        edits = [] if store is None else _edits_of(store, program)
        if edits:
            rows = [codec.encode([StateEdited(edits)], types, at)]
        new = replace(new, start=codec.encode_message(messages[0], types))
        more = [
            NewMessage(new.id, "event", codec.encode_arrival(message, None, types), at)
            for message in messages[1:]
        ]
    return Commit(
        run=new.id,
        fence=1,
        at=at,
        status=RunStatus.QUEUED,
        due=0.0,
        worker=worker,
        rows=rows,
        release=True,
        messages=more,
        snapshot=kept,
        create=new,
    )
