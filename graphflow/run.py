"""Running a graph: each instance once, in order, every result stored before the next node starts."""

from __future__ import annotations

import datetime
import gc
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal, TypeVar

from graphflow.codecs import CODECS
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
from graphflow.garbage import paused, resumed
from graphflow.graph import Gathered, Graph, GraphNode, Index, Place, Source
from graphflow.inputs import InputValue
from graphflow.known import UnknownError, places_of
from graphflow.models.files import require
from graphflow.placing import CodePolicy, Placed, Placer, Wiring
from graphflow.plan import Plan, make_plan
from graphflow.ports import PortType
from graphflow.record import RunRecord, ValueRecord
from graphflow.recording import Recording, Settled
from graphflow.spec import Ref
from graphflow.store import Lease, Store
from graphflow.values import LazyList, LostValueError, Values

T = TypeVar("T")

WINDOW = 64  # elements of a map that go through all of its nodes before the next ones, so that memory has a bound


@dataclass(frozen=True)
class Options:
    """How to run.

    Attributes:
        until: nodes whose results are wanted instead of the graph's outputs.
        only: run nothing but `until`: what it needs must be cached.
        refresh: nodes that are computed again whatever the store has.
        keep_going: go on with what doesn't need a node, or an element of a map, that has failed.
        code: see `graphflow.placing.Placer`.
    """

    until: tuple[str, ...] = ()
    only: bool = False
    refresh: frozenset[str] = frozenset()
    keep_going: bool = False
    code: CodePolicy = "warn"


@dataclass
class Run:
    """A finished run: its record, and its outputs on demand.

    Attributes:
        failures: with ``keep_going``, instance → message of those that failed.
    """

    runner: Runner
    failures: dict[str, str]

    @property
    def record(self) -> RunRecord:
        """What the run did."""
        return self.runner.record

    def __getitem__(self, output: str) -> Any:
        return self.runner.output(output)

    def elements(self, output: str) -> Iterator[tuple[int, Any]]:
        """The elements of a list output with their positions, one at a time; those that failed are left out."""
        return self.runner.elements(output)

    def record_of(self, output: str, position: int) -> RunRecord:
        """The record cut down to the instances that made one element of a list output."""
        kept = self.runner.ancestors(output, position)
        return self.record.model_copy(update={"nodes": {n: r for n, r in self.record.nodes.items() if n in kept}})


