"""The `Context`: what a step, and whoever started a run, may ask of the run.

One class with three faces. *Pre-run*: made by the user, holds state for a run to come, or the saved
data of an earlier one. *External*: `handler.ctx`, outside the steps. *Internal*: handed to a step,
bound to one attempt. A call on the wrong face says so.

It decides nothing: it turns calls into questions of the attempt or inputs of the run.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Protocol, cast, overload

from pydantic import BaseModel, TypeAdapter
from typing_extensions import TypeVar

from stepwell.authoring.events.model import Event
from stepwell.authoring.events.serializers import BaseSerializer
from stepwell.authoring.events.state_data import DictState
from stepwell.authoring.events.state_store import InMemoryStateStore
from stepwell.authoring.program import Ending, Program
from stepwell.errors import (
    ContextSerdeError,
    ContextStateError,
    WorkflowRuntimeError,
)
from stepwell.kernel.inputs import Arrived
from stepwell.kernel.outcomes import Message
from stepwell.kernel.run import RUNNING, Run
from stepwell.policy import RetryInfo
from stepwell.runtime.attempt import Attempt, current
from stepwell.runtime.messages import decoded, message_for, warn_of_loss
from stepwell.runtime.offload import on_loop
from stepwell.runtime.saved import load_saved, owed_by, save
from stepwell.runtime.state import new_store, state_of
from stepwell.runtime.watchers import expose
from stepwell.values import Json, RunStatus, derived_id, utc

if TYPE_CHECKING:
    from stepwell.runtime.turn import ActiveRun

S = TypeVar("S", bound=BaseModel, default=DictState)
E = TypeVar("E", bound=Event)
T = TypeVar("T")


class Runnable(Protocol):
    """A workflow as the context sees it."""

    def compiled(self) -> Program:
        """The program of the workflow."""
        ...


class Context(Generic[S]):
    """What a step may ask of its run; also made by hand to carry state from run to run.

    Args:
        workflow: the workflow instance that the context is for.
        previous_context: what `to_dict` gave earlier.
        serializer: reads `previous_context`; the workflow's own by default.

    Raises:
        ContextSerdeError: when `previous_context` can't be read.

    Example:
        >>> from stepwell import Context, Workflow, step
        >>> from stepwell.events import StartEvent, StopEvent
        >>> class Count(Workflow):
        ...     @step
        ...     async def add(self, ctx: Context, ev: StartEvent) -> StopEvent:
        ...         n = await ctx.store.get("n", default=0) + 1
        ...         await ctx.store.set("n", n)
        ...         return StopEvent(result=n)
        >>> import asyncio
        >>> async def twice() -> int:
        ...     flow = Count()
        ...     ctx = Context(flow)
        ...     await flow.run(ctx=ctx)
        ...     return await flow.run(ctx=ctx)
        >>> asyncio.run(twice())
        2
    """

    __slots__ = ("__weakref__", "_active", "_attempt", "_saved", "_staged", "_workflow")

    def __init__(
        self,
        workflow: Runnable,
        previous_context: Mapping[str, Any] | None = None,
        serializer: BaseSerializer | None = None,
    ) -> None:
        self._workflow: Runnable | None = workflow
        self._active: ActiveRun | None = None
        self._attempt: Attempt | None = None
        self._staged: InMemoryStateStore[Any] | None = None
        self._saved: Run | None = None
        if previous_context is not None:
            try:
                self._staged, self._saved = load_saved(
                    previous_context, workflow.compiled(), serializer
                )
            except KeyError as error:
                raise ContextSerdeError(f"the saved context lacks {error}") from error
            except (LookupError, TypeError, AttributeError) as error:
                raise ContextSerdeError(f"the saved context makes no sense: {error!r}") from error
            except ValueError as error:
                if "version=" in str(error):
                    raise
                raise ContextSerdeError(str(error)) from error

    @classmethod
    def bound(cls, active: ActiveRun, attempt: Attempt | None = None) -> Context[Any]:
        """The context of a run, or of one attempt in it (made by the engine)."""
        self = cast("Context[Any]", cls.__new__(cls))
        self._workflow = None
        self._active = active
        self._attempt = attempt
        self._staged = None
        self._saved = None
        return self

    @property
    def in_use(self) -> bool:
        """Whether a run that has not ended has this context."""
        return self._active is not None and self._active.run.ended is None

    @property
    def saved(self) -> Run | None:
        """The unfinished run that the next run with this context goes on with."""
        return self._saved

    @property
    def owed(self) -> list[Message] | None:
        """What that run owes, as messages; None when there is no such run."""
        return None if self._saved is None else owed_by(self._saved)

    def attach(self, active: ActiveRun) -> None:
        """A run has been started with this context (called by the workflow)."""
        self._active = active
        self._saved = None

    # --- faces -----------------------------------------------------------------------------------

    def _step(self, call: str) -> Attempt:
        if self._attempt is None:
            self._run(call)
            raise ContextStateError(f"{call} is only available from within step functions.")
        return self._attempt

    def _outside(self, call: str) -> ActiveRun:
        if self._attempt is not None:
            raise ContextStateError(
                f"{call} is only available from handler code, not from within steps."
            )
        return self._run(call)

    def _run(self, call: str) -> ActiveRun:
        if self._active is None:
            raise ContextStateError(
                f"{call} requires a running workflow. Call workflow.run() first."
            )
        return self._active

    # --- state and saving ------------------------------------------------------------------------

    @property
    def store(self) -> InMemoryStateStore[S]:
        """The run's typed state. What a step changes is committed with its result."""
        if self._active is not None:
            return cast("InMemoryStateStore[S]", state_of(self._active))
        if self._staged is None:
            workflow = cast(Runnable, self._workflow)
            self._staged = new_store(workflow.compiled())
        return cast("InMemoryStateStore[S]", self._staged)

    @property
    def is_running(self) -> bool:
        """Whether the run is alive, or, before a run, whether there is one to go on with."""
        if self._attempt is not None:
            warnings.warn(
                "Context.is_running is meant for code outside of steps; a step's run is running",
                DeprecationWarning,
                stacklevel=2,
            )
            return True
        return self.in_use or self._saved is not None

    def to_dict(
        self, serializer: BaseSerializer | None = None, *, include_state: bool = True
    ) -> dict[str, Any]:
        """The run as JSON values, to go on with later: its state and the work it owes.

        Args:
            serializer: writes the values of the state; the workflow's own by default.
            include_state: False leaves the state out.

        Raises:
            ContextStateError: inside a step.
            ContextSerdeError: when a value can't be written.
        """
        if self._attempt is not None:
            raise ContextStateError(
                "to_dict is only available from handler code, not from within steps."
            )
        program = (
            self._active.program
            if self._active is not None
            else cast(Runnable, self._workflow).compiled()
        )
        store = self.store if include_state else None
        run = self._saved
        active = self._active
        # A run that has not begun owes nothing yet: to go on with it is to start it.
        if active and active.run.begun and active.run.ended in (None, RunStatus.CANCELLED):
            run = active.run
        try:
            return save(program, run, store, serializer)
        except ValueError as error:
            raise ContextSerdeError(str(error)) from error

    @classmethod
    def from_dict(
        cls,
        workflow: Runnable,
        data: Mapping[str, Any],
        serializer: BaseSerializer | None = None,
    ) -> Context[S]:
        """The context that `to_dict` wrote. Raises `ContextSerdeError` when it can't be read."""
        return cls(workflow, data, serializer)

    # --- inside a step ---------------------------------------------------------------------------

    @staticmethod
    def get_step_context() -> Context[Any]:
        """The context of the step that is running here. Raises `WorkflowRuntimeError` outside."""
        attempt = current.get(None)
        if attempt is None:
            raise WorkflowRuntimeError(
                "Context.get_step_context() may only be called from within a step function"
            )
        return cast("Context[Any]", attempt.context())

    @property
    def idempotency_key(self) -> str:
        """A text that is the same for every attempt of this piece of work, also after a crash,
        and for no other: give it to outside systems so that they do a thing once."""
        return self._step("idempotency_key").idempotency_key()

    @property
    def run_id(self) -> str:
        """The id of the run."""
        return self._run("run_id").run.id

    def retry_info(self) -> RetryInfo:
        """How often this step was tried before, and how that ended."""
        attempt = self._step("retry_info")
        work = attempt.work
        error = (
            None
            if work.error is None
            else cast(Exception, attempt.active.types.exception(work.error))
        )
        return RetryInfo(
            max(0, work.attempt - 1),
            max(0.0, attempt.active.clock.now() - work.first_at),
            error,
            None if work.failed_at is None else utc(work.failed_at),
        )

    def collect_events(
        self, ev: Event, expected: list[type[Event]], buffer_id: str | None = None
    ) -> list[Event] | None:
        """Keep `ev` until one event of each expected type has come to this step.

        Args:
            ev: the event that the step just received.
            expected: the types wanted, repeated where several of one type are.
            buffer_id: which buffer of the step to use.

        Returns:
            The events in the order of `expected` once all are there, None before.
        """
        attempt = self._step("collect_events")
        if not expected:
            return []
        types = attempt.active.types
        tags = tuple(types.add(t) for t in expected)
        message = Message(types.add(type(ev)), ev)
        taken = on_loop(
            attempt.active, lambda: attempt.gather(message, tags, buffer_id or "default")
        )
        return None if taken is None else [cast(Event, decoded(m, types)) for m in taken]

    async def wait_for_event(
        self,
        event_type: type[E],
        waiter_event: Event | None = None,
        waiter_id: str | None = None,
        requirements: Mapping[str, Any] | None = None,
        timeout: float | timedelta | None = 2000,
    ) -> E:
        """Wait for an event; the step goes on where it stands when it comes.

        Args:
            event_type: the exact type to wait for.
            waiter_event: shown to readers of the stream, once: the question.
            waiter_id: the name under which the question can be answered.
            requirements: fields that the event must have with just these values.
            timeout: seconds; None waits without limit.

        Raises:
            TimeoutError: when nothing came in time.
        """
        attempt = self._step("wait_for_event")
        active = attempt.active
        tag = active.types.add(event_type)
        key, number = attempt.numbered("wait", waiter_id or tag)
        wait = f"{waiter_id}#{number}" if waiter_id and number else waiter_id
        if not wait or wait in (active.run.waits or {}):
            mine = (attempt.work.waits or {}).get(key)
            wait = mine or derived_id(active.run.id, attempt.id, key)[:12]
        question = None
        if waiter_event is not None:
            question = Message(active.types.add(type(waiter_event)), waiter_event)
        answer = await attempt.ask(
            key,
            tag,
            wait=wait,
            where=cast("Mapping[str, Json] | None", requirements),
            timeout=_seconds(timeout),
            question=question,
        )
        return cast(E, decoded(cast(Message, answer), active.types))

    async def sleep(self, duration: float | timedelta) -> None:
        """Let time pass: seconds or a timedelta. In a durable run the process may come and go."""
        attempt = self._step("sleep")
        key = attempt.key("sleep", "")
        wait = derived_id(attempt.active.run.id, attempt.id, key)[:12]
        await attempt.ask(key, None, wait=wait, timeout=_seconds(duration) or 0.0)

    @overload
    async def memo(
        self, name: str, fn: Callable[..., Awaitable[T]], /, *args: Any, type: type[T] | None = None
    ) -> T: ...
    @overload
    async def memo(
        self, name: str, fn: Callable[..., T], /, *args: Any, type: type[T] | None = None
    ) -> T: ...
    async def memo(
        self, name: str, fn: Callable[..., Any], /, *args: Any, type: type | None = None
    ) -> Any:
        """Do something once: what `fn(*args)` gave is kept, and a step that starts again (a retry,
        a crash) gets it without calling `fn`.

        Args:
            name: tells memos of one step apart; the same name may be used again, in order.
            fn: sync or async function.
            args: what it is called with.
            type: what a kept value is turned back into; needed for types other than JSON values
                and the workflow's own.

        Raises:
            UnserializableValue: in a durable run, when the value can't be written.
        """
        attempt = self._step("memo")
        known = attempt.work.answers is not None
        message = await attempt.memo(name, lambda: fn(*args))
        value = message.payload
        if known and type is not None and not isinstance(value, type):
            value = TypeAdapter[Any](type).validate_python(value)
        return value

    async def run_child(self, workflow: Any, /, **fields: Any) -> Any:
        """Run another workflow to its end, as a part of this run: it is cancelled with it, shown
        in its stream, and goes on with it after a crash.

        Args:
            workflow: a workflow class or instance.
            fields: the fields of its start event.

        Returns:
            What the workflow's `run` would give.

        Raises:
            ChildFailed: when the child failed or was cancelled in another process; the child's own
                exception when it failed in this one.
        """
        attempt = self._step("run_child")
        active = attempt.active
        instance = workflow() if isinstance(workflow, type) else workflow
        program = cast(Runnable, instance).compiled()
        message = program.start(fields)
        if active.durable:
            message.data = program.types.dumps(message.payload, where=message.tag)
        name = program.definition.name
        active.know_child(program, instance)
        result = await attempt.child(name, name, message)
        payload = result.payload
        if active.durable:  # it came through the inbox, as JSON of the child's types
            payload = program.types.load(result.tag, cast(Json, payload))
        return program.result(Message(result.tag, payload))

    # --- inside and outside ----------------------------------------------------------------------

    def send_event(self, message: Event, step: str | None = None) -> None:
        """Send an event to every step that takes it, or to `step` alone.

        Raises:
            WorkflowRuntimeError: when `step` does not exist or does not take such events.
            ContextStateError: before the run.
        """
        active = self._active
        if active is None:
            raise ContextStateError(
                "send_event() called before workflow started. Call workflow.run() first."
            )
        sent = message_for(active.definition, active.types, message, step)
        if step is None:
            warn_of_loss(active, sent)
        attempt = self._attempt
        if attempt is not None:
            on_loop(active, lambda: attempt.post(sent, route=True))
        else:
            on_loop(active, lambda: active.arrive(Arrived(active.clock.now(), sent)))

    def write_event_to_stream(self, ev: Event | None) -> None:
        """Show `ev` to the readers of the run's stream. None does nothing."""
        if ev is None:
            return
        active = self._run("write_event_to_stream")
        message = Message(active.types.add(type(ev)), ev)
        attempt = self._attempt
        if attempt is not None:
            on_loop(active, lambda: attempt.post(message, route=False))
        else:
            on_loop(active, lambda: active.write(message))

    # --- outside ---------------------------------------------------------------------------------

    async def running_steps(self) -> list[str]:
        """The names of the steps that are running now; one that waits is not."""
        work = self._outside("running_steps").run.work.values()
        return list(dict.fromkeys(w.step for w in work if w.phase == RUNNING or w.partial))

    def stream_events(self, *, expose_internal: bool = False) -> AsyncIterator[Event]:
        """The run's stream, from its beginning; see `WorkflowHandler.stream_events`."""
        active = self._outside("stream_events")
        if expose_internal:
            expose(active)
        return cast("AsyncIterator[Event]", active.events(expose_internal=expose_internal))

    @property
    def streaming_queue(self) -> asyncio.Queue[Event]:
        """Deprecated: use `stream_events()`. A queue that receives the run's stream from its
        beginning, as long as the run's event loop runs."""
        warnings.warn(
            "Context.streaming_queue is deprecated; use stream_events() instead",
            DeprecationWarning,
            stacklevel=2,
        )
        queue: asyncio.Queue[Event] = asyncio.Queue()
        events = self._outside("streaming_queue").events()

        async def fill() -> None:
            async for event in events:
                queue.put_nowait(cast(Event, event))

        task = asyncio.get_running_loop().create_task(fill())
        _filling.add(task)
        task.add_done_callback(_filling.discard)
        return queue

    async def get_result(self) -> Any:
        """Deprecated: await the handler instead."""
        warnings.warn(
            "Context.get_result() is deprecated; await the handler instead",
            DeprecationWarning,
            stacklevel=2,
        )
        active = self._outside("get_result")
        await active.ended()
        return active.program.value(cast(Ending, active.ending))


_filling: set[asyncio.Task[None]] = set()


def _seconds(duration: float | timedelta | None) -> float | None:
    if isinstance(duration, timedelta):
        return duration.total_seconds()
    return duration
