"""Places for boxes and arrows: a small layered layout, from top to bottom.

The theory, in stages, each a function of the one before it:

    apart     parts without a connection are laid out alone and then put side by side
    acyclic   arrows that close a cycle are turned round for the time of the layout
    layers    each box goes below all that lead to it; what leads to nothing above moves down to
              what it leads to
    chains    an arrow over several layers gets a bend in each layer between, which takes place
              there as a box does; so no arrow ever crosses a box
    order     sweeps over the layers put each box near the middle of its neighbours, as long as
              that lowers the number of crossings
    columns   every layer is moved sideways to where its neighbours want it, by least squares, with
              boxes kept apart; bends of one arrow pull on each other hardest, so it runs straight
    curves    between two layers an arrow is one curve that leaves and arrives vertically
    labels    each gets a place of its own on its arrow; a gap that has no more place grows

Distances are in pixels. Everything is deterministic: the same input gives the same places.

This module refuses to know what boxes mean, and how wide a text is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from stepwell.authoring.drawing.curves import (
    first_sloped,
    fitting,
    go_bent,
    go_straight,
    loop_of,
    tops_of,
)
from stepwell.authoring.drawing.layers import (
    Slot,
    columns,
    grouped,
    layer_of,
    order,
    turned_links,
)
from stepwell.authoring.drawing.shapes import Box, Layout, Link, Path, Point, Size

__all__ = ["Box", "Layout", "Link", "Path", "Point", "Size", "layout"]

MARGIN = 24.0
LAYER_GAP = 40.0
PART_GAP = 48.0
PORT_STEP = 16.0
SELF_LOOP = 26.0
SELF_REACH = 16.5
ROW_WIDTH = 1500.0


def layout(sizes: Mapping[str, Size], links: Sequence[Link]) -> Layout:
    """Place boxes of these sizes and the arrows between them.

    Args:
        sizes: of the boxes, by id; earlier ones are placed further up and left if nothing else
            says where.
        links: the arrows; several between two boxes, and from a box to itself, are allowed.

    Raises:
        KeyError: an arrow names a box that is not there.

    Example:
        >>> places = layout({"a": Size(40, 20), "b": Size(40, 20)}, [Link("a", "b")])
        >>> places.boxes["a"].y < places.boxes["b"].y
        True
    """
    parts = [_Part(ids, sizes, links, wanted).place() for ids, wanted in _apart(sizes, links)]
    whole = Layout()
    x = y = MARGIN
    row = 0.0
    for part in parts:
        if x > MARGIN and x + part.width > ROW_WIDTH:
            x, y, row = MARGIN, y + row + PART_GAP, 0.0
        whole.boxes |= {id: box.moved(x, y) for id, box in part.boxes.items()}
        whole.paths |= {number: path.moved(x, y) for number, path in part.paths.items()}
        whole.width = max(whole.width, x + part.width + MARGIN)
        row = max(row, part.height)
        x += part.width + PART_GAP
    whole.height = y + row + MARGIN
    whole.width = max(whole.width, 2 * MARGIN)
    return whole


def _apart(sizes: Mapping[str, Size], links: Sequence[Link]) -> list[tuple[list[str], list[int]]]:
    """The connected parts: their boxes, and the numbers of their arrows."""
    leader = {id: id for id in sizes}

    def find(id: str) -> str:
        while leader[id] != id:
            leader[id] = leader[leader[id]]
            id = leader[id]
        return id

    for link in links:
        leader[find(link.target)] = find(link.source)
    parts: dict[str, tuple[list[str], list[int]]] = {}
    for id in sizes:
        parts.setdefault(find(id), ([], []))[0].append(id)
    for number, link in enumerate(links):
        parts[find(link.source)][1].append(number)
    return list(parts.values())


# --- one connected part ---------------------------------------------------------------------------


@dataclass(slots=True)
class _Chain:
    """An arrow as the slots it passes, from top to bottom."""

    number: int
    slots: list[int]
    turned: bool


class _Part:
    """Lays out one connected part."""

    def __init__(
        self,
        ids: Sequence[str],
        sizes: Mapping[str, Size],
        links: Sequence[Link],
        wanted: Sequence[int],
    ) -> None:
        self.ids = ids
        self.links = links
        self.loops = [n for n in wanted if links[n].source == links[n].target]
        self.numbers = [n for n in wanted if links[n].source != links[n].target]
        self.index = {id: i for i, id in enumerate(ids)}
        self.slots = [Slot(sizes[id].w, sizes[id].h, bend=False) for id in ids]
        self.reach = dict.fromkeys(self.loops, 0.0)
        for n in self.loops:
            slot = self.slots[self.index[links[n].source]]
            self.reach[n] = (slot.w - sizes[links[n].source].w) / 2 + SELF_REACH
            label = links[n].label
            slot.w += 2 * (SELF_LOOP + (label.w if label else 0.0))
        self.sizes = sizes

    def place(self) -> Layout:
        ends = [
            (self.index[self.links[n].source], self.index[self.links[n].target])
            for n in self.numbers
        ]
        turned = turned_links(len(self.ids), ends)
        down = [(b, a) if back else (a, b) for (a, b), back in zip(ends, turned, strict=True)]
        layer = layer_of(len(self.ids), down)
        chains = self._chains(down, turned, layer)
        layers = grouped(layer)
        order(layers, self.slots)
        columns(layers, self.slots)
        return self._draw(layers, layer, chains)

    def _chains(
        self, down: Sequence[tuple[int, int]], turned: Sequence[bool], layer: list[int]
    ) -> list[_Chain]:
        """Give long arrows their bends, and tell slots their neighbours."""
        chains: list[_Chain] = []
        for number, (a, b), back in zip(self.numbers, down, turned, strict=True):
            passed = [a]
            for between in range(layer[a] + 1, layer[b]):
                passed.append(len(self.slots))
                self.slots.append(Slot(0.0, 0.0, bend=True))
                layer.append(between)
            passed.append(b)
            for bend in passed[1:-1]:
                self.slots[bend].chain = passed[1:-1]
            for one, next in pairwise(passed):
                bends = self.slots[one].bend + self.slots[next].bend
                weight = (1.0, 2.0, 8.0)[bends]
                self.slots[one].down.append((next, weight))
                self.slots[next].up.append((one, weight))
            chains.append(_Chain(number, passed, back))
        return chains

    # --- drawing ---

    def _draw(self, layers: list[list[int]], layer: list[int], chains: list[_Chain]) -> Layout:
        heights = [max(self.slots[s].h for s in row) for row in layers]
        lanes = [0.0] * len(layers)
        ports = self._ports(layers, chains)
        gaps = self._gaps(layers, chains, ports)
        while True:
            tops = tops_of(heights, [g + extra for g, extra in zip(gaps, lanes, strict=True)])
            curves = self._curves(chains, layer, tops, heights, ports)
            labels, full = self._labels(chains, curves)
            if full is None:
                break
            chain = chains[full]
            above = chain.slots[-2] if chain.turned else chain.slots[0]
            lanes[layer[above]] = lanes[layer[above]] * 1.25 + 16.0
        return self._finish(layers, layer, chains, tops, heights, curves, labels)

    def _gaps(
        self,
        layers: list[list[int]],
        chains: list[_Chain],
        ports: Mapping[tuple[int, bool], float],
    ) -> list[float]:
        """Space below each layer: more where arrows go far sideways, so that they stay steep."""
        place = {s: i for i, row in enumerate(layers) for s in row}
        widest = [0.0] * len(layers)
        for k, chain in enumerate(chains):
            for one, next in pairwise(chain.slots):
                first = self.slots[one].x + (ports[k, False] if one == chain.slots[0] else 0.0)
                last = self.slots[next].x + (ports[k, True] if next == chain.slots[-1] else 0.0)
                widest[place[one]] = max(widest[place[one]], abs(first - last))
        return [LAYER_GAP + min(60.0, far * 0.09) for far in widest]

    def _ports(
        self, layers: list[list[int]], chains: list[_Chain]
    ) -> dict[tuple[int, bool], float]:
        """Where on the lower edge of its first box, and the upper edge of its last, an arrow
        docks: as far from the middle as keeps arrows apart, in the order of their other ends."""
        docks: dict[tuple[int, bool], list[tuple[float, int]]] = {}
        for k, chain in enumerate(chains):
            first, second = chain.slots[0], chain.slots[1]
            docks.setdefault((first, False), []).append((self.slots[second].x, k))
            docks.setdefault((chain.slots[-1], True), []).append((self.slots[chain.slots[-2]].x, k))
        ports: dict[tuple[int, bool], float] = {}
        for (slot, upper), found in docks.items():
            found.sort()
            room = self._inner(slot).w * 0.6
            step = min(PORT_STEP, room / max(1, len(found) - 1))
            for i, (_, k) in enumerate(found):
                ports[k, upper] = (i - (len(found) - 1) / 2) * step
        return ports

    def _inner(self, slot: int) -> Size:
        return self.sizes[self.ids[slot]]

    def _curves(
        self,
        chains: list[_Chain],
        layer: list[int],
        tops: list[float],
        heights: list[float],
        ports: Mapping[tuple[int, bool], float],
    ) -> list[list[Point]]:
        """Each arrow from top to bottom, as points of cubic curves."""
        curves: list[list[Point]] = []
        for k, chain in enumerate(chains):
            points: list[Point] = []
            for position, s in enumerate(chain.slots):
                top, height, slot = tops[layer[s]], heights[layer[s]], self.slots[s]
                x = slot.x
                middle = top + height / 2
                if position == 0:
                    x += ports[k, False]
                    points.append((x, middle + self._inner(s).h / 2))
                    continue
                last = position == len(chain.slots) - 1
                if last:
                    x += ports[k, True]
                end = middle - self._inner(s).h / 2 if last else top + height
                # A box that fills its layer (or nearly) is reached by the curve itself.
                arrival = end if last and end <= top + 0.5 else top
                go_bent(
                    points, x, arrival, self._floor(chain.slots[position - 1], layer, tops, heights)
                )
                if end > arrival:
                    go_straight(points, x, end)
            curves.append(points)
        return curves

    def _floor(self, slot: int, layer: list[int], tops: list[float], heights: list[float]) -> float:
        return tops[layer[slot]] + heights[layer[slot]]

    def _labels(
        self, chains: list[_Chain], curves: list[list[Point]]
    ) -> tuple[dict[int, Box], int | None]:
        """A place for each label on the first gap that its arrow crosses; and, if one finds none,
        which arrow it was."""
        placed: dict[int, Box] = {}
        for k in sorted(range(len(chains)), key=lambda k: curves[k][0]):
            size = self.links[chains[k].number].label
            if size is None:
                continue
            points = curves[k]
            gap = first_sloped(points, from_end=chains[k].turned)
            found = fitting(points[gap : gap + 4], size, placed.values())
            if found is None:
                return placed, k
            placed[k] = found
        return placed, None

    def _finish(
        self,
        layers: list[list[int]],
        layer: list[int],
        chains: list[_Chain],
        tops: list[float],
        heights: list[float],
        curves: list[list[Point]],
        labels: Mapping[int, Box],
    ) -> Layout:
        result = Layout()
        for i, id in enumerate(self.ids):
            size = self.sizes[id]
            x = self.slots[i].x - size.w / 2
            y = tops[layer[i]] + (heights[layer[i]] - size.h) / 2
            result.boxes[id] = Box(x, y, size.w, size.h)
        for k, chain in enumerate(chains):
            points = tuple(reversed(curves[k])) if chain.turned else tuple(curves[k])
            result.paths[chain.number] = Path(points, labels.get(k), chain.turned)
        for n in self.loops:
            box = result.boxes[self.links[n].source]
            result.paths[n] = loop_of(box, self.links[n].label, self.reach[n])
        return _normal(result)


def _normal(result: Layout) -> Layout:
    """Move everything so that it begins at the origin, and measure it."""
    boxes = [*result.boxes.values(), *(p.label for p in result.paths.values() if p.label)]
    xs = [b.x for b in boxes] + [b.x + b.w for b in boxes]
    ys = [b.y for b in boxes] + [b.y + b.h for b in boxes]
    for path in result.paths.values():
        xs += [x for x, _ in path.points]
        ys += [y for _, y in path.points]
    left, top = min(xs), min(ys)
    return Layout(
        {id: box.moved(-left, -top) for id, box in result.boxes.items()},
        {n: path.moved(-left, -top) for n, path in result.paths.items()},
        max(xs) - left,
        max(ys) - top,
    )
