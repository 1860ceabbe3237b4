"""What a benchmark computes, what it takes from the store, and what it says where there is no number."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench_samples
import pytest

from graphflow.bench.results import Results, collect
from graphflow.bench.session import open_bench
from graphflow.bench.spec import shipped_benches
from graphflow.bench.table import MISSING, Table, table_of
from graphflow.errors import InvalidError, MissingError, NodeError, UsageError
from graphflow.events import Event, NodeFinished
from graphflow.spec import load_spec, shipped_graphs

BENCH = """
graphflow-bench: 1
title: Brightening
data: {uses: sample_bench.edits}
methods:
  nothing: {column: source, title: do nothing}
  little: {uses: sample_bench.brighten, with: {by: 10}}
  much: {uses: sample_bench.brighten, with: {by: 35}}
  truth: {column: target}
metrics:
  near: {uses: sample_bench.apart, in: {reference: target}}
  kept: {uses: sample_bench.apart, in: {reference: source}}
"""
Run = Callable[..., Results]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Write a bench file and run it."""

    def go(text: str = BENCH, events: list[Event] | None = None, keep_going: bool = True, **options: Any) -> Results:
        bench_samples.RUNS.clear()
        path = tmp_path / "bright.yaml"
        path.write_text(text, encoding="utf-8")
        bench = open_bench(str(path), store=tmp_path / "store", device="cpu", **options)
        ready, done = bench.run({}, (events if events is not None else []).append, keep_going)
        return collect(bench.spec, ready.compiled, done)

    return go


def row(table: Table, name: str) -> dict[str, float | None]:
    found = next(r for r in table.rows if r.name == name)
    return {h.key: c.found.mean if c.found else None for h, c in zip(table.heads, found.cells, strict=True)}


def test_each_method_is_scored_by_each_metric(run: Run) -> None:
    results = run()
    table = table_of(results)
    assert [h.key for h in table.heads] == ["near.mean", "near.worst", "kept.mean", "kept.worst", "seconds"]
    assert row(table, "little")["near.mean"] == 30
    assert row(table, "much")["near.mean"] == 5
    assert row(table, "much")["kept.mean"] == 35
    assert row(table, "nothing") == {
        "near.mean": 40, "near.worst": 40, "kept.mean": 0, "kept.worst": None, "seconds": None,
    }  # fmt: skip
    assert results.names == [f"edit/{n}" for n in range(6)]
    assert results.types == ["add", "style"] * 3
    assert results.about["near.mean"].definition == "mean |a-b|"
    assert all(s is not None and s > 0 for s in results.seconds["little"])


def test_a_method_that_is_added_is_all_that_is_computed(run: Run) -> None:
    run()
    assert bench_samples.RUNS == {"brighten 10": 6, "brighten 35": 6, "apart": 48}
    more = BENCH.replace(
        "  truth: {column", "  most: {uses: sample_bench.brighten, with: {by: 40}}\n  truth: {column", 1
    )
    results = run(more)
    # What it makes is the ground truth itself, which has been scored already.
    assert bench_samples.RUNS == {"brighten 40": 6}
    assert row(table_of(results), "most")["near.mean"] == 0
    assert all(s is not None and s > 0 for s in results.seconds["little"]), "the time of the run that computed it"
    run(more.replace("by: 40", "by: 20"))
    assert bench_samples.RUNS == {"brighten 20": 6, "apart": 12}


def test_a_metric_that_is_added_computes_no_picture(run: Run) -> None:
    run()
    run(BENCH + "  square: {uses: sample_bench.apart, in: {reference: target}, with: {times: 2.0}}\n")
    assert bench_samples.RUNS == {"apart": 24}


