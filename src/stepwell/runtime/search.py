"""Finding runs that are due, and claiming them.

A search asks the store what has come for the runs that are held here, claims what is due as far as
there is room, and sets an alarm for what is due next. It may be asked for at any time and as often
as anyone likes: one goes on at a time, and one that finds nothing costs a few reads. What was
claimed and could not be read yet stays claimed, and is read when the store is well again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stepwell.errors import StoreError, WorkflowRuntimeError
from stepwell.kernel.inputs import ResumeAsked
from stepwell.runtime.turn import ActiveRun
from stepwell.runtime.views import in_short
from stepwell.stores.base import RunFilter, RunRow
from stepwell.values import RunStatus, TimerHandle

if TYPE_CHECKING:
    from stepwell.runtime.worker import Worker

logger = logging.getLogger("stepwell")

_BATCH = 200
"""How many runs are claimed and loaded at once."""

_AFTER_OTHERS = 1.0
"""Seconds that a worker lets others go first with a workflow of which it had to leave them runs."""

_FEW = 20
"""How many runs of a workflow that is not known are looked at for their parents."""

_UNDER_WAY = (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING)


class Search:
    """Looks for what one worker has to do."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._one = asyncio.Lock()
        self._claimed: dict[str, RunRow] = {}  # ours, and not read yet
        self._held_back: dict[str, tuple[float, float]] = {}  # until when, and for how long
        self._alarm: TimerHandle | None = None
        self._alarm_at: float | None = None

    async def look(self, dead: Sequence[str] = ()) -> None:
        """Look around once. The runs of the workers in `dead` may be taken over at once."""
        async with self._one:
            await self._look_around(dead)

    def hold_back(self, workflow: str) -> None:
        """Runs of this workflow were left to others: they come first, for a while. The more often
        in a row, the longer."""
        now = self._worker.clock.now()
        until, pause = self._held_back.get(workflow, (0.0, 0.0))
        if until <= now:
            again = now - until < pause
            pause = min(self._worker.lease, 2 * pause) if again else _AFTER_OTHERS
            self._held_back[workflow] = (now + pause, pause)

    def over(self) -> None:
        """No more of it: the worker stops."""
        self._call_at(None)
        self._claimed.clear()

    async def _look_around(self, dead: Sequence[str]) -> None:
        worker = self._worker
        for run in await worker.store.inbox(worker.id):
            await worker.inbox.read(run)
        worker.news.tell_but(worker.runs.keys())  # what is advanced elsewhere may have some
        await self._take_up()
        if not worker.claims:
            return
        asked = worker.clock.now()
        for names, room in self._room():
            await self._claim(names, room, dead)
        # Runs there is no room for are looked at again when one that has it ends.
        names = [name for names, room in self._room() if room > 0 for name in names]
        now = worker.clock.now()
        due = await worker.store.next_due(names, now) if names else None
        if due is not None and due <= asked:
            due = now + worker.poll  # it could not be claimed just now; that may take a while
        self._call_at(
            min((d for d in (due, *self._ends_of_holding_back()) if d is not None), default=None)
        )

    def _is_held_back(self, workflow: str) -> bool:
        until, _ = self._held_back.get(workflow, (0.0, 0.0))
        return until > self._worker.clock.now()

    def _ends_of_holding_back(self) -> list[float]:
        now = self._worker.clock.now()
        return [until for until, _ in self._held_back.values() if until > now]

    async def _claim(self, names: Sequence[str], room: int, dead: Sequence[str]) -> None:
        """Take up to `room` runs of these workflows that are due."""
        worker = self._worker
        while room > 0 and not worker.stopping:
            now = worker.clock.now()
            due = await worker.store.next_due(names, now)
            if not dead and (due is None or due > now):
                return
            rows = await worker.store.claim(worker.id, names, now, min(_BATCH, room), dead)
            dead = ()
            room -= len(rows)
            self._claimed.update((row.id, row) for row in rows)
            await self._take_up()
            names = [name for name in names if not self._is_held_back(name)]
            if not rows or not names:
                return

    async def _take_up(self) -> None:
        """Read what was claimed, and let it go on. What the store does not give now stays ours and
        is read later; what others have taken meanwhile is theirs."""
        store = self._worker.store
        while self._claimed:
            rows = tuple(self._claimed.values())[:_BATCH]
            found = {each.row.id: each for each in await store.load_many([r.id for r in rows])}
            for row in rows:
                loaded = found.get(row.id)
                if loaded is not None and _same_claim(loaded.row, row):
                    try:
                        await self._worker.activate(loaded)
                    except StoreError:
                        raise
                    except Exception as bug:
                        logger.critical("run %s can't be taken up", row.id, exc_info=bug)
                        reason = f"stepwell failed: {type(bug).__name__}: {in_short(bug)}"
                        await self._worker.letting_go.parked(loaded.row, reason)
                del self._claimed[row.id]

    def _room(self) -> list[tuple[list[str], int]]:
        """Which workflows may have how many more runs in memory here."""
        worker = self._worker
        active: dict[str, int] = {}
        for ledger in worker.runs.values():
            if ledger.active is not None:
                name = ledger.active.definition.name
                active[name] = active.get(name, 0) + 1
        free = worker.max_active - len(worker.runs)
        unlimited: list[str] = []
        room: list[tuple[list[str], int]] = [(unlimited, free)]
        for name, (_, owner) in worker.programs.items():
            if self._is_held_back(name):
                continue
            limit = getattr(owner, "num_concurrent_runs", None)
            if limit is None:
                unlimited.append(name)
            else:
                room.append(([name], min(free, limit - active.get(name, 0))))
        return [(names, count) for names, count in room if names]

    # --- what is claimed by its name -------------------------------------------------------------

    async def resume(self, run: str) -> ActiveRun | None:
        """Take up a parked run that a person lets go on; None when it still can't.

        Raises `WorkflowRuntimeError` when another worker holds it.
        """
        worker = self._worker
        async with self._one:
            row = await worker.store.claim_one(worker.id, run, worker.clock.now())
            if row is None:
                raise WorkflowRuntimeError(f"run {run} is held by another worker")
            with worker.letting_go.unless_moved(row):
                loaded = await worker.store.load(run)
                if loaded is None or not _same_claim(loaded.row, row):
                    raise WorkflowRuntimeError(f"run {run} is held by another worker")
                return await worker.activate(loaded, ResumeAsked(worker.clock.now()))

    async def adopt_parents(self) -> None:
        """Claim runs that wait for a child whose workflow is not known here: it may be that only
        their code knows it, and it will name it again when it runs."""
        worker = self._worker
        if not worker.claims:
            return
        unknown = {
            name
            for (name, status) in await worker.store.counts()
            if status in _UNDER_WAY and name not in worker.programs
        }
        for name in unknown:
            page = await worker.store.list(RunFilter(name, _UNDER_WAY, limit=_FEW))
            for row in page.rows:
                parent = await self._known_ancestor(row)
                if parent is not None and parent.id not in worker.runs:
                    now = worker.clock.now()
                    claimed = await worker.store.claim_one(worker.id, parent.id, now)
                    if claimed is not None:
                        self._claimed[claimed.id] = claimed
                        worker.wake()

    async def _known_ancestor(self, row: RunRow) -> RunRow | None:
        """The nearest run above `row` whose workflow is known here, if it is waiting."""
        worker = self._worker
        above: RunRow | None = row
        while above is not None and above.workflow not in worker.programs:
            above = None if above.parent is None else await worker.store.get(above.parent)
        return above if above is not None and above.status is RunStatus.WAITING else None

    # --- time ------------------------------------------------------------------------------------

    def _call_at(self, due: float | None) -> None:
        """Look again at `due`, and not at the time that was set before."""
        clock = self._worker.clock
        if due == self._alarm_at and (due is None or due > clock.now()):
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = due
        soon = clock.now() + 0.001
        self._alarm = None if due is None else clock.call_at(max(due, soon), self._ring)

    def _ring(self) -> None:
        """It may be time: a clock may ring too early, and is then asked again."""
        self._alarm = self._alarm_at = None
        self._worker.wake()

    async def process_due(self) -> int:
        """Take up what is due, wait until it has come to rest, and see what is due then; how many
        runs were taken up."""
        worker = self._worker
        before = worker.taken
        while True:
            now = worker.clock.now()
            names = list(worker.presence.offered())
            due = await worker.store.next_due(names, now) if names else None
            busy = [
                ledger
                for ledger in worker.runs.values()
                if not ledger.idle or (ledger.active and ledger.active.attempts)
            ]
            if not busy and (due is None or due > now):
                return worker.taken - before
            worker.wake()
            await asyncio.sleep(0.001)


def _same_claim(now: RunRow, claimed: RunRow) -> bool:
    """Whether a run is still held as it was claimed."""
    return now.owner == claimed.owner and now.fence == claimed.fence
