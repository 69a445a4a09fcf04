"""P9: data never executes code: types are found in registries only.

Whoever can write into the file can choose every name in it. So these tests take a run that holds
all there is (state with a model in it, a memo, a wait, a pending retry with its error), and put
hostile names and values at *every* position of its journal, its snapshot, its inbox and its saved
context, one position per copy of the run. Nothing may be imported, called or made because of them;
the copies end with an error, are parked with a reason, or never notice; and an honest run beside
them ends as always. They catch, each tried out: a registry that imports what it does not know, a
serializer that does, exceptions that are looked up by name, and a call of `pickle.loads`, `eval` or
`import_module` in any module of the package beyond those that are listed here.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import importlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import stepwell
from stepwell import Context, Event, HumanResponseEvent, StartEvent, StopEvent, Workflow, step
from stepwell.context.serializers import JsonSerializer
from stepwell.errors import ContextSerdeError, RestoredError, StepwellError
from stepwell.retry_policy import retry_policy, stop_after_attempt, wait_fixed
from stepwell.testing import HookedEngine, VirtualClock
from stepwell.values import ErrorInfo, RunStatus

SOURCE = Path(stepwell.__file__).parent


class Item(BaseModel):
    """Declared: a value of the run's state."""

    name: str = ""


class Danger(BaseModel):
    """Importable, in memory, a pydantic model; and declared nowhere."""

    made: list[object] = []

    def model_post_init(self, _context: object) -> None:
        pytest.fail("a class that no workflow declares was made")

    @classmethod
    def from_dict(cls, _data: object) -> Danger:
        pytest.fail("a class that no workflow declares was made")


class Left(Event):
    n: int = 0


class Right(Event):
    pass


class Go(HumanResponseEvent):
    text: str = ""


class Victim(Workflow):
    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Left | Right:
        await ctx.store.set("item", Item(name="a"))
        ctx.send_event(Right())
        return Left(n=1)

    @step(retry_policy=retry_policy(wait=wait_fixed(60), stop=stop_after_attempt(3)))
    async def flaky(self, ctx: Context, ev: Right) -> None:
        if ctx.retry_info().retry_number == 0:
            raise OSError("once")
        await ctx.store.set("error", str(ctx.retry_info().last_exception))

    @step
    async def ask(self, ctx: Context, ev: Left) -> StopEvent:
        kept = await ctx.memo("kept", lambda: {"a": 1, "item": Item(name="b")})
        got = await ctx.wait_for_event(Go, waiter_id="q", timeout=None)
        item = await ctx.store.get("item")
        return StopEvent(result=[item.name, str(kept), got.text])


def victim() -> Victim:
    return Victim(timeout=None, serializer=JsonSerializer(allowed_types=[Item]))


# --- hostile data --------------------------------------------------------------------------------

NAMES = [
    "os.system",
    "subprocess.Popen",
    "builtins.eval",
    "builtins.SystemExit",
    "__reduce__",
    "trap_of_p9.Trap",
    f"{__name__}.Danger",
    "pickle.loads",
]


def shapes(name: str) -> Iterator[dict[str, Any]]:
    """Ways in which data names code, in formats of this library and of others."""
    yield {"__is_pydantic": True, "qualified_name": name, "value": {"args": "touch pwned"}}
    yield {"__is_component": True, "qualified_name": name, "value": {"args": "touch pwned"}}
    yield {"py/object": name, "py/reduce": [{"py/type": name}, ["touch pwned"]]}
    yield {"__reduce__": [name, ["touch pwned"]], "c": name, "v": ["touch pwned"]}


def positions(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every part of a JSON value."""
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from positions(item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from positions(item, (*path, number))


def put(value: Any, path: tuple[Any, ...], new: object) -> Any:
    """A copy of `value` with another part at `path`."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(copy[path[0]], path[1:], new)
    return copy


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def poisoned(value: Any, count: int = 0) -> Iterator[Any]:
    """`value` with something hostile at each of its positions, one after the other."""
    for path in positions(value):
        count += 1
        name = NAMES[count % len(NAMES)]
        if isinstance(at(value, path), str):
            yield put(value, path, name)
        for number, shape in enumerate(shapes(name)):
            if number == count % 4:
                yield put(value, path, shape)
        if isinstance(at(value, path), dict):
            yield put(value, path, {**at(value, path), "qualified_name": name})


# --- watching ------------------------------------------------------------------------------------


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that can be imported by name, and fails the test when it is."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "trap_of_p9.py").write_text("raise SystemExit('the trap was imported')\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "trap_of_p9", raising=False)
    return "trap_of_p9"


