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
import logging
import multiprocessing
import threading
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Protocol, TypeVar, cast

from stepwell.errors import ExecutionRefused

logger = logging.getLogger("stepwell")

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
        logger.warning(
            "step %r was stopped, but a thread can't be: its function goes on, and what it returns "
            "is ignored; with execution='process' it would have been killed",
            step,
        )
        raise


def _serve(pipe: Connection, step: str) -> None:
    """The main function of the process: do what comes down the pipe, and answer."""

    def refused(reason: str) -> tuple[bool, object]:
        return False, ExecutionRefused(step, "process", reason)

    try:
        func, kwargs = cast("tuple[Callable[..., object], dict[str, object]]", pipe.recv())
    except Exception as error:  # not importable here, for example
        pipe.send(refused(f"it can't be loaded in another process: {error!r}"))
        return
    try:
        answer: tuple[bool, object] = (True, func(**kwargs))
    except Exception as error:  # goes to the parent, where the attempt fails with it
        answer = (False, error)
    what = "result" if answer[0] else "error"
    try:
        # There and back, because much can be sent that can't be received.
        loads = cast("Callable[[object], object]", getattr(ForkingPickler, "loads"))  # noqa: B009 - its stub lacks it
        loads(ForkingPickler.dumps(answer))
    except Exception as error:
        answer = refused(f"its {what} can't be sent: {answer[1]!r}: {error}")
    pipe.send(answer)
    pipe.close()


async def run_in_process(
    func: Callable[..., object], kwargs: Mapping[str, object], step: str
) -> object:
    """`func(**kwargs)` in a new process, which is killed when the caller is cancelled.

    Raises:
        ExecutionRefused: when the function or its arguments can't be sent to another process, or
            when the process died without an answer.
    """
    try:
        ForkingPickler.dumps((func, dict(kwargs)))
    except Exception as error:
        reason = f"it can't be sent to another process: {error}"
        raise ExecutionRefused(step, "process", reason) from error
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe()
    process = context.Process(
        target=_serve, args=(sender, step), daemon=True, name=f"stepwell-{step}"
    )
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, process.start)
    sender.close()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    descriptor = receiver.fileno()
    try:
        receiver.send((func, dict(kwargs)))
        loop.add_reader(descriptor, wake)
        try:
            await ready
        finally:
            loop.remove_reader(descriptor)
        try:
            fine, value = await loop.run_in_executor(
                None, cast("Callable[[], tuple[bool, object]]", receiver.recv)
            )
        except (EOFError, ConnectionResetError):
            await loop.run_in_executor(None, process.join)
            raise ExecutionRefused(
                step, "process", f"its process died with exit code {process.exitcode}"
            ) from None
    finally:
        if process.is_alive():
            process.kill()
        await asyncio.shield(loop.run_in_executor(None, process.join))
        process.close()
        receiver.close()
    if fine:
        return value
    raise cast(Exception, value)
