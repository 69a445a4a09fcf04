"""`Workflow`: the base class of event workflows. Write steps as methods, then `run()`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, cast, overload

from typing_extensions import TypeVar

from stepwell.authoring.events.compile import compile_workflow
from stepwell.authoring.events.model import StartEvent, StopEvent
from stepwell.authoring.events.resources import ResourceManager
from stepwell.authoring.events.starting import start_fields
from stepwell.authoring.events.workflow import WorkflowBase
from stepwell.authoring.program import Program
from stepwell.errors import ContextStateError
from stepwell.kernel.outcomes import Message
from stepwell.runtime.context import Context
from stepwell.runtime.handler import WorkflowHandler
from stepwell.runtime.local import Gate, run_local

if TYPE_CHECKING:
    from stepwell.runtime.engine import Engine

__all__ = ["Workflow"]

Ctx = TypeVar("Ctx", default=Any)
Start = TypeVar("Start", default=StartEvent)
End = TypeVar("End", default=Any)


class Workflow(WorkflowBase[Ctx, Start, End], Generic[Ctx, Start, End]):
    """Base of event workflows: steps that receive and emit typed events.

    Steps are methods (or free functions) marked with `@step`; their annotations say which events
    they take and emit. `Workflow[Ctx, Start, End]` also says the types of the run's state, of what
    starts it and of what ends it; an undecorated `start` method is then its first step.

    Args:
        timeout: seconds a run may be alive, 45 by default; None sets no limit.
        disable_validation: leave out the check of the event graph before the first run.
        verbose: say what the steps do.
        resource_manager: where resources live, when several workflows are to share them.
        num_concurrent_runs: how many runs of this instance may be active at once.
        runtime: an `Engine` to run on; None runs in memory.
        workflow_name: the name its runs are filed under; by default module and class name.
        skip_graph_checks: which graph checks to leave out.
        serializer: a `JsonSerializer` with further types that state and events may hold.

    Raises:
        WorkflowConfigurationError: no steps, or not one start and one stop event type.
        WorkflowValidationError: an option can't be what it is.

    Example:
        >>> import asyncio
        >>> from stepwell import Workflow, step
        >>> from stepwell.events import StartEvent, StopEvent
        >>> class MyFlow(Workflow):
        ...     @step
        ...     async def start(self, ev: StartEvent) -> StopEvent:
        ...         return StopEvent(result=f"done: {ev.topic}")
        >>> async def main() -> str:
        ...     return await MyFlow(timeout=60).run(topic="Pirates")
        >>> asyncio.run(main())
        'done: Pirates'
    """

    _gate: Gate | None = None
    _kept: tuple[object, Program] | None = None

    def compiled(self) -> Program:
        """The program of this workflow: its definition, handlers and types."""
        plan = self._plan_now()
        kept = self._kept
        if kept is None or kept[0] is not plan or not self._launched:
            self._kept = kept = (plan, compile_workflow(self))
        return kept[1]

    @overload  # the base class: what its `result` holds is not said anywhere
    def run(
        self: Workflow[Any, Any, StopEvent],
        ctx: Context[Any] | None = None,
        start_event: Start | None = None,
        *,
        engine: Engine | None = None,
        run_id: str | None = None,
        key: str | None = None,
        record: bool = False,
        **kwargs: Any,
    ) -> WorkflowHandler[Any]: ...

    @overload  # a class of one's own: it is given whole
    def run(
        self,
        ctx: Context[Any] | None = None,
        start_event: Start | None = None,
        *,
        engine: Engine | None = None,
        run_id: str | None = None,
        key: str | None = None,
        record: bool = False,
        **kwargs: Any,
    ) -> WorkflowHandler[End]: ...

    def run(
        self,
        ctx: Context[Any] | None = None,
        start_event: Start | None = None,
        *,
        engine: Engine | None = None,
        run_id: str | None = None,
        key: str | None = None,
        record: bool = False,
        **kwargs: Any,
    ) -> WorkflowHandler[Any]:
        """Start a run in the running event loop, and return its handler at once.

        Args:
            ctx: a context whose state, and unfinished work, the run takes over.
            start_event: what starts the run; without one it is made of `kwargs`.
            engine: makes the run durable; without one (or `runtime=`) it lives in memory.
            run_id: the run's id; made when None.
            key: idempotency key of a durable run: a second start with it gives the first's run.
            record: keep the journal of a run in memory, for drawings and tests.
            **kwargs: the fields of the start event.

        Returns:
            The handler: await it for the result, or stream its events.

        Raises:
            WorkflowValidationError: the workflow is not valid.
            WorkflowRuntimeError: the start event can't be made.
            ValueError: `start_event` is of the wrong type; an argument of `run` is also the name
                of a field of the start event, which then has to be given as `start_event`; `key`
                without an engine.
            TypeError: an argument is of the wrong type: `ctx` is no context, `engine` no engine.
            ContextStateError: `ctx` is in use by a run.
            RunAlreadyExists: a run with this id is active.
            RuntimeError: there is no running event loop.
        """
        self._ensure_valid()
        program = self.compiled()
        on = engine if engine is not None else cast("Engine | None", self.runtime)
        _check_given(ctx, on)
        if run_id is not None or key is not None or engine is not None or record:
            own = {"engine": engine, "run_id": run_id, "key": key, "record": record or None}
            _check_own(own, self.start_event_class if start_event is None else None)
            if key is not None and on is None:
                raise ValueError(
                    "key= is the idempotency key of a durable run: give engine= as well, or, if it "
                    "is a field of the start event, start_event=StartEvent(key=...)"
                )
        store = None
        if ctx is not None and ctx.in_use:
            raise ContextStateError(
                "Cannot start a new run while context is already running. Wait for completion or "
                "use a new Context."
            )
        owed = None if ctx is None else ctx.owed
        if owed is not None:
            messages = owed
        else:
            event = self._get_start_event_instance(start_event, **kwargs)
            messages = [Message(program.types.add(type(event)), event)]
        if ctx is not None:
            store = ctx.store
        self._lock()
        if on is not None:
            return on.begin(self, program, messages, run_id=run_id, key=key, store=store, ctx=ctx)
        local = run_local(
            program,
            self,
            messages,
            saved=None if ctx is None else ctx.saved,
            run_id=run_id,
            gate=self._limit(),
            store=store,
            record=record,
        )
        if ctx is not None:
            ctx.attach(local.active)
        return WorkflowHandler(local)

    def __getstate__(self) -> dict[str, Any]:
        """What a step with `execution="process"` finds of its workflow there: all but what lives
        in this process alone."""
        here = ("_gate", "_kept", "_runtime", "_resource_manager")
        return {name: value for name, value in self.__dict__.items() if name not in here}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        self._runtime = None
        self._resource_manager = ResourceManager()

    def _limit(self) -> Gate | None:
        limit = self.num_concurrent_runs
        if limit is None:
            return None
        if self._gate is None:
            self._gate = Gate(limit)
        return self._gate


def _check_own(own: Mapping[str, object], start: type | None) -> None:
    """What `run` takes for itself is of the right type, and is not a field of the start event that
    is to be made."""
    for name in ("run_id", "key"):
        value = own[name]
        if value is not None and not isinstance(value, str):
            raise TypeError(
                f"{name} must be a string, not {type(value).__name__}; a field {name!r} of the "
                "start event is given with start_event="
            )
    if own["record"] not in (None, True):
        raise TypeError(
            f"record must be True or False, not {type(own['record']).__name__}; a field 'record' "
            "of the start event is given with start_event="
        )
    fields = () if start is None else start_fields(start)
    for name, value in own.items():
        if value is not None and start is not None and name in fields:
            raise ValueError(
                f"{name}= is an argument of run() and a field of {start.__name__}; say which is "
                f"meant: give the fields with start_event={start.__name__}({name}=...)"
            )


def _check_given(ctx: object, engine: object) -> None:
    """What people give by mistake, and no loop to run in, are told before anything is begun."""
    if ctx is not None and not isinstance(ctx, Context):
        raise TypeError(
            f"run() takes a Context first, not {type(ctx).__name__}; give the fields of the start "
            "event by name, and a start event as start_event="
        )
    if engine is not None and not callable(getattr(engine, "begin", None)):
        raise TypeError(
            f"engine must be an Engine, not {type(engine).__name__}; make one: "
            "async with Engine('sqlite:///runs.db') as engine; a field 'engine' of the start event "
            "is given with start_event="
        )
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "no running event loop: call run() inside of async code, or use "
            "run_sync(workflow, ...) outside of it"
        ) from None
