"""Threads and processes of a run: what they give, what stops them, and that nothing is left."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import logging
import math
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest
from tests.runtime import pool_work as work

from stepwell.errors import ExecutionRefused
from stepwell.runtime import pools as runtime_pools
from stepwell.runtime.child import Child
from stepwell.runtime.pools import Pools, check_process_step

ROOT = Path(__file__).parents[2]
PROC = Path("/proc/self")
needs_proc = pytest.mark.skipif(not PROC.exists(), reason="counts what /proc lists")

colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


@asynccontextmanager
async def pools(threads: int = 4, processes: int = 2) -> AsyncIterator[Pools]:
    made = Pools("test", threads=threads, processes=processes)
    try:
        yield made
    finally:
        made.close()


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(100):
        while not true():  # noqa: ASYNC110 - other threads and processes tell nobody
            await asyncio.sleep(0.01)


async def pid_in(path: Path) -> int:
    await until(lambda: path.exists() and path.read_text())
    return int(path.read_text())  # noqa: ASYNC240 - a few bytes


def exists(pid: int) -> bool:
    """Whether there is such a process, or what is left of one that nobody has collected."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def children() -> set[int]:
    """Processes started by this one, but for the one that multiprocessing keeps for itself."""
    found: set[int] = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
            line = (status.parent / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == os.getpid() and b"resource_tracker" not in line:
            found.add(int(status.parent.name))
    return found


def ours() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("stepwell-test-")]


def left_behind() -> tuple[int, int, int]:
    gc.collect()  # or what earlier tests left to it would be closed in between
    return len(os.listdir("/proc/self/fd")), len(ours()), len(children())


# --- threads -------------------------------------------------------------------------------------


async def test_a_thread_has_the_callers_context_variables_and_not_its_loop() -> None:
    def look() -> tuple[str, bool]:
        colour.set("only here")
        return threading.current_thread().name, threading.current_thread().daemon

    def see() -> str:
        return colour.get()

    async with pools() as own:
        colour.set("red")
        assert await own.in_thread(see, {}, "s") == "red"
        name, daemon = await own.in_thread(look, {}, "s")  # type: ignore[misc]
        assert name.startswith("stepwell-test-")
        assert daemon
        assert colour.get() == "red"
        colour.set("blue")
        assert await own.in_thread(see, {}, "s") == "blue"


async def test_nothing_is_started_before_it_is_needed_and_threads_are_used_again() -> None:
    async with pools() as own:
        assert ours() == []
        first = await own.in_thread(threading.get_ident, {}, "s")
        assert await own.in_thread(threading.get_ident, {}, "s") == first
        assert len(ours()) == 1
    assert ours() == []


async def test_errors_of_a_thread_arrive_whatever_they_are() -> None:
    class Hard(BaseException):
        pass

    def fail(error: BaseException) -> None:
        raise error

    async with pools() as own:
        for error in (KeyError("k"), Hard()):
            with pytest.raises(type(error)) as caught:
                await own.in_thread(fail, {"error": error}, "s")
            assert caught.value is error
        with pytest.raises(RuntimeError, match="StopIteration"):
            await own.in_thread(fail, {"error": StopIteration()}, "s")
        assert len(ours()) == 1


async def test_a_call_that_cancels_itself_abandons_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> None:
        raise asyncio.CancelledError

    async with pools() as own:
        with pytest.raises(asyncio.CancelledError):
            await own.in_thread(fail, {}, "s")
        await own.in_thread(int, {}, "s")
        assert len(ours()) == 1
    assert caplog.text == ""


async def test_threads_are_bounded_and_those_that_wait_can_be_cancelled() -> None:
    release = threading.Event()
    lock, now, most = threading.Lock(), 0, 0

    def busy() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        assert release.wait(60)
        with lock:
            now -= 1

    async with pools(threads=2) as own:
        tasks = [asyncio.create_task(own.in_thread(busy, {}, "s")) for _ in range(5)]
        await until(lambda: now == 2)
        tasks[4].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[4]
        release.set()
        await asyncio.gather(*tasks[:4])
        assert most == 2
        assert len(ours()) == 2


