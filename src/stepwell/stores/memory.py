"""A store in plain dicts: the contract of `stores.base` with nothing around it.

It is for tests, notebooks and runs that may die with their process: one event loop, no threads, no
files, durability "none". No verb awaits anything between its first read and its last write, so each
is atomic because nothing else can run in between; a verb that may refuse looks at everything it
could refuse for before it changes anything.

What it refuses to know is what every store refuses to know: what is in the bytes.
"""

from __future__ import annotations

import builtins
import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from stepwell.errors import (
    LeaseLost,
    RunAlreadyExists,
    StoreCorrupt,
    StoreError,
    StoreUnavailable,
)
from stepwell.stores import cursor
from stepwell.stores.base import (
    Commit,
    Feature,
    JournalRow,
    Loaded,
    MessageRow,
    NewMessage,
    NewRun,
    Page,
    RunFilter,
    RunRow,
    Snapshot,
    WorkerRow,
)
from stepwell.stores.changes import Changes
from stepwell.values import RunStatus


@dataclass(slots=True)
class _Run:
    """A run with all that belongs to it; the only mutable thing here."""

    new: NewRun
    status: RunStatus
    due: float | None
    updated: float
    owner: str | None = None
    fence: int = 0
    ended: float | None = None
    detail: bytes | None = None
    snapshot: Snapshot | None = None
    journal: list[JournalRow] = field(default_factory=list[JournalRow])
    inbox: dict[int, MessageRow] = field(default_factory=dict[int, MessageRow])
    dedupe: set[str] = field(default_factory=set[str])
    blobs: set[str] = field(default_factory=set[str])
    waits: frozenset[str] = frozenset()

    @property
    def claimable(self) -> bool:
        """Whether its status and due time let a worker have it some day (owner aside)."""
        status = self.status
        return self.due is not None and status is not RunStatus.PARKED and not status.terminal

    def wake(self, at: float) -> None:
        """Make it due at `at`, unless it is due earlier."""
        if self.due is None or self.due > at:
            self.due = at

    def row(self) -> RunRow:
        new = self.new
        return RunRow(
            id=new.id,
            workflow=new.workflow,
            version=new.version,
            status=self.status,
            seq=len(self.journal),
            fence=self.fence,
            owner=self.owner,
            due=self.due,
            created=new.at,
            updated=self.updated,
            ended=self.ended,
            key=new.key,
            correlation=new.correlation,
            parent=new.parent,
            priority=new.priority,
            detail=self.detail,
        )


