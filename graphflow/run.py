"""Running a graph: each instance once, in order, every result stored before the next node starts."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from graphflow.errors import Cancelled, GraphflowError, NodeError, StoreError, WouldRunError
from graphflow.events import (
    Bus,
    Event,
    Logged,
    NodeFailed,
    NodeFinished,
    NodeSkipped,
    NodeStarted,
    RunFinished,
    RunStarted,
)
from graphflow.execute import Executor, Job
from graphflow.explain import edge_text
from graphflow.graph import Gathered, Graph, GraphNode, Index, Place, Source
from graphflow.inputs import InputValue
from graphflow.known import UnknownError, places_of
from graphflow.models.files import require
from graphflow.models.preset import preset_data
from graphflow.placing import Placed, Placer, Wiring
from graphflow.plan import Plan, make_plan
from graphflow.record import ModelRecord, NodeRecord, RunRecord, ValueRecord
from graphflow.spec import Ref
from graphflow.store import Store, Stored
from graphflow.values import LostValueError, Values
from graphflow.version import __version__


@dataclass(frozen=True)
class Options:
    """How to run.

    Attributes:
        until: nodes whose results are wanted instead of the graph's outputs.
        only: run nothing but `until`: what it needs must be cached.
        refresh: nodes that are computed again whatever the store has.
        keep_going: go on with what doesn't need a node, or an element of a map, that has failed.
    """

    until: tuple[str, ...] = ()
    only: bool = False
    refresh: frozenset[str] = frozenset()
    keep_going: bool = False


@dataclass
class Run:
    """A finished run: its record, and its outputs on demand.

    Attributes:
        failures: with ``keep_going``, instance → message of those that failed.
    """

    record: RunRecord
    runner: Runner
    failures: dict[str, str]

    def __getitem__(self, output: str) -> Any:
        return self.runner.output(output)

    def elements(self, output: str) -> Iterator[tuple[int, Any]]:
        """The elements of a list output with their positions, one at a time; those that failed are left out."""
        return self.runner.elements(output)

    def record_of(self, output: str, position: int | None = None) -> RunRecord:
        """The record cut down to the instances that made an output, or one element of it."""
        kept = self.runner.ancestors(output, position)
        return self.record.model_copy(update={"nodes": {n: r for n, r in self.record.nodes.items() if n in kept}})


class Runner:
    """Executes one plan. `cancelled` may be set from another thread; the run stops between two steps.

    Whatever happens to the run, `record` describes it so far.
    """

    record: RunRecord

    def __init__(
        self,
        graph: Graph,
        inputs: Mapping[str, InputValue],
        store: Store,
        device: str = "cpu",
        dtype: str = "float32",
        emit: Callable[[Event], None] | None = None,
        on_preview: Callable[[str, Any], None] | None = None,
        options: Options | None = None,
        wirings: dict[str, Wiring] | None = None,
    ) -> None:
        self.graph, self.inputs, self.store = graph, inputs, store
        self.device, self.dtype = device, dtype
        self.emit = emit or Bus()
        self.on_preview = on_preview
        self.options = options or Options()
        self.cancelled = threading.Event()
        self.numerics = f"{device.partition(':')[0]} {dtype}"
        self._placer = Placer(store, self.numerics, {} if wirings is None else wirings, self.options.refresh)
        self._began = 0.0
        self._records: dict[str, NodeRecord] = {}
        self._failures: dict[str, str] = {}

    def plan(self) -> Plan:
        """What this run will do."""
        return make_plan(
            self.graph, self.inputs, self.store, self.numerics, self.options.until or None, self._placer
        )  # fmt: skip

    @property
    def outputs(self) -> Mapping[str, Ref]:
        """What the run returns: the graph's outputs, or all outputs of the nodes that are wanted instead."""
        if not self.options.until:
            return self.graph.outputs
        mark = self.graph.spec.mark
        return {
            f"{name}.{port}": Ref(name, port, mark)
            for name in self.options.until
            for port in self.graph.nodes[name].cls.outputs()
        }

    def run(self) -> Run:
        """Execute.

        Raises:
            WouldRunError: with ``only``, something else would have to run first; nothing has run.
            MissingError: a model that a node needs is not on this machine; nothing has run.
            NodeError: a node failed; what finished before is stored.
            KeyboardInterrupt, Cancelled: the run was stopped; what finished before is stored.
        """
        self._began = time.perf_counter()
        self.record = self._new_record()
        self._plan = plan = self.plan()
        active = list(dict.fromkeys(p.node for p in plan.nodes.values() if p.status != "cached"))
        self._check_only(plan)
        require(self.graph.used_models(active), self.graph.preset.name if self.graph.preset else "")
        self.emit(RunStarted(graph=self.graph.name, nodes={n: p.status for n, p in plan.nodes.items()}))
        self.known = plan.known
        self._values = Values(self.graph, self.inputs, self.store, self.known)
        self._values.expect(active, self.outputs.values())
        self._executor = Executor(
            self.graph.name, self.store, self._values, self.known, self.device, self.dtype, self.emit, self.on_preview,
            self.cancelled,
        )  # fmt: skip
        self._store_inputs()
        status: Literal["done", "failed", "cancelled"] = "failed"
        try:
            for name in self.graph.demanded(self.options.until or None):
                self._run_node(self.graph.nodes[name])
            for ref in self.outputs.values():
                self._hold(ref)
            status = "failed" if self._failures else "done"
        except (KeyboardInterrupt, Cancelled):
            status = "cancelled"
            raise
        finally:
            self._executor.close()
            self._finish(status)
        return Run(self.record, self, dict(self._failures))

    def output(self, name: str) -> Any:
        """The value of an output.

        Raises:
            NodeError: it was not computed, because a node that it needs failed.
        """
        source = self._output_source(name)
        missing = [p for p in places_of(source) if p not in self.known.digests]
        if missing:
            node = self.graph.nodes[missing[0].node]
            raise NodeError(node.title(missing[0].at), node.cls.kind, f"output '{name}' was not computed")
        return self._values.fetch(source)

    def elements(self, name: str) -> Iterator[tuple[int, Any]]:
        """The elements of a list output with their positions; those that failed are left out."""
        source = self._output_source(name)
        if not isinstance(source, Gathered):
            yield from enumerate(self.output(name))
            return
        for position, part in enumerate(source.parts):
            if all(p in self.known.digests for p in places_of(part)):
                yield position, self._values.fetch(part)

    def ancestors(self, name: str, position: int | None = None) -> set[str]:
        """The instances that an output, or one element of it, was made by."""
        source = self._output_source(name)
        if position is not None and isinstance(source, Gathered):
            source = source.parts[position]
        stack, found = places_of(source), set()
        while stack:
            place = stack.pop()
            if place.node == "inputs":
                continue
            node = self.graph.nodes[place.node]
            title = node.title(place.at)
            if title not in found:
                found.add(title)
                stack += [p for port in node.edges for p in places_of(self.known.source(node, port, place.at))]
        return found

    def stored_value(self, value: ValueRecord) -> Any:
        """The value behind an entry of the record; None when neither the store nor this process has it."""
        return self._values.find(value.digest)

    def _output_source(self, name: str) -> Source:
        return self.graph.output_source(self.outputs[name], self.known.length)

    def _check_only(self, plan: Plan) -> None:
        others = [n for n, p in plan.nodes.items() if p.status != "cached" and p.node not in self.options.until]
        if self.options.only and others:
            raise WouldRunError(f"--only {', '.join(self.options.until)}: {', '.join(others)} would have to run first")

    def _store_inputs(self) -> None:
        """Keep the inputs: a rerun from a picture's provenance finds them, and `why` can name both values."""
        for value in self.inputs.values():
            if not self.store.has(value.stored):
                try:
                    self.store.put(value.load(), value.stored.codec, value.stored.items is not None)
                except StoreError as error:
                    self._executor.warn_store(error)

    # --- execution ------------------------------------------------------------------------------------------------

    def _run_node(self, node: GraphNode) -> None:
        """Bring all instances of a node into being."""
        ran = False
        for index, unknown in self.known.instances(node):
            name = node.title(index) if index else node.name
            entry = self._plan.nodes.get(name)
            if entry is not None and entry.status == "cached":
                self._found(node, index, name, self._plan.placed[name])
                continue
            ran = True
            lacking = unknown or self._lacking(node, index)
            if lacking is not None:
                self._skip(node, index, lacking)
                continue
            try:
                self._settle(node, index, entry.reason if entry is not None else "")
            except GraphflowError as error:
                if not self.options.keep_going or name not in self._records:
                    raise
                self._failures[name] = self._records[name].reason or str(error)
        if ran:
            self._values.release(node)

    def _lacking(self, node: GraphNode, index: Index) -> Place | None:
        """What an instance needs and a failed node has not brought."""
        if not self._failures:
            return None
        for port in node.edges:
            try:
                places = places_of(self.known.source(node, port, index))
            except UnknownError as unknown:
                return unknown.place
            for place in places:
                if place not in self.known.digests:
                    return place
        return None

    def _skip(self, node: GraphNode, index: Index, lacking: Place) -> None:
        name = node.title(index)
        above = self.graph.nodes[lacking.node].title(lacking.at)
        reason = f"needs {above}, which has no result"
        self._records[name] = NodeRecord(
            kind=node.cls.kind, version=node.cls.version, status="skipped", reason=reason
        )  # fmt: skip
        self.emit(NodeSkipped(node=name, reason=reason))

    def _settle(self, node: GraphNode, index: Index, reason: str) -> None:
        """Bring an instance into being, computing again whatever a damaged blob has lost."""
        todo = [(node, index)]
        again: set[tuple[str, Index]] = set()
        while todo:
            at, where = todo[-1]
            try:
                self._settle_one(at, where, reason, (at.name, where) in again)
                todo.pop()
            except LostValueError as lost:
                found = self._lost(lost)
                if any(n is found[0] and i == found[1] for n, i in todo):
                    raise StoreError(str(lost)) from lost
                todo.append(found)
                again.add((found[0].name, found[1]))

    def _hold(self, ref: Ref) -> None:
        """Make sure that an output can be read after the run."""
        try:
            source = self.graph.output_source(ref, self.known.length)
        except UnknownError:
            return  # what it needs has failed
        if any(p not in self.known.digests for p in places_of(source)):
            return
        while True:
            try:
                self._values.check(source)
                return
            except LostValueError as lost:
                node, index = self._lost(lost)
                self.known.digests.pop(lost.place, None)
                self._settle(node, index, "a stored value was lost")

    def _lost(self, lost: LostValueError) -> tuple[GraphNode, Index]:
        """Report a lost value; returns the instance that can compute it again."""
        if lost.place.node == "inputs":
            raise StoreError(str(lost)) from lost
        node = self.graph.nodes[lost.place.node]
        self.emit(Logged(node="", message=f"{lost}; computing {node.title(lost.place.at)} again"))
        return node, lost.place.at

    def _settle_one(self, node: GraphNode, index: Index, reason: str, again: bool) -> None:
        name = node.title(index) if index else node.name
        placed = self._placer.place(node, index, self.known, self._values.fetch)
        if placed.result is not None and not again and self._usable(node, index, placed):
            self._found(node, index, name, placed)
            return
        record = self._records[name] = self._node_record(node, index, placed)
        record.status, record.reason = "skipped", "a stored value was lost" if again else reason
        self.emit(NodeStarted(node=name, kind=node.cls.kind))
        record.started = time.perf_counter() - self._began
        try:
            record.seconds = self._executor.compute(Job(node, index, name, placed))
        except LostValueError:
            raise
        except Exception as error:
            message = _message(error)
            record.status, record.reason = "failed", message
            self.emit(NodeFailed(node=name, message=message))
            if isinstance(error, GraphflowError):
                raise
            raise NodeError(name, node.cls.kind, message) from error
        record.status = "ran"
        self._enter_outputs(node, index, record)
        self.emit(NodeFinished(node=name, how="ran", seconds=record.seconds))

    def _usable(self, node: GraphNode, index: Index, placed: Placed) -> bool:
        """Whether a result that the plan did not count on has its values: a later node may want them."""
        assert placed.result is not None
        planned = self._plan.nodes.get(node.title(index))
        return planned is None or planned.status == "maybe" or all(map(self.store.has, placed.result.outputs.values()))

    def _found(self, node: GraphNode, index: Index, name: str, placed: Placed) -> None:
        """Take an instance's outputs from the store."""
        result = placed.result
        assert result is not None
        for port, stored in result.outputs.items():
            self.known.digests[Place(node.name, port, index)] = stored
        record = self._records[name] = self._node_record(node, index, placed)
        record.seconds = result.seconds
        self._enter_outputs(node, index, record)
        self.emit(NodeFinished(node=name, how="cached"))

    # --- the record -----------------------------------------------------------------------------------------------

    def _node_record(self, node: GraphNode, index: Index, placed: Placed) -> NodeRecord:
        return NodeRecord.model_construct(
            kind=node.cls.kind, version=node.cls.version, status="cached", key=placed.key,
            parameters=placed.node.model_dump(mode="json"),
            inputs={p: edge_text(self.graph, self.known, node, p, index) for p in node.edges},
            outputs={},
        )  # fmt: skip

    def _enter_outputs(self, node: GraphNode, index: Index, record: NodeRecord) -> None:
        for port in node.cls.outputs().values():
            stored = self.known.digests[Place(node.name, port.name, index)]
            record.outputs[port.name] = _value_record(port.describe(), stored)

    def _new_record(self) -> RunRecord:
        spec, preset = self.graph.spec, self.graph.preset
        return RunRecord(
            graphflow=__version__, graph=spec.name, title=spec.title, text=spec.text, files=dict(self.graph.files),
            inputs={name: value.record() for name, value in self.inputs.items() if _worth_recording(name, value)},
            overrides=dict(self.graph.overrides),
            preset=preset_data(spec.models) if preset is None or preset.name == "inline" else preset.name,
            device=self.device, dtype=self.dtype,
            started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )  # fmt: skip

    def _finish(self, status: Literal["done", "failed", "cancelled"]) -> None:
        record = self.record
        record.seconds = time.perf_counter() - self._began
        record.status = status
        record.nodes = self._records
        used = [name for name in self.graph.order if any(p.node == name for p in self._plan.nodes.values())]
        for name, model in self.graph.used_models(used).items():
            record.models[name] = ModelRecord(
                loader=model.loader, source=model.describe(), space=model.space,
                fingerprint=self._placer.fingerprint_of(model),
            )  # fmt: skip
        for name, ref in self.outputs.items():
            self._record_output(name, ref)
        self.emit(RunFinished(status=status, seconds=record.seconds))
        if status == "done":
            with suppress(StoreError):
                self.store.touch(r.key for r in record.nodes.values() if r.key)

    def _record_output(self, name: str, ref: Ref) -> None:
        described = self.graph.output_port(ref).describe()
        try:
            source = self._output_source(name)
            self.record.outputs[name] = _value_record(described, self.known.stored(source))
        except UnknownError:
            if not self._failures:
                return
            with suppress(UnknownError):
                source = self._output_source(name)
                if isinstance(source, Gathered):
                    known = [p for p in source.parts if all(x in self.known.digests for x in places_of(p))]
                    if known:
                        entry = _value_record(described, self.known.stored(Gathered(tuple(known))))
                        entry.failed = [i for i, p in enumerate(source.parts) if p not in known]
                        self.record.outputs[name] = entry


def _value_record(described: str, stored: Stored) -> ValueRecord:
    return ValueRecord.model_construct(type=described, digest=stored.digest, bytes=stored.bytes)


def _worth_recording(name: str, value: InputValue) -> bool:
    """Inputs of the graph, and pictures that a sub-graph brings along: a record's graph can open no file."""
    return "/" not in name or value.stored.codec != "json"


def _message(error: BaseException) -> str:
    text = str(error)
    return text if isinstance(error, GraphflowError | ValueError) and text else f"{type(error).__name__}: {text}"
