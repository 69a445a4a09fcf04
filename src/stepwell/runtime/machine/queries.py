"""Finding runs: `engine.runs.filter(status="waiting", waiting_signal="approved")`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stepwell.authoring.machine.status import WorkflowStatus
from stepwell.errors import RunNotFound
from stepwell.runtime.arguments import words
from stepwell.runtime.machine.runs import WorkflowRun, seen_by
from stepwell.values import RunStatus

if TYPE_CHECKING:
    from stepwell.runtime.engine import Engine
    from stepwell.runtime.machine.engine import WorkflowEngine

_PAGE = 200


@dataclass(frozen=True, slots=True)
class RunSet:
    """Some of the runs of an engine, newest first; read in pages when it is gone through.

    Example:
        >>> from stepwell.machine import WorkflowEngine
        >>> from stepwell.testing import SynchronousExecutor
        >>> engine = WorkflowEngine()
        >>> engine.set_executor(SynchronousExecutor())
        >>> engine.runs.filter(status="failed").count()
        0
        >>> engine.stop()
    """

    engine: WorkflowEngine
    name: str | None = None
    status: tuple[RunStatus, ...] | None = None
    waiting_signal: str | None = None
    correlation: str | None = None
    parent_run_id: str | None = None

    def filter(
        self,
        *,
        status: str | Iterable[str] | None = None,
        waiting_signal: str | None = None,
        name: str | None = None,
        correlation: str | None = None,
        parent_run_id: str | None = None,
    ) -> RunSet:
        """Those of them that are like this.

        Args:
            status: a `WorkflowStatus`, its text, or several of them.
            waiting_signal: waiting for this signal ("event:NAME" for an event).
            name: of this workflow.
            correlation: started with this correlation key.
            parent_run_id: subflows of this run.

        Raises:
            ValueError: there is no such status.
        """
        words(
            waiting_signal=waiting_signal,
            name=name,
            correlation=correlation,
            parent_run_id=parent_run_id,
        )
        made = self
        if status is not None:
            several = (status,) if isinstance(status, str) else tuple(status)
            states = tuple(state for one in several for state in WorkflowStatus(one).states)
            both = states if self.status is None else tuple(s for s in self.status if s in states)
            made = replace(made, status=both)
        if waiting_signal is not None:
            made = replace(made, waiting_signal=waiting_signal)
        if name is not None:
            made = replace(made, name=name)
        if correlation is not None:
            made = replace(made, correlation=correlation)
        if parent_run_id is not None:
            made = replace(made, parent_run_id=parent_run_id)
        return made

    def all(self) -> RunSet:
        """The same runs."""
        return self

    def get(self, id: str | None = None, **conditions: str) -> WorkflowRun:
        """The one run that is like this. Raises `RunNotFound` when there is none, and ValueError
        when there are several."""
        return self.engine.call(lambda core: self._get(core, id, conditions))

    async def aget(self, id: str | None = None, **conditions: str) -> WorkflowRun:
        """`get` for async code."""
        return await self.engine.acall(lambda core: self._get(core, id, conditions))

    async def _get(self, core: Engine, id: str | None, conditions: dict[str, str]) -> WorkflowRun:
        if id is not None:
            words(id=id)
            seen = await seen_by(core, [id])
            if not seen:
                raise RunNotFound(id)
            return WorkflowRun(self.engine, seen[0])
        chosen = self.filter(**conditions)
        found, _ = await chosen._page(core, None, 2)
        if not found:
            wanted = ", ".join(f"{k}={v}" for k, v in conditions.items())
            raise RunNotFound(wanted, f"No run is like this: {wanted}." if wanted else "No runs.")
        if len(found) > 1:
            raise ValueError(f"several runs are like this: {conditions}; use filter(...)")
        return found[0]

    async def _page(
        self, core: Engine, after: str | None, limit: int = _PAGE
    ) -> tuple[list[WorkflowRun], str | None]:
        if self.status == ():
            return [], None
        infos, cursor = await core.list(
            workflow=self.name,
            status=self.status,
            parent=self.parent_run_id,
            correlation=self.correlation,
            waiting=self.waiting_signal,
            limit=limit,
            after=after,
        )
        seen = await seen_by(core, [info.id for info in infos])
        return [WorkflowRun(self.engine, one) for one in seen], cursor

    def __iter__(self) -> Iterator[WorkflowRun]:
        cursor: str | None = None
        while True:
            at = cursor
            page, cursor = self.engine.call(lambda core, at=at: self._page(core, at))
            yield from page
            if cursor is None:
                return

    async def __aiter__(self) -> AsyncIterator[WorkflowRun]:
        cursor: str | None = None
        while True:
            at = cursor
            page, cursor = await self.engine.acall(lambda core, at=at: self._page(core, at))
            for run in page:
                yield run
            if cursor is None:
                return

    def first(self) -> WorkflowRun | None:
        """The newest of them, or None."""
        found, _ = self.engine.call(lambda core: self._page(core, None, 1))
        return found[0] if found else None

    def exists(self) -> bool:
        """Whether there are any."""
        return self.first() is not None

    def count(self) -> int:
        """How many there are."""
        return self.engine.call(self._count)

    async def acount(self) -> int:
        """`count` for async code."""
        return await self.engine.acall(self._count)

    async def _count(self, core: Engine) -> int:
        if (self.waiting_signal, self.correlation, self.parent_run_id) == (None, None, None):
            return sum(
                number
                for (name, status), number in (await core.counts()).items()
                if self.name in (None, name) and (self.status is None or status in self.status)
            )
        number, cursor = 0, None
        while self.status != ():
            infos, cursor = await core.list(
                workflow=self.name,
                status=self.status,
                parent=self.parent_run_id,
                correlation=self.correlation,
                waiting=self.waiting_signal,
                limit=1000,
                after=cursor,
            )
            number += len(infos)
            if cursor is None:
                break
        return number

    __len__ = count

    def __bool__(self) -> bool:
        return self.exists()

    def counts(self) -> dict[WorkflowStatus, int]:
        """How many of them there are by status; those that have none are left out."""
        return self.engine.call(self._counts)

    async def acounts(self) -> dict[WorkflowStatus, int]:
        """`counts` for async code."""
        return await self.engine.acall(self._counts)

    async def _counts(self, core: Engine) -> dict[WorkflowStatus, int]:
        found: dict[WorkflowStatus, int] = {}
        for status in WorkflowStatus:
            number = await self.filter(status=status)._count(core)
            if number:
                found[status] = number
        return found
