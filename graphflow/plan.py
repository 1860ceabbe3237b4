"""What will run and why. `plan` and `run` place nodes with the same code, so that a plan can't promise something else.

Keys are made of content digests. A node below one that must run is *maybe*: when the new bytes turn out to be the old
ones, its key is found in the store and it does not run (early cut-off).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import ValidationError

from graphflow.errors import Diagnostic, InvalidError
from graphflow.graph import Graph, GraphNode
from graphflow.inputs import InputValue
from graphflow.key import Parts, differences, key_of, key_parts
from graphflow.models.files import fingerprint
from graphflow.models.refs import ModelRef
from graphflow.node import Node
from graphflow.spec import Ref
from graphflow.store import Result, Store, Stored

Status = Literal["cached", "run", "maybe"]
Digests = dict[tuple[str, str], Stored]


@dataclass(frozen=True)
class Placed:
    """A node whose inputs are known: its instance with all parameters, its key, and the stored result, if any."""

    node: Node
    parts: Parts
    key: str
    result: Result | None


@dataclass(frozen=True)
class PlannedNode:
    """One line of a plan. `seconds` and `bytes` are those of the stored result, or of the latest one like it."""

    name: str
    kind: str
    status: Status
    reason: str
    key: str | None = None
    seconds: float | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class Plan:
    """The demanded nodes in order of execution."""

    nodes: dict[str, PlannedNode]

    def count(self, status: Status) -> int:
        """How many nodes have this status."""
        return sum(n.status == status for n in self.nodes.values())


class Placer:
    """Finds keys and stored results of a graph's nodes, once the digests of their inputs are known."""

    def __init__(self, graph: Graph, inputs: Mapping[str, InputValue], store: Store, numerics: str) -> None:
        self.graph, self.inputs, self.store, self.numerics = graph, inputs, store, numerics
        self._fingerprints: dict[int, str] = {}

    def known(self) -> Digests:
        """The digests that are known before anything runs: those of the graph's inputs."""
        return {("inputs", name): value.stored for name, value in self.inputs.items()}

    def place(self, name: str, digests: Digests, value: Callable[[Ref], Any]) -> Placed:
        """The key and stored result of a node.

        Args:
            name: the node.
            digests: the digests of all values that it is fed.
            value: gives the value of an edge that feeds a parameter.

        Raises:
            InvalidError: a value fed to a parameter is not allowed there.
        """
        node = self.graph.nodes[name]
        ports = node.cls.inputs()
        instance = self.instance(name, digests, value)
        assert instance is not None
        inputs = {n: _digest(e, digests) for n, e in node.edges.items() if n in ports}
        models = {port: self.fingerprint(node, port) for port in node.models}
        parts = key_parts(node.cls, instance.key_parameters(), inputs, models, self.numerics)
        key = key_of(parts)
        return Placed(instance, parts, key, self.store.result(key) if node.cls.deterministic else None)

    def instance(self, name: str, digests: Digests, value: Callable[[Ref], Any]) -> Node | None:
        """The node with all its parameters; None while one that an edge feeds is not known yet.

        Raises:
            InvalidError: a value fed to a parameter is not allowed there.
        """
        node = self.graph.nodes[name]
        ports = node.cls.inputs()
        edges = {n: e for n, e in node.edges.items() if n not in ports and isinstance(e, Ref)}
        if any((e.node, e.port) not in digests for e in edges.values()):
            return None
        return _instance(node, {n: value(e) for n, e in edges.items()})

    def fingerprint(self, node: GraphNode, port: str) -> str:
        """The fingerprint of the preset's model at a port."""
        return self.fingerprint_of(node.models[port])

    def fingerprint_of(self, ref: ModelRef) -> str:
        """The fingerprint of a model, computed once."""
        if id(ref) not in self._fingerprints:
            self._fingerprints[id(ref)] = fingerprint(ref, self.store.file_digest)
        return self._fingerprints[id(ref)]

    def reason(self, name: str, parts: Parts) -> str:
        """Why there is no result for these parts: what differs from the nearest earlier computation."""
        nearest = self.nearest(name, parts)
        if nearest is None:
            return "no earlier result"
        found = differences(nearest.parts, parts)
        return ", ".join(found) + (" changed" if found else "")

    def nearest(self, name: str, parts: Parts) -> Result | None:
        """The earlier result of this kind that differs in the fewest parts; a node of this name wins a tie."""
        earlier = self.store.earlier(parts["kind"], name)
        return min(earlier, key=lambda r: (len(differences(r.parts, parts)), r.node != name), default=None)


