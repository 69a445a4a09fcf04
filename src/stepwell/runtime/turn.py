"""A run while it is in memory: inputs go in, the kernel decides, and what it decided is done.

    feed(input) -> decide -> evolve -> [commit] -> perform

`feed` is a plain function that may be called from anywhere in the loop. In memory, what was decided
is performed at once. A durable run has a ledger between the two: the entries are committed first,
and performed when they are safe; meanwhile the kernel may already decide about the next input, so
commits of one run never wait for its decisions. That is the only difference between the two.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, cast

from stepwell.authoring.events.model import InternalDispatchEvent
from stepwell.authoring.events.state_store import InMemoryStateStore
from stepwell.authoring.program import FREE, Ending, Program, TypeRegistry
from stepwell.kernel.decide import decide, straight_on
from stepwell.kernel.inputs import Arrived, CancelAsked, Due, Input, Wrote
from stepwell.kernel.journal import (
    ChildStarted,
    Entry,
    RunEnded,
    WorkAdded,
    WorkDone,
)
from stepwell.kernel.outcomes import Message, Outcome
from stepwell.kernel.run import EVOLVE, Run, Work, finish, next_due, pending
from stepwell.runtime.attempt import Attempt
from stepwell.runtime.bodies import launch, stop
from stepwell.runtime.performing import PERFORM, TOLD
from stepwell.runtime.pools import Pools
from stepwell.runtime.stream import StreamLog
from stepwell.values import Clock, ErrorInfo, Json, RunStatus, TimerHandle

logger = logging.getLogger("stepwell")


class Watcher(Protocol):
    """Someone who wants to know what a run does, as it does it."""

    def begun(self, run: ActiveRun, attempt: Attempt) -> None:
        """A body starts, or goes on after it waited."""
        ...

    def finished(self, run: ActiveRun, attempt: Attempt, outcome: Outcome) -> None:
        """A body ended with this outcome."""
        ...

    def decided(self, run: ActiveRun, entry: Entry) -> None:
        """The kernel decided this (and it is durable, if the run is)."""
        ...

    def idle(self, run: ActiveRun) -> None:
        """Only something from outside, or time, can move the run now."""
        ...


class Ledger(Protocol):
    """Keeps the entries of a durable run, and then has them performed."""

    def enter(self, entries: Sequence[Entry], at: float) -> None:
        """Commit `entries`, decided at `at`, then call `ActiveRun.perform` with them."""
        ...

    @property
    def lost(self) -> bool:
        """Whether this process has let go of the run, so nothing is kept any more."""
        ...

    async def settled(self) -> None:
        """Return when everything entered so far is committed."""
        ...

    def unsafe(self) -> set[int]:
        """The numbers of the work whose beginning is decided and not committed."""
        ...

    def broken(self, bug: Exception) -> None:
        """A turn raised `bug`; see that the run is parked."""
        ...

    async def plan_run(
        self, program: Program, owner: object, at: float, plan: Mapping[str, Json]
    ) -> str:
        """Plan the run of the program's schedule for `at`, once; its id."""
        ...

    async def broadcast(self, tag: str, payload: Mapping[str, Any]) -> int:
        """Answer every run that waits for a message with this tag; how many there were."""
        ...

    def arrive(self, input: Arrived) -> None:
        """Accept a message from outside: it is kept before anything is decided about it."""
        ...

    def know_child(self, program: Program, owner: object) -> None:
        """A child run of this program may be started."""
        ...


