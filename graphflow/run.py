"""Running a graph: each instance once, every result stored as soon as it is there."""

from __future__ import annotations

import datetime
import gc
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, TypeVar

from graphflow.codecs import CODECS
from graphflow.devices import check_present, memory_of
from graphflow.engine.keep import Keeper
from graphflow.engine.lifetimes import Lifetimes
from graphflow.engine.loop import Engine
from graphflow.engine.recording import Recording, Settled, Teller
from graphflow.engine.settle import Settler
from graphflow.engine.values import LazyList, Values
from graphflow.engine.workload import Workload
from graphflow.errors import Cancelled, NodeError, NoOutputError, StoreError, WouldRunError, did_you_mean
from graphflow.events import Bus, Event, Logged, RunFinished, RunStarted
from graphflow.executors.compute import Computer, Outcome, Pools
from graphflow.executors.job import Job, Surroundings
from graphflow.executors.process import AnyWorker, workers_of
from graphflow.executors.worker import HOST, Inbox, Work, Worker
from graphflow.garbage import paused
from graphflow.graph import Gathered, Graph, Source
from graphflow.inputs import InputValue
from graphflow.known import UnknownError, places_of
from graphflow.models.files import require
from graphflow.options import Options
from graphflow.placing import Placer, Wiring
from graphflow.plan import Plan, make_plan
from graphflow.ports import PortType
from graphflow.record import RunRecord, ValueRecord
from graphflow.spec import Ref
from graphflow.store import Store
from graphflow.store.budget import default_budget
from graphflow.store.measures import Measures
from graphflow.threads import note_team

T = TypeVar("T")
USABLE = 0.92  # share of an accelerator's memory that is planned with; its driver and libraries take the rest


