"""Running nodes on a device: their models, batches, and what is done when memory runs out.

Out of memory, in this order: free what is cached and move other models off the device; halve the batch; compute with
the largest model group-offloaded; only then fail, with the figures.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from graphflow import machine
from graphflow.errors import Cancelled, ContractError, GraphflowError, NodeError, OutOfMemoryError
from graphflow.events import Event, Logged, ModelLoaded, ModelLoading, ModelReleased
from graphflow.executors.alike import alike
from graphflow.executors.host import to_host
from graphflow.executors.interrupt import Interruptible
from graphflow.executors.job import Job, RunContext, Surroundings
from graphflow.executors.peak import Peak
from graphflow.imports import importing
from graphflow.models.weights import model_key, weight_bytes
from graphflow.node import BatchNode
from graphflow.placing import NO_MODEL
from graphflow.ports import Port
from graphflow.threads import whole_team
from graphflow.units import size

if TYPE_CHECKING:
    from graphflow.models.pool import ModelPool
    from graphflow.models.refs import ModelRef

HOST_SPARE = 4 << 30  # bytes of host memory that models which wait there leave to everything else
Pools = dict[tuple[str, str], "ModelPool"]
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "not enough memory",
    "CUDA out of memory",
    "can't allocate memory",
    "Cannot allocate memory",
)


@dataclass
class Outcome:
    """What came of a job: `out` as the node returned it, or `error`.

    Attributes:
        seconds: of the call, divided by the batch.
        started: `time.perf_counter` then.
        batch: how many elements were computed in one call.
        peak: the memory that the call needed beside the weights, in bytes.
    """

    job: Job
    out: Any = None
    error: BaseException | None = None
    seconds: float = 0.0
    started: float = 0.0
    batch: int = 1
    peak: int | None = None


@dataclass
class Computer:
    """Computes jobs on one device, one call after the other.

    Attributes:
        memory: budget of the device in bytes, for the figures of a failure.
        pools: (device, dtype) → pool of models that outlive the run; None: they don't.
        released: models that were moved off the device to survive; whoever plans residency takes them from here.
        halved: node → the largest batch that there is room for, where a larger one has failed.
    """

    device: str
    around: Surroundings
    memory: int | None = None
    pools: Pools | None = None
    released: list[str] = field(default_factory=list)
    halved: dict[str, int] = field(default_factory=dict)
    _pool: ModelPool | None = None
    _making: threading.Lock = field(default_factory=threading.Lock)  # two threads may want the first model at once
    _coming: ModelRef | None = None
    _calls: Interruptible = field(default_factory=Interruptible)
    _used: dict[str, None] = field(default_factory=dict)  # models that jobs have brought, the one used last at the end

    @property
    def torch_device(self) -> str:
        """The device as torch names it: there is one CPU, however many workers."""
        return "cpu" if self.device.startswith("cpu") else self.device

    @property
    def pool(self) -> ModelPool:
        """Loaded models; made, and torch imported, when the first node needs one."""
        with self._making:
            if self._pool is None:
                self._pool = self._find_pool()
            return self._pool

    def _find_pool(self) -> ModelPool:
        import torch

        from graphflow.models.pool import ModelPool

        found = self.pools.get((self.device, self.around.dtype)) if self.pools is not None else None
        if found is None:
            found = ModelPool(torch.device(self.torch_device), getattr(torch, self.around.dtype), self.around.emit)
        found.emit = partial(_named, self.around.emit, self.device)
        if self.pools is not None:
            self.pools[self.device, self.around.dtype] = found
        return found

    def left_over(self, wanted: Collection[str]) -> list[str]:
        """The models that an earlier run has left on the device; those that are not `wanted` go, if there is a budget.

        Those that are wanted go, too, where they exceed the budget together, and those whose files have changed.
        """
        if self.pools is None or (self.device, self.around.dtype) not in self.pools:
            return []
        self.pool.drop_changed()
        sizes = self.pool.resident
        kept, taken = [], 0
        for key, bytes_ in sizes.items():
            fits = self.memory is None or (key in wanted and taken + bytes_ <= self.memory)
            if fits:
                kept.append(key)
                taken += bytes_
            else:
                self.evict([key])
        return [key for key in kept if key in wanted]

    def evict(self, models: Sequence[str]) -> None:
        """Move models off the device: into host memory, where that has room for them."""
        if models and self._pool is not None:
            self._release(models)

    def _release(self, models: Sequence[str]) -> int:
        freed, sizes = 0, self.pool.resident
        for key in models:
            freed += self.pool.release([key], keep_on_host=_host_has_room(sizes.get(key, 0)))
            self._used.pop(key, None)
        return freed

    def interrupt(self) -> None:
        """End the node that another thread computes here, wherever it is; it counts as cancelled."""
        self._calls.interrupt()

    def close(self) -> None:
        """Let go of all models, unless a later run may want them."""
        if self._pool is not None and self.pools is None:
            self._pool.close()

    def run(self, jobs: Sequence[Job], coming: ModelRef | None = None) -> list[Outcome]:
        """Compute jobs; those that are alike in one call. A job that fails does not stop the others.

        Args:
            coming: model to bring into host memory in the background, once those of the jobs are there.
        """
        out: list[Outcome] = []
        self._coming = coming
        for group in self._that_fit(alike(jobs)):
            if self.around.stopping.is_set():
                out += [Outcome(job, error=Cancelled()) for job in group]
            else:
                out += self._survive(group)
        return out

    def _that_fit(self, groups: list[list[Job]]) -> Iterator[list[Job]]:
        """Groups no larger than what is known to fit."""
        for group in groups:
            most = self.halved.get(group[0].node.name, len(group))
            yield from (group[i : i + most] for i in range(0, len(group), most))

    def _survive(self, jobs: list[Job]) -> list[Outcome]:
        rescue: Iterator[str] | None = None
        while True:
            outcomes = self._attempt(jobs)
            message = _full_memory(outcomes[0].error)
            if message is None:
                if len(jobs) > 1 and outcomes[0].error is not None and not isinstance(outcomes[0].error, Cancelled):
                    return [o for job in jobs for o in self._survive([job])]  # only what is at fault shall fail
                return outcomes
            outcomes[0].error = None  # its traceback holds the tensors
            del outcomes
            self._used.clear()  # what is there now is measured again
            self._free()
            rescue = rescue or self._rescue(jobs)
            action = next(rescue, None)
            if action is None and len(jobs) > 1:
                half = (len(jobs) + 1) // 2
                self._tell(jobs, f"out of memory with a batch of {len(jobs)}: going on with {half}")
                self.halved[jobs[0].node.name] = half
                return self._survive(jobs[:half]) + self._survive(jobs[half:])
            action = action or self._offload(jobs)
            if action is None:
                error = OutOfMemoryError(self._figures(jobs[0], message))
                return [Outcome(job, error=error) for job in jobs]
            self._tell(jobs, f"out of memory: {action}, and again")

    def _attempt(self, jobs: list[Job]) -> list[Outcome]:
        """One call; the same error for all when it fails."""
        started = time.perf_counter()
        peak = Peak(self.device)
        try:
            self._make_room(jobs)
            values = [self._with_models(job) for job in jobs]
            self._prefetch()
            whole_team()
            measured = bool(jobs[0].node.cls.model_ports())
            before = None
            if measured:
                peak.reset()
                before = peak.now()
            started = time.perf_counter()
            results = self._call(jobs, values)
            results = [to_host(out) for out in results]
            seconds = (time.perf_counter() - started) / len(jobs)
            highest = peak.read() if measured else None
            needed = None if highest is None or before is None else max(0, highest - before)
        except (Exception, Cancelled) as error:
            seconds = (time.perf_counter() - started) / len(jobs)
            return [Outcome(job, None, error, seconds, started, len(jobs)) for job in jobs]
        return [Outcome(j, o, None, seconds, started, len(jobs), needed) for j, o in zip(jobs, results, strict=True)]

    def _call(self, jobs: list[Job], values: list[dict[str, Any]]) -> Sequence[Any]:
        node, context = jobs[0].placed.node, RunContext(self.around, self.torch_device, jobs)
        inputs = [type(node).In(**found) for found in values]
        kind = type(node).kind
        try:
            if len(jobs) == 1:
                return [self._calls.call(lambda: importing(lambda: node.run(inputs[0], context)))]
            assert isinstance(node, BatchNode)
            found = self._calls.call(lambda: importing(lambda: node.run_many(inputs, context)))
        except SystemExit as error:  # of a script's main function: the run does not end with it
            raise NodeError(jobs[0].name, kind, f"SystemExit: {error.code}") from error
        if len(found) != len(jobs):
            raise ContractError(jobs[0].name, kind, f"run_many gave {len(found)} results for {len(jobs)} inputs")
        return found

    def _make_room(self, jobs: Sequence[Job]) -> None:
        """Keep to the budget where it was not planned so: a lost value is made again, or a size was not known."""
        wanted = self._refs(jobs)
        if self.memory is not None and not wanted.keys() <= self._used.keys():
            there = self.pool.resident
            coming = [ref for key, ref in wanted.items() if key not in there]
            lacking = self.pool.resident_bytes + sum(weight_bytes(r, self.around.dtype) for r in coming) - self.memory
            used = list(self._used)  # the one that was used last goes last, and what was prefetched stays longest
            for key in sorted(there.keys() - wanted.keys(), key=lambda k: used.index(k) if k in used else len(used)):
                if lacking > 0:
                    lacking -= self._release([key])
                    self.released.append(key)
        for key in wanted:
            self._used.pop(key, None)
            self._used[key] = None

    def _prefetch(self) -> None:
        """Bring the next model into host memory in the background, unless that is the device's and has no room."""
        ref, self._coming = self._coming, None
        if ref is None:
            return
        if self.memory is not None and self.torch_device == "cpu":
            coming = 0 if model_key(ref) in self.pool.resident else weight_bytes(ref, self.around.dtype)
            if self.pool.resident_bytes + coming > self.memory:
                return
        self.pool.prefetch(ref)

    def _with_models(self, job: Job) -> dict[str, Any]:
        values = dict(job.values)
        for name, ref in job.node.models.items():
            if job.placed.models[name] != NO_MODEL:
                values[name] = self.pool.get(ref)
        for port in trained_ports(job):
            assert port.role is not None
            values[port.name] = self.pool.get_trained(values[port.name], port.role)
        return values

    def _rescue(self, jobs: list[Job]) -> Iterator[str]:
        """What may be done for a whole batch, one after the other; each time a few words of what was done."""
        wanted = self._refs(jobs)
        others = [key for key in self._pool.resident if key not in wanted] if self._pool is not None else []
        if self._pool is not None and others:
            freed = self._release(others)
            self.released += others
            self._free()
            what = "1 model" if len(others) == 1 else f"{len(others)} models"
            yield f"{what} moved off {self.device} ({size(freed)})"
        elif len(jobs) == 1:
            yield "what was in use is freed"

    def _offload(self, jobs: list[Job]) -> str | None:
        if self._pool is None:
            return None
        sizes = self._pool.resident
        for key in sorted(self._refs(jobs), key=lambda k: -sizes.get(k, 0)):
            if self._pool.offload(key):
                return f"the largest model ({size(sizes.get(key, 0))}) stays in host memory, layer by layer"
        return None

    def _refs(self, jobs: Sequence[Job]) -> dict[str, ModelRef]:
        """The models that jobs take, by their keys."""
        found = [ref for job in jobs for port, ref in job.node.models.items() if job.placed.models[port] != NO_MODEL]
        for job in jobs:
            for port in trained_ports(job):
                assert port.role is not None
                found.append(self.pool.ref_of_trained(job.values[port.name], port.role))
        return {model_key(ref): ref for ref in found}

    def _free(self) -> None:
        gc.collect()
        torch = sys.modules.get("torch")
        if torch is not None and self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _tell(self, jobs: Sequence[Job], message: str) -> None:
        self.around.emit(Logged(node=jobs[0].name, message=message))

    def _figures(self, job: Job, message: str) -> str:
        lines = [f"it does not fit into the memory of {self.device} by itself"]
        if self.memory is not None:
            lines.append(f"budget {size(self.memory)}")
        if self._pool is not None:
            lines.append(f"weights there {size(self._pool.resident_bytes)}")
        if (now := Peak(self.device).now()) is not None:
            lines.append(f"in use now {size(now)}")
        return f"{', '.join(lines)}: {message}"


def _named(emit: Callable[[Event], None], device: str, event: Event) -> None:
    """Pass a pool's event on with the name that the run has for its device, such as cpu:1."""
    emit(replace(event, device=device) if isinstance(event, ModelLoading | ModelLoaded | ModelReleased) else event)


def _host_has_room(wanted: int) -> bool:
    found = machine.memory()
    return found is None or found.available is None or found.available - wanted > HOST_SPARE


def trained_ports(job: Job) -> list[Port]:
    """The ports that take a model from an edge."""
    return [port for name, port in job.node.ports.items() if port.role is not None and name in job.values]


def _full_memory(error: BaseException | None) -> str | None:
    """The first line of an error that says that memory ran out; None for others."""
    if error is None or isinstance(error, GraphflowError):
        cause = error.__cause__ if error is not None else None
        return _full_memory(cause) if cause is not None else None
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return _line(error)
    system = isinstance(error, RuntimeError | OSError)  # also of a file that can't be mapped into memory
    return _line(error) if system and any(text in str(error) for text in _OUT_OF_MEMORY) else None


def _line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
