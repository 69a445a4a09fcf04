"""The first commit of a run that is not begun by who creates it: it waits in the store for room.

Whatever it is to begin with goes in whole: its start message, further messages, the state that was
prepared for it; or, when it goes on with a saved context, the run that was saved, as a snapshot
that precedes its journal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from stepwell.authoring.events.state_store import InMemoryStateStore
from stepwell.authoring.program import Program
from stepwell.kernel.journal import StateEdited
from stepwell.kernel.outcomes import Message
from stepwell.kernel.run import Run
from stepwell.runtime import codec
from stepwell.runtime.saved import snapshot
from stepwell.stores.base import Commit, NewMessage, NewRun, Snapshot
from stepwell.values import Json, RunStatus


def edits_of(store: InMemoryStateStore[Any], program: Program) -> list[Json]:
    """The state that was prepared for a run, as the JSON patch that its journal begins with."""
    return [
        {"op": "add", "path": f"/{_pointer(key)}", "value": cast(Json, value)}
        for key, value in store.encoded(program.serializer).items()
    ]


def _pointer(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def queued(
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
        edits = [] if store is None else edits_of(store, program)
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
