"""Running a graph: each node once, in order, every result stored before the next node starts."""

from __future__ import annotations

import datetime
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from graphflow.codecs import CODECS
from graphflow.errors import (
    Cancelled,
    ContractError,
    DamagedBlobError,
    GraphflowError,
    NodeError,
    StoreError,
)
from graphflow.events import (
    Bus,
    Event,
    Logged,
    NodeFailed,
    NodeFinished,
    NodeProgress,
    NodeStarted,
    RunFinished,
    RunStarted,
)
from graphflow.graph import Edge, Graph
from graphflow.inputs import InputValue
from graphflow.models.files import require
from graphflow.node import Context, Ports
from graphflow.plan import Placed, Placer, Plan, make_plan
from graphflow.ports import CONVERSIONS, Port, PortType
from graphflow.record import ModelRecord, NodeRecord, RunRecord, ValueRecord
from graphflow.spec import Ref
from graphflow.store import Result, Store, Stored

if TYPE_CHECKING:
    import torch

    from graphflow.models.pool import ModelPool

T = TypeVar("T")


@dataclass
class Run:
    """A finished run: its record, and its outputs on demand."""

    record: RunRecord
    load: Callable[[str], Any]

    def __getitem__(self, output: str) -> Any:
        return self.load(output)


class RunContext(Context):
    """The context of a node in a run: reports progress, stops when the run is cancelled, offers a checkpoint."""

    def __init__(self, runner: Runner, node: str, key: str, scratch: Path) -> None:
        super().__init__(runner.device, runner.dtype)
        self._runner, self._node, self._key, self._scratch = runner, node, key, scratch

    def steps(self, iterable: Iterable[T], total: int | None = None, label: str = "") -> Iterator[T]:
        if total is None:
            with suppress(TypeError):
                total = len(iterable)  # type: ignore[arg-type]
        for step, item in enumerate(iterable):
            if self._runner.cancelled.is_set():
                raise Cancelled
            self._runner.emit(NodeProgress(node=self._node, step=step, total=total, label=label))
            yield item
        if total:
            self._runner.emit(NodeProgress(node=self._node, step=total, total=total, label=label))

    def preview(self, latents: torch.Tensor) -> None:
        if self._runner.on_preview is not None:
            self._runner.on_preview(self._node, latents)

    def log(self, message: str, *args: object) -> None:
        self._runner.emit(Logged(node=self._node, message=message % args if args else message))

    @property
    def checkpoint(self) -> Path | None:
        return self._runner.store.checkpoint(self._key)

    def folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._scratch))


