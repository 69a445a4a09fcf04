"""`step` and `catch_error`, under the module name that event workflows import them from."""

from stepwell.authoring.events.decorators import catch_error, step

__all__ = ["catch_error", "step"]
