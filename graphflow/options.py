"""How a run is to go: what the user may say about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# What becomes of a result that other source code of the same version has computed: it is used with a warning, or not.
CodePolicy = Literal["warn", "strict"]


@dataclass(frozen=True)
class Options:
    """How to run.

    Attributes:
        until: nodes whose results are wanted instead of the graph's outputs.
        only: run nothing but `until`: what it needs must be cached.
        refresh: nodes that are computed again whatever the store has.
        keep_going: go on with what doesn't need a node, or an element of a map, that has failed.
        code: see `CodePolicy`.
        memory: bytes that models and computations may take on each device, on a CPU the models alone; None: what the
            device has.
        batch: elements of a map that are computed in one call where a node can; None: one on a CPU, where results
            are then the same to the bit whatever the order, and as many as its memory holds on an accelerator.
    """

    until: tuple[str, ...] = ()
    only: bool = False
    refresh: frozenset[str] = frozenset()
    keep_going: bool = False
    code: CodePolicy = "warn"
    memory: int | None = None
    batch: int | None = None
