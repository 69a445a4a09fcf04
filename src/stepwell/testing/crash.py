"""What a crash does to a workflow: run it once per store write, kill it there, let it go on.

    print(crash_points(Order(), sku="A1", answers={"approve": {"ok": True}}))

The engine keeps its promises at every point; what it can't promise is that a step's body runs
once. A body that was at work, or had just ended, when the process died runs again, and what it
does to the world it does twice unless it says `ctx.idempotency_key` to the other side or does it in
a `ctx.memo`. The report names those bodies.

Each life runs in virtual time, and death is played: at the chosen write the store stops answering,
and the engine is dropped as it stands. (Bodies that were at work see a cancellation, which a real
kill does not give them; nothing they do in it can be kept.)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from stepwell.authoring.events.model import Event
from stepwell.runtime.engine import Engine, Startable
from stepwell.runtime.telemetry import listen
from stepwell.runtime.views import WaitInfo
from stepwell.stores.base import Store
from stepwell.stores.memory import MemoryStore
from stepwell.testing.clock import NothingLeft, Outstanding, VirtualClock, no_pause, settled
from stepwell.testing.engines import Bodies
from stepwell.testing.stores import Dying, hooked
from stepwell.values import RunStatus

Answer: TypeAlias = "Event | Mapping[str, Any] | str"
RUN = "crash-point"
_GONE = 60.0
"""Virtual seconds between a death and the next life."""
_LEASE = 3 * 3600.0
"""Three times in this an engine says that it is alive, and lets go of runs that only wait. Nobody
else is there who could take over, and the next life says whose time is over; so once an hour will
do, and days of sleep cost little."""


@dataclass
class Life:
    """How a run ended, and what its readers saw."""

    status: RunStatus | None = None
    result: Any = None
    error: str | None = None
    stream: list[str] = field(default_factory=list[str])

    def __str__(self) -> str:
        what = f" with {self.error}" if self.error else f" with result {self.result!r}"
        return f"{self.status.value if self.status else 'unfinished'}{what}"


@dataclass
class Repeated:
    """A step whose bodies ran again after a kill.

    Attributes:
        kills: at how many of the kills.
        done: at how many of those the body had already come to its end.
    """

    kills: int = 0
    done: int = 0


@dataclass
class CrashReport:
    """What `crash_points` found. `str()` of it is for reading.

    Attributes:
        workflow: its name.
        writes: the store writes of the uninterrupted run, in order.
        kills: how often the run was killed.
        expected: how the uninterrupted run ended.
        failures: sentences on kills after which the run did not end like that.
        repeated: the steps whose bodies ran again, by name.
    """

    workflow: str
    writes: list[str]
    kills: int
    expected: Life
    failures: list[str] = field(default_factory=list[str])
    repeated: dict[str, Repeated] = field(default_factory=dict[str, Repeated])

    @property
    def ok(self) -> bool:
        """Whether every killed run ended as the uninterrupted one, with the same stream."""
        return not self.failures

    def __str__(self) -> str:
        lines = [
            f"{self.workflow}: {len(self.writes)} store writes, killed before and after each: "
            f"{self.kills} kills"
        ]
        if self.ok:
            lines.append(f"every run went on and ended as the uninterrupted one: {self.expected}")
        else:
            lines.append(f"the uninterrupted run: {self.expected}")
            lines += [f"  {failure}" for failure in self.failures]
        if self.repeated:
            lines.append(
                "bodies that ran again after a kill; give ctx.idempotency_key to outside systems, "
                "or do it in ctx.memo:"
            )
            width = max(map(len, self.repeated))
            for step, seen in sorted(self.repeated.items()):
                done = f", {seen.done} of them after its body had ended" if seen.done else ""
                lines.append(f"  {step:<{width}}  at {seen.kills} kills{done}")
        else:
            lines.append("no body ran again")
        return "\n".join(lines)


def crash_points(
    workflow: Startable,
    start_event: object = None,
    /,
    *,
    answers: Mapping[str, Answer] | None = None,
    store: Callable[[], Store] = MemoryStore,
    known: Sequence[Startable] = (),
    **fields: Any,
) -> CrashReport:
    """Kill a workflow before and after each of its store writes, and compare.

    Args:
        workflow: the workflow's instance.
        start_event: what starts it; without one it is made of `fields`.
        answers: what to answer to its questions, by waiter id or by the name of the event type
            that is waited for; a text, fields, or an event, as for `Engine.answer`.
        store: makes an empty store; called once for every kill. In memory by default.
        known: further workflows that the engine knows, such as children.
        **fields: the fields of the start event.

    Returns:
        The report. Assert `report.ok`, and look at `report.repeated`.

    Raises:
        RuntimeError: inside a running event loop; call it from a plain function.
        NothingLeft: the workflow asks a question that `answers` does not answer.

    Example:
        >>> from stepwell import StartEvent, StopEvent, Workflow, step
        >>> class Charge(Workflow):
        ...     @step
        ...     async def charge(self, ev: StartEvent) -> StopEvent:
        ...         return StopEvent(result=ev.amount)
        >>> report = crash_points(Charge(), amount=5)
        >>> report.ok, sorted(report.repeated)
        (True, ['charge'])
    """
    with _quiet():
        return _crash_points(Play(workflow, start_event, answers or {}, fields, known), store)


@contextmanager
def _quiet() -> Generator[None]:
    """Hundreds of lives would say the same things in the log."""
    logger = logging.getLogger("stepwell")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _crash_points(play: Play, store: Callable[[], Store]) -> CrashReport:
    counting = Dying()
    expected = play.life(VirtualClock(), hooked(store(), counting), Bodies())
    if expected.status is None:
        raise AssertionError("the uninterrupted run did not end")
    writes = counting.writes[: play.writes_until_end]
    report = CrashReport(play.workflow.compiled().definition.name, writes, 0, expected)
    for number, verb in enumerate(writes, 1):
        for when in ("before", "after"):
            report.kills += 1
            _kill(play, report, store(), number, when, f"killed {when} write {number} ({verb})")
    return report


def _kill(
    play: Play, report: CrashReport, store: Store, number: int, when: str, where: str
) -> None:
    clock = VirtualClock()
    first, second = Bodies(), Bodies()
    play.life(clock, hooked(store, Dying(number, when)), first)
    clock.skip(_GONE)
    life = play.life(clock, store, second)
    expected = report.expected
    if (life.status, life.result, life.error) != (expected.status, expected.result, expected.error):
        report.failures.append(f"{where}: {life}")
    elif life.stream != expected.stream:
        report.failures.append(
            f"{where}: its stream was {life.stream}, and should be {expected.stream}"
        )
    again = first.times().keys() & second.times().keys()
    for name in {step for _, step, _ in again}:
        seen = report.repeated.setdefault(name, Repeated())
        seen.kills += 1
        seen.done += any(body in first.done for body in again if body[1] == name)


class Play:
    """Lets a workflow live, up to its end or its death."""

    def __init__(
        self,
        workflow: Startable,
        start_event: object,
        answers: Mapping[str, Answer],
        fields: Mapping[str, Any],
        known: Sequence[Startable] = (),
    ) -> None:
        self.known = known
        self.workflow = workflow
        self.start_event = start_event
        self.answers = answers
        self.fields = fields
        self.writes_until_end = 0

    def life(self, clock: VirtualClock, store: Store, bodies: Bodies) -> Life:
        """One life of the run: from its start, or from what an earlier life left."""
        return clock.run(lambda: self._life(clock, store, bodies))

    async def _life(self, clock: VirtualClock, store: Store, bodies: Bodies) -> Life:
        hook = getattr(store, "_hook", None)
        if not isinstance(hook, Dying):
            await _end_leases(store, clock.now())
        engine = clock.engine(store, [self.workflow, *self.known], hooks=bodies, lease=_LEASE)
        lived = asyncio.ensure_future(self._lived(engine))
        if not isinstance(hook, Dying):
            return await lived
        died = asyncio.ensure_future(hook.died())
        await asyncio.wait({lived, died}, return_when=asyncio.FIRST_COMPLETED)
        if died.done():
            lived.cancel()
            engine.abandon()
            await store.close()
            return Life()
        died.cancel()
        self.writes_until_end = len(hook.writes)
        return await lived

    async def _lived(self, engine: Engine) -> Life:
        news = asyncio.Event()
        stop = listen(lambda name, _: news.set() if name == "wait.opened" else None)
        try:
            return await self._followed(engine, news)
        finally:
            stop()

    async def _followed(self, engine: Engine, news: asyncio.Event) -> Life:
        await engine.start_up()
        if await engine.store.get(RUN) is None:
            await engine.start(
                self.workflow,
                *(() if self.start_event is None else (self.start_event,)),
                run_id=RUN,
                **self.fields,
            )
        life = Life()
        reading = asyncio.ensure_future(self._read(engine, life))
        answering = asyncio.ensure_future(self._answer(engine, news))
        try:
            await asyncio.wait({reading, answering}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                await answering  # raises
            await reading
        finally:
            answering.cancel()
            reading.cancel()
        life.status = (await engine.get(RUN)).status
        try:
            life.result = await engine.result(RUN)
        except Exception as error:
            life.error = f"{type(error).__name__}: {error}"
        return life

    async def _read(self, engine: Engine, life: Life) -> None:
        async for item in engine.stream(RUN):
            life.stream.append(repr(item.event))

    async def _answer(self, engine: Engine, news: asyncio.Event) -> None:
        """Answer what the run and its children ask, when there is nothing else to do but wait."""
        answered: set[tuple[str, str]] = set()
        while True:
            news.clear()
            await settled()
            waiting, _ = await engine.list(status=RunStatus.WAITING, limit=500)
            open_ones = [
                (info.id, w)
                for info in waiting
                for w in info.waits
                if (info.id, w.id) not in answered
            ]
            if await self._answered(engine, open_ones, answered):
                continue
            lost = [w for _, w in open_ones if w.due is None and w.child is None]
            if lost and len(lost) == len(open_ones):
                asks = ", ".join(f"{w.event} (question {w.id!r})" for w in lost)
                raise NothingLeft(f"the run waits for {asks}: say in `answers` what comes")
            await news.wait()

    async def _answered(
        self,
        engine: Engine,
        open_ones: Sequence[tuple[str, WaitInfo]],
        answered: set[tuple[str, str]],
    ) -> bool:
        for run, wait in open_ones:
            if wait.event is None:
                continue
            for name in (wait.id, wait.event):
                if name in self.answers:
                    answered.add((run, wait.id))
                    await engine.answer(run, self.answers[name], question=wait.id)
                    return True
        return False


async def _end_leases(store: Store, now: float) -> None:
    """The engines of earlier lives are dead for so long that their leases are over."""
    store = hooked(store, Outstanding(no_pause))
    await store.open()
    for worker in await store.workers():
        await store.register(replace(worker, until=now))
