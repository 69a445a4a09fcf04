"""A process that does one call after another for its parent, and the parent's end of it.

The theory: the parent's end blocks. Starting a process, turning arguments into bytes, writing them
and waiting for the answer take as long as they take, so a thread does them, never the event loop;
the loop does no more than kill. A kill closes the child's end of the pipe, and that ends whatever
the thread was waiting for. So there is one way for a child to be gone, whoever wanted it, and one
place where it is reaped.

Nothing but the pipe ties the two together. When the parent dies, by whatever hand, its end closes
and the child leaves; a thread of the child watches for that while a function is running.

What comes down the pipe is unpickled. The pipe is anonymous, and at its other end is a process that
this one started from the same files. Nothing else is ever read this way. This module refuses to
know about event loops, runs and pools.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import reprlib
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Mapping
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from typing import NoReturn, TypeAlias, cast

from stepwell.errors import ExecutionRefused
from stepwell.values import RAISED_AT, where_raised

# Written and read in slices, so that no read asks the system for the whole of a big value at once.
SLICE_BYTES = 1 << 20

# A child that was told to leave does so in milliseconds. One that is still there then is killed,
# and one that is there after that hangs in the kernel, where nobody can help it.
PATIENCE_SECONDS = 0.5

# The end of the pipe tells of the parent's death at once, unless a fork of the parent holds it open
# too; then its process id tells, after this long at most.
ORPHAN_SECONDS = 1.0

DONE, FAILED, REFUSED = "done", "failed", "refused"
_Answer: TypeAlias = "tuple[str, object, str, str | None]"
# one of these words, the result or the error or what was refused, a trace, where it was raised

_books = threading.Lock()
"""Held to start and to reap: multiprocessing keeps its children in a plain set, and reaps those of
others when it starts one."""

_shown = reprlib.Repr()
_shown.maxother = _shown.maxstring = 200


class Gone(Exception):
    """The other end of the pipe is closed."""


# --- the way there and back ----------------------------------------------------------------------


class _Parts:
    """A file to pickle into: it keeps what it is given as it is.

    That it is written in Python matters: between two writes other threads get their turn, so a big
    value doesn't stop the event loop while it is pickled.
    """

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self.parts.append(data if isinstance(data, bytes) else bytes(data))
        return len(data)


def pack(value: object) -> list[bytes]:
    """The pickle of a value, in parts. Raises whatever the value raises when it is pickled."""
    sink = _Parts()
    ForkingPickler(sink, 5).dump(value)
    return sink.parts


def unpack(data: bytes | bytearray) -> object:
    """The value; only for bytes from the other end of our own pipe."""
    loads = cast("Callable[[bytes | bytearray], object]", getattr(ForkingPickler, "loads"))  # noqa: B009 - its stub lacks it
    return loads(data)


def send(pipe: Connection, parts: list[bytes]) -> None:
    """Write one message.

    Raises:
        Gone: when nobody reads it.
    """
    try:
        for part in parts:
            view = memoryview(part)
            for start in range(0, len(view), SLICE_BYTES):
                pipe.send_bytes(view[start : start + SLICE_BYTES])
        pipe.send_bytes(b"")
    except OSError as error:
        raise Gone from error


def receive(pipe: Connection) -> bytearray:
    """Read one message.

    Raises:
        Gone: when there will be none.
    """
    data = bytearray()
    try:
        while part := pipe.recv_bytes():
            data += part
    except (EOFError, OSError) as error:
        raise Gone from error
    return data


# --- in the child --------------------------------------------------------------------------------


def serve(pipe: Connection) -> None:
    """The main function of the child: do what comes down the pipe, and answer, until it closes."""
    _hear_no_interrupt()
    threading.Thread(target=_leave_with_parent, name="stepwell-parent", daemon=True).start()
    try:
        send(pipe, [])
        while True:
            task = receive(pipe)
            answer = _perform(task)
            del task
            _flush()
            send(pipe, answer)
            del answer
    except Gone:
        _leave(0)


def _hear_no_interrupt() -> None:
    """Ctrl-C goes to every process of the terminal; it's the parent's to say what it means here.

    The signal is heard and does nothing, rather than being ignored: programs that a function starts
    would inherit that they ignore it.
    """
    signal.signal(signal.SIGINT, lambda _number, _frame: None)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:  # pragma: no cover - it is always started by one
        return
    while not wait([parent.sentinel], ORPHAN_SECONDS):
        if sys.platform != "win32" and os.getppid() != parent.pid:
            break
    _leave(1)


def _leave(code: int) -> NoReturn:
    """End now: threads that a function has left running must not keep an unneeded process."""
    _flush()
    os._exit(code)


def _flush() -> None:
    """What was printed is seen when the call ends, also by those who read it through a pipe."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # pyright: ignore[reportUnnecessaryComparison] - none in a windowed program
            # Closed by the function, or its reader has gone: then nobody misses it.
            with contextlib.suppress(OSError, ValueError):
                stream.flush()


