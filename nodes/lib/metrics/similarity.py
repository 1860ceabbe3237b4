"""Pixels against pixels: L1, L2, PSNR and SSIM.

Shapes: B pictures, C 3, H and W pixels. All pictures are in [0, 1]. With a mask (B, 1, H, W) of 0 and 1, two things
are meant by "in a region" in the literature, and both are offered:

mean      the average over the region's pixels only
multiply  both pictures are black outside, and the average is over all pixels (PIE-Bench): pixels outside count as
          perfect, so a small region always looks good
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

NAMES = ("l1", "l2", "psnr", "ssim")
Masking = Literal["mean", "multiply"]
Windows = Literal["inside", "all"]
Found = tuple[dict[str, float | None], dict[str, str]]


def compare(
    image_BCHW: Tensor,
    reference_BCHW: Tensor,
    mask_B1HW: Tensor | None = None,
    masking: Masking = "mean",
    windows: Windows = "inside",
) -> Found:
    """l1, l2, psnr and ssim, and for each that can't be had the reason."""
    if mask_B1HW is not None and not mask_B1HW.any():
        return dict.fromkeys(NAMES), dict.fromkeys(NAMES, "the region has no pixels")
    if mask_B1HW is not None and masking == "multiply":
        image_BCHW, reference_BCHW, mask_B1HW = image_BCHW * mask_B1HW, reference_BCHW * mask_B1HW, None
    values: dict[str, float | None] = {
        "l1": l1(image_BCHW, reference_BCHW, mask_B1HW),
        "l2": l2(image_BCHW, reference_BCHW, mask_B1HW),
        "psnr": psnr(image_BCHW, reference_BCHW, mask_B1HW),
        "ssim": None,
    }
    try:
        values["ssim"] = ssim(image_BCHW, reference_BCHW, mask_B1HW, windows)
    except (ValueError, ModuleNotFoundError) as error:
        return values, {"ssim": str(error)}
    return values, {}


def l1(image_BCHW: Tensor, reference_BCHW: Tensor, mask_B1HW: Tensor | None = None) -> float:
    """mean |a - b|, in [0, 1]; 0 is the same picture."""
    return _mean((image_BCHW - reference_BCHW).double().abs(), mask_B1HW)


def l2(image_BCHW: Tensor, reference_BCHW: Tensor, mask_B1HW: Tensor | None = None) -> float:
    """mean (a - b)², in [0, 1]: the mean squared error, and not its root."""
    return _mean((image_BCHW - reference_BCHW).double().square(), mask_B1HW)


def psnr(image_BCHW: Tensor, reference_BCHW: Tensor, mask_B1HW: Tensor | None = None) -> float:
    """10·log10(1 / mean squared error), in dB; infinite for the same picture."""
    error = l2(image_BCHW, reference_BCHW, mask_B1HW)
    return float("inf") if error == 0 else -10 * torch.tensor(error, dtype=torch.float64).log10().item()


def ssim(
    image_BCHW: Tensor, reference_BCHW: Tensor, mask_B1HW: Tensor | None = None, windows: Windows = "inside"
) -> float:
    """Structural similarity (Wang et al. 2004) by torchmetrics: 11x11 Gaussian of σ 1.5, data range 1, in [-1, 1].

    Args:
        image_BCHW: in [0, 1].
        reference_BCHW: in [0, 1].
        mask_B1HW: average over the windows around a pixel of the region.
        windows: inside averages over the windows that lie wholly inside the picture, as the paper, scikit-image and
            torchmetrics up to 1.4 do; all also over those that hang over its border, where the picture is mirrored,
            as torchmetrics 1.9 does.

    Raises:
        ValueError: the picture is smaller than a window, or no window lies around a pixel of the region.
        ModuleNotFoundError: torchmetrics is not installed.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    height, width = image_BCHW.shape[-2:]
    if min(height, width) < 11:
        raise ValueError(f"SSIM needs at least 11x11 pixels, the picture has {width}x{height}")
    _, map_BCHW = structural_similarity_index_measure(
        image_BCHW, reference_BCHW, data_range=1.0, sigma=1.5, kernel_size=11, return_full_image=True
    )
    whole = slice(None) if windows == "all" else slice(5, -5)
    if mask_B1HW is not None:
        mask_B1HW = mask_B1HW[..., whole, whole]
        if not mask_B1HW.any():
            raise ValueError("no window of SSIM lies around a pixel of the region")
    return _mean(map_BCHW[..., whole, whole].double(), mask_B1HW)


def _mean(values_BCHW: Tensor, mask_B1HW: Tensor | None) -> float:
    if mask_B1HW is None:
        return values_BCHW.mean().item()
    weights = mask_B1HW.to(values_BCHW).expand_as(values_BCHW)
    return ((values_BCHW * weights).sum() / weights.sum()).item()
