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
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from random_plans import RandomPlan, farthest_next_use, random_plan
from usual_orders import UsualOrder, element_by_element, node_by_node

from graphflow.graph import Graph
from graphflow.models.refs import ModelRef
from graphflow.models.weights import model_key
from graphflow.scheduler import Device, ModelSpec, Scheduler, Task
from graphflow.scheduler.bounds import lower_bound
from graphflow.scheduler.from_plan import Expected, tasks_of
from graphflow.scheduler.simulate import Simulated, Simulation
from graphflow.session import open_session
from graphflow.spec import shipped_graphs

GB = 10**9
READ, MOVE = 2 * GB, 20 * GB  # bytes a second: a fast disk, PCIe 4
# Gigabytes by role. Pocket: the packaged models. sd15 as the preset, sdxl with 7B language models.
SIZES = {
    "pocket": {
        "vae": 0.0025, "denoiser": 0.033, "instruct_denoiser": 0.033, "text_encoder": 0.002, "clip": 0.0052,
        "image_encoder": 0.0032, "captioner": 0.0053, "caption_writer": 0.0046, "llm": 0.0046, "vlm": 0.0054,
        "ip_adapter": 0.0013,
    },
    "sd15": {
        "vae": 0.17, "denoiser": 1.72, "instruct_denoiser": 1.72, "text_encoder": 0.25, "clip": 0.6,
        "image_encoder": 1.26, "captioner": 0.94, "caption_writer": 5.6, "llm": 5.6, "vlm": 14.1, "ip_adapter": 0.05,
    },
    "sdxl": {
        "vae": 0.17, "denoiser": 5.14, "instruct_denoiser": 5.14, "text_encoder": 1.64, "clip": 1.97,
        "image_encoder": 3.69, "captioner": 7.75, "caption_writer": 14.5, "llm": 14.5, "vlm": 14.1, "ip_adapter": 0.7,
    },
}  # fmt: skip
ACTIVATIONS = {"pocket": 0.002, "sd15": 1.0, "sdxl": 3.0}  # gigabytes beside the weights
# Seconds of a node, about those of a GPU with 24 GB: 50 steps of inversion or sampling, a caption, an instruction.
SECONDS = {
    "image.prepare": 0.02, "instruct.prepare": 0.02, "caption": 0.4, "captions.before_after": 2.0, "text.encode": 0.02,
    "text.direction": 0.05, "vae.encode": 0.06, "vae.decode": 0.08, "invert.ddim": 3.0, "features.capture": 3.5,
    "score.clip": 0.05, "score.s_visual": 0.05, "embedding.image": 0.05, "embedding.exemplar": 0.1,
    "train_instruction.hard_prompt": 60.0, "train_instruction.visii": 300.0,
}  # fmt: skip
OTHERS = 6.0  # sampling with guidance, and what a large model describes

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
    broken = print_shipped() + print_random(options.random)
    print("\n" + ("\n".join(f"BROKEN: {line}" for line in broken) or "All laws held."))
    sys.exit(1 if broken else 0)


# --- shipped graphs ---------------------------------------------------------------------------------------------------


def print_shipped() -> list[str]:
    """Every shipped graph that edits a picture, over 32 and 500 of them."""
    broken: list[str] = []
    rows: list[Row] = []
    for count in (32, 500):
        for table in SIZES:
            for name in shipped_graphs():
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
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(name, store=Path(folder))
        if "image" not in session.graph.inputs or name.startswith("train"):
            return
        tasks, models = mapped(session.graph, tasks_of(session.plan(), session.graph, _nothing), table, count)
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


def _nothing(node: object, planned: object) -> Expected:
    return Expected()


def mapped(graph: Graph, tasks: Sequence[Task], table: str, count: int) -> tuple[list[Task], dict[str, ModelSpec]]:
    """The tasks of a graph over so many pictures: what depends on the picture once for each, the rest once."""
    below: set[str] = set()
    for name in graph.order:
        node = graph.nodes[name]
        if any((r.node == "inputs" and r.port == "image") or r.node in below for r in node.refs):
            below.add(name)
    roles = {model_key(ref): ref for node in graph.nodes.values() for ref in node.models.values()}
    out = []
    for task in tasks:
        kind = graph.nodes[task.name].cls.kind
        memory = int(ACTIVATIONS[table] * GB) if kind.startswith(("denoise", "invert", "instruct.", "features")) else 0
        task = replace(task, seconds=SECONDS.get(kind, OTHERS), memory=memory, batch="")
        if task.name not in below:
            out.append(task)
            continue
        for i in range(count):
            needs = tuple(f"each[{i}]/{n}" if n in below else n for n in task.needs)
            out.append(replace(task, name=f"each[{i}]/{task.name}", needs=needs, element=("each", i)))
    used = {m for t in out for m in t.models}
    return out, {key: _spec(ref, table) for key, ref in roles.items() if key in used}


def _spec(ref: ModelRef, table: str) -> ModelSpec:
    sizes = SIZES[table]
    size = int(sizes.get(ref.name, sizes.get(ref.role, 1.0)) * GB)
    return ModelSpec(size, size / READ, size / MOVE)


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
