"""From what a run knows to its record. Made when somebody asks for it: ten thousand entries take a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from graphflow.events import Event, Listener, ModelLoaded, ModelReleased
from graphflow.explain import edge_text
from graphflow.graph import Gathered, Graph, GraphNode, Index, Place
from graphflow.inputs import InputValue
from graphflow.known import Known, UnknownError, places_of
from graphflow.models.preset import preset_data
from graphflow.placing import Placed, Placer
from graphflow.record import InputRecord, LoadRecord, ModelRecord, NodeRecord, RunRecord, ValueRecord
from graphflow.spec import Ref
from graphflow.store import Stored
from graphflow.store.measures import Measures, note_load
from graphflow.version import __version__


@dataclass(slots=True)
class Settled:
    """What became of an instance; `placed` is None when nothing that it needs is there."""

    node: GraphNode
    index: Index
    placed: Placed | None
    status: Literal["cached", "ran", "failed", "skipped", "interrupted"]
    reason: str = ""
    started: float | None = None
    seconds: float = 0.0
    device: str = ""
    batch: int = 1
    peak: int | None = None


class Teller:
    """Passes events on, from whichever thread they come, and notes loads for the record."""

    def __init__(self, emit: Listener, recording: Recording, began: float, measures: Measures) -> None:
        self._emit, self._recording, self._began, self._measures = emit, recording, began, measures
        self._lock = threading.RLock()

    def __call__(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, ModelLoaded | ModelReleased):
                self._recording.note_load(event, time.perf_counter() - self._began)
            if isinstance(event, ModelLoaded) and event.stage == "host":
                note_load(self._measures, event.name, event.seconds)
            self._emit(event)


@dataclass
class Recording:
    """A run as it goes: who has settled, and how it began and ended.

    Attributes:
        settled: instance → what became of it, in that order.
        loads: which models came and went, in that order.
        memory: device → budget of weights and activations, where there is one.
        outputs: what the run returns.
        device: where it ran, and `dtype` in which numbers.
        started: date and time, ISO 8601.
    """

    graph: Graph
    inputs: Mapping[str, InputValue]
    outputs: Mapping[str, Ref]
    known: Known
    placer: Placer
    device: str
    dtype: str
    started: str
    seconds: float = 0.0
    status: Literal["done", "failed", "cancelled"] = "failed"
    settled: dict[str, Settled] = field(default_factory=dict)
    loads: list[LoadRecord] = field(default_factory=list)
    memory: dict[str, int] = field(default_factory=dict)
    failed: bool = False

    def note_load(self, event: ModelLoaded | ModelReleased, now: float) -> None:
        """A model has come or gone; `now` is in seconds after the run's beginning."""
        seconds = event.seconds if isinstance(event, ModelLoaded) else 0.0
        self.loads.append(
            LoadRecord(
                model=event.name, device=event.device, started=max(0.0, now - seconds), seconds=seconds,
                stage=event.stage if isinstance(event, ModelLoaded) else "released", bytes=event.bytes,
            )
        )  # fmt: skip

    def record(self) -> RunRecord:
        """The whole record."""
        spec, preset = self.graph.spec, self.graph.preset
        return RunRecord(
            graphflow=__version__, graph=spec.name, title=spec.title, text=spec.text, files=dict(self.graph.files),
            mapped=list(spec.mapped), inputs=self._inputs(), overrides=dict(self.graph.overrides),
            preset=preset_data(spec.models) if preset is None or preset.name == "inline" else preset.name,
            models=self._models(), loads=list(self.loads), memory=dict(self.memory), device=self.device,
            dtype=self.dtype, started=self.started, seconds=self.seconds,
            status=self.status, nodes={name: self._node(found) for name, found in self._in_order()},
            outputs=self._outputs(),
        )  # fmt: skip

    def _in_order(self) -> list[tuple[str, Settled]]:
        """The instances in the graph's order, whatever order they ran in."""
        ranks = {name: rank for rank, name in enumerate(self.graph.order)}
        return sorted(self.settled.items(), key=lambda item: (ranks[item[1].node.name], item[1].index))

    def _inputs(self) -> dict[str, InputRecord]:
        """The graph's inputs, and the pictures that sub-graphs bring along: a record's graph can open no file."""
        return {n: v.record() for n, v in self.inputs.items() if "/" not in n or v.stored.codec != "json"}

    def _models(self) -> dict[str, ModelRecord]:
        used = dict.fromkeys(found.node.name for found in self.settled.values())
        return {
            name: ModelRecord(
                loader=ref.loader, source=ref.describe(), space=ref.space, fingerprint=self.placer.fingerprint_of(ref)
            )
            for name, ref in self.graph.used_models(used).items()
        }

    def _node(self, found: Settled) -> NodeRecord:
        # Of our own values: validation would take longer than the whole cached run.
        node, index, placed = found.node, found.index, found.placed
        outputs = {
            name: value_record(described, stored)
            for name, described in self.placer.wiring(node).outputs
            if (stored := self.known.digests.get(Place(node.name, name, index))) is not None
        }
        return NodeRecord.model_construct(
            kind=node.cls.kind, version=node.cls.version, status=found.status, reason=found.reason,
            key=placed.key if placed is not None else None, parameters=dict(placed.shown) if placed is not None else {},
            inputs=self._edges(node, index), outputs=outputs, started=found.started, seconds=found.seconds,
            device=found.device, batch=found.batch, peak=found.peak,
        )  # fmt: skip

    def _edges(self, node: GraphNode, index: Index) -> dict[str, str | list[str]]:
        try:
            return {port: edge_text(self.graph, self.known, node, port, index) for port in node.edges}
        except UnknownError:
            return {}

    def _outputs(self) -> dict[str, ValueRecord]:
        out = {}
        for name, ref in self.outputs.items():
            with suppress(UnknownError):  # it was not computed
                out[name] = self._output(ref)
        return out

    def _output(self, ref: Ref) -> ValueRecord:
        source = self.graph.output_source(ref, self.known.length)
        described = self.graph.output_port(ref).describe()
        if not self.failed or not isinstance(source, Gathered):
            return value_record(described, self.known.stored(source))
        there = [part for part in source.parts if all(p in self.known.digests for p in places_of(part))]
        if not there:
            raise UnknownError(places_of(source)[0])
        entry = value_record(described, self.known.stored(Gathered(tuple(there))))
        entry.failed = [i for i, part in enumerate(source.parts) if part not in there]
        return entry


def value_record(described: str, stored: Stored) -> ValueRecord:
    """The entry of a value."""
    fields: dict[str, Any] = {"type": described, "digest": stored.digest, "bytes": stored.bytes}
    return ValueRecord.model_construct(**fields, file=None, failed=[])
