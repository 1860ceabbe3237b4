"""A graph made ready to plan and run: what the command line, and `graphflow.load` in Python, are made of."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from graphflow import devices, registry
from graphflow.check import check
from graphflow.errors import UsageError, did_you_mean
from graphflow.events import Event
from graphflow.executors.compute import Pools
from graphflow.explain import explain
from graphflow.graph import Graph
from graphflow.inputs import InputValue, Recorded, bind
from graphflow.mapped import EACH, map_over, without_lists
from graphflow.options import Options
from graphflow.placing import Wiring
from graphflow.plan import Plan
from graphflow.ports import EXTERNAL, type_by_name
from graphflow.record import InputRecord
from graphflow.run import Run, Runner
from graphflow.spec import GraphSpec, find_graph, load_spec, parse_spec
from graphflow.store import Store, Stored, default_folder


@dataclass
class Session:
    """A checked graph with a store and a device.

    Attributes:
        remembered: inputs that a record brought along; they stand in for inputs that are not given.
        wirings: what plans and runs of this session share.
        models: the preset that replaces the graph's own; a relative path begins at `models_folder`.
        pools: models that are loaded. They stay for the next run, as far as its budget allows; see `close`.
    """

    graph: Graph
    store: Store
    device: str = "cpu"
    dtype: str = "float32"
    remembered: Mapping[str, Any] = field(default_factory=dict)
    wirings: dict[str, Wiring] = field(default_factory=dict)
    models: str | None = None
    models_folder: Path | None = None
    pools: Pools = field(default_factory=dict)

    @property
    def numerics(self) -> str:
        """Device kind and dtype, as keys have it."""
        return f"{self.device.partition(':')[0]} {self.dtype}"

    def bind(self, given: Mapping[str, Any]) -> dict[str, InputValue]:
        """Bind the graph's inputs; see `graphflow.inputs.bind`.

        Raises:
            UsageError: an input that the graph is to be mapped over is not given.
        """
        remembered = {n: v for n, v in self.remembered.items() if n in self.graph.inputs}
        for name in self.graph.spec.mapped:
            if name not in given and name not in remembered:
                files = self.graph.inputs[name].type.codec == "image"
                how = f"name the files, such as --map {name}=FOLDER" if files else f"list the values: --map {name}=[…]"
                raise UsageError(f"--map {name}: {how}")
        hidden = {n: v for n, v in self.remembered.items() if n in self.graph.hidden}
        bound = bind(self.graph.inputs, {**remembered, **given}, self.store)
        return {**bound, **bind(self.graph.hidden, hidden, self.store)}

    def plan(self, options: Options | None = None, **given: Any) -> Plan:
        """What a run with these inputs would do."""
        return self.runner(given, options=options).plan()

    def why(self, node: str, **given: Any) -> list[str]:
        """Why a node is cached or must run, one line a finding."""
        return explain(self.graph, self.bind(given), self.store, self.numerics, node)

    def runner(
        self, given: Mapping[str, Any], emit: Callable[[Event], None] | None = None, options: Options | None = None
    ) -> Runner:
        """A runner for these inputs.

        Raises:
            UsageError: the options name a node that the graph does not have.
        """
        options = options or Options()
        for name in (*options.until, *options.refresh):
            if name not in self.graph.nodes:
                hint = did_you_mean(name, self.graph.nodes)
                known = ", ".join(self.graph.nodes)
                raise UsageError(f"the graph has no node '{name}'; it has: {known}" + (f"; {hint}" if hint else ""))
        return Runner(
            self.graph, self.bind(given), self.store, self.device, self.dtype, emit, options=options,
            wirings=self.wirings, pools=self.pools,
        )  # fmt: skip

    def close(self) -> None:
        """Let go of the loaded models."""
        for pool in self.pools.values():
            pool.close()
        self.pools.clear()

    def run(self, options: Options | None = None, **given: Any) -> Run:
        """Run; the result's outputs are read with ``result["image"]``."""
        return self.runner(given, options=options).run()


