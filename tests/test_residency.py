"""Models are loaded as often as there are models, never exceed the budget together, and change no result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import model_samples as ms
import pytest
from harness import Harness

import graphflow
from graphflow.events import ModelLoaded, ModelReleased, NodeStarted
from graphflow.graph import Graph
from graphflow.models.weights import weight_bytes
from graphflow.options import Options
from graphflow.run import Run
from graphflow.spec import shipped_graphs
from graphflow.store import Store

MAPPED = """
graphflow: 1
inputs: {texts: 'list[Text]'}
nodes:
  one: {uses: sample.alpha, map: {text: inputs.texts}}
  two: {uses: sample.beta, map: {text: one.text}}
  shout: {uses: sample.shout, map: {text: two.text}}
  three: {uses: sample.gamma, map: {text: shout.text}}
  four: {uses: sample.delta, map: {text: three.text}}
  all: {uses: sample.join, in: {texts: four.text}}
outputs: {all: all.text}
"""
TEXTS = [f"text {i}" for i in range(20)]
LARGEST = max(ms.SIZE.values())


def watched(harness: Harness, pools: ms.Pools, options: Options, device: str = "cpu") -> Run:
    """Run, and measure the weights at every load and every start of a node."""
    session = harness.session()

    def emit(event: Any) -> None:
        harness.events.append(event)
        if isinstance(event, ModelLoaded | NodeStarted | ModelReleased):
            pools.sample()

    harness.events.clear()
    session.device = device
    with ms.on_entry(pools.sample):
        return session.runner({"texts": TEXTS}, emit, options).run()


@pytest.mark.parametrize("budget", [LARGEST, LARGEST + ms.SIZE["delta"], LARGEST + ms.SIZE["alpha"]])
def test_a_map_loads_each_model_once_under_a_budget_for_one_or_two(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    text = MAPPED + ms.models_line(tmp_path / "models")
    free = Harness(Store(tmp_path / "free"), text, tmp_path).run(texts=TEXTS)
    pools, harness = ms.Pools(monkeypatch), Harness(store, text, tmp_path)
    done = watched(harness, pools, Options(memory=budget))
    assert ms.loads(harness.events) == dict.fromkeys(ms.ROLES, 1)
    assert done["all"] == free["all"]
    assert LARGEST <= pools.highest <= budget


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("free")


EDITING = [name for name in shipped_graphs() if "/" not in name]
QUICK: Mapping[str, Mapping[str, int]] = {
    "visii": {"prompt_steps": 2, "learning_steps": 1},
    "visii_text": {"prompt_steps": 2, "learning_steps": 1},
}


@pytest.mark.parametrize("name", EDITING)
def test_a_shipped_graph_runs_when_its_models_do_not_fit_together(
    name: str, free: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools, given = ms.Pools(monkeypatch), {"steps": 2, **QUICK.get(name, {})}
    session = graphflow.load(name, store=tmp_path, device="cpu")
    largest = max(weights(session.graph, [node]) for node in session.graph.nodes)  # what one node takes together
    budget = max(largest + 2000, (largest + weights(session.graph)) // 2)
    assert budget < weights(session.graph) or largest == weights(session.graph)
    assert budget < sum(weight_bytes(ref, "float32") for ref in session.graph.preset.models.values())

    def emit(event: Any) -> None:
        if isinstance(event, ModelLoaded | NodeStarted | ModelReleased):
            pools.sample()

    done = session.runner(given, emit, Options(memory=budget)).run()
    assert 0 < pools.highest <= budget
    pools.made.clear()
    want = graphflow.load(name, store=free, device="cpu").run(**given)
    assert done["image"].tobytes() == want["image"].tobytes()
    assert digests(done) == digests(want)


def weights(graph: Graph, nodes: Iterable[str] | None = None) -> int:
    """Bytes of the models that these nodes, or all, take from the preset."""
    used = graph.used_models(graph.nodes if nodes is None else nodes).values()
    return sum(weight_bytes(ref, "float32") for ref in used)


def digests(done: Run) -> dict[str, dict[str, str]]:
    return {n: {p: v.digest for p, v in r.outputs.items()} for n, r in done.record.nodes.items()}