def make_plan(
    graph: Graph,
    inputs: Mapping[str, InputValue],
    store: Store,
    numerics: str = "cpu float32",
    targets: Iterable[str] | None = None,
) -> Plan:
    """Plan a run: nothing is computed, nothing is loaded, torch is not imported.

    Args:
        graph: a checked graph.
        inputs: its bound inputs.
        store: where results are looked up.
        numerics: device kind and dtype of the run, such as ``cpu float32``.
        targets: nodes whose results are wanted; the graph's outputs by default.
    """
    placer = Placer(graph, inputs, store, numerics)
    digests = placer.known()
    planned: dict[str, PlannedNode] = {}

    def value(ref: Ref) -> Any:
        return inputs[ref.port].load() if ref.node == "inputs" else store.load(digests[ref.node, ref.port])

    for name in graph.demanded(targets):
        node = graph.nodes[name]
        waits = [p for p in node.parents if not _knows(digests, node, p)]
        if waits:
            placer.instance(name, digests, value)  # a parameter that is known to be wrong is an error already now
            status: Status = "maybe" if node.cls.deterministic else "run"
            planned[name] = _expected(PlannedNode(name, node.cls.kind, status, f"after {', '.join(waits)}"), store)
            continue
        placed = placer.place(name, digests, value)
        if placed.result is not None:
            digests.update({(name, port): stored for port, stored in placed.result.outputs.items()})
            size = sum(s.bytes for s in placed.result.outputs.values())
            planned[name] = PlannedNode(
                name, node.cls.kind, "cached", "", placed.key, placed.result.seconds, size
            )  # fmt: skip
        else:
            reason = placer.reason(name, placed.parts) if node.cls.deterministic else "never reused: not deterministic"
            planned[name] = _expected(PlannedNode(name, node.cls.kind, "run", reason, placed.key), store)
    _rerun_lost(graph, planned, digests, store, targets)
    return Plan(planned)


def _rerun_lost(
    graph: Graph, planned: dict[str, PlannedNode], digests: Digests, store: Store, targets: Iterable[str] | None
) -> None:
    """A cached node whose value is wanted but gone from the store must run again."""
    wanted = {(r.node, r.port) for r in graph.outputs.values()} if targets is None else set()
    for name in reversed(list(planned)):
        if planned[name].status == "cached":
            ports = [port for node, port in wanted if node == name]
            lost = sorted(port for port in ports if not store.has(digests[name, port]))
            if not lost:
                continue
            reason = f"its stored {', '.join(lost)} is missing or damaged"
            planned[name] = replace(planned[name], status="run", reason=reason)
        wanted.update((r.node, r.port) for r in graph.nodes[name].refs)


def explain(graph: Graph, inputs: Mapping[str, InputValue], store: Store, numerics: str, name: str) -> list[str]:
    """Why a node is cached, or what differs from the nearest earlier computation and which node caused it.

    One line a finding, from this node up to the cause.
    """
    plan = make_plan(graph, inputs, store, numerics, [name])
    entry = plan.nodes[name]
    if entry.status == "cached":
        return [f"{name} is cached: key {entry.key[:12] if entry.key else ''}, computed in {entry.seconds:.2f} s"]
    if entry.status == "run":
        return [f"{name} runs: {entry.reason}", *_input_causes(graph, inputs, store, numerics, name)]
    causes = [n for n in plan.nodes.values() if n.status == "run"]
    lines = [f"{name} may run: it depends on {', '.join(n.name for n in causes)}, which must run first"]
    for cause in causes:
        lines.append(f"  {cause.name} runs: {cause.reason}")
        lines += [f"  {line}" for line in _input_causes(graph, inputs, store, numerics, cause.name)]
    lines.append(f"if their results are the same bytes as before, {name} is still cached")
    return lines


