"""The run that `stepwell run` started, in memory or in a store, behind one face."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from pydantic import ValidationError

from stepwell.authoring.events.model import Event, HumanResponseEvent
from stepwell.authoring.program import Ending, Program
from stepwell.runtime.engine import Engine
from stepwell.runtime.handler import WorkflowHandler
from stepwell.runtime.local import LocalRun
from stepwell.runtime.views import WaitInfo, waits_of
from stepwell.values import Json, RunStatus


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended.

    Attributes:
        status: a terminal one.
        result: what it gave.
        error: what it failed with.
        step: the step that failed it; attempts: after so many tries.
        live: the exception itself.
    """

    status: RunStatus
    result: object = None
    error: Mapping[str, Json] | None = None
    step: str | None = None
    attempts: int = 0
    live: BaseException | None = None


class Watched(Protocol):
    """A run that this process started and follows."""

    @property
    def handler(self) -> WorkflowHandler[Any]:
        """Its handler."""
        ...

    async def ended(self) -> Ended:
        """Wait for its end."""
        ...

    async def waits(self) -> list[WaitInfo]:
        """What it waits for now."""
        ...

    async def answer(self, tag: str, fields: Mapping[str, Any], wait: str | None) -> None:
        """Give it an event. Raises ValueError when the fields do not make one."""
        ...


class InMemory:
    """A run in memory."""

    def __init__(self, local: LocalRun) -> None:
        self._local = local
        self.handler: WorkflowHandler[Any] = WorkflowHandler(local)

    async def ended(self) -> Ended:
        await self._local.ended()
        ending = cast(Ending, self._local.ending)
        program = self._local.program
        if ending.error is None:
            value = None if ending.result is None else program.result(ending.result)
            return Ended(ending.status, value)
        error = ending.error
        return Ended(
            ending.status,
            None,
            error.to_json(),
            ending.step,
            ending.attempts,
            error.live,
        )

    async def waits(self) -> list[WaitInfo]:
        return waits_of(self._local.active.run)

    async def answer(self, tag: str, fields: Mapping[str, Any], wait: str | None) -> None:
        await self._local.send(made(self._local.program, tag, fields), None, wait)


class Kept:
    """A run in a store, which this process advances as a worker."""

    def __init__(self, engine: Engine, program: Program, handler: WorkflowHandler[Any]) -> None:
        self._engine = engine
        self._program = program
        self.handler = handler

    async def ended(self) -> Ended:
        value = live = None
        try:
            value = await self.handler
        except Exception as error:  # how the run ended, unless its row says otherwise
            live = error
        info = await self._engine.get(self.handler.run_id)
        if live is None:
            return Ended(info.status, value)
        if not info.status.terminal:
            raise live
        error = info.error or {}
        step = cast("str | None", error.get("step"))
        return Ended(info.status, None, error, step, 0, live)

    async def waits(self) -> list[WaitInfo]:
        return await self._engine.waits(self.handler.run_id)

    async def answer(self, tag: str, fields: Mapping[str, Any], wait: str | None) -> None:
        event = made(self._program, tag, fields)
        await self._engine.signal(self.handler.run_id, event, question=wait)


def made(program: Program, tag: str, fields: Mapping[str, Any]) -> Event:
    """An event of the program's by its type's name. Raises ValueError."""
    kind = program.types.classes.get(tag)
    if kind is None or not issubclass(kind, Event):
        raise ValueError(f"the workflow has no event {tag!r}")
    try:
        return kind(**fields)
    except ValidationError as error:
        raise ValueError(f"that makes no {tag}: {complaints(error)}") from error


def complaints(error: ValidationError) -> str:
    """What pydantic does not like, in one line."""
    found: list[str] = []
    for row in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in row["loc"])
        text = row["msg"][:1].lower() + row["msg"][1:]
        found.append(f"{where}: {text}" if where else text)
    return "; ".join(found)


def response_tag(program: Program) -> str:
    """The type of the answer to a question that nobody waits for yet: the only kind of
    `HumanResponseEvent` that the workflow knows."""
    kinds = [
        tag
        for tag, kind in program.types.classes.items()
        if issubclass(kind, HumanResponseEvent) and kind is not HumanResponseEvent
    ]
    return kinds[0] if len(kinds) == 1 else HumanResponseEvent.__name__
