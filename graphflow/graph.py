"""A checked graph: typed nodes, edges, and the models that they use. `graphflow.check` makes it from a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from graphflow.errors import Diagnostic, Mark, UsageError, did_you_mean
from graphflow.models.preset import Preset
from graphflow.models.refs import ModelRef
from graphflow.node import Node
from graphflow.ports import Port
from graphflow.spec import GraphSpec, InputSpec, NodeSpec, Ref

Edge = Ref | tuple[Ref, ...]


@dataclass(frozen=True)
class GraphNode:
    """A node of a checked graph.

    Attributes:
        parameters: the constants, as written; those fed by an edge are missing here.
        edges: input port or parameter → where its value comes from.
        models: model port → the preset's model; a port fed by trained weights stands under `edges` instead.
    """

    name: str
    cls: type[Node]
    spec: NodeSpec
    parameters: Mapping[str, Any]
    edges: Mapping[str, Edge]
    models: Mapping[str, ModelRef]

    @property
    def refs(self) -> list[Ref]:
        """Every edge, lists flattened."""
        return [r for edge in self.edges.values() for r in (edge if isinstance(edge, tuple) else (edge,))]

    @property
    def parents(self) -> list[str]:
        """The nodes that feed this one, each once, in the order of its edges."""
        return list(dict.fromkeys(r.node for r in self.refs if r.node != "inputs"))

    def port(self, name: str) -> Port:
        """The input port, or the parameter seen as a port."""
        inputs = self.cls.inputs()
        return inputs[name] if name in inputs else self.cls.parameter_port(name)


@dataclass(frozen=True)
class Graph:
    """A checked graph; `order` is a topological order of all nodes that follows the file where it can."""

    spec: GraphSpec
    preset: Preset | None
    nodes: Mapping[str, GraphNode]
    order: list[str]
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

    @property
    def outputs(self) -> Mapping[str, Ref]:
        """Output name → where it comes from."""
        return self.spec.outputs

    def demanded(self, targets: Iterable[str] | None = None) -> list[str]:
        """The nodes that the outputs (or `targets`) need, themselves included, in order."""
        stack = list(targets) if targets is not None else [r.node for r in self.outputs.values() if r.node != "inputs"]
        found: set[str] = set()
        while stack:
            name = stack.pop()
            if name not in found:
                found.add(name)
                stack.extend(self.nodes[name].parents)
        return [name for name in self.order if name in found]

    def used_models(self, names: Iterable[str]) -> dict[str, ModelRef]:
        """The preset's models that these nodes use, by name of role or entry."""
        assert self.preset is not None or not any(self.nodes[n].models for n in names)
        found = [ref for name in names for ref in self.nodes[name].models.values()]
        entries = self.preset.models.items() if self.preset else ()
        return {name: ref for name, ref in entries if any(ref is f for f in found)}


def override(spec: GraphSpec, settings: Mapping[str, Any]) -> GraphSpec:
    """The same graph with ``--set node.parameter=value`` applied; a constant replaces an edge to that parameter.

    Raises:
        UsageError: a setting names no node of the graph.
    """
    nodes = dict(spec.nodes)
    for target, value in settings.items():
        name, _, parameter = target.partition(".")
        if name not in nodes or not parameter:
            hint = did_you_mean(name, nodes)
            raise UsageError(
                f"--set {target}: expected node.parameter=value; the nodes are {', '.join(nodes)}"
                + (f"; {hint}" if hint else "")
            )
        node = nodes[name]
        mark = Mark(f"--set {target}")
        nodes[name] = replace(
            node,
            parameters={**node.parameters, parameter: value},
            parameter_marks={**node.parameter_marks, parameter: mark},
            inputs={k: v for k, v in node.inputs.items() if k != parameter},
        )
    return replace(spec, nodes=nodes)
