"""What must hold of every plan, tried on random ones with simulated devices."""

from __future__ import annotations

from collections import Counter

import pytest
from random_plans import RandomPlan, farthest_next_use, random_plan
from shipped_maps import EDITS, shipped_map

from graphflow.scheduler import Device, ModelSpec, Scheduler, Task
from graphflow.scheduler.bounds import lower_bound
from graphflow.scheduler.simulate import Simulated, Simulation

GB = 10**9


def simulate(plan: RandomPlan) -> Simulated:
    scheduler = Scheduler(plan.devices, plan.models, value_limit=plan.value_limit, batch_limit=lambda t: plan.batch)
    return Simulation(plan.devices, plan.models, scheduler).run(plan.tasks)


@pytest.mark.parametrize("gpus", [1, 2, 5])
@pytest.mark.parametrize("seed", range(100))
def test_every_task_runs_once_after_its_needs_and_nothing_waits_for_ever(seed: int, gpus: int) -> None:
    plan = random_plan(seed, gpus)
    out = simulate(plan)  # raises when nothing runs and tasks are left
    assert Counter(out.finished) == Counter(t.name for t in plan.tasks)
    began = {name: i for i, step in enumerate(out.steps) for name in step.tasks}
    assert all(began[need] < began[t.name] for t in plan.tasks for need in t.needs)
    spans = {
        name: s
        for step, s in zip(out.steps, (s for s in out.spans if s.what == "run"), strict=True)
        for name in step.tasks
    }
    assert all(spans[need].end <= spans[t.name].start for t in plan.tasks for need in t.needs)


@pytest.mark.parametrize("seed", range(200))
def test_one_device_never_loads_more_than_farthest_next_use_needs_for_its_order(seed: int) -> None:
    plan = random_plan(seed)
    out = simulate(plan)
    assert sum(out.loads.values()) <= farthest_next_use(out.steps, plan, plan.devices[0])


@pytest.mark.parametrize("gpus", [1, 2])
@pytest.mark.parametrize("seed", range(100))
def test_weights_and_activations_keep_within_the_budget_unless_one_step_alone_exceeds_it(seed: int, gpus: int) -> None:
    plan = random_plan(seed, gpus)
    out = simulate(plan)
    for device in plan.devices:
        if device.memory is not None:
            alone = max((sum(plan.models[m].bytes for m in t.models) + t.memory for t in plan.tasks), default=0)
            assert out.peak[device.name] <= max(device.memory, alone)


@pytest.mark.parametrize("seed", range(0, 100, 10))
def test_the_same_plan_gives_the_same_steps(seed: int) -> None:
    assert simulate(random_plan(seed, 2)).steps == simulate(random_plan(seed, 2)).steps


@pytest.mark.parametrize("budget", [9, 12, 30])
def test_a_map_loads_each_model_once_whatever_fits(budget: int) -> None:
    models = {m: ModelSpec(8 * GB, 4, 0.4) for m in "abcd"}
    tasks = [
        Task(f"x[{i}]/{m}", (f"x[{i}]/{p}",), (m,), "device", 1.0, element=("x", i), rank=r)
        for i in range(200)
        for r, (p, m) in enumerate(zip("_abc", "abcd", strict=True))
    ]
    devices = [Device("gpu", memory=budget * GB)]
    out = Simulation(devices, models).run(tasks)
    assert out.loads == Counter("abcd")


@pytest.mark.parametrize("gpus", [1, 2])
@pytest.mark.parametrize("table", ["pocket", "sdxl"])
@pytest.mark.parametrize("name", EDITS)
def test_maps_of_shipped_graphs_stay_within_a_tenth_of_the_bound(name: str, table: str, gpus: int) -> None:
    tasks, models = shipped_map(name, table, 32)
    largest = max(sum(models[m].bytes for m in t.models) + t.memory for t in tasks)
    devices = [Device(f"gpu{i}", memory=largest) for i in range(gpus)]
    out = Simulation(devices, models).run(tasks)
    assert out.makespan <= 1.1 * lower_bound(tasks, devices, models).seconds


@pytest.mark.parametrize("name", EDITS)
def test_maps_of_shipped_graphs_whose_models_fit_load_each_once(name: str) -> None:
    tasks, models = shipped_map(name, "sd15", 80)
    memory = sum(spec.bytes for spec in models.values()) + max(t.memory for t in tasks)
    out = Simulation([Device("gpu", memory=memory)], models).run(tasks)
    assert out.loads == dict.fromkeys(models, 1)


def test_a_large_map_that_goes_to_the_host_and_back_keeps_both_busy() -> None:
    stages: list[tuple[str, float]] = [("", 2.5), ("a", 0.1), ("", 0.05), ("b", 2.3)]
    tasks = [
        Task(
            f"x[{i}]/{r}", (f"x[{i}]/{r - 1}",) if r else (), (m,) if m else (), "device" if m else "host", s,
            element=("x", i), rank=r,
        )
        for i in range(1000)
        for r, (m, s) in enumerate(stages)
    ]  # fmt: skip
    models = {"a": ModelSpec(GB), "b": ModelSpec(GB)}
    devices = [Device("gpu", memory=4 * GB), Device("host", kind="host")]
    out = Simulation(devices, models).run(tasks)
    assert out.makespan <= 1.02 * lower_bound(tasks, devices, models).seconds
