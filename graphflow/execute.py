"""Computing one instance: fetch what it is fed, load its models, run it, check what it returns, and store that."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from graphflow.codecs import CODECS
from graphflow.errors import Cancelled, ContractError, StoreError
from graphflow.events import Event, Logged, NodeProgress
from graphflow.graph import GraphNode, Index, Place
from graphflow.known import Known
from graphflow.node import Context, Ports
from graphflow.placing import Placed
from graphflow.ports import Port, PortType
from graphflow.store import Result, Store, Stored
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
        return self._executor.store.checkpoint(self._job.placed.key)

    def folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._executor.scratch()))


@dataclass
class Executor:
    """Computes instances on one device.

    Attributes:
        graph_name: stands beside the results in the store.
        cancelled: may be set from another thread; a node stops between two steps.
        on_preview: receives a node's name and intermediate latents.
    """

    graph_name: str
    store: Store
    values: Values
    known: Known
    device: str
    dtype: str
    emit: Callable[[Event], None]
    on_preview: Callable[[str, Any], None] | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    _pool: ModelPool | None = None
    _scratch: Path | None = None
    _store_warned: bool = False

    def compute(self, job: Job) -> float:
        """Compute an instance and take its outputs into the values; returns the seconds that the node itself took."""
        node = job.node
        values: dict[str, Any] = {}
        for port, ref in node.models.items():
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
        value = self.values.fetch_for(port, job.node, source)
        return value if port.role is None else self.pool.get_trained(value, port.role)

    def keep(self, job: Job, out: Any, seconds: float) -> None:
        """Check what a node returned, and store it."""
        cls, name = job.node.cls, job.name
        if not isinstance(out, cls.Out):
            raise ContractError(name, cls.kind, f"it returned {type(out).__name__}, expected {cls.Out.__qualname__}")
        values = {port: _checked(name, cls.kind, port, out) for port in cls.outputs().values()}
        outputs: dict[str, Stored] = {}
        whole = True
        for port, value in values.items():
            assert isinstance(port.type, PortType)
            stored = self.put(value, port.type.codec, port.is_list) if cls.cache != "never" else None
            whole &= stored is not None or cls.cache == "never"
            if stored is not None and port.type.codec == "folder":
                value = self.store.load(stored)  # the node's own folder goes with the run
            known = stored or self.store.describe(value, port.type.codec, port.is_list)
            outputs[port.name] = known
            self.values.add(Place(job.node.name, port.name, job.index), value, known, in_store=stored is not None)
        if whole:
            placed = job.placed
            self.record(
                Result(
                    placed.key, cls.kind, self.graph_name, job.node.name, placed.parts, outputs, seconds, time.time()
                )
            )

    def put(self, value: Any, codec: str, is_list: bool) -> Stored | None:
        """Store a value; None when the store can't be written."""
        try:
            return self.store.put(value, codec, is_list)
        except StoreError as error:
            self.warn_store(error)
            return None

    def record(self, result: Result) -> None:
        """Enter a result."""
        try:
            self.store.record(result)
            self.store.drop_checkpoint(result.key)
        except StoreError as error:
            self.warn_store(error)

    def warn_store(self, error: StoreError) -> None:
        """The run goes on in memory when the store can't be written; the user is told once."""
        if not self._store_warned:
            self._store_warned = True
            self.emit(Logged(node="", message=f"warning: {error}. The run goes on, but its results are not cached."))

    def scratch(self) -> Path:
        """The run's own folder for temporary files."""
        if self._scratch is None:
            self._scratch = Path(tempfile.mkdtemp(prefix="run-", dir=self.store.folder / "tmp"))
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
