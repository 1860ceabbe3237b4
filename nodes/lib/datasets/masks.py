"""Masks as the sets publish them, turned into pictures of the source's size: white in the region to edit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .rows import Picture

_BLACK, _WHITE = 8, 247  # a picture that has only values beyond these is a drawing in black and white, saved lossily


@dataclass(frozen=True)
class RegionMask:
    """A mask that is a picture: the source with the region cut out or painted white, or black and white."""

    picture: Picture
    source: Picture

    @property
    def where(self) -> str:
        return self.picture.where

    @property
    def size(self) -> tuple[int, int]:
        return self.source.size

    def load(self) -> Image.Image:
        return fitted(marked_region(self.picture.load()), self.size)


@dataclass(frozen=True)
class RunLengthMask:
    """A mask of PIE-Bench: [start, length, start, length, …] over the rows of a square of 512 pixels."""

    runs: tuple[int, ...]
    source: Picture
    where: str

    @property
    def size(self) -> tuple[int, int]:
        return self.source.size

    def load(self) -> Image.Image:
        return fitted(decode_runs(self.runs), self.size)


@dataclass(frozen=True)
class GreyMask:
    """A mask that is a picture of the source's size already, any mode, the region in white."""

    picture: Picture
    source: Picture

    @property
    def where(self) -> str:
        return self.picture.where

    @property
    def size(self) -> tuple[int, int]:
        return self.source.size

    def load(self) -> Image.Image:
        mask = self.picture.load()
        if mask.size != self.size:
            (width, height), (wide, high) = mask.size, self.size
            raise ValueError(f"{self.where}: the mask is {width} × {height} pixels, its source {wide} × {high}")
        return mask


def marked_region(mask: Image.Image) -> Image.Image:
    """The region to edit of a masked picture, mode L, 0 or 255.

    MagicBrush calls 'mask' the source picture with the region cut out: transparent there. Copies that lost their
    transparency are white there; drawings in black and white have the region in white.
    """
    if mask.mode in ("RGBA", "LA", "PA") or "transparency" in mask.info:
        alpha = mask.convert("RGBA").getchannel("A")
        if alpha.getextrema()[0] < 128:
            return alpha.point(lambda value: 255 if value < 128 else 0)
    pixels = np.asarray(mask.convert("RGB"))
    black, white = (pixels <= _BLACK).all(axis=-1), (pixels >= _WHITE).all(axis=-1)
    if not (black | white).all():  # a picture, in which only paint is as white as can be
        white = (pixels == 255).all(axis=-1)
    return Image.fromarray(np.where(white, 255, 0).astype(np.uint8))


def decode_runs(runs: Sequence[int], side: int = 512) -> Image.Image:
    """A run-length mask, its border of one pixel set, as PIE-Bench's evaluation does against annotation errors there.

    A run that goes over the end is cut off at the end, also as there.
    """
    flat = np.zeros(side * side, np.uint8)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        flat[start : start + length] = 255
    mask = flat.reshape(side, side)
    mask[[0, -1], :] = mask[:, [0, -1]] = 255
    return Image.fromarray(mask)


def fitted(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The mask in the size of its source; nearest neighbour, so that it stays black and white."""
    return mask if mask.size == size else mask.resize(size, Image.Resampling.NEAREST)
