"""What schedulers usually do, to compare with: a fixed order, and what was used longest ago is evicted."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from graphflow.scheduler import Device, ModelSpec, Step, Task


def node_by_node(tasks: Sequence[Task]) -> list[Task]:
    """Each node of the graph for all elements, then the next one."""
    return _topological(tasks, lambda t: (t.rank, t.element[1] if t.element else -1))


def element_by_element(tasks: Sequence[Task]) -> list[Task]:
    """All nodes for one element, then for the next; tasks outside of maps as soon as they can."""
    return _topological(tasks, lambda t: (t.element[1] if t.element else -1, t.rank))


def _topological(tasks: Sequence[Task], key: Callable[[Task], tuple[int, int]]) -> list[Task]:
    left = {t.name: len(t.needs) for t in tasks}
    users: dict[str, list[Task]] = {}
    for task in tasks:
        for need in task.needs:
            users.setdefault(need, []).append(task)
    heap = [(key(t), t.name, t) for t in tasks if not t.needs]
    heapq.heapify(heap)
    out = []
    while heap:
        task = heapq.heappop(heap)[2]
        out.append(task)
        for user in users.get(task.name, []):
            left[user.name] -= 1
            if left[user.name] == 0:
                heapq.heappush(heap, (key(user), user.name, user))
    return out


class UsualOrder:
    """Gives out tasks in one fixed order, host tasks beside device tasks; evicts what was used longest ago.

    It has one GPU, and reads a model when it is wanted.
    """

    def __init__(self, order: Sequence[Task], devices: Sequence[Device], models: Mapping[str, ModelSpec]) -> None:
        self._devices = {d.name: d for d in devices}
        self._models = models
        host = any(d.kind == "host" for d in devices)
        self._queues: dict[str, deque[Task]] = {d.name: deque() for d in devices}
        gpu, cpu = devices[0].name, next((d.name for d in devices if d.kind == "host"), devices[0].name)
        for task in order:
            self._queues[cpu if task.where == "host" and host else gpu].append(task)
        self._left = len(order)
        self._names = {t.name for t in order}
        self._done: set[str] = set()
        self._resident: dict[str, None] = {}  # what was used last stands last

    @property
    def idle(self) -> bool:
        return self._left == 0

    def add(self, tasks: Iterable[Task]) -> None:
        """They are known already."""

    def ready(self) -> list[str]:
        return []

    def prefetch(self, device: str) -> str | None:
        return None

    def finish(self, name: str, holds: int | None = None) -> None:
        self._done.add(name)
        self._left -= 1

    def next(self, device: str) -> Step | None:
        queue = self._queues[device]
        if not queue or any(need not in self._done for need in queue[0].needs):
            return None
        task = queue.popleft()
        load = tuple(m for m in task.models if m not in self._resident)
        evict = []
        memory = self._devices[device].memory
        wanted = sum(self._models[m].bytes for m in load) + task.memory
        for model in list(self._resident):
            if memory is None or sum(self._models[m].bytes for m in self._resident) + wanted <= memory:
                break
            if model not in task.models:
                del self._resident[model]
                evict.append(model)
        for model in task.models:
            self._resident.pop(model, None)
            self._resident[model] = None
        return Step(device, (task.name,), tuple(evict), load)
