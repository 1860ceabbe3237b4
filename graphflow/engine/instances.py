"""Which instances a run has: those of its plan, and those that appear when a list becomes known."""

from __future__ import annotations

from dataclasses import dataclass

from graphflow.engine.lifetimes import Lifetimes
from graphflow.engine.settle import Settler
from graphflow.engine.values import Values
from graphflow.engine.workload import Workload
from graphflow.graph import Graph, GraphNode, Index, Place
from graphflow.known import UnknownError, places_of
from graphflow.placing import Placed
from graphflow.plan import Plan


@dataclass
class Pending:
    """An instance that is to run.

    Attributes:
        places: what it is fed.
        placed: where it stands, from when its inputs are known.
    """

    node: GraphNode
    index: Index
    name: str
    places: list[Place]
    reason: str
    placed: Placed | None = None


class Instances:
    """Passes over what is cached, makes tasks of the rest, and puts off what nobody can know yet.

    Attributes:
        pending: the instances that are to run, by name.
    """

    def __init__(
        self, graph: Graph, plan: Plan, settler: Settler, values: Values, lifetimes: Lifetimes, workload: Workload
    ) -> None:  # fmt: skip
        self._graph, self._plan, self._known = graph, plan, plan.known
        self._settler, self._values, self._lifetimes, self._workload = settler, values, lifetimes, workload
        self._ranks = {name: rank for rank, name in enumerate(graph.order)}
        self.pending: dict[str, Pending] = {}
        self._postponed: dict[Place, list[tuple[GraphNode, Index]]] = {}
        self._dead: set[tuple[str, Index]] = set()

    def expand(self, node: GraphNode, start: Index = ()) -> None:
        """Take on the instances of a node whose index begins so, as far as they are known."""
        for index, unknown in self._known.instances(node, start):
            if unknown is None:
                self._admit(node, index)
            else:
                self._postpone(node, index, unknown)

    def _admit(self, node: GraphNode, index: Index) -> None:
        name = node.title(index) if index else node.name
        entry = self._plan.nodes.get(name)
        if entry is not None and entry.status == "cached":
            self._settler.passed(node, index, name, self._plan.placed[name])
            return
        try:
            sources = [self._known.source(node, port, index) for port in node.edges]
        except UnknownError as unknown:
            self._postpone(node, index, unknown.place)
            return
        places = list(dict.fromkeys(p for source in sources for p in places_of(source) if p.node != "inputs"))
        digests, nodes = self._known.digests, self._graph.nodes
        needs = {nodes[p.node].title(p.at): p for p in places if p not in digests}
        for need, place in reversed(needs.items()):  # the last will probably be there last
            if need not in self.pending and not self._is_dead(place):
                self._postpone(node, index, place)  # that instance is postponed itself
                return
        self._lifetimes.expect(places)
        self.pending[name] = Pending(node, index, name, places, entry.reason if entry is not None else "")
        self._workload.add(node, index, entry)

    def _postpone(self, node: GraphNode, index: Index, place: Place) -> None:
        """Wait for a list that decides how many instances there are, or what they take."""
        self._lifetimes.postpone(node, index)
        self._postponed.setdefault(place, []).append((node, index))

    def proceed(self, node: GraphNode, index: Index) -> None:
        """An instance has its outputs: go on with what waited for one of them."""
        if not self._postponed:
            return
        found = [e for port in node.cls.outputs() for e in self._postponed.pop(Place(node.name, port, index), ())]
        for other, start in sorted(found, key=lambda e: (self._ranks[e[0].name], e[1])):
            self._lifetimes.resume(other, start)
            if len(start) == len(other.axes):
                self._admit(other, start)
            else:
                self.expand(other, start)
        if found:
            self._values.sweep()

    def _skip_postponed(self, place: Place) -> None:
        for node, index in self._postponed.pop(place, ()):
            self._lifetimes.resume(node, index)
            self._settler.skip(node, index, place)
            self.cut_off(node, index)

    def _is_dead(self, place: Place) -> bool:
        """Whether an instance will have no outputs."""
        return any((place.node, place.at[:depth]) in self._dead for depth in range(len(place.at) + 1))

    def cut_off(self, node: GraphNode, index: Index) -> None:
        """An instance, or all that begin with this index, will have no outputs."""
        self._dead.add((node.name, index))
        for place in [p for p in self._postponed if p.node == node.name and p.at[: len(index)] == index]:
            self._skip_postponed(place)

    def skip_rest(self) -> None:
        """Nothing runs any more: what decides how many of the others there are has failed."""
        for place in list(self._postponed):
            self._skip_postponed(place)
