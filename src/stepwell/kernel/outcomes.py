"""What an attempt of a step may return: a closed set, the same for every authoring style.

A `Message` is what travels between steps. The kernel reads its tag and where it wants to go; the
payload is opaque (a live object; the shell knows how to write it down).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from stepwell.values import ErrorInfo, Json, RunStatus


@dataclass(slots=True)
class Message:
    """A typed message. `to` sends it to that step alone; `kinds` are the tags of its bases, for
    steps that accept subclasses. `data` is the shell's note of how the payload is written down."""

    tag: str
    payload: object
    to: str | None = None
    kinds: tuple[str, ...] = ()
    data: str | None = field(default=None, repr=False, compare=False)


@dataclass(slots=True)
class Failure:
    """The payload of the message that an error handler receives."""

    step: str
    input: Message | tuple[Message, ...]
    error: ErrorInfo
    attempts: int
    elapsed: float
    failed_at: float


@dataclass(slots=True)
class ChildResult:
    """The payload of the answer when a child run has ended. `state` is the child's own state, for
    programs that show it."""

    run: str
    status: RunStatus
    result: Message | None = None
    error: ErrorInfo | None = None
    workflow: str = ""
    state: Json = None


@dataclass(slots=True)
class Emit:
    """Go on with these messages. With `stream` they are the members of a new stream, which the
    joins named by the step's `collectors` gather."""

    messages: tuple[Message, ...] = ()
    stream: bool = False


@dataclass(slots=True)
class Goto:
    """Go to a step with this message."""

    step: str
    message: Message


@dataclass(slots=True)
class Sleep:
    """Go to a step with this message, `seconds` from now."""

    seconds: float
    step: str
    message: Message


@dataclass(slots=True)
class WaitFor:
    """Nothing is to be done until a message with this tag arrives; then go with it to `then`
    (None: the run completes with `message`). After `timeout` seconds go to `on_timeout` with
    `message`, or, without one, fail the run."""

    tag: str
    message: Message
    then: str | None = None
    where: Mapping[str, Json] | None = None
    timeout: float | None = None
    on_timeout: str | None = None


@dataclass(slots=True)
class Spawn:
    """Start a child run of `workflow` with `message`; when it ends, however it ends, go to `then`
    with a message whose payload is a `ChildResult`. `id` is the child's, derived when None; `held`
    is kept with the wait, to say whose it is."""

    workflow: str
    message: Message
    then: str
    id: str | None = None
    held: Message | None = None


@dataclass(slots=True)
class Complete:
    """The run is done and this is its result. In the exit scope: clean-up is done."""

    result: Message


@dataclass(slots=True)
class Fail:
    """The attempt failed. `retry_after` is what the retry policy said: seconds until the next
    attempt, or None to give up. `final` failures also pass by the step's error handler (a
    workflow's own decision to fail the run). `passed` is the failure of another step that an error
    handler passes on: it is that step which has failed then."""

    error: ErrorInfo
    retry_after: float | None = None
    final: bool = False
    passed: Failure | None = None


Outcome: TypeAlias = Emit | Goto | Sleep | WaitFor | Spawn | Complete | Fail
