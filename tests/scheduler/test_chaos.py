"""Runs that turn out otherwise than planned: tasks that are found, wait for equal ones, come late or are given back."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from random_plans import RandomPlan, random_plan

from graphflow.scheduler import Device, ModelSpec, Scheduler, Step, Task


class Chaos:
    """Drives a scheduler at random; keeps account of what must never happen."""

    def __init__(self, plan: RandomPlan, seed: int) -> None:
        self.draw = random.Random(seed)
        devices = [replace(d, ahead=self.draw.choice([1, 1, 2])) for d in plan.devices]
        self.scheduler = Scheduler(devices, plan.models, value_limit=plan.value_limit, batch_limit=lambda t: plan.batch)
        self.tasks = {t.name: t for t in plan.tasks}
        self.late = list(plan.tasks)
        self.named: set[str] = set()
        self.running: list[Step] = []
        self.over: set[str] = set()
        self.waits: dict[str, str] = {}

    def run(self) -> None:
        # Portions in which every need has come before, as an engine learns of them.
        while self.late or not self.scheduler.idle:
            if self.late and (self.scheduler.idle or self.draw.random() < 0.1):
                self.add(self.draw.randint(1, len(self.late)))
            progress = self.look_up() + self.begin()
            if self.running:
                self.end(self.running.pop(self.draw.randrange(len(self.running))))
            else:
                assert progress or self.late or self.scheduler.idle, "nothing runs, nothing is given out"

    def add(self, count: int) -> None:
        known = {t.name for t in self.tasks.values()} - {t.name for t in self.late}
        portion: list[Task] = []
        for task in list(self.late):
            if len(portion) < count and all(need in known for need in task.needs):
                portion.append(task)
                known.add(task.name)
                self.late.remove(task)
        self.scheduler.add(portion)

    def look_up(self) -> int:
        names = self.scheduler.ready()
        for name in names:
            assert all(need in self.over for need in self.tasks[name].needs)
            self.named.add(name)
            fate = self.draw.random()
            if fate < 0.15:
                self.finish(name)
            elif fate < 0.25 and self.running:
                self.scheduler.wait(name, self.draw.choice(self.running).tasks[0])
                self.named.discard(name)
        return len(names)

    def begin(self) -> int:
        count = 0
        for device in self.draw.sample(list(self.scheduler.devices), len(self.scheduler.devices)):
            while (step := self.scheduler.next(device)) is not None:
                count += 1
                assert all(name in self.named and name not in self.over for name in step.tasks)
                here = self.scheduler.resident[device]
                assert all(m in here for name in step.tasks for m in self.tasks[name].models) or step.device != device
                if self.draw.random() < 0.1:
                    self.scheduler.give_back(step)
                    self.scheduler.forget(device, self.draw.sample(list(here), len(here) // 2))
                    break
                self.running.append(step)
        return count

    def end(self, step: Step) -> None:
        for name in step.tasks:
            self.finish(name)

    def finish(self, name: str) -> None:
        assert name not in self.over
        self.over.add(name)
        self.scheduler.finish(name, self.draw.choice([None, 0, 30]))


@pytest.mark.parametrize("gpus", [1, 3])
@pytest.mark.parametrize("seed", range(60))
def test_every_task_gets_over_whatever_happens(seed: int, gpus: int) -> None:
    chaos = Chaos(random_plan(seed, gpus, largest=12), seed)
    chaos.run()
    assert chaos.over == set(chaos.tasks)


def test_tasks_that_need_each_other_are_an_error() -> None:
    with pytest.raises(ValueError, match="need each other: x, y"):
        Scheduler([Device("host", kind="host")], {}).add([Task("x", ("y",)), Task("y", ("x",))])


def test_a_hundred_thousand_tasks_are_handed_out() -> None:
    stages = [(None, "host"), ("a", "device"), ("b", "device"), ("a", "device"), (None, "host")]
    scheduler = Scheduler(
        [Device("gpu", memory=10), Device("host", kind="host", slots=4)], {"a": ModelSpec(6), "b": ModelSpec(6)}
    )
    scheduler.add(
        Task(f"x[{i}]/{r}", (f"x[{i}]/{r - 1}",) if r else (), (m,) if m else (), w, 1.0, element=("x", i), rank=r)  # type: ignore[arg-type]
        for i in range(20_000)
        for r, (m, w) in enumerate(stages)
    )
    loads = count = 0
    while not scheduler.idle:
        scheduler.ready()
        steps = [s for d in ("gpu", "host", "host") if (s := scheduler.next(d)) is not None]
        for step in steps:
            loads += len(step.load)
            for name in step.tasks:
                scheduler.finish(name)
                count += 1
    assert count == 100_000
    assert loads == 3, "a, b, and a once more: the third stage needs the second of all elements"


def test_an_element_is_opened_when_another_is_over_while_the_models_fit() -> None:
    scheduler = Scheduler([Device("gpu")], {}, window=4)
    scheduler.add(
        Task(f"x[{i}]/{r}", (f"x[{i}]/{r - 1}",) if r else (), ("m",), "device", element=("x", i), rank=r)
        for i in range(10)
        for r in range(2)
    )
    named = scheduler.ready()
    assert named == ["x[0]/0", "x[1]/0", "x[2]/0", "x[3]/0"]
    scheduler.finish("x[2]/0")
    scheduler.finish("x[2]/1")
    assert scheduler.ready() == ["x[4]/0"]


def map_over_two(count: int, holds: int) -> list[Task]:
    return [
        Task(
            f"x[{i}]/{m}", (f"x[{i}]/a",) if m == "b" else (), (m,), "device", holds=holds, element=("x", i), rank=r
        )
        for i in range(count)
        for r, m in enumerate("ab")
    ]  # fmt: skip


def test_where_models_do_not_fit_the_window_is_what_held_values_allow() -> None:
    models = {"a": ModelSpec(6), "b": ModelSpec(6)}
    scheduler = Scheduler([Device("gpu", memory=10)], models, value_limit=50, window=2)
    scheduler.add(map_over_two(20, holds=10))
    assert len(scheduler.ready()) == 5
    unlimited = Scheduler([Device("gpu", memory=10)], models, window=2)
    unlimited.add(map_over_two(20, holds=10))
    assert len(unlimited.ready()) == 20


def test_the_window_adapts_to_what_elements_are_found_to_hold() -> None:
    models = {"a": ModelSpec(6), "b": ModelSpec(6)}
    scheduler = Scheduler([Device("gpu", memory=10)], models, value_limit=50, window=4)
    scheduler.add(map_over_two(20, holds=0))
    assert len(scheduler.ready()) == 4, "nothing is known: the window is small"
    scheduler.next("gpu")
    scheduler.finish("x[0]/a", holds=10)
    assert [n for n in scheduler.ready() if n.endswith("a")] == ["x[4]/a"], "five hold 50 bytes"


def test_a_step_given_ahead_may_move_what_an_earlier_one_uses() -> None:
    scheduler = Scheduler([Device("gpu", memory=10, ahead=2)], {"a": ModelSpec(6), "b": ModelSpec(6)})
    scheduler.add([Task("x", (), ("a",), "device"), Task("y", (), ("b",), "device", rank=1)])
    scheduler.ready()
    assert scheduler.next("gpu") == Step("gpu", ("x",), (), ("a",))
    assert scheduler.next("gpu") == Step("gpu", ("y",), ("a",), ("b",))
    assert scheduler.next("gpu") is None


def test_steps_at_once_keep_each_others_models() -> None:
    scheduler = Scheduler([Device("gpu", memory=10, slots=2)], {"a": ModelSpec(6), "b": ModelSpec(6)})
    scheduler.add([Task("x", (), ("a",), "device"), Task("y", (), ("b",), "device", rank=1)])
    scheduler.ready()
    assert scheduler.next("gpu") == Step("gpu", ("x",), (), ("a",))
    assert scheduler.next("gpu") == Step("gpu", ("y",), (), ("b",)), "over the budget rather than without its model"


def test_the_size_of_a_trained_model_counts_once_it_is_known() -> None:
    scheduler = Scheduler([Device("gpu", memory=10)], {"a": ModelSpec(6)})
    scheduler.add([Task("train"), Task("x", (), ("a",), "device"), Task("y", ("train", "x"), ("new",), "device")])
    scheduler.ready()
    assert scheduler.next("gpu") == Step("gpu", ("train",))
    scheduler.finish("train")
    scheduler.set_model("new", ModelSpec(8))
    assert scheduler.next("gpu") == Step("gpu", ("x",), (), ("a",))
    scheduler.finish("x")
    scheduler.ready()
    assert scheduler.next("gpu") == Step("gpu", ("y",), ("a",), ("new",))
