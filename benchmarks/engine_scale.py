"""What the engine costs a node: chains, fan-outs and random DAGs of trivial nodes, beside Hamilton if it is installed.

    python benchmarks/engine_scale.py                 1,000 nodes
    python benchmarks/engine_scale.py --nodes 10000   10,000 nodes

A node adds two integers; so all that is measured is the engine: planning, keys, the store on disk. The record, which
a run makes when it is asked for, is not in it.
CPU time of the process a node, in microseconds, in a warm process: a first run that computes and stores everything,
then a run with a newly opened store that finds everything cached (median of five). Hamilton runs functions of the same
shape with its disk cache. `pip install sf-hamilton` for the comparison.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import random
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path

from graphflow.check import check
from graphflow.node import Context, Field, Node, Ports
from graphflow.session import Session
from graphflow.spec import parse_spec
from graphflow.store import Store

Parents = Mapping[str, tuple[str, ...]]  # node → the one or two nodes that it adds
HAMILTON_LIMIT = 2000  # larger graphs take it minutes


class Add(Node, kind="bench.add"):
    """The sum of two numbers and one."""

    plus: int = Field(1, description="added to the sum")

    class In(Ports):
        a: int
        b: int = 0

    class Out(Ports):
        sum: int

    def run(self, x: In, ctx: Context) -> Out:
        return self.Out(sum=x.a + x.b + self.plus)


def chain(count: int) -> Parents:
    """Each node adds to the one before it."""
    return {f"n{i}": (f"n{i - 1}",) if i else () for i in range(count)}


def fan_out(count: int) -> Parents:
    """All nodes but one add to the first."""
    return {f"n{i}": ("n0",) if i else () for i in range(count)}


def random_dag(count: int) -> Parents:
    """Each node adds up to two of the fifty before it."""
    rng = random.Random(0)
    return {f"n{i}": tuple(f"n{rng.randrange(max(0, i - 50), i)}" for _ in range(min(i, 2))) for i in range(count)}


SHAPES: dict[str, Callable[[int], Parents]] = {"chain": chain, "fan-out": fan_out, "random DAG": random_dag}


def sinks(parents: Parents) -> list[str]:
    """The nodes that feed no other."""
    used = {p for found in parents.values() for p in found}
    return [n for n in parents if n not in used]


def graph_text(parents: Parents) -> str:
    """The graph as a file; every node adds a number of its own, so that no two are the same computation."""
    lines = ["graphflow: 1", "inputs: {start: {type: int, default: 1}}", "nodes:"]
    for i, (name, found) in enumerate(parents.items()):
        edges = ", ".join(f"{port}: {p}.sum" for port, p in zip("ab", found, strict=False)) or "a: inputs.start"
        lines.append(f"  {name}: {{uses: bench.add, in: {{{edges}}}, with: {{plus: {i}}}}}")
    return "\n".join([*lines, "outputs:", *(f"  {n}: {n}.sum" for n in sinks(parents))])


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of this process, all threads."""
    began = time.process_time()
    work()
    return time.process_time() - began


def measure_graphflow(parents: Parents) -> dict[str, float]:
    """Microseconds a node: check, first run, cached run."""
    text = graph_text(parents)
    graph = check(parse_spec(text, "bench.yaml"))
    count = len(parents)
    with tempfile.TemporaryDirectory() as folder:
        session = Session(graph, Store(Path(folder)))
        first = cpu(session.run)
        session.store.close()

        def again() -> None:
            session.store = Store(Path(folder))
            done = session.run()
            assert all(settled.status == "cached" for settled in done.runner.settled.values())
            session.store.close()

        again()
        cached = statistics.median(cpu(again) for _ in range(5))
    checked = cpu(lambda: check(parse_spec(text, "bench.yaml")))
    return {"check": 1e6 * checked / count, "first run": 1e6 * first / count, "cached": 1e6 * cached / count}


def measure_hamilton(parents: Parents) -> dict[str, float]:
    """The same with Hamilton's disk cache."""
    from hamilton import driver

    logging.disable(logging.WARNING)
    module = types.ModuleType("bench_functions")
    lines = []
    for i, (name, found) in enumerate(parents.items()):
        arguments = ", ".join(f"{p}: int" for p in dict.fromkeys(found))
        lines.append(f"def {name}({arguments}) -> int:\n    return {' + '.join([*found, str(i)])}\n")
    source = "\n".join(lines)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench_functions.py"
        path.write_text(source)
        spec = importlib.util.spec_from_file_location("bench_functions", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["bench_functions"] = module
        spec.loader.exec_module(module)
        wanted = sinks(parents)

        def run() -> None:
            built = driver.Builder().with_modules(module).with_cache(path=str(Path(folder) / "cache")).build()
            built.execute(wanted)

        build = cpu(lambda: driver.Builder().with_modules(module).build())
        first = cpu(run) - build
        cached = statistics.median(cpu(run) for _ in range(3)) - build
    return {
        "check": 1e6 * build / len(parents),
        "first run": 1e6 * first / len(parents),
        "cached": 1e6 * cached / len(parents),
    }


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    arguments = parser.parse_args()
    sys.setrecursionlimit(100_000)  # Hamilton walks graphs recursively; graphflow does not need it
    hamilton = importlib.util.find_spec("hamilton") is not None and arguments.nodes <= HAMILTON_LIMIT
    print(f"{arguments.nodes} nodes, CPU µs a node\n\n| graph | engine | check, build | first run | cached |")
    print("|---|---|---|---|---|")
    for name, shape in SHAPES.items():
        parents = shape(arguments.nodes)
        rows = {"graphflow": measure_graphflow(parents)}
        if hamilton:
            rows["Hamilton"] = measure_hamilton(parents)
        for engine, found in rows.items():
            print(f"| {name} | {engine} | {found['check']:.0f} | {found['first run']:.0f} | {found['cached']:.1f} |")
        if hamilton:
            ratios = [rows["Hamilton"][k] / rows["graphflow"][k] for k in ("first run", "cached")]
            print(f"| {name} | Hamilton / graphflow | | {ratios[0]:.1f}× | {ratios[1]:.1f}× |", flush=True)


if __name__ == "__main__":
    main()
