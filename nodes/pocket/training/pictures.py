"""Pictures of the pocket world as tensors."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..world import Scene, render


def pixels_of(scenes: list[Scene], size: int) -> Tensor:
    """The pictures of `scenes`, float32 (b, 3, size, size) in [-1, 1]."""
    return to_pixels([render(scene, size) for scene in scenes])


def to_pixels(images: list[Image.Image]) -> Tensor:
    """RGB images of one size, float32 (b, 3, h, w) in [-1, 1]."""
    stack = np.stack([np.asarray(image) for image in images])
    return torch.from_numpy(stack).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_images(x_BCHW: Tensor) -> list[Image.Image]:
    """The inverse of `to_pixels`; values beyond [-1, 1] are clipped."""
    bytes_BHWC = ((x_BCHW.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in bytes_BHWC]
