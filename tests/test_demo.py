"""`make demo`: it does what it says, and it would notice if it did not."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from stepwell.demo import outside
from stepwell.demo.audit import survey, verdicts
from stepwell.demo.outside import Call
from stepwell.demo.research import BOOKS, Book
from stepwell.demo.screen import WIDTH, Screen
from stepwell.kernel.journal import AttemptFailed, Entry, WaitOpened, WorkAdded, WorkDone
from stepwell.kernel.outcomes import Message
from stepwell.values import ErrorInfo


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 here")
async def test_the_demonstration_runs_kills_a_worker_and_finds_all_its_claims_true(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "demo"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "stepwell.demo", str(folder)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    text = out.decode()
    assert process.returncode == 0, text + err.decode()
    assert err.decode() == ""
    assert "FAIL" not in text
    assert text.count("   ok   ") == 10
    assert "exit code -9" in text
    long = [line for line in text.splitlines() if len(line) > 80 and str(folder) not in line]
    assert long == []
    assert "\x1b" not in text
    fresh = [c.of for c in outside.calls(str(folder / "outside.jsonl")) if c.fresh]
    assert sorted(c for c in fresh if c == "Fastnet") == ["Fastnet"] * 3  # began, fetch, pay


def journal(*, done: Sequence[int], asked: int = 1) -> list[Entry]:
    """The journal of a run, with only what the audit looks at."""
    entries: list[Entry] = [WorkAdded(1, "plan", Message("Topic", None), True, 0.0)]
    entries += [
        WorkAdded(2 + i, "read", Message("Book", book), True, 0.0) for i, book in enumerate(BOOKS)
    ]
    entries.append(AttemptFailed(3, ErrorInfo("builtins.ConnectionError", ""), 0.0, 1.0))
    entries.append(WorkAdded(8, "choose", (), True, 0.0))
    question = Message("InputRequiredEvent", None)
    entries += [WaitOpened("title", 0.0, 8, "wait:title", question=question)] * asked
    entries.append(WorkAdded(9, "publish", Message("Leaflet", None), True, 0.0))
    return entries + [WorkDone(id) for id in done]


def log() -> list[Call]:
    """What worker 10 did until it was killed, and what worker 20 did then."""
    calls = [Call("began", "plan", "k-plan", 10, True)]
    for book in BOOKS:
        key = f"k-{book.title}"
        calls += [
            Call("began", book.title, key, 10, True),
            Call("fetch", book.title, key, 10, True),
        ]
        if book.unlucky:
            calls.append(Call("began", book.title, key, 10, False))
        calls.append(Call("pay", book.title, key, 10, True))
    last = BOOKS[-1].title
    calls += [
        Call("began", last, f"k-{last}", 20, False),
        Call("pay", last, f"k-{last}", 20, False),
    ]
    calls.append(Call("began", "choose", "k-choose", 20, True))
    calls.append(Call("began", "publish", "k-publish", 20, True))
    calls.append(Call("print", "A title", "k-publish", 20, True))
    return calls


RESULT = {"title": "A title", "notes": 6, "words": sum(book.words for book in BOOKS)}
EARLY = journal(done=[1, 2, 3, 4, 5, 6])


def failing(
    calls: Sequence[Call],
    entries: Sequence[Entry],
    result: object = RESULT,
    title: str = "A title",
    code: int = -9,
) -> list[str]:
    works = survey(EARLY, entries, calls)
    found = verdicts(works, entries, result, title, (10, code))
    return [text for fine, text in found if not fine]


DONE = journal(done=range(1, 10))


def test_a_run_as_it_should_be_has_nothing_to_complain_of() -> None:
    assert failing(log(), DONE) == []


def of(what: str, title: str = BOOKS[-1].title) -> int:
    return next(i for i, c in enumerate(log()) if c.what == what and c.of == title)


def test_every_claim_is_found_false_when_it_is() -> None:
    calls = log()
    first = BOOKS[0].title

    def more(call: Call) -> list[Call]:
        return [*calls, call]

    again = replace(calls[of("began", first)], pid=20, fresh=False)
    assert "none began again" in failing(more(again), DONE)[0]
    assert "one result" in failing(calls, journal(done=[*range(1, 10), 4]))[0]
    other_key = replace(calls[of("began")], key="other", pid=20)
    assert "one idempotency key" in failing(more(other_key), DONE)[0]
    assert "fetched once" in failing(more(replace(calls[of("fetch")], pid=20)), DONE)[0]
    assert "paid for once" in failing(more(replace(calls[of("pay")], pid=20)), DONE)[0]
    assert "asked once" in failing(calls, journal(done=range(1, 10), asked=2))[0]
    assert "words" in failing(calls, DONE, {**RESULT, "words": 1})[0]
    assert "title" in failing(calls, DONE, title="Another")[0]
    assert "tried again" in failing(calls, [e for e in DONE if type(e) is not AttemptFailed])[0]
    assert "killed" in failing(calls, DONE, code=0)[0]
    never = [c for c in calls if not (c.pid == 20 and c.of == BOOKS[-1].title)]
    assert "began again elsewhere" in failing(never, DONE)[0]


def test_a_service_asked_again_with_the_same_key_does_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    assert outside.calls(path) == []
    outside.call(path, "pay", "a", "k")
    outside.call(path, "pay", "a", "k")
    outside.call(path, "pay", "a", "other")
    assert [c.fresh for c in outside.calls(path)] == [True, False, True]


def test_the_screen_prints_plain_text_of_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.say("word " * 40, indent=3)
    screen.heading("A part")
    screen.table(("step", "done"), [("read", "2"), ("print", "1")])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert lines[0].startswith("   word word")
    assert lines[-2:] == ["   read    2", "   print   1"]


async def test_a_question_answers_itself_when_nobody_is_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert await Screen().ask("Name?", "Ada", 1.0) == "Ada"
    assert "answers itself" in capsys.readouterr().out


def test_books_are_events_with_different_titles() -> None:
    assert len({book.title for book in BOOKS}) == len(BOOKS)
    assert all(isinstance(book, Book) for book in BOOKS)
