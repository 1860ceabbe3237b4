"""A checked graph: typed nodes, edges, and the models that they use. `graphflow.check` makes it from a file.

Sub-graphs are already dissolved: a node `encode` of the sub-graph `b` stands here as `b/encode`. A mapped node runs
along an *axis*, once for each element; so do all nodes of a mapped sub-graph. An *instance* is a node with the index
along each of its axes, a *place* is an output of an instance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from graphflow.errors import Diagnostic, Mark, UsageError, did_you_mean
from graphflow.models.preset import Preset
from graphflow.models.refs import ModelRef
from graphflow.node import Node
from graphflow.ports import Port, PortType
from graphflow.spec import Edge, GraphSpec, InputSpec, NodeSpec, Ref

Index = tuple[int, ...]


class Place(NamedTuple):
    """An output of an instance: node (or ``inputs``), port, and the index along the node's axes."""

    node: str
    port: str
    at: Index = ()


class Element(NamedTuple):
    """One element of the list at a place."""

    place: Place
    position: int


class Gathered(NamedTuple):
    """A list made of several values: edges written as a list, or all instances of a mapped node."""

    parts: tuple[Place | Element, ...]


Source = Place | Element | Gathered
Lengths = Callable[[str, Index], int]


@dataclass(frozen=True)
class Axis:
    """What a mapped node runs along: lists of one length, by port; `axes` are those around it."""

    name: str
    axes: tuple[str, ...]
    lists: Mapping[str, Edge]
    mark: Mark


@dataclass(frozen=True)
class GraphNode:
    """A node of a checked graph.

    Attributes:
        parameters: the constants, as written; those fed by an edge are missing here.
        edges: input port or parameter → where its value comes from.
        models: model port → the preset's model; a port fed by trained weights stands under `edges` instead.
        axes: the axes that it runs along, outermost first.
        each: ports that take one element of what their edge brings → along which of `axes`.
    """

    name: str
    cls: type[Node]
    spec: NodeSpec
    parameters: Mapping[str, Any]
    edges: Mapping[str, Edge]
    models: Mapping[str, ModelRef]
    axes: tuple[str, ...] = ()
    each: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def refs(self) -> list[Ref]:
        """Every edge, lists flattened."""
        return [r for edge in self.edges.values() for r in (edge if isinstance(edge, tuple) else (edge,))]

    @cached_property
    def parents(self) -> list[str]:
        """The nodes that feed this one, each once, in the order of its edges."""
        return list(dict.fromkeys(r.node for r in self.refs if r.node != "inputs"))

    @cached_property
    def ports(self) -> Mapping[str, Port]:
        """The input ports."""
        return self.cls.inputs()

    def port(self, name: str) -> Port:
        """The input port, or the parameter seen as a port."""
        return self.ports[name] if name in self.ports else self.cls.parameter_port(name)

    def title(self, index: Index) -> str:
        """An instance's name: ``b[2]/encode``; with a part of the index it stands for several: ``b[…]/encode``."""
        if not self.axes:
            return self.name
        out = self.name
        for depth, axis in reversed(list(enumerate(self.axes))):
            shown = "…" if depth >= len(index) else index[depth]
            out = f"{axis}[{shown}]{out[len(axis) :]}"
        return out


