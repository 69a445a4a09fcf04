"""The threads and processes of one run: bounded, started when needed, reused, closed with it.

The theory: a thread can't be stopped and a process can, and all else follows. A call in a thread
that nobody waits for any more is abandoned: its thread leaves the pool, and ends when its function
returns, if ever. Threads are daemons of our own making, because those of `concurrent.futures` are
joined at the end of the program, and one that hangs would keep it from ending. A call in a process
that nobody waits for is killed.

Each process has a thread here, which does all that could block: `child.py`. So the event loop only
hands over work and is told of answers, and any event loop will do, in any thread.

All bookkeeping is done in the event loop, so there are no locks. This module refuses to know about
runs, steps' time limits and retries: who has had enough cancels, and who wants more calls again.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import itertools
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

from stepwell.errors import ExecutionRefused
from stepwell.runtime.child import Child, pack

logger = logging.getLogger("stepwell")

# What is killed or told to leave does so in milliseconds; what has not after this long hangs in
# the kernel, and its thread goes on waiting for it alone.
GRACE_SECONDS = 2.0

Outcome = tuple[bool, object]
"""Whether a call returned, and what it returned or raised."""


class Pools:
    """Threads and processes of one run: bounded, reused, closed with it.

    It belongs to the event loop that first waits for something of it.

    Args:
        name: name of the run or of its workflow, seen in the names of threads and processes.
        threads: how many calls run in threads at once; further ones wait. Abandoned ones don't
            count.
        processes: how many calls run in processes at once; as many as there are processors when
            left out.

    Raises:
        ValueError: when a number is less than one.

    Example:
        >>> async def main() -> object:
        ...     pools = Pools("sums")
        ...     try:
        ...         return await pools.in_thread(sum, {}, "add")
        ...     except TypeError:
        ...         return "sum takes a list"
        ...     finally:
        ...         pools.close()
        >>> asyncio.run(main())
        'sum takes a list'
    """

    def __init__(self, name: str, *, threads: int = 32, processes: int | None = None) -> None:
        if processes is None:
            processes = os.cpu_count() or 1
        if threads < 1 or processes < 1:
            raise ValueError(f"a pool has one place at least, not {min(threads, processes)}")
        self.name = name
        self._closed = False
        self._numbers = itertools.count(1)
        self._thread_room = asyncio.Semaphore(threads)
        self._process_room = asyncio.Semaphore(processes)
        self._idle_threads: list[Thread] = []
        self._idle_seats: list[Seat] = []
        self._busy_seats: set[Seat] = set()

    async def in_thread(
        self, func: Callable[..., object], kwargs: Mapping[str, object], step: str
    ) -> object:
        """`func(**kwargs)` in a thread, with the caller's context variables.

        When the caller is cancelled the thread is abandoned, and a warning is logged.

        Args:
            func: the function.
            kwargs: its arguments.
            step: name of the step, for messages.

        Raises:
            RuntimeError: when the pools are closed.
        """
        async with self._thread_room:
            self._check_open()
            idle = self._idle_threads
            thread = idle.pop() if idle else Thread(f"stepwell-{self.name}-{next(self._numbers)}")
            answer = thread.do(partial(contextvars.copy_context().run, func, **kwargs))
            try:
                return _value(await answer)
            except asyncio.CancelledError:
                if answer.cancelled():
                    warn_of_abandoned(step)
                raise
            finally:
                if answer.cancelled() or not answer.done() or self._closed:
                    thread.end()
                else:
                    idle.append(thread)

    async def in_process(
        self, func: Callable[..., object], kwargs: Mapping[str, object], step: str
    ) -> object:
        """`func(**kwargs)` in a process of the pool, which is killed when the caller is cancelled.

        Args:
            func: the function; see `check_process_step`.
            kwargs: its arguments, copied to the process.
            step: name of the step, for messages.

        Raises:
            ExecutionRefused: when the function, its arguments, its result or its error can't be
                sent, or when the process died without an answer.
            RuntimeError: when the pools are closed.
        """
        async with self._process_room:
            self._check_open()
            idle = self._idle_seats
            seat = idle.pop() if idle else Seat(f"stepwell-{self.name}-{next(self._numbers)}")
            self._busy_seats.add(seat)
            try:
                return await seat.call(func, kwargs, step)
            finally:
                self._busy_seats.discard(seat)
                if not self._closed:
                    idle.append(seat)

    def close(self) -> None:
        """End all of it, at once; from the event loop. Closing twice is closing once.

        Idle threads and processes end, busy processes are killed and collected. Busy threads are
        abandoned.
        """
        if self._closed:
            return
        self._closed = True
        for thread in self._idle_threads:
            thread.end()
        seats = [*self._idle_seats, *self._busy_seats]
        for seat in seats:
            seat.close(kill=seat in self._busy_seats)
        until = time.monotonic() + GRACE_SECONDS
        for each in [*self._idle_threads, *(seat.thread for seat in seats)]:
            each.join(max(0.0, until - time.monotonic()))
        self._idle_threads.clear()
        self._idle_seats.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError(f"the threads and processes of {self.name!r} are closed")


def warn_of_abandoned(step: str) -> None:
    """Say that the function of a step that was stopped goes on."""
    logger.warning(
        "step %r was stopped, but a thread can't be: its function goes on, and what it returns "
        "is ignored; with execution='process' it would have been killed",
        step,
    )


# --- one thread ----------------------------------------------------------------------------------


class Thread:
    """A daemon thread that does one call after another for an event loop.

    Args:
        name: its name.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=_work, args=(self._jobs,), name=name, daemon=True)
        self._thread.start()

    def do(self, call: Callable[[], object]) -> asyncio.Future[Outcome]:
        """Have it done after what was given before; the future tells how it went."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Outcome] = loop.create_future()
        self._jobs.put(partial(_answer, loop, answer, call))
        return answer

    def post(self, call: Callable[[], object]) -> None:
        """Have it done after what was given before; nobody is told."""
        self._jobs.put(call)

    def end(self) -> None:
        """End after what was given before."""
        self._jobs.put(None)

    def join(self, seconds: float) -> None:
        """Block until it has ended, but no longer than this."""
        self._thread.join(seconds)


def _work(jobs: queue.SimpleQueue[Callable[[], object] | None]) -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # an idle thread keeps nobody's arguments alive


def _answer(
    loop: asyncio.AbstractEventLoop, answer: asyncio.Future[Outcome], call: Callable[[], object]
) -> None:
    try:
        outcome = (True, call())
    except BaseException as error:  # for the one who waits
        outcome = (False, error)
    try:
        loop.call_soon_threadsafe(_settle, answer, outcome)
    except RuntimeError:
        if not loop.is_closed():  # then nobody waits any more
            raise
    finally:
        del outcome  # an error holds its traceback, which holds this frame


def _settle(answer: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not answer.done():
        answer.set_result(outcome)


def _value(outcome: Outcome) -> object:
    fine, value = outcome
    try:
        if fine:
            return value
        raise cast(BaseException, value)
    finally:
        del value, outcome  # likewise


# --- one process ---------------------------------------------------------------------------------


class Seat:
    """A child process, or the place for one, and the thread that talks to it.

    Args:
        name: of both.
    """

    def __init__(self, name: str) -> None:
        self._child = Child(name)
        self.thread = Thread(name)
        self._closed = False

    async def call(
        self, func: Callable[..., object], kwargs: Mapping[str, object], step: str
    ) -> object:
        """`func(**kwargs)` in the child. When cancelled, the child is killed and collected first;
        the next call starts another.

        Raises:
            ExecutionRefused: see `Child.call`.
        """
        answer = self.thread.do(partial(self._child.call, func, kwargs, step))
        try:
            # Shielded: what the thread is doing goes on, and ends by the kill.
            return _value(await asyncio.shield(answer))
        except asyncio.CancelledError:
            if not self._closed:  # else it was killed before
                self._child.kill()
                await asyncio.wait({self.thread.do(self._child.reap)}, timeout=GRACE_SECONDS)
            raise
        except GeneratorExit:  # dropped by a loop that runs no more
            self._child.kill()
            self.thread.post(self._child.reap)
            raise

    def close(self, *, kill: bool = False) -> None:
        """Have the child leave, or killed, and the thread end; `thread.join` waits for it."""
        self._closed = True
        if kill:
            self._child.kill()
        self.thread.post(self._child.reap)
        self.thread.end()

    async def leave(self) -> None:
        """Close it, and wait until the child has left."""
        self._closed = True
        gone = self.thread.do(self._child.reap)
        self.thread.end()
        await asyncio.wait({gone}, timeout=GRACE_SECONDS)


# --- before anything runs ------------------------------------------------------------------------


def check_process_step(func: Callable[..., object], step: str) -> None:
    """Refuse a function that another process could not run.

    Args:
        func: the function, a bound method, a partial or another object that can be called.
        step: name of the step, for the message.

    Raises:
        ExecutionRefused: with the reason.

    Example:
        >>> check_process_step(len, "measure")
        >>> check_process_step(lambda: 1, "one")
        Traceback (most recent call last):
            ...
        stepwell.errors.ExecutionRefused: Step 'one' cannot be executed in a process: it is a \
