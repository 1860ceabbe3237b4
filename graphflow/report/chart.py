"""A drawing of the run's graph as SVG: nodes in layers by their longest path, edges as curves between them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from graphflow.groups import grouped, node_of
from graphflow.record import NodeRecord, RunRecord
from graphflow.report.steps import status_of

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 146, 42, 40, 16, 4
MAX_NODES = 80  # beyond that a drawing shows nothing


@dataclass(frozen=True)
class Box:
    """A node or a graph input at its place; `count` instances of a mapped node share a box."""

    name: str
    kind: str
    status: str
    x: float
    y: float
    count: int = 1


@dataclass(frozen=True)
class Chart:
    """Boxes and the SVG paths of edges; empty when the graph is too large to draw."""

    width: float
    height: float
    boxes: list[Box]
    edges: list[str]
    box: float = WIDTH


def chart(record: RunRecord) -> Chart:
    """Lay out the record's graph from left to right."""
    parents = _parents(record)
    if not parents or len(parents) > MAX_NODES:
        return Chart(0, 0, [], [])
    layers = _Layers(parents)
    places = {name: (x, y) for x, layer in enumerate(layers.layers) for y, name in enumerate(layer)}
    tallest = max(map(len, layers.layers))
    step_x, step_y = WIDTH + GAP_X, HEIGHT + GAP_Y

    def corner(name: str) -> tuple[float, float]:
        x, y = places[name]
        indent = (tallest - len(layers.layers[x])) * step_y / 2  # layers stand centred
        return MARGIN + x * step_x, MARGIN + indent + y * step_y

    boxes = [_box(record, name, *corner(name)) for name in parents]
    edges = [_path([corner(n) for n in route]) for route in layers.routes]
    width, height = len(layers.layers) * step_x - GAP_X, tallest * step_y - GAP_Y
    return Chart(width + 2 * MARGIN, height + 2 * MARGIN, boxes, edges)


def _parents(record: RunRecord) -> dict[str, list[str]]:
    """What feeds each box, in order of execution; inputs are called ``inputs.name``, outputs ``outputs.name``."""
    nodes = grouped(record.nodes)
    out: dict[str, list[str]] = {}
    for name, instances in nodes.items():
        sources = list(dict.fromkeys(s for n in instances for s in _sources(record.nodes[n])))
        for source in sources:
            if source.startswith("inputs."):
                out.setdefault(source, [])
        out[name] = [s for s in sources if s.startswith("inputs.") or s in nodes]
    return out


def _sources(node: NodeRecord) -> Iterator[str]:
    for refs in node.inputs.values():
        for ref in [refs] if isinstance(refs, str) else refs:
            yield node_of(ref if ref.startswith("inputs.") else ref.partition(".")[0])


def _box(record: RunRecord, name: str, x: float, y: float) -> Box:
    if name.startswith("inputs."):
        given = record.inputs.get(name[7:])
        return Box(name[7:], given.type if given else "input", "input", x, y)
    nodes = [node for instance, node in record.nodes.items() if node_of(instance) == name]
    return Box(name, nodes[0].kind, status_of(nodes), x, y, len(nodes))


class _Layers:
    """Sugiyama's scheme, small: longest-path layers, a stand-in on each layer that an edge crosses, and a few sweeps
    that move every box to the mean place of its neighbours."""

    def __init__(self, parents: dict[str, list[str]]) -> None:
        depth: dict[str, int] = {}
        for name, sources in parents.items():  # parents come first in `parents`
            depth[name] = 1 + max((depth[s] for s in sources if s in depth), default=-1)
        for name in reversed(list(parents)):  # an input stands right before its first use
            below = [depth[n] for n, sources in parents.items() if name in sources]
            if name.startswith("inputs.") and below:
                depth[name] = max(0, min(below) - 1)
        self.layers: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
        for name in parents:
            self.layers[depth[name]].append(name)
        self.routes = [
            self._route(source, name, depth)
            for name, sources in parents.items()
            for source in sources
            if source in depth
        ]
        for _ in range(4):
            self._sweep(forward=True)
            self._sweep(forward=False)

    def _route(self, source: str, target: str, depth: dict[str, int]) -> list[str]:
        between = [f"|{source}|{target}|{level}" for level in range(depth[source] + 1, depth[target])]
        for level, stand_in in enumerate(between, depth[source] + 1):
            self.layers[level].append(stand_in)
        return [source, *between, target]

    def _sweep(self, forward: bool) -> None:
        neighbours: dict[str, list[str]] = {}
        for route in self.routes:
            for left, right in itertools.pairwise(route):
                neighbours.setdefault(right if forward else left, []).append(left if forward else right)
        for layer in self.layers if forward else reversed(self.layers):
            rank = {n: self._mean(neighbours.get(n, []), layer.index(n)) for n in layer}
            layer.sort(key=lambda n: rank[n])

    def _mean(self, names: list[str], default: float) -> float:
        found = [layer.index(n) - len(layer) / 2 for n in names for layer in self.layers if n in layer]
        return sum(found) / len(found) if found else default


def _path(corners: list[tuple[float, float]]) -> str:
    """A curve from the first box's right side to the last one's left side, straight through stand-ins."""
    x, y = corners[0][0] + WIDTH, corners[0][1] + HEIGHT / 2
    parts = [f"M{x:g} {y:g}"]
    for index, (left, top) in enumerate(corners[1:], 1):
        to_y, bend = top + HEIGHT / 2, GAP_X / 2
        parts.append(f"C{x + bend:g} {y:g} {left - bend:g} {to_y:g} {left:g} {to_y:g}")
        x, y = left, to_y
        if index < len(corners) - 1:
            x = left + WIDTH
            parts.append(f"H{x:g}")
    return " ".join(parts)
