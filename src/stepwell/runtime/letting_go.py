"""How a worker lets go of its runs: at rest, when it stops, or because they can't go on here.

To let go is one commit that gives up the claim and says how the run stands, so others need wait
for no lease. It is owed: a store that refuses it now is asked again later. Of a run that was taken
over meanwhile nothing is owed any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from stepwell.errors import LeaseLost, StoreError
from stepwell.kernel.journal import RunParked
from stepwell.kernel.run import RUNNING, next_due_away
from stepwell.runtime import codec
from stepwell.runtime.turn import ActiveRun
from stepwell.runtime.views import detail_of, in_short, left_by, let_go_detail
from stepwell.stores.base import Commit, RunRow
from stepwell.values import RunStatus

if TYPE_CHECKING:
    from stepwell.runtime.ledger import RunLedger
    from stepwell.runtime.worker import Worker

logger = logging.getLogger("stepwell")

T = TypeVar("T")

_STUBBORN = 5.0
"""Seconds that a cancelled body is waited for."""

PATIENCE = 5.0
"""Seconds that a store is waited for by a worker that stops."""


class LettingGo:
    """Gives up the claims of one worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._owed: list[Commit] = []
        self._settling = asyncio.Lock()
        self._moves: set[asyncio.Task[Any]] = set()

    # --- of runs that only wait ------------------------------------------------------------------

    async def of_idle(self) -> None:
        """Let go of runs that have only waited for a while, oldest first if there are too many."""
        worker = self._worker
        now = worker.clock.now()
        waiting = [
            ledger
            for ledger in worker.runs.values()
            if ledger.idle
            and ledger.active is not None
            and ledger.active.run.status is RunStatus.WAITING
        ]
        waiting.sort(key=lambda ledger: ledger.busy_since or 0.0)
        crowd = len(worker.runs) - worker.max_active // 2
        for ledger in waiting:
            if crowd <= 0 and now - (ledger.busy_since or 0.0) < worker.release_after:
                return
            crowd -= 1
            await self.of(ledger)

    async def of(self, ledger: RunLedger) -> None:
        """Let go of a waiting run: it lives on as rows and comes back when there is something."""
        active = ledger.active
        if active is None or not ledger.idle or active.run.status is not RunStatus.WAITING:
            return
        ledger.lost = True  # nothing that its bodies do while they stop counts any more
        self._worker.forget(ledger)
        await _stop_bodies(active)
        self._owed.append(self._released(ledger, active))
        await self.settle()

    def _released(self, ledger: RunLedger, active: ActiveRun) -> Commit:
        """The commit that gives up the claim of a run that is in order."""
        status = active.run.status
        return Commit(
            run=ledger.run_id,
            fence=ledger.fence,
            at=self._worker.clock.now(),
            status=status,
            due=next_due_away(active.run) if status is RunStatus.WAITING else 0.0,
            worker=self._worker.id,
            release=True,
            detail=codec.dump_json(let_go_detail(active.run)),
        )

    async def settle(self) -> None:
        """Make the commits that let go of runs; those that the store refuses now, later."""
        async with self._settling:
            while self._owed:
                await self._settle(self._owed[0])
                del self._owed[0]

    async def _settle(self, commit: Commit) -> None:
        worker = self._worker
        try:
            await worker.store.commit(commit)
        except LeaseLost:
            logger.debug("run %s was taken over before it was let go of", commit.run)
        worker.news.tell(commit.run)
        worker.wake()  # a message may have come in between

    # --- of runs that can't go on here -----------------------------------------------------------

    async def whole(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work`, which claims a run, to its end, also when whoever asked for it is gone: half
        of it would leave a claim that nobody knows of."""
        task = asyncio.get_running_loop().create_task(work)
        self._moves.add(task)
        task.add_done_callback(self._moves.discard)
        return await asyncio.shield(task)

    @contextmanager
    def unless_moved(self, row: RunRow) -> Generator[None]:
        """What is done here moves a run that was claimed; if it fails, the claim is given up."""
        try:
            yield
        except BaseException:
            self.untouched(row)
            raise

    def untouched(self, row: RunRow) -> None:
        """Let go of a run that was claimed and not touched."""
        self._owe(row.id, row.fence, row.status, row.due)

    async def left_to_others(self, row: RunRow, reason: str) -> bool:
        """Leave a run that this code can't go on with to another live worker of its workflow, which
        may have newer code, or other tasks. False when all there are have left it, too.

        Those who did are written with the row, until one goes on with it.
        """
        worker = self._worker
        if row.status is RunStatus.PARKED or not await self.has_others(row):
            return False
        logger.warning("run %s of %s is left to other workers: %s", row.id, row.workflow, reason)
        left = {"by": sorted({*left_by(row), worker.id}), "reason": reason}
        detail = codec.dump_json({**detail_of(row), "left": left})
        now = worker.clock.now()
        await self._settle(
            Commit(
                row.id, row.fence, now, row.status, row.due, worker.id, release=True, detail=detail
            )
        )
        worker.search.hold_back(row.workflow)
        return True

    async def has_others(self, row: RunRow) -> bool:
        """Whether other live workers advance the run's workflow, and have not left this run."""
        now, left = self._worker.clock.now(), {*left_by(row), self._worker.id}
        return any(
            each.until > now and row.workflow in each.workflows and each.id not in left
            for each in await self._worker.store.workers()
        )

    async def parked(self, row: RunRow, reason: str) -> None:
        """The run can't go on without a person; what it has is left as it is."""
        worker = self._worker
        logger.error("run %s of %s is parked: %s", row.id, row.workflow, reason)
        now = worker.clock.now()
        program, _ = worker.program_of(row)
        data = codec.encode([RunParked(reason, now)], program.types, now)
        commit = Commit(
            run=row.id,
            fence=row.fence,
            at=now,
            status=RunStatus.PARKED,
            due=None,
            worker=worker.id,
            rows=[data],
            release=True,
            detail=codec.dump_json({"reason": reason}),
        )
        try:
            await worker.store.commit(commit)
        except LeaseLost:
            logger.warning("run %s: another worker has taken it over meanwhile", row.id)
        worker.news.tell(row.id)

    def crashed(self, ledger: RunLedger, bug: Exception) -> None:
        """A turn can't be written down: a fault of this library. A person has to look at it."""
        reason = f"stepwell failed: {type(bug).__name__}: {in_short(bug)}"
        detail = codec.dump_json({"reason": reason})
        self._owe(ledger.run_id, ledger.fence, RunStatus.PARKED, None, detail)

    def _owe(
        self,
        run: str,
        fence: int,
        status: RunStatus,
        due: float | None,
        detail: bytes | None = None,
    ) -> None:
        """Give up a claim soon, or as soon as the store lets us."""
        worker = self._worker
        at = worker.clock.now()
        commit = Commit(run, fence, at, status, due, worker.id, release=True, detail=detail)
        self._owed.append(commit)
        worker.inbox.background(self.settle())

    # --- of all, because the worker stops --------------------------------------------------------

    async def of_all(self, grace: float) -> None:
        """Give the bodies that are busy `grace` seconds to end, start no others, and let go of
        every run."""
        worker = self._worker
        await self._drain(grace)
        await asyncio.gather(*map(self._quiesce, tuple(worker.runs.values())))
        await _in_time(
            worker.inbox.emptied(), "messages were on their way to runs, and may be lost"
        )
        self._owed.clear()  # the worker's row goes, and with it all that it held
        await _in_time(
            worker.store.unregister(worker.id),
            "the worker could not sign off, its lease has to run out",
        )

    async def _moved(self) -> None:
        while self._moves:
            await asyncio.wait(self._moves)

    async def _drain(self, grace: float) -> None:
        bodies: list[asyncio.Task[None]] = []
        for ledger in self._worker.runs.values():
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
            async with asyncio.timeout(PATIENCE):
                await ledger.settled()
        except (TimeoutError, asyncio.CancelledError):
            logger.warning("run %s: its last commit was not finished", ledger.run_id)
            ledger.abandon()
        self._worker.forget(ledger)
        if active is not None and not (ledger.lost or ledger.released):
            await self._sign_off(ledger, active)

    async def _sign_off(self, ledger: RunLedger, active: ActiveRun) -> None:
        """Say with the run's row that nobody died under what is running of it."""
        if not any(work.phase == RUNNING or work.partial for work in active.run.work.values()):
            return  # it is let go of with all others
        try:
            async with asyncio.timeout(PATIENCE):
                await self._worker.store.commit(self._released(ledger, active))
        except (StoreError, LeaseLost, TimeoutError) as error:
            logger.warning("run %s was not let go of in an orderly way: %s", ledger.run_id, error)


async def _in_time(work: Coroutine[Any, Any, None], otherwise: str) -> None:
    """Do `work`, unless the store refuses it or takes too long: then say what that means."""
    try:
        async with asyncio.timeout(PATIENCE):
            await work
    except StoreError as error:
        logger.warning("%s: %s", otherwise, error)
    except TimeoutError:
        logger.warning("%s: the store did not answer within %s s", otherwise, PATIENCE)


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