lambda, which another process can't import; write it as a function of a module.
    """
    reason = _why_not(func)
    if reason is not None:
        raise ExecutionRefused(step, "process", reason)


def _why_not(func: Callable[..., object]) -> str | None:
    core = func
    while isinstance(core, functools.partial):
        core = core.func
    called = core if inspect.isroutine(core) else getattr(core, "__call__", core)  # noqa: B004 - what it is, not whether
    if inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called):
        return "it is async, and runs in the event loop; write it with def"
    if inspect.isgeneratorfunction(called):
        return "it is a generator, whose values can't be sent one by one; return a list"
    if not inspect.ismethod(core):
        name = str(getattr(core, "__qualname__", ""))
        if name.rpartition(".")[2] == "<lambda>":
            return (
                "it is a lambda, which another process can't import; write it as a function of a "
                "module"
            )
        if "<locals>" in name:
            return (
                f"{name} is defined inside a function, where another process can't import it; move "
                "it to the top of its module"
            )
    if _module(core) in ("__main__", "__mp_main__") and not _main_is_a_file():
        return (
            "it is defined in a notebook or at a prompt, which another process can't import; put "
            "it into a module and import it from there"
        )
    try:
        pack(func)
    except Exception as error:  # whatever its objects raise when they are pickled
        what = "its object" if inspect.ismethod(core) else "it"
        return f"{what} can't be sent to another process: {error}"
    return None


def _module(core: Callable[..., object]) -> str | None:
    """Where another process would look for it."""
    if inspect.ismethod(core):
        owner = core.__self__
        core = owner if isinstance(owner, type) else type(owner)
    elif not inspect.isroutine(core) and not isinstance(core, type):
        core = type(core)
    return cast("str | None", getattr(core, "__module__", None))


def _main_is_a_file() -> bool:
    """Whether a new process can load the program's main module, as `python -m` or by its path."""
    main = sys.modules["__main__"]
    if getattr(main, "__spec__", None) is not None:
        return True
    path = cast("str | None", getattr(main, "__file__", None))
    return path is not None and os.path.isfile(path)
