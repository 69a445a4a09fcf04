"""The `Store` protocol: the narrow waist between the engine and whatever keeps its rows.

A store keeps rows and bytes. It knows what a run row, a journal row, an inbox message and a lease
are; it does not know what is in the bytes, what a step is, or what a workflow wants. Every decision
is the kernel's; a store only promises that

* a **commit** is atomic and fenced: all of it is kept, or none of it, and none of it when the run
  has been claimed by someone else since, or let go of (`LeaseLost`);
* a run that has **ended** stays as it ended: a commit that says otherwise raises `StoreError`;
* what a commit acknowledged survives what the store's `durability` says it survives;
* journal rows of a run are numbered 1, 2, 3, ... without gaps, and never change;
* bytes come back as they were given; except in blobs they are UTF-8 text, so that whoever opens the
  database can read it;
* a **message** (start input, signal, child's end, cancel request) is kept until the commit that
  says it was consumed, and is consumed by exactly one commit;
* a **claim** gives a run to one worker at a time.

When is a run claimable? When it is not terminal and not parked, its `due` is not None and
`due <= now`, its workflow is one the worker knows, and it has no owner or its owner's lease is over
(`worker.until <= now`; a worker that is not registered has no lease) or its owner is known to be
dead. `due` is the earliest time at which
someone must advance the run; it is meaningful for owned runs too (a running run has a `due` in the
past), so when a worker dies nothing has to be computed: what it left running is due, what it left
waiting is due when its timer is. A message makes its run due at once, and keeps it due until a
commit consumes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from stepwell.values import RunStatus

Feature = Literal["persistent", "multiprocess", "backup", "verify"]


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to be created.

    `start` (the encoded start input), when given, is put into the new run's inbox as a message of
    kind "start"; a run that its creator claims at once has it in its first journal row instead.
    `due` None means that nobody advances it until a message arrives.
    """

    id: str
    workflow: str
    at: float
    version: str = ""
    status: RunStatus = RunStatus.QUEUED
    due: float | None = 0.0
    start: bytes | None = None
    key: str | None = None
    correlation: str | None = None
    parent: str | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as the store shows it. Times are seconds since the epoch, UTC."""

    id: str
    workflow: str
    version: str
    status: RunStatus
    seq: int
    fence: int
    owner: str | None
    due: float | None
    created: float
    updated: float
    ended: float | None
    key: str | None
    correlation: str | None
    parent: str | None
    priority: int
    detail: bytes | None


@dataclass(frozen=True, slots=True)
class JournalRow:
    """One commit's worth of journal entries, as bytes."""

    seq: int
    at: float
    data: bytes


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message for a run's inbox. `dedupe`, when given, makes a second one with the same run and
    dedupe value a no-op for ever, also after the first was consumed."""

    run: str
    kind: str
    data: bytes
    at: float
    dedupe: str | None = None


@dataclass(frozen=True, slots=True)
class MessageRow:
    """A message that has not been consumed. `id` grows in order of acceptance."""

    id: int
    kind: str
    data: bytes
    at: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A cached fold of the journal up to and including row `seq`."""

    seq: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Commit:
    """All that one turn of a run changes; kept whole or not at all.

    Args:
        run, fence: the claim under which the turn ran. A stale fence raises `LeaseLost`.
        at: the time of the commit, seconds since the epoch.
        rows: journal data to append, in order; each becomes one `JournalRow` (seq + 1, ...).
        status: the run's status from now on.
        due: see the module's text.
            A commit that leaves status and due as they were is the cheapest.
        release: give up the claim (owner becomes None) in the same transaction.
        detail: JSON that says what the run waits for, why it is parked or how it ended; None keeps
            what is there.
        consumed: ids of inbox messages that this turn took in. One that is not in the run's inbox
            was consumed before: `StoreError`, and nothing is kept.
        messages: for other runs; dropped when the run is not there (it was deleted) or terminal.
        children: runs to create; when the id, or the (workflow, key), is taken already, what is
            there is left alone (a repeated turn).
        blobs: big payloads by content hash (`stores.digests.digest_of`); those that are there
            already are left alone. The run, its new children and the receivers of its messages
            refer to them from now on.
        snapshot: replaces the run's snapshot.
        create: this is the first commit of a run that the committer creates and claims for itself
            (`fence` is then 1). The store raises `RunAlreadyExists` when the id is taken, and
            keeps nothing, answering with the existing run's id, when (workflow, key) is taken
            (which is looked at first). Its `status` and `due` are those of the commit.
        worker: who commits; becomes the owner on `create`.
        waits: the distinct tags of the messages from outside that the run waits for from now on;
            None leaves what is there. A terminal commit clears it.
    """

    run: str
    fence: int
    at: float
    status: RunStatus
    due: float | None
    worker: str
    rows: Sequence[bytes] = ()
    release: bool = False
    detail: bytes | None = None
    consumed: Sequence[int] = ()
    messages: Sequence[NewMessage] = ()
    children: Sequence[NewRun] = ()
    blobs: dict[str, bytes] = field(default_factory=dict[str, bytes])
    snapshot: Snapshot | None = None
    create: NewRun | None = None
    waits: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a turn starts from: the row, the latest snapshot, the journal rows after it, and the
    unread messages in order of acceptance. All four are of one moment."""

    row: RunRow
    snapshot: Snapshot | None
    rows: Sequence[JournalRow]
    messages: Sequence[MessageRow]


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker process: `until` is when its lease ends; `host` and `pid` say where it runs."""

    id: str
    host: str
    pid: int
    until: float
    workflows: Sequence[str]


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs to list. None means any. `after` is the id-cursor of the previous page
    (`created, id` of its last row, as `Page.cursor` gave it). `waiting`: only runs that wait for a
    message with this tag, as their last `Commit.waits` said. Newest first."""

    workflow: str | None = None
    status: Sequence[RunStatus] | None = None
    parent: str | None = None
    correlation: str | None = None
    since: float | None = None
    limit: int = 50
    after: str | None = None
    waiting: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing; `cursor` is None on the last page."""

    rows: Sequence[RunRow]
    cursor: str | None


