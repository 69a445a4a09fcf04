"""Public door: the handler of a run."""

from stepwell.runtime.handler import WorkflowHandler

__all__ = ["WorkflowHandler"]
