"""The worker: claims runs from the store, keeps them in memory while they are busy, and lets go.

It looks for work whenever something tells it to: a run that was started here, a message that was
sent here, a timer, another process's change, and now and then by itself. What it finds due it
claims, loads, folds, and hands to the turn; a run that only waits is let go of after a while and
lives on as rows. Its lease is one row for all its runs; when it lapses, others may take them, and
the fence in every commit sees to it that a run is never advanced by two.

It has a part for each of this, which says its own rule: `presence` (the lease), `search` (what is
due), `inbox` (what is sent), `letting_go`, `news` (who follows a run here).
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any, cast

from stepwell.authoring.events.state_store import InMemoryStateStore
from stepwell.authoring.program import Program, bare_program
from stepwell.errors import (
    InvalidArgument,
    StepwellError,
    StoreCorrupt,
    StoreError,
    StoreUnavailable,
    WorkflowNotRegistered,
)
from stepwell.kernel.inputs import Due, Loaded, ResumeAsked
from stepwell.kernel.journal import Entry, Published, RunEnded, WaitOpened
from stepwell.kernel.run import Run
from stepwell.runtime.arguments import difference
from stepwell.runtime.inbox import Inbox
from stepwell.runtime.ledger import RunLedger
from stepwell.runtime.letting_go import LettingGo
from stepwell.runtime.loading import first_message, fold, misfit_of
from stepwell.runtime.local import make_context
from stepwell.runtime.news import News
from stepwell.runtime.presence import Presence
from stepwell.runtime.schedules import ensure_schedules
from stepwell.runtime.search import Search
from stepwell.runtime.telemetry import watchers_for
from stepwell.runtime.turn import ActiveRun
from stepwell.runtime.views import in_short, was_let_go
from stepwell.stores import base
from stepwell.stores.base import Store
from stepwell.values import Clock

if TYPE_CHECKING:
    from stepwell.kernel.journal import ChildStarted

logger = logging.getLogger("stepwell")

_FEW_EXPIRED = 200
"""How many runs whose retention is over are deleted at once."""

_QUIET = 0.02
"""Seconds between two looks at the store that only other processes' changes asked for."""


