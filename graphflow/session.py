"""A graph made ready to plan and run: what the command line, and `graphflow.load` in Python, are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphflow import devices, registry
from graphflow.check import check
from graphflow.errors import UsageError
from graphflow.events import Event
from graphflow.graph import Graph
from graphflow.inputs import InputValue, bind
from graphflow.plan import Plan, explain, make_plan
from graphflow.run import Run, Runner
from graphflow.spec import GraphSpec, find_graph, load_spec, parse_spec
from graphflow.store import Store, Stored, default_folder


@dataclass
class Session:
    """A checked graph with a store and a device.

    Attributes:
        remembered: inputs that a record brought along; they stand in for inputs that are not given.
    """

    graph: Graph
    store: Store
    device: str = "cpu"
    dtype: str = "float32"
    remembered: Mapping[str, Any] = field(default_factory=dict)

    @property
    def numerics(self) -> str:
        """Device kind and dtype, as keys have it."""
        return f"{self.device.partition(':')[0]} {self.dtype}"

    def bind(self, given: Mapping[str, Any]) -> dict[str, InputValue]:
        """Bind the graph's inputs; see `graphflow.inputs.bind`."""
        return bind(self.graph.spec, {**self.remembered, **given}, self.store)

    def plan(self, **given: Any) -> Plan:
        """What a run with these inputs would do."""
        return make_plan(self.graph, self.bind(given), self.store, self.numerics)

    def why(self, node: str, **given: Any) -> list[str]:
        """Why a node is cached or must run, one line a finding."""
        if node not in self.graph.nodes:
            raise UsageError(f"the graph has no node '{node}'; it has: {', '.join(self.graph.nodes)}")
        return explain(self.graph, self.bind(given), self.store, self.numerics, node)

    def runner(self, given: Mapping[str, Any], emit: Callable[[Event], None] | None = None) -> Runner:
        """A runner for these inputs."""
        return Runner(self.graph, self.bind(given), self.store, self.device, self.dtype, emit)

    def run(self, **given: Any) -> Run:
        """Run; the result's outputs are read with ``result["image"]``."""
        return self.runner(given).run()


def open_session(
    graph: str,
    models: str | None = None,
    settings: Mapping[str, Any] | None = None,
    store: Path | None = None,
    device: str = "auto",
    dtype: str = "float32",
    nodes: Sequence[Path] = (),
) -> Session:
    """Read and check a graph.

    Args:
        graph: a shipped name, a YAML file, or a PNG or ``run.json`` that an earlier run wrote.
        models: preset that replaces the graph's own.
        settings: node parameters by ``node.parameter``.
        store: the store's folder; the user's own by default.
        device: auto, cpu, cuda, cuda:1, …
        dtype: floating-point type of the models.
        nodes: Python files with further nodes.

    Raises:
        UsageError, InvalidError: see the exit codes.
    """
    if dtype not in devices.DTYPES:
        raise UsageError(f"--dtype {dtype}: expected one of {', '.join(devices.DTYPES)}")
    for path in nodes:
        registry.load_file(path)
    spec, remembered, overrides, preset = _read(graph)
    chosen = models if models is not None else preset
    checked = check(spec, chosen, Path() if models is not None else None, {**overrides, **(settings or {})})
    return Session(checked, Store(store or default_folder()), devices.resolve(device), dtype, remembered)


def _read(graph: str) -> tuple[GraphSpec, dict[str, Any], dict[str, Any], str | None]:
    path = Path(graph)
    if path.suffix.lower() not in (".png", ".json"):
        found = find_graph(graph)
        return load_spec(found), {}, {}, None
    from graphflow.provenance import read

    record = read(path)
    if record is None:
        raise UsageError(f"{graph} was not made by graphflow: it holds no graph")
    spec = parse_spec(record.text, f"{path.name}")
    values: dict[str, Any] = {}
    for name, entry in record.inputs.items():
        declared = spec.inputs.get(name)
        if declared is None:
            continue
        if declared.type.codec == "json":
            values[name] = entry.value
        elif entry.digest is not None:
            # The picture itself is not in the record; the store of the machine that ran it still has it.
            values[name] = Stored(entry.digest, declared.type.codec)
    preset = record.preset if isinstance(record.preset, str) else None
    return spec, values, record.overrides, preset
