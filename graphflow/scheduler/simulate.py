"""Simulated devices with a virtual clock: they drive the scheduler that real devices ask, and compute nothing."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from graphflow.scheduler.core import Scheduler
from graphflow.scheduler.tasks import Device, ModelSpec, Step, Task


class Policy(Protocol):
    """What a simulated run asks: a `Scheduler`, or another one to compare it with."""

    @property
    def idle(self) -> bool: ...
    def add(self, tasks: Iterable[Task]) -> None: ...
    def ready(self) -> list[str]: ...
    def next(self, device: str) -> Step | None: ...
    def prefetch(self, device: str) -> str | None: ...
    def finish(self, name: str, holds: int | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class Span:
    """What a device does from one moment to another: it waits for models, or runs tasks; ``disk`` reads ahead."""

    device: str
    what: Literal["load", "run", "read"]
    start: float
    end: float
    label: str
    count: int = 1


@dataclass
class Simulated:
    """What came of a simulated run.

    Attributes:
        makespan: seconds until the last task had finished.
        loads: model → how often it was brought onto a device.
        evictions: how often one was moved off.
        peak: device → bytes of weights and activations at most.
        busy, loading: device → seconds of computing, and of waiting for models.
        steps: what was done, in order of beginning.
        finished: the tasks, in order of their ends.
    """

    makespan: float = 0.0
    loads: Counter[str] = field(default_factory=Counter)
    evictions: int = 0
    peak: dict[str, int] = field(default_factory=dict)
    busy: dict[str, float] = field(default_factory=dict)
    loading: dict[str, float] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)


class DeadlockError(AssertionError):
    """Tasks are left, nothing runs, and no device is given anything."""


class Simulation:
    """One run on simulated devices.

    Whatever has been read from disk stays in host memory, but for a device that shares it: there, what is moved off is
    gone. One disk serves all devices, one model after another.

    Args:
        devices: those that `policy` knows.
        models: sizes and times.
        policy: decides; a `Scheduler` of these devices and models by default.
        speed: device → how many times faster than expected it computes.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        models: Mapping[str, ModelSpec],
        policy: Policy | None = None,
        speed: Mapping[str, float] | None = None,
    ) -> None:
        self.devices = {d.name: d for d in devices}
        self.models = models
        self.policy: Policy = policy if policy is not None else Scheduler(devices, models)
        self.speed = speed or {}
        self.result = Simulated()
        self.clock = 0.0
        self._disk_free = 0.0
        self._on_host: dict[str, float] = {}  # model → when it is there
        self._tasks: dict[str, Task] = {}
        self._events: list[tuple[float, int, Step]] = []
        self._slots = {d.name: d.slots for d in devices}
        self._resident: dict[str, dict[str, None]] = {d.name: {} for d in devices}
        self._active: defaultdict[str, int] = defaultdict(int)
        for name in self.devices:
            self.result.peak[name], self.result.busy[name], self.result.loading[name] = 0, 0.0, 0.0

    def run(self, tasks: Iterable[Task]) -> Simulated:
        """Run all of them.

        Raises:
            DeadlockError: the policy gives nothing out although tasks are left.
        """
        new = list(tasks)
        self._tasks = {t.name: t for t in new}
        self.policy.add(new)
        while True:
            self._assign()
            if not self._events:
                break
            self._advance()
        if not self.policy.idle:
            raise DeadlockError(f"at {self.clock:.3f} s nothing runs and tasks are left")
        self.result.makespan = self.clock
        return self.result

    def _assign(self) -> None:
        """Give work to every free device until none takes any."""
        self.policy.ready()
        for name, slots in self._slots.items():
            while slots and (step := self.policy.next(name)) is not None:
                self._start(step)
                slots -= 1
            self._slots[name] = slots

    def _advance(self) -> None:
        self.clock = self._events[0][0]
        while self._events and self._events[0][0] <= self.clock:
            _, _, step = heapq.heappop(self._events)
            self._slots[step.device] += 1
            for name in step.tasks:
                self._active[step.device] -= self._tasks[name].memory
                self.result.finished.append(name)
                self.policy.finish(name)

    def _start(self, step: Step) -> None:
        out, device = self.result, step.device
        self._move_off(step)
        begin = self.clock
        for model in step.load:
            begin = max(begin, self._read(model, device)) + self._spec(model).transfer_seconds
            self._resident[device][model] = None
            out.loads[model] += 1
        self._active[device] += sum(self._tasks[name].memory for name in step.tasks)
        self._note_peak(device)
        if begin > self.clock:
            out.spans.append(Span(device, "load", self.clock, begin, ", ".join(step.load), len(step.load)))
            out.loading[device] += begin - self.clock
        seconds = sum(self._tasks[name].seconds for name in step.tasks) / self.speed.get(device, 1.0)
        out.spans.append(Span(device, "run", begin, begin + seconds, step.tasks[0], len(step.tasks)))
        out.busy[device] += seconds
        out.steps.append(step)
        heapq.heappush(self._events, (begin + seconds, len(out.steps), step))
        while (coming := self.policy.prefetch(device)) is not None:
            self._read(coming, device)
            self._note_peak(device)

    def _move_off(self, step: Step) -> None:
        for model in step.evict:
            if self._resident[step.device].pop(model, self) is None:
                self.result.evictions += 1
            if self.devices[step.device].shares_host:
                self._on_host.pop(model, None)

    def _read(self, model: str, device: str) -> float:
        """When a model is in host memory; it is read from disk if it is not there."""
        if model not in self._on_host:
            start = max(self.clock, self._disk_free)
            self._disk_free = self._on_host[model] = start + self._spec(model).load_seconds
            if self._disk_free > start:
                self.result.spans.append(Span(device, "read", start, self._disk_free, model))
        return self._on_host[model]

    def _note_peak(self, device: str) -> None:
        here = dict.fromkeys(self._resident[device])
        if self.devices[device].shares_host:
            here |= dict.fromkeys(self._on_host)
        used = sum(self._spec(m).bytes for m in here) + self._active[device]
        self.result.peak[device] = max(self.result.peak[device], used)

    def _spec(self, model: str) -> ModelSpec:
        return self.models.get(model) or ModelSpec(0)
