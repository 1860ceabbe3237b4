"""Several elements in one call: the same results within 1e-5, each with its own seed, progress and failure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import model_samples as ms
import pytest
from harness import Harness

from graphflow.events import NodeProgress, NodeStarted
from graphflow.options import Options
from graphflow.store import Store

RATED = """
graphflow: 1
inputs: {texts: 'list[Text]', seeds: {type: 'list[int]', default: [1, 1, 1, 1, 2, 2, 2, 2]}}
nodes:
  rate: {uses: sample.rate, map: {text: inputs.texts, seed: inputs.seeds}}
outputs: {ratings: rate.rating}
"""
TEXTS = [f"text {i}" for i in range(8)]


@pytest.fixture
def harness(store: Store, tmp_path: Path) -> Harness:
    ms.CALLS.clear()
    return Harness(store, RATED + ms.models_line(tmp_path / "models"), tmp_path)


def sizes() -> list[int]:
    found = sorted(size for _, size in ms.CALLS)
    ms.CALLS.clear()
    return found


def test_batches_give_what_single_calls_give(harness: Harness, tmp_path: Path) -> None:
    alone = Harness(Store(tmp_path / "alone"), harness.text, tmp_path).run(texts=TEXTS)
    assert sizes() == [1] * 8
    done = harness.run(texts=TEXTS, options=Options(batch=4))
    assert sizes() == [4, 4], "of one seed each: a batch has equal parameters"
    assert done["ratings"] == pytest.approx(alone["ratings"], abs=1e-5)
    assert len(set(alone["ratings"])) == 8
    assert {n: r.key for n, r in done.record.nodes.items()} == {n: r.key for n, r in alone.record.nodes.items()}
    assert {r.batch for r in done.record.nodes.values()} == {4}


def test_elements_with_other_parameters_are_computed_in_another_call(harness: Harness) -> None:
    harness.run(texts=TEXTS, seeds=[1, 2, 3, 1, 2, 3, 1, 2], options=Options(batch=8))
    assert sizes() == [2, 3, 3]


def test_an_element_that_fails_fails_alone(harness: Harness) -> None:
    texts = [*TEXTS[:5], "a bad text", *TEXTS[6:]]
    done = harness.run(texts=texts, options=Options(batch=4, keep_going=True))
    assert list(done.failures) == ["rate[5]"]
    assert "a bad text is not welcome" in done.failures["rate[5]"]
    assert [i for i, _ in done.elements("ratings")] == [0, 1, 2, 3, 4, 6, 7]
    assert sizes() == [1, 1, 1, 4]
    again = harness.run(texts=TEXTS)
    assert [n for n, r in again.record.nodes.items() if r.status == "ran"] == ["rate[5]"]


def test_each_element_has_its_progress_and_its_start(harness: Harness) -> None:
    harness.run(texts=TEXTS, options=Options(batch=4))
    steps = {name: [] for name in (f"rate[{i}]" for i in range(8))}
    for event in harness.events:
        if isinstance(event, NodeProgress):
            steps[event.node].append((event.step, event.total, event.label))
    assert all(found == [(i, 3, "rating") for i in range(4)] for found in steps.values())
    started = {e.node: e.batch for e in harness.events if isinstance(e, NodeStarted)}
    assert started == {f"rate[{i}]": 4 for i in range(8)}


def test_a_batch_that_returns_too_few_says_so(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ms.Rate.run_many
    monkeypatch.setattr(ms.Rate, "run_many", lambda node, xs, ctx: whole(node, xs, ctx)[: max(1, len(xs) - 1)])
    done = harness.run(texts=TEXTS, options=Options(batch=4, keep_going=True))
    assert not done.failures, "alone each gets what it asked for"
    assert sizes().count(1) == 8


def test_without_the_option_a_cpu_computes_one_after_the_other(harness: Harness) -> None:
    entered: list[Sequence[str]] = []
    with ms.on_entry(lambda kind, texts: entered.append(texts)):
        harness.run(texts=TEXTS)
    assert [len(texts) for texts in entered] == [1] * 8
