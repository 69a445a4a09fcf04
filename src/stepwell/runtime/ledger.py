"""The ledger of one durable run: what was decided is committed first, and done then.

All that was decided while a commit was under way goes into the next one, so a busy run needs few.
A commit that meets a store in trouble (locked, full, gone) is tried again until the store is back:
the run stands still meanwhile, and nothing of it is lost. Only the commit that creates a run gives
up, when a lease has passed: nobody was told yet that there is such a run. A commit that finds the
lease gone ends this process's hold of the run: its bodies are stopped and nothing they did after is
kept.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from stepwell.authoring.program import Program
from stepwell.errors import LeaseLost, RunAlreadyExists, StepwellError, StoreCorrupt, StoreError
from stepwell.kernel.inputs import Arrived
from stepwell.kernel.journal import (
    ChildStarted,
    Entry,
    Published,
    RunEnded,
    RunParked,
    ScopeEntered,
    WaitDropped,
    WaitOpened,
    WorkAdded,
    WorkBegun,
)
from stepwell.kernel.outcomes import ChildResult, Message
from stepwell.kernel.run import Run, next_due_away
from stepwell.runtime import codec
from stepwell.runtime.broadcast import broadcast
from stepwell.runtime.saved import snapshot
from stepwell.runtime.schedules import plan_run
from stepwell.runtime.turn import ActiveRun
from stepwell.runtime.views import in_short, run_detail
from stepwell.stores.base import Commit, NewMessage, NewRun, Snapshot
from stepwell.values import ErrorInfo, Json, RunStatus

if TYPE_CHECKING:
    from stepwell.runtime.worker import Worker

logger = logging.getLogger("stepwell")

BLOB_ABOVE = 128 * 1024
"""Payloads of more bytes than this are kept once, by content, beside the journal."""


def not_kept(run_id: str, error: StoreError) -> StoreError:
    """`error`, as whoever wanted this run to be created reads it."""
    told = copy.copy(error)
    told.message = f"run {run_id} could not be created: {error.message}"
    told.args = (told.message,)
    return told


class RunLedger:
    """Commits for one run under one claim."""

    def __init__(
        self,
        worker: Worker,
        run_id: str,
        fence: int,
        seq: int,
        *,
        parent: str | None = None,
        create: NewRun | None = None,
        snapshot_seq: int = 0,
    ) -> None:
        self.worker = worker
        self.run_id = run_id
        self.fence = fence
        self.seq = seq
        self.parent = parent
        self.create = create
        self.snapshot_seq = snapshot_seq
        self.read_up_to = 0
        self.let_go = False  # the run's row says that its worker let go of it
        self.lost = False
        self.ended = False  # the run's end is committed
        self.refused: StepwellError | None = None  # why there is no such run
        self.repeats: str | None = None  # the run of an earlier start that this one repeats
        self.busy_since: float | None = None
        self.active: ActiveRun | None = None
        # The tags that the store lists the run by, as what it waits for; None: not known.
        self.listed: frozenset[str] | None = frozenset()
        self._entries: list[Entry] = []
        self._at = 0.0
        self._consumed: list[int] = []
        self.released = False  # what comes now is for who takes the run up next, if anyone does
        self._task: asyncio.Task[None] | None = None
        self._waiting: list[asyncio.Future[None]] = []

    # --- what the turn asks ----------------------------------------------------------------------

    def enter(self, entries: Sequence[Entry], at: float) -> None:
        self._entries.extend(entries)
        self._at = at
        self._kick()

    def consumed(self, message: int) -> None:
        """An inbox message was taken in by what was just entered."""
        self._consumed.append(message)
        self._at = self._at or self.worker.clock.now()
        self._kick()

    async def settled(self) -> None:
        await self.settled_or_lost()
        if self.lost:
            raise asyncio.CancelledError("the lease of the run was lost")

    async def settled_or_lost(self) -> None:
        """Return when everything entered so far is committed, or never will be by us."""
        while self._task is not None and not self.lost:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter

    def unsafe(self) -> set[int]:
        return {
            entry.id
            for entry in self._entries
            if isinstance(entry, WorkBegun) or (isinstance(entry, WorkAdded) and entry.begun)
        }

    def broken(self, bug: Exception) -> None:
        info = ErrorInfo.of(bug)
        active = cast(ActiveRun, self.active)
        entry = RunParked(f"stepwell failed: {info.type}: {in_short(bug)}", active.clock.now())
        active.run.parked = entry.reason
        self.enter([entry], entry.at)

    def arrive(self, input: Arrived) -> None:
        active = cast(ActiveRun, self.active)
        active.prepare(input.message)
        self.worker.inbox.post(self.run_id, input)

    def know_child(self, program: Program, owner: object) -> None:
        self.worker.know(program, owner)

    async def plan_run(
        self, program: Program, owner: object, at: float, plan: Mapping[str, Json]
    ) -> str:
        """Plan the run of the program's schedule for `at`, once; its id."""
        return await plan_run(self.worker, program, owner, at, plan, self.run_id)

    async def broadcast(self, tag: str, payload: Mapping[str, Any]) -> int:
        """Answer every run that waits for a message with this tag; how many there were."""
        return await broadcast(self.worker, tag, payload)

    # --- committing ------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether nothing is waiting to be committed."""
        return self._task is None and not self._entries and not self._consumed

    def _kick(self) -> None:
        if self._task is None and not (self.lost or self.released):
            self._task = asyncio.get_running_loop().create_task(self._commit_all())

    async def _commit_all(self) -> None:
        try:
            while (self._entries or self._consumed) and not (self.lost or self.released):
                entries, self._entries = self._entries, []
                consumed, self._consumed = self._consumed, []
                if await self._commit(self._build(entries, consumed)):
                    self._done(entries)
        except Exception as bug:
            # Not the store's trouble (that is waited out) and not a lost lease: a fault of ours.
            logger.critical("run %s: a commit failed", self.run_id, exc_info=bug)
            self._give_up()
            if not self.ended:  # what has ended stays as it ended
                self.worker.letting_go.crashed(self, bug)
        finally:
            self._task = None
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(None)

    async def _commit(self, commit: Commit) -> bool:
        """Keep `commit`; False when the run is no longer ours."""
        pause = 0.05
        clock = self.worker.clock
        until = clock.now() + self.worker.lease
        while True:
            try:
                id = await self.worker.store.commit(commit)
            except LeaseLost:
                logger.warning(
                    "run %s: another worker has taken it over; what it did here since is dropped",
                    self.run_id,
                )
                self._give_up()
                return False
            except RunAlreadyExists as error:
                self._give_up(refused=error)
                return False
            except StoreCorrupt:
                raise
            except StoreError as error:
                if self.create is not None and clock.now() >= until:
                    # Nobody was told that there is such a run: whoever wants it is told why not.
                    self._give_up(refused=not_kept(self.run_id, error))
                    return False
                logger.error(
                    "run %s: the store is in trouble, trying again: %s", self.run_id, error
                )
                if self.create is not None:
                    pause = min(pause, max(0.0, until - clock.now()))
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5.0)
            else:
                if commit.create is not None and id != self.run_id:
                    self.repeats = id
                    self._give_up()
                    return False
                self.seq += len(commit.rows)
                self.create = None
                self.ended = commit.status.terminal
                self.let_go = False
                self.released = commit.release
                return True

    def _done(self, entries: Sequence[Entry]) -> None:
        active = cast(ActiveRun, self.active)
        active.perform(entries)
        self.worker.committed(self, entries)

    def _give_up(self, refused: StepwellError | None = None) -> None:
        self.refused = refused
        self.lost = True
        self._entries = []
        self.worker.dropped(self)

    def abandon(self) -> None:
        """Wait for the store no longer: what it has not kept goes, and is owed again by whoever
        takes the run up."""
        self.lost = True
        if self._task is not None:
            self._task.cancel()

    def _build(self, entries: Sequence[Entry], consumed: Sequence[int]) -> Commit:
        active = cast(ActiveRun, self.active)
        run = active.run
        types = active.types
        at = self._at
        status = run.status
        rows: list[bytes] = []
        blobs: dict[str, bytes] = {}
        if entries:
            row, blobs = codec.encode_row(entries, types, at, BLOB_ABOVE)
            rows = [row]
        children: list[NewRun] = []
        messages: list[NewMessage] = []
        for entry in entries:
            self._outgoing(entry, at, children, messages)
        if status is RunStatus.RUNNING or status is RunStatus.QUEUED:
            due: float | None = 0.0
        else:
            due = next_due_away(run)
        detail = None if status is RunStatus.RUNNING else codec.dump_json(run_detail(run))
        if self.let_go:  # no longer
            detail = detail or b"{}"
        kept = None
        seq = self.seq + len(rows)
        if seq - self.snapshot_seq >= self.worker.snapshot_every and run.ended is None:
            state = active.store.encoded(active.program.serializer) if active.store else None
            data = {"run": snapshot(run, types), "state": state}
            kept = Snapshot(seq, codec.dump_json(cast(Any, data)))
            self.snapshot_seq = seq
        return Commit(
            run=self.run_id,
            fence=self.fence,
            at=at,
            status=status,
            due=due,
            worker=self.worker.id,
            rows=rows,
            release=status.terminal or status is RunStatus.PARKED or self._rests(status),
            detail=detail,
            consumed=tuple(consumed),
            messages=messages,
            children=children,
            blobs=blobs,
            snapshot=kept,
            create=self.create,
            waits=self._newly_awaited(run),
        )

    def _rests(self, status: RunStatus) -> bool:
        """Whether nothing of the run is worth its place in memory."""
        active = cast(ActiveRun, self.active)
        return status is RunStatus.WAITING and not active.program.resident and not active.attempts

    def _newly_awaited(self, run: Run) -> tuple[str, ...] | None:
        """The tags of the messages that the run waits for; None when the store knows them."""
        if not run.by_tag and not self.listed and self.listed is not None:
            return None  # the usual case, at the cost of a look
        awaited = frozenset(run.by_tag or ())
        if awaited == self.listed:
            return None
        self.listed = awaited
        return tuple(awaited)

    def _outgoing(
        self, entry: Entry, at: float, children: list[NewRun], messages: list[NewMessage]
    ) -> None:
        """What an entry means for other runs: children, and word to the parent."""
        active = cast(ActiveRun, self.active)
        types = active.types
        match entry:
            case ChildStarted(id, workflow, message):
                start = codec.encode_message(message, types)
                known = self.worker.programs.get(workflow)
                version = "" if known is None else known[0].definition.version
                children.append(NewRun(id, workflow, at, version, start=start, parent=self.run_id))
            case RunEnded(cancel=cancel) | ScopeEntered(cancel=cancel) | WaitDropped(cancel=cancel):
                word = b'"its parent does not wait for it any more"'
                messages.extend(NewMessage(child, "cancel", word, at) for child in cancel)
                if isinstance(entry, RunEnded) and self.parent is not None:
                    run = active.run
                    shown = active.shown_state()
                    name = active.definition.name
                    ended = ChildResult(
                        run.id, entry.status, entry.result, entry.error, name, shown
                    )
                    data = codec.encode_child(ended, types).encode()
                    messages.append(NewMessage(self.parent, "child", data, at, f"end:{run.id}"))
            case Published(messages=published):
                self._tell_parent(published, at, messages)
            case WaitOpened(question=question) if question is not None:
                self._tell_parent((question,), at, messages)
            case _:
                return

    def _tell_parent(
        self, published: Sequence[Message], at: float, messages: list[NewMessage]
    ) -> None:
        """A child is shown in its parent's stream."""
        if self.parent is not None:
            types = cast(ActiveRun, self.active).types
            data = f"[{','.join(codec.write_message(m, types) for m in published)}]".encode()
            messages.append(NewMessage(self.parent, "stream", data, at))
