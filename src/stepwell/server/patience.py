"""How long a request may take: whoever asks is answered, whatever the store does.

A request has `seconds` for its body to come, and as long again for the store to do what is asked.
What is meant to last has no limit here: waiting for a run's end, and sending an answer, where the
reader is the one who is slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from types import TracebackType

from starlette.requests import Request
from starlette.types import Scope

from stepwell.server.problems import Problem, unavailable

_KEY = "stepwell.patience"


class Patience:
    """The time of one request.

    Args:
        seconds: how long.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._limit = asyncio.timeout(None)
        self._until: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._runs = False
        self._for_body = False

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()
        self._runs = True
        self.renew()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runs = False
        if self._timer is not None:
            self._timer.cancel()
        await self._limit.__aexit__(kind, error, trace)

    @property
    def is_over(self) -> bool:
        """Whether the time was too short."""
        return self._limit.expired()

    def lift(self) -> None:
        """From now on there is no limit."""
        self._until = None

    def renew(self) -> None:
        """From now on it is the full time again."""
        if self._runs:
            loop = asyncio.get_running_loop()
            self._until = loop.time() + self.seconds
            if self._timer is None:
                self._timer = loop.call_at(self._until, self._look)

    def _look(self) -> None:
        """The time that the timer was set for has come; it is not set again whenever the limit is
        moved, which nearly every request does and hardly one needs."""
        loop = asyncio.get_running_loop()
        self._timer = None
        if self._until is None:
            return
        if self._until > loop.time():
            self._timer = loop.call_at(self._until, self._look)
        elif not self.is_over:
            self._limit.reschedule(loop.time())

    @contextmanager
    def for_body(self) -> Generator[None]:
        """The caller is waited for, not the store."""
        self._for_body = True
        yield
        self._for_body = False
        self.renew()

    def problem(self) -> Problem:
        """What is answered when the time is over."""
        if self._for_body:
            return Problem(
                408,
                "body_too_slow",
                f"the body did not come whole within {self.seconds:g} s",
                headers={"Connection": "close"},
            )
        return unavailable(
            "store_unavailable",
            f"the store did not answer within {self.seconds:g} s",
            "Whether it was done is not known. Ask again; repeat a start with its Idempotency-Key, "
            "and nothing is started twice.",
        )


def begin(scope: Scope, seconds: float) -> Patience:
    """Begin the time of a request."""
    made = scope[_KEY] = Patience(seconds)
    return made


def patience_of(request: Request) -> Patience:
    """The time of a request that is under way."""
    return request.scope[_KEY]
