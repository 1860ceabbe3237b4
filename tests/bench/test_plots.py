"""The plots of a benchmark: what they show, and that colours can be told apart with any colour vision."""

from __future__ import annotations

from pathlib import Path

import bench_samples  # noqa: F401
import pytest

from graphflow.bench.results import Results, collect
from graphflow.bench.session import open_bench
from graphflow.bench.table import table_of

pyplot = pytest.importorskip("matplotlib.pyplot")

from graphflow.bench import plots  # noqa: E402

BENCH = """
graphflow-bench: 1
data: {uses: sample_bench.edits}
methods:
  nothing: {column: source, title: do nothing}
  little: {uses: sample_bench.brighten, with: {by: 10}, curve: brighten}
  much: {uses: sample_bench.brighten, with: {by: 30}, curve: brighten}
  other: {uses: sample_bench.brighten, with: {by: 20}}
metrics:
  near: {uses: sample_bench.apart, in: {reference: target}}
  kept: {uses: sample_bench.apart, in: {reference: source}}
columns: {near.mean: {best: lowest}, kept.mean: {title: change}}
plots: {preservation: kept.mean, strength: near.mean, types: [near.mean, kept.mean]}
"""


@pytest.fixture
def results(tmp_path: Path) -> Results:
    path = tmp_path / "bench.yaml"
    path.write_text(BENCH)
    bench = open_bench(str(path), store=tmp_path / "store", device="cpu")
    ready, run = bench.run({})
    return collect(bench.spec, ready.compiled, run)


def test_preservation_against_strength_joins_the_strengths_of_a_method(results: Results) -> None:
    table = table_of(results)
    figure = plots._preservation(results, table, plots._style(results, table))
    axes = figure.axes[0]
    points = [tuple(container.lines[0].get_xydata()[0]) for container in axes.containers]
    assert points == [(40, 0), (30, 10), (10, 30), (20, 20)]
    line = axes.lines[-1]
    assert line.get_xydata().tolist() == [[30, 10], [10, 30]]
    assert line.get_color() == plots._style(results, table)["little"][0] == plots._style(results, table)["much"][0]
    assert axes.get_xlabel() == "edit strength: mean, levels ↓"
    assert [text.get_text() for text in axes.get_legend().get_texts()][1:] == ["little", "much", "other"]
    pyplot.close(figure)


def test_bars_by_edit_type_leave_out_baselines(results: Results) -> None:
    table = table_of(results)
    figure = plots._types(results, table, plots._style(results, table))
    assert [axes.get_ylabel() for axes in figure.axes] == ["mean, levels ↓", "change, levels ↓"]
    heights = [patch.get_height() for patch in figure.axes[0].patches]
    assert heights == [30, 30, 10, 10, 20, 20], "two types for each of the three methods"
    assert [label.get_text() for label in figure.axes[-1].get_xticklabels()] == ["add", "style"]
    looks = {(patch.get_facecolor(), patch.get_hatch() or "") for patch in figure.axes[0].patches}
    assert len(looks) == 3, "methods of one curve have one colour, and another hatch"
    pyplot.close(figure)


def test_time_has_a_bar_for_each_method_that_was_computed(results: Results) -> None:
    table = table_of(results)
    figure = plots._seconds(table, plots._style(results, table))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["other", "much", "little"]
    pyplot.close(figure)


def test_what_can_not_be_drawn_is_left_out(results: Results, tmp_path: Path) -> None:
    results.texts.pop("edit_type")
    drawn = plots.draw_plots(results, table_of(results), tmp_path)
    assert [path.name for path in drawn] == ["preservation.png", "seconds.png"]
    assert (tmp_path / "preservation.svg").stat().st_size > 1000
    assert not (tmp_path / "types.png").exists()


def test_colours_differ_in_lightness_or_for_deuteranopes() -> None:
    """Vienot, Brettel and Mollon (1999): what a viewer without green cones sees, and how far the colours lie apart."""
    import numpy as np

    rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in plots.COLOURS]) ** 2.2
    lms = rgb @ np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]]).T
    lms[:, 1] = 0.494207 * lms[:, 0] + 1.24827 * lms[:, 2]
    seen = np.log(np.maximum(lms[:, [0, 2]], 1e-3))
    apart = [np.linalg.norm(a - b) for n, a in enumerate(seen) for b in seen[:n]]
    assert min(apart) > 0.15
