"""Assertions on what a run did, in words that a test reads well in and fails well with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from stepwell.kernel.journal import (
    AttemptFailed,
    Entry,
    RunEnded,
    RunResumed,
    WorkAdded,
    WorkBegun,
    WorkDone,
)
from stepwell.runtime.handler import WorkflowHandler
from stepwell.values import RunStatus


class History:
    """The journal of one run, to ask what happened in it.

    Args:
        entries: the journal, from `handler.journal_entries()` or `engine.entries(run_id)`.

    Example:
        >>> import asyncio
        >>> from stepwell import Event, StartEvent, StopEvent, Workflow, step
        >>> class Fetched(Event):
        ...     text: str
        >>> class Flow(Workflow):
        ...     @step
        ...     async def fetch(self, ev: StartEvent) -> Fetched:
        ...         return Fetched(text="hello")
        ...     @step
        ...     async def count(self, ev: Fetched) -> StopEvent:
        ...         return StopEvent(result=len(ev.text))
        >>> async def test() -> None:
        ...     handler = Flow().run(record=True)
        ...     await handler
        ...     history = await History.of(handler)
        ...     history.completed().step("fetch").ran(times=1).then("count")
        >>> asyncio.run(test())
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries: Sequence[Entry] = tuple(entries)
        self._steps: dict[int, str] = {}
        self.order: list[tuple[str, str]] = []
        for entry in self.entries:
            self._note(entry)

    def _note(self, entry: Entry) -> None:
        match entry:
            case WorkAdded(id=id, step=step, begun=begun):
                self._steps[id] = step
                self.order.append((step, "began" if begun else "was queued"))
            case WorkBegun(id=id):
                self.order.append((self._steps.get(id, "?"), "began"))
            case AttemptFailed(id=id, retry_at=retry_at):
                word = "failed" if retry_at is None else "failed, to be tried again"
                self.order.append((self._steps.get(id, "?"), word))
            case WorkDone(id=id):
                self.order.append((self._steps.get(id, "?"), "ended"))
            case _:
                return

    @classmethod
    async def of(cls, handler: WorkflowHandler[Any]) -> History:
        """The history of a handler's run: a durable one, or one with `record=True`."""
        return cls(await handler.journal_entries())

    def step(self, name: str) -> StepHistory:
        """What the step of this name did. AssertionError when the run never came to it."""
        if not any(step == name for step, _ in self.order):
            raise AssertionError(f"step {name!r} was never reached.{self.told()}")
        return StepHistory(self, name)

    def never(self, name: str) -> History:
        """Assert that the run never came to this step."""
        if any(step == name for step, _ in self.order):
            raise AssertionError(f"step {name!r} was reached.{self.told()}")
        return self

    @property
    def status(self) -> RunStatus | None:
        """How the run ended; None while it has not."""
        return next((e.status for e in self.entries if isinstance(e, RunEnded)), None)

    @property
    def resumed(self) -> int:
        """How often a worker took the run up again."""
        return sum(isinstance(e, RunResumed) for e in self.entries)

    def ended(self, status: RunStatus | str) -> History:
        """Assert that the run ended like this."""
        if self.status != RunStatus(status):
            was = "has not ended" if self.status is None else f"is {self.status.value}"
            raise AssertionError(
                f"the run {was}, and should be {RunStatus(status).value}.{self.told()}"
            )
        return self

    def completed(self) -> History:
        """Assert that the run completed."""
        return self.ended(RunStatus.COMPLETED)

    def told(self) -> str:
        """All that happened, a line each."""
        lines = "".join(f"\n  {step} {what}" for step, what in self.order)
        return f" What happened:{lines or ' nothing'}"


class StepHistory:
    """What one step of a run did."""

    def __init__(self, history: History, name: str) -> None:
        self.history = history
        self.name = name

    def _count(self, word: str) -> int:
        return sum(step == self.name and what.startswith(word) for step, what in self.history.order)

    def ran(self, times: int) -> StepHistory:
        """Assert how many pieces of work of the step ended well or with an error of their own."""
        count = self._count("ended")
        if count != times:
            raise AssertionError(
                f"step {self.name!r} ended {count} times, not {times}.{self.history.told()}"
            )
        return self

    def failed(self, times: int) -> StepHistory:
        """Assert how many attempts of the step failed."""
        count = self._count("failed")
        if count != times:
            raise AssertionError(
                f"step {self.name!r} failed {count} times, not {times}.{self.history.told()}"
            )
        return self

    def then(self, name: str) -> StepHistory:
        """Assert that step `name` began after this one first ended; returns that step's history."""
        order = self.history.order
        first = next((i for i, row in enumerate(order) if row == (self.name, "ended")), len(order))
        if (name, "began") not in order[first:]:
            raise AssertionError(
                f"step {name!r} did not begin after {self.name!r}.{self.history.told()}"
            )
        return self.history.step(name)


def assert_history(entries: Iterable[Entry]) -> History:
    """`History(entries)`, for those who like an assertion to begin with "assert"."""
    return History(entries)
