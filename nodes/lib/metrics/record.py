"""Scores with what makes them comparable: weights, ranges, resizing, region, reduction, scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .catalogue import metric

Scores = dict[str, float | None]
Table = list[dict[str, Any]]


@dataclass(frozen=True)
class Setting:
    """How a score was computed. Two numbers may be compared when all of this is the same.

    Attributes:
        backbone: architecture, such as ``CLIPModel 224`` or ``squeeze``.
        weights: repository and commit, or folder.
        input_range: of the pixels that the formula or the network gets.
        resize: filter and size, and how the picture is cropped.
        region: whole, or inside or outside of a mask, and how that is done.
        reduction: over what is averaged.
        scale: factor that the number carries.
        compat: official script whose habits are repeated, or none.
    """

    backbone: str = "none"
    weights: str = "none"
    input_range: str = "[0, 1]"
    resize: str = "none"
    region: str = "whole"
    reduction: str = "none"
    scale: str = "1"
    compat: str = "none"


def recorded(
    values: Mapping[str, float | None], setting: Setting, missing: str | Mapping[str, str] = ""
) -> tuple[Scores, Table]:
    """The scores, and a row for each with its definition and setting.

    A score that can't be had is None, never a number: it has the reason in its row. So is one that is not finite.

    Args:
        values: score → number.
        setting: how all of them were computed.
        missing: why those that are None are missing, for all of them or for each.
    """
    why = dict.fromkeys(values, missing) if isinstance(missing, str) else missing
    scores: Scores = {}
    rows: Table = []
    for name, value in values.items():
        finite = value is not None and math.isfinite(value)
        scores[name] = float(value) if finite and value is not None else None
        reason = "" if finite else why[name] if value is None else f"the value is not finite: {value}"
        about = metric(name)
        rows.append(
            {
                "score": name,
                "value": scores[name],
                "unit": about.unit,
                "higher_is_better": about.higher_is_better,
                "range": about.range,
                "definition": about.definition,
                "source": about.source,
                **setting_row(setting, reason),
            }
        )
    return scores, rows


def setting_row(setting: Setting, missing: str = "") -> dict[str, Any]:
    """A setting as a table's row; `missing` says why there is no number."""
    return {**asdict(setting), "missing": missing}
