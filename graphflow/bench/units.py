"""What a bench file's `uses:` names: a kind or a graph, with the ports that can be fed, and what feeds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphflow import registry
from graphflow.bench.spec import IMAGE, BenchSpec, Use
from graphflow.errors import Diagnostic, InvalidError, Mark, did_you_mean, shown
from graphflow.node import Node
from graphflow.ports import CONVERSIONS, Port, PortType
from graphflow.spec import GraphSpec, InputSpec, NodeSpec, Ref, load_subgraph, shipped_graphs, subgraph_place

# What feeds a port that the file does not name. Ground truth and masks are never given to a method unasked.
OF_METHODS = {"image": "source", "before": "exemplar_before", "after": "exemplar_after"}
WITHHELD = frozenset({"target", "mask", "target_caption", "target_local_caption", "description"})
OF_METRICS = {
    "text": "target_caption", "source_text": "source_caption", "before": "exemplar_before", "after": "exemplar_after",
}  # fmt: skip


@dataclass(frozen=True)
class Unit:
    """A kind or a graph.

    Attributes:
        ports: what edges may feed → whether something must; models are not among them.
        types: the types of the ports that take a single value.
        parameters: what constants may set → whether something must.
        outputs: output → its type; None where only the check finds out.
        graph: None for a kind.
    """

    ports: Mapping[str, bool]
    types: Mapping[str, PortType]
    parameters: Mapping[str, bool]
    outputs: Mapping[str, PortType | None]
    graph: GraphSpec | None = None
    kind: type[Node] | None = None


def unit_of(bench: BenchSpec, use: Use, what: str) -> Unit:
    """Look up what a bench file names.

    Raises:
        InvalidError: there is no such kind or graph.
    """
    kind = registry.find(use.uses)
    if kind is not None:
        found = [p for p in kind.inputs().values() if p.role is None]
        ports = {p.name: not p.optional for p in found}
        single = {p.name: p.type for p in found if isinstance(p.type, PortType) and not p.is_list}
        parameters = {n: i.is_required() for n, i in kind.model_fields.items()}
        types = {p.name: p.type if isinstance(p.type, PortType) else None for p in kind.outputs().values()}
        return Unit(ports, single, parameters, types, kind=kind)
    around = graph(bench, "", {}, {}, {})
    if subgraph_place(around, use.uses) is None:
        hint = did_you_mean(use.uses, [*registry.all_kinds(), *shipped_graphs()])
        message = f"{what}: there is no kind or graph {shown(use.uses)}"
        raise InvalidError([Diagnostic(use.mark, "GF101", message, hint or registry.NO_KIND)])
    spec = load_subgraph(around, use.uses, use.mark)
    plain = {n: not i.has_default for n, i in spec.inputs.items() if i.type.codec == "json"}
    ports = {n: not i.has_default for n, i in spec.inputs.items()}
    single = {n: i.type for n, i in spec.inputs.items() if not i.is_list}
    return Unit(ports, single, plain, dict.fromkeys(spec.outputs), spec)


def graph(
    bench: BenchSpec,
    place: str,
    inputs: Mapping[str, InputSpec],
    nodes: Mapping[str, NodeSpec],
    outputs: Mapping[str, Ref],
    models: str | None = None,
    models_mark: Mark | None = None,
    subgraphs: Mapping[str, GraphSpec] | None = None,
) -> GraphSpec:
    """A graph that stands in no file; its paths begin at the bench file's folder."""
    return GraphSpec(
        bench.name, bench.title, bench.folder, inputs, models, models_mark or bench.mark, nodes, outputs, bench.mark,
        "", place, subgraphs=subgraphs or {},
    )  # fmt: skip