async def test_an_abandoned_thread_counts_no_more_and_ends_with_its_function(
    caplog: pytest.LogCaptureFixture,
) -> None:
    began, release = threading.Event(), threading.Event()

    def hang() -> None:
        began.set()
        release.wait(60)

    async with pools(threads=1) as own:
        with caplog.at_level(logging.WARNING, logger="stepwell"):
            task = asyncio.create_task(own.in_thread(hang, {}, "slow"))
            await until(began.is_set)
            abandoned = ours()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert "step 'slow' was stopped, but a thread can't be" in caplog.text
        assert await own.in_thread(threading.get_ident, {}, "s") != abandoned[0].ident
        assert len(ours()) == 2
        release.set()
        await until(lambda: not abandoned[0].is_alive())
        assert len(ours()) == 1


async def test_an_idle_thread_keeps_nothing_alive() -> None:
    class Big:
        pass

    async with pools() as own:
        big = Big()
        seen = weakref.ref(big)
        await own.in_thread(work.echo, {"x": big}, "s")
        del big
        gc.collect()
        await until(lambda: seen() is None)


# --- processes -----------------------------------------------------------------------------------


async def test_processes_are_used_again_and_bounded() -> None:
    async with pools(processes=2) as own:
        first = await own.in_process(work.pid, {}, "s")
        assert first != os.getpid()
        assert await own.in_process(work.pid, {}, "s") == first
        found = await asyncio.gather(*[own.in_process(work.pid, {}, "s") for _ in range(6)])
        assert len(set(found)) == 2
        assert first in found


async def test_an_error_comes_back_with_its_type_and_where_it_was_raised() -> None:
    async with pools(processes=1) as own:
        first = await own.in_process(work.pid, {}, "s")
        with pytest.raises(work.Own, match="mine") as caught:
            await own.in_process(work.fail, {"what": "own"}, "sum")
        (note,) = caught.value.__notes__
        assert note.startswith("In the process of step 'sum':\nTraceback (most recent call last)")
        assert "pool_work.py" in note
        assert "runtime/child.py" not in note
        with pytest.raises(KeyError):
            await own.in_process(work.fail, {"what": "key"}, "s")
        assert await own.in_process(work.pid, {}, "s") == first


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (functools.partial(work.give, "lock"), "its result can't be sent: <unlocked"),
        (functools.partial(work.give, "one-way"), "what it gave can't be received: ValueError"),
        (functools.partial(work.fail, "odd"), r"its error can't be sent: Odd\(1\)"),
        (work.fail_with_lock, r"its error can't be sent: Own\('held'\)"),
        (work.Bound(threading.Lock()).method, "it can't be sent to another process"),
        (functools.partial(work.echo, work.OneWay()), "it can't be loaded in another process"),
    ],
)
async def test_what_can_not_travel_is_refused_and_costs_no_process(
    call: Callable[..., object], said: str
) -> None:
    async with pools(processes=1) as own:
        first = await own.in_process(work.pid, {}, "s")
        with pytest.raises(ExecutionRefused, match=said) as caught:
            await own.in_process(call, {}, "odd one")
        assert caught.value.step == "odd one"
        assert await own.in_process(work.pid, {}, "s") == first


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("exit", "exit code 7"),
        ("leave", "exit code 5"),
        ("SIGKILL", r"exit code -9 \(SIGKILL\)"),
        ("SIGSEGV", r"exit code -11 \(SIGSEGV\)"),
    ],
)
async def test_a_process_that_dies_fails_its_call_and_is_replaced(how: str, said: str) -> None:
    async with pools(processes=1) as own:
        first = await own.in_process(work.pid, {}, "s")
        with pytest.raises(ExecutionRefused, match=f"Step 'fatal' .*its process died with {said}"):
            await own.in_process(work.die, {"how": how}, "fatal")
        assert not exists(first)  # type: ignore[arg-type]
        assert await own.in_process(work.pid, {}, "s") not in (first, os.getpid())


