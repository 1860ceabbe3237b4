"""How a plan would run on other devices: the scheduler drives simulated ones through the plan's tasks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from graphflow import units
from graphflow.errors import UsageError, did_you_mean
from graphflow.graph import Element, Graph, GraphNode, Index, Place, Source
from graphflow.known import Known, UnknownError
from graphflow.models.weights import model_key
from graphflow.plan import Plan, PlannedNode
from graphflow.scheduler.bounds import Bound, lower_bound
from graphflow.scheduler.core import Scheduler
from graphflow.scheduler.from_plan import Expected, PlanTasks, from_plan, models_of, timed
from graphflow.scheduler.simulate import Simulated, Simulation
from graphflow.scheduler.tasks import Device, ModelSpec, Task

LENGTH = 10  # elements of a list that is not known yet
GPUS = 100_000


@dataclass(frozen=True)
class Machine:
    """Simulated hardware.

    Attributes:
        gpus: how many; 0 for a CPU alone, whose models lie in host memory.
        memory: bytes of each GPU, or of the CPU's budget; None for no limit.
        load: bytes a second from disk to host memory, for all devices together.
        transfer: bytes a second from host memory to each GPU.
        speed: how many times faster than expected the devices compute.
        cpus: workers for nodes that take no device.
    """

    gpus: int = 1
    memory: int | None = None
    load: int = 2 * 10**9
    transfer: int = 20 * 10**9
    speed: float = 1.0
    cpus: int = 4

    @property
    def devices(self) -> list[Device]:
        """The devices, as a scheduler takes them."""
        gpus = [Device(f"gpu:{i}", memory=self.memory) for i in range(self.gpus)]
        cpu = [Device("cpu", memory=self.memory, shares_host=True)]
        return [*(gpus or cpu), Device("host", kind="host", slots=self.cpus)]


def parse_machine(text: str) -> Machine:
    """Hardware from ``gpus=2,memory=24GiB,load=2GB/s``; what is left out has its default.

    Raises:
        UsageError: a key is unknown or stands twice, or a value is none.
    """
    readers: dict[str, Callable[[str], object]] = {
        "gpus": lambda v: _count(v, 0), "memory": _size, "load": _rate, "transfer": _rate, "speed": _factor,
        "cpus": lambda v: _count(v, 1),
    }  # fmt: skip
    found: dict[str, object] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if key not in readers or not equals:
            hint = did_you_mean(key, readers) or f"expected {', '.join(f'{k}=…' for k in readers)}"
            raise UsageError(f"--simulate {part}: {hint}")
        if key in found:
            raise UsageError(f"--simulate: {key} stands twice")
        try:
            found[key] = readers[key](value)
        except ValueError as error:
            raise UsageError(f"--simulate {part}: {error}") from error
    return replace(Machine(), **found)  # type: ignore[arg-type]


def _count(value: str, least: int) -> int:
    if not re.fullmatch(r"\d{1,9}", value) or not least <= int(value) <= GPUS:
        raise ValueError(f"'{value}' is no number from {least} to {GPUS}")
    return int(value)


def _size(value: str) -> int:
    if re.fullmatch(r"[\d.]+", value):  # 24 would be 24 bytes, where nobody means that
        raise ValueError(f"'{value}' has no unit; expected a size such as 24GiB")
    size = units.parse_size(value)
    if size <= 0:
        raise ValueError("a device has more than no memory")
    return size


def _rate(value: str) -> int:
    return _size(value.removesuffix("/s"))


def _factor(value: str) -> float:
    if not re.fullmatch(r"\d{1,6}(\.\d+)?|\.\d+", value) or float(value) <= 0:
        raise ValueError(f"'{value}' is no factor above 0")
    return float(value)


@dataclass
class WhatIf:
    """What came of it, and what was assumed.

    Attributes:
        bound: what no schedule can beat.
        known: nodes whose times are from earlier runs.
        guessed: kind → seconds that were assumed, because it never ran.
        lengths: axis → elements that were assumed.
        names: key of a model → its name in the preset.
        sizes: names of models that are not on this machine, counted as 0 bytes.
    """

    machine: Machine
    tasks: list[Task]
    models: Mapping[str, ModelSpec]
    result: Simulated
    bound: Bound
    known: set[str] = field(default_factory=set)
    guessed: dict[str, float] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    sizes: list[str] = field(default_factory=list)


def what_if(
    plan: Plan, graph: Graph, machine: Machine, dtype: str, lengths: Mapping[str, int], sizes: Mapping[str, int]
) -> WhatIf:
    """Simulate what is left of a plan.

    Args:
        plan: what would run.
        graph: its graph.
        machine: the hardware.
        dtype: the run's floating-point type, which decides how large models are.
        lengths: list (``node.port``, or the mapped node) → its length, where that is not known yet.
        sizes: model, as the preset names it → bytes, in place of what its files say.

    Raises:
        UsageError: a list is not mapped over, or a model is not used.
    """
    known = AssumedLengths(plan.known, lengths)
    guessed: dict[str, float] = {}
    told: set[str] = set()

    def expect(node: GraphNode, planned: PlannedNode | None) -> Expected:
        found = from_plan(node, planned)
        if planned is not None and planned.seconds is not None:
            told.add(node.name)
        else:
            guessed[node.cls.kind] = found.seconds
        return found

    maker = PlanTasks(plan, graph, expect, known)
    tasks = list(_tasks(plan, graph, known, maker))
    active = {entry.node for entry in plan.nodes.values() if entry.status != "cached"}
    used = dict.fromkeys(m for t in tasks for m in t.models)
    names = {key: key for key in used}
    names.update((model_key(ref), name) for name, ref in graph.used_models(active).items() if model_key(ref) in used)
    models = _sized(models_of(graph, dtype, active), names, sizes)
    models = timed(models, machine.load, machine.transfer if machine.gpus else float("inf"))
    devices = machine.devices
    speed = {d.name: machine.speed for d in devices if d.kind == "device"}
    result = Simulation(devices, models, Scheduler(devices, models), speed).run(tasks)
    bound = lower_bound(tasks, devices, models, speed)
    unsized = [names[m] for m in used if m not in models or models[m].bytes == 0]
    return WhatIf(machine, tasks, models, result, bound, told, guessed, known.assumed, names, unsized)


def _sized(models: Mapping[str, ModelSpec], names: Mapping[str, str], sizes: Mapping[str, int]) -> dict[str, ModelSpec]:
    keys = {name: key for key, name in names.items()}
    for name in sizes:
        if name not in keys:
            hint = did_you_mean(name, keys) or f"models: {', '.join(keys) or 'none'}"
            raise UsageError(f"--assume {name}: what would run uses no such model; {hint}")
    return {**models, **{keys[name]: ModelSpec(size) for name, size in sizes.items()}}


def _tasks(plan: Plan, graph: Graph, known: AssumedLengths, maker: PlanTasks) -> Iterator[Task]:
    """The tasks of all instances, assumed ones included; of those that compute the same, only the first."""
    same = _Same(graph, known)
    for name in dict.fromkeys(entry.node for entry in plan.nodes.values()):
        node = graph.nodes[name]
        for index, unknown in known.instances(node):
            assert unknown is None
            title = node.title(index) if index else node.name
            entry = plan.nodes.get(title)
            if same.first(node, index, title) == title and (entry is None or entry.status != "cached"):
                yield same.renamed(maker.task(node, index, entry))


class AssumedLengths(Known):
    """What is known, with lengths for the lists that are not.

    Attributes:
        assumed: axis → the length that was taken for it.
    """

    def __init__(self, known: Known, lengths: Mapping[str, int]) -> None:
        self.graph, self.digests = known.graph, known.digests
        self._lengths = {}
        self._given = lengths
        self.assumed: dict[str, int] = {}
        self._names = {axis: self._names_of(axis) for axis in self.graph.axes}
        choices = [name for names in self._names.values() for name in names]
        for name in lengths:
            if name not in choices:
                hint = did_you_mean(name, choices) or f"lists: {', '.join(choices) or 'none'}"
                raise UsageError(f"--assume {name}: the graph maps over no such list; {hint}")

    def _names_of(self, axis: str) -> list[str]:
        edges = self.graph.axes[axis].lists.values()
        return [axis, *(f"{e.node}.{e.port}" for e in edges if not isinstance(e, tuple))]

    def length(self, axis: str, index: Index) -> int:
        """How long an axis is; what is not known is assumed."""
        try:
            return super().length(axis, index)
        except UnknownError:
            given = [self._given[name] for name in self._names[axis] if name in self._given]
            self.assumed[axis] = self._lengths[axis, index] = given[0] if given else LENGTH
            return self._lengths[axis, index]


class _Same:
    """Finds instances of one node that are fed the same, though nobody knows yet what that is."""

    def __init__(self, graph: Graph, known: Known) -> None:
        self._graph, self._known = graph, known
        self._firsts: dict[tuple[object, ...], str] = {}
        self._first_of: dict[str, str] = {}

    def first(self, node: GraphNode, index: Index, title: str) -> str:
        """The first instance that computes the same."""
        if not node.cls.deterministic or not index:
            return title
        fed = tuple(self._value(self._known.source(node, port, index)) for port in node.edges)
        found = self._first_of[title] = self._firsts.setdefault((node.name, fed), title)
        return found

    def renamed(self, task: Task) -> Task:
        """The task, with the first of equal instances in place of all others that it needs."""
        needs = dict.fromkeys(self._first_of.get(need, need) for need in task.needs)
        models = []
        for key in task.models:
            title, _, port = key.rpartition(".")  # of a trained model; the keys of others are no titles
            models.append(f"{self._first_of[title]}.{port}" if title in self._first_of else key)
        return replace(task, needs=tuple(needs), models=tuple(models))

    def _value(self, source: Source) -> object:
        """What stands for a value: its digest, or where it will come from."""
        try:
            return self._known.stored(source).digest
        except UnknownError:
            if isinstance(source, Place):
                return self._at(source)
            if isinstance(source, Element):
                return self._at(source.place), source.position
            return tuple(self._value(part) for part in source.parts)

    def _at(self, place: Place) -> object:
        title = self._graph.nodes[place.node].title(place.at)
        return self._first_of.get(title, title), place.port
