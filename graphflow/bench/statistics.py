"""Means with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEVEL, DRAWS, SEED = 0.95, 2000, 0
_CHUNK = 4_000_000  # random numbers that are held at once


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` pictures with its interval; `low` and `high` are None where there is none."""

    mean: float
    low: float | None
    high: float | None
    n: int


def estimate(values: Sequence[float]) -> Estimate | None:
    """The mean with its 95 % percentile bootstrap interval (Efron 1979); None without values.

    Pictures are drawn with replacement, 2,000 times, by a generator with a fixed seed: the same values give the same
    interval everywhere, and values of the same pictures are drawn alike.
    """
    import numpy as np

    if not values:
        return None
    found = np.asarray(values, np.float64)
    n = len(found)
    if n == 1:
        return Estimate(float(found[0]), None, None, 1)
    rng = np.random.default_rng(SEED)
    rows = max(1, min(DRAWS, _CHUNK // n))
    means = np.concatenate(
        [found[rng.integers(0, n, (min(rows, DRAWS - done), n))].mean(axis=1) for done in range(0, DRAWS, rows)]
    )
    low, high = np.percentile(means, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Estimate(float(found.mean()), float(low), float(high), n)