class Runner:
    """Executes one plan. `cancelled` may be set from another thread; the run stops between two steps."""

    def __init__(
        self,
        graph: Graph,
        inputs: Mapping[str, InputValue],
        store: Store,
        device: str = "cpu",
        dtype: str = "float32",
        emit: Callable[[Event], None] | None = None,
        on_preview: Callable[[str, Any], None] | None = None,
    ) -> None:
        self.graph, self.inputs, self.store = graph, inputs, store
        self.device, self.dtype = device, dtype
        self.emit = emit or Bus()
        self.on_preview = on_preview
        self.cancelled = threading.Event()
        self.numerics = f"{device.partition(':')[0]} {dtype}"
        self._placer = Placer(graph, inputs, store, self.numerics)
        self._digests = self._placer.known()
        self._values: dict[tuple[str, str], Any] = {}
        self._unstored: set[tuple[str, str]] = set()
        self._consumers: dict[tuple[str, str], int] = {}
        self._pool: ModelPool | None = None
        self._store_warned = False
        self._began = 0.0
        self._records: dict[str, NodeRecord] = {}

    def plan(self) -> Plan:
        """What this run will do."""
        return make_plan(self.graph, self.inputs, self.store, self.numerics)

    def run(self) -> Run:
        """Execute.

        Raises:
            MissingError: a model that a node needs is not on this machine; nothing has run.
            NodeError: a node failed; what finished before is stored.
            KeyboardInterrupt, Cancelled: the run was stopped; what finished before is stored.

        Whatever happens, `record` describes the run so far.
        """
        self._began = time.perf_counter()
        self.record = self._new_record()
        plan = self.plan()
        active = [n for n, p in plan.nodes.items() if p.status != "cached"]
        require(self.graph.used_models(active), self.graph.preset.name if self.graph.preset else "")
        self.emit(RunStarted(graph=self.graph.name, nodes={n: p.status for n, p in plan.nodes.items()}))
        self._count_consumers(plan)
        self._store_inputs()
        status = "failed"
        scratch = Path(tempfile.mkdtemp(prefix="run-", dir=self.store.folder / "tmp"))
        try:
            for name in plan.nodes:
                self._settle(name, plan.nodes[name].reason, scratch)
            for ref in self.graph.outputs.values():
                self._secure(ref, scratch)
            status = "done"
        except (KeyboardInterrupt, Cancelled):
            status = "cancelled"
            raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            self._finish(status)
        return Run(self.record, self.output)

    def output(self, name: str) -> Any:
        """The value of a graph output."""
        return self._value(self.graph.outputs[name])

    def stored_value(self, value: ValueRecord) -> Any:
        """The value behind an entry of the record; None when neither the store nor this process has it."""
        for place, stored in self._digests.items():
            if stored.digest == value.digest:
                try:
                    return self._value(Ref(*place, self.graph.spec.mark))
                except DamagedBlobError:
                    return None
        return None

    def _store_inputs(self) -> None:
        """Keep the inputs: a rerun from a picture's provenance finds them, and `why` can name both values."""
        for value in self.inputs.values():
            if not self.store.has(value.stored):
                try:
                    self.store.put(value.load(), value.stored.codec, value.stored.items is not None)
                except StoreError as error:
                    self._warn_store(error)

    # --- execution ----------------------------------------------------------------------------------------------

    def _settle(self, name: str, reason: str, scratch: Path) -> None:
        """Bring a node's outputs into being, computing again whatever a damaged blob has lost."""
        todo = [name]
        forced: set[str] = set()
        while todo:
            try:
                self._settle_one(todo[-1], reason, todo[-1] in forced, scratch)
                todo.pop()
            except _LostValueError as lost:
                if lost.ref.node == "inputs" or lost.ref.node in todo:
                    raise StoreError(str(lost)) from lost
                self.emit(Logged(node="", message=f"{lost}; computing {lost.ref.node} again"))
                todo.append(lost.ref.node)
                forced.add(lost.ref.node)

    def _settle_one(self, name: str, reason: str, forced: bool, scratch: Path) -> None:
        placed = self._placer.place(name, self._digests, self._fetch)
        cls = self.graph.nodes[name].cls
        record = NodeRecord(
            kind=cls.kind, version=cls.version, status="cached", key=placed.key,
            parameters=placed.node.model_dump(mode="json"), inputs=self._edge_texts(name),
        )  # fmt: skip
        self._records[name] = record
        if placed.result is not None and not forced:
            self._digests.update({(name, port): s for port, s in placed.result.outputs.items()})
            record.seconds = placed.result.seconds
            self.emit(NodeFinished(node=name, how="cached"))
        else:
            record.reason = "a stored value was lost" if forced else reason
            self._compute(name, placed, record, scratch)
        record.outputs = {
            port: ValueRecord(
                type=p.describe(), digest=self._digests[name, port].digest, bytes=self._digests[name, port].bytes
            )
            for port, p in cls.outputs().items()
        }

    def _compute(self, name: str, placed: Placed, record: NodeRecord, scratch: Path) -> None:
        node = self.graph.nodes[name]
        values = {
            port: self._edge_value(node.port(port), edge)
            for port, edge in node.edges.items()
            if port in node.cls.inputs()
        }
        self.emit(NodeStarted(node=name, kind=node.cls.kind))
        record.started = time.perf_counter() - self._began
        context = RunContext(self, name, placed.key, scratch)
        try:
            for port, ref in node.models.items():
                values[port] = self.pool.get(ref)
            began = time.perf_counter()
            out = placed.node.run(node.cls.In(**values), context)
            seconds = time.perf_counter() - began
        except (KeyboardInterrupt, Cancelled):
            record.status = "skipped"
            raise
        except Exception as error:
            record.status = "failed"
            record.reason = _message(error)
            self.emit(NodeFailed(node=name, message=_message(error)))
            if isinstance(error, GraphflowError):
                raise
            raise NodeError(name, node.cls.kind, _message(error)) from error
        self._keep(name, placed, out, seconds)
        record.status, record.seconds = "ran", seconds
        self._release(name)
        self.emit(NodeFinished(node=name, how="ran", seconds=seconds))

    def _keep(self, name: str, placed: Placed, out: Any, seconds: float) -> None:
        """Check what a node returned, and store it."""
        cls = self.graph.nodes[name].cls
        if not isinstance(out, cls.Out):
            raise ContractError(name, cls.kind, f"it returned {type(out).__name__}, expected {cls.Out.__qualname__}")
        outputs: dict[str, Stored] = {}
        whole = cls.cache != "never"
        for port in cls.outputs().values():
            value = _checked(name, cls.kind, port, out)
            assert isinstance(port.type, PortType)
            stored = None
            if whole:
                try:
                    stored = self.store.put(value, port.type.codec, port.is_list)
                    if port.type.codec == "folder":
                        value = self.store.load(stored)
                except StoreError as error:
                    self._warn_store(error)
                    whole = False
            place = (name, port.name)
            if stored is None:
                stored = self.store.describe(value, port.type.codec, port.is_list)
                self._unstored.add(place)
            outputs[port.name] = stored
            self._digests[place] = stored
            if self._consumers.get(place) or place in self._unstored:
                self._values[place] = value
        if not whole and cls.cache != "never":
            return
        try:
            result = Result(placed.key, cls.kind, self.graph.name, name, placed.parts, outputs, seconds, time.time())
            self.store.record(result)
            self.store.drop_checkpoint(placed.key)
        except StoreError as error:
            self._warn_store(error)

    def _warn_store(self, error: StoreError) -> None:
        """The run goes on in memory when the store can't be written; the user is told once."""
        if not self._store_warned:
            self._store_warned = True
            self.emit(Logged(node="", message=f"warning: {error}. The run goes on, but its results are not cached."))

    # --- values -------------------------------------------------------------------------------------------------

    def _edge_value(self, port: Port, edge: Edge) -> Any:
        if isinstance(edge, tuple):
            return [self._converted(port, ref) for ref in edge]
        if port.role is not None:
            return self.pool.get_trained(self._fetch(edge), port.role)
        return self._converted(port, edge)

    def _converted(self, port: Port, ref: Ref) -> Any:
        value = self._fetch(ref)
        source = self._type_of(ref)
        assert isinstance(port.type, PortType)
        convert = CONVERSIONS.get((source, port.type.name)) if source != port.type.name else None
        if convert is None:
            return value
        return [convert(v) for v in value] if isinstance(value, list) else convert(value)

    def _type_of(self, ref: Ref) -> str:
        if ref.node == "inputs":
            return self.graph.inputs[ref.port].type.name
        found = self.graph.nodes[ref.node].cls.outputs()[ref.port].type
        assert isinstance(found, PortType)
        return found.name

    def _fetch(self, ref: Ref) -> Any:
        try:
            return self._value(ref)
        except DamagedBlobError as error:
            raise _LostValueError(ref, str(error)) from error

    def _value(self, ref: Ref) -> Any:
        place = (ref.node, ref.port)
        if place not in self._values:
            value = self.inputs[ref.port].load() if ref.node == "inputs" else self.store.load(self._digests[place])
            if not self._consumers.get(place):
                return value
            self._values[place] = value
        return self._values[place]

    def _secure(self, ref: Ref, scratch: Path) -> None:
        """Make sure that a graph output can be read."""
        try:
            self._values[ref.node, ref.port] = self._fetch(ref)
        except _LostValueError as lost:
            if ref.node == "inputs":
                raise StoreError(str(lost)) from lost
            self.emit(Logged(node="", message=f"{lost}; computing {ref.node} again"))
            self._consumers[ref.node, ref.port] = 1
            self._recompute(ref.node, scratch)

    def _recompute(self, name: str, scratch: Path) -> None:
        self.store.forget(self._records[name].key or "")
        self._settle(name, "a stored value was lost", scratch)

    def _count_consumers(self, plan: Plan) -> None:
        for name, entry in plan.nodes.items():
            if entry.status != "cached":
                for ref in self.graph.nodes[name].refs:
                    self._consumers[ref.node, ref.port] = self._consumers.get((ref.node, ref.port), 0) + 1

    def _release(self, name: str) -> None:
        """Let go of values that no later node needs; the store still has them."""
        for ref in self.graph.nodes[name].refs:
            place = (ref.node, ref.port)
            left = self._consumers[place] = self._consumers.get(place, 1) - 1
            if left <= 0 and place not in self._unstored:
                self._values.pop(place, None)

    @property
    def pool(self) -> ModelPool:
        """Loaded models; made, and torch imported, when the first node needs one."""
        if self._pool is None:
            import torch

            from graphflow.models.pool import ModelPool

            self._pool = ModelPool(torch.device(self.device), getattr(torch, self.dtype), self.emit)
        return self._pool

    # --- the record ---------------------------------------------------------------------------------------------

    def _new_record(self) -> RunRecord:
        from graphflow import __version__
        from graphflow.models.preset import preset_data

        spec = self.graph.spec
        preset = self.graph.preset
        return RunRecord(
            graphflow=__version__, graph=spec.name, title=spec.title, text=spec.text,
            inputs={name: value.record() for name, value in self.inputs.items()},
            overrides=dict(self.graph.overrides),
            preset=preset_data(spec.models) if preset is None or preset.name == "inline" else preset.name,
            device=self.device, dtype=self.dtype,
            started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )  # fmt: skip

    def _finish(self, status: Any) -> None:
        record = self.record
        record.seconds = time.perf_counter() - self._began
        record.status = status
        record.nodes = {n: self._records[n] for n in self.graph.order if n in self._records}
        for name, model in self.graph.used_models(record.nodes).items():
            record.models[name] = ModelRecord(
                loader=model.loader, source=model.describe(), space=model.space,
                fingerprint=self._placer.fingerprint_of(model),
            )  # fmt: skip
        for name, ref in self.graph.outputs.items():
            stored = self._digests.get((ref.node, ref.port))
            if stored is not None:
                record.outputs[name] = ValueRecord(type=self._describe(ref), digest=stored.digest, bytes=stored.bytes)
        self.emit(RunFinished(status=status, seconds=record.seconds))
        if status == "done":
            with suppress(StoreError):
                self.store.touch(r.key for r in record.nodes.values() if r.key)

    def _describe(self, ref: Ref) -> str:
        if ref.node == "inputs":
            return self.graph.inputs[ref.port].describe()
        return self.graph.nodes[ref.node].cls.outputs()[ref.port].describe()

    def _edge_texts(self, name: str) -> dict[str, str | list[str]]:
        edges = self.graph.nodes[name].edges
        return {p: [str(r) for r in e] if isinstance(e, tuple) else str(e) for p, e in edges.items()}


class _LostValueError(Exception):
    def __init__(self, ref: Ref, message: str) -> None:
        self.ref = ref
        super().__init__(message)


def _checked(node: str, kind: str, port: Port, out: Ports) -> Any:
    value = getattr(out, port.name)
    assert isinstance(port.type, PortType)
    codec = CODECS[port.type.codec]
    if port.is_list and not isinstance(value, list | tuple):
        raise ContractError(node, kind, f"output '{port.name}' is {type(value).__name__}, expected a list")
    for item in value if port.is_list else [value]:
        if problem := codec.check(item):
            raise ContractError(node, kind, f"output '{port.name}' ({port.describe()}): {problem}")
    return value


def _message(error: BaseException) -> str:
    text = str(error)
    return text if isinstance(error, GraphflowError | ValueError) and text else f"{type(error).__name__}: {text}"