class ActiveRun:
    """A run in the memory of this process.

    Args:
        program: what to run.
        owner: the workflow's instance, handed to its handlers.
        run: its state.
        clock: the time.
        make_context: makes the `Context` for an attempt.
        spawn: starts a child run.
        ledger: keeps the journal of a durable run; None runs in memory.
    """

    __slots__ = (
        "__weakref__",
        "_armed",
        "_log",
        "_timer",
        "_waiters",
        "attempts",
        "base",
        "children",
        "clock",
        "definition",
        "durable",
        "ending",
        "first",
        "has_runner",
        "held",
        "last",
        "ledger",
        "loop",
        "make_context",
        "observes",
        "on_end",
        "owner",
        "parent",
        "pools",
        "program",
        "programs",
        "record",
        "run",
        "spawn",
        "store",
        "thread",
        "types",
        "watchers",
    )

    def __init__(
        self,
        program: Program,
        owner: object,
        run: Run,
        clock: Clock,
        make_context: Callable[[Attempt], object],
        spawn: Callable[[ActiveRun, ChildStarted], None],
        ledger: Ledger | None = None,
    ) -> None:
        self.program = program
        self.definition = program.definition
        self.types: TypeRegistry = program.types
        self.owner = owner
        self.run = run
        self.clock = clock
        self.make_context = make_context
        self.spawn = spawn
        self.ledger = ledger
        self.durable = ledger is not None
        self.loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        self.base = contextvars.copy_context()
        self.attempts: dict[int, Attempt] = {}
        self.held = False  # start no more bodies: this process lets go of the run
        self._log: StreamLog | None = None
        self.first: Attempt | None = None  # of those that are ready: linked, as most
        self.last: Attempt | None = None  # runs have but one at a time
        self.children: list[ActiveRun] | None = None
        self.parent: ActiveRun | None = None
        self.pools: Pools | None = None
        self.programs: dict[str, tuple[Program, object]] | None = None
        self.store: InMemoryStateStore[Any] | None = None
        self.observes = False  # whether edits of the store are noted for this run
        self.watchers: list[Watcher] | None = None
        self.record: list[tuple[float, list[Entry]]] | None = None
        self.ending: Ending | None = None
        self.on_end: Callable[[ActiveRun], None] | None = None
        self._waiters: list[asyncio.Future[None]] | None = None
        self._timer: TimerHandle | None = None
        self._armed: float | None = None
        self.has_runner = False  # whether a runner is at work, or about to be

    # --- the turn --------------------------------------------------------------------------------

    def feed(self, input: Input) -> None:
        """Something happened."""
        run = self.run
        if self.ledger is None and self.record is None and not self.watchers:
            self._feed_unseen(input)
            return
        entries: list[Entry] = []
        for entry in decide(self.definition, run, input):
            EVOLVE[type(entry)](run, entry)
            entries.append(entry)
        if self.ledger is None:
            if self.record is not None:
                self.record.append((input.at, entries))
            self.perform(entries)
        elif entries:
            self.ledger.enter(entries, input.at)

    def _feed_unseen(self, input: Input) -> None:
        """`feed`, when nobody keeps or watches the entries: work that begins before anything else
        is to be performed is launched at once, so a fan-out has not all of its entries at a time
        in memory."""
        run = self.run
        later: list[Entry] = []
        for entry in decide(self.definition, run, input):
            kind = type(entry)
            EVOLVE[kind](run, entry)
            if type(entry) is WorkAdded and not later:
                if entry.begun:
                    launch(self, run.work[entry.id])
            elif kind in TOLD:
                later.append(entry)
        self.perform(later)

    def go_straight_on(self, attempt: Attempt, outcome: Outcome) -> bool:
        """A body ended. When nobody keeps or watches the entries, do the plainest turns without a
        detour; they are decided and evolved as always. Returns whether this was one."""
        if self.ledger is not None or self.record is not None or self.watchers:
            return False
        run = self.run
        work = run.work.get(attempt.id)
        if work is None or run.ended is not None or run.parked is not None:
            return False
        then = straight_on(self.definition, run, work, outcome, self.clock.now())
        if then is None:
            return False
        timed = work.timer
        finish(run, work)
        kind = type(then)
        EVOLVE[kind](run, then)
        if timed or kind is RunEnded:
            self.perform((then,))
        elif type(then) is WorkAdded:
            if then.deadline is not None:
                self._arm()
            if then.begun:
                launch(self, run.work[then.id])
        return True

    def perform(self, entries: Iterable[Entry]) -> None:
        """Do what was decided (and is safe, if the run is durable)."""
        run = self.run
        ended = False
        for entry in entries:
            if self.watchers:
                for watcher in self.watchers:
                    watcher.decided(self, entry)
            if type(entry) is WorkAdded:
                id = entry.id
                if entry.begun and id not in self.attempts and (work := run.work.get(id)):
                    launch(self, work)
            elif type(entry) is not WorkDone:
                act = PERFORM.get(type(entry))
                if act is not None:
                    act(self, entry)
                    ended = ended or type(entry) is RunEnded
        if run.timers is not None or self._armed is not None:
            self._arm()
        if ended:
            self._finish_run()
        elif self.watchers and not run.busy and run.begun and run.ended is None:
            for watcher in self.watchers:
                watcher.idle(self)

    def resume(self, works: Iterable[Work] | None = None) -> None:
        """Start the bodies that are owed, after the run was loaded; and those that wait for a
        child, which can't be run before its parent's code has named its workflow."""
        run = self.run
        owed = pending(run).attempts if works is None else works
        asking = [run.work[w.work] for w in (run.waits or {}).values() if w.child and w.work]
        unsafe = self.ledger.unsafe() if self.ledger is not None else ()
        for work in (*owed, *asking):
            if work.id not in self.attempts and work.id not in unsafe:
                launch(self, work)
        self._arm()

    async def settled(self) -> None:
        """Return when all that was decided so far is safe."""
        if self.ledger is not None:
            await self.ledger.settled()

    def prepare(self, message: Message, where: str = "") -> None:
        """Write the message's payload down, if the run is durable: what can't be written must be
        refused before anything is decided about it."""
        if self.durable and message.data is None:
            message.data = self.types.dumps(
                message.payload, where=where or message.tag, free=message.tag == FREE
            )

    def publish(self, item: object) -> None:
        """Show `item` to the readers of an in-memory run, and of its parents."""
        active: ActiveRun | None = self
        while active is not None:
            active.stream.publish(item)
            active = active.parent

    def watch(self, watcher: Watcher) -> None:
        """Let `watcher` know from now on."""
        if self.watchers is None:
            self.watchers = []
        self.watchers.append(watcher)

    def arrive(self, input: Arrived) -> None:
        """A message came from outside, by a caller in this process."""
        if self.ledger is None:
            self.feed(input)
        else:
            self.ledger.arrive(input)

    def write(self, message: Message) -> None:
        """Show a message to the run's readers, from outside its steps."""
        if self.ledger is None:
            self.publish(message.payload)
        else:
            self.prepare(message)
            self.feed(Wrote(self.clock.now(), (message,)))

    def shown(self) -> Mapping[str, Any]:
        """The run's state, by key."""
        return {} if self.store is None else self.store.values()

    def shown_state(self) -> Json:
        """The run's state, for its parent; None when its program does not show it."""
        if self.store is None or not self.program.shows_state:
            return None
        return cast(Json, self.store.encoded(self.program.serializer))

    def know_child(self, program: Program, owner: object) -> None:
        """A step is about to start a child run of this program."""
        if self.programs is None:
            self.programs = {}
        self.programs[program.definition.name] = (program, owner)
        if self.ledger is not None:
            self.ledger.know_child(program, owner)

    async def events(self, *, expose_internal: bool = False) -> AsyncIterator[object]:
        """What an in-memory run shows its readers, from the beginning."""
        async for _, item in self.stream.read():
            if expose_internal or not isinstance(item, InternalDispatchEvent):
                yield item

    # --- performing ------------------------------------------------------------------------------

    def stop_bodies(self) -> list[asyncio.Task[None]]:
        """Stop every body without a word to the kernel: the run is let go of. Returns the tasks
        that are still to end."""
        self.close_pools()
        tasks = [a.task for a in self.attempts.values() if a.task is not None]
        for attempt in tuple(self.attempts.values()):
            stop(self, attempt)
        return [task for task in tasks if task is not asyncio.current_task()]

    def close_pools(self) -> None:
        """Let go of the threads and processes that steps of the run had."""
        if self.pools is not None:
            self.pools.close()
            self.pools = None

    def disarm(self) -> None:
        """Forget the timer: someone else sees to the run's time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._armed = None

    def cancel(self, reason: str) -> None:
        """Ask for the run to be cancelled."""
        self.feed(CancelAsked(self.clock.now(), reason))

    def _finish_run(self) -> None:
        run = self.run
        assert run.ended is not None  # noqa: S101 - said by the entry that led here
        self.disarm()
        self.close_pools()
        self.ending = Ending(run.ended, run.result, run.error, run.failed_step, *run.failed_after)
        if self._log is not None:
            self._close_log(self._log)
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)
        on_end, self.on_end = self.on_end, None  # it leads back here: no cycle is left behind
        if on_end is not None:
            on_end(self)

    @property
    def stream(self) -> StreamLog:
        """What the run shows its readers; made when something is shown, or someone reads."""
        log = self._log
        if log is None:
            log = self._log = StreamLog()
            if self.ending is not None:
                self._close_log(log)
        return log

    def _close_log(self, log: StreamLog) -> None:
        """Show how the run ended, and that this was all."""
        if self.ending is not None:
            final = self.program.final(self.ending)
            if final is not None:
                log.publish(final)
        log.close()

    def ended(self) -> asyncio.Future[None]:
        """Done when the run has ended."""
        waiter: asyncio.Future[None] = self.loop.create_future()
        if self.ending is not None:
            waiter.set_result(None)
        elif self._waiters is None:
            self._waiters = [waiter]
        else:
            self._waiters.append(waiter)
        return waiter

    # --- time ------------------------------------------------------------------------------------

    def _arm(self) -> None:
        due = next_due(self.run)
        if due == self._armed:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._armed = due
        if due is not None:
            self._timer = self.clock.call_at(due, self._ring)

    def _ring(self) -> None:
        self._timer = self._armed = None
        try:
            self.feed(Due(self.clock.now()))
            self._arm()
        except Exception as bug:
            self.broken(bug)

    def broken(self, bug: Exception) -> None:
        """A turn raised: a fault of this library. The run can't go on; say so and end it."""
        logger.critical("run %s: a turn failed", self.run.id, exc_info=bug)
        if self.ledger is not None:
            self.ledger.broken(bug)
        elif self.run.ended is None:
            entry = RunEnded(RunStatus.FAILED, self.clock.now(), None, ErrorInfo.of(bug))
            EVOLVE[RunEnded](self.run, entry)
            self.perform([entry])
