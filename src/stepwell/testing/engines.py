"""An engine that tells a test when bodies begin and end, and can hold them up.

It is the real engine. It only wraps the handlers of the programs that it learns of. A program is
its workflow's, not the engine's, so the wrapping outlives the engine: it holds on to nothing, and
asks the worker that does the run whether there is anybody to report to.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from stepwell.authoring.program import Handler, Program, StepAttempt
from stepwell.kernel.outcomes import Message, Outcome
from stepwell.runtime.attempt import current
from stepwell.runtime.engine import Engine
from stepwell.runtime.ledger import RunLedger


class Hooks:
    """What a test wants to hear of bodies. This one wants nothing.

    `key` is the body's idempotency key: the same for every attempt of one piece of work.
    """

    def began(self, run: str, step: str, key: str) -> None:
        """A body begins."""

    def ended(self, run: str, step: str, key: str) -> None:
        """A body returned; what it returned is not kept yet."""


_engines: weakref.WeakValueDictionary[int, HookedEngine] = weakref.WeakValueDictionary()
"""The engines that want reports, by the id of their worker, which lives as long as they do."""


class HookedEngine(Engine):
    """An `Engine` whose bodies report to `hooks`. Made by `VirtualClock.engine`."""

    _abandoned = False

    def __init__(
        self,
        *args: Any,
        hooks: Hooks,
        pause: Callable[[], Awaitable[None]],
        **settings: Any,
    ) -> None:
        super().__init__(*args, **settings)
        worker = self._worker
        self.hooks, self.pause = hooks, pause
        _engines[id(worker)] = self
        know = worker.know

        def know_hooked(program: Program, owner: object) -> None:
            program.handlers = {
                name: HookedHandler(_plain(handler), name)
                for name, handler in program.handlers.items()
            }
            know(program, owner)

        worker.know = know_hooked
        for program, owner in tuple(worker.programs.values()):
            know_hooked(program, owner)

    def abandon(self) -> None:
        """Leave the engine as it is, for good: its process seems to have died."""
        self._abandoned = True

    def _say_where(self) -> None:
        """Nobody takes virtual time for the real one, and what happens in it need not survive."""

    async def start_up(self) -> None:
        """See `Engine.start_up`. One that was abandoned never gets there."""
        if self._abandoned:
            await asyncio.get_running_loop().create_future()
        await super().start_up()

    async def _end(self, grace: float) -> None:
        """The dead let go of nothing."""
        if not self._abandoned:
            await super()._end(grace)

    async def stop(self, grace: float = 2.0) -> None:
        """See `Engine.stop`. One that was abandoned stops nothing."""
        if not self._abandoned:
            await super().stop(grace)


def _plain(handler: Handler) -> Handler:
    return handler.handler if isinstance(handler, HookedHandler) else handler


class HookedHandler:
    """A handler whose bodies report to a test."""

    def __init__(self, handler: Handler, step: str) -> None:
        self.handler = handler
        self.step = step

    @property
    def may_return(self) -> str:
        """As the step's own."""
        return self.handler.may_return

    def begin(
        self, owner: object, message: Message | tuple[Message, ...], attempt: StepAttempt
    ) -> Coroutine[Any, Any, object]:
        """The step's own body, between two reports."""
        return self._body(owner, message, attempt)

    async def _body(
        self, owner: object, message: Message | tuple[Message, ...], attempt: StepAttempt
    ) -> object:
        mine = current.get()
        ledger = mine.active.ledger
        engine = _engines.get(id(ledger.worker)) if isinstance(ledger, RunLedger) else None
        if engine is None:
            return await self.handler.begin(owner, message, attempt)
        hooks, pause = engine.hooks, engine.pause
        await pause()
        run, key = mine.active.run.id, mine.idempotency_key()
        hooks.began(run, self.step, key)
        result = await self.handler.begin(owner, message, attempt)
        hooks.ended(run, self.step, key)
        await pause()
        return result

    def outcome(self, result: object) -> Outcome:
        """As the step's own."""
        return self.handler.outcome(result)

    def retry_after(
        self, error: Exception, attempts: int, elapsed: float, seed: int
    ) -> float | None:
        """As the step's own."""
        return self.handler.retry_after(error, attempts, elapsed, seed)


class Bodies(Hooks):
    """Counts which bodies began and which came to their end.

    `begun` and `done` hold (run, step, key) in the order of things.
    """

    def __init__(self) -> None:
        self.begun: list[tuple[str, str, str]] = []
        self.done: list[tuple[str, str, str]] = []

    def began(self, run: str, step: str, key: str) -> None:
        """See `Hooks.began`."""
        self.begun.append((run, step, key))

    def ended(self, run: str, step: str, key: str) -> None:
        """See `Hooks.ended`."""
        self.done.append((run, step, key))

    def times(self) -> Mapping[tuple[str, str, str], int]:
        """How often each body began."""
        counts: dict[tuple[str, str, str], int] = {}
        for body in self.begun:
            counts[body] = counts.get(body, 0) + 1
        return counts
