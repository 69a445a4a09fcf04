"""Run a workflow to its end and keep all that it showed, for assertions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stepwell.authoring.events.model import Event, StartEvent
from stepwell.runtime.context import Context
from stepwell.workflow import Workflow

__all__ = ["WorkflowTestResult", "WorkflowTestRunner"]


@dataclass
class WorkflowTestResult:
    """What a run showed and gave.

    Attributes:
        collected: the events of its stream, in order.
        event_types: how many of each type there were.
        result: what awaiting the run gives.
        ctx: the run's context.
    """

    collected: list[Event]
    event_types: dict[type[Event], int]
    result: Any
    ctx: Context[Any] | None = field(default=None)


class WorkflowTestRunner:
    """Runs a workflow in memory and collects its stream.

    Args:
        workflow: the workflow to test.

    Example:
        >>> import asyncio
        >>> from stepwell import StartEvent, StopEvent, Workflow, step
        >>> from stepwell.testing import WorkflowTestRunner
        >>> class Hello(Workflow):
        ...     @step
        ...     async def greet(self, ev: StartEvent) -> StopEvent:
        ...         return StopEvent(result=f"Hello {ev.name}")
        >>> async def test() -> None:
        ...     tested = await WorkflowTestRunner(Hello()).run(
        ...         start_event=StartEvent(name="Ada"), expose_internal=False
        ...     )
        ...     assert tested.result == "Hello Ada"
        ...     assert tested.event_types == {StopEvent: 1}
        >>> asyncio.run(test())
    """

    def __init__(self, workflow: Workflow[Any, Any, Any]) -> None:
        self._workflow = workflow

    async def run(
        self,
        start_event: StartEvent | None = None,
        ctx: Context[Any] | None = None,
        expose_internal: bool = True,
        exclude_events: list[type[Event]] | None = None,
    ) -> WorkflowTestResult:
        """Run the workflow to its end.

        Args:
            start_event: what starts it; a plain `StartEvent()` when None.
            ctx: a context that the run takes over.
            expose_internal: also collect what happens inside (`StepStateChanged`, ...).
            exclude_events: leave out events of exactly these types.

        Raises:
            Whatever the run raises.
        """
        event = StartEvent() if start_event is None else start_event
        handler = self._workflow.run(ctx, event)
        left_out = frozenset(exclude_events or ())
        collected: list[Event] = []
        counts: dict[type[Event], int] = {}
        async for shown in handler.stream_events(expose_internal=expose_internal):
            kind = type(shown)
            if kind not in left_out:
                collected.append(shown)
                counts[kind] = counts.get(kind, 0) + 1
        return WorkflowTestResult(collected, counts, await handler, handler.ctx)
