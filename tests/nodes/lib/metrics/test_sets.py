"""FID and KID against torchmetrics and scipy, on the same features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import nn
from torchmetrics.image import FrechetInceptionDistance, KernelInceptionDistance

from graphflow.nodes.lib.metrics import sets


def features(count: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator) / width**0.5
    return torch.randn(count, width, generator=generator) @ mix + 0.3 * seed


class Given(nn.Module):
    """Features that travel through torchmetrics as they are."""

    def forward(self, x):
        return x


def torchmetrics_fid(width: int) -> FrechetInceptionDistance:
    class Network(Given):
        num_features = width

    return FrechetInceptionDistance(feature=Network()).set_dtype(torch.float64)


def scipy_fid(a, b):
    a, b = a.double().numpy(), b.double().numpy()
    one, two = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(one @ two).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(one + two - 2 * root))


@pytest.mark.parametrize(("count", "width"), [(300, 16), (200, 64), (40, 64)])
def test_fid_agrees_with_torchmetrics_and_scipy(count, width):
    a, b = features(count, width, 1), features(count + 7, width, 2)
    metric = torchmetrics_fid(width)
    metric.update(b, real=True)
    metric.update(a, real=False)
    found = sets.frechet(sets.statistics(a.split(1)), sets.statistics(b.split(1)))
    assert found == pytest.approx(metric.compute().item(), rel=1e-5)
    if count > width:
        assert found == pytest.approx(scipy_fid(a, b), rel=1e-5)


def test_statistics_are_those_of_all_features_at_once():
    x = features(150, 12, 3) + 100  # far from zero: a naive sum of squares would lose digits
    stream = sets.statistics(x.split([1, 70, 3, 76]), chunk=16)
    assert stream.count == 150
    assert np.allclose(stream.mean, x.double().mean(0))
    assert np.allclose(stream.covariance(), np.cov(x.double().numpy(), rowvar=False))


def test_statistics_hold_a_chunk_and_no_more():
    alive = []

    def stream():
        import weakref

        for _ in range(500):
            rows = torch.randn(1, 8)
            alive.append(weakref.ref(rows))
            yield rows
            del rows
            assert sum(r() is not None for r in alive) <= 65

    assert sets.statistics(stream()).count == 500


def test_fid_of_a_set_and_itself_is_zero():
    a = sets.statistics([features(50, 8, 1)])
    assert sets.frechet(a, a) == pytest.approx(0, abs=1e-9)


def test_features_of_two_layers_can_not_be_mixed():
    with pytest.raises(ValueError, match="features of 8 and of 4 numbers"):
        sets.statistics([torch.zeros(1, 8), torch.zeros(1, 4)])
    with pytest.raises(ValueError, match="no features"):
        sets.statistics([])


def test_the_interim_number_of_reedit_is_what_its_script_prints():
    a, b = features(9, 6, 1), features(9, 6, 2)
    metric, printed = torchmetrics_fid(6), []
    for one, two in zip(a.split(1), b.split(1), strict=True):
        for _ in range(2):
            metric.update(one, real=True)
            metric.update(two, real=False)
        printed.append(metric.compute().item())
    expected = sum(printed) / len(printed)
    assert sets.interim_fid(a.split(1), b.split(1)) == pytest.approx(expected, rel=1e-5)
    assert expected != pytest.approx(sets.frechet(sets.statistics([a]), sets.statistics([b])), rel=0.01)


@pytest.mark.parametrize(("subsets", "size"), [(5, 20), (3, 30)])
def test_kid_agrees_with_torchmetrics_subset_by_subset(subsets, size):
    a, b = features(40, 16, 1), features(35, 16, 2)

    class Network(Given):
        num_features = 16

    metric = KernelInceptionDistance(feature=Network(), subsets=subsets, subset_size=size)
    metric.update(b, real=True)
    metric.update(a, real=False)
    torch.manual_seed(7)
    mean, deviation = (v.item() for v in metric.compute())
    found = sets.kid(a, b, subsets, size, seed=7)
    assert found == (pytest.approx(mean, rel=1e-5), pytest.approx(deviation, rel=1e-4))


def test_kid_is_the_unbiased_estimate():
    a, b = features(12, 5, 1).double().numpy(), features(12, 5, 2).double().numpy()
    k = lambda x, y: (x @ y / 5 + 1) ** 3  # noqa: E731
    pairs = [(i, j) for i in range(12) for j in range(12) if i != j]
    within = sum(k(a[i], a[j]) + k(b[i], b[j]) for i, j in pairs) / len(pairs)
    across = sum(k(a[i], b[j]) for i in range(12) for j in range(12)) / 144
    mean, deviation = sets.kid(*map(torch.from_numpy, (a, b)), subsets=1, subset_size=12)
    assert mean == pytest.approx(within - 2 * across)
    assert deviation == 0


def test_a_subset_can_not_be_larger_than_the_set():
    with pytest.raises(ValueError, match="a subset of 1000 can't be drawn from 5 pictures"):
        sets.kid(torch.zeros(5, 3), torch.zeros(9, 3))
