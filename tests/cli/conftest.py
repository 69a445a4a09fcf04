"""A module of workflows on disk, as a user has it, and the command line to use it with."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner

from stepwell import Engine, InputRequiredEvent
from stepwell.cli.main import cli
from stepwell.values import RunStatus

SHOP = '''
import asyncio

from stepwell import (
    Context, Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent, Workflow, step,
)
from stepwell.retry_policy import retry_policy, stop_after_attempt, wait_none


class Order(StartEvent):
    item: str
    count: int = 1


class Line(Event):
    n: int


class Packed(Event):
    n: int


class Note(Event):
    text: str


class Hello(Workflow):
    """Greets."""

    @step
    async def greet(self, ev: StartEvent) -> StopEvent:
        print("a word from the step")
        return StopEvent(result=f"Hello {ev.get('name', 'you')}")


class Buy(Workflow):
    @step
    async def take(self, ctx: Context, ev: Order) -> list[Line]:
        ctx.write_event_to_stream(Note(text=f"{ev.count} of {ev.item}"))
        return [Line(n=n) for n in range(ev.count)]

    @step(num_workers=4, retry_policy=retry_policy(wait=wait_none(), stop=stop_after_attempt(3)))
    async def pack(self, ctx: Context, ev: Line) -> Packed:
        if ev.n % 7 == 3 and ctx.retry_info().retry_number == 0:
            raise ConnectionError(f"line {ev.n} is out of reach")
        return Packed(n=ev.n)

    @step
    async def send(self, evs: list[Packed]) -> StopEvent:
        return StopEvent(result={"packed": sorted(ev.n for ev in evs)})


class Ask(Workflow):
    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        answer = await ctx.wait_for_event(
            HumanResponseEvent,
            waiter_event=InputRequiredEvent(prefix="Which colour?"),
            waiter_id="colour",
        )
        return StopEvent(result=f"painted {answer.response}")


class Broken(Workflow):
    @step
    async def prepare(self, ev: StartEvent) -> Line:
        return Line(n=int(ev.get("n", 0)))

    @step(retry_policy=retry_policy(wait=wait_none(), stop=stop_after_attempt(2)))
    async def work(self, ev: Line) -> StopEvent:
        if ev.n == 0:
            raise ValueError("no good")
        return StopEvent(result=ev.n)


class Slow(Workflow):
    @step
    async def work(self, ev: StartEvent) -> StopEvent:
        await asyncio.Event().wait()
        return StopEvent()
'''


@dataclass(frozen=True)
class Said:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON document."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """Standard output, which must be lines of JSON."""
        return [json.loads(line) for line in self.out.splitlines()]


Cli = Callable[..., Said]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module `shop` in the current directory, as on a command line."""
    (tmp_path / "shop.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delenv("STEPWELL_STORE", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)
    importlib.invalidate_caches()
    before = set(sys.modules)
    yield importlib.import_module("shop")
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and file.startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/runs.db"


@pytest.fixture
def run_cli(shop: object) -> Cli:
    """Runs a command in this process; `code` is what it must end with."""

    def run(*args: str, code: int = 0, input: str | None = None) -> Said:
        result = CliRunner().invoke(cli, args, input=input, prog_name="stepwell")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, (args, result.exit_code, result.stdout, result.stderr)
        return Said(result.exit_code, result.stdout, result.stderr)

    return run


def kept(url: str, work: Callable[[Engine], Coroutine[Any, Any, Any]], *workflows: Any) -> Any:
    """Do something with an engine that is a worker for these workflows."""

    async def main() -> Any:
        async with Engine(url, workflows, poll=0.01) as engine:
            return await work(engine)

    return asyncio.run(main())


def waiting_run(url: str, workflow: Any, run_id: str) -> str:
    """A kept run that waits for its first question's answer."""

    async def begin(engine: Engine) -> str:
        handler = await engine.start(workflow, run_id=run_id)
        async with aclosing(cast(Any, handler.stream_events())) as events:
            async for event in events:
                if isinstance(event, InputRequiredEvent):
                    break
        return handler.run_id

    return kept(url, begin, workflow)


def parked_run(url: str, workflow: Any, run_id: str) -> str:
    """A kept run that needs a person."""
    waiting_run(url, workflow, run_id)

    async def park(engine: Engine) -> str:
        await engine.park(run_id, "the paint is out")
        while (await engine.get(run_id)).status is not RunStatus.PARKED:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return run_id

    return kept(url, park, workflow)


def finish(url: str, workflow: Any, run_id: str) -> Any:
    """What a worker makes of a run."""

    async def result(engine: Engine) -> Any:
        return await engine.result(run_id)

    return kept(url, result, workflow)