class Store(Protocol):
    """Keeps runs. Every verb is safe to call from one event loop by many tasks at once; verbs that
    write return when what they wrote is as durable as `durability` says. All raise `StoreError`s;
    `StoreUnavailable` before `open` and after `close`. A caller that is cancelled while it waits
    for a write does not know whether it was kept.
    """

    @property
    def url(self) -> str:
        """What to print: where the data is, without secrets."""
        ...

    @property
    def durability(self) -> str:
        """What a commit survives: "none", "process" or "power"."""
        ...

    def supports(self, feature: Feature) -> bool:
        """Whether the store has `feature`."""
        ...

    async def open(self) -> None:
        """Connect, and create or migrate the schema. Raises `StoreVersionError` when the data was
        written by a newer release, `StoreUnavailable` when it can't be reached. Idempotent."""
        ...

    async def close(self) -> None:
        """Finish accepted writes, release every thread, file and connection. Idempotent."""
        ...

    async def commit(self, commit: Commit) -> str:
        """Keep `commit` atomically. Returns the run's id (of the existing run when `create`'s key
        was taken). Raises `LeaseLost` when the fence is stale or nobody owns the run (its claim was
        given up), `RunAlreadyExists`, and `StoreError` when the run has ended with another status
        than the commit's."""
        ...

    async def create(self, run: NewRun) -> str:
        """Create an unclaimed run. Returns its id, or the id of the existing run with the same
        (workflow, key). Raises `RunAlreadyExists` when the id is taken."""
        ...

    async def send(self, messages: Sequence[NewMessage]) -> list[bool]:
        """Put messages into inboxes and make their runs due, all in one transaction. False for a
        run that does not exist, is terminal, or has had this dedupe value before."""
        ...

    async def register(self, worker: WorkerRow) -> None:
        """Announce a worker or renew its lease (also changes its workflows)."""
        ...

    async def unregister(self, worker: str) -> None:
        """Forget a worker and release all it owns (owner becomes None, due stays)."""
        ...

    async def workers(self) -> list[WorkerRow]:
        """All announced workers, also those whose lease is over."""
        ...

    async def claim(
        self,
        worker: str,
        workflows: Sequence[str],
        now: float,
        limit: int,
        dead: Sequence[str] = (),
    ) -> list[RunRow]:
        """Claim up to `limit` claimable runs, highest priority first, then by due time, then in
        order of creation: owner becomes `worker`, fence grows by one. `dead` names workers known to
        be dead although their lease may not be over. Never gives a run that `worker` itself owns
        already."""
        ...

    async def claim_one(
        self, worker: str, run: str, now: float, dead: Sequence[str] = ()
    ) -> RunRow | None:
        """Claim this run whatever its due time or status (parked and terminal ones too), unless a
        live worker (or `worker` itself) owns it: then None, as for a run that does not exist."""
        ...

    async def next_due(self, workflows: Sequence[str], now: float) -> float | None:
        """When the next unparked, live run of these workflows that nobody with a lease owns is due;
        None if never."""
        ...

    async def load(self, run: str) -> Loaded | None:
        """All a turn needs, or None when there is no such run."""
        ...

    async def load_many(self, runs: Sequence[str]) -> list[Loaded]:
        """`load` for many runs at once; runs that do not exist are left out."""
        ...

    async def inbox(self, worker: str) -> list[str]:
        """Ids of the runs owned by `worker` which have unread messages."""
        ...

    async def messages(self, run: str, after: int = 0) -> list[MessageRow]:
        """In order of acceptance: the unread messages of a run with ids above `after`."""
        ...

    async def get(self, run: str) -> RunRow | None:
        """The run's row."""
        ...

    async def find(self, workflow: str, key: str) -> str | None:
        """The id of the run with this idempotency key."""
        ...

    async def list(self, where: RunFilter) -> Page:
        """Rows by filter, newest first (created, then id, descending), keyset-paged."""
        ...

    async def counts(self) -> dict[tuple[str, RunStatus], int]:
        """How many runs there are by (workflow, status)."""
        ...

    async def read(self, run: str, after: int = 0, limit: int = 1000) -> list[JournalRow]:
        """Journal rows with seq > after, in order."""
        ...

    async def blob(self, digest: str) -> bytes:
        """A big payload. Raises `StoreCorrupt` when it is missing."""
        ...

    async def delete(self, runs: Sequence[str]) -> int:
        """Delete whole terminal runs with all that belongs to them, atomically; returns how many.
        Blobs that nobody refers to any more go too."""
        ...

    async def expired(self, ended_before: float, limit: int) -> list[str]:
        """Ids of terminal runs that ended before a time, oldest first (for retention)."""
        ...

    async def changed(self, timeout: float) -> None:
        """Return as soon as another process or task may have changed something since the last
        call (a run, a message, a journal row), or after `timeout` seconds; may return early.
        "The last call" is the same task's: watch from one task for as long as you watch."""
        ...

    async def backup(self, path: str) -> None:
        """Write a consistent copy that can be opened as a store. Needs `supports("backup")`; raises
        `StoreError` without it, and when something is at `path` already."""
        ...

    async def verify(self) -> list[str]:
        """Check the data; returns a sentence per fault found, empty when it is sound."""
        ...
