"""A saved context that someone has changed is refused when it is loaded, or it runs."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Iterator
from typing import Annotated, Any

import pytest

from stepwell import All, Context, Event, HumanResponseEvent, StartEvent, StopEvent, Workflow, step
from stepwell.errors import ContextSerdeError
from stepwell.kernel.decide import advance
from stepwell.kernel.inputs import Due, Loaded

GARBAGE: list[Any] = [
    -1,
    7,
    10**400,
    1e308,
    float("nan"),
    "x",
    True,
    None,
    [],
    {},
    {"t": []},
    {"q": [1]},
]


class Part(Event):
    n: int = 0


class Other(Event):
    n: int = 0


class Answer(HumanResponseEvent):
    text: str = ""


class Tangle(Workflow):
    """Waits, holds half of a join, gathers, and has work queued and running."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Part | Other | None:
        for n in range(3):
            ctx.send_event(Part(n=n))
        return None

    @step(num_workers=1)
    async def slow(self, ctx: Context, ev: Part) -> Other | None:
        if ctx.collect_events(ev, [Part, Part]) is None:
            return None
        await asyncio.sleep(1000)
        return None

    @step
    async def asks(self, ctx: Context, ev: Part) -> None:
        await ctx.wait_for_event(Answer, waiter_id=f"q{ev.n}", timeout=500)

    @step
    async def both(self, evs: Annotated[tuple[Part, Other], All()]) -> StopEvent:
        return StopEvent()


async def saved() -> dict[str, Any]:
    flow = Tangle(timeout=1000)
    handler = flow.run()
    for _ in range(20):
        await asyncio.sleep(0)
    data = json.loads(json.dumps(handler.ctx.to_dict()))
    await handler.cancel_run()
    return data


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in JSON data."""
    yield path
    if isinstance(data, dict):
        for key, value in data.items():
            yield from places(value, (*path, key))
    elif isinstance(data, list):
        for number, value in enumerate(data):
            yield from places(value, (*path, number))


def changed(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    data = copy.deepcopy(data)
    target = data
    for part in path[:-1]:
        target = target[part]
    target[path[-1]] = value
    return data


async def test_garbage_anywhere_is_refused_at_once_or_does_no_harm() -> None:
    data = await saved()
    flow = Tangle(timeout=1000)
    definition = flow.compiled().definition
    assert Context.from_dict(flow, data).saved is not None
    refused = 0
    for path in places(data["run"]):
        for value in GARBAGE:
            given = changed(data, ("run", *path), value)
            try:
                run = Context.from_dict(flow, given).saved
            except ContextSerdeError:
                refused += 1
                continue
            assert run is not None
            try:
                advance(definition, run, Loaded(run.at + 1, ""))
                advance(definition, run, Due(run.at + 5000))
            except Exception as error:
                pytest.fail(f"{value!r} at {path}: {error!r}")
    assert refused > 1000


@pytest.mark.parametrize("value", ["x", True, [], float("inf")])
async def test_a_timeout_is_a_number(value: object) -> None:
    data = {**await saved(), "timeout": value}
    with pytest.raises(ContextSerdeError, match="timeout"):
        Context.from_dict(Tangle(timeout=1000), data)
