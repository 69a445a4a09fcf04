"""Resources: things a step needs that are not events, made by factories when first asked for.

The theory: a resource lives in exactly one scope, and a scope closes what was made in it.

    cache=False   the scope of one step invocation: `async with manager.resolution_scope()`
    cache=True    the manager: from the first use until `await manager.aclose()`

What a resource was built from lives at least as long as the resource itself. So the
dependencies of a cached factory are made in a scope of its own, which the manager closes with
it; they are never borrowed from the step that happened to ask first.

A factory that yields (once) is a resource with an end: what follows the `yield` runs when its
scope closes. The end of a step's resource sees the error of the step, so that a transaction
can roll back, but cannot hide it. A cached one is kept by a task of its own, in which it is
both begun and ended, because task groups, cancel scopes and most client sessions insist on
that. The task runs in the context in which the manager was made: it outlives the step that
asked first and must not keep that step's context variables alive. If nobody calls `aclose()`,
the resource ends when the manager is garbage collected or the event loop cancels its tasks.

A cached value is found by its factory, not by the factory's name, so two factories of one
name do not meet. `manager.set(name, value)` does go by name: it puts a value of the caller's
in the place of every cached resource of that name.

This module refuses to know about steps and workflows: it sees definitions and hands out values.
"""

# The classes of this file are one machine and use each other's inner parts.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import functools
import inspect
import json
import logging
import sys
import types
import typing
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, Self, cast, runtime_checkable

from pydantic import BaseModel

from stepwell.errors import WorkflowValidationError

__all__ = [
    "ResolutionScope",
    "Resource",
    "ResourceConfig",
    "ResourceDefinition",
    "ResourceDescriptor",
    "ResourceManager",
    "validate_resource_configs",
    "validate_resources",
]

if sys.version_info >= (3, 14):
    import annotationlib

Dependency = tuple[str, "ResourceDescriptor", "type | None"]

_log = logging.getLogger("stepwell.resources")


# --- what is declared ------------------------------------------------------------------------


@runtime_checkable
class ResourceDescriptor(Protocol):
    """Anything that may stand in `Annotated[T, ...]` and be resolved to a value."""

    @property
    def name(self) -> str:
        """What errors, drawings and `ResourceManager.set` call it."""
        ...

    @property
    def cache(self) -> bool:
        """Whether the manager keeps the value, or one step invocation only."""
        ...

    async def resolve(self, manager: ResourceManager) -> Any:
        """Make the value; dependencies come from `manager.get(...)`."""
        ...

    def set_type_annotation(self, type_annotation: Any) -> None:
        """Told once, before use: the T of `Annotated[T, ...]`."""
        ...

    def set_localns(self, localns: dict[str, Any] | None) -> None:
        """Told once, before use: the local names that annotations given as strings may use."""
        ...

    def get_dependencies(self) -> list[tuple[str, ResourceDescriptor, type | None]]:
        """(parameter, descriptor, type) of what `resolve` will ask the manager for."""
        ...


