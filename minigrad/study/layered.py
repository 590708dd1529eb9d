"""Places the boxes of a graph with nested groups in layers, and the edges between them (Sugiyama et al. 1981).

A group is placed first, by itself; then it is one box in the group around it. So groups never overlap. An edge enters
and leaves a group at ports, which are placed like boxes. In each group, three steps:

1. layers: each box stands below all that it is computed from (longest path), a branch just above what it joins, and
   wide layers are broken into rows;
2. order: boxes of a layer are sorted by the mean position of their neighbours, up and down, as often as it helps;
3. places: the x that is nearest to the neighbours without an overlap (isotonic regression).

An edge over several layers has a dummy box in each layer between, so that no edge crosses a box.
"""
from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from .structure import Group

_GAP_X, _GAP_Y, _PAD, _PORT_GAP, _LANE = 22.0, 24.0, 14.0, 16.0, 14.0
_FAR = 80.0                         # ports of two groups that are farther apart are not put in one line
_ROW = 2200.0                       # a wider layer is broken into rows
_SWEEPS, _PASSES, _STRAIGHTENED = 16, 24, 3
_WEIGHTS = (1.0, 4.0, 1000.0)       # of an edge by how many of its ends are dummies or ports: long edges run straight
_CHAIN, _CONSTANT = 20.0, 0.1       # how much more an edge weighs in a chain, and how much less from a leaf


@dataclass
class Box:
    """A rectangle: the upper left corner, width and height."""

    x: float
    y: float
    w: float
    h: float


@dataclass
class Route:
    """An edge: ids of the nodes, the output, and the points that it runs through; between two it is a curve that begins
    and ends vertically."""

    source: int
    output: int
    target: int
    points: list[tuple[float, float]]


@dataclass
class Layout:
    """The places of everything: `boxes` of nodes by id, `groups` outer ones first (folded ones are boxes), `routes`."""

    width: float = 0.0
    height: float = 0.0
    boxes: dict[int, Box] = field(default_factory=dict)
    groups: list[tuple[Group, Box]] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)


Size = Callable[[Any], tuple[float, float]]         # of a node's id, or of a group that is folded
Links = dict[tuple[Any, Any, Any], None]            # (from, key, to) in a group


class _Vertex:
    """A box in a layer: `of` is a node's id, a group, or a port or dummy (a tuple)."""

    __slots__ = ("of", "w", "h", "rank", "x", "at", "up", "down", "level")

    def __init__(self, of: Any, w: float, h: float, rank: int, level: _Level | None = None) -> None:
        self.of, self.w, self.h, self.rank, self.x, self.at, self.level = of, w, h, rank, 0.0, 0, level
        self.up: list[tuple[_Vertex, float, float, float]] = []     # (neighbour, its port, own port, weight)
        self.down: list[tuple[_Vertex, float, float, float]] = []

    @property
    def narrow(self) -> bool:
        return type(self.of) is tuple

    @property
    def lane(self) -> bool:
        return type(self.of) is tuple and self.of[0] == "lane"

    def port(self, side: str, key: Any) -> float:
        """Where the edges of `key` leave ("out") or enter ("in"), from the middle of the box."""
        return 0.0 if self.level is None else self.level.vertices[side, key].x - self.w / 2


