"""What the scheduler is told about a run: instances as tasks, models with their sizes, devices, measures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from graphflow.executors.compute import Outcome, trained_ports
from graphflow.executors.job import Job
from graphflow.executors.worker import HOST
from graphflow.graph import Element, Gathered, Graph, GraphNode, Index, Place
from graphflow.models.refs import ModelRef
from graphflow.models.weights import model_key, weight_bytes
from graphflow.options import Options
from graphflow.plan import Plan, PlannedNode
from graphflow.scheduler import Device, ModelSpec, Scheduler, Task
from graphflow.scheduler.from_plan import Expected, PlanTasks, guess, trained_key
from graphflow.store.measures import Measures, load_seconds

AHEAD = 2  # steps that a device is given, the one that it is at included: the next is fetched while it computes
WINDOW = 64  # elements of a map that are open at once, where its models fit on a device together
HELD = 2 << 30  # bytes of values that only memory has, beyond which begun elements are finished first
LARGEST_BATCH = 16
FILLED = 0.8  # share of a device's free memory that a batch may take
DISK, BUS = 1e9, 1e10  # bytes a second from disk to host memory and on to a device, until they are measured


class Workload:
    """Makes the tasks of a run and keeps the scheduler informed.

    Args:
        memory: device → budget of weights and activations in bytes, None without a limit.
        dtype: floating-point type of the models.
        host_slots: instances without models that may be computed at once.

    Attributes:
        refs: key → the preset's model, for those of the tasks so far.
    """

    def __init__(
        self, graph: Graph, plan: Plan, memory: Mapping[str, int | None], dtype: str, measures: Measures,
        options: Options, host_slots: int = 1,
    ) -> None:  # fmt: skip
        self.graph, self.known, self.memory, self.dtype = graph, plan.known, memory, dtype
        self.measures, self.options, self._host_slots = measures, options, host_slots
        self.refs: dict[str, ModelRef] = {}
        self._pool_keys: dict[str, str] = {}
        self._tasks = PlanTasks(plan, graph, self._expected)
        self._noted: set[int] = set()
        self._new: list[Task] = []
        self._times: dict[str, tuple[int, float]] = {}
        self._limits: dict[str, int] = {}  # node → the largest batch that there is room for, as this run has found
        self._begun = False

    @cached_property
    def scheduler(self) -> Scheduler:
        """Made when there is something to run."""
        self._begun = True
        devices = [
            Device(name, memory=limit, shares_host=name.startswith("cpu"), ahead=AHEAD)
            for name, limit in self.memory.items()
        ]
        devices.append(Device(HOST, kind="host", slots=self._host_slots))
        return Scheduler(devices, {}, batch_limit=self._batch_limit, value_limit=HELD, window=WINDOW)

    @property
    def idle(self) -> bool:
        """Whether nothing is left to run, nor running."""
        return not self._new and (not self._begun or self.scheduler.idle)

    # --- tasks ------------------------------------------------------------------------------------------------------

    def add(self, node: GraphNode, index: Index, entry: PlannedNode | None) -> None:
        """Take an instance on."""
        for ref in node.models.values():
            self._note_model(ref)
        self._new.append(self._tasks.task(node, index, entry))

    def flush(self) -> None:
        """Tell the scheduler of the instances taken on since; together, because each changes the paths before it."""
        if self._new:
            new, self._new = self._new, []
            self.scheduler.add(new)

    def ready(self, node: GraphNode, index: Index) -> None:
        """An instance has its inputs: trained weights among them have a size by now."""
        for place in self._weights(node, index):
            key = trained_key(self.graph, place)
            if key not in self.scheduler.models:
                self.scheduler.set_model(key, _spec(self.known.stored(place).bytes))

    def fetched(self, job: Job) -> None:
        """The inputs of an instance are at hand: trained weights have the pool's name by now."""
        if any(port.role is not None for port in job.node.ports.values()):
            from graphflow.models.pool import ModelPool

            for port in trained_ports(job):
                assert port.role is not None
                key = trained_key(self.graph, self._places(job.node, port.name, job.index)[0])
                self._pool_keys[key] = ModelPool.key_of_trained(job.values[port.name], port.role)

    def pool_keys(self, keys: Iterable[str]) -> tuple[str, ...]:
        """The pool's names of models that the scheduler names."""
        return tuple(self._pool_keys.get(key, key) for key in keys)

    def forget(self, device: str, pool_keys: Iterable[str]) -> None:
        """The pool has moved these off a device by itself."""
        names = {pool: ours for ours, pool in self._pool_keys.items()}
        self.scheduler.forget(device, [names.get(key, key) for key in pool_keys])

    def _note_model(self, ref: ModelRef) -> None:
        if id(ref) not in self._noted:
            self._noted.add(id(ref))
            key = model_key(ref)
            self.refs[key] = ref
            seconds = load_seconds(self.measures, ref.describe())
            self.scheduler.set_model(key, _spec(weight_bytes(ref, self.dtype), seconds))

    def _weights(self, node: GraphNode, index: Index) -> list[Place]:
        """The places of trained weights that an instance is fed."""
        fed = [p.name for p in node.ports.values() if p.role is not None and p.name in node.edges]
        return [place for port in fed for place in self._places(node, port, index)]

    def _places(self, node: GraphNode, port: str, index: Index) -> list[Place]:
        source = self.known.source(node, port, index)
        if isinstance(source, Gathered):
            return [part.place if isinstance(part, Element) else part for part in source.parts]
        return [source.place if isinstance(source, Element) else source]

    def _expected(self, node: GraphNode, planned: PlannedNode | None) -> Expected:
        seconds = planned.seconds if planned is not None else None
        # What a CPU's process grows by is no measure of one node: libraries and allocators have their share in it.
        measured = node.models and not next(iter(self.memory), "cpu").startswith("cpu")
        memory = int(self._peak(node).get("bytes", 0)) if measured else 0
        return Expected(guess(node) if seconds is None else seconds, memory, 0)

    # --- measured ---------------------------------------------------------------------------------------------------

    def measured(self, outcome: Outcome) -> None:
        """Remember how long an instance took and how much memory it needed."""
        kind = outcome.job.node.cls.kind
        count, total = self._times.get(kind, (0, 0.0))
        self._times[kind] = count + 1, total + outcome.seconds
        if outcome.peak is not None:
            each = outcome.peak / outcome.batch
            found = self._peak(outcome.job.node)
            if each > found.get("bytes", 0.0) or outcome.batch > found.get("batch", 0.0):
                bytes_ = max(each, found.get("bytes", 0.0))
                batch = max(outcome.batch, found.get("batch", 0.0))
                self.measures.note(self._what(outcome.job.node), {**found, "bytes": bytes_, "batch": batch})

    def shrink(self, node: GraphNode, batch: int) -> None:
        """A larger batch than this did not fit."""
        if self._limits.get(node.name) == batch:
            return
        self._limits[node.name] = batch
        self.measures.note(self._what(node), {**self._peak(node), "limit": float(batch)})

    def seconds(self, jobs: Sequence[Job]) -> float:
        """How long instances like these have taken in this run; one second where nobody knows."""
        total = 0.0
        for job in jobs:
            count, spent = self._times.get(job.node.cls.kind, (1, 1.0))
            total += spent / count
        return total

    def _batch_limit(self, task: Task) -> int:
        if self.options.batch is not None:
            return min(self.options.batch, self._limits.get(task.batch, self.options.batch))
        budgets = [limit for device, limit in self.memory.items() if not device.startswith("cpu")]
        if not budgets:
            return 1  # on a CPU results are the same to the bit whatever the order
        node = self.graph.nodes[task.batch]
        found = self._peak(node)
        largest = min(LARGEST_BATCH, int(found.get("limit", LARGEST_BATCH)), 2 * int(found.get("batch", 0.5)))
        weights = sum(self.scheduler.models[key].bytes for key in task.models)
        if found.get("bytes") and budgets[0] is not None:
            largest = min(largest, int((budgets[0] - weights) * FILLED / found["bytes"]))
        return max(1, largest)

    def _peak(self, node: GraphNode) -> dict[str, float]:
        return self.measures.get(self._what(node))

    def _what(self, node: GraphNode) -> str:
        """What a measured peak belongs to: the kind with its models and constants, on this kind of device."""
        device = next(iter(self.memory), "").partition(":")[0]
        models = ",".join(sorted(map(model_key, node.models.values())))
        return f"peak {node.cls.kind} {sorted(node.parameters.items())} {models} {device} {self.dtype}"


def _spec(size: int, seconds: float | None = None) -> ModelSpec:
    return ModelSpec(size, size / DISK if seconds is None else seconds, size / BUS)
