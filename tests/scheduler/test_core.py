"""The scheduler, asked step by step."""

from __future__ import annotations

import pytest

from graphflow.scheduler import Device, ModelSpec, Scheduler, Step, Task

GPU = Device("gpu", memory=10)
HOST = Device("host", kind="host", slots=2)
MODELS = {"a": ModelSpec(6), "b": ModelSpec(6), "c": ModelSpec(3)}


def drive(scheduler: Scheduler) -> list[Step]:
    """All steps when every step ends before the next is asked for."""
    steps = []
    while not scheduler.idle:
        scheduler.ready()
        found = [step for name in scheduler.devices if (step := scheduler.next(name)) is not None]
        assert found, "nothing runs and nothing is given out"
        for step in found:
            for task in step.tasks:
                scheduler.finish(task)
        steps += found
    return steps


def test_only_tasks_that_ready_has_named_are_given_out() -> None:
    scheduler = Scheduler([HOST], {})
    scheduler.add([Task("x"), Task("y", needs=("x",))])
    assert scheduler.next("host") is None
    assert scheduler.ready() == ["x"]
    assert scheduler.next("host") == Step("host", ("x",))
    scheduler.finish("x")
    assert scheduler.next("host") is None
    assert scheduler.ready() == ["y"]


def test_a_task_that_is_found_is_finished_and_never_given_out() -> None:
    scheduler = Scheduler([HOST], {})
    scheduler.add([Task("x"), Task("y", needs=("x",))])
    scheduler.ready()
    scheduler.finish("x")
    assert scheduler.ready() == ["y"]
    assert scheduler.next("host") == Step("host", ("y",))
    assert not scheduler.idle
    scheduler.finish("y")
    assert scheduler.idle


def test_needs_that_are_unknown_or_finished_count_as_met() -> None:
    scheduler = Scheduler([HOST], {})
    scheduler.add([Task("x", needs=("never heard of",))])
    scheduler.ready()
    scheduler.finish("x")
    scheduler.add([Task("y", needs=("x",))])
    assert scheduler.ready() == ["y"]


def test_resident_models_come_first_and_eviction_makes_room() -> None:
    scheduler = Scheduler([GPU], MODELS)
    scheduler.add(
        Task(f"{m}{i}", models=(m,), where="device", element=("x", i), rank=j)
        for i in range(3)
        for j, m in enumerate("ab")
    )
    steps = drive(scheduler)
    assert [s.load for s in steps if s.load] == [("a",), ("b",)]
    assert [s.evict for s in steps if s.evict] == [("a",)]
    assert list(scheduler.resident["gpu"]) == ["b"]


def test_a_task_larger_than_the_device_is_given_out_all_the_same() -> None:
    scheduler = Scheduler([GPU], MODELS)
    scheduler.add([Task("x", models=("a", "b"), where="device", memory=5)])
    assert [s.load for s in drive(scheduler)] == [("a", "b")]


def test_tasks_of_equal_batch_run_in_one_step() -> None:
    scheduler = Scheduler([GPU], MODELS, batch_limit=lambda t: 2)
    scheduler.add(Task(f"x{i}", models=("a",), where="device", batch="x", rank=i) for i in range(3))
    assert [s.tasks for s in drive(scheduler)] == [("x0", "x1"), ("x2",)]


def test_a_step_that_is_given_back_comes_again() -> None:
    scheduler = Scheduler([GPU], MODELS)
    scheduler.add([Task("x", models=("a",), where="device")])
    scheduler.ready()
    step = scheduler.next("gpu")
    assert step is not None
    scheduler.give_back(step)
    scheduler.forget("gpu", ["a"])
    assert scheduler.next("gpu") == step


def test_a_task_that_waits_for_another_comes_after_it() -> None:
    scheduler = Scheduler([Device("host", kind="host")], {})
    scheduler.add([Task("x", rank=1), Task("y", rank=0)])
    assert scheduler.ready() == ["y", "x"]
    scheduler.wait("y", "x")
    assert scheduler.next("host") == Step("host", ("x",))
    scheduler.finish("x")
    assert scheduler.ready() == ["y"]


def test_a_device_has_no_more_steps_than_slots() -> None:
    scheduler = Scheduler([HOST], {})
    scheduler.add(Task(f"x{i}") for i in range(3))
    scheduler.ready()
    assert [bool(scheduler.next("host")) for _ in range(3)] == [True, True, False]


def test_without_a_host_the_device_takes_its_tasks() -> None:
    scheduler = Scheduler([GPU], {})
    scheduler.add([Task("x")])
    assert drive(scheduler) == [Step("gpu", ("x",))]


def test_a_prefetched_model_counts_where_memory_is_shared() -> None:
    scheduler = Scheduler([Device("cpu", memory=10, shares_host=True)], MODELS)
    scheduler.add(Task(m, models=(m,), where="device", rank=i) for i, m in enumerate("abc"))
    scheduler.ready()
    scheduler.next("cpu")
    assert scheduler.prefetch("cpu") != "b"


def test_a_task_can_not_be_added_or_finished_twice() -> None:
    scheduler = Scheduler([HOST], {})
    scheduler.add([Task("x")])
    with pytest.raises(ValueError, match="there already"):
        scheduler.add([Task("x")])
    scheduler.finish("x")
    with pytest.raises(ValueError, match="finished already"):
        scheduler.finish("x")