class Runner:
    """Executes one plan. `cancelled` may be set from another thread; the run stops between two steps.

    Whatever happens to a run that has begun, `record` describes it so far.
    """

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
        self._placer = Placer(
            store, self.numerics, {} if wirings is None else wirings, self.options.refresh, self.options.code
        )  # fmt: skip
        self._began = 0.0
        self._failures: dict[str, str] = {}
        self._recording: Recording | None = None

    @property
    def begun(self) -> bool:
        """Whether the run has got beyond its plan, so that there is a record."""
        return self._recording is not None

    @cached_property
    def record(self) -> RunRecord:
        """What the run did, from when it is over."""
        assert self._recording is not None
        return self._recording.record()

    @property
    def settled(self) -> Mapping[str, Settled]:
        """What has become of each instance so far, in that order; `record` has the same in full, and takes longer."""
        assert self._recording is not None
        return self._recording.settled

    def _begin_recording(self) -> Recording:
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return Recording(
            self.graph, self.inputs, self.outputs, self.known, self._placer, self.device, self.dtype, started
        )  # fmt: skip

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
        self._began, self._started, self._collects = time.perf_counter(), time.time(), gc.isenabled()
        with self._announced(), paused():  # but not while a node computes
            return self._run()

    def _run(self) -> Run:
        self._plan = plan = self.plan()
        self._note_use(plan)  # at once: from here on no collection takes what the plan counts on
        active = list(dict.fromkeys(p.node for p in plan.nodes.values() if p.status != "cached"))
        self._check_only(plan)
        require(self.graph.used_models(active, required=True), self.graph.preset.name if self.graph.preset else "")
        for message in (*self.store.warnings, *plan.warnings):
            self.emit(Logged(node="", message=f"warning: {message}"))
        self.emit(RunStarted(graph=self.graph.name, nodes={n: p.status for n, p in plan.nodes.items()}))
        self.known = plan.known
        self._recording = self._begin_recording()
        self._values = Values(self.graph, self.inputs, self.store, self.known)
        self._values.expect(active, self.outputs.values())
        self._executor = Executor(
            self.graph.name, self.store, self._values, self.known, self.device, self.dtype, self.emit,
            frozenset((r.node, r.port) for r in self.outputs.values()), self.on_preview, self.cancelled,
        )  # fmt: skip
        self._store_inputs()
        status: Literal["done", "failed", "cancelled"] = "failed"
        try:
            for nodes in self.graph.together(self.graph.demanded(self.options.until or None)):
                self._run_together(nodes)
            for name in self.outputs:
                self._hold(name)
            status = "failed" if self._failures else "done"
        except (KeyboardInterrupt, Cancelled):
            status = "cancelled"
            raise
        finally:
            self._executor.close()
            self._recording.seconds = time.perf_counter() - self._began
            self._recording.status = status
            self._recording.failed = bool(self._failures)
            self.emit(RunFinished(status=status, seconds=self._recording.seconds))
        return Run(self, dict(self._failures))

    @contextmanager
    def _announced(self) -> Iterator[None]:
        """While the run lasts, nothing that it uses is collected; afterwards the store is brought within its budget."""
        run = None
        with suppress(StoreError):  # a store that can't be written is reported when something is to be stored
            run = self.store.begin_run()
        try:
            yield
        finally:
            with suppress(StoreError):
                if run is not None:
                    self.store.end_run(run)
                    self.store.collect_if_over_budget()

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
        return self._recover(lambda: self._values.fetch(source))

    def elements(self, name: str) -> Iterator[tuple[int, Any]]:
        """The elements of a list output with their positions; those that failed are left out."""
        source = self._output_source(name)
        if not isinstance(source, Gathered):
            yield from enumerate(self.output(name))
            return
        for position, part in self._present(source):
            yield position, self._recover(partial(self._values.fetch, part))

    def ancestors(self, name: str, position: int) -> set[str]:
        """The instances that made one element of a list output."""
        source = self._output_source(name)
        if isinstance(source, Gathered):
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
        assert self._recording is not None
        for name, entry in self.record.outputs.items():
            if entry is value or entry.digest == value.digest:
                source = self._output_source(name)
                if isinstance(source, Gathered):
                    return LazyList([part for _, part in self._present(source)], self._values.fetch)
        return self._values.find(value.digest)

    def _present(self, source: Gathered) -> Iterator[tuple[int, Source]]:
        """The parts of a list that have been computed."""
        for position, part in enumerate(source.parts):
            if all(p in self.known.digests for p in places_of(part)):
                yield position, part

    def _output_source(self, name: str) -> Source:
        return self.graph.output_source(self.outputs[name], self.known.length)

    def _check_only(self, plan: Plan) -> None:
        others = [n for n, p in plan.nodes.items() if p.status != "cached" and p.node not in self.options.until]
        if self.options.only and others:
            raise WouldRunError(f"--only {', '.join(self.options.until)}: {', '.join(others)} would have to run first")

    def _note_use(self, plan: Plan) -> None:
        with suppress(StoreError):
            keys = [p.key for p in plan.nodes.values() if p.status == "cached" and p.key]
            self.store.touch(keys, [d for value in self.inputs.values() for d in value.stored.digests])

    def _store_inputs(self) -> None:
        """Keep the inputs: a rerun from a picture's provenance finds them, and `why` can name both values."""
        for value in self.inputs.values():
            if value.stored.codec in CODECS and not self.store.has(value.stored):
                is_list = value.stored.items is not None
                items = (value.element(i) for i in range(len(value.stored.items or ())))
                try:
                    self.store.put(items if is_list else value.load(), value.stored.codec, is_list, is_input=True)
                except StoreError as error:
                    self._executor.warn_store(error)

    # --- execution ------------------------------------------------------------------------------------------------

    def _run_together(self, nodes: list[GraphNode]) -> None:
        """Bring all instances of nodes along one outermost axis into being, a window of its elements at a time.

        A model is then loaded once a window at most, and the values of a window go before the next one begins.
        """
        if not nodes[0].axes:
            self._run_alone(nodes[0])
            return
        windows = self.known.windows(nodes[0].axes, WINDOW)
        ran = set()
        for number, window in enumerate(windows, 1):
            last = number == len(windows)
            if len(windows) > 1:
                self._values.next_window()
            for node in nodes:
                if self._run_node(node, window):
                    ran.add(node.name)
                if node.name in ran:
                    self._values.release(node, whole=last)

    def _run_alone(self, node: GraphNode) -> None:
        """Bring a node that is not mapped into being."""
        if self._run_node(node, None):
            self._values.release(node, whole=True)

    def _run_node(self, node: GraphNode, window: range | None) -> bool:
        """Bring the instances of a node into being, those in the window; returns whether the plan wanted any to run."""
        ran = False
        for index, unknown in self.known.instances(node, window):
            name = node.title(index) if index else node.name
            entry = self._plan.nodes.get(name)
            if entry is not None and entry.status == "cached":
                self._pass(node, index, name, self._plan.placed[name])
                continue
            ran = True
            lacking = unknown or self._lacking(node, index)
            if lacking is not None:
                self._skip(node, index, lacking)
                continue
            try:
                with resumed(self._collects):
                    self._settle(node, index, entry.reason if entry is not None else "")
            except GraphflowError as error:
                if not self.options.keep_going or isinstance(error, StoreError):
                    raise
                self._fail(name, node, index, str(error))
        return ran

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
        self._enter(name, Settled(node, index, None, "skipped", reason))
        self.emit(NodeSkipped(node=name, reason=reason))

    def _settle(self, node: GraphNode, index: Index, reason: str, lost: set[tuple[str, Index]] | None = None) -> None:
        """Bring an instance into being, computing again whatever a damaged blob has lost."""
        todo = [(node, index)]
        again = lost or set()
        while todo:
            at, where = todo[-1]
            try:
                self._settle_one(at, where, reason, (at.name, where) in again)
                todo.pop()
            except LostValueError as error:
                found = self._lost(error)
                if any(n is found[0] and i == found[1] for n, i in todo):
                    raise StoreError(str(error)) from error
                todo.append(found)
                again.add((found[0].name, found[1]))

    def _hold(self, name: str) -> None:
        """Make sure that an output can be read after the run."""
        ref = self.outputs[name]
        kind = self.graph.nodes[ref.node].cls.outputs()[ref.port].type if ref.node != "inputs" else None
        if kind is None or (isinstance(kind, PortType) and kind.codec == "json"):
            return  # damage in the index is rare, and found when the value is read
        try:
            source = self._output_source(name)
        except UnknownError:
            return  # what it needs has failed
        if all(p in self.known.digests for p in places_of(source)):
            self._recover(lambda: self._values.check(source))

    def _recover(self, read: Callable[[], T]) -> T:
        """Read a value; what the store has lost is computed again."""
        while True:
            try:
                return read()
            except LostValueError as lost:
                node, index = self._lost(lost)
                self._settle(node, index, "a stored value was lost", {(node.name, index)})

    def _lost(self, lost: LostValueError) -> tuple[GraphNode, Index]:
        """Report a lost value; returns the instance that can compute it again."""
        if lost.place.node == "inputs":
            raise StoreError(str(lost)) from lost
        node = self.graph.nodes[lost.place.node]
        if not lost.expected:
            self.emit(Logged(node="", message=f"{lost}; computing {node.title(lost.place.at)} again"))
        return node, lost.place.at

    def _settle_one(self, node: GraphNode, index: Index, reason: str, again: bool) -> None:
        name = node.title(index) if index else node.name
        placed = self._placer.place(node, index, self.known, self._values.fetch)
        if placed.result is not None and not again and self._usable(name, placed):
            self._found(node, index, name, placed)
            return
        lease = self._lease(name, placed, again)
        with lease if lease is not None else nullcontext():
            if lease is not None and lease.result is not None:
                self._found(node, index, name, replace(placed, result=lease.result))
            else:
                self._compute(Job(node, index, name, placed), "a stored value was lost" if again else reason)

    def _lease(self, name: str, placed: Placed, again: bool) -> Lease | None:
        """The right to compute a key, so that several processes don't compute it at once; None where that's no use."""
        cls = type(placed.node)
        if not cls.deterministic or cls.cache == "never":
            return None
        since = 0.0
        if placed.result is not None:
            since = placed.result.created
        elif again or self.options.refresh or self.options.code == "strict":
            since = self._started  # what the store has under this key is just what is not to be used

        def waiting(holder: str) -> None:
            self.emit(Logged(node=name, message=f"waits for {holder}, which computes the same"))

        try:
            return self.store.lease(placed.key, self.cancelled, since, waiting)
        except StoreError as error:
            self._executor.warn_store(error)
            return None

    def _compute(self, job: Job, reason: str) -> None:
        node, name = job.node, job.name
        settled = Settled(node, job.index, job.placed, "skipped", reason, time.perf_counter() - self._began)
        self._enter(name, settled)
        self.emit(NodeStarted(node=name, kind=node.cls.kind))
        try:
            settled.seconds = self._executor.compute(job)
        except LostValueError:
            raise
        except Exception as error:
            settled.status, settled.reason = "failed", _message(error)
            self.emit(NodeFailed(node=name, message=settled.reason))
            if isinstance(error, GraphflowError):
                raise
            raise NodeError(name, node.cls.kind, settled.reason) from error
        settled.status = "ran"
        self.emit(NodeFinished(node=name, how="ran", seconds=settled.seconds))

    def _fail(self, name: str, node: GraphNode, index: Index, message: str) -> None:
        """Note the failure of an instance that the run outlives; it may have failed before it began."""
        assert self._recording is not None
        found = self._recording.settled.get(name)
        if found is None or found.status != "failed":
            self._enter(name, Settled(node, index, None, "failed", message))
            self.emit(NodeFailed(node=name, message=message))
        self._failures[name] = self._recording.settled[name].reason

    def _enter(self, name: str, settled: Settled) -> None:
        assert self._recording is not None
        self._recording.settled[name] = settled

    def _usable(self, name: str, placed: Placed) -> bool:
        """Whether a result may be used although the plan wanted the node to run: a value of it may be missing."""
        assert placed.result is not None
        planned = self._plan.nodes.get(name)
        return planned is None or planned.status == "maybe" or all(map(self.store.has, placed.result.outputs.values()))

    def _found(self, node: GraphNode, index: Index, name: str, placed: Placed) -> None:
        """Take an instance's outputs from the store."""
        result = placed.result
        assert result is not None
        with suppress(StoreError):
            self.store.touch_found(result)
        for port, stored in result.outputs.items():
            self.known.digests[Place(node.name, port, index)] = stored
        self._pass(node, index, name, placed)

    def _pass(self, node: GraphNode, index: Index, name: str, placed: Placed) -> None:
        """Pass over an instance whose outputs are known already."""
        result = placed.result
        assert result is not None
        for port, stored in result.outputs.items():
            if not stored.kept:
                self._values.adopt(Place(node.name, port, index), stored)
        self._enter(name, Settled(node, index, placed, "cached", "", None, result.seconds))
        self.emit(NodeFinished(node=name, how="cached"))


def _message(error: BaseException) -> str:
    text = str(error)
    return text if isinstance(error, GraphflowError | ValueError) and text else f"{type(error).__name__}: {text}"
