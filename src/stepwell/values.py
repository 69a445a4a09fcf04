"""Plain values that every layer shares: JSON, run states, errors as data, the clock, ids.

Nothing here decides anything. It imports the standard library only, reads no clock and draws no
random numbers: ids are derived from the id of their run.
"""

from __future__ import annotations

import enum
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
        message: `str(exception)`; half surrogate pairs are written out, as `\\udce9`.
        details: further data that its owner gave, e.g. the path of an unserialisable value.
        live: the exception itself while its process is alive; never journaled.
        where: the line of the user's code that it came from, e.g. `shop/orders.py:31 in charge`.
            Two errors that differ in nothing else are equal.
    """

    type: str
    message: str
    details: Json = None
    live: BaseException | None = None
    where: str | None = field(default=None, compare=False)

    @classmethod
    def of(cls, error: BaseException) -> ErrorInfo:
        """The data form of `error`; keeps the live exception beside it."""
        kind = type(error)
        name = f"{kind.__module__}.{kind.__qualname__}"
        return cls(_text(name), _said(error), None, error, where_raised(error))

    def to_json(self) -> dict[str, Json]:
        """What people are shown of it.

        >>> ErrorInfo("builtins.ValueError", "no such day").to_json()
        {'type': 'builtins.ValueError', 'message': 'no such day', 'where': None}
        """
        return {"type": self.type, "message": self.message, "where": self.where}

    @classmethod
    def from_json(cls, shown: Mapping[str, object], live: BaseException | None = None) -> ErrorInfo:
        """What `to_json` showed; `live`: the exception itself, if it is still there."""
        where = shown.get("where")
        place = None if where is None else str(where)
        return cls(str(shown["type"]), str(shown["message"]), None, live, place)


def _said(error: BaseException) -> str:
    """`str(error)`; that is the user's code, and may fail, too."""
    try:
        return _text(str(error))
    except Exception as broken:
        return f"(str() of it raised {type(broken).__name__})"


def _text(said: str) -> str:
    """Half surrogate pairs, as of file names that are no UTF-8, are no text for any store."""
    return said.encode("utf-8", "backslashreplace").decode()


RAISED_AT = "__raised_at__"
"""The attribute in which an exception that was raised in another process brings along where."""

_OURS = os.path.dirname(__file__).replace("\\", "/") + "/"
_PYTHON = os.path.dirname(os.__file__).replace("\\", "/") + "/"


def where_raised(error: BaseException) -> str | None:
    """The innermost line on an exception's way that is the user's own: not stepwell's, nor
    Python's, nor, if there is any other, a library's. None when there is no such line.

    >>> try:
    ...     int("one")
    ... except ValueError as error:
    ...     print(where_raised(error))  # doctest: +ELLIPSIS
    <doctest ...>:2 in <module>
    """
    found, best = None, 0
    step = error.__traceback__
    while step is not None:
        owner = _owner(step.tb_frame.f_code.co_filename)
        if owner and owner >= best:
            found, best = step, owner
        step = step.tb_next
    if found is None:
        return vars(error).get(RAISED_AT)
    frame = found.tb_frame
    path = frame.f_code.co_filename.replace("\\", "/")
    # As much of the path as the module's name has parts: no word of where it is installed.
    depth = str(frame.f_globals.get("__name__", "")).count(".") + 1
    depth += path.endswith("/__init__.py")
    file = "/".join(path.split("/")[-depth:])
    said = f"{file[-200:]}:{found.tb_lineno} in {frame.f_code.co_name[:100]}"
    return "".join(c if c.isprintable() else "?" for c in said)


def _owner(path: str) -> int:
    """Whose a file is: 0 stepwell's or Python's, 1 a library's, 2 the user's."""
    path = path.replace("\\", "/")
    if path.startswith((_OURS, "<frozen")):
        return 0
    if "/site-packages/" in path or "/dist-packages/" in path:
        return 1
    return 0 if path.startswith(_PYTHON) else 2


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
