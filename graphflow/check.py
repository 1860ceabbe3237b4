"""The static check: from a graph file to a checked, typed DAG; every error at once, nothing loaded.

`check` looks up kinds, reads sub-graphs, validates parameters, follows every edge, compares port types and model
spaces, and finds cycles. It collects diagnostics as it goes, so that an author sees all mistakes in one go.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from graphflow import registry
from graphflow.constants import read_constant
from graphflow.errors import Diagnostic, InvalidError, Mark, did_you_mean, shown
from graphflow.flatten import Flat, flatten
from graphflow.graph import Graph, override, side_by_side
from graphflow.models.preset import Preset, load_preset
from graphflow.node import Node
from graphflow.ports import CONVERSIONS, EXTERNAL, TEXT, ModelRole, Port, PortType
from graphflow.scope import Scope, ScopeNode
from graphflow.spaces import SpaceConflict, unify
from graphflow.spec import Edge, GraphSpec, InputSpec, NodeSpec, Ref, load_subgraph, shipped_graphs, subgraph_place

MAX_NESTING, MAX_NODES = 16, 100_000
LONGEST_CIRCLE = 20
_EDGE_LIKE = re.compile(r"([A-Za-z_]\w*)\.([A-Za-z_]\w*)")


def check(
    spec: GraphSpec,
    models: str | None = None,
    models_folder: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    marks: Mapping[str, Mark] | None = None,
) -> Graph:
    """Check a graph completely, with all its sub-graphs.

    Args:
        spec: the graph file.
        models: preset that replaces the graph's own (``--models``); a relative path begins at `models_folder`.
        settings: ``--set`` values, by ``node.parameter``.
        marks: where the user has typed those that another option than ``--set`` gives.

    Raises:
        InvalidError: with all diagnostics, sorted by place.
        UsageError: a setting names no node.
    """
    settings = dict(settings or {})
    found = _Findings()
    spec = override(spec, settings, marks)
    preset = None
    if models is not None:
        preset = _preset(models, Mark("--models"), models_folder or Path(), found.problems)
    lost = models is not None and preset is None
    scope = _Checker(spec, preset, found, (), lost).check(own_preset=models is None)
    _stop_at(found.problems)
    flat = flatten(scope)
    _stop_at(flat.problems)
    parents = _parents(flat)
    order = side_by_side(list(TopologicalSorter(parents).static_order()), parents, flat.nodes)
    graph = Graph(
        scope.spec, scope.preset, flat.nodes, order, flat.outputs, flat.axes, flat.hidden, flat.files,
        overrides=settings,
    )  # fmt: skip
    _stop_at([_space_problem(conflict) for conflict in unify(graph.nodes)])
    graph.warnings.extend(dict.fromkeys(found.warnings))
    return graph


def _stop_at(problems: list[Diagnostic]) -> None:
    if problems:
        raise InvalidError(dict.fromkeys(problems))  # a sub-graph that is used twice reports its problems once


def _parents(flat: Flat) -> dict[str, list[str]]:
    parents = {name: list(node.parents) for name, node in flat.nodes.items()}
    for name, node in flat.nodes.items():
        lists = [edge for axis in node.axes for edge in flat.axes[axis].lists.values()]
        refs = [r for edge in lists for r in (edge if isinstance(edge, tuple) else (edge,))]
        parents[name] += [r.node for r in refs if r.node != "inputs"]
    return parents


def _space_problem(conflict: SpaceConflict) -> Diagnostic:
    message = (
        f"'{conflict.target}' lives in space {conflict.target_space} ({conflict.target_from}), "
        f"but {conflict.source} lives in {conflict.source_space} ({conflict.source_from})"
    )
    hint = "encode it again with the other family's model, or use one preset for both"
    return Diagnostic(conflict.mark, "GF112", message, hint)


def _preset(models: Any, mark: Mark, folder: Path | None, problems: list[Diagnostic]) -> Preset | None:
    try:
        return load_preset(models, mark, folder)
    except InvalidError as error:
        problems.extend(error.diagnostics)
        return None


@dataclass
class _Findings:
    """What the check of all files has found; `scopes` are the sub-graphs that are checked already."""

    problems: list[Diagnostic] = field(default_factory=list)
    warnings: list[Diagnostic] = field(default_factory=list)
    scopes: dict[tuple[str, int, bool, str], Scope | None] = field(default_factory=dict)


class _Checker:
    """Checks one file.

    Args:
        stack: the places of the files that use it.
        lost: its preset is wrong, which is reported: what it lacks is not missed a second time.
    """

    def __init__(
        self, spec: GraphSpec, preset: Preset | None, found: _Findings, stack: tuple[str, ...], lost: bool
    ) -> None:  # fmt: skip
        self.spec, self.found, self.stack, self.lost = spec, found, (*stack, spec.place), lost
        self.problems = found.problems
        self.scope = Scope(spec, preset)
        self.good = True

    def check(self, own_preset: bool) -> Scope:
        """Check the file; with `own_preset` its `models:` counts, otherwise that of the graph around it."""
        if own_preset and self.scope.preset is None and self.spec.models is not None:
            self.scope.preset = _preset(self.spec.models, self.spec.models_mark, self.spec.folder, self.problems)
            self.lost = self.scope.preset is None
            self.good &= not self.lost
        for node in self.spec.nodes.values():
            unit = self.unit(node)
            if unit is not None:
                self.scope.nodes[node.name] = ScopeNode(node, unit)
        for declared in self.spec.inputs.values():
            self.default(declared)
        for found in self.scope.nodes.values():
            self.node(found)
        for name, ref in self.spec.outputs.items():
            port = self.source_port(ref, f"output '{name}'")
            if port is not None:
                self.scope.output_ports[name] = port
        self.circles()
        self.unused()
        self.scope.size = sum(n.unit.size if isinstance(n.unit, Scope) else 1 for n in self.scope.nodes.values())
        return self.scope

    def default(self, declared: InputSpec) -> None:
        plain = declared.type.codec == "json"
        if declared.has_default and (plain or declared.type.codec in ("image", EXTERNAL)):
            try:
                read_constant(declared.default, declared if plain else replace(declared, type=TEXT))
                # Whether the file is there is a matter of the plan: it may be given with -i.
                if not plain and (stray := declared.strays()) is not None:
                    raise ValueError(f"lies outside the graph's folder: {stray}")
            except ValueError as error:
                message = f"the default of input '{declared.name}' ({declared.describe()}) {error}"
                self.problem(declared.mark, "GF130", message)

    def unit(self, node: NodeSpec) -> type[Node] | Scope | None:
        found = registry.find(node.uses)
        if found is not None:
            return found
        place = subgraph_place(self.spec, node.uses)
        if place is not None:
            return self.subgraph(node, place)
        known = [*registry.all_kinds(), *shipped_graphs()]
        broken = "; ".join(f"the pack {name} is broken: {reason}" for name, reason in registry.broken_packs.items())
        hint = did_you_mean(node.uses, known) or broken or registry.NO_KIND
        self.problem(node.uses_mark, "GF101", f"node '{node.name}': there is no kind {shown(node.uses)}", hint)
        return None

    def subgraph(self, node: NodeSpec, place: str) -> Scope | None:
        """The graph that a node uses; one that is used several times is read and checked once."""
        if place in self.stack:
            circle = " → ".join([*self.stack[self.stack.index(place) :], place])
            self.problem(node.uses_mark, "GF117", f"graphs use each other in a circle: {circle}")
            return None
        if len(self.stack) > MAX_NESTING:
            self.problem(node.uses_mark, "GF117", f"graphs are nested more than {MAX_NESTING} deep")
            return None
        same = (
            place,
            id(self.scope.preset),
            self.lost,
            json.dumps([dict(node.inside), dict(node.inside_marks)], sort_keys=True, default=repr),
        )
        if same not in self.found.scopes:
            self.found.scopes[same] = self.load(node)
        found = self.found.scopes[same]
        self.good &= found is not None
        if found is not None and found.size > MAX_NODES:
            message = (
                f"the graph {shown(node.uses)} has {found.size:,} nodes with its sub-graphs; at most {MAX_NODES:,}"
            )
            self.problem(node.uses_mark, "GF117", message)
            return None
        return found

    def load(self, node: NodeSpec) -> Scope | None:
        try:
            spec = override(load_subgraph(self.spec, node.uses, node.uses_mark), node.inside, node.inside_marks)
        except InvalidError as error:
            self.problems.extend(error.diagnostics)
            return None
        checker = _Checker(spec, self.scope.preset, self.found, self.stack, self.lost)
        return checker.check(own_preset=self.scope.preset is None and not self.lost)

    def node(self, node: ScopeNode) -> None:
        spec = node.spec
        for name, edge in spec.inputs.items():
            port = self.target_port(node, name)
            if port is None:
                continue
            if isinstance(edge, Ref) and edge.node == "models":
                self.named_model(node, port, edge)
            elif self.fits(edge, port, spec):
                node.edges[name] = edge
        for port in node.unit.inputs().values():
            if port.name in spec.inputs or port.name in spec.parameters:
                continue
            if port.role is not None:
                self.default_model(node, port)
            elif not port.optional:
                hint = f"add 'in: {{{port.name}: node.port}}'"
                message = f"'{spec.name}.{port.name}' ({port.describe()}) is not connected"
                self.problem(spec.mark, "GF106", message, hint)
        for name in spec.parameters:
            self.constant(node, name)
        if isinstance(node.unit, Scope):
            self.subgraph_constants(node, node.unit)
        else:
            self.parameters(node, node.unit)

    def target_port(self, node: ScopeNode, name: str) -> Port | None:
        mark = node.spec.input_marks[name]
        try:
            port = node.port(name)
        except TypeError as error:
            self.problem(mark, "GF104", str(error))
            return None
        if port is None:
            hint = did_you_mean(name, node.names) or f"{node.unit.kind} has: {', '.join(node.names)}"
            self.problem(mark, "GF104", f"node '{node.spec.name}' has no input or parameter {shown(name)}", hint)
        return port

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
        elif (node := self.scope.nodes.get(ref.node)) is not None:
            return self.output_port(node, ref)
        return None

    def output_port(self, node: ScopeNode, ref: Ref) -> Port | None:
        outputs = node.unit.outputs()
        port = outputs.get(ref.port)
        if port is None:
            if isinstance(node.unit, Scope) and ref.port in node.unit.spec.outputs:
                return None  # what feeds it is wrong, and reported
            listed = ", ".join(f"{p.name}: {p.describe()}" for p in outputs.values())
            hint = did_you_mean(ref.port, outputs, ref.node + ".{}")
            message = f"node '{ref.node}' has no output {shown(ref.port)}; it has: {listed}"
            self.problem(ref.mark, "GF103", message, hint)
            return None
        if not node.spec.mapped:
            return port
        if port.is_list:
            message = f"node '{ref.node}' is mapped and {ref} is a list already: a list of lists can't follow an edge"
            self.problem(ref.mark, "GF116", message, "put both steps into a sub-graph and map that")
            return None
        return replace(port, is_list=True)

    def fits(self, edge: Edge, port: Port, spec: NodeSpec) -> bool:
        what = f"'{spec.name}.{port.name}'"
        refs = edge if isinstance(edge, tuple) else (edge,)
        mapped = port.name in spec.mapped
        if mapped and port.is_list:
            mark = spec.input_marks[port.name]
            message = f"{what} takes the whole {port.describe()}; a map would need a list of lists"
            self.problem(mark, "GF116", message, f"move '{port.name}' from 'map:' to 'in:'")
            return False
        if isinstance(edge, tuple) and not port.is_list and not mapped:
            mark = spec.input_marks[port.name]
            self.problem(mark, "GF105", f"{what} takes one {port.describe()}, found a list of edges")
            return False
        # What an edge has to bring: one element of the list that is written out, or the list itself.
        element = replace(port, is_list=False)
        expected = element if isinstance(edge, tuple) else replace(element, is_list=port.is_list or mapped)
        found = [self.fits_one(ref, expected, spec, what) for ref in refs]  # each reports what is wrong with it
        return all(found)

    def fits_one(self, ref: Ref, expected: Port, spec: NodeSpec, what: str) -> bool:
        source = self.source_port(ref, what)
        if source is None or _accepts(expected, source):
            return source is not None
        name, hint = expected.name, ""
        if name in spec.mapped and not source.is_list:
            hint = f"a single value is given to every element: move '{name}' from 'map:' to 'in:'"
        elif expected.is_list and _accepts(replace(expected, is_list=False), source):
            hint = f"write a list: {name}: [{ref}]"
        elif source.is_list and _accepts(replace(expected, is_list=True), source):
            hint = f"to run the node for each element, write 'map: {{{name}: {ref}}}'"
        self.problem(ref.mark, "GF105", f"{what} takes {expected.describe()}, but {ref} is {source.describe()}", hint)
        return False

    def named_model(self, node: ScopeNode, port: Port, ref: Ref) -> None:
        name, preset = node.spec.name, self.scope.preset
        if port.role is None:
            self.problem(ref.mark, "GF105", f"'{name}.{port.name}' takes {port.describe()}, but {ref} is a model")
        elif preset is not None:
            found = preset.models.get(ref.port)
            if found is None:
                hint = did_you_mean(ref.port, preset.models, "models.{}")
                message = f"preset '{preset.name}' has no model '{ref.port}'"
                self.problem(ref.mark, "GF121", message, hint or f"it has: {', '.join(preset.models)}")
            elif found.role != port.role:
                message = f"'{name}.{port.name}' takes a {port.role}, but {ref} is a {found.role}"
                self.problem(ref.mark, "GF105", message)
            else:
                node.models[port.name] = found

    def default_model(self, node: ScopeNode, port: Port) -> None:
        assert port.role is not None
        spec, preset = node.spec, self.scope.preset
        if preset is None:
            if self.good and not self.lost and not port.optional:
                hint = "add 'models: pocket', or run with --models"
                message = f"'{spec.name}.{port.name}' needs a {port.role}, but no preset is set"
                self.problem(spec.mark, "GF121", message, hint)
        elif port.role in preset.models:
            node.models[port.name] = preset.models[port.role]
        elif not port.optional:
            hint = did_you_mean(port.role, preset.models) or f"it has: {', '.join(preset.models)}"
            message = f"'{spec.name}.{port.name}' needs a {port.role}; preset '{preset.name}' has none"
            self.problem(spec.mark, "GF121", message, hint)

    def constant(self, node: ScopeNode, name: str) -> None:
        """Check that a name under `with:` is a parameter."""
        spec, value = node.spec, node.spec.parameters[name]
        known = node.parameters
        if name not in known:
            if name in node.unit.inputs():
                hint = "ports are fed by edges, under 'in:'"
            else:
                hint = did_you_mean(name, known) or f"{node.unit.kind} has: {', '.join(known) or 'none'}"
            message = f"node '{spec.name}' ({node.unit.kind}) has no parameter {shown(name)}"
            self.problem(spec.parameter_marks[name], "GF107", message, hint)
        elif self.looks_like_edge(value):
            hint = f"to connect it, write 'in: {{{name}: {value}}}'"
            message = f"'{spec.name}.{name}' is the text {shown(value)}, not an edge"
            self.problem(spec.parameter_marks[name], "GF109", message, hint)
        else:
            node.constants[name] = value

    def parameters(self, node: ScopeNode, cls: type[Node]) -> None:
        spec = node.spec
        try:
            # Strict, as JSON: "3" and true are no numbers here, a list may be a tuple.
            cls.model_validate_json(json.dumps(node.constants), strict=True)
        except ValidationError as error:
            for found in error.errors():
                name = str(found["loc"][0]) if found["loc"] else ""
                if name in spec.inputs and found["type"] == "missing":
                    continue
                where = spec.parameter_marks.get(name, spec.mark)
                given = "nothing" if found["type"] == "missing" else shown(found["input"])
                message = f"'{spec.name}.{name}': {found['msg'].lower()}, found {given}"
                info = cls.model_fields.get(name)
                self.problem(where, "GF108", message, info.description or "" if info else "")

    def subgraph_constants(self, node: ScopeNode, scope: Scope) -> None:
        for name, value in node.constants.items():
            declared = scope.spec.inputs[name]
            try:
                node.constants[name] = read_constant(value, declared)
            except ValueError as error:
                message = f"'{node.spec.name}.{name}' ({declared.describe()}) {error}"
                self.problem(node.spec.parameter_marks[name], "GF108", message, declared.doc)

    def parents(self) -> dict[str, list[str]]:
        return {
            name: [r.node for e in node.edges.values() for r in (e if isinstance(e, tuple) else (e,))]
            for name, node in self.scope.nodes.items()
        }

    def unused(self) -> None:
        """Warn of nodes that no output of their own file needs."""
        parents = self.parents()
        stack = [ref.node for ref in self.spec.outputs.values()]
        needed: set[str] = set()
        while stack:
            name = stack.pop()
            if name not in needed:
                needed.add(name)
                stack += parents.get(name, [])
        for name in self.scope.nodes:
            if name not in needed:
                mark, message = self.spec.nodes[name].mark, f"no output needs node '{name}': it will not run"
                self.found.warnings.append(Diagnostic(mark, "GF150", message, severity="warning"))

    def circles(self) -> None:
        parents = self.parents()
        sorter = TopologicalSorter({n: [p for p in found if p in parents] for n, found in parents.items()})
        try:
            sorter.prepare()
        except CycleError as error:
            circle = list(reversed(error.args[1]))
            mark = self.spec.nodes[circle[0]].mark
            if len(circle) > LONGEST_CIRCLE:
                circle = [*circle[: LONGEST_CIRCLE - 2], "…", circle[-1]]
            self.problem(mark, "GF110", f"nodes feed each other in a circle: {' → '.join(circle)}")

    def looks_like_edge(self, value: Any) -> bool:
        match = _EDGE_LIKE.fullmatch(value) if isinstance(value, str) else None
        return match is not None and (match[1] in self.spec.nodes or match[1] == "inputs")

    def problem(self, mark: Mark, code: str, message: str, hint: str = "") -> None:
        self.problems.append(Diagnostic(mark, code, message, hint))
        self.good = False


def _accepts(port: Port, source: Port) -> bool:
    """Whether a value of `source` may enter `port`."""
    if source.is_list != port.is_list:
        return False
    if isinstance(port.type, ModelRole):
        return isinstance(source.type, PortType) and source.type.name == f"Weights[{port.type.role}]"
    assert isinstance(source.type, PortType)
    return source.type.name == port.type.name or (source.type.name, port.type.name) in CONVERSIONS
