"""Computing one instance: fetch what it is fed, load its models, run it, check what it returns, and store that."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from graphflow.codecs import CODECS
from graphflow.errors import Cancelled, ContractError, StoreError
from graphflow.events import Event, Logged, NodeProgress
from graphflow.graph import GraphNode, Index, Place
from graphflow.known import Known
from graphflow.node import Context
from graphflow.placing import NO_MODEL, Placed
from graphflow.ports import Port, PortType
from graphflow.store import Prepared, Result, Store, Stored, worth_storing
from graphflow.values import Values

if TYPE_CHECKING:
    import torch

    from graphflow.models.pool import ModelPool

T = TypeVar("T")


@dataclass
class Job:
    """One instance that has to be computed."""

    node: GraphNode
    index: Index
    name: str
    placed: Placed


class RunContext(Context):
    """The context of a node in a run: reports progress, stops when the run is cancelled, offers a checkpoint."""

    def __init__(self, executor: Executor, job: Job) -> None:
        super().__init__(executor.device, executor.dtype)
        self._executor, self._job = executor, job

    def steps(self, iterable: Iterable[T], total: int | None = None, label: str = "") -> Iterator[T]:
        if total is None:
            with suppress(TypeError):
                total = len(iterable)  # type: ignore[arg-type]
        emit, node = self._executor.emit, self._job.name
        for step, item in enumerate(iterable):
            if self._executor.cancelled.is_set():
                raise Cancelled
            emit(NodeProgress(node=node, step=step, total=total, label=label))
            yield item
        if total:
            emit(NodeProgress(node=node, step=total, total=total, label=label))

    def preview(self, latents: torch.Tensor) -> None:
        if self._executor.on_preview is not None:
            self._executor.on_preview(self._job.name, latents)

    def log(self, message: str, *args: object) -> None:
        self._executor.emit(Logged(node=self._job.name, message=message % args if args else message))

    @property
    def checkpoint(self) -> Path | None:
        self._executor.checkpoints.add(self._job.placed.key)
        return self._executor.store.checkpoint(self._job.placed.key)

    def folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._executor.scratch()))


@dataclass
class Executor:
    """Computes instances on one device.

    Attributes:
        graph_name: stands beside the results in the store.
        keep_always: outputs (node, port) that are stored whatever they cost: those of the graph.
        cancelled: may be set from another thread; a node stops between two steps.
        on_preview: receives a node's name and intermediate latents.
        checkpoints: keys of instances that have asked for a checkpoint.
    """

    graph_name: str
    store: Store
    values: Values
    known: Known
    device: str
    dtype: str
    emit: Callable[[Event], None]
    keep_always: frozenset[tuple[str, str]] = frozenset()
    on_preview: Callable[[str, Any], None] | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    checkpoints: set[str] = field(default_factory=set)
    _pool: ModelPool | None = None
    _scratch: Path | None = None
    _store_warned: bool = False

    def compute(self, job: Job) -> float:
        """Compute an instance and take its outputs into the values; returns the seconds that the node itself took."""
        node = job.node
        values: dict[str, Any] = {}
        for port, ref in node.models.items():
            if job.placed.models[port] != NO_MODEL:
                values[port] = self.pool.get(ref)
        for port in node.edges:
            if port in node.ports:
                values[port] = self.fed(job, node.ports[port])
        began = time.perf_counter()
        out = job.placed.node.run(node.cls.In(**values), RunContext(self, job))
        seconds = time.perf_counter() - began
        self.keep(job, out, seconds)
        return seconds

    def fed(self, job: Job, port: Port) -> Any:
        """What an edge brings to a port; trained weights come as the loaded model."""
        source = self.known.source(job.node, port.name, job.index)
        value = self.values.fetch_for(port, source)
        return value if port.role is None else self.pool.get_trained(value, port.role)

    def keep(self, job: Job, out: Any, seconds: float) -> None:
        """Check what a node returned, and store it in one transaction with the result."""
        cls, name = job.node.cls, job.name
        if not isinstance(out, cls.Out):
            raise ContractError(name, cls.kind, f"it returned {type(out).__name__}, expected {cls.Out.__qualname__}")
        prepared: dict[str, Prepared] = {}
        try:
            stored = {n: self.stage(job, port, out, seconds, prepared) for n, port in cls.outputs().items()}
            entered = self.record(job, stored, seconds, prepared)
        finally:
            for value in prepared.values():
                value.discard()
        for port, known in stored.items():
            value = getattr(out, port)
            in_store = entered and port in prepared
            if in_store and known.codec in ("folder", "series"):
                value = self.store.load(known)  # the node's own folder goes with the run
            self.values.add(Place(job.node.name, port, job.index), value, known, in_store)

    def stage(self, job: Job, port: Port, out: Any, seconds: float, prepared: dict[str, Prepared]) -> Stored:
        """Check and digest an output, and write its files unless it is cheaper to compute it again."""
        cls = job.node.cls
        assert isinstance(port.type, PortType)
        earlier = job.placed.result.outputs.get(port.name) if job.placed.result is not None else None
        if earlier is not None and not earlier.kept and cls.deterministic and _same_length(earlier, out, port):
            return earlier  # the digests are known: a data set of a thousand pictures need not be read for them
        items = _checked(job.name, cls.kind, port, getattr(out, port.name))
        value = items if port.is_list else next(iter(items))
        if cls.cache == "never":
            return self.store.describe(value, port.type.codec, port.is_list)
        try:
            found = self.store.prepare(value, port.type.codec, port.is_list)
        except StoreError as error:
            self.warn_store(error)
            return self.store.describe(getattr(out, port.name), port.type.codec, port.is_list)
        wanted = cls.cache == "always" or (job.node.name, port.name) in self.keep_always
        if not wanted and not port.is_list and not worth_storing(found.stored.bytes, seconds, port.type.codec):
            found.discard()
            return replace(found.stored, kept=False)
        prepared[port.name] = found
        return found.stored

    def record(self, job: Job, stored: dict[str, Stored], seconds: float, prepared: dict[str, Prepared]) -> bool:
        """Enter a result with its values; False when the store can't be written."""
        placed, cls = job.placed, job.node.cls
        result = Result(
            placed.key, cls.kind, self.graph_name, job.node.name, placed.parts, stored, seconds, time.time(),
            placed.code,
        )  # fmt: skip
        try:
            self.store.record(result, prepared.values())
            if result.key in self.checkpoints:
                self.store.drop_checkpoint(result.key)
        except StoreError as error:
            self.warn_store(error)
            return False
        return True

    def warn_store(self, error: StoreError) -> None:
        """The run goes on in memory when the store can't be written; the user is told once."""
        if not self._store_warned:
            self._store_warned = True
            self.emit(Logged(node="", message=f"warning: {error}. The run goes on, but its results are not cached."))

    def scratch(self) -> Path:
        """The run's own folder for temporary files."""
        if self._scratch is None:
            self._scratch = self.store.scratch()
        return self._scratch

    def close(self) -> None:
        """Remove temporary files."""
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    @property
    def pool(self) -> ModelPool:
        """Loaded models; made, and torch imported, when the first node needs one."""
        if self._pool is None:
            import torch

            from graphflow.models.pool import ModelPool

            self._pool = ModelPool(torch.device(self.device), getattr(torch, self.dtype), self.emit)
        return self._pool


def _checked(node: str, kind: str, port: Port, value: Any) -> Iterator[Any]:
    """The value, or the elements of a list one after the other, each once it has passed the check."""
    assert isinstance(port.type, PortType)
    codec = CODECS[port.type.codec]
    if port.is_list and (not isinstance(value, Sequence) or isinstance(value, str)):
        raise ContractError(node, kind, f"output '{port.name}' is {type(value).__name__}, expected a list")
    for item in value if port.is_list else (value,):
        if problem := codec.check(item):
            raise ContractError(node, kind, f"output '{port.name}' ({port.describe()}): {problem}")
        yield item


def _same_length(earlier: Stored, out: Any, port: Port) -> bool:
    value = getattr(out, port.name)
    return earlier.items is None or (isinstance(value, Sequence) and len(value) == len(earlier.items))
