"""One instance that has to be computed, and its context while it runs."""

from __future__ import annotations

import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from graphflow.errors import Cancelled
from graphflow.events import Event, Logged, NodeProgress
from graphflow.graph import GraphNode, Index
from graphflow.node import Context
from graphflow.placing import Placed
from graphflow.store import Lease, Store, Stored

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


@dataclass
class Job:
    """One instance that has to be computed.

    Attributes:
        name: the instance's.
        reason: why it runs.
        again: its result is there, but a value of it was lost.
        lease: the right to compute it.
        contended: another process computes it, too, which could not be waited for.
        values: what its ports are fed; of trained weights the folder. Models of the preset are not among them.
        stored: port → how the store has that value; None when it was converted on its way.
    """

    node: GraphNode
    index: Index
    name: str
    placed: Placed
    reason: str = ""
    again: bool = False
    lease: Lease | None = None
    contended: bool = False
    values: dict[str, Any] = field(default_factory=dict)
    stored: Callable[[str], Stored | None] = lambda port: None


@dataclass
class Surroundings:
    """What the nodes of a run share.

    Attributes:
        dtype: floating-point type of the models.
        cancelled: set from outside; nodes stop between two steps.
        stopping: set when another node has failed and the run ends.
        on_preview: receives a node's name and intermediate latents.
        checkpoints: keys of instances that have asked for a checkpoint.
        keep_scratch: an output of the graph lies in the run's folder alone: it stays as long as the run can be asked.
    """

    store: Store
    dtype: str
    emit: Callable[[Event], None]
    on_preview: Callable[[str, Any], None] | None
    cancelled: threading.Event
    stopping: threading.Event = field(default_factory=threading.Event)
    checkpoints: set[str] = field(default_factory=set)
    keep_scratch: bool = False
    _scratch: Path | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def scratch(self) -> Path:
        """The run's own folder for temporary files."""
        with self._lock:
            if self._scratch is None:
                self._scratch = self.store.scratch()
            return self._scratch

    def close(self) -> None:
        """Remove temporary files."""
        import shutil

        if self._scratch is not None:
            if self.keep_scratch:
                weakref.finalize(self, shutil.rmtree, self._scratch, ignore_errors=True)
            else:
                shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None


class RunContext(Context):
    """The context of a node in a run: reports progress, stops when the run is cancelled, offers a checkpoint.

    A batch of instances has one context; the steps are those of each, the checkpoint is the first one's.
    """

    def __init__(self, around: Surroundings, device: str, jobs: list[Job]) -> None:
        super().__init__(device, around.dtype)
        self._around, self._jobs = around, jobs

    def steps(self, iterable: Iterable[T], total: int | None = None, label: str = "") -> Iterator[T]:
        if total is None:
            with suppress(TypeError):
                total = len(iterable)  # type: ignore[arg-type]
        for step, item in enumerate(iterable):
            if self._around.cancelled.is_set() or self._around.stopping.is_set():
                raise Cancelled
            self._report(step, total, label)
            yield item
        if total:
            self._report(total, total, label)

    def _report(self, step: int, total: int | None, label: str) -> None:
        for job in self._jobs:
            self._around.emit(NodeProgress(node=job.name, step=step, total=total, label=label))

    def preview(self, latents: torch.Tensor) -> None:
        if self._around.on_preview is None:
            return
        each = len(latents) // len(self._jobs) or 1
        for number, job in enumerate(self._jobs):
            self._around.on_preview(job.name, latents[number * each : (number + 1) * each])

    def log(self, message: str, *args: object) -> None:
        text = message % args if args else message
        for job in self._jobs:
            self._around.emit(Logged(node=job.name, message=text))

    @property
    def checkpoint(self) -> Path | None:
        key = self._jobs[0].placed.key
        if self._jobs[0].contended:
            return self.folder()  # the other one's checkpoint goes when it is through
        self._around.checkpoints.add(key)
        return self._around.store.checkpoint(key)

    def folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._around.scratch()))
