"""The public door to the markers of join parameters."""

from stepwell.authoring.events.collect import All, Cardinality, Collect, Take

__all__ = ["All", "Cardinality", "Collect", "Take"]
