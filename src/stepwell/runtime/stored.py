"""A durable run as its handler follows it: through this process when it is here, else by its rows.

The stream is read from the journal, for every reader the same, and goes on as the journal grows,
whoever advances the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from stepwell.authoring.events.model import (
    Event,
    StepState,
    StepStateChanged,
    UnhandledEvent,
)
from stepwell.authoring.program import Ending, Program
from stepwell.errors import ContextStateError, RunNotFound
from stepwell.kernel.journal import (
    AttemptFailed,
    Entry,
    Published,
    RunEnded,
    Unhandled,
    WaitOpened,
    WorkAdded,
    WorkBegun,
    WorkDone,
)
from stepwell.kernel.outcomes import Message
from stepwell.runtime import codec
from stepwell.runtime.context import Context
from stepwell.runtime.loading import batches_of, whole_row
from stepwell.runtime.messages import decoded, message_for
from stepwell.runtime.turn import ActiveRun
from stepwell.stores.base import NewMessage

if TYPE_CHECKING:
    from stepwell.runtime.worker import Worker


@dataclass(frozen=True, slots=True)
class StreamItem:
    """One item of a run's stream. `cursor` is where to go on behind it; `at` is when it was
    published (seconds since the epoch, UTC); `terminal` marks the last one."""

    cursor: str
    event: Any
    at: float
    terminal: bool = False


class StoredRun:
    """Follows one durable run."""

    __slots__ = ("_beginning", "_ending", "active", "program", "run_id", "worker")

    def __init__(self, worker: Worker, program: Program, run_id: str) -> None:
        self.worker = worker
        self.program = program
        self.run_id = run_id
        self.active: ActiveRun | None = None
        self._ending: Ending | None = None
        self._beginning: asyncio.Task[None] | None = None

    def follow(self, beginning: asyncio.Task[None]) -> None:
        """The run is being started by this task."""
        self._beginning = beginning
        beginning.add_done_callback(_seen)

    async def started(self) -> None:
        if self._beginning is not None:
            await asyncio.shield(self._beginning)

    # --- its end ---------------------------------------------------------------------------------

    @property
    def ending(self) -> Ending | None:
        if self._ending is None and self.active is not None:
            self._ending = self.active.ending
        return self._ending

    async def look(self) -> bool:
        """Whether the run has ended, by its row; then `ending` is known."""
        row = await self.worker.store.get(self.run_id)
        if row is None:
            raise RunNotFound(self.run_id)
        ledger = self.worker.runs.get(self.run_id)
        if ledger is not None and ledger.active is not None:
            self.active = ledger.active
        if not row.status.terminal:
            return False
        if self.ending is not None:
            return True  # it ended here, and what it failed with is still alive
        if ledger is not None and ledger.fence == row.fence and not ledger.lost:
            return False  # it ends here, in a moment
        types = self.program.types
        for last in await self.worker.store.read(self.run_id, row.seq - 1):
            for entry in codec.decode(
                await whole_row(self.worker.store, last.data), types, last.at
            ):
                if isinstance(entry, RunEnded):
                    self._ending = _ending_of(entry)
        return True

    def _is_here(self) -> bool:
        """Whether this process has the run: it hears of its end, and the store knows no more."""
        ledger = self.worker.runs.get(self.run_id)
        return ledger is not None and not ledger.lost and ledger.active is self.active

    async def ended(self) -> None:
        await self.started()
        while self.ending is None:
            self.worker.check_serving(self.run_id)
            if self._is_here():
                await self.worker.news.of(self.run_id)
                continue
            news = self.worker.news.of(self.run_id)
            try:
                if await self.look():
                    return
                held = self.run_id in self.worker.runs or not self.worker.clock.polls()
                # A run that is advanced elsewhere is looked at now and then.
                await asyncio.wait({news}, timeout=None if held else self.worker.poll)
            finally:
                news.cancel()

    # --- its context -----------------------------------------------------------------------------

    def context(self) -> Context[Any]:
        active = self.active
        if active is None:
            ledger = self.worker.runs.get(self.run_id)
            active = None if ledger is None else ledger.active
        if active is None:
            raise ContextStateError(
                "this run is not held by this process (it has not started yet, waits in the store, "
                "or is advanced elsewhere); its context is only here while it is"
            )
        return Context[Any].bound(active)

    # --- its stream and journal ------------------------------------------------------------------

    async def entries(self) -> list[tuple[float, list[Entry]]]:
        await self.started()
        batches = batches_of(self.worker.store, self.run_id, self.program.types)
        return [batch async for batch in batches]

    async def events(
        self, *, after: int, expose_internal: bool
    ) -> AsyncIterator[tuple[int, object]]:
        await self.started()
        number = 0
        source = read_stream(self.worker, self.program, self.run_id, None, internal=expose_internal)
        async for item in source:
            number += 1
            if number > after:
                yield number, item.event

    # --- speaking --------------------------------------------------------------------------------

    async def send(self, event: Event, step: str | None, wait: str | None) -> None:
        await self.started()
        types = self.program.types
        message = message_for(self.program.definition, types, event, step)
        message.data = types.dumps(event, where=message.tag)
        now = self.worker.clock.now()
        data = codec.encode_arrival(message, wait, types)
        await self.worker.inbox.send([NewMessage(self.run_id, "event", data, now)])

    async def cancel(self, reason: str) -> None:
        await self.started()
        await self.worker.inbox.cancel(self.run_id, reason)


def _seen(task: asyncio.Task[None]) -> None:
    """What went wrong is raised to whoever asks for the run; nobody may ask."""
    if not task.cancelled():
        task.exception()


def _ending_of(entry: RunEnded) -> Ending:
    return Ending(
        entry.status, entry.result, entry.error, entry.step, entry.attempts, entry.elapsed
    )


async def read_stream(
    worker: Worker, program: Program, run_id: str, after: str | None, *, internal: bool = False
) -> AsyncIterator[StreamItem]:
    """The stream of a run, from behind a cursor on, until the run has ended."""
    seq, skip = _parsed(after)
    types = program.types
    while True:
        worker.check_serving(run_id)
        news = worker.news.of(run_id)
        try:
            rows = await worker.store.read(run_id, seq)
            for row in rows:
                number = 0
                for entry in codec.decode(await whole_row(worker.store, row.data), types, row.at):
                    for event, last in _shown(entry, program, internal=internal):
                        number += 1
                        if number > skip:
                            yield StreamItem(f"{row.seq}.{number}", event, row.at, last)
                        if last:
                            return
                seq, skip = row.seq, 0
            if not rows:
                found = await worker.store.get(run_id)
                if found is None:
                    raise RunNotFound(run_id)
                if found.status.terminal and found.seq <= seq:
                    return
                held = run_id in worker.runs or not worker.clock.polls()
                await asyncio.wait({news}, timeout=None if held else worker.poll)
        finally:
            news.cancel()


def _parsed(cursor: str | None) -> tuple[int, int]:
    """A cursor `row.number` as the row before, and how many items of the row were seen."""
    if cursor is None:
        return 0, 0
    row, _, number = cursor.partition(".")
    if not (row.isdigit() and number.isdigit()):
        raise ValueError(f"{cursor!r} is not a cursor of a stream")
    return int(row) - 1, int(number)


def _shown(entry: Entry, program: Program, *, internal: bool) -> list[tuple[object, bool]]:
    """What an entry shows to readers of the stream, and whether it is the last."""
    types = program.types

    def live(message: Message) -> object:
        payload = decoded(message, types)
        if isinstance(payload, dict):
            return Event(**cast("dict[str, Any]", payload))
        return payload

    match entry:
        case Published(messages=messages):
            return [(live(m), False) for m in messages]
        case WaitOpened(question=question) if question is not None:
            return [(live(question), False)]
        case RunEnded():
            final = program.final(_ending_of(entry))
            return [(final, True)]
        case _:
            return [(event, False) for event in _internal(entry)] if internal else []


def _internal(entry: Entry) -> list[object]:
    match entry:
        case WorkAdded(begun=begun, step=step, message=message):
            name = message.tag if isinstance(message, Message) else "CollectionReleaseEvent"
            state = StepState.RUNNING if begun else StepState.PREPARING
            worker = str(entry.id) if begun else "<enqueued>"
            return [_changed(step, state, worker, name)]
        case WorkBegun(id=id):
            return [_changed("", StepState.RUNNING, str(id), "")]
        case WorkDone(id=id) | AttemptFailed(id=id):
            return [_changed("", StepState.NOT_RUNNING, str(id), "")]
        case Unhandled(message=message):
            return [
                UnhandledEvent(
                    event_type=message.tag,
                    qualified_name=message.tag,
                    step_name=message.to,
                    idle=False,
                )
            ]
        case _:
            return []


def _changed(step: str, state: StepState, worker: str, given: str) -> StepStateChanged:
    return StepStateChanged(
        name=step,
        step_state=state,
        worker_id=worker,
        input_event_name=given,
        output_event_name=None,
    )
