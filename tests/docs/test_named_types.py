"""What the pages say of `allowed_types`: another process reads named types as what they are."""

from __future__ import annotations

from pathlib import Path

from stepwell import Context, Engine, Event, StartEvent, StopEvent, Workflow, step
from stepwell.context import JsonSerializer


class Half(Event):
    text: str


class Jammed(Exception):
    pass


def work(*allowed: type) -> Workflow:
    # A new class each time, as in another process: what one has learnt the other does not know.
    class Work(Workflow):
        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.write_event_to_stream(Half(text="half"))
            raise Jammed("paper")

    serializer = JsonSerializer(allowed_types=allowed)
    return Work(workflow_name="work", serializer=serializer)


async def seen(path: Path, *allowed: type) -> tuple[type, BaseException | None]:
    async with Engine(f"sqlite:///{path}", [work(*allowed)]) as engine:
        (run,), _ = await engine.list()
        items = [item.event async for item in engine.stream(run.id)]
        return type(items[0]), items[-1].exception


async def test_types_that_were_named_are_read_as_themselves_and_others_are_not_imported(
    tmp_path: Path,
) -> None:
    path = tmp_path / "runs.db"
    async with Engine(f"sqlite:///{path}", [work()]) as engine:
        handler = await engine.start("work")
        await handler.stop_event_result()
    kind, error = await seen(path, Half, Jammed)
    assert kind is Half
    assert type(error) is Jammed
    assert str(error) == "paper"
    kind, error = await seen(path)
    assert kind is Event
    assert type(error) is not Jammed
    assert "Jammed" in str(error)
