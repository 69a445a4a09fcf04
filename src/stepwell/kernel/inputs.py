"""What may happen to a run: a closed set. Time rides on every input (`at`, seconds, UTC)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from stepwell.kernel.outcomes import ChildResult, Message, Outcome
from stepwell.values import Json


@dataclass(slots=True)
class Start:
    """The run begins with this message."""

    at: float
    message: Message


@dataclass(slots=True)
class Attempted:
    """An attempt of `work` ended with this outcome. `edits` are its changes of the run's state;
    `upon` says which writes of other work, that goes on, they contain: so many of each field."""

    at: float
    work: int
    outcome: Outcome
    edits: Sequence[Json] = ()
    upon: Mapping[int, Mapping[str, int]] | None = None


@dataclass(slots=True)
class Arrived:
    """A message came from outside. `wait` answers that wait and no other.

    A message that answers a wait is kept when there is no such wait, for one that may come. With
    `keep` False it is dropped then, and also when it has not the fields that the wait asks for, or
    the wait did not begin at `since`: names of waits come again, what is meant is what was seen.
    """

    at: float
    message: Message
    wait: str | None = None
    keep: bool = True
    since: float | None = None


@dataclass(slots=True)
class Asked:
    """A live attempt waits, under `key`, for a message (`tag`), for time (`timeout` alone), or
    both. `question` is shown to readers of the stream. `wait` names the wait to the outside."""

    at: float
    work: int
    key: str
    wait: str
    tag: str | None = None
    where: Mapping[str, Json] | None = None
    timeout: float | None = None
    question: Message | None = None


@dataclass(slots=True)
class GivenUp:
    """A live attempt does not want any more what it asked for under `key`: its body went on
    without the answer (a time limit of its own, a race that something else won)."""

    at: float
    work: int
    key: str


@dataclass(slots=True)
class Noted:
    """A live attempt got `value` under `key` and is to get it again if it must start anew."""

    at: float
    work: int
    key: str
    value: object


@dataclass(slots=True)
class Gathered:
    """A live attempt adds its event to a buffer of its step, and takes from it what `expected`
    lists (tags, repeated as often as needed) if all of it is there."""

    at: float
    work: int
    key: str
    buffer: str
    message: Message
    expected: tuple[str, ...]


@dataclass(slots=True)
class Sent:
    """A live attempt sends messages before it ends; `digests` tell them from those it had already
    sent when it starts anew."""

    at: float
    work: int
    messages: Sequence[Message]
    digests: Sequence[int] = ()


@dataclass(slots=True)
class Wrote:
    """Messages for the readers of the run's stream; `work` is None when not from a step."""

    at: float
    messages: Sequence[Message]
    work: int | None = None
    digests: Sequence[int] = ()


@dataclass(slots=True)
class Edited:
    """The run's state was edited from outside its steps; `upon` as of `Attempted`."""

    at: float
    edits: Sequence[Json]
    upon: Mapping[int, Mapping[str, int]] | None = None


@dataclass(slots=True)
class ChildAsked:
    """A live attempt starts a child run and waits for its end under `key`."""

    at: float
    work: int
    key: str
    child: str
    workflow: str
    message: Message


@dataclass(slots=True)
class ChildEnded:
    """A child run has ended."""

    at: float
    result: ChildResult


@dataclass(slots=True)
class Due:
    """Time has passed: everything due at or before `at` is to happen."""

    at: float


@dataclass(slots=True)
class CancelAsked:
    """Someone wants the run cancelled."""

    at: float
    reason: str = ""


@dataclass(slots=True)
class ParkAsked:
    """The run can't go on without a person, because of `reason`."""

    at: float
    reason: str


@dataclass(slots=True)
class ResumeAsked:
    """A person says that a parked run may go on."""

    at: float


@dataclass(slots=True)
class Loaded:
    """A worker has taken the run up again after a crash, a release or a resume: attempts that were
    running have to be started anew. `died`: who had it did not let go of it on purpose."""

    at: float
    worker: str
    died: bool = True


Input: TypeAlias = (
    Start
    | Attempted
    | Arrived
    | Asked
    | GivenUp
    | Noted
    | Gathered
    | Sent
    | Wrote
    | Edited
    | ChildAsked
    | ChildEnded
    | Due
    | CancelAsked
    | ParkAsked
    | ResumeAsked
    | Loaded
)
