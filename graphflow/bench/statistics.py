"""Means with bootstrap intervals, and whether two methods differ on the pictures that both have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

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
    interval everywhere. A single value has no interval.
    """
    import numpy as np

    found = np.asarray(values, np.float64)
    if not len(found):
        return None
    if len(found) == 1:
        return Estimate(float(found[0]), None, None, 1)
    low, high = np.percentile(_means(found), [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Estimate(float(found.mean()), float(low), float(high), len(found))


def difference(a: Sequence[float | None], b: Sequence[float | None]) -> Estimate | None:
    """How much larger `a` is than `b` in the mean over the pictures that have both, with its interval."""
    return estimate([x - y for x, y in zip(a, b, strict=True) if x is not None and y is not None])


def scaled(found: Estimate, scale: float) -> Estimate:
    """The same in another unit."""
    low, high = (end * scale if end is not None else None for end in (found.low, found.high))
    return Estimate(found.mean * scale, *((low, high) if scale >= 0 else (high, low)), found.n)


def _means(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The mean of each draw."""
    import numpy as np

    rng, n = np.random.default_rng(SEED), len(values)
    rows = max(1, min(DRAWS, _CHUNK // n))
    chunks = [(min(rows, DRAWS - done), n) for done in range(0, DRAWS, rows)]
    return np.concatenate([values[rng.integers(0, n, shape)].mean(axis=1) for shape in chunks])
