"""LPIPS: the learned perceptual distance of two pictures (Zhang et al. 2018, eq. 1)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SMALLEST = {"squeeze": 17, "alex": 31, "vgg": 16}
"""Side in pixels below which a backbone has nothing left to pool."""


class LPIPS:
    """A network of the lpips package with its linear heads.

    Attributes:
        model: an ``lpips.LPIPS`` of version 0.1, in evaluation mode and frozen, in float32.
        net: the backbone: squeeze, alex or vgg. Their values differ by about a factor of two and can't be compared.
        name: which weights these are, for the record of a score.
    """

    def __init__(self, model: Any, net: str, name: str = "") -> None:
        self.model = model.eval().requires_grad_(False)
        self.net, self.name = net, name

    def distance(self, image_BCHW: Tensor, reference_BCHW: Tensor) -> Tensor:
        """(B,); 0 is the same picture, about 1 an unrelated one.

        Args:
            image_BCHW: in [-1, 1]. [0, 1] is the usual mistake; it gives smaller numbers that nothing flags.
            reference_BCHW: in [-1, 1].

        Raises:
            ValueError: the pictures are too small for the backbone.
        """
        side = min(image_BCHW.shape[-2:])
        if side < SMALLEST[self.net]:
            raise ValueError(f"LPIPS with {self.net} needs {SMALLEST[self.net]} pixels a side, there are {side}")
        weight = next(self.model.parameters())
        with torch.no_grad():
            return self.model(image_BCHW.to(weight), reference_BCHW.to(weight)).flatten().float()
