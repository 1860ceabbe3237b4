"""Why an instance is cached or must run: which parameter, input or model changed, and which node brought the change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from graphflow.errors import DamagedBlobError, UsageError, did_you_mean
from graphflow.graph import Element, Gathered, Graph, GraphNode, Index, Place
from graphflow.groups import grouped, position
from graphflow.inputs import InputValue
from graphflow.known import Known, UnknownError, places_of
from graphflow.placing import Placer
from graphflow.plan import Plan, PlannedNode, make_plan
from graphflow.spec import Ref
from graphflow.store import Store


def explain(
    graph: Graph, inputs: Mapping[str, InputValue], store: Store, numerics: str, name: str, placer: Placer | None = None
) -> list[str]:
    """What `why` prints: one line a finding, from this node up to the cause.

    Args:
        graph: a checked graph.
        inputs: its bound inputs.
        store: where results are looked up.
        numerics: device kind and dtype of the run.
        name: a node, or an instance of a mapped one (``b[2]/encode``).
        placer: finds the keys.

    Raises:
        UsageError: there is no such node or instance.
    """
    return _Explainer(graph, inputs, store, numerics, placer or Placer(store, numerics, {})).explain(name)


class _Explainer:
    def __init__(
        self, graph: Graph, inputs: Mapping[str, InputValue], store: Store, numerics: str, placer: Placer
    ) -> None:
        self.graph, self.inputs, self.store, self.numerics, self.placer = graph, inputs, store, numerics, placer

    def explain(self, name: str) -> list[str]:
        node = next((n.name for n in self.graph.nodes.values() if name in (n.name, n.title(()))), None)
        if node is None:
            node = next((n for n in self.graph.nodes if _without_index(name) == n), None)
        if node is None:
            hint = did_you_mean(name, self.graph.nodes)
            raise UsageError(
                f"the graph has no node '{name}'; it has: {', '.join(self.graph.nodes)}" + (f"; {hint}" if hint else "")
            )
        plan = make_plan(self.graph, self.inputs, self.store, self.numerics, [node], self.placer)
        found = {n: p for n, p in plan.nodes.items() if p.node == node}
        if name in found:
            return self.instance(plan, found[name])
        if "[" in name and name != self.graph.nodes[node].title(()):
            raise UsageError(f"there is no instance '{name}'; there are: {', '.join(found)}")
        return self.instances(plan, found)

    def instances(self, plan: Plan, found: Mapping[str, PlannedNode]) -> list[str]:
        """All instances of a mapped node: how many have which status, and the first that runs in full."""
        if len(found) == 1:
            return self.instance(plan, next(iter(found.values())))
        counts = [f"{sum(p.status == s for p in found.values())} {s}" for s in ("cached", "run", "maybe")]
        lines = [f"{len(found)} instances: {', '.join(c for c in counts if not c.startswith('0 '))}"]
        first = next((p for p in found.values() if p.status != "cached"), None)
        return lines + (self.instance(plan, first) if first is not None else [])

    def instance(self, plan: Plan, entry: PlannedNode) -> list[str]:
        name = entry.name
        if entry.status == "cached":
            return [f"{name} is cached: key {(entry.key or '')[:12]}, computed in {entry.seconds:.2f} s"]
        if entry.status == "run":
            return [f"{name} runs: {entry.reason}", *self.causes(plan, entry)]
        above = self.above(plan, entry)
        lines = [f"{name} may run: it depends on {', '.join(n.name for n in above)}, which must run first"]
        for cause in above:
            lines.append(f"  {cause.name} runs: {cause.reason}")
            lines += [f"  {line}" for line in self.causes(plan, cause)]
        return [*lines, f"if their results are the same bytes as before, {name} is still cached"]

    def above(self, plan: Plan, entry: PlannedNode) -> list[PlannedNode]:
        """The instances that an instance needs and that must run, in the order of the plan."""
        nodes = grouped(plan.nodes)
        stack, found = [entry], {entry.name}
        while stack:
            for name in self.needed(plan, nodes, stack.pop()):
                needed = plan.nodes.get(name)
                if needed is not None and needed.status != "cached" and name not in found:
                    found.add(name)
                    stack.append(needed)
        return [n for n in plan.nodes.values() if n.status == "run" and n.name in found and n is not entry]

    def needed(self, plan: Plan, nodes: Mapping[str, list[str]], entry: PlannedNode) -> Iterator[str]:
        """What an instance needs directly; where a list is not known yet, every instance that may belong to it.

        Args:
            plan: the plan.
            nodes: node → its instances in the plan.
            entry: the instance.
        """
        if entry.status == "maybe" and entry.key is not None:  # the same as one that runs before it
            yield from (n.name for n in plan.nodes.values() if n.status == "run" and n.key == entry.key)
            return
        node = self.graph.nodes[entry.node]
        parents = [] if entry.index is not None else [p for axis in node.axes for p in self.graph.axis_parents(axis)]
        for port, edge in node.edges.items():
            if entry.index is not None:
                with suppress(UnknownError):
                    places = places_of(plan.known.source(node, port, entry.index))
                    yield from (self.graph.nodes[p.node].title(p.at) for p in places if p.node != "inputs")
                    continue
            parents += [ref.node for ref in (edge if isinstance(edge, tuple) else (edge,)) if ref.node != "inputs"]
        for parent in dict.fromkeys(parents):
            axes = list(zip(node.axes, self.graph.nodes[parent].axes, strict=False))
            shared = next((i for i, (a, b) in enumerate(axes) if a != b), len(axes))
            yield from (name for name in nodes.get(parent, ()) if _agree(name, entry.name, shared))

    def causes(self, plan: Plan, entry: PlannedNode) -> list[str]:
        """For each input that differs from the nearest earlier computation: which edge brought it."""
        placed = plan.placed.get(entry.name)
        nearest = self.placer.nearest(entry.node, placed.parts) if placed is not None else None
        if placed is None or nearest is None or entry.index is None:
            return []
        node, parts, before = self.graph.nodes[entry.node], placed.parts, nearest.parts
        changed = [n for n, d in parts["inputs"].items() if before["inputs"].get(n) != d]
        changed += [n for n, v in parts["parameters"].items() if before["parameters"].get(n) != v]
        lines = []
        for n in changed:
            if n in node.edges:
                texts = self.both_texts(before["inputs"].get(n), parts["inputs"].get(n))
                found = edge_text(self.graph, plan.known, node, n, entry.index)
                comes = found if isinstance(found, str) else ", ".join(found)
                lines.append(f"  {n} comes from {comes}{texts}")
        return lines

    def both_texts(self, old: Any, new: Any) -> str:
        """``: 'before' → 'after'`` for an input that is text or a number whose earlier value is still stored."""
        now = {v.stored.digest: v for v in self.inputs.values() if v.stored.codec == "json"}
        try:
            before = self.store.small(old) if isinstance(old, str) else None
            after = repr(now[new].load()) if new in now else self.store.small(new) if isinstance(new, str) else None
        except DamagedBlobError:
            return ""
        return f": {before} → {after}" if before is not None and after is not None else ""


def source_text(graph: Graph, source: Place | Element) -> str:
    """Where a value comes from, for people: ``inputs.photos[2]``, ``b[2]/encode.latents``."""
    if isinstance(source, Element):
        return f"{source_text(graph, source.place)}[{source.position}]"
    owner = source.node if source.node == "inputs" else graph.nodes[source.node].title(source.at)
    return f"{owner}.{source.port}"


def edge_text(graph: Graph, known: Known, node: GraphNode, port: str, index: Index) -> str | list[str]:
    """What feeds a port of an instance, for people; the instances of a mapped node stand as ``b[…]/encode.latents``."""
    edge = node.edges[port]
    if isinstance(edge, Ref):
        if not node.axes and (edge.node == "inputs" or not graph.nodes[edge.node].axes):
            return str(edge)
        source = known.source(node, port, index)
        if isinstance(source, Gathered):
            base = source.parts[0] if source.parts else None
            inner = base.at[:-1] if isinstance(base, Place) else ()
            return f"{graph.nodes[edge.node].title(inner)}.{edge.port}"
        return source_text(graph, source)
    source = known.source(node, port, index)
    parts = source.parts if isinstance(source, Gathered) else (source,)
    return [source_text(graph, part) for part in parts]


def _agree(one: str, other: str, axes: int) -> bool:
    """Whether two instances stand at one position along their first axes; an unknown position may be any."""
    pairs = zip(position(one).split(", ")[:axes], position(other).split(", ")[:axes], strict=False)
    return all(a == b or "…" in (a, b) for a, b in pairs)


def _without_index(name: str) -> str:
    out, depth = "", 0
    for character in name:
        depth += (character == "[") - (character == "]")
        out += character if depth == 0 and character != "]" else ""
    return out
