"""The data set of a bench as a node."""

from __future__ import annotations

from dataclasses import replace

from graphflow.bench.names import DATA
from graphflow.bench.spec import BenchSpec
from graphflow.bench.units import Unit, graph, node_of, preset_path, unit_of
from graphflow.errors import Mark, UsageError
from graphflow.ports import PortType
from graphflow.spec import GraphSpec, InputSpec, NodeSpec, Ref


def with_limit(bench: BenchSpec, limit: int | None) -> BenchSpec:
    """The same bench with at most `limit` pictures, of all edit types alike where the data set can do that.

    Raises:
        UsageError: the data set can't be limited.
    """
    if limit is None:
        return bench
    known = unit_of(bench, bench.data, "'data:'").parameters
    if "limit" not in known:
        raise UsageError(f"--limit {limit}: {bench.data.uses} has no parameter or plain input 'limit'")
    marks = {**bench.data.parameter_marks, "limit": Mark("--limit")}
    balance = {"balanced": True} if "balanced" in known else {}
    parameters = {**balance, **bench.data.parameters, "limit": limit}
    return replace(bench, data=replace(bench.data, parameters=parameters, parameter_marks=marks))


def data_graph(bench: BenchSpec) -> GraphSpec:
    """The data set alone.

    Raises:
        InvalidError: there is no such data set.
    """
    unit = unit_of(bench, bench.data, "'data:'")
    outputs = {name: Ref(DATA, name, bench.data.mark) for name in unit.outputs}
    node, inputs = data_node(bench, unit)
    return graph(
        bench, "", inputs, {DATA: node}, outputs, preset_path(bench, bench.data.models), bench.data.models_mark
    )


def data_node(bench: BenchSpec, unit: Unit) -> tuple[NodeSpec, dict[str, InputSpec]]:
    """The data set's node, and the inputs that the user gives it: a folder is called `data`."""
    inputs: dict[str, InputSpec] = {}
    edges: dict[str, str] = {}
    for port, required in unit.ports.items():
        if not required or port in bench.data.parameters:
            continue
        name = DATA if port == "folder" else port
        if unit.graph is not None:
            inputs[name] = replace(unit.graph.inputs[port], name=name)
        else:
            assert unit.kind is not None
            declared = unit.kind.inputs()[port]
            assert isinstance(declared.type, PortType)
            inputs[name] = InputSpec(name, declared.type, declared.is_list, bench.data.mark)
        edges[port] = name
    refs = {port: Ref("inputs", name, bench.data.mark) for port, name in edges.items()}
    return node_of(DATA, bench.data, bench.data.uses, refs, bench.data.mark), inputs