class MemoryStore:
    """Keeps runs in this process's memory, for as long as the object lives.

    >>> import asyncio
    >>> async def main() -> str:
    ...     store = MemoryStore()
    ...     await store.open()
    ...     return await store.create(NewRun(id="r1", workflow="greet", at=0.0))
    >>> asyncio.run(main())
    'r1'
    """

    def __init__(self) -> None:
        self._open = False
        self._runs: dict[str, _Run] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._workers: dict[str, WorkerRow] = {}
        self._blobs: dict[str, bytes] = {}
        self._blob_refs: Counter[str] = Counter()
        self._last_message = 0
        # Kept in step by `_index`: claimable runs without an owner, and runs by owner. They spare
        # `claim` and `inbox` a walk over runs that are over.
        self._free: dict[str, _Run] = {}
        self._owned: dict[str, dict[str, _Run]] = {}
        # Runs by the tags that they wait for; kept in step by `_await`.
        self._awaiting: dict[str, dict[str, _Run]] = {}
        self._changes = Changes()

    @property
    def url(self) -> str:
        """Always "memory://"."""
        return "memory://"

    @property
    def durability(self) -> str:
        """Always "none": nothing survives the process."""
        return "none"

    def supports(self, feature: Feature) -> bool:
        """`verify` only."""
        return feature == "verify"

    async def open(self) -> None:
        """Make the store usable. What it held before `close` is still there."""
        self._open = True

    async def close(self) -> None:
        """Refuse further use and let go of everyone waiting in `changed`."""
        self._open = False
        self._changes.bump()

    # Writing ------------------------------------------------------------------------------------

    async def commit(self, commit: Commit) -> str:
        """See `Store.commit`."""
        self._check_open()
        if commit.create is not None:
            existing = self._existing(commit.create)
            if existing is not None:
                return existing
            self._check_consumed(commit, ())
            run = self._insert(commit.create)
            run.owner, run.fence = commit.worker, 1
        else:
            run = self._runs.get(commit.run)
            if run is None or run.fence != commit.fence or run.owner is None:
                raise LeaseLost(commit.run)
            if run.status.terminal and commit.status is not run.status:
                raise StoreError(f"run {commit.run} has ended as {run.status} and stays so")
            self._check_consumed(commit, run.inbox)
        self._apply(run, commit)
        self._index(run)
        self._changes.bump()
        return run.new.id

    def _apply(self, run: _Run, commit: Commit) -> None:
        """Everything of a commit that has been let in. Must not fail half way."""
        for data in commit.rows:
            run.journal.append(JournalRow(len(run.journal) + 1, commit.at, data))
        for message in commit.consumed:
            del run.inbox[message]
        if commit.snapshot is not None:
            run.snapshot = commit.snapshot
        if commit.detail is not None:
            run.detail = commit.detail
        if commit.release:
            self._disown(run)
        run.status, run.due, run.updated = commit.status, commit.due, commit.at
        if commit.status.terminal:
            run.ended = commit.at if run.ended is None else run.ended
        elif run.inbox:
            run.wake(commit.at)
        if commit.status.terminal:
            self._await(run, ())
        elif commit.waits is not None:
            self._await(run, commit.waits)
        for child in commit.children:
            if child.id not in self._runs and self._key_owner(child) is None:
                self._index(self._insert(child))
        for message in commit.messages:
            self._deliver(message)
        if commit.blobs:
            self._keep_blobs(run, commit)

    def _keep_blobs(self, run: _Run, commit: Commit) -> None:
        """Whoever this commit concerns refers to its blobs: messages and start inputs may name
        them, and the run that sent them may be deleted first."""
        others = {child.id for child in commit.children} | {m.run for m in commit.messages}
        concerned = [run, *(self._runs[id] for id in others if id in self._runs)]
        for digest, data in commit.blobs.items():
            self._blobs.setdefault(digest, data)
            for each in concerned:
                if digest not in each.blobs:
                    each.blobs.add(digest)
                    self._blob_refs[digest] += 1

    async def create(self, run: NewRun) -> str:
        """See `Store.create`."""
        self._check_open()
        existing = self._existing(run)
        if existing is not None:
            return existing
        self._index(self._insert(run))
        self._changes.bump()
        return run.id

    async def send(self, messages: Sequence[NewMessage]) -> list[bool]:
        """See `Store.send`."""
        self._check_open()
        accepted = [self._deliver(message) for message in messages]
        if True in accepted:
            self._changes.bump()
        return accepted

    def _existing(self, run: NewRun) -> str | None:
        """The run that has `run`'s key. The key is looked at before the id, so that creating the
        same run twice is answered alike both times."""
        existing = self._key_owner(run)
        if existing is None and run.id in self._runs:
            raise RunAlreadyExists(run.id)
        return existing

    def _key_owner(self, run: NewRun) -> str | None:
        return None if run.key is None else self._keys.get((run.workflow, run.key))

    def _insert(self, new: NewRun) -> _Run:
        run = _Run(new, new.status, new.due, new.at, ended=new.at if new.status.terminal else None)
        self._runs[new.id] = run
        if new.key is not None:
            self._keys[new.workflow, new.key] = new.id
        if new.start is not None:
            self._deliver(NewMessage(new.id, "start", new.start, new.at))
        return run

    def _deliver(self, message: NewMessage) -> bool:
        run = self._runs.get(message.run)
        if run is None or run.status.terminal or message.dedupe in run.dedupe:
            return False
        if message.dedupe is not None:
            run.dedupe.add(message.dedupe)
        self._last_message += 1
        id = self._last_message
        run.inbox[id] = MessageRow(id, message.kind, message.data, message.at)
        run.wake(message.at)
        self._index(run)
        return True

    def _index(self, run: _Run) -> None:
        id = run.new.id
        if run.owner is not None:
            self._owned.setdefault(run.owner, {})[id] = run
            self._free.pop(id, None)
        elif run.claimable:
            self._free[id] = run
        else:
            self._free.pop(id, None)

    def _await(self, run: _Run, tags: Sequence[str]) -> None:
        """From now on `run` waits for messages with these tags and no others."""
        wanted = frozenset(tags)
        for tag in run.waits - wanted:
            del self._awaiting[tag][run.new.id]
            if not self._awaiting[tag]:
                del self._awaiting[tag]
        for tag in wanted - run.waits:
            self._awaiting.setdefault(tag, {})[run.new.id] = run
        run.waits = wanted

    def _disown(self, run: _Run) -> None:
        owner, run.owner = run.owner, None
        if owner is not None and (owned := self._owned.get(owner)) is not None:
            owned.pop(run.new.id, None)
            if not owned:
                del self._owned[owner]

    # Workers and claims -------------------------------------------------------------------------

    async def register(self, worker: WorkerRow) -> None:
        """See `Store.register`."""
        self._check_open()
        self._workers[worker.id] = worker

    async def unregister(self, worker: str) -> None:
        """See `Store.unregister`."""
        self._check_open()
        self._workers.pop(worker, None)
        for run in [*self._owned.get(worker, {}).values()]:
            self._disown(run)
            self._index(run)
        self._changes.bump()

    async def workers(self) -> builtins.list[WorkerRow]:
        """See `Store.workers`."""
        self._check_open()
        return [*self._workers.values()]

    def _gone(self, worker: str, now: float, dead: Sequence[str]) -> bool:
        """Whether what `worker` owns is there for the taking."""
        row = self._workers.get(worker)
        return row is None or row.until <= now or worker in dead

    def _unowned(self, now: float, dead: Sequence[str] = (), but: str = "") -> Iterable[_Run]:
        yield from self._free.values()
        for owner, owned in self._owned.items():
            if owner != but and self._gone(owner, now, dead):
                yield from (run for run in owned.values() if run.claimable)

    async def claim(
        self,
        worker: str,
        workflows: Sequence[str],
        now: float,
        limit: int,
        dead: Sequence[str] = (),
    ) -> builtins.list[RunRow]:
        """See `Store.claim`."""
        self._check_open()
        known = frozenset(workflows)
        ready = [
            (-run.new.priority, run.due, run.new.at, run.new.id)
            for run in self._unowned(now, dead, but=worker)
            if run.due is not None and run.due <= now and run.new.workflow in known
        ]
        best = heapq.nsmallest(limit, ready)
        return [self._take(self._runs[id], worker) for *_, id in best]

    async def claim_one(
        self, worker: str, run: str, now: float, dead: Sequence[str] = ()
    ) -> RunRow | None:
        """See `Store.claim_one`."""
        self._check_open()
        found = self._runs.get(run)
        if found is None or found.owner == worker:
            return None
        if found.owner is not None and not self._gone(found.owner, now, dead):
            return None
        return self._take(found, worker)

    def _take(self, run: _Run, worker: str) -> RunRow:
        self._disown(run)
        run.owner = worker
        run.fence += 1
        self._index(run)
        return run.row()

    async def next_due(self, workflows: Sequence[str], now: float) -> float | None:
        """See `Store.next_due`."""
        self._check_open()
        known = frozenset(workflows)
        dues = (run.due for run in self._unowned(now) if run.new.workflow in known)
        return min((due for due in dues if due is not None), default=None)

    # Reading ------------------------------------------------------------------------------------

    async def load(self, run: str) -> Loaded | None:
        """See `Store.load`."""
        self._check_open()
        found = self._runs.get(run)
        if found is None:
            return None
        after = 0 if found.snapshot is None else found.snapshot.seq
        inbox = [*found.inbox.values()]
        return Loaded(found.row(), found.snapshot, found.journal[after:], inbox)

    async def load_many(self, runs: Sequence[str]) -> builtins.list[Loaded]:
        """See `Store.load_many`."""
        loaded = [await self.load(run) for run in runs]
        return [each for each in loaded if each is not None]

    async def inbox(self, worker: str) -> builtins.list[str]:
        """See `Store.inbox`."""
        self._check_open()
        return [id for id, run in self._owned.get(worker, {}).items() if run.inbox]

    async def messages(self, run: str, after: int = 0) -> builtins.list[MessageRow]:
        """See `Store.messages`."""
        self._check_open()
        found = self._runs.get(run)
        return [] if found is None else [m for m in found.inbox.values() if m.id > after]

    async def get(self, run: str) -> RunRow | None:
        """See `Store.get`."""
        self._check_open()
        found = self._runs.get(run)
        return None if found is None else found.row()

    async def find(self, workflow: str, key: str) -> str | None:
        """See `Store.find`."""
        self._check_open()
        return self._keys.get((workflow, key))

    async def list(self, where: RunFilter) -> Page:
        """See `Store.list`."""
        self._check_open()
        below = None if where.after is None else cursor.decode(where.after)
        looked = self._runs if where.waiting is None else self._awaiting.get(where.waiting, {})
        found = (
            (run.new.at, run.new.id)
            for run in looked.values()
            if (where.workflow is None or run.new.workflow == where.workflow)
            and (where.status is None or run.status in where.status)
            and (where.parent is None or run.new.parent == where.parent)
            and (where.correlation is None or run.new.correlation == where.correlation)
            and (where.since is None or run.new.at >= where.since)
            and (below is None or (run.new.at, run.new.id) < below)
        )
        newest = heapq.nlargest(where.limit + 1, found)
        page, more = newest[: where.limit], len(newest) > where.limit
        rows = [self._runs[id].row() for _, id in page]
        return Page(rows, cursor.encode(*page[-1]) if more and page else None)

    async def counts(self) -> dict[tuple[str, RunStatus], int]:
        """See `Store.counts`."""
        self._check_open()
        return dict(Counter((run.new.workflow, run.status) for run in self._runs.values()))

    async def read(self, run: str, after: int = 0, limit: int = 1000) -> builtins.list[JournalRow]:
        """See `Store.read`."""
        self._check_open()
        found = self._runs.get(run)
        start = max(after, 0)
        return [] if found is None else found.journal[start : start + limit]

    async def blob(self, digest: str) -> bytes:
        """See `Store.blob`."""
        self._check_open()
        try:
            return self._blobs[digest]
        except KeyError:
            raise StoreCorrupt(f"the payload {digest} is not in {self.url}") from None

    # Housekeeping -------------------------------------------------------------------------------

    async def delete(self, runs: Sequence[str]) -> int:
        """See `Store.delete`."""
        self._check_open()
        deleted = 0
        for id in runs:
            run = self._runs.get(id)
            if run is None or not run.status.terminal:
                continue
            self._disown(run)
            del self._runs[id]
            if run.new.key is not None:
                del self._keys[run.new.workflow, run.new.key]
            for digest in run.blobs:
                self._blob_refs[digest] -= 1
                if not self._blob_refs[digest]:
                    del self._blob_refs[digest], self._blobs[digest]
            deleted += 1
        if deleted:
            self._changes.bump()
        return deleted

    async def expired(self, ended_before: float, limit: int) -> builtins.list[str]:
        """See `Store.expired`."""
        self._check_open()
        ended = (
            (run.ended, id)
            for id, run in self._runs.items()
            if run.ended is not None and run.ended < ended_before
        )
        return [id for _, id in heapq.nsmallest(limit, ended)]

    async def changed(self, timeout: float) -> None:
        """See `Store.changed`."""
        self._check_open()
        await self._changes.wait(timeout)

    async def backup(self, path: str) -> None:
        """Not supported: raises `StoreError`. Use a SQLite store for runs worth keeping."""
        raise StoreError(f"{self.url} cannot be backed up to {path}; use a SQLite store")

    async def verify(self) -> builtins.list[str]:
        """See `Store.verify`."""
        self._check_open()
        faults: builtins.list[str] = []
        for id, run in self._runs.items():
            if [row.seq for row in run.journal] != [*range(1, len(run.journal) + 1)]:
                faults.append(f"run {id}: its journal rows are not numbered 1, 2, 3, ...")
            if run.snapshot is not None and run.snapshot.seq > len(run.journal):
                faults.append(f"run {id}: its snapshot is of row {run.snapshot.seq}, after its end")
            missing = sorted(run.blobs - self._blobs.keys())
            faults.extend(f"run {id}: its payload {digest} is missing" for digest in missing)
        return faults

    def _check_open(self) -> None:
        if not self._open:
            raise StoreUnavailable(f"{self.url} is not open; await store.open() first")

    @staticmethod
    def _check_consumed(commit: Commit, inbox: Iterable[int]) -> None:
        """A message is consumed once: taking it in again means that a turn is being repeated."""
        missing = {*commit.consumed} - {*inbox} if commit.consumed else None
        if missing:
            raise StoreError(
                f"run {commit.run}: message {min(missing)} is not in its inbox;"
                " it was consumed by an earlier commit"
            )
