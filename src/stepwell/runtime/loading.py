"""What a store has of a run, read: its rows with their payloads put back, folded to the run again.

Reading claims nothing and changes nothing, so it is for whoever wants to know, with the workflow's
code or without. What makes no sense of what is stored is said to be the store's.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from typing import Any, cast

from stepwell.authoring.events.state_data import DictState
from stepwell.authoring.events.state_store import InMemoryStateStore
from stepwell.authoring.program import Program, TypeRegistry
from stepwell.errors import RunNotFound, StoreCorrupt
from stepwell.kernel.journal import Entry, StateEdited, WorkAdded
from stepwell.kernel.outcomes import Message
from stepwell.kernel.run import EVOLVE, Run
from stepwell.runtime import codec
from stepwell.runtime.saved import restore
from stepwell.stores.base import Loaded, Store


@contextmanager
def readable(run: str) -> Generator[None]:
    """What is stored of a run is read here: what makes no sense of it is said to be the store's."""
    try:
        yield
    except (LookupError, TypeError, AttributeError) as error:
        raise StoreCorrupt(f"what is stored of run {run} makes no sense: {error!r}") from error


async def whole_row(store: Store, data: bytes) -> bytes:
    """A journal row with the payloads that are kept apart put back."""
    if not codec.has_marks(data):
        return data
    digests = codec.digests_in(data)
    return codec.with_blobs(data, {d: await store.blob(d) for d in digests})


async def batches_of(
    store: Store, run: str, types: TypeRegistry
) -> AsyncIterator[tuple[float, list[Entry]]]:
    """A run's journal from its beginning: what was decided together, with its time."""
    after = 0
    while rows := await store.read(run, after):
        for row in rows:
            yield row.at, codec.decode(await whole_row(store, row.data), types, row.at)
        after = rows[-1].seq


async def fold(
    store: Store, loaded: Loaded, program: Program
) -> tuple[Run, InMemoryStateStore[Any] | None]:
    """The run, and its state, as the store has them."""
    types = program.types
    state_type: type[Any] = program.state_type or DictState
    run = Run(loaded.row.id)
    state: InMemoryStateStore[Any] | None = None
    with readable(run.id):
        if loaded.snapshot is not None:
            data = json.loads(loaded.snapshot.data)
            run = restore(data["run"], types)
            run.id = loaded.row.id
            if data["state"] is not None:
                state = InMemoryStateStore[Any].from_encoded(
                    data["state"], state_type, program.serializer
                )
        for row in loaded.rows:
            for entry in codec.decode(await whole_row(store, row.data), types, row.at):
                EVOLVE[type(entry)](run, entry)
                if isinstance(entry, StateEdited):
                    if state is None:
                        state = InMemoryStateStore(
                            state_type=state_type, serializer=program.serializer
                        )
                    state.apply_patch(cast(Any, entry.edits), program.serializer)
    return run, state


async def load(store: Store, run_id: str) -> Loaded:
    """What the store has of the run. Raises `RunNotFound`."""
    loaded = await store.load(run_id)
    if loaded is None:
        raise RunNotFound(run_id)
    return loaded


async def fold_bare(store: Store, loaded: Loaded) -> Run:
    """The run, folded without its workflow's code: payloads stay plain data."""
    types = TypeRegistry(())
    run = Run(loaded.row.id)
    with readable(run.id):
        if loaded.snapshot is not None:
            run = restore(json.loads(loaded.snapshot.data)["run"], types)
        for row in loaded.rows:
            for entry in codec.decode(await whole_row(store, row.data), types, row.at):
                EVOLVE[type(entry)](run, entry)
    return run


async def first_message(store: Store, loaded: Loaded) -> Message:
    """The message that a run begins with. Raises `StoreCorrupt` when there is none."""
    types = TypeRegistry(())
    for message in loaded.messages:
        if message.kind == "start":
            return codec.decode_message(message.data, types)
    for row in await store.read(loaded.row.id, 0, 1):
        for entry in codec.decode(await whole_row(store, row.data), types, row.at):
            if isinstance(entry, WorkAdded) and isinstance(entry.message, Message):
                return entry.message
    raise StoreCorrupt(f"run {loaded.row.id} does not say what it began with")


def misfit_of(run: Run, program: Program) -> str | None:
    """Why a run does not fit the code, in a sentence; None when it does."""
    known = program.definition.by_name
    named = {work.step for work in run.work.values()}
    named |= {step for step, _ in run.joins or ()}
    named |= {s for stream in (run.streams or {}).values() for s in stream.collectors}
    named |= {
        step
        for wait in (run.waits or {}).values()
        for step in (wait.then, wait.on_timeout)
        if step is not None
    }
    missing = sorted(named - known.keys())
    if missing:
        steps = ", ".join(repr(step) for step in missing)
        return (
            f"the workflow no longer has the step(s) {steps} that the run is at; deploy code that "
            "has them and resume it, or cancel it"
        )
    return None