@needs_proc
async def test_a_process_that_dies_between_two_calls_is_replaced() -> None:
    async with pools(processes=1) as own:
        first = await own.in_process(work.pid, {}, "s")
        assert isinstance(first, int)
        os.kill(first, signal.SIGKILL)
        # Its pipe is closed when the last of its threads has gone.
        await until(lambda: not _alive(first) and len(os.listdir(f"/proc/{first}/task")) == 1)
        assert await own.in_process(work.pid, {}, "s") != first


@pytest.mark.parametrize("busy", [work.hang, work.spin])
async def test_a_cancelled_call_kills_its_process(
    busy: Callable[[str], None], tmp_path: Path
) -> None:
    async with pools(processes=1) as own:
        task = asyncio.create_task(own.in_process(busy, {"path": str(tmp_path / "pid")}, "s"))
        pid = await pid_in(tmp_path / "pid")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not exists(pid)
        assert await own.in_process(work.pid, {}, "s") != pid


async def test_a_call_that_takes_too_long_kills_its_process(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    async with pools(processes=1) as own:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as limit:
                task = asyncio.create_task(own.in_process(work.hang, {"path": str(path)}, "s"))
                pid = await pid_in(path)
                limit.reschedule(0)
                await task
        assert not exists(pid)


@needs_proc
@pytest.mark.parametrize("turns", [0, 1, 2, 5])
async def test_a_call_that_is_cancelled_while_its_process_starts_leaves_none(
    turns: int, tmp_path: Path
) -> None:
    before = children()
    async with pools(processes=1) as own:
        path = str(tmp_path / "pid")
        task = asyncio.create_task(own.in_process(work.hang, {"path": path}, "s"))
        for _ in range(turns):
            await asyncio.sleep(0.002)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert children() == before
        assert await own.in_process(work.echo, {"x": 1}, "s") == 1


@needs_proc
async def test_a_cancelled_call_does_not_go_on_in_a_second_process(tmp_path: Path) -> None:
    """The kill can find the thread before it has looked at the process, and so sees it dead."""
    entered, release = threading.Event(), threading.Event()

    class Slow:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            entered.set()
            assert release.wait(60)
            return work.Bound, ()

    path = tmp_path / "pid"
    before = children()  # servers of other tests, perhaps
    async with pools(processes=1) as own:
        await own.in_process(work.pid, {}, "s")
        kwargs = {"path": str(path), "held": Slow()}
        task = asyncio.create_task(own.in_process(work.hang, kwargs, "s"))
        await until(entered.is_set)
        task.cancel()
        await asyncio.sleep(0)
        await until(lambda: not any(_alive(pid) for pid in children() - before))
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert children() == before


def test_a_kill_that_comes_while_a_process_starts_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    child = Child("stepwell-test-0")
    start = SpawnProcess.start

    def killed_meanwhile(process: SpawnProcess) -> None:
        child.kill()
        start(process)

    monkeypatch.setattr(SpawnProcess, "start", killed_meanwhile)
    with pytest.raises(ExecutionRefused, match=r"died while it started .*SIGKILL"):
        child.call(work.hang, {"path": str(tmp_path / "pid")}, "s")
    child.reap()
    monkeypatch.undo()
    assert child.call(work.echo, {"x": 1}, "s") == 1
    child.reap()


def _alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except FileNotFoundError:
        return False


async def test_waiting_for_a_process_can_be_cancelled(tmp_path: Path) -> None:
    async with pools(processes=1) as own:
        path = tmp_path / "pid"
        busy = asyncio.create_task(own.in_process(work.hang, {"path": str(path)}, "s"))
        pid = await pid_in(path)
        waiting = asyncio.create_task(own.in_process(work.pid, {}, "s"))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert exists(pid)
        busy.cancel()
        with pytest.raises(asyncio.CancelledError):
            await busy


async def test_ctrl_c_is_the_parents_affair() -> None:
    async with pools(processes=1) as own:
        assert await own.in_process(work.interrupted, {}, "s") == "went on"


async def test_programs_that_a_process_starts_hear_ctrl_c_as_ever() -> None:
    async with pools(processes=1) as own:
        assert await own.in_process(work.interruptible, {}, "s") == "True set()"


async def test_what_a_process_prints_is_seen_when_the_call_ends(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    async with pools(processes=1) as own:
        await own.in_process(work.speak, {"word": "here"}, "s")
        out, err = capfd.readouterr()
        assert out == "out here\n"
        assert err == "err here\n"


async def held_up(awaited: Awaitable[object]) -> tuple[object, float]:
    """What it gives, and the longest part of its time in which the loop did not turn."""
    longest, last = 0.0, time.perf_counter()
    began = last

    async def turn() -> None:
        nonlocal longest, last
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    turning = asyncio.create_task(turn())
    value = await awaited
    turning.cancel()
    await asyncio.wait({turning})
    return value, longest / (last - began)


async def test_a_hundred_megabytes_do_not_hold_up_the_loop() -> None:
    big = bytes(100_000_000)
    async with pools(processes=1) as own:
        parts: list[float] = []
        for _ in range(20):  # a busy machine holds up the loop as well, but not each time
            value, part = await held_up(own.in_process(work.echo, {"x": big}, "s"))
            assert value == big
            parts.append(part)
            # To copy it once is a tenth of it all, and nothing takes longer.
            if part < 0.34:
                return
        pytest.fail(f"the loop was held up for these parts of the time: {parts}")


# --- closing -------------------------------------------------------------------------------------


@needs_proc
async def test_closing_leaves_no_thread_no_process_and_no_descriptor(tmp_path: Path) -> None:
    async with pools() as own:  # what multiprocessing keeps once it has started anything
        await own.in_process(work.pid, {}, "s")
    before = left_behind()
    own = Pools("test", threads=4, processes=3)
    await asyncio.gather(*[own.in_process(work.pid, {}, "s") for _ in range(2)])
    await own.in_thread(int, {}, "s")
    path = tmp_path / "pid"
    busy = asyncio.create_task(own.in_process(work.hang, {"path": str(path)}, "s"))
    pid = await pid_in(path)
    assert left_behind() != before
    own.close()
    assert not exists(pid)
    with pytest.raises(ExecutionRefused, match="SIGKILL"):
        await busy
    own.close()
    assert left_behind() == before
    with pytest.raises(RuntimeError, match="the threads and processes of 'test' are closed"):
        await own.in_thread(int, {}, "s")
    with pytest.raises(RuntimeError, match="the threads and processes of 'test' are closed"):
        await own.in_process(work.pid, {}, "s")


@needs_proc
async def test_neither_kills_nor_refusals_leak(tmp_path: Path) -> None:
    async with pools(processes=1) as own:
        await own.in_process(work.pid, {}, "s")
        before = left_behind()
        for n in range(3):
            with pytest.raises(ExecutionRefused):
                await own.in_process(work.die, {"how": "exit"}, "s")
            path = tmp_path / str(n)
            task = asyncio.create_task(own.in_process(work.hang, {"path": str(path)}, "s"))
            await pid_in(path)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await own.in_process(work.pid, {}, "s")
        assert left_behind() == before


async def test_closing_does_not_wait_for_a_busy_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_pools, "GRACE_SECONDS", 1000.0)
    began, release = threading.Event(), threading.Event()

    def hang() -> None:
        began.set()
        release.wait(60)

    own = Pools("test")
    task = asyncio.create_task(own.in_thread(hang, {}, "s"))
    await until(began.is_set)
    own.close()
    assert ours()[0].is_alive()  # who waits for it finds it ended, after its minute
    release.set()
    await task
    await until(lambda: ours() == [])


async def test_who_still_waits_for_room_is_told_that_it_is_closed() -> None:
    release = threading.Event()
    own = Pools("test", threads=1)
    busy = asyncio.create_task(own.in_thread(release.wait, {"timeout": 60}, "s"))
    waiting = asyncio.create_task(own.in_thread(int, {}, "s"))
    await asyncio.sleep(0)
    own.close()
    release.set()
    assert await busy is True
    with pytest.raises(RuntimeError, match="closed"):
        await waiting


@pytest.mark.parametrize("sizes", [{"threads": 0}, {"processes": 0}])
def test_a_pool_has_a_place(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="one place at least"):
        Pools("test", **sizes)


# --- other loops ---------------------------------------------------------------------------------


async def both(tmp: Path) -> object:
    """A call of each kind, and one of each that is cancelled."""
    own = Pools("test", threads=1, processes=1)
    release = threading.Event()
    try:
        assert await own.in_process(work.echo, {"x": 1}, "s") == 1
        for call in (
            own.in_thread(release.wait, {"timeout": 60}, "s"),
            own.in_process(work.hang, {"path": str(tmp / "pid")}, "s"),
        ):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(call, 0.05)
        return await own.in_thread(work.echo, {"x": 2}, "s")
    finally:
        release.set()
        own.close()


def test_it_runs_on_uvloop(tmp_path: Path) -> None:
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(both(tmp_path)) == 2


def test_it_runs_in_the_loop_of_a_thread(tmp_path: Path) -> None:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(both(tmp_path))))
    thread.start()
    thread.join(100)
    assert found == [2]