class _Level:
    """The inside of one group."""

    def __init__(self, group: Group, links: dict[int, Links], size: Size, head: float, reverse: bool,
                 drawn: Callable[[int], bool]) -> None:
        self.group = group
        self.vertices: dict[Any, _Vertex] = {}          # by id of a node or group, or by port
        self.links = list(links.get(id(group), ()))
        children = [c for c in group.children if isinstance(c, Group) or drawn(c)]
        for c in reversed(children) if reverse else children:
            inner = None
            if isinstance(c, Group) and not c.folded:
                inner = _Level(c, links, size, head, reverse, drawn)
                if not any(not v.narrow for v in inner.vertices.values()):
                    continue
            w, h = size(c) if inner is None else (inner.width, inner.height)
            key = id(c) if isinstance(c, Group) else c
            self.vertices[key] = _Vertex(c, w, h, 1, inner)
        for a, _, b in self.links:
            for port in (a, b):
                if type(port) is tuple:
                    self.vertices.setdefault(port, _Vertex(port, 0.0, 0.0, 0))
        self.rank()
        self.join()
        self.sort()
        self.settle()
        self.finish(head if group.kind != "graph" else _PAD, size(group)[0] if group.kind != "graph" else 0.0)

    # ---- 1. layers ----

    def rank(self) -> None:
        """A layer for each box."""
        outgoing: dict[Any, list[Any]] = {}
        entered = set()
        for a, _, b in self.links:
            outgoing.setdefault(a, []).append(b)
            entered.add(b)
        for a, v in self.vertices.items():
            v.rank = -1 if v.narrow else 0 if a not in entered and not isinstance(v.of, Group) else 1
        for a, v in self.vertices.items():              # in the order of recording: all that it needs has its layer
            for b in outgoing.get(a, ()):
                self.vertices[b].rank = max(self.vertices[b].rank, v.rank + 1)
        self.lower(outgoing, entered)
        for a, v in self.vertices.items():              # what needs nothing stands next to what needs it
            below = [self.vertices[b].rank for b in outgoing.get(a, ()) if not _is_out(b)]
            if a not in entered and not v.narrow and below:
                v.rank = max(v.rank, min(below) - 1)
        last = max((v.rank for a, v in self.vertices.items() if not _is_out(a)), default=0)
        for a, v in self.vertices.items():
            if _is_out(a):
                v.rank = last + 1
        places = self.broken()
        used = {place: i for i, place in enumerate(sorted(set(places.values())))}
        for a, v in self.vertices.items():
            v.rank = used[places[a]]
        self.layers: list[list[_Vertex]] = [[] for _ in used]
        for v in self.vertices.values():
            self.layers[v.rank].append(v)

    def lower(self, outgoing: dict[Any, list[Any]], entered: set[Any]) -> None:
        """Moves a branch down to what it is joined with: else all branches begin in one row, and leave it by edges
        that run side by side. What joins branches itself stays."""
        joins = Counter(b for a, _, b in self.links if a in entered)
        for a in reversed(self.vertices):
            v = self.vertices[a]
            below = [self.vertices[b].rank for b in outgoing.get(a, ()) if not _is_out(b)]
            if a in entered and not v.narrow and below and joins[a] < 2:
                v.rank = max(v.rank, min(below) - 1)

    def broken(self) -> dict[Any, tuple[int, int]]:
        """The layer of each box, and its row there: a wide layer becomes several rows, its boxes one below the other in
        turn. Boxes of a layer do not need each other."""
        layers: dict[int, list[Any]] = {}
        for a, v in self.vertices.items():
            layers.setdefault(v.rank, []).append(a)
        found = {}
        for rank, layer in layers.items():
            wide = sum(self.vertices[a].w + _GAP_X for a in layer)
            rows = math.ceil(wide / _ROW)
            found.update({a: (rank, i % rows if rows else 0) for i, a in enumerate(layer)})
        return found

    def join(self) -> None:
        """Dummies on long edges, and the neighbours of each box. Edges of one output share their dummies."""
        self.lanes: dict[tuple[Any, Any, int], _Vertex] = {}
        done = set()
        for a, key, b in self.links:
            before, goal = self.vertices[a], self.vertices[b]
            for rank in range(before.rank + 1, goal.rank + 1):
                if rank < goal.rank:
                    v = self.lanes.get((a, key, rank))
                    if v is None:
                        v = self.lanes[a, key, rank] = _Vertex(("lane", a, key, rank), 0.0, 0.0, rank)
                        self.layers[rank].append(v)
                else:
                    v = goal
                if (id(before), key, id(v)) not in done:
                    done.add((id(before), key, id(v)))
                    start, end = before.port("out", key), v.port("in", key)
                    if before.level and v.level and abs(start - end) > _FAR:
                        start = end = 0.0
                    weight = _WEIGHTS[before.narrow + v.narrow]
                    before.down.append((v, end, start, weight))
                    v.up.append((before, start, end, weight))
                before = v
        self.weigh()

    def weigh(self) -> None:
        """Makes chains straight, and lets leaves stand aside of them."""
        every = [*self.vertices.values(), *self.lanes.values()]
        single = {id(v) for v in every if len([u for u, *_ in v.up if u.up or u.narrow]) == 1}
        pairs = [(u, v) for v in every for u, *_ in v.up]
        self.chained = {(id(u), id(v)): len(u.down) == 1 and id(v) in single and bool(u.up or u.narrow) or
                        u.lane and v.lane for u, v in pairs}
        factors = {(id(u), id(v)): _CONSTANT if not u.up and not u.narrow else
                   _CHAIN if self.chained[id(u), id(v)] else 1.0 for u, v in pairs}
        for v in every:
            v.up = [(u, p, q, w * factors[id(u), id(v)]) for u, p, q, w in v.up]
            v.down = [(u, p, q, w * factors[id(v), id(u)]) for u, p, q, w in v.down]

    # ---- 2. order ----

    def sort(self) -> None:
        """Sorts each layer, and keeps the order with the fewest crossings."""
        for layer in self.layers:
            _number(layer)
        best, order = self.crossings(), [list(layer) for layer in self.layers]
        for sweep in range(_SWEEPS):
            if not best:
                break
            down = sweep % 2 == 0
            for layer in self.layers[1:] if down else self.layers[-2::-1]:
                keys = {id(v): _mean(v.up if down else v.down, v.at) for v in layer}
                layer.sort(key=lambda v: keys[id(v)])
                _number(layer)
            found = self.crossings()
            if found < best:
                best, order = found, [list(layer) for layer in self.layers]
        self.layers = order
        for layer in self.layers:
            _number(layer)

    def crossings(self) -> int:
        """How many edges cross."""
        total = 0
        for layer in self.layers[1:]:
            ends = sorted((_spot(u, p), _spot(v, q)) for v in layer for u, p, q, _ in v.up)
            seen: list[float] = []
            for _, low in ends:
                total += len(seen) - bisect_right(seen, low)
                insort(seen, low)
        return total

    # ---- 3. places ----

    def settle(self) -> None:
        """Chooses each x."""
        for layer in self.layers:
            x = 0.0
            for v, gap in zip(layer, _gaps(layer), strict=True):
                x += gap
                v.x = x
        for i in range(_PASSES):
            both = i >= _PASSES - 6
            for layer in self.layers if i % 2 == 0 else self.layers[::-1]:
                _settle(layer, (both or i % 2 == 0, both or i % 2 == 1))

        for _ in range(_STRAIGHTENED):
            for chain in sorted(self.chains(), key=len, reverse=True):
                _straighten(chain, self.layers)

    def chains(self) -> list[list[_Vertex]]:
        """The runs of boxes, each the only neighbour of the next, and of dummies."""
        following = {id(u): v for layer in self.layers for v in layer for u, *_ in v.up if self.chained[id(u), id(v)]}
        inside = {id(v) for v in following.values()}
        found = []
        for v in [v for layer in self.layers for v in layer if id(v) in following and id(v) not in inside]:
            found.append([v])
            while id(found[-1][-1]) in following:
                found[-1].append(following[id(found[-1][-1])])
        return found

    def finish(self, head: float, least: float) -> None:
        """Width and height, and each y."""
        boxes = [v for layer in self.layers for v in layer]
        left = min((v.x - v.w / 2 for v in boxes), default=0.0) - _PAD
        right = max((v.x + v.w / 2 for v in boxes), default=0.0) + _PAD
        spare = max(0.0, least - (right - left)) / 2
        self.width = right - left + 2 * spare
        for v in boxes:
            v.x += spare - left
        self.bands: list[tuple[float, float]] = []
        y = head
        for i, layer in enumerate(self.layers):
            high = max(v.h for v in layer)
            ports = all(v.narrow and v.of[0] in ("in", "out") for v in layer)
            if ports and i == 0:
                y = 0.0
            elif ports:
                y += _PAD - _GAP_Y
            self.bands.append((y, y + high))
            y += head + 8 if ports and i == 0 else high + _GAP_Y
        self.height = self.bands[-1][1] if self.bands else head
        if not self.layers or not all(_is_out(v.of) for v in self.layers[-1]):
            self.height += _PAD

    def chain(self, a: Any, key: Any, b: Any) -> list[tuple[float, float]]:
        """The points of an edge from one box to another of this group."""
        start, end = self.vertices[a], self.vertices[b]
        x, band = start.x + start.port("out", key), self.bands[start.rank]
        points = [(x, sum(band) / 2 + start.h / 2), (x, band[1])]
        for rank in range(start.rank + 1, end.rank):
            lane, band = self.lanes[a, key, rank], self.bands[rank]
            points += [(lane.x, band[0]), (lane.x, band[1])]
        x, band = end.x + end.port("in", key), self.bands[end.rank]
        return [*points, (x, band[0]), (x, sum(band) / 2 - end.h / 2)]

    def collect(self, x: float, y: float, into: Layout, levels: dict[int, tuple[_Level, float, float]]) -> None:
        """Writes the places on the page; the group's upper left corner is at (x, y)."""
        levels[id(self.group)] = self, x, y
        for v in self.vertices.values():
            if v.narrow:
                continue
            box = Box(x + v.x - v.w / 2, y + sum(self.bands[v.rank]) / 2 - v.h / 2, v.w, v.h)
            if isinstance(v.of, Group):
                into.groups.append((v.of, box))
                if v.level is not None:
                    v.level.collect(box.x, box.y, into, levels)
            else:
                into.boxes[v.of] = box


