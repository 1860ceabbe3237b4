"""A scheduler that answers any legal choice at random: whatever it does, results must be the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from graphflow.scheduler import Device, ModelSpec, Step, Task


class Shuffled:
    """Keeps the contract of `graphflow.scheduler.Scheduler`, and nothing else: needs come first, the rest is chance.

    It opens no window, evicts and prefetches what it likes, and is slow to give out work. With `batches` it gives out
    several tasks at once.
    """

    batches = False

    def __init__(self, chance: random.Random, devices: Sequence[Device], models: Mapping[str, ModelSpec], **_: Any):
        self.chance = chance
        self.devices = {d.name: d for d in devices}
        self.models = dict(models)
        self.resident: dict[str, dict[str, None]] = {d.name: {} for d in devices}
        self.tasks: dict[str, Task] = {}
        self.needs: dict[str, set[str]] = {}
        self.told: set[str] = set()  # named by `ready`
        self.running: dict[str, tuple[str, list[str]]] = {}  # task → device and the tasks of its step that are left
        self.over: set[str] = set()
        self.parked: set[str] = set()

    @property
    def idle(self) -> bool:
        return len(self.over) == len(self.tasks)

    def add(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            self.tasks[task.name] = task
            self.over.discard(task.name)
            self.needs[task.name] = {n for n in task.needs if n in self.tasks and n not in self.over}

    def set_model(self, key: str, spec: ModelSpec) -> None:
        self.models[key] = spec

    def ready(self) -> list[str]:
        found = [n for n in self.tasks if n not in self.over | self.told and not (self.needs[n] - self.over)]
        self.chance.shuffle(found)
        found = found[: self.chance.randint(1, 4)]
        self.told.update(found)
        return found

    def wait(self, name: str, on: str) -> None:
        if on in self.tasks and on not in self.over:
            self.needs[name].add(on)
            self.told.discard(name)

    def park(self, name: str) -> None:
        self._stop(name)
        self.parked.add(name)

    def next(self, device: str) -> Step | None:
        spec = self.devices[device]
        steps = {id(left) for where, left in self.running.values() if where == device}
        hosts = {d.kind for d in self.devices.values()}
        idle = self.told - self.over - self.parked - self.running.keys()
        waiting = [n for n in idle if not (self.needs[n] - self.over)]
        mine = [
            n for n in waiting
            if self.tasks[n].where == spec.kind or (spec.kind == "device" and "host" not in hosts)
        ]  # fmt: skip
        if not mine or len(steps) >= spec.slots * spec.ahead or (self.running and self.chance.random() < 0.3):
            return None
        first = self.chance.choice(sorted(mine))
        batch = [first]
        alike = [n for n in sorted(mine) if self.tasks[n].batch and self.tasks[n].batch == self.tasks[first].batch]
        if self.batches:
            batch += [n for n in alike if n != first and self.chance.random() < 0.5]
        left = list(batch)
        for name in batch:
            self.running[name] = device, left
        needed = {m for n in batch for m in self.tasks[n].models}
        here = self.resident[device]
        evict = tuple(m for m in here if m not in needed and self.chance.random() < 0.4)
        for model in evict:
            del here[model]
        load = tuple(sorted(needed - here.keys()))
        here.update(dict.fromkeys(load))
        return Step(device, tuple(batch), evict, load)

    def prefetch(self, device: str) -> str | None:
        wanted = sorted({m for n, t in self.tasks.items() if n not in self.over for m in t.models})
        return self.chance.choice(wanted) if wanted and self.chance.random() < 0.5 else None

    def finish(self, name: str, holds: int | None = None) -> None:
        assert name not in self.over
        self._stop(name)
        self.over.add(name)

    def give_back(self, step: Step) -> None:
        for name in step.tasks:
            self._stop(name)
            self.parked.discard(name)

    def place(self, device: str, models: Iterable[str]) -> None:
        self.resident[device].update(dict.fromkeys(models))

    def forget(self, device: str, models: Iterable[str]) -> None:
        for model in models:
            self.resident[device].pop(model, None)

    def _stop(self, name: str) -> None:
        found = self.running.pop(name, None)
        if found is not None:
            found[1].remove(name)


def shuffling(seed: int, batches: bool = False) -> Callable[..., Shuffled]:
    """What takes the place of `Scheduler` in `graphflow.engine.workload`."""
    chance = random.Random(seed)

    class Seeded(Shuffled):
        def __init__(self, devices: Sequence[Device], models: Mapping[str, ModelSpec], **given: Any) -> None:
            super().__init__(chance, devices, models, **given)

    Seeded.batches = batches
    return Seeded
