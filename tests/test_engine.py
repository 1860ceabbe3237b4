"""Results do not depend on the order, the window, the device, what is evicted or prefetched, nor on what is held."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import model_samples as ms
import pytest
import random_graphs as rg
from harness import Harness
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from reference import Reference, TooLargeError
from shuffled import shuffling

from graphflow.engine import workload
from graphflow.errors import InvalidError
from graphflow.executors.compute import Computer
from graphflow.executors.worker import Worker
from graphflow.options import Options
from graphflow.record import RunRecord
from graphflow.run import Runner
from graphflow.store import Store

LARGEST, ALL = max(ms.SIZE.values()), sum(ms.SIZE.values())
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]


def law(examples: int) -> settings:
    """How often a law is tried; making a failing graph smaller takes minutes, and helps little."""
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES)


class World:
    """A random graph with models, its inputs, and what it must give."""

    def __init__(self, data: st.DataObject, folder: Path) -> None:
        self.folder, self.number = folder, 0
        self.graphs = data.draw(rg.graphs(unstored=True, more=ms.MODEL_KINDS), "graph")
        self.graphs.files[rg.MAIN]["models"] = ms.save_models(folder / "models")
        self.graphs.write(folder)
        self.given = data.draw(rg.givens(self.graphs.inputs), "inputs")
        try:
            self.harness = Harness(Store(folder / "store"), self.graphs.text, folder)
            self.harness.session()
            self.expected = Reference(self.graphs.files, {}, rg.for_reference(self.given)).outputs
        except InvalidError as error:
            assume(any(d.code != "GF118" for d in error.diagnostics))
            raise
        except TooLargeError:
            assume(False)

    def run(self, options: Options | None = None, device: str = "cpu") -> dict[str, Any]:
        """Run on a new store; returns keys and digests of all instances, in the order of their names."""
        self.number += 1
        store = Store(self.folder / f"store{self.number}")
        harness = Harness(store, self.graphs.text, self.folder)
        session = harness.session()
        runner = Runner(
            session.graph, session.bind(rg.for_engine(self.given)), store, device, emit=harness.events.append,
            options=options,
        )  # fmt: skip
        done = runner.run()
        wanted = {(ref.node, ref.port) for ref in session.graph.outputs.values()}
        assert not runner._values._recent
        assert {place[:2] for place in runner._values._unstored} <= wanted
        assert {n: rg.plain_value(done[n]) for n in self.expected} == self.expected
        record = done.record
        store.close()
        return facts(record)


def facts(record: RunRecord) -> dict[str, Any]:
    """What may not depend on how it was computed."""
    found = {n: (r.kind, r.key, {p: v.digest for p, v in r.outputs.items()}) for n, r in record.nodes.items()}
    return dict(sorted(found.items()))


def threads_of(memory: Any, around: Any, pools: Any, done: Any) -> dict[str, Worker]:
    """Threads in place of processes, which take seconds to begin; those have tests/executors/test_process.py."""
    return {device: Worker(Computer(device, around, limit), done, device) for device, limit in memory.items()}


@law(40)
@given(st.data())
def test_any_legal_order_gives_the_same(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    world = World(data, tmp_path_factory.mktemp("world"))
    plain = world.run()
    for _ in range(3):
        seed = data.draw(st.integers(0, 10**6), "order")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(workload, "Scheduler", shuffling(seed))
            patch.setattr("graphflow.engine.loop.QUICK", random.Random(seed).choice([0.0, 0.002, 1.0]))
            assert world.run() == plain


@law(25)
@given(st.data())
def test_windows_budgets_devices_and_held_values_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    world = World(data, tmp_path_factory.mktemp("world"))
    plain = world.run()
    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(workload, "WINDOW", data.draw(st.sampled_from([1, 2, 64]), "window"))
            patch.setattr(workload, "HELD", data.draw(st.sampled_from([1, 100_000, 2 << 30]), "held"))
            patch.setattr(workload, "AHEAD", data.draw(st.sampled_from([1, 2, 3]), "ahead"))
            memory = data.draw(st.sampled_from([LARGEST, LARGEST + 5000, ALL, None]), "memory")
            device = data.draw(st.sampled_from(["cpu", "cpu:0,cpu:1"]), "device")
            patch.setattr("graphflow.run.workers_of", threads_of)
            assert world.run(Options(memory=memory), device) == plain
