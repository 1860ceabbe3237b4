"""Random plans for the scheduler: maps of random shape with tasks around them, models, sizes and budgets; and the
independent account of what evicting the farthest next use would have loaded."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from graphflow.scheduler import Device, ModelSpec, Step, Task

GIB = 2**30


@dataclass(frozen=True)
class RandomPlan:
    """Tasks and what they run on."""

    tasks: list[Task]
    models: dict[str, ModelSpec]
    devices: list[Device]
    value_limit: int | None = None
    batch: int = 1


@dataclass(frozen=True)
class _Stage:
    models: tuple[str, ...]
    where: Literal["device", "host"]
    seconds: float
    memory: int
    holds: int
    parents: tuple[int, ...]


def random_plan(seed: int, gpus: int = 1, largest: int = 40) -> RandomPlan:
    """One plan: a few tasks, a map or two of up to `largest` elements over a random DAG, a task that gathers."""
    draw = random.Random(seed)
    models = _models(draw)
    tasks: list[Task] = []
    for axis in range(draw.randint(0, 2)):
        tasks += _map(draw, models, f"map{axis}", draw.randint(1, largest), len(tasks))
    tasks += _dag(draw, models, draw.randint(0 if tasks else 1, 30), len(tasks))
    if draw.random() < 0.5:
        needs = tuple(t.name for t in draw.sample(tasks, draw.randint(1, len(tasks))))
        tasks.append(Task("gather", needs, (), "host", draw.random(), rank=len(tasks)))
    total = sum(spec.bytes for spec in models.values())
    # Between what holds no single model and what holds all of them twice.
    budget = int(total * draw.choice([0.1, 0.3, 0.5, 0.7, 1.2, 2.0]))
    devices = [Device(f"gpu{i}", memory=draw.choice([budget, budget, None])) for i in range(gpus)]
    if draw.random() < 0.7:
        devices.append(Device("host", kind="host", slots=draw.randint(1, 4)))
    return RandomPlan(tasks, models, devices, draw.choice([None, None, 50, 500]), draw.choice([1, 1, 4]))


def _models(draw: random.Random) -> dict[str, ModelSpec]:
    out = {}
    for i in range(draw.randint(1, 8)):
        size = int(draw.choice([0.2, 1, 3, 7, 14]) * draw.uniform(0.5, 1.5) * GIB)
        out[f"m{i}"] = ModelSpec(size, size / (2 * GIB), size / (20 * GIB))
    return out


def _stage(draw: random.Random, models: Mapping[str, ModelSpec], parents: tuple[int, ...]) -> _Stage:
    host = draw.random() < 0.3
    used = () if host else tuple(draw.sample(sorted(models), min(len(models), draw.choice([0, 1, 1, 1, 2]))))
    memory = 0 if host else draw.choice([0, 0, GIB // 4, GIB])
    seconds = draw.choice([0.0, 0.05, 0.5, 3.0]) * draw.uniform(0.5, 1.5)
    return _Stage(used, "host" if host else "device", seconds, memory, draw.choice([0, 1, 10]), parents)


def _map(draw: random.Random, models: Mapping[str, ModelSpec], axis: str, count: int, rank: int) -> list[Task]:
    stages = [
        _stage(draw, models, tuple(draw.sample(range(i), min(i, draw.choice([1, 1, 2])))))
        for i in range(draw.randint(1, 8))
    ]
    return [
        Task(
            f"{axis}[{e}]/{i}", tuple(f"{axis}[{e}]/{p}" for p in s.parents), s.models, s.where, s.seconds, s.memory,
            s.holds, f"{axis}/{i}" if s.where == "device" else "", (axis, e), rank + i,
        )
        for e in range(count)
        for i, s in enumerate(stages)
    ]  # fmt: skip


def _dag(draw: random.Random, models: Mapping[str, ModelSpec], count: int, rank: int) -> list[Task]:
    out = []
    for i in range(count):
        s = _stage(draw, models, tuple(draw.sample(range(i), min(i, draw.choice([0, 1, 1, 2, 3])))))
        needs = tuple(f"n{p}" for p in s.parents)
        out.append(Task(f"n{i}", needs, s.models, s.where, s.seconds, s.memory, s.holds, rank=rank + i))
    draw.shuffle(out)
    return out


def farthest_next_use(steps: Sequence[Step], plan: RandomPlan, device: Device) -> int:
    """The loads that one device needs for these steps in this order, when it evicts what is used again last.

    Written for itself, from the finished order: before each step, while the models of the step and its activations
    have no room, the resident model with the farthest next use goes.
    """
    tasks = {t.name: t for t in plan.tasks}
    order = [[tasks[name] for name in step.tasks] for step in steps if step.device == device.name]
    loads = 0
    here: list[str] = []
    for now, step in enumerate(order):
        missing = [m for m in step[0].models if m not in here]
        loads += len(missing)
        wanted = sum(plan.models[m].bytes for m in missing) + sum(t.memory for t in step)

        def next_use(model: str, now: int = now) -> int:
            return next((i for i in range(now, len(order)) if model in order[i][0].models), len(order))

        while device.memory is not None and sum(plan.models[m].bytes for m in here) + wanted > device.memory:
            free = [m for m in here if m not in step[0].models]
            if not free:
                break
            here.remove(max(free, key=next_use))
        here += missing
    return loads
