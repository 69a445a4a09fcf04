"""Virtual time: code that waits for days runs in milliseconds, and the same way every time.

    run_virtual(main)      runs `main` in an event loop whose time is a number

The loop asks its selector to block until the next timer is due, as every event loop does. This one
does not block: when nothing else can be done, it sets the time to when the next timer is due. So
`asyncio.sleep`, timeouts, retry delays and a run's timers all pass at once, in their order, and the
code between them takes no time at all.

What happens outside the loop takes real time, and the loop waits for it for real: calls in threads
and executors, verbs of a store that the clock was told of (`clock.store`, `clock.engine`), and file
descriptors that were added by `loop.add_reader`. Network transports get a moment of real time
before each jump; a test that needs more should fake the network.

The module refuses to know what is being tested: it knows event loops and numbers.
"""

from __future__ import annotations

import asyncio
import inspect
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar, cast

from stepwell.stores.base import Store
from stepwell.stores.registry import open_store
from stepwell.testing.engines import HookedEngine, Hooks
from stepwell.testing.stores import Hook, hooked

if TYPE_CHECKING:
    from stepwell.runtime.engine import Startable
    from stepwell.values import TimerHandle

T = TypeVar("T")

DEFAULT_START = datetime(2026, 1, 1, tzinfo=UTC)
"""When virtual time begins, unless a test says otherwise."""

_RESOLUTION = 1e-6
"""Seconds; timers that are closer together than this are due at the same time."""

_NETWORK = 0.05
"""Real seconds that open transports get to say something before time jumps."""


_PARTS = 20
"""Of the clock's patience."""


class NothingLeft(AssertionError):
    """The code under test waits for something that can never come: no timer is set, no thread or
    store is at work, and no task can go on."""

    __module__ = "stepwell.testing"  # where it is imported from


class VirtualClock:
    """The time of a test: stands still while code runs, jumps when there is nothing else to do.

    Args:
        start: when it begins; a datetime, or seconds since the epoch.
        seed: a number makes a schedule of its own: tasks and bodies start, and stores answer, in
            an order that follows from it, and every order that real life could bring may come.
            None keeps the order in which things were asked for.
        patience: real seconds that a loop with nothing left to do waits for other threads.
        limit: virtual seconds after which `run` gives up: what has to happen by itself has
            happened in ten years, and an engine's heart would go on beating.

    Example:
        >>> import asyncio
        >>> async def nap(clock: VirtualClock) -> float:
        ...     before = clock.now()
        ...     await asyncio.sleep(30 * 86400)
        ...     return clock.now() - before
        >>> run_virtual(nap)
        2592000.0
    """

    def __init__(
        self,
        start: datetime | float = DEFAULT_START,
        *,
        seed: int | None = None,
        patience: float = 2.0,
        limit: float = 3660 * 86400.0,
    ) -> None:
        self.start = start.timestamp() if isinstance(start, datetime) else float(start)
        self.seed = seed
        self.patience = patience
        self.limit = limit
        self._until = limit
        self.elapsed = 0.0
        self.random = None if seed is None else Random(seed)  # noqa: S311 - to be repeatable
        self._engines: list[HookedEngine] = []

    # --- what a clock is -------------------------------------------------------------------------

    def now(self) -> float:
        """The virtual present, in seconds since the epoch, UTC."""
        return self.start + self.elapsed

    def call_at(self, when: float, callback: Callable[[], None]) -> TimerHandle:
        """Call `callback` once it is `when`. Raises RuntimeError outside virtual time."""
        loop = asyncio.get_running_loop()
        if not isinstance(loop, VirtualLoop):
            raise RuntimeError(
                "a VirtualClock works in its own event loop: run the test with run_virtual(main), "
                "or use the `virtual_clock` fixture in an async test"
            )

        def due() -> None:
            self.elapsed = max(self.elapsed, when - self.start)
            callback()

        return loop.call_at(when - self.start, due)

    def polls(self) -> bool:
        """No: other processes live in another time."""
        return False

    # --- what a test does with it ----------------------------------------------------------------

    @property
    def datetime(self) -> datetime:
        """The virtual present as an aware datetime, UTC."""
        return datetime.fromtimestamp(self.now(), UTC)

    async def advance(self, duration: timedelta | float) -> None:
        """Let `duration` (seconds, or a timedelta) pass, and all that it brings be done."""
        await asyncio.sleep(_seconds(duration))
        await self.settle()

    async def settle(self) -> None:
        """Return when nothing more can happen without time passing."""
        await settled()

    def skip(self, duration: timedelta | float) -> None:
        """Let time pass in which nothing is done, as when a machine is off: what was due in it is
        due now."""
        self.elapsed += _seconds(duration)

    def store(self, store: str | Store) -> Store:
        """The store, in virtual time: while one of its verbs is at work, time does not jump."""
        return hooked(open_store(store), Outstanding(self._pause))

    def engine(
        self,
        store: str | Store = "memory://",
        workflows: Iterable[Startable | type] = (),
        *,
        lease: float = 86400.0,
        hooks: Hooks | None = None,
        **settings: Any,
    ) -> HookedEngine:
        """An engine in virtual time; it is stopped at the end of `run_virtual`.

        Args:
            store, workflows, settings: as those of `Engine`.
            lease: long by default, since an engine has something to do each third of it, and a
                test that sleeps for a month would have much to do.
            hooks: called where bodies begin and end.
        """
        engine = HookedEngine(
            self.store(store),
            workflows,
            clock=self,
            lease=lease,
            hooks=hooks or Hooks(),
            pause=self._pause,
            **settings,
        )
        self._engines.append(engine)
        return engine

    def run(self, main: Callable[..., Awaitable[T]] | Awaitable[T], **arguments: Any) -> T:
        """Run `main` to its end in virtual time, and stop the engines that this clock made.

        Args:
            main: a coroutine, or a function that returns something to await; one with a parameter
                that `arguments` do not fill is given this clock.
            **arguments: for the function.

        Raises:
            NothingLeft: when it waits for something that can never come.
            Whatever `main` raises.
        """
        self._until = self.elapsed + self.limit
        with asyncio.Runner(loop_factory=self._make_loop) as runner:
            return runner.run(self._main(main, arguments))

    async def _main(
        self, main: Callable[..., Awaitable[T]] | Awaitable[T], arguments: Mapping[str, Any]
    ) -> T:
        try:
            made = _call(main, self, arguments) if callable(main) else main
            return await made
        finally:
            engines, self._engines = self._engines, []
            for engine in engines:
                await engine.stop()

    def _make_loop(self) -> asyncio.AbstractEventLoop:
        return VirtualLoop(self)

    def over(self) -> bool:
        """Whether `run` has gone on for longer than the limit."""
        return self.elapsed > self._until

    def go_on(self) -> None:
        """The limit was told of; what is left to do is cleaning up."""
        self._until = self.elapsed + self.limit

    async def _pause(self) -> None:
        """With a seed: let others go first, or not."""
        if self.random is not None and self.random.random() < 0.75:
            await asyncio.sleep(self.random.random() * 1e-3)


