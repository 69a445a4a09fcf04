"""Checks before any run: the files of configurations, and every resource made once."""

# The classes of this package are one machine and use each other's inner parts.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stepwell.authoring.events.resources.declared import (
    ResourceConfig,
    ResourceDefinition,
    ResourceDescriptor,
)
from stepwell.authoring.events.resources.manager import ResourceManager
from stepwell.errors import WorkflowValidationError


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
