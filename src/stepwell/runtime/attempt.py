"""One attempt of a step while its body is alive, and everything the body may ask for.

A body asks (for an event, for time, for a child's result, to remember a value); each question has
a key that follows from its kind, its name and how many of that name came before it. The answer is
looked up first among those that this piece of work has already got, so a body that has to start
from its top after a crash is answered without waiting; only a new question reaches the kernel.

What a body sends and writes is kept in an outbox until the body ends or pauses, and goes out in
one turn; what it sends before it fails without a pause is never seen.
"""

from __future__ import annotations

import asyncio
import contextvars
import types
import zlib
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from stepwell.authoring.events.state_edit import StateEdit
from stepwell.authoring.events.state_path import MISSING
from stepwell.authoring.program import Execution, Handler
from stepwell.errors import ChildFailed, WorkflowCancelledByUser, WorkflowRuntimeError
from stepwell.kernel.inputs import Asked, ChildAsked, Gathered, GivenUp, Noted, Sent, Wrote
from stepwell.kernel.outcomes import ChildResult, Message
from stepwell.kernel.run import TIMED_OUT, Work
from stepwell.runtime.offload import run_in_process, run_in_thread
from stepwell.runtime.pools import Pools
from stepwell.values import Json, RunStatus, derived_id

if TYPE_CHECKING:
    from stepwell.authoring.program import Program
    from stepwell.runtime.context import Context
    from stepwell.runtime.turn import ActiveRun

current: contextvars.ContextVar[Attempt] = contextvars.ContextVar("stepwell_attempt")
"""The attempt whose body is running in this context."""

make_current = current.set
"""Set it; to be called in the context of the body."""


