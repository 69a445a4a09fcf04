"""Messages to runs: kept by the store first, and then taken in by whoever holds the run.

What is sent is safe when `send` returns, whoever holds the run. A run that is held here reads its
messages at once; of others the worker hears when it looks. A message becomes an input of the run,
in the order of its inbox, and the commit that follows says that it was taken. What makes no sense
is dropped when it came from outside, and parks the run when it came from another run: without that
the run can't be right.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, cast

from stepwell.errors import (
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    StoreUnavailable,
)
from stepwell.kernel.inputs import (
    Arrived,
    CancelAsked,
    ChildEnded,
    Input,
    ParkAsked,
    ResumeAsked,
    Start,
    Wrote,
)
from stepwell.runtime import codec
from stepwell.runtime.turn import ActiveRun
from stepwell.runtime.views import in_short
from stepwell.stores.base import MessageRow, NewMessage

if TYPE_CHECKING:
    from stepwell.runtime.ledger import RunLedger
    from stepwell.runtime.worker import Worker

logger = logging.getLogger("stepwell")

_FROM_OUTSIDE = frozenset({"event", "stream", "cancel", "park", "resume"})
"""Kinds of messages that a run can do without when they make no sense."""

_TROUBLE = (StoreUnavailable, StoreLocked, StoreFull, StoreReadOnly)
"""What a store says that may do the same later."""

_PAUSE, _LONG_PAUSE = 0.05, 5.0
"""Seconds between two tries of a store in trouble: at first, and when it takes long."""


class Inbox:
    """Sends messages to runs, and has the runs of one worker take theirs in."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._tasks: set[asyncio.Task[Any]] = set()
        self._posted: list[NewMessage] = []
        self._posting: asyncio.Task[None] | None = None
        self._reading: dict[str, bool] = {}  # the runs that are being read; whether once more

    # --- sending ---------------------------------------------------------------------------------

    async def send(self, messages: Sequence[NewMessage]) -> list[bool]:
        """Keep messages, and see that their runs take them in. Says for each whether it was kept:
        one that repeats another or whose run has ended is not."""
        accepted = await self._worker.store.send(messages)
        for message, fine in zip(messages, accepted, strict=True):
            if fine:
                self.nudge(message.run)
        return accepted

    def post(self, run: str, input: Arrived) -> None:
        """Keep a message for a run that this process holds; it is taken in once it is safe."""
        ledger = self._worker.runs.get(run)
        if ledger is None:
            raise StoreError(f"run {run} is not held here any more; send through the engine")
        types = cast(ActiveRun, ledger.active).types
        data = codec.encode_arrival(input.message, input.wait, types)
        once = f"post:{uuid.uuid4().hex}"  # it may be sent again without knowing
        self._posted.append(NewMessage(run, "event", data, input.at, once))
        if self._posting is None:
            self._posting = self.background(self._post_all())

    async def _post_all(self) -> None:
        """Keep what was posted, in its order. Who posts does not wait to hear of it, so a store in
        trouble is waited for."""
        try:
            while self._posted:
                messages, self._posted = self._posted, []
                try:
                    await self._keep(messages)
                except StoreError as error:
                    logger.debug("one of %s messages can't be kept: %s", len(messages), error)
                    for message in messages:
                        await asyncio.wait({self.background(self._keep([message]))})
        finally:
            self._posting = None

    async def _keep(self, messages: Sequence[NewMessage]) -> None:
        pause = _PAUSE
        while True:
            try:
                await self.send(messages)
                return
            except _TROUBLE as error:
                logger.error("%s event(s) to runs wait for the store: %s", len(messages), error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONG_PAUSE)

    async def cancel(self, run: str, reason: str) -> bool:
        """Keep a request to cancel a run; False when it has ended. A run that is held here has
        taken it in when this returns: nothing that was decided before begins any more."""
        worker = self._worker
        message = NewMessage(run, "cancel", codec.dump_json(reason), worker.clock.now())
        (accepted,) = await worker.store.send([message])
        ledger = worker.runs.get(run)
        if accepted and ledger is not None:
            await asyncio.wait({self.background(self.read(run))})
            await ledger.settled_or_lost()
        elif accepted:
            worker.wake()
        return accepted

    def nudge(self, run: str) -> None:
        """The run has new messages. What comes while they are read is read together."""
        if run in self._reading:
            self._reading[run] = True
        elif run in self._worker.runs:
            self._reading[run] = True
            self.background(self._read_on(run))
        else:
            self._worker.wake()

    async def _read_on(self, run: str) -> None:
        try:
            while self._reading[run]:
                self._reading[run] = False
                await self.read(run)
        finally:
            del self._reading[run]

    def background(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Do `work` beside what goes on; when it fails, the worker looks again."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("worker %s: a message was not passed on: %s", self._worker.id, error)
            self._worker.wake()

    async def emptied(self) -> None:
        """Return when nothing is on its way any more."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- taking in -------------------------------------------------------------------------------

    async def read(self, run: str) -> None:
        """Have a run that is held here take in what it has not read yet."""
        worker = self._worker
        ledger = worker.runs.get(run)
        if ledger is None or ledger.lost:
            return
        for message in await worker.store.messages(run, ledger.read_up_to):
            if ledger.lost or worker.runs.get(run) is not ledger:
                return
            if message.id > ledger.read_up_to:
                self.take(ledger, message)

    def take(self, ledger: RunLedger, message: MessageRow) -> None:
        """A message becomes an input; the commit that follows says that it was taken."""
        ledger.read_up_to = message.id
        active = cast(ActiveRun, ledger.active)
        now = self._worker.clock.now()
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
