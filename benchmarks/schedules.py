"""The scheduler against two usual orders with least-recently-used eviction, on simulated devices, in Markdown.

    python benchmarks/schedules.py                    shipped graphs over 32 and 500 pictures, 1,000 random plans
    python benchmarks/schedules.py --random 5000      more random plans
    python benchmarks/schedules.py --scale 100000     only the scheduler's own cost: CPU time a task

*Node by node* runs a node for all pictures, then the next one. *Element by element* runs all nodes for one picture,
then for the next, as engines do that know one picture at a time. Both take the graph's order, read a model when it is
wanted, and evict what was used longest ago; host tasks run beside the device; models that left the device come back
from host memory. Exits with 1 when a law is broken: loads beyond farthest-next-use eviction (Belady) for the very same
order, loads of a map that fits beyond the number of its models, or a map of a shipped graph more than a tenth above
the lower bound.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from random_plans import RandomPlan, farthest_next_use, random_plan
from shipped_maps import EDITS, GB, MOVE, READ, SIZES, shipped_map
from usual_orders import UsualOrder, element_by_element, node_by_node

from graphflow.scheduler import Device, ModelSpec, Scheduler, Task
from graphflow.scheduler.bounds import lower_bound
from graphflow.scheduler.simulate import Simulated, Simulation

Row = Sequence[str]


def main() -> None:
    """Print the tables; exit with 1 when a law is broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--random", type=int, default=1000)
    parser.add_argument("--scale", type=int, default=0)
    options = parser.parse_args()
    if options.scale:
        print_cost(options.scale)
        return
    broken = print_shipped() + print_several() + print_random(options.random)
    print("\n" + ("\n".join(f"BROKEN: {line}" for line in broken) or "All laws held."))
    sys.exit(1 if broken else 0)


# --- shipped graphs ---------------------------------------------------------------------------------------------------


def print_shipped() -> list[str]:
    """Every shipped graph that edits a picture, over 32 and 500 of them."""
    broken: list[str] = []
    rows: list[Row] = []
    for count in (32, 500):
        for table in SIZES:
            for name in EDITS:
                rows += _shipped_rows(name, table, count, broken)
    print_table(
        "Shipped graphs as maps on one GPU",
        "graph, models, pictures | budget | models | loads: ours, node by node, element by element | "
        "makespan: ours, node by node, element by element | ours / bound",
        rows,
    )
    loads = [sum(int(row[3].split("; ")[i].replace(",", "")) for row in rows) for i in range(3)]
    worst = max(float(row[5]) for row in rows)
    print(
        f"\nLoads of all together: {' / '.join(f'{n:,}' for n in loads)}. Farthest from the bound: {worst:.3f} times."
    )
    return broken


def _shipped_rows(name: str, table: str, count: int, broken: list[str]) -> Iterable[Row]:
    tasks, models = shipped_map(name, table, count)
    largest = max(sum(models[m].bytes for m in t.models) + t.memory for t in tasks)
    total = sum(spec.bytes for spec in models.values()) + max(t.memory for t in tasks)
    for budget, said in ((total, "all fit"), (largest, "largest step")):
        devices = [Device("gpu", memory=budget), Device("host", kind="host", slots=4)]
        ours, nodes, elements = simulate_all(tasks, devices, models)
        bound = lower_bound(tasks, devices, models).seconds
        where = f"{name}, {table}, {count}, {said}"
        if ours.makespan > 1.1 * bound:
            broken.append(f"{where}: {ours.makespan / bound:.3f} times the bound")
        if said == "all fit" and sum(ours.loads.values()) != len(models):
            broken.append(f"{where}: {sum(ours.loads.values())} loads of {len(models)} models")
        best = farthest_next_use(ours.steps, RandomPlan(tasks, models, devices), devices[0]) if count < 100 else 1 << 30
        if sum(ours.loads.values()) > best:
            broken.append(f"{where}: {sum(ours.loads.values())} loads where {best} are enough")
        yield (
            f"{name}, {table}, {count}", f"{said}, {budget / GB:.2f} GB", str(len(models)),
            "; ".join(f"{sum(r.loads.values()):,}" for r in (ours, nodes, elements)),
            "; ".join(f"{r.makespan:,.0f} s" for r in (ours, nodes, elements)), f"{ours.makespan / bound:.3f}",
        )  # fmt: skip


def print_several() -> list[str]:
    """The same on several GPUs of 24 GB, over 500 pictures."""
    broken, rows = [], []
    for name in EDITS:
        for table in ("sd15", "sdxl"):
            tasks, models = shipped_map(name, table, 500)
            cells = []
            for gpus in (2, 8, 64):
                devices = [Device(f"gpu{i}", memory=24 * GB) for i in range(gpus)]
                devices.append(Device("host", kind="host", slots=4))
                out = Simulation(devices, models).run(tasks)
                ratio = out.makespan / lower_bound(tasks, devices, models).seconds
                cells.append(f"{out.makespan:,.0f} s, {ratio:.3f}, {sum(out.loads.values())}")
                if ratio > 1.1:
                    broken.append(f"{name}, {table}, {gpus} GPUs: {ratio:.3f} times the bound")
            rows.append((f"{name}, {table}", str(len(models)), *cells))
    columns = "500 pictures | models | 2 GPUs: makespan, ours / bound, loads | 8 GPUs | 64 GPUs"
    print_table("Shipped graphs as maps on several GPUs of 24 GB", columns, rows)
    return broken


