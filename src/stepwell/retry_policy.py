"""The public door to retry policies; what they are and do is written in `stepwell.retry`."""

from stepwell import retry
from stepwell.retry import *  # noqa: F403 - one list of the names, over there

__all__: list[str] = []
__all__ += retry.__all__