@dataclass(frozen=True)
class Graph:
    """A checked graph.

    Attributes:
        order: a topological order of all nodes that follows the file where it can; see `side_by_side`.
        outputs: output name → where it comes from.
        axes: the axes of mapped nodes, by name.
        hidden: inputs of sub-graphs that are fed by a constant or by their default; edges name them like inputs.
        files: the texts of the sub-graphs, by place.
    """

    spec: GraphSpec
    preset: Preset | None
    nodes: Mapping[str, GraphNode]
    order: list[str]
    outputs: Mapping[str, Ref]
    axes: Mapping[str, Axis] = field(default_factory=dict)
    hidden: Mapping[str, InputSpec] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    warnings: list[Diagnostic] = field(default_factory=list)
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.spec.name

    @property
    def title(self) -> str:
        """What the graph says about itself."""
        return self.spec.title

    @property
    def inputs(self) -> Mapping[str, InputSpec]:
        """What the graph asks its user for."""
        return self.spec.inputs

    def output_port(self, ref: Ref, axes: tuple[str, ...] = ()) -> Port:
        """The port that an edge comes from, as a node with these axes sees it."""
        if ref.node == "inputs":
            declared = self.inputs[ref.port] if ref.port in self.inputs else self.hidden[ref.port]
            return Port(ref.port, declared.type, declared.is_list)
        node = self.nodes[ref.node]
        port = node.cls.outputs()[ref.port]
        return replace(port, is_list=True) if len(node.axes) > _shared(node.axes, axes) else port

    def type_of(self, place: Place) -> PortType:
        """The type of the values at a place, or of their elements."""
        if place.node == "inputs":
            return (self.inputs.get(place.port) or self.hidden[place.port]).type
        found = self.nodes[place.node].cls.outputs()[place.port].type
        assert isinstance(found, PortType)  # no node makes a model
        return found

    def demanded(self, targets: Iterable[str] | None = None) -> list[str]:
        """The nodes that the outputs (or `targets`) need, themselves included, in order."""
        return self._needed if targets is None else self._demanded(targets)

    @cached_property
    def _needed(self) -> list[str]:
        return self._demanded(r.node for r in self.outputs.values() if r.node != "inputs")

    def _demanded(self, targets: Iterable[str]) -> list[str]:
        stack = list(targets)
        found: set[str] = set()
        while stack:
            name = stack.pop()
            if name not in found:
                found.add(name)
                stack.extend(self.nodes[name].parents)
                stack.extend(p for axis in self.nodes[name].axes for p in self.axis_parents(axis))
        return [name for name in self.order if name in found]

    def axis_parents(self, axis: str) -> list[str]:
        """The nodes whose lists decide how long an axis is."""
        return [r.node for edge in self.axes[axis].lists.values() for r in _refs(edge) if r.node != "inputs"]

    def used_models(self, names: Iterable[str], required: bool = False) -> dict[str, ModelRef]:
        """The presets' models that these nodes use; with `required` not the optional ones.

        They stand by name of role or entry; where several presets have a name, the preset's own stands beside it.
        """
        nodes = [self.nodes[name] for name in names]
        found = {
            id(ref): ref
            for node in nodes
            for port, ref in node.models.items()
            if not (required and node.ports[port].optional)
        }
        out: dict[str, ModelRef] = {}
        for ref in sorted(found.values(), key=lambda r: r.mark):
            name, number = ref.name, 2
            while out.get(name, ref) != ref:
                name, number = f"{ref.name} ({number})", number + 1
            out[name] = ref
        return out

    # --- instances ------------------------------------------------------------------------------------------------

    def source(self, node: GraphNode, port: str, index: Index, length: Lengths) -> Source:
        """Where the value at a port of an instance comes from.

        Args:
            node: the node.
            port: a port or parameter that an edge feeds.
            index: the instance.
            length: ``length(axis, index)``; asked for only where a list is gathered from a mapped node.
        """
        edge, each = node.edges[port], node.each.get(port)
        if isinstance(edge, Ref):
            return self._source(edge, each, node.axes, index, length)
        refs = edge if each is None else (edge[index[each]],)
        parts = []
        for ref in refs:
            part = self._source(ref, None, node.axes, index, length)
            assert not isinstance(part, Gathered)  # there are no lists of lists
            parts.append(part)
        return Gathered(tuple(parts)) if each is None else parts[0]

    def output_source(self, ref: Ref, length: Lengths) -> Source:
        """Where the value of a graph output comes from."""
        return self._source(ref, None, (), (), length)

    def axis_length(
        self, axis: str, index: Index, length: Lengths, list_length: Callable[[Place], int]
    ) -> dict[str, int]:
        """The length of each list of an axis, by port.

        Args:
            axis: its name.
            index: along the axes around it.
            length: the lengths of other axes.
            list_length: the length of the list at a place.
        """
        found = self.axes[axis]
        out = {}
        for port, edge in found.lists.items():
            if isinstance(edge, tuple):
                out[port] = len(edge)
                continue
            axes = self._axes_of(edge)
            shared = _shared(axes, found.axes)
            base = index[:shared]
            if len(axes) > shared:
                out[port] = length(axes[shared], base)
            else:
                out[port] = list_length(Place(edge.node, edge.port, base))
        return out

    def _axes_of(self, ref: Ref) -> tuple[str, ...]:
        return () if ref.node == "inputs" else self.nodes[ref.node].axes

    def _source(self, ref: Ref, each: int | None, axes: tuple[str, ...], index: Index, length: Lengths) -> Source:
        own = self._axes_of(ref)
        if not own and each is None:
            return Place(ref.node, ref.port)
        shared = _shared(own, axes if each is None else axes[:each])
        base = index[:shared]
        if len(own) == shared:
            place = Place(ref.node, ref.port, base)
            return place if each is None else Element(place, index[each])
        if each is not None:
            return Place(ref.node, ref.port, (*base, index[each]))
        count = length(own[shared], base)
        return Gathered(tuple(Place(ref.node, ref.port, (*base, i)) for i in range(count)))


