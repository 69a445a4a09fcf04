"""Real processes for tests: forked, killed at a write, stopped and let go on.

    live(body, kill=("before", 3))     a process that dies at its store's third write
    begin(body)                        one that lives beside the test
    deaths(count)                      every place to die at: before and after each write

Before the process dies at a write, its event loop may turn a few times: whoever was told of the
write too early gets the chance to say so.

A body is `async def body(me: Process)`. It runs in a forked process, in an event loop of its own,
and opens its own store by `me.store(path)`. What it says (`me.say(...)`, JSON) goes through a pipe
at once, so the test knows of it also when the process dies in the next instant.

A forked process must not use what its parent has open: fork outside of event loops, while the test
has no store open on the same file.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import traceback
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepwell.stores.sqlite import SQLiteStore
from stepwell.stores.sqlite.connection import Durability

Kill = tuple[str, int]
"""When a process kills itself: "before" or "after" its store's transaction of this number."""

_TURNS = 10
"""Turns of the event loop that a process still has when it dies at a write."""

_TURNING_SECONDS = 2.0
"""How long these turns may take; a loop that has ended turns no more."""

_PATIENCE_SECONDS = 100.0
"""A process that says nothing for this long hangs."""


class Process:
    """What a body knows of the process that it runs in."""

    def __init__(self, pipe: int, kill: Kill | None) -> None:
        self._pipe = pipe
        self._kill = kill
        self._loop = asyncio.get_running_loop()
        self.writes = 0

    def store(self, path: Path, durability: Durability = "process") -> SQLiteStore:
        """The store of this process; at the write that was asked for, the process dies in it."""
        return SQLiteStore(path, durability=durability, on_write=self._on_write)

    def say(self, word: Any) -> None:
        """Tell the test, at once."""
        self.tell("said", word)

    def die(self) -> None:
        """As `kill -9` from outside, here and now."""
        os.kill(os.getpid(), signal.SIGKILL)

    def tell(self, kind: str, word: Any) -> None:
        """A line of the pipe; one write, so that no two threads mix theirs."""
        os.write(self._pipe, json.dumps([kind, word]).encode() + b"\n")

    def _on_write(self, when: str, number: int) -> None:
        if (when, number) == self._kill:
            try:
                asyncio.run_coroutine_threadsafe(_turn(), self._loop).result(_TURNING_SECONDS)
            finally:  # also when the loop has ended meanwhile
                self.die()
        if when == "after":
            self.writes = number


Body = Callable[[Process], Awaitable[None]]


@dataclass
class Ended:
    """How a process ended.

    Attributes:
        killed: it died of SIGKILL.
        said: all that it said, in order.
        writes: transactions that its store committed; known when it came to its end.
    """

    killed: bool
    said: list[Any]
    writes: int


@dataclass
class Child:
    """A process that lives beside the test."""

    pid: int
    pipe: int
    said: list[Any] = field(default_factory=list[Any])
    _rest: bytes = b""
    _writes: int = 0
    _error: str | None = None
    _reaped: int | None = None

    def hear(self) -> Any:
        """The next thing it says. Fails when it ends without a further word."""
        heard = len(self.said)
        while len(self.said) == heard:
            if not self._read():
                raise AssertionError(f"process {self.pid} ended; it had said {self.said}")
        return self.said[heard]

    def stop(self) -> None:
        """Freeze it where it stands (SIGSTOP)."""
        os.kill(self.pid, signal.SIGSTOP)
        self.stopped()

    def stopped(self) -> None:
        """Wait until it has stopped."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), f"it ended instead of stopping: {status}"

    def go_on(self) -> None:
        """Let it go on after `stop`."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """`kill -9`, if it still lives."""
        if self._reaped is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> Ended:
        """Wait for its end. Fails with its traceback when its body raised."""
        while self._reaped is None and self._read():
            pass
        if self._reaped is None:
            _, self._reaped = os.waitpid(self.pid, 0)
            os.close(self.pipe)
        if self._error is not None:
            raise AssertionError(f"the process raised\n{self._error}")
        killed = os.WIFSIGNALED(self._reaped) and os.WTERMSIG(self._reaped) == signal.SIGKILL
        assert killed or self._reaped == 0, f"the process ended with {self._reaped}"
        return Ended(killed, self.said, self._writes)

    def _read(self) -> bool:
        """Read what there is; False at the end."""
        ready, _, _ = select.select([self.pipe], [], [], _PATIENCE_SECONDS)
        if not ready:
            raise AssertionError(f"process {self.pid} hangs; it had said {self.said}")
        data = os.read(self.pipe, 65536)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            kind, word = json.loads(line)
            if kind == "said":
                self.said.append(word)
            elif kind == "writes":
                self._writes = word
            else:
                self._error = word
        return bool(data)


@contextmanager
def begin(body: Body, kill: Kill | None = None) -> Iterator[Child]:
    """Start `body` in a process of its own; it is killed and reaped at the end of the block."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Threads of the test's runner may be there; the fork uses nothing that they hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os.close(reading)
        _be(body, writing, kill)
    os.close(writing)
    child = Child(pid, reading)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def live(body: Body, kill: Kill | None = None) -> Ended:
    """Run `body` in a process of its own, to its end or to its death."""
    with begin(body, kill) as child:
        return child.wait()


def deaths(writes: int) -> Iterator[Kill]:
    """Every place where a process that makes so many writes can die in a store."""
    for number in range(1, writes + 1):
        yield "before", number
        yield "after", number


def _be(body: Body, pipe: int, kill: Kill | None) -> None:
    """The forked process: never returns into the test that it is a copy of."""
    code = 1
    try:
        asyncio.run(_main(body, pipe, kill))
        code = 0
    except BaseException:
        os.write(pipe, json.dumps(["error", traceback.format_exc()]).encode() + b"\n")
    finally:
        os._exit(code)


async def _main(body: Body, pipe: int, kill: Kill | None) -> None:
    me = Process(pipe, kill)
    await body(me)
    me.tell("writes", me.writes)


async def _turn() -> None:
    loop = asyncio.get_running_loop()
    for _ in range(_TURNS):
        await loop.run_in_executor(None, int)  # a thread's work is done by then, too
