"""What the families of measures share: `score`, `sets` and `judge`. This module has no kinds.

Every measure returns `scores`, name → number, and `how`, a row for each score with its unit, direction, definition and
all that it depends on: backbone, weights, input range, resizing, region, reduction, scale. Two numbers may be compared
when their rows say the same.

A score that can't be had is None, never a number, and its row has the reason under `missing`: the preset binds no
model to the role, its files are not on this machine, a region is empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from graphflow.node import Field, Node, Ports
from graphflow.ports import Scores, Table

if TYPE_CHECKING:
    from torch import Tensor

BLACK = "black outside the region, in both pictures"


class Scored(Ports):
    """What every measure returns."""

    scores: Scores
    how: Table


class Measure(Node):
    """Base of the measures."""

    Out = Scored

    def give(self, values: dict[str, Any], missing: Any = "", **setting: str) -> Any:
        """The outputs; `setting` as `nodes.lib.metrics.record.Setting`."""
        from graphflow.nodes.lib.metrics.record import Setting, recorded

        scores, how = recorded(values, Setting(compat=getattr(self, "compat", "none"), **setting), missing)
        return Scored(scores=scores, how=how)

    def lacking(self, role: str, *names: str) -> Any:
        """The outputs when there is no model."""
        return self.give(dict.fromkeys(names), absent(role))


class RegionMeasure(Measure):
    """Base of the measures that look at a region of a mask."""

    region: Literal["whole", "inside", "outside"] = Field(
        "whole", description="which pixels count: all, those where the mask is white, or those where it is black"
    )

    def mask(self, mask: Any, size: tuple[int, int]) -> Tensor | None:
        """The region's pixels as 0 and 1, (1, 1, h, w); None for the whole picture."""
        from graphflow.nodes.lib.metrics.pixels import mask_of

        if self.region == "whole":
            return None
        if mask is None:
            raise ValueError(f"region is {self.region}, but the port 'mask' is not connected")
        return mask_of(mask, size, self.region)

    def named(self, values: dict[str, Any]) -> dict[str, Any]:
        """Scores of a region carry it in their names: ``psnr_outside``."""
        return values if self.region == "whole" else {f"{k}_{self.region}": v for k, v in values.items()}

    def blacked(self, x: Any, *names: str) -> list[Any] | None:
        """Those pictures, black outside the region; None when the region is empty."""
        from graphflow.nodes.lib.metrics.pixels import black_out

        out = []
        for name in names:
            image = getattr(x, name).convert("RGB")
            mask = self.mask(x.mask, image.size)
            if mask is not None and not mask.any():
                return None
            out.append(image if mask is None else black_out(image, mask))
        return out


def absent(role: str) -> str:
    """Why a score has no model."""
    return f"there is no {role}: the preset binds none, or its files are not on this machine"
