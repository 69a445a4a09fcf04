"""Resources: who makes them, who shares them, who ends them."""

# No `from __future__ import annotations` here: the factories' annotations are what is tested.

import asyncio
import contextvars
import gc
import json
import logging
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ValidationError

from stepwell import resource as door
from stepwell.authoring.events import resources
from stepwell.authoring.events.resources import (
    Resource,
    ResourceConfig,
    ResourceDefinition,
    ResourceDescriptor,
    ResourceManager,
    validate_resource_configs,
    validate_resources,
)
from stepwell.errors import WorkflowValidationError


class Diary:
    """What happened, in order; makes factories that write into it."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def plain(self, name: str) -> Callable[[], str]:
        def factory() -> str:
            self.lines.append(f"make {name}")
            return name

        return factory

    def ending(self, name: str, failure: Exception | None = None) -> Callable[[], Any]:
        async def factory() -> AsyncIterator[str]:
            self.lines.append(f"open {name}")
            try:
                yield name
            except BaseException as error:
                self.lines.append(f"{name} saw {type(error).__name__}")
                raise
            finally:
                self.lines.append(f"close {name}")
                if failure is not None:
                    raise failure

        return factory


@pytest.fixture
def diary() -> Diary:
    return Diary()


@pytest.fixture
async def manager() -> AsyncIterator[ResourceManager]:
    manager = ResourceManager()
    yield manager
    await manager.aclose()


class Callable_:
    def __call__(self) -> str:
        return "called"


# --- making and sharing ----------------------------------------------------------------------


async def test_a_cached_factory_runs_once_per_manager(diary: Diary, manager: ResourceManager):
    factory = diary.plain("a")
    assert await manager.get(Resource(factory)) == await manager.get(Resource(factory)) == "a"
    assert diary.lines == ["make a"]
    await ResourceManager().get(Resource(factory))
    assert diary.lines == ["make a", "make a"]


async def test_none_is_a_value_like_any_other(manager: ResourceManager):
    calls: list[int] = []
    resource = Resource(lambda: calls.append(1))
    assert [await manager.get(resource), await manager.get(resource)] == [None, None]
    assert calls == [1]


async def test_factories_may_be_async_partials_classes_and_objects(manager: ResourceManager):
    async def later() -> str:
        return "later"

    for factory, expected in [
        (later, "later"),
        (partial(later), "later"),
        (dict, {}),
        (Callable_(), "called"),
        (partial(str, 5), "5"),
    ]:
        assert await manager.get(Resource(factory)) == expected


def test_names_are_those_of_the_factories():
    def made() -> None: ...

    assert Resource(made).name == made.__qualname__
    assert Resource(partial(made)).name == made.__qualname__
    assert Resource(Callable_()).name == "Callable_"
    with pytest.raises(TypeError, match="must be callable"):
        Resource(5)  # pyright: ignore[reportArgumentType]


async def test_two_factories_of_one_name_do_not_meet(diary: Diary, manager: ResourceManager):
    first, second = Resource(diary.plain("a")), Resource(diary.plain("b"))
    assert first.name == second.name
    assert [await manager.get(first), await manager.get(second)] == ["a", "b"]
    assert manager.get_all() == {first.name: "a", f"{first.name}#2": "b"}


async def test_an_unhashable_factory_is_found_by_identity(manager: ResourceManager):
    class Factory(list[int]):
        def __call__(self) -> object:
            return object()

    one, other = Factory(), Factory()
    assert await manager.get(Resource(one)) is await manager.get(Resource(one))
    assert await manager.get(Resource(one)) is not await manager.get(Resource(other))


async def test_a_value_set_by_name_takes_the_place_of_cached_resources(manager: ResourceManager):
    def named() -> str:
        return "made"

    assert await manager.get(Resource(named)) == "made"
    await manager.set(named.__qualname__, "given")
    assert await manager.get(Resource(named)) == "given"
    assert await manager.get(Resource(named, cache=False)) == "made"
    assert manager.get_all() == {named.__qualname__: "given"}


async def test_a_factory_that_failed_is_tried_again(manager: ResourceManager):
    calls: list[int] = []

    def failing_once() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("not yet")
        return "now"

    with pytest.raises(OSError, match="not yet"):
        await manager.get(Resource(failing_once))
    assert manager.get_all() == {}
    assert await manager.get(Resource(failing_once)) == "now"


async def test_uncached_values_are_shared_within_one_scope_only(manager: ResourceManager):
    counter = iter(range(100))

    def fresh() -> int:
        return next(counter)

    resource = Resource(fresh, cache=False)
    assert [await manager.get(resource), await manager.get(resource)] == [0, 1]
    async with manager.resolution_scope() as scope:
        assert await scope.resolve(ResourceDefinition("x", resource)) == 2
        assert await scope.get(Resource(fresh, cache=False)) == 2
        assert await manager.get(resource) == 2
        async with manager.resolution_scope() as inner:
            assert await inner.get(resource) == 3
        assert await manager.get(resource) == 2
        assert await ResourceManager().get(resource) == 4
    with manager.resolution_scope():
        assert [await manager.get(resource), await manager.get(resource)] == [5, 5]
    assert await manager.get(resource) == 6
    assert manager.get_all() == {}


# --- concurrency -----------------------------------------------------------------------------


async def test_concurrent_first_uses_make_one_value(manager: ResourceManager):
    calls: list[int] = []
    go = asyncio.Event()

    async def slow() -> object:
        calls.append(1)
        await go.wait()
        return object()

    asked = [asyncio.create_task(manager.get(Resource(slow))) for _ in range(5)]
    await asyncio.sleep(0)
    go.set()
    assert len(set(await asyncio.gather(*asked))) == 1
    assert calls == [1]


async def test_one_cancelled_use_does_not_take_the_others_along(manager: ResourceManager):
    go = asyncio.Event()

    async def slow() -> str:
        await go.wait()
        return "made"

    first, second = (asyncio.create_task(manager.get(Resource(slow))) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    go.set()
    assert first.cancelled()
    assert await second == "made"


async def test_the_last_cancelled_use_takes_the_making_along(
    diary: Diary, manager: ResourceManager
):
    started = asyncio.Event()

    async def slow() -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            diary.lines.append("stopped")
        return "never"

    asked = asyncio.create_task(manager.get(Resource(slow)))
    await started.wait()
    asked.cancel()
    await asyncio.wait([asked])
    await asyncio.sleep(0)
    assert diary.lines == ["stopped"]


async def test_every_concurrent_use_sees_the_failure(manager: ResourceManager):
    async def failing() -> None:
        await asyncio.sleep(0)
        raise OSError("no")

    got = await asyncio.gather(
        *(manager.get(Resource(failing)) for _ in range(3)), return_exceptions=True
    )
    assert [type(one) for one in got] == [OSError] * 3


# --- dependencies ----------------------------------------------------------------------------


class Settings(BaseModel):
    a: int


class Database:
    def __init__(self, dsn: Annotated[str, Resource(lambda: "dsn")], pool: int = 3) -> None:
        self.dsn = dsn
        self.pool = pool


async def test_factories_get_resources_too(manager: ResourceManager, tmp_path: Path):
    path = tmp_path / "c.json"
    path.write_text('{"a": 1}')

    async def factory(
        db: Annotated[Database, Resource(Database)],
        settings: Annotated[Settings, ResourceConfig(str(path))],
        plain: int = 7,
    ) -> tuple[str, int, int, int]:
        return db.dsn, db.pool, settings.a, plain

    resource = Resource(factory)
    assert [(name, kind) for name, _, kind in resource.get_dependencies()] == [
        ("db", Database),
        ("settings", Settings),
    ]
    assert await manager.get(resource) == ("dsn", 3, 1, 7)
    assert set(manager.get_all()) == {
        "Database.<lambda>",
        "Database",
        str(path),
        factory.__qualname__,
    }


async def test_arguments_bound_by_a_partial_win(manager: ResourceManager):
    def factory(x: Annotated[int, Resource(lambda: 1)], y: Annotated[int, Resource(lambda: 2)]):
        return x, y

    assert await manager.get(Resource(partial(factory, y=9))) == (1, 9)


def later_defined(value: "Annotated[Later, Resource(make_later)]") -> "Later":  # pyright: ignore[reportUndefinedVariable]
    return value


async def test_forward_references_to_the_module_are_resolved(manager: ResourceManager):
    assert isinstance(await manager.get(Resource(later_defined)), Later)


class Later: ...


def make_later() -> Later:
    return Later()


async def test_forward_references_to_local_names_come_with_set_localns(manager: ResourceManager):
    class Local: ...

    def factory(value: "Annotated[Local, Resource(Local)]") -> "Local":
        return value

    resource = Resource(factory)
    with pytest.raises(
        WorkflowValidationError, match=r"annotations for .*factory\. Missing name: "
    ):
        await manager.get(resource)
    resource.set_localns({"Local": Local, "Resource": Resource})
    assert isinstance(await manager.get(resource), Local)


async def test_an_unknown_type_beside_a_known_resource_does_no_harm(manager: ResourceManager):
    def factory(
        value: Annotated["Unknown", Resource(lambda: 1)],  # noqa: F821 # pyright: ignore
        other: "AlsoUnknown" = 2,  # noqa: F821 # pyright: ignore
    ) -> Any:
        return value, other

    assert await manager.get(Resource(factory)) == (1, 2)


def cycle_top(a: "Annotated[int, Resource(cycle_a)]") -> int:  # pyright: ignore[reportUndefinedVariable]
    return a


def cycle_a(b: "Annotated[int, Resource(cycle_b)]") -> int:  # pyright: ignore[reportUndefinedVariable]
    return b


def cycle_b(a: "Annotated[int, Resource(cycle_a)]") -> int:
    return a


@pytest.mark.parametrize("cache", [True, False])
async def test_cycles_are_refused_before_anything_is_made(manager: ResourceManager, cache: bool):
    text = "^Circular resource dependency detected: cycle_top -> cycle_a -> cycle_b -> cycle_a$"
    with pytest.raises(ValueError, match=text):
        await manager.get(Resource(cycle_top, cache=cache))
    got = await asyncio.gather(
        manager.get(Resource(cycle_a)), manager.get(Resource(cycle_b)), return_exceptions=True
    )
    assert [type(one) for one in got] == [ValueError, ValueError]


async def test_a_factory_that_asks_the_manager_for_itself_does_not_hang(manager: ResourceManager):
    async def factory() -> Any:
        return await manager.get(Resource(factory))

    with pytest.raises(ValueError, match="Circular resource dependency detected"):
        await manager.get(Resource(factory))


async def test_any_descriptor_will_do(manager: ResourceManager):
    class Doubled:
        name = "doubled"
        cache = True

        def set_type_annotation(self, type_annotation: Any) -> None:
            self.type = type_annotation

        def set_localns(self, localns: dict[str, Any] | None) -> None:
            self.localns = localns

        def get_dependencies(self) -> list[tuple[str, ResourceDescriptor, type | None]]:
            return [("one", Resource(lambda: 21), int)]

        async def resolve(self, manager: ResourceManager) -> int:
            return 2 * await manager.get(self.get_dependencies()[0][1])

    definition = ResourceDefinition.from_annotation(
        "x", Annotated[int, "note", Doubled()], {"l": 1}
    )
    assert definition is not None
    assert isinstance(definition.resource, Doubled)
    assert (definition.resource.type, definition.resource.localns) == (int, {"l": 1})
    async with manager.resolution_scope() as scope:
        assert await scope.resolve(definition) == 42


@pytest.mark.parametrize(
    "annotation", [int, Annotated[int, "note"], Annotated[int, Resource], None]
)
def test_other_annotations_are_no_resources(annotation: Any):
    assert ResourceDefinition.from_annotation("x", annotation) is None


# --- configuration files ---------------------------------------------------------------------


def config(path: Path, content: object, selector: str | None = None, model: Any = Settings) -> Any:
    path.write_text(json.dumps(content))
    made = ResourceConfig(str(path), path_selector=selector)
    made.set_type_annotation(model)
    return made


async def test_a_config_is_a_model_read_once(manager: ResourceManager, tmp_path: Path):
    path = tmp_path / "c.json"
    first = await manager.get(config(path, {"a": 1}))
    assert first == Settings(a=1)
    assert await manager.get(config(path, {"a": 2})) is first
    assert await ResourceManager().get(config(path, {"a": 2})) == Settings(a=2)
    assert manager.get_all() == {str(path): first}


async def test_one_file_may_be_read_as_two_models(manager: ResourceManager, tmp_path: Path):
    class Other(BaseModel):
        a: float

    shared = config(tmp_path / "c.json", {"a": 1})
    first = ResourceDefinition("x", shared, Settings)
    second = ResourceDefinition("y", shared, Other | None)
    async with manager.resolution_scope() as scope:
        assert await scope.resolve(first) == Settings(a=1)
        assert await scope.resolve(second) == Other(a=1.0)


def test_a_selector_walks_dots(tmp_path: Path):
    made = config(tmp_path / "c.json", {"core": {"deep": {"a": 1}}}, "core.deep")
    assert made.call() == Settings(a=1)
    assert made.name == f"{tmp_path / 'c.json'}.core.deep"


@pytest.mark.parametrize(
    "selector, at, got",
    [
        ("core.fs.files", "core.fs", "str"),
        ("core.zz", "core.zz", "NoneType"),
        ("n", "n", "int"),
        ("", "", "NoneType"),
    ],
)
def test_a_selector_must_lead_to_an_object(tmp_path: Path, selector: str, at: str, got: str):
    made = config(tmp_path / "c.json", {"core": {"fs": "x"}, "n": 1}, selector)
    with pytest.raises(ValueError) as error:  # noqa: PT011 - compared below
        made.call()
    assert str(error.value) == (
        f"Expected dictionary for configuration from {tmp_path / 'c.json'} "
        f"at path {at}, got: <class '{got}'>"
    )


def test_what_is_wrong_with_a_config_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^Only JSON files can be used to load Pydantic-based"):
        ResourceConfig("config.yaml")
    missing = ResourceConfig("config.json")
    with pytest.raises(ValueError, match=r"^Class factory should be set to a BaseModel subclass"):
        missing.call()
    for no_model in (int, str | int, Settings | Later):
        missing.set_type_annotation(no_model)
        assert missing.cls_factory is None
    missing.set_type_annotation(Settings)
    with pytest.raises(FileNotFoundError, match=r"^No such file: config\.json$"):
        missing.call()
    with pytest.raises(ValidationError):
        config(tmp_path / "config.json", {"b": 1}).call()
    monkeypatch.chdir("/")
    assert missing.config_file == str(tmp_path / "config.json")
    (tmp_path / "config.json").write_text('{"a": 5}')
    assert missing.call() == Settings(a=5)


# --- the end of a step's resources -----------------------------------------------------------


async def test_a_steps_resources_end_with_its_scope_last_first(
    diary: Diary, manager: ResourceManager
):
    a, b = Resource(diary.ending("a"), cache=False), Resource(diary.ending("b"), cache=False)
    async with manager.resolution_scope() as scope:
        assert [await scope.get(a), await scope.get(b), await scope.get(a)] == ["a", "b", "a"]
        diary.lines.append("step")
    assert diary.lines == ["open a", "open b", "step", "close b", "close a"]


async def test_sync_generators_end_too(diary: Diary, manager: ResourceManager):
    def factory() -> Iterator[str]:
        yield "value"
        diary.lines.append("closed")

    async with manager.resolution_scope() as scope:
        assert await scope.get(Resource(factory, cache=False)) == "value"
    assert diary.lines == ["closed"]


async def test_a_resource_sees_the_error_of_its_step(diary: Diary, manager: ResourceManager):
    with pytest.raises(KeyError):
        async with manager.resolution_scope() as scope:
            await scope.get(Resource(diary.ending("a"), cache=False))
            raise KeyError("step")
    assert diary.lines == ["open a", "a saw KeyError", "close a"]


async def test_a_resource_cannot_hide_the_error_of_its_step(manager: ResourceManager):
    async def hiding() -> AsyncIterator[int]:
        try:
            yield 1
        except KeyError:
            return

    with pytest.raises(KeyError):
        async with manager.resolution_scope() as scope:
            await scope.get(Resource(hiding, cache=False))
            raise KeyError("step")


async def test_failures_at_the_end_do_not_stop_other_ends_and_are_raised_together(
    diary: Diary, manager: ResourceManager
):
    names = ["a", "b", "c"]
    failures: list[Exception | None] = [OSError("a"), None, ValueError("c")]
    with pytest.raises(ExceptionGroup, match="Resources failed to close") as group:
        async with manager.resolution_scope() as scope:
            for name, failure in zip(names, failures, strict=True):
                await scope.get(Resource(diary.ending(name, failure), cache=False))
    assert [str(one) for one in group.value.exceptions] == ["c", "a"]
    assert "while closing resource" in group.value.exceptions[0].__notes__[0]
    assert diary.lines[3:] == ["close c", "close b", "close a"]


async def test_the_error_of_the_step_outranks_failures_at_the_end(
    diary: Diary, manager: ResourceManager, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.ERROR), pytest.raises(KeyError) as error:
        async with manager.resolution_scope() as scope:
            await scope.get(Resource(diary.ending("a", OSError("disk")), cache=False))
            raise KeyError("step")
    assert error.value.__notes__ == ["A resource failed to close as well: OSError('disk')"]
    assert [record.name for record in caplog.records] == ["stepwell.resources"]


async def test_dependencies_end_after_what_was_built_from_them(
    diary: Diary, manager: ResourceManager
):
    inner = diary.ending("inner")

    async def outer(it: Annotated[str, Resource(inner, cache=False)]) -> AsyncIterator[str]:
        yield f"outer of {it}"
        diary.lines.append("close outer")

    async with manager.resolution_scope() as scope:
        assert await scope.get(Resource(outer, cache=False)) == "outer of inner"
    assert diary.lines == ["open inner", "close outer", "close inner"]


async def test_what_was_opened_before_a_factory_failed_is_closed(
    diary: Diary, manager: ResourceManager
):
    inner = diary.ending("inner")

    def outer(it: Annotated[str, Resource(inner, cache=False)]) -> str:
        raise OSError("no")

    for cache in (True, False):
        with pytest.raises(OSError, match="no"):
            async with manager.resolution_scope() as scope:
                await scope.get(Resource(outer, cache=cache))
        assert diary.lines == ["open inner", "inner saw OSError", "close inner"]
        diary.lines.clear()


async def test_an_end_needs_a_scope_that_can_await_it(diary: Diary, manager: ResourceManager):
    resource = Resource(diary.ending("a"), cache=False)
    with pytest.raises(RuntimeError, match="has an end and there is no open scope"):
        await manager.get(resource)
    with manager.resolution_scope(), pytest.raises(RuntimeError, match="resolution_scope"):
        await manager.get(resource)
    async with manager.resolution_scope() as scope:
        pass
    with pytest.raises(RuntimeError, match="has an end and there is no open scope"):
        await scope.get(resource)
    assert diary.lines == []


@pytest.mark.parametrize("cache", [True, False])
async def test_a_generator_that_yields_not_at_all_fails(cache: bool, manager: ResourceManager):
    async def silent() -> AsyncIterator[int]:
        for one in ():
            yield one

    with pytest.raises(RuntimeError, match="didn't yield") as error:
        async with manager.resolution_scope() as scope:
            await scope.get(Resource(silent, cache=cache))
    assert "silent" in error.value.__notes__[0]


async def test_a_generator_that_yields_twice_fails_at_its_end(manager: ResourceManager):
    async def twice() -> AsyncIterator[int]:
        yield 1
        yield 2

    with pytest.raises(ExceptionGroup) as group:
        async with manager.resolution_scope() as scope:
            await scope.get(Resource(twice, cache=False))
    assert "didn't stop" in str(group.value.exceptions[0])


# --- the end of a manager's resources --------------------------------------------------------


async def test_cached_resources_end_with_the_manager_last_first(
    diary: Diary, manager: ResourceManager
):
    a, b = Resource(diary.ending("a")), Resource(diary.ending("b"))
    async with manager.resolution_scope() as scope:
        assert [await scope.get(a), await scope.get(b)] == ["a", "b"]
    assert await manager.get(a) == "a"
    assert diary.lines == ["open a", "open b"]
    await manager.aclose()
    assert diary.lines == ["open a", "open b", "close b", "close a"]
    await manager.aclose()
    assert len(diary.lines) == 4


async def test_after_its_end_a_manager_makes_everything_anew(
    diary: Diary, manager: ResourceManager
):
    resources_ = [Resource(diary.ending("a")), Resource(diary.plain("b"))]
    await manager.set("given", 1)
    for _ in range(2):
        for resource in resources_:
            await manager.get(resource)
        await manager.aclose()
        assert manager.get_all() == {"given": 1}
    assert diary.lines == ["open a", "make b", "close a"] * 2


async def test_failures_at_the_managers_end_are_raised_together(diary: Diary):
    manager = ResourceManager()
    for name, failure in [("a", OSError("a")), ("b", None), ("c", ValueError("c"))]:
        await manager.get(Resource(diary.ending(name, failure)))
    with pytest.raises(ExceptionGroup, match="Resources failed to close") as group:
        await manager.aclose()
    assert [str(one) for one in group.value.exceptions] == ["c", "a"]
    assert diary.lines[3:] == ["close c", "close b", "close a"]


async def test_what_a_cached_resource_was_built_from_lives_as_long(
    diary: Diary, manager: ResourceManager
):
    inner = Resource(diary.ending("inner"), cache=False)

    def outer(it: Annotated[str, inner]) -> str:
        return it

    async with manager.resolution_scope() as scope:
        await scope.get(inner)
        await scope.get(Resource(outer))
    assert diary.lines == ["open inner", "open inner", "close inner"]
    await manager.aclose()
    assert diary.lines == ["open inner", "open inner", "close inner", "close inner"]


async def test_a_cached_resource_begins_and_ends_in_one_task(manager: ResourceManager):
    tasks: list[Any] = []

    async def pool() -> AsyncIterator[asyncio.TaskGroup]:
        tasks.append(asyncio.current_task())
        async with asyncio.TaskGroup() as group:
            yield group
        tasks.append(asyncio.current_task())

    async def step() -> None:
        group = await manager.get(Resource(pool))
        group.create_task(asyncio.sleep(0))

    await asyncio.create_task(step())
    await asyncio.create_task(manager.aclose())
    assert tasks[0] is tasks[1]


async def test_a_cached_resource_that_broke_is_made_anew(manager: ResourceManager):
    async def pool() -> AsyncIterator[asyncio.TaskGroup]:
        async with asyncio.TaskGroup() as group:
            yield group

    async def crash() -> None:
        raise OSError("lost")

    broken = await manager.get(Resource(pool))
    broken.create_task(crash())
    for _ in range(10):
        await asyncio.sleep(0)
    assert await manager.get(Resource(pool)) is not broken
    with pytest.raises(ExceptionGroup) as group:
        await manager.aclose()
    assert group.value.subgroup(OSError) is not None


async def test_closing_waits_for_what_is_being_made(diary: Diary, manager: ResourceManager):
    go = asyncio.Event()

    async def slow() -> AsyncIterator[str]:
        await go.wait()
        yield "made"
        diary.lines.append("closed")

    asked = asyncio.create_task(manager.get(Resource(slow)))
    await asyncio.sleep(0)
    closing = asyncio.create_task(manager.aclose())
    await asyncio.sleep(0)
    assert not closing.done()
    go.set()
    await closing
    assert await asked == "made"
    assert diary.lines == ["closed"]


async def test_a_cached_factory_sees_the_context_of_its_manager_not_of_a_step():
    variable = contextvars.ContextVar("variable", default="none")
    variable.set("application")
    manager = ResourceManager()
    variable.set("step")
    assert await manager.get(Resource(variable.get)) == "application"
    assert await manager.get(Resource(variable.get, cache=False)) == "step"


async def test_a_forgotten_manager_is_collected_and_its_resources_end(diary: Diary):
    manager = ResourceManager()
    async with manager.resolution_scope() as scope:
        await scope.get(Resource(diary.ending("a")))
    gone = weakref.ref(manager)
    del manager, scope
    gc.collect()
    assert gone() is None
    for _ in range(5):
        await asyncio.sleep(0)
    assert diary.lines == ["open a", "close a"]


# --- event loops -----------------------------------------------------------------------------


def test_a_loop_that_ends_takes_its_resources_along_and_the_next_makes_new_ones(diary: Diary):
    manager = ResourceManager()
    ending = Resource(diary.ending("a"))

    def on_top(it: Annotated[str, ending]) -> str:
        diary.lines.append("make top")
        return it

    async def use() -> None:
        await manager.get(ending)
        await manager.get(Resource(on_top))
        await manager.get(Resource(on_top))

    asyncio.run(use())
    assert diary.lines == ["open a", "make top", "a saw CancelledError", "close a"]
    assert manager.get_all() == {}
    asyncio.run(use())
    assert diary.lines[4:] == diary.lines[:4]
    asyncio.run(manager.aclose())


def test_cached_values_without_an_end_outlive_the_loop(diary: Diary):
    manager = ResourceManager()
    resource = Resource(diary.plain("a"))
    for _ in range(2):
        assert asyncio.run(manager.get(resource)) == "a"
    assert diary.lines == ["make a"]


def test_two_live_loops_have_one_resource_each(diary: Diary):
    manager = ResourceManager()
    resource = Resource(diary.ending("a"))
    with asyncio.Runner() as one, asyncio.Runner() as other:
        for runner in (one, other, one, other):
            runner.run(manager.get(resource))
        assert diary.lines == ["open a", "open a"]
        one.run(manager.aclose())
        assert diary.lines == ["open a", "open a", "close a"]
        other.run(manager.get(resource))
        other.run(manager.aclose())
    assert diary.lines == ["open a", "open a", "close a", "close a"]


# --- validation ------------------------------------------------------------------------------


def test_validation_reads_every_config(tmp_path: Path):
    bad, missing = config(tmp_path / "c.json", {"a": "x"}), tmp_path / "none.json"

    def inner(settings: Annotated[Settings, bad]) -> None: ...

    def outer(it: Annotated[None, Resource(inner)]) -> None: ...

    def define(name: str, resource: ResourceDescriptor, kind: Any = None) -> ResourceDefinition:
        return ResourceDefinition(name, resource, kind)

    steps = {
        "s": [
            define("direct", ResourceConfig(str(missing)), Settings),
            define("nested", Resource(outer)),
        ],
        "t": [define("fine", config(tmp_path / "d.json", {"a": 1}))],
    }
    with pytest.raises(WorkflowValidationError) as error:
        validate_resource_configs(steps)
    lines = str(error.value).split("\n  - ")
    assert lines[0] == "Resource config validation failed:"
    assert lines[1] == f"In step 's', parameter 'direct': No such file: {missing}"
    chain = f"{outer.__qualname__} -> {inner.__qualname__} -> {tmp_path / 'c.json'}"
    assert lines[2].startswith(f"In step 's', parameter 'nested' ({chain}): 1 validation error")
    assert len(lines) == 3
    validate_resource_configs({"t": steps["t"], "u": [define("loop", Resource(cycle_top))]})


async def test_validation_makes_every_resource(diary: Diary, manager: ResourceManager):
    def failing() -> None:
        raise OSError("no")

    steps = {
        "s": [
            ResourceDefinition("good", Resource(diary.ending("a"), cache=False)),
            ResourceDefinition("bad", Resource(failing)),
        ]
    }
    with pytest.raises(WorkflowValidationError) as error:
        await validate_resources(steps, manager)
    assert str(error.value) == ("Resource validation failed:\n  - In step 's', parameter 'bad': no")
    assert diary.lines == ["open a", "close a"]
    await validate_resources({"s": steps["s"][:1]}, manager)


def test_the_door_shows_the_same_classes():
    assert all(getattr(door, name) is getattr(resources, name) for name in door.__all__)