class Attempt:
    """A body that is running, or about to."""

    __slots__ = (
        "active",
        "counts",
        "ctx",
        "dead",
        "edits",
        "expired",
        "flushing",
        "futures",
        "handler",
        "id",
        "in_thread",
        "next",
        "outbox",
        "replay",
        "step",
        "task",
        "upon",
        "work",
        "written",
    )

    def __init__(self, active: ActiveRun, work: Work, handler: Handler) -> None:
        self.active = active
        self.id = work.id
        self.work = work
        self.step = work.step
        self.handler = handler
        self.dead = self.expired = self.flushing = self.in_thread = False
        self.next: Attempt | None = None  # the one that is ready after this one
        self.task: asyncio.Task[None] | None = None
        self.ctx: object = None
        self.futures: dict[str, asyncio.Future[object]] | None = None
        self.counts: dict[str, int] | None = None
        self.outbox: list[tuple[bool, Message, int]] | None = None
        self.edits: list[StateEdit] | None = None
        self.written: dict[str, int] | None = None  # how often each field of the state
        self.upon: dict[int, dict[str, int]] | None = None  # whose writes its edits contain
        self.replay = list(work.digests) if work.digests else None

    # --- for the handler -------------------------------------------------------------------------

    def context(self) -> object:
        """The `Context` of this attempt, made when first asked for."""
        if self.ctx is None:
            self.ctx = self.active.make_context(self)
        return self.ctx

    def call_sync(
        self, execution: Execution, func: Callable[..., object], kwargs: Mapping[str, object]
    ) -> Awaitable[object]:
        """Run a plain function off the event loop."""
        if execution == "process":
            return run_in_process(func, kwargs, self.step)
        return self._threaded(run_in_thread(func, kwargs, self.step))

    async def _threaded(self, call: Awaitable[object]) -> object:
        """Wait for a call in a thread; noting that it goes on, if it does."""
        self.in_thread = True
        try:
            value = await call
        except Exception:
            self.in_thread = False
            raise
        self.in_thread = False
        return value

    # --- the run's state -------------------------------------------------------------------------

    def has_written(self, field: str) -> bool:
        """One more write of a field is about to be made: whether it is kept already, because others
        have built upon it before this attempt started again."""
        if self.written is None:
            self.written = {}
        number = self.written[field] = self.written.get(field, 0) + 1
        kept = self.work.kept
        return kept is not None and number <= kept.get(field, 0)

    def note(self, edit: StateEdit) -> None:
        """A write was made."""
        if self.edits is None:
            self.edits = []
        self.edits.append(edit)
        if self.written is not None:
            edit.owner, edit.numbers = self, {field: self.written[field] for field in edit.after}

    # --- for handlers that see to the run's state themselves -------------------------------------

    @property
    def run_id(self) -> str:
        """The run."""
        return self.active.run.id

    def now(self) -> float:
        """The time of the run's clock."""
        return self.active.clock.now()

    def peek(self, key: str) -> Any:
        """What the run's state holds under `key`; None when there is nothing."""
        return cast("Context[Any]", self.context()).store.peek(key)

    def put(self, values: Mapping[str, Any]) -> None:
        """Change the run's state, with the outcome of this attempt. One that was stopped, and
        would not stop, changes nothing."""
        if self.dead or self.expired:
            raise asyncio.CancelledError("the step was stopped")
        cast("Context[Any]", self.context()).store.put(values)

    def know_child(self, program: Program, owner: object) -> None:
        """This attempt is about to start a run of `program`."""
        self.active.know_child(program, owner)

    async def plan_run(
        self, program: Program, owner: object, at: float, plan: Mapping[str, Json]
    ) -> str:
        """Plan the run of the program's schedule for `at`, which is no child of this one; its id.
        However often that is done, there is one."""
        ledger = self.active.ledger
        if ledger is None:
            raise WorkflowRuntimeError("only a run on an engine can start others that outlive it")
        return await ledger.plan_run(program, owner, at, plan)

    @property
    def is_durable(self) -> bool:
        """Whether the run is kept in a store."""
        return self.active.durable

    def values(self) -> dict[str, Any]:
        """The run's state, by key."""
        store = self.active.store
        if store is not None:
            return store.values()
        return cast("Context[Any]", self.context()).store.values()

    def remove(self, keys: Sequence[str]) -> None:
        """Remove keys from the run's state, with the outcome of this attempt."""
        self.put(dict.fromkeys(keys, MISSING))

    async def ask_signal(self, name: str, timeout: float | None) -> Any:
        """Wait for a signal; its payload."""
        key = self.key("signal", name)
        wait = derived_id(self.active.run.id, self.id, key)[:12]
        answer = await self.ask(key, name, wait=wait, timeout=timeout)
        return None if answer is None else answer.payload

    async def run_child(self, workflow: Any, fields: Mapping[str, Any]) -> Any:
        """Run a workflow as a part of this run; its result."""
        return await cast("Context[Any]", self.context()).run_child(workflow, **fields)

    async def call_pooled(
        self, mode: str, func: Callable[..., object], kwargs: Mapping[str, object]
    ) -> object:
        """Run a plain function in the run's pool of threads, or of processes."""
        active = self.active
        if active.pools is None:
            active.pools = Pools(active.definition.name)
        if mode == "process":
            return await active.pools.in_process(func, kwargs, self.step)
        return await self._threaded(active.pools.in_thread(func, kwargs, self.step))

    async def broadcast(self, tag: str, payload: Mapping[str, Any]) -> int:
        """Answer every run that waits for a message with this tag; how many there were."""
        ledger = self.active.ledger
        return 0 if ledger is None else await ledger.broadcast(tag, payload)

    # --- keys ------------------------------------------------------------------------------------

    def key(self, kind: str, name: str) -> str:
        """The key of the next question of this kind and name."""
        return self.numbered(kind, name)[0]

    def numbered(self, kind: str, name: str) -> tuple[str, int]:
        """The key of the next question of this kind and name, and how many came before it."""
        counts = self.counts
        if counts is None:
            counts = self.counts = {}
        plain = f"{kind}:{name}"
        number = counts.get(plain, 0)
        counts[plain] = number + 1
        return (f"{plain}:{number}" if number else plain), number

    def _alive(self) -> Work:
        if self.dead or self.active.run.ended is not None:
            raise asyncio.CancelledError("the run is over")
        return self.work

    def idempotency_key(self) -> str:
        """The same for every attempt of this piece of work, and for no other."""
        return derived_id(self.active.run.id, self.step, self.id)

    # --- questions -------------------------------------------------------------------------------

    async def ask(
        self,
        key: str,
        tag: str | None,
        *,
        wait: str,
        where: Mapping[str, Json] | None = None,
        timeout: float | None = None,
        question: Message | None = None,
    ) -> Message | None:
        """Wait for a message, for time, or both. Raises TimeoutError when time was up first."""
        work = self._alive()
        if work.answers is None or key not in work.answers:
            active = self.active
            if not (work.waits and key in work.waits):
                self.flush()
                self._alive()  # what it sent may have ended the run
                if question is not None:
                    active.prepare(question)
                asked = Asked(active.clock.now(), self.id, key, wait, tag, where, timeout, question)
                await self._wait(key, asked)
            else:
                await self._wait(key, None)
        answer = (work.answers or {})[key]
        if answer == TIMED_OUT:
            raise TimeoutError(f"Timed out waiting for {tag}")
        return cast("Message | None", answer)

    async def _wait(self, key: str, input: Asked | ChildAsked | None) -> None:
        future = self.active.loop.create_future()
        if self.futures is None:
            self.futures = {}
        self.futures[key] = future
        try:
            if input is not None:
                self.active.feed(input)
            await future
        except asyncio.CancelledError:
            # Whether the body ends with this, or goes on without the answer, shows in a moment.
            self.active.loop.call_soon(self._given_up, key)
            raise
        finally:
            self.futures.pop(key, None)

    def _given_up(self, key: str) -> None:
        active = self.active
        if not self.dead and active.attempts.get(self.id) is self:
            active.feed(GivenUp(active.clock.now(), self.id, key))

    def deliver(self) -> None:
        """Hand out the answers that have come."""
        answers = self.work.answers
        if not self.futures or answers is None:
            return
        for key, future in tuple(self.futures.items()):
            if key in answers and not future.done():
                future.set_result(None)

    async def memo(self, name: str, make: Callable[[], object]) -> Message:
        """The message that holds what `make()` gave the first time it got through."""
        work = self._alive()
        key = self.key("memo", name)
        if work.answers is not None and key in work.answers:
            return cast(Message, work.answers[key])
        made = make()
        value = await cast("Awaitable[object]", made) if isinstance(made, Awaitable) else made
        message = Message("memo", value)
        self._alive()
        self.flush()
        self._alive()
        self.active.prepare(message, f"memo {name!r}")
        self.active.feed(Noted(self.active.clock.now(), self.id, key, message))
        await self.active.settled()
        return message

    def gather(
        self, message: Message, expected: tuple[str, ...], buffer: str
    ) -> tuple[Message, ...] | None:
        """Add `message` to a buffer of the step; the whole of `expected` once it is there."""
        work = self._alive()
        key = self.key("collect", buffer)
        if work.answers is None or key not in work.answers:
            self.active.prepare(message)
            now = self.active.clock.now()
            self.active.feed(Gathered(now, self.id, key, buffer, message, expected))
        return cast("tuple[Message, ...] | None", (work.answers or {}).get(key))

    async def child(self, name: str, workflow: str, message: Message) -> Message:
        """Run a child to its end; its result message. Raises `ChildFailed` when it had none."""
        work = self._alive()
        key = self.key("child", name)
        if work.answers is None or key not in work.answers:
            self.flush()
            self._alive()
            asked = None
            if not (work.waits and key in work.waits):
                # A new attempt that asks again gets a new child; the old one's id is taken.
                id = derived_id(self.active.run.id, self.id, key, work.attempt)[:16]
                now = self.active.clock.now()
                asked = ChildAsked(now, self.id, key, id, workflow, message)
            await self._wait(key, asked)
        answer = cast(Message, (work.answers or {})[key])
        result = cast(ChildResult, answer.payload)
        if result.result is None or result.status is not RunStatus.COMPLETED:
            info = result.error
            if info is not None and info.live is not None:
                if isinstance(info.live, WorkflowCancelledByUser):
                    raise ChildFailed(result.run, result.status, info.message)
                raise info.live
            text = "" if info is None else f"{info.type}: {info.message}"
            raise ChildFailed(result.run, result.status, text)
        return result.result

    # --- what it sends and writes ----------------------------------------------------------------

    def post(self, message: Message, *, route: bool) -> None:
        """Send `message` to steps (`route`) or write it to the run's stream."""
        self._alive()
        active = self.active
        if not route and not active.durable:
            active.publish(message.payload)
            return
        digest = 0
        if active.durable:
            active.prepare(message)
            digest = zlib.crc32(f"{route}{message.tag}{message.to}{message.data}".encode())
            if self.replay:
                if digest in self.replay:
                    # What stands before it was sent by attempts that failed: this one starts again.
                    del self.replay[: self.replay.index(digest) + 1]
                    return
                self.replay = None
        if self.outbox is None:
            self.outbox = []
        self.outbox.append((route, message, digest))
        if not self.flushing:
            self.flushing = True
            active.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Let go of what is in the outbox, in order."""
        self.flushing = False
        outbox = self.outbox
        if not outbox or self.dead:
            return
        self.outbox = None
        active = self.active
        now = active.clock.now()
        start = 0
        while start < len(outbox):
            route = outbox[start][0]
            end = start
            while end < len(outbox) and outbox[end][0] is route:
                end += 1
            messages = [message for _, message, _ in outbox[start:end]]
            digests: Sequence[int] = (
                [digest for _, _, digest in outbox[start:end]] if active.durable else ()
            )
            active.feed(
                Sent(now, self.id, messages, digests)
                if route
                else Wrote(now, messages, self.id, digests)
            )
            start = end

    def drop_unsent(self) -> None:
        """The attempt failed: what it was about to send is not sent; what it wrote for readers
        still is."""
        if self.outbox:
            self.outbox = [item for item in self.outbox if not item[0]]


@types.coroutine
def rest(
    coroutine: Coroutine[Any, Any, object], context: contextvars.Context, waiting: object
) -> Generator[object, Any, object]:
    """The rest of a coroutine that has already been started, and waits for `waiting`, driven in its
    own context. Returns what the coroutine does.

    Each attempt has a copy of the run's context, so what one body does to context variables is
    not seen by the next one in the same task.
    """
    while True:
        try:
            value = yield waiting
        except GeneratorExit:
            context.run(coroutine.close)
            raise
        except BaseException as error:  # thrown in by the task, for the body to deal with
            try:
                waiting = context.run(coroutine.throw, error)
            except StopIteration as stop:
                return stop.value
        else:
            try:
                waiting = context.run(coroutine.send, value)
            except StopIteration as stop:
                return stop.value
