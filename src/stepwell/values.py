"""Plain values that every layer shares: JSON, run states, errors as data, the clock, ids.

Nothing here decides anything. It imports the standard library only, reads no clock and draws no
random numbers: ids are derived from the id of their run.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, TypeAlias

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
"""What a journal may hold."""


class RunStatus(enum.StrEnum):
    """Where a run is; exactly one at any time.

    `waiting` means that nothing but an event from outside or a timer can move the run; `parked`
    means that a person is needed and the run says why. The last four are terminal and final.

    >>> RunStatus.WAITING.terminal, RunStatus("failed").terminal
    (False, True)
    """

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    PARKED = "parked"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"

    @property
    def terminal(self) -> bool:
        """Whether the run is over for good."""
        return self in _TERMINAL


_TERMINAL = frozenset(
    {RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.TIMED_OUT}
)


@dataclass(slots=True)
class ErrorInfo:
    """An error as data: what the journal keeps of an exception.

    Args:
        type: the exception's qualified name, e.g. `builtins.KeyError`. It is shown to people and
            compared with known names; it is never imported.
        message: `str(exception)`.
        details: further data that its owner gave, e.g. the path of an unserialisable value.
        live: the exception itself while its process is alive; never journaled.
    """

    type: str
    message: str
    details: Json = None
    live: BaseException | None = None

    @classmethod
    def of(cls, error: BaseException) -> ErrorInfo:
        """The data form of `error`; keeps the live exception beside it."""
        kind = type(error)
        return cls(f"{kind.__module__}.{kind.__qualname__}", str(error), None, error)


class TimerHandle(Protocol):
    """What `Clock.call_at` gives back."""

    def cancel(self) -> None:
        """Forget the call. Harmless when it has already been made."""
        ...


class Clock(Protocol):
    """The one source of time of an engine: seconds since the epoch, UTC."""

    def now(self) -> float:
        """The present, in seconds since 1970-01-01T00:00:00Z."""
        ...

    def call_at(self, when: float, callback: Callable[[], None]) -> TimerHandle:
        """Call `callback` in the running event loop once `now() >= when`."""
        ...

    def polls(self) -> bool:
        """Whether waiting for other processes by polling makes sense (not in virtual time)."""
        ...


def derived_id(*parts: str | int) -> str:
    """An id that follows from `parts` alone (the same after every restart): 32 hex digits.

    >>> derived_id("run", 1) == derived_id("run", 1) != derived_id("run", 2)
    True
    """
    return hashlib.blake2b("\x00".join(map(str, parts)).encode(), digest_size=16).hexdigest()


def utc(at: float) -> datetime:
    """The aware UTC datetime of `at` (seconds since the epoch).

    >>> utc(0).isoformat()
    '1970-01-01T00:00:00+00:00'
    """
    return datetime.fromtimestamp(at, UTC)


def iso(at: float | None) -> str | None:
    """A moment (seconds since the epoch) for machines: ISO 8601 in UTC; None stays None.

    >>> iso(0)
    '1970-01-01T00:00:00+00:00'
    """
    return None if at is None else utc(at).isoformat()
