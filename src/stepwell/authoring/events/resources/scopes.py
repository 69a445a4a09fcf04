"""Scopes: values made together, and what has to end with them."""

# The classes of this package are one machine and use each other's inner parts.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import typing
import weakref
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Self

from stepwell.authoring.events.resources.declared import ResourceDefinition, ResourceDescriptor

if typing.TYPE_CHECKING:
    from stepwell.authoring.events.resources.manager import ResourceManager, _Cached

_log = logging.getLogger("stepwell.resources")


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
