"""The static check: from a graph file to a checked, typed DAG; every error at once, nothing loaded.

`check` looks up kinds, validates parameters, follows every edge, compares port types and model spaces, and finds
cycles. It collects diagnostics as it goes, so that an author sees all mistakes of a file in one go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from graphflow import registry
from graphflow.errors import Diagnostic, InvalidError, Mark, did_you_mean
from graphflow.graph import Edge, Graph, GraphNode, override
from graphflow.models.preset import Preset, load_preset
from graphflow.models.refs import ModelRef
from graphflow.node import Node
from graphflow.ports import CONVERSIONS, ModelRole, Port, PortType
from graphflow.spaces import unify
from graphflow.spec import GraphSpec, NodeSpec, Ref

_EDGE_LIKE = re.compile(r"([A-Za-z_]\w*)\.([A-Za-z_]\w*)")


def check(
    spec: GraphSpec,
    models: str | None = None,
    models_folder: Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Graph:
    """Check a graph completely.

    Args:
        spec: the graph file.
        models: preset that replaces the graph's own (``--models``); a relative path begins at `models_folder`.
        settings: ``--set`` values, by ``node.parameter``.

    Raises:
        InvalidError: with all diagnostics, sorted by place.
    """
    checker = _Checker(override(spec, settings or {}))
    return checker.check(models, models_folder, dict(settings or {}))


class _Checker:
    def __init__(self, spec: GraphSpec) -> None:
        self.spec = spec
        self.problems: list[Diagnostic] = []
        self.classes: dict[str, type[Node]] = {}
        self.preset: Preset | None = None

    def check(self, models: str | None, models_folder: Path | None, settings: dict[str, Any]) -> Graph:
        self.load_preset(models, models_folder)
        for node in self.spec.nodes.values():
            self.find_kind(node)
        nodes = {name: self.node(name, cls) for name, cls in self.classes.items()}
        for name, ref in self.spec.outputs.items():
            self.source_port(ref, f"output '{name}'")
        order = self.order(nodes)
        if not self.problems:
            self.spaces(nodes)
        if self.problems:
            raise InvalidError(self.problems)
        graph = Graph(self.spec, self.preset, nodes, order, overrides=settings)
        unused = set(order) - set(graph.demanded())
        graph.warnings.extend(
            Diagnostic(nodes[n].spec.mark, "GF150", f"no output needs node '{n}': it will not run", severity="warning")
            for n in order
            if n in unused
        )
        return graph

    def load_preset(self, models: str | None, models_folder: Path | None) -> None:
        try:
            if models is not None:
                self.preset = load_preset(models, Mark("--models"), models_folder or Path())
            elif self.spec.models is not None:
                self.preset = load_preset(self.spec.models, self.spec.models_mark, self.spec.folder)
        except InvalidError as error:
            self.problems.extend(error.diagnostics)

    def find_kind(self, node: NodeSpec) -> None:
        found = registry.find(node.uses)
        if found is None:
            kinds = registry.all_kinds()
            hint = did_you_mean(node.uses, kinds) or "`graphflow nodes` lists all kinds"
            self.problem(node.uses_mark, "GF101", f"node '{node.name}': there is no kind '{node.uses}'", hint)
        else:
            self.classes[node.name] = found

    def node(self, name: str, cls: type[Node]) -> GraphNode:
        spec = self.spec.nodes[name]
        ports = cls.inputs()
        edges: dict[str, Edge] = {}
        models: dict[str, ModelRef] = {}
        for port_name, edge in spec.inputs.items():
            mark = spec.input_marks[port_name]
            port = self.target_port(cls, name, port_name, mark)
            if port is None:
                continue
            if isinstance(edge, Ref) and edge.node == "models":
                self.named_model(port, edge, name, models)
            elif self.fits(edge, port, name, mark):
                edges[port_name] = edge
        for port in ports.values():
            if port.name in spec.inputs:
                continue
            if port.role is not None:
                self.default_model(port, spec, models)
            elif not port.optional:
                hint = f"add 'in: {{{port.name}: node.port}}'"
                self.problem(spec.mark, "GF106", f"'{name}.{port.name}' ({port.describe()}) is not connected", hint)
        self.parameters(spec, cls, edges)
        return GraphNode(name, cls, spec, spec.parameters, edges, models)

    def target_port(self, cls: type[Node], node: str, port: str, mark: Mark) -> Port | None:
        ports = cls.inputs()
        if port in ports:
            return ports[port]
        if port in cls.model_fields:
            try:
                return cls.parameter_port(port)
            except TypeError as error:
                self.problem(mark, "GF104", str(error))
                return None
        names = [*ports, *cls.model_fields]
        hint = did_you_mean(port, names) or f"{cls.kind} has: {', '.join(names)}"
        self.problem(mark, "GF104", f"node '{node}' has no input or parameter '{port}'", hint)
        return None

    def source_port(self, ref: Ref, what: str) -> Port | None:
        """The port an edge comes from, or None after a diagnostic."""
        if ref.node == "inputs":
            declared = self.spec.inputs.get(ref.port)
            if declared is not None:
                return Port(ref.port, declared.type, declared.is_list)
            names = self.spec.inputs
            hint = did_you_mean(ref.port, names, "inputs.{}") or f"inputs: {', '.join(names) or 'none'}"
            self.problem(ref.mark, "GF113", f"the graph has no input '{ref.port}'", hint)
        elif ref.node not in self.spec.nodes:
            hint = did_you_mean(ref.node, [*self.spec.nodes, "inputs", "models"])
            self.problem(ref.mark, "GF102", f"{what} names node '{ref.node}', which does not exist", hint)
        elif (cls := self.classes.get(ref.node)) is not None:
            outputs = cls.outputs()
            if ref.port in outputs:
                return outputs[ref.port]
            listed = ", ".join(f"{p.name}: {p.describe()}" for p in outputs.values())
            hint = did_you_mean(ref.port, outputs, ref.node + ".{}")
            message = f"node '{ref.node}' has no output '{ref.port}'; it has: {listed}"
            self.problem(ref.mark, "GF103", message, hint)
        return None

    def fits(self, edge: Edge, port: Port, node: str, mark: Mark) -> bool:
        refs = edge if isinstance(edge, tuple) else (edge,)
        what = f"'{node}.{port.name}'"
        if isinstance(edge, tuple) and not port.is_list:
            self.problem(mark, "GF105", f"{what} takes one {port.describe()}, found a list of edges")
            return False
        good = True
        for ref in refs:
            source = self.source_port(ref, what)
            if source is None:
                good = False
            elif not _accepts(port, source, element=isinstance(edge, tuple)):
                good = False
                expected = port.describe() if not isinstance(edge, tuple) else port.describe()[5:-1]
                hint = ""
                if port.is_list and not source.is_list and _accepts(port, source, element=True):
                    hint = f"write a list: {port.name}: [{ref}]"
                message = f"{what} takes {expected}, but {ref} is {source.describe()}"
                self.problem(ref.mark, "GF105", message, hint)
        return good

    def named_model(self, port: Port, ref: Ref, node: str, models: dict[str, ModelRef]) -> None:
        if port.role is None:
            self.problem(ref.mark, "GF105", f"'{node}.{port.name}' takes {port.describe()}, but {ref} is a model")
        elif self.preset is not None:
            found = self.preset.models.get(ref.port)
            if found is None:
                hint = did_you_mean(ref.port, self.preset.models, "models.{}")
                message = f"preset '{self.preset.name}' has no model '{ref.port}'"
                self.problem(ref.mark, "GF121", message, hint or f"it has: {', '.join(self.preset.models)}")
            elif found.role != port.role:
                message = f"'{node}.{port.name}' takes a {port.role}, but {ref} is a {found.role}"
                self.problem(ref.mark, "GF105", message)
            else:
                models[port.name] = found

    def default_model(self, port: Port, spec: NodeSpec, models: dict[str, ModelRef]) -> None:
        assert port.role is not None
        if self.preset is None:
            if not self.problems:
                hint = "add 'models: pocket', or run with --models"
                self.problem(
                    spec.mark, "GF121", f"'{spec.name}.{port.name}' needs a {port.role}, but no preset is set", hint
                )
        elif port.role in self.preset.models:
            models[port.name] = self.preset.models[port.role]
        elif not port.optional:
            hint = did_you_mean(port.role, self.preset.models) or f"it has: {', '.join(self.preset.models)}"
            message = f"'{spec.name}.{port.name}' needs a {port.role}; preset '{self.preset.name}' has none"
            self.problem(spec.mark, "GF121", message, hint)

    def parameters(self, spec: NodeSpec, cls: type[Node], edges: Mapping[str, Edge]) -> None:
        for name, value in spec.parameters.items():
            if name not in cls.model_fields:
                ports = cls.inputs()
                mark = spec.parameter_marks[name]
                if name in ports:
                    hint = "ports are fed by edges, under 'in:'"
                else:
                    hint = (
                        did_you_mean(name, cls.model_fields)
                        or f"{cls.kind} has: {', '.join(cls.model_fields) or 'none'}"
                    )
                self.problem(mark, "GF107", f"node '{spec.name}' ({cls.kind}) has no parameter '{name}'", hint)
            elif self.looks_like_edge(value):
                hint = f"to connect it, write 'in: {{{name}: {value}}}'"
                message = f"'{spec.name}.{name}' is the text '{value}', not an edge"
                self.problem(spec.parameter_marks[name], "GF109", message, hint)
        known = {k: v for k, v in spec.parameters.items() if k in cls.model_fields}
        try:
            cls.model_validate(known)
        except ValidationError as error:
            for found in error.errors():
                name = str(found["loc"][0]) if found["loc"] else ""
                if name in edges and found["type"] == "missing":
                    continue
                where = spec.parameter_marks.get(name, spec.mark)
                shown = "nothing" if found["type"] == "missing" else repr(found["input"])
                message = f"'{spec.name}.{name}': {found['msg'].lower()}, found {shown}"
                info = cls.model_fields.get(name)
                self.problem(where, "GF108", message, info.description or "" if info else "")

    def order(self, nodes: Mapping[str, GraphNode]) -> list[str]:
        parents = {n: [p for p in node.parents if p in nodes] for n, node in nodes.items()}
        sorter = TopologicalSorter(parents)
        try:
            return list(sorter.static_order())
        except CycleError as error:
            circle = list(reversed(error.args[1]))
            mark = nodes[circle[0]].spec.mark
            self.problem(mark, "GF110", f"nodes feed each other in a circle: {' → '.join(circle)}")
            return []

    def looks_like_edge(self, value: Any) -> bool:
        match = _EDGE_LIKE.fullmatch(value) if isinstance(value, str) else None
        return match is not None and (match[1] in self.spec.nodes or match[1] == "inputs")

    def spaces(self, nodes: Mapping[str, GraphNode]) -> None:
        for conflict in unify(nodes):
            message = (
                f"'{conflict.target}' lives in space {conflict.target_space} ({conflict.target_from}), "
                f"but {conflict.source} lives in {conflict.source_space} ({conflict.source_from})"
            )
            hint = "encode it again with the other family's model, or use one preset for both"
            self.problem(conflict.mark, "GF112", message, hint)

    def problem(self, mark: Mark, code: str, message: str, hint: str = "") -> None:
        self.problems.append(Diagnostic(mark, code, message, hint))


def _accepts(port: Port, source: Port, element: bool) -> bool:
    """Whether a value of `source` may enter `port`; with `element`, as one element of its list."""
    if source.is_list != (port.is_list and not element):
        return False
    if isinstance(port.type, ModelRole):
        return isinstance(source.type, PortType) and source.type.name == f"Weights[{port.type.role}]"
    assert isinstance(source.type, PortType)
    return source.type.name == port.type.name or (source.type.name, port.type.name) in CONVERSIONS
