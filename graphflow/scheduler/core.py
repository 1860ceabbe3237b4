"""The scheduler; see the package for what it is and `Scheduler` for how it is asked."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence

from graphflow.scheduler.tasks import Device, ModelSpec, Step, Task

_WAITING, _FRESH, _READY, _RUNNING, _DONE = range(5)


class Scheduler:
    """Hands out steps to free devices.

    A driver loops: `ready` (look each up; `finish` those found), `next` for each free device, `finish` for each task
    that is over. `next` gives out only tasks that `ready` has named. Same calls, same answers.

    Args:
        devices: at least one.
        models: key → size; a key that is missing counts as size 0.
        batch_limit: how many tasks like this one may run in one call.
        value_limit: bytes of held results beyond which begun elements are finished before others begin.
        window: elements of a map that are open at once while all models of the map fit on the device together.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        models: Mapping[str, ModelSpec],
        *,
        batch_limit: Callable[[Task], int] = lambda t: 1,
        value_limit: int | None = None,
        window: int = 64,
    ) -> None:
        self.devices = {d.name: d for d in devices}
        self.models = dict(models)
        self.resident: dict[str, dict[str, None]] = {d.name: {} for d in devices}
        self._batch_limit, self._value_limit, self._window = batch_limit, value_limit, window
        self._has_host = any(d.kind == "host" for d in devices)
        self._has_device = any(d.kind == "device" for d in devices)
        self._tasks: dict[str, Task] = {}
        self._state: dict[str, int] = {}
        self._pending: dict[str, int] = {}
        self._users: dict[str, list[str]] = {}
        self._fresh: list[str] = []
        self._queue: dict[tuple[str, tuple[str, ...]], list[tuple[float, int, int, str]]] = {}
        self._steps: dict[str, tuple[str, list[int]]] = {}  # running task → device, tasks left of its step
        self._busy: dict[str, int] = {d.name: 0 for d in devices}
        self._in_use: dict[str, dict[str, int]] = {d.name: {} for d in devices}
        self._host: dict[str, None] = {}
        self._left = 0

    @property
    def idle(self) -> bool:
        """Whether nothing is left to run and nothing runs."""
        return self._left == 0

    def add(self, tasks: Iterable[Task]) -> None:
        """Take tasks on; needs that are unknown or finished count as met."""
        new = list(tasks)
        for task in new:
            if self._state.get(task.name, _DONE) != _DONE:
                raise ValueError(f"task {task.name} is there already")
        for task in new:
            self._tasks[task.name] = task
            self._state[task.name] = _WAITING
            self._users.setdefault(task.name, [])
        for task in new:
            unmet = [n for n in dict.fromkeys(task.needs) if self._state.get(n, _DONE) != _DONE]
            self._pending[task.name] = len(unmet)
            for need in unmet:
                self._users[need].append(task.name)
        self._left += len(new)
        for task in new:
            if self._pending[task.name] == 0:
                self._freshen(task.name)

    def set_model(self, key: str, spec: ModelSpec) -> None:
        """Say how large a model is, once that is known."""
        self.models[key] = spec

    def ready(self) -> list[str]:
        """The tasks that became ready since the last call, in rank order."""
        found = sorted((n for n in self._fresh if self._state[n] == _FRESH), key=lambda n: (self._tasks[n].rank, n))
        self._fresh = []
        for name in found:
            self._enqueue(name)
        return found

    def wait(self, name: str, on: str) -> None:
        """One more need of a task that has not begun: `on` computes the same."""
        if self._state.get(on, _DONE) == _DONE:
            return
        self._pending[name] += 1
        self._users[on].append(name)
        self._state[name] = _WAITING

    def next(self, device: str) -> Step | None:
        """What a free device does now, or None; its tasks are running from here on."""
        spec = self.devices[device]
        if self._busy[device] >= spec.slots:
            return None
        best = None
        for (where, models), queue in self._queue.items():
            while queue and self._state[queue[0][3]] != _READY:
                heapq.heappop(queue)
            if not queue or not self._takes(spec, where):
                continue
            missing = [m for m in models if m not in self.resident[device]]
            rank = (bool(missing), queue[0])
            if best is None or rank < best[0]:
                best = (rank, queue)
        if best is None:
            return None
        return self._start(spec, self._batch(best[1]))

    def prefetch(self, device: str) -> str | None:
        """The model to bring from disk to host memory while the device computes."""
        spec = self.devices[device]
        for (_, models), queue in self._queue.items():
            for model in models if queue else ():
                if model in self._host or any(model in r for r in self.resident.values()):
                    continue
                if (
                    spec.shares_host
                    and spec.memory is not None
                    and self._used(device) + self._bytes(model) > spec.memory
                ):
                    continue
                self._host[model] = None
                return model
        return None

    def finish(self, name: str, holds: int | None = None) -> None:
        """A task ran, was found, failed or is skipped."""
        if self._state[name] == _DONE:
            raise ValueError(f"task {name} has finished already")
        self._leave(name)
        self._state[name] = _DONE
        self._left -= 1
        for user in self._users.pop(name, []):
            self._pending[user] -= 1
            if self._pending[user] == 0 and self._state[user] == _WAITING:
                self._freshen(user)

    def give_back(self, step: Step) -> None:
        """The step's tasks did not run: they are ready again."""
        for name in step.tasks:
            self._leave(name)
            self._enqueue(name)

    def forget(self, device: str, models: Iterable[str]) -> None:
        """These models are no longer on the device."""
        for model in models:
            self.resident[device].pop(model, None)

    def _takes(self, spec: Device, where: str) -> bool:
        if where == "host":
            return spec.kind == "host" or not self._has_host
        return spec.kind == "device" or not self._has_device

    def _freshen(self, name: str) -> None:
        self._state[name] = _FRESH
        self._fresh.append(name)

    def _enqueue(self, name: str) -> None:
        task = self._tasks[name]
        self._state[name] = _READY
        queue = self._queue.setdefault((task.where, task.models), [])
        heapq.heappush(queue, (task.rank, task.element[1] if task.element else 0, 0, name))

    def _batch(self, queue: list[tuple[float, int, int, str]]) -> list[Task]:
        first = self._tasks[heapq.heappop(queue)[3]]
        limit = self._batch_limit(first) if first.batch else 1
        out = [first]
        while queue and len(out) < limit:
            task = self._tasks[queue[0][3]]
            if self._state[task.name] == _READY and task.batch != first.batch:
                break
            heapq.heappop(queue)
            if self._state[task.name] == _READY:
                out.append(task)
        return out

    def _start(self, spec: Device, tasks: list[Task]) -> Step:
        here = self.resident[spec.name]
        models = tasks[0].models
        load = tuple(m for m in models if m not in here)
        wanted = sum(map(self._bytes, load)) + sum(t.memory for t in tasks)
        evict = self._evict(spec, wanted, models)
        for model in evict:
            del here[model]
        left = [len(tasks)]
        for model in models:
            self._host.pop(model, None)
            here.pop(model, None)
            here[model] = None
            self._in_use[spec.name][model] = self._in_use[spec.name].get(model, 0) + len(tasks)
        for task in tasks:
            self._state[task.name] = _RUNNING
            self._steps[task.name] = (spec.name, left)
        self._busy[spec.name] += 1
        return Step(spec.name, tuple(t.name for t in tasks), tuple(evict), load)

    def _evict(self, spec: Device, wanted: int, keep: tuple[str, ...]) -> list[str]:
        out: list[str] = []
        if spec.memory is None:
            return out
        room = spec.memory - self._used(spec.name)
        for model in self.resident[spec.name]:
            if room >= wanted:
                break
            if model not in keep and not self._in_use[spec.name].get(model):
                out.append(model)
                room += self._bytes(model)
        return out

    def _leave(self, name: str) -> None:
        """Take a task out of the step that it runs in, if it does."""
        if self._state[name] != _RUNNING:
            return
        device, left = self._steps.pop(name)
        left[0] -= 1
        if left[0] == 0:
            self._busy[device] -= 1
        for model in self._tasks[name].models:
            self._in_use[device][model] -= 1

    def _used(self, device: str) -> int:
        here = sum(map(self._bytes, self.resident[device]))
        return here + (sum(map(self._bytes, self._host)) if self.devices[device].shares_host else 0)

    def _bytes(self, model: str) -> int:
        spec = self.models.get(model)
        return spec.bytes if spec is not None else 0
