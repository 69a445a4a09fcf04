"""Arrows as curves, and where on them their labels find room.

This module refuses to know about layers: it sees points and boxes that have their places.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stepwell.authoring.drawing.shapes import Box, Path, Point, Size

LABEL_GAP = 4.0


def tops_of(heights: Sequence[float], gaps: Sequence[float]) -> list[float]:
    tops: list[float] = []
    y = 0.0
    for height, gap in zip(heights, gaps, strict=True):
        tops.append(y)
        y += height + gap
    return tops


def go_straight(points: list[Point], x: float, y: float) -> None:
    """A curve that is a line, down to (x, y)."""
    x0, y0 = points[-1]
    points += [(x0, y0 + (y - y0) / 3), (x, y0 + (y - y0) * 2 / 3), (x, y)]


def go_bent(points: list[Point], x: float, y: float, floor: float) -> None:
    """From the lower side of a layer (`floor`) to (x, y), vertical at both ends."""
    x0, y0 = points[-1]
    if y0 < floor - 0.5:
        go_straight(points, x0, floor)
        y0 = floor
    half = (y - y0) / 2
    points += [(x0, y0 + half), (x, y - half), (x, y)]


def first_sloped(points: Sequence[Point], *, from_end: bool) -> int:
    """Where the curve over the arrow's first gap begins among its points."""
    starts = list(range(0, len(points) - 3, 3))
    gaps = [i for i in starts if not is_line(points[i : i + 4])] or starts
    return gaps[-1] if from_end else gaps[0]


def is_line(curve: Sequence[Point]) -> bool:
    (_, y0), (_, y1), (_, y2), (_, y3) = curve
    return abs((y1 - y0) * 2 - (y2 - y0)) < 1e-6 and abs((y1 - y0) * 3 - (y3 - y0)) < 1e-6


def point_on(curve: Sequence[Point], t: float) -> Point:
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = curve
    u = 1 - t
    a, b, c, d = u * u * u, 3 * u * u * t, 3 * u * t * t, t * t * t
    return a * ax + b * bx + c * cx + d * dx, a * ay + b * by + c * cy + d * dy


def fitting(curve: Sequence[Point], size: Size, placed: Iterable[Box]) -> Box | None:
    """A place for a label in the middle of the curve, or above or below that."""
    top, bottom = curve[0][1] + LABEL_GAP, curve[3][1] - LABEL_GAP - 8.0
    others = list(placed)
    tries: list[float] = [0.5]
    steps = max(12, int(2 * (bottom - top) / size.h))  # so many that a gap can grow to fit all
    for i in range(1, steps + 1):
        tries += [0.5 - i / (2 * steps + 1), 0.5 + i / (2 * steps + 1)]
    for t in tries:
        x, y = point_on(curve, t)
        box = Box(x - size.w / 2, y - size.h / 2, size.w, size.h)
        if box.y < top or box.y + box.h > bottom:
            continue
        if not any(box.overlaps(other) for other in others):
            return box
    return None


def loop_of(box: Box, label: Size | None, reach: float) -> Path:
    """An arrow from a box to itself, on its right side, which it leaves by `reach`."""
    right, middle = box.x + box.w, box.y + box.h / 2
    low, high = middle + box.h * 0.28, middle - box.h * 0.28
    control = right + reach / 0.75  # a curve goes three quarters of the way to such controls
    points = ((right, low), (control, low), (control, high), (right, high))
    place = None
    if label is not None:
        x = right + reach + LABEL_GAP
        place = Box(x, middle - label.h / 2, label.w, label.h)
    return Path(points, place, back=True)
