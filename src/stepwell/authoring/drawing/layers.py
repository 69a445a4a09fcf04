"""Stages of the layered layout: which layer, which order in it, which column.

They see numbered slots and their neighbours above and below, and change the order of layers and the
`x` of slots. This module refuses to know about boxes, arrows, heights and curves; what the stages
are for is told in `layout`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

BOX_GAP = 28.0
BEND_GAP = 18.0
BEND_PULL = 12.0
STRAIGHT = 200.0


@dataclass(slots=True)
class Slot:
    """A place in a layer: a box, or a bend of an arrow."""

    w: float
    h: float
    bend: bool
    x: float = 0.0
    chain: list[int] = field(default_factory=list[int])  # the bends of the same arrow
    up: list[tuple[int, float]] = field(default_factory=list[tuple[int, float]])
    down: list[tuple[int, float]] = field(default_factory=list[tuple[int, float]])


# --- acyclic, layers -----------------------------------------------------------------------------


def turned_links(count: int, ends: Sequence[tuple[int, int]]) -> list[bool]:
    """Which arrows lead back to a box on the way to them. Ways begin at boxes that nothing leads
    to, then at the first ones given."""
    outgoing: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    entered = [False] * count
    for number, (a, b) in enumerate(ends):
        outgoing[a].append((b, number))
        entered[b] = True
    back = [False] * len(ends)
    state = [0] * count  # 1: on the way; 2: done
    for root in sorted(range(count), key=lambda i: (entered[i], i)):
        if state[root]:
            continue
        state[root] = 1
        stack = [(root, iter(outgoing[root]))]
        while stack:
            here, rest = stack[-1]
            for target, number in rest:
                if state[target] == 1:
                    back[number] = True
                elif state[target] == 0:
                    state[target] = 1
                    stack.append((target, iter(outgoing[target])))
                    break
            else:
                state[here] = 2
                stack.pop()
    return back


def layer_of(count: int, down: Sequence[tuple[int, int]]) -> list[int]:
    """The layer of each box: one below the lowest that leads to it. What does not follow from the
    first box stands as low as what it leads to allows."""
    outgoing: list[list[int]] = [[] for _ in range(count)]
    missing = [0] * count
    for a, b in down:
        outgoing[a].append(b)
        missing[b] += 1
    layer = [0] * count
    queue = [i for i in range(count) if not missing[i]]
    follows = {0}
    for here in queue:  # grows on the way: every box once all that lead to it are placed
        for target in outgoing[here]:
            layer[target] = max(layer[target], layer[here] + 1)
            missing[target] -= 1
            if here in follows:
                follows.add(target)
            if not missing[target]:
                queue.append(target)
    for here in reversed(queue):
        if outgoing[here] and here not in follows:
            layer[here] = min(layer[t] for t in outgoing[here]) - 1
    lowest = min(layer, default=0)
    return [found - lowest for found in layer]


def grouped(layer: Sequence[int]) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in range(max(layer) + 1)]
    for slot, row in enumerate(layer):
        rows[row].append(slot)
    return rows


# --- order ---------------------------------------------------------------------------------------


def order(layers: list[list[int]], slots: Sequence[Slot]) -> None:
    """Order each layer so that few arrows cross; changes `layers`."""
    place = [0.0] * len(slots)
    for row in layers:
        _number(row, place)
    best = [list(row) for row in layers]
    fewest = _all_crossings(layers, slots, place)
    sweeps = 24 if len(slots) <= 1500 else 4
    for sweep in range(sweeps):
        if not fewest:
            break
        downward = sweep % 2 == 0
        for row in layers[1:] if downward else reversed(layers[:-1]):
            _by_middle(row, slots, place, upper=downward)
        if len(slots) <= 600:
            for i in range(len(layers)):
                _swap_neighbours(layers[i], slots, place)
        crossings = _all_crossings(layers, slots, place)
        if crossings < fewest:
            fewest = crossings
            best = [list(row) for row in layers]
    layers[:] = best


def _number(row: Sequence[int], place: list[float]) -> None:
    for position, slot in enumerate(row):
        place[slot] = float(position)


def _by_middle(row: list[int], slots: Sequence[Slot], place: list[float], *, upper: bool) -> None:
    def middle(slot: int) -> float:
        near = slots[slot].up if upper else slots[slot].down
        if not near:
            return place[slot]
        return sum(place[n] for n, _ in near) / len(near)

    keys = {slot: middle(slot) for slot in row}
    row.sort(key=keys.__getitem__)
    _number(row, place)


def _swap_neighbours(row: list[int], slots: Sequence[Slot], place: list[float]) -> None:
    """Exchange two that stand side by side wherever that removes crossings."""
    for i in range(len(row) - 1):
        a, b = row[i], row[i + 1]
        now = _pair(slots[a].up, slots[b].up, place) + _pair(slots[a].down, slots[b].down, place)
        then = _pair(slots[b].up, slots[a].up, place) + _pair(slots[b].down, slots[a].down, place)
        if then < now:
            row[i], row[i + 1] = b, a
            place[a], place[b] = place[b], place[a]


def _pair(
    left: Iterable[tuple[int, float]], right: Sequence[tuple[int, float]], place: Sequence[float]
) -> int:
    return sum(place[n] > place[m] for n, _ in left for m, _ in right)


def _all_crossings(
    layers: Sequence[Sequence[int]], slots: Sequence[Slot], place: Sequence[float]
) -> int:
    """How many arrows cross, between all layers: inversions, counted with a Fenwick tree."""
    total = 0
    for upper, lower in pairwise(layers):
        tree = [0] * (len(lower) + 1)
        seen = 0
        for slot in upper:
            ends = sorted(int(place[n]) for n, _ in slots[slot].down)
            for end in ends:
                i, before = end + 1, 0
                while i:
                    before += tree[i]
                    i &= i - 1
                total += seen - before
            for end in ends:
                i = end + 1
                while i <= len(lower):
                    tree[i] += 1
                    i += i & -i
                seen += 1
    return total


# --- columns -------------------------------------------------------------------------------------


def columns(layers: Sequence[Sequence[int]], slots: Sequence[Slot]) -> None:
    """Give every slot its x (of the middle)."""
    for row in layers:
        x = 0.0
        for one, slot in enumerate(row):
            if one:
                x += _distance(slots[row[one - 1]], slots[slot])
            slots[slot].x = x
        for slot in row:
            slots[slot].x -= x / 2
    rounds = 32 if len(slots) <= 1500 else 6
    for sweep in range(rounds):
        downward = sweep % 2 == 0
        pull = 0.0 if sweep < rounds // 3 else BEND_PULL if sweep < rounds * 2 // 3 else STRAIGHT
        for row in layers if downward else reversed(layers):
            wanted = [_wanted(slots, slots[slot], downward, pull) for slot in row]
            for slot, x in zip(row, _kept_apart(row, slots, wanted), strict=True):
                slots[slot].x = x


def _wanted(slots: Sequence[Slot], slot: Slot, downward: bool, pull: float) -> tuple[float, float]:
    """Where a slot should be, and how strongly. First it looks up or down; once there is a `pull`
    both ways, and a bend at all of its arrow, so that this becomes one straight line."""
    if pull and len(slot.chain) > 1:
        return sum(slots[n].x for n in slot.chain) / len(slot.chain), pull
    near = slot.up + slot.down if pull else slot.up if downward else slot.down
    if not near:
        return slot.x, 0.05
    weight = sum(w for _, w in near)
    return sum(slots[n].x * w for n, w in near) / weight, weight


def _distance(left: Slot, right: Slot) -> float:
    gap = BEND_GAP if left.bend or right.bend else BOX_GAP
    return left.w / 2 + gap + right.w / 2


def _kept_apart(
    row: Sequence[int], slots: Sequence[Slot], wanted: Sequence[tuple[float, float]]
) -> list[float]:
    """The places nearest to the wanted ones (by weighted squares) that keep the order and the
    distances: pool adjacent violators."""
    offsets = [0.0]
    for left, right in pairwise(row):
        offsets.append(offsets[-1] + _distance(slots[left], slots[right]))
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many
    for (x, weight), offset in zip(wanted, offsets, strict=True):
        mean, total, count = x - offset, weight, 1
        while pools and pools[-1][0] > mean:
            other, heavier, many = pools.pop()
            mean = (mean * total + other * heavier) / (total + heavier)
            total += heavier
            count += many
        pools.append((mean, total, count))
    found: list[float] = []
    for mean, _, count in pools:
        found += [mean + offsets[len(found) + i] for i in range(count)]
    return found
