"""Several elements of a map in one call of a network: putting their tensors together, and finding which go together."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

X = TypeVar("X")
Y = TypeVar("Y")


def in_groups(xs: Sequence[X], alike: Callable[[X], Hashable], run: Callable[[list[X]], Sequence[Y]]) -> list[Y]:
    """What `run` gives for each group of elements that are alike, in the order of the elements."""
    groups: dict[Hashable, list[int]] = {}
    for number, x in enumerate(xs):
        groups.setdefault(alike(x), []).append(number)
    found: dict[int, Y] = {}
    for numbers in groups.values():
        found |= zip(numbers, run([xs[number] for number in numbers]), strict=True)
    return [found[number] for number in range(len(xs))]


def stacked(tensors: Sequence[Tensor | None], counts: Sequence[int], device: torch.device) -> Tensor | None:
    """So many rows of each element, one block after the other, (ΣB, …), on the device; None where one has none.

    Args:
        tensors: of one row, which serves all of an element's rows, or of as many as it has.
        counts: B of each element.
        device: where they go.

    Raises:
        ValueError: an element has another number of rows.
    """
    blocks = []
    for tensor, count in zip(tensors, counts, strict=True):
        if tensor is None:
            return None
        if len(tensor) not in (1, count):
            raise ValueError(f"text conditioning has {len(tensor)} rows for {count} latents; give 1 or {count}")
        blocks.append(tensor.expand(count, *tensor.shape[1:]))
    return torch.cat(blocks).to(device)


def given(x: object) -> tuple[str, ...]:
    """Names of the ports that are given a value: elements differ where some leave an optional one out."""
    return tuple(name for name, value in vars(x).items() if value is not None)


def of_pairs(
    pairs: Sequence[Sequence[Tensor] | None], measure: Callable[[Tensor, Tensor], Tensor]
) -> list[float | None]:
    """What a measure, (B, …) and (B, …) → (B,), gives for each pair of pictures; None for a pair that is not there.

    Pairs of one shape are measured together.
    """

    def run(alike: list[Sequence[Tensor] | None]) -> list[float | None]:
        there = [pair for pair in alike if pair is not None]
        if not there:
            return [None] * len(alike)
        return [*measure(*(torch.cat(side) for side in zip(*there, strict=True))).tolist()]

    return in_groups(pairs, lambda pair: None if pair is None else tuple(p.shape for p in pair), run)
