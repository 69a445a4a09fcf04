"""What was done how often: by the log of the world outside, and by the journal of the run.

The two are kept by different hands, so each can prove the other wrong.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from stepwell.demo.outside import Call
from stepwell.demo.research import BOOKS, Book
from stepwell.kernel.journal import AttemptFailed, Entry, WaitOpened, WorkAdded, WorkDone
from stepwell.kernel.outcomes import Message


@dataclass
class Work:
    """One piece of work: a step, and for `read` the book.

    Attributes:
        began: how often its body was entered.
        fetched, asked, done_outside: calls of the library; calls of what costs money or paper;
            how many of those did something.
        failed: attempts that failed and were tried again.
        results: results in the journal.
        keys: the idempotency keys its bodies had.
        early: whether its result was in the journal before the kill.
    """

    step: str
    of: str
    began: list[int] = field(default_factory=list[int])
    fetched: int = 0
    asked: int = 0
    done_outside: int = 0
    failed: int = 0
    results: int = 0
    keys: set[str] = field(default_factory=set[str])
    early: bool = False


def finished(entries: Sequence[Entry]) -> Counter[str]:
    """How many results each piece of work has in the journal, by what it is about."""
    names = _names(entries)
    return Counter(names[entry.id] for entry in entries if isinstance(entry, WorkDone))


def survey(before: Sequence[Entry], entries: Sequence[Entry], calls: Sequence[Call]) -> list[Work]:
    """All pieces of work, in the order in which they came into the journal.

    Args:
        before: the journal as it was when the worker was dead.
        entries: the journal now.
        calls: the log.
    """
    names = _names(entries)
    found = {of: Work("read" if of in _TITLES else of, of) for of in dict.fromkeys(names.values())}
    for of, number in finished(entries).items():
        found[of].results = number
    for of in finished(before):
        found[of].early = True
    for entry in entries:
        if isinstance(entry, AttemptFailed):
            found[names[entry.id]].failed += 1
    for call in calls:
        work = found["publish" if call.what == "print" else call.of]
        work.keys.add(call.key)
        match call.what:
            case "began":
                work.began.append(call.pid)
            case "fetch":
                work.fetched += 1
            case _:
                work.asked += 1
                work.done_outside += call.fresh
    return list(found.values())


_TITLES = frozenset(book.title for book in BOOKS)


def _names(entries: Sequence[Entry]) -> dict[int, str]:
    names: dict[int, str] = {}
    for entry in entries:
        if isinstance(entry, WorkAdded):
            message = entry.message
            payload = message.payload if isinstance(message, Message) else None
            names[entry.id] = payload.title if isinstance(payload, Book) else entry.step
    return names


def verdicts(
    works: Sequence[Work],
    entries: Sequence[Entry],
    result: object,
    title: str,
    killed: tuple[int, int],
) -> list[tuple[bool, str]]:
    """Every claim of the demonstration, and whether it holds.

    Args:
        works: from `survey`.
        entries: the journal.
        result: what the run gave.
        title: what the person answered.
        killed: process id and return code of the worker that was killed.
    """
    pid, code = killed
    repeated = [w for w in works if pid in w.began and set(w.began) != {pid}]
    early = [w for w in works if w.early]
    asked = sum(isinstance(e, WaitOpened) and e.question is not None for e in entries)
    words = sum(book.words for book in BOOKS)
    wanted = {"title": title, "notes": len(BOOKS), "words": words}
    return [
        (code == -getattr(signal, "SIGKILL", code), f"worker {pid} was killed: exit code {code}"),
        (bool(repeated), f"{len(repeated)} bodies were cut off, and began again elsewhere"),
        (
            bool(early) and all(set(w.began) == {pid} for w in early),
            f"{len(early)} steps had committed before the kill: none began again",
        ),
        (
            all(w.results == 1 for w in works),
            f"each of the {len(works)} pieces of work has just one result in the journal",
        ),
        (
            all(len(w.keys) == 1 for w in works)
            and len({k for w in works for k in w.keys}) == len(works),
            "one piece of work, one idempotency key, also after the crash",
        ),
        (
            all(w.fetched == 1 for w in works if w.step == "read"),
            "what ctx.memo() had kept was not done again: each book fetched once",
        ),
        (
            all(w.done_outside == 1 for w in works if w.asked),
            "asked twice with one key, done once: each book paid for once",
        ),
        (
            [w.failed for w in works if w.failed] == [1],
            "the step that failed was tried again, once",
        ),
        (asked == 1, "the question was asked once"),
        (
            result == wanted,
            f"the state has every book once: {words} words; the title is as given",
        ),
    ]
