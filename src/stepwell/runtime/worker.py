"""The worker: claims runs from the store, keeps them in memory while they are busy, and lets go.

It looks for work whenever something tells it to: a run that was started here, a message that was
sent here, a timer, another process's change, and now and then by itself. What it finds due it
claims, loads, folds, and hands to the turn; a run that only waits is let go of after a while and
lives on as rows. Its lease is one row for all its runs; when it lapses, others may take them, and
the fence in every commit sees to it that a run is never advanced by two.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from stepwell.authoring.events.state_store import DictState, InMemoryStateStore
from stepwell.authoring.program import Program, TypeRegistry
from stepwell.errors import (
    InvalidArgument,
    LeaseLost,
    StepwellError,
    StoreCorrupt,
    StoreError,
    StoreUnavailable,
    WorkflowRuntimeError,
)
from stepwell.kernel.inputs import (
    Arrived,
    CancelAsked,
    ChildEnded,
    Due,
    Input,
    Loaded,
    ParkAsked,
    ResumeAsked,
    Start,
    Wrote,
)
from stepwell.kernel.journal import (
    Entry,
    Published,
    RunEnded,
    RunParked,
    StateEdited,
    WaitOpened,
    WorkAdded,
)
from stepwell.kernel.outcomes import Message
from stepwell.kernel.run import EVOLVE, RUNNING, Run, pending
from stepwell.runtime import codec
from stepwell.runtime.arguments import difference
from stepwell.runtime.identity import host_of_this_process, is_dead
from stepwell.runtime.ledger import RunLedger
from stepwell.runtime.local import make_context
from stepwell.runtime.saved import restore
from stepwell.runtime.schedules import ensure_schedules
from stepwell.runtime.telemetry import watchers_for
from stepwell.runtime.turn import ActiveRun
from stepwell.runtime.views import in_short, let_go_detail, was_let_go
from stepwell.stores import base
from stepwell.stores.base import Commit, MessageRow, NewMessage, Store, WorkerRow
from stepwell.values import Clock, RunStatus, TimerHandle

if TYPE_CHECKING:
    from stepwell.kernel.journal import ChildStarted

logger = logging.getLogger("stepwell")

_BATCH = 200
"""How many runs are claimed and loaded at once."""

_FEW = 20
"""How many runs of a workflow that is not known are looked at for their parents."""

_UNDER_WAY = (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING)

_FROM_OUTSIDE = frozenset({"event", "stream", "cancel", "park", "resume"})
"""Kinds of messages that a run can do without when they make no sense."""

_STUBBORN = 5.0
"""Seconds that a cancelled body is waited for."""

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
        self.redirects: dict[str, str] = {}
        self.refusals: dict[str, StepwellError] = {}
        self.taken = 0  # how many runs were claimed and taken up so far
        self.broadcast: Callable[[str, Mapping[str, Any]], Awaitable[int]] = _nobody
        self.planned: dict[str, str] = {}  # by workflow: its schedule's planned run, as last seen
        self.started = 0.0
        self._news: dict[str, list[asyncio.Future[None]]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._claimed: dict[str, base.RunRow] = {}  # ours, and not read yet
        self._looking = asyncio.Lock()
        self._owed: list[Commit] = []
        self._posts: set[asyncio.Task[Any]] = set()
        self._wake = asyncio.Event()
        self._alarm: TimerHandle | None = None
        self._alarm_at: float | None = None
        self._stopping = False
        self._stopped = False
        self._registered: tuple[str, ...] | None = None
        self._renewed = 0.0
        self._host = host_of_this_process()

    # --- its life --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Announce the worker, take over what dead ones left, and begin to look for work."""
        self._stopping = self._stopped = False
        self.started = self.clock.now()
        await self._register()
        await ensure_schedules(self)
        await self._look(await self._dead())
        await self._adopt_parents()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._beat()), loop.create_task(self._serve())]
        if self.clock.polls():
            self._tasks.append(loop.create_task(self._listen()))

    async def stop(self, grace: float) -> None:
        """Claim nothing more, give bodies `grace` seconds to end, then let go of every run."""
        self._stopping = True
        self._call_at(None)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._drain(grace)
        await asyncio.gather(*map(self._quiesce, tuple(self.runs.values())))
        while self._posts:
            await asyncio.gather(*self._posts, return_exceptions=True)
        self._claimed.clear()
        self._owed.clear()
        try:
            await self.store.unregister(self.id)
        except StoreError as error:
            logger.warning("the worker could not sign off, its lease has to run out: %s", error)
        self._stopped = True
        for run in tuple(self._news):
            self._tell(run)

    def check_serving(self, run: str) -> None:
        """Raises `StoreUnavailable` when the engine was stopped: nothing is heard of `run` here any
        more."""
        if self._stopped:
            raise StoreUnavailable(
                f"the engine was stopped before run {run} ended",
                hint="The run is kept; ask for it again on an engine that is open.",
            )

    async def _drain(self, grace: float) -> None:
        """Give the bodies that are busy `grace` seconds to end; no others are started."""
        bodies: list[asyncio.Task[None]] = []
        for ledger in self.runs.values():
            active = ledger.active
            if active is not None:
                active.held = True
                bodies.extend(
                    attempt.task
                    for attempt in active.attempts.values()
                    if attempt.task is not None and attempt.work.phase == RUNNING
                )
        if bodies:
            await asyncio.wait(bodies, timeout=grace)

    async def _quiesce(self, ledger: RunLedger) -> None:
        """Stop the run's bodies and wait for what is being committed."""
        active = ledger.active
        if active is not None:
            await _stop_bodies(active)
        try:
            async with asyncio.timeout(5.0):
                await ledger.settled()
        except (TimeoutError, asyncio.CancelledError):
            logger.warning("run %s: its last commit was not finished", ledger.run_id)
            ledger.abandon()
        self._forget(ledger)
        if active is not None and not (ledger.lost or ledger.released):
            await self._sign_off(ledger, active)

    async def _sign_off(self, ledger: RunLedger, active: ActiveRun) -> None:
        """Say with the run's row that nobody died under what is running of it."""
        if not any(work.phase == RUNNING or work.partial for work in active.run.work.values()):
            return  # it is let go of with all others
        try:
            async with asyncio.timeout(5.0):
                await self.store.commit(self._let_go(ledger, active))
        except (StoreError, LeaseLost, TimeoutError) as error:
            logger.warning("run %s was not let go of in an orderly way: %s", ledger.run_id, error)

    def _let_go(self, ledger: RunLedger, active: ActiveRun) -> Commit:
        """The commit that gives up the claim of a run that is in order."""
        status = active.run.status
        return Commit(
            run=ledger.run_id,
            fence=ledger.fence,
            at=self.clock.now(),
            status=status,
            due=pending(active.run).due if status is RunStatus.WAITING else 0.0,
            worker=self.id,
            release=True,
            detail=codec.dump_json(let_go_detail(active.run)),
        )

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

    def program_of(self, row: base.RunRow) -> tuple[Program, object]:
        """The program that the run goes on with: that of its version, or else the newest."""
        return self._versions.get((row.workflow, row.version)) or self.programs[row.workflow]

    # --- looking for work ------------------------------------------------------------------------

    def _offered(self) -> tuple[str, ...]:
        """The workflows whose runs others may expect this worker to advance."""
        return tuple(self.programs) if self.claims else ()

    async def _register(self) -> None:
        names = self._offered()
        now = self.clock.now()
        await self.store.register(
            WorkerRow(self.id, self._host, os.getpid(), now + self.lease, names)
        )
        self._registered = names
        self._renewed = now

    async def _beat(self) -> None:
        """Renew the lease; notice workers that died; let go of runs that only wait."""
        while True:
            await asyncio.sleep(self.lease / 3)
            try:
                late = self.clock.now() - self._renewed > self.lease
                await self._register()
                if late:
                    await self._check_ownership()
                await self._settle()
                await self._look(await self._dead())
                await self._adopt_parents()
                await ensure_schedules(self)
                await self._release_idle()
                await self._delete_expired()
            except StoreError as error:
                logger.error("worker %s: the store is in trouble: %s", self.id, error)

    async def _check_ownership(self) -> None:
        """The lease had lapsed: give up at once what others have taken meanwhile."""
        for ledger in tuple(self.runs.values()):
            row = await self.store.get(ledger.run_id)
            if row is not None and (row.owner != self.id or row.fence != ledger.fence):
                logger.warning("run %s: taken over while this worker was away", ledger.run_id)
                ledger.lost = True
                self.dropped(ledger)

    async def _dead(self) -> list[str]:
        """Workers of this machine whose process is gone, and any whose lease is long over."""
        now = self.clock.now()
        dead: list[str] = []
        for row in await self.store.workers():
            if row.id == self.id:
                continue
            if is_dead(row.host, row.pid):
                dead.append(row.id)
            elif row.until + 10 * self.lease < now:
                await self.store.unregister(row.id)
        for id in dead:
            logger.info("worker %s is dead; its runs are taken over", id)
            await self.store.unregister(id)
        return dead

    async def _listen(self) -> None:
        """Hear of other processes' changes."""
        while True:
            try:
                await self.store.changed(self.poll)
            except StoreError as error:
                logger.error("worker %s: the store is in trouble: %s", self.id, error)
                await asyncio.sleep(self.poll)
            self._wake.set()
            await asyncio.sleep(_QUIET)

    async def _serve(self) -> None:
        """Look for work whenever something says that there may be some."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                if self._registered != self._offered():
                    await self._register()
                    await ensure_schedules(self)
                await self._look()
            except StoreError as error:
                logger.error("worker %s: the store is in trouble: %s", self.id, error)
                await asyncio.sleep(self.poll)
                self._wake.set()
            except Exception as bug:
                logger.critical("worker %s: looking for work failed", self.id, exc_info=bug)
                await asyncio.sleep(self.poll)
                self._wake.set()

    async def _look(self, dead: Sequence[str] = ()) -> None:
        async with self._looking:
            await self._look_around(dead)

    async def _look_around(self, dead: Sequence[str]) -> None:
        for run in await self.store.inbox(self.id):
            await self._read_inbox(run)
        await self._tell_followers()
        await self._take_up()
        if not self.claims:
            return
        asked = self.clock.now()
        for names, room in self._room():
            await self._claim(names, room, dead)
        # Runs there is no room for are looked at again when one that has it ends.
        names = [name for names, room in self._room() if room > 0 for name in names]
        now = self.clock.now()
        due = await self.store.next_due(names, now) if names else None
        if due is not None and due <= asked:
            due = now + self.poll  # it could not be claimed just now; that may take a while
        self._call_at(due)

    async def _claim(self, names: Sequence[str], room: int, dead: Sequence[str]) -> None:
        """Take up to `room` runs of these workflows that are due."""
        while room > 0 and not self._stopping:
            now = self.clock.now()
            due = await self.store.next_due(names, now)
            if not dead and (due is None or due > now):
                return
            rows = await self.store.claim(self.id, names, now, min(_BATCH, room), dead)
            dead = ()
            room -= len(rows)
            self._claimed.update((row.id, row) for row in rows)
            await self._take_up()
            if not rows:
                return

    async def _take_up(self) -> None:
        """Read what was claimed, and let it go on. What the store does not give now stays ours and
        is read later; what others have taken meanwhile is theirs."""
        while self._claimed:
            rows = tuple(self._claimed.values())[:_BATCH]
            found = {each.row.id: each for each in await self.store.load_many([r.id for r in rows])}
            for row in rows:
                loaded = found.get(row.id)
                if loaded is not None and _same_claim(loaded.row, row):
                    await self._activate_or_park(loaded)
                del self._claimed[row.id]

    async def _activate_or_park(self, loaded: base.Loaded) -> None:
        try:
            await self.activate(loaded)
        except StoreError:
            raise
        except Exception as bug:
            logger.critical("run %s can't be taken up", loaded.row.id, exc_info=bug)
            await self._park(loaded.row, f"stepwell failed: {type(bug).__name__}: {in_short(bug)}")

    async def resume(self, run: str) -> ActiveRun | None:
        """Take up a parked run that a person lets go on; None when it still can't.

        Raises `WorkflowRuntimeError` when another worker holds it.
        """
        async with self._looking:
            row = await self.store.claim_one(self.id, run, self.clock.now())
            if row is None:
                raise WorkflowRuntimeError(f"run {run} is held by another worker")
            try:
                loaded = await self.store.load(run)
            except StoreError:
                self._give_back(row)
                raise
            if loaded is None or not _same_claim(loaded.row, row):
                raise WorkflowRuntimeError(f"run {run} is held by another worker")
            return await self.activate(loaded, ResumeAsked(self.clock.now()))

    def _give_back(self, row: base.RunRow) -> None:
        """Let go of a run that was claimed and not touched."""
        self._owed.append(
            Commit(
                run=row.id,
                fence=row.fence,
                at=self.clock.now(),
                status=row.status,
                due=row.due,
                worker=self.id,
                release=True,
            )
        )

    async def _adopt_parents(self) -> None:
        """Take up runs that wait for a child whose workflow is not known here: it may be that only
        their code knows it, and it will name it again when it runs."""
        if not self.claims:
            return
        unknown = {
            name
            for (name, status) in await self.store.counts()
            if status in _UNDER_WAY and name not in self.programs
        }
        for name in unknown:
            page = await self.store.list(base.RunFilter(name, _UNDER_WAY, limit=_FEW))
            for row in page.rows:
                parent = await self._known_ancestor(row)
                if parent is not None and parent.id not in self.runs:
                    now = self.clock.now()
                    claimed = await self.store.claim_one(self.id, parent.id, now)
                    if claimed is not None:
                        self._claimed[claimed.id] = claimed
                        self._wake.set()

    async def _known_ancestor(self, row: base.RunRow) -> base.RunRow | None:
        """The nearest run above `row` whose workflow is known here, if it is waiting."""
        above: base.RunRow | None = row
        while above is not None and above.workflow not in self.programs:
            above = None if above.parent is None else await self.store.get(above.parent)
        return above if above is not None and above.status is RunStatus.WAITING else None

    def _room(self) -> list[tuple[list[str], int]]:
        """Which workflows may have how many more runs in memory here."""
        active: dict[str, int] = {}
        for ledger in self.runs.values():
            if ledger.active is not None:
                name = ledger.active.definition.name
                active[name] = active.get(name, 0) + 1
        free = self.max_active - len(self.runs)
        unlimited: list[str] = []
        room: list[tuple[list[str], int]] = [(unlimited, free)]
        for name, (_, owner) in self.programs.items():
            limit = getattr(owner, "num_concurrent_runs", None)
            if limit is None:
                unlimited.append(name)
            else:
                room.append(([name], min(free, limit - active.get(name, 0))))
        return [(names, count) for names, count in room if names]

    def _call_at(self, due: float | None) -> None:
        """Look again at `due`, and not at the time that was set before."""
        if due == self._alarm_at and (due is None or due > self.clock.now()):
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = due
        soon = self.clock.now() + 0.001
        self._alarm = None if due is None else self.clock.call_at(max(due, soon), self._ring)

    def _ring(self) -> None:
        """It may be time: a clock may ring too early, and is then asked again."""
        self._alarm = self._alarm_at = None
        self._wake.set()

    async def process_due(self) -> int:
        """Take up what is due, wait until it has come to rest, and see what is due then."""
        before = self.taken
        while True:
            now = self.clock.now()
            names = list(self._offered())
            due = await self.store.next_due(names, now) if names else None
            busy = [
                ledger
                for ledger in self.runs.values()
                if not ledger.idle or (ledger.active and ledger.active.attempts)
            ]
            if not busy and (due is None or due > now):
                return self.taken - before
            self._wake.set()
            await asyncio.sleep(0.001)

    def wake(self) -> None:
        """There may be work."""
        self._wake.set()

    # --- taking a run up -------------------------------------------------------------------------

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
                program, owner = program.variant(await self._first_of(loaded))
            run, state = await self.fold(loaded, program)
            misfit = misfit_of(run, program)
        except (StepwellError, ValueError, KeyError, AttributeError, TypeError) as error:
            misfit = f"its journal can't be read by this code: {in_short(error)}"
            run, state = Run(row.id), None
        if misfit is not None:
            await self._park(row, misfit)
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
                self._take(ledger, message)
            if run.begun:
                active.feed(Due(now))
            if ledger.idle:
                # Nothing came of it (a message was withdrawn, say): just go on waiting here.
                active.resume()
        except Exception as bug:
            active.broken(bug)
        return active

    async def _first_of(self, loaded: base.Loaded) -> Message:
        """The message that a run begins with. Raises `StoreCorrupt` when there is none."""
        types = TypeRegistry(())
        for message in loaded.messages:
            if message.kind == "start":
                return codec.decode_message(message.data, types)
        for row in await self.store.read(loaded.row.id, 0, 1):
            for entry in codec.decode(await self.whole(row.data), types, row.at):
                if isinstance(entry, WorkAdded) and isinstance(entry.message, Message):
                    return entry.message
        raise StoreCorrupt(f"run {loaded.row.id} does not say what it began with")

    async def fold(
        self, loaded: base.Loaded, program: Program
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
                for entry in codec.decode(await self.whole(row.data), types, row.at):
                    EVOLVE[type(entry)](run, entry)
                    if isinstance(entry, StateEdited):
                        if state is None:
                            state = InMemoryStateStore(
                                state_type=state_type, serializer=program.serializer
                            )
                        state.apply_patch(cast(Any, entry.edits), program.serializer)
        return run, state

    async def whole(self, data: bytes) -> bytes:
        """A journal row with the payloads that are kept apart put back."""
        if not codec.has_marks(data):
            return data
        digests = codec.digests_in(data)
        return codec.with_blobs(data, {d: await self.store.blob(d) for d in digests})

    async def _park(self, row: base.RunRow, reason: str) -> None:
        """The run can't go on without a person; what it has is left as it is."""
        logger.error("run %s of %s is parked: %s", row.id, row.workflow, reason)
        now = self.clock.now()
        program, _ = self.program_of(row)
        data = codec.encode([RunParked(reason, now)], program.types, now)
        commit = Commit(
            run=row.id,
            fence=row.fence,
            at=now,
            status=RunStatus.PARKED,
            due=None,
            worker=self.id,
            rows=[data],
            release=True,
            detail=codec.dump_json({"reason": reason}),
        )
        try:
            await self.store.commit(commit)
        except LeaseLost:
            logger.warning("run %s: another worker has taken it over meanwhile", row.id)
        self._tell(row.id)

    # --- messages --------------------------------------------------------------------------------

    def post(self, run: str, input: Arrived) -> None:
        """Keep a message for a run that this process holds; it is taken in once it is safe."""
        types = cast(ActiveRun, self.runs[run].active).types if run in self.runs else None
        if types is None:
            raise StoreError(f"run {run} is not held here any more; send through the engine")
        data = codec.encode_arrival(input.message, input.wait, types)
        self._background(self.send([NewMessage(run, "event", data, input.at)]))

    async def send(self, messages: Sequence[NewMessage]) -> list[bool]:
        """Keep messages, and see that their runs take them in."""
        accepted = await self.store.send(messages)
        for message, fine in zip(messages, accepted, strict=True):
            if fine:
                self.nudge(message.run)
        return accepted

    async def cancel(self, run: str, reason: str) -> bool:
        """Keep a request to cancel a run; False when it has ended. A run that is held here has
        taken it in when this returns: nothing that was decided before begins any more."""
        message = NewMessage(run, "cancel", codec.dump_json(reason), self.clock.now())
        (accepted,) = await self.store.send([message])
        ledger = self.runs.get(run)
        if accepted and ledger is not None:
            await asyncio.wait({self._background(self._read_inbox(run))})
            await ledger.settled_or_lost()
        elif accepted:
            self._wake.set()
        return accepted

    def nudge(self, run: str) -> None:
        """The run has new messages."""
        if run in self.runs:
            self._background(self._read_inbox(run))
        else:
            self._wake.set()

    def _background(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._posts.add(task)
        task.add_done_callback(self._posted)
        return task

    def _posted(self, task: asyncio.Task[Any]) -> None:
        self._posts.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("worker %s: a message was not passed on: %s", self.id, error)
            self._wake.set()

    async def _read_inbox(self, run: str) -> None:
        ledger = self.runs.get(run)
        if ledger is None or ledger.lost:
            return
        for message in await self.store.messages(run, ledger.read_up_to):
            if ledger.lost or self.runs.get(run) is not ledger:
                return
            if message.id > ledger.read_up_to:
                self._take(ledger, message)

    def _take(self, ledger: RunLedger, message: MessageRow) -> None:
        """A message becomes an input; the commit that follows says that it was taken."""
        ledger.read_up_to = message.id
        active = cast(ActiveRun, ledger.active)
        now = self.clock.now()
        try:
            input = input_of(message, active, now)
            if isinstance(input, Arrived) and active.program.admit is not None:
                active.program.admit(input.message, active.shown())
        except (ValueError, LookupError, TypeError, AttributeError, StoreCorrupt) as error:
            told = f"a message of kind {message.kind!r} can't be read: {in_short(error)}"
            if message.kind not in _FROM_OUTSIDE:
                # The run can't be right without it. It stays, for who resumes the run.
                logger.error("run %s: %s", ledger.run_id, told)
                active.feed(ParkAsked(now, told))
                return
            logger.error("run %s: %s; it is dropped", ledger.run_id, told)
            input = None
        try:
            if input is not None:
                active.feed(input)
        except Exception as bug:
            active.broken(bug)  # and the message stays, for who resumes the run
        else:
            ledger.consumed(message.id)

    # --- what the ledgers tell -------------------------------------------------------------------

    def committed(self, ledger: RunLedger, entries: Iterable[Entry]) -> None:
        """A commit was made and performed."""
        active = cast(ActiveRun, ledger.active)
        ended = active.run.ended is not None or active.run.parked is not None
        ledger.busy_since = self.clock.now()
        if ledger.released and not ended:
            self._forget(ledger)
            self._wake.set()  # someone has to see to its time, and to what came meanwhile
        if ended:
            self._forget(ledger)
            limited = getattr(active.owner, "num_concurrent_runs", None) is not None
            if limited or len(self.runs) >= self.max_active - 1:
                self._wake.set()  # there is room for another one
        if ended or any(
            isinstance(e, Published) or (isinstance(e, WaitOpened) and e.question is not None)
            for e in entries
        ):
            self._tell(ledger.run_id)
        if any(isinstance(e, RunEnded) for e in entries):
            if ledger.parent is not None:
                self.nudge(ledger.parent)
            self._wake.set()

    def redirected(self, run: str, to: str) -> None:
        """A start turned out to be a repetition: the run is another one."""
        self.redirects[run] = to
        self._tell(run)

    def refused(self, run: str, error: StepwellError) -> None:
        """A start was refused."""
        self.refusals[run] = error
        self._tell(run)

    def dropped(self, ledger: RunLedger) -> None:
        """The run is not ours any more."""
        active = ledger.active
        self._forget(ledger)
        if active is not None:
            active.stop_bodies()
        self._tell(ledger.run_id)

    def _forget(self, ledger: RunLedger) -> None:
        if self.runs.get(ledger.run_id) is ledger:
            del self.runs[ledger.run_id]
        if ledger.active is not None:
            ledger.active.disarm()

    # --- letting go ------------------------------------------------------------------------------

    async def _release_idle(self) -> None:
        """Let go of runs that have only waited for a while, oldest first if there are too many."""
        now = self.clock.now()
        waiting = [
            ledger
            for ledger in self.runs.values()
            if ledger.idle
            and ledger.active is not None
            and ledger.active.run.status is RunStatus.WAITING
        ]
        waiting.sort(key=lambda ledger: ledger.busy_since or 0.0)
        crowd = len(self.runs) - self.max_active // 2
        for ledger in waiting:
            if crowd <= 0 and now - (ledger.busy_since or 0.0) < self.release_after:
                return
            crowd -= 1
            await self.release(ledger)

    async def _delete_expired(self) -> None:
        """Delete some of the runs whose time of retention is over."""
        if self.retention is not None and self.claims:
            before = self.clock.now() - self.retention
            expired = await self.store.expired(before, _BATCH)
            if expired:
                count = await self.store.delete(expired)
                logger.info("deleted %s runs that ended %s s ago or more", count, self.retention)

    async def release(self, ledger: RunLedger) -> None:
        """Let go of a waiting run: it lives on as rows and comes back when there is something."""
        active = ledger.active
        if active is None or not ledger.idle or active.run.status is not RunStatus.WAITING:
            return
        ledger.lost = True  # nothing that its bodies do while they stop counts any more
        self._forget(ledger)
        await _stop_bodies(active)
        self._owed.append(self._let_go(ledger, active))
        await self._settle()

    async def _settle(self) -> None:
        """Make the commits that let go of runs; those that the store refuses now, later."""
        while self._owed:
            commit = self._owed[0]
            try:
                await self.store.commit(commit)
            except LeaseLost:
                logger.debug("run %s was taken over before it was let go of", commit.run)
            self._owed.remove(commit)
            self._tell(commit.run)
            self._wake.set()  # a message may have come in between

    def crashed(self, ledger: RunLedger, bug: Exception) -> None:
        """A turn can't be written down: a fault of this library. A person has to look at it."""
        reason = f"stepwell failed: {type(bug).__name__}: {in_short(bug)}"
        self._owed.append(
            Commit(
                run=ledger.run_id,
                fence=ledger.fence,
                at=self.clock.now(),
                status=RunStatus.PARKED,
                due=None,
                worker=self.id,
                release=True,
                detail=codec.dump_json({"reason": reason}),
            )
        )
        self._background(self._settle())

    # --- news for those who follow a run ---------------------------------------------------------

    async def news(self, run: str) -> None:
        """Return when there may be something new of a run."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._news.setdefault(run, []).append(future)
        try:
            await future
        finally:
            waiting = self._news.get(run)
            if waiting is not None and future in waiting:
                waiting.remove(future)
                if not waiting:
                    del self._news[run]

    def _tell(self, run: str) -> None:
        for future in self._news.pop(run, ()):
            if not future.done():
                future.set_result(None)

    async def _tell_followers(self) -> None:
        """Runs that are followed here but advanced elsewhere may have news."""
        for run in [run for run in self._news if run not in self.runs]:
            self._tell(run)


async def _nobody(_tag: str, _payload: Mapping[str, Any]) -> int:
    """What a worker without an engine reaches."""
    return 0


@contextmanager
def readable(run: str) -> Generator[None]:
    """What is stored of a run is read here: what makes no sense of it is said to be the store's."""
    try:
        yield
    except (LookupError, TypeError, AttributeError) as error:
        raise StoreCorrupt(f"what is stored of run {run} makes no sense: {error!r}") from error


def _same_claim(now: base.RunRow, claimed: base.RunRow) -> bool:
    """Whether a run is still held as it was claimed."""
    return now.owner == claimed.owner and now.fence == claimed.fence


async def _stop_bodies(active: ActiveRun) -> None:
    """Stop the bodies of a run; one that does not stop is left behind, and nothing that it does
    counts."""
    tasks = active.stop_bodies()
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=_STUBBORN)
        if late:
            logger.error(
                "run %s: %s of its bodies did not stop within %s s of being cancelled; they are "
                "left behind",
                active.run.id,
                len(late),
                _STUBBORN,
            )


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


def input_of(message: MessageRow, active: ActiveRun, now: float) -> Input | None:
    """What an inbox message says that happened."""
    types = active.types
    match message.kind:
        case "start":
            return Start(now, codec.decode_message(message.data, types))
        case "event":
            row = json.loads(message.data)
            kept = row.get("k", 1) == 1
            return Arrived(
                now, codec.read_message(row["m"], types), row.get("w"), kept, row.get("s")
            )
        case "child":
            return ChildEnded(now, codec.decode_child(message.data, types))
        case "stream":
            rows = json.loads(message.data)
            return Wrote(now, [codec.read_message(row, types) for row in rows])
        case "cancel":
            return CancelAsked(now, str(json.loads(message.data)))
        case "park":
            return ParkAsked(now, str(json.loads(message.data)))
        case "resume":
            return ResumeAsked(now)
        case _:
            raise ValueError(f"unknown kind of message {message.kind!r}")
