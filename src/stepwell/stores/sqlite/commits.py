"""The verbs that append: commit, create, send; as jobs of the writer.

The usual commit is two statements: one UPDATE of the run's row, which is at the same time the check
of the fence, and one INSERT of a journal row. To keep the UPDATE away from every index, the last
status and due time written under a fence are remembered here (`_Mark`). A mark is only a guess:
the UPDATE asks for the number, id, fence and seq it was made of, and a mark that does not hit is
read again. What is decided here is what the contract says and nothing else; the bytes stay bytes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from stepwell.errors import LeaseLost, RunAlreadyExists, StoreError
from stepwell.stores.base import Commit, NewMessage, NewRun
from stepwell.stores.sqlite.statements import SQL
from stepwell.values import RunStatus

_FIND_CLAIMED = SQL["find_claimed"]
_ADVANCE = SQL["advance"]
_SETTLE = SQL["settle"]
_RELEASE = SQL["release"]
_WAITED_FOR = SQL["waited_for"]
_WAIT_FOR = SQL["wait_for"]
_WAIT_NO_MORE = SQL["wait_no_more"]
_WAIT_FOR_NOTHING = SQL["wait_for_nothing"]
_APPEND_JOURNAL = SQL["append_journal"]
_CONSUME = SQL["consume"]
_UNREAD = SQL["unread"]
_KEEP_SNAPSHOT = SQL["keep_snapshot"]
_KEEP_BLOB = SQL["keep_blob"]
_REFER_TO_BLOB = SQL["refer_to_blob"]
_INSERT_RUN = SQL["insert_run"]
_FIND_KEY = SQL["find_key"]
_FIND_INBOX = SQL["find_inbox"]
_FIND_NUMBER = SQL["find_number"]
_REMEMBER_DEDUPE = SQL["remember_dedupe"]
_INSERT_MESSAGE = SQL["insert_message"]
_WAKE = SQL["wake"]

# Marks are cheap to make again, so when there are too many they all go.
_MARKS = 10_000
_TERMINAL = frozenset(status for status in RunStatus if status.terminal)


@dataclass(slots=True)
class _Mark:
    """What the row of a claimed run said when this process last wrote or read it."""

    n: int
    fence: int
    seq: int
    status: str
    due: float | None
    waits: bool = True  # whether it may be listed as waiting for something


class Commits:
    """The appending verbs. Belongs to the writer's thread."""

    def __init__(self) -> None:
        self._marks: dict[str, _Mark] = {}

    def forget(self) -> None:
        """Drop every mark: a transaction was rolled back, so some may be wrong."""
        self._marks.clear()

    def commit(self, db: sqlite3.Connection, commit: Commit) -> str:
        """See `Store.commit`. Refuses before its first write."""
        rows = [data.decode() for data in commit.rows]
        if commit.create is not None:
            existing = _find_key(db, commit.create)
            if existing is not None:
                return existing
            mark, seq = self._begin(db, commit.create, commit), 0
        else:
            mark, seq = self._advance(db, commit)
        n = mark.n
        for data in rows:
            seq += 1
            db.execute(_APPEND_JOURNAL, (n, seq, commit.at, data))
        if commit.consumed:
            _consume(db, n, commit)
        if commit.status in _TERMINAL:
            if mark.waits:
                db.execute(_WAIT_FOR_NOTHING, (n,))
        elif commit.waits is not None:
            _await(db, n, commit.waits)
            mark.waits = True
        if commit.snapshot is not None:
            snapshot = commit.snapshot
            db.execute(_KEEP_SNAPSHOT, (n, snapshot.seq, snapshot.data.decode()))
        for child in commit.children:
            self._add_child(db, child)
        for message in commit.messages:
            self._deliver(db, message)
        if commit.blobs:
            _keep_blobs(db, n, commit)
        return commit.run if commit.create is None else commit.create.id

    def _advance(self, db: sqlite3.Connection, commit: Commit) -> tuple[_Mark, int]:
        """Check the fence and move the run's row on; the row as it is now, and the seq it had."""
        mark = self._marks.get(commit.run)
        if mark is None or mark.fence != commit.fence or not self._move(db, mark, commit):
            found = db.execute(_FIND_CLAIMED, (commit.run, commit.fence)).fetchone()
            if found is None:
                self._marks.pop(commit.run, None)
                raise LeaseLost(commit.run)
            n, seq, status, due = found
            if status in _TERMINAL and commit.status != status:
                raise StoreError(f"run {commit.run} has ended as {status} and stays so")
            mark = _Mark(n, commit.fence, seq, status, due)
            self._remember(commit.run, mark)
            if not self._move(db, mark, commit):
                raise LeaseLost(commit.run)
        seq = mark.seq
        mark.seq += len(commit.rows)
        if commit.release or commit.status in _TERMINAL:
            self._marks.pop(commit.run, None)
        return mark, seq

    def _remember(self, run: str, mark: _Mark) -> None:
        if len(self._marks) >= _MARKS:
            self._marks.clear()
        self._marks[run] = mark

    @staticmethod
    def _move(db: sqlite3.Connection, mark: _Mark, commit: Commit) -> bool:
        """The UPDATE of a commit; False when the mark was wrong (nothing is written then)."""
        seq = mark.seq + len(commit.rows)
        where = (mark.n, commit.run, commit.fence, mark.seq)
        status, due, detail, at = commit.status, commit.due, commit.detail, commit.at
        same = status == mark.status and due == mark.due and detail is None
        # A message makes its run due behind the mark's back; whoever consumes it sets that right.
        if same and not commit.release and not commit.consumed:
            return db.execute(_ADVANCE, (seq, at, *where)).rowcount == 1
        terminal = status in _TERMINAL
        if not terminal and (due is None or due > at) and _stays_unread(db, mark.n, commit):
            due = at
        text = None if detail is None else detail.decode()
        values = (seq, at, status, due, terminal, at, text)
        statement = _RELEASE if commit.release else _SETTLE
        if db.execute(statement, (*values, *where)).rowcount != 1:
            return False
        mark.status, mark.due = status, due
        return True

    def _begin(self, db: sqlite3.Connection, new: NewRun, commit: Commit) -> _Mark:
        """The row of a run whose creator claims it at once."""
        owner = None if commit.release else commit.worker
        n = _insert(
            db, new, commit.status, len(commit.rows), 1, owner, commit.due, commit.at, commit.detail
        )
        if n is None:
            raise RunAlreadyExists(new.id)
        if new.start is not None:
            self._deliver(db, NewMessage(new.id, "start", new.start, new.at))
        mark = _Mark(n, 1, len(commit.rows), commit.status, commit.due, waits=False)
        if owner is not None and commit.status not in _TERMINAL:
            self._remember(new.id, mark)
        return mark

    def create(self, db: sqlite3.Connection, new: NewRun) -> str:
        """See `Store.create`."""
        existing = _find_key(db, new)
        if existing is not None:
            return existing
        if not self._add(db, new):
            raise RunAlreadyExists(new.id)
        return new.id

    def _add_child(self, db: sqlite3.Connection, child: NewRun) -> None:
        if _find_key(db, child) is None:
            self._add(db, child)

    def _add(self, db: sqlite3.Connection, new: NewRun) -> bool:
        """An unclaimed run; False when its id is taken."""
        if _insert(db, new, new.status, 0, 0, None, new.due, new.at, None) is None:
            return False
        if new.start is not None:
            self._deliver(db, NewMessage(new.id, "start", new.start, new.at))
        return True

    def send(self, db: sqlite3.Connection, messages: Sequence[NewMessage]) -> list[bool]:
        """See `Store.send`."""
        return [self._deliver(db, message) for message in messages]

    def _deliver(self, db: sqlite3.Connection, message: NewMessage) -> bool:
        found = db.execute(_FIND_INBOX, (message.run,)).fetchone()
        if found is None:
            return False
        n, status, due = found
        if status in _TERMINAL:
            return False
        dedupe = message.dedupe
        if dedupe is not None and not db.execute(_REMEMBER_DEDUPE, (n, dedupe)).rowcount:
            return False
        db.execute(_INSERT_MESSAGE, (n, message.kind, message.data.decode(), message.at))
        if due is None or due > message.at:
            db.execute(_WAKE, (message.at, n))
        return True