class Resource:
    """A value made by calling `factory`; written `Annotated[T, Resource(factory)]`.

    Args:
        factory: sync or async; or a sync or async generator function that yields once, whose
            rest runs when the scope closes. Its own parameters may be annotated with resources.
        cache: True makes one value per manager, False one per step invocation.

    Raises:
        TypeError: the factory cannot be called.

    Example:
        >>> async def connect():
        ...     yield "connection"
        ...     print("closed")
        >>> async def main():
        ...     async with ResourceManager().resolution_scope() as scope:
        ...         print(await scope.get(Resource(connect, cache=False)))
        >>> asyncio.run(main())
        connection
        closed
    """

    def __init__(self, factory: Callable[..., Any], cache: bool = True) -> None:
        if not callable(factory):
            raise TypeError(f"A resource factory must be callable, got {factory!r}")
        self.factory = factory
        self.cache = cache
        self.name: str = _name_of(factory)
        self._localns: dict[str, Any] | None = None
        self._dependencies: list[Dependency] | None = None

    def __repr__(self) -> str:
        return f"Resource({self.name}, cache={self.cache})"

    def set_type_annotation(self, type_annotation: Any) -> None:
        """Nothing to do: the factory alone decides what it makes."""

    def set_localns(self, localns: dict[str, Any] | None) -> None:
        """More names for annotations given as strings; needed only until they are resolved."""
        if self._dependencies is None and localns:
            self._localns = {**(self._localns or {}), **localns}

    def get_dependencies(self) -> list[Dependency]:
        """The resources among the factory's parameters.

        Raises:
            WorkflowValidationError: the annotation of a parameter names something unknown.
        """
        if self._dependencies is None:
            self._dependencies = [
                (one.name, one.resource, one.type_annotation)
                for one in _definitions_of(self.factory, self._localns)
            ]
            self._localns = None  # a frame's locals are not kept longer than needed
        return self._dependencies

    async def resolve(self, manager: ResourceManager) -> Any:
        """Make a new value; its dependencies come from the manager.

        Raises RuntimeError if the factory yields and no scope is open that could close it.
        """
        arguments = {name: await manager.get(it) for name, it, _ in self.get_dependencies()}
        function = _called(self.factory)
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            return await manager._enter(self.name, self._opened(arguments))
        value = self.factory(**arguments)
        return await value if inspect.iscoroutine(value) else value

    call = resolve

    def _opened(self, arguments: dict[str, Any]) -> contextlib.AbstractAsyncContextManager[Any]:
        if inspect.isasyncgenfunction(_called(self.factory)):
            return contextlib.asynccontextmanager(self.factory)(**arguments)
        return _AsyncDoor(contextlib.contextmanager(self.factory)(**arguments))


class ResourceConfig:
    """A pydantic model read from a JSON file; written `Annotated[Model, ResourceConfig(...)]`.

    Args:
        config_file: a `.json` file, relative to the working directory of this moment. It is
            read when first needed.
        path_selector: dotted path to the object in the file that the model is made of.
        label: a name for drawings.
        description: a sentence for drawings.

    Raises:
        ValueError: the file is not a `.json` file.

    Example:
        >>> ResourceConfig("settings.json", path_selector="core.db").name
        'settings.json.core.db'
    """

    cache = True

    def __init__(
        self,
        config_file: str,
        path_selector: str | None = None,
        label: str | None = None,
        description: str | None = None,
    ) -> None:
        if Path(config_file).suffix != ".json":
            raise ValueError("Only JSON files can be used to load Pydantic-based resources.")
        self.config_file = str(Path(config_file).absolute())
        self.path_selector = path_selector
        self.label = label
        self.description = description
        self.cls_factory: type[BaseModel] | None = None
        self.name = config_file if path_selector is None else f"{config_file}.{path_selector}"
        self._written_file = config_file

    def __repr__(self) -> str:
        return f"ResourceConfig({self.name})"

    def set_type_annotation(self, type_annotation: Any) -> None:
        """The model to validate into; `Model | None` counts as `Model`."""
        candidates = [
            one
            for one in typing.get_args(type_annotation) or (type_annotation,)
            if one is not types.NoneType
        ]
        only = candidates[0] if len(candidates) == 1 else None
        is_model = isinstance(only, type) and issubclass(only, BaseModel)
        self.cls_factory = only if is_model else None

    def set_localns(self, localns: dict[str, Any] | None) -> None:
        """Nothing to do: a file has no annotations."""

    def get_dependencies(self) -> list[Dependency]:
        """None: a file needs no other resources."""
        return []

    async def resolve(self, manager: ResourceManager) -> BaseModel:
        """As `call()`."""
        return self.call()

    def call(self) -> BaseModel:
        """Read the file and validate it.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not JSON, the selected part is no object, or it does not fit the
                model (pydantic's ValidationError).
        """
        if self.cls_factory is None:
            raise ValueError("Class factory should be set to a BaseModel subclass before calling")
        return self.cls_factory.model_validate(self._selected())

    def _selected(self) -> object:
        if not Path(self.config_file).is_file():
            raise FileNotFoundError(f"No such file: {self._written_file}")
        data: object = json.loads(Path(self.config_file).read_text(encoding="utf-8"))
        walked: list[str] = []
        for key in [] if self.path_selector is None else self.path_selector.split("."):
            walked.append(key)
            data = cast("dict[str, object]", data).get(key) if isinstance(data, dict) else None
            if not isinstance(data, dict):
                raise ValueError(
                    f"Expected dictionary for configuration from {self._written_file} "
                    f"at path {'.'.join(walked)}, got: {type(data)}"
                )
        return cast("object", data)