def run_virtual(
    main: Callable[..., Awaitable[T]] | Awaitable[T],
    *,
    start: datetime | float = DEFAULT_START,
    seed: int | None = None,
) -> T:
    """Run `main` to its end in virtual time that begins at `start`; see `VirtualClock.run`.

    Args:
        main: a coroutine, or a function that returns one; it is given the clock if it takes one.
        start: when virtual time begins.
        seed: see `VirtualClock`.

    Example:
        >>> import asyncio
        >>> async def slow() -> str:
        ...     async with asyncio.timeout(3600):
        ...         await asyncio.sleep(3599)
        ...     return "in time"
        >>> run_virtual(slow())
        'in time'
    """
    return VirtualClock(start, seed=seed).run(main)


async def settled() -> None:
    """Return when nothing more can happen without time passing. Only in virtual time."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualLoop):
        raise RuntimeError("this needs virtual time: run the test with run_virtual(main)")
    await loop.settled()


def _call(
    main: Callable[..., Awaitable[T]], clock: VirtualClock, arguments: Mapping[str, Any]
) -> Awaitable[T]:
    open_ones = [
        p
        for p in inspect.signature(main).parameters.values()
        if p.name not in arguments
        and p.default is p.empty
        and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return main(clock, **arguments) if open_ones else main(**arguments)


def _seconds(duration: timedelta | float) -> float:
    return duration.total_seconds() if isinstance(duration, timedelta) else duration


# --- the loop ------------------------------------------------------------------------------------


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time. Made by `VirtualClock.run`."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.outstanding = 0
        self._idle: list[asyncio.Future[None]] = []
        self._added: set[object] = set()
        super().__init__(_Jumping(self))
        self._clock_resolution = _RESOLUTION

    def time(self) -> float:
        """Virtual seconds since the clock's start."""
        return self.clock.elapsed

    def run_in_executor(  # pyright: ignore[reportIncompatibleMethodOverride] # TypeVarTuple
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """As always; time stands still until it is done."""
        future = super().run_in_executor(executor, func, *args)
        self.outstanding += 1
        future.add_done_callback(self._returned)
        return future

    def _returned(self, _future: asyncio.Future[Any]) -> None:
        self.outstanding -= 1

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """As always; time stands still until its threads have ended, so there is no limit."""
        self.outstanding += 1
        try:
            await super().shutdown_default_executor()
        finally:
            self.outstanding -= 1

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:
        """As always; time stands still while there is one."""
        super().add_reader(fd, callback, *args)
        self._added.add(fd)

    def remove_reader(self, fd: Any) -> bool:
        """As always."""
        self._added.discard(fd)
        return super().remove_reader(fd)

    def create_task(  # pyright: ignore[reportIncompatibleMethodOverride] # Coroutine or Generator
        self, coro: Coroutine[Any, Any, T], **kwargs: Any
    ) -> asyncio.Task[T]:
        """As always; with a seed, tasks begin in an order that follows from it."""
        if self.clock.random is not None and self.clock.random.random() < 0.5:
            coro = _Later(self.clock, coro)
        return super().create_task(coro, **kwargs)

    async def settled(self) -> None:
        """Return when nothing more can happen without time passing."""
        future = self.create_future()
        self._idle.append(future)
        await future

    def busy(self) -> bool:
        """Whether something outside the loop is at work."""
        return self.outstanding > 0 or bool(self._added)

    def pass_time(self, timeout: float | None) -> bool:
        """Nothing is left to do before `timeout` seconds have passed: let them. False when there
        is nothing to wait for at all."""
        if self._idle:
            idle, self._idle = self._idle, []
            for future in idle:
                if not future.done():
                    future.set_result(None)
            return True
        if timeout is None or self.clock.over():
            return False
        self.clock.elapsed += timeout
        return True

    def hopeless(self) -> NothingLeft:
        """What to raise when nothing will ever happen again."""
        waiting = asyncio.all_tasks(self)
        self.clock.go_on()
        tasks = "".join(f"\n  {task.get_name()}: {_where(task)}" for task in waiting)
        return NothingLeft(
            "the code under test waits for something that can never come: no timer is set (or "
            "virtual time has run for longer than its limit) and no thread or store is at work. "
            f"Tasks that wait:{tasks}"
        )


def _where(task: asyncio.Task[Any]) -> str:
    """Where a task waits: its coroutines, from the outermost to the innermost."""
    places: list[str] = []
    coroutine: Any = task.get_coro()
    if isinstance(coroutine, _Later):
        coroutine = cast(Any, coroutine).rest
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        places.append(f"{frame.f_code.co_qualname} (line {frame.f_lineno})")
        coroutine = coroutine.cr_await
    return " > ".join(places) or repr(task)


class _Later(Coroutine[Any, Any, T]):
    """A coroutine that lets others go first. A class, so that what it holds is closed with it."""

    def __init__(self, clock: VirtualClock, coro: Coroutine[Any, Any, T]) -> None:
        self._coro = coro
        self.rest = self._run(clock)

    async def _run(self, clock: VirtualClock) -> T:
        await asyncio.sleep(cast(Random, clock.random).random() * 1e-3)
        return await self._coro

    def send(self, value: Any, /) -> Any:
        return self.rest.send(value)

    def throw(self, *error: Any) -> Any:
        try:
            return self.rest.throw(*error)
        finally:
            if inspect.getcoroutinestate(cast(Any, self.rest)) == inspect.CORO_CLOSED:
                self._coro.close()

    def close(self) -> None:
        self.rest.close()
        self._coro.close()

    def __await__(self) -> Any:
        return self.rest.__await__()


class _Jumping(selectors.BaseSelector):
    """A selector that jumps through time instead of blocking."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._real = selectors.DefaultSelector()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = self._real.select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        loop = self._loop
        if loop.busy():
            return self._real.select(None)
        if len(self._real.get_map()) > 1:  # more than the loop's own wake-up call
            events = self._real.select(_NETWORK)
            if events:
                return events
        if not loop.pass_time(timeout):
            events = self._real.select(0) if loop.clock.over() else self._wait()
            if not events:
                raise loop.hopeless()
        return events

    def _wait(self) -> list[tuple[selectors.SelectorKey, int]]:
        """What comes while there is patience. In small parts: a machine that halts for long uses up
        one of them, and the threads that are waited for have the others."""
        for _ in range(_PARTS):
            events = self._real.select(self._loop.clock.patience / _PARTS)
            if events:
                return events
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def close(self) -> None:
        self._real.close()

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.get_key(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()


async def no_pause() -> None:
    """For `Outstanding`: verbs begin and answer at once."""


class Outstanding(Hook):
    """Time stands still while a verb is at work; with a seed, verbs begin and answer later."""

    def __init__(self, pause: Callable[[], Awaitable[None]]) -> None:
        self._pause = pause

    async def around(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
        """See `Hook.around`."""
        if verb == "changed":
            return await call()
        await self._pause()
        loop = asyncio.get_running_loop()
        if not isinstance(loop, VirtualLoop):
            return await call()
        loop.outstanding += 1
        try:
            result = await call()
        finally:
            loop.outstanding -= 1
        await self._pause()
        return result
