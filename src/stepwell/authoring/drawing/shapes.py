"""Boxes, arrows and their places, as plain data. Distances are in pixels."""

from __future__ import annotations

from dataclasses import dataclass, field

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height."""

    w: float
    h: float


@dataclass(frozen=True, slots=True)
class Link:
    """An arrow to be placed; `label` is the size of its text, None for none."""

    source: str
    target: str
    label: Size | None = None


@dataclass(frozen=True, slots=True)
class Box:
    """A placed rectangle: its upper left corner and its size."""

    x: float
    y: float
    w: float
    h: float

    def overlaps(self, other: Box) -> bool:
        """Whether the two share some area."""
        return (
            self.x < other.x + other.w
            and other.x < self.x + self.w
            and self.y < other.y + other.h
            and other.y < self.y + self.h
        )

    def moved(self, dx: float, dy: float) -> Box:
        """The same rectangle elsewhere."""
        return Box(self.x + dx, self.y + dy, self.w, self.h)


@dataclass(frozen=True, slots=True)
class Path:
    """A placed arrow.

    Attributes:
        points: where it begins, then three points for each curve: two that draw it and its end.
        label: the place of its text.
        back: it leads upward: it closes a cycle.
    """

    points: tuple[Point, ...]
    label: Box | None = None
    back: bool = False

    def moved(self, dx: float, dy: float) -> Path:
        """The same arrow elsewhere."""
        points = tuple((x + dx, y + dy) for x, y in self.points)
        return Path(points, self.label and self.label.moved(dx, dy), self.back)


@dataclass(slots=True)
class Layout:
    """Places for all boxes, by id, and all arrows, by their position among the links."""

    boxes: dict[str, Box] = field(default_factory=dict[str, Box])
    paths: dict[int, Path] = field(default_factory=dict[int, Path])
    width: float = 0.0
    height: float = 0.0
