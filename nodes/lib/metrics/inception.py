"""The Inception of FID (Heusel et al. 2017), and the ways in which pictures reach its 299x299 input.

It is the TensorFlow network of 2015-12-05 and not torchvision's: 1008 classes, average pooling that leaves the
padding out, and a max pooling in the last block. Shapes: B pictures, C 3, H and W pixels, D features.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d
from torchvision.models import inception as tv

from .pixels import to_bytes

SIDE = 299
FEATURES = (64, 192, 768, 2048)
Resize = Literal["clean", "tensorflow", "pil_bilinear"]


class FIDInception(tv.Inception3):
    """torchvision's modules with TensorFlow's pooling; keys of its weights are those of pytorch-fid."""

    def __init__(self) -> None:
        blocks = [tv.BasicConv2d, _A, tv.InceptionB, _C, tv.InceptionD, _E, tv.InceptionAux]
        super().__init__(num_classes=1008, aux_logits=False, inception_blocks=blocks, init_weights=False)
        self.Mixed_7c.pool = "max"

    def features(self, pixels_BCHW: Tensor, dimension: int) -> Tensor:
        """Features averaged over the plane, (B, D).

        Args:
            pixels_BCHW: 299x299, in 0 … 255.
            dimension: 2048 after the last block, 768 before the auxiliary head, 192 and 64 after the second and the
                first max pooling.
        """
        ends = {64: "maxpool1", 192: "maxpool2", 768: "Mixed_6e", 2048: "Mixed_7c"}
        x = (pixels_BCHW - 128) / 128
        for name, module in self.named_children():
            x = module(x)
            if name == ends[dimension]:
                return x.mean((2, 3))
        raise AssertionError("every dimension has a module")


class Inception:
    """The network with its name.

    Attributes:
        model: in evaluation mode and frozen, in float32.
        name: which weights these are, for the record of a score.
    """

    def __init__(self, model: FIDInception, name: str = "") -> None:
        self.model, self.name = model.eval().requires_grad_(False), name

    def features(self, image: Image.Image, dimension: int, resize: Resize) -> Tensor:
        """Features of one picture, (1, D), float32, on the CPU."""
        weight = next(self.model.parameters())
        with torch.no_grad():
            return self.model.features(RESIZE[resize](image).to(weight), dimension).float().cpu()


def clean(image: Image.Image) -> Tensor:
    """clean-fid (Parmar et al. 2022): bicubic in PIL with antialiasing, a channel at a time, never rounded."""
    channels = [
        np.asarray(Image.fromarray(c, mode="F").resize((SIDE, SIDE), Image.Resampling.BICUBIC)).clip(0, 255)
        for c in to_bytes(image)[0].numpy()
    ]
    return torch.from_numpy(np.stack(channels))[None]


def tensorflow(image: Image.Image) -> Tensor:
    """torch-fidelity and torchmetrics: bilinear of TensorFlow 1 (no half-pixel centres, no antialiasing)."""
    pixels = to_bytes(image)
    for dim in (2, 3):
        side = pixels.shape[dim]
        place = torch.arange(SIDE) * (side / SIDE)
        low = place.floor().long()
        high = (low + 1).clamp(max=side - 1)
        share = (place - low).view(-1, 1) if dim == 2 else place - low
        first, second = pixels.index_select(dim, low), pixels.index_select(dim, high)
        pixels = first + (second - first) * share
    return pixels


def pil_bilinear(image: Image.Image) -> Tensor:
    """ReEdit's scripts: bilinear in PIL, rounded to bytes."""
    return to_bytes(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


RESIZE: dict[str, Any] = {"clean": clean, "tensorflow": tensorflow, "pil_bilinear": pil_bilinear}


def _average(block: nn.Module, x: Tensor) -> Tensor:
    return block.branch_pool(avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False))


# The last branch of torchvision's blocks pools in another way: it is computed again and replaced.
class _A(tv.InceptionA):
    def _forward(self, x: Tensor) -> list[Tensor]:
        return [*super()._forward(x)[:-1], _average(self, x)]


class _C(tv.InceptionC):
    def _forward(self, x: Tensor) -> list[Tensor]:
        return [*super()._forward(x)[:-1], _average(self, x)]


class _E(tv.InceptionE):
    pool = "average"

    def _forward(self, x: Tensor) -> list[Tensor]:
        if self.pool == "average":
            return [*super()._forward(x)[:-1], _average(self, x)]
        return [*super()._forward(x)[:-1], self.branch_pool(max_pool2d(x, 3, stride=1, padding=1))]
