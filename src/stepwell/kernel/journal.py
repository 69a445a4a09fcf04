"""What was decided, in order: a closed set of entries. Folding them gives the run.

An entry states a fact completely: `evolve` needs nothing but the entry and the run. Fields may be
added at the end with a default; their order and meaning never change, because journals outlive
releases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from stepwell.kernel.outcomes import Message
from stepwell.values import ErrorInfo, Json, RunStatus


@dataclass(slots=True)
class RunStarted:
    """The run exists and is alive until `deadline`."""

    at: float
    deadline: float | None = None


@dataclass(slots=True)
class WorkAdded:
    """`step` owes one run with this input (None: what the join released just before); `begun` says
    that its first attempt starts now. `not_before` holds it back until then."""

    id: int
    step: str
    message: Message | tuple[Message, ...] | None
    begun: bool
    at: float
    deadline: float | None = None
    stream: int = 0
    index: int = 0
    recoveries: Mapping[str, int] | None = None
    not_before: float | None = None


@dataclass(slots=True)
class WorkBegun:
    """A queued piece of work takes a worker slot: its next attempt starts, or, when it was waiting,
    its attempt goes on."""

    id: int
    at: float
    deadline: float | None = None


@dataclass(slots=True)
class WorkDone:
    """The step's work is finished and forgotten."""

    id: int


@dataclass(slots=True)
class WorkQueued:
    """Delayed work is due and waits for a worker slot."""

    id: int
    at: float


@dataclass(slots=True)
class AttemptFailed:
    """An attempt failed; the next one starts at `retry_at`. None: there is none."""

    id: int
    error: ErrorInfo
    at: float
    retry_at: float | None = None


@dataclass(slots=True)
class AttemptExpired:
    """A running attempt has had all the time its step allows; its failure follows."""

    id: int
    at: float


@dataclass(slots=True)
class Joined:
    """A message waits in a slot of a join, at a stream level."""

    step: str
    stream: int
    slot: int
    index: int
    message: Message
    recoveries: Mapping[str, int] | None = None


@dataclass(slots=True)
class JoinReleased:
    """A join gave its members away: one of each slot, or, when it is `over`, all it will ever
    give at this stream level; `by_index` in the order of the list that opened the stream. The work
    that is added next gets them, so they stand in the journal once."""

    step: str
    stream: int
    over: bool = False
    by_index: bool = False


@dataclass(slots=True)
class StreamOpened:
    """A stream begins, inside stream `parent` (0: the run itself)."""

    id: int
    parent: int
    index: int
    collectors: tuple[str, ...]
    recoveries: Mapping[str, int] | None = None


@dataclass(slots=True)
class StreamClosed:
    """Nothing can come from this stream any more."""

    id: int


@dataclass(slots=True)
class WaitOpened:
    """Something is waited for: by a live attempt (`work`, `key`), or by the run, which then goes
    on at `then` / `on_timeout`, in the stream that it was in."""

    id: str
    at: float
    work: int = 0
    key: str = ""
    tag: str | None = None
    where: Mapping[str, Json] | None = None
    due: float | None = None
    question: Message | None = None
    then: str | None = None
    on_timeout: str | None = None
    message: Message | None = None
    stream: int = 0
    index: int = 0
    recoveries: Mapping[str, int] | None = None


@dataclass(slots=True)
class WaitEnded:
    """A wait got its answer, or ran out of time; or a child has ended that an attempt had waited
    for, and its next attempt may ask for."""

    id: str
    work: int = 0
    answer: Message | None = None
    timed_out: bool = False


@dataclass(slots=True)
class WaitDropped:
    """An attempt went on without the answer. Without another wait its body is busy again, in a
    worker slot, whether or not one was free. `cancel` names the child run nobody waits for now."""

    id: str
    work: int
    at: float
    deadline: float | None = None
    cancel: tuple[str, ...] = ()


@dataclass(slots=True)
class ChildStarted:
    """A child run is to be started; its end answers the wait with the child's id."""

    id: str
    workflow: str
    message: Message


@dataclass(slots=True)
class AnswerKept:
    """An attempt's value under `key`, for the case that it must start anew."""

    work: int
    key: str
    value: object


@dataclass(slots=True)
class BufferGathered:
    """A buffer of a step took `message` in and gave the members `taken` (their numbers) to `work`
    under `key`."""

    work: int
    key: str
    step: str
    buffer: str
    message: Message
    taken: tuple[int, ...] | None = None


@dataclass(slots=True)
class Digested:
    """An attempt has sent (or written to the stream) what has these digests."""

    work: int
    digests: Sequence[int]


@dataclass(slots=True)
class Published:
    """Messages for the readers of the run's stream."""

    messages: Sequence[Message]
    work: int | None = None


@dataclass(slots=True)
class Unhandled:
    """Nobody took this message; when it came from outside it is kept for a later wait."""

    message: Message
    kept: bool = False
    wait: str | None = None


@dataclass(slots=True)
class StateEdited:
    """The user's state changed by this JSON patch."""

    edits: Sequence[Json]


@dataclass(slots=True)
class StateKept:
    """Others have built upon what a live attempt of `work` wrote, and that is kept with theirs: of
    each field so many writes. The attempt, when it starts again, does not make them again."""

    work: int
    writes: Mapping[str, int]


@dataclass(slots=True)
class InboxTaken:
    """A kept message is used by a wait."""

    slot: str
    position: int = 0


@dataclass(slots=True)
class ScopeEntered:
    """Normal work is over; clean-up begins. How the run will end is settled."""

    scope: Literal["error", "exit"]
    status: RunStatus
    result: Message | None = None
    error: ErrorInfo | None = None
    step: str | None = None
    cancel: tuple[str, ...] = ()
    attempts: int = 0
    elapsed: float = 0.0


@dataclass(slots=True)
class RunEnded:
    """The run is over. `cancel` names child runs that are to be cancelled; `step` the one whose
    failure ended it, after `attempts` and `elapsed` seconds."""

    status: RunStatus
    at: float
    result: Message | None = None
    error: ErrorInfo | None = None
    step: str | None = None
    cancel: tuple[str, ...] = ()
    attempts: int = 0
    elapsed: float = 0.0


@dataclass(slots=True)
class RunParked:
    """A person is needed."""

    reason: str
    at: float


@dataclass(slots=True)
class RunResumed:
    """A worker took the run up again; the run's clock goes on, to `deadline`. `died`: the one
    before did not let go of it on purpose, so it may have died of what was running."""

    at: float
    worker: str = ""
    deadline: float | None = None
    died: bool = True


Entry: TypeAlias = (
    RunStarted
    | WorkAdded
    | WorkBegun
    | WorkDone
    | WorkQueued
    | AttemptFailed
    | AttemptExpired
    | Joined
    | JoinReleased
    | StreamOpened
    | StreamClosed
    | WaitOpened
    | WaitEnded
    | WaitDropped
    | ChildStarted
    | AnswerKept
    | BufferGathered
    | Digested
    | Published
    | Unhandled
    | StateEdited
    | StateKept
    | InboxTaken
    | ScopeEntered
    | RunEnded
    | RunParked
    | RunResumed
)