def _is_out(key: Any) -> bool:
    return type(key) is tuple and key[0] == "out"


def _number(layer: list[_Vertex]) -> None:
    for i, v in enumerate(layer):
        v.at = i


def _spot(v: _Vertex, port: float) -> float:
    """The position of a port in its layer."""
    return v.at + (port / v.w * 0.9 if v.w else 0.0)


def _mean(ends: list[tuple[_Vertex, float, float, float]], otherwise: float) -> float:
    return sum(_spot(u, p) for u, p, _, _ in ends) / len(ends) if ends else otherwise


def _gaps(layer: list[_Vertex]) -> list[float]:
    """The least distance of the middle of each box from that of the box before."""
    found = [0.0]
    for a, b in zip(layer, layer[1:], strict=False):
        between = _LANE if a.narrow and b.narrow else _PORT_GAP if a.narrow or b.narrow else _GAP_X
        found.append(a.w / 2 + b.w / 2 + between)
    return found


def _settle(layer: list[_Vertex], sides: tuple[bool, bool]) -> None:
    """Moves the boxes of a layer as near to their neighbours as their order and distances allow: the least sum of
    squares, by joining boxes that push each other into blocks."""
    blocks: list[list[float]] = []              # wanted x less the offset; weight; how many boxes
    offsets = []
    offset = 0.0
    for v, gap in zip(layer, _gaps(layer), strict=True):
        offset += gap
        offsets.append(offset)
        ends = [*(v.up if sides[0] else ()), *(v.down if sides[1] else ())]
        weight = sum(w for _, _, _, w in ends)
        wanted = sum((u.x + p - q) * w for u, p, q, w in ends) / weight if ends else v.x
        blocks.append([wanted - offset, weight or 0.1, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, weight, count = blocks.pop()
            old = blocks[-1]
            old[0] = (old[0] * old[1] + mean * weight) / (old[1] + weight)
            old[1] += weight
            old[2] += count
    i = 0
    for mean, _, count in blocks:
        for _ in range(int(count)):
            layer[i].x = mean + offsets[i]
            i += 1


def _straighten(chain: list[_Vertex], layers: list[list[_Vertex]]) -> None:
    """Puts as long parts of a chain as possible on one vertical line, between the boxes beside it."""
    part: list[tuple[_Vertex, float]] = []      # boxes with their distance from the line
    low, high, offset = float("-inf"), float("inf"), 0.0

    def close() -> None:
        if len(part) > 1:
            line = min(max(sum(v.x - o for v, o in part) / len(part), low), high)
            for v, o in part:
                v.x = line + o
    for above, v in zip([None, *chain], chain, strict=False):
        if above is not None:
            offset += next(p - q for u, p, q, _ in v.up if u is above)
        layer = layers[v.rank]
        gaps, i = _gaps(layer), layer.index(v)
        left = layer[i - 1].x + gaps[i] if i else float("-inf")
        right = layer[i + 1].x - gaps[i + 1] if i + 1 < len(layer) else float("inf")
        if max(low, left - offset) > min(high, right - offset):
            close()
            part, low, high = [], float("-inf"), float("inf")
        part.append((v, offset))
        low, high = max(low, left - offset), min(high, right - offset)
    close()


def arrange(root: Group, edges: Iterable[tuple[int, int, int]], size: Size, drawn: Callable[[int], bool],
            head: float = 26.0, reverse: bool = False) -> Layout:
    """The layout of a tree of groups.

    edges    (source, output, target), ids of nodes
    size     the width and height of a node, or of a folded group; of an open one, the width of its title
    drawn    is a node of this id drawn?
    head     the height of a group's title
    reverse  the edges lead against the order of the groups' children, as in backward
    """
    chains: dict[int, tuple[Group, ...]] = {}           # the open groups around a node, and a folded one
    for i, chain in root.chains():
        chains[i] = chain[:next((k for k, group in enumerate(chain, 1) if group.folded), len(chain))]
    links: dict[int, Links] = {}
    steps: list[tuple[tuple[int, int, int], list[tuple[int, Any, Any, Any]]]] = []
    for source, output, target in edges:
        if drawn(source) and drawn(target):
            path = _steps(source, output, target, chains)
            for group, *link in path:
                links.setdefault(group, {})[tuple(link)] = None             # type: ignore[index]
            if path:
                steps.append(((source, output, target), path))
    found = Layout()
    levels: dict[int, tuple[_Level, float, float]] = {}
    top = _Level(root, links, size, head, reverse, drawn)
    top.collect(0.0, 0.0, found, levels)
    found.width, found.height = top.width, top.height
    for (source, output, target), path in steps:
        points: list[tuple[float, float]] = []
        for group, a, key, b in path:
            level, x, y = levels[group]
            points += [(px + x, py + y) for px, py in level.chain(a, key, b)]
        found.routes.append(Route(source, output, target, _without_repeats(points)))
    return found


def _steps(source: int, output: int, target: int, chains: dict[int, tuple[Group, ...]]) -> list[tuple]:
    """An edge in each group that it runs through: (id of the group, from, key, to)."""
    start, end = [[*map(id, chains[i])] if chains[i][-1].folded else [*map(id, chains[i]), i] for i in (source, target)]
    if start[-1] == end[-1]:
        return []
    key = (start[-1], output if start[-1] == source else 0)
    d = 0
    while start[d + 1] == end[d + 1]:
        d += 1
    out = [(start[i], start[i + 1], key, ("out", key)) for i in range(len(start) - 2, d, -1)]
    inwards = [(end[i], ("in", key), key, end[i + 1]) for i in range(d + 1, len(end) - 1)]
    return [*out, (start[d], start[d + 1], key, end[d + 1]), *inwards]


def _without_repeats(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points without those that a straight vertical line passes anyway."""
    found: list[tuple[float, float]] = []
    for p in points:
        if len(found) > 1 and abs(found[-1][0] - p[0]) < 0.5 and abs(found[-2][0] - p[0]) < 0.5:
            found[-1] = p
        elif not found or found[-1] != p:
            found.append(p)
    return found
