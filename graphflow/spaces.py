"""Model spaces: SD 1.5 latents must not reach an SDXL denoiser.

Every spaced port of a node gets a variable. A model port whose role fixes that type's space binds the variable to the
model's space; a node without such a model keeps the space of what it is fed. Edges equate variables: union-find.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphflow.errors import Mark
from graphflow.ports import Port, PortType

if TYPE_CHECKING:
    from graphflow.graph import GraphNode

Variable = tuple[str, str]  # node, type name


@dataclass(frozen=True)
class SpaceConflict:
    """Two ends of an edge in different spaces, each with the model that fixes it."""

    mark: Mark
    source: str
    source_space: str
    source_from: str
    target: str
    target_space: str
    target_from: str


def unify(nodes: Mapping[str, GraphNode]) -> Iterator[SpaceConflict]:
    """Every edge whose two ends belong to different model spaces."""
    parent: dict[Variable, Variable] = {}
    bound: dict[Variable, tuple[str, str]] = {}

    def root(v: Variable) -> Variable:
        parent.setdefault(v, v)
        while parent[v] != v:
            parent[v] = parent[parent[v]]
            v = parent[v]
        return v

    for name, node in nodes.items():
        for port in (*node.cls.inputs().values(), *node.cls.outputs().values()):
            found = _space(node, port)
            if found is not None and isinstance(port.type, PortType):
                bound[root((name, port.type.name))] = found
    for name, node in nodes.items():
        for port_name, edge in node.edges.items():
            port = node.port(port_name)
            if not isinstance(port.type, PortType) or not port.type.space_from:
                continue
            for ref in edge if isinstance(edge, tuple) else (edge,):
                if ref.node == "inputs":
                    continue
                source, target = root((ref.node, port.type.name)), root((name, port.type.name))
                a, b = bound.get(source), bound.get(target)
                if a and b and a[0] != b[0]:
                    yield SpaceConflict(ref.mark, str(ref), *a, f"{name}.{port_name}", *b)
                    continue
                parent[source] = target
                if a and not b:
                    bound[target] = a


def _space(node: GraphNode, port: Port) -> tuple[str, str] | None:
    """The space that the node's own model gives to a port of this type, with the model's description."""
    if not isinstance(port.type, PortType):
        return None
    for role in port.type.space_from:
        for model in node.models.values():
            if model.role == role:
                return model.space, f"{role} {model.describe()}"
    return None
