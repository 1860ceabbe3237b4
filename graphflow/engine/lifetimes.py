"""How long the values of a run are needed: until every instance that takes them has run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from graphflow.graph import Graph, GraphNode, Index, Place
from graphflow.spec import Ref


class Lifetimes:
    """Counts for each place the instances that have still to take its value.

    Args:
        graph: the graph that runs.
        outputs: what the run returns; it is needed to the end.
    """

    def __init__(self, graph: Graph, outputs: Iterable[Ref]) -> None:
        self._nodes = graph.nodes
        self._kept = {(ref.node, ref.port) for ref in outputs}
        self._waiting: Counter[Place] = Counter()
        self._unknown: dict[str, Counter[Index]] = {}  # node → element of its outermost axis → instances to come
        self._consumers: dict[str, list[GraphNode]] | None = None

    def postpone(self, node: GraphNode, start: Index) -> None:
        """Instances whose index begins so are still to come, or don't know what they take: what feeds them stays."""
        self._unknown.setdefault(node.name, Counter())[start[:1]] += 1

    def resume(self, node: GraphNode, start: Index) -> None:
        """One `postpone` is over."""
        found = self._unknown[node.name]
        found[start[:1]] -= 1
        if found[start[:1]] <= 0:
            del found[start[:1]]
        if not found:
            del self._unknown[node.name]

    def expect(self, places: Iterable[Place]) -> None:
        """An instance that is to run takes these."""
        self._waiting.update(places)

    def over(self, places: Iterable[Place]) -> list[Place]:
        """That instance has run, or never will; returns those of the places that no other instance awaits."""
        free = []
        for place in places:
            self._waiting[place] -= 1
            if self._waiting[place] <= 0:
                del self._waiting[place]
                if not self.awaited(place):
                    free.append(place)
        return free

    def needed(self, place: Place) -> bool:
        """Whether somebody has still to take the value: an instance, or who reads the outputs."""
        return place[:2] in self._kept or self.awaited(place)

    def awaited(self, place: Place) -> bool:
        """Whether an instance has still to take the value."""
        if place in self._waiting:
            return True
        return bool(self._unknown) and self._may_be_needed(place)

    def _may_be_needed(self, place: Place) -> bool:
        """Whether instances that are still to come might take the value."""
        axes = self._nodes[place.node].axes[:1] if place.node in self._nodes else ()
        for node in self._consumers_of(place.node):
            if (found := self._unknown.get(node.name)) is None:
                continue
            if not axes or node.axes[:1] != axes or place.at[:1] in found or () in found:
                return True
        return False

    def _consumers_of(self, name: str) -> list[GraphNode]:
        if self._consumers is None:
            self._consumers = {}
            for node in self._nodes.values():
                for parent in node.parents:
                    self._consumers.setdefault(parent, []).append(node)
        return self._consumers.get(name, [])
