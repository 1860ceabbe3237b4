"""Loaders of denoisers that follow instructions: they read the picture to edit beside the noisy latents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphflow.models.refs import ModelRef, loader
from graphflow.nodes.loaders.diffusion import SCHEDULER_OPTION, UNET_FILES, with_schedule

if TYPE_CHECKING:
    import torch


@loader("diffusers.instruct_unet", role="instruct_denoiser", files=UNET_FILES, options=SCHEDULER_OPTION)
def load_instruct_unet(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """A UNet of InstructPix2Pix's kind, as `nodes.lib.instruct_pix2pix.InstructDenoiser`."""
    from diffusers import UNet2DConditionModel

    from graphflow.nodes.lib.instruct_pix2pix import InstructDenoiser

    return with_schedule(InstructDenoiser, UNet2DConditionModel, ref, folder, device, dtype)