def _input_causes(graph: Graph, inputs: Mapping[str, InputValue], store: Store, numerics: str, name: str) -> list[str]:
    """For each input that differs from the nearest earlier computation: which edge brought it."""
    placer = Placer(graph, inputs, store, numerics)
    digests = placer.known()
    for parent in graph.demanded([name]):
        if parent != name:
            placed = placer.place(parent, digests, lambda ref: _stored_value(ref, inputs, store, digests))
            if placed.result is None:
                return []
            digests.update({(parent, port): stored for port, stored in placed.result.outputs.items()})
    placed = placer.place(name, digests, lambda ref: _stored_value(ref, inputs, store, digests))
    nearest = placer.nearest(name, placed.parts)
    if nearest is None:
        return []
    changed = [n for n, d in placed.parts["inputs"].items() if nearest.parts["inputs"].get(n) != d]
    changed += [n for n, v in placed.parts["parameters"].items() if nearest.parts["parameters"].get(n) != v]
    edges = graph.nodes[name].edges
    lines = []
    for n in changed:
        if n in edges:
            texts = _both_texts(nearest.parts["inputs"].get(n), placed.parts["inputs"].get(n), store, inputs)
            lines.append(f"  {n} comes from {_edge_text(edges[n])}{texts}")
    return lines


def _both_texts(old: Any, new: Any, store: Store, inputs: Mapping[str, InputValue]) -> str:
    """``: 'before' → 'after'`` for an input that is text or a number whose earlier value is still stored."""
    now = {v.stored.digest: v for v in inputs.values() if v.stored.codec == "json"}
    before = store.small(old) if isinstance(old, str) else None
    after = repr(now[new].load()) if new in now else store.small(new) if isinstance(new, str) else None
    return f": {before} → {after}" if before is not None and after is not None else ""


def _edge_text(edge: Ref | tuple[Ref, ...]) -> str:
    return ", ".join(map(str, edge)) if isinstance(edge, tuple) else str(edge)


def _stored_value(ref: Ref, inputs: Mapping[str, InputValue], store: Store, digests: Digests) -> Any:
    return inputs[ref.port].load() if ref.node == "inputs" else store.load(digests[ref.node, ref.port])


def _knows(digests: Digests, node: GraphNode, parent: str) -> bool:
    return all((r.node, r.port) in digests for r in node.refs if r.node == parent)


def _digest(edge: Ref | tuple[Ref, ...], digests: Digests) -> str | list[str]:
    if isinstance(edge, tuple):
        return [digests[r.node, r.port].digest for r in edge]
    return digests[edge.node, edge.port].digest


def _instance(node: GraphNode, fed: Mapping[str, Any]) -> Node:
    try:
        return node.cls(**node.parameters, **fed)
    except ValidationError as error:
        problems = []
        for found in error.errors():
            name = str(found["loc"][0]) if found["loc"] else ""
            mark = node.spec.input_marks.get(name, node.spec.mark)
            edge = node.edges.get(name)
            message = f"'{node.name}.{name}': {found['msg'].lower()}, found {found['input']!r} from {edge}"
            problems.append(Diagnostic(mark, "GF108", message))
        raise InvalidError(problems) from error


def _expected(entry: PlannedNode, store: Store) -> PlannedNode:
    earlier = store.earlier(entry.kind, entry.name, 1)
    if not earlier:
        return entry
    size = sum(s.bytes for s in earlier[0].outputs.values())
    return replace(entry, seconds=earlier[0].seconds, bytes=size)
