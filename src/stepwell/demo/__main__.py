"""The play: start a run and a worker, kill the worker, start another, and count.

python -m stepwell.demo [folder]
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from stepwell import Engine, HumanResponseEvent, InputRequiredEvent
from stepwell.demo import outside
from stepwell.demo.audit import Work, finished, survey, verdicts
from stepwell.demo.research import BOOKS, Research, Topic
from stepwell.demo.screen import Screen
from stepwell.kernel.journal import Entry

DEFAULT_TITLE = "Lights that stayed on"
PATIENCE = 60.0
"""Seconds that any part may take before the demonstration gives up."""

TO_ANSWER = 15.0
"""Seconds that a person has to answer."""


@asynccontextmanager
async def worker(url: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    """A worker process. It ends when its standard input is closed: with us, at the latest."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stepwell.demo.worker", url),
        stdin=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for us
    )
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()


async def enough_done(engine: Engine, run: str, log: str) -> None:
    """Return when the short books are read and the long ones are paid for, but not read."""
    short = {book.title for book in BOOKS if book.seconds < 2}
    long = {book.title for book in BOOKS} - short
    while True:
        paid = {call.of for call in outside.calls(log) if call.what == "pay"}
        if long <= paid and short <= finished(await engine.entries(run)).keys():
            return
        await asyncio.sleep(0.05)


class Follower:
    """Shows the run's stream, wherever the run is, and answers its question."""

    def __init__(self, engine: Engine, run: str, screen: Screen) -> None:
        self.engine = engine
        self.run = run
        self.screen = screen
        self.title = ""
        self._read = 0

    async def follow(self) -> None:
        """Go on to the end of the stream."""
        async for item in self.engine.stream(self.run):
            if isinstance(item.event, InputRequiredEvent):
                self.screen.line("   The run now waits for a person:")
                self.title = await self.screen.ask(item.event.prefix, DEFAULT_TITLE, TO_ANSWER)
                await self.engine.answer(
                    self.run, HumanResponseEvent(response=self.title), question="title"
                )
            elif progress := item.event.get("progress"):
                self._read += 1
                self.screen.progress(self._read, len(BOOKS), progress)


async def play(folder: Path, screen: Screen) -> bool:
    """The whole demonstration. True when everything it said was found to be so."""
    url = f"sqlite:///{folder / 'demo.db'}"
    log = str(folder / "outside.jsonl")
    screen.line("stepwell: a workflow that survives kill -9", "title")
    screen.say(
        "A research assistant reads six books at once, asks a person for a title and prints a "
        "leaflet. One library hangs up on it. Half-way, its process is killed."
    )
    screen.line(f"   database      {folder / 'demo.db'}")
    screen.line(f"   side effects  {log}")
    async with Engine(url, [Research()], worker=False, poll=0.05) as engine:
        handler = await engine.start(Research, Topic(name="lighthouses", log=log))
        run = handler.run_id
        follower = Follower(engine, run, screen)
        following = asyncio.create_task(follower.follow())
        try:
            before, killed = await first_half(engine, run, url, log, screen)
            await second_half(following, url, screen)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        result = await handler
        entries = await engine.entries(run)
    works = survey(before, entries, outside.calls(log))
    found = verdicts(works, entries, result, follower.title, killed)
    show(works, found, killed[0], screen)
    return epilogue(all(fine for fine, _ in found), run, folder, screen)


async def first_half(
    engine: Engine, run: str, url: str, log: str, screen: Screen
) -> tuple[list[Entry], tuple[int, int]]:
    """A worker begins, and is killed. The journal it left, its process id and exit code."""
    async with worker(url) as process:
        screen.heading("1. A worker process takes the run")
        screen.line(f"   worker {process.pid} started")
        async with asyncio.timeout(PATIENCE):
            await enough_done(engine, run, log)
        await asyncio.sleep(0.2)  # let the stream be shown up to here
        screen.heading("2. kill -9")
        process.kill()
        code = await process.wait()
    screen.line(f"   worker {process.pid} killed in the middle of two steps", "bad")
    why = await engine.why(run)
    screen.say(f"Asked why it does not go on, the run says: {why.sentence}", indent=3)
    return await engine.entries(run), (process.pid, code)


async def second_half(following: asyncio.Task[None], url: str, screen: Screen) -> None:
    """Another worker goes on where the journal ends."""
    async with worker(url) as process:
        screen.heading("3. Another worker process goes on")
        screen.line(f"   worker {process.pid} started")
        async with asyncio.timeout(PATIENCE + TO_ANSWER):
            await following
        screen.line("   The run has ended: completed.", "good")


def show(
    works: Sequence[Work], found: Sequence[tuple[bool, str]], killed: int, screen: Screen
) -> None:
    """The table of what was done how often, and the claims."""
    screen.heading("4. What was done twice, and what was not")
    head = ("step", "entered", "fetched", "asked to do", "done", "results")
    rows = [
        (
            work.of if work.step == work.of else f"{work.step} {work.of}",
            str(len(work.began)),
            str(work.fetched or "-"),
            str(work.asked or "-"),
            str(work.done_outside or "-"),
            str(work.results),
        )
        for work in works
    ]
    screen.table(head, rows)
    screen.line("")
    for work in works:
        if len(work.began) > 1:
            why = "killed" if set(work.began) != {killed} else "failed, tried again"
            screen.line(f"   {work.of}: entered {len(work.began)} times ({why})")
            screen.line(f"      idempotency key {', '.join(sorted(work.keys))}", "faint")
    screen.heading("5. Checked")
    for fine, text in found:
        screen.line(f"   {'ok  ' if fine else 'FAIL'} {text}", "good" if fine else "bad")


def epilogue(fine: bool, run: str, folder: Path, screen: Screen) -> bool:
    """What to try next."""
    screen.heading("6. Try next")
    if not fine:
        screen.say("Something above was not as it should be. Please report it.", "bad", indent=3)
    screen.line(f"   export STEPWELL_STORE={folder / 'demo.db'}")
    for command in ("ls", f"show {run}", f"logs {run}", "graph stepwell.demo.research:Research"):
        screen.line(f"   .venv/bin/stepwell {command}")
    screen.line(f"   cat {folder / 'outside.jsonl'}")
    screen.line("   less src/stepwell/demo/research.py   # the workflow")
    screen.line("   less docs/tutorial.md   # write your own")
    screen.line(f"   rm -r {folder}   # when you are done")
    return fine


def main() -> int:
    """Run the demonstration; the exit code."""
    if len(sys.argv) > 1:
        folder = Path(sys.argv[1]).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "demo.db").exists():
            print(f"{folder} holds an earlier demonstration; name another folder", file=sys.stderr)
            return 2
    else:
        folder = Path(tempfile.mkdtemp(prefix="stepwell-demo-"))
    try:
        return 0 if asyncio.run(play(folder, Screen())) else 1
    except KeyboardInterrupt:
        print(f"\nstopped; what there is so far is in {folder}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
