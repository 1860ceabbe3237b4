"""Pixels to latents and back, through a diffusers autoencoder.

Shapes: B batch, C latent channels, H W picture height and width in pixels, h w the same divided by the VAE's factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor


def to_pixels(images: list[Image.Image]) -> Tensor:
    """RGB pictures of one size as pixels in [-1, 1], (B, 3, H, W), float32."""
    levels_BHW3 = np.stack([np.asarray(image.convert("RGB")) for image in images])
    return torch.from_numpy(levels_BHW3).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_images(pixels_B3HW: Tensor) -> list[Image.Image]:
    """Pixels in [-1, 1] as RGB pictures; values outside are clipped, levels are rounded to the nearest.

    Raises:
        ValueError: a pixel is not a number, which would come out as a plausible colour.
    """
    pixels_B3HW = pixels_B3HW.detach().float().cpu()
    if not bool(torch.isfinite(pixels_B3HW).all()):
        raise ValueError("the picture has values that are not finite: the latents are damaged or overflowed")
    levels_BHW3 = ((pixels_B3HW + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(levels_HW3) for levels_HW3 in levels_BHW3]


class VAE:
    """An autoencoder together with the scaling that its denoiser was trained on.

    Latents are (z - mean)·scaling_factor / std: mean is the config's ``shift_factor`` (SD 3) or ``latents_mean``,
    std its ``latents_std``; without them 0 and 1 (Stable Diffusion 1 and 2, SDXL).

    Attributes:
        model: the network, in evaluation mode and frozen.
        factor: how many pixels of a side fall on one latent.
        native_size: side in pixels of the pictures it was trained on.
    """

    def __init__(self, model: AutoencoderKL, native_size: int | None = None, shift_factor: float | None = None) -> None:
        """Freeze the autoencoder and read how its latents are scaled.

        Args:
            model: a `diffusers.AutoencoderKL`; it is frozen in place.
            native_size: side of the pictures that the denoiser was trained on; None for the config's ``sample_size``.
            shift_factor: instead of the config's.
        """
        config = model.config
        self.model = model.eval().requires_grad_(False)
        self.factor = 2 ** (len(config.block_out_channels) - 1)
        side = native_size or (config.sample_size if isinstance(config.sample_size, int) else min(config.sample_size))
        self.native_size = max(self.factor, side // self.factor * self.factor)
        self._scaling: float = config.scaling_factor
        shift = config.get("shift_factor") if shift_factor is None else shift_factor
        mean = config.get("latents_mean")
        self._mean = torch.tensor(mean or shift or 0.0).float().reshape(1, -1, 1, 1)
        self._std = torch.tensor(config.get("latents_std") or 1.0).float().reshape(1, -1, 1, 1)

    def encode(self, pixels_B3HW: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        """Scaled latents, (B, C, h, w), float32.

        Args:
            pixels_B3HW: pixels in [-1, 1].
            generators: a CPU generator for each picture to sample the posterior with; None takes its mode.

        Raises:
            ValueError: a side is no multiple of `factor`, so that decoding would return another size.
        """
        posterior = self._posterior(pixels_B3HW)
        z_BChw = posterior.mean.float()
        if generators is not None:
            draws = [torch.randn(1, *z_BChw.shape[1:], generator=generator) for generator in generators]
            noise_BChw = torch.cat(draws).to(z_BChw.device)
            z_BChw = z_BChw + posterior.std.float() * noise_BChw
        mean, std = self._mean.to(z_BChw.device), self._std.to(z_BChw.device)
        return (z_BChw - mean) * self._scaling / std

    def encode_unscaled(self, pixels_B3HW: Tensor) -> Tensor:
        """The posterior's mode as the network gives it, (B, C, h, w), float32: what InstructPix2Pix's UNet reads.

        Raises:
            ValueError: as `encode`.
        """
        mode_BChw: Tensor = self._posterior(pixels_B3HW).mean.float()
        return mode_BChw

    def _posterior(self, pixels_B3HW: Tensor) -> Any:
        height, width = pixels_B3HW.shape[-2:]
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"the picture is {width} × {height} pixels; both sides must be multiples of {self.factor} "
                "(image.prepare fits a picture)"
            )
        with torch.no_grad():
            return self.model.encode(pixels_B3HW.to(self.model.device, self.model.dtype)).latent_dist

    def decode(self, latents_BChw: Tensor) -> Tensor:
        """Pixels, (B, 3, H, W), float32; about [-1, 1], not clipped."""
        latents_BChw = latents_BChw.float()
        mean, std = self._mean.to(latents_BChw.device), self._std.to(latents_BChw.device)
        z_BChw = latents_BChw * std / self._scaling + mean
        with torch.no_grad():
            pixels_B3HW = self.model.decode(z_BChw.to(self.model.device, self.model.dtype)).sample
        return pixels_B3HW.float()