@dataclass(eq=False, repr=False)
class Run(Mapping[str, Any]):
    """A finished run: its record, and its outputs by name, each read when it is asked for.

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

    def __contains__(self, output: object) -> bool:
        return output in self.runner.outputs

    def __iter__(self) -> Iterator[str]:
        return iter(self.runner.outputs)

    def __len__(self) -> int:
        return len(self.runner.outputs)

    def __repr__(self) -> str:
        return f"Run({self.record.status}; {', '.join(self)})"

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
        pools: Pools | None = None,
    ) -> None:
        self.graph, self.inputs, self.store = graph, inputs, store
        self.devices, self.dtype = device.split(","), dtype
        self.device = self.devices[0]
        self.emit = emit or Bus()
        self.on_preview = on_preview
        self.options = options or Options()
        self.pools = pools
        self.cancelled = threading.Event()
        self.numerics = f"{device.partition(':')[0]} {dtype}"
        self._placer = Placer(
            store, self.numerics, {} if wirings is None else wirings, self.options.refresh, self.options.code
        )  # fmt: skip
        self._began = 0.0
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
            self.graph, self.inputs, self.outputs, self.known, self._placer, ",".join(self.devices), self.dtype, started
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
        note_team()
        self._began, self._collects = time.perf_counter(), gc.isenabled()
        with self._announced(), paused():  # but not while a node computes
            return self._run()

    def _run(self) -> Run:
        self._plan = plan = self.plan()
        self._note_use(plan)  # at once: from here on no collection takes what the plan counts on
        active = list(dict.fromkeys(p.node for p in plan.nodes.values() if p.status != "cached"))
        self._check_only(plan)
        if active:
            check_present(self.devices)
        require(self.graph.used_models(active, required=True), self.graph.preset.name if self.graph.preset else "")
        for message in (*self.store.warnings, *plan.warnings):
            self.emit(Logged(node="", message=f"warning: {message}"))
        self.emit(RunStarted(graph=self.graph.name, nodes={n: p.status for n, p in plan.nodes.items()}))
        self.known = plan.known
        self._recording = self._begin_recording()
        engine = self._assemble(plan)
        self._store_inputs()
        status: Literal["done", "failed", "cancelled"] = "failed"
        try:
            engine.run(self.graph.demanded(self.options.until or None))
            for name in self.outputs:
                self._hold(name)
            status = "failed" if self._settler.failures else "done"
        except (KeyboardInterrupt, Cancelled):
            status = "cancelled"
            raise
        finally:
            engine.close()
            self._recording.seconds = time.perf_counter() - self._began
            self._recording.status = status
            self._recording.failed = bool(self._settler.failures)
            self.emit(RunFinished(status=status, seconds=self._recording.seconds))
        return Run(self, dict(self._settler.failures))

    def _assemble(self, plan: Plan) -> Engine:
        """The parts of the machine that runs the plan."""
        assert self._recording is not None
        kept = list(self.outputs.values())
        lifetimes = Lifetimes(self.graph, kept)
        measures = Measures(self.store.folder)
        tell = Teller(self.emit, self._recording, self._began, measures)
        around = Surroundings(self.store, self.dtype, tell, self.on_preview, self.cancelled)
        self._values = Values(self.graph, self.inputs, self.store, self.known, lifetimes)
        self._keeper = Keeper(
            self.graph.name, self.store, self._values, self.known, around, tell,
            frozenset((r.node, r.port) for r in kept),
        )  # fmt: skip
        memory = {device: self._budget(device) for device in self.devices}
        self._recording.memory = {device: limit for device, limit in memory.items() if limit is not None}
        done = Inbox()
        workers = workers_of(memory, around, self.pools, done)
        workers[HOST] = Worker(Computer(self.device, around), done, HOST)
        workload = Workload(self.graph, plan, memory, self.dtype, measures, self.options)
        self._settler = Settler(
            self.graph, plan, self.store, self._placer, self._values, self._keeper, self.options, tell,
            self._recording.settled, self._began, partial(_compute, workers, self.device),
        )  # fmt: skip
        return Engine(
            self.graph, plan, self._settler, self._keeper, self._values, lifetimes, workload, workers, done,
            self.cancelled, self._collects,
        )  # fmt: skip

    def _budget(self, device: str) -> int | None:
        """What weights and activations may take on a device."""
        if self.options.memory is not None:
            return self.options.memory
        found = None if device.startswith("cpu") else memory_of(device)
        return int(found * USABLE) if found is not None else None

    @contextmanager
    def _announced(self) -> Iterator[None]:
        """While the run lasts, nothing that it uses is collected; afterwards the store is brought within its budget."""
        run = None
        default_budget(self.store.folder)  # what is wrong with it is said before anything is computed
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
            NoOutputError: the run has none of this name.
            NodeError: it was not computed, because a node that it needs failed.
        """
        source = self._output_source(name)
        missing = [p for p in places_of(source) if p not in self.known.digests]
        if missing:
            node = self.graph.nodes[missing[0].node]
            raise NodeError(node.title(missing[0].at), node.cls.kind, f"output '{name}' was not computed")
        return self._settler.recover(lambda: self._values.fetch(source))

    def elements(self, name: str) -> Iterator[tuple[int, Any]]:
        """The elements of a list output with their positions; those that failed are left out."""
        source = self._output_source(name)
        if not isinstance(source, Gathered):
            yield from enumerate(self.output(name))
            return
        for position, part in self._present(source):
            yield position, self._settler.recover(partial(self._values.fetch, part))

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
        if name not in self.outputs:
            hint = did_you_mean(str(name), self.outputs)
            has = ", ".join(self.outputs)
            raise NoOutputError(f"the run has no output '{name}'; it has: {has}" + (f"; {hint}" if hint else ""))
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
                    self._keeper.warn_store(error)

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
            self._settler.recover(lambda: self._values.check(source))


def _compute(workers: Mapping[str, AnyWorker], device: str, job: Job) -> Outcome:
    """Compute a job at once, between two pieces of the work of the device, or of the host if it has no models."""
    worker = workers[device if job.node.cls.model_ports() else HOST]
    return worker.here(Work("", [job])).outcomes[0]
