"""Simulated devices: their clock, and the bound that no schedule can beat."""

from __future__ import annotations

import pytest
from random_plans import random_plan

from graphflow.scheduler import Device, ModelSpec, Scheduler, Step, Task
from graphflow.scheduler.bounds import lower_bound
from graphflow.scheduler.simulate import DeadlockError, Simulation

GPU = Device("gpu", memory=10)
HOST = Device("host", kind="host")
MODELS = {"a": ModelSpec(6, 4.0, 1.0), "b": ModelSpec(6, 3.0, 2.0)}


def on_gpu(name: str, model: str, seconds: float, *needs: str) -> Task:
    return Task(name, needs, (model,), "device", seconds)


def test_a_model_is_read_then_moved_then_used() -> None:
    out = Simulation([GPU], MODELS).run([on_gpu("x", "a", 7.0)])
    assert out.makespan == 4.0 + 1.0 + 7.0
    assert [(s.what, s.start, s.end) for s in out.spans] == [("read", 0, 4), ("load", 0, 5), ("run", 5, 12)]
    assert (out.busy["gpu"], out.loading["gpu"], out.peak["gpu"]) == (7.0, 5.0, 6)


def test_the_next_model_is_read_while_the_device_computes() -> None:
    out = Simulation([GPU], MODELS).run([on_gpu("x", "a", 7.0), on_gpu("y", "b", 1.0, "x")])
    assert out.makespan == 4.0 + 1.0 + 7.0 + 2.0 + 1.0, "only the move of b is waited for"


def test_where_memory_is_shared_a_model_that_does_not_fit_is_not_read_ahead() -> None:
    cpu = Device("cpu", memory=10, shares_host=True)
    out = Simulation([cpu], MODELS).run([on_gpu("x", "a", 7.0), on_gpu("y", "b", 1.0, "x")])
    assert out.makespan == 4.0 + 1.0 + 7.0 + 3.0 + 2.0 + 1.0
    assert out.peak["cpu"] == 6


def test_where_memory_is_shared_a_model_that_fits_is_read_ahead_and_counted() -> None:
    cpu = Device("cpu", memory=12, shares_host=True)
    out = Simulation([cpu], MODELS).run([on_gpu("x", "a", 7.0), on_gpu("y", "b", 1.0, "x")])
    assert out.makespan == 4.0 + 1.0 + 7.0 + 2.0 + 1.0
    assert out.peak["cpu"] == 12


def test_host_tasks_run_beside_device_tasks() -> None:
    tasks = [on_gpu("x", "a", 7.0), Task("y", seconds=12.0)]
    assert Simulation([GPU, HOST], MODELS).run(tasks).makespan == 12.0


def test_a_faster_device_computes_in_less_time_and_loads_in_the_same() -> None:
    out = Simulation([GPU], MODELS, speed={"gpu": 2.0}).run([on_gpu("x", "a", 7.0)])
    assert out.makespan == 5.0 + 3.5


def test_several_devices_share_the_elements_of_a_map() -> None:
    devices = [Device(f"gpu{i}", memory=10) for i in range(4)]
    tasks = [Task(f"x[{i}]", (), ("a",), "device", 10.0, element=("x", i)) for i in range(40)]
    out = Simulation(devices, MODELS).run(tasks)
    assert out.makespan == pytest.approx(4.0 + 1.0 + 100.0)
    assert out.loads["a"] == 4


def test_a_policy_that_gives_nothing_out_is_found() -> None:
    class Lazy(Scheduler):
        def next(self, device: str) -> Step | None:
            return None

    with pytest.raises(DeadlockError):
        Simulation([HOST], {}, Lazy([HOST], {})).run([Task("x")])


def test_the_bound_of_a_chain_is_its_path_with_the_first_load() -> None:
    bound = lower_bound([on_gpu("x", "a", 7.0), Task("y", ("x",), seconds=5.0)], [GPU, HOST], MODELS)
    assert bound.path == 4.0 + 1.0 + 7.0 + 5.0
    assert bound.devices == 4.0 + 1.0 + 7.0 + 5.0
    assert bound.host == 12.0 + 5.0


@pytest.mark.parametrize("gpus", [1, 3])
@pytest.mark.parametrize("seed", range(60))
def test_no_simulated_run_is_shorter_than_the_bound(seed: int, gpus: int) -> None:
    plan = random_plan(seed, gpus)
    bound = lower_bound(plan.tasks, plan.devices, plan.models)
    out = Simulation(plan.devices, plan.models).run(plan.tasks)
    assert out.makespan >= bound.seconds * (1 - 1e-9)
