"""The handler: what whoever started a run holds of it.

Awaiting it gives the result or raises what the run failed with, as often as one likes; any number
of readers may follow its stream, each from the beginning or from its own place.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Awaitable, Generator
from typing import Any, Generic, Protocol, cast

from typing_extensions import TypeVar

from stepwell.authoring.events.model import Event, StopEvent
from stepwell.authoring.program import Ending, Program
from stepwell.kernel.definition import Definition
from stepwell.kernel.journal import Entry
from stepwell.runtime.context import Context

R = TypeVar("R", default=Any)


class Followed(Protocol):
    """A run that a handler follows: one in memory, or one in a store."""

    @property
    def program(self) -> Program:
        """What is run."""
        ...

    @property
    def run_id(self) -> str:
        """The run's id."""
        ...

    @property
    def ending(self) -> Ending | None:
        """How it ended; None while it has not."""
        ...

    def context(self) -> Context[Any]:
        """The context for code outside the steps."""
        ...

    def ended(self) -> Awaitable[None]:
        """Done when the run has ended."""
        ...

    def events(self, *, after: int, expose_internal: bool) -> AsyncIterator[tuple[int, object]]:
        """The run's stream, with positions."""
        ...

    async def send(self, event: Event, step: str | None, wait: str | None) -> None:
        """Send an event into the run; return when it is accepted."""
        ...

    async def cancel(self, reason: str) -> None:
        """Ask for the run to be cancelled."""
        ...

    async def started(self) -> None:
        """Return when the run is there (kept, if it is durable)."""
        ...

    async def entries(self) -> list[tuple[float, list[Entry]]]:
        """The run's journal, row by row with times."""
        ...