def _find_key(db: sqlite3.Connection, new: NewRun) -> str | None:
    """The run that has `new`'s key. The key is looked at before the id, so that creating the same
    run twice is answered alike both times."""
    if new.key is None:
        return None
    found = db.execute(_FIND_KEY, (new.workflow, new.key)).fetchone()
    return None if found is None else found[0]


def _insert(
    db: sqlite3.Connection,
    new: NewRun,
    status: RunStatus,
    seq: int,
    fence: int,
    owner: str | None,
    due: float | None,
    at: float,
    detail: bytes | None,
) -> int | None:
    """The row of a new run; its number, or None when the id is taken."""
    if "\0" in new.id:  # SQLite's JSON, through which loads ask for ids, ends a text there
        raise StoreError(f"a run can't be called {new.id!r}", hint="Leave out what is not text.")
    written = db.execute(
        _INSERT_RUN,
        (
            new.id,
            new.workflow,
            new.version,
            status,
            seq,
            fence,
            owner,
            due,
            new.at,
            at,
            at if status in _TERMINAL else None,
            new.key,
            new.correlation,
            new.parent,
            new.priority,
            None if detail is None else detail.decode(),
        ),
    )
    return written.lastrowid if written.rowcount == 1 else None


def _consume(db: sqlite3.Connection, n: int, commit: Commit) -> None:
    """A message is consumed once: taking it in again means that a turn is being repeated."""
    consumed = {*commit.consumed}
    gone = db.executemany(_CONSUME, [(id, n) for id in consumed]).rowcount
    if gone != len(consumed):
        raise StoreError(
            f"run {commit.run}: {len(consumed) - gone} of the messages {sorted(consumed)} to be"
            " consumed are not in its inbox; an earlier commit consumed them",
            hint="Load the run again; what it has not taken in yet is there.",
        )


def _await(db: sqlite3.Connection, n: int, tags: Sequence[str]) -> None:
    """From now on a run waits for messages with these tags and no others."""
    wanted = {*tags}
    found = {tag for (tag,) in db.execute(_WAITED_FOR, (n,))}
    db.executemany(_WAIT_NO_MORE, [(n, tag) for tag in found - wanted])
    db.executemany(_WAIT_FOR, [(tag, n) for tag in wanted - found])


def _stays_unread(db: sqlite3.Connection, n: int, commit: Commit) -> bool:
    """Whether the run has a message that this commit does not consume."""
    consumed = {*commit.consumed}
    return any(id not in consumed for (id,) in db.execute(_UNREAD, (n,)))


def _keep_blobs(db: sqlite3.Connection, n: int, commit: Commit) -> None:
    """Whoever this commit concerns refers to its blobs: messages and start inputs may name them,
    and the run that sent them may be deleted first."""
    others = {child.id for child in commit.children} | {each.run for each in commit.messages}
    numbers = {n}
    for other in others:
        numbers.update(found for (found,) in db.execute(_FIND_NUMBER, (other,)))
    for digest, data in commit.blobs.items():
        db.execute(_KEEP_BLOB, (digest, len(data), data))
        db.executemany(_REFER_TO_BLOB, [(number, digest) for number in numbers])
