"""What is declared: resources, where they come from, and what their factories ask for.

A factory's own parameters may be resources; they are found in its signature, when first needed."""

# The classes of this package are one machine and use each other's inner parts.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import json
import sys
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, cast, runtime_checkable

from pydantic import BaseModel

from stepwell.errors import WorkflowValidationError

if typing.TYPE_CHECKING:
    from stepwell.authoring.events.resources.manager import ResourceManager

if sys.version_info >= (3, 14):
    import annotationlib

Dependency = tuple[str, "ResourceDescriptor", "type | None"]


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
        >>> import asyncio
        >>> from stepwell.authoring.events.resources import ResourceManager
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


class _AsyncDoor(contextlib.AbstractAsyncContextManager[Any]):
    """A synchronous context manager, entered and left in the event loop."""

    def __init__(self, inner: contextlib.AbstractContextManager[Any]) -> None:
        self._inner = inner

    async def __aenter__(self) -> Any:
        return self._inner.__enter__()

    async def __aexit__(self, *error: Any) -> bool | None:
        return self._inner.__exit__(*error)


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
