"""From pictures to what measures eat: ranges, resizing and cropping, masks, and the preprocessing of official scripts.

Shapes: B pictures, C 3, H and W pixels. Every function says which range it returns, because a wrong one changes each
number silently: [0, 1] is what L1, PSNR and SSIM are defined on, [-1, 1] what LPIPS wants, and encoders want their
own mean and deviation.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

Region = Literal["whole", "inside", "outside"]
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def to_bytes(image: Image.Image) -> Tensor:
    """A picture as (1, 3, H, W), float32, in 0 … 255."""
    return torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)[None].float()


def to_unit(image: Image.Image) -> Tensor:
    """A picture as (1, 3, H, W), float32, in [0, 1]."""
    return to_bytes(image) / 255


def normalised(pixels_BCHW: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Pixels minus `mean`, divided by `std`, each a number a channel."""
    mean_C11, std_C11 = (torch.tensor(v, device=pixels_BCHW.device)[:, None, None] for v in (mean, std))
    return (pixels_BCHW - mean_C11) / std_C11


def same_size(image: Image.Image, reference: Image.Image) -> None:
    """Raise ValueError unless both pictures have one size; a silent resize would change every number."""
    if image.size != reference.size:
        sizes = [f"{i.width}x{i.height}" for i in (image, reference)]
        raise ValueError(
            f"the picture has {sizes[0]} pixels and the reference {sizes[1]}; resize one first "
            "(score.pixels does it with compat: magicbrush)"
        )


def stretched(image: Image.Image, size: tuple[int, int], resample: Literal["bilinear", "bicubic"]) -> Image.Image:
    """The picture at that size, whatever its proportions were; PIL filters over all pixels (antialiased)."""
    return image.convert("RGB").resize(size, Image.Resampling[resample.upper()])


def mask_of(mask: Image.Image, size: tuple[int, int], region: Region) -> Tensor:
    """The region's pixels as (1, 1, H, W) of 0 and 1: inside is where the mask is white (128 and above).

    A mask of another size than the picture is resized to it by the nearest pixel.

    Raises:
        ValueError: its proportions are not the picture's, so that no resizing makes them meet.
    """
    grey = mask.convert("L")
    if grey.size != size:
        (w, h), (width, height) = grey.size, size
        if abs(w * height - width * h) > max(w, h, width, height):  # a pixel of the smaller one, from rounding
            raise ValueError(
                f"the mask has {w}x{h} pixels and the picture {width}x{height}: other proportions; "
                "cut the mask as the picture was cut"
            )
        grey = grey.resize(size, Image.Resampling.NEAREST)
    inside = torch.from_numpy(np.asarray(grey).copy() >= 128)[None, None].float()
    return inside if region == "inside" else 1 - inside


def black_out(image: Image.Image, mask_11HW: Tensor) -> Image.Image:
    """The picture with every pixel outside the region black, as PIE-Bench does before it scores a region."""
    array = np.asarray(image.convert("RGB")) * mask_11HW[0, 0, :, :, None].numpy().astype(np.uint8)
    return Image.fromarray(array)


def shortest_side(image: Image.Image, size: int, resample: Image.Resampling) -> Image.Image:
    """Resize, keeping proportions, until the shorter side is `size`; the longer one is cut to a whole number."""
    width, height = image.size
    if width <= height:
        return image.resize((size, int(size * height / width)), resample)
    return image.resize((int(size * width / height), size), resample)


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """The square in the middle; of an odd margin the half pixel is rounded to even, as torchvision does."""
    left, top = (round((side - size) / 2) for side in image.size)
    return image.crop((left, top, left + size, top + size))


def openai_pixels(image: Image.Image, size: int) -> Tensor:
    """What OpenAI's ``clip.load`` does: bicubic in PIL to the shorter side, centre crop, its mean and deviation."""
    square = centre_crop(shortest_side(image.convert("RGB"), size, Image.Resampling.BICUBIC), size)
    return normalised(to_unit(square), OPENAI_MEAN, OPENAI_STD)


def ip2p_pixels(image: Image.Image, size: int) -> Tensor:
    """What InstructPix2Pix's metrics do: bicubic on the tensor, without antialiasing, to a square without a crop."""
    square = interpolate(to_unit(image), size=(size, size), mode="bicubic", align_corners=False)
    return normalised(square, OPENAI_MEAN, OPENAI_STD)


def hps_pixels(image: Image.Image, size: int, antialias: bool) -> Tensor:
    """What hpsv2 does: bicubic on the tensor to the longer side, then black margins to a square, then CLIP's mean.

    Args:
        image: a picture.
        size: side of the square.
        antialias: what torchvision 0.17 and later does by itself; earlier versions did not.
    """
    pixels = to_unit(image)
    height, width = pixels.shape[-2:]
    scale = size / max(height, width)
    if scale != 1:
        new = max(1, round(height * scale)), max(1, round(width * scale))
        pixels = interpolate(pixels, size=new, mode="bicubic", align_corners=False, antialias=antialias)
    down, right = (size - length for length in pixels.shape[-2:])
    pixels = pad(pixels, (right // 2, right - right // 2, down // 2, down - down // 2))
    return normalised(pixels, OPENAI_MEAN, OPENAI_STD)


def dino_pixels(image: Image.Image, resize: int, crop: int) -> Tensor:
    """What DINO's evaluation and MagicBrush do: bicubic in PIL to `resize`, centre crop to `crop`, ImageNet's mean."""
    square = centre_crop(shortest_side(image.convert("RGB"), resize, Image.Resampling.BICUBIC), crop)
    return normalised(to_unit(square), IMAGENET_MEAN, IMAGENET_STD)


def structure_pixels(pixels_BCHW: Tensor, size: int, max_size: int, antialias: bool) -> Tensor:
    """What Splice and PIE-Bench do: bilinear on the tensor to the shorter side, the longer one at most `max_size`.

    Args:
        pixels_BCHW: in [0, 1]; PIE-Bench's script gives 0 … 255 by mistake.
        size: shorter side afterwards.
        max_size: limit of the longer side.
        antialias: what torchvision 0.17 and later does by itself; earlier versions did not.
    """
    height, width = pixels_BCHW.shape[-2:]
    short, long = min(height, width), max(height, width)
    new_short, new_long = size, int(size * long / short)
    if new_long > max_size:
        new_short, new_long = int(max_size * new_short / new_long), max_size
    new = (new_short, new_long) if height <= width else (new_long, new_short)
    if new != (height, width):
        pixels_BCHW = interpolate(pixels_BCHW, size=new, mode="bilinear", align_corners=False, antialias=antialias)
    return normalised(pixels_BCHW, IMAGENET_MEAN, IMAGENET_STD)