def test_after_an_interrupt_the_rest_is_computed(run: Run) -> None:
    class Stop(KeyboardInterrupt):
        pass

    class Events(list[Event]):
        def append(self, event: Event) -> None:
            if isinstance(event, NodeFinished) and event.node == "little[3]/edit/run":
                raise Stop

    with pytest.raises(Stop):
        run(events=Events())
    assert bench_samples.RUNS["brighten 10"] == 4
    results = run()
    assert bench_samples.RUNS["brighten 10"] == 2
    assert row(table_of(results), "little")["near.mean"] == 30


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process by signal")
def test_after_a_kill_nothing_that_was_computed_is_lost(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bright.yaml").write_text(BENCH, encoding="utf-8")
    script = Path(__file__).with_name("kill_worker.py")
    arguments = [str(tmp_path / "bright.yaml"), str(tmp_path / "store"), "much[2]/edit/run"]
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    finished = [name for name in done.stdout.decode().split() if name.endswith("/edit/run")]
    results = run()
    assert 3 <= len(finished) < 12
    assert bench_samples.RUNS["brighten 10"] + bench_samples.RUNS["brighten 35"] == 12 - len(finished)
    assert row(table_of(results), "much")["near.mean"] == 5


def test_a_picture_that_fails_is_counted_and_named(run: Run) -> None:
    text = BENCH.replace("with: {by: 10}", "with: {by: 10, fails: /4}")
    results = run(text)
    table = table_of(results)
    little = next(r for r in table.rows if r.name == "little")
    assert little.made == 5
    assert table.incomplete
    assert results.seconds["little"][4] is None
    assert results.values("little", "near.mean") == [30, 30, 30, 30, None, 30]
    assert "little: 1 of 6 pictures failed; its means are over the others" in table.notes
    assert next(iter(results.failures.values())).endswith("can't do 'brighten edit/4'")
    with pytest.raises(NodeError, match="can't do 'brighten edit/4'"):
        run(text, keep_going=False)


def test_a_score_without_weights_is_not_available_and_the_run_goes_on(run: Run) -> None:
    table = table_of(run(BENCH + "  net: {uses: sample_bench.needy}\n"))
    at = [h.key for h in table.heads].index("net.lpips")
    cells = [r.cells[at] for r in table.rows]
    assert [c.found for c in cells] == [None] * 4
    assert {c.text(2) for c in cells} == {MISSING}
    assert cells[1].reason == "no weights of lpips"
    assert row(table, "much")["near.mean"] == 5
    assert any(
        n.startswith("not available (do nothing, little, much, truth): no weights of lpips") for n in table.notes
    )


def test_a_method_without_its_models_is_not_available_and_the_run_goes_on(run: Run, tmp_path: Path) -> None:
    text = BENCH.replace("  truth: {column", "  swap: {uses: prompt_swap, models: absent.yaml}\n  truth: {column", 1)
    (tmp_path / "absent.yaml").write_text(
        "graphflow-preset: 1\nextends: pocket\nmodels:\n  vae: {loader: diffusers.vae, path: gone, space: pocket}\n"
    )
    table = table_of(run(text))
    swap = next(r for r in table.rows if r.name == "swap")
    assert all(c.found is None for c in swap.cells)
    assert "not on this machine: vae" in swap.cells[0].reason
    assert row(table, "much")["near.mean"] == 5


def test_a_column_that_the_data_set_lacks_leaves_out_what_needs_it(run: Run) -> None:
    text = BENCH.replace(
        "{uses: sample_bench.brighten, with: {by: 10}}", "{uses: prompt_swap, in: {instruction: target_caption}}"
    )
    table = table_of(run(text))
    little = next(r for r in table.rows if r.name == "little")
    assert little.cells[0].reason == "the data set has no 'target_caption'"


def test_a_method_gets_no_column_of_another_type_and_no_ground_truth_unasked(run: Run) -> None:
    results = run(BENCH.replace("{uses: sample_bench.brighten, with: {by: 10}}", "{uses: sample_bench.told}"))
    assert results.values("little", "kept.mean") == [0] * 6


def test_nothing_to_compare_says_why(run: Run) -> None:
    text = BENCH.partition("methods:")[0] + (
        "methods: {swap: {uses: prompt_swap, in: {instruction: target_caption}}}\n"
        "metrics: {kept: {uses: sample_bench.apart, in: {reference: source}}}\n"
    )
    with pytest.raises(MissingError, match="swap: the data set has no 'target_caption'"):
        run(text)


SETS = """
  level:
    uses: sample_bench.shift
    each: {uses: sample_bench.level}
    in: {reference: target}
"""


def test_a_metric_of_sets_takes_what_each_makes_of_every_picture(run: Run) -> None:
    results = run(BENCH + SETS)
    table = table_of(results)
    assert row(table, "little")["level.shift"] == pytest.approx(30)
    assert row(table, "truth")["level.shift"] == 0
    at = [h.key for h in table.heads].index("level.shift")
    found = table.rows[1].cells[at].found
    assert found is not None
    assert (found.low, found.n) == (None, 1), "one number for the whole set has no interval over pictures"
    assert results.values("little", "level.shift") == []
    assert bench_samples.RUNS["level"] == 24, "the ground truth is looked at once, for all methods"


def test_published_numbers_stand_beside_and_are_the_best_of_nothing(run: Run) -> None:
    text = BENCH + (
        "columns:\n  near.mean: {digits: 1}\n"
        "reference:\n  theirs: {title: Theirs, source: 'Smith 2020, table 1', values: {near.mean: 0.001}}\n"
    )
    table = table_of(run(text))
    theirs = table.rows[-1]
    assert (theirs.kind, theirs.source) == ("published", "Smith 2020, table 1")
    assert not any(c.best for c in theirs.cells)
    assert [r.name for r in table.rows if r.cells[0].best] == ["much"]
    assert "Theirs: published, Smith 2020, table 1; not measured here and not compared" in table.notes


def test_a_baseline_is_the_best_of_nothing(run: Run) -> None:
    table = table_of(run())
    for head, cells in zip(table.heads[:3], zip(*(r.cells for r in table.rows), strict=True), strict=False):
        best = [r.name for r, c in zip(table.rows, cells, strict=True) if c.best]
        assert best == [{"near": "much", "kept": "little"}[head.key.partition(".")[0]]]


def test_methods_that_can_not_be_told_apart_are_best_together(run: Run) -> None:
    text = BENCH.replace("with: {by: 35}", "with: {by: 10}")
    table = table_of(run(text))
    assert [r.name for r in table.rows if r.cells[0].best] == ["little", "much"]


def test_columns_scale_and_choose(run: Run) -> None:
    text = BENCH + "columns:\n  kept.mean: {title: kept, unit: '%', scale: -0.5, digits: 2, best: highest}\n"
    table = table_of(run(text))
    assert table.heads[0].text == "kept, % ↑"
    found = table.rows[1].cells[0].found
    assert found is not None
    assert (found.mean, found.low, found.high) == (-5, -5, -5)
    assert [h.key for h in table.heads] == ["kept.mean", "seconds"]
    assert table.rows[1].cells[0].best


def test_options_choose_methods_pictures_and_parameters(run: Run) -> None:
    settings = {"much.by": 39, "near.times": 3.0, "data.size": 4}
    results = run(methods=["much", "truth"], limit=3, settings=settings)
    assert list(results.measured) == ["much", "truth"]
    assert results.values("much", "near.mean") == [3.0] * 3
    with pytest.raises(UsageError, match="--methods mach: it has: nothing, little, much, truth; did you mean much"):
        run(methods=["mach"])
    with pytest.raises(UsageError, match="--set mucho.by: expected METHOD.PARAM"):
        run(settings={"mucho.by": 1})
    with pytest.raises(InvalidError, match=r"'much/run\.bye?'|has no parameter 'bye'"):
        run(settings={"much.bye": 1})


def test_a_limit_takes_of_each_edit_type_alike() -> None:
    spec = open_bench("pocket", limit=28, device="cpu").spec
    assert spec.data.parameters == {"balanced": True, "limit": 28}
    settings = {"data.balanced": False}
    assert open_bench("pocket", limit=28, settings=settings, device="cpu").spec.data.parameters["balanced"] is False


@pytest.mark.parametrize(
    ("name", "inputs"), [("pocket", {"image", "instruction"}), ("pocket_exemplars", {"image", "before", "after"})]
)
def test_every_shipped_editing_method_has_a_row_in_a_pocket_benchmark(name: str, inputs: set[str]) -> None:
    rows = {m.use.uses for m in open_bench(name, device="cpu").spec.methods.values() if m.use is not None}
    specs = {graph: load_spec(path) for graph, path in shipped_graphs().items()}
    editing = {graph for graph, spec in specs.items() if inputs <= spec.inputs.keys() and "image" in spec.outputs}
    assert "prompt_swap" in rows
    assert editing <= rows, f"add 'NAME: {{uses: NAME, title: …}}' to graphs/bench/{name}.yaml"


@pytest.mark.parametrize("name", shipped_benches())
def test_every_shipped_benchmark_can_be_planned(name: str, tmp_path: Path) -> None:
    ready, plan = open_bench(name, store=tmp_path / "store", device="cpu").plan({})
    assert plan.nodes
    assert not ready.compiled.missing


def test_a_thousand_pictures_by_eight_metrics_need_no_more_memory_than_a_hundred(run: Run) -> None:
    """What is held is what a window of 64 elements holds, some pictures each, however long the map is."""
    metrics = "".join(
        f"  m{n}: {{uses: sample_bench.apart, in: {{reference: {c}}}, with: {{times: {1 + n}}}}}\n"
        for n, c in enumerate(["source", "target"] * 4)
    )
    text = BENCH.partition("methods:")[0] + (
        "methods: {much: {uses: sample_bench.brighten, with: {by: 35}}}\nmetrics:\n" + metrics
    )
    peaks = []
    for count in (100, 1000):
        bench_samples.most_alive[0] = 0
        results = run(text, limit=count, settings={"data.size": 2})
        peaks.append(bench_samples.most_alive[0])
        assert len([v for v in results.values("much", "m7.mean") if v is not None]) == count
    assert bench_samples.RUNS == {"brighten 35": 900, "apart": 7200}
    assert max(peaks) <= 3 * 64
    assert peaks[1] <= 64 + 50 + 16, "a window, pictures that wait for the garbage collector, and those at work"


def test_memory_of_the_whole_process_grows_by_bookkeeping_only(tmp_path: Path) -> None:
    """Peak memory in a process of its own: 5 KiB for each of the nine instances a picture, and no picture."""
    script = Path(__file__).with_name("memory_worker.py")
    peaks = []
    for count in (80, 280):
        arguments = [sys.executable, str(script), str(count), str(tmp_path / f"store{count}")]
        out = subprocess.run(arguments, capture_output=True, text=True, check=True)
        peaks.append(json.loads(out.stdout)["peak"])
    pictures = 200 * 2 * 256 * 256 * 3
    assert peaks[1] - peaks[0] < 200 * 9 * 5 * 1024 < pictures / 8
