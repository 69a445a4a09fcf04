"""The manager: makes resources, keeps the cached ones and, when closed, ends them."""

# The classes of this package are one machine and use each other's inner parts.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import weakref
from collections.abc import Callable, Hashable
from typing import Any

from stepwell.authoring.events.resources.declared import (
    Resource,
    ResourceConfig,
    ResourceDescriptor,
)
from stepwell.authoring.events.resources.scopes import ResolutionScope, _Frame, _frame, _Scope


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
