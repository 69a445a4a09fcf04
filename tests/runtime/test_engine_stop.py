"""What was started before an engine stops is kept."""

from __future__ import annotations

from pathlib import Path

from stepwell import Engine, StartEvent, StopEvent, Workflow, step


class Only(Workflow):
    @step
    async def only(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=ev.n)


async def test_a_run_that_nobody_awaits_is_kept_when_the_engine_stops_at_once(
    tmp_path: Path,
) -> None:
    url = f"sqlite:////{tmp_path}/runs.db"
    async with Engine(url, [Only()]) as engine:
        run_id = Only().run(engine=engine, n=7).run_id
    async with Engine(url, [Only()]) as engine:
        assert await engine.result(run_id) == 7
