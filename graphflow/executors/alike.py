"""Which jobs can be computed in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graphflow.executors.job import Job
from graphflow.node import BatchNode


def alike(jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs that can be computed in one call: of one batch node, with equal parameters, models and shapes."""
    groups: dict[Any, list[Job]] = {}
    for job in jobs:
        alone = not isinstance(job.placed.node, BatchNode) or len(jobs) == 1
        mark = id(job) if alone else (job.node.cls.kind, repr(job.placed.node), _models(job), shapes_of(job.values))
        groups.setdefault(mark, []).append(job)
    return list(groups.values())


def _models(job: Job) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(job.placed.models.items()))


def shapes_of(values: Mapping[str, Any]) -> str:
    """What decides how much memory a call needs: shapes of tensors, sizes of pictures, lengths of lists."""
    return " ".join(f"{name}:{_shape(value)}" for name, value in sorted(values.items()))


def _shape(value: Any) -> str:
    if hasattr(value, "getbands"):
        return f"{value.width}x{value.height}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return "x".join(map(str, value.shape))
    if isinstance(value, Path):
        return str(value)  # trained weights: the same folder is the same model
    if isinstance(value, list | tuple):
        kinds = sorted({_shape(part) for part in value})
        return f"{len(value)}*[{','.join(kinds)}]"
    if hasattr(value, "__dataclass_fields__"):
        return shapes_of({n: getattr(value, n) for n in value.__dataclass_fields__})
    if isinstance(value, Mapping):
        return shapes_of({str(k): v for k, v in value.items()})
    return type(value).__name__
