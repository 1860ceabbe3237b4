"""From a plan to tasks: what may have to run, what it needs, which models it takes, and what is expected of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from graphflow.graph import Graph, GraphNode, Index, Place
from graphflow.known import Known, UnknownError, places_of
from graphflow.models.files import missing
from graphflow.models.refs import ModelRef
from graphflow.models.weights import model_key, weight_bytes
from graphflow.node import BatchNode
from graphflow.plan import Plan, PlannedNode
from graphflow.scheduler.tasks import ModelSpec, Task

DEVICE_SECONDS = 1.0  # of an instance that never ran and computes on a device
HOST_SECONDS = 0.05  # of any other


class Expected(NamedTuple):
    """What is expected of an instance: seconds, bytes of activations, bytes of its results."""

    seconds: float = 0.0
    memory: int = 0
    holds: int = 0


Expect = Callable[[GraphNode, PlannedNode | None], Expected]


def guess(node: GraphNode) -> float:
    """The seconds that an instance is taken to need when its kind never ran."""
    return DEVICE_SECONDS if node.cls.accelerated() else HOST_SECONDS


def from_plan(node: GraphNode, planned: PlannedNode | None) -> Expected:
    """What the plan knows from earlier runs, and a guess of the time for a kind that never ran."""
    if planned is None:
        return Expected(guess(node))
    return Expected(guess(node) if planned.seconds is None else planned.seconds, 0, planned.bytes or 0)


@dataclass(frozen=True)
class _Template:
    """What is the same for all instances of a node."""

    rank: int
    where: Literal["device", "host"]
    models: tuple[str, ...]  # those of the preset
    trained: tuple[str, ...]  # ports that trained weights are fed to
    batch: str


class PlanTasks:
    """Makes the tasks of one plan.

    Args:
        plan: what runs and why.
        graph: the planned graph.
        expect: what is expected of an instance; by default what the plan knows.
        known: what is known of values; by default what the plan knows.
    """

    def __init__(self, plan: Plan, graph: Graph, expect: Expect = from_plan, known: Known | None = None) -> None:
        self._plan, self._graph, self._expect = plan, graph, expect
        self._known = plan.known if known is None else known
        self._ranks = {name: rank for rank, name in enumerate(graph.order)}
        self._templates: dict[str, _Template] = {}

    def all(self) -> list[Task]:
        """The tasks of all instances that are not cached and whose index is known.

        An instance that needs a list whose length is not known yet needs, so far, the instance that makes the list.
        """
        return [
            self.task(self._graph.nodes[entry.node], entry.index, entry)
            for entry in self._plan.nodes.values()
            if entry.status != "cached" and entry.index is not None
        ]

    def task(self, node: GraphNode, index: Index, planned: PlannedNode | None = None) -> Task:
        """The task of one instance; `planned` is found when it is not given."""
        template = self._templates.get(node.name)
        if template is None:
            template = self._templates[node.name] = self._template(node)
        expected = self._expect(node, planned or self._planned(node, index))
        trained = tuple(key for port in template.trained for key in self.trained(node, port, index))
        return Task(
            name=node.title(index) if index else node.name,
            needs=tuple(self.needs(node, index)),
            models=tuple(dict.fromkeys((*template.models, *trained))),
            where=template.where,
            seconds=expected.seconds,
            memory=expected.memory,
            holds=expected.holds,
            batch=template.batch,
            element=(node.axes[0], index[0]) if node.axes else None,
            rank=template.rank,
        )

    def needs(self, node: GraphNode, index: Index) -> list[str]:
        """The instances whose results this one is fed, without those that are cached."""
        names: dict[str, None] = {}
        for port in node.edges:
            for place in self._places(node, port, index):
                if place.node != "inputs":
                    names[self._graph.nodes[place.node].title(place.at)] = None
        nodes = self._plan.nodes
        return [n for n in names if n not in nodes or nodes[n].status != "cached"]

    def trained(self, node: GraphNode, port: str, index: Index) -> list[str]:
        """The keys of the trained models at a port: the places that make them."""
        return [trained_key(self._graph, place) for place in self._places(node, port, index)]

    def _places(self, node: GraphNode, port: str, index: Index) -> list[Place]:
        try:
            return places_of(self._known.source(node, port, index))
        except UnknownError as unknown:
            return [unknown.place]

    def _template(self, node: GraphNode) -> _Template:
        refs = [ref for port, ref in node.models.items() if not (node.ports[port].optional and _absent(ref))]
        models = tuple(dict.fromkeys(model_key(ref) for ref in refs if not ref.endpoint))
        trained = tuple(name for name, port in node.ports.items() if port.role is not None and name in node.edges)
        # A node that only calls services keeps no device busy, whatever its ports say.
        remote = bool(refs) and not models and not trained and node.cls.device != "accelerator"
        where: Literal["device", "host"] = "device" if models or trained else "host"
        if node.cls.accelerated() and not remote:
            where = "device"
        batch = node.name if issubclass(node.cls, BatchNode) else ""
        return _Template(self._ranks[node.name], where, models, trained, batch)

    def _planned(self, node: GraphNode, index: Index) -> PlannedNode | None:
        """The plan's entry of an instance, or that of all instances around it that were not known then."""
        for depth in range(len(index), -1, -1):
            found = self._plan.nodes.get(node.title(index[:depth]))
            if found is not None:
                return found
        return None


def models_of(graph: Graph, dtype: str, nodes: Iterable[str] | None = None) -> dict[str, ModelSpec]:
    """The sizes of the preset's models that these nodes use (all by default), as far as they are on this machine."""
    out: dict[str, ModelSpec] = {}
    for ref in graph.used_models(graph.nodes if nodes is None else nodes).values():
        if not ref.endpoint:
            out[model_key(ref)] = ModelSpec(weight_bytes(ref, dtype))
    return out


def timed(models: dict[str, ModelSpec], load: float, transfer: float) -> dict[str, ModelSpec]:
    """The same models with the seconds that bandwidths in bytes a second give."""
    return {
        key: replace(spec, load_seconds=spec.bytes / load, transfer_seconds=spec.bytes / transfer)
        for key, spec in models.items()
    }


def trained_key(graph: Graph, place: Place) -> str:
    """The key of a model that is trained during the run: the instance and the output that make it."""
    return (
        f"{graph.nodes[place.node].title(place.at)}.{place.port}" if place.node != "inputs" else f"inputs.{place.port}"
    )


def _absent(ref: ModelRef) -> bool:
    return bool(missing({ref.name: ref}))
