"""A bench that is ready to plan and run. The data set comes first: what it has decides what can be scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from graphflow import devices, registry
from graphflow.bench.compiled import Compiled, compile_bench
from graphflow.bench.data import data_graph, with_limit
from graphflow.bench.memory import PeakMemory
from graphflow.bench.names import owner_of
from graphflow.bench.reader import load_bench
from graphflow.bench.settings import with_settings
from graphflow.bench.spec import BenchSpec, find_bench
from graphflow.bench.units import unit_of
from graphflow.check import check
from graphflow.errors import Diagnostic, InvalidError, MissingError, UsageError, did_you_mean
from graphflow.events import Bus, Event
from graphflow.known import Known, UnknownError
from graphflow.models.files import missing
from graphflow.options import Options
from graphflow.plan import Plan
from graphflow.ports import Port
from graphflow.run import Run
from graphflow.session import Session
from graphflow.store import Store, default_folder

Emit = Callable[[Event], None]


@dataclass
class Ready:
    """The bench's whole graph, checked; `given` are its inputs, `memory` has the methods' peaks after a run."""

    compiled: Compiled
    session: Session
    given: Mapping[str, Any]
    memory: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Bench:
    """A bench file with its data set.

    Attributes:
        data: a session of the data set alone.
    """

    spec: BenchSpec
    data: Session

    def check(self) -> Compiled:
        """Check everything that the file says, whatever data and models this machine has.

        Raises:
            InvalidError: methods, metrics or columns don't fit together.
        """
        return self._checked({}, frozenset(), {}).compiled

    def plan(self, given: Mapping[str, Any]) -> tuple[Ready, Plan]:
        """What a run would do; where the data set has not been read yet, its pictures can't be told apart.

        Raises:
            InvalidError: methods, metrics or columns don't fit together.
        """
        made = self.data.plan(Options(until=tuple(self._data_nodes())), **given)
        ready = self._ready(given, self._empty(made.known))
        return ready, ready.session.plan(**given)

    def run(
        self, given: Mapping[str, Any], emit: Emit | None = None, keep_going: bool = True,
        memory: int | None = None, batch: int | None = None,
    ) -> tuple[Ready, Run]:  # fmt: skip
        """Read the data set, then run everything.

        Args:
            given: values of the graph's inputs, such as the data set's folder.
            emit: receives the events.
            keep_going: a picture that fails does not stop the others.
            memory: bytes that models and computing may take on each device.
            batch: elements in one call; see `graphflow.options.Options`.

        Raises:
            InvalidError: methods, metrics or columns don't fit together.
            GraphflowError: as `graphflow.run.Runner.run`.
        """
        runner = self.data.runner(given, emit)
        runner.run()
        ready = self._ready(given, self._empty(runner.known))
        peak = PeakMemory(self.data.device.partition(",")[0])
        both = Bus(peak, *([emit] if emit is not None else []))
        options = Options(keep_going=keep_going, memory=memory, batch=batch)
        done = ready.session.runner(given, both, options).run()
        return replace(ready, memory=peak.peaks), done

    def _ready(self, given: Mapping[str, Any], empty: frozenset[str]) -> Ready:
        ready = self._checked(given, empty, {})
        lacking = _without_models(ready)
        return self._checked(given, empty, lacking) if lacking else ready

    def _checked(self, given: Mapping[str, Any], empty: frozenset[str], lacking: Mapping[str, str]) -> Ready:
        compiled = compile_bench(self.spec, self.columns, empty, lacking)
        if not compiled.methods or not compiled.metrics:
            reasons = "\n".join(f"  {name}: {why}" for name, why in compiled.missing.items())
            raise MissingError(f"there is nothing to compare:\n{reasons}")
        return Ready(compiled, replace(self.data, graph=check(compiled.spec), wirings={}), given)

    @property
    def columns(self) -> dict[str, Port]:
        """The lists of the data set."""
        ports = {n: self.data.graph.output_port(ref) for n, ref in self.data.graph.outputs.items()}
        return {name: port for name, port in ports.items() if port.is_list}

    def _data_nodes(self) -> list[str]:
        return list(dict.fromkeys(ref.node for ref in self.data.graph.outputs.values()))

    def _empty(self, known: Known) -> frozenset[str]:
        """The columns without an element, as far as they are known."""
        out = set()
        for name in self.columns:
            try:
                stored = known.stored(self.data.graph.output_source(self.data.graph.outputs[name], known.length))
            except UnknownError:
                continue
            if stored.items == ():
                out.add(name)
        return frozenset(out)


def _without_models(ready: Ready) -> dict[str, str]:
    """The methods and metrics with something left to compute for which a model is not on this machine → which."""
    graph, owned = ready.session.graph, dict[str, list[str]]()
    for name in graph.nodes:
        owned.setdefault(owner_of(name)[1], []).append(name)
    lacking = [owner for owner, names in owned.items() if missing(graph.used_models(names, required=True))]
    if not lacking:
        return {}
    plan = ready.session.plan(**ready.given)
    active = {found.node for found in plan.nodes.values() if found.status != "cached"}
    out = {}
    for owner in lacking:
        lines = missing(graph.used_models([name for name in owned[owner] if name in active], required=True))
        if lines:
            out[owner] = f"not on this machine: {'; '.join(lines)}"
    return out


def open_bench(
    name: str,
    models: str | None = None,
    methods: Sequence[str] = (),
    limit: int | None = None,
    settings: Mapping[str, Any] | None = None,
    store: Path | None = None,
    device: str = "auto",
    dtype: str = "float32",
    nodes: Sequence[Path] = (),
) -> Bench:
    """Read a bench file and check its data set.

    Args:
        name: a shipped bench or a YAML file.
        models: preset that replaces that of the bench file; a relative path begins at the working folder.
        methods: only these; all if there is none.
        limit: at most so many pictures.
        settings: parameters by ``method.parameter``, ``metric.parameter``, ``data.parameter`` or, inside a method's
            graph, ``method/node.parameter``.
        store: the store's folder; the user's own by default.
        device: auto, cpu, cuda, cuda:1, or several with commas
        dtype: floating-point type of the models.
        nodes: Python files with further nodes.

    Raises:
        UsageError, InvalidError: see the exit codes.
    """
    if dtype not in devices.DTYPES:
        raise UsageError(f"--dtype {dtype}: expected one of {', '.join(devices.DTYPES)}")
    for path in nodes:
        registry.load_file(path)
    spec = load_bench(find_bench(name))
    if models is not None:
        spec = replace(spec, models=str(Path(models).absolute()) if models.endswith((".yaml", ".yml")) else models)
    spec = _chosen(with_limit(with_settings(spec, settings or {}), limit), methods)
    unit = unit_of(spec, spec.data, "'data:'")
    lists = unit.kind is None or any(port.is_list for port in unit.kind.outputs().values())
    if lists:
        graph = check(data_graph(spec))
        found = Bench(spec, Session(graph, Store(store or default_folder()), devices.several(device), dtype))
        if found.columns:
            return found
    hint = "a data set is a node with lists as outputs, such as those of `graphflow nodes dataset`"
    message = f"{spec.data.uses} gives no list; it gives: {', '.join(unit.outputs)}"
    raise InvalidError([Diagnostic(spec.data.mark, "GF164", message, hint)])


def _chosen(spec: BenchSpec, methods: Sequence[str]) -> BenchSpec:
    for name in methods:
        if name not in spec.methods:
            hint = did_you_mean(name, spec.methods)
            raise UsageError(f"--methods {name}: it has: {', '.join(spec.methods)}" + (f"; {hint}" if hint else ""))
    return replace(spec, methods={n: m for n, m in spec.methods.items() if not methods or n in methods})