class WorkflowHandler(Generic[R]):
    """Follows one run.

    Example:
        >>> from stepwell import Workflow, step
        >>> from stepwell.events import StartEvent, StopEvent
        >>> class Hello(Workflow):
        ...     @step
        ...     async def greet(self, ev: StartEvent) -> StopEvent:
        ...         return StopEvent(result=f"Hello {ev.name}")
        >>> import asyncio
        >>> async def main() -> str:
        ...     handler = Hello().run(name="Ada")
        ...     return await handler
        >>> asyncio.run(main())
        'Hello Ada'
    """

    __slots__ = ("__weakref__", "_ctx", "_run")

    def __init__(self, run: Followed) -> None:
        self._run = run
        self._ctx: Context[Any] | None = None

    def __await__(self) -> Generator[Any, Any, R]:
        if self._run.ending is None:
            yield from self._run.ended().__await__()
        return cast(R, self._value())

    def _value(self) -> Any:
        return self._run.program.value(cast(Ending, self._run.ending))

    def __str__(self) -> str:
        ending = self._run.ending
        result = None
        if ending is not None and ending.result is not None:
            result = self._run.program.result(ending.result)
        name = self._run.program.definition.name
        return f"WorkflowHandler(workflow={name}, run_id={self.run_id}, result={result})"

    __repr__ = __str__

    @property
    def run_id(self) -> str:
        """The id of the run."""
        return self._run.run_id

    async def started(self) -> None:
        """Return when the run has been started: kept, if it is durable. Raises what went wrong."""
        await self._run.started()

    @property
    def ending(self) -> Ending | None:
        """How the run ended; None while it has not."""
        return self._run.ending

    async def wait(self) -> None:
        """Return when the run has ended, however it ended."""
        if self._run.ending is None:
            await self._run.ended()

    def failure(self) -> BaseException | None:
        """What awaiting the run raises; None when it gives a result, or has not ended."""
        ending = self._run.ending
        if ending is None or ending.error is None:
            return None
        return self._run.program.failure(ending.error)

    async def ask_to_cancel(self, reason: str = "") -> None:
        """Ask for the run to be cancelled, and do not wait for it."""
        await self._run.cancel(reason)

    async def journal_entries(self) -> list[Entry]:
        """What was decided so far, in order; for drawings and tests. A run in memory has a journal
        only when it was started with `record=True`: `WorkflowRuntimeError` otherwise."""
        return [entry for _, entries in await self._run.entries() for entry in entries]

    @property
    def definition(self) -> Definition:
        """What is run, as data."""
        return self._run.program.definition

    @property
    def ctx(self) -> Context[Any]:
        """The run's context, for code outside the steps."""
        if self._ctx is None:
            self._ctx = self._run.context()
        return self._ctx

    def is_done(self) -> bool:
        """Whether the run has ended."""
        return self._run.ending is not None

    def get_stop_event(self) -> StopEvent | None:
        """The event the run ended with (a failed, timed out or cancelled one too); None before."""
        ending = self._run.ending
        return None if ending is None else cast(StopEvent, self._run.program.final(ending))

    async def stop_event_result(self) -> StopEvent:
        """Wait for the end and return the event the run ended with."""
        await self._run.ended()
        return cast(StopEvent, self.get_stop_event())

    async def send_event(
        self, event: Event, step: str | None = None, *, question: str | None = None
    ) -> None:
        """Send an event into the run. In a durable run it is kept when this returns.

        Args:
            event: what to send.
            step: the one step it is for; None sends it to every step that takes it.
            question: the waiter id of the question that it answers.

        Raises:
            WorkflowRuntimeError: when the step does not exist or does not take such events.
        """
        await self._run.send(event, step, question)

    async def answer(self, question: str, event: Event) -> None:
        """Answer the question with this waiter id. An answer that comes early is kept."""
        await self._run.send(event, None, question)

    async def cancel_run(self, *, timeout: float = 5.0) -> None:
        """Cancel the run, and wait up to `timeout` seconds for its end. Raises nothing if it has
        ended, or does not end in time."""
        if self._run.ending is not None:
            return
        await self._run.cancel("cancelled by its handler")
        try:
            async with asyncio.timeout(timeout):
                await self._run.ended()
        except TimeoutError:
            return

    def stream_events(
        self, expose_internal: bool = False, *, after: int = 0
    ) -> AsyncIterator[Event]:
        """The run's stream: its published events, the last one being how it ended.

        Args:
            expose_internal: also show what happens inside, from now on.
            after: leave out that many events (a cursor for those who come back).
        """
        source = self._run.events(after=after, expose_internal=expose_internal)
        return _items(source)

    # --- deprecated names ------------------------------------------------------------------------

    def done(self) -> bool:
        """Deprecated: use `is_done()`."""
        _deprecated("done()", "is_done()")
        return self.is_done()

    def cancel(self) -> bool:
        """Deprecated: use `await cancel_run()`."""
        _deprecated("cancel()", "await cancel_run()")
        if self._run.ending is not None:
            return False
        task = asyncio.get_running_loop().create_task(self._run.cancel("cancelled by its handler"))
        _cancelling.add(task)
        task.add_done_callback(_cancelling.discard)
        return True

    def cancelled(self) -> bool:
        """Deprecated: look at `get_stop_event()`."""
        _deprecated("cancelled()", "get_stop_event()")
        ending = self._run.ending
        return ending is not None and ending.status.value == "cancelled"

    def exception(self) -> BaseException | None:
        """Deprecated: await the handler."""
        _deprecated("exception()", "await")
        ending = self._run.ending
        if ending is None or ending.error is None:
            return None
        return self._run.program.failure(ending.error)


_cancelling: set[asyncio.Task[None]] = set()


def _deprecated(old: str, new: str) -> None:
    warnings.warn(
        f"WorkflowHandler.{old} is deprecated; use {new}", DeprecationWarning, stacklevel=3
    )


async def _items(source: AsyncIterator[tuple[int, object]]) -> AsyncIterator[Event]:
    async for _, item in source:
        yield cast(Event, item)
