"""The public door to resources."""

from stepwell.authoring.events.resources import (
    ResolutionScope,
    Resource,
    ResourceConfig,
    ResourceDefinition,
    ResourceDescriptor,
    ResourceManager,
)

__all__ = [
    "ResolutionScope",
    "Resource",
    "ResourceConfig",
    "ResourceDefinition",
    "ResourceDescriptor",
    "ResourceManager",
]
