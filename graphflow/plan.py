"""What will run and why. `plan` and `run` place nodes with the same code, so that a plan can't promise something else.

Keys are made of content digests. A node below one that must run is *maybe*: when the new bytes turn out to be the old
ones, its key is found in the store and it does not run (early cut-off).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from graphflow.errors import DamagedBlobError
from graphflow.garbage import paused
from graphflow.graph import Element, Gathered, Graph, GraphNode, Index, Place, Source
from graphflow.inputs import InputValue
from graphflow.known import Known, UnknownError, places_of
from graphflow.placing import Placed, Placer
from graphflow.store import Store
from graphflow.units import plural

Status = Literal["cached", "run", "maybe"]


@dataclass(frozen=True)
class PlannedNode:
    """One line of a plan: an instance of a node.

    Attributes:
        name: the instance's name; of a mapped node whose list is not known yet, ``b[…]/encode`` for all of them.
        node: the node's name.
        index: which instance; None for several that are not known yet.
        reason: why it runs, or waits.
        seconds: of the stored result, or of the latest one like it; so are `bytes`.
        decision: what the node chose that its parameters leave to the plan, and why.
    """

    name: str
    kind: str
    status: Status
    reason: str
    key: str | None = None
    seconds: float | None = None
    bytes: int | None = None
    node: str = ""
    index: Index | None = ()
    decision: str = ""


@dataclass(frozen=True)
class Plan:
    """The demanded instances in order of execution, and what the planner knows of their values."""

    nodes: dict[str, PlannedNode]
    known: Known
    placed: dict[str, Placed] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def count(self, status: Status) -> int:
        """How many instances have this status."""
        return sum(n.status == status for n in self.nodes.values())


@paused()
def make_plan(
    graph: Graph,
    inputs: Mapping[str, InputValue],
    store: Store,
    numerics: str = "cpu float32",
    targets: Iterable[str] | None = None,
    placer: Placer | None = None,
) -> Plan:
    """Plan a run: nothing is computed, nothing is loaded, torch is not imported.

    Args:
        graph: a checked graph.
        inputs: its bound inputs, hidden ones included.
        store: where results are looked up.
        numerics: device kind and dtype of the run, such as ``cpu float32``.
        targets: nodes whose results are wanted; the graph's outputs by default.
        placer: finds the keys; a fresh one by default.

    Raises:
        InvalidError: a value is not allowed where an edge brings it, or lists that are zipped have unequal lengths.
    """
    placer = placer or Placer(store, numerics, {})
    planner = _Planner(graph, inputs, store, placer)
    store.prefetch(graph.name, max(2_000, 2 * len(graph.nodes)))
    for name in graph.demanded(targets):
        planner.add(graph.nodes[name])
    planner.rerun_lost(targets)
    return Plan(planner.planned, planner.known, planner.placed, [*placer.changed.values(), *planner.damage()])


class _Planner:
    def __init__(self, graph: Graph, inputs: Mapping[str, InputValue], store: Store, placer: Placer) -> None:
        self.graph, self.inputs, self.store, self.placer = graph, inputs, store, placer
        self.known = Known(graph, inputs)
        self.planned: dict[str, PlannedNode] = {}
        self.placed: dict[str, Placed] = {}
        self.computing: dict[str, str] = {}  # key → the instance that runs first
        self.damaged = 0  # instances whose stored values are damaged or missing

    def add(self, node: GraphNode) -> None:
        for index, unknown in self.known.instances(node):
            if unknown is None:
                self.add_instance(node, index)
            else:
                self.wait(node, index, [self.title_of(unknown)])

    def add_instance(self, node: GraphNode, index: Index) -> None:
        try:
            placed = self.placer.place(node, index, self.known, self.fetch)
        except UnknownError:
            self.placer_check(node, index)
            self.wait(node, index, self.missing(node, index))
            return
        name = node.title(index) if index else node.name
        self.placed[name] = placed
        result = placed.result
        if result is None:
            status: Status = "run"
            reason = "never reused: not deterministic"
            if node.name in self.placer.refresh:
                reason = "refreshed"
            elif node.cls.deterministic:
                first = self.computing.setdefault(placed.key, name)
                if first == name:
                    reason = self.placer.reason(node.name, placed)
                else:
                    status, reason = "maybe", f"the same as {first}"
            entry = PlannedNode(
                name,
                node.cls.kind,
                status,
                reason,
                placed.key,
                node=node.name,
                index=index,
                decision=self.decision(node),
            )
            self.planned[name] = self.expected(entry)
            return
        size = 0
        for port, stored in result.outputs.items():
            self.known.digests[Place(node.name, port, index)] = stored
            size += stored.bytes
        self.planned[name] = PlannedNode(
            name, node.cls.kind, "cached", "", placed.key, result.seconds, size, node.name, index, self.decision(node)
        )  # fmt: skip

    def placer_check(self, node: GraphNode, index: Index) -> None:
        """A parameter that is known to be wrong is an error already now."""
        try:
            self.placer.check_parameters(node, index, self.known, self.fetch)
        except UnknownError:
            return

    def wait(self, node: GraphNode, index: Index, after: list[str]) -> None:
        status: Status = "maybe" if node.cls.deterministic and node.name not in self.placer.refresh else "run"
        name = node.title(index)
        whole = len(index) == len(node.axes)
        reason = f"after {', '.join(after)}" + ("" if whole else ", once for each element")
        entry = PlannedNode(
            name, node.cls.kind, status, reason, node=node.name, index=index if whole else None,
            decision=self.decision(node),
        )  # fmt: skip
        self.planned[name] = self.expected(entry)

    def decision(self, node: GraphNode) -> str:
        return self.placer.decisions.get(node.name, "")

    def missing(self, node: GraphNode, index: Index) -> list[str]:
        """The instances that have to run before this one is known."""
        found: dict[str, None] = {}
        for port in node.edges:
            try:
                places = places_of(self.known.source(node, port, index))
            except UnknownError as unknown:
                places = [unknown.place]
            for place in places:
                if place not in self.known.digests:
                    found[self.title_of(place)] = None
        return list(found)

    def title_of(self, place: Place) -> str:
        return self.graph.nodes[place.node].title(place.at)

    def fetch(self, source: Source) -> Any:
        if isinstance(source, Gathered):
            return [self.fetch(part) for part in source.parts]
        place = source.place if isinstance(source, Element) else source
        if place.node == "inputs":
            value = self.inputs[place.port]
            return value.element(source.position) if isinstance(source, Element) else value.load()
        try:
            return self.store.load(self.known.stored(source))
        except DamagedBlobError as error:
            self.lose(self.title_of(place), [place.port])
            raise UnknownError(place) from error

    def lose(self, name: str, ports: list[str]) -> None:
        """A stored value that is needed is gone: its node must run again."""
        entry = self.planned[name]
        kept = [p for p in ports if entry.index is not None and self.kept(entry, p)]
        result = self.placed[name].result
        if not kept:
            reason = f"its {', '.join(ports)} is wanted and was not stored: computing it is cheaper"
        elif result is not None and result.evicted:
            reason = f"its {', '.join(kept)} is wanted and was evicted to keep the store's budget"
        else:
            reason = f"its stored {', '.join(kept)} is missing or damaged"
            self.damaged += 1
        self.planned[name] = replace(entry, status="run", reason=reason)
        for port in ports:
            assert entry.index is not None
            self.known.digests.pop(Place(entry.node, port, entry.index), None)

    def damage(self) -> list[str]:
        """A warning of the results that should be there, if there are any."""
        if not self.damaged:
            return []
        several = self.damaged > 1
        verb, then = ("were", "are") if several else ("was", "is")
        found = f"{plural(self.damaged, 'stored result')} {verb} damaged or missing and {then} computed again"
        return [f"{found}; graphflow cache verify looks at all"]

    def kept(self, entry: PlannedNode, port: str) -> bool:
        stored = self.known.digests.get(Place(entry.node, port, entry.index or ()))
        return stored is None or stored.kept

    def expected(self, entry: PlannedNode) -> PlannedNode:
        earlier = self.store.earlier(entry.kind, entry.node, 1)
        if not earlier:
            return entry
        size = sum(s.bytes for s in earlier[0].outputs.values())
        return replace(entry, seconds=earlier[0].seconds, bytes=size)

    def rerun_lost(self, targets: Iterable[str] | None) -> None:
        """A cached node whose value is wanted but gone from the store must run again."""
        wanted: dict[str, dict[str, Place]] = {}

        def want(places: Iterable[Place]) -> None:
            for place in places:
                if place.node != "inputs":
                    wanted.setdefault(self.title_of(place), {})[place.port] = place

        if targets is None:
            for ref in self.graph.outputs.values():
                want(self.places(partial(self.graph.output_source, ref, self.known.length)))
        digests = self.known.digests
        stored = [digests[p] for ports in wanted.values() for p in ports.values() if p in digests]
        gone, asked = self.store.lacking(stored), {s.digest for s in stored}

        def there(place: Place) -> bool:
            found = digests[place]
            return found.digest not in gone if found.digest in asked else self.store.has(found)

        for name in reversed(list(self.planned)):
            entry = self.planned[name]
            if entry.status == "cached":
                places = wanted.get(name)
                lost = sorted(p for p, place in places.items() if not there(place)) if places else []
                if not lost:
                    continue
                self.lose(name, lost)
            node = self.graph.nodes[entry.node]
            if entry.index is not None:
                for port in node.edges:
                    want(self.places(partial(self.known.source, node, port, entry.index)))

    def places(self, source: Callable[[], Source]) -> list[Place]:
        try:
            return places_of(source())
        except UnknownError:
            return []