@dataclass(frozen=True)
class ResourceDefinition:
    """One resource parameter: its name, what fills it, and its type.

    The definition owns its descriptor's type: a `ResourceConfig` object that stands in two
    annotations is told apart here.

    Example:
        >>> definition = ResourceDefinition("db", Resource(dict), dict)
        >>> definition.name
        'db'
    """

    name: str
    resource: ResourceDescriptor
    type_annotation: Any = None

    def __post_init__(self) -> None:
        if self.type_annotation is not None:
            resource = self.resource
            if isinstance(resource, ResourceConfig):
                resource = copy.copy(resource)
                object.__setattr__(self, "resource", resource)
            resource.set_type_annotation(self.type_annotation)

    @classmethod
    def from_annotation(
        cls, name: str, annotation: object, localns: dict[str, Any] | None = None
    ) -> ResourceDefinition | None:
        """The definition in `Annotated[T, Resource(...)]`; None if the annotation holds none."""
        if typing.get_origin(annotation) is not Annotated:
            return None
        target, *metadata = typing.get_args(annotation)
        for found in metadata:
            if isinstance(found, ResourceDescriptor) and not isinstance(found, type):
                found.set_localns(localns)
                known = None if isinstance(target, typing.ForwardRef) else target
                return cls(name, found, known)
        return None


# --- reading a factory's signature -----------------------------------------------------------


