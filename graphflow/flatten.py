"""From checked files to one flat graph: sub-graphs dissolve into their nodes, maps into axes.

A sub-graph's input is replaced by what feeds it where the sub-graph is used. A constant, or a default, becomes a
hidden input of the whole graph, or, where it feeds a parameter, the parameter's constant.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from graphflow.errors import Diagnostic, Mark, shown
from graphflow.graph import Axis, GraphNode
from graphflow.node import Node
from graphflow.scope import Scope, ScopeNode
from graphflow.spec import Edge, InputSpec, Ref


@dataclass(frozen=True)
class Fed:
    """What feeds an input of a sub-graph; `each` is the axis along which its elements are taken."""

    edge: Edge
    each: int | None = None


@dataclass
class Flat:
    """The flat graph as it grows."""

    nodes: dict[str, GraphNode] = field(default_factory=dict)
    axes: dict[str, Axis] = field(default_factory=dict)
    hidden: dict[str, InputSpec] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    problems: list[Diagnostic] = field(default_factory=list)
    outputs: dict[str, Ref] = field(default_factory=dict)


def flatten(scope: Scope) -> Flat:
    """Dissolve all sub-graphs of a graph that has passed the check."""
    flat = Flat()
    top = _Level(flat, scope, "", ())
    top.add_nodes()
    for name, ref in scope.spec.outputs.items():
        found = top.resolve(ref)
        if found is not None and isinstance(found.edge, Ref):
            flat.outputs[name] = found.edge
        elif found is not None:
            top.problem(ref.mark, f"output '{name}' only passes on a list of edges")
    return flat


class _Level:
    """A scope at the place where it is used: as the whole graph, or as `node` of the level `outer`."""

    def __init__(
        self, flat: Flat, scope: Scope, prefix: str, axes: tuple[str, ...],
        outer: _Level | None = None, node: ScopeNode | None = None,
    ) -> None:  # fmt: skip
        self.flat, self.scope, self.prefix, self.axes = flat, scope, prefix, axes
        self.outer, self.node = outer, node
        self.inputs: dict[str, Fed | None] = {}
        self.levels = {
            name: _Level(flat, inner.unit, f"{prefix}{name}/", self.axes_of(inner), self, inner)
            for name, inner in scope.nodes.items()
            if isinstance(inner.unit, Scope)
        }

    def add_nodes(self) -> None:
        for name, node in self.scope.nodes.items():
            if node.spec.mapped:
                self.add_axis(node)
            if name in self.levels:
                self.flat.files[self.levels[name].scope.spec.place] = self.levels[name].scope.spec.text
                self.levels[name].add_nodes()
            else:
                self.add_node(node)

    def axes_of(self, node: ScopeNode) -> tuple[str, ...]:
        return (*self.axes, self.prefix + node.spec.name) if node.spec.mapped else self.axes

    def add_axis(self, node: ScopeNode) -> None:
        lists = {p: found.edge for p in node.spec.mapped if (found := self.resolve_edge(node.edges[p])) is not None}
        name = self.prefix + node.spec.name
        self.flat.axes[name] = Axis(name, self.axes, dict(sorted(lists.items())), node.spec.mark)

    def input(self, name: str) -> Fed | None:
        """What feeds an input of this level."""
        if name not in self.inputs:
            self.inputs[name] = self.feed(name)
        return self.inputs[name]

    def feed(self, name: str) -> Fed | None:
        declared = self.scope.spec.inputs[name]
        if self.outer is None or self.node is None:
            return Fed(Ref("inputs", name, declared.mark))
        if name in self.node.edges:
            return self.outer.fed_port(self.node, name)
        if name in self.node.constants:
            declared = replace(declared, default=self.node.constants[name], has_default=True)
        self.flat.hidden[self.prefix + name] = declared
        return Fed(Ref("inputs", self.prefix + name, self.node.spec.parameter_marks.get(name, declared.mark)))

    def fed_port(self, node: ScopeNode, port: str) -> Fed | None:
        """What feeds a port by an edge, seen from inside the node."""
        found = self.resolve_edge(node.edges[port])
        if found is not None and port in node.spec.mapped:
            return Fed(found.edge, len(self.axes))
        return found

    def add_node(self, node: ScopeNode) -> None:
        assert not isinstance(node.unit, Scope)
        parameters: dict[str, Any] = dict(node.constants)
        edges: dict[str, Edge] = {}
        each: dict[str, int] = {}
        for port in node.edges:
            found = self.fed_port(node, port)
            if found is None:
                continue
            if port in node.unit.model_fields:
                self.check_default(node, node.unit, port, found)
            constant = self.constant(found) if port in node.unit.model_fields and found.each is None else None
            if constant is not None:
                parameters[port] = constant.default
                continue
            edges[port] = found.edge
            if found.each is not None:
                each[port] = found.each
        name = self.prefix + node.spec.name
        self.flat.nodes[name] = found_node = GraphNode(
            name, node.unit, node.spec, parameters, edges, node.models, self.axes_of(node), each
        )  # fmt: skip
        self.check_lacking(found_node)

    def check_lacking(self, node: GraphNode) -> None:
        """Ports that the parameters ask for, where all of these are constants or defaults, must be fed."""
        values = dict(node.parameters)
        for port in node.edges.keys() & node.cls.model_fields.keys():
            edge = node.edges[port]
            if not isinstance(edge, Ref) or edge.node != "inputs" or port in node.each:
                return
            declared = self.top.scope.spec.inputs[edge.port]
            if not declared.has_default:
                return
            values[port] = declared.default
        try:
            message = node.cls(**values).missing_port(node.edges)
        except ValidationError:
            return  # told already
        if message:
            self.problem(node.spec.mark, f"'{node.name}': {message}", "GF106")

    def check_default(self, node: ScopeNode, cls: type[Node], parameter: str, found: Fed) -> None:
        """A constant or default that an edge brings to a parameter must be one that the parameter takes."""
        ref = found.edge
        if not isinstance(ref, Ref) or ref.node != "inputs":
            return
        hidden = self.flat.hidden.get(ref.port)
        declared = hidden or self.top.scope.spec.inputs[ref.port]
        if not declared.has_default:
            return
        source = "" if hidden else f" from {ref}"
        name = f"{self.prefix}{node.spec.name}.{parameter}"
        for value in declared.default if found.each is not None else [declared.default]:
            message = _refused(cls, {**node.constants, parameter: value}, parameter)
            if message is not None:
                self.problem(ref.mark, f"'{name}': {message}, found {shown(value)}{source}", "GF108")

    def constant(self, found: Fed) -> InputSpec | None:
        ref = found.edge
        return self.flat.hidden.get(ref.port) if isinstance(ref, Ref) and ref.node == "inputs" else None

    def resolve_edge(self, edge: Edge) -> Fed | None:
        if isinstance(edge, Ref):
            return self.resolve(edge)
        found = [self.resolve(ref) for ref in edge]
        refs = []
        for ref, one in zip(edge, found, strict=True):
            if one is None:
                return None
            if isinstance(one.edge, tuple) or one.each is not None:
                self.problem(ref.mark, f"{ref} is part of a list of edges, where the element of a map can't stand")
                return None
            refs.append(one.edge)
        return Fed(tuple(refs))

    def resolve(self, ref: Ref) -> Fed | None:
        """The flat edge behind an edge of this file."""
        if ref.node == "inputs":
            return self.input(ref.port)
        level = self.levels.get(ref.node)
        if level is None:
            return Fed(Ref(self.prefix + ref.node, ref.port, ref.mark))
        found = level.resolve(level.scope.spec.outputs[ref.port])
        if found is None:
            return None
        if self.scope.nodes[ref.node].spec.mapped and not level.makes(found.edge):
            if found.each != len(self.axes):  # a value that is the same for all elements, where a list was promised
                self.problem(ref.mark, f"{ref} only passes on an input that is not mapped")
                return None
            found = Fed(found.edge)
        return replace(found, edge=_at(found.edge, ref.mark))

    def makes(self, edge: Edge) -> bool:
        """Whether a node of this level, or of one inside it, makes what an edge brings; else an input is passed on."""
        return isinstance(edge, Ref) and edge.node.startswith(self.prefix)

    @property
    def top(self) -> _Level:
        """The level of the whole graph."""
        return self if self.outer is None else self.outer.top

    def problem(self, mark: Mark, message: str, code: str = "GF118") -> None:
        self.flat.problems.append(Diagnostic(mark, code, message))


def _refused(cls: type[Node], parameters: dict[str, Any], name: str) -> str | None:
    """Why a kind does not take the value of a parameter; as in a run, and not as strict as a graph file."""
    try:
        cls(**parameters)
    except ValidationError as error:
        return next((str(e["msg"]).lower() for e in error.errors() if e["loc"] and e["loc"][0] == name), None)
    return None


def _at(edge: Edge, mark: Mark) -> Edge:
    """The edge as it stands at the place of its use."""
    return replace(edge, mark=mark) if isinstance(edge, Ref) else edge
