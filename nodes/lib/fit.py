"""Fitting pictures of any size into a square."""

from __future__ import annotations

from typing import Literal

from PIL import Image, ImageOps

LANCZOS = Image.Resampling.LANCZOS


def fit_square(image: Image.Image, side: int, fit: Literal["crop", "stretch", "pad"]) -> Image.Image:
    """The picture as `side` × `side` pixels, resampled with Lanczos; one of that size comes back unchanged.

    crop keeps the largest square in the middle, stretch changes the proportions, pad keeps the whole picture and
    adds white margins.
    """
    if image.size == (side, side):
        return image
    if fit == "crop":
        return ImageOps.fit(image, (side, side), LANCZOS)
    if fit == "stretch":
        return image.resize((side, side), LANCZOS)
    scale = side / max(image.size)
    # A side of at least one pixel: ImageOps.pad fails on pictures that are more than twice `side` as wide as high.
    width, height = (max(1, round(length * scale)) for length in image.size)
    canvas = Image.new("RGB", (side, side), "white")
    canvas.paste(image.resize((width, height), LANCZOS), ((side - width) // 2, (side - height) // 2))
    return canvas
