"""From a bench file to one ordinary graph, so that the engine gives it caching, resuming and plans.

The data set is one node. Each method is a sub-graph that is mapped over its lists: `edit` makes the picture, `scores`
measures it, so that an instance is called ``prompt_swap[3]/edit/decode`` or ``prompt_swap[3]/scores/kept``. A metric of
whole sets stands beside the methods and takes what its `each` has made of every picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from graphflow.bench.data import data_node
from graphflow.bench.names import DATA, column_of, how_of, scores_of
from graphflow.bench.spec import IMAGE, BenchSpec, Method, Metric, Use
from graphflow.bench.units import Feeder, Feeding, Unit, graph, node_of, preset_path, unit_of
from graphflow.errors import Diagnostic, InvalidError, Mark
from graphflow.ports import PORT_TYPES, Port, PortType, type_by_name
from graphflow.spec import GraphSpec, InputSpec, NodeSpec, Ref

SET_DEFAULTS = {"features": IMAGE, "how": IMAGE}


@dataclass(frozen=True)
class Compiled:
    """The graph of a bench.

    Attributes:
        methods: those that run.
        missing: method or metric → why it can't be had of this data set.
        metrics: those that score.
        sets: those among them that compare whole sets.
        columns: the data set's columns that hold something, by name.
    """

    spec: GraphSpec
    methods: Mapping[str, Method]
    metrics: Mapping[str, Metric]
    sets: frozenset[str]
    missing: Mapping[str, str]
    columns: Mapping[str, Port]


def compile_bench(
    bench: BenchSpec, columns: Mapping[str, Port], empty: frozenset[str], lacking: Mapping[str, str] | None = None
) -> Compiled:
    """The graph of a bench.

    Args:
        bench: the bench file.
        columns: the data set's lists.
        empty: those that hold nothing, as far as that is known.
        lacking: methods and metrics that can't run on this machine → why; they are left out.

    Raises:
        InvalidError: with every problem that is found before the graph's own check.
    """
    return _Compiler(bench, columns, empty, lacking or {}).compile()


@dataclass
class _Group:
    """Metrics that share a preset: a sub-graph that scores one picture."""

    models: str | None
    models_mark: Mark | None
    nodes: dict[str, NodeSpec] = field(default_factory=dict)
    outputs: dict[str, Ref] = field(default_factory=dict)
    columns: dict[str, None] = field(default_factory=dict)


class _Compiler:
    def __init__(
        self, bench: BenchSpec, columns: Mapping[str, Port], empty: frozenset[str], lacking: Mapping[str, str]
    ) -> None:
        self.bench, self.columns = bench, columns
        self.problems: list[Diagnostic] = []
        self.feeder = Feeder(columns, empty, self.problems)
        self.missing: dict[str, str] = dict(lacking)
        self.groups: dict[str, _Group] = {}
        self.metrics: dict[str, Metric] = {}
        self.sets: dict[str, dict[str, tuple[str, str]]] = {}  # set metric → port → column, output of its `each`
        self.nodes: dict[str, NodeSpec] = {}
        self.outputs: dict[str, Ref] = {}
        self.subgraphs: dict[str, GraphSpec] = {}
        self.empty = empty

    def compile(self) -> Compiled:
        unit = unit_of(self.bench, self.bench.data, "'data:'")
        node, inputs = data_node(self.bench, unit)
        self.nodes[DATA] = node
        for metric in self.bench.metrics.values():
            self.guard(self.add_metric, metric)
        methods = {m.name: m for m in self.bench.methods.values() if self.guard(self.add_method, m)}
        if self.problems:
            raise InvalidError(self.problems)
        self.add_references()
        present = {name: port for name, port in self.columns.items() if name not in self.empty}
        self.outputs |= {column_of(name): Ref(DATA, name, self.bench.data.mark) for name in present}
        models, mark = preset_path(self.bench, self.bench.data.models), self.bench.data.models_mark
        spec = graph(self.bench, "", inputs, self.nodes, self.outputs, models, mark, self.subgraphs)
        return Compiled(spec, methods, self.metrics, frozenset(self.sets), self.missing, present)

    def guard(self, add: object, entry: Method | Metric) -> bool:
        """Add a method or a metric; what it can't be made of is noted."""
        assert callable(add)
        if entry.name in self.missing:
            return False
        try:
            return bool(add(entry))
        except InvalidError as error:
            self.problems.extend(error.diagnostics)
            return False

    def lacks(self, name: str, feeding: Feeding) -> bool:
        if feeding.lacking:
            listed = " and ".join(f"'{column}'" for column in feeding.lacking)
            self.missing[name] = f"the data set has no {listed}"
        return bool(feeding.lacking)

    # --- metrics --------------------------------------------------------------------------------------------------

    def add_metric(self, metric: Metric) -> bool:
        what = f"metric '{metric.name}'"
        unit = unit_of(self.bench, metric.use, what)
        score, how = self.score_ports(metric, unit, what)
        if metric.each is not None:
            return self.add_set_metric(metric, unit, metric.each, what)
        feeding = self.feeder.metric(metric.use, unit, what)
        if self.lacks(metric.name, feeding):
            return False
        mark = metric.use.mark
        group = self.group(metric.name, metric.use)
        refs = {
            port: Ref("inputs", column, metric.use.input_marks.get(port, mark))
            for port, column in feeding.columns.items()
        }
        group.nodes[metric.name] = node_of(metric.name, metric.use, metric.use.uses, refs, mark)
        group.columns |= dict.fromkeys(c for c in feeding.columns.values() if c != IMAGE)
        group.outputs[metric.name] = Ref(metric.name, score, mark)
        if how:
            group.outputs[f"{metric.name}__how"] = Ref(metric.name, how, mark)
        self.metrics[metric.name] = metric
        return True

    def score_ports(self, metric: Metric, unit: Unit, what: str) -> tuple[str, str | None]:
        """The outputs that hold the scores and how they were made."""
        found = [n for n, t in unit.outputs.items() if (t.name == "Scores" if t is not None else n == "scores")]
        if not found:
            message = f"{what}: {metric.use.uses} gives no scores; it gives: {', '.join(unit.outputs)}"
            hint = "a metric is a node with an output of type Scores, or a graph with an output 'scores'"
            raise InvalidError([Diagnostic(metric.use.mark, "GF166", message, hint)])
        return ("scores" if "scores" in found else found[0]), "how" if "how" in unit.outputs else None

    def group(self, metric: str, use: Use) -> _Group:
        """The sub-graph that a metric belongs to: with a preset of its own it stands alone."""
        if use.models is not None:
            found = _Group(preset_path(self.bench, use.models), use.models_mark)
            return self.groups.setdefault(f"scores_{metric}", found)
        models, mark = self.bench.metric_models, self.bench.metric_models_mark
        if models is None:
            models, mark = self.bench.models, self.bench.models_mark
        return self.groups.setdefault("scores", _Group(preset_path(self.bench, models), mark))

    def add_set_metric(self, metric: Metric, unit: Unit, each: Use, what: str) -> bool:
        made = unit_of(self.bench, each, f"'each:' of {what}")
        if unit.kind is None or made.kind is None or "image" not in made.ports:
            message = f"{what} with 'each:' needs two kinds, of which the second takes an 'image'"
            raise InvalidError([Diagnostic(metric.use.mark, "GF166", message)])
        ports: dict[str, tuple[str, str]] = {}
        lacking: list[str] = []
        known = {**self.columns, IMAGE: None}
        for port in unit.kind.inputs().values():
            column = self.set_column(metric, port.name)
            if port.role is not None or column is None:
                continue
            if not self.feeder.exists(column, metric.use.input_marks.get(port.name, metric.use.mark), what, known):
                return False
            output = next((n for n, t in made.outputs.items() if t == port.type), None)
            if output is None:
                message = f"{what}: {each.uses} makes nothing of the type that '{port.name}' ({port.describe()}) takes"
                raise InvalidError([Diagnostic(each.mark, "GF166", message)])
            ports[port.name] = column, output
            lacking += [column] * (column in self.empty)
        for port in unit.kind.inputs().values():
            if not port.optional and port.role is None and port.name not in ports:
                hint = f"write 'in: {{{port.name}: COLUMN}}'; columns: {', '.join(known)}"
                message = f"nothing feeds '{port.name}' of {what}"
                raise InvalidError([Diagnostic(metric.use.mark, "GF168", message, hint)])
        if self.lacks(metric.name, Feeding({}, list(dict.fromkeys(lacking)))):
            return False
        self.sets[metric.name] = ports
        self.metrics[metric.name] = metric
        self.add_each(self.group(metric.name, metric.use), metric.name, each, ports, IMAGE)
        return True

    def set_column(self, metric: Metric, port: str) -> str | None:
        """The pictures whose features enter a port of a set metric."""
        if port in metric.use.inputs:
            return metric.use.inputs[port]
        return SET_DEFAULTS.get(port) or (self.set_column(metric, port[:-4]) if port.endswith("_how") else None)

    def add_each(
        self, group: _Group, metric: str, each: Use, ports: Mapping[str, tuple[str, str]], column: str
    ) -> None:
        """Let a group make what a set metric wants of a picture."""
        outputs = sorted({output for of, output in ports.values() if of == column})
        if outputs:
            group.nodes[metric] = node_of(
                metric, each, each.uses, {"image": Ref("inputs", column, each.mark)}, each.mark
            )
            group.outputs |= {f"{metric}__{output}": Ref(metric, output, each.mark) for output in outputs}

    def add_references(self) -> None:
        """The features of the data set's own pictures, once for all methods."""
        wanted: dict[str, dict[str, None]] = {}
        for metric, ports in self.sets.items():
            for column, _ in ports.values():
                if column != IMAGE:
                    wanted.setdefault(column, {})[metric] = None
        for column, metrics in wanted.items():
            for metric in metrics:
                found = self.metrics[metric]
                assert found.each is not None
                base = self.group(metric, found.use)
                group = _Group(base.models, base.models_mark)
                self.add_each(group, metric, found.each, self.sets[metric], column)
                self.add_mapped(
                    f"{column}__{metric}", self.group_graph(f"{column}__{metric}", group, [column]), [column]
                )

    # --- methods --------------------------------------------------------------------------------------------------

    def add_method(self, method: Method) -> bool:
        nodes: dict[str, NodeSpec] = {}
        graphs: dict[str, GraphSpec] = {}
        columns: dict[str, None] = {}
        if method.use is None:
            column = method.column or ""
            if not self.feeder.exists(column, method.mark, f"method '{method.name}'", self.columns):
                return False
            if self.lacks(method.name, Feeding({}, [column] * (column in self.empty))):
                return False
            columns[column], picture = None, Ref("inputs", column, method.mark)
        else:
            unit = unit_of(self.bench, method.use, f"method '{method.name}'")
            feeding = self.feeder.method(method.use, unit, f"method '{method.name}'")
            self.check_output(method, unit)
            if self.lacks(method.name, feeding):
                return False
            graphs["method"] = self.method_graph(method, method.use, unit, feeding)
            nodes["edit"] = self.edit_node(method.use, unit, feeding)
            columns |= dict.fromkeys(feeding.columns.values())
            picture = Ref("edit", method.output, method.mark)
        outputs = {} if method.is_baseline else {IMAGE: picture}
        for name, group in self.groups.items():
            graphs[name] = self.group_graph(f"{method.name}/{name}", group, [IMAGE, *group.columns])
            refs = {IMAGE: picture} | {c: Ref("inputs", c, method.mark) for c in group.columns}
            marks = dict.fromkeys(refs, method.mark)
            nodes[name] = NodeSpec(name, name, method.mark, method.mark, refs, {}, {}, marks)
            columns |= group.columns
            outputs |= {output: Ref(name, output, method.mark) for output in group.outputs}
        inputs = {c: InputSpec(c, self.type_of(c), False, method.mark) for c in columns}
        spec = graph(self.bench, method.name, inputs, nodes, outputs, subgraphs=graphs)
        self.add_mapped(method.name, spec, list(columns))
        self.outputs |= {
            f"{method.name}__{output}": Ref(method.name, output, method.mark) for output in self.shown(outputs)
        }
        for metric in self.sets:
            self.add_comparison(method, metric)
        return True

    def shown(self, outputs: Iterable[str]) -> list[str]:
        """The outputs of a method that a table can show; features are for set metrics only."""
        return [o for o in outputs if o.partition("__")[0] not in self.sets]

    def check_output(self, method: Method, unit: Unit) -> None:
        if method.output not in unit.outputs:
            message = f"method '{method.name}' has no output '{method.output}'; it has: {', '.join(unit.outputs)}"
            self.problems.append(Diagnostic(method.mark, "GF163", message, "'output: NAME' says which is the picture"))
        if method.use is not None and method.use.inside and unit.graph is None:
            message = f"'set:' of method '{method.name}' reaches inside a graph, and {method.use.uses} is a kind"
            self.problems.append(Diagnostic(method.mark, "GF163", message, "use 'with:'"))

    def method_graph(self, method: Method, use: Use, unit: Unit, feeding: Feeding) -> GraphSpec:
        """The method's graph with the preset that it shall have; a kind gets a graph around it."""
        models, mark = (use.models, use.models_mark) if use.models else (self.bench.models, self.bench.models_mark)
        models = preset_path(self.bench, models)
        place = f"{method.name}/edit"  # two methods of one graph may have different models
        if unit.graph is not None:
            found = replace(unit.graph, place=f"{unit.graph.place}@{method.name}")
            return found if models is None else replace(found, models=models, models_mark=mark or self.bench.mark)
        refs = {p: Ref("inputs", p, use.input_marks.get(p, method.mark)) for p in feeding.columns}
        inputs = {p: InputSpec(p, self.type_of(c), False, method.mark) for p, c in feeding.columns.items()}
        node = node_of("run", use, use.uses, refs, method.mark)
        outputs = {method.output: Ref("run", method.output, method.mark)}
        return graph(self.bench, place, inputs, {"run": node}, outputs, models, mark)

    def edit_node(self, use: Use, unit: Unit, feeding: Feeding) -> NodeSpec:
        refs = {p: Ref("inputs", c, use.input_marks.get(p, use.mark)) for p, c in feeding.columns.items()}
        if unit.graph is None:
            return NodeSpec("edit", "method", use.mark, use.mark, refs, {}, {}, dict.fromkeys(refs, use.mark))
        return node_of("edit", use, "method", refs, use.mark)

    def add_comparison(self, method: Method, metric: str) -> None:
        """A set metric of one method."""
        use, name = self.metrics[metric].use, scores_of(method.name, metric)
        refs = {
            port: Ref(method.name if column == IMAGE else f"{column}__{metric}", f"{metric}__{output}", use.mark)
            for port, (column, output) in self.sets[metric].items()
        }
        self.nodes[name] = node_of(name, use, use.uses, refs, use.mark)
        score, how = self.score_ports(self.metrics[metric], unit_of(self.bench, use, metric), metric)
        self.outputs[name] = Ref(name, score, use.mark)
        if how:
            self.outputs[how_of(method.name, metric)] = Ref(name, how, use.mark)

    # --- graphs ---------------------------------------------------------------------------------------------------

    def group_graph(self, place: str, group: _Group, columns: Iterable[str]) -> GraphSpec:
        inputs = {c: InputSpec(c, self.type_of(c), False, self.bench.mark) for c in columns}
        return graph(self.bench, place, inputs, group.nodes, group.outputs, group.models, group.models_mark)

    def add_mapped(self, name: str, spec: GraphSpec, columns: list[str]) -> None:
        """A sub-graph that runs once for each picture of the data set."""
        mark = self.bench.methods[name].mark if name in self.bench.methods else self.bench.mark
        refs = {column: Ref(DATA, column, mark) for column in columns}
        uses = f"each of {name}"  # no kind and no file has a name with spaces
        self.nodes[name] = NodeSpec(name, uses, mark, mark, refs, {}, {}, dict.fromkeys(refs, mark), frozenset(refs))
        self.subgraphs[uses] = spec

    def type_of(self, column: str) -> PortType:
        if column == IMAGE:
            return PORT_TYPES["Image"]
        found = type_by_name(self.columns[column].describe())
        assert found is not None
        return found[0]
