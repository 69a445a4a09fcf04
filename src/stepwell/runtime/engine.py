"""The engine: start, signal, cancel, get, list, stream. All that surfaces call.

An engine has a store and, when it is given workflows, is a worker too: it advances their runs in
the loop that it was started in. Without workflows it only looks and speaks (a command line tool).

The class is a row of doors: it opens the store when it is first needed, and says what each call
takes, gives and raises. What they do is in `beginning`, `looking`, `speaking`, `broadcast`,
`parking`, `fork` and `schedules`, as functions of the worker.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, Self, cast

from stepwell.authoring.events.model import Event
from stepwell.authoring.events.state_store import InMemoryStateStore
from stepwell.authoring.program import Program
from stepwell.kernel.journal import Entry
from stepwell.kernel.outcomes import Message
from stepwell.runtime import letting_go, looking, parking, speaking
from stepwell.runtime.arguments import instance_of, whole, words
from stepwell.runtime.beginning import begin
from stepwell.runtime.broadcast import broadcast
from stepwell.runtime.clock import SYSTEM, new_run_id
from stepwell.runtime.context import Context
from stepwell.runtime.fork import fork, retry
from stepwell.runtime.handler import WorkflowHandler
from stepwell.runtime.loading import whole_row
from stepwell.runtime.schedules import ScheduleInfo, backfill, schedules, set_paused
from stepwell.runtime.stored import StoredRun, StreamItem, read_stream
from stepwell.runtime.views import RunInfo, WaitInfo, Why
from stepwell.runtime.worker import Worker
from stepwell.stores.base import NewMessage, NewRun, RunFilter, Store
from stepwell.stores.registry import open_store
from stepwell.values import Clock, Json, RunStatus

logger = logging.getLogger("stepwell")


class Startable(Protocol):
    """A workflow instance, of whatever style."""

    def compiled(self) -> Program:
        """Its program."""
        ...


class Engine:
    """Durable runs on a store.

    Args:
        store: where runs are kept: a URL (`sqlite:///file.db`, `sqlite:////abs/file.db`,
            `memory://`) or a `Store`. A `memory://` store survives nothing, and says so.
        workflows: what this engine advances runs of: instances, or classes that can be made
            without arguments. `start` and `run(engine=...)` add theirs.
        name: what this worker is called in listings; the host's name by default.
        lease: seconds after which others may take over the runs of a worker that fell silent.
        poll: seconds between looks for other processes' changes, at the latest.
        release_after: seconds after which a run that only waits is let go of from memory.
        max_active: how many runs are held in memory at once.
        snapshot_every: journal rows of a run between two snapshots of it.
        retention: seconds after which ended runs are deleted, with all that belongs to them, 90
            days by default; None keeps them until `delete` or `stepwell db gc`.
        clock: the time; another one for tests.
        worker: False makes an engine that never advances runs, even of known workflows: what it
            starts and resumes is left to workers.

    Raises:
        ValueError: the store's URL names no store, or a number is out of range.
        StoreError: on entering: the store can't be opened; the text says why and what to do.

    Example:
        >>> import asyncio
        >>> from stepwell import Engine, Workflow, step
        >>> from stepwell.events import StartEvent, StopEvent
        >>> class Hello(Workflow):
        ...     @step
        ...     async def greet(self, ev: StartEvent) -> StopEvent:
        ...         return StopEvent(result=f"Hello {ev.name}")
        >>> async def main() -> str:
        ...     async with Engine("memory://") as engine:
        ...         return await Hello().run(name="Ada", engine=engine)
        >>> asyncio.run(main())
        'Hello Ada'
    """

    def __init__(
        self,
        store: str | Store = "sqlite:///stepwell.db",
        workflows: Iterable[Startable | type] = (),
        *,
        name: str | None = None,
        lease: float = 15.0,
        poll: float = 0.25,
        release_after: float = 3600.0,
        max_active: int = 10_000,
        snapshot_every: int = 1000,
        retention: float | None = 90 * 86_400.0,
        clock: Clock = SYSTEM,
        worker: bool = True,
    ) -> None:
        for value, what in ((lease, "lease"), (poll, "poll"), (max_active, "max_active")):
            if value <= 0:
                raise ValueError(f"{what} must be above 0, got {value!r}")
        self._store = open_store(store)
        self._clock = clock
        self._worker = Worker(
            self._store,
            clock,
            name or socket.gethostname(),
            lease=lease,
            poll=poll,
            release_after=release_after,
            max_active=max_active,
            snapshot_every=snapshot_every,
            retention=retention,
            claims=worker,
        )
        self._starting: asyncio.Task[None] | None = None
        self._beginnings: set[asyncio.Task[None]] = set()
        self._answers = speaking.Answers(self._worker)
        self._loop: asyncio.AbstractEventLoop | None = None
        for workflow in workflows:
            self.register(workflow)

    # --- its life --------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start_up()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.stop()

    async def start_up(self) -> None:
        """Open the store, take over what dead processes of this machine left, and begin work.
        Done once; entering the engine does it, and so does the first call that needs it."""
        loop = asyncio.get_running_loop()
        if self._starting is None or _has_failed(self._starting):
            self._loop = loop
            self._starting = loop.create_task(self._start_up())
        elif self._loop is not loop:
            raise RuntimeError(
                "this engine was started in another event loop; make one engine for each loop"
            )
        if not self._starting.done():
            await asyncio.shield(self._starting)

    async def _started(self) -> Worker:
        await self.start_up()
        return self._worker

    async def _start_up(self) -> None:
        await self._store.open()
        self._say_where()
        try:
            await self._worker.start()
        except BaseException:
            await self._end(0.0)  # it may have claimed runs, and begun steps of theirs
            raise

    def _say_where(self) -> None:
        if self._store.durability == "none":
            logger.warning(
                "stepwell keeps runs in memory only (%s): they survive nothing", self.url
            )
        else:
            logger.info("stepwell keeps runs in %s (%s)", self.url, self._store.durability)

    async def stop(self, grace: float = 2.0) -> None:
        """Stop: claim nothing more, let bodies that are running end within `grace` seconds, let go
        of all runs (others, or the next start, go on with them), close the store."""
        if self._beginnings:
            # What was started is kept before the engine goes, whether or not anyone asks for it.
            patience = grace + letting_go.PATIENCE
            _, late = await asyncio.wait(tuple(self._beginnings), timeout=patience)
            for task in late:
                logger.error("the engine stops, and a run that was just started is not kept")
                task.cancel()
        starting, self._starting = self._starting, None
        if starting is None:
            return
        await asyncio.wait({starting})
        if _has_failed(starting):
            return  # whoever asked for it was told, and the store is closed
        await self._end(grace)

    async def _end(self, grace: float) -> None:
        """Let go of everything."""
        try:
            await self._worker.stop(grace)
            for _, owner in self._worker.programs.values():
                manager = getattr(owner, "resource_manager", None)
                if manager is not None:
                    await manager.aclose()
        finally:
            await self._store.close()

    @property
    def url(self) -> str:
        """Where the runs are kept, without secrets."""
        return self._store.url

    @property
    def durability(self) -> str:
        """What a committed step survives: "none", "process" (a crash) or "power" (a power cut)."""
        return self._store.durability

    @property
    def store(self) -> Store:
        """The store."""
        return self._store

    @property
    def worker_id(self) -> str:
        """The id under which this engine holds runs."""
        return self._worker.id

    def register(self, workflow: Startable | type) -> None:
        """Let this engine advance runs of `workflow`: an instance, or a class that can be made
        without arguments. Raises `InvalidArgument` for anything else, and when the engine has
        another workflow of that name, or this one with other options."""
        workflow = cast(Startable, getattr(workflow, "__stepwell__", workflow))
        owner = instance_of(workflow)
        validate = getattr(owner, "_ensure_valid", None)
        if callable(validate):
            validate()
        self._worker.know(owner.compiled(), owner)

    def register_soon(self, workflow: Startable) -> None:
        """`register`, from any thread, for an engine that may be running."""
        if self._loop is None or self._loop.is_closed():
            self.register(workflow)
        else:
            self._loop.call_soon_threadsafe(self.register, workflow)

    @property
    def workflows(self) -> dict[str, Program]:
        """The programs that this engine knows, by workflow name."""
        return {name: program for name, (program, _) in self._worker.programs.items()}

    # --- starting --------------------------------------------------------------------------------

    def begin(
        self,
        owner: object,
        program: Program,
        messages: Sequence[Message],
        *,
        run_id: str | None = None,
        key: str | None = None,
        correlation: str | None = None,
        priority: int = 0,
        store: InMemoryStateStore[Any] | None = None,
        ctx: Context[Any] | None = None,
    ) -> WorkflowHandler[Any]:
        """Start a run of a program (what `Workflow.run(engine=...)` calls): at once, in the
        running loop; its first commit is on its way when this returns."""
        words(run_id=run_id, key=key, correlation=correlation)
        whole(priority, "priority")
        self._worker.know(program, owner)
        if program.variant is not None:
            program, owner = program.variant(messages[0])
        id = run_id or new_run_id()
        stored = StoredRun(self._worker, program, id)
        new = NewRun(
            id,
            program.definition.name,
            self._clock.now(),
            version=program.definition.version,
            key=key,
            correlation=correlation,
            priority=priority,
        )
        beginning = asyncio.get_running_loop().create_task(
            self._begin(stored, owner, new, messages, store, ctx)
        )
        self._beginnings.add(beginning)
        beginning.add_done_callback(self._beginnings.discard)
        stored.follow(beginning)
        return WorkflowHandler(stored)

    async def _begin(
        self,
        stored: StoredRun,
        owner: object,
        new: NewRun,
        messages: Sequence[Message],
        store: InMemoryStateStore[Any] | None,
        ctx: Context[Any] | None,
    ) -> None:
        await self.start_up()
        await begin(stored, owner, new, messages, store, ctx)

    async def start(
        self,
        workflow: str | type | Startable,
        start_event: object = None,
        /,
        *,
        run_id: str | None = None,
        key: str | None = None,
        correlation: str | None = None,
        priority: int = 0,
        **fields: Any,
    ) -> WorkflowHandler[Any]:
        """Start a run; it is kept when this returns.

        A store in trouble (locked, full, gone) is asked again for as long as the engine's `lease`;
        then its error is raised, and there is no such run. One that went away in the midst of it
        can't say whether it kept the run: after two leases that is raised as `StoreUnavailable`,
        and if it did, the run goes on when it is back.

        Args:
            workflow: a workflow class, an instance, or the name of a registered one.
            start_event: what starts it: an event, or a dictionary of the fields of one; without it
                the fields are `fields`.
            run_id: the run's id; made when None.
            key: idempotency key: a second start of this workflow with the same key starts
                nothing and gives the run of the first.
            correlation: a word of yours to find the run by.
            priority: higher is claimed first when there is more to do than room.
            **fields: the fields of the start event.

        Returns:
            The run's handler.

        Raises:
            WorkflowNotRegistered: no workflow of this name is known.
            WorkflowRuntimeError: the start event can't be made of `fields`.
            RunAlreadyExists: there is a run with this id.
            UnserializableValue, ValueTooLarge: the start event can't be kept; names the field.
            InvalidArgument: `workflow` is none, or is another one of a name that the engine has;
                an id, key or correlation is empty, too long (512) or has control characters.
            StoreError: the store refused for a lease, or said nothing for two. Then it is not known
                whether the run is kept; a start that is repeated with its key begins nothing twice.
        """
        await self.start_up()
        program, owner = self._resolve(workflow)
        if start_event is None:
            message = program.start(fields)
        elif isinstance(start_event, dict):
            message = program.start({**cast("dict[str, Any]", start_event), **fields})
        else:
            message = Message(program.types.add(type(start_event)), start_event)
        handler = self.begin(
            owner,
            program,
            [message],
            run_id=run_id,
            key=key,
            correlation=correlation,
            priority=priority,
        )
        await handler.started()
        return handler

    def _resolve(self, workflow: str | type | Startable) -> tuple[Program, object]:
        if isinstance(workflow, str):
            return self._worker.program(workflow)
        workflow = cast("type | Startable", getattr(workflow, "__stepwell__", workflow))
        owner = cast(Startable, instance_of(workflow))
        program = owner.compiled()
        known = self._worker.programs.get(program.definition.name)
        if known is not None and isinstance(workflow, type):
            return known
        self.register(owner)
        return program, owner

    # --- looking ---------------------------------------------------------------------------------

    async def get(self, run_id: str) -> RunInfo:
        """The run as it is now. Raises `RunNotFound`."""
        return await looking.info_of(await self._started(), run_id)

    async def list(
        self,
        *,
        workflow: str | None = None,
        status: Sequence[RunStatus | str] | RunStatus | str | None = None,
        parent: str | None = None,
        correlation: str | None = None,
        since: float | None = None,
        limit: int = 50,
        after: str | None = None,
        waiting: str | None = None,
    ) -> tuple[list[RunInfo], str | None]:
        """Runs, newest first, and the cursor of the next page (None on the last).

        Args:
            workflow, parent, correlation: only runs of it, under it, with it.
            status: only runs with this status, or one of these.
            since: only runs created at or after this time (seconds since the epoch).
            limit: how many at the most.
            after: the cursor of the page before.
            waiting: only runs that wait for an event of this name.
        """
        wanted = None
        if status is not None:
            several = [status] if isinstance(status, str) else status
            wanted = [RunStatus(s) for s in several]
        return await looking.page_of(
            await self._started(),
            RunFilter(workflow, wanted, parent, correlation, since, limit, after, waiting),
        )

    async def counts(self) -> dict[tuple[str, RunStatus], int]:
        """How many runs there are, by workflow and status."""
        await self.start_up()
        return await self._store.counts()

    async def handler(self, run_id: str) -> WorkflowHandler[Any]:
        """A handler for a run that is already there. Raises `RunNotFound`, and
        `WorkflowNotRegistered` when its workflow is not known here."""
        worker = await self._started()
        program, _ = worker.program((await looking.row_of(worker, run_id)).workflow)
        stored = StoredRun(worker, program, run_id)
        await stored.look()
        return WorkflowHandler(stored)

    async def result(self, run_id: str) -> Any:
        """Wait for the run's end and give its result, or raise what it failed with."""
        return await (await self.handler(run_id))

    async def stream(self, run_id: str, *, after: str | None = None) -> AsyncIterator[StreamItem]:
        """The run's stream: published events with a cursor each, the last one how it ended.

        Args:
            run_id: the run.
            after: the cursor of the last item that was seen; the stream goes on behind it.
        """
        worker = await self._started()
        program, _ = worker.program((await looking.row_of(worker, run_id)).workflow)
        async for item in read_stream(worker, program, run_id, after):
            yield item

    async def journal(
        self, run_id: str, after: int = 0, limit: int | None = None
    ) -> list[tuple[int, float, list[Json]]]:
        """The run's journal as JSON: (row, time, entries), behind a row; at most `limit` rows, all
        by default. Needs no code of the workflow; raises `RunNotFound`."""
        return await looking.journal(await self._started(), run_id, after, limit)

    async def inspect(self, run_id: str) -> tuple[RunInfo, list[tuple[int, float, list[Json]]]]:
        """`get` and `journal` at once, by one look at the store."""
        return await looking.inspect(await self._started(), run_id)

    async def entries(self, run_id: str) -> list[Entry]:
        """The run's journal as entries. Without the workflow's code payloads stay plain data."""
        return [entry for _, entries in await self.batches(run_id) for entry in entries]

    async def batches(self, run_id: str) -> list[tuple[float, list[Entry]]]:
        """As `entries`, but what was decided together, with its time."""
        return await looking.batches(await self._started(), run_id)

    async def why(self, run_id: str) -> Why:
        """What the run waits for, since when, and what would move it. Needs no code of the
        workflow; raises `RunNotFound`."""
        return await looking.why(await self._started(), run_id)

    async def waits(self, run_id: str) -> list[WaitInfo]:
        """All that the run waits for now, also while other steps of it run. Needs no code of the
        workflow; raises `RunNotFound`."""
        return await looking.waits(await self._started(), run_id)

    async def check(self) -> list[tuple[RunInfo, str | None]]:
        """For every live run of a known workflow: whether it fits the code that is loaded; None
        when it does, a sentence when it does not."""
        return await looking.check(await self._started())

    def now(self) -> float:
        """The time of this engine's clock, in seconds since the epoch."""
        return self._clock.now()

    @property
    def taken(self) -> int:
        """How many times a run was taken up from the store so far."""
        return self._worker.taken

    async def next_due(self) -> float | None:
        """When the next run of the known workflows is due, in seconds since the epoch."""
        await self.start_up()
        return await self._store.next_due(sorted(self._worker.programs), self._clock.now())

    @property
    def busy(self) -> bool:
        """Whether the body of some step is at work here."""
        return self._worker.busy

    def look(self) -> None:
        """Have the worker look for work at once."""
        self._worker.wake()

    async def news(self, run_id: str) -> None:
        """Return when there may be something new of a run, whoever advances it; or when there is
        nothing. Who wants to miss nothing listens first and looks then."""
        await self._worker.news.of(run_id)

    async def state(self, run_id: str) -> dict[str, Any]:
        """The state of a run of a known workflow, by key, as it is kept.

        Raises:
            RunNotFound, WorkflowNotRegistered: as their names say.
        """
        worker = await self._started()
        program, _ = worker.program((await looking.row_of(worker, run_id)).workflow)
        _, state = await looking.folded(worker, run_id, program)
        return {} if state is None else state.values()

    async def whole(self, data: bytes) -> bytes:
        """A journal row as the store gives it, with the payloads that are kept apart put back."""
        return await whole_row(self._store, data)

    async def process_due(self) -> int:
        """Take up every run that is due now, and return when those runs have come to rest; how
        many there were. A worker does this by itself; tests and one-off jobs may ask for it."""
        await self.start_up()
        return await self._worker.search.process_due()

    # --- speaking --------------------------------------------------------------------------------

    async def signal(
        self,
        run_id: str,
        event: Event | str,
        payload: Mapping[str, Any] | None = None,
        *,
        step: str | None = None,
        question: str | None = None,
        dedupe: str | None = None,
    ) -> bool:
        """Send a run an event; it is kept when this returns, and may come before anyone waits.

        Args:
            run_id: the run.
            event: an event, or the name of its type with its fields in `payload`.
            payload: see `event`.
            step: the one step it is for.
            question: the waiter id of the question it answers.
            dedupe: a word that makes a repetition of this call do nothing.

        Returns:
            False when it was a repetition, or the run has ended.

        Raises:
            RunNotFound: there is no such run.
            InvalidArgument: `event` is none, or the payload does not fit its type.
            WorkflowRuntimeError: the workflow is known here, and `step` is not one that takes it.
        """
        words(question=question)
        return await speaking.signal(
            await self._started(),
            run_id,
            event,
            payload,
            step=step,
            question=question,
            dedupe=dedupe,
        )

    async def broadcast(
        self,
        name: str,
        payload: Mapping[str, Any] | None = None,
        *,
        workflow: str | None = None,
        correlation: str | None = None,
        check: Callable[[RunInfo], None] | None = None,
    ) -> int:
        """Send an event to every run that waits for it now; returns how many runs received it.

        It answers the wait that is open, and no later one; of two broadcasts for one wait, one is
        received. A run whose wait ends in the same moment is counted, and drops the event. A parked
        run that waits for it takes it in when it is resumed.

        Args:
            name: the name of the event's type.
            payload: its fields. Waits that ask for other values of them are not answered.
            workflow, correlation: only runs of it, with it.
            check: called with every run that would receive it, before any does: what it raises
                is raised, and then nothing has been sent.

        Raises:
            ValueError: the payload does not fit the event's type.

        Example:
            >>> import asyncio
            >>> from stepwell import Engine
            >>> async def main() -> int:
            ...     async with Engine("memory://") as engine:
            ...         return await engine.broadcast("Approval", {"by": "Ada"})
            >>> asyncio.run(main())
            0
        """
        return await broadcast(
            await self._started(),
            name,
            payload or {},
            workflow=workflow,
            correlation=correlation,
            check=check,
        )

    async def answer(
        self,
        run_id: str,
        answer: Event | Mapping[str, Any] | str,
        *,
        question: str | None = None,
    ) -> None:
        """Answer a question that a run asks.

        Args:
            run_id: the run.
            answer: an event; or the fields of one of the type that is waited for; or a text, which
                becomes its field `response`.
            question: the waiter id; may be left out when there is just one question.

        Raises:
            NoPendingQuestion: there is no such question, or several and none was named; or an
                answer to it was given already.
            InvalidArgument: the question takes other events, or the fields do not make one.
        """
        await self._started()
        await self._answers.give(run_id, answer, question)

    async def cancel(self, run_id: str, reason: str = "") -> bool:
        """Ask for a run to be cancelled; False when it has ended already.

        No step of a run that this engine holds begins after this returned. One that another worker
        holds takes the request in within that worker's `poll`; one that no worker holds is
        cancelled by the next that knows its workflow; a parked one at once. Raises `RunNotFound`.
        """
        worker = await self._started()
        row = await looking.row_of(worker, run_id)
        if row.status.terminal:
            return False
        if row.status is RunStatus.PARKED:
            return await parking.cancel(worker, run_id, reason or "cancelled while parked")
        return await worker.inbox.cancel(run_id, reason or "cancelled")

    async def resume(self, run_id: str) -> None:
        """Let a parked run go on, after what stopped it was put right.

        Raises:
            RunNotFound: there is no such run.
            WorkflowRuntimeError: the run is not parked, or is held by another worker.
            WorkflowNotRegistered: its workflow is not known here, and this engine is a worker.
        """
        await parking.resume(await self._started(), run_id)

    async def park(self, run_id: str, reason: str) -> bool:
        """Stop a run until a person resumes it. False when it has ended."""
        worker = await self._started()
        await looking.row_of(worker, run_id)
        asked = NewMessage(run_id, "park", json.dumps(reason).encode(), self._clock.now())
        (accepted,) = await worker.inbox.send([asked])
        return accepted

    # --- schedules -------------------------------------------------------------------------------

    async def schedules(self) -> Sequence[ScheduleInfo]:
        """All schedules that are known here or that the store has runs of, by workflow. Needs no
        code of theirs.

        Example:
            >>> import asyncio
            >>> from stepwell import Engine
            >>> async def main() -> int:
            ...     async with Engine("memory://") as engine:
            ...         return len(await engine.schedules())
            >>> asyncio.run(main())
            0
        """
        return await schedules(await self._started())

    async def pause_schedule(self, workflow: str) -> None:
        """Let a schedule start nothing until it is resumed; restarts and deployments change nothing
        about it. Needs no code of the workflow.

        Raises:
            InvalidArgument: nothing is planned for such a schedule.
        """
        await set_paused(await self._started(), workflow, True)

    async def resume_schedule(self, workflow: str) -> None:
        """Let a paused schedule go on from now; times that passed meanwhile are not made up for.
        Raises as `pause_schedule`."""
        await set_paused(await self._started(), workflow, False)

    async def backfill(
        self, workflow: str, since: float, until: float, *, limit: int = 1000
    ) -> int:
        """Start a run for each time in the past at which a schedule would have fired and that has
        no run, oldest first. Doing it again starts no run again; a time whose runs were deleted has
        none.

        Args:
            workflow: its name; the workflow must be known here.
            since, until: seconds since the epoch, both included; nothing later than now is started.
            limit: how many runs are started at the most.

        Returns:
            How many were started.

        Raises:
            WorkflowNotRegistered: no workflow of this name is known.
            InvalidArgument: it has no schedule, or `limit` is below 1.
        """
        worker = await self._started()
        program, _ = worker.program(workflow)
        return await backfill(worker, program, since, until, limit)

    # --- copies ----------------------------------------------------------------------------------

    async def fork(
        self,
        run_id: str,
        *,
        seq: int | None = None,
        step: str | None = None,
        input: Mapping[str, Json] | None = None,
        new_id: str | None = None,
    ) -> WorkflowHandler[Any]:
        """Start a new run as a copy of another up to a point, and let it go on from there.

        Args:
            run_id: the run to copy; it is not changed.
            seq: copy this many journal rows.
            step: copy up to where this step last began (the alternative to `seq`); with neither,
                up to where the start event came in.
            input: fields that replace those of the event the copy goes on with.
            new_id: the copy's id; made when None.

        Raises:
            RunNotFound: as its name says.
            WorkflowNotRegistered: `input` is given, and the workflow's code is not loaded; the rest
                needs none.
            WorkflowRuntimeError: there is no such point in the run's journal.
        """
        worker = await self._started()
        copy = await fork(worker, run_id, seq=seq, step=step, input=input, new_id=new_id)
        return WorkflowHandler(copy)

    async def retry(self, run_id: str, *, new_id: str | None = None) -> WorkflowHandler[Any]:
        """Try a failed run again from the step that failed it, as a new run: what ended stays as
        it is. Raises as `fork`, and `WorkflowRuntimeError` when the run did not fail in a step."""
        return WorkflowHandler(await retry(await self._started(), run_id, new_id))

    async def delete(self, run_ids: Sequence[str]) -> int:
        """Delete ended runs with all that belongs to them; returns how many."""
        await self.start_up()
        return await self._store.delete(run_ids)


def _has_failed(task: asyncio.Task[None]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
