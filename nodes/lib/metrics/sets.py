"""FID and KID: distances between two sets of pictures, from features that were made a picture at a time.

Shapes: N pictures, D features. Means and covariances are gathered in float64 in one pass, so the memory they need
does not grow with the number of pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


class Statistics:
    """Mean and covariance of a stream of features (Chan et al. 1979).

    Attributes:
        count: how many pictures were seen.
        mean: (D,), float64.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean = torch.zeros(width, dtype=torch.float64)
        self._squares = torch.zeros(width, width, dtype=torch.float64)

    def add(self, features_ND: Tensor) -> None:
        """See some more pictures."""
        x = features_ND.double()
        n, both = len(x), self.count + len(x)
        centre = x.mean(0)
        step = centre - self.mean
        self._squares += (x - centre).mT @ (x - centre) + step.outer(step) * (self.count * n / both)
        self.mean += step * (n / both)
        self.count = both

    def covariance(self, copies: int = 1) -> Tensor:
        """Unbiased covariance, (D, D), as if every picture had been seen `copies` times."""
        return self._squares * copies / (self.count * copies - 1)


def statistics(features: Iterable[Tensor], chunk: int = 64) -> Statistics:
    """Statistics of features of one or several pictures each, (N, D), read one after another.

    Raises:
        ValueError: there are none, or they have different widths.
    """
    found: Statistics | None = None
    for rows in _chunks(features, chunk):
        found = found or Statistics(rows.shape[1])
        found.add(rows)
    if found is None:
        raise ValueError("there are no features")
    return found


def frechet(a: Statistics, b: Statistics, copies: int = 1) -> float:
    """FID (Heusel et al. 2017): |μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2·(Σ₁Σ₂)^½), at least 0; 0 for equal statistics.

    tr (Σ₁Σ₂)^½ is computed as tr (Σ₁^½ Σ₂ Σ₁^½)^½, which is symmetric: no complex roots, also for few pictures.
    """
    first, second = a.covariance(copies), b.covariance(copies)
    values, vectors = torch.linalg.eigh(first)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.mT
    cross = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + first.trace() + second.trace() - 2 * cross
    return max(distance.item(), 0.0)


def interim_fid(features: Iterable[Tensor], reference: Iterable[Tensor]) -> float:
    """The number of ReEdit's interim script: its FID object gets each pair twice and is never reset.

    After each pair it gives the FID of all pairs so far, every picture counted twice; those are averaged. It depends
    on the order of the pairs and is comparable to nothing else.
    """
    seen: tuple[Statistics, Statistics] | None = None
    values = []
    for a, b in zip(features, reference, strict=True):
        seen = seen or (Statistics(a.shape[1]), Statistics(b.shape[1]))
        seen[0].add(a)
        seen[1].add(b)
        values.append(frechet(*seen, copies=2))
    if not values:
        raise ValueError("there are no features")
    return sum(values) / len(values)


def kid(
    features_ND: Tensor, reference_ND: Tensor, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """KID (Bińkowski et al. 2018): unbiased squared MMD with k(x, y) = (x·y / D + 1)³; mean and deviation of subsets.

    Args:
        features_ND: of the pictures.
        reference_ND: of the reference pictures.
        subsets: how many random subsets.
        subset_size: pictures of each side in a subset; at most as many as there are.
        seed: of the choice of subsets, in the order in which torchmetrics draws them.

    Raises:
        ValueError: a side has fewer pictures than a subset, or a subset has fewer than two.
    """
    smallest = min(len(features_ND), len(reference_ND))
    if not 2 <= subset_size <= smallest:
        raise ValueError(f"a subset of {subset_size} can't be drawn from {smallest} pictures; 2 are needed at least")
    generator = torch.Generator().manual_seed(seed)
    real, fake = reference_ND.double(), features_ND.double()
    values = []
    for _ in range(subsets):
        chosen = [torch.randperm(len(x), generator=generator)[:subset_size] for x in (real, fake)]
        values.append(_mmd2(real[chosen[0]], fake[chosen[1]]))
    stacked = torch.stack(values)
    return stacked.mean().item(), stacked.std(unbiased=False).item()


def _mmd2(x_MD: Tensor, y_MD: Tensor) -> Tensor:
    m, width = x_MD.shape
    xx, yy, xy = ((a @ b.mT / width + 1) ** 3 for a, b in ((x_MD, x_MD), (y_MD, y_MD), (x_MD, y_MD)))
    within = (xx.sum() - xx.trace() + yy.sum() - yy.trace()) / (m * (m - 1))
    return within - 2 * xy.mean()


def _chunks(features: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Single rows gathered into matrices: one update of the covariance costs as much for one row as for many."""
    held: list[Tensor] = []
    width = None
    for rows in features:
        if width not in (None, rows.shape[1]):
            raise ValueError(f"features of {width} and of {rows.shape[1]} numbers can't be compared")
        width = rows.shape[1]
        held.append(rows)
        if sum(map(len, held)) >= size:
            yield torch.cat(held)
            held = []
    if held:
        yield torch.cat(held)