# --- whole programs ------------------------------------------------------------------------------


def program(text: str, folder: Path, name: str = "program.py") -> list[str]:
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return [sys.executable, str(path)]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}


def run(arguments: list[str], given: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, input=given, env=environment(), capture_output=True, text=True, timeout=100
    )


def test_a_thread_that_hangs_keeps_neither_the_loop_nor_the_program(tmp_path: Path) -> None:
    text = """
        import asyncio, threading
        from stepwell.runtime.pools import Pools

        async def main():
            await asyncio.wait_for(Pools("p").in_thread(threading.Event().wait, {}, "s"), 0.05)

        try:
            asyncio.run(main())
        except TimeoutError:
            print("ended")
    """
    done = run(program(text, tmp_path))
    assert (done.returncode, done.stdout) == (0, "ended\n")
    assert "step 's' was stopped" in done.stderr


def test_a_program_that_closes_nothing_ends_all_the_same(tmp_path: Path) -> None:
    text = """
        import asyncio
        from stepwell.runtime.pools import Pools
        from tests.runtime.pool_work import pid

        async def main():
            own = Pools("p")
            await own.in_thread(int, {}, "s")
            print(await own.in_process(pid, {}, "s"))

        if __name__ == "__main__":
            asyncio.run(main())
    """
    done = run(program(text, tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert not exists(int(done.stdout))


def test_functions_and_errors_of_a_script_travel(tmp_path: Path) -> None:
    text = """
        import asyncio
        from stepwell.runtime.pools import Pools, check_process_step

        class Mine(Exception):
            pass

        def step():
            raise Mine("of the script")

        async def main():
            check_process_step(step, "s")
            own = Pools("p")
            try:
                await own.in_process(step, {}, "s")
            except Mine as error:
                print(repr(error))
            finally:
                own.close()

        if __name__ == "__main__":
            asyncio.run(main())
    """
    done = run(program(text, tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "Mine('of the script')\n", "")


def test_a_script_without_a_guard_is_told_of_it(tmp_path: Path) -> None:
    text = """
        import asyncio
        from stepwell.runtime.pools import Pools
        from tests.runtime.pool_work import pid
        asyncio.run(Pools("p").in_process(pid, {}, "s"))
    """
    done = run(program(text, tmp_path))
    assert done.returncode == 1
    assert "its process died while it started with exit code 1" in done.stderr
    assert "what a script starts belongs under `if __name__ == '__main__':`" in done.stderr


ORPHANS = """
    import asyncio, sys
    from stepwell.runtime.pools import Pools
    from tests.runtime import pool_work as work

    async def main():
        own = Pools("p", processes=3)
        first = asyncio.create_task(own.in_process(work.hang, {{"path": sys.argv[1]}}, "s"))
        second = asyncio.create_task(own.in_process(work.spin, {{"path": sys.argv[2]}}, "s"))
        idle = await own.in_process(work.pid, {{}}, "s")
        {fork}
        print(idle, copy, flush=True)
        await asyncio.gather(first, second)

    if __name__ == "__main__":
        asyncio.run(main())
"""
# A copy of the parent holds its ends of all pipes open, so that they say nothing of its death.
FORK = "import os; copy = os.fork() or (os.close(1), __import__('time').sleep(1000), os._exit(0))"


@needs_proc
@pytest.mark.parametrize("fork", ["copy = 0", FORK], ids=["alone", "forked"])
async def test_a_killed_parent_leaves_no_orphan(tmp_path: Path, fork: str) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    parent = subprocess.Popen(  # noqa: ASYNC220 - it only forks
        [*program(ORPHANS.format(fork=fork), tmp_path), str(one), str(two)],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    with parent.stdout:
        idle, copy = map(int, parent.stdout.readline().split())
        pids = [idle, await pid_in(one), await pid_in(two)]
        assert all(exists(pid) for pid in pids)
        parent.kill()
        parent.wait(60)
    await until(lambda: not any(_alive(pid) for pid in pids))
    if copy:
        os.kill(copy, signal.SIGKILL)


def test_ctrl_c_in_a_terminal_prints_no_stack_of_a_child(tmp_path: Path) -> None:
    """The whole group gets the signal: while children start, while one is busy, while one idles."""
    text = """
        import asyncio, os, signal, sys
        from stepwell.runtime.pools import Pools
        from tests.runtime import pool_work as work

        async def main():
            own = Pools("p", processes=4)
            calls = [own.in_process(work.hang, {"path": f"{sys.argv[1]}.{n}"}, "s") for n in (1, 2)]
            tasks = [asyncio.create_task(call) for call in calls]
            await own.in_process(work.pid, {}, "s")
            late = asyncio.create_task(own.in_process(work.pid, {}, "s"))
            await asyncio.sleep(float(sys.argv[2]))
            os.killpg(0, signal.SIGINT)
            try:
                await asyncio.gather(*tasks, late)
            finally:
                own.close()

        if __name__ == "__main__":
            try:
                asyncio.run(main())
            except KeyboardInterrupt:
                print("interrupted")
    """
    command = program(text, tmp_path)
    for moment in ("0.001", "0.03", "0.3"):
        done = subprocess.run(
            [*command, str(tmp_path / "pid"), moment],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=100,
            start_new_session=True,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


# --- what is refused before anything runs --------------------------------------------------------


@pytest.mark.parametrize(
    "func",
    [work.pid, len, math.sqrt, work.Bound().method, work.Bound(), functools.partial(work.echo, 1)],
)
def test_what_another_process_can_import_is_fine(func: Callable[..., object]) -> None:
    check_process_step(func, "s")


def make(held: object) -> Callable[..., object]:
    def inner() -> object:
        return held

    return inner


def replaced() -> None:
    pass


class Async:
    async def __call__(self) -> None:
        pass


@pytest.mark.parametrize(
    ("func", "said"),
    [
        (lambda: 1, "it is a lambda"),
        (functools.partial(lambda x: x, 1), "it is a lambda"),
        (make(1), r"make\.<locals>\.inner is defined inside a function"),
        (work.Bound(threading.Lock()).method, "its object can't be sent to another process"),
        (work.Bound(threading.Lock()), "it can't be sent to another process"),
        (work.coroutine, "it is async"),
        (functools.partial(work.coroutine), "it is async"),
        (Async(), "it is async"),
        (work.generate, "it is a generator"),
        (functools.wraps(replaced)(make(1)), "it can't be sent to another process: .*not the same"),
    ],
)
def test_what_another_process_can_not_run_is_refused(
    func: Callable[..., object], said: str
) -> None:
    with pytest.raises(ExecutionRefused, match=said) as caught:
        check_process_step(func, "mine")
    assert str(caught.value).startswith("Step 'mine' cannot be executed in a process: ")
    assert not re.search(r"\.\.$", str(caught.value))


def test_what_is_typed_at_a_prompt_is_refused() -> None:
    text = """
from stepwell.runtime.pools import check_process_step
def step(): pass
class C:
    def method(self): pass
for func in (step, C().method, C):
    try:
        check_process_step(func, "s")
    except Exception as error:
        print(error)
check_process_step(len, "s")
"""
    done = run([sys.executable, "-"], text)
    assert done.stderr == ""
    said = "Step 's' cannot be executed in a process: it is defined in a notebook or at a prompt"
    assert done.stdout.count(said) == 3