@contextmanager
def nothing_is_executed(trap: str) -> Generator[None]:
    """In the block, no code of stepwell imports anything, and nobody calls what the names name."""
    done: list[str] = []
    hostile = {name.rpartition(".")[0] for name in NAMES}

    def recorded(where: object, name: str) -> Callable[..., Any]:
        real = getattr(where, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            caller = sys._getframe(1).f_globals.get("__name__", "")
            # Functions written in C import what they need when they are called: `time`, say.
            ours = caller.split(".")[0] in ("stepwell", "pydantic")
            if ours and (name != "__import__" or args[0] in hostile - {""}):
                done.append(f"{name}{args!r:.80} by {caller}")
            return real(*args, **kwargs)

        return call

    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        for where, name in (
            (builtins, "__import__"),
            (importlib, "import_module"),
            (builtins, "eval"),
            (builtins, "exec"),
            (os, "system"),
            (subprocess, "Popen"),
        ):
            patch.setattr(where, name, recorded(where, name))
        yield
    assert done == []
    assert set(sys.modules) - before == set()


class Copies:
    """A file with one honest run at rest, and copies of it whose rows may be changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.db = sqlite3.connect(path)
        self.db.row_factory = sqlite3.Row
        self.run = self.db.execute("SELECT * FROM runs").fetchone()
        self.count = 0

    def rows(self, table: str) -> list[sqlite3.Row]:
        return self.db.execute(f"SELECT * FROM {table} WHERE run = ?", (self.run["n"],)).fetchall()  # noqa: S608

    def add(self, table: str, changed: sqlite3.Row, **columns: Any) -> None:
        """A copy of the run, with these columns in one of its rows."""
        self.count += 1
        n = self.insert("runs", {**dict(self.run), "n": None, "id": f"copy{self.count}"})
        for other in ("journal", "snapshots", "messages"):
            for row in self.rows(other):
                values = {**dict(row), "run": n}
                key = {"journal": "n", "messages": "id"}.get(other)
                if key is not None:
                    values[key] = None
                if other == table and tuple(row) == tuple(changed):
                    values |= columns
                self.insert(other, values)

    def insert(self, table: str, values: dict[str, Any]) -> int:
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        sql = f"INSERT INTO {table} ({names}) VALUES ({marks})"  # noqa: S608
        return self.db.execute(sql, tuple(values.values())).lastrowid or 0

    def close(self) -> None:
        self.db.commit()
        self.db.close()


async def at_rest(clock: VirtualClock, path: Path, **settings: Any) -> None:
    """An honest run that waits for an answer and for a retry, in the store."""
    flow = victim()
    engine = clock.engine(f"sqlite:///{path}?durability=process", [flow], **settings)
    await engine.start(flow, run_id="honest")
    await clock.settle()
    assert (await engine.get("honest")).status is RunStatus.WAITING
    await engine.stop()


async def looked_at(engine: HookedEngine, run: str) -> None:
    """Every way to look at a run; what can't be read is said in errors of ours."""
    for look in (engine.get, engine.why, engine.waits, engine.journal, engine.entries):
        try:
            await look(run)
        except (StepwellError, ValueError):
            continue


async def lives(clock: VirtualClock, path: Path, copies: int) -> list[RunStatus]:
    """Let the honest run and its poisoned copies go on, to their ends."""
    engine = clock.engine(f"sqlite:///{path}?durability=process", [victim()])
    runs = ["honest", *(f"copy{n}" for n in range(1, copies + 1))]
    for run in runs:
        await looked_at(engine, run)
    await engine.check()
    for run in runs:
        await engine.signal(run, Go(text="c"), question="q")
    await clock.advance(61.0)
    assert await engine.result("honest") == ["a", "{'a': 1, 'item': Item(name='b')}", "c"]
    ends: list[RunStatus] = []
    for run in runs[1:]:
        info = await engine.get(run)
        ends.append(info.status)
        match info.status:
            case RunStatus.PARKED:
                assert info.reason, run
                said = " ".join(info.reason.split()).rstrip(".")  # as a clause of a sentence
                assert said in (await engine.why(run)).sentence
            case RunStatus.FAILED:
                assert info.error, run
            case RunStatus.WAITING:  # for a hostile name, which is but a name
                assert info.waits, run
            case status:  # a message may say that the run is to be cancelled
                assert status in (RunStatus.COMPLETED, RunStatus.CANCELLED), run
        await looked_at(engine, run)
        if info.status.terminal:
            try:
                await engine.result(run)
            except Exception as error:
                assert not isinstance(error, SystemExit | NameError), run  # noqa: PT017
    return ends


@pytest.mark.parametrize("table", ["journal", "snapshots"])
def test_names_in_a_journal_or_snapshot_are_but_names(
    tmp_path: Path, trap: str, table: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "runs.db"
    clock = VirtualClock()
    every = 1 if table == "snapshots" else 1000

    async def main() -> list[RunStatus]:
        await at_rest(clock, path, snapshot_every=every)
        with closing(Copies(path)) as copies:
            for row in copies.rows(table):
                for data in poisoned(json.loads(row["data"])):
                    copies.add(table, row, data=json.dumps(data))
        with nothing_is_executed(trap):
            return await lives(clock, path, copies.count)

    ends = clock.run(main)
    assert len(ends) > 100
    assert {RunStatus.PARKED, RunStatus.COMPLETED} <= set(ends)


def test_names_in_an_inbox_are_but_names(tmp_path: Path, trap: str) -> None:
    path = tmp_path / "runs.db"
    clock = VirtualClock()

    async def main() -> list[RunStatus]:
        await at_rest(clock, path)
        looker = clock.engine(f"sqlite:///{path}", worker=False)
        await looker.signal("honest", "Go", {"text": "c", "item": {"name": "d"}}, question="q")
        await looker.stop()
        with closing(Copies(path)) as copies:
            (row,) = copies.rows("messages")
            for data in poisoned(json.loads(row["data"])):
                for kind in ("event", "start", "child", "stream", "cancel", "park"):
                    copies.add("messages", row, data=json.dumps(data), kind=kind)
            for name in NAMES:
                copies.add("messages", row, kind=name)
        with nothing_is_executed(trap):
            return await lives(clock, path, copies.count)

    ends = clock.run(main)
    assert len(ends) > 50
    assert {RunStatus.PARKED, RunStatus.COMPLETED} <= set(ends)


def test_names_in_a_saved_context_are_but_names(trap: str) -> None:
    clock = VirtualClock()

    async def saved() -> dict[str, Any]:
        handler = victim().run()
        await asyncio.sleep(0.01)
        data = handler.ctx.to_dict()
        await handler.cancel_run()
        return data

    data = clock.run(saved)
    state = data["state"]["state_data"]["_data"]
    item = ("state", "state_data", "_data", "item")
    hostile = [*poisoned(data)]
    hostile += [put(data, item, json.dumps(v)) for v in poisoned(json.loads(state["item"]))]
    for name in NAMES:
        module, _, kind = name.rpartition(".")
        named = put(data, ("state", "state_type"), kind)
        hostile.append(put(named, ("state", "state_module"), module))
    contexts: list[Context[Any]] = []

    async def go_on() -> None:
        """What can be read goes on; how it ends is no matter."""
        for ctx in contexts:
            # Parts that can be read one by one need not hang together.
            with suppress(LookupError, TypeError, AttributeError, ValueError):
                handler = victim().run(ctx=ctx)
                await clock.advance(61.0)
                await handler.send_event(Go(text="c"))
            await clock.settle()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

    with nothing_is_executed(trap):
        for value in hostile:
            with suppress(ContextSerdeError, ValueError):
                contexts.append(Context(victim(), value))
        clock.run(go_on)
    assert 20 < len(contexts) < len(hostile) / 2


def test_a_typed_state_is_of_its_type_whatever_the_data_say(trap: str) -> None:
    class Cart(BaseModel):
        items: list[Item] = []

    class Shop(Workflow):
        @step
        async def buy(self, ctx: Context[Cart], ev: StartEvent) -> StopEvent:
            return StopEvent(result=len((await ctx.store.get_state()).items))

    clock = VirtualClock()

    async def saved() -> dict[str, Any]:
        ctx = Context(Shop())
        await ctx.store.set("items", [Item(name="a")])
        return ctx.to_dict()

    data = clock.run(saved)
    written = data["state"]["state_data"]
    with nothing_is_executed(trap):
        assert isinstance(Context(Shop(), data).store.state_type, type)
        for value in poisoned(json.loads(written)):
            changed = put(data, ("state", "state_data"), json.dumps(value))
            try:
                ctx = Context(Shop(), changed)
            except (ContextSerdeError, ValueError):
                continue
            assert ctx.store.state_type is Cart


@pytest.mark.parametrize("name", [*NAMES, "builtins.KeyboardInterrupt", "builtins.print"])
def test_an_error_of_any_name_comes_back_as_an_exception_that_is_known(
    name: str, trap: str
) -> None:
    types = victim().compiled().types
    with nothing_is_executed(trap):
        error = types.exception(ErrorInfo(name, "touch pwned"))
    assert type(error) is RestoredError
    assert error.original_type == name


# --- the source ----------------------------------------------------------------------------------

ALLOWED = {
    # Public names that are loaded when they are first used; the names stand in the module.
    ("__init__.py", "import_module"),
    ("testing/__init__.py", "import_module"),
    # Commands of the command line, likewise.
    ("cli/main.py", "import_module"),
    # What the user types on the command line: module:Workflow.
    ("cli/load.py", "import_module"),
    ("cli/load.py", "find_spec"),
    # A package that only those who use schedules have; its name stands in the module.
    ("authoring/machine/cron.py", "import_module"),
    # A field that holds what makes a program of a machine; not Python's compile.
    ("authoring/machine/define.py", "compile"),
    # Annotations, of the code that is run.
    ("authoring/events/annotations.py", "get_type_hints"),
    ("authoring/events/resources/declared.py", "get_type_hints"),
    # Annotations of a pipeline's own steps, whose types values of its context may have.
    ("authoring/pipeline/serializer.py", "get_type_hints"),
    # Annotations of the kernel's own classes, to check what was read against them.
    ("runtime/sound.py", "get_type_hints"),
    # The one class that reads what it was told to trust; nothing here makes one.
    ("authoring/events/serializers.py", "import pickle"),
    ("authoring/events/serializers.py", "loads"),
    ("authoring/events/serializers.py", "dumps"),
    ("authoring/events/serializers.py", "PickleSerializer"),
}

MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle"}
CALLS = {
    "eval", "exec", "compile", "__import__", "import_module", "find_spec", "run_module", "run_path",
    "locate", "resolve_name", "Unpickler", "ImportString", "PickleSerializer", "get_type_hints",
}  # fmt: skip


def uses(source: Path) -> Iterator[tuple[str, str]]:
    """What a module uses of that which turns data or names into code."""
    name = source.relative_to(SOURCE).as_posix()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                for each in names:
                    if each.name.split(".")[0] in MODULES:
                        yield name, f"import {each.name}"
            case ast.ImportFrom(module=module, names=names):
                if (module or "").split(".")[0] in MODULES:
                    yield name, f"import {module}"
                for each in names:
                    if each.name in CALLS - {"PickleSerializer"}:
                        yield name, each.name
            case ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr=attr)):
                if owner in MODULES or (attr in CALLS and owner != "re"):
                    yield name, attr
            case ast.Call(func=ast.Attribute(attr=attr)) if attr in CALLS - {"compile"}:
                yield name, attr
            case ast.Call(func=ast.Name(id=called)) if called in CALLS:
                yield name, called
            case _:
                continue


def test_no_module_turns_data_into_code_beyond_the_known_places() -> None:
    found = {use for source in SOURCE.rglob("*.py") for use in uses(source)}
    assert found - ALLOWED == set()
    assert ALLOWED - found == set(), "a place that is allowed and not used any more"
