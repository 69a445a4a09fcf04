"""The service behind the routes: an engine, what documents need, and the limits of a public face.

Routes turn requests into calls of this class and what it gives into answers. It knows nothing of
HTTP but the problems that it raises.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from stepwell.authoring.document import WorkflowDocument, parse
from stepwell.authoring.document_run import NAME, Documents
from stepwell.authoring.drawing import draw
from stepwell.authoring.drawing.journal import definition_seen
from stepwell.authoring.drawing.run import run_view
from stepwell.authoring.program import Program
from stepwell.authoring.tasks import TaskRegistry
from stepwell.errors import RunAlreadyExists, WorkflowNotRegistered, WorkflowRuntimeError
from stepwell.kernel.outcomes import Message
from stepwell.runtime.clock import new_run_id
from stepwell.runtime.engine import Engine
from stepwell.runtime.handler import WorkflowHandler
from stepwell.runtime.history import decoded
from stepwell.runtime.views import RunInfo
from stepwell.runtime.why import why_of
from stepwell.server.feed import Feeds
from stepwell.server.inputs import bad_signal, check, check_signal, machine_of, refusal
from stepwell.server.keys import Keys, check_same, fingerprint_of, found, id_for
from stepwell.server.metrics import Metrics
from stepwell.server.problems import RETRY_AFTER, Problem
from stepwell.server.shown import Reader
from stepwell.values import RunStatus

_BIG = 300
"""A document with more tasks is compiled in a thread, and a run with more rows is read in one."""

_COUNTED_FOR = 0.5
"""Seconds that a count of queued runs is good for."""


_TRUSTED_FOR = 0.05
"""Seconds for which a store that has answered is taken to be there."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the service takes on.

    Attributes:
        max_queue: how many runs may be queued before new ones are refused.
        heartbeat: seconds between two signs of life of a stream without news.
        max_wait: seconds that `?wait=` may ask for at most.
        patience: seconds that the store may take to answer.
    """

    max_queue: int = 10_000
    heartbeat: float = 15.0
    max_wait: float = 60.0
    patience: float = 10.0


class Service:
    """An engine as the routes see it.

    Args:
        engine: the engine; its workflows can be started by name.
        tasks: what documents may name; the default registry by default.
        limits: what the service takes on.
        degraded: why runs are kept in memory although a store was asked for; None: they are not.
    """

    def __init__(
        self,
        engine: Engine,
        tasks: TaskRegistry | None = None,
        limits: Limits | None = None,
        degraded: str | None = None,
    ) -> None:
        self.engine = engine
        self.limits = limits or Limits()
        self.degraded = degraded
        self.documents = Documents(tasks)
        if NAME not in engine.workflows:
            engine.register(self.documents)
        self.feeds = Feeds(engine, self.documents)
        self.metrics = Metrics()
        self._queued: tuple[float, int] = (0.0, 0)
        self._answered = 0.0
        self._keys = Keys()

    def durability(self) -> str:
        """What a committed step survives, for people and for the header."""
        if self.degraded is not None:
            return f"none (degraded: {self.degraded})"
        return self.engine.durability

    def hear(self, name: str, fields: Mapping[str, Any]) -> None:
        """Something was decided about a run of this process."""
        self.metrics.hear(name, fields)
        self.feeds.hear(name, fields)

    # --- starting --------------------------------------------------------------------------------

    async def start_document(
        self, body: Mapping[str, Any], key: str | None
    ) -> tuple[WorkflowHandler[Any], bool]:
        """Start a run of a document; the second value: whether it had been started before."""
        given = dict(body)
        fields = given.pop("input", None)
        if _tasks_in(given) > _BIG:
            # Others are not to wait while it is compiled.
            document, message = await asyncio.to_thread(self._prepared, given, fields)
        else:
            document, message = self._prepared(given, fields)

        async def begin(run_id: str) -> WorkflowHandler[Any]:
            handler = self.engine.begin(
                self.documents,
                self.documents.compiled(),
                [message],
                run_id=run_id,
                key=key,
                correlation=document.name,
                priority=document.priority(),
            )
            await handler.started()
            return handler

        return await self._start(NAME, key, body, begin)

    async def _start(
        self,
        workflow: str,
        key: str | None,
        asked: object,
        begin: Callable[[str], Awaitable[WorkflowHandler[Any]]],
    ) -> tuple[WorkflowHandler[Any], bool]:
        """Start a run, unless this request did so before: then the run that it started.

        Args:
            workflow: what is to run.
            key: the request's key; None: it is like no other.
            asked: the request, as JSON values.
            begin: starts a run with this id, or finds the one that has the key.
        """
        await self.engine.start_up()
        if key is None:
            await self._check_store()
            await self._check_room()
            return await begin(new_run_id()), False
        fingerprint = fingerprint_of(workflow, asked)
        async with self._keys.held(key):
            before = await found(
                self.engine.store, key, workflow, self.engine.workflows, fingerprint
            )
            if before is not None:
                return await self.engine.handler(before), True
            await self._check_room()
            run_id = id_for(fingerprint)
            handler = await begin(run_id)
        check_same(handler.run_id, key, fingerprint)  # another process may have been first
        return handler, handler.run_id != run_id

    def _prepared(
        self, given: Mapping[str, Any], fields: object
    ) -> tuple[WorkflowDocument, Message]:
        """A document that was checked and compiled, and what its run begins with."""
        document = parse(given, self.documents.registry)
        message = self.documents.message(document, fields)
        self.documents.program_of(document)
        return document, message

    async def start_named(
        self, name: str, fields: dict[str, Any], key: str | None, priority: int
    ) -> tuple[WorkflowHandler[Any], bool]:
        """Start a run of a registered workflow; as `start_document`."""
        if name not in self.engine.workflows or name == NAME:
            raise WorkflowNotRegistered(name, sorted(self.definitions()))

        program = self.engine.workflows[name]
        check(name, program, fields)

        async def begin(run_id: str) -> WorkflowHandler[Any]:
            try:
                return await self.engine.start(
                    name, fields, run_id=run_id, key=key, priority=priority
                )
            except RunAlreadyExists:
                raise
            except Exception as error:
                problem = refusal(name, program, fields, error)
                if problem is None:
                    raise
                raise problem from error

        return await self._start(name, key, [fields, priority], begin)

    async def _check_store(self) -> None:
        """Raises `StoreError` when the store is in trouble. A start is tried again for long then:
        whoever comes while it is gone is told at once."""
        if time.monotonic() - self._answered > _TRUSTED_FOR:
            await self.engine.store.get("-")
            self._answered = time.monotonic()

    async def _check_room(self) -> None:
        """Raises `Problem` when there is no room for another run."""
        now = time.monotonic()
        at, queued = self._queued
        if now - at > _COUNTED_FOR:
            counts = await self.engine.counts()
            queued = sum(n for (_, status), n in counts.items() if status is RunStatus.QUEUED)
        self._queued = (now if now - at > _COUNTED_FOR else at, queued + 1)
        if queued >= self.limits.max_queue:
            raise Problem(
                429,
                "queue_full",
                f"{queued} workflows are queued; the limit is {self.limits.max_queue}",
                hint="Come again later: nothing was started.",
                headers={"Retry-After": str(RETRY_AFTER)},
            )

    async def wait(self, handler: WorkflowHandler[Any], seconds: float) -> bool:
        """Wait for a run's end for so long; whether it has come."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, self.limits.max_wait)):
                await handler.wait()
        return handler.is_done()

    # --- looking ---------------------------------------------------------------------------------

    async def run(self, run_id: str, links: Mapping[str, str]) -> dict[str, Any]:
        """The run as it is now."""
        info, rows = await self.engine.inspect(run_id)
        if info.status.terminal:
            why = why_of(info, None, None, info.updated)
        else:
            why = await self.engine.why(run_id)

        def shown() -> dict[str, Any]:
            reader = Reader(info, self.documents)
            reader.read_all((seq, at, decoded(entries, at)) for seq, at, entries in rows)
            return reader.run(f"{why.sentence}{self._how_durable()}", why.waits, links)

        # Others are not to wait while a long run is gone through.
        return await asyncio.to_thread(shown) if len(rows) > _BIG else shown()

    def _how_durable(self) -> str:
        if self.degraded is None:
            return ""
        return (
            f" It is kept in memory only, and survives nothing (durability: {self.durability()})."
        )

    def definitions(self) -> dict[str, Program]:
        """The workflows that can be started by name."""
        return {name: p for name, p in self.engine.workflows.items() if name != NAME}

    async def graph(self, run_id: str, format: Any) -> str:
        """A drawing of what a run did."""
        info = await self.engine.get(run_id)
        batches = await self.engine.batches(run_id)
        program = None if info.workflow == NAME else self.engine.workflows.get(info.workflow)
        if program is None:
            definition = definition_seen(info.workflow, [entries for _, entries in batches])
        else:
            definition = program.definition
        machine = None if program is None else machine_of(program)

        def drawn() -> str:
            return draw(definition, format, run=run_view(definition, batches), machine=machine)

        # A thousand boxes take a second to place.
        return await asyncio.to_thread(drawn)

    # --- speaking --------------------------------------------------------------------------------

    async def live(self, run_id: str) -> RunInfo:
        """A run that has not ended."""
        info = await self.engine.get(run_id)
        if info.status.terminal:
            raise Problem(
                409,
                "run_ended",
                f"run {run_id} is {info.status.value}; what ended stays as it is",
                hint="Retry or fork it to start a new run.",
            )
        return info

    async def signal(
        self,
        run_id: str,
        name: str,
        payload: Mapping[str, Any],
        *,
        step: str | None,
        question: str | None,
        dedupe: str | None,
    ) -> bool:
        """Send a run an event. A signal has to fit the Context of the state machine."""
        info = await self.live(run_id)
        if payload:
            await check_signal(self.engine, [info], name, payload)
        try:
            accepted = await self.engine.signal(
                run_id, name, payload, step=step, question=question, dedupe=dedupe
            )
        except (WorkflowRuntimeError, ValueError) as error:
            raise bad_signal(error) from error
        if not accepted:
            await self.live(run_id)  # it may have ended meanwhile
        return accepted


def _tasks_in(given: Mapping[str, Any]) -> int:
    """About how many tasks what may be a document has."""
    steps: Any = given.get("steps")
    if not isinstance(steps, list):
        return 0
    rows = [cast("dict[str, Any]", s) for s in cast("list[Any]", steps) if isinstance(s, dict)]
    found = [row.get("tasks") for row in rows]
    return sum(len(cast("list[Any]", tasks)) for tasks in found if isinstance(tasks, list))
