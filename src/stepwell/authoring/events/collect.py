"""How a join parameter collects: how many members release it, and in which order they come.

A parameter `list[E]` joins the events of a stream that a step opened by returning `list[E]`.
`Annotated[list[E], Collect(...)]` says how. These are plain values: what a stream is and when
it closes is the kernel's business, and whether a marker stands on a fitting parameter is
checked where steps are read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, cast, get_args

__all__ = ["All", "Cardinality", "Collect", "Take"]

Order = Literal["arrival", "input"]


@dataclass(frozen=True, slots=True)
class All:
    """Release once the stream has closed, with all its members."""


@dataclass(frozen=True, slots=True)
class Take:
    """Release once at the n-th member with the first n; with fewer if the stream closes early.

    The other branches of the stream keep running.

    Args:
        n: how many members, at least 1.

    Raises:
        ValueError: n is not an integer of at least 1.

    Example:
        >>> Take(2).n
        2
    """

    n: int

    def __post_init__(self) -> None:
        n = cast("object", self.n)
        if not isinstance(n, int) or isinstance(n, bool) or n < 1:
            raise ValueError("Take(n) requires an integer n >= 1")


Cardinality = All | Take


@dataclass(frozen=True, slots=True)
class Collect:
    """The marker on a join parameter: `Annotated[list[E], Collect(Take(2))]`.

    Args:
        cardinality: `All()` or `Take(n)`. It is judged where the step is read, which can name
            the parameter; this class keeps what it was given.
        order: "arrival" gives the members as they finished, "input" in the order in which the
            producing step listed what they came from.

    Raises:
        ValueError: the order is neither of the two.

    Example:
        >>> Collect(order="input")
        Collect(cardinality=All(), order='input')
    """

    cardinality: Cardinality = field(default_factory=All)
    order: Order = "arrival"

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            raise ValueError(f"Collect order must be 'arrival' or 'input', got {self.order!r}")
