"""One graph file during the check: its nodes with what they stand for, and its ports, for it may be a node itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graphflow.models.preset import Preset
from graphflow.models.refs import ModelRef
from graphflow.node import Node
from graphflow.ports import Port
from graphflow.spec import Edge, GraphSpec, NodeSpec


@dataclass
class ScopeNode:
    """A node of the file whose `uses:` is understood.

    Attributes:
        unit: the kind's class, or the graph that is used as a node.
        edges: those that have passed the check.
        models: model port → the preset's model.
        constants: the parameters of a kind as written; the plain inputs of a sub-graph as their types have them.
    """

    spec: NodeSpec
    unit: type[Node] | Scope
    edges: dict[str, Edge] = field(default_factory=dict)
    models: dict[str, ModelRef] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)

    def port(self, name: str) -> Port | None:
        """The input port, or the parameter seen as a port; None when there is no such name.

        Raises:
            TypeError: it is a parameter that takes only a constant.
        """
        ports = self.unit.inputs()
        if name in ports:
            return ports[name]
        if not isinstance(self.unit, Scope) and name in self.unit.model_fields:
            return self.unit.parameter_port(name)
        return None

    @property
    def parameters(self) -> list[str]:
        """What may stand under `with:`."""
        if isinstance(self.unit, Scope):
            return [n for n, i in self.unit.spec.inputs.items() if i.type.codec == "json"]
        return list(self.unit.model_fields)

    @property
    def names(self) -> list[str]:
        """What may stand under `in:`."""
        return list(dict.fromkeys([*self.unit.inputs(), *self.parameters]))


@dataclass
class Scope:
    """A graph file. As a node it has its inputs and outputs as ports, as a kind's class does.

    `size` counts its nodes and those of its sub-graphs.
    """

    spec: GraphSpec
    preset: Preset | None
    nodes: dict[str, ScopeNode] = field(default_factory=dict)
    output_ports: dict[str, Port] = field(default_factory=dict)
    size: int = 0

    @property
    def kind(self) -> str:
        """The graph's name."""
        return self.spec.name

    def inputs(self) -> Mapping[str, Port]:
        """The graph's inputs as ports; one with a default may be left out."""
        return {n: Port(n, i.type, i.is_list, i.has_default) for n, i in self.spec.inputs.items()}

    def outputs(self) -> Mapping[str, Port]:
        """The graph's outputs as ports."""
        return self.output_ports