def node_of(
    name: str, use: Use, uses: str, inputs: Mapping[str, Ref], mark: Mark, mapped: frozenset[str] = frozenset()
) -> NodeSpec:
    """A node that stands for what a bench file names, fed by `inputs`; `mapped` are those that it runs along."""
    marks = {port: use.input_marks.get(port, mark) for port in inputs}
    return NodeSpec(
        name, uses, mark, use.mark, dict(inputs), use.parameters, use.parameter_marks, marks, mapped, use.inside,
        use.inside_marks,
    )  # fmt: skip


def preset_path(bench: BenchSpec, models: str | None) -> str | None:
    """A preset as a graph in any folder may name it."""
    if models is None or not models.endswith((".yaml", ".yml")):
        return models
    return str((bench.folder / Path(models)).absolute())


@dataclass
class Feeding:
    """What feeds a method or a metric.

    Attributes:
        columns: port or parameter → column of the data set.
        lacking: columns that it can't do without, and that are empty in this data set.
    """

    columns: dict[str, str]
    lacking: list[str]


class Feeder:
    """Decides what feeds the ports of methods and metrics.

    Args:
        known: all columns of the data set.
        empty: those that hold nothing.
        problems: takes what is wrong.
    """

    def __init__(self, known: Mapping[str, Port], empty: frozenset[str], problems: list[Diagnostic]) -> None:
        self.known, self.empty, self.problems = known, empty, problems

    def method(self, use: Use, unit: Unit, what: str) -> Feeding:
        """What feeds a method: what the file says, else the source picture, and columns by their names."""
        guess = {port: OF_METHODS.get(port, port) for port in unit.ports if port not in WITHHELD}
        return self.feed(use, unit, what, guess, self.known)

    def metric(self, use: Use, unit: Unit, what: str) -> Feeding:
        """What feeds a metric: what the file says, else the method's picture, and columns by their names."""
        guess = {port: OF_METRICS.get(port, port) for port in (*unit.ports, *_required(unit.parameters))}
        return self.feed(use, unit, what, guess, {**self.known, IMAGE: None})

    def feed(self, use: Use, unit: Unit, what: str, guess: Mapping[str, str], known: Mapping[str, Any]) -> Feeding:
        out = Feeding({}, [])
        for port, column in use.inputs.items():
            if column is not None and self.exists(column, use.input_marks[port], what, known):
                out.columns[port] = column
        for port, column in guess.items():
            taken = port in use.inputs or port in use.parameters
            if not taken and column in known and self.fits(port, column, unit):
                out.columns[port] = column
        must = {*_required(unit.ports), *_required(unit.parameters)} - use.parameters.keys()
        for port in sorted(must - out.columns.keys() - use.inputs.keys()):
            hint = f"write 'in: {{{port}: COLUMN}}'; columns: {', '.join(known)}"
            self.problems.append(Diagnostic(use.mark, "GF168", f"nothing feeds '{port}' of {what}", hint))
        for port, column in list(out.columns.items()):
            if column in self.empty:
                del out.columns[port]
                if port in must or port in use.inputs:
                    out.lacking.append(column)
        return out

    def fits(self, port: str, column: str, unit: Unit) -> bool:
        """Whether a column has the type of the port that would take it for its name: a prompt called `source` is none.

        Parameters take any column here; the graph's check looks at them.
        """
        wanted, found = unit.types.get(port), self.known.get(column)
        if found is None:
            return wanted is None or wanted.name == "Image"
        assert isinstance(found.type, PortType)
        if wanted is None:
            return port not in unit.ports
        return found.type == wanted or (found.type.name, wanted.name) in CONVERSIONS

    def exists(self, column: str, mark: Mark, what: str, known: Mapping[str, Any]) -> bool:
        """Whether the data set has a column; if not, a problem."""
        if column in known:
            return True
        hint = did_you_mean(column, known) or f"columns: {', '.join(known)}"
        message = f"{what} takes column {shown(column)}, which the data set does not have"
        self.problems.append(Diagnostic(mark, "GF165", message, hint))
        return False


def _required(names: Mapping[str, bool]) -> list[str]:
    return [name for name, must in names.items() if must]
