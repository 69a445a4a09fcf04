"""`WorkflowEngine`: an engine for plain code. Every call has an async twin; both are thin doors.

The engine proper runs in an event loop of its own, in a background thread (or wherever its executor
says), and is started on first use. Calls from plain code wait for it; the twins (`astart`, ...) can
be awaited in any event loop. It knows every class that `@workflow` has decorated in this process.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401 # pyright: ignore[reportUnusedImport] # see `_stop_all`
import logging
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from typing import Any, TypeVar, cast

from pydantic import BaseModel

from stepwell.authoring.machine.define import (
    Machine,
    machines,
    on_definition,
)
from stepwell.authoring.machine.events import WorkflowEvent
from stepwell.runtime.arguments import words
from stepwell.runtime.engine import Engine
from stepwell.runtime.machine.emitting import aware, emit
from stepwell.runtime.machine.executors import BackgroundExecutor, Executor
from stepwell.runtime.machine.queries import RunSet
from stepwell.runtime.machine.runs import WorkflowRun
from stepwell.runtime.machine.signals import send_signal
from stepwell.runtime.machine.starting import start
from stepwell.stores.base import Store

logger = logging.getLogger("stepwell")

T = TypeVar("T")


_running: weakref.WeakSet[WorkflowEngine] = weakref.WeakSet()


def _stop_all() -> None:
    """Python exits: what still runs is stopped.

    Functions of `atexit` run when the thread pools are gone, and an engine needs them until it has
    stopped. Functions of `threading` run in the opposite order of their registration: the module of
    the pools, which registers its own, has to be loaded first.
    """
    for engine in tuple(_running):
        engine.stop()


_left: list[object] = []


def _forget_all() -> None:
    """A forked process begins with engines whose threads were not forked with them. Their runs, and
    their connections, stay with the parent: nothing of them is closed here."""
    _left.extend(engine.forget() for engine in tuple(_running))
    _running.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


getattr(threading, "_register_atexit", atexit.register)(_stop_all)


class WorkflowEngine:
    """Starts, signals and finds runs of state machines, from plain code and from async code.

    Args:
        store: where runs are kept: a URL or a `Store`, as of `stepwell.Engine`. None takes the
            environment variable STEPWELL_STORE, or else `sqlite:///stepwell.db`.
        **settings: of `stepwell.Engine`, such as `lease`, `poll`, `retention`.

    It is started by the first call that needs it, and stopped by `stop()`, or when Python exits.

    Example:
        >>> from pydantic import BaseModel
        >>> from stepwell.machine import WorkflowEngine, complete, get_context, step, workflow
        >>> @workflow("doc-greeting")
        ... class Greeting:
        ...     class Context(BaseModel):
        ...         name: str
        ...     @step(start=True)
        ...     def greet(self):
        ...         return complete(text=f"Hello {get_context().name}")
        >>> engine = WorkflowEngine("memory://")
        >>> run = engine.start("doc-greeting", name="Ada")
        >>> engine.result(run.id)
        {'text': 'Hello Ada'}
        >>> engine.stop()
    """

    def __init__(self, store: str | Store | None = None, **settings: Any) -> None:
        self._store = store
        self._settings = settings
        self._executor: Executor = BackgroundExecutor()
        self._core: Engine | None = None
        self._lock = threading.Lock()

    # --- its life --------------------------------------------------------------------------------

    def configure(self, store: str | Store | None = None, **settings: Any) -> None:
        """Say where runs are kept, before the first use; the arguments are those of the class.

        Raises:
            RuntimeError: the engine has been started already.
        """
        if self._core is not None:
            raise RuntimeError("the engine runs already; call configure() before its first use")
        self._store, self._settings = store, settings

    def set_executor(self, executor: Executor | None) -> None:
        """Run in another place from now on: `SynchronousExecutor()` of `stepwell.testing` runs all
        within the calls, in virtual time and in memory. None goes back to the background thread.
        An engine that runs is stopped first."""
        if executor is not None and not hasattr(executor, "make_engine"):
            raise TypeError(f"set_executor() takes an executor, not {executor!r:.80}")
        self.stop()
        self._executor = BackgroundExecutor() if executor is None else executor

    def stop(self) -> None:
        """Stop the engine and its thread; what was under way goes on at the next start."""
        with self._lock:
            core, self._core = self._core, None
        if core is not None:
            self._executor.call(core.stop())
            self._executor.stop()

    def forget(self) -> object:
        """In a forked process: begin anew, with a thread and an engine of this process. What the
        parent has is returned, to be held on to."""
        old = (self._core, self._executor)
        self._core, self._lock = None, threading.Lock()
        if isinstance(self._executor, BackgroundExecutor):
            self._executor = BackgroundExecutor()
        return old

    def _make(self) -> Engine:
        """The engine, registered with what is defined; called in its loop."""
        with self._lock:
            core = self._core
            if core is None:
                store = self._store
                if store is None:
                    store = os.environ.get("STEPWELL_STORE") or None
                core = self._core = self._executor.make_engine(store, **self._settings)
                for machine in machines():
                    core.register(machine)
                on_definition(self._defined)
                _running.add(self)
            return core

    def _defined(self, machine: Machine) -> None:
        """A class was decorated after the engine had started."""
        core = self._core
        if core is not None:
            core.register_soon(machine)

    async def _ready(self) -> Engine:
        core = self._make()
        await core.start_up()
        return core

    def call(self, work: Callable[[Engine], Coroutine[Any, Any, T]]) -> T:
        """Do something with the engine, in its loop, from plain code."""
        return self._executor.call(self._with_core(work))

    async def acall(self, work: Callable[[Engine], Coroutine[Any, Any, T]]) -> T:
        """Do something with the engine, in its loop, from async code."""
        return await self._executor.acall(self._with_core(work))

    async def _with_core(self, work: Callable[[Engine], Coroutine[Any, Any, T]]) -> T:
        return await work(await self._ready())

    # --- starting --------------------------------------------------------------------------------

    def start(
        self,
        workflow: str | type,
        context: BaseModel | None = None,
        /,
        *,
        key: str | None = None,
        correlation: str | None = None,
        **fields: Any,
    ) -> WorkflowRun:
        """Start a run; it is kept when this returns.

        Args:
            workflow: a decorated class, or the name of one (the version defined last).
            context: the run's Context, instead of `fields`.
            key: idempotency key: a second start of this workflow with it gives the first's run.
            correlation: a word of yours by which signals find the run.
            **fields: for `create_context`.

        Returns:
            The run as it was created; `refresh()` shows how it is now.

        Raises:
            WorkflowNotRegistered: "Workflow X not found".
            ValueError, TypeError: the Context can't be made of `fields`.
            StoreError: the store refused.
        """
        return self.call(
            lambda core: start(self, core, workflow, context, key, correlation, fields)
        )

    async def astart(
        self,
        workflow: str | type,
        context: BaseModel | None = None,
        /,
        *,
        key: str | None = None,
        correlation: str | None = None,
        **fields: Any,
    ) -> WorkflowRun:
        """`start` for async code."""
        return await self.acall(
            lambda core: start(self, core, workflow, context, key, correlation, fields)
        )

    # --- looking ---------------------------------------------------------------------------------

    @property
    def runs(self) -> RunSet:
        """All runs: `engine.runs.filter(...)`, `engine.runs.get(id=...)`."""
        return RunSet(self)

    def result(self, run_id: str, timeout: float | None = None) -> dict[str, Any]:
        """Wait for a run's end; what it gave to `complete(...)`.

        Args:
            run_id: the run.
            timeout: seconds; None waits as long as it takes.

        Raises:
            RunNotFound: there is no such run.
            TimeoutError: it has not ended by then; it goes on.
            Exception: whatever the run failed with; `WorkflowCancelledByUser`.
        """
        return self.call(lambda core: self._result(core, run_id, timeout))

    async def aresult(self, run_id: str, timeout: float | None = None) -> dict[str, Any]:
        """`result` for async code."""
        return await self.acall(lambda core: self._result(core, run_id, timeout))

    async def _result(self, core: Engine, run_id: str, timeout: float | None) -> dict[str, Any]:
        words(run_id=run_id)
        async with asyncio.timeout(timeout):
            return cast("dict[str, Any]", await core.result(run_id))

    # --- speaking --------------------------------------------------------------------------------

    def signal(
        self,
        name: str,
        payload: Mapping[str, Any] | None = None,
        *,
        run_id: str | None = None,
        correlation: str | None = None,
    ) -> int:
        """Send a signal; it is kept when this returns.

        Args:
            name: the signal's name.
            payload: merged into the Context of the runs that receive it.
            run_id: to this run: it is kept until the run waits for it, and consumed once.
            correlation: to every live run that was started with this correlation, likewise.
                With neither, to every run that waits for this signal now (a broadcast).

        Returns:
            How many runs received it.

        Raises:
            RunNotFound: there is no run with this id.
            ValueError: the payload does not fit the Context of a run that would receive it; then
                no run has received it.
            UnserializableValue: the payload can't be kept.
        """
        return self.call(lambda core: send_signal(core, name, payload, run_id, correlation))

    async def asignal(
        self,
        name: str,
        payload: Mapping[str, Any] | None = None,
        *,
        run_id: str | None = None,
        correlation: str | None = None,
    ) -> int:
        """`signal` for async code."""
        return await self.acall(lambda core: send_signal(core, name, payload, run_id, correlation))

    def cancel(self, run_id: str, reason: str = "") -> bool:
        """Cancel a run and its subflows; False when it has ended already. What its finished steps
        committed stays. Raises `RunNotFound`."""
        words(run_id=run_id)
        return self.call(lambda core: core.cancel(run_id, reason))

    async def acancel(self, run_id: str, reason: str = "") -> bool:
        """`cancel` for async code."""
        words(run_id=run_id)
        return await self.acall(lambda core: core.cancel(run_id, reason))

    # --- events ----------------------------------------------------------------------------------

    def emit(
        self,
        event_name: str,
        entity: Any = None,
        at: datetime | None = None,
        payload: Mapping[str, Any] | None = None,
        *,
        event_id: str | None = None,
    ) -> WorkflowEvent:
        """Tell of an event that has happened, or will: it starts event workflows and wakes runs
        that wait for it.

        Told again with the same `event_id`, it has moved: runs that were planned for it and have
        not begun move along, with a new Context; those that have begun go on as they are.

        Args:
            event_name: what kind of event.
            entity: what it happens to; event workflows find it as `event.entity`. It is not kept.
            at: when; an aware datetime. None: now.
            payload: more about it, as JSON values.
            event_id: which event it is; made when None.

        Returns:
            The event.

        Raises:
            ValueError: `at` has no timezone, or a Context can't be made; nothing was started then.
            UnserializableValue: the payload can't be kept.
        """
        return self.call(lambda core: emit(core, event_name, entity, at, payload, event_id))

    async def aemit(
        self,
        event_name: str,
        entity: Any = None,
        at: datetime | None = None,
        payload: Mapping[str, Any] | None = None,
        *,
        event_id: str | None = None,
    ) -> WorkflowEvent:
        """`emit` for async code."""
        return await self.acall(lambda core: emit(core, event_name, entity, at, payload, event_id))

    # --- time ------------------------------------------------------------------------------------

    def process_scheduled(self, now: datetime | None = None) -> int:
        """Do all that is due, in the order of due times, and return when it is done.

        The engine does this by itself; tests with a `SynchronousExecutor` say when time passes.

        Args:
            now: with a `SynchronousExecutor`, the time that it becomes (an aware datetime); None:
                the system's time, if that is later. The background thread has the system's time.

        Returns:
            How many times a run was taken up.

        Raises:
            ValueError: `now` has no timezone.
        """
        return self.call(lambda core: self._process(core, now))

    async def aprocess_scheduled(self, now: datetime | None = None) -> int:
        """`process_scheduled` for async code."""
        return await self.acall(lambda core: self._process(core, now))

    async def _process(self, core: Engine, now: datetime | None) -> int:
        aware(now, "process_scheduled()")
        return await self._executor.process(core, None if now is None else now.timestamp())