def _unwrapped(factory: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(factory, functools.partial):
        factory = cast("functools.partial[Any]", factory).func
    return factory


def _name_of(factory: Callable[..., Any]) -> str:
    inner = _unwrapped(factory)
    return getattr(inner, "__qualname__", None) or type(inner).__qualname__


def _called(factory: Callable[..., Any]) -> Any:
    """The function that a call of the factory runs: where annotations and `yield` stand."""
    inner = _unwrapped(factory)
    if isinstance(inner, type):
        return inner.__init__
    return inner if inspect.isroutine(inner) else type(inner).__call__


def _annotations(function: Any) -> dict[str, object]:
    """The annotations as they stand, without failing on names that do not exist yet."""
    if sys.version_info >= (3, 14):
        return annotationlib.get_annotations(function, format=annotationlib.Format.FORWARDREF)
    return dict(getattr(function, "__annotations__", {}))


def _required(function: Any) -> set[str]:
    code = getattr(function, "__code__", None)
    if not isinstance(code, types.CodeType):
        return set()
    positional = code.co_varnames[: code.co_argcount]
    keyword_only = code.co_varnames[code.co_argcount :][: code.co_kwonlyargcount]
    without_default = len(positional) - len(function.__defaults__ or ())
    return {*positional[:without_default], *keyword_only} - set(function.__kwdefaults__ or ())


def _definitions_of(
    factory: Callable[..., Any], localns: dict[str, Any] | None
) -> list[ResourceDefinition]:
    """The resource parameters of a factory, in the order of its signature."""
    function = inspect.unwrap(_called(factory))
    given: set[str] = set(factory.keywords) if isinstance(factory, functools.partial) else set()
    required = _required(function)
    found: list[ResourceDefinition] = []
    for name, annotation in _annotations(function).items():
        if name == "return" or name in given:
            continue
        evaluated = _evaluated(function, name, annotation, localns, name in required)
        definition = ResourceDefinition.from_annotation(name, evaluated, localns)
        if definition is not None:
            found.append(definition)
    return found


def _evaluated(
    function: Any,
    name: str,
    annotation: object,
    localns: dict[str, Any] | None,
    required: bool,
) -> object:
    """One annotation with its forward references resolved, as far as that matters.

    Parameters are taken one by one, so that a name unknown in one does not hide the others.
    """

    def only() -> None: ...

    only.__annotations__ = {name: annotation}
    scope: dict[str, Any] = getattr(function, "__globals__", {})
    try:
        return typing.get_type_hints(only, scope, dict(localns or {}), include_extras=True)[name]
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        if not isinstance(annotation, str | typing.ForwardRef):
            return annotation  # Annotated["Unknown", Resource(...)]: the resource is at hand
        if not required:
            return None  # a resource or not, its default will do
        missing = error.name if isinstance(error, NameError) else error
        raise WorkflowValidationError(
            f"Failed to resolve type annotations for {_name_of(function)}. Missing name: {missing}"
        ) from error


def _key(descriptor: ResourceDescriptor) -> Hashable:
    match descriptor:
        case Resource():
            try:
                hash(descriptor.factory)
            except TypeError:  # found by identity; the factory is kept, so its id stays its own
                return id(descriptor.factory)
            return descriptor.factory
        case ResourceConfig():
            return (descriptor.config_file, descriptor.path_selector, descriptor.cls_factory)
        case _:
            return (type(descriptor), descriptor.name)


def _refuse_cycles(descriptor: ResourceDescriptor, path: tuple[ResourceDescriptor, ...]) -> None:
    """Look for a cycle before anything is made: two tasks in one would wait for each other."""
    keys = [_key(one) for one in path]
    if _key(descriptor) in keys:
        names = " -> ".join(one.name for one in (*path, descriptor))
        raise ValueError(f"Circular resource dependency detected: {names}")
    for _, dependency, _ in descriptor.get_dependencies():
        _refuse_cycles(dependency, (*path, descriptor))


# --- scopes ----------------------------------------------------------------------------------


class _AsyncDoor(contextlib.AbstractAsyncContextManager[Any]):
    """A synchronous context manager, entered and left in the event loop."""

    def __init__(self, inner: contextlib.AbstractContextManager[Any]) -> None:
        self._inner = inner

    async def __aenter__(self) -> Any:
        return self._inner.__enter__()

    async def __aexit__(self, *error: Any) -> bool | None:
        return self._inner.__exit__(*error)


class _Scope:
    """Values made together, and what has to end with them. Knows no manager, so it pins none."""

    def __init__(self, *, may_end: bool) -> None:
        self.is_open = True
        self.may_end = may_end
        self.values: dict[Hashable, tuple[ResourceDescriptor, Any]] = {}
        self.uses: list[_Cached] = []  # cached resources that the values were built from
        self.ends: contextlib.AsyncExitStack | None = None
        self.errors: list[Exception] = []

    async def enter(self, name: str, resource: contextlib.AbstractAsyncContextManager[Any]) -> Any:
        if not (self.may_end and self.is_open):
            raise RuntimeError(
                f"Resource {name!r} has an end and there is no open scope to await it: "
                f"ask for it inside `async with manager.resolution_scope()`"
            )
        try:
            value = await resource.__aenter__()
        except BaseException as error:
            error.add_note(f"while opening resource {name!r}")
            raise
        if self.ends is None:
            self.ends = contextlib.AsyncExitStack()
        self.ends.push_async_exit(functools.partial(self._end, name, resource))
        return value

    async def _end(
        self, name: str, resource: contextlib.AbstractAsyncContextManager[Any], *error: Any
    ) -> bool:
        try:
            await resource.__aexit__(*error)
        except Exception as failure:
            if failure is not error[1]:
                failure.add_note(f"while closing resource {name!r}")
                self.errors.append(failure)
        return False  # a resource sees the error of its user, but cannot hide it

    async def close(self, *error: Any) -> None:
        """End everything, last first; failures are raised together, after all have ended.

        If there is an error already (also when closing is cancelled), that one goes on alone,
        since retry rules look at it; the failures are logged and noted on it.
        """
        self.is_open = False
        if self.ends is None:
            return
        cause: BaseException | None = error[1]
        try:
            await self.ends.__aexit__(*error)
        except BaseException as interruption:
            cause = interruption
            raise
        finally:
            if cause is not None:
                for failure in self.errors:
                    cause.add_note(f"A resource failed to close as well: {failure!r}")
                    _log.error("a resource failed to close", exc_info=failure)
        if self.errors and cause is None:
            raise ExceptionGroup("Resources failed to close", self.errors)


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where a call of `manager.get` stands: in which scope, and in the making of what."""

    manager: weakref.ref[ResourceManager]
    scope: _Scope
    path: tuple[ResourceDescriptor, ...] = ()


_frame: contextvars.ContextVar[_Frame | None] = contextvars.ContextVar("_frame", default=None)


class ResolutionScope:
    """What one step invocation was given; leaving it ends what was made in it, last first.

    Made by `ResourceManager.resolution_scope()`, for use in one task. Entered with a plain
    `with` it shares values like any scope, but refuses resources that have an end.

    Leaving raises ExceptionGroup if resources failed to close and nothing else went wrong.
    """

    def __init__(self, manager: ResourceManager) -> None:
        self._manager = manager
        self._scope = _Scope(may_end=False)
        self._outer: _Frame | None = None

    def __enter__(self) -> Self:
        return self._enter(may_end=False)

    def __exit__(self, *error: object) -> None:
        self._scope.is_open = False
        _frame.set(self._outer)

    async def __aenter__(self) -> Self:
        return self._enter(may_end=True)

    async def __aexit__(self, *error: object) -> None:
        _frame.set(self._outer)
        await self._scope.close(*error)

    def _enter(self, *, may_end: bool) -> Self:
        self._scope = _Scope(may_end=may_end)
        self._outer = _frame.get()
        _frame.set(_Frame(weakref.ref(self._manager), self._scope))
        return self

    async def get(self, resource: ResourceDescriptor) -> Any:
        """The value of a resource, as `ResourceManager.get` gives it in this scope."""
        return await self._manager._get(resource, self._scope, ())

    async def resolve(self, definition: ResourceDefinition) -> Any:
        """The value for one resource parameter of a step."""
        return await self.get(definition.resource)


# --- the manager -----------------------------------------------------------------------------


class _Cached:
    """One cached resource: being made, at hand, or over."""

    def __init__(self, resource: ResourceDescriptor, loop: asyncio.AbstractEventLoop) -> None:
        self.resource = resource
        self.loop = loop
        self.scope = _Scope(may_end=True)
        self.ready: asyncio.Future[None] = loop.create_future()
        self.closing = asyncio.Event()
        self.value: Any = None
        self.task: asyncio.Task[None] | None = None
        self.waiting = 0
        self.abandoned = False
        self.let_go: Callable[[], object] | None = None

    @property
    def is_made(self) -> bool:
        ready = self.ready
        return ready.done() and not ready.cancelled() and ready.exception() is None

    @property
    def is_over(self) -> bool:
        """It failed, or its end has come."""
        if not self.ready.done():
            return self.abandoned or self.loop.is_closed()
        if not self.is_made or any(one.is_over for one in self.scope.uses):
            return True
        return self.scope.ends is not None and (
            not self.scope.is_open or self.loop.is_closed() or self.task is None or self.task.done()
        )

    def fits(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether it can be used in this loop: at home, or without ties to any loop."""
        if self.loop is loop:
            return True
        return (
            self.is_made
            and self.scope.ends is None
            and all(one.fits(loop) for one in self.scope.uses)
        )

    async def wait(self) -> None:
        """Wait until it is made. Whoever leaves last takes an unfinished one along."""
        self.waiting += 1
        try:
            await asyncio.shield(self.ready)
        finally:
            self.waiting -= 1
            if not self.waiting and not self.ready.done() and self.task is not None:
                self.abandoned = True
                self.task.cancel()

    async def end(self) -> list[Exception]:
        """End it in its own task; what went wrong then."""
        if self.let_go is not None:
            self.let_go()
        self.closing.set()
        if self.task is not None:
            await asyncio.wait([self.task])
            if not self.task.cancelled():
                self.task.exception()  # said by the scope's errors, one by one
        return self.scope.errors


async def _keep(
    cached: _Cached, manager: ResourceManager | None, path: tuple[ResourceDescriptor, ...]
) -> None:
    """The life of one cached resource, in one task from beginning to end."""
    assert manager is not None  # noqa: S101 - the parameter is Optional only to be let go below
    try:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_exit(cached.scope.close)
            cached.value = await manager._make(cached.resource, cached.scope, path)
            if cached.scope.ends is not None:
                manager._admit(cached)
            manager = None  # from here on a forgotten manager can be collected
            cached.ready.set_result(None)
            if cached.scope.ends is not None:
                await cached.closing.wait()
    except asyncio.CancelledError:
        cached.ready.cancel()
        raise
    except Exception as error:
        if cached.ready.done():
            raise
        cached.ready.set_exception(error)
        cached.ready.exception()  # whoever still waits gets it; nobody has to


def _end_soon(loop: asyncio.AbstractEventLoop, closing: asyncio.Event) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(closing.set)


class ResourceManager:
    """Makes resources, keeps the cached ones and, when closed, ends them.

    Give one manager to several workflows to share resources between them.

    Example:
        >>> async def main():
        ...     manager = ResourceManager()
        ...     await manager.set("answer", 42)
        ...     def answer(): return 0
        ...     answer.__qualname__ = "answer"
        ...     print(await manager.get(Resource(answer)))
        ...     await manager.aclose()
        >>> asyncio.run(main())
        42
    """

    def __init__(self) -> None:
        self._given: dict[str, Any] = {}
        # A resource bound to an event loop may exist once per loop, hence the lists.
        self._cached: dict[Hashable, list[_Cached]] = {}
        self._with_ends: list[_Cached] = []  # in order of creation
        self._context = contextvars.copy_context()

    async def set(self, name: str, val: Any) -> None:
        """Put a value in the place of every cached resource of this name."""
        self._given[name] = val

    async def get(self, resource: ResourceDescriptor) -> Any:
        """The value of a resource: the cached one, or made now.

        An uncached value is shared within the scope that is open around this call. Without
        one it is made for this call alone.

        Raises:
            ValueError: the resource needs itself ("Circular resource dependency detected: ...").
            RuntimeError: an uncached resource with an end was asked for outside a scope.
            Exception: whatever the factory raises; a later call tries again.
        """
        frame = _frame.get()
        if frame is not None and frame.scope.is_open and frame.manager() is self:
            return await self._get(resource, frame.scope, frame.path)
        return await self._get(resource, _Scope(may_end=False), ())

    def get_all(self) -> dict[str, Any]:
        """Every cached value by name; of several of one name, the later ones get `#2`, `#3`."""
        values = dict(self._given)
        for cached in (one for several in self._cached.values() for one in several):
            base = cached.resource.name
            if cached.is_over or not cached.is_made or base in self._given:
                continue
            name, count = base, 1
            while name in values:
                count += 1
                name = f"{base}#{count}"
            values[name] = cached.value
        return values

    def resolution_scope(self) -> ResolutionScope:
        """The scope of one step invocation: `async with manager.resolution_scope() as scope:`.

        A scope within a scope is a new one: it shares no uncached values with the outer.
        """
        return ResolutionScope(self)

    async def aclose(self) -> None:
        """End the cached resources made in this event loop, last first, and forget the rest.

        The manager stays usable and makes resources anew. Values put in by `set` stay.

        Raises:
            ExceptionGroup: resources failed to close; all of them have been tried.
        """
        loop = asyncio.get_running_loop()
        every = [cached for several in self._cached.values() for cached in several]
        unfinished = [one.ready for one in every if one.loop is loop and not one.ready.done()]
        if unfinished:
            await asyncio.wait(unfinished)
        for key, several in list(self._cached.items()):
            elsewhere = [one for one in several if not one.is_over and not one.fits(loop)]
            if elsewhere:
                self._cached[key] = elsewhere
            else:
                del self._cached[key]
        errors: list[Exception] = []
        for cached in reversed([one for one in self._with_ends if one.loop is loop]):
            self._with_ends.remove(cached)
            errors += await cached.end()
        if errors:
            raise ExceptionGroup("Resources failed to close", errors)

    async def _get(
        self, resource: ResourceDescriptor, scope: _Scope, path: tuple[ResourceDescriptor, ...]
    ) -> Any:
        if not resource.cache:
            key = _key(resource)
            if key not in scope.values:
                _refuse_cycles(resource, path)
                scope.values[key] = (resource, await self._make(resource, scope, path))
            return scope.values[key][1]
        if resource.name in self._given:
            return self._given[resource.name]
        cached = self._at_hand(resource)
        if cached is None or not cached.ready.done():
            _refuse_cycles(resource, path)
            cached = cached or self._begin(resource, path)
            await cached.wait()
        if cached.scope.ends is not None or cached.scope.uses:
            scope.uses.append(cached)
        return cached.value

    async def _make(
        self, resource: ResourceDescriptor, scope: _Scope, path: tuple[ResourceDescriptor, ...]
    ) -> Any:
        outer = _frame.get()
        _frame.set(_Frame(weakref.ref(self), scope, (*path, resource)))
        try:
            return await resource.resolve(self)
        finally:
            _frame.set(outer)

    async def _enter(self, name: str, it: contextlib.AbstractAsyncContextManager[Any]) -> Any:
        frame = _frame.get()
        scope = frame.scope if frame and frame.manager() is self else _Scope(may_end=False)
        return await scope.enter(name, it)

    def _at_hand(self, resource: ResourceDescriptor) -> _Cached | None:
        loop = asyncio.get_running_loop()
        for cached in self._cached.get(_key(resource), ()):
            if cached.fits(loop) and not cached.is_over:
                return cached
        return None

    def _begin(self, resource: ResourceDescriptor, path: tuple[ResourceDescriptor, ...]) -> _Cached:
        loop = asyncio.get_running_loop()
        cached = _Cached(resource, loop)
        several = self._cached.setdefault(_key(resource), [])
        several[:] = [*(one for one in several if not one.is_over), cached]
        self._with_ends = [one for one in self._with_ends if not one.loop.is_closed()]
        cached.task = loop.create_task(
            _keep(cached, self, path),
            name=f"stepwell resource {resource.name}",
            context=self._context.copy(),
        )
        return cached

    def _admit(self, cached: _Cached) -> None:
        self._with_ends.append(cached)
        finalizer = weakref.finalize(self, _end_soon, cached.loop, cached.closing)
        finalizer.atexit = False
        cached.let_go = finalizer.detach


# --- validation ------------------------------------------------------------------------------


def validate_resource_configs(steps: Mapping[str, Iterable[ResourceDefinition]]) -> None:
    """Read every configuration file that the steps' resources need, also indirectly.

    Args:
        steps: the resource parameters of each step, by the step's name.

    Raises:
        WorkflowValidationError: "Resource config validation failed:", with a line for each.
    """
    problems: list[str] = []

    def visit(where: str, resource: ResourceDescriptor, path: tuple[str, ...]) -> None:
        if resource.name in path:
            return  # a cycle, reported when the resource is made
        path = (*path, resource.name)
        try:
            if isinstance(resource, ResourceConfig):
                resource.call()
            for _, dependency, _ in resource.get_dependencies():
                visit(where, dependency, path)
        except (OSError, ValueError, WorkflowValidationError) as error:
            chain = f" ({' -> '.join(path)})" if len(path) > 1 else ""
            problems.append(f"{where}{chain}: {error}")

    for step, definitions in steps.items():
        for one in definitions:
            visit(f"In step '{step}', parameter '{one.name}'", one.resource, ())
    _raise_all("Resource config validation failed:", problems)


async def validate_resources(
    steps: Mapping[str, Iterable[ResourceDefinition]], manager: ResourceManager
) -> None:
    """Make every resource of every step once, each step in a scope of its own.

    Args:
        steps: the resource parameters of each step, by the step's name.
        manager: keeps the cached ones, as in a run.

    Raises:
        WorkflowValidationError: "Resource validation failed:", with a line for each.
        ExceptionGroup: resources could be made but failed to close.
    """
    problems: list[str] = []
    for step, definitions in steps.items():
        async with manager.resolution_scope() as scope:
            for one in definitions:
                try:
                    await scope.resolve(one)
                except Exception as error:
                    problems.append(f"In step '{step}', parameter '{one.name}': {error}")
    _raise_all("Resource validation failed:", problems)


def _raise_all(title: str, problems: list[str]) -> None:
    if problems:
        raise WorkflowValidationError("\n  - ".join([title, *problems]))
