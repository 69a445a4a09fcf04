"""How what can't be written is named."""

from __future__ import annotations

from datetime import date

import pytest

from stepwell import StartEvent, StopEvent, Workflow, step
from stepwell.errors import UnserializableValue


class Anything(Workflow):
    @step
    async def go(self, ev: StartEvent) -> StopEvent:
        return StopEvent()


@pytest.mark.parametrize(
    ("result", "path"),
    [
        ({1, 2}, "StopEvent.result"),
        ({"rows": [1, {2}]}, "StopEvent.result.rows.1"),
        ({"rows": [1, object()]}, "StopEvent.result.rows.1"),
    ],
)
def test_a_part_of_a_result_is_named_as_such(result: object, path: str) -> None:
    types = Anything().compiled().types
    with pytest.raises(UnserializableValue) as caught:
        types.dumps(StopEvent(result=result), where="StopEvent")
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("fields", "path", "kind"),
    [
        ({"tags": {1, 2}}, "StartEvent.tags", "builtins.set"),
        ({"rows": [1, {"day": date(2026, 1, 1)}]}, "StartEvent.rows.1.day", "datetime.date"),
        ({"conn": {"handle": object()}}, "StartEvent.conn.handle", "builtins.object"),
    ],
)
def test_a_value_that_cannot_be_kept_is_named_by_path_and_type(
    fields: dict[str, object], path: str, kind: str
) -> None:
    types = Anything().compiled().types
    with pytest.raises(UnserializableValue) as caught:
        types.dumps(StartEvent(**fields), where="StartEvent")
    assert (caught.value.path, caught.value.type) == (path, kind)
