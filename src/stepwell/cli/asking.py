"""Questions of a run, asked on the terminal.

A line is read without a thread where the event loop can watch the terminal, so that a run that ends
meanwhile, or Ctrl-C, ends the asking too.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, cast

from rich.console import Console
from rich.text import Text

from stepwell.authoring.events.model import Event, InputRequiredEvent
from stepwell.authoring.program import Program
from stepwell.cli import output
from stepwell.cli.running import Watched, response_tag
from stepwell.cli.waits import asked, how_to_answer
from stepwell.runtime.history import plain
from stepwell.runtime.views import WaitInfo

_END = {"status", "result", "error"}
"""What the last item of a stream holds when it is no event."""


def interactive() -> bool:
    """Whether there is someone at the terminal to be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def fields_of(value: str) -> dict[str, Any]:
    """What was typed as the fields of an answer: a JSON object as it is, all else as `response`."""
    if value.lstrip().startswith("{"):
        with suppress(json.JSONDecodeError):
            return cast("dict[str, Any]", json.loads(value))
    return {"response": value}


class Asker:
    """Shows what a run publishes, and gets its questions answered.

    Args:
        watched: the run.
        program: what is run.
        console: where to write.
        store: the URL of its store; None in memory.
        pause: stops redrawing, for as long as someone is asked, and returns how to go on.
    """

    def __init__(
        self,
        watched: Watched,
        program: Program,
        console: Console,
        store: str | None,
        say: Callable[[str], None],
        pause: Callable[[], Callable[[], None]],
    ) -> None:
        self._watched = watched
        self._program = program
        self._console = console
        self._store = store
        self._say = say
        self._pause = pause
        self._asked: set[str] = set()
        self._questions: asyncio.Queue[Event] = asyncio.Queue()

    async def listen(self) -> None:
        """Show what the run publishes until it has ended."""
        async for event in self._watched.handler.stream_events():
            kind = type(event).__name__
            if isinstance(event, InputRequiredEvent):
                self._questions.put_nowait(event)
            elif kind not in self._program.definition.ends and not _is_end(event):
                self._say(f"{kind} {output.brief(event, 200)}".rstrip())

    async def ask(self) -> None:
        """Get one question after the other answered, for as long as this is not cancelled."""
        while True:
            event = await self._questions.get()
            wait = await self._wait_of(event)
            if interactive():
                await self._on_terminal(event, wait)
            else:
                self._print(event, wait)

    async def _wait_of(self, event: Event) -> WaitInfo | None:
        """The wait that the question belongs to: one that has it, or the only one without any."""
        waits = [w for w in await self._watched.waits() if w.event and w.id not in self._asked]
        fields = plain(event)
        of_it = [w for w in waits if w.question is not None and plain(w.question) == fields]
        if not of_it:
            of_it = [w for w in waits if w.question is None]
            of_it = of_it if len(of_it) == 1 else []
        if not of_it:
            return None
        self._asked.add(of_it[0].id)
        return of_it[0]

    def _print(self, event: Event, wait: WaitInfo | None) -> None:
        self._say(f"asks: {asked(event)}")
        run = self._watched.handler.run_id
        if self._store is None:
            self._say(
                "  nobody can answer it: there is no terminal, and the run is in memory. Start it "
                "on a terminal, or with --store and answer it from elsewhere."
            )
        elif wait is not None:
            self._say(f"  answer it: {how_to_answer(run, wait)} --store {self._store}")
        else:
            tag = response_tag(self._program)
            example = '{"response": "..."}'
            self._say(f"  answer it: stepwell signal {run} {tag} '{example}' --store {self._store}")

    async def _on_terminal(self, event: Event, wait: WaitInfo | None) -> None:
        go_on = self._pause()
        console = self._console
        tag = wait.event if wait is not None and wait.event else response_tag(self._program)
        console.print(Text.assemble(("? ", "bold magenta"), (asked(event), "bold")))
        given = False
        while not given:
            console.print(Text("> ", "bold magenta"), end="")
            try:
                line = await read_line()
            except asyncio.CancelledError:
                console.print()  # what is said next begins a line; nothing is redrawn any more
                raise
            if not line:
                console.print()
                self._print(event, wait)
                break
            given = await self._given(tag, fields_of(line.strip()), wait)
        go_on()

    async def _given(self, tag: str, fields: Mapping[str, Any], wait: WaitInfo | None) -> bool:
        try:
            await self._watched.answer(tag, fields, None if wait is None else wait.id)
        except ValueError as error:
            self._console.print(Text(f"{error}; try again", "yellow"))
            return False
        return True


def _is_end(event: object) -> bool:
    """Whether it tells of the run's end, which is shown by other means."""
    if isinstance(event, Mapping):
        return "status" in event and set(cast("Mapping[str, object]", event)) <= _END
    return any(kind.__name__ == "StopEvent" for kind in type(event).__mro__)


async def read_line() -> str:
    """A line from the terminal, with its end; "" when there are no more."""
    loop = asyncio.get_running_loop()
    got: asyncio.Future[str] = loop.create_future()

    def ready() -> None:
        if not got.done():
            got.set_result(sys.stdin.readline())

    try:
        loop.add_reader(sys.stdin.fileno(), ready)
    except NotImplementedError:  # the loop of Windows can't watch a terminal
        return await asyncio.to_thread(sys.stdin.readline)
    try:
        return await got
    finally:
        loop.remove_reader(sys.stdin.fileno())