def _shared(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    """How many axes two nodes have in common."""
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    return count


def side_by_side(
    order: Iterable[str], parents: Mapping[str, Iterable[str]], nodes: Mapping[str, GraphNode]
) -> list[str]:
    """A topological order in which nodes along one outermost axis stand side by side, as far as their edges allow.

    Its elements then go through them together: two mapped sub-graphs one after the other, not step by step in turns.
    """
    order = list(order)
    along: dict[str, list[str]] = {}
    for name in order:
        if nodes[name].axes:
            along.setdefault(nodes[name].axes[0], []).append(name)
    done: dict[str, None] = {}
    for first in order:
        if first in done:
            continue
        done[first] = None
        if nodes[first].axes:
            axis = nodes[first].axes[0]
            for name in along[axis]:
                if all(parent in done for parent in parents[name]):
                    done[name] = None
            along[axis] = [name for name in along[axis] if name not in done]
    return list(done)


def _refs(edge: Edge) -> tuple[Ref, ...]:
    return edge if isinstance(edge, tuple) else (edge,)


def override(spec: GraphSpec, settings: Mapping[str, Any], marks: Mapping[str, Mark] | None = None) -> GraphSpec:
    """The same graph with ``--set node.parameter=value`` applied; a constant replaces an edge to that parameter.

    ``--set b/encode.seed=1`` is left to the sub-graph `b`.

    Args:
        spec: the graph.
        settings: the values, by ``node.parameter``.
        marks: where the user has typed them, if that is not after ``--set``.

    Raises:
        UsageError: a setting names no node of the graph.
    """
    nodes = dict(spec.nodes)
    for target, value in settings.items():
        path, _, parameter = target.rpartition(".")
        name, _, inner = path.partition("/")
        mark = (marks or {}).get(target) or Mark(f"--set {target}")
        if name not in nodes or not parameter:
            hint = did_you_mean(name, nodes)
            where = mark.file if mark.file.startswith("--") else str(mark)
            raise UsageError(
                f"{where}: expected node.parameter=value; the nodes are {', '.join(nodes)}"
                + (f"; {hint}" if hint else "")
            )
        node = nodes[name]
        if inner:
            inside = f"{inner}.{parameter}"
            nodes[name] = replace(
                node, inside={**node.inside, inside: value}, inside_marks={**node.inside_marks, inside: mark}
            )
            continue
        nodes[name] = replace(
            node,
            parameters={**node.parameters, parameter: value},
            parameter_marks={**node.parameter_marks, parameter: mark},
            inputs={k: v for k, v in node.inputs.items() if k != parameter},
            mapped=node.mapped - {parameter},
        )
    return replace(spec, nodes=nodes)
