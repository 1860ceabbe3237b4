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
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from graphflow.codecs import CODECS
from graphflow.errors import (
    Cancelled,
    ContractError,
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
from graphflow.models.preset import preset_data
from graphflow.node import Context, Ports
from graphflow.plan import Placed, Placer, Plan, make_plan
from graphflow.ports import Port, PortType
from graphflow.record import ModelRecord, NodeRecord, RunRecord, ValueRecord
from graphflow.spec import Ref
from graphflow.store import Result, Store, Stored
from graphflow.values import LostValueError, Values
from graphflow.version import __version__

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
    ) -> None:
        self.graph, self.inputs, self.store = graph, inputs, store
        self.device, self.dtype = device, dtype
        self.emit = emit or Bus()
        self.on_preview = on_preview
        self.cancelled = threading.Event()
        self.numerics = f"{device.partition(':')[0]} {dtype}"
        self._placer = Placer(graph, inputs, store, self.numerics)
        self._values = Values(graph, inputs, store)
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
        """
        self._began = time.perf_counter()
        self.record = self._new_record()
        plan = self.plan()
        active = [n for n, p in plan.nodes.items() if p.status != "cached"]
        require(self.graph.used_models(active), self.graph.preset.name if self.graph.preset else "")
        self.emit(RunStarted(graph=self.graph.name, nodes={n: p.status for n, p in plan.nodes.items()}))
        self._values.expect(active)
        self._store_inputs()
        status: Literal["done", "failed", "cancelled"] = "failed"
        scratch = Path(tempfile.mkdtemp(prefix="run-", dir=self.store.folder / "tmp"))
        try:
            for name, entry in plan.nodes.items():
                self._settle([name], entry.reason, scratch)
            for ref in self.graph.outputs.values():
                self._hold(ref, scratch)
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
        return self._values.fetch(self.graph.outputs[name])

    def stored_value(self, value: ValueRecord) -> Any:
        """The value behind an entry of the record; None when neither the store nor this process has it."""
        return self._values.find(value.digest)

    def _store_inputs(self) -> None:
        """Keep the inputs: a rerun from a picture's provenance finds them, and `why` can name both values."""
        for value in self.inputs.values():
            if not self.store.has(value.stored):
                try:
                    self.store.put(value.load(), value.stored.codec, value.stored.items is not None)
                except StoreError as error:
                    self._warn_store(error)

    # --- execution ----------------------------------------------------------------------------------------------

    def _settle(self, todo: list[str], reason: str, scratch: Path, forced: frozenset[str] = frozenset()) -> None:
        """Bring the outputs of a node into being, computing again whatever a damaged blob has lost."""
        while todo:
            try:
                self._settle_one(todo[-1], reason, todo[-1] in forced, scratch)
                todo.pop()
            except LostValueError as lost:
                if lost.ref.node in todo:
                    raise StoreError(str(lost)) from lost
                todo.append(self._lost(lost))
                forced |= {lost.ref.node}

    def _hold(self, ref: Ref, scratch: Path) -> None:
        """Make sure that a graph output can be read after the run."""
        try:
            self._values.hold(ref)
        except LostValueError as lost:
            node = self._lost(lost)
            self._settle([node], "", scratch, frozenset([node]))
            self._values.hold(ref)

    def _lost(self, lost: LostValueError) -> str:
        """Report a lost value; returns the node that can compute it again."""
        if lost.ref.node == "inputs":
            raise StoreError(str(lost)) from lost
        self.emit(Logged(node="", message=f"{lost}; computing {lost.ref.node} again"))
        return lost.ref.node

    def _settle_one(self, name: str, reason: str, forced: bool, scratch: Path) -> None:
        digests = self._values.digests
        placed = self._placer.place(name, digests, self._values.fetch)
        cls = self.graph.nodes[name].cls
        record = NodeRecord(
            kind=cls.kind, version=cls.version, status="skipped", key=placed.key,
            parameters=placed.node.model_dump(mode="json"), inputs=self._edge_texts(name),
        )  # fmt: skip
        self._records[name] = record
        if placed.result is not None and not forced:
            digests.update({(name, port): s for port, s in placed.result.outputs.items()})
            record.status, record.seconds = "cached", placed.result.seconds
            self.emit(NodeFinished(node=name, how="cached"))
        else:
            record.reason = "a stored value was lost" if forced else reason
            self._compute(name, placed, record, scratch)
        for port in cls.outputs().values():
            stored = digests[name, port.name]
            record.outputs[port.name] = ValueRecord(type=port.describe(), digest=stored.digest, bytes=stored.bytes)

    def _compute(self, name: str, placed: Placed, record: NodeRecord, scratch: Path) -> None:
        node = self.graph.nodes[name]
        ports = node.cls.inputs()
        values = {port: self._edge_value(ports[port], edge) for port, edge in node.edges.items() if port in ports}
        self.emit(NodeStarted(node=name, kind=node.cls.kind))
        record.started = time.perf_counter() - self._began
        try:
            for port, ref in node.models.items():
                values[port] = self.pool.get(ref)
            for port in node.edges:
                if port in ports and ports[port].role is not None:
                    values[port] = self.pool.get_trained(values[port], str(ports[port].role))
            began = time.perf_counter()
            out = placed.node.run(node.cls.In(**values), RunContext(self, name, placed.key, scratch))
            record.seconds = time.perf_counter() - began
            self._keep(name, placed, out, record.seconds)
        except Exception as error:
            message = _message(error)
            record.status, record.reason = "failed", message
            self.emit(NodeFailed(node=name, message=message))
            if isinstance(error, GraphflowError):
                raise
            raise NodeError(name, node.cls.kind, message) from error
        record.status = "ran"
        self._values.release(name)
        self.emit(NodeFinished(node=name, how="ran", seconds=record.seconds))

    def _edge_value(self, port: Port, edge: Edge) -> Any:
        if isinstance(edge, tuple):
            return [self._values.fetch_for(port, ref) for ref in edge]
        return self._values.fetch(edge) if port.role is not None else self._values.fetch_for(port, edge)

    def _keep(self, name: str, placed: Placed, out: Any, seconds: float) -> None:
        """Check what a node returned, and store it."""
        cls = self.graph.nodes[name].cls
        if not isinstance(out, cls.Out):
            raise ContractError(name, cls.kind, f"it returned {type(out).__name__}, expected {cls.Out.__qualname__}")
        values = {port: _checked(name, cls.kind, port, out) for port in cls.outputs().values()}
        outputs: dict[str, Stored] = {}
        whole = True
        for port, value in values.items():
            assert isinstance(port.type, PortType)
            stored = self._put(value, port.type.codec, port.is_list) if cls.cache != "never" else None
            whole &= stored is not None or cls.cache == "never"
            if stored is not None and port.type.codec == "folder":
                value = self.store.load(stored)  # the node's own folder goes with the run
            known = stored or self.store.describe(value, port.type.codec, port.is_list)
            outputs[port.name] = known
            self._values.add(name, port.name, value, known, in_store=stored is not None)
        if whole:
            self._record_result(
                Result(placed.key, cls.kind, self.graph.name, name, placed.parts, outputs, seconds, time.time())
            )

    def _put(self, value: Any, codec: str, is_list: bool) -> Stored | None:
        try:
            return self.store.put(value, codec, is_list)
        except StoreError as error:
            self._warn_store(error)
            return None

    def _record_result(self, result: Result) -> None:
        try:
            self.store.record(result)
            self.store.drop_checkpoint(result.key)
        except StoreError as error:
            self._warn_store(error)

    def _warn_store(self, error: StoreError) -> None:
        """The run goes on in memory when the store can't be written; the user is told once."""
        if not self._store_warned:
            self._store_warned = True
            self.emit(Logged(node="", message=f"warning: {error}. The run goes on, but its results are not cached."))

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
        spec, preset = self.graph.spec, self.graph.preset
        return RunRecord(
            graphflow=__version__, graph=spec.name, title=spec.title, text=spec.text,
            inputs={name: value.record() for name, value in self.inputs.items()},
            overrides=dict(self.graph.overrides),
            preset=preset_data(spec.models) if preset is None or preset.name == "inline" else preset.name,
            device=self.device, dtype=self.dtype,
            started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )  # fmt: skip

    def _finish(self, status: Literal["done", "failed", "cancelled"]) -> None:
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
            stored = self._values.digests.get((ref.node, ref.port))
            if stored is not None:
                described = self._values.port_of(ref).describe()
                record.outputs[name] = ValueRecord(type=described, digest=stored.digest, bytes=stored.bytes)
        self.emit(RunFinished(status=status, seconds=record.seconds))
        if status == "done":
            with suppress(StoreError):
                self.store.touch(r.key for r in record.nodes.values() if r.key)

    def _edge_texts(self, name: str) -> dict[str, str | list[str]]:
        edges = self.graph.nodes[name].edges
        return {p: [str(r) for r in e] if isinstance(e, tuple) else str(e) for p, e in edges.items()}


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