class Worker:
    """Advances the runs of one process. Made by `Engine`, which documents its settings."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        name: str,
        *,
        lease: float,
        poll: float,
        release_after: float,
        max_active: int,
        snapshot_every: int,
        retention: float | None,
        claims: bool,
    ) -> None:
        self.store = store
        self.clock = clock
        self.id = f"{name}-{os.getpid()}-{secrets.token_hex(4)}"
        self.lease = lease
        self.poll = poll
        self.release_after = release_after
        self.max_active = max_active
        self.snapshot_every = snapshot_every
        self.retention = retention
        self.claims = claims
        self.programs: dict[str, tuple[Program, object]] = {}
        self._versions: dict[tuple[str, str], tuple[Program, object]] = {}
        self.runs: dict[str, RunLedger] = {}
        self.taken = 0  # how many runs were claimed and taken up so far
        self.planned: dict[str, str] = {}  # by workflow: its schedule's planned run, as last seen
        self.started = 0.0
        self.stopping = False
        self.presence = Presence(self)
        self.search = Search(self)
        self.inbox = Inbox(self)
        self.letting_go = LettingGo(self)
        self.news = News()
        self._tasks: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()
        self._stopped = False

    # --- its life --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Announce the worker, take over what dead ones left, and begin to look for work."""
        self.stopping = self._stopped = False
        self.started = self.clock.now()
        await self.presence.renew()
        await ensure_schedules(self)
        await self.search.look(await self.presence.bury())
        await self.search.adopt_parents()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._beat()), loop.create_task(self._serve())]
        if self.clock.polls():
            self._tasks.append(loop.create_task(self._listen()))

    async def stop(self, grace: float) -> None:
        """Claim nothing more, give bodies `grace` seconds to end, then let go of every run."""
        self.stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.search.over()
        await self.letting_go.of_all(grace)
        self._stopped = True
        self.news.tell_but(())

    def check_serving(self, run: str) -> None:
        """Raises `StoreUnavailable` when the engine was stopped: nothing is heard of `run` here any
        more."""
        if self._stopped:
            raise StoreUnavailable(
                f"the engine was stopped before run {run} ended",
                hint="The run is kept; ask for it again on an engine that is open.",
            )

    async def _beat(self) -> None:
        """Do the round of duties, well before the lease runs out."""
        while True:
            await asyncio.sleep(self.lease / 3)
            await self._tried(self._round(), "its round of duties")

    async def _round(self) -> None:
        """Renew the lease; notice workers that died; let go of runs that only wait."""
        if not await self.presence.renew():
            await self._check_ownership()
        await self.letting_go.settle()
        await self.search.look(await self.presence.bury())
        await self.search.adopt_parents()
        await ensure_schedules(self)
        await self.letting_go.of_idle()
        await self._delete_expired()

    async def _tried(self, work: Coroutine[Any, Any, object], what: str) -> bool:
        """Do `work`; what goes wrong with it is said, and the worker goes on, because its lease has
        to be renewed whatever happens. Returns whether it went well."""
        try:
            await work
        except StoreError as error:
            logger.error("worker %s: the store is in trouble: %s", self.id, error)
        except Exception as bug:
            logger.critical("worker %s: %s failed", self.id, what, exc_info=bug)
        else:
            return True
        return False

    async def _check_ownership(self) -> None:
        """The lease had lapsed: give up at once what others have taken meanwhile."""
        for ledger in tuple(self.runs.values()):
            row = await self.store.get(ledger.run_id)
            if row is not None and (row.owner != self.id or row.fence != ledger.fence):
                logger.warning("run %s: taken over while this worker was away", ledger.run_id)
                ledger.lost = True
                self.dropped(ledger)

    async def _delete_expired(self) -> None:
        """Delete some of the runs whose time of retention is over."""
        if self.retention is not None and self.claims:
            before = self.clock.now() - self.retention
            expired = await self.store.expired(before, _FEW_EXPIRED)
            if expired:
                count = await self.store.delete(expired)
                logger.info("deleted %s runs that ended %s s ago or more", count, self.retention)

    async def _listen(self) -> None:
        """Hear of other processes' changes."""
        while True:
            if not await self._tried(self.store.changed(self.poll), "listening"):
                await asyncio.sleep(self.poll)
            self._wake.set()
            await asyncio.sleep(_QUIET)

    async def _serve(self) -> None:
        """Look for work whenever something says that there may be some."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not await self._tried(self._look(), "looking for work"):
                await asyncio.sleep(self.poll)
                self._wake.set()

    async def _look(self) -> None:
        if self.presence.outdated:
            await self.presence.renew()
            await ensure_schedules(self)
        await self.search.look()

    def wake(self) -> None:
        """There may be work."""
        self._wake.set()

    # --- what it knows, and what it holds --------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether the body of some step is at work here."""
        return any(held.active is not None and held.active.attempts for held in self.runs.values())

    def know(self, program: Program, owner: object) -> None:
        """Runs of this program may be claimed from now on. Raises `InvalidArgument` when the name
        is that of another workflow, or of the same one with other options; several versions of
        one are fine, each goes on with its own runs."""
        name, version = program.definition.name, program.definition.version
        known = self._versions.get((name, version))
        if known is None:
            self._versions[name, version] = self.programs[name] = (program, owner)
            self._wake.set()
        elif differs := difference(program, owner, *known):
            raise InvalidArgument(
                f"this engine has another workflow under the name {name!r}: {differs}",
                hint="Give one of them a workflow_name of its own, or an engine of its own.",
            )

    def program(self, name: str) -> tuple[Program, object]:
        """The newest program of a workflow, with its owner. Raises `WorkflowNotRegistered`."""
        found = self.programs.get(name)
        if found is None:
            raise WorkflowNotRegistered(name, sorted(self.programs))
        return found

    def program_or_bare(self, name: str) -> Program:
        """The program of a workflow, or what stands in for one that is not loaded."""
        found = self.programs.get(name)
        return bare_program(name) if found is None else found[0]

    def program_of(self, row: base.RunRow) -> tuple[Program, object]:
        """The program that the run goes on with: that of its version, or else the newest."""
        return self._versions.get((row.workflow, row.version)) or self.programs[row.workflow]

    def adopt(
        self,
        program: Program,
        owner: object,
        run: Run,
        ledger: RunLedger,
        state: InMemoryStateStore[Any] | None = None,
    ) -> ActiveRun:
        """Hold a run in memory, under the ledger's claim."""
        active = ActiveRun(program, owner, run, self.clock, make_context, self._spawn, ledger)
        active.store = state
        ledger.active = active
        self.runs[run.id] = ledger
        for watcher in watchers_for(program):
            active.watch(watcher)
        return active

    def _spawn(self, _parent: ActiveRun, _entry: ChildStarted) -> None:
        """Children of durable runs are created by the commit that says so; take them up."""
        self._wake.set()

    async def activate(
        self, loaded: base.Loaded, first: ResumeAsked | None = None
    ) -> ActiveRun | None:
        """Fold a claimed run and let it go on, after `first` if that is given; park it when it
        can't go on."""
        row = loaded.row
        program, owner = self.program_of(row)
        self.taken += 1
        try:
            if program.variant is not None:
                program, owner = program.variant(await first_message(self.store, loaded))
            run, state = await fold(self.store, loaded, program)
            misfit = misfit_of(run, program)
        except (StepwellError, ValueError, KeyError, AttributeError, TypeError) as error:
            if isinstance(error, StoreError) and not isinstance(error, StoreCorrupt):
                raise  # it says nothing of the run, which is read when the store is well again
            misfit = f"its journal can't be read by this code: {in_short(error)}"
            run, state = Run(row.id), None
        if misfit is not None:
            if not await self.letting_go.left_to_others(row, misfit):
                await self.letting_go.parked(row, misfit)
            return None
        ledger = RunLedger(
            self,
            row.id,
            row.fence,
            row.seq,
            parent=row.parent,
            snapshot_seq=0 if loaded.snapshot is None else loaded.snapshot.seq,
        )
        if run.by_tag:
            ledger.listed = None  # a copy, or what an earlier release wrote, may not be listed yet
        ledger.let_go = was_let_go(row)
        active = self.adopt(program, owner, run, ledger, state)
        now = self.clock.now()
        try:
            if first is not None:
                active.feed(first)
            elif run.begun:
                active.feed(Loaded(now, self.id, died=not ledger.let_go))
            for message in loaded.messages:
                self.inbox.take(ledger, message)
            if run.begun:
                active.feed(Due(now))
            if ledger.idle:
                # Nothing came of it (a message was withdrawn, say): just go on waiting here.
                active.resume()
        except Exception as bug:
            active.broken(bug)
        return active

    # --- what the ledgers tell -------------------------------------------------------------------

    def committed(self, ledger: RunLedger, entries: Iterable[Entry]) -> None:
        """A commit was made and performed."""
        active = cast(ActiveRun, ledger.active)
        ended = active.run.ended is not None or active.run.parked is not None
        ledger.busy_since = self.clock.now()
        if ledger.released and not ended:
            self.forget(ledger)
            self._wake.set()  # someone has to see to its time, and to what came meanwhile
        if ended:
            self.forget(ledger)
            limited = getattr(active.owner, "num_concurrent_runs", None) is not None
            if limited or len(self.runs) >= self.max_active - 1:
                self._wake.set()  # there is room for another one
        if ended or any(
            isinstance(e, Published) or (isinstance(e, WaitOpened) and e.question is not None)
            for e in entries
        ):
            self.news.tell(ledger.run_id)
        for entry in entries:
            if isinstance(entry, RunEnded):
                if ledger.parent is not None:
                    self.inbox.nudge(ledger.parent)
                if entry.cancel:
                    self._wake.set()  # its children have to be told

    def dropped(self, ledger: RunLedger) -> None:
        """The run is not ours any more."""
        active = ledger.active
        self.forget(ledger)
        if active is not None:
            active.stop_bodies()
        self.news.tell(ledger.run_id)

    def forget(self, ledger: RunLedger) -> None:
        """Hold the run no longer."""
        if self.runs.get(ledger.run_id) is ledger:
            del self.runs[ledger.run_id]
        if ledger.active is not None:
            ledger.active.disarm()
