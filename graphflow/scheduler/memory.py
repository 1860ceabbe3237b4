"""What lies on one device, what may go, and what must."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from graphflow.scheduler.tasks import Device, ModelSpec, Task

NextUse = Callable[[str], float]
AHEAD = 2  # models in host memory that no device has asked for yet


class Memory:
    """The models on a device and the activations of what runs there.

    Attributes:
        resident: models on the device, in the order in which they came.
        on_host: models in host memory for this device, because they were prefetched or moved off it.
        mask: `resident` as a bit set.
    """

    def __init__(self, device: Device, models: Mapping[str, ModelSpec], bits: Mapping[str, int]) -> None:
        self.device = device
        self.resident: dict[str, None] = {}
        self.on_host: dict[str, bool] = {}  # whether it was prefetched
        self.mask = 0
        self._models, self._bits = models, bits
        self._weights = 0
        self._steps: dict[int, tuple[tuple[str, ...], int]] = {}  # those given out: models, bytes of activations
        self._beside = device.slots - 1  # steps that may still run when the next one begins: the latest

    def bytes_of(self, model: str) -> int:
        """The model's size; 0 while it is unknown."""
        spec = self._models.get(model)
        return spec.bytes if spec is not None else 0

    def resized(self) -> None:
        """Sizes of models have changed."""
        counted = [*self.resident, *(self.on_host if self.device.shares_host else ())]
        self._weights = sum(map(self.bytes_of, counted))

    @property
    def free(self) -> float:
        """Bytes within the budget that nothing takes."""
        if self.device.memory is None:
            return float("inf")
        active = sum(memory for _, memory in self._running()) if self._beside else 0
        return self.device.memory - self._weights - active

    def fits(self, task: Task) -> bool:
        """Whether a task whose models are there can run with no model moved: also one that alone exceeds the budget."""
        if task.memory == 0 or task.memory <= self.free:
            return True
        counted = len(self.resident) + (len(self.on_host) if self.device.shares_host else 0)
        return counted == len(task.models) and not self._running()

    def _running(self) -> list[tuple[tuple[str, ...], int]]:
        """The steps that run beside the next one."""
        return list(self._steps.values())[-self._beside :] if self._beside else []

    def make_room(
        self, models: Iterable[str], memory: int, next_use: NextUse
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Bring models onto the device beside so many bytes of activations; returns what goes and what comes."""
        here = self.resident
        load = tuple([m for m in models if m not in here])
        if not load and memory <= self.free:
            return (), ()
        coming = sum(self.bytes_of(m) for m in load if not (self.device.shares_host and m in self.on_host))
        evict = self._farthest(frozenset(models), coming + memory, next_use)
        for model in evict:
            self.drop(model)
            if not self.device.shares_host:
                self.on_host[model] = False  # the engine may find that there is no room; it loads from disk then
        for model in load:
            self.on_host.pop(model, None)
            self.resident[model] = None
            self.mask |= 1 << self._bits[model]
        self.resized()
        return tuple(evict), load

    def _farthest(self, keep: frozenset[str], wanted: float, next_use: NextUse) -> list[str]:
        """The models to move off, the one that is wanted last first, until there is room or nothing may go."""
        room = self.free
        if wanted <= room:
            return []
        here = [*self.resident, *(self.on_host if self.device.shares_host else ())]
        keep = keep.union(*(models for models, _ in self._running()))
        there = [m for m in here if m not in keep]
        out = []
        for model in sorted(there, key=next_use, reverse=True):
            if room >= wanted:
                break
            out.append(model)
            room += self.bytes_of(model)
        return out

    def place(self, models: Iterable[str]) -> None:
        """These models are there already."""
        for model in models:
            self.resident[model] = None
            self.mask |= 1 << self._bits[model]
        self.resized()

    def drop(self, model: str) -> None:
        """A model is no longer there."""
        if self.resident.pop(model, self) is None:
            self.mask &= ~(1 << self._bits[model])
        self.on_host.pop(model, None)
        self.resized()

    def prefetch(self, model: str) -> None:
        """A model is being brought to host memory."""
        self.on_host[model] = True
        self.resized()

    def may_prefetch(self, model: str, reserve: int, next_use: NextUse) -> bool:
        """Whether a model may be brought to host memory now, with so many bytes kept for activations."""
        if self.device.shares_host:
            return self.bytes_of(model) + reserve <= self.free
        waiting = [m for m, fetched in self.on_host.items() if fetched and next_use(m) < float("inf")]
        return len(waiting) < AHEAD

    def batch(self, task: Task, limit: int) -> int:
        """How many tasks like one whose models are there can run in one call."""
        if task.memory <= 0 or self.device.memory is None:
            return limit
        return max(1, min(limit, int(self.free // task.memory)))

    def begin(self, step: int, models: tuple[str, ...], memory: int) -> None:
        """A step is given out."""
        self._steps[step] = models, memory

    def end(self, step: int) -> None:
        """It is over."""
        del self._steps[step]