def open_session(
    graph: str,
    models: str | None = None,
    settings: Mapping[str, Any] | None = None,
    store: Path | None = None,
    device: str = "auto",
    dtype: str = "float32",
    nodes: Sequence[Path] = (),
    over: Sequence[str] = (),
) -> Session:
    """Read and check a graph.

    Args:
        graph: a shipped name, a YAML file, or a PNG or ``run.json`` that an earlier run wrote.
        models: preset that replaces the graph's own.
        settings: node parameters by ``node.parameter``.
        store: the store's folder; the user's own by default.
        device: auto, cpu, cuda, cuda:1, or several with commas
        dtype: floating-point type of the models.
        nodes: Python files with further nodes.
        over: inputs that become lists: the whole graph runs once for each of their elements.

    Raises:
        UsageError, InvalidError: see the exit codes.
    """
    if dtype not in devices.DTYPES:
        raise UsageError(f"--dtype {dtype}: expected one of {', '.join(devices.DTYPES)}")
    for path in nodes:
        registry.load_file(path)
    found = _read(graph)
    chosen, folder = (models, Path()) if models is not None else (found.preset, None)
    given = dict(settings or {})
    if over and not found.mapped:
        given, found.overrides = {**found.overrides, **given}, {}
    checked = check(found.spec, chosen, folder, {**found.overrides, **given} if not (over or found.mapped) else given)
    if over or found.mapped:
        spec, warnings = without_lists(found.spec, {n: checked.output_port(r) for n, r in checked.outputs.items()})
        inside = {f"{EACH}/{name}": value for name, value in given.items()}
        checked = check(map_over(spec, over or found.mapped), chosen, folder, {**found.overrides, **inside})
        checked.warnings.extend(warnings)
    if over:  # a record has a list of what its own run was mapped over, and of nothing else
        mapped = set(found.mapped).symmetric_difference(over)
        found.remembered = {name: value for name, value in found.remembered.items() if name not in mapped}
    opened = Store(store or default_folder())
    return Session(
        checked, opened, devices.several(device), dtype, found.remembered, models=chosen, models_folder=folder
    )  # fmt: skip


@dataclass
class _Found:
    """A graph that the user named, and what a record of an earlier run brings along."""

    spec: GraphSpec
    remembered: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    preset: str | None = None
    mapped: Sequence[str] = ()


def _read(graph: str) -> _Found:
    path = Path(graph)
    if path.suffix.lower() not in (".png", ".json"):
        found = find_graph(graph)
        return _Found(load_spec(found))
    from graphflow.provenance import read

    record = read(path)
    if record is None:
        raise UsageError(f"{graph} was not made by graphflow: it holds no graph")
    spec = parse_spec(record.text, path.name, library=record.files)
    if re.fullmatch(r"\w[\w.-]*", record.graph):  # it names the out folder, and may come from anybody
        spec = replace(spec, name=record.graph)
    values = {name: _remembered(entry, path.parent.absolute()) for name, entry in record.inputs.items()}
    values = {name: value for name, value in values.items() if value is not None}
    preset = record.preset if isinstance(record.preset, str) else None
    return _Found(spec, values, record.overrides, preset, record.mapped)


def _remembered(entry: InputRecord, folder: Path) -> Any:
    """The value of an input as a record in a folder has it; None when the record does not say."""
    found = type_by_name(entry.type)
    if found is None:
        return None
    if found[0].codec == "json":
        return entry.value
    if found[0].codec == EXTERNAL:
        return None  # a record does not know where the folder lies
    if entry.digest is None:
        return None
    # A picture itself is not in the record; the store of the machine that ran it still has it.
    items = tuple(entry.items) if entry.items is not None else None
    return Recorded.of(Stored(entry.digest, found[0].codec, 0, items), entry.source, folder)
