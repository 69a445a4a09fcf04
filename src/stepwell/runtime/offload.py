"""Plain functions run off the event loop: in a thread, or in a process of their own.

A thread can't be stopped; a step that times out in one is abandoned and its result ignored. A
process can: when the step is cancelled or times out it is killed. The function has to be
importable by the new process and its arguments and result have to survive the way there and back;
what does not is refused before anything runs.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol, TypeVar

from stepwell.runtime.pools import Seat, warn_of_abandoned

T = TypeVar("T")


class Homed(Protocol):
    """Something that lives in one event loop."""

    loop: asyncio.AbstractEventLoop
    thread: int


def on_loop(home: Homed, call: Callable[[], T]) -> T:
    """`call()` in the event loop of `home`; from another thread, wait for it to be done there."""
    if threading.get_ident() == home.thread:
        return call()
    done: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            done.set_result(call())
        except BaseException as error:  # for the thread that asked
            done.set_exception(error)

    home.loop.call_soon_threadsafe(run)
    return done.result()


async def run_in_thread(
    func: Callable[..., object], kwargs: Mapping[str, object], step: str
) -> object:
    """`func(**kwargs)` in the loop's thread pool, with the caller's context variables."""
    context = contextvars.copy_context()
    loop = asyncio.get_running_loop()
    running = loop.run_in_executor(None, partial(context.run, func, **kwargs))
    try:
        return await running
    except asyncio.CancelledError:
        warn_of_abandoned(step)
        raise


async def run_in_process(
    func: Callable[..., object], kwargs: Mapping[str, object], step: str
) -> object:
    """`func(**kwargs)` in a new process, which is killed when the caller is cancelled.

    Raises:
        ExecutionRefused: when the function, its arguments, its result or its error can't be sent,
            or when the process died without an answer.
    """
    seat = Seat(f"stepwell-{step}")
    try:
        return await seat.call(func, kwargs, step)
    finally:
        await seat.leave()
