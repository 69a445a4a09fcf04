"""Pipelines: do this, then that, these side by side, and clean up always.

    import asyncio
    from stepwell.pipeline import Pipeline

    async def fetch(ctx):
        return "data"

    def process(fetch):
        return fetch.upper()

    pipeline = Pipeline().add_step(fetch, retries=2).add_step(process).add_exit_step(print)
    result = asyncio.run(pipeline.run())
    result["process"]

In memory without any set-up; `Pipeline(engine=...)` makes its runs durable.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, cast

from pydantic import BaseModel

from stepwell.authoring.events.state_data import DictState
from stepwell.authoring.events.state_store import InMemoryStateStore
from stepwell.authoring.pipeline.build import Dep, PipelineBase
from stepwell.authoring.pipeline.compile import compile_pipeline
from stepwell.authoring.pipeline.context import OWN, PipelineContext
from stepwell.authoring.pipeline.handlers import GO, Record, shown_failures
from stepwell.authoring.pipeline.steps import ExecutionMode, Scope, Step, as_steps, is_workflow
from stepwell.authoring.program import Program, TypeRegistry
from stepwell.errors import WorkflowRuntimeError
from stepwell.kernel.outcomes import Message
from stepwell.runtime.clock import new_run_id
from stepwell.runtime.engine import Engine
from stepwell.runtime.handler import WorkflowHandler
from stepwell.runtime.local import run_local
from stepwell.runtime.pools import check_process_step
from stepwell.runtime.sync import background
from stepwell.values import ErrorInfo, RunStatus

logger = logging.getLogger("stepwell")


class PipelineResult(Mapping[str, Any]):
    """How a run of a pipeline ended. A mapping: `result["step"]` is `ctx["step"]` at the end.

    Attributes:
        run_id: the run.
        status: a `RunStatus`: completed, failed, cancelled or timed_out.
        error: what failed the run, else None.
        failed_step: the step that did, else None.
        errors: every failure of a step, by step name.
        handled: whether the run failed and its error steps have dealt with it.
        results: what each step returned, by name.
        timings: seconds that each step took in its last attempt, by name.
        ctx: the context at the end.
    """

    def __init__(
        self,
        run_id: str,
        status: RunStatus,
        ctx: Mapping[str, Any],
        error: BaseException | None = None,
        errors: Mapping[str, BaseException] | None = None,
        handled: bool = False,
        results: Mapping[str, Any] | None = None,
        timings: Mapping[str, float] | None = None,
        failed_step: str | None = None,
    ) -> None:
        self.failed_step = failed_step
        self.run_id = run_id
        self.status = status
        self.ctx = ctx
        self.error = error
        self.errors = dict(errors or {})
        self.handled = handled
        self.results = dict(results or {})
        self.timings = dict(timings or {})

    def __getitem__(self, key: str) -> Any:
        return self.ctx[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.ctx)

    def __len__(self) -> int:
        return len(self.ctx)

    def __repr__(self) -> str:
        error = "" if self.error is None else f", error={self.error!r}"
        return f"<PipelineResult {self.status.value}{error}: {', '.join(map(str, self.ctx))}>"


class Pipeline(PipelineBase):
    """Ordered steps with normal, error and exit scopes.

    Args:
        ctx: the data that every run begins with: a dictionary, or a model. Values marked
            `Dep(...)` are dependencies: there for the steps, and never kept.
        name: what runs are filed under; the class's name by default.
        timeout: how long a run may take before its exit steps begin; seconds or a timedelta.
        engine: makes runs durable: they are kept by it, and go on after a crash.
        deps: values that are no data, by name; or a function that makes them (once in a process).
        reducers: for keys that several steps of a parallel group set: a function of two values
            that makes one.
        types: further classes that values of the context may have in a durable run.
        version: of the pipeline; kept with each run.

    Example:
        >>> async def load(ctx):
        ...     return [1, 2, 3]
        >>> async def total(load):
        ...     return sum(load)
        >>> pipeline = Pipeline().add_step(load).add_step(total)
        >>> pipeline.run_sync()["total"]
        6
    """

    def __init__(
        self,
        ctx: Mapping[str, Any] | BaseModel | None = None,
        *,
        name: str | None = None,
        timeout: timedelta | float | None = None,
        engine: Engine | None = None,
        deps: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
        reducers: Mapping[str, Callable[[Any, Any], Any]] | None = None,
        types: Sequence[type] = (),
        version: str = "",
    ) -> None:
        super().__init__(
            ctx,
            name=name,
            timeout=timeout,
            deps=deps,
            reducers=reducers,
            types=types,
            version=version,
        )
        self.engine = engine
        self.result: PipelineResult | None = None
        self.records: dict[str, Record] = {}
        self._running: dict[
            str, tuple[asyncio.AbstractEventLoop, WorkflowHandler[Any], InMemoryStateStore[Any]]
        ] = {}

    def compiled(self) -> Program:
        """Its program; made once. From then on no steps can be added.

        Raises:
            WorkflowConfigurationError: it has no steps.
            ExecutionRefused: a step can't run in another process; says why.
        """
        if self._program is None:
            for step in self.steps():
                if step.mode is ExecutionMode.PROCESS:
                    check_process_step(step.func, step.name)
            self._program = compile_pipeline(self)
        return self._program

    @property
    def ctx(self) -> dict[str, Any]:
        """The context: of the run that began last while there is one, then as it was at the end;
        before any run, the data that runs begin with, which may be changed."""
        for _, _, store in reversed(self._running.values()):
            return {k: v for k, v in {**store.values(), **self.deps}.items() if k != OWN}
        if self.result is not None:
            return cast("dict[str, Any]", self.result.ctx)
        return self.initial

    # --- running ---------------------------------------------------------------------------------

    async def run(
        self,
        /,
        *,
        engine: Engine | None = None,
        run_id: str | None = None,
        key: str | None = None,
        progress: bool = False,
        **values: Any,
    ) -> PipelineResult:
        """Run it to its end.

        Args:
            engine: makes this run durable; the pipeline's own by default.
            run_id: the run's id; made when None.
            key: idempotency key of a durable run: a second run with it follows the first.
            progress: show its steps, attempts and times on standard error as they go: a picture
                on a terminal, else a line each. Needs the extra `stepwell[cli]`.
            **values: put into the context before the first step.

        Returns:
            How it ended: completed, cancelled by `cancel()`, or failed when its error steps have
            dealt with it.

        Raises:
            Exception: what the step that failed raised, when there are no error steps.
            ExceptionGroup: an error step or an exit step failed; with the first error, if there
                was one before.
            WorkflowTimeoutError: it took longer than `timeout`.
            ValueError: a value is given for a dependency; or a `key` without an engine.
            ModuleNotFoundError: `progress` without what shows it; says what to install.
            UnserializableValue: a durable run has a value that can't be kept; names the key.
            asyncio.CancelledError: the caller was cancelled; the exit steps have run.
        """
        program = self.compiled()
        on = engine or self.engine
        id = run_id or new_run_id()
        if progress:
            with _shown(id):
                return await self.run(engine=on, run_id=id, key=key, **values)
        begins = self.beginning(values)
        if on is None:
            if key is not None:
                raise ValueError("a key is for durable runs: give the pipeline an engine")
        else:
            program.types.dumps(begins, where="ctx", free=True)
        store = InMemoryStateStore[Any](DictState(_data=begins))
        first = Message(GO, None, program.definition.steps[0].emits[0])
        record = Record()
        if on is None:
            handler = WorkflowHandler[Any](
                run_local(program, self, [first], run_id=id, store=store)
            )
        else:
            handler = on.begin(self, program, [first], run_id=id, key=key, store=store)
        self.records[id] = record  # no step has begun yet
        self._running[id] = (asyncio.get_running_loop(), handler, store)
        try:
            cancelled = await self._follow(handler)
            result, late = await self._seen(on, handler, store, record)
            self.result = result
        finally:
            del self._running[id], self.records[id]
        if cancelled is not None:
            raise cancelled
        _raise_for(self.name, result, late)
        return result

    async def _follow(self, handler: WorkflowHandler[Any]) -> asyncio.CancelledError | None:
        """Wait for the end. Whoever is cancelled here cancels the run, and waits for its exit."""
        cancelled: asyncio.CancelledError | None = None
        ended: asyncio.Future[None] | None = None
        while handler.ending is None:
            if ended is None or ended.done():  # a loop that shuts down cancels all there is
                ended = asyncio.ensure_future(handler.wait())
            try:
                await asyncio.shield(ended)
            except asyncio.CancelledError as error:
                if cancelled is None:
                    _cancel(handler, "the caller of run() was cancelled")
                cancelled = cancelled or error  # clean-up is not cut short, however often one asks
        return cancelled

    async def _seen(
        self,
        engine: Engine | None,
        handler: WorkflowHandler[Any],
        store: InMemoryStateStore[Any],
        record: Record,
    ) -> tuple[PipelineResult, list[str]]:
        """How it ended, and the names of the error and exit steps that failed."""
        values = store.values() if engine is None else await engine.state(handler.run_id)
        own = cast("Mapping[str, Any]", values.pop(OWN, None) or {})
        failures = cast("list[Mapping[str, Any]]", own.get("failures") or [])
        ending = handler.ending
        assert ending is not None  # noqa: S101 - it was waited for
        hidden = dict(self.deps)
        if failures:
            hidden |= shown_failures(failures, record, set(values))
        errors: dict[str, BaseException] = {}
        for one in failures:
            name = str(one["step"])
            made = TypeRegistry(()).exception(ErrorInfo.from_json(one))
            errors[name] = record.errors.get(name) or made
        error = None if ending.error is None else handler.failure()
        if ending.status is RunStatus.FAILED:
            error = record.errors.get(ending.step or "", error)
        late = [
            str(one["step"])
            for one in failures
            if one["scope"] != Scope.NORMAL.value and not one.get("part")
        ]
        result = PipelineResult(
            handler.run_id,
            ending.status,
            {**values, **hidden},
            error,
            errors,
            bool(own.get("handled")) and ending.status is RunStatus.FAILED,
            record.results or {k: values[k] for k in self._names if k in values},
            record.timings,
            ending.step,
        )
        return result, late

    def run_sync(self, /, **values: Any) -> PipelineResult:
        """`run` for plain scripts, threads and notebooks; takes and raises the same.

        Raises:
            RuntimeError: called from the thread that serves it.
        """
        return background.call(self.run(**values))

    def cancel(self, reason: str = "") -> bool:
        """Cancel the runs that are under way; from any task, thread or signal handler.

        The running step gets CancelledError at its next await, no further normal step starts, and
        the exit steps run. Returns False when nothing is running.
        """
        running = list(self._running.values())
        for loop, handler, _ in running:
            loop.call_soon_threadsafe(_cancel, handler, reason)
        return bool(running)

    def get_step_value(self, func: Callable[..., Any] | str) -> Any:
        """What a step returned in the last run; None when it returned nothing.

        Raises:
            WorkflowConfigurationError: the pipeline has no such step.
        """
        name = func if isinstance(func, str) else self._find(func).name
        if name not in self._names:
            raise self._unknown(name)
        return None if self.result is None else self.result.results.get(name)


Workflow = Pipeline
"""The name that users of the older library know."""


def _shown(run_id: str) -> contextlib.AbstractContextManager[None]:
    """Show a run's progress. Who does not ask for it does not need what it is shown with."""
    try:
        from stepwell.cli.followed import followed
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "run(progress=True) needs more than stepwell itself: pip install 'stepwell[cli]'",
            name=error.name,
        ) from error
    return followed(run_id)


_cancelling: set[asyncio.Task[None]] = set()


def _cancel(handler: WorkflowHandler[Any], reason: str) -> None:
    task = asyncio.get_running_loop().create_task(handler.ask_to_cancel(reason))
    _cancelling.add(task)
    task.add_done_callback(_cancelling.discard)


def _raise_for(name: str, result: PipelineResult, late: Sequence[str]) -> None:
    """Raise what must not go unseen: what failed the run, and what failed in clean-up (`late`)."""
    error = result.error
    if late:
        first = [] if error is None or result.failed_step in late else [error]
        errors = [result.errors[step] for step in late]
        raise BaseExceptionGroup(
            f"pipeline {name!r}: steps of its clean-up failed: {', '.join(late)}",
            [*first, *errors],
        )
    if result.status in (RunStatus.FAILED, RunStatus.TIMED_OUT) and not result.handled:
        raise error or WorkflowRuntimeError(f"the pipeline {result.status.value}")


__all__ = [
    "Dep",
    "ExecutionMode",
    "Pipeline",
    "PipelineContext",
    "PipelineResult",
    "Scope",
    "Step",
    "Workflow",
    "as_steps",
    "is_workflow",
]
