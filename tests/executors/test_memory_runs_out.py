"""Out of memory: free, move other models off, halve the batch, offload, and only then fail, with the figures."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from pathlib import Path

import model_samples as ms
import pytest
import torch
from harness import Harness

from graphflow.errors import GraphflowError, NodeError
from graphflow.events import Logged, ModelReleased
from graphflow.models.pool import ModelPool
from graphflow.options import Options
from graphflow.store import Store

RATED = """
graphflow: 1
inputs: {texts: 'list[Text]'}
nodes:
  rate: {uses: sample.rate, map: {text: inputs.texts}}
  mean: {uses: sample.mean, in: {values: rate.rating}}
outputs: {mean: mean.mean, ratings: rate.rating}
"""
CHAIN = """
graphflow: 1
inputs: {text: Text}
nodes:
  one: {uses: sample.alpha, in: {text: inputs.text}}
  two: {uses: sample.beta, in: {text: one.text}}
  three: {uses: sample.gamma, in: {text: two.text}}
outputs: {text: three.text}
"""
TEXTS = [f"text {i}" for i in range(8)]
KINDS_OF_ERRORS = [
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    lambda: MemoryError(),
    lambda: RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried..."),
]


class Scarce:
    """Raises in a kind of node as long as `enough` says no; what it had allocated by then is watched."""

    def __init__(self, kind: str, times: int = 10**6, most: int = 0, error: int = 0) -> None:
        self.kind, self.times, self.most, self.error = kind, times, most, error
        self.raised = 0
        self.tensors: list[weakref.ref[torch.Tensor]] = []
        self.alive: list[int] = []

    def __call__(self, kind: str, texts: Sequence[str]) -> None:
        if kind != self.kind:
            return
        self.alive.append(sum(ref() is not None for ref in self.tensors))
        if self.raised < self.times and len(texts) > self.most:
            self.raised += 1
            large = torch.zeros(1000)
            self.tensors.append(weakref.ref(large))
            raise KINDS_OF_ERRORS[self.error]()


@pytest.fixture
def models(tmp_path: Path) -> str:
    return ms.models_line(tmp_path / "models")


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    ms.CALLS.clear()


def said(harness: Harness) -> list[str]:
    return [e.message for e in harness.events if isinstance(e, Logged)]


@pytest.mark.parametrize("error", range(len(KINDS_OF_ERRORS)))
def test_it_is_tried_again_when_memory_has_been_freed(store: Store, models: str, error: int) -> None:
    harness = Harness(store, CHAIN + models, store.folder)
    with ms.on_entry(scarce := Scarce("sample.beta", times=1, error=error)):
        done = harness.run(text="a")
    assert done["text"] == Harness(Store(store.folder / "other"), CHAIN + models, store.folder).run(text="a")["text"]
    assert scarce.alive == [0, 0], "nothing of the failed attempt is left when the next one begins"
    assert any("out of memory" in m for m in said(harness))


def test_other_models_go_first(store: Store, models: str) -> None:
    harness = Harness(store, CHAIN + models, store.folder)
    with ms.on_entry(scarce := Scarce("sample.gamma", times=1)):
        harness.run(text="a")
    released = [e for e in harness.events if isinstance(e, ModelReleased)]
    assert sorted(Path(e.name).name for e in released)[:2] == ["alpha", "beta"]
    assert scarce.raised == 1
    assert "out of memory: 2 models moved off cpu (40.0 KiB), and again" in said(harness)


def test_a_batch_is_halved_until_it_fits_and_the_next_one_is_no_larger(store: Store, models: str) -> None:
    harness = Harness(store, RATED + models, store.folder)
    with ms.on_entry(Scarce("sample.rate", most=2)):
        done = harness.run(texts=TEXTS, options=Options(batch=4))
    sizes = [size for kind, size in ms.CALLS if kind == "sample.rate"]
    assert sizes == [2, 2, 2, 2]
    assert [m for m in said(harness) if "batch" in m] == ["out of memory with a batch of 4: going on with 2"]
    alone = Harness(Store(store.folder / "other"), RATED + models, store.folder).run(texts=TEXTS)
    assert done["ratings"] == pytest.approx(alone["ratings"], abs=1e-5)
    assert [done.record.nodes[f"rate[{i}]"].batch for i in range(8)] == [2] * 8


def test_it_fails_with_the_figures_and_what_has_finished_is_kept(store: Store, models: str) -> None:
    harness = Harness(store, CHAIN + models, store.folder)
    with ms.on_entry(scarce := Scarce("sample.gamma")), pytest.raises(NodeError) as found:
        harness.run(text="a", options=Options(memory=70_000))
    message = str(found.value)
    for part in ("three", "does not fit", "budget", "weights", "in use", "Tried to allocate 2.00 GiB"):
        assert part in message
    assert found.value.exit_code == 1
    del found
    gc.collect()
    assert all(ref() is None for ref in scarce.tensors)
    assert [n.status for n in harness.plan(text="a").nodes.values()] == ["cached", "cached", "run"]
    assert harness.run(text="a").record.nodes["three"].status == "ran"


def test_with_keep_going_the_rest_of_the_map_is_done(store: Store, models: str) -> None:
    harness = Harness(store, RATED + models, store.folder)

    def too_much(kind: str, texts: Sequence[str]) -> None:
        if kind == "sample.rate" and "text 3" in texts:
            raise torch.OutOfMemoryError("Tried to allocate 9 GiB")

    with ms.on_entry(too_much):
        done = harness.run(texts=TEXTS, options=Options(batch=4, keep_going=True))
    assert list(done.failures) == ["rate[3]"]
    assert "Tried to allocate 9 GiB" in done.failures["rate[3]"]
    assert [i for i, _ in done.elements("ratings")] == [0, 1, 2, 4, 5, 6, 7]
    again = harness.run(texts=TEXTS)
    ran = [name for name, node in again.record.nodes.items() if node.status == "ran"]
    assert ran == ["rate[3]", "mean"]


def test_a_model_that_does_not_fit_beside_others_is_loaded_when_they_are_gone(
    store: Store, models: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = Harness(store, CHAIN + models, store.folder)
    load = ModelPool._load
    refused = []

    def one_at_a_time(pool: ModelPool, *args: object, **kwargs: object) -> object:
        if pool.resident:
            refused.append(len(pool.resident))
            raise torch.OutOfMemoryError("no room for weights")
        return load(pool, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(ModelPool, "_load", one_at_a_time)
    done = harness.run(text="a")
    assert done.record.status == "done"
    assert refused, "the models did not fit together"


def test_the_largest_model_is_offloaded_last(store: Store, models: str, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(store, CHAIN + models, store.folder)
    offloaded = []

    def offload(pool: ModelPool, key: str) -> bool:
        offloaded.append(key)
        return len(offloaded) == 1

    monkeypatch.setattr(ModelPool, "offload", offload)
    with ms.on_entry(scarce := Scarce("sample.gamma", times=2)):
        harness.run(text="a")
    assert scarce.raised == 2
    assert len(offloaded) == 1
    assert "gamma" in offloaded[0]
    assert any("layer by layer" in m for m in said(harness))


def test_what_is_no_lack_of_memory_is_not_tried_again(store: Store, models: str) -> None:
    harness = Harness(store, CHAIN + models, store.folder)
    tried = []

    def broken(kind: str, texts: Sequence[str]) -> None:
        tried.append(kind)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with ms.on_entry(broken), pytest.raises(GraphflowError, match="shapes cannot be multiplied"):
        harness.run(text="a")
    assert tried == ["sample.alpha"]
