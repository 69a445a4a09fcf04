"""The words that users of state machines know for where a run is."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from stepwell.values import RunStatus


class WorkflowStatus(enum.StrEnum):
    """Where a run of a state machine is. `suspended` means that a person has to look at it.

    Example:
        >>> WorkflowStatus.of(RunStatus.QUEUED), WorkflowStatus("failed").terminal
        (<WorkflowStatus.PENDING: 'pending'>, True)
    """

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    SUSPENDED = "suspended"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @classmethod
    def of(cls, status: RunStatus) -> WorkflowStatus:
        """The word for one of the engine's own states."""
        return _WORDS.get(status) or cls(status.value)

    @property
    def terminal(self) -> bool:
        """Whether the run is over for good."""
        return self in (
            WorkflowStatus.COMPLETED,
            WorkflowStatus.FAILED,
            WorkflowStatus.CANCELLED,
        )

    @property
    def states(self) -> tuple[RunStatus, ...]:
        """The engine's states that this word stands for."""
        return tuple(status for status in RunStatus if WorkflowStatus.of(status) is self)


_WORDS = {
    RunStatus.QUEUED: WorkflowStatus.PENDING,
    RunStatus.PARKED: WorkflowStatus.SUSPENDED,
    RunStatus.TIMED_OUT: WorkflowStatus.FAILED,
}


@dataclass(frozen=True, slots=True)
class SubflowResult:
    """How a subflow ended; what the step after it may take as its argument.

    Attributes:
        run_id: the subflow's run.
        status: completed, failed or cancelled.
        context: its Context as it was at the end (a dict when its class is not loaded here, None
            when it ended before its first step did).
        error: why it did not complete, else None.
        result: what it gave to `complete(...)`.
    """

    run_id: str
    status: WorkflowStatus
    context: Any
    error: str | None = None
    result: dict[str, Any] = field(default_factory=dict[str, Any])
