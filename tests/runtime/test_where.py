"""An error says which line of the user's code it came from: in every style, wherever steps run, to
whoever reads the run later."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import BaseModel

from stepwell import Engine, StartEvent, StopEvent, Workflow, step
from stepwell.errors import WorkflowRuntimeError
from stepwell.machine import complete
from stepwell.machine import step as state
from stepwell.machine import workflow as machine
from stepwell.pipeline import Pipeline
from stepwell.values import ErrorInfo, where_raised


def charge(amount: object) -> int:
    """Fails inside of Python's own code."""
    return len(json.loads(f"[{amount}"))


class Events(Workflow):
    @step
    async def work(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=charge(ev.n))


class Threads(Workflow):
    @step
    def work(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=charge(ev.n))


class Processes(Workflow):
    @step(execution="process")
    def work(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=charge(ev.n))


@machine("where")
class Machine:
    class Context(BaseModel):
        pass

    @state(start=True)
    async def work(self) -> object:
        return complete(paid=charge(1))


def pipeline_step() -> int:
    return charge(1)


def pipeline() -> Pipeline:
    return Pipeline(name="where-pipeline").add_step(pipeline_step)


STYLES: dict[str, Callable[[], Any]] = {
    "events": lambda: Events(workflow_name="where-events"),
    "threads": lambda: Threads(workflow_name="where-threads"),
    "processes": lambda: Processes(workflow_name="where-processes"),
    "machine": lambda: Machine,
    "pipeline": pipeline,
}


@pytest.mark.parametrize("style", STYLES)
async def test_the_run_says_which_line_of_the_users_code_failed(style: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    program = STYLES[style]()
    line = charge.__code__.co_firstlineno + 2
    place = f"tests/runtime/test_where.py:{line} in charge"
    async with Engine(url, [program]) as engine:
        (name,) = engine.workflows
        handler = await engine.start(name, {} if style in ("machine", "pipeline") else {"n": 1})
        with pytest.raises(Exception, match="Expecting"):
            await handler
        run = handler.run_id
    async with Engine(url, [program]) as later:
        info = await later.get(run)
        assert info.error is not None
        assert info.error["where"] == place
        with pytest.raises(Exception, match="Expecting") as caught:
            await later.result(run)
        assert f"It was raised at {place}." in getattr(caught.value, "__notes__", [])


def run(code: str, file: str, module: str) -> dict[str, Any]:
    """Run code as if it stood in this file of this module; what it defines."""
    scope: dict[str, Any] = {"__name__": module}
    exec(compile(code, file, "exec"), scope)  # noqa: S102 - written here
    return scope


@pytest.mark.parametrize(
    "file, module, place",
    [
        ("/srv/app/orders.py", "orders", "orders.py:1 in <module>"),
        ("/srv/app/shop/orders.py", "shop.orders", "shop/orders.py:1 in <module>"),
        ("/srv/app/shop/__init__.py", "shop", "shop/__init__.py:1 in <module>"),
        (r"C:\app\shop\orders.py", "shop.orders", "shop/orders.py:1 in <module>"),
        ("/srv/app/main.py", "__main__", "main.py:1 in <module>"),
        ("<ipython-input-3>", "__main__", "<ipython-input-3>:1 in <module>"),
        ("/v/lib/python3.11/site-packages/shop/a.py", "shop.a", "shop/a.py:1 in <module>"),
    ],
)
def test_a_place_is_named_by_its_module_and_not_by_where_it_is_installed(
    file: str, module: str, place: str
) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run("1 / 0", file, module)
    alone = cast(Any, caught.tb.tb_next).tb_next  # without the frames of this file
    assert where_raised(caught.value.with_traceback(alone)) == place


def test_the_users_line_comes_before_that_of_a_library_further_in() -> None:
    get = run("def get(): 1 / 0", "/v/lib/python3.11/site-packages/http/get.py", "http.get")["get"]

    def mine() -> None:
        get()

    with pytest.raises(ZeroDivisionError) as caught:
        mine()
    assert str(where_raised(caught.value)).endswith(" in mine")


def test_what_was_never_raised_or_not_by_the_user_has_no_place() -> None:
    assert where_raised(ValueError("made, not raised")) is None
    assert ErrorInfo.of(WorkflowRuntimeError("no")).where is None


def test_a_place_tells_errors_apart_for_nobody() -> None:
    assert ErrorInfo("E", "m", where="a.py:1 in f") == ErrorInfo("E", "m")
