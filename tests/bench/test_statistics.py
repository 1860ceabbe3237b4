"""Bootstrap intervals against scipy and against the definition written out."""

from __future__ import annotations

import numpy as np
import pytest

from graphflow.bench.statistics import DRAWS, SEED, Estimate, difference, estimate


def test_the_interval_is_that_of_the_definition() -> None:
    values = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6]
    rng = np.random.default_rng(SEED)
    means = sorted(sum(values[i] for i in rng.integers(0, 6, 6)) / 6 for _ in range(DRAWS))
    at = (DRAWS - 1) * 0.025  # the 2.5th percentile, interpolated between neighbours
    low = means[int(at)] + (at - int(at)) * (means[int(at) + 1] - means[int(at)])
    found = estimate(values)
    assert found is not None
    assert found.mean == pytest.approx(sum(values) / 6)
    assert found.low == pytest.approx(low)
    assert found.n == 6


@pytest.mark.parametrize("n", [8, 224, 5000])
def test_the_interval_agrees_with_scipy(n: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(n).gamma(2.0, 3.0, n)
    found = estimate(list(values))
    wanted = stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1), batch=100
    ).confidence_interval  # fmt: skip
    assert found is not None
    spread = wanted.high - wanted.low
    assert found.low == pytest.approx(wanted.low, abs=0.06 * spread)
    assert found.high == pytest.approx(wanted.high, abs=0.06 * spread)


def test_it_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(200):
        found = estimate(list(rng.normal(7.0, 2.0, 60)))
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 7.0 <= found.high
    assert 180 <= hits <= 199


def test_few_values() -> None:
    assert estimate([]) is None
    assert estimate([2.5]) == Estimate(2.5, None, None, 1)
    assert estimate([2.0, 2.0]) == Estimate(2.0, 2.0, 2.0, 2)


def test_many_values_are_drawn_in_pieces_and_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    values = list(np.random.default_rng(0).normal(size=50))
    whole = estimate(values)
    monkeypatch.setattr("graphflow.bench.statistics._CHUNK", 50 * 7)
    assert estimate(values) == whole


def test_a_difference_is_paired() -> None:
    spread = np.random.default_rng(0).normal(0.0, 30.0, 40)
    a, b = list(spread + 1.0), list(spread)
    found = difference(a, b)
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(1.0), pytest.approx(1.0))
    some = difference([1.0, None, 3.0], [0.0, 5.0, None])
    assert some == Estimate(1.0, None, None, 1)
