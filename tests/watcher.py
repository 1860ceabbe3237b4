"""A context that keeps what a node reports while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from graphflow.node import Context


class Watcher(Context):
    """Keeps the totals and labels of loops, and copies of previewed latents."""

    def __init__(self) -> None:
        super().__init__()
        self.loops: list[tuple[int | None, str]] = []
        self.previews: list[torch.Tensor] = []

    def steps(self, iterable: Iterable[Any], total: int | None = None, label: str = "") -> Iterator[Any]:
        self.loops.append((total, label))
        yield from iterable

    def preview(self, latents: torch.Tensor) -> None:
        self.previews.append(latents.clone())
