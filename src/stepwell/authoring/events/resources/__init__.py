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

from stepwell.authoring.events.resources.checks import validate_resource_configs, validate_resources
from stepwell.authoring.events.resources.declared import (
    Resource,
    ResourceConfig,
    ResourceDefinition,
    ResourceDescriptor,
)
from stepwell.authoring.events.resources.manager import ResourceManager
from stepwell.authoring.events.resources.scopes import ResolutionScope

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