def _perform(task: bytearray) -> list[bytes]:
    try:
        func, kwargs = cast("tuple[Callable[..., object], dict[str, object]]", unpack(task))
    except Exception as error:  # not importable here, for example
        return pack((REFUSED, f"it can't be loaded in another process: {error!r}", "", None))
    try:
        value = func(**kwargs)
    except Exception as error:  # goes to the parent, where the call fails with it
        return _failed(error)
    try:
        return pack((DONE, value, "", None))
    except Exception as error:
        return pack((REFUSED, f"its result can't be sent: {_shown.repr(value)}: {error}", "", None))


def _failed(error: Exception) -> list[bytes]:
    """The error and where it was raised; there and back, because much can be sent that can't be
    received."""
    below = None if error.__traceback__ is None else error.__traceback__.tb_next
    trace = "".join(traceback.format_exception(type(error), error, below))
    where = where_raised(error)
    try:
        parts = pack((FAILED, error, trace, where))
        _, back, *_ = cast("_Answer", unpack(b"".join(parts)))
        if type(back) is not type(error):
            raise TypeError(f"{_shown.repr(back)} would arrive")
    except Exception as reason:
        return pack(
            (REFUSED, f"its error can't be sent: {_shown.repr(error)}: {reason}", trace, where)
        )
    return parts


# --- in the parent -------------------------------------------------------------------------------


class Child:
    """The place of one child process, which is started when there is something to do, and again
    when it has died.

    All but `kill` block, and are called by one thread at a time.

    Args:
        name: shown to those who list processes.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._pipe: Connection | None = None
        self._process: SpawnProcess | None = None
        self._greeted = False
        self._doomed = False
        # Between the loop that kills and the thread that starts and reaps: never a signal to a
        # process id that may be another's by now, and never a process that starts unseen.
        self._lock = threading.Lock()

    def call(self, func: Callable[..., object], kwargs: Mapping[str, object], step: str) -> object:
        """`func(**kwargs)` in the child.

        Raises:
            ExecutionRefused: when the function, its arguments, result or error can't be sent, or
                when the process died without an answer.
        """

        def refused(reason: str) -> ExecutionRefused:
            return ExecutionRefused(step, "process", reason)

        try:
            task = pack((func, dict(kwargs)))
        except Exception as error:
            raise refused(f"it can't be sent to another process: {error}") from error
        if self._pipe is not None and self._pipe.poll(0):
            self._collect()  # an idle child says nothing, so this is its end
        try:
            pipe = self._pipe or self._start()
            if not self._greeted:
                receive(pipe)
                self._greeted = True
            send(pipe, task)
            data = receive(pipe)
        except Gone:
            raise refused(self._end()) from None
        try:
            kind, value, trace, where = cast("_Answer", unpack(data))
        except Exception as error:
            raise refused(f"what it gave can't be received: {error!r}") from error
        if kind == DONE:
            return value
        failure = cast(Exception, value) if kind == FAILED else refused(str(value))
        failure.__dict__[RAISED_AT] = where
        if trace:
            failure.add_note(f"In the process of step {step!r}:\n{trace.rstrip()}")
        raise failure

    def kill(self) -> None:
        """End the process and the call, whatever they do; `reap` must follow. From any thread."""
        with self._lock:
            self._doomed = True
            if self._process is not None:
                self._process.kill()

    def reap(self) -> None:
        """Have the process leave if it is idle, and collect it. Another may be started then."""
        self._collect()
        with self._lock:
            self._doomed = False

    def _collect(self) -> int | None:
        """The process's exit code, negative for a signal; None when there was no process, or when
        it could not be collected."""
        process, pipe = self._process, self._pipe
        if process is None or pipe is None:
            return None
        self._pipe, self._greeted = None, False
        pipe.close()  # at which an idle child leaves
        if not wait([process.sentinel], PATIENCE_SECONDS):
            process.kill()
            wait([process.sentinel], PATIENCE_SECONDS)
        with self._lock:
            self._process = None
        with _books:
            process.join(PATIENCE_SECONDS)
            code = process.exitcode
            if code is not None:  # else it hangs in the kernel, or others have collected it
                process.close()
        return code

    def _start(self) -> Connection:
        if self._doomed:  # killed between two processes
            raise Gone
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=serve, args=(there,), daemon=True, name=self.name)
        try:
            with _books, _interrupt_held():
                process.start()
        except BaseException:
            here.close()
            raise
        finally:
            there.close()
        with self._lock:
            self._process, self._pipe = process, here
            if self._doomed:
                process.kill()
        return here

    def _end(self) -> str:
        """Collect it, and say how it ended."""
        greeted, code = self._greeted, self._collect()
        when = "" if greeted else " while it started"
        if code is None:
            return f"its process died{when}"
        if code < 0:
            return f"its process died{when} with exit code {code} ({_signal_name(-code)})"
        hint = "" if greeted or code == 0 else "; what a script starts belongs under " + MAIN
        return f"its process died{when} with exit code {code}{hint}"


MAIN = "`if __name__ == '__main__':`"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


@contextlib.contextmanager
def _interrupt_held() -> Generator[None]:
    """A process started in here hears no Ctrl-C until it has said what it does about one."""
    if sys.platform == "win32":
        yield
        return
    # Where it isn't running yet, it is started with the first process, and lifts what is held.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