def simulate_all(
    tasks: Sequence[Task], devices: Sequence[Device], models: dict[str, ModelSpec]
) -> tuple[Simulated, Simulated, Simulated]:
    """Ours, node by node, element by element."""
    out = [Simulation(devices, models).run(tasks)]
    for order in (node_by_node, element_by_element):
        out.append(Simulation(devices, models, UsualOrder(order(tasks), devices, models)).run(tasks))
    return out[0], out[1], out[2]


# --- random plans -----------------------------------------------------------------------------------------------------


def print_random(count: int) -> list[str]:
    """Seeded random plans on one GPU, by how much of the models its memory holds; and on several."""
    broken: list[str] = []
    groups: dict[str, list[tuple[Simulated, Simulated, Simulated, float]]] = {}
    for seed in range(count):
        plan = random_plan(seed)
        plan = replace(plan, batch=1, value_limit=None)
        ours, nodes, elements = simulate_all(plan.tasks, plan.devices, plan.models)
        best = farthest_next_use(ours.steps, plan, plan.devices[0])
        if sum(ours.loads.values()) > best:
            broken.append(f"random plan {seed}: {sum(ours.loads.values())} loads where {best} are enough")
        bound = lower_bound(plan.tasks, plan.devices, plan.models).seconds
        groups.setdefault(_holds(plan), []).append((ours, nodes, elements, bound))
    rows = [_random_row(said, groups[said]) for said in sorted(groups)]
    print_table(
        f"{count:,} random plans on one GPU",
        "memory holds | plans | loads: ours, node by node, element by element | makespan beside ours, median (worst): "
        "node by node, element by element | ours / bound, median (worst)",
        rows,
    )
    more = 0
    for seed in range(count):
        plan = replace(random_plan(seed, 3), batch=1, value_limit=None)
        out = Simulation(plan.devices, plan.models).run(plan.tasks)
        best = sum(farthest_next_use(out.steps, plan, d) for d in plan.devices)
        more += sum(out.loads.values()) > best
    print(f"\nOn three GPUs {count - more:,} of {count:,} plans load no more than farthest next use on each of them.")
    return broken


def _holds(plan: RandomPlan) -> str:
    memory, total = plan.devices[0].memory, sum(s.bytes for s in plan.models.values())
    if memory is None or memory >= total:
        return "all models"
    return "half of them or more" if memory >= total / 2 else "less than half"


def _random_row(said: str, runs: Sequence[tuple[Simulated, Simulated, Simulated, float]]) -> Row:
    loads = [sum(sum(run[i].loads.values()) for run in runs) for i in range(3)]
    beside = [[run[i].makespan / run[0].makespan for run in runs if run[0].makespan > 0] for i in (1, 2)]
    bound = [run[0].makespan / run[3] for run in runs if run[3] > 0]
    return (
        said, str(len(runs)), ", ".join(f"{n:,}" for n in loads),
        ", ".join(f"{statistics.median(r):.2f} ({min(r):.2f} to {max(r):.2f})" for r in beside),
        f"{statistics.median(bound):.3f} ({max(bound):.2f})",
    )  # fmt: skip


# --- cost -------------------------------------------------------------------------------------------------------------


def print_cost(count: int) -> None:
    """CPU time of the scheduler alone for a map of so many tasks, everything included."""
    sizes = {"a": 2 * GB, "b": 6 * GB, "c": 4 * GB, "d": GB}
    models = {m: ModelSpec(size, size / READ, size / MOVE) for m, size in sizes.items()}
    stages = [None, "d", "a", "b", "c", "c", "d", None]
    rows = []
    for budget, said in ((20, "all fit"), (7, "one or two fit")):
        tasks = [
            Task(
                f"x[{i}]/{r}", (f"x[{i}]/{r - 1}",) if r else (), (m,) if m else (), "device" if m else "host", 0.1,
                element=("x", i), rank=r,
            )
            for i in range(count // len(stages))
            for r, m in enumerate(stages)
        ]  # fmt: skip
        devices = [Device("gpu", memory=budget * GB), Device("host", kind="host", slots=4)]
        rows.append((said, f"{len(tasks):,}", f"{_cost(tasks, devices, models) / len(tasks) * 1e6:.1f} µs"))
    print_table("CPU time of the scheduler", "map | tasks | a task", rows)


def _cost(tasks: list[Task], devices: list[Device], models: dict[str, ModelSpec]) -> float:
    """Drive it in the simplest way: every step ends before the next round."""
    gc.collect()
    gc.disable()  # as the engine does while it is not computing
    begin = time.process_time()
    scheduler = Scheduler(devices, models)
    scheduler.add(tasks)
    while not scheduler.idle:
        scheduler.ready()
        steps = [step for d in devices for _ in range(d.slots) if (step := scheduler.next(d.name)) is not None]
        scheduler.prefetch("gpu")
        for step in steps:
            for name in step.tasks:
                scheduler.finish(name)
    seconds = time.process_time() - begin
    gc.enable()
    return seconds


def print_table(title: str, columns: str, rows: Iterable[Row]) -> None:
    """A Markdown table."""
    names = columns.split(" | ")
    print(f"\n## {title}\n\n| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
